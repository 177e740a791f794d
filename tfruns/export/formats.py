"""The formats of files. A format turns each page into a piece, some bytes in its own form, while other pages are
fetched; a writer puts the pieces together in one file, job after job in their order.

A new format is an entry of `FORMATS` in `destination`; for text it is one function, given to `text_format`. Runs that
a format can't hold, or that nobody understands, go to the quarantine.
"""

import contextlib
import gzip
import importlib
import importlib.util
import itertools
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import attrs
import msgspec

from tfruns._extras import install
from tfruns._table.columns import COLUMNS, JOB_ID, LIMITS, Kind, beyond_limits, values_of
from tfruns._text import iso_moment
from tfruns.errors import FieldProblem
from tfruns.export.files import fresh_file
from tfruns.export.results import ExportError
from tfruns.models import BadRun, JobRun, RawPage

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd


class Writer(ABC):
    """Puts pieces together, in the order in which they are written. It is used in one thread."""

    @abstractmethod
    def write(self, packed: bytes) -> None:
        """Add a piece, as `packer` packs it. Raises ZstdError if it was damaged."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and close the file, even if that fails. (It may not be on the disk yet.)"""


@attrs.frozen
class Format:
    name: str
    suffixes: tuple[str, ...]
    encode: Callable[[str, RawPage], bytes]
    """Turns a page of a job into a piece. Raises ValueError if it can't hold a value."""
    open: Callable[[Path], Writer]  # takes the path of a new file
    extra: str = ""
    modules: tuple[str, ...] = ()  # the modules that the extra has to install
    unfit: Callable[[str, Mapping[str, Any]], Iterable[FieldProblem]] = lambda _job_id, _row: ()
    """Says what the format can't hold of a run, by its job's id and its values by column, besides `LIMITS`."""
    begins: bytes = b""  # what stands at the begin of a file, or eight bytes from there

    def check(self) -> None:
        """Raise ExportError if what the format needs isn't installed, without importing it."""
        for module in self.modules:
            if importlib.util.find_spec(module.partition(".")[0]) is None:
                needed(module, self.extra)

    def load(self) -> None:
        """Import what the format needs: that takes a while, so it is done while the first responses are awaited."""
        for module in self.modules:
            needed(module, self.extra)

    def has_written(self, path: Path) -> bool:
        """Whether a file is as those of exports are, by what it begins with or by its columns."""
        if self.name in ("parquet", "arrow"):
            pa = arrow_module().pa
            with contextlib.suppress(pa.ArrowException, OSError), pa.OSFile(str(path)) as file:
                read = pa.parquet.read_schema if self.name == "parquet" else lambda file: pa.ipc.open_file(file).schema
                return bool(read(file).names[:2] == [JOB_ID, "id"])
            return False
        with contextlib.suppress(OSError, EOFError, zstd.ZstdError), path.open("rb") as packed:
            begin = packed_as(path.suffix, packed, "rb").read(len(self.begins) + 8)
            return not begin or self.begins in begin
        return False

    def for_increment(self, name: str, number: int) -> str:
        """The file of one of several exports: `runs.0001.jsonl` is the second for `runs.jsonl`."""
        suffix = next((suffix for suffix in self.suffixes if name.lower().endswith(suffix)), "")
        stem = name[: len(name) - len(suffix)]
        return f"{stem}.{number:04}{name[len(stem) :]}"


def needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"this format needs {module}: {install(extra)} ({error})") from None


# --- runs that can't be written ---


class RejectedRun(msgspec.Struct, rename="camel"):
    """A run that was set aside, as a line of the quarantine."""

    job_id: str
    run_id: str
    field: str
    why: str
    text: str

    @classmethod
    def of(cls, job_id: str, run: BadRun) -> Self:
        why = "; ".join(f"{problem.field}: {problem.reason}" for problem in run.problems)
        field = run.problems[0].field if run.problems else ""
        return cls(job_id, run.id, field, why, run.text.decode("utf-8", "replace"))

    @property
    def line(self) -> bytes:
        return json.dumps(msgspec.to_builtins(self), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def check_limits(kind: Kind, values: Sequence[float | None]) -> None:
    least, most = LIMITS[kind]
    given = [value for value in values if value is not None]
    if given and not least <= min(given) <= max(given) <= most:
        raise ValueError(f"{kind.value}: one is beyond what tables hold")


def unfit(job_id: str, run: JobRun, format_: Format) -> tuple[FieldProblem, ...]:
    """Why a format with columns can't hold a run."""
    problems: list[FieldProblem] = []
    for column in beyond_limits(run):
        what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
        problems.append(FieldProblem(column.name, f"expected {what}, got {getattr(run, column.name)!r}"))
    row = {column.name: value for column, [value] in zip(COLUMNS, values_of([run]), strict=True)}
    return (*problems, *format_.unfit(job_id, row))


# --- what several formats need ---


ZSTD_OPTIONS: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


def packer() -> Callable[[bytes], bytes]:
    """What makes one frame of Zstandard of each piece, fast. (To give each its memory anew would take as long.)"""
    compressor = zstd.ZstdCompressor(options=ZSTD_OPTIONS | {zstd.CompressionParameter.compression_level: 1})
    return lambda piece: compressor.compress(piece, zstd.ZstdCompressor.FLUSH_FRAME)


# --- text: JSON lines and CSV, compressed or not ---

_SMALL = 8 * 1024  # bytes of a piece: smaller ones are compressed together, as a frame of few runs is compressed badly
_PART = 64 * 1024


def packed_as(ending: str, file: BinaryIO, mode: Literal["rb", "wb"]) -> Any:
    """The text in a file, by the ending of its name."""
    if ending == ".gz":
        return gzip.GzipFile("", mode, 6, file, mtime=0)  # without the time: the same runs make the same file
    if ending == ".zst":
        return zstd.ZstdFile(file, mode="wb", options=ZSTD_OPTIONS) if mode == "wb" else zstd.ZstdFile(file)
    return file


class _TextFile(Writer):
    def __init__(self, path: Path, ending: str, head: bytes) -> None:
        self._file = open(fresh_file(path), "wb")  # noqa: SIM115  # `close` closes it
        self._text = packed_as(ending, self._file, "wb")
        self._text.write(head)

    def write(self, packed: bytes) -> None:
        if isinstance(self._text, zstd.ZstdFile) and len(packed) >= _SMALL:
            self._text.flush(zstd.ZstdCompressor.FLUSH_FRAME)
            self._file.write(packed)  # a frame, as it is
            return
        # In small parts: for each large one, glibc would get memory from the system anew, which takes longer.
        unpacker = zstd.ZstdDecompressor()
        while not unpacker.eof:
            self._text.write(unpacker.decompress(packed, max_length=_PART))
            if not unpacker.eof and unpacker.needs_input:
                raise zstd.ZstdError("it ends too early")
            packed = b""

    def close(self) -> None:
        with self._file:
            self._text.close()


def text_format(names: Sequence[str], ending: str, text: Callable[[str, RawPage], bytes], head: bytes = b"") -> Format:
    """A format whose file begins with `head`, and has the text of each page; its names are suffixes, too."""
    return Format(
        names[0] + ending,
        tuple(f".{name}{ending}" for name in names),
        text,
        lambda path: _TextFile(path, ending, head),
        begins=head or b'{"jobId":',
    )


# --- JSON lines ---

_ENDS = bytes.maketrans(b"\r\n", b"  ")  # between the parts of a JSON text; within strings they are escaped


def json_lines(job_id: str, page: RawPage) -> bytes:
    """Runs as lines: their JSON as the server sent it, with the job's id first."""
    head = b'{"jobId":%b,' % json.dumps(job_id, ensure_ascii=False).encode()
    texts = page.texts
    joined = b"".join(texts)
    if b"\n" in joined or b"\r" in joined:
        texts = tuple(text.translate(_ENDS) for text in texts)
    if b'"jobId"' in joined:
        texts = tuple(map(_without_job_id, texts))
    del joined  # so that there are never more than two copies of the page, which the system would make room for anew
    rests = [text[1:] for text in texts]
    rests[0] = head + rests[0]
    rests[-1] += b"\n"
    return (b"\n" + head).join(rests)


def _without_job_id(text: bytes) -> bytes:
    """A run without a `jobId` of its own, which a newer server may send: a line has that of the job that was read."""
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return text if fields.pop("jobId", None) is None else msgspec.json.encode(fields)


# --- columns of plain values, for CSV and SQLite ---

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS_A_DAY = 86_400_000
_MOST_KNOWN, _LONGEST_KNOWN = 65_536, 200


class _Known(dict[Any, str]):
    """The texts of values, of which many return: nothing else in Python is as fast as a dict that has the value."""

    def __init__(self, text_of: Callable[[Any], str]) -> None:
        self._text_of = text_of

    def __missing__(self, value: Any) -> str:
        text = self._text_of(value)
        if len(text) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[value] = text
        return text


_minutes = _Known(lambda minutes: (_EPOCH + timedelta(minutes=minutes)).isoformat()[:17])
_rests = _Known(lambda ms: f"{ms // 1000:02}.{ms % 1000:03}Z")


def plain_columns(runs: Sequence[JobRun]) -> Iterator[Sequence[Any]]:
    """The values of some runs, column by column, as `COLUMNS` has them: str, int or None; moments as text."""
    for column, values in zip(COLUMNS, values_of(runs), strict=True):
        if column.kind in LIMITS:
            check_limits(column.kind, values)
        yield _moments(values) if column.kind is Kind.INSTANT else values


def _moments(values: Sequence[Any]) -> list[str | None]:
    """Milliseconds since 1970 as UTC in the form of ISO 8601: `2026-11-23T08:30:00.123Z`."""
    if float in set(map(type, values)):
        return [None if value is None else _moment(value) for value in values]
    return [None if ms is None else _minutes[ms // 60_000] + _rests[ms % 60_000] for ms in values]


def _moment(milliseconds: float) -> str | None:
    if float(milliseconds).is_integer():
        return _moments([int(milliseconds)])[0]
    when = _EPOCH + timedelta(milliseconds=milliseconds)
    return iso_moment(when, "microseconds" if when.microsecond % 1000 else "milliseconds")


# --- CSV ---

CSV_NAMES = (",".join([JOB_ID, *(column.name for column in COLUMNS)]) + "\r\n").encode()
_FIRST_IN_FORMULAS = frozenset("=+-@＝＋－＠'")  # noqa: RUF001
_MARKED = re.compile(r"[=+\-@＝＋－＠'](?:(?<=\A.)|(?<=[;\t\r\n].))")  # noqa: RUF001
_find_start = re.compile(r"[;\t\r\n]").search


def csv_rows(job_id: str, page: RawPage) -> bytes:
    cells: list[Iterable[str]] = [itertools.repeat(cell(job_id), len(page.data))]
    for column, values in zip(COLUMNS, plain_columns(page.data), strict=True):
        if column.kind is Kind.TEXT and not column.is_nullable:
            cells.append(_cells(values))
        elif column.kind in (Kind.TEXT, Kind.WORD):
            cells.append(map(_known_cells.__getitem__, values))
        else:  # numbers and moments, which need no quotes
            cells.append(["" if value is None else str(value) for value in values])
    # Row by row: one character in a page that takes four bytes would make a text of the page four times as large.
    rows = map(str.encode, map(",".join, zip(*cells, strict=True)))
    return b"\r\n".join([*rows, b""])


def cell(value: str | None) -> str:
    """A text in a cell of CSV.

    Text is quoted, and null is an empty cell without quotes, so that the empty string, `""`, differs from it. An
    apostrophe is put before whatever a spreadsheet would take for a formula: at the start of a cell, and after a
    character that starts a cell in countries with another separator. It is also put before an apostrophe in such a
    place, so that removing one apostrophe in each such place gives the text back.
    """
    if value is None:
        return ""
    if value[:1] in _FIRST_IN_FORMULAS or _find_start(value):
        value = _MARKED.sub(r"'\g<0>", value)
    return '"' + value.replace('"', '""') + '"'


_known_cells = _Known(cell)


def _cells(values: Sequence[str]) -> Iterable[str]:
    """The cells of texts that differ: those of all as one, in which each line is a text, take a third of the time."""
    lines = cell("\n".join(values)).replace("\n", '"\n"').split("\n")
    return lines if len(lines) == len(values) else map(cell, values)


# --- Arrow: Parquet and Arrow files, and what the tables of DuckDB and PostgreSQL are made of ---

ARROW_MODULES = ("pyarrow", "pyarrow.parquet", "tfruns._table.arrow")
_ROWS_A_GROUP = 64_000
_BYTES_A_GROUP = 8 * 2**20  # how many rows are written together: enough to be read fast, and few enough for memory


def arrow_module() -> Any:
    return [needed(module, "arrow") for module in ARROW_MODULES][-1]


def arrow_piece(job_id: str, page: RawPage) -> Any:
    return arrow_batch(job_id, page).serialize()


def arrow_batch(job_id: str, page: RawPage) -> Any:
    for column in COLUMNS:
        if column.kind is Kind.INSTANT:
            check_limits(column.kind, [getattr(run, column.name) for run in page.data])
    return arrow_module().plain_batch([job_id] * len(page.data), page.data)  # which refuses numbers beyond 64 bits


def read_piece(piece: bytes) -> Any:
    arrow = arrow_module()
    return arrow.pa.ipc.read_record_batch(arrow.pa.py_buffer(piece), arrow.PLAIN_SCHEMA)


class ArrowFile(Writer):
    """Gathers the record batches of pieces, and gives many rows at a time to a writer of pyarrow's, which is made by
    `open_`."""

    def __init__(self, path: Path, schema: Any, open_: Callable[..., Any], **options: Any) -> None:
        os.close(fresh_file(path))
        self._writer = open_(str(path), schema, **options)
        self._schema = schema
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def write(self, packed: bytes) -> None:
        batch = read_piece(zstd.decompress(packed))
        if self._bytes + batch.nbytes > _BYTES_A_GROUP:
            self._flush()
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            table = arrow_module().pa.Table.from_batches(self._batches).combine_chunks()
            self._batches, self._rows, self._bytes = [], 0, 0
            self._writer.write_table(table if table.schema == self._schema else table.cast(self._schema))

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()
        arrow_module().pa.default_memory_pool().release_unused()  # which DuckDB may need now


def parquet_file(path: Path) -> Writer:
    arrow = arrow_module()
    return ArrowFile(path, arrow.SCHEMA, arrow.pa.parquet.ParquetWriter, compression="zstd")


def staged_file(path: Path) -> Writer:
    """A Parquet file that DuckDB reads, compressed fast."""
    arrow = arrow_module()
    return ArrowFile(path, arrow.PLAIN_SCHEMA, arrow.pa.parquet.ParquetWriter, compression="lz4")


def arrow_file(path: Path) -> Writer:
    """An Arrow IPC file, which PostgreSQL's driver is given, too. Its strings are written out: the format has one
    dictionary for all."""
    arrow = arrow_module()
    # Its threads would take twice the time, as they compress each column of a few rows.
    options = arrow.pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    return ArrowFile(path, arrow.PLAIN_SCHEMA, arrow.pa.ipc.new_file, options=options)
