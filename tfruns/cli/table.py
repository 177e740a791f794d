"""Runs as people read them: one with every field; a table, within the width of a terminal or whole; one that lives."""

import itertools
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from rich.cells import cell_len, set_cell_size  # an East Asian character takes two cells

import tfruns
from tfruns._table.columns import COLUMNS, Kind, values_of
from tfruns._text import shown_instant
from tfruns.cli.output import harmless, has_colours, is_terminal, on_one_line
from tfruns.models import JobRun

_COLOURS = {
    "FINISHED": "green",
    "FAILED": "red",
    "RUNNING": "cyan",
    "CREATED": "blue",
    "SCHEDULED": "blue",
    **dict.fromkeys(("TERMINATION_REQUESTED", "TERMINATING", "TERMINATED"), "yellow"),
}

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_GAP = 2
_WIDEST = 48  # if nothing is cut, a wider text moves the rest of its row, but doesn't widen the column
_TO_THE_RIGHT = {"age", "duration", "deployment_version", "exit_code", "total_retries"}
_TO_THE_RIGHT |= {"runs", "share", "median", "longest"}
_ALL = 1_000_000
# How the room on a terminal is given away, in this order: up to so many cells to a column. What is given first to a
# column decides whether it is shown. A status that is cut can look like another, and ids are to be copied: so they are
# whole. (`runs` is of other tables.)
_WISHES = (
    *(("status", _ALL), ("name", 16), ("error", 12), ("runs", 12), ("job_id", 10), ("age", _ALL), ("duration", _ALL)),
    *(("error", 24), ("name", 24)),
    *(("id", _ALL), ("created_at", _ALL), ("triggered_by", 12), ("deployment_version", _ALL)),
)
_LAST_WISHES = (("error", 24), ("name", 24), ("job_id", 24), ("error", _ALL), ("name", _ALL), ("job_id", _ALL))
_LEAST = {"end_time": _ALL, **dict(reversed(_WISHES))}
_LEAST_OF_OTHERS = 12
_LEAST_OF_ALL = 6  # the least for a name: its beginning is better than no name

_HEADINGS = {"created_at": "CREATED (UTC)", "end_time": "ENDED (UTC)", "deployment_version": "VERSION", "job_id": "JOB"}
"""The headings that aren't the column's name in capitals."""
_FIRST = ("id", "name", "status", "created_at", "end_time", "duration", "exit_code")
_LISTED = ("status", "created_at", "duration", "deployment_version", "triggered_by", "name", "id", "error")
_INSTANTS = [column.name for column in COLUMNS if column.kind is Kind.INSTANT]
_ENDED_KEPT = 1_000
_STALE = 86_400  # seconds: a run that has been UNKNOWN for longer is open for the server alone


def _heading(column: str) -> str:
    return _HEADINGS.get(column) or column.upper().replace("_", " ")


def _instant(milliseconds: float) -> str:
    """A time in ms since 1970, in UTC to the second; beyond the year 9999 as the server sent it."""
    return shown_instant(milliseconds).replace("T", " ").removesuffix("Z") or f"{milliseconds} ms"


def human_duration(seconds: float | None) -> str:
    """A duration as its two largest units: `42s`, `3m 05s`, `2h 00m`, `4d 01h`; `-` for None."""
    if seconds is None:
        return "-"
    sign, left = "-" if seconds < 0 else "", round(abs(seconds))
    for (unit, size), (smaller, part) in itertools.pairwise(_UNITS):
        if left >= size:
            return f"{sign}{left // size:,}{unit} {left % size // part:02}{smaller}"
    return f"{sign}{left}s"


def human_age(seconds: float) -> str:
    """How long ago, as its largest unit: `42s`, `3m`, `2h`, `4d`; the future is `0s`."""
    return human_duration(max(0, int(seconds))).split()[0]


def run_cells(run: JobRun, columns: Iterable[str], job_id: str = "") -> dict[str, str]:
    return {name: harmless(job_id if name == "job_id" else _cell(run, name)) for name in columns}


def _cell(run: JobRun, column: str) -> str:
    subject = run.triggered_by_subject
    if column == "age":
        return human_age(time.time() - run.created_at / 1000)
    if column == "duration":
        return human_duration(_duration(run))
    if column == "triggered_by":
        return run.triggered_by or (subject and (subject.subject_slug or subject.subject_display_name)) or "-"
    value: Any = getattr(subject if column.startswith("subject_") else run, column, None)
    if column in ("error", "command"):
        return on_one_line(value or "")
    if column in _INSTANTS and value is not None:
        return _instant(value)
    return "-" if value is None else str(value)


def _duration(run: JobRun) -> int | None:
    """Seconds that the run took; on a terminal, for one without an end, those that it has taken so far."""
    if run.status.is_terminal or run.status == "UNKNOWN" or not is_terminal():
        return run.duration
    return max(0, int(time.time() - run.created_at / 1000))


def run_lines(job_id: str, run: JobRun) -> Iterator[str]:
    """A line for each field, first what everybody asks, the error last; a text of several lines goes below its name."""
    values: dict[str, Any] = {column.name: value for column, [value] in zip(COLUMNS, values_of([run]), strict=True)}
    error = values.pop("error")
    fields = {"job_id": job_id, **{name: values[name] for name in (*_FIRST, *values)}, "error": error}
    for name in _INSTANTS:
        if (when := fields[name]) is not None:
            fields[name] = f"{_instant(when)} UTC ({human_age(time.time() - when / 1000)} ago)"
    if (duration := _duration(run)) is not None:
        fields["duration"] = f"{human_duration(duration)} ({duration} s)"
    width = max(map(len, fields))
    for name, value in fields.items():
        lines = [harmless(line.expandtabs()) for line in str("-" if value is None else value).splitlines()]
        if len(lines) > 1:
            yield f"{name}\n" + "".join(f"  {line}\n" for line in lines)
        else:
            text = "".join(lines)
            yield f"{name:<{width}}  {_coloured(text) if name == 'status' and has_colours() else text}\n"


def _coloured(status: str) -> str:
    return click.style(status, fg=_COLOURS[status]) if status in _COLOURS else status


def run_table(
    columns: Sequence[str] | None = None, *, wide: bool = False, no_header: bool = False, several: bool = False
) -> "Table":
    """The table of runs that every command prints: on a terminal with ages, and cut to fit, unless it is to be wide."""
    if columns is not None:
        return Table(columns, is_chosen=True, is_cut=not wide, header=not no_header)
    job, age = ("job_id",) if several else (), ("age",) if is_terminal() else ()
    return Table((*job, *_LISTED[:2], *age, *_LISTED[2:]), is_cut=not wide, header=not no_header)


class Table:
    """Aligned columns for rows that arrive page by page.

    On a terminal, columns are left out, by their priority, and texts are cut, to keep within its width. Elsewhere, or
    where nothing is to be cut, all is shown in full: a column grows when a page needs it, and never shrinks.
    """

    def __init__(
        self, columns: Sequence[str], *, is_chosen: bool = False, is_cut: bool = True, header: bool = True
    ) -> None:
        """Columns that somebody has chosen are all shown, errors and ids too, as far as there is room."""
        self.columns = tuple(columns)
        self._is_chosen = is_chosen
        first = [] if is_chosen else [*_WISHES]
        least = [(name, _LEAST.get(name, _LEAST_OF_OTHERS)) for name in columns]
        self._wishes = [*first, *least, *_LAST_WISHES, *((name, _ALL) for name in columns)]
        self._room = shutil.get_terminal_size().columns if is_cut and is_terminal() else None
        self._has_colours = has_colours()
        self._header = header
        self._wanted: tuple[str, ...] = ()  # below the headings that were printed last
        self._widths: dict[str, int] = {}
        self._ellipsis = "..." if "…".encode(sys.stdout.encoding or "utf-8", "replace") == b"?" else "…"

    @property
    def left_out(self) -> list[str]:
        """The headings that there was no room for."""
        return [_heading(name) for name in self._wanted if name not in self._widths]

    def text(self, rows: Sequence[Mapping[str, str]]) -> str:
        """The lines for these rows, after a line of headings if they are the first, or the first with an error."""
        wanted = self.columns
        if self._room is not None and not self._is_chosen and "error" not in self._wanted:
            wanted = tuple(name for name in wanted if name != "error" or any(row[name] for row in rows))
        begins = wanted != self._wanted
        shown = [{name: _heading(name) for name in wanted}, *rows] if begins else rows
        sizes = {name: [cell_len(row[name]) for row in shown] for name in (wanted if begins else self._widths)}
        if self._room is None:
            for name, found in sizes.items():
                most = max((size for size in found if size <= _WIDEST), default=0)
                self._widths[name] = max(self._widths.get(name, 0), most)
        else:
            self._widths = self._fitted({name: max(found, default=0) for name, found in sizes.items()}, self._room)
        self._wanted = wanted
        lines = [self._line(row) for row in shown]
        if begins and not self._header:
            del lines[0]
        elif begins and self._has_colours:
            lines[0] = click.style(lines[0], bold=True)
        return "".join(line + "\n" for line in lines)

    def _fitted(self, natural: Mapping[str, int], room: int) -> dict[str, int]:
        """The columns that there is room for, each with its width."""
        fitted: dict[str, int] = {}
        left = room + _GAP
        for name, most in self._wishes:
            if name in natural:
                has = fitted.get(name, -_GAP)
                cells = min(natural[name], most, room)
                if name in fitted:
                    cells = min(cells, has + left)
                elif name == "name":
                    cells = min(cells, max(_LEAST_OF_ALL, has + left))
                if has < cells <= has + left:
                    fitted[name] = cells
                    left -= cells - has
        return {name: fitted[name] for name in natural if name in fitted}

    def _line(self, row: Mapping[str, str]) -> str:
        cells = []
        for name, size in self._widths.items():
            text = row[name] if self._room is None else self._cut(row[name], size)
            padding = " " * (size - cell_len(text))
            if name == "status" and self._has_colours:
                text = _coloured(text)
            cells.append(padding + text if name in _TO_THE_RIGHT else text + padding)
        return (" " * _GAP).join(cells).rstrip()

    def _cut(self, text: str, size: int) -> str:
        if cell_len(text) <= size:
            return text
        room = size - len(self._ellipsis)
        return set_cell_size(text, room).rstrip() + self._ellipsis if room > 0 else text[:size]


class Board:
    """The runs that are open, and those that ended while they were watched. One thread takes changes, another draws."""

    def __init__(self, *, several: bool) -> None:
        self._columns = (*(("job_id",) if several else ()), "status", "duration", "name", "id", "error")
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tfruns.JobRun] = {}
        self._ended: dict[tuple[str, str], tfruns.JobRun] = {}
        self._ended_count = self._failed_count = 0

    def take(self, change: "tfruns.RunChange") -> None:
        key = change.job_id, change.run.id
        with self._lock:
            self._open.pop(key, None)
            self._ended.pop(key, None)
            if change.kind == "finished":
                self._ended[key] = change.run
                self._ended_count += 1
                self._failed_count += change.run.status == "FAILED"
                if len(self._ended) > _ENDED_KEPT:
                    del self._ended[next(iter(self._ended))]
            elif change.kind != "deleted":
                self._open[key] = change.run

    def text(self) -> str:
        """What to show now: the runs that there is room for on the terminal, and a line that sums up all."""
        width, height = shutil.get_terminal_size()
        with self._lock:
            opened, ended, ended_count = [*self._open.items()], [*self._ended.items()], self._ended_count
            failed_count = self._failed_count
        stale = (time.time() - _STALE) * 1000
        opened.sort(key=lambda item: -item[1].created_at)
        opened.sort(key=lambda item: item[1].status == "UNKNOWN" and item[1].created_at < stale)
        room = max(1, height - 3)  # the headings, the last line, and the one that the cursor is in
        # Of the ended runs the latest are first; where there is no room for all, failures are kept.
        ended.reverse()
        kept = sorted(ended, key=lambda item: item[1].status != "FAILED")[: max(room - len(opened), room // 2)]
        chosen = {key for key, _ in kept}
        shown = [item for item in ended if item[0] in chosen] + opened[: room - len(kept)]
        rows = [run_cells(run, self._columns, key[0]) for key, run in shown]
        counts = f"{len(opened):,} open{_hidden(len(opened) + len(kept) - len(shown))}"
        counts += f", {ended_count:,} ended{_hidden(ended_count - len(kept))}"
        numbers = Counter(run.status.value for _, run in opened)
        statuses = sorted(numbers, key=lambda status: (status == "UNKNOWN", -numbers[status]))
        words = [f"{numbers[status]:,} {harmless(status)}" for status in statuses]
        known = f"{counts}, {failed_count:,} failed"
        sums = [f"{known}; {', '.join(words)}"] if words else []
        sums += [f"{known}; {', '.join(words[:most])} and others" for most in range(len(words) - 1, 0, -1)]
        texts = [text + end for some in (sums, [known]) for end in ("; Ctrl-C to end", "") for text in some]
        return Table(self._columns).text(rows) + next((text for text in texts if len(text) <= width), counts)


def _hidden(number: int) -> str:
    return f" ({number:,} not shown)" if number > 0 else ""
