"""One thread in which an export reads and writes files, so that the event loop is never blocked.

The thread owns everything on the disk. `run` waits until the function has ended, even if the wait is cancelled several
times: so the caller always knows what a function has opened or made, and can close or remove it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class StoppedError(Exception):
    """The work in the thread has to stop."""


class WorkThread:
    """Runs one function after the other, within `async with`."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tfruns-export")
        self._stopped = threading.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown()  # it is idle: `run` has waited for all

    def start(self, function: Callable[[], object]) -> None:
        """Call the function in the thread, before all that are called later. Its error is lost."""
        self._executor.submit(function)

    async def run(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function in the thread. A cancellation stops it at its next `check`, and is raised once it ended."""
        work = self._executor.submit(function, *args, **kwargs)
        ended = asyncio.wrap_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:
                cancelled = error
                self._stopped.set()
        if cancelled is not None:
            ended.exception()  # it was stopped: its error doesn't matter
            raise cancelled
        return ended.result()

    def check(self) -> None:
        """Raise StoppedError if the work has to stop: functions in the thread call this between their steps."""
        if self._stopped.is_set():
            raise StoppedError
