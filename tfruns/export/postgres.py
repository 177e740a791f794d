"""A table in PostgreSQL, by ADBC. New rows are staged in a temporary table, which lives and dies within the
transaction: so connections may be pooled by transaction."""

# ruff: noqa: S608  # names are quoted, and values are parameters

import codecs
import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from tfruns._table.columns import JOB_ID, Kind
from tfruns.errors import FieldProblem
from tfruns.export.formats import ARROW_MODULES, Format, arrow_batch, arrow_file, arrow_module, needed
from tfruns.export.pipeline import Destination, Export, Key
from tfruns.export.results import ExportError
from tfruns.export.secrets import Hidden, guarded, masked_url, secrets_of
from tfruns.export.tables import Columns, Table, same_as, stopped_by
from tfruns.models import RawPage

_WHERE = ("host", "hostaddr", "port", "dbname", "service")
"""Parameters of a URL that name the database. (Others may be secret.)"""
_MOST_KEY_BYTES = 2_600  # how many bytes the two ids may have together, for an index on both to hold them
MOST_NAME_BYTES = 63


@attrs.define
class PostgresTable(Destination):
    """A table, by its name or its schema and name: new rows replace those of the same runs."""

    url: Hidden
    name: tuple[str, ...]
    format_: Format = attrs.field(init=False)
    takes_turns = True
    _encoding: str = "utf-8"  # Python's name of the encoding of the database, from `begin` on

    def __attrs_post_init__(self) -> None:
        modules = ("adbc_driver_postgresql", *ARROW_MODULES)
        self.format_ = Format("postgresql", (), self._piece, arrow_file, "postgres", modules, self._unfit)

    def _piece(self, job_id: str, page: RawPage) -> Any:
        """A piece: the same as for Arrow, if the database can hold it."""
        batch = arrow_batch(job_id, page)
        texts = [column.buffers()[2] for column in batch.columns if column.type == "string"]  # each of all rows
        for text in texts:
            if text is not None and (problem := _problem(text.to_pybytes().decode(), self._encoding)):
                raise ValueError(problem)
        if max(len(run.id.encode()) for run in page.data) + len(job_id.encode()) > _MOST_KEY_BYTES:
            raise ValueError("an id is too long for an index")
        return batch.serialize()

    def _unfit(self, job_id: str, row: Mapping[str, Any]) -> Iterator[FieldProblem]:
        for name, value in {JOB_ID: job_id, **row}.items():
            if isinstance(value, str) and (problem := _problem(value, self._encoding)):
                yield FieldProblem(name, problem)
        if len(str(row["id"]).encode()) + len(job_id.encode()) > _MOST_KEY_BYTES:
            yield FieldProblem("id", f"expected at most {_MOST_KEY_BYTES:,} bytes with the job's id")

    @property
    def path(self) -> str:
        return self._shown(self.name)

    @property
    def _rejected(self) -> tuple[str, ...]:
        """The table of rejected runs: where its name would be too long, with a digest in place of the end."""
        *schema, name = self.name
        if len(name.encode()) + len("_rejected") > MOST_NAME_BYTES:
            digest = f"~{zlib.crc32(name.encode()):08x}"
            most = MOST_NAME_BYTES - len(digest) - len("_rejected")
            name = name.encode()[:most].decode("utf-8", "ignore") + digest
        return (*schema, name + "_rejected")

    def _shown(self, name: tuple[str, ...]) -> str:
        where = masked_url(self.url).partition("://")[2]
        parts = [part for part in self.url.value.partition("?")[2].split("&") if part.partition("=")[0] in _WHERE]
        return f"postgresql://{where}{'?' if parts else ''}{'&'.join(parts)}, table {'.'.join(name)}"

    @property
    def about(self) -> Mapping[str, str]:
        return {"database": self.path}

    def begin(self, export: Export) -> str:
        with self._connected() as (runs, rejected):
            ((may, is_read_only),) = runs.run(
                "SELECT has_database_privilege(current_database(), 'TEMP'), current_setting('transaction_read_only')"
            )
            if is_read_only == "on":
                raise ExportError(f"{runs.failed}: the database is read-only")
            if not may:
                raise ExportError(f"{runs.failed}: you may make no temporary table in the database (GRANT TEMP)")
            self._encoding = runs.encoding
            is_there = runs.check()
            self.replaces = rejected.check()
            return "" if is_there else self.path

    def finish(self, export: Export) -> Mapping[str, Any]:
        with self._connected() as (runs, rejected), stopped_by(export.check, runs.connection.adbc_cancel):
            runs.stage(export.scratch / "fresh")
            # One export at a time: if two made the table, or wrote the same rows in another order, they would make each
            # other fail.
            runs.run("SELECT pg_advisory_xact_lock($1::bigint)::text", str(zlib.crc32(self.name[-1].encode())))
            removed = runs.write(export)
            rejected.write(export)
            runs.run("DROP TABLE pg_temp.tfruns_staged")  # the connection may be another's soon
            ((size,),) = runs.run("SELECT pg_total_relation_size(to_regclass($1::text))", runs.table)
            export.check()
            with export.announced():
                guarded(runs.secrets, runs.failed, runs.connection.commit)
            quarantine = self._shown(self._rejected) if export.checkpoint.rejected_runs else None
            return {"size": int(size), "removed_rows": removed, "quarantine": quarantine}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple["_Table", "_RejectedTable"]]:
        secrets = secrets_of(self.url, Hidden(None))
        dbapi = needed("adbc_driver_postgresql.dbapi", "postgres")
        connection = guarded(secrets, f"{self.path} can't be written", lambda: dbapi.connect(self.url.value))
        try:
            yield (
                _Table(f"{self.path} can't be written", self.name, connection, secrets),
                _RejectedTable(f"{self._shown(self._rejected)} can't be written", self._rejected, connection, secrets),
            )
        finally:
            with contextlib.suppress(Exception):
                connection.close()  # which rolls back what isn't committed


class _Table(Table):
    types: ClassVar = {
        Kind.TEXT: "text",
        Kind.WORD: "text",
        Kind.COUNT: "bigint",
        Kind.INSTANT: "timestamp with time zone",
    }
    as_good: ClassVar = {"text": ("character varying",)}
    instead = "Give the name of another table, which is made if it isn't there"
    rights: ClassVar = "SELECT INSERT UPDATE DELETE"

    def __init__(self, failed: str, name: tuple[str, ...], connection: Any, secrets: Hidden) -> None:
        table = ".".join('"' + part.replace('"', '""') + '"' for part in name)
        super().__init__(failed, table, "pg_temp.tfruns_staged")
        self.connection = connection
        self.secrets = secrets
        # Whatever the URL, the environment or the role says: the driver sends UTF-8.
        self.run("SET LOCAL client_encoding = 'UTF8'")
        ((encoding,),) = self.run("SELECT current_setting('server_encoding')")
        self.encoding = _codec(encoding)

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        def rows() -> list[tuple[Any, ...]]:
            with self.connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return [tuple(row) for row in cursor.fetchall()]

        return guarded(self.secrets, self.failed, rows)

    def stage(self, path: Path) -> None:
        """Make a temporary table of the rows."""

        def ingest() -> None:
            pa = arrow_module().pa
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as found, self.connection.cursor() as cursor:
                batches = map(found.get_batch, range(found.num_record_batches))
                rows = pa.RecordBatchReader.from_batches(found.schema, batches)
                cursor.adbc_ingest("tfruns_staged", rows, "create", temporary=True)

        guarded(self.secrets, self.failed, ingest)

    def check(self) -> bool:
        """Whether the table is there. If it may be neither written nor made, that is an error."""
        if self.is_there():
            return True
        ((may,),) = self.run(
            "SELECT COALESCE((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname ="
            " COALESCE((parse_ident($1::text))[array_length(parse_ident($1::text), 1) - 1], current_schema())), false)",
            self.table,
        )
        if not may:
            raise ExportError(f"{self.failed}: it isn't there, and there is no schema in which you may make it")
        return False

    def find(self) -> tuple[Columns, bool] | None:
        ((table,),) = self.run("SELECT to_regclass($1::text)::oid::bigint", self.table)
        if table is None:
            return None
        ((kind, missing),) = self.run(
            "SELECT relkind::text, array_to_string(ARRAY(SELECT r FROM unnest(string_to_array($1::text, ' ')) AS r"
            f" WHERE NOT has_table_privilege(oid, r)), ', ') FROM pg_class WHERE oid = {table}",
            self.rights,
        )
        if kind not in ("r", "p"):
            raise self.refused("it is no table")
        if missing:
            raise self.refused(f"you may not {missing}")
        columns = self.run(
            "SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull, atthasdef OR attidentity <> ''"
            f" FROM pg_attribute WHERE attrelid = {table} AND attnum > 0 AND NOT attisdropped"
        )
        keys = self.run(
            "SELECT array_to_string(ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid"
            " AND attnum = ANY (indkey) ORDER BY 1), ',') FROM pg_index"
            f" WHERE indrelid = {table} AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL"
            " AND indexprs IS NULL AND indnkeyatts = 2 AND indnatts = 2"
        )
        return {name: (type_, *more) for name, type_, *more in columns}, (",".join(sorted(self.key)),) in keys

    def delete(self, keys: Sequence[Key]) -> int:
        named = f"(SELECT each->>0 AS {JOB_ID}, each->>1 AS id FROM json_array_elements($1::text::json) AS each)"
        return self._delete(same_as(named, self.key), self._json(keys))

    def _delete(self, condition: str, *parameters: str) -> int:
        ((deleted,),) = self.run(
            f"WITH deleted AS (DELETE FROM {self.table} AS old WHERE {condition} RETURNING 1)"
            " SELECT count(*) FROM deleted",
            *parameters,
        )
        return int(deleted)

    def _json(self, rows: Iterable[Sequence[str]]) -> str:
        """Rows of texts as JSON, with what the database can't hold as JSON escapes it."""
        # Without other escapes: the server can't decode them if its encoding is SQL_ASCII.
        return json.dumps([[self._storable(text) for text in row] for row in rows], ensure_ascii=False)

    def _storable(self, text: str) -> str:
        if not _problem(text, self.encoding):
            return text
        return "".join(json.dumps(each)[1:-1] if _problem(each, self.encoding) else each for each in text)


class _RejectedTable(_Table):
    """The table of the runs that were set aside."""

    kinds: ClassVar = dict.fromkeys(("job_id", "run_id", "field", "why", "text"), Kind.TEXT)
    mandatory: ClassVar = frozenset()
    addable: ClassVar = frozenset()
    key = ("job_id", "run_id")
    needs_key = False
    rights = "SELECT INSERT DELETE"

    def write(self, export: Export) -> int:
        """Write the runs that were set aside, in place of older rows of the same runs, or of all runs of these jobs, if
        all were read. A run that is among the staged rows leaves the table."""
        if self.is_there():
            if export.replace:
                self.run(f"DELETE FROM {self.table}")
            if export.is_whole:
                jobs = self._json([export.done_jobs])
                self._delete("job_id IN (SELECT json_array_elements_text($1::text::json->0))", jobs)
            self.delete(export.rejected_keys())
            self._delete(same_as(self.staged, self.key))
        elif export.checkpoint.rejected_runs:
            self.run(self.definition(self.table))
        for lines in export.rejected_runs():
            self.run(
                f"INSERT INTO {self.table} ({', '.join(self.kinds)}) SELECT each->>0, each->>1, each->>2, each->>3,"
                " each->>4 FROM json_array_elements($1::text::json) AS each",
                self._json((line.job_id, line.run_id, line.field, line.why, line.text) for line in lines),
            )
        return 0


def _problem(text: str, encoding: str) -> str:
    """Why the database can't hold a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        return f"expected text that {encoding}, the database's encoding, can hold, got {text[error.start]!r}"
    return "expected text without the character U+0000" if "\0" in text else ""


def _codec(encoding: str) -> str:
    """Python's name of PostgreSQL's encoding."""
    try:
        return codecs.lookup(encoding.replace("WIN", "cp").replace("KOI8", "koi8-")).name
    except LookupError:  # SQL_ASCII, which holds any bytes; or one of the two that Python doesn't know
        return "utf-8"
