"""The query parameters of the endpoint. `tfruns.sandbox.server` lists their values and meaning."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from multidict import MultiMapping

from tfruns.models import JobRunsSortBy, JobRunStatus, SortDirection
from tfruns.sandbox.store import Selection, as_number

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class Parameters:
    """Reads query parameters, and notes what is wrong with them. A reader's ValueError says what is allowed."""

    def __init__(self, query: MultiMapping[str]) -> None:
        self._query = query
        self.problems: list[dict[str, Any]] = []

    def page(self) -> tuple[int, int]:
        """Offset and limit."""
        return self._one("offset", _whole(0), 0), self._one("limit", _whole(1, 1000), 100)

    def selection(self) -> Selection:
        """Which runs, in which order."""
        return Selection(
            search_prefix=self._one("searchPrefix", str, ""),
            triggered_by=self._several("triggeredBy", str),
            status=self._several("status", _member(JobRunStatus)),
            version_numbers=self._several("versionNumbers", _number),
            sort_by=self._one("sortBy", _member(JobRunsSortBy), JobRunsSortBy.START_TIME),
            order=self._one("order", _member(SortDirection), SortDirection.DESC),
        )

    def _several(self, name: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        values: list[_T] = []
        for text in self._query.getall(name, []):
            try:
                values.append(read(text))
            except ValueError as error:
                self._refuse(name, text, str(error))
        return tuple(values)

    def _one(self, name: str, read: Callable[[str], _T], default: _T) -> _T:
        texts = self._query.getall(name, [])
        if len(texts) > 1:
            self._refuse(name, ", ".join(texts), "given once")
            return default
        return next(iter(self._several(name, read)), default)

    def _refuse(self, name: str, text: str, allowed: str) -> None:
        self.problems.append({"parameter": name, "value": text, "message": f"must be {allowed}, got {text!r}"})


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        allowed = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
        # 4300 digits are the most that int() reads.
        number = int(text) if re.fullmatch("-?[0-9]{1,4300}", text) else None
        if number is None or number < least or (most is not None and number > most):
            raise ValueError(allowed)
        return number

    return read


def _member(enum: type[_E]) -> Callable[[str], _E]:
    def read(text: str) -> _E:
        if text not in enum.__members__.values():
            raise ValueError("one of " + ", ".join(enum))
        return enum(text)

    return read


def _number(text: str) -> float:
    number = as_number(text)
    if number is None:
        raise ValueError("a number")
    return number
