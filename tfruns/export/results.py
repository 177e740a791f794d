"""What an export gives: its progress, its summary, or its error."""

from collections.abc import Mapping
from pathlib import Path

import attrs

from tfruns.errors import TfRunsError


class ExportError(TfRunsError):
    """The export can't be made, or can't go on; the file that was there before is unchanged."""


@attrs.frozen(kw_only=True)
class ExportProgress:
    """How far an export is.

    Example:
        >>> from tfruns.export import ExportProgress, export_runs
        >>> def report(progress: ExportProgress) -> None:
        ...     print(f"{progress.jobs_done} of {progress.jobs} jobs, {progress.runs} runs")
        >>> summary = await export_runs(client, ["job-a", "job-b"], "runs.csv", on_progress=report)
    """

    jobs: int
    """Jobs in all."""
    jobs_done: int
    """Jobs read whole, including those of an interrupted export."""
    jobs_skipped: int
    """Jobs that failed."""
    runs: int
    """Runs read, including those of an interrupted export."""
    runs_expected: int
    """Runs of the jobs begun so far, by the server's count."""
    is_writing: bool
    """Whether all runs were read, and the file is being written."""
    rejected: int = 0
    """Runs that can't be written, and go to the quarantine."""


@attrs.frozen(kw_only=True)
class ExportSummary:
    """The result of an export.

    Example:
        >>> from tfruns.export import export_runs
        >>> summary = await export_runs(client, ["job-a", "no-such-job"], "runs.jsonl")
        >>> print(summary.runs, "runs; skipped:", *summary.skipped)
        250 runs; skipped: no-such-job
    """

    path: Path | str
    """The file; a URL as text, without a password."""
    jobs: int
    """Jobs whose runs are in it, or would be if they had any."""
    runs: int
    """Runs that were written."""
    skipped: Mapping[str, TfRunsError]
    """The jobs that failed, of which nothing was written, by id, each with its error."""
    size: int
    """Bytes of the file."""
    seconds: float
    """Seconds that it took, without those before an interruption."""
    resumed_jobs: int
    """Jobs that an interrupted export had read already."""
    resumed_age: float | None = None
    """Seconds since the interrupted export began that had read them; None if none had."""
    rejected: int = 0
    """Runs that couldn't be written."""
    quarantine: Path | str | None = None
    """The file with those runs, or the URL of one; None if there are none."""
    removed_files: int = 0
    """Files of earlier exports that were removed, because their days have no run any more or `replace` was given."""
    removed_rows: int = 0
    """Rows of earlier exports that were removed from a table, or from a folder by an increment, with no newer row in
    their place. (Where a folder's days are replaced whole, rows aren't counted.)"""
