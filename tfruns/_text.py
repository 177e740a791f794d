"""Makes a server's text safe to keep and short enough to show; formats counts, moments and runs for people, and reads
durations."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def shortened(text: str, most: int = 500) -> str:
    """The text, or its beginning and an ellipsis if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def iso_moment(when: datetime, precision: str) -> str:
    """A time in UTC, such as `2026-11-23T08:30:00Z`; the precision is that of `datetime.isoformat`."""
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def shown_instant(milliseconds: float) -> str:
    """A time in ms since 1970, in UTC; empty if it is beyond the years that a datetime can hold."""
    try:
        return iso_moment(EPOCH + timedelta(milliseconds=milliseconds), "seconds")
    except OverflowError:
        return ""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 run`, `1,530 runs`; `things` is the plural if it isn't made by an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def seconds(number: float) -> str:
    """`0.3 s`, `86,400 s`."""
    return f"{number:,.0f} s" if number >= 1_000 else f"{number:.3g} s"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)"
)


def duration(text: str) -> float | None:
    """The seconds of a duration such as `1h30m` or `7 days`; None for another text, also for `1M`, maybe a month."""
    parts = _PART.findall(text.lower())
    is_duration = parts and not _PART.sub("", text.lower()).strip(" ") and not re.fullmatch("[0-9.]+ *M", text)
    return sum(float(number) * _UNITS[unit[0]] for number, unit in parts) if is_duration else None


def printable(text: str) -> str:
    """The text as one line: white space becomes a space, and whatever else isn't printable is spelled out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " if each.isspace() else ascii(each)[1:-1] for each in text)


def writable(text: str) -> str:
    """The text in a form that UTF-8 can hold: each lone surrogate is replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value, which is plain JSON, with each string in it changed, names too. It may be changed in place."""
    whole = [value]
    left: list[Any] = [whole]
    while left:  # no recursion: Python's stack is shorter than JSON may be deep
        holder = left.pop()
        if isinstance(holder, list):
            items: list[tuple[Any, Any]] = [*enumerate(holder)]
        else:
            items = [(change(name), item) for name, item in holder.items()]
            holder.clear()
        for place, item in items:
            holder[place] = change(item) if isinstance(item, str) else item
            if isinstance(item, (list, dict)):
                left.append(item)
    return whole[0]


def excerpt(body: bytes, hide: Callable[[str], str]) -> str:
    """The start of a body as one line of text."""
    return " ".join(hide(body[:10_000].decode("utf-8", "replace"))[:400].split())[:200]


MOST_SHOWN = 20
"""How many runs a notebook shows."""

_SHOWN = ("name", "status", "created_at", "duration", "triggered_by", "exit_code", "error")


def html_table(runs: Sequence[Any], caption: str, job_ids: Sequence[str] = ()) -> str:
    """The first of these runs as a table for a notebook, with the ids of their jobs if there are any."""
    from html import escape  # a millisecond, which only notebooks need

    def line(tag: str, cells: Sequence[object]) -> str:
        texts = (escape("" if cell is None else printable(shortened(str(cell), 200))) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"

    lines = [line("th", [*(["job_id"] if job_ids else []), *_SHOWN])]
    for at, run in enumerate(runs[:MOST_SHOWN]):
        values = [getattr(run, name) for name in _SHOWN]
        values[_SHOWN.index("created_at")] = shown_instant(run.created_at) or run.created_at
        lines.append(line("td", [*job_ids[at : at + 1], *values]))
    if len(runs) > MOST_SHOWN:
        caption += f"; the first {MOST_SHOWN} are shown"
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"
