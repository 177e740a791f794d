"""Waits for the end of runs. All waits for runs of one job share one poller, which exists while there are any.

An outage ends no wait: after a transient failure the run is polled again, until the wait's own timeout.
"""

import asyncio
import math

from tfruns._checks import checked_string, checked_timeout
from tfruns._watch.pace import Closing, Outages, Pace, checked_interval, is_transient
from tfruns._watch.poll import Job, Lister
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


class Waits:
    """All waits of a client."""

    def __init__(self, client: Lister, closing: Closing) -> None:
        self._client = client
        self._closing = closing
        self._pollers: dict[str, _Poller] = {}

    async def wait(
        self,
        job_id: str,
        run: str,
        *,
        timeout: float | None,  # noqa: ASYNC109
        raise_for_failure: bool,
        interval: Interval,
    ) -> JobRun:
        """See `Client.wait_for_run`."""
        checked_string(run, "run", "the id or the name of a run, as a string")
        if not run.strip():
            raise ValueError(f"run is empty: {run!r}")
        if timeout is not None:
            checked_timeout(timeout)
        seconds = checked_interval(interval)
        last: JobRun | None = None
        waiter: asyncio.Future[JobRun] | None = None
        time = asyncio.timeout(timeout)
        try:
            async with time:
                last = await self._named(job_id, run, seconds)
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
        pollers, self._pollers = self._pollers, {}
        for poller in pollers.values():
            await poller.stop()
            poller.fail_all(ClientClosedError)

    async def _named(self, job_id: str, text: str, interval: tuple[float, float]) -> JobRun:
        outages, pace, loop = Outages(_ACTIVITY), Pace(interval), asyncio.get_running_loop()
        while not self._closing.is_set():
            try:
                found = await Job(self._client, job_id, {}).first(text, lambda run: text in (run.id, run.name))
            except TfRunsError as error:
                if not is_transient(error):
                    raise
                seconds = pace.after_failure()
                outages.failed(error, job_id, seconds, now=loop.time())
                await self._closing.wait((), seconds)
            else:
                outages.passed(job_id, now=loop.time())
                if found is None:
                    raise RunNotFoundError(f"there is no run with the id or the name {text!r}", job_id=job_id, run=None)
                return found
        raise ClientClosedError

    def _join(self, run: JobRun, job_id: str, interval: tuple[float, float]) -> "asyncio.Future[JobRun]":
        if self._closing.is_set():
            raise ClientClosedError
        poller = self._pollers.get(job_id)
        if poller is None or poller.is_over:
            poller = self._pollers[job_id] = _Poller(Job(self._client, job_id, {}))
        return poller.join(run, interval)

    async def _leave(self, job_id: str, waiter: "asyncio.Future[JobRun]") -> None:
        poller = self._pollers.get(job_id)
        if poller is not None and poller.leave(waiter):
            del self._pollers[job_id]
            await poller.stop()


class _Poller:
    """Polls runs of one job until the last of them has ended."""

    def __init__(self, job: Job) -> None:
        self._job = job
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

    def _now(self) -> float:
        return self._task.get_loop().time()

    async def _poll(self) -> None:
        seconds = 0.0
        pace: Pace | None = None
        while True:
            if self._joined.is_set() or pace is None:
                await self._joined.wait()
                self._joined.clear()
                intervals = [interval for _, interval in self._waiters.values()]
                pace = Pace((min(least for least, _ in intervals), min(most for _, most in intervals)))
                seconds = pace.next(changed=True)
            try:
                async with asyncio.timeout(seconds):
                    await self._joined.wait()
                continue
            except TimeoutError:
                pass
            try:
                found = await self._job.find(self._runs.copy(), math.inf)
            except Exception as error:
                if not isinstance(error, TfRunsError) or not is_transient(error):
                    self.fail_all(error)
                    return
                seconds = pace.after_failure()
                self._outages.failed(error, self._job.job_id, seconds, now=self._now())
            else:
                self._outages.passed(self._job.job_id, now=self._now())
                seconds = pace.next(changed=self._take(found))

    def _take(self, found: dict[str, JobRun | None]) -> bool:
        """End the waits whose run has ended or is gone. Returns whether any run changed."""
        changed = False
        for waiter, (run_id, _) in self._waiters.items():
            if run_id not in found or waiter.done():
                continue
            run, last = found[run_id], self._runs[run_id]
            if run is None:
                text = f"run {run_id!r} was deleted, it was {last.status}"
                waiter.set_exception(RunDeletedError(text, job_id=self._job.job_id, run=last))
            elif run.status.is_terminal:
                waiter.set_result(run)
            changed |= run is None or run.status != last.status
        self._runs |= {run_id: run for run_id, run in found.items() if run is not None and run_id in self._runs}
        return changed
