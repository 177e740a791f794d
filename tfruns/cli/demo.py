"""`tfruns demo`: everything from a server to a table, without an account."""

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from tfruns.cli.help import Command
from tfruns.cli.output import has_colours, is_terminal, width
from tfruns.cli.signals import run_async
from tfruns.cli.table import STATUS, Table, run_cells, run_table
from tfruns.cli.text import harmless, human_duration

if TYPE_CHECKING:
    from rich.console import Console

    from tfruns._walk.paginator import RunPaginator
    from tfruns.models import JobRun, JobRunStatus

_SAMPLES = 5
_RUNS, _SHARE, _MEDIAN, _LONGEST = "RUNS", "SHARE", "MEDIAN", "LONGEST"
_EPILOG = """
Examples:
  tfruns demo
  tfruns demo --runs 100000
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="List the runs of a made-up job, without an account.")
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    metavar="N",
    default=25_000,
    show_default=True,
    help="How many runs the job has.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="What the runs are made from: same seed, same runs.",
)
def demo(runs: int, seed: int) -> None:
    """List the runs of a made-up job, from a sandbox on this machine, and sum them up.

    Neither host nor key is needed. Server and client share this one process, so the throughput it shows is less than
    what the client alone is capable of.
    """
    _say(f"Lists {runs:,} runs of a made-up job over HTTP, from a sandbox on this machine.")
    run_async(_demo(runs, seed))


async def _demo(runs: int, seed: int) -> None:
    from rich.console import Console

    import tfruns
    from tfruns.sandbox import Sandbox

    console = Console(force_terminal=is_terminal(), highlight=False, markup=False, emoji=False)
    summary = _Summary()
    async with (
        Sandbox(jobs=1, runs=runs, seed=seed, clock_start="now") as sandbox,
        tfruns.Client(sandbox.url, sandbox.api_key) as client,
    ):
        await client.count_runs(sandbox.job_ids[0])  # this makes the runs, which isn't part of the walk's time
        sandbox.requests.clear()
        begun = time.perf_counter()
        await _walk(client.iter_runs(sandbox.job_ids[0]), summary, console)
        seconds = time.perf_counter() - begun
        requests = len(sandbox.requests)
    _print_statuses(summary)
    click.echo(f"\nThe first {len(summary.samples)} runs, as `tfruns list` prints them:")
    table = run_table()
    now = time.time() if is_terminal() else None
    click.echo(table.text([run_cells(run, table.columns, now=now) for run in summary.samples]))
    took = f"{summary.count:,} runs in {seconds:.2f} s by {requests:,} requests"
    _say(f"{took}: {summary.count / seconds:,.0f} runs a second, server included")


def _say(sentence: str) -> None:
    """Print a sentence; on a terminal, broken between words."""
    columns = width()
    click.echo(sentence if columns is None else click.wrap_text(sentence, columns))


class _Summary:
    """What is kept of the runs that were read: of most, only the duration."""

    def __init__(self) -> None:
        self.count = 0
        self.samples: list[JobRun] = []
        self.durations: dict[JobRunStatus, list[int | None]] = defaultdict(list)

    def add(self, runs: Iterable["JobRun"]) -> None:
        for run in runs:
            self.count += 1
            self.durations[run.status].append(run.duration)
            if len(self.samples) < _SAMPLES:
                self.samples.append(run)


async def _walk(walk: "RunPaginator", summary: _Summary, console: "Console") -> None:
    with _progress(console) as show:
        async with contextlib.aclosing(walk.pages()) as pages:
            async for page in pages:
                summary.add(page.data)
                show(summary.count, page.pagination.total)


@contextlib.contextmanager
def _progress(console: "Console") -> Iterator[Callable[[int, int], None]]:
    """A function to call with the number of runs so far and in all: it shows a bar, or lines without a terminal."""
    if not console.is_terminal:
        tenths = 0

        def print_tenth(count: int, total: int) -> None:
            nonlocal tenths
            if count * 10 // max(total, 1) > tenths:
                tenths = count * 10 // max(total, 1)
                click.echo(f"{count:,} of {total:,} runs")

        yield print_tenth
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("runs"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task("runs", total=None)
        yield lambda count, total: bar.update(task, completed=count, total=total)


def _print_statuses(summary: _Summary) -> None:
    numbers = (_RUNS, _SHARE, _MEDIAN, _LONGEST)
    columns = (STATUS, *numbers)
    table = Table(columns, width=width(), colour=has_colours(), to_the_right=numbers, priority=columns)
    rows = []
    for status, all_durations in sorted(summary.durations.items(), key=lambda item: -len(item[1])):
        durations = [duration for duration in all_durations if duration is not None]
        rows.append(
            {
                STATUS: harmless(status.value),
                _RUNS: f"{len(all_durations):,}",
                _SHARE: f"{len(all_durations) / summary.count:.1%}",
                _MEDIAN: human_duration(statistics.median(durations) if durations else None),
                _LONGEST: human_duration(max(durations, default=None)),
            }
        )
    click.echo("Runs by status:")
    click.echo(table.text(rows), nl=False)
