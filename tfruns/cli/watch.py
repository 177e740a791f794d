"""`tfruns watch`: what happens to the runs of some jobs, as a live table or line by line."""

import asyncio
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

import tfruns
from tfruns.cli import options
from tfruns.cli.options import Command, connect, with_given
from tfruns.cli.output import as_json_line, harmless, has_colours, is_terminal, until_nobody_reads, write

_ENDED_KEPT = 1_000
_STALE = 86_400  # seconds: a run that has been UNKNOWN for longer is open for the server alone


@click.command(cls=Command, short_help="Print what happens to the runs of jobs, as it happens.")
@options.jobs
@options.filters
@options.interval(2.0, 30.0)
@options.when(
    "--start",
    "What is reported first: nothing that is there already, the open runs, or all runs. Default: `open` on a terminal,"
    " otherwise `now`.",
    type=options.Word(("now", "open", "existing")),
)
@options.when(
    "--resume-from",
    "Keep the place in this file, and resume from the place that it holds if it is there. What was printed in the"
    " second before the program was killed may be printed again.",
    type=click.Path(dir_okay=False, resolve_path=True, path_type=Path),
)
@options.json("Print each change as a line of JSON, in UTF-8.")
@options.host
async def watch(
    job_ids: list[str], start: str | None, resume_from: Path | None, as_json: bool, **arguments: Any
) -> None:
    """Print what happens to the runs of each JOB, given by its id, until Ctrl-C.

    On a terminal that is a table of the runs that ended last, failures first where there is no room for all, and of
    those that are open; elsewhere, a line for each change: what happened, job, status before and now, name and id. A
    line of JSON has kind (appeared, changed, finished, deleted), jobId, and run and before, as the API has runs; before
    is null for a new one.

    Examples:
      tfruns watch my-job-id my-other-job-id
      tfruns watch my-job-id --status failed --json > failures.jsonl
      tfruns watch my-job-id --resume-from place.txt --json >> changes.jsonl
    """
    # A table is kept up to date only where a terminal can draw it.
    is_live = is_terminal() and not as_json and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    arguments["start"] = start or ("open" if is_live else "now")
    async with connect() as client:
        token = resume_from and _kept(resume_from)
        changes = with_given(client.watch_runs, job_ids, resume_token=token, **arguments)
        shown = _keeping(changes, resume_from) if resume_from else changes
        async with aclosing(shown):
            if is_live:
                await _show(shown, several=len(job_ids) > 1)
            else:
                await _print(shown, as_json=as_json)


async def _print(changes: "AsyncIterator[tfruns.RunChange]", *, as_json: bool) -> None:
    async def lines() -> None:
        async for change in changes:
            if as_json:
                runs = {"run": change.run.to_dict(), "before": change.before and change.before.to_dict()}
                await write(as_json_line({"kind": change.kind.value, "jobId": change.job_id, **runs}))
                continue
            before = f"{change.before.status} -> " if change.before is not None and change.kind != "deleted" else ""
            run = change.run
            words = (f"{change.kind:<8}", change.job_id, before + run.status, run.name, run.id)
            await write("  ".join(map(harmless, words)) + "\n")

    printing = asyncio.ensure_future(lines())
    reader = asyncio.ensure_future(until_nobody_reads())
    reader.add_done_callback(lambda _: printing.cancel())
    try:
        await printing
    except asyncio.CancelledError:
        if not reader.done():
            raise
    finally:
        reader.cancel()


def _kept(place: Path) -> str | None:
    """The token in the file, if there is one. That one can be written is tried now, for it may be hours later."""
    from tfruns.export.files import check_replaceable, write_file

    trial = place.with_name(f"{place.name}.new")
    try:
        if (place.exists() and not place.is_file()) or not os.access(place.parent, os.W_OK):
            raise PermissionError
        check_replaceable(place)
        write_file(trial, b"")
        trial.unlink()
        return place.read_text("utf-8", "replace") if place.exists() else None
    except (OSError, tfruns.TfRunsError) as error:
        raise click.UsageError(f"--resume-from: there can't be a file {place}") from error


async def _keeping(changes: "tfruns.RunWatch", path: Path) -> "AsyncGenerator[tfruns.RunChange]":
    """The same changes; the resume token of the last one that was printed is kept in a file."""
    from tfruns.export.files import write_file

    def keep(change: "tfruns.RunChange") -> None:
        write_file(path, f"{change.resume_token}\n".encode())

    unkept: tfruns.RunChange | None = None
    kept_at = 0.0
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


async def _show(changes: "AsyncIterator[tfruns.RunChange]", *, several: bool) -> None:
    """Show a table that is kept up to date: with each change, and twice a second for the durations."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    board = Board(several=several)

    def draw() -> Text:
        return Text.from_ansi(board.text(), no_wrap=True, overflow="ellipsis")

    console = Console(highlight=False, markup=False, emoji=False, no_color=not has_colours())
    with Live(console=console, get_renderable=draw, refresh_per_second=2, redirect_stdout=False):
        async for change in changes:
            board.take(change)


class Board:
    """The runs that are open, and those that ended while they were watched. One thread takes changes, another draws."""

    def __init__(self, *, several: bool) -> None:
        self._columns = (*(("job_id",) if several else ()), "status", "duration", "name", "id", "error")
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tfruns.JobRun] = {}
        self._ended: dict[tuple[str, str], tfruns.JobRun] = {}
        self._ended_count = self._failed_count = 0

    def take(self, change: "tfruns.RunChange") -> None:
        key = change.job_id, change.run.id
        with self._lock:
            self._open.pop(key, None)
            self._ended.pop(key, None)
            if change.kind == "finished":
                self._ended[key] = change.run
                self._ended_count += 1
                self._failed_count += change.run.status == "FAILED"
                if len(self._ended) > _ENDED_KEPT:
                    del self._ended[next(iter(self._ended))]
            elif change.kind != "deleted":
                self._open[key] = change.run

    def text(self) -> str:
        """What to show now: the runs that there is room for on the terminal, and a line that sums up all."""
        from tfruns.cli.table import Table, run_cells

        width, height = shutil.get_terminal_size()
        with self._lock:
            opened, ended, ended_count = [*self._open.items()], [*self._ended.items()], self._ended_count
            failed_count = self._failed_count
        stale = (time.time() - _STALE) * 1000
        opened.sort(key=lambda item: -item[1].created_at)
        opened.sort(key=lambda item: item[1].status == "UNKNOWN" and item[1].created_at < stale)
        room = max(1, height - 3)  # the headings, the last line, and the one that the cursor is in
        # Of the ended runs the latest are first; where there is no room for all, failures are kept.
        ended.reverse()
        kept = sorted(ended, key=lambda item: item[1].status != "FAILED")[: max(room - len(opened), room // 2)]
        chosen = {key for key, _ in kept}
        shown = [item for item in ended if item[0] in chosen] + opened[: room - len(kept)]
        rows = [run_cells(run, self._columns, key[0]) for key, run in shown]
        counts = f"{len(opened):,} open{_hidden(len(opened) + len(kept) - len(shown))}"
        counts += f", {ended_count:,} ended{_hidden(ended_count - len(kept))}"
        numbers = Counter(run.status.value for _, run in opened)
        statuses = sorted(numbers, key=lambda status: (status == "UNKNOWN", -numbers[status]))
        words = [f"{numbers[status]:,} {harmless(status)}" for status in statuses]
        known = f"{counts}, {failed_count:,} failed"
        sums = [f"{known}; {', '.join(words)}"] if words else []
        sums += [f"{known}; {', '.join(words[:most])} and others" for most in range(len(words) - 1, 0, -1)]
        texts = [text + end for some in (sums, [known]) for end in ("; Ctrl-C to end", "") for text in some]
        return Table(self._columns).text(rows) + next((text for text in texts if len(text) <= width), counts)


def _hidden(number: int) -> str:
    return f" ({number:,} not shown)" if number > 0 else ""
