"""`tfruns show` and `tfruns wait`: one run, every field; and until it has ended."""

import time
from collections.abc import Iterator
from typing import Any

import click

import tfruns
from tfruns._text import counted
from tfruns.cli import options
from tfruns.cli.help import ENVIRONMENT, Command
from tfruns.cli.options import PATIENCE, checked, connect, with_given
from tfruns.cli.output import as_json_line, harmless, has_colours, is_terminal, say, write
from tfruns.cli.table import COLOURS, human_age, human_duration, instant, run_cells, run_table, time_so_far

_NO_SUCH_RUN = 6
_NAMED = 5
_FIRST = ("id", "name", "status", "created_at", "end_time", "duration", "exit_code")
_SHOW_EPILOG = f"""
Examples:
  tfruns show my-job-id train-7f3a
  tfruns show my-job-id train-7f3a --json > run.json

Exit status:
  6  there is no such run
  1  RUN begins the names of several runs, or another failure
  2  wrong usage
{ENVIRONMENT}"""
_STATUS_OF_END = {"FINISHED": 0, "FAILED": 3, "TERMINATED": 4}
_WAIT_EPILOG = f"""
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
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_SHOW_EPILOG, short_help="Print one run, with every field.")
@options.run_of_job
@options.json("Print the run as a line of JSON, as the API has it, in UTF-8.")
@options.host
async def show(job_id: str, run: str, as_json: bool) -> int:
    """Print RUN of JOB: every field, times in UTC and how long ago, the subject that started it, the whole error.

    RUN is an id, a name, or the beginning of either, if only one run has it. Of several runs with that name it is the
    newest.
    """
    if not run.strip():
        raise click.UsageError("RUN is empty")
    async with connect(patience=PATIENCE) as client:
        found = await _find(client, job_id, run)
    if not found:
        say(f"job {job_id!r} has no run whose id or name begins with {run!r}")
        return _NO_SUCH_RUN
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.id})" for each in found[:_NAMED])
        more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        raise click.ClickException(f"{run!r} begins the ids or names of {counted(len(found), 'run')}: {names}{more}")
    [only] = found
    await write(as_json_line(only.to_dict()) if as_json else "".join(_lines(job_id, only)))
    return 0


async def _find(client: "tfruns.Client", job_id: str, text: str) -> "list[tfruns.JobRun]":
    """The run with that id; else the newest with that name; else those whose id or name begins with the text."""
    named: tfruns.JobRun | None = None
    begun = []
    async for run in with_given(client.iter_runs, job_id, search_prefix=text):
        if run.id == text:
            return [run]
        if run.name == text:
            named = named or run
        elif run.id.startswith(text) or run.name.startswith(text):
            begun.append(run)
    return begun if named is None else [named]


def _lines(job_id: str, run: "tfruns.JobRun") -> Iterator[str]:
    """A line for each field, first what everybody asks, the error last; a text of several lines goes below its name."""
    from tfruns._table.columns import COLUMNS, values_of

    now = time.time()
    values: dict[str, Any] = {column.name: value for column, [value] in zip(COLUMNS, values_of([run]), strict=True)}
    error = values.pop("error")
    fields = {"job_id": job_id, **{name: values[name] for name in (*_FIRST, *values)}, "error": error}
    for name in ("created_at", "end_time"):
        if (when := fields[name]) is not None:
            fields[name] = f"{instant(when)} UTC ({human_age(now - when / 1000)} ago)"
    duration = time_so_far(run, now) if is_terminal() else run.duration
    if duration is not None:
        fields["duration"] = f"{human_duration(duration)} ({duration} s)"
    width = max(map(len, fields))
    for name, value in fields.items():
        lines = [harmless(line.expandtabs()) for line in str("-" if value is None else value).splitlines()]
        if len(lines) > 1:
            yield f"{name}\n" + "".join(f"  {line}\n" for line in lines)
        else:
            text = "".join(lines)
            if name == "status" and has_colours():
                text = click.style(text, fg=COLOURS.get(text))
            yield f"{name:<{width}}  {text}\n"


@click.command(cls=Command, epilog=_WAIT_EPILOG, short_help="Wait until a run has ended.")
@options.run_of_job
@options.when(
    "--timeout", type=options.Seconds(0, min_open=True), help="Seconds to wait at most, or 90m. Else for ever."
)
@options.when(
    "--listed-within",
    type=options.Seconds(0, 86_400),
    default=10.0,
    help="Seconds in which RUN must be listed: one that was just started may not be there yet.",
)
@options.interval(1.0, 15.0)
@options.json("Print the run as a line of JSON, as the API has it, in UTF-8.")
@options.host
async def wait(
    job_id: str,
    run: str,
    timeout: float | None,  # noqa: ASYNC109
    listed_within: float,
    interval: tuple[float, float],
    as_json: bool,
) -> int:
    """Wait until RUN of JOB has ended, and print it. RUN is an id or a name; of several with that name, the newest."""
    async with connect() as client:
        if is_terminal():
            say(f"waiting for the end of {run!r}; Ctrl-C to stop")
        try:
            with checked():
                ended = await client.wait_for_run(
                    job_id, run, timeout=timeout, listed_within=listed_within, interval=interval
                )
        except tfruns.WaitError as error:
            statuses = {tfruns.RunDeletedError: 5, tfruns.RunNotFoundError: 6, tfruns.WaitTimeoutError: 7}
            say(str(error))
            return statuses[type(error)]
    table = run_table()
    cells = run_cells(ended, table.columns, now=time.time())
    await write(as_json_line(ended.to_dict()) if as_json else table.text([cells]))
    return _STATUS_OF_END[ended.status]
