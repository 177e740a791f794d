"""What the writers of all formats have in common."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tfruns._table.columns import COLUMNS, Column, Kind, values_of
from tfruns.export.errors import ExportError
from tfruns.models import JobRun

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


class File:
    """What files have in common: nothing can be taken out of one."""

    def remove(self, job_id: str, run_ids: Iterable[str]) -> None:
        raise NotImplementedError


def moment(milliseconds: float) -> str:
    """Milliseconds since 1970 as UTC in the form of ISO 8601: `2026-11-23T08:30:00.123Z`."""
    try:
        when = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ExportError(
            f"{milliseconds!r} ms since 1970 is not in the years 1 to 9999; JSON lines can hold it"
        ) from None
    precision = "microseconds" if when.microsecond % 1000 else "milliseconds"
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def rows(runs: Sequence[JobRun]) -> Iterator[tuple[Any, ...]]:
    """The values of `COLUMNS` for each run; moments as text."""
    return zip(*map(_values, COLUMNS, values_of(runs)), strict=True)


def _values(column: Column, values: list[Any]) -> list[Any]:
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
