"""Runs as rows of plain values: for CSV and SQLite."""

import functools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tfruns._table.columns import COLUMNS, LIMITS, Column, Kind, values_of
from tfruns._text import iso_moment
from tfruns.models import JobRun

INSTANTS = tuple(column.name for column in COLUMNS if column.kind is Kind.INSTANT)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_A_DAY = 86_400_000


def moment(milliseconds: float) -> str:
    """Milliseconds since 1970 as UTC in the form of ISO 8601: `2026-11-23T08:30:00.123Z`. Raises OverflowError if it is
    beyond the years 1 to 9999."""
    if isinstance(milliseconds, float):
        if not milliseconds.is_integer():
            when = _EPOCH + timedelta(milliseconds=milliseconds)
            precision = "microseconds" if when.microsecond % 1000 else "milliseconds"
            return iso_moment(when, precision)
        milliseconds = int(milliseconds)
    days, left = divmod(milliseconds, _MS_A_DAY)
    return _day(days) + _SECONDS[left // 1000] + _MILLISECONDS[left % 1000]


@functools.lru_cache(4096)
def _day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).date().isoformat() + "T"


class _Seconds(dict[int, str]):
    """Each second of a day, as it is used."""

    def __missing__(self, second: int) -> str:
        text = self[second] = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        return text


_SECONDS = _Seconds()
_MILLISECONDS = [f".{millisecond:03}Z" for millisecond in range(1000)]


def columns(runs: Sequence[JobRun]) -> Iterator[list[Any]]:
    """The values of some runs, column by column, as `COLUMNS` has them: str, int or None; moments as text."""
    return map(_plain, COLUMNS, values_of(runs))


def _plain(column: Column, found: list[Any]) -> list[Any]:
    if column.kind is Kind.INSTANT:
        return [None if value is None else moment(value) for value in found]
    if column.kind is Kind.WORD and not {str, type(None)}.issuperset(map(type, found)):
        return [None if value is None else str(value) for value in found]
    if column.kind is Kind.COUNT:
        least, most = LIMITS[Kind.COUNT]
        numbers = [value for value in found if value is not None]
        if numbers and not (least <= min(numbers) and max(numbers) <= most):
            raise OverflowError(f"{column.name} has a number beyond 64 bits")
    return found
