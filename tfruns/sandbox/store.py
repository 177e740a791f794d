"""The runs of all jobs, in memory: each as the JSON text that is served, beside the values that filters and orders use.

For each job the lists that were lately requested are kept in order, and changed in place whenever a run is created,
deleted or changed. A page is a slice of such a list: one deep in a million runs costs as little as the first.
"""

import bisect
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, KeysView
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


_NEWEST_FIRST = Selection()


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


_Key = Callable[[_Row], tuple[Any, ...]]


class _List:
    """The selected runs of a job, in order."""

    def __init__(self, selection: Selection, rows: Iterable[_Row]) -> None:
        self._lets_through = _filter(selection)
        self._key = _key(selection)
        self.rows = sorted(filter(self._lets_through, rows), key=self._key)

    def change(self, old: _Row | None, new: _Row | None) -> None:
        """Replace the old row by the new one. The only cost that grows with the list is that of shifting pointers."""
        if old is not None and self._lets_through(old):
            place = bisect.bisect_left(self.rows, self._key(old), key=self._key)
            if new is not None and self._lets_through(new) and self._key(new) == self._key(old):
                self.rows[place] = new
                return
            del self.rows[place]
        if new is not None and self._lets_through(new):
            bisect.insort_left(self.rows, new, key=self._key)


class Store:
    """Runs by job and id. Only one thread at a time may use it.

    Args:
        job_ids: the jobs, with runs or without.
    """

    def __init__(self, job_ids: Iterable[str]) -> None:
        self._rows: dict[str, dict[str, _Row]] = {job_id: {} for job_id in job_ids}
        self._lists: dict[str, dict[Selection, _List]] = {job_id: {} for job_id in self._rows}

    @property
    def job_ids(self) -> KeysView[str]:
        """The jobs there are, with runs or without."""
        return self._rows.keys()

    def page(
        self, job_id: str, selection: Selection, offset: int = 0, limit: int | None = None
    ) -> tuple[int, list[bytes]]:
        """How many runs are selected in all, and the JSON texts of those on the page (None: all from the offset on).

        Raises:
            KeyError: there is no such job.
        """
        rows = self._list(job_id, selection).rows
        wanted = rows[offset:] if limit is None else rows[offset : offset + limit]
        return len(rows), [row.text for row in wanted]

    def get(self, job_id: str, run_id: str) -> bytes | None:
        """The JSON text of a run, if there is such a run."""
        row = self._rows[job_id].get(run_id)
        return None if row is None else row.text

    def latest(self, job_id: str) -> float | None:
        """When the newest run of the job was created, in ms since 1970; None if the job has no runs."""
        rows = self._list(job_id, _NEWEST_FIRST).rows
        return rows[0].created_at if rows else None

    def count(self, job_id: str) -> int:
        """How many runs the job has."""
        return len(self._rows[job_id])

    def statuses(self, job_id: str) -> Iterator[tuple[str, str]]:
        """The id and the status of each run of the job, the newest first."""
        return ((row.id, row.status) for row in self._list(job_id, _NEWEST_FIRST).rows)

    def fill(self, job_id: str, runs: Iterable[Wire]) -> None:
        """Store many runs; one with the id of another of the same job replaces it."""
        self._rows[job_id].update((run["id"], _row(run)) for run in runs)
        self._lists[job_id].clear()

    def put(self, job_id: str, run: Wire) -> None:
        """Store a run; if the job has one with the same id, replace that one."""
        row = _row(run)
        self._change(job_id, self._rows[job_id].get(row.id), row)
        self._rows[job_id][row.id] = row

    def delete(self, job_id: str, run_id: str) -> bool:
        """Delete the run. False if there was none."""
        row = self._rows[job_id].pop(run_id, None)
        if row is not None:
            self._change(job_id, row, None)
        return row is not None

    def delete_oldest(self, job_id: str) -> None:
        """Delete the run that was created first."""
        self.delete(job_id, self._list(job_id, _NEWEST_FIRST).rows[-1].id)

    def _change(self, job_id: str, old: _Row | None, new: _Row | None) -> None:
        for each in self._lists[job_id].values():
            each.change(old, new)

    def _list(self, job_id: str, selection: Selection) -> _List:
        kept = self._lists[job_id]
        if (found := kept.pop(selection, None)) is None:
            if selection == _NEWEST_FIRST:
                found = _List(selection, self._rows[job_id].values())
            else:
                found = _List(selection, self._list(job_id, _NEWEST_FIRST).rows)
        kept[selection] = found  # the last used comes last
        if len(kept) > _LISTS_KEPT:
            del kept[next(iter(kept))]
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


def _filter(selection: Selection) -> Callable[[_Row], bool]:
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
    return lambda row: all(condition(row) for condition in conditions)


def _key(selection: Selection) -> _Key:
    """The sort key. It ends with the id, so that no two runs of a job have the same key."""
    falls = selection.order == SortDirection.DESC
    match selection.sort_by:
        case JobRunsSortBy.START_TIME:
            return (lambda row: (-row.created_at, row.id)) if falls else (lambda row: (row.created_at, row.id))
        case JobRunsSortBy.DURATION:
            return _nulls_last(lambda row: row.duration, _negative if falls else _same)
        case JobRunsSortBy.DEPLOYMENT_VERSION:
            return _nulls_last(lambda row: row.version, _negative if falls else _same)
        case JobRunsSortBy.TRIGGERED_BY:
            return _nulls_last(lambda row: row.triggered_by, _descending if falls else _same)
        case JobRunsSortBy.STATUS:
            return _nulls_last(lambda row: row.status, _descending if falls else _same)


def _nulls_last(read: Callable[[_Row], Any], ordered: Callable[[Any], Any]) -> _Key:
    def key(row: _Row) -> tuple[Any, ...]:
        value = read(row)
        return (value is None, 0 if value is None else ordered(value), -row.created_at, row.id)

    return key


def _same(value: Any) -> Any:
    return value


def _negative(value: float) -> float:
    return -value


@functools.lru_cache(1024)
def _descending(text: str) -> tuple[int, ...]:
    """A key that sorts texts in descending order. (The 1 at the end is above all others: longer texts come first.)"""
    return (*(-ord(character) for character in text), 1)
