"""Whether a client is closed: known here alone, and waited for by everything of the client that waits."""

import asyncio
from collections.abc import Collection
from typing import Any


class ClosedSignal:
    """Whether a client was closed. Tasks of any event loop can wait for it, one loop after the other."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether the client was closed."""
        return self._is_set

    def set(self) -> None:
        """The client was closed."""
        self._is_set = True
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    async def wait(self, tasks: "Collection[asyncio.Task[Any]]", seconds: float | None) -> None:
        """Wait until one of the tasks is done, the client is closed, or the time has passed (None: for ever)."""
        closed = asyncio.get_running_loop().create_future()
        if self._is_set:
            closed.set_result(None)
        self._waiters.add(closed)
        try:
            await asyncio.wait([*tasks, closed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(closed)
