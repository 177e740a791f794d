"""Text from a server, made safe to keep and short enough to show."""

from collections.abc import Callable
from typing import Any


def writable(text: str) -> str:
    """The text as UTF-8 can hold it: each lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value, plain JSON that is the caller's to change, with each string in it changed, names too."""
    whole = [value]
    left: list[Any] = [whole]
    while left:  # no recursion: Python's stack is shorter than JSON may be deep
        holder = left.pop()
        if isinstance(holder, list):
            items: list[tuple[Any, Any]] = [*enumerate(holder)]
        else:
            items = [(change(name), item) for name, item in holder.items()]
            holder.clear()
        for place, item in items:
            holder[place] = change(item) if isinstance(item, str) else item
            if isinstance(item, (list, dict)):
                left.append(item)
    return whole[0]


def excerpt(body: bytes, hide: Callable[[str], str]) -> str:
    """The start of a body as one line of text."""
    return " ".join(hide(body[:10_000].decode("utf-8", "replace"))[:400].split())[:200]
