"""An async generator read from code that isn't async, with an event loop of its own that never waits for that code."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Generic, TypeVar

import attrs

_Item = TypeVar("_Item")
_AHEAD = 2


@attrs.frozen
class _End:
    error: BaseException | None


class Pump(Generic[_Item]):
    """Iterates, in the calling thread, over what the generator yields in another; `_AHEAD` items are kept ready.

    Where the loop ran only while it is waited for, requests would time out while Spark is busy.
    """

    def __init__(self, items: AsyncGenerator[_Item]) -> None:
        self._items = items
        self._ready: queue.SimpleQueue[_Item | _End] = queue.SimpleQueue()
        self._begun: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tfruns", daemon=True)

    def __iter__(self) -> Iterator[_Item]:
        self._thread.start()
        self._begun.get()
        try:
            while not isinstance(item := self._ready.get(), _End):
                self._tell(self._room.release)
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._tell(self._task.cancel)
            self._thread.join()

    def _tell(self, what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all is done
            self._loop.call_soon_threadsafe(what)  # type: ignore[arg-type]

    def _work(self) -> None:
        try:
            asyncio.run(self._fill())
        except BaseException as error:
            self._ready.put(_End(error))
        else:
            self._ready.put(_End(None))

    async def _fill(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_AHEAD)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker
        self._task = task
        self._begun.put(None)
        async with contextlib.aclosing(self._items) as items:
            async for item in items:
                await self._room.acquire()
                self._ready.put(item)
