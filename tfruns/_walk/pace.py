"""How the list moves during a walk, and which offsets, overlap, page size and requests in flight that needs."""

import math
from collections import deque

_WINDOW = 33
"""The number of responses over which the rate is measured."""
_GROWTH = 1 / 16
"""How much the depth grows with each anchor that is found: absolute, or relative if the depth is below 1."""
_DECAY = 63 / 64
"""The part of the margin that is left after each anchor that is found."""


class Pace:
    """How the list moves, learned from where anchors are found, and how the next requests take it into account.

    `shift` is the index of a run minus its ordinal: runs that appear before the reader's place raise it, runs that are
    deleted there lower it. Requests in flight see different shifts, in any order. So the next offset is predicted from
    the rate at which the shift grows, and pages overlap by the largest recent error of the predictions. If that isn't
    enough, fewer requests are in flight, for larger pages: half as many, twice as large, each time that an anchor is
    lost. (A depth below 1 stands for a single request for an even larger page.)

    Until as many responses have arrived as requests were first in flight, pages overlap by a 32nd (half a page for 16
    requests), because it isn't known yet whether the list moves.

    Args:
        page_size: how many runs a page holds, while the list doesn't change.
        most: how many a page may hold.
    """

    def __init__(self, page_size: int, most: int) -> None:
        self.shift = 0
        self.rate = 0.0
        """How much the shift grows with each response."""
        self.depth = math.inf
        """How many requests may be in flight."""
        self._page_size = page_size
        self._most = most
        self.widest = 1
        """The most requests that were in flight."""
        self._margin: float = page_size // 32
        self._is_moving = False
        self._observed_at = 0
        self._observed: deque[tuple[int, int]] = deque([(0, 0)], maxlen=_WINDOW)

    def widen(self, in_flight: int) -> None:
        """Take note of how many requests are in flight."""
        self.widest = max(self.widest, in_flight)

    def restart(self) -> None:
        """The next request is at the start of the list again."""
        self.shift = 0
        self._observed.clear()
        self._observed.append((self._observed_at, 0))

    @property
    def limit(self) -> int:
        """How many runs to request: the fewer requests are in flight, the more."""
        return max(self._page_size, min(self._most, int(self._page_size * self.widest / self.depth)))

    def keep_page_size(self) -> None:
        """The server refuses larger pages."""
        self._most = self._page_size

    def overlap(self, reach: int, clock: int) -> int:
        """How many runs of the previous page to request again."""
        if not self._is_moving:
            return 1 + (reach // 32 if clock <= self.widest else 0)
        # With hardly anything in flight, a search for a lost anchor costs less than a large overlap in each page.
        return 1 + min(math.ceil(self._margin), reach // (3 if self.depth >= 2 else 8))

    def predict(self, clock: int, in_flight: int) -> int:
        """The shift that the response to the next request will show."""
        return self.shift + round(self.rate * (clock - self._observed_at + in_flight + 1))

    def observe(self, shift: int, predicted: int, clock: int) -> None:
        """An anchor was found, with this shift instead of the predicted one."""
        self._is_moving |= shift != self.shift
        self.shift, self._observed_at = shift, clock
        self._observed.append((clock, shift))
        began_at, began_with = self._observed[0]
        # With several requests in flight, the first differences depend more on their order than on the rate.
        self.rate = (shift - began_with) / max(clock - began_at, min(self.depth, self.widest))
        self._margin = max(self._margin * _DECAY, predicted - shift)
        self.depth += _GROWTH * min(1.0, self.depth)

    def lose(self) -> None:
        """A response has no anchor."""
        self._is_moving = True
        self.depth = max(self._page_size / self._most, min(self.depth, self.widest) / 2)
        self._margin = min(max(2 * self._margin, 1.0), self._most)
