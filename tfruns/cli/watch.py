"""`tfruns watch`: what happens to the runs of some jobs, as a live table or line by line."""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from tfruns.cli.filters import filter_options
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, checked_ids, connect, host_options, with_given
from tfruns.cli.output import as_json_line, encoded, has_colours, is_terminal, until_nobody_reads, write
from tfruns.cli.signals import run_async
from tfruns.cli.table import DURATION, ERROR, ID, JOB, NAME, STATUS, Table, run_cells
from tfruns.cli.text import harmless

if TYPE_CHECKING:
    from tfruns._watch.watcher import RunChange, RunWatch
    from tfruns.models import JobRun

_when = options_of("When")
_output = options_of("Output")

_ENDED_KEPT = 1_000
_STALE = 86_400.0  # seconds
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
    help="What is reported first: nothing that is there already, the open runs, or all runs. Default: `open` on a"
    " terminal, otherwise `now`.",
)
@_when(
    "--resume-from",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep the place in this file, and resume from the place that it holds if it is there. What was printed in the"
    " second before the program was killed may be printed again.",
)
@_output("--json", "as_json", is_flag=True, help="Print each change as a line of JSON, in UTF-8.")
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

    On a terminal that is a table of the runs that ended last, failures first where there is no room for all, and of
    those that are open; elsewhere, a line for each change: what happened, job, status before and now, name and id. A
    line of JSON has kind (appeared, changed, finished, deleted), jobId, and run and before, as the API has runs; before
    is null for a new one.
    """
    if start is None:
        start = "open" if _is_live(as_json) else "now"
    if resume_from is not None and os.path.exists(resume_from):
        with open(resume_from, encoding="utf-8", errors="replace") as file:
            arguments["resume_token"] = file.read()
    run_async(_watch(checked_ids(job_ids), host, as_json, resume_from, {"start": start, **arguments}))


def _is_live(as_json: bool) -> bool:
    """Whether a table is kept up to date, which a terminal must be able to draw."""
    return is_terminal() and not as_json and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


async def _watch(
    job_ids: list[str], host: str | None, as_json: bool, kept_in: str | None, arguments: dict[str, Any]
) -> None:
    async with connect(host) as client:
        watch = with_given(client.watch_runs, job_ids, **arguments)
        changes = watch if kept_in is None else _keeping(watch, kept_in)
        async with aclosing(changes):
            if _is_live(as_json):
                await _show(changes, several=len(job_ids) > 1)
            else:
                await _print(changes, as_json=as_json)


async def _print(changes: "AsyncIterator[RunChange]", *, as_json: bool) -> None:
    """Print a line for each change, until nobody reads them any more."""

    async def lines() -> None:
        async for change in changes:
            await write(_json_line(change) if as_json else encoded(_line(change) + "\n"))

    printing = asyncio.ensure_future(lines())
    reader = asyncio.ensure_future(until_nobody_reads())
    try:
        await asyncio.wait((printing, reader), return_when=asyncio.FIRST_COMPLETED)
        if printing.done():
            await printing
    finally:
        printing.cancel()
        reader.cancel()
        await asyncio.gather(printing, reader, return_exceptions=True)


async def _keeping(changes: "RunWatch", path: str) -> "AsyncGenerator[RunChange]":
    """The same changes; the resume token of the last one that was printed is kept in a file."""

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
    """Show a table that is kept up to date: with each change, and twice a second for the durations."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    board = Board(several=several)
    colour = has_colours()  # before Live replaces standard output
    console = Console(highlight=False, markup=False, emoji=False, no_color=not colour)

    def draw() -> Text:
        lines = board.lines(console.width, console.height, colour=colour)
        return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")

    with Live(console=console, get_renderable=draw, refresh_per_second=2, transient=False):
        async for change in changes:
            board.take(change)


class Board:
    """The runs that are open, and those that ended while they were watched."""

    def __init__(self, *, several: bool) -> None:
        self._columns = (*((JOB,) if several else ()), STATUS, DURATION, NAME, ID, ERROR)
        self._open: dict[tuple[str, str], JobRun] = {}
        self._ended: dict[tuple[str, str], JobRun] = {}
        self._ended_count = self._failed_count = 0

    def take(self, change: "RunChange") -> None:
        """Take note of a change."""
        key = change.job_id, change.run.id
        runs = dict(self._open)
        ended = dict(self._ended)
        runs.pop(key, None)
        ended.pop(key, None)
        if change.kind == "finished":
            ended[key] = change.run
            self._ended_count += 1
            self._failed_count += change.run.status == "FAILED"
            if len(ended) > _ENDED_KEPT:
                del ended[next(iter(ended))]
        elif change.kind != "deleted":
            runs[key] = change.run
        self._open, self._ended = runs, ended  # replaced as a whole, because another thread draws

    def lines(self, width: int, height: int, *, colour: bool) -> list[str]:
        """The lines to show now, at most `height`: the runs that there is room for, and a line that sums up all."""
        now = time.time()
        opened = sorted(self._open.items(), key=lambda item: (_is_stale(item[1], now), -item[1].created_at))
        ended = dict(self._ended)
        room = max(1, height - 3)  # the headings, the last line, and the one that the cursor is in
        ended_shown = _most_important(ended, max(room - len(opened), room // 2))
        shown = ended_shown | dict(opened[: room - len(ended_shown)])
        table = Table(self._columns, width=width, colour=colour)
        lines = table.lines([run_cells(run, self._columns, now=now, job_id=key[0]) for key, run in shown.items()])
        counts = f"{len(opened):,} open{_hidden(len(opened) - len(shown) + len(ended_shown))}"
        counts += f", {self._ended_count:,} ended{_hidden(self._ended_count - len(ended_shown))}"
        numbers = Counter(run.status.value for _, run in opened)
        statuses = sorted(numbers, key=lambda status: (status == "UNKNOWN", -numbers[status]))
        words = [f"{numbers[status]:,} {harmless(status)}" for status in statuses]
        sums = [f"{counts}, {self._failed_count:,} failed; {', '.join(words[:most])}" for most in range(len(words) + 1)]
        endings = [text.removesuffix("; ") + "; Ctrl-C to end" for text in sums]
        return [*lines, next((text for text in reversed(endings) if len(text) <= width), endings[0])]


def _hidden(number: int) -> str:
    return f" ({number:,} not shown)" if number > 0 else ""


def _is_stale(run: "JobRun", now: float) -> bool:
    """Whether a run is open for the server alone: it has been UNKNOWN for so long that it won't be known again."""
    return run.status == "UNKNOWN" and now - run.created_at / 1000 > _STALE


def _most_important(ended: "dict[tuple[str, str], JobRun]", room: int) -> "dict[tuple[str, str], JobRun]":
    """The most important ended runs, failures first, as many as there is room for; sorted by end, the latest first."""
    newest_first = list(reversed(ended))
    chosen = set(sorted(newest_first, key=lambda key: ended[key].status != "FAILED")[:room])
    return {key: ended[key] for key in newest_first if key in chosen}
