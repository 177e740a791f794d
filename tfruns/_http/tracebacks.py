"""Adds the request to an error, and removes the frames whose variables hold what was sent or received."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from tfruns.errors import APIError
from tfruns.query import PageRequest

_HOLDERS = ("aiohttp", "aiosignal", "asyncio", "ssl", "tfruns._decode", "tfruns._http.exchange")
"""Modules whose frames hold the head of a request as bytes, or a response, which may repeat the key."""


class ErrorContext:
    """Within `with`: an error names the request, and no frame of its traceback shows what was sent or received.

    Frames of the modules that send, receive and decode are removed from the traceback, and from those of its causes and
    contexts. Frames of the caller's own functions (hooks, trace configs, a function that gives the key) stay.
    """

    def __init__(self, request: PageRequest) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._handled = sys.exception()  # an error of the caller's, which becomes a context of all that is raised here

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        for one in chain(error, but=self._handled):
            one.__traceback__ = _without(_is_holder, one.__traceback__)
        if isinstance(error, APIError):
            error.job_id, error.offset = self._request.job_id, self._request.offset


def chain(error: BaseException, *, but: BaseException | None = None) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the members of its groups: each once."""
    seen: set[int] = {id(but)}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def _is_holder(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return any(name == holder or name.startswith(f"{holder}.") for holder in _HOLDERS)


def _without(is_left_out: Callable[[FrameType], bool], traceback: TracebackType | None) -> TracebackType | None:
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    kept = None
    for entry in reversed(entries):
        if not is_left_out(entry.tb_frame):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept
