"""Few of many combinations."""

from collections.abc import Sequence
from typing import Any

import pytest


def each_once(names: str, first: Sequence[Any], second: Sequence[Any]) -> pytest.MarkDecorator:
    """Each of the first with one of the second, in turn. The other combinations are `slow`, for each takes long."""
    cases = []
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            one_values, one_marks = _parts(one)
            other_values, other_marks = _parts(other)
            marks = [*one_marks, *other_marks, *([] if row % len(second) == column else [pytest.mark.slow])]
            cases.append(pytest.param(*one_values, *other_values, marks=marks))
    return pytest.mark.parametrize(names.split(", "), cases)


def _parts(value: Any) -> tuple[tuple[Any, ...], Sequence[Any]]:
    """The values, and their marks."""
    if isinstance(value, tuple) and hasattr(value, "marks"):  # of `pytest.param`
        return value.values, tuple(value.marks)  # type: ignore[attr-defined]
    return (value if isinstance(value, tuple) else (value,)), ()
