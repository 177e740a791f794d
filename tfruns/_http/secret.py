"""Wraps the API key from the moment it is given, and makes the server's text, which may repeat it, safe to show."""

from collections import deque
from typing import Any, ClassVar, NoReturn

MASK = "[API key]"
_LEAST_HIDDEN = 8
"""The least length of a key that is removed from texts: a shorter one isn't secret, and is a part of many words."""


class Secret:
    """A value that is kept out of every repr, format and pickle. It may be of any type until it is checked.

    Error trackers and rich tracebacks show the variables of each frame that an exception went through. So no variable
    of ours holds a key as it is: it is wrapped where it enters, and only `value` and `bearer` give it back.
    """

    __slots__ = ("_value",)
    _mask: ClassVar[str] = MASK
    _refusal: ClassVar[str] = "an API key can't be pickled or copied: make a client in each process"

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        """The value itself: use it within an expression, and bind no variable to it."""
        return self._value

    def bearer(self) -> str:
        """The value of the header `Authorization`."""
        return _Header(f"Bearer {self._value}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return self._mask

    def __reduce__(self) -> NoReturn:
        raise TypeError(self._refusal)


class SecretText(str):
    """A key as a string, which can be pickled, and whose repr doesn't show it."""

    __slots__ = ()

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
        # Each with its blocks of eight characters. A request that was sent with an old one may still be in flight.
        self._keys: deque[tuple[Secret, Secret]] = deque(maxlen=8)

    def add(self, key: Secret) -> None:
        """Hide this key from now on."""
        if len(key.value) >= _LEAST_HIDDEN and all(key != known for known, _ in self._keys):
            starts = range(0, len(key.value) - _LEAST_HIDDEN + 1, _LEAST_HIDDEN)
            self._keys.append((key, Secret(frozenset(key.value[at : at + _LEAST_HIDDEN] for at in starts))))

    def clean(self, text: str) -> str:
        """The text as one printable line without the keys, and without parts of them of 15 characters or more.

        (Whoever shortens a text may cut the key.) Line breaks can fake log records, escape sequences can control a
        terminal, and marks of writing direction can make a text look like another. White space becomes a space, and
        anything else that isn't printable is spelled out.
        """
        for key, blocks in self._keys:
            if any(text[at : at + _LEAST_HIDDEN] in blocks.value for at in range(len(text) - _LEAST_HIDDEN + 1)):
                text = _without(text, key)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else " " if c.isspace() else _spelled(c) for c in text)


def _without(text: str, key: Secret) -> str:
    """The text without the key, and without each part of it that holds one of its blocks."""
    for at in range(0, len(key.value) - _LEAST_HIDDEN + 1, _LEAST_HIDDEN):
        while (start := text.find(key.value[at : at + _LEAST_HIDDEN])) >= 0:
            end, first, last = start + _LEAST_HIDDEN, at, at + _LEAST_HIDDEN
            while start and first and text[start - 1] == key.value[first - 1]:
                start, first = start - 1, first - 1
            while end < len(text) and last < len(key.value) and text[end] == key.value[last]:
                end, last = end + 1, last + 1
            text = text[:start] + MASK + text[end:]
    return text


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
