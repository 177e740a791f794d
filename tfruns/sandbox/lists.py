"""The list of a job's runs, in memory: each as the JSON text that is served, beside what filters and orders use.

There is one list, the newest run first, which is changed in place: a page of it is a slice. Its older part is made when
a page needs it. Other lists are made from it when they are requested, and kept until a run changes.
"""

import bisect
import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.sandbox.wire import Wire, decode, encode

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

    def needs_more(self, selection: Selection, end: int | None) -> bool:
        """Whether runs have to be made before a page up to this place can be served (None: all pages)."""
        return self._older_count > 0 and (selection != NEWEST_FIRST or end is None or end > len(self._newest))

    def make(self, most: int) -> list[tuple[str, str]]:
        """Make up to so many runs: the id and the status of each."""
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
