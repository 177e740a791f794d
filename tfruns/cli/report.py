"""The summary of an export: lines for people, and JSON for programs."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfruns._text import counted
from tfruns.cli.text import human_duration

if TYPE_CHECKING:
    from tfruns.client import Client
    from tfruns.export import ExportSummary

STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""The names of standard output."""
_NAMED = 20
"""How many of the runs that couldn't be written are named, if they aren't in a file."""


class Report:
    """The file of --summary-json, if there is one, within a block. From the start it says that the export hasn't ended,
    because a killed program can't write it; and an old success must not be taken for a new one.
    """

    def __init__(self, name: str | None, destination: str) -> None:
        self._name = name
        self._destination = destination
        self._is_written = False

    def __enter__(self) -> "Report":
        if self._is_replaced:
            self.fail("the export has not ended: it is at work, or was killed")
            self._is_written = False
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not self._is_written:
            with contextlib.suppress(OSError):  # the error of the export matters more
                self.fail(error.format_message() if isinstance(error, click.ClickException) else str(error))

    @property
    def _is_replaced(self) -> bool:
        """Whether it is a file that can be replaced, and no stream, pipe or device."""
        from tfruns.export.files import is_mounted

        name = self._name
        if name is None or name in STANDARD_OUTPUT:
            return False
        return not os.path.exists(name) or (os.path.isfile(name) and not is_mounted(Path(os.path.realpath(name))))

    def fail(self, why: str) -> None:
        """Write why the export failed."""
        self.write({"path": self._destination, "error": why})

    def write(self, content: dict[str, Any]) -> None:
        """Write what the export did."""
        self._is_written = True
        text = json.dumps(content) + "\n"
        if self._name is None:
            return
        if self._name in STANDARD_OUTPUT:
            click.echo(text, nl=False)
            return
        from tfruns.export.files import write_file

        try:
            if self._is_replaced:
                write_file(Path(os.path.realpath(self._name)), text.encode(), mode=0o666)
            else:
                Path(self._name).write_text(text, "utf-8")
        except OSError as error:  # a full disk shows when the file is closed, without its name
            raise click.ClickException(f"{self._name}: {error.strerror}") from None


def as_dict(summary: "ExportSummary", client: "Client") -> dict[str, Any]:
    stats = client.stats()
    return {
        "path": str(summary.path),
        "runs": summary.runs,
        "jobs": summary.jobs,
        "skipped": {job_id: str(error) for job_id, error in summary.skipped.items()},
        "rejected": summary.rejected,
        "quarantine": None if summary.quarantine is None else str(summary.quarantine),
        "removed_files": summary.removed_files,
        "removed_rows": summary.removed_rows,
        "size": summary.size,
        "seconds": round(summary.seconds, 3),
        "resumed_jobs": summary.resumed_jobs,
        "resumed_age": summary.resumed_age,
        "requests": stats.requests,
        "retries": stats.retries,
    }


def summary_lines(summary: "ExportSummary", report: dict[str, Any], *, quiet: bool) -> Iterator[str]:
    """The summary for people; with `quiet`, only what went wrong."""
    from rich.filesize import decimal

    where = "standard output" if report["path"] == "-" else report["path"]
    if not quiet:
        yield (
            f"{where}: {counted(summary.runs, 'run')} of {counted(summary.jobs, 'job')}, {decimal(summary.size)},"
            f" in {human_duration(summary.seconds)}; {counted(report['requests'], 'request')}, {report['retries']:,} of"
            " them retried"
        )
        if summary.resumed_jobs:
            ago = human_duration(summary.resumed_age or 0)
            yield f"{counted(summary.resumed_jobs, 'job')} had been read before the interruption, from {ago} ago on"
    removed = [
        counted(number, what)
        for number, what in ((summary.removed_files, "file"), (summary.removed_rows, "row"))
        if number
    ]
    if removed and not quiet:
        yield f"removed {' and '.join(removed)} that earlier exports had written"
    if summary.skipped:
        yield f"{counted(len(summary.skipped), 'job')} skipped, not in the file:"
        yield from (f"  {error}" for error in summary.skipped.values())  # which names its job
    if summary.quarantine is not None:
        problem = f"{counted(summary.rejected, 'run')} couldn't be written"
        yield from [f"{problem}: see {summary.quarantine}"] if report["quarantine"] else _rejected(summary, problem)


def _rejected(summary: "ExportSummary", problem: str) -> Iterator[str]:
    assert isinstance(summary.quarantine, Path)  # noqa: S101  # for the type checker
    yield f"{problem}:"
    with summary.quarantine.open("rb") as file:
        for line in itertools.islice(file, _NAMED):
            run = json.loads(line)
            yield f"  job {run['jobId']!r}, run {run['runId']!r}: {run['why']}"
    if summary.rejected > _NAMED:
        yield f"  and {summary.rejected - _NAMED:,} more"
