"""Tables in SQLite and DuckDB: a new file, or new rows that replace old ones in an existing file."""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.arrow_files import ArrowFile, arrow_module
from tfruns.export.compress import pack, unpack
from tfruns.export.errors import ExportError
from tfruns.export.page import Page
from tfruns.export.rows import columns
from tfruns.export.writer import Writer, needed

_DUCKDB_MEMORY = ("64MB", "512MB", "4GB")
_GROUP_BYTES = 16 * 2**20
"""How many bytes of rows one of DuckDB's groups of rows has, before they are compressed."""
_DELETE = f"DELETE FROM runs WHERE {JOB_ID} = ? AND id = ?"  # noqa: S608
_DUCKDB_TYPES = {Kind.TEXT: "VARCHAR", Kind.WORD: "VARCHAR", Kind.COUNT: "BIGINT", Kind.INSTANT: "TIMESTAMPTZ"}
_SQLITE_TYPES = {Kind.TEXT: "TEXT", Kind.WORD: "TEXT", Kind.COUNT: "INTEGER", Kind.INSTANT: "TEXT"}


def _columns(types: Mapping[Kind, str]) -> str:
    columns = [f"{JOB_ID} {types[Kind.WORD]} NOT NULL"]
    columns += [f"{column.name} {types[column.kind]}{'' if column.is_nullable else ' NOT NULL'}" for column in COLUMNS]
    return ", ".join(columns)


@contextlib.contextmanager
def _as_export_error(kind: type[Exception]) -> Iterator[None]:
    """Raise a database's own errors as an `ExportError`."""
    try:
        yield
    except kind as error:
        raise ExportError(f"the database can't be written: {error}") from None


# --- SQLite ---


def sqlite_piece(page: Page) -> bytes:
    """A piece of `sqlite`: rows."""
    rows = zip(itertools.repeat(page.job_id), *columns(page.runs), strict=False)
    return pack(msgspec.msgpack.encode([*rows]))


class _Sqlite:
    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._database = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        self._insert = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * (1 + len(COLUMNS)))})"  # noqa: S608
        with _as_export_error(sqlite3.Error):
            if is_new:  # it gets its name when it is complete: nothing has to be undone
                self._database.execute("PRAGMA journal_mode = OFF")
                self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("BEGIN IMMEDIATE")
            if is_new:
                columns = f"{_columns(_SQLITE_TYPES)}, PRIMARY KEY ({JOB_ID}, id)"
                self._database.execute(f"CREATE TABLE runs ({columns}) STRICT")

    def write(self, piece: bytes) -> None:
        with _as_export_error(sqlite3.Error):
            self._database.executemany(self._insert, msgspec.msgpack.decode(unpack(piece)))

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        with _as_export_error(sqlite3.Error):
            self._database.executemany(_DELETE, [(job_id, run_id) for run_id in run_ids])

    def close(self) -> None:
        with _as_export_error(sqlite3.Error):
            self._database.execute("COMMIT")
        self._database.close()

    def abandon(self) -> None:
        self._database.close()


def sqlite(path: Path, scratch: Path) -> Writer:
    """A table `runs` in a SQLite database; moments as text in UTC, which its date functions read."""
    return _Sqlite(path)


# --- DuckDB ---


class _DuckDb:
    """Writes the pieces to a Parquet file, and loads that as a whole.

    DuckDB writes the rows of one file as it reads them; a load of many batches goes through its log and its memory.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._module = needed("duckdb", "duckdb")
        self._path = path
        # A new file gets its name when it is complete: it needs no transaction.
        self._replaces = path.exists()
        self._scratch = scratch
        self._rows_path = scratch / "rows.parquet"
        self._rows = _Rows(self._rows_path)
        self._removed: list[tuple[str, str]] = []

    def write(self, piece: bytes) -> None:
        self._rows.write(piece)

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        self._removed += [(job_id, run_id) for run_id in run_ids]

    def close(self) -> None:
        self._rows.close()
        error: type[Exception] = self._module.Error
        for limit in _DUCKDB_MEMORY:
            try:
                self._load(limit)
                break
            except error as failed:
                # How much memory it needs isn't known before: so it is tried again with more.
                if limit == _DUCKDB_MEMORY[-1] or "memory" not in str(failed).lower():
                    raise ExportError(f"the database can't be written: {failed}") from None
                if not self._replaces:
                    self._path.unlink(missing_ok=True)

    def _load(self, memory: str) -> None:
        with self._module.connect() as database:
            # Without a limit DuckDB takes most of the machine's memory, and each of its threads holds its own rows.
            database.execute(f"SET memory_limit = '{memory}'; SET threads = 1; SET enable_progress_bar = false")
            database.execute(f"SET temp_directory = {_quoted(self._scratch / 'spilled')}")
            options = "" if self._replaces else _row_groups(self._rows.rows, self._rows.bytes)
            database.execute(f"ATTACH {_quoted(self._path)} AS target{options}")
            database.execute("USE target")
            database.execute("BEGIN")
            if self._removed:
                database.executemany(_DELETE, self._removed)
            fresh = f"read_parquet({_quoted(self._rows_path)})"
            if self._replaces:
                same = f"runs.{JOB_ID} = fresh.{JOB_ID} AND runs.id = fresh.id"
                database.execute(f"DELETE FROM runs USING {fresh} AS fresh WHERE {same}")  # noqa: S608
            else:  # without a primary key: DuckDB would hold its index in memory
                database.execute(f"CREATE TABLE runs ({_columns(_DUCKDB_TYPES)})")
            database.execute(f"INSERT INTO runs SELECT * FROM {fresh}")  # noqa: S608
            database.execute("COMMIT")
            database.execute("USE memory")
            database.execute("DETACH target")

    def abandon(self) -> None:
        self._rows.abandon()


class _Rows(ArrowFile):
    """The Parquet file that is loaded: it is removed soon, so it is compressed fast."""

    def __init__(self, path: Path) -> None:
        schema = arrow_module().PLAIN_SCHEMA
        writer = needed("pyarrow.parquet", "arrow").ParquetWriter(path, schema, compression="lz4")
        super().__init__(writer, schema)


def _row_groups(rows: int, size: int) -> str:
    """The option for groups of fewer rows than the usual 122,880, if rows are large: DuckDB holds a group in memory."""
    fitting = 2048 * max(1, _GROUP_BYTES * rows // max(1, size) // 2048)
    return f" (ROW_GROUP_SIZE {fitting})" if fitting < 122_880 else ""


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def duckdb(path: Path, scratch: Path) -> Writer:
    """A table `runs` in a DuckDB database."""
    return _DuckDb(path, scratch)
