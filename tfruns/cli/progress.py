"""The progress of an export, on stderr: bars on a terminal, elsewhere a line now and then."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tfruns._text import counted
from tfruns.cli.text import on_one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from tfruns.client import Client
    from tfruns.export import ExportProgress

_FIRST_LINE = 10.0  # seconds; the pause after each line is twice as long as the one before,
_LONGEST_PAUSE = 600.0  # up to this


@contextlib.contextmanager
def shown(client: "Client", *, quiet: bool) -> "Iterator[Callable[[ExportProgress], object]]":
    """A function to call with the progress of the export. The client's warnings, about retries, are shown too."""
    logger = logging.getLogger("tfruns")
    console = None if quiet else _terminal()
    level, handlers = logger.level, logger.handlers
    try:
        if quiet:
            logger.setLevel(logging.ERROR)
            yield lambda now: None
        elif console is None:
            yield Lines().update
        else:
            bars = _Bars(client, console)
            logger.handlers = [bars]
            with bars.board:
                yield bars.update
    finally:
        logger.setLevel(level)
        logger.handlers = handlers


def _terminal() -> "Console | None":
    """Standard error, if it is a terminal on which bars can be drawn. (rich would follow FORCE_COLOR in a file too.)"""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else console


class Lines:
    """A line now and then; the longer the export takes, the fewer lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = _FIRST_LINE
        self._printed_at = clock()
        self._runs: int | None = None

    def update(self, now: "ExportProgress") -> None:
        """Print the progress, if the last line was printed long enough ago."""
        if self._runs is None:
            self._runs = now.runs  # runs of an interrupted export don't count for the rate
        passed = self._clock() - self._printed_at
        if passed < self._pause:
            return
        rate = (now.runs - self._runs) / passed
        jobs = f"{now.jobs_done + now.jobs_skipped:,} of {counted(now.jobs, 'job')}"
        text = f"{jobs}, {counted(now.runs, 'run')}, {rate:,.0f}/s"
        click.echo(f"{text}{'; writing the file' if now.is_writing else ''}", err=True)
        self._printed_at += passed
        self._runs = now.runs
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class _Bars(logging.Handler):
    """Bars for jobs and runs, and a line for the requests with the last warning."""

    def __init__(self, client: "Client", console: "Console") -> None:
        super().__init__(logging.WARNING)
        self._client = client
        self._warning = ""
        self._tasks: dict[str, TaskID] = {}
        self.board = _board(console, self._requests)

    def emit(self, record: logging.LogRecord) -> None:
        self._warning = f"; {time.strftime('%H:%M:%S')} {record.getMessage()}"

    def update(self, now: "ExportProgress") -> None:
        """Keep the progress: it is shown the next time that the bars are drawn."""
        self._show("jobs", now.jobs_done + now.jobs_skipped, now.jobs)
        self._show("runs", now.runs, now.runs_expected)
        if now.is_writing:
            self._show("file", 0, 0)

    def _show(self, name: str, done: int, of: int) -> None:
        total = of or None  # without one, the bar only moves
        if name in self._tasks:
            self.board.update(self._tasks[name], total=total, completed=done)
        else:  # runs of an interrupted export don't count for the rate and the time left
            self._tasks[name] = self.board.add_task(name, total=total, completed=done)

    def _requests(self) -> str:
        stats = self._client.stats()
        held_back = f", held back to {stats.concurrency}" if stats.concurrency < self._client.max_concurrency else ""
        return on_one_line(
            f"{counted(stats.in_flight, 'request')} in flight{held_back}, {counted(stats.retries, 'retry', 'retries')}"
            f"{self._warning}"
        )


def _board(console: "Console", last_line: Callable[[], str]) -> "Progress":
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.total is None else f"{task.completed:,.0f} of {task.total:,.0f}")

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

    class Board(Progress):
        def get_renderables(self) -> "Iterable[RenderableType]":
            yield from super().get_renderables()
            yield Text(last_line(), no_wrap=True, overflow="ellipsis")

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), Count(), Rate(), TimeRemainingColumn())
    return Board(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False, refresh_per_second=5
    )
