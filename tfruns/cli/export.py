"""`tfruns export`: the runs of many jobs, in a file."""

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from tfruns.cli.filters import filter_options, order_options
from tfruns.cli.host import connect
from tfruns.cli.text import harmless, human_duration, on_one_line

if TYPE_CHECKING:
    from tfruns.client import Client
    from tfruns.export import ExportProgress, ExportSummary

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "arrow", "sqlite", "duckdb")
_SKIPPED, _TERMINATED, _INTERRUPTED = 3, 143, 130
_A_LINE_EVERY = 10.0  # seconds, where no bar can be shown


@click.command(short_help="Write the runs of many jobs into a file.")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@click.option(
    "--jobs-from",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Take more ids of jobs from FILE, one a line; - is standard input. Empty lines and lines with # are left out.",
)
@click.option(
    "-o", "--output", "destination", type=click.Path(), metavar="DEST", required=True, help="The file to write."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"{', '.join(FORMATS)}. Else by the suffix of DEST.",
)
@filter_options
@order_options
@click.option(
    "--since-last",
    is_flag=True,
    help="Write what is new since the last time, or hadn't ended then. What is known is kept in DEST.tfruns-state.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--summary-json", type=click.File("w"), metavar="FILE", help="Write the summary to FILE, too; - is stdout."
)
def export(
    job_ids: tuple[str, ...],
    jobs_from: IO[str] | None,
    destination: str,
    form: str | None,
    host: str | None,
    since_last: bool,
    quiet: bool,
    summary_json: IO[str] | None,
    **filters: Any,
) -> None:
    """Write the runs of the JOBs, given by their ids, into one file: each run once, job after job.

    DEST appears, in place of a file of that name, when it is complete. What was read before an interruption or an error
    is kept in DEST.tfruns-partial: the same command goes on from there. Lines of JSON are the runs as the API sends
    them, each with its "jobId"; the other formats have the fields as columns, and times in UTC. In CSV, text that a
    spreadsheet would take for a formula has an apostrophe before it.

    With --since-last, SQLite and DuckDB get the new rows in place of the old ones; else each later time writes a file
    of its own: runs.0001.jsonl after runs.jsonl.

    \b
    The exit status:
      0  every job is in the file
      3  some jobs were skipped (404, 403, ...): the summary names them
      1  it failed; 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM

    \b
    Example:
      tfruns export --jobs-from jobs.txt -o runs.parquet --status failed
    """
    ids = [*job_ids, *_read_ids(jobs_from)]
    if not ids:
        raise click.UsageError("no jobs were given: name some, or a file of them with --jobs-from")
    logging.getLogger("tfruns").setLevel(logging.ERROR)  # retries are counted, not listed
    given = {name: value for name, value in filters.items() if value not in (None, ())}
    if since_last:
        given["since"] = destination + ".tfruns-state"
    try:
        status = asyncio.run(_export(ids, destination, form, host, quiet, summary_json, given))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status in (_INTERRUPTED, _TERMINATED):
        click.echo("tfruns: interrupted; the same command goes on from here", err=True)
    click.get_current_context().exit(status)


def _read_ids(file: IO[str] | None) -> Iterator[str]:
    if file is None:
        return
    try:
        lines = file.read().splitlines()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file.name} isn't a text file in UTF-8: {error.reason}") from None
    for line in lines:
        job_id = line.strip()
        if job_id and not job_id.startswith("#"):
            yield job_id


async def _export(
    ids: Iterable[str],
    destination: str,
    form: str | None,
    host: str | None,
    quiet: bool,
    summary_json: IO[str] | None,
    given: dict[str, Any],
) -> int:
    import tfruns
    from tfruns.export import export_runs

    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # for the type checker
    with contextlib.suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel, "SIGTERM")
    async with connect(host) as client:
        with _shown(client, quiet=quiet) as tell:
            try:
                summary = await export_runs(client, ids, destination, format=form, on_progress=tell, **given)
            except asyncio.CancelledError as error:
                if error.args != ("SIGTERM",):
                    raise
                return _TERMINATED
            except (TypeError, ValueError) as error:
                if isinstance(error, tfruns.TfRunsError):
                    raise
                raise click.UsageError(str(error)) from None
            except (tfruns.APIError, OSError) as error:
                raise click.ClickException(f"{error}; the same command goes on from what was read") from None
        told = _as_dict(summary, client)
    if not quiet:
        click.echo(_as_text(summary, told), err=True, nl=False)
    if summary_json is not None:
        summary_json.write(json.dumps(told) + "\n")
        summary_json.close() if summary_json.name != "<stdout>" else summary_json.flush()
    return _SKIPPED if summary.skipped else 0


def _as_dict(summary: "ExportSummary", client: "Client") -> dict[str, Any]:
    stats = client.stats()
    return {
        "path": str(summary.path),
        "runs": summary.runs,
        "jobs": summary.jobs,
        "skipped": {job_id: str(error) for job_id, error in summary.skipped.items()},
        "bytes": summary.size,
        "seconds": round(summary.seconds, 3),
        "resumed_jobs": summary.resumed,
        "requests": stats.requests,
        "retries": stats.retries,
    }


def _as_text(summary: "ExportSummary", told: dict[str, Any]) -> str:
    lines = [
        f"{summary.path}: {summary.runs:,} runs of {summary.jobs:,} jobs, {_human_size(summary.size)}, in"
        f" {human_duration(summary.seconds)}; {told['requests']:,} requests, {told['retries']:,} of them retried"
    ]
    if summary.resumed:
        lines.append(f"{summary.resumed:,} of the jobs were read before the interruption")
    if summary.skipped:
        lines.append(f"{len(summary.skipped):,} jobs were skipped, and aren't in the file:")
        lines += [f"  {error}" for error in summary.skipped.values()]  # which names its job
    return "".join(harmless(on_one_line(line) if not line.startswith(" ") else line) + "\n" for line in lines)


def _human_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@contextlib.contextmanager
def _shown(client: "Client", *, quiet: bool) -> "Iterator[Callable[[ExportProgress], None] | None]":
    """What shows how far the export is: bars on a terminal, else a line now and then."""
    if quiet:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(client, console) as tell:
            yield tell
    else:
        yield _lines()


def _lines() -> "Callable[[ExportProgress], None]":
    said = time.monotonic()

    def tell(now: "ExportProgress") -> None:
        nonlocal said
        if time.monotonic() - said >= _A_LINE_EVERY:
            said = time.monotonic()
            ended = now.jobs_done + now.jobs_skipped
            click.echo(f"{ended:,} of {now.jobs:,} jobs, {now.runs:,} runs{_doing(now)}", err=True)

    return tell


def _doing(now: "ExportProgress") -> str:
    return "; writing the file" if now.is_writing else ""


@contextlib.contextmanager
def _bars(client: "Client", console: Any) -> "Iterator[Callable[[ExportProgress], None]]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        jobs = progress.add_task("jobs", total=None, more="")
        runs = progress.add_task("runs", total=None, more="")
        began = time.monotonic()
        first: int | None = None

        def tell(now: "ExportProgress") -> None:
            nonlocal first
            first = now.runs if first is None else first  # those that were there before don't count as quick
            stats = client.stats()
            rate = (now.runs - first) / max(0.1, time.monotonic() - began)
            trouble = f", {stats.retries:,} retried" if stats.retries else ""
            if stats.concurrency < client.max_concurrency:
                trouble += f", held back to {stats.concurrency} at once"
            ended = now.jobs_done + now.jobs_skipped
            progress.update(jobs, total=now.jobs, completed=ended, more=_doing(now).removeprefix("; "))
            progress.update(runs, total=now.runs_expected, completed=now.runs, more=f"{rate:,.0f}/s{trouble}")

        yield tell
