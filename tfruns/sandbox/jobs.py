"""The jobs of a sandbox: the list of a job's runs, what users do to it, and what the clock does.

There is one list, the newest run first, each run as the JSON text that is served, beside what filters and orders use.
It is changed in place, and a page of it is a slice. Its older part is made when a page needs it, and simulated when it
is next needed: a job that nobody reads costs nothing, and the newest page of a long list little. Other lists are made
from it when they are requested, and kept until a run changes.
"""

import bisect
import functools
import heapq
import itertools
import math
import operator
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec

from tfruns._checks import checked_seconds
from tfruns.models import JobRun, JobRunsSortBy, SortDirection
from tfruns.models import JobRunStatus as Status
from tfruns.sandbox.data import RunMaker, Wire, decode, encode, ended, from_fields, history, parse

_STEP = 500  # runs to make, or events to simulate, before other requests get their turn: some 10 ms
_MOST_NEW_RUNS = 10_000  # those of three and a half days; after that each new run replaces the oldest
_COURSE: dict[str, tuple[str, Callable[[random.Random], float]]] = {
    "": ("", lambda rng: rng.expovariate(1 / 30)),  # the next run of a job is created
    Status.CREATED: (Status.SCHEDULED, lambda rng: rng.uniform(1, 5)),
    Status.SCHEDULED: (Status.RUNNING, lambda rng: rng.uniform(2, 20)),
    Status.RUNNING: (Status.FINISHED, lambda rng: rng.lognormvariate(4.8, 1)),  # half of them within 2 minutes
    Status.TERMINATION_REQUESTED: (Status.TERMINATING, lambda rng: rng.uniform(1, 3)),
    Status.TERMINATING: (Status.TERMINATED, lambda rng: rng.uniform(2, 30)),
}
"""What follows a status, and after how many seconds."""
_LISTS_KEPT = 8


class Clock:
    """A clock that can be set. Threads may share it.

    Args:
        now: the time to start at, in ms since 1970 UTC.
        rate: how many of its seconds pass in a second; 0 for a clock that only `advance` moves.

    Example:
        >>> before = sandbox.clock.now
        >>> sandbox.clock.advance(60)
        >>> sandbox.clock.now - before
        60000
    """

    def __init__(self, now: float, rate: float = 0.0) -> None:
        self._lock = threading.RLock()
        self._then, self._since, self._rate = float(now), time.monotonic(), checked_seconds(rate, "rate")

    @property
    def now(self) -> int:
        """The clock's time, in whole ms since 1970 UTC."""
        with self._lock:
            return int(self._then + (time.monotonic() - self._since) * 1000 * self._rate)

    @property
    def rate(self) -> float:
        """How many of its seconds pass in a second. It can be set; 0 stops the clock."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = checked_seconds(rate, "rate")
        with self._lock:
            self._then, self._since, self._rate = self.now, time.monotonic(), rate

    def advance(self, seconds: float) -> None:
        """Move the clock forward. It never goes back.

        Args:
            seconds: by how many seconds, 0 or more.

        Raises:
            TypeError, ValueError: `seconds` isn't a number of seconds.

        Example:
            >>> sandbox.clock.advance(3600)
        """
        milliseconds = checked_seconds(seconds, "seconds") * 1000
        with self._lock:
            self._then += milliseconds


@attrs.frozen(kw_only=True, cache_hash=True)
class Selection:
    """Which runs of a job, and in which order. An empty tuple lets every run through."""

    search_prefix: str = ""
    triggered_by: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    version_numbers: tuple[float, ...] = ()
    sort_by: JobRunsSortBy = JobRunsSortBy.START_TIME
    order: SortDirection = SortDirection.DESC


NEWEST_FIRST = Selection()


def as_number(text: str) -> float | None:
    """The number that the text writes as JSON would, or None."""
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


class _Row(msgspec.Struct, frozen=True, gc=False):
    """What a run is selected and sorted by: `start_time` is when it was created."""

    id: str
    name: str
    start_time: float
    duration: int | None
    deployment_version: float | None
    triggered_by: str | None
    status: str
    text: bytes


def _newest_first(row: _Row) -> tuple[Any, ...]:
    return -row.start_time, row.id


class RunList:
    """The runs of one job. Only one thread at a time may use it."""

    def __init__(self, runs: Iterator[Wire], count: int) -> None:
        """It begins with so many of these runs, the newest first."""
        self._older = runs
        self._older_count = count
        self._newest: list[_Row] = []
        self._by_id: dict[str, _Row] = {}
        self._selected = functools.lru_cache(_LISTS_KEPT)(functools.partial(_selected, self._newest))

    def __len__(self) -> int:
        return len(self._newest) + self._older_count

    @property
    def latest(self) -> float:
        """When the newest run that is made was created, in ms since 1970; -1 if there is none."""
        return self._newest[0].start_time if self._newest else -1

    def make(self, most: int, selection: Selection, end: int | None) -> list[tuple[str, str]]:
        """Make up to so many of the runs that a page up to this place needs (None: all pages): ids and statuses."""
        has_page = selection == NEWEST_FIRST and end is not None and end <= len(self._newest)
        if has_page or not self._older_count:
            return []
        rows = [_row(run) for run in itertools.islice(self._older, min(most, self._older_count))]
        self._older_count -= len(rows)
        self._newest += rows
        self._by_id.update((row.id, row) for row in rows)
        self._selected.cache_clear()
        return [(row.id, row.status) for row in rows]

    def page(self, selection: Selection, start: int = 0, end: int | None = None) -> tuple[int, list[bytes]]:
        """How many runs are selected in all, and the JSON texts of those from one place to another (None: to all)."""
        rows = self._newest if selection == NEWEST_FIRST else self._selected(selection)
        return len(rows) + self._older_count, [row.text for row in rows[start:end]]

    def get(self, run_id: str) -> Wire | None:
        row = self._by_id.get(run_id)
        return None if row is None else decode(row.text)

    def put(self, run: Wire) -> None:
        """Add a run, or replace the one with the same id."""
        row = _row(run)
        self.delete(row.id)
        self._by_id[row.id] = row
        bisect.insort_left(self._newest, row, key=_newest_first)
        self._selected.cache_clear()

    def delete(self, run_id: str) -> bool:
        row = self._by_id.pop(run_id, None)
        if row is not None:
            del self._newest[bisect.bisect_left(self._newest, _newest_first(row), key=_newest_first)]
            self._selected.cache_clear()
        return row is not None

    def delete_oldest(self) -> None:
        if self._older_count:
            self._older_count -= 1  # the last of them is never made
        else:
            self.delete(self._newest[-1].id)


def _row(run: Wire) -> _Row:
    return _Row(
        run["id"],
        run["name"],
        run["createdAt"],
        run.get("duration"),
        as_number(run["deploymentVersion"]),
        run.get("triggeredBy"),
        run["status"],
        encode(run),
    )


def _selected(newest_first: list[_Row], selection: Selection) -> list[_Row]:
    """The selected rows, in order. Sorting is stable, so those with equal keys stay newest first."""
    rows = newest_first
    if prefix := selection.search_prefix:
        rows = [row for row in rows if row.id.startswith(prefix) or row.name.startswith(prefix)]
    if slugs := frozenset(selection.triggered_by):
        rows = [row for row in rows if row.triggered_by in slugs]
    if statuses := frozenset(selection.status):
        rows = [row for row in rows if row.status in statuses]
    if versions := frozenset(selection.version_numbers):
        rows = [row for row in rows if row.deployment_version in versions]
    key: Callable[[_Row], Any] = operator.attrgetter(selection.sort_by.name.lower())
    with_key = [row for row in rows if key(row) is not None]
    with_key.sort(key=key, reverse=selection.order == SortDirection.DESC)
    return with_key + [row for row in rows if key(row) is None]  # null comes last in either direction


class Job:
    """The runs of one job; each change has the time of the clock. Threads may share it.

    If it is living, runs are created, and each moves from CREATED to its end. What happens, and when, depends on the
    seed and the clock alone, not on how often the job is read: all events that are due are done before the next request
    for the job, in their order, each with the time when it was due.
    """

    def __init__(self, job_id: str, seed: int, runs: int | list[Wire], clock: Clock, *, living: bool) -> None:
        self._id = job_id
        self._seed = seed
        self._clock = clock
        self._start = clock.now
        self._living = living
        self._lock = threading.RLock()
        if isinstance(runs, int):
            self._runs = RunList(history(seed, job_id, runs, self._start), runs)
        else:
            self._runs = RunList(iter(sorted(runs, key=lambda run: (-run["createdAt"], run["id"]))), len(runs))
        self._most_runs = len(self._runs) + _MOST_NEW_RUNS
        # The events, soonest first: when, and the run that leaves this status ("": a new run comes). If the run is gone
        # by then, or its status was changed by someone else, nothing is done.
        self._due: list[tuple[float, str, str]] = []
        self._expect("", "", self._start)

    @functools.cached_property
    def _maker(self) -> RunMaker:
        return RunMaker(self._seed, self._id, since=self._start)

    def step(self, selection: Selection = NEWEST_FIRST, end: int | None = None) -> bool:
        """Do a part of the work that is needed before a page up to this place can be served (None: all pages). True if
        more is needed.
        """
        with self._lock:
            if made := self._runs.make(_STEP, selection, end):
                for run_id, status in made:
                    self._expect(run_id, status, self._start)
                return True
            now = self._clock.now
            for _ in range(_STEP):
                if not self._due or self._due[0][0] > now:
                    return False
                when, run_id, status = heapq.heappop(self._due)
                if run_id:
                    self._move(run_id, status, when)
                else:
                    self._arrive(when)
            return True

    def page(
        self, selection: Selection = NEWEST_FIRST, start: int = 0, end: int | None = None
    ) -> tuple[int, list[bytes]]:
        with self._lock:
            return self._up_to_date(selection, end).page(selection, start, end)

    def create(self, fields: dict[str, Any]) -> JobRun:
        with self._lock:
            changes = from_fields(fields)
            # One that isn't the newest, or has the id of another, needs them all.
            runs = self._up_to_date(end=None if changes.keys() & {"id", "createdAt"} else 1)
            status = Status(changes.get("status", "CREATED"))
            if runs.latest == self._clock.now:
                self._clock.advance(0.001)
            run = self._maker.run(max(self._clock.now, int(runs.latest) + 1), status) | changes
            if runs.get(run["id"]) is not None:
                raise ValueError(f"job {self._id!r} has a run with the id {run['id']!r} already")
            return self._put(run, {})

    def update(self, run_id: str, fields: dict[str, Any]) -> JobRun:
        with self._lock:
            return self._put(self._run(run_id), from_fields(fields))

    def finish(self, run_id: str, status: Status | str, fields: dict[str, Any]) -> JobRun:
        with self._lock:
            run = self._run(run_id)
            if Status(run["status"]).is_terminal:
                raise ValueError(f"the run {run_id!r} has ended already: it is {run['status']}")
            changes = from_fields({**fields, "status": status})
            status = changes["status"]
            if not isinstance(status, str) or not Status(status).is_terminal:
                allowed = "one that a run ends with, FINISHED, FAILED or TERMINATED"
                raise ValueError(f"status must be {allowed}, got {status!r}")
            return self._put(run, ended(run, Status(status), self._clock.now) | changes)

    def delete(self, run_id: str) -> None:
        with self._lock:
            self._run(run_id)
            self._runs.delete(run_id)

    def _up_to_date(self, selection: Selection = NEWEST_FIRST, end: int | None = None) -> RunList:
        while self.step(selection, end):
            pass
        return self._runs

    def _run(self, run_id: str) -> Wire:
        run = self._up_to_date().get(run_id)
        if run is None:
            raise KeyError(f"job {self._id!r} has no run with the id {run_id!r}")
        return run

    def _put(self, wire: Wire, changes: Wire) -> JobRun:
        if changes.get("id", wire["id"]) != wire["id"]:
            raise ValueError(f"the id of a run can't be changed: got {changes['id']!r} for {wire['id']!r}")
        run = parse(encode(wire | changes))  # refuses what isn't a run, before it is stored
        self._runs.put(wire | changes)
        self._expect(run.id, run.status, self._clock.now)
        return run

    def _expect(self, run_id: str, status: str, now: float) -> None:
        """Schedule what follows this status, which the run has from now on."""
        if self._living and status in _COURSE:
            _, seconds = _COURSE[status]
            after = seconds(self._rng(run_id, status, now - self._start))
            heapq.heappush(self._due, (now + 1 + int(after * 1000), run_id, status))

    def _arrive(self, when: float) -> None:
        run = self._maker.run(int(when), Status.CREATED)
        self._runs.put(run)
        if len(self._runs) > self._most_runs:
            self._runs.delete_oldest()
        self._expect(run["id"], Status.CREATED, when)
        self._expect("", "", when)

    def _move(self, run_id: str, status: str, when: float) -> None:
        run = self._runs.get(run_id)
        if run is None or run["status"] != status:
            return
        following = Status(_COURSE[status][0])
        if status == Status.RUNNING and self._rng(run_id, "fate").random() < 0.15:
            following = Status.FAILED
        changes = ended(run, following, when) if following.is_terminal else {"status": following.value}
        self._runs.put(run | changes)
        self._expect(run_id, following, when)

    def _rng(self, *what: object) -> random.Random:
        return random.Random(f"simulation/{(self._seed, self._id, *what)!r}")  # noqa: S311  # made-up data
