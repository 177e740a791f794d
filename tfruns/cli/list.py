"""`tfruns list`: the runs of a job, as a table or as lines of JSON."""

import asyncio
from contextlib import aclosing
from typing import Any

import click

from tfruns.cli.filters import DIRECTIONS, SORT_KEYS, as_json_line, filter_options, open_walk
from tfruns.cli.output import encoded, has_colours, write
from tfruns.cli.text import RunTable


@click.command("list", short_help="Print the runs of a job.")
@click.argument("job_id", metavar="JOB")
@filter_options
@click.option(
    "--sort-by",
    type=click.Choice(SORT_KEYS, case_sensitive=False),
    metavar="KEY",
    help=f"What to sort by: {', '.join(SORT_KEYS)}. Else the server's order: newest first.",
)
@click.option("--order", type=click.Choice(DIRECTIONS, case_sensitive=False), help="Which way to sort.")
@click.option(
    "--page-size",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=1000,
    show_default=True,
    help="How many runs a request asks for.",
)
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="How many runs to skip first.",
)
@click.option("--max-runs", type=click.IntRange(min=0), metavar="N", help="How many runs to print at most. Else all.")
@click.option("--json", "as_json", is_flag=True, help="Print each run as a line of JSON, as the API has it, in UTF-8.")
def list_(job_id: str, host: str | None, as_json: bool, **arguments: Any) -> None:
    """Print the runs of JOB, given by its id: each run once, also while others come and go.

    Runs are printed page by page as they arrive. Created is in UTC; a duration is short for people, and in seconds in
    the JSON, where times are in milliseconds since 1970. The API key is taken from TFY_API_KEY, else from
    ~/.truefoundry/credentials.json.

    \b
    Example:
      tfruns list my-job-id --status failed --status terminated --max-runs 20
    """
    asyncio.run(_list(job_id, host, as_json, arguments))


async def _list(job_id: str, host: str | None, as_json: bool, arguments: dict[str, Any]) -> None:
    table = None if as_json else RunTable(colour=has_colours())
    found = False
    async with open_walk(host, job_id, **arguments) as walk, aclosing(walk.pages()) as pages:
        async for page in pages:
            found = True
            if table is None:
                await write(b"".join(as_json_line(run.to_dict()) for run in page.data))
            else:
                await write(encoded(table.rows(page.data)))
    if not found and table is not None:
        click.echo("tfruns: no runs", err=True)  # on stderr: who counts lines must count none
