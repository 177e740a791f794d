"""Whether a client is closed: known here alone, and waited for by everything of the client that waits."""

import asyncio
import math
from collections.abc import Collection
from typing import Any

import attrs

from tfruns.errors import EventLoopError


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop of asyncio, or an EventLoopError if there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError(
            "no event loop of asyncio is running here, and the client needs one (trio's isn't)"
        ) from None


@attrs.define(eq=False)
class ClosedSignal:
    """Whether a client was closed. Tasks of any event loop can wait for it, one loop after the other."""

    is_set: bool = attrs.field(default=False, init=False)
    _waiters: set[asyncio.Future[None]] = attrs.field(factory=set, init=False)

    def set(self) -> None:
        """The client was closed."""
        self.is_set = True
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    def now(self) -> float:
        """Seconds since some moment in the past. (A test has a clock of its own.)"""
        return running_loop().time()

    async def wait(self, tasks: "Collection[asyncio.Future[Any]]", seconds: float) -> None:
        """Wait until one of the tasks is done, the client is closed, or so many seconds (maybe inf) have passed."""
        closed = running_loop().create_future()
        if self.is_set:
            closed.set_result(None)
        self._waiters.add(closed)
        timeout = None if seconds == math.inf else max(0.0, seconds)
        try:
            await asyncio.wait([*tasks, closed], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(closed)
