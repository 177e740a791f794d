"""Formats of text: JSON lines and CSV, compressed or not. A piece is the text of a page."""

import functools
import gzip
import itertools
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from tfruns._table.columns import COLUMNS, JOB_ID, Kind, values_of
from tfruns._text import iso_moment
from tfruns.export.files import fresh_file
from tfruns.export.writer import ZSTD_OPTIONS, Format, Writer, zstd
from tfruns.models import JobRun, RawPage

_SMALL = 8 * 1024  # bytes of a piece: smaller ones are compressed together, as a frame of few runs is compressed badly
_SYNC_EVERY = 16 * 2**20
"""Bytes after which the writer waits until they are on the disk, so that little is left for the end."""


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
        self._is_zst = ending == ".zst"
        self._synced = 0

    def write(self, packed: bytes) -> None:
        if self._is_zst and len(packed) >= _SMALL:
            self._text.flush(zstd.ZstdFile.FLUSH_FRAME)
            self._file.write(packed)  # a frame, as it is
        else:
            super().write(packed)
        if self._file.tell() - self._synced > _SYNC_EVERY:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = self._file.tell()

    def add(self, piece: bytes) -> None:
        self._text.write(piece)

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
    )


# --- JSON lines ---

_ENDS = bytes.maketrans(b"\r\n", b"  ")  # between the parts of a JSON text; within strings they are escaped


def lines(job_id: str, page: RawPage) -> bytes:
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
_SECONDS = [f"{second:02}." for second in range(60)]
_MILLISECONDS = [f"{millisecond:03}Z" for millisecond in range(1000)]
MS_A_DAY = 86_400_000


def plain_columns(runs: Sequence[JobRun]) -> Iterator[Sequence[Any]]:
    """The values of some runs, column by column, as `COLUMNS` has them: str, int or None; moments as text."""
    for column, values in zip(COLUMNS, values_of(runs), strict=True):
        if column.kind is Kind.COUNT:
            array("q", [value for value in values if value is not None])  # raises OverflowError beyond 64 bits
        yield _moments(values) if column.kind is Kind.INSTANT else values


def _moments(values: Sequence[Any]) -> list[str | None]:
    """Milliseconds since 1970 as UTC in the form of ISO 8601: `2026-11-23T08:30:00.123Z`. Raises OverflowError if one
    is beyond the years 1 to 9999."""
    if float in set(map(type, values)):
        return [None if value is None else _moment(value) for value in values]
    return [
        None if ms is None else _minute(ms // 60_000) + _SECONDS[ms // 1000 % 60] + _MILLISECONDS[ms % 1000]
        for ms in values
    ]


@functools.lru_cache(65_536)
def _minute(minutes: int) -> str:
    return (_EPOCH + timedelta(minutes=minutes)).isoformat()[:17]


def _moment(milliseconds: float) -> str | None:
    if float(milliseconds).is_integer():
        return _moments([int(milliseconds)])[0]
    when = _EPOCH + timedelta(milliseconds=milliseconds)
    return iso_moment(when, "microseconds" if when.microsecond % 1000 else "milliseconds")


# --- CSV ---

CSV_NAMES = (",".join([JOB_ID, *(column.name for column in COLUMNS)]) + "\r\n").encode()
_FIRST_IN_FORMULAS = frozenset("=+-@＝＋－＠'")  # noqa: RUF001
_MARKED = re.compile(r"[=+\-@＝＋－＠'](?:(?<=\A.)|(?<=[;\t\r\n].))")  # noqa: RUF001
_find_special = re.compile(r'[";\t\r\n]').search


def csv_rows(job_id: str, page: RawPage) -> bytes:
    cells: list[Iterable[str]] = [itertools.repeat(cell(job_id), len(page.data))]
    for column, values in zip(COLUMNS, plain_columns(page.data), strict=True):
        if column.kind is Kind.TEXT:
            cells.append(map(cell, values))
        elif column.kind is Kind.WORD:
            known = {value: cell(value) for value in set(values)}
            cells.append(map(known.__getitem__, values))
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
    if value[:1] in _FIRST_IN_FORMULAS or _find_special(value):
        value = _MARKED.sub(r"'\g<0>", value).replace('"', '""')
    return f'"{value}"'
