"""What `tfruns export` says on stderr: its progress, as bars on a terminal and elsewhere as lines, and its summary."""

import contextlib
import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tfruns._http.events import ClientStats
from tfruns._text import counted
from tfruns.cli.output import on_one_line
from tfruns.cli.table import human_duration
from tfruns.client import Client
from tfruns.export import ExportProgress, ExportSummary

_FIRST_LINE = 10.0  # seconds; the pause after each line is twice as long as the one before,
_LONGEST_PAUSE = 600.0  # up to this
_NAMED = 20
"""How many of the runs that couldn't be written are named, if they aren't in a file."""


@contextlib.contextmanager
def shown(client: Client, *, quiet: bool) -> Iterator[Callable[[ExportProgress], object]]:
    """A function to call with the progress of the export. The client's warnings, about retries, are shown too."""
    logger = logging.getLogger("tfruns")
    # rich would follow FORCE_COLOR in a file too.
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if quiet:
        logger.setLevel(logging.ERROR)
        yield lambda now: None
    elif sys.stderr.isatty() and not console.is_dumb_terminal:
        logger.handlers = [warnings := _LastWarning(logging.WARNING)]
        with _Bars(client, warnings, console) as bars:
            yield bars.show
    else:
        yield Lines().show


class Lines:
    """A line now and then; the longer the export takes, the fewer lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = _FIRST_LINE
        self._printed_at = clock()
        self._runs: int | None = None

    def show(self, now: ExportProgress) -> None:
        if self._runs is None:
            self._runs = now.runs  # runs of an interrupted export don't count for the rate
        passed = self._clock() - self._printed_at
        if passed < self._pause:
            return
        rate = (now.runs - self._runs) / passed
        jobs = f"{now.jobs_done + now.jobs_skipped:,} of {counted(now.jobs, 'job')}"
        text = f"{jobs}, {counted(now.runs, 'run')}, {rate:,.0f}/s"
        click.echo(f"{text}{'; writing the file' if now.is_writing else ''}", err=True)
        self._printed_at += passed
        self._runs = now.runs
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class _LastWarning(logging.Handler):
    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = f"; {time.strftime('%H:%M:%S')} {record.getMessage()}"


class _Bars(Progress):
    """Bars for jobs and runs, and a line for the requests with the last warning."""

    def __init__(self, client: Client, warnings: _LastWarning, console: Console) -> None:
        self._client = client
        self._warnings = warnings
        self._bars: dict[str, TaskID] = {}
        name, count = TextColumn("{task.description}"), TextColumn("{task.fields[count]}")
        super().__init__(
            *(name, BarColumn(), count, _Rate(), TimeRemainingColumn()),
            console=console,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, now: ExportProgress) -> None:
        bars = [("jobs", now.jobs_done + now.jobs_skipped, now.jobs), ("runs", now.runs, now.runs_expected)]
        bars += [("file", 0, 0)] * now.is_writing
        for name, done, of in bars:  # without a total, a bar only moves
            count = f"{done:,} of {of:,}" if of else ""
            if name not in self._bars:  # runs of an interrupted export don't count for the rate and the time left
                self._bars[name] = self.add_task(name, total=of or None, completed=done, count=count)
            self.update(self._bars[name], total=of or None, completed=done, count=count)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        stats = self._client.stats()
        held_back = f", held back to {stats.concurrency}" if stats.concurrency < self._client.max_concurrency else ""
        requests = f"{counted(stats.in_flight, 'request')} in flight{held_back}"
        line = on_one_line(f"{requests}, {counted(stats.retries, 'retry', 'retries')}{self._warnings.text}")
        yield Text(line, no_wrap=True, overflow="ellipsis")


def summary_lines(summary: ExportSummary, stats: ClientStats, *, is_output: bool, quiet: bool) -> Iterator[str]:
    """The summary for people; with `quiet`, only what went wrong."""
    if not quiet:
        where = "standard output" if is_output else summary.path
        what = f"{counted(summary.runs, 'run')} of {counted(summary.jobs, 'job')}, {decimal(summary.size)}"
        requests = f"{counted(stats.requests, 'request')}, {stats.retries:,} of them retried"
        yield f"{where}: {what}, in {human_duration(summary.seconds)}; {requests}"
        if summary.resumed_jobs:
            ago = human_duration(summary.resumed_age or 0)
            yield f"{counted(summary.resumed_jobs, 'job')} had been read before the interruption, from {ago} ago on"
        numbers = {"file": summary.removed_files, "row": summary.removed_rows}
        removed = [counted(number, what) for what, number in numbers.items() if number]
        if removed:
            yield f"removed {' and '.join(removed)} that earlier exports had written"
    if summary.skipped:
        yield f"{counted(len(summary.skipped), 'job')} skipped, of which nothing was written:"
        yield from (f"  {error}" for error in summary.skipped.values())  # which names its job
    if summary.quarantine is not None:
        see = "" if is_output else f" see {summary.quarantine}"
        yield f"{counted(summary.rejected, 'run')} couldn't be written:{see}"
    if is_output and isinstance(summary.quarantine, Path):
        with summary.quarantine.open("rb") as file:
            for line in itertools.islice(file, _NAMED):
                run = json.loads(line)
                yield f"  job {run['jobId']!r}, run {run['runId']!r}: {run['why']}"
        if summary.rejected > _NAMED:
            yield f"  and {summary.rejected - _NAMED:,} more"
