"""Which of a query's filters the control plane can look at.

Whatever is pushed down, Spark looks at every filter again: the server may let more runs through, never fewer. (It takes
`searchPrefix` for names and ids alike, and may compare less strictly than Spark.)
"""

from collections.abc import Iterable
from typing import Any

import attrs
from pyspark.sql import datasource

from tfruns.models import JobRunStatus
from tfruns.query import RunFilter


def push(filters: Iterable[Any], run_filter: RunFilter) -> tuple[RunFilter, frozenset[str] | None]:
    """The filter made narrower by those of a query that it can hold, and which jobs the query is about (None: any).

    What the options ask for already stays as it is.
    """
    jobs: frozenset[str] | None = None
    for wanted in filters:
        column, values, is_prefix = _read(wanted)
        if column == "job_id" and not is_prefix:
            jobs = frozenset(values) if jobs is None else jobs & frozenset(values)
            continue
        field, can_hold = _FIELDS.get(column, (None, None))
        if (
            field is None
            or can_hold is None
            or getattr(run_filter, field) is not None
            or not all(map(can_hold, values))
        ):
            continue
        if field == "search_prefix":
            if len(values) == 1:
                run_filter = attrs.evolve(run_filter, search_prefix=values[0])
        elif not is_prefix:
            changes: Any = {field: values}
            run_filter = attrs.evolve(run_filter, **changes)
    return run_filter, jobs


def _read(wanted: Any) -> tuple[str, list[str], bool]:
    """The column, the strings that it may have, and whether it need only begin with them; "" for any other filter."""
    match wanted:
        case datasource.EqualTo((column,), str(value)):
            return column, [value], False
        case datasource.In((column,), [_, *_] as values) if all(isinstance(value, str) for value in values):
            return column, [*values], False
        case datasource.StringStartsWith((column,), str(value)):
            return column, [value], True
    return "", [], False


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text


# What a server of this contract takes for each: anything else might be refused, or be read as another value.
_FIELDS = {
    "status": ("status", JobRunStatus.__members__.__contains__),
    "triggered_by": ("triggered_by", bool),
    "deployment_version": ("version_numbers", _is_version),
    "name": ("search_prefix", bool),
    "id": ("search_prefix", bool),
}
