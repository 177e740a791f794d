"""Public classes name the module that users import them from: in tracebacks, in `help()` and in pickles."""

from collections.abc import Iterable


def publish(module: str, values: Iterable[object]) -> dict[str, object]:
    """Let the classes and functions of the package among these do so. Returns them by their names."""
    published: dict[str, object] = {}
    for value in values:
        if callable(value) and getattr(value, "__module__", "").startswith("tfruns."):
            value.__module__ = module
            published[value.__name__] = value  # type: ignore[attr-defined]  # it has one
    return published
