"""`tfruns demo`: everything from a server to a table, without an account."""

import contextlib
import statistics
import time
from collections import defaultdict

import click

import tfruns
from tfruns._text import counted
from tfruns.cli import options
from tfruns.cli.help import Command
from tfruns.cli.output import is_terminal, width
from tfruns.cli.table import RUNS, STATUS, Table, run_cells, run_table
from tfruns.cli.text import human_duration

_SAMPLES = 5
_COLUMNS = (STATUS, RUNS, "SHARE", "MEDIAN", "LONGEST")
_EPILOG = """
Examples:
  tfruns demo
  tfruns demo --runs 100000
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="List the runs of a made-up job, without an account.")
@click.option(
    "--runs", "number", type=options.Whole(min=1), default=25_000, show_default=True, help="Runs that the job has."
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="What the runs are made from: same seed, same runs.",
)
async def demo(number: int, seed: int) -> None:
    """List the runs of a made-up job, from a sandbox on this machine, and sum them up.

    Neither host nor key is needed. Server and client share this one process, so the throughput it shows is less than
    what the client alone is capable of.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tfruns.sandbox import Sandbox

    _say(f"Lists {number:,} runs of a made-up job over HTTP, from a sandbox on this machine.")
    console = Console(force_terminal=is_terminal(), highlight=False, markup=False, emoji=False)
    columns = (TextColumn("runs"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
    samples: list[tfruns.JobRun] = []
    durations: dict[str, list[int | None]] = defaultdict(list)
    async with (
        Sandbox(jobs=1, runs=number, seed=seed, clock_start="now") as sandbox,
        tfruns.Client(sandbox.url, sandbox.api_key) as client,
    ):
        # For a filter the sandbox makes all runs, which isn't part of the walk's time.
        await client.count_runs(sandbox.job_ids[0], status="FAILED")
        sandbox.requests.clear()
        begun = time.perf_counter()
        with Progress(*columns, console=console, expand=True, disable=not is_terminal()) as bar:
            task = bar.add_task("runs", total=None)
            async with contextlib.aclosing(client.iter_runs(sandbox.job_ids[0]).pages()) as pages:
                async for page in pages:
                    samples += page.data[: _SAMPLES - len(samples)]
                    for run in page.data:
                        durations[run.status.value].append(run.duration)
                    bar.update(task, advance=len(page.data), total=page.pagination.total)
        seconds = time.perf_counter() - begun
        requests = len(sandbox.requests)
    count = sum(map(len, durations.values()))
    if not is_terminal():
        click.echo(f"{count:,} of {count:,} runs")
    click.echo("Runs by status:")
    table = Table(_COLUMNS)
    by_number = sorted(durations.items(), key=lambda item: -len(item[1]))
    click.echo(table.text([_row(status, found, count) for status, found in by_number]))
    click.echo(f"The first {len(samples)} runs, as `tfruns list` prints them:")
    table = run_table()
    now = time.time() if is_terminal() else None
    click.echo(table.text([run_cells(run, table.columns, now=now) for run in samples]))
    took = f"{count:,} runs in {seconds:.2f} s by {counted(requests, 'request')}"
    _say(f"{took}: {count / seconds:,.0f} runs a second, server included")


def _row(status: str, found: list[int | None], count: int) -> dict[str, str]:
    durations = [duration for duration in found if duration is not None]
    median, longest = statistics.median(durations) if durations else None, max(durations, default=None)
    numbers = (f"{len(found):,}", f"{len(found) / count:.1%}", human_duration(median), human_duration(longest))
    return dict(zip(_COLUMNS, (status, *numbers), strict=True))


def _say(sentence: str) -> None:
    """Print a sentence; on a terminal, broken between words."""
    columns = width()
    click.echo(sentence if columns is None else click.wrap_text(sentence, columns))
