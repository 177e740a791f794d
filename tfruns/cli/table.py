"""Runs as a table: in full for programs, and within the width of a terminal for people."""

import difflib
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tfruns.cli.help import options, options_of
from tfruns.cli.output import has_colours, width
from tfruns.cli.text import colour_of, harmless, human_age, human_duration, instant, on_one_line

if TYPE_CHECKING:
    from tfruns.models import JobRun

STATUS, CREATED, AGE, DURATION = "STATUS", "CREATED (UTC)", "AGE", "DURATION"
VERSION, TRIGGERED_BY, NAME, ID, ERROR, JOB = "VERSION", "TRIGGERED BY", "NAME", "ID", "ERROR", "JOB"

_GAP = 2
_TO_THE_RIGHT = frozenset({AGE, DURATION, VERSION, "EXIT CODE", "TOTAL RETRIES"})
_WIDEST = 48  # if nothing is cut, a wider text moves the rest of its row, but doesn't widen the column
# The columns get room on a terminal in this order. Names and errors are cut, but not below the width in `_LEAST`. Those
# in `_WHOLE` are shown in full or not at all: a status that is cut can look like another, and ids are to be copied.
_PRIORITY = (STATUS, NAME, ERROR, JOB, AGE, DURATION, ID, CREATED, TRIGGERED_BY, VERSION)
_WHOLE = frozenset({STATUS, AGE, DURATION, ID, CREATED, VERSION, "ENDED (UTC)"})
_LEAST = {NAME: 16, ERROR: 12, JOB: 10, TRIGGERED_BY: 12}
_LEAST_OF_ALL = 6  # the least for a name: its beginning is better than no name
_GROWTH = ((ERROR, 24), (NAME, 24), (JOB, 24), (ERROR, None), (NAME, None), (JOB, None), (TRIGGERED_BY, None))
_AFTER_COMFORT = frozenset({ID, CREATED, TRIGGERED_BY, VERSION})
_COMFORT = 12  # cells more than the least for an error, before any of these columns is shown

_HEADINGS = {
    "job_id": JOB,
    "status": STATUS,
    "created_at": CREATED,
    "age": AGE,
    "end_time": "ENDED (UTC)",
    "duration": DURATION,
    "deployment_version": VERSION,
    "triggered_by": TRIGGERED_BY,
    "name": NAME,
    "id": ID,
    "error": ERROR,
}
"""The columns with headings of their own; those of the other fields of a run are the field's name."""
_OTHER_NAMES = {"job": "job_id", "created": "created_at", "ended": "end_time", "version": "deployment_version"}
_LISTED = (STATUS, CREATED, DURATION, VERSION, TRIGGERED_BY, NAME, ID, ERROR)


def _all_columns() -> dict[str, str]:
    """The heading of each column, by its name."""
    from tfruns._table.columns import COLUMNS

    fields = (column.name for column in COLUMNS)
    return {**_HEADINGS, **{name: name.upper().replace("_", " ") for name in fields if name not in _HEADINGS}}


def _columns(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    known = _all_columns()
    headings = []
    for word in text.split(","):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|[ -]", "_", word.strip()).lower()  # createdAt, created-at
        name = _OTHER_NAMES.get(name, name)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? There are" if close else "there are"
            raise click.BadParameter(f"no column {word.strip()!r}: {hint} {', '.join(known)}")
        headings.append(known[name])
    return tuple(dict.fromkeys(headings))


_output = options_of("Output")
header_option = _output("--no-header", is_flag=True, help="Leave out the line of headings.")
table_options = options(
    _output(
        "--columns",
        callback=_columns,
        metavar="A,B,…",
        help="The columns, by the names of the fields, such as name,created_at,exit_code,error; age, too.",
    ),
    _output("--wide", is_flag=True, help="Show every column whole, however wide the terminal is."),
    header_option,
)
"""Options for a table of runs, which `run_table` takes."""


def run_cells(run: "JobRun", columns: Iterable[str], *, now: float | None, job_id: str = "") -> dict[str, str]:
    """The text of each of these columns for a run. `now`, in seconds since 1970, is for ages, and for the time that a
    run without an end has taken so far; with None, durations are as the server has them.
    """
    return {name: harmless(job_id if name == JOB else _cell(run, name, now)) for name in columns}


def _cell(run: "JobRun", column: str, now: float | None) -> str:
    value: Any
    if column == STATUS:
        return run.status.value
    if column == CREATED:
        return instant(run.created_at)
    if column == AGE:
        return human_age((now or time.time()) - run.created_at / 1000)
    if column == DURATION:
        return human_duration(run.duration if now is None else time_so_far(run, now))
    if column == VERSION:
        return run.deployment_version
    subject = run.triggered_by_subject
    if column == TRIGGERED_BY:
        return run.triggered_by or (subject and (subject.subject_slug or subject.subject_display_name)) or "-"
    if column in (ERROR, "COMMAND"):
        return on_one_line((run.error if column == ERROR else run.command) or "")
    if column == "ENDED (UTC)":
        return "-" if run.end_time is None else instant(run.end_time)
    field = column.lower().replace(" ", "_")
    value = getattr(subject, field, None) if field.startswith("subject_") else getattr(run, field)
    return "-" if value is None else str(value)


def time_so_far(run: "JobRun", now: float) -> int | None:
    """Seconds that the run took, or has taken by now."""
    if run.status.is_terminal or run.status == "UNKNOWN":
        return run.duration
    return max(0, int(now - run.created_at / 1000))


def run_table(
    columns: Sequence[str] | None = None, *, wide: bool = False, no_header: bool = False, several: bool = False
) -> "Table":
    """The table of runs that every command prints: on a terminal with ages, and cut to fit, unless it is to be wide."""
    room = width()
    if columns is None:
        ages = () if room is None else (AGE,)
        columns = (*((JOB,) if several else ()), *_LISTED[:2], *ages, *_LISTED[2:])
        priority: Sequence[str] = _PRIORITY
    else:
        priority = columns
    return Table(columns, width=None if wide else room, colour=has_colours(), priority=priority, header=not no_header)


class Table:
    """Aligned columns for rows that arrive page by page.

    Columns are left out, by their priority, and texts are cut, to keep within the width. With None all is shown in
    full: a column grows when a page needs it, and never shrinks.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        width: int | None,
        colour: bool,
        to_the_right: Iterable[str] = _TO_THE_RIGHT,
        priority: Sequence[str] = _PRIORITY,
        header: bool = True,
    ) -> None:
        from rich.cells import cell_len

        self._cell_len = cell_len  # an East Asian character takes two cells
        self.columns = tuple(columns)
        self._width = width
        self._colour = colour
        self._to_the_right = frozenset(to_the_right)
        self._priority = priority
        self._header = header
        self._widths: dict[str, int] = {}
        self._begun = False
        # Columns that somebody has chosen are all shown, errors and ids too, in their order.
        self._is_chosen = self.columns == tuple(priority)
        self._has_errors = self._is_chosen
        self._ellipsis = "…" if _can_encode("…") else "..."

    @property
    def left_out(self) -> list[str]:
        """The columns for which there is no room."""
        wanted = [name for name in self.columns if name != ERROR or self._has_errors]
        return [name for name in wanted if self._begun and name not in self._widths]

    def lines(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        """The lines for these rows, after a line of headings if they are the first, or the first with an error."""
        has_errors = self._has_errors or (ERROR in self.columns and any(row[ERROR] for row in rows))
        if self._width is not None and has_errors != self._has_errors:
            self._begun = False  # the headings that were printed have no column for errors
        self._has_errors = has_errors
        shown = [*rows] if self._begun else [{name: name for name in self.columns}, *rows]
        natural = {name: max((self._cell_len(row[name]) for row in shown), default=0) for name in self.columns}
        if self._width is None:
            fitting = {
                name: max((size for row in shown if (size := self._cell_len(row[name])) <= _WIDEST), default=0)
                for name in self.columns
            }
            self._widths = {name: max(self._widths.get(name, 0), fitting[name]) for name in self.columns}
        elif not self._begun:
            # There is a column of errors only if there is an error.
            wanted = [name for name in self.columns if name != ERROR or self._has_errors]
            self._widths = self._fitted({name: natural[name] for name in wanted}, self._width)
        else:
            self._widths = self._fitted({name: natural[name] for name in self._widths}, self._width)
        lines = [self._line(row) for row in shown]
        if not self._begun and not self._header:
            del lines[0]
        elif not self._begun and self._colour:
            lines[0] = click.style(lines[0], bold=True)
        self._begun = True
        return lines

    def text(self, rows: Sequence[Mapping[str, str]]) -> str:
        """The lines as a text."""
        return "".join(line + "\n" for line in self.lines(rows))

    def _fitted(self, natural: Mapping[str, int], width: int) -> dict[str, int]:
        """The columns that there is room for, each with its width."""
        chosen: dict[str, int] = {}
        left = width + _GAP
        for name in (name for name in self._priority if name in natural):
            least = natural[name] if name in _WHOLE else min(natural[name], _LEAST.get(name, 12))
            if name == NAME:
                least = min(least, max(_LEAST_OF_ALL, left - _GAP))
            spare = _COMFORT if name in _AFTER_COMFORT and ERROR in chosen and not self._is_chosen else 0
            if not chosen or least + _GAP + spare <= left:
                chosen[name] = min(least, width)
                left -= least + _GAP
        for name, most in (*_GROWTH, *((name, None) for name in chosen)):
            if name in chosen:
                more = min(natural[name], most or natural[name]) - chosen[name]
                grown = max(0, min(more, left))
                chosen[name] += grown
                left -= grown
        return {name: chosen[name] for name in natural if name in chosen}

    def _line(self, row: Mapping[str, str]) -> str:
        cells = []
        for name, size in self._widths.items():
            text = row[name] if self._width is None else self._cut(row[name], size)
            padding = " " * (size - self._cell_len(text))
            if self._colour and name == STATUS and (colour := colour_of(row[name])):
                text = click.style(text, fg=colour)
            cells.append(padding + text if name in self._to_the_right else text + padding)
        return (" " * _GAP).join(cells).rstrip()

    def _cut(self, text: str, width: int) -> str:
        if self._cell_len(text) <= width:
            return text
        from rich.cells import set_cell_size

        room = width - len(self._ellipsis)
        return set_cell_size(text, room).rstrip() + self._ellipsis if room > 0 else text[:width]


def _can_encode(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
