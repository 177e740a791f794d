"""What `list` and `count` share: the options that select runs, and the walk that they make."""

import functools
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tfruns.cli.help import options_of
from tfruns.cli.host import connect, wrong_usage

if TYPE_CHECKING:
    from tfruns._walk.paginator import RunPaginator

PATIENCE = 30
"""How many seconds to wait for the end of an outage, when somebody waits for the runs at a terminal."""

_which = options_of("Which runs")
_order = options_of("Order")

_Command = TypeVar("_Command", bound=Callable[..., None])

# Repeated here, because importing the models would make `--help` slow; a test compares them with the enums.
STATUSES = (
    "CREATED",
    "SCHEDULED",
    "RUNNING",
    "FINISHED",
    "FAILED",
    "TERMINATION_REQUESTED",
    "TERMINATING",
    "TERMINATED",
    "UNKNOWN",
)
SORT_KEYS = ("startTime", "duration", "deploymentVersion", "triggeredBy", "status")
DIRECTIONS = ("asc", "desc")


class Word(click.Choice[str]):
    """One of a set of words, in any case. Messages and completions spell them as the help does.

    Args:
        words: the words.
        enum_name: the name of the enum of `tfruns.models` that has them, for the word that is meant by a wrong one.
    """

    def __init__(self, words: Iterable[str], enum_name: str) -> None:
        super().__init__(words, case_sensitive=False)
        self._enum_name = enum_name

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return next((word for word in self.choices if word.lower() == str(choice).lower()), str(choice))

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        from tfruns import models, query

        meant = query.meant_value(value, getattr(models, self._enum_name))
        hint = "" if meant is None else f". Did you mean {meant}?"
        return f"{value!r} is not one of {', '.join(self.choices)}{hint}"


_OPTIONS = (
    _which("--search-prefix", metavar="TEXT", help="Only runs whose name or id begins with TEXT."),
    _which(
        "--status",
        type=Word(STATUSES, "JobRunStatus"),
        metavar="STATUS",
        multiple=True,
        help=f"Only runs with this status, in any case: {', '.join(STATUSES)}. May be given several times.",
    ),
    _which(
        "--triggered-by",
        metavar="SLUG",
        multiple=True,
        help="Only runs started by this subject: an e-mail address or an account's name. May be given several times.",
    ),
    _which(
        "--version-number",
        "version_numbers",
        type=float,
        metavar="NUMBER",
        multiple=True,
        help="Only runs of this version of the deployment. May be given several times.",
    ),
)


def filter_options(command: _Command) -> _Command:
    """Give a command the options that select runs."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


_ORDER_OPTIONS = (
    _order(
        "--sort-by",
        type=Word(SORT_KEYS, "JobRunsSortBy"),
        metavar="KEY",
        help=f"What to sort by: {', '.join(SORT_KEYS)}. Else the server's order: newest first.",
    ),
    _order("--order", type=Word(DIRECTIONS, "SortDirection"), help="Ascending or descending."),
)


def order_options(command: _Command) -> _Command:
    """Give a command the options for the order."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_ORDER_OPTIONS), command)


@asynccontextmanager
async def open_walk(host: str | None, job_id: str, **arguments: Any) -> "AsyncGenerator[RunPaginator]":
    """The walk that a command's arguments describe. For arguments that weren't given, the client's defaults apply."""
    given = {name: value for name, value in arguments.items() if value not in (None, ())}
    async with connect(host, patience=PATIENCE) as client:
        try:
            walk = client.iter_runs(job_id, **given)
        except (TypeError, ValueError) as error:
            raise wrong_usage(error) from None
        yield walk


def as_json_line(value: dict[str, Any]) -> bytes:
    """A line of compact JSON in UTF-8, whatever the locale.

    Characters that control a terminal, change the direction of writing, or end a line for some readers are escaped: the
    value is the same. (json escapes those below U+0020 itself.)
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = text.translate(_JSON_ESCAPES)
    return text.encode("utf-8", "backslashreplace") + b"\n"


_TO_ESCAPE = (*range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _TO_ESCAPE}
