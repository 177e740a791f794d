"""Runs as a table: in full for programs, and within the width of a terminal for people."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tfruns.cli.text import colour_of, harmless, human_age, human_duration, on_one_line

if TYPE_CHECKING:
    from tfruns.models import JobRun

STATUS, CREATED, AGE, DURATION = "STATUS", "CREATED (UTC)", "AGE", "DURATION"
VERSION, TRIGGERED_BY, NAME, ID, ERROR, JOB = "VERSION", "TRIGGERED BY", "NAME", "ID", "ERROR", "JOB"

_GAP = 2
_TO_THE_RIGHT = frozenset({AGE, DURATION, VERSION})
_WIDEST = 48  # if nothing is cut, a wider text moves the rest of its row, but doesn't widen the column
# The columns get room on a terminal in this order. Names and errors are cut, but not below the width in `_LEAST`; the
# others are shown in full or not at all, because a status that is cut can look like another, and ids are there to be
# copied.
_PRIORITY = (STATUS, NAME, ERROR, JOB, AGE, DURATION, ID, CREATED, TRIGGERED_BY, VERSION)
_LEAST = {NAME: 16, ERROR: 12, JOB: 10, TRIGGERED_BY: 12}
_LEAST_OF_ALL = 6  # the least for a name: its beginning is better than no name
_GROWTH = ((ERROR, 24), (NAME, 24), (JOB, 24), (ERROR, None), (NAME, None), (JOB, None), (TRIGGERED_BY, None))
_AFTER_COMFORT = frozenset({ID, CREATED, TRIGGERED_BY, VERSION})
_COMFORT = 12  # cells more than the least for an error, before any of these columns is shown


def run_cells(run: "JobRun", *, now: float, job_id: str = "") -> dict[str, str]:
    """The text of each column for a run; `now` is in seconds since 1970."""
    subject = run.triggered_by_subject
    trigger = run.triggered_by or (subject and (subject.subject_slug or subject.subject_display_name))
    cells = {
        STATUS: run.status.value,
        CREATED: _created(run),
        AGE: human_age(now - run.created_at / 1000),
        DURATION: human_duration(run.duration),
        VERSION: run.deployment_version,
        TRIGGERED_BY: trigger or "-",
        NAME: run.name,
        ID: run.id,
        ERROR: on_one_line(run.error or ""),
        JOB: job_id,
    }
    return {name: harmless(text) for name, text in cells.items()}


def _created(run: "JobRun") -> str:
    try:
        return f"{run.created:%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return f"{run.created_at} ms"  # beyond the year 9999: shown as the server sent it


class Table:
    """Aligned columns for rows that arrive page by page.

    Args:
        columns: the columns, in their order from left to right.
        width: the cells that a line may take: columns are left out and texts are cut to keep within it. None to show
            all in full; a column then grows when a page needs it, and never shrinks.
        colour: whether to use colours.
        to_the_right: columns whose texts are aligned to the right.
        priority: the columns in the order in which they get room.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        width: int | None,
        colour: bool,
        to_the_right: Iterable[str] = _TO_THE_RIGHT,
        priority: Sequence[str] = _PRIORITY,
    ) -> None:
        from rich.cells import cell_len

        self._cell_len = cell_len  # an East Asian character takes two cells
        self._columns = tuple(columns)
        self._width = width
        self._colour = colour
        self._to_the_right = frozenset(to_the_right)
        self._priority = priority
        self._widths: dict[str, int] = {}
        self._begun = False
        self._has_errors = False
        self._ellipsis = "…" if _can_encode("…") else "..."

    @property
    def left_out(self) -> list[str]:
        """The columns for which there is no room."""
        wanted = [name for name in self._columns if name != ERROR or self._has_errors]
        return [name for name in wanted if self._begun and name not in self._widths]

    def lines(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        """The lines for these rows, after a line of headings if they are the first, or the first with an error."""
        has_errors = self._has_errors or (ERROR in self._columns and any(row[ERROR] for row in rows))
        if self._width is not None and has_errors != self._has_errors:
            self._begun = False  # the headings that were printed have no column for errors
        self._has_errors = has_errors
        shown = [*rows] if self._begun else [{name: name for name in self._columns}, *rows]
        natural = {name: max((self._cell_len(row[name]) for row in shown), default=0) for name in self._columns}
        if self._width is None:
            fitting = {
                name: max((size for row in shown if (size := self._cell_len(row[name])) <= _WIDEST), default=0)
                for name in self._columns
            }
            self._widths = {name: max(self._widths.get(name, 0), fitting[name]) for name in self._columns}
        elif not self._begun:
            # There is a column of errors only if there is an error.
            wanted = [name for name in self._columns if name != ERROR or self._has_errors]
            self._widths = self._fitted({name: natural[name] for name in wanted}, self._width)
        else:
            self._widths = self._fitted({name: natural[name] for name in self._widths}, self._width)
        lines = [self._line(row) for row in shown]
        if not self._begun and self._colour:
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
            least = min(natural[name], _LEAST.get(name, natural[name]))
            if name == NAME:
                least = min(least, max(_LEAST_OF_ALL, left - _GAP))
            spare = _COMFORT if name in _AFTER_COMFORT and ERROR in chosen else 0
            if not chosen or least + _GAP + spare <= left:
                chosen[name] = min(least, width)
                left -= least + _GAP
        for name, most in _GROWTH:
            if name in chosen:
                more = min(natural[name], most or natural[name]) - chosen[name]
                grown = max(0, min(more, left))
                chosen[name] += grown
                left -= grown
        return {name: chosen[name] for name in natural if name in chosen}

    def _line(self, row: Mapping[str, str]) -> str:
        cells = []
        for name, width in self._widths.items():
            text = row[name] if self._width is None else self._cut(row[name], width)
            padding = " " * (width - self._cell_len(text))
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


LISTED = (STATUS, CREATED, DURATION, VERSION, TRIGGERED_BY, NAME, ID, ERROR)
"""The columns of a list."""
