"""Text from a server, made safe to keep and short enough to show."""

from collections.abc import Callable
from typing import Any


def writable(text: str) -> str:
    """The text as UTF-8 can hold it: each lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value, plain JSON, with each string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): with_strings(item, change) for name, item in value.items()}
    return value


def excerpt(body: bytes, hide: Callable[[str], str]) -> str:
    """The start of a body as one line of text."""
    return " ".join(hide(body[:10_000].decode("utf-8", "replace"))[:400].split())[:200]
