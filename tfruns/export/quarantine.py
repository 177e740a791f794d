"""Runs that can't be written: set aside, and listed in a file beside the destination, so that the others can.

A line of `runs.parquet.rejected.jsonl` is an object with `jobId`, `runId`, `field` (the first that is wrong), `why`
(of all that are) and `text` (the run's JSON as the server sent it).
"""

import json
from collections.abc import Sequence

import attrs

from tfruns._table.columns import COLUMNS, Kind
from tfruns.models import BadRun, JobRun

_LEAST, _MOST = -62_135_596_800_000, 253_402_300_799_999.999
"""Milliseconds since 1970 UTC: the years 1 to 9999, which every format and its readers can hold."""
_MOST_COUNT = 2**63 - 1


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
        """As it stands in the quarantine."""
        content = {
            "jobId": job_id,
            "runId": self.run_id,
            "field": self.field,
            "why": self.why,
            "text": self.text.decode("utf-8", "replace"),
        }
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def fit(runs: Sequence[JobRun]) -> bool:
    """Whether tables can hold every value of these runs."""
    for column in _NUMBERS:
        found = [value for value in column.values(runs) if value is not None]
        if found:
            least, most = _LIMITS[column.kind]
            if min(found) < least or max(found) > most:
                return False
    return True


def unfit(run: JobRun, text: bytes) -> Rejected | None:
    """Why tables can't hold a run; None if they can."""
    problems: list[tuple[str, str]] = []
    for column in _NUMBERS:
        (value,) = column.values([run])
        least, most = _LIMITS[column.kind]
        if value is not None and not least <= value <= most:
            what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
            problems.append((column.name, f"expected {what}, got {value!r}"))
    if not problems:
        return None
    return Rejected(run.id, problems[0][0], "; ".join(f"{field}: {why}" for field, why in problems), text)


def split(runs: Sequence[JobRun], texts: Sequence[bytes]) -> tuple[list[JobRun], list[bytes], list[Rejected]]:
    """The runs that tables can hold with their texts, and the others."""
    judged = [(run, text, unfit(run, text)) for run, text in zip(runs, texts, strict=True)]
    good = [(run, text) for run, text, rejected in judged if rejected is None]
    return (
        [run for run, _ in good],
        [text for _, text in good],
        [rejected for _, _, rejected in judged if rejected is not None],
    )


_LIMITS = {Kind.INSTANT: (_LEAST, _MOST), Kind.COUNT: (-_MOST_COUNT - 1, _MOST_COUNT)}
_NUMBERS = [column for column in COLUMNS if column.kind in _LIMITS]
