"""`tfruns export`: the runs of many jobs, in a file."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from tfruns.cli.filters import filter_options, order_options
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, connect, host_options, wrong_usage
from tfruns.cli.progress import shown
from tfruns.cli.since import window_options
from tfruns.cli.text import counted, harmless, human_duration

if TYPE_CHECKING:
    from tfruns.client import Client
    from tfruns.export import ExportProgress, ExportSummary

_jobs = options_of("Which jobs")
_output = options_of("Output")
_which = options_of("Which runs")

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet", "arrow", "sqlite", "duckdb")
_SKIPPED, _TERMINATED, _INTERRUPTED = 3, 143, 130


_EPILOG = f"""
Examples:
  tfruns export my-job-id my-other-job-id -o runs.csv
  tfruns export --jobs-from jobs.txt -o runs.parquet --status failed
  tfruns export --jobs-from jobs.txt -o runs.duckdb --since-last --quiet
  tfruns export --jobs-from jobs.txt -o s3://bucket/runs.parquet
  tfruns export --jobs-from jobs.txt -o postgresql://db.example/reports --table job_runs

Exit status:
  0  every job is in the file
  3  some jobs were skipped (404, 403, ...): the summary names them
  1  it failed; 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Write the runs of many jobs into a file.")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@_jobs(
    "--jobs-from",
    type=click.File("rb"),
    metavar="FILE",
    help="Take more ids of jobs from FILE, one a line; - is standard input. Empty lines and lines with # are left out.",
)
@_output(
    "-o",
    "--output",
    "destination",
    type=click.Path(),
    metavar="DEST",
    required=True,
    help="Where to write: a file; a URL such as s3://bucket/runs.parquet; or postgresql://host/database.",
)
@_output(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"One of {', '.join(FORMATS)}. Else by the suffix of DEST.",
)
@_output(
    "--table",
    metavar="NAME",
    help="The table of PostgreSQL to write, or its schema and name: reports.runs. Default: runs.",
)
@filter_options
@order_options
@window_options
@_which(
    "--since-last",
    is_flag=True,
    help="Write what is new since the last time, or hadn't ended then. What is known is kept in DEST.tfruns-state.",
)
@_output(
    "-q",
    "--quiet",
    is_flag=True,
    help="Print nothing but errors, jobs that are skipped included.",
)
@_output(
    "--summary-json",
    type=click.File("w", atomic=True),
    metavar="FILE",
    help="Write the summary to FILE, too, as JSON; - is stdout.",
)
@host_options
def export(
    job_ids: tuple[str, ...],
    jobs_from: IO[bytes] | None,
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

    A run that can't be written (it can't be understood, or a table can't hold a number in it) is set aside in
    DEST.rejected.jsonl, with the reason.

    The JSON of --summary-json has path, runs, jobs, skipped (reasons by job), rejected (runs), quarantine (their file),
    size, seconds, resumed_jobs (read before an interruption), requests and retries; after a failure, path and error.
    """
    ids = [*job_ids, *_read_ids(jobs_from)]
    if destination == "-":
        raise click.UsageError(
            "-o - can't be: a file appears when it is complete. See `tfruns list --json` for a stream"
        )
    _check_files({"-o": destination, "--jobs-from": _name(jobs_from), "--summary-json": _name(summary_json)})
    if not ids:
        raise click.UsageError("no jobs were given: name some, or a file of them with --jobs-from")
    given = {name: value for name, value in filters.items() if value not in (None, ())}
    if since_last and given.keys() & {"sort_by", "order", "status", "created_after", "created_before"}:
        raise click.UsageError(
            "--since-last reads the newest runs first: it goes with no --sort-by, --order, --status, --since or --until"
        )
    if since_last:
        given["state"] = destination + ".tfruns-state"
    try:
        status = asyncio.run(_export(ids, destination, form, host, quiet, summary_json, given))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except asyncio.CancelledError:
        status = _TERMINATED
    if status in (_INTERRUPTED, _TERMINATED):
        click.echo("tfruns: interrupted; the same command goes on from here", err=True)
    click.get_current_context().exit(status)


def _name(file: IO[Any] | None) -> str | None:
    """The file's name; None for a standard stream, which has one in brackets, or none."""
    name = str(getattr(file, "name", "<"))
    return None if name.startswith("<") else name


def _check_files(named: dict[str, str | None]) -> None:
    """See that no file is read or written for two purposes, and that a summary can be written in the end."""
    options: dict[str, str] = {}
    for option, name in named.items():
        if name is not None:
            path = os.path.realpath(name)
            if path in options:
                raise click.UsageError(f"{options[path]} and {option} name the same file")
            options[path] = option
            if option == "--summary-json" and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path))):
                raise click.UsageError(f"{option}: there can't be a file {name}")


def _read_ids(file: IO[bytes] | None) -> Iterator[str]:
    from tfruns.query import checked_job_id

    for number, line in enumerate(file or (), start=1):
        try:
            job_id = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if job_id and not job_id.startswith("#"):
                yield checked_job_id(job_id)
        except ValueError as error:
            problem = "isn't text in UTF-8" if isinstance(error, UnicodeDecodeError) else wrong_usage(error).message
            raise click.UsageError(f"{getattr(file, 'name', '-')}, line {number}: {problem}") from None


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
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with connect(host) as client:
        has_begun = has_work = False
        with shown(client, quiet=quiet) as show:

            def tell(now: "ExportProgress") -> None:
                nonlocal has_begun, has_work
                has_begun, has_work = True, now.jobs_done > 0
                show(now)

            try:
                summary = await export_runs(client, ids, destination, format=form, on_progress=tell, **given)
            except (tfruns.TfRunsError, OSError) as error:
                is_nameless = isinstance(error, OSError) and error.filename is None
                what = f"{destination} can't be written: {error}" if is_nameless else str(error)
                _write_summary(summary_json, {"path": destination, "error": what})
                if not has_begun:
                    raise
                rest = "; the same command goes on from what was read" if has_work else ""
                raise click.ClickException(what + rest) from None
            except (TypeError, ValueError) as error:
                if has_begun:
                    raise
                raise wrong_usage(error) from None
        report = _as_dict(summary, client)
    lines = [*(() if quiet else _summary_lines(summary, report)), *_skipped(summary), *_rejected(summary)]
    click.echo("".join(harmless(line) + "\n" for line in lines), err=True, nl=False)
    _write_summary(summary_json, report)
    return _SKIPPED if summary.skipped else 0


def _write_summary(file: IO[str] | None, content: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(content) + "\n")
        file.close() if file.name != "<stdout>" else file.flush()


def _as_dict(summary: "ExportSummary", client: "Client") -> dict[str, Any]:
    stats = client.stats()
    return {
        "path": str(summary.path),
        "runs": summary.runs,
        "jobs": summary.jobs,
        "skipped": {job_id: str(error) for job_id, error in summary.skipped.items()},
        "rejected": summary.rejected,
        "quarantine": None if summary.quarantine is None else str(summary.quarantine),
        "size": summary.size,
        "seconds": round(summary.seconds, 3),
        "resumed_jobs": summary.resumed_jobs,
        "requests": stats.requests,
        "retries": stats.retries,
    }


def _summary_lines(summary: "ExportSummary", report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{summary.path}: {counted(summary.runs, 'run')} of {counted(summary.jobs, 'job')},"
        f" {_human_size(summary.size)}, in {human_duration(summary.seconds)}; {counted(report['requests'], 'request')},"
        f" {report['retries']:,} of them retried"
    )
    if summary.resumed_jobs:
        yield f"{counted(summary.resumed_jobs, 'job')} had been read before the interruption"


def _skipped(summary: "ExportSummary") -> Iterator[str]:
    if summary.skipped:
        yield f"{counted(len(summary.skipped), 'job')} skipped, not in the file:"
        yield from (f"  {error}" for error in summary.skipped.values())  # which names its job


def _rejected(summary: "ExportSummary") -> Iterator[str]:
    if summary.rejected:
        yield f"{counted(summary.rejected, 'run')} couldn't be written: see {summary.quarantine}"


def _human_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
