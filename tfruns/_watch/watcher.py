"""The watch: polls jobs again and again, and reports what changed.

A resume token stands for all jobs of the watch: a watch that goes on from it reports what happened in each of them
since. But what a first poll finds counts as there already, and so would all that happens between a token from before it
and the first poll after a restart. Therefore reports, and so tokens, wait for first polls; but no longer than until
none has ended for 10 seconds. The jobs that are left get a watermark: the newest time of creation or end that the first
polls of the other jobs showed, no later than the server's clock when the watch began. What was created or ended since
is reported when their first poll succeeds, in this process or in one that goes on from a token. (The `Date` of a
response would be closer, but proxies have clocks of their own, and with one that is ahead changes would be lost.)
"""

import asyncio
import functools
import inspect
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeGuard, get_args

import attrs
import msgspec
from msgspec.structs import replace

from tfruns._checks import check_on_error, checked_job_id, likely
from tfruns._http.connections import ClosedSignal, running_loop
from tfruns._log import log
from tfruns._token import pack, unpack
from tfruns._watch.diff import Beginning, Found, RunChange, Snapshot, compare, snapshot_before, steps_back
from tfruns._watch.poll import IterRuns, Job
from tfruns._watch.schedule import PollSchedule, Trouble, checked_interval
from tfruns.errors import NOT_ABOUT_ONE_JOB, APIConnectionError, TfRunsError
from tfruns.query import RunFilter, given_filters
from tfruns.types import Interval, OnError, Start

_VERSION = "tfruns1"  # of tokens
_PATIENCE = 10.0  # in seconds: reports wait no longer for first polls if none of them ends in that time
_CLOCK_AHEAD = 3600.0  # in seconds: this machine's clock may be ahead of the server's

State = dict[str, Snapshot | Beginning]
"""What a watch knows of its jobs, by their ids, those that weren't polled yet included: the content of a token."""


def encode(state: State, filters: Mapping[str, Any]) -> str:
    """The token of a watch with these filters in this state."""
    return pack(_VERSION, filters, msgspec.to_builtins(state))


def decode(token: str, job_ids: Collection[str], filters: Mapping[str, Any]) -> State:
    """What the token holds about these jobs; an error says why it can't be used."""

    def read(content: Any) -> State:
        kinds: dict[bool, type[Snapshot | Beginning]] = {True: Snapshot, False: Beginning}
        return {job_id: msgspec.convert(known, kinds["known" in known]) for job_id, known in content.items()}

    _, state = unpack(_VERSION, token, filters, read)
    if state and not state.keys() & set(job_ids):
        raise ValueError(f"resume_token is of a watch of other jobs: {', '.join(map(repr, [*state][:3]))}")
    return {job_id: state[job_id] for job_id in job_ids if job_id in state}


class RunWatch(AsyncIterator[RunChange]):
    """The changes of the runs of jobs, as `Client.watch_runs` returns them: an async iterator of `RunChange`.

    Nothing is requested until it is iterated. It never ends by itself: `break`, an error, a cancellation or `aclose`
    ends it, together with its requests in flight. After `break`, Python closes it a moment later; `contextlib.aclosing`
    closes it at once.

    Attributes:
        skipped: the jobs that can't be polled for now, by id, each with its last error. A job that can be polled again
            is removed.

    Example:
        >>> changes = client.watch_runs(["job-a", "no-such-job"], start="open", on_error="skip")
        >>> async for change in changes:
        ...     print(change.kind, change.run.name, "skipped:", ", ".join(changes.skipped))  # doctest: +ELLIPSIS
        ...     break
        appeared ... skipped: no-such-job
    """

    def __init__(self, watch: "Watch") -> None:
        self.skipped: dict[str, TfRunsError] = watch.skipped
        # The generator refers to the watch, but not to this object: so `break` frees both at once.
        self._changes = watch.changes()

    async def __anext__(self) -> RunChange:
        return await anext(self._changes)

    async def aclose(self) -> None:
        """End the watch and its requests in flight. Ending it twice does nothing.

        Raises:
            RuntimeError: a task waits for the next change: cancel that task, which ends the watch as well.

        Example:
            >>> changes = client.watch_runs("job-a")
            >>> change = await anext(changes)
            >>> await changes.aclose()
        """
        await self._changes.aclose()


class Watch:
    """A watch with these arguments of `Client.watch_runs`: its polls, and what is known from them."""

    def __init__(
        self,
        iter_runs: IterRuns,
        closed: ClosedSignal,
        job_ids: Iterable[str] | str,
        interval: Interval,
        start: Start | datetime,
        resume_token: str | None,
        on_error: OnError,
        chosen: RunFilter,
    ) -> None:
        several = (job_ids,) if isinstance(job_ids, (str, bytes)) or not isinstance(job_ids, Iterable) else job_ids
        jobs = list(dict.fromkeys(map(checked_job_id, several)))
        if not jobs:
            raise ValueError("job_ids is empty: there is nothing to watch")
        check_on_error(on_error)
        if chosen.has_window or chosen.sort_by or chosen.order:
            raise ValueError("filter has an order or a time of creation, which a watch can't go by: make one without")
        seconds = checked_interval(interval)
        self.skipped: dict[str, TfRunsError] = {}
        self._iter_runs = iter_runs
        self._closed = closed
        self._filters = given_filters(chosen)
        self._statuses: Collection[str] | None = self._filters.pop("status", None)
        self._on_error = on_error
        self._state: State = dict.fromkeys(jobs, _beginning(start))
        if resume_token is not None:
            self._state |= decode(resume_token, jobs, self._filters)
        trouble = Trouble("the watch", closed.now)
        self._schedules = {job_id: PollSchedule(job_id, seconds, trouble) for job_id in jobs}
        # What reports wait for, until they have begun:
        self._awaited = {job_id for job_id, known in self._state.items() if _needs_watermark(known)}
        self._latest: dict[str, float] = {}

    async def changes(self) -> AsyncGenerator[RunChange]:
        """Poll each job in a task of its own, which ends with what has changed, and begins anew once that was taken."""
        loop = running_loop()
        self._has_begun, self._first_poll = loop.create_future(), loop.create_future()
        self._epoch = time.time() - self._closed.now()  # in seconds since 1970, when the clock of `closed` was at 0
        ended: asyncio.Queue[str] = asyncio.Queue()
        tasks: dict[str, asyncio.Task[Found | None]] = {}

        def start(name: str, work: Coroutine[Any, Any, Found | None]) -> None:
            tasks[name] = asyncio.create_task(work, name=f"tfruns watch {name}")
            tasks[name].add_done_callback(lambda _: ended.put_nowait(name))

        try:
            start("", self._begin())
            for job_id in self._state:
                start(job_id, self._next(job_id, 0.0))
            while True:
                job_id = await ended.get()
                try:
                    found = tasks[job_id].result()
                except TfRunsError as error:
                    start(job_id, self._next(job_id, await self._skip(job_id, error)))
                    continue
                if found is None:
                    continue
                state = self._state.copy()
                for at, change in enumerate(found.changes, 1):
                    if self._statuses is None or change.run.status in self._statuses:
                        make_token = functools.partial(_token, state, self._filters, job_id, found, at)
                        yield attrs.evolve(change, make_token=make_token)
                self._state[job_id] = found.after
                start(job_id, self._next(job_id, self._schedules[job_id].next(changed=True)))
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _begin(self) -> None:
        """Let reports begin, and give a watermark to the jobs that they don't wait for any longer."""
        while not self._latest or self._awaited:
            self._first_poll = running_loop().create_future()
            await self._closed.wait(_PATIENCE if self._latest else math.inf, self._first_poll)
            if not self._first_poll.done():
                break
        # If no job has a run, no time by the server's clock is known, and this machine's may be ahead.
        latest = max(self._latest.values())
        watermark = latest if latest > -math.inf else (self._epoch + self._closed.now() - _CLOCK_AHEAD) * 1000
        for job_id, known in self._state.items():
            if _needs_watermark(known):
                self._state[job_id] = replace(known, since=min(known.since, watermark), watermark=watermark)
        self._has_begun.set_result(None)

    async def _next(self, job_id: str, pause: float) -> Found:
        """What has changed next: poll the job after so many seconds, and on and on while nothing has changed."""
        job, schedule = Job(self._iter_runs, job_id, self._filters), self._schedules[job_id]
        while True:
            await self._closed.wait(pause)
            known = self._state[job_id]
            try:
                poll = await job.poll(known)
            except TfRunsError as error:
                if job_id in self._awaited:
                    self._end_first_poll(job_id)
                was_polled = isinstance(known, Snapshot) and job_id not in self.skipped
                pause = schedule.after_failure(error, was_polled=was_polled)
                continue
            schedule.end_outage()
            self.skipped.pop(job_id, None)
            if job_id not in self._latest:
                self._latest[job_id] = poll.latest
                self._end_first_poll(job_id)
            if known is not self._state[job_id]:  # reports have begun meanwhile, without this job
                pause = 0.0
                continue
            snapshot = snapshot_before(known, poll, self._epoch + self._closed.now())
            found = compare(job_id, snapshot, poll, schedule.doubted(steps_back(snapshot, poll)))
            self._state[job_id] = found.before if found.changes else found.after
            if found.changes:
                await self._closed.wait(math.inf, self._has_begun)
                return found
            pause = schedule.next(changed=False)

    def _end_first_poll(self, job_id: str) -> None:
        self._awaited.discard(job_id)
        if not self._first_poll.done():
            self._first_poll.set_result(None)

    async def _skip(self, job_id: str, error: TfRunsError) -> float:
        """Raise the error if it ends the watch. Otherwise return the seconds to wait until the next poll."""
        if isinstance(error, (*NOT_ABOUT_ONE_JOB, APIConnectionError)) or self._on_error == "raise":
            raise error
        seconds, is_new = self._schedules[job_id].after_skip(), job_id not in self.skipped
        self.skipped[job_id] = error
        if is_new:
            text = "%s; the job is skipped, and polled again in %.2f s"
            log(logging.WARNING, text, error, seconds, extra={"job_id": job_id, "wait": seconds})
            if callable(self._on_error) and inspect.isawaitable(returned := self._on_error(job_id, error)):
                await returned
        return seconds


def _needs_watermark(known: Snapshot | Beginning) -> TypeGuard[Beginning]:
    return isinstance(known, Beginning) and known.watermark is None and known.since > -math.inf


def _token(state: State, filters: Mapping[str, Any], job_id: str, found: Found, reported: int) -> str:
    return encode({**state, job_id: found.snapshot(reported)}, filters)


def _beginning(start: Start | datetime) -> Beginning:
    if isinstance(start, datetime) and start.utcoffset() is not None:
        return Beginning(start.timestamp() * 1000)
    if isinstance(start, str) and start in get_args(Start):
        return Beginning(-math.inf if start == "existing" else math.inf, start == "open")
    kind = ValueError if isinstance(start, (str, datetime)) else TypeError
    allowed = f"one of {', '.join(map(repr, get_args(Start)))}, or a datetime with a time zone"
    raise kind(f"start must be {allowed}, got {start!r}{likely(start, get_args(Start))}")
