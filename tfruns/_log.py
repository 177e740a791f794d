"""The log of the package, in which nothing that a filter or a handler of the caller's raises changes what is done."""

import logging
from collections.abc import Mapping
from contextlib import suppress

logger = logging.getLogger("tfruns")


def log(level: int, text: str, *values: object, extra: Mapping[str, object] | None = None) -> None:
    """Log a message. What the caller's filters and handlers raise is theirs: it ends no request, walk or watch."""
    with suppress(Exception):
        logger.log(level, text, *values, extra=extra, stacklevel=2)
