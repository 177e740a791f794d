"""What the responses of a walk show about their server."""

import math


class ServerBehaviour:
    """How long the server's pages are, and whether its totals and limits can be relied on."""

    def __init__(self) -> None:
        self.total = 0
        """The total of the newest response."""
        self.most = 0
        """The largest total so far, and the largest index of a run."""
        self.understates = False
        """Whether a total was too small for the runs in its response."""
        self._clamp = math.inf  # the length of pages that were shorter than requested, with runs left behind them
        self._varies = False  # whether such pages had several lengths
        self._exceeds = False  # whether a page was longer than the limit in the response

    def learn(self, offset: int, limit: int, length: int, total: int, said: int | None) -> None:
        """Take note of a response of so many runs, which says the limit `said`, to a request for `limit` runs."""
        self.total = total
        self.most = max(self.most, total, offset + length if length else 0)
        self.understates |= length > 0 and offset + length > total
        self._exceeds |= said is not None and said < length
        has_more = offset + length < total or self.understates
        if has_more and length and length != min(limit, self._clamp):
            self._varies |= self._clamp != math.inf
            self._clamp = max(length, self._clamp) if self._varies else length

    def reach(self, limit: int) -> int:
        """How many runs a page will hold: as many as are requested, unless the server cuts it."""
        return int(min(limit, self._clamp))

    def is_short(self, limit: int, length: int, said: int | None) -> bool:
        """Whether a response holds fewer runs than every page that has runs behind it."""
        full = min(limit, said) if said and not self._exceeds else limit
        return not self._varies and length < min(full, self._clamp)
