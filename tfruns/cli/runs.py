"""`tfruns list`, `count`, `show`, `wait` and `watch`: runs, and what happens to them, as tables or as lines of JSON."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

import tfruns
from tfruns._text import counted
from tfruns.cli import options
from tfruns.cli.options import PATIENCE, Command, checked, connect, with_given
from tfruns.cli.output import as_json_line, harmless, has_colours, is_terminal, say, until_nobody_reads, write

_many = options.options_of("How many")

_ON_A_TERMINAL = 50
_NO_SUCH_RUN = 6
_NAMED = 5
_STATUS_OF_END = {"FINISHED": 0, "FAILED": 3, "TERMINATED": 4}


@click.command("list", cls=Command, short_help="Print the runs of jobs.")
@options.jobs
@options.filters
@options.window
@options.order
@_many("--offset N", "Runs of each job to skip first.", type=options.Whole(min=0), default=0)
@_many(
    "--max-runs N",
    f"Runs of each job to print at most. Default: {_ON_A_TERMINAL} in all on a terminal, else all.",
    type=options.Whole(min=0),
)
@_many("--all", "Print all runs on a terminal, too.", "wants_all")
@options.json("Print each run as a line of JSON, as the API has it, in UTF-8; of several jobs, with its jobId.")
@options.table
@options.requests(patience=PATIENCE)
@options.host
async def list_(
    job_ids: list[str],
    *,
    as_json: bool,
    wants_all: bool,
    max_runs: int | None,
    columns: tuple[str, ...] | None,
    wide: bool,
    no_header: bool,
    **arguments: Any,
) -> int:
    """Print the runs of each JOB, given by its id: each run once, also while others come and go.

    On a terminal that is a screen of them, the newest unless --sort-by or --order says otherwise; elsewhere all. They
    are printed page by page as they arrive, one job after the other. On a terminal, columns that there is no room for
    are left out, what is cut ends with an ellipsis, and the duration of a run that hasn't ended is its time so far;
    elsewhere every column is whole. In the JSON, durations are in seconds, and times in milliseconds since 1970.

    Filters of several kinds must all match; of several values of one filter, any.

    Examples:
      tfruns list my-job-id --status failed --status terminated
      tfruns list my-job-id my-other-job-id --since yesterday --all | less -R
      tfruns list my-job-id --columns name,created_at,exit_code,error
      tfruns list my-job-id --sort-by duration --order desc --json > runs.jsonl

    Exit status:
      0 success, 1 failure, 2 wrong usage, 130 Ctrl-C
      3 of several jobs, some failed (404, 403, ...): stderr names them
    """
    from tfruns.cli.table import run_cells, run_table

    if wants_all and max_runs is not None:
        raise click.UsageError("--all and --max-runs exclude each other")
    if as_json and columns:
        raise click.UsageError("--columns is for the table: a line of --json has every field")
    several = len(job_ids) > 1
    table = run_table(columns, wide=wide, no_header=no_header, several=several)
    is_screen = is_terminal() and not (as_json or wants_all) and max_runs is None
    most = sys.maxsize
    if is_screen:
        most = max(1, _ON_A_TERMINAL // len(job_ids))
        max_runs = most + 1  # the one that isn't printed shows that there are more
    printed = dict.fromkeys(job_ids, 0)
    total = unprinted = 0
    rows: list[dict[str, str]] = []  # on one screen, those of several jobs are aligned together
    async with connect() as client:
        on_error = "skip" if several else "raise"
        walks = with_given(
            client.iter_runs_for, job_ids, max_runs=max_runs, ordered=True, on_error=on_error, **arguments
        )
        async with aclosing(walks.pages()) as pages:
            async for job_id, page in pages:
                if not printed[job_id]:
                    total += page.pagination.total - arguments["offset"]
                runs = page.data[: most - printed[job_id]]
                unprinted += len(page.data) - len(runs)
                printed[job_id] += len(runs)
                if as_json:
                    job = {"jobId": job_id} if several else {}
                    await write(b"".join(as_json_line({**job, **run.to_dict()}) for run in runs))
                    continue
                rows += [run_cells(run, table.columns, job_id) for run in runs]
                if not (is_screen and several):
                    await write(table.text(rows))
                    rows = []
    if rows:
        await write(table.text(rows))
    count = sum(printed.values())
    if not count and not walks.skipped and not as_json and max_runs != 0:
        after = f" after the first {arguments['offset']:,}" if arguments["offset"] else ""
        say(f"no runs{after}")  # on stderr: a program that counts lines must count none
    elif table.left_out:
        left_out = f"{counted(len(table.left_out), 'column')} left out to fit the terminal: {', '.join(table.left_out)}"
        say(f"{left_out} (--wide shows all)")
    if unprinted:
        has_window = arguments["created_after"] is not None or arguments["created_before"] is not None
        # The server counts without a window.
        shown = f"{count:,}, and there are more" if has_window else f"{count:,} of {max(total, count + unprinted):,}"
        click.echo(f"{shown}: --all, or --max-runs", err=True)
    return _say_failures(walks.skipped, len(job_ids))


@click.command(cls=Command, short_help="Print how many runs of jobs match.")
@options.jobs
@options.filters
@options.window
@options.json('Print a line {"job_id":...,"count":...} for each job in place of the numbers alone.')
@options.no_header
@options.host
async def count(job_ids: list[str], as_json: bool, no_header: bool, **filters: Any) -> int:
    """Print how many runs of each JOB, given by its id, match: the server's count now, by one request. (With --since or
    --until, they are read and counted.) For one job that is a number alone, for several a table.

    Filters of several kinds must all match; of several values of one filter, any.

    Examples:
      tfruns count my-job-id
      tfruns count my-job-id my-other-job-id --status failed --since 24h

    Exit status:
      0 success, 1 failure, 2 wrong usage, 130 Ctrl-C
      3 of several jobs, some failed (404, 403, ...): stderr names them
    """
    from tfruns.cli.table import Table

    must_read = filters["created_after"] is not None or filters["created_before"] is not None
    counts = dict.fromkeys(job_ids, 0)
    async with connect(patience=PATIENCE) as client:
        on_error = "raise" if len(job_ids) == 1 else "skip"
        most = None if must_read else 1
        walks = with_given(client.iter_runs_for, job_ids, max_runs=most, on_error=on_error, **filters)
        async with aclosing(walks.raw_pages(keep_bad=not must_read)) as pages:
            async for job_id, page in pages:
                if page is not None:
                    counts[job_id] = counts[job_id] + len(page.data) if must_read else page.pagination.total
    found = {job_id: number for job_id, number in counts.items() if job_id not in walks.skipped}
    if as_json:
        await write(b"".join(as_json_line({"job_id": job_id, "count": number}) for job_id, number in found.items()))
    elif len(job_ids) == 1:
        await write(b"%d\n" % found[job_ids[0]])
    elif found:
        rows = [{"job_id": harmless(job_id), "runs": f"{number}"} for job_id, number in found.items()]
        await write(Table(("job_id", "runs"), header=not no_header).text(rows))
    return _say_failures(walks.skipped, len(job_ids))


def _say_failures(errors: "Mapping[str, tfruns.TfRunsError]", jobs: int) -> int:
    for error in errors.values():
        say(str(error))
    return 0 if not errors else 3 if len(errors) < jobs else 1


@click.command(cls=Command, short_help="Print one run, with every field.")
@options.run_of_job
@options.json("Print the run as a line of JSON, as the API has it, in UTF-8.")
@options.host
async def show(job_id: str, run: str, as_json: bool) -> int:
    """Print RUN of JOB: every field, times in UTC and how long ago, the subject that started it, the whole error.

    RUN is an id, a name, or the beginning of either, if only one run has it. Of several runs with that name it is the
    newest.

    Examples:
      tfruns show my-job-id train-7f3a
      tfruns show my-job-id train-7f3a --json > run.json

    Exit status:
      6  there is no such run
      1  RUN begins the names of several runs, or another failure
      2  wrong usage
    """
    from tfruns.cli.table import run_lines

    if not run.strip():
        raise click.UsageError("RUN is empty")
    async with connect(patience=PATIENCE) as client:
        runs = await with_given(client.iter_runs, job_id, search_prefix=run).collect()
    by_id, by_name = [one for one in runs if one.id == run], [one for one in runs if one.name == run]
    found = by_id or by_name[:1] or [one for one in runs if one.id.startswith(run) or one.name.startswith(run)]
    if not found:
        say(f"job {job_id!r} has no run whose id or name begins with {run!r}")
        return _NO_SUCH_RUN
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.id})" for each in found[:_NAMED])
        more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        raise click.ClickException(f"{run!r} begins the ids or names of {counted(len(found), 'run')}: {names}{more}")
    [only] = found
    await write(as_json_line(only.to_dict()) if as_json else "".join(run_lines(job_id, only)))
    return 0


@click.command(cls=Command, short_help="Wait until a run has ended.")
@options.run_of_job
@options.when("--timeout S", "Seconds to wait at most, or 90m. Else for ever.", type=options.Seconds(0, min_open=True))
@options.when(
    "--listed-within S",
    "Seconds in which RUN must be listed: one that was just started may not be there yet.",
    type=options.Seconds(0, 86_400),
    default=10.0,
)
@options.interval(1.0, 15.0)
@options.json("Print the run as a line of JSON, as the API has it, in UTF-8.")
@options.host
async def wait(job_id: str, run: str, as_json: bool, **arguments: Any) -> int:
    """Wait until RUN of JOB has ended, and print it. RUN is an id or a name; of several with that name, the newest.

    Examples:
      tfruns wait my-job-id train-7f3a && echo done
      tfruns wait my-job-id train-7f3a --timeout 1h --json > run.json

    Exit status:
      0  it is FINISHED
      3  it is FAILED
      4  it is TERMINATED
      5  it was deleted
      6  there is no such run, and none was listed within --listed-within
      7  it hasn't ended within --timeout
      1  it couldn't be found out; 2 for wrong usage, 130 for Ctrl-C
    """
    from tfruns.cli.table import run_cells, run_table

    async with connect() as client:
        if is_terminal():
            say(f"waiting for the end of {run!r}; Ctrl-C to stop")
        try:
            with checked():
                ended = await client.wait_for_run(job_id, run, **arguments)
        except tfruns.WaitError as error:
            say(str(error))
            return {tfruns.RunDeletedError: 5, tfruns.RunNotFoundError: 6, tfruns.WaitTimeoutError: 7}[type(error)]
    table = run_table()
    text = table.text([run_cells(ended, table.columns)])
    await write(as_json_line(ended.to_dict()) if as_json else text)
    return _STATUS_OF_END[ended.status]


@click.command(cls=Command, short_help="Print what happens to the runs of jobs, as it happens.")
@options.jobs
@options.filters
@options.interval(2.0, 30.0)
@options.when(
    "--start",
    "What is reported first: nothing that is there already, the open runs, or all runs. Default: `open` for the table"
    " of a terminal, otherwise `now`.",
    type=options.Word(("now", "open", "existing")),
)
@options.when(
    "--resume-from",
    "Keep the place in this file, from the first change on, and resume from the place that it holds if it is there."
    " What was printed in the second before the program was killed may be printed again.",
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

    from tfruns.cli.table import Board

    board = Board(several=several)

    def draw() -> Text:
        return Text.from_ansi(board.text(), no_wrap=True, overflow="ellipsis")

    console = Console(highlight=False, markup=False, emoji=False, no_color=not has_colours())
    with Live(console=console, get_renderable=draw, refresh_per_second=2, redirect_stdout=False):
        async for change in changes:
            board.take(change)
