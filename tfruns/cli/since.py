"""`--since 2h`: the runs created since a time."""

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tfruns.cli.help import options_of

if TYPE_CHECKING:
    from tfruns._walk.paginator import RunPaginator
    from tfruns.models import JobRun

_which = options_of("Which runs")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])")


def parsed_time(value: str) -> float:
    """The time that a text says, in ms since 1970.

    Raises:
        click.BadParameter: it says none.
    """
    if found := _AGO.fullmatch(value.strip().lower()):
        return (time.time() - float(found[1]) * _SECONDS[found[2]]) * 1000
    try:
        return datetime.fromisoformat(value.strip()).timestamp() * 1000
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time: give one such as 30m, 2h, 7d, 2026-11-23 or 2026-11-23T08:30Z"
        ) from None


def _milliseconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    return None if value is None else parsed_time(value)


since_option = _which(
    "--since",
    callback=_milliseconds,
    metavar="TIME",
    help="Only runs created since then: 30m, 2h, 7d or 1w ago, or 2026-11-23T08:30 in local time, or with Z in UTC.",
)


async def pages_since(walk: "RunPaginator", since: float | None) -> "AsyncGenerator[list[JobRun]]":
    """The walk's pages, down to the runs that were created before that time: the newest must come first."""
    async with aclosing(walk.pages()) as pages:
        async for page in pages:
            runs = [run for run in page.data if since is None or run.created_at >= since]
            if runs:
                yield runs
            if since is not None and page.data[-1].created_at < since:
                return
