"""The options that select runs: by status, name, trigger, version and time of creation; and the order of runs."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from tfruns.cli.help import options, options_of

PATIENCE = 30
"""How many seconds to wait for the end of an outage, when somebody waits for the runs at a terminal."""

_which = options_of("Which runs")
_order = options_of("Order")

# Repeated here, because importing the models would make `--help` slow; a test compares them with the enums.
STATUSES = (
    *("CREATED", "SCHEDULED", "RUNNING", "FINISHED", "FAILED"),
    *("TERMINATION_REQUESTED", "TERMINATING", "TERMINATED", "UNKNOWN"),
)
SORT_KEYS = ("startTime", "duration", "deploymentVersion", "triggeredBy", "status")
DIRECTIONS = ("asc", "desc")


class Word(click.Choice[str]):
    """A word of an enum of `tfruns.models`, in any case. Messages and completions spell it as the help does."""

    def __init__(self, words: Iterable[str], enum_name: str) -> None:
        super().__init__(words, case_sensitive=False)
        self._enum_name = enum_name

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return next((word for word in self.choices if word.lower() == str(choice).lower()), str(choice))

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        from tfruns import models, query

        meant = query.meant_value(value, getattr(models, self._enum_name))
        hint = "" if meant is None else f". Did you mean {meant}?"
        hint = ". Give the option once for each" if "," in value else hint
        return f"{value!r} is not one of {', '.join(self.choices)}{hint}"


filter_options = options(
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

order_options = options(
    _order(
        "--sort-by",
        type=Word(SORT_KEYS, "JobRunsSortBy"),
        metavar="KEY",
        help=f"What to sort by: {', '.join(SORT_KEYS)}. Else the server's order: newest first.",
    ),
    _order("--order", type=Word(DIRECTIONS, "SortDirection"), help="Ascending or descending."),
)

_DAYS = {"today": 0, "yesterday": 1}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = (
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(?:s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)"
)
_AGO = re.compile(rf"{_PART}(?: *{_PART})*(?: +ago)?", re.IGNORECASE)
_MONTHS = re.compile(r"[0-9.]+ *(M|mo|months?|y|yrs?|years?)( +ago)?")


def moment(text: str) -> datetime:
    """The time that a text names: how long ago, a date, or a day."""
    word = text.strip()
    if _MONTHS.fullmatch(word):
        raise click.BadParameter(
            f"{text!r}: months and years differ in length, and m is for minutes: give days, such as 30d, or a date"
        )
    try:
        if _AGO.fullmatch(word):
            parts = re.findall(r"([0-9.]+) *([a-z])", word.lower().removesuffix("ago"))
            return datetime.now(UTC) - timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
        if word.lower() in _DAYS:
            word = (date.today() - timedelta(days=_DAYS[word.lower()])).isoformat()  # noqa: DTZ011  # the user's day
        return datetime.fromisoformat(word).astimezone(UTC)
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long ago") from None
    except (ValueError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time: give one such as 30m, 2h, 7d, 2026-11-23 or 2026-11-23T08:30Z"
        ) from None


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    return None if text is None else moment(text)


window_options = options(
    _which(
        "--since",
        "created_after",
        callback=_moment,
        metavar="TIME",
        help="Runs created since then: 30m, 1h30m, 7d or 1w ago, yesterday or today from 0:00, or 2026-11-23T08:30 in"
        " local time, or with Z in UTC.",
    ),
    _which(
        "--until",
        "created_before",
        callback=_moment,
        metavar="TIME",
        help="Only runs created before that time, given in the same way.",
    ),
)
