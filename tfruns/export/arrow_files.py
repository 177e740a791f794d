"""Formats with columns: Parquet and Arrow files, and tables in SQLite and DuckDB."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.errors import ExportError
from tfruns.export.lines import runs_of
from tfruns.export.writers import File, Writer, needed, rows

_ROWS_A_GROUP = 64_000
"""Rows that are written together, at least: enough to be read fast, and few enough to be held."""

# DuckDB takes most of the machine's memory if it may, and each of its threads holds rows of its own.
_DUCKDB_LIMITS = "SET memory_limit = '128MB'; SET threads = 1"
_SAME_RUN = f"runs.{JOB_ID} = fresh.{JOB_ID} AND runs.id = fresh.id"
_DELETE = f"DELETE FROM runs WHERE {JOB_ID} = ? AND id = ?"  # noqa: S608
_DUCKDB_TYPES = {Kind.TEXT: "VARCHAR", Kind.WORD: "VARCHAR", Kind.COUNT: "BIGINT", Kind.INSTANT: "TIMESTAMPTZ"}
_SQLITE_TYPES = {Kind.TEXT: "TEXT", Kind.WORD: "TEXT", Kind.COUNT: "INTEGER", Kind.INSTANT: "TEXT"}


class _Batches(File):
    """Gathers record batches, and writes many rows at a time."""

    def __init__(self, schema: Any, write: Any, close: Any) -> None:
        self._arrow = _arrow()
        self._schema = schema
        self._write = write
        self._close = close
        self._batches: list[Any] = []
        self._rows = 0

    def write(self, job_id: str, lines: bytes) -> None:
        try:
            batch = self._arrow.record_batch(job_id, runs_of(lines, job_id))
        except ValueError as error:
            raise ExportError(f"job {job_id!r}: {error}; JSON lines can hold it") from None
        self._batches.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._close()

    def abandon(self) -> None:
        self._close()

    def _flush(self) -> None:
        if self._batches:
            table = self._arrow.pa.Table.from_batches(self._batches)
            self._batches, self._rows = [], 0
            self._write(table.cast(self._schema) if self._schema != table.schema else table)


def _arrow() -> Any:
    needed("pyarrow", "arrow")
    from tfruns import arrow

    return arrow


def parquet(path: Path) -> Writer:
    """A Parquet file, compressed with zstd."""
    schema = _arrow().SCHEMA
    writer = needed("pyarrow.parquet", "arrow").ParquetWriter(path, schema, compression="zstd")
    return _Batches(schema, writer.write_table, writer.close)


def arrow(path: Path) -> Writer:
    """An Arrow IPC file, compressed with zstd. Its strings are written out: the format has one dictionary for all."""
    ipc = needed("pyarrow", "arrow").ipc
    schema = _arrow().PLAIN_SCHEMA
    writer = ipc.new_file(str(path), schema, options=ipc.IpcWriteOptions(compression="zstd"))
    return _Batches(schema, writer.write_table, writer.close)


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


class _Sqlite:
    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._database = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        self._insert = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * (1 + len(COLUMNS)))})"  # noqa: S608
        with _told(sqlite3.Error):
            self._database.execute("BEGIN IMMEDIATE")
            if is_new:
                columns = f"{_columns(_SQLITE_TYPES)}, PRIMARY KEY ({JOB_ID}, id)"
                self._database.execute(f"CREATE TABLE runs ({columns}) STRICT")

    def write(self, job_id: str, lines: bytes) -> None:
        try:
            with _told(sqlite3.Error):
                self._database.executemany(self._insert, ((job_id, *row) for row in rows(runs_of(lines, job_id))))
        except OverflowError:
            raise ExportError(f"job {job_id!r}: a number is beyond 64 bits; JSON lines can hold it") from None

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
        self._batches = _Batches(_arrow().PLAIN_SCHEMA, self._insert, self._commit)

    def _insert(self, table: Any) -> None:
        with _told(self._error):
            self._database.register("fresh", table)
            if self._replaces:
                self._database.execute(f"DELETE FROM runs USING fresh WHERE {_SAME_RUN}")  # noqa: S608
            self._database.execute("INSERT INTO runs SELECT * FROM fresh")
            self._database.unregister("fresh")

    def _commit(self) -> None:
        with _told(self._error):
            if self._replaces:
                self._database.execute("COMMIT")
            self._database.close()

    def write(self, job_id: str, lines: bytes) -> None:
        self._batches.write(job_id, lines)

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        with _told(self._error):
            for run_id in run_ids:
                self._database.execute(_DELETE, (job_id, run_id))

    def close(self) -> None:
        self._batches.close()

    def abandon(self) -> None:
        self._database.close()


def duckdb(path: Path) -> Writer:
    """A table `runs` in a DuckDB database."""
    return _DuckDb(path)
