"""What the responses of a walk show: about their server, and about how the list moves."""

import math

from tfruns._walk.request import full_length
from tfruns.query import MAX_PAGE_SIZE

_WINDOW = 16
"""The number of responses over which the rate is averaged."""
_GROWTH = 1 / 16
"""How much the depth grows with each response that joins: absolute, or relative if the depth is below 1."""
_DECAY = 15 / 16
"""The part of the margin that is left after each response that joins."""
_TRUST = 7 / 8
"""The part of the rate that is left after a prediction that failed."""


class ServerBehaviour:
    """How long the server's pages are, and whether its totals and limits can be relied on."""

    def __init__(self) -> None:
        self.total = 0
        """The total of the newest response."""
        self.recent = 0.0
        """About the largest total of the last few responses."""
        self.most = 0
        """The largest total so far, and the largest index of a run."""
        self.understates = False
        """Whether a total was too small for the runs in its response."""
        self._clamp = math.inf  # the length of the longest page that was shorter than requested, with runs behind it
        self._cuts = False  # whether such a page was also shorter than the limit that it says

    def learn(self, offset: int, limit: int, length: int, total: int, stated_limit: int | None) -> bool:
        """Take note of a response of so many runs, which says the limit `stated_limit`, to a request for `limit` runs.

        Returns whether it holds fewer runs than every page that has runs behind it.
        """
        self.total = total
        self.recent = max(total, (self.recent + total) / 2)
        self.most = max(self.most, total, offset + length if length else 0)
        self.understates |= length > 0 and offset + length > total
        full = full_length(limit, length, stated_limit)
        has_more = offset + length < total or self.understates
        if has_more and length and length != min(limit, self._clamp):
            self._clamp = length if self._clamp == math.inf else max(length, self._clamp)
            self._cuts |= length < full
        return not self._cuts and length < full

    @property
    def bound(self) -> float:
        """The index behind the last run, as far as the totals can be relied on."""
        return math.inf if self.understates else self.total

    def reach(self, limit: int) -> int:
        """How many runs a page will hold: as many as are requested, unless the server cuts it."""
        return int(min(limit, self._clamp))


class Pace:
    """How many requests are in flight, how large their pages are, and by how much these overlap.

    Each time that a prediction fails, half as many requests are in flight, for pages twice as large; with each response
    that joins it is a little more the other way. (A depth below 1 stands for a single request for an even larger page.)
    Pages overlap by the largest recent error of the predictions, at first by a 32nd of a page.
    """

    def __init__(self, page_size: int) -> None:
        self.rate = 0.0
        """By how much the index of a run grows with each response."""
        self.depth = math.inf
        """How many requests may be in flight."""
        self.most_in_flight = 1
        """The most requests that were in flight."""
        self.page_size = page_size
        self.most = max(page_size, MAX_PAGE_SIZE)
        """How many runs a page may hold."""
        self._margin: float = page_size // 32
        self._shift = self._clock = 0  # when a response joined last

    @property
    def limit(self) -> int:
        """How many runs to request: the fewer requests are in flight, the more."""
        return max(self.page_size, min(self.most, int(self.page_size * self.most_in_flight / self.depth)))

    def limit_pages(self, most: int) -> None:
        """The server refuses pages that are larger than twice this."""
        self.most = max(self.page_size, most)

    def margin(self, reach: int) -> int:
        """By how many runs more than needed a page of `reach` runs overlaps the page before."""
        return min(round(self._margin), reach // 8)

    def observe(self, shift: int, error: int, clock: int) -> None:
        """A response joined.

        `shift` is the index of its last run, less the number of runs consumed so far; `error` is by how many runs more
        than predicted the list has moved to the left.
        """
        elapsed = max(1, clock - self._clock)
        # A burst says nothing about the rate.
        most = abs(self.rate) + self.page_size
        step = max(-most, min(most, (shift - self._shift) / elapsed))
        self.rate += (step - self.rate) * min(1.0, elapsed / _WINDOW)
        self._shift, self._clock = shift, clock
        self._margin = max(self._margin * _DECAY, error)
        self.depth += _GROWTH * min(1.0, self.depth)

    def lose(self) -> None:
        """A prediction has failed: a response has a gap before it, or ends before the frontier."""
        self.depth = max(self.page_size / self.most, min(self.depth, self.most_in_flight) / 2)
        self.rate *= _TRUST  # one that a burst left behind would mislead each request of a search
        self.widen_margin()

    def widen_margin(self) -> None:
        """A response has a gap before it."""
        self._margin = min(max(2 * self._margin, 1.0), self.most)

    def go_alone(self) -> None:
        """Only one request at a time, for the largest page, until responses join again."""
        self.depth = self.page_size / self.most
