"""The runs of all jobs, in an in-memory SQLite database: each as the JSON text that is served, beside the columns that
filters and orders look at.
"""

import math
import re
import sqlite3
from collections.abc import Iterable, KeysView, Sequence
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.sandbox.wire import Wire

_SCHEMA = """
CREATE TABLE runs (
    job TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, created_at REAL NOT NULL, duration INTEGER,
    version REAL, triggered_by TEXT, status TEXT NOT NULL, json BLOB NOT NULL,
    PRIMARY KEY (job, id)
);
CREATE INDEX newest_first ON runs (job, created_at DESC, id);
"""
_COLUMNS = {
    JobRunsSortBy.START_TIME: "created_at",
    JobRunsSortBy.DURATION: "duration",
    JobRunsSortBy.DEPLOYMENT_VERSION: "version",
    JobRunsSortBy.TRIGGERED_BY: "triggered_by",
    JobRunsSortBy.STATUS: "status",
}
_LISTS_KEPT = 8


@attrs.frozen(kw_only=True)
class Selection:
    """Which runs of a job, and in which order. An empty tuple lets every run through."""

    search_prefix: str = ""
    triggered_by: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    version_numbers: tuple[float, ...] = ()
    sort_by: JobRunsSortBy = JobRunsSortBy.START_TIME
    order: SortDirection = SortDirection.DESC


def as_number(text: str) -> float | None:
    """The number that the text writes as JSON would, or None."""
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


class Store:
    """Runs by job and id. Not for more than one thread."""

    def __init__(self, job_ids: Iterable[str]) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.executescript(_SCHEMA)
        # For each job, the rowids of what was lately selected, in order. A page deep in a long list, or one of a sorted
        # list, then costs as little as the first: SQLite would walk, or sort, all that comes before it each time.
        self._lists: dict[str, dict[Selection, Sequence[int]]] = {job_id: {} for job_id in job_ids}

    @property
    def job_ids(self) -> KeysView[str]:
        """The jobs there are, with runs or without."""
        return self._lists.keys()

    def page(
        self, job_id: str, selection: Selection, offset: int = 0, limit: int | None = None
    ) -> tuple[int, list[bytes]]:
        """How many runs are selected in all, and the JSON texts of those on the page (None: all from the offset on).

        Raises:
            KeyError: there is no such job.
        """
        rowids = self._list(job_id, selection)
        wanted = rowids[offset:] if limit is None else rowids[offset : offset + limit]
        # The cross join keeps the order of the list.
        query = "SELECT runs.json FROM json_each(?) AS wanted CROSS JOIN runs ON runs.rowid = wanted.value"
        found = self._db.execute(query, (msgspec.json.encode(wanted).decode(),))
        return len(rowids), [text for (text,) in found]

    def get(self, job_id: str, run_id: str) -> bytes | None:
        """The JSON text of a run, if there is such a run."""
        query = "SELECT json FROM runs WHERE job = ? AND id = ?"
        row: tuple[bytes] | None = self._db.execute(query, (job_id, run_id)).fetchone()
        return row and row[0]

    def latest(self, job_id: str) -> float | None:
        """When the newest run of the job was created, in ms since 1970; None if the job has no runs."""
        query = "SELECT max(created_at) FROM runs WHERE job = ?"
        row: tuple[float | None] = self._db.execute(query, (job_id,)).fetchone()
        return row[0]

    def put(self, job_id: str, runs: Iterable[Wire]) -> None:
        """Store the runs; one with the id of another of the same job takes its place."""
        with self._db:
            rows = (_row(job_id, run) for run in runs)
            self._db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._lists[job_id].clear()

    def delete(self, job_id: str, run_id: str) -> bool:
        """Forget the run. False if there was none."""
        with self._db:
            deleted = self._db.execute("DELETE FROM runs WHERE job = ? AND id = ?", (job_id, run_id)).rowcount
        self._lists[job_id].clear()
        return deleted > 0

    def close(self) -> None:
        """Free the memory; the store is of no use after this."""
        self._db.close()

    def _list(self, job_id: str, selection: Selection) -> Sequence[int]:
        kept = self._lists[job_id]
        if selection not in kept:
            if len(kept) == _LISTS_KEPT:
                del kept[next(iter(kept))]
            kept[selection] = [rowid for (rowid,) in self._db.execute(*_query(job_id, selection))]
        return kept[selection]


def _query(job_id: str, selection: Selection) -> tuple[str, list[Any]]:
    conditions = ["job = ?"]
    values: list[Any] = [job_id]
    if selection.search_prefix:
        # As bytes: LIKE and GLOB have wildcards, and SQLite's functions of text stop at a NUL.
        prefix = selection.search_prefix.encode()
        starts = "substr(CAST({} AS BLOB), 1, ?) = ?"
        conditions.append(f"({starts.format('id')} OR {starts.format('name')})")
        values += [len(prefix), prefix] * 2
    for column, allowed in (
        ("triggered_by", selection.triggered_by),
        ("status", selection.status),
        ("version", selection.version_numbers),
    ):
        if allowed:
            conditions.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values += allowed
    column = _COLUMNS[selection.sort_by]
    order = f"{column} {selection.order.value} NULLS LAST"
    if column != "created_at":
        order += ", created_at DESC"
    return f"SELECT rowid FROM runs WHERE {' AND '.join(conditions)} ORDER BY {order}, id", values  # noqa: S608


def _row(job_id: str, run: Wire) -> tuple[Any, ...]:
    return (
        job_id,
        run["id"],
        run["name"],
        run["createdAt"],
        run["duration"],
        as_number(run["deploymentVersion"]),
        run["triggeredBy"],
        run["status"],
        msgspec.json.encode(run),
    )
