"""`tfruns sandbox` and `tfruns demo`: a made-up control plane, and what it shows without an account."""

import contextlib
import re
import shlex
import statistics
import time
from collections import Counter
from typing import Any

import click

import tfruns
from tfruns._text import counted
from tfruns.cli import options
from tfruns.cli.options import Command, with_given
from tfruns.cli.output import is_terminal, say, until_nobody_reads

_where = options.options_of("Where it listens")
_holds = options.options_of("What it holds")
_behaves = options.options_of("How it behaves")
_seed = _holds("--seed N", "What the runs are made from: same seed, same runs.", type=int, default=0)

_SAMPLES = 5
_COLUMNS = ("status", "runs", "share", "median", "longest")


def _jobs(text: str) -> int | list[str]:
    return int(text) if text.lstrip("-").isdecimal() else text.split(",")


def _rate_limit(text: str) -> Any:
    from tfruns.sandbox import RateLimit

    if not (parts := re.fullmatch(r"([0-9.]+)(?:/([0-9]+))?", text)):
        raise click.BadParameter(f"it is requests a second, or that and a burst, such as 50 or 50/10, got {text!r}")
    return with_given(RateLimit, per_second=float(parts[1]), burst=int(parts[2] or 1))


@click.command(cls=Command, short_help="Serve a made-up control plane to try things on.")
@_where("--port N", "The port to listen on; 0 for any that is free.", type=options.Whole(0, 65_535), default=0)
@_where("--host ADDR", "The address to listen on.", default="127.0.0.1")
@_holds("--jobs N|ID,…", "How many jobs it has, or their ids.", type=_jobs, default="1")
@_holds("--runs N", "How many runs a job has.", type=options.Whole(min=0), default=25_000)
@_seed
@_holds("--api-key KEY", "The key it takes. Else one is made up. Don't give it a real one.")
@_holds(
    "--runs-from",
    "Take jobs and runs from JSON lines, as `tfruns export` writes them.",
    type=click.Path(exists=True, dir_okay=False),
)
@_behaves(
    "--living/--still",
    "Whether runs are created, about two a minute in each job, and change their status until they end.",
    default=True,
)
@_behaves(
    "--clock-start TIME",
    "When its clock starts, and its newest run was created: now, or a date such as 2026-11-23T08:30Z.",
    type=options.moment,
    default="now",
)
@_behaves("--clock-rate N", "How many seconds of its clock pass in a second.", type=float, default=1.0)
@_behaves("--fault FAULT...", "What goes wrong, such as `status=429,wait=2,rate=0.1`.", "faults")
@_behaves("--rate-limit N[/BURST]", "Requests a second that it takes, and how many at once.", type=_rate_limit)
@_behaves("--forbidden JOB...", "A job without access to it (403).")
async def sandbox(**settings: Any) -> None:
    """Serve a made-up control plane, with made-up runs, until Ctrl-C.

    When it is ready, it prints two lines for a shell, `export TFY_HOST=...` and `export TFY_API_KEY=...`, and then the
    id of each job on a line of its own.

    One of the newest runs of each job is named train-7f3a.

    A FAULT is made of what goes wrong: status=503 (with wait=2, seconds to wait), html, latency=0.2 (seconds),
    breaks=cut, breaks=reset, breaks=stall, limit=50, total=-5; and of the requests that it hits: rate=0.1, job-id=JOB,
    nth=3.

    Examples:
      tfruns sandbox --jobs my-job-id,my-other-job-id
      tfruns sandbox --port 8080 --jobs 3 --runs 1000 --clock-rate 60
      tfruns sandbox --runs-from runs.jsonl --rate-limit 50/10
      tfruns sandbox --still --clock-start 2026-01-01 --fault status=503,rate=0.05
    """
    from tfruns.sandbox import Sandbox

    control_plane = with_given(Sandbox, **settings)
    if settings["runs_from"] is not None:
        say(f"reading {settings['runs_from']}")
    try:
        await control_plane.start()
    except ValueError as error:  # the file of --runs-from doesn't hold what it should
        raise click.ClickException(str(error)) from None
    async with contextlib.aclosing(control_plane):
        lines = [f"export TFY_HOST={shlex.quote(control_plane.url)}"]
        lines.append(f"export TFY_API_KEY={shlex.quote(control_plane.api_key)}")
        click.echo("\n".join([*lines, *control_plane.job_ids]))  # flushed at once: a script may be reading them
        say("ready; Ctrl-C stops it")
        await until_nobody_reads()


@click.command(cls=Command, short_help="List the runs of a made-up job, without an account.")
@_holds("--runs N", "Runs that the job has.", "number", type=options.Whole(min=1), default=25_000)
@_seed
async def demo(number: int, seed: int) -> None:
    """List the runs of a made-up job, from a sandbox on this machine, and sum them up.

    Neither host nor key is needed. Server and client share this one process, so the throughput it shows is less than
    what the client alone is capable of.

    Examples:
      tfruns demo
      tfruns demo --runs 100000
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tfruns.cli.table import Table, human_duration, run_cells, run_table
    from tfruns.sandbox import Sandbox

    plain: Any = {"highlight": False, "markup": False, "emoji": False}
    console = Console(force_terminal=is_terminal(), soft_wrap=not is_terminal(), **plain)
    console.print(f"Lists {counted(number, 'run')} of a made-up job over HTTP, from a sandbox on this machine.")
    columns = (TextColumn("runs"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
    runs: list[tfruns.JobRun] = []
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
                    runs += page.data
                    bar.update(task, completed=len(runs), total=page.pagination.total)
        seconds = time.perf_counter() - begun
        requests = len(sandbox.requests)
    count = len(runs)
    if not is_terminal():
        click.echo(f"{count:,} of {counted(count, 'run')}")
    click.echo("Runs by status:")
    rows = []
    for status, found in Counter(run.status.value for run in runs).most_common():
        ended = [run.duration for run in runs if run.status == status and run.duration is not None]
        times = (statistics.median(ended), max(ended)) if ended else (None, None)
        cells = (status, f"{found:,}", f"{found / count:.1%}", *map(human_duration, times))
        rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    click.echo(Table(_COLUMNS).text(rows))
    click.echo(f"The first {counted(len(runs[:_SAMPLES]), 'run')}, as `tfruns list` prints them:")
    table = run_table()
    click.echo(table.text([run_cells(run, table.columns) for run in runs[:_SAMPLES]]))
    took = f"{counted(count, 'run')} in {seconds:.2f} s by {counted(requests, 'request')}"
    console.print(f"{took}: {count / seconds:,.0f} runs a second, server included")
