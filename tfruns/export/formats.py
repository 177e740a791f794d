"""The formats of an export, and how each is written: one file, from lines that come job by job."""

import csv
import gzip
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol

import attrs

from tfruns.columns import COLUMNS, JOB_ID, Column, Kind
from tfruns.export.errors import ExportError
from tfruns.export.lines import runs_of
from tfruns.models import JobRun

_MEANS_MORE = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Writer(Protocol):
    """Writes one file."""

    def write(self, job_id: str, lines: bytes) -> None:
        """Add some runs of a job: a line each."""

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        """Take some runs of a job out: for databases."""

    def close(self) -> None:
        """Write what is left, and close the file. (It isn't on the disk for sure.)"""

    def abandon(self) -> None:
        """Close the file after something went wrong. It may raise once more."""


@attrs.frozen
class Format:
    """A format of an export."""

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path], Writer]
    is_database: bool = False
    """Whether a run that is written again takes the place of the one before."""


class File:
    """What files have in common: nothing can be taken out of one."""

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        raise NotImplementedError


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


def _gzipped(path: Path) -> Writer:
    # No name and no time within: the same runs make the same file.
    return _JsonLines(path, lambda file: gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))


def _zstandard(path: Path) -> Writer:
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


def cell(value: Any) -> Any:
    """The value in a cell of CSV.

    Text that a spreadsheet would take for a formula has an apostrophe before it, as has text that begins with one: who
    takes away one apostrophe at the beginning has the text back.
    """
    return "'" + value if isinstance(value, str) and value.startswith(_MEANS_MORE) else value


def moment(milliseconds: float) -> str:
    """Milliseconds since 1970 as UTC in the form of ISO 8601: `2026-11-23T08:30:00.123Z`."""
    try:
        when = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ExportError(
            f"{milliseconds!r} ms since 1970 is beyond the year 9999, which only JSON lines can hold"
        ) from None
    precision = "microseconds" if when.microsecond % 1000 else "milliseconds"
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def rows(runs: Sequence[JobRun]) -> Iterator[tuple[Any, ...]]:
    """The values of `COLUMNS` for each run; moments as text."""
    return zip(*(_values(column, runs) for column in COLUMNS), strict=True)


def _values(column: Column, runs: Sequence[JobRun]) -> list[Any]:
    values = column.values(runs)
    if column.kind is Kind.INSTANT:
        return [None if value is None else moment(value) for value in values]
    if column.kind is Kind.WORD:
        return [None if value is None else str(value) for value in values]
    return values


def needed(module: str, extra: str) -> Any:
    """The module of an extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"this format needs more: pip install 'tfruns[{extra}]' ({error})") from None


def _in_tables(name: str) -> Callable[[Path], Writer]:
    def open_(path: Path) -> Writer:
        from tfruns.export import tables

        opener: Callable[[Path], Writer] = getattr(tables, name)
        return opener(path)

    return open_


FORMATS = (
    Format("jsonl", (".jsonl", ".ndjson"), _JsonLines),
    Format("jsonl.gz", (".jsonl.gz", ".ndjson.gz"), _gzipped),
    Format("jsonl.zst", (".jsonl.zst", ".ndjson.zst"), _zstandard),
    Format("csv", (".csv",), _Csv),
    Format("parquet", (".parquet",), _in_tables("parquet")),
    Format("arrow", (".arrow", ".feather"), _in_tables("arrow")),
    Format("sqlite", (".sqlite", ".sqlite3", ".db"), _in_tables("sqlite"), is_database=True),
    Format("duckdb", (".duckdb",), _in_tables("duckdb"), is_database=True),
)


def find_format(name: str | None, destination: Path) -> Format:
    """The format of that name, or else of the destination's suffix.

    Raises:
        ValueError: there is none.
    """
    names = ", ".join(known.name for known in FORMATS)
    for known in FORMATS:
        if name == known.name or (name is None and destination.name.lower().endswith(known.suffixes)):
            return known
    if name is None:
        raise ValueError(f"the format can't be told from the name {destination.name!r}: give one of {names}")
    raise ValueError(f"format must be one of {names}, got {name!r}")
