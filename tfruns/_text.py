"""Text for people: short enough to show, and moments as ISO 8601 has them."""

from datetime import datetime


def shortened(text: str, most: int = 500) -> str:
    """The text, or its beginning and an ellipsis if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def iso_moment(when: datetime, precision: str) -> str:
    """A time in UTC, such as `2026-11-23T08:30:00Z`.

    Args:
        when: the time, aware and in UTC.
        precision: "seconds", "milliseconds" or "microseconds".
    """
    return when.isoformat(timespec=precision).replace("+00:00", "Z")
