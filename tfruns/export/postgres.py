"""A table in PostgreSQL, by ADBC: all runs are written to a temporary table first, and from there, in one transaction,
they replace the rows of the same runs.

If anything, such as a kill, ends the connection before the transaction is over, the table stays as it was. Writing the
same runs once more makes no difference.
"""

# ruff: noqa: S608  # names are quoted, and values are parameters

import contextlib
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.arrow_files import arrow_batch, arrow_module, read_piece
from tfruns.export.compress import pack
from tfruns.export.destination import cache_folder, named_work_folder
from tfruns.export.errors import ExportError
from tfruns.export.finish import Content, Written
from tfruns.export.formats import Format
from tfruns.export.page import Page
from tfruns.export.secrets import Hidden, guarded, secrets_of, shown
from tfruns.export.thread import StoppedError
from tfruns.export.writer import Writer, needed

_T = TypeVar("_T")

_TYPES = {
    Kind.TEXT: "text",
    Kind.WORD: "text",
    Kind.COUNT: "bigint",
    Kind.INSTANT: "timestamp with time zone",
}
_ALL = {JOB_ID: "text", **{column.name: _TYPES[column.kind] for column in COLUMNS}}
"""The columns of the table, each with its type."""
_SAME = {"text": ("text", "character varying")}
"""For a type of ours, the types that hold as much."""
_MANDATORY = {JOB_ID, *(column.name for column in COLUMNS if not column.is_nullable)}
_KEY = (JOB_ID, "id")
_REJECTED = (JOB_ID, "run_id", "field", "why", "text")

_WHERE = ("host", "hostaddr", "port", "dbname", "service")
"""Parameters of a URL that name the database. (Others may be secret.)"""
_MOST_KEY_BYTES = 2_600
"""How many bytes the two ids may have together, for an index on both to hold them."""
_MOST_NAMED = 4
"""How many problems of a table an error names."""
_HOST = re.compile(r"(?:[^\[\]:,/]*|\[[^\]]+\])(?::[0-9]*)?")


def _piece(page: Page) -> bytes:
    """A piece: the same as for Arrow, if PostgreSQL can hold it."""
    batch = arrow_batch(page)
    for column in batch.columns:
        if column.type == "string" and b"\0" in _text_of(column):
            raise ValueError("PostgreSQL holds no text with the character U+0000")
    if max(len(run.id.encode()) for run in page.runs) + len(page.job_id.encode()) > _MOST_KEY_BYTES:
        raise ValueError("an id is too long for an index")
    return pack(batch.serialize())


def _text_of(column: Any) -> bytes:
    """The bytes of all texts of a column, one after the other."""
    data = column.buffers()[2]
    return b"" if data is None else data.to_pybytes()


def _unfit(job_id: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a row that PostgreSQL can't hold, each with the reason."""
    for name, value in {JOB_ID: job_id, **row}.items():
        if isinstance(value, str) and "\0" in value:
            yield name, "expected text without the character U+0000"
    if len(str(row["id"]).encode()) + len(job_id.encode()) > _MOST_KEY_BYTES:
        yield "id", f"expected at most {_MOST_KEY_BYTES:,} bytes with the job's id"


def _no_file(path: Path, scratch: Path) -> Writer:
    raise NotImplementedError


FORMAT = Format(
    "postgresql",
    (),
    _piece,
    _no_file,
    is_database=True,
    extra="postgres",
    modules=("adbc_driver_postgresql", "pyarrow"),
    unfit=_unfit,
)


def table_parts(table: str) -> tuple[str, ...]:
    """The name of a table, or of a schema and a table.

    Raises:
        TypeError, ValueError: it isn't such a name.
    """
    if not isinstance(table, str):
        raise TypeError(f"table must be the name of a table, got {table!r}")
    parts = tuple(table.split("."))
    if len(parts) > 2 or not all(0 < len(part.encode()) <= 63 and "\0" not in part for part in parts):
        allowed = "the name of a table, or of a schema and a table with a dot between, each of at most 63 bytes"
        raise ValueError(f"table must be {allowed}, got {table!r}")
    return parts


def check_url(url: Hidden) -> None:
    """Check that a URL can be understood in one way only: else an error could show a part of the password.

    Raises:
        ValueError: it can't.
    """
    authority, _, rest = url.value.partition("://")[2].partition("/")
    hosts = authority.partition("?")[0].rpartition("@")[2]
    userinfo = authority.rpartition("@")[0]
    is_clear = all(_HOST.fullmatch(host) for host in hosts.split(","))
    is_clear = is_clear and "@" not in rest.partition("?")[0] and not set("@?#[] ") & set(userinfo)
    is_clear = is_clear and "#" not in rest and userinfo.count(":") <= 1
    del authority, rest, hosts, userinfo
    if not is_clear:
        raise ValueError(
            "the URL of the database can't be understood: it must be as postgresql://user:password@host:5432/database,"
            " in which the characters / ? # [ ] @ : % and space of a password are encoded, such as %2F for /"
        )


@attrs.frozen
class PostgresTable:
    """A table: new rows replace those of the same runs.

    Args:
        url: how to connect.
        name: the name of the table, or of a schema and a table.
    """

    url: Hidden
    name: tuple[str, ...]

    @property
    def form(self) -> Format:
        return FORMAT

    @property
    def path(self) -> str:
        return self._shown(self.name)

    @property
    def quarantine(self) -> str:
        return self._shown(self._rejected)

    @property
    def _rejected(self) -> tuple[str, ...]:
        return (*self.name[:-1], self.name[-1] + "_rejected")

    def _shown(self, name: tuple[str, ...]) -> str:
        where = shown(self.url).partition("://")[2]
        parts = [part for part in self.url.value.partition("?")[2].split("&") if part.partition("=")[0] in _WHERE]
        return f"postgresql://{where}{'?' if parts else ''}{'&'.join(parts)}, table {'.'.join(name)}"

    @property
    def is_file(self) -> bool:
        return False

    @property
    def about(self) -> Mapping[str, str]:
        return {"database": self.path}

    def work_folder(self, work_dir: Path | None) -> Path:
        return named_work_folder(work_dir or cache_folder(), self.path.rpartition("/")[2], self.path.encode())

    def check(self) -> None:
        FORMAT.check()
        with self._connected() as database:
            database.check_table(self.name)

    def begin(self, state: Path | None) -> None:
        pass

    def numbered(self, number: int, state: Path) -> "PostgresTable":
        with self._connected() as database:
            if number > 0 and database.find(self.name) is None:
                raise ExportError(
                    f"{self.path} isn't there, but by {state} it was written before: delete that to write it anew"
                )
        return self

    def finish(self, content: Content, work: Path) -> Written:
        with self._connected() as database, database.stopped_by(content.check):
            database.write(self.name, content)
            database.write_rejected(self._rejected, content)
            size = database.size(self.name)
            content.check()
            database.commit()
            return Written(size=size)

    @contextlib.contextmanager
    def _connected(self) -> Iterator["_Database"]:
        secrets = secrets_of(self.url, Hidden(None))
        dbapi = needed("adbc_driver_postgresql.dbapi", "postgres")
        failed = f"{self.path} can't be written"
        connection = guarded(secrets, failed, lambda: dbapi.connect(self.url.value))
        try:
            yield _Database(connection, secrets, failed)
        finally:
            with contextlib.suppress(Exception):
                connection.close()  # which rolls back what isn't committed


@attrs.frozen
class _Database:
    """A connection, and a transaction in it."""

    _connection: Any
    _secrets: Hidden
    _failed: str

    @contextlib.contextmanager
    def stopped_by(self, check: Callable[[], None]) -> Iterator[None]:
        """While the block runs, a statement is cancelled soon after `check` begins to raise."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                try:
                    check()
                except StoppedError:
                    with contextlib.suppress(Exception):
                        self._connection.adbc_cancel()

        watcher = threading.Thread(target=watch, name="tfruns-export-watch")
        watcher.start()
        try:
            yield
        except ExportError:
            check()  # a statement that was cancelled isn't a failure
            raise
        finally:
            over.set()
            watcher.join()

    def _do(self, call: Callable[[Any], _T]) -> _T:
        def with_cursor() -> _T:
            with self._connection.cursor() as cursor:
                return call(cursor)

        return guarded(self._secrets, self._failed, with_cursor, but=(StoppedError,))

    def _run(self, statement: str) -> None:
        self._do(lambda cursor: cursor.execute(statement))

    def _rows(self, query: str, *parameters: str) -> list[tuple[Any, ...]]:
        def rows(cursor: Any) -> list[tuple[Any, ...]]:
            cursor.execute(query, parameters or None)
            return [tuple(row) for row in cursor.fetchall()]

        return self._do(rows)

    def _stage(self, name: str, schema: Any, batches: Iterator[Any]) -> None:
        """Make a temporary table of some batches."""
        pa = arrow_module().pa
        stopped: list[Exception] = []

        def kept() -> Iterator[Any]:
            # An error that is raised here passes through a library: so it is kept, and raised again.
            try:
                yield from batches
            except Exception as error:
                stopped.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(schema, kept())
        try:
            self._do(lambda cursor: cursor.adbc_ingest(name, reader, "create", temporary=True))
        except ExportError:
            if stopped:
                raise stopped[0] from None
            raise

    def find(self, name: tuple[str, ...]) -> int | None:
        """The table's id; None if it isn't there."""
        ((found,),) = self._rows("SELECT to_regclass($1::text)::oid::bigint", _quoted(name))
        return None if found is None else int(found)

    def check_table(self, name: tuple[str, ...]) -> None:
        """Check that the table can be written to, or made.

        Raises:
            ExportError: it can't.
        """
        found = self.find(name)
        if found is None:
            ((may,),) = self._rows(
                "SELECT COALESCE((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace"
                " WHERE nspname = COALESCE(NULLIF($1::text, ''), current_schema())), false)",
                "" if len(name) == 1 else name[0],
            )
            if not may:
                raise ExportError(f"{self._failed}: it isn't there, and there is no schema in which you may make it")
            return
        wrong = [*self._wrong(found)]
        if wrong:
            more = f"; and {len(wrong) - _MOST_NAMED:,} more" if len(wrong) > _MOST_NAMED else ""
            problems = "; ".join(wrong[:_MOST_NAMED]) + more
            raise ExportError(
                f"{self._failed}: {problems}. Give the name of another table, which is made if it isn't there"
            )

    def _wrong(self, table: int) -> Iterator[str]:
        ((kind, may),) = self._rows(
            f"SELECT relkind::text, has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')"
            f" AND has_table_privilege(oid, 'UPDATE') FROM pg_class WHERE oid = {table}"
        )
        if kind not in ("r", "p"):
            yield "it is no table"
            return
        if not may:
            yield "you may not SELECT, INSERT and UPDATE"
        columns = {
            name: (type_, is_free)
            for name, type_, is_free in self._rows(
                "SELECT attname::text, format_type(atttypid, atttypmod),"
                " NOT attnotnull OR atthasdef OR attidentity <> '' FROM pg_attribute"
                f" WHERE attrelid = {table} AND attnum > 0 AND NOT attisdropped"
            )
        }
        for name, type_ in _ALL.items():
            if name not in columns:
                yield f"it has no column {name} {type_}"
            elif columns[name][0] not in _SAME.get(type_, (type_,)):
                yield f"its column {name} is {columns[name][0]}, not {type_}"
        for name, (_, is_free) in columns.items():
            if name not in _ALL and not is_free:
                yield f"its column {name} may not be null and has no default"
        keys = self._rows(
            "SELECT array_to_string(ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid"
            " AND attnum = ANY (indkey) ORDER BY 1), ',') FROM pg_index"
            f" WHERE indrelid = {table} AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL"
            " AND indexprs IS NULL AND indnkeyatts = 2 AND indnatts = 2"
        )
        if (",".join(sorted(_KEY)),) not in keys:
            yield f"it has no primary key ({', '.join(_KEY)})"

    def write(self, name: tuple[str, ...], content: Content) -> None:
        """Replace the rows of these runs, and remove the rows of runs that no longer exist."""
        arrow = arrow_module()
        self._stage("tfruns_staging", arrow.PLAIN_SCHEMA, _batches(content))
        # One export at a time: if two made the table, or wrote the same rows in another order, they would make each
        # other fail.
        self._rows("SELECT pg_advisory_xact_lock($1::bigint)::text", str(zlib.crc32(name[-1].encode())))
        if self.find(name) is None:
            columns = [
                f"{_quoted((column,))} {type_}{' NOT NULL' if column in _MANDATORY else ''}"
                for column, type_ in _ALL.items()
            ]
            key = f"PRIMARY KEY ({_names(_KEY)})"
            self._run(f"CREATE TABLE IF NOT EXISTS {_quoted(name)} ({', '.join([*columns, key])})")
        self.check_table(name)
        gone: list[tuple[str, ...]] = [
            (job_id, run_id) for job_id, runs in (content.gone or {}).items() for run_id in runs
        ]
        if gone:
            self._stage_texts("tfruns_gone", _KEY, iter([gone]))
            same = " AND ".join(f"old.{column} = gone.{column}" for column in _KEY)
            self._run(f"DELETE FROM {_quoted(name)} AS old USING pg_temp.tfruns_gone AS gone WHERE {same}")
        rest = [column for column in _ALL if column not in _KEY]
        self._run(
            f"INSERT INTO {_quoted(name)} AS old ({_names(_ALL)}) SELECT {_names(_ALL)} FROM pg_temp.tfruns_staging"
            f" ON CONFLICT ({_names(_KEY)}) DO UPDATE SET"
            f" {', '.join(f'{_quoted((column,))} = excluded.{_quoted((column,))}' for column in rest)}"
            f" WHERE ({', '.join(f'old.{_quoted((column,))}' for column in rest)})"
            f" IS DISTINCT FROM ({', '.join(f'excluded.{_quoted((column,))}' for column in rest)})"
        )

    def write_rejected(self, name: tuple[str, ...], content: Content) -> None:
        """Write the runs that were rejected to a table, which is made if there are any. An increment adds its own to
        the earlier ones, which it doesn't see again; any other export replaces them."""
        is_there = self.find(name) is not None
        if not is_there and not content.has_rejected:
            return
        if not is_there:
            self._run(f"CREATE TABLE {_quoted(name)} ({', '.join(f'{column} text' for column in _REJECTED)})")
        if content.gone is None:
            self._run(f"DELETE FROM {_quoted(name)}")
        self._stage_texts("tfruns_rejected", _REJECTED, map(_rejected_rows, content.rejected()))
        self._run(
            f"INSERT INTO {_quoted(name)} ({_names(_REJECTED)}) SELECT {_names(_REJECTED)} FROM pg_temp.tfruns_rejected"
        )

    def _stage_texts(self, name: str, columns: tuple[str, ...], rows: Iterator[list[tuple[str, ...]]]) -> None:
        pa = arrow_module().pa
        schema = pa.schema([(column, pa.string()) for column in columns])
        batches = (
            pa.RecordBatch.from_arrays(
                [pa.array(values, pa.string()) for values in zip(*some, strict=True)], schema=schema
            )
            for some in rows
            if some
        )
        self._stage(name, schema, batches)

    def size(self, name: tuple[str, ...]) -> int:
        """Bytes of the table and its indexes."""
        ((found,),) = self._rows("SELECT pg_total_relation_size(to_regclass($1::text))", _quoted(name))
        return int(found)

    def commit(self) -> None:
        guarded(self._secrets, self._failed, self._connection.commit)


def _rejected_rows(piece: bytes) -> list[tuple[str, ...]]:
    lines = [json.loads(line) for line in piece.splitlines()]
    return [tuple(str(value).replace("\0", "\\u0000") for value in line.values()) for line in lines]


def _batches(content: Content) -> Iterator[Any]:
    for piece in content.pieces():
        try:
            yield read_piece(piece)
        except ValueError:
            raise content.parts.damaged() from None


def _quoted(name: tuple[str, ...]) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name)


def _names(columns: Any) -> str:
    return ", ".join(_quoted((column,)) for column in columns)
