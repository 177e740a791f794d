"""`tfruns wait`: until a run has ended."""

import time
from typing import TYPE_CHECKING

import click

from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, connect, host_options, wrong_usage
from tfruns.cli.output import as_json_line, encoded, is_terminal, write
from tfruns.cli.signals import run_async
from tfruns.cli.table import run_cells, run_table
from tfruns.cli.text import on_one_line

if TYPE_CHECKING:
    from tfruns.models import JobRun

_when = options_of("When")
_output = options_of("Output")

_STATUS_OF_END = {"FINISHED": 0, "FAILED": 3, "TERMINATED": 4}
_EPILOG = f"""
Examples:
  tfruns wait my-job-id train-7f3a && echo done
  tfruns wait my-job-id train-7f3a --timeout 3600 --json > run.json

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
@_when(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds to wait at most. Else for ever.",
)
@_when(
    "--listed-within",
    type=click.FloatRange(min=0, max=86_400),
    metavar="S",
    default=10.0,
    show_default=True,
    help="Seconds in which RUN must be listed: one that was just started may not be there yet.",
)
@_when(
    "--interval",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    nargs=2,
    metavar="MIN MAX",
    default=(1.0, 15.0),
    show_default=True,
    help="Seconds between two polls: the least while runs change, the most while nothing happens.",
)
@_output("--json", "as_json", is_flag=True, help="Print the run as a line of JSON, as the API has it, in UTF-8.")
@host_options
def wait(
    job_id: str,
    run: str,
    timeout: float | None,
    listed_within: float,
    interval: tuple[float, float],
    host: str | None,
    as_json: bool,
) -> None:
    """Wait until RUN of JOB has ended, and print it. RUN is an id or a name; of several with that name, the newest."""
    ended = _wait(job_id, run, timeout, listed_within, interval, host, as_json)
    click.get_current_context().exit(run_async(ended))


async def _wait(
    job_id: str,
    run: str,
    timeout: float | None,  # noqa: ASYNC109
    listed_within: float,
    interval: tuple[float, float],
    host: str | None,
    as_json: bool,
) -> int:
    import tfruns

    async with connect(host) as client:
        if is_terminal():
            click.echo(f"tfruns: waiting for the end of {on_one_line(repr(run))}; Ctrl-C to stop", err=True)
        try:
            ended: JobRun = await client.wait_for_run(
                job_id, run, timeout=timeout, listed_within=listed_within, interval=interval
            )
        except (TypeError, ValueError) as error:
            if isinstance(error, tfruns.TfRunsError):
                raise
            raise wrong_usage(error) from None
        except tfruns.WaitError as error:
            statuses = {tfruns.RunDeletedError: 5, tfruns.RunNotFoundError: 6, tfruns.WaitTimeoutError: 7}
            click.echo(f"tfruns: {on_one_line(str(error))}", err=True)
            return statuses[type(error)]
    table = run_table()
    cells = run_cells(ended, table.columns, now=time.time())
    await write(as_json_line(ended.to_dict()) if as_json else encoded(table.text([cells])))
    return _STATUS_OF_END[ended.status]
