"""`tfruns list`: the runs of a job, as a table or as lines of JSON."""

import time
from contextlib import aclosing
from typing import Any

import click

from tfruns._text import counted
from tfruns.cli.filters import PATIENCE, as_json_line, filter_options, open_walk, order_options
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, host_options, request_options
from tfruns.cli.output import encoded, has_colours, width, write
from tfruns.cli.signals import run_async
from tfruns.cli.since import window_options
from tfruns.cli.table import AGE, LISTED, Table, run_cells

_many = options_of("How many")
_output = options_of("Output")

_EPILOG = f"""
Examples:
  tfruns list my-job-id --status failed --status terminated --max-runs 20
  tfruns list my-job-id --since 2h | less -R
  tfruns list my-job-id --sort-by duration --order desc --json > runs.jsonl
{ENVIRONMENT}"""


@click.command("list", cls=Command, epilog=_EPILOG, short_help="Print the runs of a job.")
@click.argument("job_id", metavar="JOB")
@filter_options
@order_options
@_many(
    "--page-size",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=1000,
    show_default=True,
    help="Runs to request at once, at most.",
)
@_many(
    "--offset",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Runs to skip first.",
)
@window_options
@_many(
    "--max-runs",
    type=click.IntRange(min=0),
    metavar="N",
    help="Runs to print at most. Else all.",
)
@_output(
    "--json",
    "as_json",
    is_flag=True,
    help="Print each run as a line of JSON, as the API has it, in UTF-8.",
)
@request_options(patience=PATIENCE)
@host_options
def list_(job_id: str, host: str | None, as_json: bool, **arguments: Any) -> None:
    """Print the runs of JOB, given by its id: each run once, also while others come and go.

    Runs are printed page by page as they arrive. On a terminal, columns that there is no room for are left out, and
    what is cut ends with an ellipsis; elsewhere every column is whole. In the JSON, durations are in seconds, and times
    in milliseconds since 1970.

    Filters of several kinds must all match; of several values of one filter, any.
    """
    run_async(_list(job_id, host, as_json, arguments))


async def _list(job_id: str, host: str | None, as_json: bool, arguments: dict[str, Any]) -> None:
    columns = LISTED if width() is None else (*LISTED[:2], AGE, *LISTED[2:])
    table = None if as_json else Table(columns, width=width(), colour=has_colours())
    now = time.time()
    found = False
    async with open_walk(host, job_id, **arguments) as walk, aclosing(walk.pages()) as pages:
        async for page in pages:
            found = True
            if table is None:
                await write(b"".join(as_json_line(run.to_dict()) for run in page.data))
            else:
                await write(encoded(table.text([run_cells(run, now=now) for run in page.data])))
    if table is None:
        return
    if not found:
        click.echo("tfruns: no runs", err=True)  # on stderr: a program that counts lines must count none
    elif table.left_out:
        names = ", ".join(table.left_out)
        click.echo(f"tfruns: {counted(len(table.left_out), 'column')} left out to fit the terminal: {names}", err=True)
