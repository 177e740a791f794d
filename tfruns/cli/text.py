"""How values look to people: text that is safe to print, times, and columns."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tfruns.models import JobRun

_COLOURS = {
    "FINISHED": "green",
    "FAILED": "red",
    "RUNNING": "cyan",
    "CREATED": "blue",
    "SCHEDULED": "blue",
    "TERMINATION_REQUESTED": "yellow",
    "TERMINATING": "yellow",
    "TERMINATED": "yellow",
}


def colour_of(status: str) -> str | None:
    """The colour that a status is shown in, if it has one."""
    return _COLOURS.get(status)


def harmless(text: str) -> str:
    """The text with whatever isn't printable spelt out: `\\x1b` for the character that begins an escape sequence.

    What a server sends must not steer the terminal: not colour it, not move its cursor, not fake other lines, not turn
    the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, thing: str) -> str:
    """`1 run`, `1,530 runs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def on_one_line(text: str) -> str:
    """The text, harmless, with every run of white space, newlines included, made one space."""
    return harmless(" ".join(text.split()))


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


def _created(run: "JobRun") -> str:
    try:
        return f"{run.created:%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return f"{run.created_at} ms"  # beyond the year 9999: shown as the server has it


def _trigger(run: "JobRun") -> str:
    subject = run.triggered_by_subject
    return run.triggered_by or (subject and (subject.subject_slug or subject.subject_display_name)) or "-"


class RunTable:
    """Aligned columns for runs that come page by page.

    A column grows when a page needs it and never shrinks. A value wider than `_WIDEST` is printed whole and pushes only
    its own row aside: names and ids are there to be copied.
    """

    _HEADER = ("STATUS", "CREATED (UTC)", "DURATION", "VERSION", "TRIGGERED BY", "NAME", "ID")
    _TO_THE_RIGHT = frozenset({"AGE", "DURATION", "VERSION"})
    _WIDEST = 48

    def __init__(self, *, colour: bool, now: float | None = None) -> None:
        from rich.cells import cell_len

        self._cell_len = cell_len  # an East Asian character takes two cells
        self._colour = colour
        self._now = now
        self._header = self._HEADER if now is None else (*self._HEADER[:2], "AGE", *self._HEADER[2:])
        self._widths = [0] * len(self._header)
        self._begun = False

    def rows(self, runs: Iterable["JobRun"]) -> str:
        """The lines for these runs, after the line of headings if they are the first."""
        rows = [self._cells(run) for run in runs]
        if not self._begun:
            rows.insert(0, self._header)
        for column, cells in enumerate(zip(*rows, strict=True)):
            fitting = (width for width in map(self._cell_len, cells) if width <= self._WIDEST)
            self._widths[column] = max(self._widths[column], *fitting, 0)
        lines = [self._line(row) for row in rows]
        if not self._begun and self._colour:
            lines[0] = click.style(lines[0], bold=True)
        self._begun = True
        return "".join(line + "\n" for line in lines)

    def _cells(self, run: "JobRun") -> tuple[str, ...]:
        cells = (
            run.status.value,
            _created(run),
            *(() if self._now is None else (human_age(self._now - run.created_at / 1000),)),
            human_duration(run.duration),
            run.deployment_version,
            _trigger(run),
            run.name,
            run.id,
        )
        return tuple(map(harmless, cells))

    def _line(self, row: Sequence[str]) -> str:
        cells = []
        for name, width, text in zip(self._header, self._widths, row, strict=True):
            padding = " " * (width - self._cell_len(text))
            cells.append(padding + text if name in self._TO_THE_RIGHT else text + padding)
        if self._colour and row[0] in _COLOURS:
            cells[0] = click.style(cells[0], fg=_COLOURS[row[0]])
        return "  ".join(cells).rstrip()
