"""`tfruns count`: how many runs of a job match."""

from typing import Any

import click

from tfruns.cli.filters import as_json_line, filter_options, open_walk
from tfruns.cli.help import Command, options_of
from tfruns.cli.host import ENVIRONMENT, host_options
from tfruns.cli.output import write
from tfruns.cli.signals import run_async
from tfruns.cli.since import window_options

_output = options_of("Output")

_EPILOG = f"""
Examples:
  tfruns count my-job-id
  tfruns count my-job-id --status failed --since 24h
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Print how many runs of a job match.")
@click.argument("job_id", metavar="JOB")
@filter_options
@window_options
@_output(
    "--json",
    "as_json",
    is_flag=True,
    help='Print {"job_id":...,"count":...} in place of the number alone.',
)
@host_options
def count(job_id: str, host: str | None, as_json: bool, **filters: Any) -> None:
    """Print how many runs of JOB, given by its id, match: the server's count now, by one request. (With --since or
    --until, they are read and counted.)

    Filters of several kinds must all match; of several values of one filter, any.
    """
    run_async(_count(job_id, host, as_json, filters))


async def _count(job_id: str, host: str | None, as_json: bool, filters: dict[str, Any]) -> None:
    async with open_walk(host, job_id, **filters) as walk:
        number = await walk.count()
    await write(as_json_line({"job_id": job_id, "count": number}) if as_json else b"%d\n" % number)
