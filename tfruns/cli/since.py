"""`--since 2h` and `--until 2026-11-23`: only runs created within a time."""

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from tfruns.cli.help import options_of

_Command = TypeVar("_Command", bound=Callable[..., None])

_which = options_of("Which runs")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])")


def parsed_time(value: str) -> float:
    """The time that a text names, in ms since 1970.

    Raises:
        click.BadParameter: it names none.
    """
    if found := _AGO.fullmatch(value.strip().lower()):
        return (time.time() - float(found[1]) * _SECONDS[found[2]]) * 1000
    try:
        return datetime.fromisoformat(value.strip()).timestamp() * 1000
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time: give one such as 30m, 2h, 7d, 2026-11-23 or 2026-11-23T08:30Z"
        ) from None


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | datetime | None:
    if value is None:
        return None
    milliseconds = parsed_time(value)
    try:
        if found := _AGO.fullmatch(value.strip().lower()):
            return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is too long ago") from None


_OPTIONS = (
    _which(
        "--since",
        "created_after",
        callback=_moment,
        metavar="TIME",
        help="Runs created since then: 30m, 2h, 7d or 1w ago, or 2026-11-23T08:30 in local time, or with Z in UTC.",
    ),
    _which(
        "--until",
        "created_before",
        callback=_moment,
        metavar="TIME",
        help="Only runs created before that time, given in the same way.",
    ),
)


def window_options(command: _Command) -> _Command:
    """Give a command the options for the time of creation."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
