"""What the server has shown of itself: whether its totals and limits can be relied on."""

import math


class ServerTraits:
    """What responses have shown of the server that sends them."""

    def __init__(self) -> None:
        self.total = 0
        """The total of the newest response."""
        self.longest = 0
        """The largest total so far."""
        self.shortest = math.inf
        """The smallest total so far."""
        self.fullest = 0
        """The most runs that a response brought."""
        self.understates = False
        """Whether a total was less than what came."""
        self._clamps = False  # a page was shorter than requested, with more to come
        self._falls_short = False  # a page was shorter than the server's own limit, with more to come
        self._exceeds = False  # a page was longer than the limit that the server said

    def learn(self, offset: int, limit: int, length: int, total: int, said: int | None) -> None:
        """Take note of a response.

        Args:
            offset: that was requested.
            limit: that was requested.
            length: how many runs came.
            total: how many there are in all, by the server's count.
            said: the limit that the response says.
        """
        self.total = total
        self.longest = max(self.longest, total)
        self.shortest = min(self.shortest, total)
        self.fullest = max(self.fullest, length)
        self.understates |= length > 0 and offset + length > total
        self._exceeds |= 0 < (said or 0) < length
        if offset + length < total:
            self._clamps |= length < limit
            self._falls_short |= length < self._full(limit, said)

    def _full(self, limit: int, said: int | None) -> int:
        return min(limit, said) if said and not self._exceeds else limit

    def reach(self, limit: int) -> int:
        """How many runs a page brings: as many as were requested, unless the server clamps the limit."""
        return min(limit, self.fullest) if self._clamps else limit

    def is_last(self, limit: int, length: int, said: int | None) -> bool:
        """Whether a page that reaches the total is the last one: the server gives more where there is more."""
        is_reliable = bool(said) and not (self._exceeds or self._falls_short or self.understates)
        return length < self._full(limit, said) and (is_reliable or length < self.fullest or length <= 1)
