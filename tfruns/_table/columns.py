"""The one description of the columns of a table of runs, for exports, data frames and Spark.

A row is a run with its job's id. The columns are the fields of `JobRun` under their own names, except the subject,
which is replaced by its fields, so that every format can hold it.
"""

import enum
import operator
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
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
_SUBJECT = "triggered_by_subject"
_SUBJECT_FIELDS = [field.name for field in attrs.fields(Subject)]
_NO_SUBJECT: Any = SimpleNamespace(**dict.fromkeys(_SUBJECT_FIELDS))


def _kind(field: "attrs.Attribute[Any]") -> Kind:
    if field.type in (int | float, int | float | None):  # in milliseconds since 1970
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


_GETTERS = [(column.name, operator.attrgetter(column.name)) for column in COLUMNS]


def values_of(runs: Sequence[JobRun]) -> list[Sequence[Any]]:
    """The values of some runs, column by column, as `COLUMNS` has them.

    They are str, int or None, and milliseconds since 1970 UTC (int or float) for a moment.
    """
    subjects = [run.triggered_by_subject or _NO_SUBJECT for run in runs]
    # Column by column: a tuple for each run would take longer.
    return [[*map(value_of, subjects if name in _SUBJECT_FIELDS else runs)] for name, value_of in _GETTERS]
