"""Runs that can't be written: they are listed in a file beside the destination, and the others are written.

A line of `runs.parquet.rejected.jsonl` is an object with `jobId`, `runId`, `field` (the first wrong one), `why` (the
reasons for all wrong fields) and `text` (the run's JSON as the server sent it).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from tfruns._table.columns import COLUMNS, LIMITS, Kind, values_of
from tfruns.export.page import Page
from tfruns.models import BadRun, JobRun


@attrs.frozen
class Rejected:
    """A run that was set aside."""

    run_id: str
    field: str
    why: str
    text: bytes

    @classmethod
    def of_bad_run(cls, bad: BadRun) -> "Rejected":
        """A run that couldn't be understood."""
        return cls(
            bad.id,
            bad.problems[0].field if bad.problems else "",
            "; ".join(f"{problem.field}: {problem.reason}" for problem in bad.problems),
            bad.text,
        )

    def line(self, job_id: str) -> bytes:
        """Its line in the quarantine."""
        content = {
            "jobId": job_id,
            "runId": self.run_id,
            "field": self.field,
            "why": self.why,
            "text": self.text.decode("utf-8", "replace"),
        }
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


Unfit = Callable[[str, Mapping[str, Any]], Iterable[tuple[str, str]]]
"""See `Format.unfit`."""


def unfit(job_id: str, run: JobRun, text: bytes, more: Unfit) -> Rejected | None:
    """Why tables can't hold a run; None if they can."""
    problems: list[tuple[str, str]] = []
    row: dict[str, Any] = {}
    for column, (value,) in zip(COLUMNS, values_of([run]), strict=True):
        row[column.name] = value
        least, most = LIMITS.get(column.kind, (None, None))
        if value is not None and least is not None and not least <= value <= most:
            what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
            problems.append((column.name, f"expected {what}, got {value!r}"))
    problems += more(job_id, row)
    if not problems:
        return None
    return Rejected(run.id, problems[0][0], "; ".join(f"{field}: {why}" for field, why in problems), text)


def split(page: Page, more: Unfit) -> tuple[Page, list[Rejected]]:
    """The runs that a format can hold, and the others."""
    judged = [unfit(page.job_id, run, text, more) for run, text in zip(page.runs, page.texts(), strict=True)]
    kept = [at for at, rejected in enumerate(judged) if rejected is None]
    return page.only(kept), [rejected for rejected in judged if rejected is not None]
