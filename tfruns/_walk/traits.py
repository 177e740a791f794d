"""Whether the totals and the limits of a server can be relied on."""

import math


class ServerTraits:
    """What the responses so far show about their server."""

    def __init__(self) -> None:
        self.total = 0
        """The total of the newest response."""
        self.longest = 0
        """The largest total so far."""
        self.shortest = math.inf
        """The smallest total so far."""
        self.fullest = 0
        """The most runs in one response."""
        self.understates = False
        """Whether a total was too small for the runs in its response."""
        self._clamps = False  # a page was shorter than requested, with runs left behind it
        self._falls_short = False  # a page was shorter than the server's own limit, with runs left behind it
        self._exceeds = False  # a page was longer than the limit in the response

    def learn(self, offset: int, limit: int, length: int, total: int, said: int | None) -> None:
        """Take note of a response.

        Args:
            offset: the requested offset.
            limit: the requested limit.
            length: how many runs the response holds.
            total: the total in the response.
            said: the limit in the response, if there is one.
        """
        self.total = total
        self.longest = max(self.longest, total)
        self.shortest = min(self.shortest, total)
        self.fullest = max(self.fullest, length)
        self.understates |= length > 0 and offset + length > total
        self._exceeds |= said is not None and said < length
        if offset + length < total:
            self._clamps |= length < limit
            self._falls_short |= length < self._full(limit, said)

    def _full(self, limit: int, said: int | None) -> int:
        return min(limit, said) if said and not self._exceeds else limit

    def reach(self, limit: int) -> int:
        """How many runs a page will hold: as many as are requested, unless the server clamps the limit."""
        return min(limit, self.fullest) if self._clamps else limit

    def is_last(self, limit: int, length: int, said: int | None) -> bool:
        """Whether a page that reaches the total is the last: because it isn't full, and the server fills its pages."""
        is_reliable = bool(said) and not (self._exceeds or self._falls_short or self.understates)
        return length < self._full(limit, said) and (is_reliable or length < self.fullest or length <= 1)
