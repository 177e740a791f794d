"""Waits for the end of runs. All waits for runs of one job share one loop of polls, which exists while there are any.

An outage ends no wait: after a transient failure the run is polled again, until the wait's own timeout. No single
response ends one either, unless it shows the end of the run.
"""

import asyncio
import math
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import attrs

from tfruns._checks import checked_number, checked_string, checked_timeout
from tfruns._http.connections import ClosedSignal, running_loop
from tfruns._text import printable, shortened
from tfruns._watch.poll import IterRuns, Job
from tfruns._watch.schedule import PollSchedule, Trouble, checked_interval
from tfruns.errors import RunDeletedError, RunFailedError, RunNotFoundError, TfRunsError, WaitTimeoutError
from tfruns.models import JobRun, JobRunStatus
from tfruns.types import Interval


class RunWaiter:
    """All waits of a client."""

    def __init__(self, iter_runs: IterRuns, closed: ClosedSignal) -> None:
        self._iter_runs = iter_runs
        self._closed = closed
        self._loops: WeakValueDictionary[str, WaitLoop] = WeakValueDictionary()
        self._trouble = Trouble("the wait", closed.now)

    async def wait(
        self,
        job_id: str,
        run: str,
        timeout: float | None,  # noqa: ASYNC109
        listed_within: float,
        raise_for_failure: bool,
        interval: Interval,
    ) -> JobRun:
        checked_string(run, "run", "the id or the name of a run, as a string")
        if not run.strip():
            raise ValueError(f"run is empty: {run!r}")
        if timeout is not None:
            checked_timeout(timeout)
        checked_number(listed_within, "listed_within", "seconds, a number from 0 to 86,400", least=0, most=86_400)
        seconds = checked_interval(interval)
        job, last = Job(self._iter_runs, job_id, {}), None
        running_loop()  # or an error that says what is missing
        time = asyncio.timeout(timeout)
        try:
            async with time:
                last = await self._named(job, run, seconds, listed_within)
                if not last.status.is_terminal:
                    loop = self._loops.get(job_id)
                    if loop is None or loop.is_over:
                        loop = self._loops[job_id] = WaitLoop(job, self._closed, self._trouble)
                    last = await loop.end_of(last, seconds)
        except TimeoutError:
            if not time.expired():
                raise
            seen = "" if last is None else f", it is {printable(last.status)}"
            text = f"run {run!r} hasn't ended within {timeout:g} s{seen}"
            raise WaitTimeoutError(text, job_id=job_id, run=last) from None
        if raise_for_failure and last.status != JobRunStatus.FINISHED:
            why = f": {printable(shortened(last.error))}" if last.error else ""
            raise RunFailedError(f"run {run!r} has ended as {last.status}{why}", job_id=job_id, run=last)
        return last

    async def _named(self, job: Job, text: str, interval: tuple[float, float], listed_within: float) -> JobRun:
        """The run with this id or name, as soon as it is listed."""
        schedule = PollSchedule(job.job_id, interval, Trouble("the wait", self._closed.now))
        missed_at: float | None = None
        while True:
            try:
                found = await job.first(text, lambda run: text in (run.id, run.name))
            except TfRunsError as error:
                seconds = schedule.after_failure(error, was_polled=missed_at is not None or job.job_id in self._loops)
            else:
                schedule.end_outage()
                if found is not None:
                    return found
                now = self._closed.now()
                missed_at = now if missed_at is None else missed_at
                seconds = min(missed_at + listed_within - now, interval[0], 1.0)
                if seconds <= 0:
                    within = f", and none was listed within {listed_within:g} s" if listed_within else ""
                    message = f"there is no run with the id or the name {text!r}{within}"
                    raise RunNotFoundError(message, job_id=job.job_id, run=None)
            await self._closed.wait(seconds)


@attrs.define(eq=False)
class _Waiter:
    run: JobRun
    """As it was seen last."""
    interval: tuple[float, float]
    end: "asyncio.Future[Any]" = attrs.field(factory=asyncio.Future)
    """The run, once it has ended; None if it was deleted."""


class WaitLoop:
    """Polls runs of one job until the last of them has ended."""

    def __init__(self, job: Job, closed: ClosedSignal, trouble: Trouble) -> None:
        self._waiters: set[_Waiter] = set()
        self._job = job
        self._closed = closed
        self._schedule = PollSchedule(job.job_id, (math.inf, math.inf), trouble)
        self._due = math.inf  # when the next poll begins
        self._joined: asyncio.Future[None] = asyncio.Future()
        self._task: asyncio.Task[JobRun] = asyncio.create_task(self._poll(), name=f"tfruns wait {job.job_id}")

    @property
    def is_over(self) -> bool:
        return not self._waiters or self._task.done() or self._task.get_loop().is_closed()

    async def end_of(self, run: JobRun, interval: tuple[float, float]) -> JobRun:
        """The run, once it has ended. With the last wait the loop is over."""
        waiter = _Waiter(run, interval)
        self._waiters.add(waiter)
        intervals = [waiter.interval for waiter in self._waiters]
        self._schedule.interval = min(least for least, _ in intervals), min(most for _, most in intervals)
        self._due = min(self._due, self._closed.now() + self._schedule.next(changed=True))
        if not self._joined.done():
            self._joined.set_result(None)
        try:
            await asyncio.wait([waiter.end, self._task], return_when=asyncio.FIRST_COMPLETED)
            ended: JobRun | None = waiter.end.result() if waiter.end.done() else self._task.result()
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._schedule.forget()
        if ended is None:
            last = waiter.run
            text = f"run {last.id!r} was deleted, it was {printable(last.status)}"
            raise RunDeletedError(text, job_id=self._job.job_id, run=last)
        return ended

    async def _poll(self) -> NoReturn:
        while True:
            while (seconds := self._due - self._closed.now()) > 0:
                self._joined = asyncio.Future()
                await self._closed.wait(seconds, self._joined)
            try:
                found = await self._job.find({waiter.run.id: waiter.run for waiter in self._waiters}, math.inf)
            except TfRunsError as error:
                seconds = self._schedule.after_failure(error, was_polled=True)
            else:
                self._schedule.end_outage()
                seconds = self._schedule.next(changed=self._take(found))
            self._due = self._closed.now() + seconds

    def _take(self, found: dict[str, JobRun | None]) -> bool:
        """End the waits whose run has ended or was deleted. Returns whether any run changed."""
        doubted = self._schedule.doubted({run_id: None for run_id, run in found.items() if run is None})
        changed = False
        for waiter in self._waiters:
            last, run = waiter.run, found.get(waiter.run.id, waiter.run)  # one that has joined meanwhile isn't in there
            is_deleted = run is None and last.id not in doubted
            waiter.run = run or last
            changed |= is_deleted or waiter.run.status != last.status
            if (is_deleted or waiter.run.status.is_terminal) and not waiter.end.done():
                waiter.end.set_result(None if is_deleted else waiter.run)
        return changed
