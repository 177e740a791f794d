"""Tables of runs in SQLite, DuckDB and PostgreSQL: one road for all three, and what they do differently in a dialect.

The new rows are staged first: in a database of their own in the working folder, or in PostgreSQL in a temporary table.
Then, in one transaction, they replace the rows of the same runs, by job and id, and rows that the server contradicts
are removed: those of runs that it has deleted, and of runs that had to be set aside. Every other row, table, view and
index stays. A database that isn't there yet is the staged one, which is put in its place.

So a kill at any moment leaves the table as it was, and writing the same runs once more makes no difference.
"""

# ruff: noqa: S608  # names are quoted, and values are parameters

import contextlib
import itertools
import os
import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs
import msgspec

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.files import StoppedError, check_writable, fresh_file, put_in_place
from tfruns.export.formats import Format, Writer, arrow_module, needed, plain_columns, zstd
from tfruns.export.pipeline import QUARANTINE, Destination, Export, Key
from tfruns.export.results import ExportError
from tfruns.export.store import LocalStore
from tfruns.models import RawPage

_KINDS = {JOB_ID: Kind.WORD, **{column.name: column.kind for column in COLUMNS}}
NAMES = ", ".join(_KINDS)
REST = [name for name in _KINDS if name not in (JOB_ID, "id")]
_MOST_NAMED = 4  # how many problems of a table an error names

Columns = dict[str, tuple[str, bool, bool]]
"""The columns of a table that is there: its type, whether it may be null, and whether it has a default."""


class Table(ABC):
    """The table of runs, and the staged rows, by their quoted names, in a transaction that is open."""

    kinds: ClassVar[Mapping[str, Kind]] = _KINDS
    mandatory: ClassVar = frozenset({JOB_ID, *(column.name for column in COLUMNS if not column.is_nullable)})
    addable: ClassVar = frozenset(column.name for column in COLUMNS if column.is_nullable)
    """The columns that are added where they are missing: a table of an older version lacks the newest fields."""
    key: ClassVar = (JOB_ID, "id")
    types: ClassVar[Mapping[Kind, str]]
    as_good: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # for a type, others that hold as much
    needs_key: ClassVar = True
    differs: ClassVar = "IS DISTINCT FROM"
    ends: ClassVar = ""  # what follows the columns of a new table
    instead: ClassVar = "Export to another file"  # what to do where the table doesn't fit

    def __init__(self, failed: str, table: str, staged: str) -> None:
        self.failed = failed  # what a message begins with
        self.table = table
        self.staged = staged

    @abstractmethod
    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""

    @abstractmethod
    def find(self) -> tuple[Columns, bool] | None:
        """The columns of the table, and whether two rows can't have the same key; None if it isn't there."""

    @abstractmethod
    def delete(self, keys: Sequence[Key]) -> int:
        """Delete the rows of some runs; returns how many there were."""

    @classmethod
    def definition(cls, table: str) -> str:
        columns = [
            f"{name} {cls.types[kind]}{' NOT NULL' * (name in cls.mandatory)}" for name, kind in cls.kinds.items()
        ]
        key = [f"PRIMARY KEY ({', '.join(cls.key)})"] * cls.needs_key
        return f"CREATE TABLE {table} ({', '.join(columns + key)}){cls.ends}"

    def is_there(self) -> bool:
        """Whether the table is there. One that doesn't fit is an error, but for columns that can be added."""
        if (found := self.find()) is None:
            return False
        if problems := [*self._problems(*found)]:
            raise self.refused(*problems)
        for name in self.kinds.keys() - found[0].keys():
            self.run(f"ALTER TABLE {self.table} ADD COLUMN {name} {self.types[self.kinds[name]]}")
        return True

    def _problems(self, columns: Columns, has_key: bool) -> Iterator[str]:
        for name, kind in self.kinds.items():
            type_, is_nullable, _ = columns.get(name, ("", True, True))
            if not type_:
                if name not in self.addable:
                    yield f"it has no column {name} {self.types[kind]}"
            elif type_ not in (self.types[kind], *self.as_good.get(self.types[kind], ())):
                yield f"its column {name} is {type_}, not {self.types[kind]}"
            elif name not in self.mandatory and not is_nullable:
                yield f"its column {name} may not be null"
        for name, (_, is_nullable, has_default) in columns.items():
            if name not in self.kinds and not is_nullable and not has_default:
                yield f"its column {name} may not be null and has no default"
        if self.needs_key and not has_key:
            yield f"it has no primary key ({', '.join(self.key)})"

    def refused(self, *problems: str) -> ExportError:
        more = f"; and {len(problems) - _MOST_NAMED:,} more" if len(problems) > _MOST_NAMED else ""
        return ExportError(f"{self.failed}: {'; '.join(problems[:_MOST_NAMED])}{more}. {self.instead}")

    def write(self, export: Export) -> int:
        """Write the staged rows; returns how many rows of other runs are gone."""
        if not self.is_there():
            self.run(self.definition(self.table))
        removed = 0
        if export.replace:
            ((removed,),) = self.run(f"SELECT count(*) FROM {self.table} AS old WHERE NOT {same_as(self.staged)}")
            self.run(f"DELETE FROM {self.table}")
        elif keys := export.contradicted():
            removed = self.delete(keys)
        self.upsert()
        return int(removed)

    def upsert(self) -> None:
        """Put the staged rows in the place of those of the same runs, where they differ, and add the others."""
        new, old = (", ".join(f"{name}.{column}" for column in REST) for name in ("new", "old"))
        self.run(  # with || '', or SQLite would look each row of the table up among the staged ones
            f"UPDATE {self.table} AS old SET {', '.join(f'{column} = new.{column}' for column in REST)}"
            f" FROM {self.staged} AS new WHERE old.{JOB_ID} = new.{JOB_ID} || '' AND old.id = new.id || ''"
            f" AND ({old}) {self.differs} ({new})"
        )
        missing = f"SELECT {NAMES} FROM {self.staged} AS old WHERE NOT {same_as(self.table)}"
        self.run(f"INSERT INTO {self.table} ({NAMES}) {missing}")


def same_as(table: str, key: tuple[str, str] = Table.key) -> str:
    """The condition that the run of a row `old`, which has this key, is in a table of runs."""
    return f"EXISTS (SELECT 1 FROM {table} AS new WHERE new.{JOB_ID} = old.{key[0]} AND new.id = old.{key[1]})"


@contextlib.contextmanager
def stopped_by(check: Callable[[], None], cancel: Callable[[], object]) -> Iterator[None]:
    """While the block runs, `cancel` ends its statement soon after `check` begins to raise."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            try:
                check()
            except StoppedError:
                with contextlib.suppress(Exception):
                    cancel()

    watcher = threading.Thread(target=watch, name="tfruns-export-watch")
    watcher.start()
    try:
        yield
    except Exception:
        check()  # a statement that was cancelled isn't a failure
        raise
    finally:
        over.set()
        watcher.join()


# --- SQLite and DuckDB ---

_FAILED = "the table runs of {} can't be written"
_NEW_FAILED = "the database can't be written"


class FileTable(Table):
    name: ClassVar[str]
    mark: ClassVar[bytes]  # what is in every such file
    mark_at: ClassVar = 0
    parts: ClassVar[tuple[str, ...]]  # the endings of files that hold a part of the database
    begin: ClassVar = "BEGIN"

    @classmethod
    def check(cls, path: Path) -> bool:
        """Whether the database is there."""
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                if not file.read(100).startswith(cls.mark, cls.mark_at):
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
    def connected(cls, path: Path, do: Callable[[Self], int]) -> int:
        """Do something with the table of a database that is there. (It is done again if DuckDB needs more memory.)"""

    @classmethod
    def made_of(cls, staged: Path) -> Path:
        """A new database of staged rows."""
        return staged

    @abstractmethod
    def attach(self, staged: Path) -> None:
        """Make the rows of a file the staged ones."""

    def __init__(self, failed: str, database: Any) -> None:
        super().__init__(failed, "main.runs", "tfruns_staged.runs")
        self.database = database

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.database.execute(statement, parameters).fetchall()
        return rows

    def check_use(self) -> int:
        """Whether the table is there, and that rows may be written."""
        self.run(self.begin)
        return self.is_there()

    def use(self, export: Export) -> int:
        """Write what an export has staged; returns how many rows of other runs are gone."""
        with stopped_by(export.check, self.database.interrupt):
            self.attach(export.scratch / "fresh")
            self.run(self.begin)
            removed = self.write(export)
            self.run("COMMIT")
        return removed


# --- SQLite ---

_CACHE = "PRAGMA cache_size = -32768"
"""So many KiB of a database are held in memory: enough for an index, to which rows are added in any order."""


class SqliteTable(FileTable):
    """SQLite's. Types are those to which a column converts its values."""

    name = "SQLite"
    mark = b"SQLite format 3\0"
    begin = "BEGIN IMMEDIATE"  # shows whether it may be written, and isn't locked
    parts = ("-journal", "-wal", "-shm")
    types: ClassVar = {Kind.TEXT: "TEXT", Kind.WORD: "TEXT", Kind.COUNT: "INTEGER", Kind.INSTANT: "TEXT"}
    as_good: ClassVar = {"INTEGER": ("NUMERIC",)}
    differs = "IS NOT"
    ends = " STRICT"

    @classmethod
    def connected(cls, path: Path, do: Callable[[Self], int]) -> int:
        failed = _FAILED.format(path)
        with _as_export_error(failed), contextlib.closing(_sqlite(path)) as database:
            database.execute(_CACHE)
            return do(cls(failed, database))

    def attach(self, staged: Path) -> None:
        self.run("ATTACH ? AS tfruns_staged", os.fsencode(staged))

    def find(self) -> tuple[Columns, bool] | None:
        ((encoding,),) = self.run("PRAGMA encoding")
        if encoding != "UTF-8":
            raise self.refused(f"the database is in {encoding}, not in UTF-8")
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
        return {name: (_affinity(type_), *more) for name, type_, *more in rows}, ("id BINARY,job_id BINARY",) in keys

    def delete(self, keys: Sequence[Key]) -> int:
        statement = f"DELETE FROM {self.table} WHERE {JOB_ID} = ? AND id = ?"
        return int(self.database.executemany(statement, keys).rowcount)


@contextlib.contextmanager
def _as_export_error(failed: str = _NEW_FAILED) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ExportError(f"{failed}: {error}") from None


def _affinity(type_: str) -> str:
    """The type to which a column converts its values, by SQLite's rules."""
    type_ = type_.upper()
    rules = {"INT": "INTEGER", "CHAR": "TEXT", "CLOB": "TEXT", "TEXT": "TEXT", "BLOB": "BLOB"}
    rules |= {"REAL": "REAL", "FLOA": "REAL", "DOUB": "REAL"}
    return next((affinity for part, affinity in rules.items() if part in type_), "NUMERIC" if type_ else "BLOB")


def _sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)


_VALUES_AT_ONCE = 50 * len(_KINDS)  # for each statement the lock of the interpreter changes hands twice
_NULL = float("nan")
"""What SQLite, which has no NaN, stores as NULL. Python's driver takes three times as long for None."""


def sqlite_piece(job_id: str, page: RawPage) -> bytes:
    columns = [[_NULL if value is None else value for value in values] for values in plain_columns(page.data)]
    rows = zip(itertools.repeat(job_id), *columns, strict=False)
    return msgspec.msgpack.encode([*itertools.chain.from_iterable(rows)])


class SqliteFile(Writer):
    """A new database. It gets its name when it is complete: nothing has to be undone."""

    def __init__(self, path: Path) -> None:
        os.close(fresh_file(path))
        self._database = _sqlite(path)
        settings = ("page_size = 16384", "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
        try:
            with _as_export_error():
                for statement in (_CACHE, *(f"PRAGMA {setting}" for setting in settings), "BEGIN"):
                    self._database.execute(statement)
                self._database.execute(SqliteTable.definition("runs"))
        except BaseException:
            self._database.close()
            raise

    def write(self, packed: bytes) -> None:
        values = msgspec.msgpack.decode(zstd.decompress(packed))
        row = f"({', '.join('?' * len(_KINDS))})"
        with _as_export_error():
            for start in range(0, len(values), _VALUES_AT_ONCE):
                some = values[start : start + _VALUES_AT_ONCE]
                statement = f"INSERT OR REPLACE INTO runs VALUES {', '.join([row] * (len(some) // len(_KINDS)))}"
                self._database.execute(statement, some)

    def close(self) -> None:
        with _as_export_error(), contextlib.closing(self._database):
            self._database.execute("COMMIT")


# --- DuckDB ---

_MEMORY = ("56MB", "64MB", "128MB", "256MB", "512MB", "4GB")
"""How much memory DuckDB may use. How much it needs isn't known before: so it is tried again with more."""


class DuckDbTable(FileTable):
    """DuckDB's. It needs no key, whose index DuckDB would hold in memory. Rows are staged in a Parquet file.

    DuckDB writes the rows of one file as it reads them; a load of many batches goes through its log and its memory.
    """

    name = "DuckDB"
    mark = b"DUCK"
    mark_at = 8
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
    def connected(cls, path: Path, do: Callable[[Self], int]) -> int:
        failed = _FAILED.format(path)
        return _in_duckdb(str(path), failed, lambda database: do(cls(failed, database)))

    def __init__(self, failed: str, database: Any) -> None:
        super().__init__(failed, database)
        ((name,),) = self.run("SELECT current_database()")
        self.table = '"' + name.replace('"', '""') + '".main.runs'

    @classmethod
    def made_of(cls, staged: Path) -> Path:
        path = staged.with_name("made")

        def load(database: Any) -> int:
            for part in (path, path.with_name(f"{path.name}.wal")):
                part.unlink(missing_ok=True)  # of an attempt with less memory
            database.execute(f"SET temp_directory = {_quoted(staged.with_name('spilled'))}")
            database.execute(f"ATTACH {_quoted(path)} AS target{_row_groups(staged)}")
            database.execute(cls.definition("target.runs"))
            return len(database.execute(f"INSERT INTO target.runs SELECT * FROM {_rows_of(staged)}").fetchall())

        _in_duckdb(":memory:", _NEW_FAILED, load)
        return path

    def attach(self, staged: Path) -> None:
        self.run(f"SET temp_directory = {_quoted(staged.with_name('spilled'))}")
        self.staged = _rows_of(staged)

    def find(self) -> tuple[Columns, bool] | None:
        where = "WHERE database_name = current_database() AND schema_name = 'main' AND lower({}_name) = 'runs'"
        if self.run(f"SELECT 1 FROM duckdb_views() {where.format('view')}"):
            raise self.refused("it is no table")
        rows = self.run(
            "SELECT lower(column_name), data_type, is_nullable, column_default IS NOT NULL FROM duckdb_columns()"
            f" {where.format('table')}"
        )
        return ({name: (type_, *more) for name, type_, *more in rows}, False) if rows else None

    def delete(self, keys: Sequence[Key]) -> int:
        named = f"(SELECT unnest(?::VARCHAR[]) AS {JOB_ID}, unnest(?::VARCHAR[]) AS id)"
        lists = map(list, zip(*keys, strict=True))
        ((deleted,),) = self.run(f"DELETE FROM {self.table} AS old WHERE {same_as(named)}", *lists)
        return int(deleted)


def _in_duckdb(path: str, failed: str, do: Callable[[Any], int], memory: Sequence[str] = _MEMORY) -> int:
    duckdb = needed("duckdb", "duckdb")
    # By one thread, as each would hold rows of its own. The caller's own process may have the database open: with
    # other options, which DuckDB then refuses.
    options = {"memory_limit": memory[0], "threads": 1}
    try:
        with duckdb.connect(path, config=options) as database:
            database.execute("SET enable_progress_bar = false")
            return do(database)
    except duckdb.Error as error:
        if len(memory) == 1 or "memory" not in str(error).lower():
            raise ExportError(f"{failed}: {error}") from None
    return _in_duckdb(path, failed, do, memory[1:])


def _rows_of(path: Path) -> str:
    """The rows of a Parquet file. (DuckDB would take the path for a pattern, and a folder status=all for a column.)"""
    pattern = re.sub(r"([*\[])", r"[\1]", str(path))
    return f"read_parquet({_quoted(pattern)}, hive_partitioning = false)"


def _row_groups(path: Path) -> str:
    """The option for groups of fewer rows than the usual 122,880, if rows are large: DuckDB holds a group in memory, in
    which there is room for two groups of the Parquet file."""
    found = arrow_module().pa.parquet.read_metadata(path)
    fitting = 2048 * max(1, 2 * found.num_rows // max(1, found.num_row_groups) // 2048)
    return f" (ROW_GROUP_SIZE {fitting})" if fitting < 122_880 else ""


def _quoted(path: Path | str) -> str:
    return "'" + str(path).replace("'", "''") + "'"


# --- the destination ---

TABLES: dict[str, type[FileTable]] = {"sqlite": SqliteTable, "duckdb": DuckDbTable}  # by the names of their formats


@attrs.define
class TableFile(Destination):
    """A table: new rows replace those of the same runs. A database that isn't there yet appears when it is complete."""

    path: Path = attrs.field()  # pyright: ignore[reportIncompatibleMethodOverride]
    format_: Format
    table: type[FileTable]

    @property
    def about(self) -> Mapping[str, str]:
        return {"database": self.path.name}  # a state says what is in one database, not in another

    def begin(self, export: Export) -> str:
        if not self.table.check(self.path):
            return str(self.path)
        check_writable(self.path)
        self.replaces = self.path.with_name(self.path.name + QUARANTINE).exists()
        is_there = self.table.connected(self.path, self.table.check_use)
        return "" if is_there else f"{self.path} can't be written: its table runs"

    def finish(self, export: Export) -> Mapping[str, Any]:
        removed = 0
        with export.announced():
            if self.table.check(self.path):
                removed = self.table.connected(self.path, lambda table: table.use(export))
            elif export.is_increment:
                raise ExportError(f"{self.path} isn't there any more")
            else:
                put_in_place(self.table.made_of(export.scratch / "fresh"), self.path, self._check_new)
        quarantine = export.put_quarantine(LocalStore(self.path.parent), self.path.name, is_all=export.is_whole)
        return {"size": self.path.stat().st_size, "removed_rows": removed, "quarantine": quarantine}

    def _check_new(self) -> None:
        if self.table.check(self.path):
            raise ExportError(f"{self.path} has been made by someone else meanwhile")
