"""`tfruns wait`: until a run has ended."""

import time

import click

from tfruns.cli.help import Command, json_option, when
from tfruns.cli.host import ENVIRONMENT, checked, checked_ids, connect, host_options, interval_option
from tfruns.cli.output import as_json_line, encoded, is_terminal, write
from tfruns.cli.table import run_cells, run_table
from tfruns.cli.text import on_one_line
from tfruns.cli.values import Seconds

_STATUS_OF_END = {"FINISHED": 0, "FAILED": 3, "TERMINATED": 4}
_EPILOG = f"""
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


@click.command(cls=Command, epilog=_EPILOG, short_help="Wait until a run has ended.")
@click.argument("job_id", metavar="JOB")
@click.argument("run", metavar="RUN")
@when("--timeout", type=Seconds(0, min_open=True), help="Seconds to wait at most, or 90m, 2h. Else for ever.")
@when(
    "--listed-within",
    type=Seconds(0, 86_400),
    default=10.0,
    help="Seconds in which RUN must be listed: one that was just started may not be there yet.",
)
@interval_option(1.0, 15.0)
@json_option("Print the run as a line of JSON, as the API has it, in UTF-8.")
@host_options
async def wait(
    job_id: str,
    run: str,
    timeout: float | None,  # noqa: ASYNC109
    listed_within: float,
    interval: tuple[float, float],
    as_json: bool,
) -> int:
    """Wait until RUN of JOB has ended, and print it. RUN is an id or a name; of several with that name, the newest."""
    import tfruns

    checked_ids([job_id])
    async with connect() as client:
        if is_terminal():
            click.echo(f"tfruns: waiting for the end of {on_one_line(repr(run))}; Ctrl-C to stop", err=True)
        try:
            with checked():
                ended = await client.wait_for_run(
                    job_id, run, timeout=timeout, listed_within=listed_within, interval=interval
                )
        except tfruns.WaitError as error:
            statuses = {tfruns.RunDeletedError: 5, tfruns.RunNotFoundError: 6, tfruns.WaitTimeoutError: 7}
            click.echo(f"tfruns: {on_one_line(str(error))}", err=True)
            return statuses[type(error)]
    table = run_table()
    cells = run_cells(ended, table.columns, now=time.time())
    await write(as_json_line(ended.to_dict()) if as_json else encoded(table.text([cells])))
    return _STATUS_OF_END[ended.status]
