"""`tfruns export`: the runs of many jobs, in a file."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from tfruns.cli.filters import filter_options, order_options, window_options
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, connect, host_options, request_options, wrong_usage
from tfruns.cli.output import write
from tfruns.cli.progress import shown
from tfruns.cli.report import STANDARD_OUTPUT, Report, as_dict, summary_lines
from tfruns.cli.signals import Interrupted, end_line, run_async
from tfruns.cli.text import harmless

if TYPE_CHECKING:
    from tfruns.export import ExportProgress

_jobs = options_of("Which jobs")
_output = options_of("Output")
_which = options_of("Which runs")
_many = options_of("Requests")

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet", "arrow", "sqlite", "duckdb")
_SKIPPED = 3
_NO_ID = re.compile(r"[\s,;#\"'\[\]{}]")
"""Characters that no job's id has, but that other lists have: CSV, JSON, or ids followed by comments."""
_NAMES = {",": "a comma", ";": "a semicolon", " ": "a space", "\t": "a tab"}
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f"
"""Characters that can't be seen, which come along when files are joined or ids are copied."""

_EPILOG = f"""
Examples:
  tfruns export my-job-id my-other-job-id -o runs.csv
  tfruns export --jobs-from jobs.txt -o runs.parquet --status failed
  tfruns export --jobs-from jobs.txt -o runs.duckdb --state state.json --quiet
  tfruns export my-job-id -o - --format csv | gzip > runs.csv.gz

Exit status:
  0  every job is in the file
  3  some jobs were skipped (404, 403, ...): the summary names them
  1  it failed; 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Write the runs of many jobs into a file.")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@_jobs(
    "--jobs-from",
    type=click.File("rb"),
    metavar="FILE",
    help="Take more ids of jobs from FILE, one a line; - is standard input. Empty lines, and those that begin with #,"
    " are left out.",
)
@_output(
    "-o",
    "--output",
    "destination",
    type=click.Path(),
    metavar="DEST",
    required=True,
    help="Where to write: a file; a URL such as s3://bucket/runs.parquet or postgresql://host/database; or a folder,"
    " with a slash at its end, for files by day. - is standard output, for jsonl and csv.",
)
@_output(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"One of {', '.join(FORMATS)}. Else by the suffix of DEST; jsonl for -.",
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
    "--state",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write only what is new or has changed since the last export with this FILE, which is made if it isn't there.",
)
@_output(
    "--replace",
    is_flag=True,
    help="Begin anew: throw away what earlier exports of other jobs or filters have written to DEST.",
)
@_output(
    "-q",
    "--quiet",
    is_flag=True,
    help="Print nothing but errors, jobs that are skipped included.",
)
@_output(
    "--summary-json",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Write the summary to FILE, too, as JSON; - is standard output.",
)
@_many(
    "--page-size",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=1000,
    show_default=True,
    help="Runs to request at once, at most.",
)
@request_options(patience=300)
@host_options
def export(
    job_ids: tuple[str, ...],
    jobs_from: IO[bytes] | None,
    destination: str,
    form: str | None,
    host: str | None,
    quiet: bool,
    summary_json: str | None,
    **arguments: Any,
) -> None:
    """Write the runs of the JOBs, given by their ids, to one place: each run once, job after job.

    DEST appears, in place of a file of that name, when it is complete. What was read before an interruption or an error
    is kept in DEST.tfruns-partial (or beside the FILE of --state, or for a URL in the user's folder for caches): the
    same command goes on from there. Lines of JSON
    are the runs as the API sends them, each with its "jobId"; the other formats have the fields as columns, and times
    in UTC. In CSV, text that a spreadsheet would take for a formula has an apostrophe before it.

    With --state, databases and folders get the new rows in place of the old ones; else each export writes a file of its
    own: runs.0000.jsonl, runs.0001.jsonl and so on for runs.jsonl. Of the rows of a run, that in the last one is right.

    A run that can't be written (it can't be understood, or a table can't hold a number in it) is set aside in
    DEST.rejected.jsonl, with the reason.

    The JSON of --summary-json has path, runs, jobs, skipped (reasons by job), rejected (runs), quarantine (their file),
    removed_files, removed_rows, size, seconds, resumed_jobs (read before an interruption), resumed_age (in seconds),
    requests and retries; after a failure, and until the end, path and error.
    """
    is_output = destination in STANDARD_OUTPUT
    names = {"-o": None if is_output else destination, "--jobs-from": _name(jobs_from), "--summary-json": summary_json}
    _check_files({**names, "--state": arguments["state"]})
    if is_output and summary_json in STANDARD_OUTPUT:
        raise click.UsageError("-o and --summary-json can't both be standard output")
    given = {name: value for name, value in arguments.items() if value not in (None, ()) and value is not False}
    with Report(summary_json, _shown(destination)) as report:
        ids = [*job_ids, *_read_ids(jobs_from)]
        if not ids:
            raise click.UsageError("no jobs were given: name some, or a file of them with --jobs-from")
        if is_output and form not in (None, "jsonl", "csv"):
            raise click.UsageError(f"standard output can be jsonl or csv, but no {form}: name a file with -o")
        if is_output and "state" in given:
            raise click.UsageError("--state needs a file with -o: what was lost on its way from here would be no more")
        if "state" in given and given.keys() & {"sort_by", "order", "status", "created_after", "created_before"}:
            raise click.UsageError(
                "--state needs the newest runs of any status first: it goes with no --sort-by, --order, --status,"
                " --since or --until"
            )
        with _place(destination, form, is_output=is_output) as path:
            try:
                status = run_async(_export(ids, path, form, host, quiet, report, given, is_output=is_output))
            except Interrupted as error:
                status = error.status
                report.fail("interrupted")
                rest = "" if is_output else "; the same command goes on from here"
                end_line()
                click.echo(f"tfruns: interrupted{rest}", err=True)
    click.get_current_context().exit(status)


def _shown(destination: str) -> str:
    """The destination without a password."""
    from tfruns.export.secrets import without_secrets

    return without_secrets(destination)


@contextlib.contextmanager
def _place(destination: str, form: str | None, *, is_output: bool) -> "Iterator[str]":
    """The path that is written: for standard output, in a folder that is removed in the end."""
    if not is_output:
        yield destination
        return
    with tempfile.TemporaryDirectory(prefix="tfruns-") as folder:
        yield os.path.join(folder, f"runs.{form or 'jsonl'}")


def _name(file: IO[Any] | None) -> str | None:
    """The file's name; None for a standard stream, whose name is in brackets or missing."""
    name = str(getattr(file, "name", "<"))
    return None if name.startswith("<") else name


def _check_files(named: dict[str, str | None]) -> None:
    """Check that no file is read or written for two purposes, and that a summary can be written in the end."""
    options: dict[str, str] = {}
    for option, name in named.items():
        if name is not None and name not in STANDARD_OUTPUT:
            path = os.path.realpath(name)
            if path in options:
                raise click.UsageError(f"{options[path]} and {option} name the same file")
            options[path] = option
            if option == "--summary-json" and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path))):
                raise click.UsageError(f"{option}: there can't be a file {name}")


def _read_ids(file: IO[bytes] | None) -> Iterator[str]:
    from tfruns._checks import checked_job_id

    for number, line in enumerate(file or (), start=1):
        try:
            job_id = line.decode().strip(_UNSEEN + " \t\r\n\v\f")
            if job_id and not job_id.startswith("#"):
                wrong = next((each for each in job_id if _NO_ID.match(each) or not each.isprintable()), None)
                if wrong is not None:
                    shown = job_id if len(job_id) < 80 else job_id[:79] + "…"
                    what = _NAMES.get(wrong, wrong if wrong.isprintable() else f"the character U+{ord(wrong):04X}")
                    raise ValueError(f"one id, and nothing else, must stand on a line, got {shown!r} with {what}")
                yield checked_job_id(job_id)
        except ValueError as error:
            problem = "isn't text in UTF-8" if isinstance(error, UnicodeDecodeError) else wrong_usage(error).message
            raise click.UsageError(f"{getattr(file, 'name', '-')}, line {number}: {problem}") from None


async def _export(
    ids: list[str],
    path: str,
    form: str | None,
    host: str | None,
    quiet: bool,
    report: Report,
    given: dict[str, Any],
    *,
    is_output: bool,
) -> int:
    import tfruns
    from tfruns.export import export_runs

    async with connect(host) as client:
        has_begun = has_work = False
        with shown(client, quiet=quiet) as show:

            def show_progress(now: "ExportProgress") -> None:
                nonlocal has_begun, has_work
                has_begun, has_work = True, now.jobs_done > 0
                show(now)

            try:
                summary = await export_runs(client, ids, path, format=form, on_progress=show_progress, **given)
            except (tfruns.TfRunsError, OSError) as error:
                if not has_begun:
                    raise
                is_nameless = isinstance(error, OSError) and error.filename is None
                what = f"{_shown(path)} can't be written: {error}" if is_nameless else str(error)
                if is_output:
                    raise click.ClickException(what.replace(path, "standard output")) from None
                rest = "; the same command goes on from what was read" if has_work else ""
                raise click.ClickException(what + rest) from None
            except (TypeError, ValueError) as error:
                if has_begun:
                    raise
                raise wrong_usage(error) from None
        done = as_dict(summary, client)
    if is_output:
        done |= {"path": "-", "quarantine": None}
        for block in _blocks(path):
            await write(block)
    lines = summary_lines(summary, done, quiet=quiet)
    click.echo("".join(harmless(line) + "\n" for line in lines), err=True, nl=False)
    report.write(done)
    return _SKIPPED if summary.skipped else 0


def _blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(2**20):
            yield block
