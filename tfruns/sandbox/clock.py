"""The clock of a sandbox: it stands still until it is moved, or runs at a rate."""

import threading
import time
from typing import Any

from tfruns._checks import checked_number


class Clock:
    """A clock that can be set. Threads may share it.

    Args:
        now: the time to start at, in ms since 1970 UTC.
        rate: how many of its seconds pass in a second; 0 for a clock that only `advance` moves.

    Example:
        >>> before = sandbox.clock.now
        >>> sandbox.clock.advance(60)
        >>> sandbox.clock.now - before
        60000
    """

    def __init__(self, now: float, rate: float = 0.0) -> None:
        self._then = float(now)
        self._rate = checked_seconds("rate", rate)
        self._since = time.monotonic()
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """The clock's time, in whole ms since 1970 UTC."""
        with self._lock:
            return int(self._shown())

    @property
    def rate(self) -> float:
        """How many of its seconds pass in a second. It can be set; 0 stops the clock."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = checked_seconds("rate", rate)
        with self._lock:
            self._then, self._since = self._shown(), time.monotonic()
            self._rate = rate

    def advance(self, seconds: float) -> None:
        """Move the clock forward. It never goes back.

        Args:
            seconds: by how many seconds, 0 or more.

        Raises:
            TypeError, ValueError: `seconds` isn't a number of seconds.

        Example:
            >>> sandbox.clock.advance(3600)
        """
        milliseconds = checked_seconds("seconds", seconds) * 1000
        with self._lock:
            self._then += milliseconds

    def __repr__(self) -> str:
        return f"<Clock at {self.now} ms, rate {self.rate:g}>"

    def _shown(self) -> float:
        return self._then + (time.monotonic() - self._since) * 1000 * self._rate if self._rate else self._then


def checked_seconds(name: str, value: Any) -> float:
    """The value, if it is a finite number, 0 or more."""
    return float(checked_number(value, name, "a number from 0 to 1e9", least=0, most=1e9))
