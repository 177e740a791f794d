"""Runs that can't be written: they are listed in a file beside the destination, and the others are written.

A line of `runs.parquet.rejected.jsonl` is an object with `jobId`, `runId`, `field` (the first wrong one), `why` (the
reasons for all wrong fields) and `text` (the run's JSON as the server sent it).
"""

import json
from typing import Any, Self

import msgspec

from tfruns._table.columns import COLUMNS, LIMITS, Kind, values_of
from tfruns.errors import FieldProblem
from tfruns.export.writer import Format
from tfruns.models import BadRun, JobRun


class RejectedRun(msgspec.Struct, rename="camel"):
    """A run that was set aside: a line of the quarantine."""

    job_id: str
    run_id: str
    field: str
    why: str
    text: str

    @classmethod
    def of(cls, job_id: str, run: BadRun) -> Self:
        why = "; ".join(f"{problem.field}: {problem.reason}" for problem in run.problems)
        field = run.problems[0].field if run.problems else ""
        return cls(job_id, run.id, field, why, run.text.decode("utf-8", "replace"))

    @property
    def line(self) -> bytes:
        return json.dumps(msgspec.to_builtins(self), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def unfit(job_id: str, run: JobRun, format_: Format) -> tuple[FieldProblem, ...]:
    """Why a format with columns can't hold a run."""
    problems: list[FieldProblem] = []
    row: dict[str, Any] = {}
    for column, (value,) in zip(COLUMNS, values_of([run]), strict=True):
        row[column.name] = value
        least, most = LIMITS.get(column.kind, (None, None))
        if value is not None and least is not None and not least <= value <= most:
            what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
            problems.append(FieldProblem(column.name, f"expected {what}, got {value!r}"))
    return (*problems, *format_.unfit(job_id, row))
