"""`tfruns export`: the runs of many jobs, in a file."""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

import tfruns
from tfruns.cli import options
from tfruns.cli.options import Command, checked_id, connect, run_async, with_given, wrong_usage
from tfruns.cli.output import harmless, write

if TYPE_CHECKING:
    from tfruns.export import ExportProgress

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet", "arrow", "sqlite", "duckdb")
_STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_SKIPPED = 3
_NO_ID = re.compile(r"[\s,;#\"'\[\]{}]")
"""Characters that no job's id has, but that other lists have: CSV, JSON, or ids followed by comments."""
_NAMES = {",": "a comma", ";": "a semicolon", " ": "a space", "\t": "a tab"}
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f"
"""Characters that can't be seen, which come along when files are joined or ids are copied."""


@click.command(cls=Command, short_help="Write the runs of many jobs into a file.")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@options.options_of("Which jobs")(
    "--jobs-from FILE",
    "Take more ids of jobs from FILE, one a line; - is standard input. Empty lines, and those that begin with #, are"
    " left out.",
    type=click.File("rb"),
)
@options.output(
    "-o, --output DEST",
    "Where to write: a file; a URL such as s3://bucket/runs.parquet or postgresql://host/database; or a folder, with a"
    " slash at its end, for files by day. - is standard output, for jsonl and csv.",
    "destination",
    type=click.Path(),
    required=True,
)
@options.output(
    "--format FORMAT",
    f"One of {', '.join(FORMATS)}. Else by the suffix of DEST; jsonl for -.",
    type=options.Word(FORMATS),
)
@options.output(
    "--table NAME", "The table of PostgreSQL to write, or its schema and name: reports.runs. Default: runs."
)
@options.filters
@options.order
@options.window
@options.which_runs(
    "--state",
    "Write only what is new or has changed since the last export with this FILE, which is made if it isn't there.",
    type=click.Path(dir_okay=False),
)
@options.output(
    "--replace", "Begin anew: throw away what earlier exports of other jobs or filters have written to DEST."
)
@options.output("-q, --quiet", "Print nothing but errors, jobs that are skipped included.")
@options.output(
    "--summary-json FILE",
    "Write the summary to FILE, too, as JSON; - is standard output.",
    type=click.Path(allow_dash=True),
)
@options.requests(patience=300)
@options.host
def export(
    job_ids: tuple[str, ...],
    jobs_from: IO[bytes] | None,
    destination: str,
    quiet: bool,
    summary_json: str | None,
    **arguments: Any,
) -> int:
    """Write the runs of the JOBs, given by their ids, to one place: each run once, job after job.

    DEST appears, in place of a file of that name, when it is complete. Jobs that were read whole before an
    interruption or an error are kept in DEST.tfruns-partial (or beside the FILE of --state, or for a URL in the
    user's folder for caches): the same command goes on with the others. Lines of JSON are the runs as the API sends
    them, each with its "jobId"; the other formats have the fields as columns, and times in UTC. In CSV, text that a
    spreadsheet would take for a formula has an apostrophe before it.

    With --state, databases and folders get the new rows in place of the old ones; else each export writes a file of its
    own: runs.0000.jsonl, runs.0001.jsonl and so on for runs.jsonl. Of the rows of a run, that in the last one is right.

    A run that can't be written (it can't be understood, or a table can't hold a number in it) is set aside in
    DEST.rejected.jsonl, with the reason.

    The JSON of --summary-json has path, runs, jobs, skipped (reasons by job), rejected (runs), quarantine (their file),
    removed_files, removed_rows, size, seconds, resumed_jobs (read before an interruption), resumed_age (in seconds),
    requests and retries; after a failure, and until the end, path and error.

    Examples:
      tfruns export my-job-id my-other-job-id -o runs.csv
      tfruns export --jobs-from jobs.txt -o runs.parquet --status failed
      tfruns export --jobs-from jobs.txt -o runs.duckdb --state state.json --quiet
      tfruns export my-job-id -o - --format csv | gzip > runs.csv.gz

    Exit status:
      0  every job is in the file
      3  some jobs were skipped (404, 403, ...): the summary names them
      1  it failed; 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP
    """
    from tfruns.export.secrets import Hidden, masked_url

    is_output = destination in _STANDARD_OUTPUT
    listed, state = getattr(jobs_from, "name", None), arguments["state"]
    _check_files({"-o": destination, "--jobs-from": listed, "--summary-json": summary_json, "--state": state})
    try:
        with summary_file(summary_json, masked_url(Hidden(destination))) as write_summary:
            ids = [*dict.fromkeys([*map(checked_id, job_ids), *_read_ids(jobs_from)])]
            if not ids:
                raise click.UsageError("no jobs were given: name some, or a file of them with --jobs-from")
            form = arguments["format"] or "jsonl"
            if is_output and form not in ("jsonl", "csv"):
                raise click.UsageError(f"standard output can be jsonl or csv, but no {form}: name a file with -o")
            if is_output and state is not None:
                raise click.UsageError(
                    "--state needs a file with -o: what was lost on its way from here would be no more"
                )
            scratch = tempfile.TemporaryDirectory(prefix="tfruns-") if is_output else contextlib.nullcontext("")
            with scratch as folder:
                path = os.path.join(folder, f"runs.{form}") if is_output else destination
                summary = run_async(_export(ids, path, quiet, is_output, arguments))
            write_summary(summary)
            return _SKIPPED if summary["skipped"] else 0
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            click.echo(err=True)  # ends the line of `^C`
        rest = "; the same command goes on with the jobs that weren't read whole"
        raise click.Abort("" if is_output else rest) from None


def _check_files(named: dict[str, str | None]) -> None:
    """Check that no file is read or written for two purposes, and that a summary can be written in the end."""
    options: dict[str, str] = {}
    for option, name in named.items():
        if name is not None:
            path = "-" if name in _STANDARD_OUTPUT else os.path.realpath(str(name))
            if path in options:
                raise click.UsageError(f"{options[path]} and {option} name the same file")
            options[path] = option
            is_summary = option == "--summary-json" and path != "-"
            if is_summary and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path))):
                raise click.UsageError(f"{option}: there can't be a file {name}")


@contextlib.contextmanager
def summary_file(name: str | None, destination: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes the file of --summary-json, if there is one. From the start the file says that the export
    hasn't ended, because a killed program can't write it; and an old success must not be taken for a new one.
    """
    from tfruns.export.files import is_mounted, write_file

    given, path = Path(name or "-"), Path(os.path.realpath(name or "-"))
    # A stream, a pipe or a device isn't replaced: it takes what is written to it in the end.
    is_file = given.is_file() and not is_mounted(path)
    is_replaced = name not in (None, *_STANDARD_OUTPUT) and (is_file or not given.exists())

    def write_summary(content: dict[str, Any]) -> None:
        text = json.dumps(content, default=str) + "\n"
        try:
            if is_replaced:
                write_file(path, text.encode(), mode=0o666)
            elif name in _STANDARD_OUTPUT:
                click.echo(text, nl=False)
            elif name is not None:
                given.write_text(text, "utf-8")
        except OSError as error:  # a full disk shows when the file is closed, without its name
            raise click.ClickException(f"{error.filename or name}: {error.strerror}") from None

    if is_replaced:
        write_summary({"path": destination, "error": "the export has not ended: it is at work, or was killed"})
    try:
        yield write_summary
    except BaseException as error:
        why = error.format_message() if isinstance(error, click.ClickException) else str(error) or "interrupted"
        with contextlib.suppress(click.ClickException):  # the error of the export matters more
            write_summary({"path": destination, "error": why})
        raise


def _read_ids(file: IO[bytes] | None) -> Iterator[str]:
    for number, line in enumerate(file or (), start=1):
        try:
            job_id = line.decode().strip(_UNSEEN + " \t\r\n\v\f")
            if job_id and not job_id.startswith("#"):
                wrong = next((each for each in job_id if _NO_ID.match(each) or not each.isprintable()), None)
                if wrong is not None:
                    shown = job_id if len(job_id) < 80 else job_id[:79] + "…"
                    what = _NAMES.get(wrong, wrong if wrong.isprintable() else f"the character U+{ord(wrong):04X}")
                    raise click.UsageError(f"one id, and nothing else, must stand on a line, got {shown!r} with {what}")
                yield checked_id(job_id)
        except (UnicodeDecodeError, click.UsageError) as error:
            problem = error.message if isinstance(error, click.UsageError) else "isn't text in UTF-8"
            raise click.UsageError(f"{getattr(file, 'name', '-')}, line {number}: {problem}") from None


async def _export(ids: list[str], path: str, quiet: bool, is_output: bool, arguments: dict[str, Any]) -> dict[str, Any]:
    import attrs

    from tfruns.cli.report import shown, summary_lines
    from tfruns.export import export_runs
    from tfruns.export.secrets import Hidden, masked_url

    async with connect() as client:
        last: ExportProgress | None = None
        with shown(client, quiet=quiet) as show:

            def keep(now: "ExportProgress") -> None:
                nonlocal last
                last = now
                show(now)

            try:
                summary = await with_given(export_runs, client, ids, path, on_progress=keep, **arguments)
            except (tfruns.TfRunsError, OSError) as error:
                is_nameless = isinstance(error, OSError) and error.filename is None
                what = f"{masked_url(Hidden(path))} can't be written: {error}" if is_nameless else str(error)
                if is_output:
                    what = what.replace(path, "standard output")
                elif last is not None and last.jobs_done:
                    what += "; the same command goes on from what was read"
                raise click.ClickException(what) from None
            except (TypeError, ValueError) as error:
                raise error if last else wrong_usage(error) from None
        stats = client.stats()
    done = attrs.asdict(summary, recurse=False) | {"seconds": round(summary.seconds, 3)}
    done |= {"requests": stats.requests, "retries": stats.retries}
    if is_output:
        done |= {"path": "-", "quarantine": None}
        with open(path, "rb") as file:  # noqa: ASYNC230  # of this machine, and read a block at a time
            while block := file.read(2**20):
                await write(block)
    lines = summary_lines(summary, stats, is_output=is_output, quiet=quiet)
    click.echo("".join(harmless(line) + "\n" for line in lines), err=True, nl=False)
    return done
