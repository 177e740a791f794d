"""Keeps the API key out of everything that is shown: values wrap it, texts lose it, tracebacks lose frames with it."""

from collections import deque
from collections.abc import Iterator
from itertools import zip_longest
from types import TracebackType
from typing import Any, ClassVar, NoReturn

import attrs

from tfruns._text import printable
from tfruns.errors import APIError
from tfruns.query import PageRequest

MASK = "[API key]"
_LEAST_HIDDEN = 8
"""The least characters of a key that are removed from texts: a shorter part isn't secret, and is in many words."""
_HOLDERS = ("aiohttp.", "aiosignal.", "asyncio.", "ssl.", "tfruns._decode.", "tfruns._http.connections.")
"""Modules whose frames hold the head of a request as bytes, or a response, which may repeat the key."""


@attrs.frozen(repr=False)
class Secret:
    """A value that is kept out of every repr, format and pickle. It may be of any type until it is checked.

    Error trackers and rich tracebacks show the variables of each frame that an exception went through. So no variable
    of ours holds a key as it is: it is wrapped where it enters, and only `value` and `bearer` give it back.
    """

    value: Any = attrs.field(repr=False)
    """The value itself: use it within an expression, and bind no variable to it."""
    _mask: ClassVar[str] = MASK
    _refusal: ClassVar[str] = "an API key can't be pickled or copied: make a client in each process"

    def bearer(self) -> str:
        """The value of the header `Authorization`."""
        return _Header(f"Bearer {self.value}")

    def __repr__(self) -> str:
        return self._mask

    def __reduce__(self) -> NoReturn:
        raise TypeError(self._refusal)


class SecretText(str):
    """A key as a string, which can be pickled, and whose repr doesn't show it."""

    __slots__ = ()
    origin = "the argument api_key"

    def __repr__(self) -> str:
        return MASK


class _Header(SecretText):
    """The text of a header, which aiohttp keeps among its own variables, and puts into its errors."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> str:
        return _Header(MASK)  # rich shows the first 80 characters of a long text: `repr(text[:80])`

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (MASK,)  # an error of aiohttp is sent to another process without the key


class Redactor:
    """Makes the server's text safe to show: without the keys that were sent, and without control characters."""

    def __init__(self) -> None:
        # The parts of each key that are hidden. A request that was sent with an old key may still be in flight.
        self._parts: deque[Secret] = deque(maxlen=8)

    def add(self, key: Secret) -> None:
        starts = range(len(key.value) - _LEAST_HIDDEN + 1)
        parts = Secret(frozenset(key.value[at : at + _LEAST_HIDDEN] for at in starts))
        if parts not in self._parts:
            self._parts.append(parts)

    def clean(self, text: str) -> str:
        """The text as one printable line without the keys, and without their parts: whoever shortens a text cuts them.

        Line breaks can fake log records, escape sequences can control a terminal, and marks of writing direction can
        make a text look like another.
        """
        for parts in self._parts:
            kept, end = "", 0
            for at in range(len(text) - _LEAST_HIDDEN + 1):
                if text[at : at + _LEAST_HIDDEN] in parts.value:
                    kept += text[end:at] + MASK if at >= end else ""
                    end = at + _LEAST_HIDDEN
            text = kept + text[end:]
        return printable(text)


def make_safe(error: BaseException, request: PageRequest, handled: BaseException | None) -> None:
    """Name the request in an error, of whose traceback then no frame shows what was sent or received.

    Frames of the modules that send, receive and decode are removed from the traceback, and from those of its causes and
    contexts. Frames of the caller's own functions (hooks, trace configs, a function that gives the key) stay, and the
    error that the caller handled when the request began, which became a context of all that was raised.
    """
    for one in chain(error, but=handled):
        one.__traceback__ = _without_holders(one.__traceback__)
    if isinstance(error, APIError):
        error.job_id, error.offset = request.job_id, request.offset


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


def _without_holders(traceback: TracebackType | None) -> TracebackType | None:
    kept = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if not f"{module}.".startswith(_HOLDERS):
            kept.append(traceback)
        traceback = traceback.tb_next
    for entry, following in zip_longest(kept, kept[1:]):
        entry.tb_next = following
    return kept[0] if kept else None
