"""SQLite and DuckDB: new databases, and the table `runs` of one that is there."""

# ruff: noqa: S608  # names are quoted, and values are parameters

import contextlib
import itertools
import os
import re
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.arrow_files import ArrowFile, arrow_module
from tfruns.export.compress import pack, unpack
from tfruns.export.files import fresh_file
from tfruns.export.finish import Key
from tfruns.export.results import ExportError
from tfruns.export.rows import columns
from tfruns.export.tables import NAMES, REST, Columns, Dialect, same_as, stopped_by
from tfruns.export.writer import Writer, needed
from tfruns.models import RawPage

_T = TypeVar("_T")
Check = Callable[[], None]
_FAILED = "the database can't be written"


def _no_check() -> None:
    pass


@contextlib.contextmanager
def _as_export_error(kind: type[Exception], failed: str = _FAILED) -> Iterator[None]:
    """Raise a database's own errors as an `ExportError`."""
    try:
        yield
    except kind as error:
        raise ExportError(f"{failed}: {error}") from None


class FileTable(Dialect):
    """The table `runs` of a database in a file."""

    name: ClassVar[str]
    begins: ClassVar[tuple[int, bytes]]
    """What is in every such file, and where."""
    parts: ClassVar[tuple[str, ...]]
    """The endings of files that hold a part of the database."""

    @classmethod
    def check(cls, path: Path) -> bool:
        """Whether the database is there."""
        if path.exists() and path.stat().st_size:
            at, mark = cls.begins
            with path.open("rb") as file:
                if file.read(at + len(mark))[at:] != mark:
                    raise ExportError(f"{path} is no database of {cls.name}, and is left as it is: give another file")
            return True
        for part in (path.with_name(path.name + ending) for ending in cls.parts):
            if part.exists():  # it would damage a new database
                raise ExportError(
                    f"{part} holds a part of the database that is or was at {path}: close the program that uses it, or,"
                    " if there is none, open the database once with its own program; or remove both files"
                )
        return False

    @classmethod
    @abstractmethod
    def use(
        cls, path: Path, failed: str, do: Callable[[Dialect], _T], staged: Path | None = None, check: Check = _no_check
    ) -> _T:
        """Do something with the table of a database that is there.

        Args:
            path: the database.
            failed: what a message begins with.
            do: what to do. (It may be called again, if DuckDB needs more memory.)
            staged: a new database with the staged rows; without one, nothing is changed.
            check: raises if the work should end.
        """


# --- SQLite ---

_CACHE = 32 * 1024
"""KiB of a database that are held in memory: enough for an index, to which rows are added in any order."""


def sqlite_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `sqlite`: columns."""
    return pack(msgspec.msgpack.encode([job_id, *columns(page.data)]))


class SqliteTable(FileTable):
    """SQLite's. Types are those to which a column converts its values."""

    name = "SQLite"
    begins = (0, b"SQLite format 3\0")
    parts = ("-journal", "-wal", "-shm")
    types: ClassVar = {Kind.TEXT: "TEXT", Kind.WORD: "TEXT", Kind.COUNT: "INTEGER", Kind.INSTANT: "TEXT"}
    as_good: ClassVar = {"INTEGER": ("NUMERIC",)}
    differs = "IS NOT"
    ends = " STRICT"

    @classmethod
    def use(
        cls, path: Path, failed: str, do: Callable[[Dialect], _T], staged: Path | None = None, check: Check = _no_check
    ) -> _T:
        with _as_export_error(sqlite3.Error, failed), contextlib.closing(_sqlite(path)) as database:
            ((encoding,),) = database.execute("PRAGMA encoding")
            if encoding != "UTF-8":
                raise ExportError(f"{failed}: the database is in {encoding}, not in UTF-8. {cls.instead}")
            if staged is None:
                database.execute("BEGIN IMMEDIATE")  # to see whether it may be written, and isn't locked
                return do(cls(database, failed))
            with stopped_by(check, database.interrupt):
                database.execute("ATTACH ? AS tfruns_staged", [os.fsencode(staged)])
                database.execute("BEGIN IMMEDIATE")
                done = do(cls(database, failed))
                database.execute("COMMIT")
                return done

    def __init__(self, database: sqlite3.Connection, failed: str) -> None:
        super().__init__(failed, "main.runs", "tfruns_staged.runs")
        self._database = database

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(statement, parameters).fetchall()

    def find(self) -> tuple[Columns, bool] | None:
        kinds = self.run("SELECT type FROM main.sqlite_master WHERE name = 'runs' COLLATE NOCASE")
        if kinds in ([], [("trigger",)]):
            return None
        if ("table",) not in kinds:
            raise self.refused("it is no table")
        rows = self.run(
            "SELECT lower(name), type, NOT \"notnull\", dflt_value IS NOT NULL OR (pk AND lower(type) = 'integer')"
            " FROM pragma_table_info('runs', 'main')"
        )
        keys = self.run(
            "SELECT group_concat(name || ' ' || coll) FROM (SELECT lists.name AS list, lower(columns.name) AS name,"
            " columns.coll FROM pragma_index_list('runs', 'main') AS lists,"
            " pragma_index_xinfo(lists.name, 'main') AS columns WHERE lists.\"unique\" AND NOT lists.partial AND"
            " columns.key ORDER BY 1, 2) GROUP BY list"
        )
        columns = {name: (_affinity(type_), is_nullable, has_default) for name, type_, is_nullable, has_default in rows}
        return columns, ("id BINARY,job_id BINARY",) in keys

    def delete(self, keys: Sequence[Key] | None) -> int:
        if keys is None:
            return self._database.execute(f"DELETE FROM {self.table}").rowcount
        statement = f"DELETE FROM {self.table} WHERE {JOB_ID} = ? AND id = ?"
        return self._database.executemany(statement, keys).rowcount


def _affinity(type_: str) -> str:
    """The type to which a column converts its values, by SQLite's rules."""
    type_ = type_.upper()
    rules = {"INT": "INTEGER", "CHAR": "TEXT", "CLOB": "TEXT", "TEXT": "TEXT", "BLOB": "BLOB"}
    rules |= {"REAL": "REAL", "FLOA": "REAL", "DOUB": "REAL"}
    return next((affinity for part, affinity in rules.items() if part in type_), "NUMERIC" if type_ else "BLOB")


def _sqlite(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    database.execute(f"PRAGMA cache_size = -{_CACHE}")
    return database


class _SqliteFile:
    """A new database. It gets its name when it is complete: nothing has to be undone."""

    def __init__(self, path: Path) -> None:
        os.close(fresh_file(path))
        self._database = _sqlite(path)
        for setting in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            self._database.execute(f"PRAGMA {setting}")
        self._insert = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * (1 + len(COLUMNS)))})"
        with _as_export_error(sqlite3.Error):
            self._database.execute("BEGIN")
            self._database.execute(f"CREATE TABLE runs ({SqliteTable.columns(has_key=True)}){SqliteTable.ends}")

    def write(self, piece: bytes) -> None:
        job_id, *values = msgspec.msgpack.decode(unpack(piece))
        with _as_export_error(sqlite3.Error):
            self._database.executemany(self._insert, zip(itertools.repeat(job_id), *values, strict=False))

    def close(self) -> None:
        with _as_export_error(sqlite3.Error):
            self._database.execute("COMMIT")
        self._database.close()

    def abandon(self) -> None:
        self._database.close()


def sqlite(path: Path, scratch: Path) -> Writer:
    """A table `runs` in a new SQLite database; moments as text in UTC, which its date functions read."""
    return _SqliteFile(path)


# --- DuckDB ---

_OPTIONS = tuple({"memory_limit": limit, "threads": 1} for limit in ("64MB", "512MB", "4GB"))
"""How much memory DuckDB may use, by one thread, as each would hold rows of its own. How much it needs isn't known
before: so it is tried again with more."""
_GROUP_BYTES = 16 * 2**20
"""How many bytes of rows one of DuckDB's groups of rows has, before they are compressed."""


class DuckDbTable(FileTable):
    """DuckDB's. It needs no key, whose index DuckDB would hold in memory."""

    name = "DuckDB"
    begins = (8, b"DUCK")
    parts = (".wal",)
    types: ClassVar = {
        Kind.TEXT: "VARCHAR",
        Kind.WORD: "VARCHAR",
        Kind.COUNT: "BIGINT",
        Kind.INSTANT: "TIMESTAMP WITH TIME ZONE",
    }
    needs_key = False

    @classmethod
    def check(cls, path: Path) -> bool:
        if os.sep == "/" and (found := re.search(r"[?\\\ud800-\udfff]", str(path))):
            raise ExportError(f"DuckDB can't write to a path with {found[0]!r} in it, such as {str(path)!r}")
        return super().check(path)

    @classmethod
    def use(
        cls, path: Path, failed: str, do: Callable[[Dialect], _T], staged: Path | None = None, check: Check = _no_check
    ) -> _T:
        def attempt(options: Mapping[str, Any]) -> _T:
            # The caller's own process may have the database open: with other options, which DuckDB then refuses.
            with _duckdb(str(path), options) as database:
                if staged is None:
                    return do(cls(database, failed))
                with stopped_by(check, database.interrupt):
                    database.execute(f"SET temp_directory = {_quoted(staged.with_name('spilled'))}")
                    database.execute(f"ATTACH {_quoted(staged)} AS tfruns_staged (READ_ONLY)")
                    database.execute("BEGIN")
                    done = do(cls(database, failed))
                    database.execute("COMMIT")
                    return done

        return _with_memory(attempt, failed)

    def __init__(self, database: Any, failed: str) -> None:
        self._database = database
        ((self._catalog,),) = self.run("SELECT current_database()")
        catalog = self._catalog.replace('"', '""')
        super().__init__(failed, f'"{catalog}".main.runs', "tfruns_staged.main.runs")

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._database.execute(statement, parameters).fetchall()
        return rows

    def find(self) -> tuple[Columns, bool] | None:
        where = "WHERE database_name = ? AND schema_name = 'main' AND lower({}_name) = 'runs'"
        if self.run(f"SELECT 1 FROM duckdb_views() {where.format('view')}", self._catalog):
            raise self.refused("it is no table")
        rows = self.run(
            "SELECT lower(column_name), data_type, is_nullable, column_default IS NOT NULL FROM duckdb_columns()"
            f" {where.format('table')}",
            self._catalog,
        )
        return ({name: (type_, *more) for name, type_, *more in rows}, False) if rows else None

    def delete(self, keys: Sequence[Key] | None) -> int:
        statement, lists = f"DELETE FROM {self.table} AS old", []
        if keys is not None:
            named = f"(SELECT unnest(?::VARCHAR[]) AS {JOB_ID}, unnest(?::VARCHAR[]) AS id)"
            statement, lists = f"{statement} WHERE {same_as(named)}", [*map(list, zip(*keys, strict=True))]
        ((deleted,),) = self.run(statement, *lists)
        return int(deleted)

    def upsert(self) -> None:
        old, new = (", ".join(f"{name}.{column}" for column in REST) for name in ("old", "new"))
        self.run(
            f"UPDATE {self.table} AS old SET {', '.join(f'{column} = new.{column}' for column in REST)}"
            f" FROM {self.staged} AS new WHERE new.{JOB_ID} = old.{JOB_ID} AND new.id = old.id"
            f" AND ({old}) IS DISTINCT FROM ({new})"
        )
        self.run(
            f"INSERT INTO {self.table} ({NAMES}) SELECT {NAMES} FROM {self.staged} AS old"
            f" WHERE NOT {same_as(self.table)}"
        )


class _DuckDbFile(ArrowFile):
    """Writes the pieces to a Parquet file, and loads that as a whole into a new database.

    DuckDB writes the rows of one file as it reads them; a load of many batches goes through its log and its memory.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path
        self._rows_path = scratch / "rows.parquet"
        schema = arrow_module().PLAIN_SCHEMA
        parquet = needed("pyarrow.parquet", "arrow")
        os.close(fresh_file(self._rows_path))
        super().__init__(parquet.ParquetWriter(self._rows_path, schema, compression="lz4"), schema)  # fast

    def close(self) -> None:
        super().close()
        arrow_module().pa.default_memory_pool().release_unused()  # DuckDB needs it
        _with_memory(self._load)

    def _load(self, options: Mapping[str, Any]) -> None:
        for path in (self._path, self._path.with_name(self._path.name + ".wal")):
            path.unlink(missing_ok=True)  # of an attempt with less memory
        with _duckdb(":memory:", options) as database:
            database.execute(f"SET temp_directory = {_quoted(self._path.with_name('spilled'))}")
            database.execute(f"ATTACH {_quoted(self._path)} AS target{_row_groups(self.rows, self.bytes)}")
            database.execute("BEGIN")
            database.execute(f"CREATE TABLE target.runs ({DuckDbTable.columns(has_key=False)})")
            # The path is taken for a pattern, and without `hive_partitioning` a folder status=all for a column.
            pattern = _quoted(re.sub(r"([*\[])", r"[\1]", str(self._rows_path)))
            rows = f"read_parquet({pattern}, hive_partitioning = false)"
            database.execute(f"INSERT INTO target.runs SELECT * FROM {rows}")
            database.execute("COMMIT")


def _with_memory(do: Callable[[Mapping[str, Any]], _T], failed: str = _FAILED) -> _T:
    with _as_export_error(needed("duckdb", "duckdb").Error, failed):
        for options in _OPTIONS[:-1]:
            try:
                return do(options)
            except Exception as error:
                if "memory" not in str(error).lower():
                    raise
        return do(_OPTIONS[-1])


@contextlib.contextmanager
def _duckdb(path: str, options: Mapping[str, Any]) -> Iterator[Any]:
    with needed("duckdb", "duckdb").connect(path, config=options) as database:
        database.execute("SET enable_progress_bar = false")
        yield database


def _row_groups(rows: int, size: int) -> str:
    """The option for groups of fewer rows than the usual 122,880, if rows are large: DuckDB holds a group in memory."""
    fitting = 2048 * max(1, _GROUP_BYTES * rows // max(1, size) // 2048)
    return f" (ROW_GROUP_SIZE {fitting})" if fitting < 122_880 else ""


def _quoted(path: Path | str) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def duckdb(path: Path, scratch: Path) -> Writer:
    """A table `runs` in a new DuckDB database."""
    return _DuckDbFile(path, scratch)


TABLES: Mapping[str, type[FileTable]] = {"sqlite": SqliteTable, "duckdb": DuckDbTable}
"""How the table of a database is written that is there already, by the format."""
