"""What the values of options may be: numbers, times, and the words of enums."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N"


class Seconds(click.FloatRange):
    """A number of seconds, or a duration with units, such as 1h30m."""

    name = "number of seconds, or a duration such as 1h30m"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "S"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
            value = _seconds(value)
        return super().convert(value, param, ctx)


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


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = (
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(?:s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)"
)
_DURATION = re.compile(rf"{_PART}(?: *{_PART})*", re.IGNORECASE)
_MONTHS = re.compile(r"[0-9.]+ *(M|mo|months?|y|yrs?|years?)( +ago)?")
_DAYS = {"today": 0, "yesterday": 1}


def _seconds(duration: str) -> float:
    parts = re.findall(r"([0-9.]+) *([a-z])", duration.lower())
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def moment(text: str) -> datetime:
    """The time that a text names: how long ago, a date, or a day."""
    word = text.strip()
    if _MONTHS.fullmatch(word):
        raise click.BadParameter(
            f"{text!r}: months and years differ in length, and m is for minutes: give days, such as 30d, or a date"
        )
    try:
        if _DURATION.fullmatch(duration := re.sub(" +ago$", "", word, flags=re.IGNORECASE)):
            return datetime.now(UTC) - timedelta(seconds=_seconds(duration))
        if word.lower() in _DAYS:
            word = (date.today() - timedelta(days=_DAYS[word.lower()])).isoformat()  # noqa: DTZ011  # the user's day
        return datetime.fromisoformat(word).astimezone(UTC)
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long ago") from None
    except (ValueError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time: give one such as 30m, 2h, 7d, 2026-11-23 or 2026-11-23T08:30Z"
        ) from None
