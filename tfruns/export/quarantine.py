"""Runs that can't be written: they are listed in a file beside the destination, and the others are written.

A line of `runs.parquet.rejected.jsonl` is an object with `jobId`, `runId`, `field` (the first wrong one), `why` (the
reasons for all wrong fields) and `text` (the run's JSON as the server sent it).
"""

import json
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from tfruns._table.columns import COLUMNS, LIMITS, Kind, values_of
from tfruns.export.writer import Format
from tfruns.models import JobRun


class RejectedRun(msgspec.Struct, rename="camel"):
    """A run that was set aside: a line of the quarantine."""

    job_id: str
    run_id: str
    field: str
    why: str
    text: str

    @classmethod
    def of(cls, job_id: str, run_id: str, problems: Sequence[tuple[str, str]], text: bytes) -> Self:
        """From what is wrong with it: fields, each with the reason."""
        why = "; ".join(f"{field}: {reason}" for field, reason in problems)
        return cls(job_id, run_id, problems[0][0] if problems else "", why, text.decode("utf-8", "replace"))

    @property
    def line(self) -> bytes:
        return json.dumps(msgspec.to_builtins(self), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def unfit(job_id: str, run: JobRun, format_: Format) -> list[tuple[str, str]]:
    """Why a format with columns can't hold a run: fields, each with the reason."""
    problems: list[tuple[str, str]] = []
    row: dict[str, Any] = {}
    for column, (value,) in zip(COLUMNS, values_of([run]), strict=True):
        row[column.name] = value
        least, most = LIMITS.get(column.kind, (None, None))
        if value is not None and least is not None and not least <= value <= most:
            what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
            problems.append((column.name, f"expected {what}, got {value!r}"))
    return [*problems, *format_.unfit(job_id, row)]
