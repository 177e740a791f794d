"""Formats of text: JSON lines, compressed or not, and CSV."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tfruns._table.columns import COLUMNS, JOB_ID
from tfruns.export.lines import runs_of
from tfruns.export.writers import File, Writer, needed, rows

_MEANS_MORE = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "'")  # noqa: RUF001


class _JsonLines(File):
    def __init__(self, path: Path, wrap: Callable[[IO[bytes]], Any] | None = None) -> None:
        self._file = path.open("wb")
        self._out = self._file if wrap is None else wrap(self._file)

    def write(self, job_id: str, lines: bytes) -> None:
        self._out.write(lines)

    def close(self) -> None:
        if self._out is not self._file:
            self._out.close()
        self._file.close()

    def abandon(self) -> None:
        try:
            self.close()  # what compresses, too: else it would write once more when it is collected
        finally:
            self._file.close()


def json_lines(path: Path) -> Writer:
    """A run a line, as the server sent it, with its job."""
    return _JsonLines(path)


def gzipped(path: Path) -> Writer:
    """The same, compressed by gzip."""
    # No name and no time within: the same runs make the same file.
    return _JsonLines(path, lambda file: gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))


def zstd(path: Path) -> Writer:
    """The same, compressed by Zstandard."""
    zstandard = needed("zstandard", "zstd")
    return _JsonLines(path, lambda file: zstandard.ZstdCompressor().stream_writer(file, closefd=False))


class _Csv(File):
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow([JOB_ID, *(column.name for column in COLUMNS)])

    def write(self, job_id: str, lines: bytes) -> None:
        job = cell(job_id)
        for row in rows(runs_of(lines, job_id)):
            self._rows.writerow([job, *map(cell, row)])

    def close(self) -> None:
        self._file.close()

    abandon = close


def comma_separated(path: Path) -> Writer:
    """CSV, with a line of names first; moments as text in UTC."""
    return _Csv(path)


def cell(value: Any) -> Any:
    """The value in a cell of CSV.

    Text that a spreadsheet would take for a formula has an apostrophe before it, as has text that begins with one: who
    takes away one apostrophe at the beginning has the text back.
    """
    return "'" + value if isinstance(value, str) and value.startswith(_MEANS_MORE) else value
