"""Makes an async generator usable in code that isn't async: its event loop runs in a thread, and isn't blocked."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

import attrs

_Item = TypeVar("_Item")
_AHEAD = 2


@attrs.frozen
class _End:
    error: BaseException | None


def in_background(items: AsyncGenerator[_Item]) -> Iterator[_Item]:
    """The items of the generator, made in another thread, which keeps `_AHEAD` items ready. Close it to stop the
    thread.

    If the loop ran only while an item is waited for, requests would time out while Spark is busy.
    """
    ready: queue.SimpleQueue[_Item | _End] = queue.SimpleQueue()
    room = asyncio.Semaphore(_AHEAD)
    loop = asyncio.new_event_loop()

    async def fill() -> None:
        async with contextlib.aclosing(items):
            async for item in items:
                await room.acquire()
                ready.put(item)

    filling = loop.create_task(fill())

    def work() -> None:
        error = None
        try:
            with contextlib.closing(loop):
                try:
                    loop.run_until_complete(filling)
                finally:
                    loop.run_until_complete(loop.shutdown_asyncgens())
                    loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as caught:
            error = caught
        ready.put(_End(error))

    def call_in_loop(function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all is done
            loop.call_soon_threadsafe(function)

    thread = threading.Thread(target=work, name="tfruns", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            call_in_loop(room.release)
            yield item
        if item.error is not None:
            raise item.error
    finally:
        call_in_loop(filling.cancel)
        thread.join()
