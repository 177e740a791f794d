"""What makes a paginator an async iterator, of which each `async for` is a walk of its own."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar
from weakref import ref

from tfruns.errors import EventLoopError

T = TypeVar("T")

Walks = AbstractAsyncContextManager[Any]
"""What fetches pages while it is entered."""


class Iteration(Generic[T]):
    """The walks of a paginator that were begun by `async for` or `anext`, each with the generator of its runs.

    Both are held weakly, so that Python closes a generator soon after `break`. By then nothing refers to the generator
    any more, but its walk still fetches pages until it is closed.
    """

    __slots__ = ("_begun", "_has_ended", "_of_anext")

    def __init__(self) -> None:
        self._begun: list[tuple[ref[AsyncGenerator[T]], ref[Walks]]] = []
        self._of_anext: AsyncGenerator[T] | None = None
        self._has_ended = False  # whether that one has come to its end, or failed

    def begin(self, walks: Walks, runs_of: Callable[[Any], AsyncGenerator[T]]) -> AsyncGenerator[T]:
        runs = runs_of(walks)
        self._begun = [(ref(runs), ref(walks)), *(each for each in self._begun if each[1]() is not None)]
        return runs

    def take(self) -> AsyncGenerator[T] | None:
        """What is left of the walk that `anext` has begun."""
        left, self._of_anext = self._of_anext, None
        if left is not None and getattr(left, "ag_frame", left) is None and not self._has_ended:
            raise EventLoopError("the event loop in which this was begun is over, and has closed it: begin it anew")
        return left

    async def next(self, runs: AsyncGenerator[T]) -> T:
        self._of_anext, self._has_ended = runs, False
        try:
            return await anext(runs)
        except BaseException:
            self._has_ended = True
            raise

    async def aclose(self) -> None:
        self._of_anext = None
        for runs_of, walks_of in self._begun:
            if (runs := runs_of()) is not None:
                await runs.aclose()
            elif (walks := walks_of()) is not None:
                await walks.__aexit__(None, None, None)
