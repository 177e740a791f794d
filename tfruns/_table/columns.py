"""The table that runs make: the one description of its columns, for exports, data frames and Spark.

A row is a run with its job's id. The columns are the fields of `JobRun` under their own names, but for the subject,
whose fields stand in its place: every format can hold that.
"""

import enum
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tfruns.models import JobRun, Subject


class Kind(enum.Enum):
    """What a column holds."""

    TEXT = "text"
    WORD = "text, few different ones"
    COUNT = "64-bit integer"
    INSTANT = "moment in UTC"


@attrs.frozen
class Column:
    """One column of the table."""

    name: str
    kind: Kind
    is_nullable: bool
    values: Callable[[Sequence[JobRun]], list[Any]] = attrs.field(repr=False, eq=False)
    """The values of some runs: str, int or None, and milliseconds since 1970 UTC (int or float) for a moment."""


JOB_ID = "job_id"
"""Name of the first column, which isn't a field of the run."""

_OWN_TEXTS = frozenset({"id", "name", "error", "spark_ui"})  # differ from run to run
_INSTANTS = frozenset({"created_at", "end_time"})
_SUBJECT = "triggered_by_subject"


def _of_run(name: str, runs: Sequence[JobRun]) -> list[Any]:
    return list(map(operator.attrgetter(name), runs))


def _of_subject(name: str, runs: Sequence[JobRun]) -> list[Any]:
    of = operator.attrgetter(name)
    return [None if run.triggered_by_subject is None else of(run.triggered_by_subject) for run in runs]


def _columns() -> tuple[Column, ...]:
    columns = []
    for field in attrs.fields(JobRun):
        if field.name == _SUBJECT:
            columns += [
                Column(part.name, Kind.WORD, True, functools.partial(_of_subject, part.name))
                for part in attrs.fields(Subject)
            ]
        else:
            kind = (
                Kind.INSTANT
                if field.name in _INSTANTS
                else Kind.COUNT
                if field.type in (int, int | None)
                else Kind.TEXT
                if field.name in _OWN_TEXTS
                else Kind.WORD
            )
            is_nullable = field.default is None
            columns.append(Column(field.name, kind, is_nullable, functools.partial(_of_run, field.name)))
    return tuple(columns)


COLUMNS = _columns()
"""The columns after `job_id`, in the order of the models' fields."""
