"""`tfruns count`: how many runs of jobs match."""

import asyncio
from typing import Any

import click

from tfruns.cli.filters import filter_options, window_options
from tfruns.cli.help import Command, json_option
from tfruns.cli.host import ENVIRONMENT, PATIENCE, checked_ids, connect, host_options, say_failures, with_given
from tfruns.cli.output import as_json_line, encoded, write
from tfruns.cli.table import JOB, Table, header_option
from tfruns.cli.text import harmless

_RUNS = "RUNS"
_EPILOG = f"""
Examples:
  tfruns count my-job-id
  tfruns count my-job-id my-other-job-id --status failed --since 24h

Exit status:
  0 success, 1 failure, 2 wrong usage, 130 Ctrl-C
  3 of several jobs, some failed (404, 403, ...): stderr names them
{ENVIRONMENT}"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Print how many runs of jobs match.")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@filter_options
@window_options
@json_option('Print a line {"job_id":...,"count":...} for each job in place of the numbers alone.')
@header_option
@host_options
async def count(job_ids: tuple[str, ...], as_json: bool, no_header: bool, **filters: Any) -> int:
    """Print how many runs of each JOB, given by its id, match: the server's count now, by one request. (With --since or
    --until, they are read and counted.) For one job that is a number alone, for several a table.

    Filters of several kinds must all match; of several values of one filter, any.
    """
    from tfruns.errors import NOT_ABOUT_ONE_JOB, TfRunsError

    ids = checked_ids(job_ids)
    errors: dict[str, TfRunsError] = {}
    async with connect(patience=PATIENCE) as client:

        async def number_of(job_id: str) -> int:
            try:
                return await with_given(client.iter_runs, job_id, **filters).count()
            except TfRunsError as error:
                if len(ids) == 1 or isinstance(error, NOT_ABOUT_ONE_JOB):
                    raise
                errors[job_id] = error
                return 0

        numbers = dict(zip(ids, await asyncio.gather(*map(number_of, ids)), strict=True))
    counts = {job_id: number for job_id, number in numbers.items() if job_id not in errors}
    if as_json:
        await write(b"".join(as_json_line({"job_id": job_id, "count": number}) for job_id, number in counts.items()))
    elif len(ids) == 1:
        await write(b"%d\n" % counts[ids[0]])
    elif counts:
        table = Table((JOB, _RUNS), to_the_right={_RUNS}, priority=(_RUNS, JOB), header=not no_header)
        rows = [{JOB: harmless(job_id), _RUNS: f"{number}"} for job_id, number in counts.items()]
        await write(encoded(table.text(rows)))
    return say_failures(errors, len(ids))
