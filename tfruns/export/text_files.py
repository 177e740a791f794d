"""Formats of text: JSON lines and CSV, compressed or not. Their pieces are appended to the file unchanged."""

import gzip
import itertools
import json
import os
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.compress import compress, pack, unpack, zstd
from tfruns.export.rows import columns
from tfruns.export.writer import Appended, Writer
from tfruns.models import RawPage

# --- JSON lines ---

_ENDS = bytes.maketrans(b"\r\n", b"  ")  # between the parts of a JSON text; within strings they are escaped
_SMALL = 65_536
"""Bytes: smaller pieces are compressed together, because a frame of few runs is compressed badly."""


def lines(job_id: str, page: RawPage) -> bytes:
    """Runs as lines: their JSON as the server sent it, with the job's id first."""
    head = b'{"jobId":%b,' % json.dumps(job_id, ensure_ascii=False).encode()
    texts: Sequence[bytes] = page.texts
    joined = b"".join(texts)
    if b"\n" in joined or b"\r" in joined:
        texts = [text.translate(_ENDS) for text in texts]
    if b'"jobId"' in joined:
        return b"".join(_line(head, text) for text in texts)
    del joined  # so that there are never more than two copies of the page, which the system would make room for anew
    rests = [text[1:] for text in texts]
    rests[0] = head + rests[0]
    rests[-1] += b"\n"
    return (b"\n" + head).join(rests)


def _line(head: bytes, text: bytes) -> bytes:
    if "jobId" in json.loads(text):  # a newer server that sends the field itself
        return text + b"\n"
    return head + text[1:] + b"\n"


def plain_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `json_lines`."""
    return pack(lines(job_id, page))


def zstd_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `zstandard`: a frame."""
    return frame(lines(job_id, page))


def gzip_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `gzipped`: a member."""
    return member(lines(job_id, page))


def frame(text: bytes) -> bytes:
    """Text as a frame of Zstandard."""
    return compress(text, 3)


def member(text: bytes) -> bytes:
    """Text as a member of a gzip file."""
    return gzip.compress(text, 6, mtime=0)  # without the time: the same runs make the same file


class _Unpacked(Appended):
    """Appends pieces uncompressed."""

    def write(self, piece: bytes) -> None:
        self.append(unpack(piece))


class _Compressed(Appended):
    """Appends frames unchanged, but many small ones as one."""

    def __init__(
        self,
        path: Path,
        *,
        length: Callable[[bytes], int],
        expand: Callable[[bytes], bytes],
        compress: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(path)
        self._length = length
        self._expand = expand
        self._compress = compress
        self._small: list[bytes] = []
        self._small_bytes = 0

    def write(self, piece: bytes) -> None:
        if (length := self._length(piece)) < _SMALL:
            self._small.append(self._expand(piece))
            self._small_bytes += length
            if self._small_bytes >= 8 * _SMALL:
                self._flush()
        else:
            self._flush()
            self.append(piece)

    def close(self) -> None:
        self._flush()
        if os.fstat(self.descriptor).st_size == 0:  # a file without runs is a valid one too
            self.append(self._compress(b""))
        super().close()

    def _flush(self) -> None:
        if self._small:
            self.append(self._compress(b"".join(self._small)))
            self._small, self._small_bytes = [], 0


def json_lines(path: Path, scratch: Path) -> Writer:
    """One run per line, as the server sent it, with its job."""
    return _Unpacked(path)


def gzipped(path: Path, scratch: Path) -> Writer:
    """The same, compressed by gzip."""

    def length(piece: bytes) -> int:
        (found,) = struct.unpack("<I", piece[-4:])
        return int(found)

    return _Compressed(path, length=length, expand=gzip.decompress, compress=member)


def zstandard(path: Path, scratch: Path) -> Writer:
    """The same, compressed by Zstandard."""

    def length(piece: bytes) -> int:
        return zstd.get_frame_info(piece).decompressed_size or 0

    return _Compressed(path, length=length, expand=unpack, compress=frame)


# --- CSV ---

_BEGINS_FORMULA = r"=+\-@＝＋－＠"  # noqa: RUF001
_FIRST_IN_FORMULAS = frozenset("=+-@＝＋－＠'")  # noqa: RUF001
_MARKED = re.compile(rf"(^|[;\t\r\n])(?=[{_BEGINS_FORMULA}'])")


def csv_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `comma_separated`."""
    return pack(csv_rows(job_id, page))


def csv_gzip_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `comma_separated_gzipped`: a member."""
    return member(csv_rows(job_id, page))


def csv_rows(job_id: str, page: RawPage) -> bytes:
    """Runs as lines of CSV."""
    cells: list[Any] = [itertools.repeat(cell(job_id), len(page.data))]
    for column, values in zip(COLUMNS, columns(page.data), strict=True):
        if column.kind is Kind.TEXT:
            cells.append(_cells(values))
        elif column.kind is Kind.WORD:
            known = {value: cell(value) for value in set(values)}
            if len(known) == 1:  # as in most of these columns of a page
                cells.append([*known.values()] * len(values))
            else:
                cells.append([known[value] for value in values])
        else:  # numbers and moments, which need no quotes
            cells.append(["" if value is None else str(value) for value in values])
    text = "\r\n".join(map(",".join, zip(*cells, strict=True))) + "\r\n"
    return text.encode()


def _cells(values: list[str | None]) -> list[str]:
    """The cells of a column: in most columns no text has a character that needs care, which is seen at once."""
    texts = [value for value in values if value is not None]
    joined = "\n".join(texts)
    if (
        joined.count("\n") > max(0, len(texts) - 1)
        or any(each in joined for each in '";\t\r')
        or not _FIRST_IN_FORMULAS.isdisjoint([text[:1] for text in texts])
    ):
        return [*map(cell, values)]
    return ["" if value is None else f'"{value}"' for value in values]


def cell(value: str | None) -> str:
    """A text in a cell of CSV.

    Text is quoted, and null is an empty cell without quotes, so that the empty string, `""`, differs from it. An
    apostrophe is put before whatever a spreadsheet would take for a formula: at the start of a cell, and after a
    character that starts a cell in countries with another separator. It is also put before an apostrophe in such a
    place, so that removing one apostrophe in each such place gives the text back.
    """
    if value is None:
        return ""
    if _MARKED.search(value):
        value = _MARKED.sub(r"\1'", value)
    return '"' + value.replace('"', '""') + '"'


_NAMES = (",".join([JOB_ID, *(column.name for column in COLUMNS)]) + "\r\n").encode()


def comma_separated(path: Path, scratch: Path) -> Writer:
    """CSV, with a line of names first; moments as text in UTC."""
    writer = _Unpacked(path)
    writer.append(_NAMES)
    return writer


def comma_separated_gzipped(path: Path, scratch: Path) -> Writer:
    """The same, compressed by gzip."""
    writer = gzipped(path, scratch)
    writer.write(member(_NAMES))
    return writer
