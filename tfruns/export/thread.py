"""One thread in which the files of an export are read and written, so that the event loop is never held."""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Desk:
    """Does one thing after the other, in its thread, within `async with`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "tfruns-export")
        self._stopped = threading.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thread.shutdown()

    async def work(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function there. Where the wait for it is cancelled, it is stopped at its next `check`."""
        work = functools.partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except asyncio.CancelledError:
            self._stopped.set()
            raise

    def check(self) -> None:
        """Raise if the work in the thread is to stop: for the functions there."""
        if self._stopped.is_set():
            raise RuntimeError("stopped")
