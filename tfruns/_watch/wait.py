"""Waits for the end of runs. All waits for runs of one job share one loop of polls, which exists while there are any.

An outage ends no wait: after a transient failure the run is polled again, until the wait's own timeout. No single
response ends one either, unless it shows the end of the run.
"""

import asyncio
import math

from tfruns._checks import checked_number, checked_string, checked_timeout
from tfruns._http.closed import ClosedSignal, running_loop
from tfruns._watch.confirm import Unconfirmed
from tfruns._watch.poll import Job, Lister
from tfruns._watch.schedule import Outages, PollSchedule, checked_interval, is_transient
from tfruns.errors import (
    ClientClosedError,
    RunDeletedError,
    RunFailedError,
    RunNotFoundError,
    TfRunsError,
    WaitTimeoutError,
)
from tfruns.models import JobRun, JobRunStatus
from tfruns.types import Interval

_ACTIVITY = "the wait"


class RunWaiter:
    """All waits of a client."""

    def __init__(self, client: Lister, closed: ClosedSignal) -> None:
        self._client = client
        self._closed = closed
        self._loops: dict[str, WaitLoop] = {}
        self._unconfirmed = Unconfirmed()

    async def wait(
        self,
        job_id: str,
        run: str,
        *,
        timeout: float | None,  # noqa: ASYNC109
        listed_within: float,
        raise_for_failure: bool,
        interval: Interval,
    ) -> JobRun:
        """See `Client.wait_for_run`."""
        checked_string(run, "run", "the id or the name of a run, as a string")
        if not run.strip():
            raise ValueError(f"run is empty: {run!r}")
        if timeout is not None:
            checked_timeout(timeout)
        checked_number(listed_within, "listed_within", "seconds, a number from 0 to 86,400", least=0, most=86_400)
        seconds = checked_interval(interval)
        last: JobRun | None = None
        waiter: asyncio.Future[JobRun] | None = None
        running_loop()  # or an error that says what is missing
        time = asyncio.timeout(timeout)
        try:
            async with time:
                last = await self._named(job_id, run, seconds, listed_within)
                if not last.status.is_terminal:
                    waiter = self._join(last, job_id, seconds)
                    last = await waiter
        except TimeoutError:
            if not time.expired():
                raise
            seen = "" if last is None else f", it is {last.status}"
            text = f"run {run!r} hasn't ended within {timeout:g} s{seen}"
            raise WaitTimeoutError(text, job_id=job_id, run=last) from None
        finally:
            if waiter is not None:
                await self._leave(job_id, waiter)
        if raise_for_failure and last.status != JobRunStatus.FINISHED:
            why = f": {last.error}" if last.error else ""
            raise RunFailedError(f"run {run!r} has ended as {last.status}{why}", job_id=job_id, run=last)
        return last

    async def aclose(self) -> None:
        """End all waits with a ClientClosedError."""
        loops, self._loops = self._loops, {}
        for loop in loops.values():
            await loop.stop()
            loop.fail_all(ClientClosedError)

    async def _named(self, job_id: str, text: str, interval: tuple[float, float], listed_within: float) -> JobRun:
        """The run with this id or name, as soon as it is listed."""
        outages, schedule, now = Outages(_ACTIVITY), PollSchedule(interval), asyncio.get_running_loop().time
        since: float | None = None
        while not self._closed.is_set:
            try:
                found = await Job(self._client, job_id, {}).first(text, lambda run: text in (run.id, run.name))
            except TfRunsError as error:
                if not is_transient(error):
                    raise
                seconds = schedule.after_failure()
                outages.failed(error, job_id, seconds, now=now())
            else:
                outages.passed(job_id, now=now())
                if found is not None:
                    return found
                since = now() if since is None else since
                seconds = min(since + listed_within - now(), interval[0], 1.0)
                if seconds <= 0:
                    within = f", and none was listed within {listed_within:g} s" if listed_within else ""
                    message = f"there is no run with the id or the name {text!r}{within}"
                    raise RunNotFoundError(message, job_id=job_id, run=None)
            await self._closed.wait((), seconds)
        raise ClientClosedError

    def _join(self, run: JobRun, job_id: str, interval: tuple[float, float]) -> "asyncio.Future[JobRun]":
        if self._closed.is_set:
            raise ClientClosedError
        loop = self._loops.get(job_id)
        if loop is None or loop.is_over:
            loop = self._loops[job_id] = WaitLoop(Job(self._client, job_id, {}), self._unconfirmed)
        return loop.join(run, interval)

    async def _leave(self, job_id: str, waiter: "asyncio.Future[JobRun]") -> None:
        loop = self._loops.get(job_id)
        if loop is not None and loop.leave(waiter):
            del self._loops[job_id]
            self._unconfirmed.forget(job_id)
            await loop.stop()


class WaitLoop:
    """Polls runs of one job until the last of them has ended."""

    def __init__(self, job: Job, unconfirmed: Unconfirmed) -> None:
        self._job = job
        self._unconfirmed = unconfirmed
        self._runs: dict[str, JobRun] = {}  # as they were seen last
        self._waiters: dict[asyncio.Future[JobRun], tuple[str, tuple[float, float]]] = {}
        self._joined = asyncio.Event()
        self._outages = Outages(_ACTIVITY)
        self._task = asyncio.create_task(self._poll(), name=f"tfruns wait {job.job_id}")

    @property
    def is_over(self) -> bool:
        # A task in an event loop that was closed before its end never ends.
        return self._task.done() or self._task.get_loop().is_closed()

    def join(self, run: JobRun, interval: tuple[float, float]) -> "asyncio.Future[JobRun]":
        waiter: asyncio.Future[JobRun] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = run.id, interval
        self._runs[run.id] = run
        self._joined.set()
        return waiter

    def leave(self, waiter: "asyncio.Future[JobRun]") -> bool:
        """Remove the waiter. Returns whether none is left."""
        self._waiters.pop(waiter, None)
        wanted = {run_id for run_id, _ in self._waiters.values()}
        self._runs = {run_id: run for run_id, run in self._runs.items() if run_id in wanted}
        return not self._waiters

    async def stop(self) -> None:
        if not self.is_over:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def fail_all(self, error: Exception | type[Exception]) -> None:
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_exception(error)

    async def _poll(self) -> None:
        job_id, now = self._job.job_id, self._task.get_loop().time
        seconds = 0.0
        schedule: PollSchedule | None = None
        while True:
            if self._joined.is_set() or schedule is None:
                await self._joined.wait()
                self._joined.clear()
                intervals = [interval for _, interval in self._waiters.values()]
                schedule = PollSchedule((min(least for least, _ in intervals), min(most for _, most in intervals)))
                seconds = schedule.next(changed=True)
            try:
                async with asyncio.timeout(min(seconds, self._unconfirmed.pause(job_id))):
                    await self._joined.wait()
                continue
            except TimeoutError:
                pass
            try:
                found = await self._job.find(self._runs.copy(), math.inf)
            except Exception as error:
                if isinstance(error, TfRunsError) and is_transient(error):
                    seconds = schedule.after_failure()
                    self._outages.failed(error, job_id, seconds, now=now())
                elif not isinstance(error, TfRunsError) or not self._unconfirmed.doubts(job_id, error, now()):
                    self.fail_all(error)
                    return
            else:
                self._outages.passed(job_id, now=now())
                missing = {run_id: None for run_id, run in found.items() if run is None and run_id in self._runs}
                doubted = self._unconfirmed.doubted(job_id, missing, now())
                seconds = schedule.next(changed=self._take(found, missing.keys() - doubted))

    def _take(self, found: dict[str, JobRun | None], deleted: set[str]) -> bool:
        """End the waits whose run has ended or was deleted. Returns whether any run changed."""
        changed = bool(deleted)
        for waiter, (run_id, _) in self._waiters.items():
            if waiter.done():
                continue
            if run_id in deleted:
                text = f"run {run_id!r} was deleted, it was {self._runs[run_id].status}"
                waiter.set_exception(RunDeletedError(text, job_id=self._job.job_id, run=self._runs[run_id]))
            elif (run := found.get(run_id)) is not None:
                changed |= run.status != self._runs[run_id].status
                if run.status.is_terminal:
                    waiter.set_result(run)
        self._runs |= {run_id: run for run_id, run in found.items() if run is not None and run_id in self._runs}
        return changed
