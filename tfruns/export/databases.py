"""Tables in SQLite and DuckDB: a new file, or new rows in place of the old ones in a file that is there."""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.arrow_files import Groups
from tfruns.export.compress import pack, unpack
from tfruns.export.errors import ExportError
from tfruns.export.rows import values
from tfruns.export.writer import Writer, needed
from tfruns.models import JobRun

# DuckDB takes most of the machine's memory if it may, and each of its threads holds rows of its own.
_DUCKDB_LIMITS = "SET memory_limit = '128MB'; SET threads = 1"
_SAME_RUN = f"runs.{JOB_ID} = fresh.{JOB_ID} AND runs.id = fresh.id"
_DELETE = f"DELETE FROM runs WHERE {JOB_ID} = ? AND id = ?"  # noqa: S608
_DUCKDB_TYPES = {Kind.TEXT: "VARCHAR", Kind.WORD: "VARCHAR", Kind.COUNT: "BIGINT", Kind.INSTANT: "TIMESTAMPTZ"}
_SQLITE_TYPES = {Kind.TEXT: "TEXT", Kind.WORD: "TEXT", Kind.COUNT: "INTEGER", Kind.INSTANT: "TEXT"}


def _columns(types: Mapping[Kind, str]) -> str:
    columns = [f"{JOB_ID} {types[Kind.WORD]} NOT NULL"]
    columns += [f"{column.name} {types[column.kind]}{'' if column.is_nullable else ' NOT NULL'}" for column in COLUMNS]
    return ", ".join(columns)


@contextlib.contextmanager
def _told(kind: type[Exception]) -> Iterator[None]:
    """Tell a database's own errors as ours."""
    try:
        yield
    except kind as error:
        raise ExportError(f"the database can't be written: {error}") from None


# --- SQLite ---


def sqlite_piece(job_id: str, runs: Sequence[JobRun], texts: Sequence[bytes]) -> bytes:
    """A piece of `sqlite`: rows."""
    columns = (values(runs, column) for column in COLUMNS)
    return pack(msgspec.msgpack.encode([*zip(itertools.repeat(job_id), *columns, strict=False)]))


class _Sqlite:
    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._database = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        self._insert = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * (1 + len(COLUMNS)))})"  # noqa: S608
        with _told(sqlite3.Error):
            if is_new:  # it gets its name when it is whole: nothing need be undone
                self._database.execute("PRAGMA journal_mode = OFF")
                self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("BEGIN IMMEDIATE")
            if is_new:
                columns = f"{_columns(_SQLITE_TYPES)}, PRIMARY KEY ({JOB_ID}, id)"
                self._database.execute(f"CREATE TABLE runs ({columns}) STRICT")

    def write(self, piece: bytes) -> None:
        with _told(sqlite3.Error):
            self._database.executemany(self._insert, msgspec.msgpack.decode(unpack(piece)))

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        with _told(sqlite3.Error):
            self._database.executemany(_DELETE, [(job_id, run_id) for run_id in run_ids])

    def close(self) -> None:
        with _told(sqlite3.Error):
            self._database.execute("COMMIT")
        self._database.close()

    def abandon(self) -> None:
        self._database.close()


def sqlite(path: Path) -> Writer:
    """A table `runs` in a SQLite database; moments as text in UTC, which its date functions read."""
    return _Sqlite(path)


# --- DuckDB ---


class _DuckDb:
    def __init__(self, path: Path) -> None:
        module = needed("duckdb", "duckdb")
        self._error: type[Exception] = module.Error
        # A new file gets its name when it is whole: it needs no transaction, which DuckDB would hold in memory.
        self._replaces = path.exists()
        with _told(self._error):
            self._database = module.connect(str(path))
            self._database.execute(_DUCKDB_LIMITS)
            if self._replaces:
                self._database.execute("BEGIN")
            else:  # without a primary key: DuckDB would hold its index in memory
                self._database.execute(f"CREATE TABLE runs ({_columns(_DUCKDB_TYPES)})")
        self._groups = Groups(self._insert)

    def _insert(self, table: Any) -> None:
        with _told(self._error):
            self._database.register("fresh", table)
            if self._replaces:
                self._database.execute(f"DELETE FROM runs USING fresh WHERE {_SAME_RUN}")  # noqa: S608
            self._database.execute("INSERT INTO runs SELECT * FROM fresh")
            self._database.unregister("fresh")

    def write(self, piece: bytes) -> None:
        self._groups.add(piece)

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        with _told(self._error):
            for run_id in run_ids:
                self._database.execute(_DELETE, (job_id, run_id))

    def close(self) -> None:
        self._groups.flush()
        with _told(self._error):
            if self._replaces:
                self._database.execute("COMMIT")
            self._database.close()

    def abandon(self) -> None:
        self._database.close()


def duckdb(path: Path) -> Writer:
    """A table `runs` in a DuckDB database."""
    return _DuckDb(path)
