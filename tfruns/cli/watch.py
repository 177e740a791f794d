"""`tfruns watch`: what happens to the runs of some jobs, as a live table or line by line."""

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from tfruns.cli.filters import as_json_line, filter_options
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, connect, host_options, wrong_usage
from tfruns.cli.output import encoded, has_colours, is_terminal, write
from tfruns.cli.text import colour_of, harmless, human_duration

if TYPE_CHECKING:
    from rich.table import Table

    from tfruns._watch.watcher import RunChange, RunWatch
    from tfruns.models import JobRun

_when = options_of("When")
_output = options_of("Output")

_ENDED_SHOWN = 10
_EPILOG = f"""
Examples:
  tfruns watch my-job-id my-other-job-id
  tfruns watch my-job-id --status failed --json > failures.jsonl
  tfruns watch my-job-id --resume-from place.txt --json >> changes.jsonl
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Print what happens to the runs of jobs, as it happens.")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@filter_options
@_when(
    "--interval",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    nargs=2,
    metavar="MIN MAX",
    default=(2.0, 30.0),
    show_default=True,
    help="Seconds between two polls of a job: the least while its runs change, the most while nothing happens.",
)
@_when(
    "--start",
    type=click.Choice(("now", "open", "existing")),
    help="What is reported first: nothing that is there already, the open runs, or all runs. Else the open ones in a"
    " table, and nothing in lines.",
)
@_when(
    "--resume-from",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep the place in this file, and go on from the place that it holds if it is there. What was printed in the"
    " second before the program was killed may be printed again.",
)
@_output(
    "--json",
    "as_json",
    is_flag=True,
    help="Print each change as a line of JSON, in UTF-8.",
)
@host_options
def watch(
    job_ids: tuple[str, ...],
    host: str | None,
    start: str | None,
    resume_from: str | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Print what happens to the runs of each JOB, given by its id, until Ctrl-C.

    On a terminal that is a table of the runs that are open, and of those that ended last; elsewhere, a line for each
    change: what happened, job, status before and now, name and id. A line of JSON has kind (appeared, changed,
    finished, deleted), jobId, and run and before, as the API has runs; before is null for a new one.
    """
    if start is None:
        start = "open" if _is_live(as_json) else "now"
    given = {name: value for name, value in arguments.items() if value not in (None, ())}
    if resume_from is not None and os.path.exists(resume_from):
        with open(resume_from, encoding="utf-8", errors="replace") as file:
            given["resume_token"] = file.read()
    asyncio.run(_watch(job_ids, host, as_json, resume_from, {"start": start, **given}))


def _is_live(as_json: bool) -> bool:
    return is_terminal() and not as_json


async def _watch(
    job_ids: tuple[str, ...], host: str | None, as_json: bool, kept_in: str | None, arguments: dict[str, Any]
) -> None:
    async with connect(host) as client:
        try:
            watch = client.watch_runs(job_ids, **arguments)
        except (TypeError, ValueError) as error:
            raise wrong_usage(error) from None
        changes = watch if kept_in is None else _keeping(watch, kept_in)
        async with aclosing(changes):
            if _is_live(as_json):
                await _show(changes, several=len(job_ids) > 1)
            else:
                async for change in changes:
                    await write(_json_line(change) if as_json else encoded(_line(change) + "\n"))


async def _keeping(changes: "RunWatch", path: str) -> "AsyncGenerator[RunChange]":
    """The same changes, with the place after those that were printed kept in a file."""

    def keep(change: "RunChange") -> None:
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(change.resume_token + "\n")
        os.replace(path + ".new", path)

    unkept: RunChange | None = None
    kept_at = -math.inf
    try:
        async with aclosing(changes):
            async for change in changes:
                yield change
                unkept = change
                if time.monotonic() - kept_at >= 1:
                    await asyncio.to_thread(keep, change)
                    unkept, kept_at = None, time.monotonic()
    finally:
        if unkept is not None:
            keep(unkept)


def _json_line(change: "RunChange") -> bytes:
    return as_json_line(
        {
            "kind": change.kind.value,
            "jobId": change.job_id,
            "run": change.run.to_dict(),
            "before": change.before and change.before.to_dict(),
        }
    )


def _line(change: "RunChange") -> str:
    before = f"{change.before.status} -> " if change.before is not None and change.kind != "deleted" else ""
    run = change.run
    words = (f"{change.kind:<8}", change.job_id, before + run.status, run.name, run.id)
    return "  ".join(map(harmless, words))


async def _show(changes: "AsyncIterator[RunChange]", *, several: bool) -> None:
    """A table that is kept up to date: with each change, and each second for the time that passes."""
    from rich.console import Console
    from rich.live import Live

    board = Board(several=several)
    console = Console(highlight=False, markup=False, emoji=False, no_color=not has_colours())
    with Live(console=console, get_renderable=board.table, refresh_per_second=2, transient=False):
        async for change in changes:
            board.take(change)


class Board:
    """The runs that are open, and those that ended last."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._open: dict[tuple[str, str], JobRun] = {}
        self._ended: dict[tuple[str, str], JobRun] = {}

    def take(self, change: "RunChange") -> None:
        """Take note of a change."""
        key = change.job_id, change.run.id
        runs = dict(self._open)
        ended = dict(self._ended)
        runs.pop(key, None)
        ended.pop(key, None)
        if change.kind == "finished":
            ended[key] = change.run
            while len(ended) > _ENDED_SHOWN:
                del ended[next(iter(ended))]
        elif change.kind != "deleted":
            runs[key] = change.run
        self._open, self._ended = runs, ended  # at once: another thread draws

    def table(self) -> "Table":
        """What there is to see now."""
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=f"{len(self._open)} open; Ctrl-C to end", caption_justify="left")
        for heading in (*(("JOB",) if self._several else ()), "STATUS", "TIME", "NAME", "ID"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "TIME" else "left")
        for job_id, run in self._rows():
            status = Text(harmless(run.status.value), style=colour_of(run.status.value) or "")
            texts = [Text(harmless(text)) for text in (human_duration(_elapsed(run)), run.name, run.id)]
            table.add_row(*((Text(harmless(job_id)),) if self._several else ()), status, *texts)
        return table

    def _rows(self) -> Iterator[tuple[str, "JobRun"]]:
        newest_first = sorted(self._open.items(), key=lambda item: -item[1].created_at)
        for (job_id, _), run in (*newest_first, *reversed(self._ended.items())):
            yield job_id, run


def _elapsed(run: "JobRun") -> float | None:
    """Seconds that the run took, or has taken by now."""
    if run.status.is_terminal:
        return run.duration
    return max(0.0, time.time() - run.created_at / 1000)
