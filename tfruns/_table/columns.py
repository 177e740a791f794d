"""The one description of the columns of a table of runs, for exports, data frames and Spark.

A row is a run with its job's id. The columns are the fields of `JobRun` under their own names, except the subject,
which is replaced by its fields, so that every format can hold it.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from tfruns.models import JobRun, Subject


class Kind(enum.Enum):
    TEXT = "text"
    WORD = "text, few different ones"
    COUNT = "64-bit integer"
    INSTANT = "moment in UTC"


@attrs.frozen
class Column:
    name: str
    kind: Kind
    is_nullable: bool


LIMITS: dict[Kind, tuple[float, float]] = {
    Kind.INSTANT: (-62_135_596_800_000, 253_402_300_799_999),  # the years 1 to 9999
    Kind.COUNT: (-(2**63), 2**63 - 1),
}
"""The least and the most that tables hold, in every format and its readers; moments in milliseconds since 1970 UTC."""

JOB_ID = "job_id"
"""Name of the first column, which isn't a field of the run."""

_OWN_TEXTS = frozenset({"id", "name", "error", "spark_ui"})  # differ from run to run
_INSTANTS = frozenset({"created_at", "end_time"})
_SUBJECT = "triggered_by_subject"
_SUBJECT_FIELDS = [field.name for field in attrs.fields(Subject)]
_NO_SUBJECT = Subject(**dict.fromkeys(_SUBJECT_FIELDS))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _kind(field: "attrs.Attribute[Any]") -> Kind:
    if field.name in _INSTANTS:
        return Kind.INSTANT
    if field.type in (int, int | None):
        return Kind.COUNT
    return Kind.TEXT if field.name in _OWN_TEXTS else Kind.WORD


def _columns() -> Iterator[Column]:
    for field in attrs.fields(JobRun):
        if field.name == _SUBJECT:
            yield from (Column(name, Kind.WORD, is_nullable=True) for name in _SUBJECT_FIELDS)
        else:
            yield Column(field.name, _kind(field), is_nullable=field.default is None)


COLUMNS = (*_columns(),)
"""The columns after `job_id`, in the order of the models' fields."""
_LIMITED = [(column, *LIMITS[column.kind]) for column in COLUMNS if column.kind in LIMITS]


def beyond_limits(run: JobRun) -> list[Column]:
    """The columns whose value in this run no table can hold."""
    return [
        column
        for column, least, most in _LIMITED
        if (value := getattr(run, column.name)) is not None and not least <= value <= most
    ]


_LISTS = [
    f"[each.{column.name} for each in {'subjects' if column.name in _SUBJECT_FIELDS else 'runs'}]" for column in COLUMNS
]
# Compiled, as attrs compiles its methods: a field that is named in the code is read in a third of the time.
_lists_of: Callable[[Sequence[JobRun], Sequence[Subject]], list[Sequence[Any]]]
_lists_of = eval(f"lambda runs, subjects: [{', '.join(_LISTS)}]")  # noqa: S307


def values_of(runs: Sequence[JobRun]) -> list[Sequence[Any]]:
    """The values of some runs, column by column, as `COLUMNS` has them.

    They are str, int or None, and milliseconds since 1970 UTC (int or float) for a moment.
    """
    return _lists_of(runs, [run.triggered_by_subject or _NO_SUBJECT for run in runs])
