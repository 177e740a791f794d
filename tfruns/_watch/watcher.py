"""The watch: looks at jobs again and again, and tells what changed."""

import asyncio
import functools
import heapq
import logging
import math
import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import attrs

from tfruns._http.retry import is_retried
from tfruns._watch.diff import ChangeKind, Step, View, begin, compare
from tfruns._watch.poll import Job
from tfruns._watch.token import decode, encode
from tfruns.described import described
from tfruns.errors import ClientClosedError, IncompleteWalkError, TfRunsError
from tfruns.lists import RunLister
from tfruns.models import JobRun
from tfruns.query import RunFilter, checked_job_id

logger = logging.getLogger("tfruns")

Start = Literal["now", "open", "existing"]
"""What a watch tells first: nothing that is there already, the runs that are open, or every run."""

Interval = float | tuple[float, float]
"""Seconds between two looks at a job: always the same, or the least and the most."""

_GROWTH = 1.5


@described
@attrs.frozen(kw_only=True)
class RunChange:
    """What happened to a run between two looks at its job.

    Example:
        >>> async for change in client.watch_runs("job-a", start="existing"):
        ...     print(change.kind, change.run.name, change.run.status)
        ...     break
        >>> with open("watch.token", "w") as file:
        ...     length = file.write(change.resume_token)

    .. versionadded:: 0.1.0
    """

    kind: ChangeKind
    """What happened: `appeared`, `changed`, `finished` or `deleted`."""
    job_id: str
    """The job."""
    run: JobRun
    """The run as it stands now; a deleted one as it was seen last."""
    before: JobRun | None
    """The run as it was told last; None if it is new."""
    _make_token: Callable[[], str] = attrs.field(eq=False, repr=False, alias="make_token")

    @property
    def resume_token(self) -> str:
        """Where the watch stands after this change: give it to `Client.watch_runs` to go on from here.

        A plain ASCII string. It grows with the jobs watched: it holds the open runs and up to 50 ended ones of each,
        compressed. It is made anew each time it is read; keep one now and then rather than each.

        Where several jobs are watched, it stands for all of them.
        """
        return self._make_token()


def passes(error: TfRunsError) -> bool:
    """Whether a look that failed so may succeed later, though its retries didn't."""
    return is_retried(error) or isinstance(error, IncompleteWalkError)


def checked_interval(interval: Interval) -> tuple[float, float]:
    """The least and the most seconds between two looks."""
    least, most = interval if isinstance(interval, tuple) and len(interval) == 2 else (interval, interval)
    for seconds in (least, most):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"interval must be seconds, or the least and the most of them, got {interval!r}")
        if not 0 < seconds <= 86_400:
            raise ValueError(f"interval must be above 0 and at most 86,400 seconds, got {interval!r}")
    if least > most:
        raise ValueError(f"interval must be the least seconds and then the most, got {interval!r}")
    return least, most


class Pace:
    """How long to wait until the next look: short while runs move, ever longer while nothing happens."""

    def __init__(self, interval: tuple[float, float]) -> None:
        self._least, self._most = interval
        self._now = self._least

    def next(self, *, moved: bool) -> float:
        """Seconds to wait after a look that found this; up to a fifth less by chance, so that jobs spread."""
        self._now = self._least if moved else min(self._most, self._now * _GROWTH)
        return self._least + (self._now - self._least) * random.uniform(0.8, 1)  # noqa: S311

    def slowest(self) -> float:
        """Seconds to wait after a look that failed."""
        self._now = self._most
        return self._most


class Timer:
    """Time as a watch sees it; a test may put its own in place."""

    def now(self) -> float:
        """Seconds since whenever."""
        return asyncio.get_running_loop().time()

    async def wait(self, tasks: Collection["asyncio.Task[Any]"], closed: asyncio.Event, seconds: float) -> None:
        """Until one of the tasks is done, the client is closed, or so many seconds (maybe inf) have passed."""
        closing = asyncio.ensure_future(closed.wait())
        try:
            timeout = None if seconds == math.inf else seconds
            await asyncio.wait([*tasks, closing], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()


@attrs.frozen(kw_only=True)
class Watch:
    """What to watch, and how: the arguments of `Client.watch_runs`, validated."""

    client: RunLister
    closed: asyncio.Event
    job_ids: tuple[str, ...]
    filters: Mapping[str, Any]
    statuses: frozenset[str] | None
    interval: tuple[float, float]
    since: float
    tells_open: bool
    views: Mapping[str, View]
    timer: Timer = attrs.field(factory=Timer)

    @classmethod
    def of(
        cls,
        client: RunLister,
        closed: asyncio.Event,
        job_ids: Iterable[str] | str,
        *,
        interval: Interval,
        start: Start | datetime,
        resume_token: str | None,
        status: Any,
        **filters: Any,
    ) -> "Watch":
        """The watch that these arguments ask for."""
        several = (job_ids,) if isinstance(job_ids, str) or not isinstance(job_ids, Iterable) else job_ids
        jobs = tuple(dict.fromkeys(map(checked_job_id, several)))
        if not jobs:
            raise ValueError("job_ids is empty: there is nothing to watch")
        checked = RunFilter(status=status, **filters)
        kept = {name: value for name in filters if (value := getattr(checked, name)) is not None}
        return cls(
            client=client,
            closed=closed,
            job_ids=jobs,
            filters=kept,
            statuses=None if checked.status is None else frozenset(checked.status),
            interval=checked_interval(interval),
            since=_checked_since(start),
            tells_open=start == "open",
            views={} if resume_token is None else decode(resume_token, jobs, kept),
        )

    async def changes(self) -> AsyncGenerator[RunChange]:
        """Look at each job when its time has come, for ever, and yield what changed.

        A job is looked at only after all its changes were taken: a slow consumer makes for fewer looks, and so for
        merged changes. Looks at several jobs may be under way while the consumer is busy, one of each.
        """
        views = dict(self.views)
        paces = {job_id: Pace(self.interval) for job_id in self.job_ids}
        due = [(self.timer.now(), at, job_id) for at, job_id in enumerate(self.job_ids)]
        looks: dict[asyncio.Task[tuple[View, Sequence[Step], View]], str] = {}
        try:
            while True:
                now = self.timer.now()
                while due and due[0][0] <= now:
                    _, _, job_id = heapq.heappop(due)
                    look = self._look(job_id, views.get(job_id))
                    looks[asyncio.create_task(look, name=f"tfruns watch {job_id}")] = job_id
                await self.timer.wait(looks, self.closed, due[0][0] - now if due else math.inf)
                if self.closed.is_set():
                    raise ClientClosedError
                for task in [task for task in looks if task.done()]:
                    job_id = looks[task]
                    try:
                        before, steps, after = task.result()
                    except TfRunsError as error:
                        if not passes(error):
                            raise
                        seconds = paces[job_id].slowest()
                        log_failure(error, job_id, seconds)
                    else:
                        others = views.copy() if steps else {}
                        for at, step in enumerate(steps, 1):
                            if self.statuses is None or step.run.status in self.statuses:
                                token = functools.partial(
                                    _token, others, self.filters, job_id, before, steps, at, after
                                )
                                yield RunChange(
                                    kind=step.kind, job_id=job_id, run=step.run, before=step.before, make_token=token
                                )
                        views[job_id] = after
                        seconds = paces[job_id].next(moved=bool(steps))
                    del looks[task]
                    heapq.heappush(due, (self.timer.now() + seconds, len(due), job_id))
        finally:
            for task in looks:
                task.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _look(self, job_id: str, view: View | None) -> tuple[View, Sequence[Step], View]:
        """What was known, what happened since, and what is known now."""
        job = Job(self.client, job_id, self.filters)
        if view is None:
            look = await job.first_look(self.since)
            view = begin(look, since=self.since, tells_open=self.tells_open)
        else:
            look = await job.look(view)
        return view, *compare(view, look)


def _token(
    others: Mapping[str, View],
    filters: Mapping[str, Any],
    job_id: str,
    before: View,
    steps: Sequence[Step],
    at: int,
    after: View,
) -> str:
    view = after if at == len(steps) else before.after(steps[:at], steps[at:])
    return encode({**others, job_id: view}, filters)


def log_failure(error: TfRunsError, job_id: str, seconds: float) -> None:
    """Say that a look failed, and when the next one is."""
    logger.warning(
        "%s; the watch goes on, its next look is in %.2f s", error, seconds, extra={"job_id": job_id, "wait": seconds}
    )


def _checked_since(start: Start | datetime) -> float:
    """From which time of creation on runs are told, in ms since 1970."""
    allowed = f"start must be one of {', '.join(map(repr, get_args(Start)))}, or a datetime with a zone"
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError(f"{allowed}, got {start!r}")
        return start.timestamp() * 1000
    if not isinstance(start, str):
        raise TypeError(f"{allowed}, got {start!r}")
    if start not in get_args(Start):
        raise ValueError(f"{allowed}, got {start!r}")
    return -math.inf if start == "existing" else math.inf
