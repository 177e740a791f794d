"""Values as people read them: text that is safe to print, times and numbers."""

from datetime import datetime, timedelta

COLOURS = {
    "FINISHED": "green",
    "FAILED": "red",
    "RUNNING": "cyan",
    "CREATED": "blue",
    "SCHEDULED": "blue",
    "TERMINATION_REQUESTED": "yellow",
    "TERMINATING": "yellow",
    "TERMINATED": "yellow",
}
"""The colours that statuses are shown in."""


def harmless(text: str) -> str:
    """The text with all that isn't printable escaped: `\\x1b` for the character that begins an escape sequence.

    The server's text must not control the terminal: not its colours, its cursor or the direction of writing. Nor must
    it look like other lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def on_one_line(text: str) -> str:
    """The text, harmless, with each sequence of white space, including newlines, replaced by one space."""
    return harmless(" ".join(text.split()))


def instant(milliseconds: float) -> str:
    """A time in ms since 1970, in UTC to the second; beyond the year 9999 as the server sent it."""
    try:
        return f"{datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds):%Y-%m-%d %H:%M:%S}"  # noqa: DTZ001
    except OverflowError:
        return f"{milliseconds} ms"


def human_duration(seconds: float | None) -> str:
    """A duration as its two largest units: `42s`, `3m 05s`, `2h 00m`, `4d 01h`; `-` for None."""
    if seconds is None:
        return "-"
    sign, left = "-" if seconds < 0 else "", round(abs(seconds))
    if left < 60:
        return f"{sign}{left}s"
    if left < 3600:
        return f"{sign}{left // 60}m {left % 60:02}s"
    if left < 86_400:
        return f"{sign}{left // 3600}h {left // 60 % 60:02}m"
    return f"{sign}{left // 86_400}d {left // 3600 % 24:02}h"


def human_age(seconds: float) -> str:
    """How long ago, as its largest unit: `42s`, `3m`, `2h`, `4d`; the future is `0s`."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size:,}{unit}"
    return f"{whole}s"
