"""The runs of all jobs, in memory: each as the JSON text that is served, beside the values that filters and orders use.

For each job there is one list, the newest run first, which is changed in place: a page of it is a slice. Its older part
is made when a page needs it. Other lists are made from it when they are requested, and kept until a run changes.
"""

import bisect
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, KeysView, Sequence
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.sandbox.wire import Wire, encode

_LISTS_KEPT = 8


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
    """A run: the values that filters and orders use, and the text."""

    id: str
    name: str
    created_at: float
    duration: int | None
    version: float | None
    triggered_by: str | None
    status: str
    text: bytes


_KEYS: dict[JobRunsSortBy, Callable[[_Row], Any]] = {
    JobRunsSortBy.START_TIME: operator.attrgetter("created_at"),
    JobRunsSortBy.DURATION: operator.attrgetter("duration"),
    JobRunsSortBy.DEPLOYMENT_VERSION: operator.attrgetter("version"),
    JobRunsSortBy.TRIGGERED_BY: operator.attrgetter("triggered_by"),
    JobRunsSortBy.STATUS: operator.attrgetter("status"),
}


def _newest_first(row: _Row) -> tuple[Any, ...]:
    return -row.created_at, row.id


@attrs.define
class _Job:
    rows: dict[str, _Row] = attrs.Factory(dict)
    newest: list[_Row] = attrs.Factory(list)
    """The same, the newest first."""
    older: Iterator[Wire] = attrs.Factory(lambda: iter(()))
    """Runs that follow these and aren't made yet."""
    older_count: int = 0
    lists: dict[Selection, list[_Row]] = attrs.Factory(dict)
    """Other lists, since the last change."""


class Store:
    """Runs by job and id. Only one thread at a time may use it."""

    def __init__(self, job_ids: Iterable[str]) -> None:
        self._jobs = {job_id: _Job() for job_id in job_ids}

    @property
    def job_ids(self) -> KeysView[str]:
        """The jobs there are, with runs or without."""
        return self._jobs.keys()

    def begin(self, job_id: str, runs: Iterator[Wire], count: int) -> None:
        """Give a job without runs so many of them, the newest first, which `make` makes."""
        job = self._jobs[job_id]
        job.older, job.older_count = runs, count

    def needs_more(self, job_id: str, selection: Selection, end: int | None) -> bool:
        """Whether runs have to be made before a page up to this place can be served (None: all pages)."""
        job = self._jobs[job_id]
        return job.older_count > 0 and (selection != NEWEST_FIRST or end is None or end > len(job.newest))

    def make(self, job_id: str, most: int) -> list[tuple[str, str]]:
        """Make up to so many runs: the id and the status of each."""
        job = self._jobs[job_id]
        rows = [_row(run) for run in itertools.islice(job.older, min(most, job.older_count))]
        job.older_count -= len(rows)
        job.newest += rows
        job.rows.update((row.id, row) for row in rows)
        job.lists.clear()
        return [(row.id, row.status) for row in rows]

    def page(
        self, job_id: str, selection: Selection, offset: int = 0, limit: int | None = None
    ) -> tuple[int, list[bytes]]:
        """How many runs are selected in all, and the JSON texts of those on the page (None: all from the offset on)."""
        job = self._jobs[job_id]
        rows = job.newest if selection == NEWEST_FIRST else self._list(job, selection)
        wanted = rows[offset:] if limit is None else rows[offset : offset + limit]
        return len(rows) + job.older_count, [row.text for row in wanted]

    def get(self, job_id: str, run_id: str) -> bytes | None:
        """The JSON text of a run, if there is such a run."""
        row = self._jobs[job_id].rows.get(run_id)
        return None if row is None else row.text

    def latest(self, job_id: str) -> float | None:
        """When the newest run of the job was created, in ms since 1970; None if the job has no runs."""
        newest = self._jobs[job_id].newest
        return newest[0].created_at if newest else None

    def count(self, job_id: str) -> int:
        """How many runs the job has."""
        job = self._jobs[job_id]
        return len(job.newest) + job.older_count

    def put(self, job_id: str, run: Wire) -> None:
        """Store a run; if the job has one with the same id, replace that one."""
        job, row = self._jobs[job_id], _row(run)
        self.delete(job_id, row.id)
        job.rows[row.id] = row
        bisect.insort_left(job.newest, row, key=_newest_first)
        job.lists.clear()

    def delete(self, job_id: str, run_id: str) -> bool:
        """Delete the run. False if there was none."""
        job = self._jobs[job_id]
        row = job.rows.pop(run_id, None)
        if row is not None:
            del job.newest[bisect.bisect_left(job.newest, _newest_first(row), key=_newest_first)]
            job.lists.clear()
        return row is not None

    def delete_oldest(self, job_id: str) -> None:
        """Delete the run that was created first."""
        job = self._jobs[job_id]
        if job.older_count:
            job.older_count -= 1  # the last of them is never made
        else:
            self.delete(job_id, job.newest[-1].id)

    def _list(self, job: _Job, selection: Selection) -> list[_Row]:
        if (found := job.lists.get(selection)) is None:
            if len(job.lists) == _LISTS_KEPT:
                del job.lists[next(iter(job.lists))]
            found = job.lists[selection] = _selected(job.newest, selection)
        return found


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


def _selected(newest_first: Sequence[_Row], selection: Selection) -> list[_Row]:
    """The selected rows, in order. Sorting is stable, so those with equal keys stay newest first."""
    prefix = selection.search_prefix
    conditions: list[Callable[[_Row], bool]] = []
    if prefix:
        conditions.append(lambda row: row.id.startswith(prefix) or row.name.startswith(prefix))
    if triggered_by := frozenset(selection.triggered_by):
        conditions.append(lambda row: row.triggered_by in triggered_by)
    if status := frozenset(selection.status):
        conditions.append(lambda row: row.status in status)
    if versions := frozenset(selection.version_numbers):
        conditions.append(lambda row: row.version in versions)
    rows = [row for row in newest_first if all(condition(row) for condition in conditions)]
    key = _KEYS[selection.sort_by]
    with_key = [row for row in rows if key(row) is not None]
    with_key.sort(key=key, reverse=selection.order == SortDirection.DESC)
    return with_key + [row for row in rows if key(row) is None]  # null comes last in either direction
