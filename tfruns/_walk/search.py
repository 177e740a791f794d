"""The search for the last consumed run, after a response that doesn't hold it."""


class Search:
    """The search for the index of the last consumed run: one request after the other, with nothing else in flight.

    The first two requests are for the place where the run is expected. After that, it is a binary search if the order
    shows on which side of a response the run is. Without a known order, each request is farther away from the expected
    place, on alternating sides.
    """

    def __init__(self) -> None:
        self.tries = 0
        self._low = 0
        self._high: int | None = None

    def next_offset(self, guess: int, reach: int, overlap: int, total: int, *, has_order: bool) -> int:
        """The offset of the next request.

        Args:
            guess: the index at which the run is expected.
            reach: how many runs a page holds.
            overlap: how many of them are expected to be known.
            total: how long the list is.
            has_order: whether the order is known, so that `lies_before` and `lies_behind` are called.
        """
        self.tries += 1
        high = total if self._high is None else self._high
        if self.tries == 1:
            return guess - overlap + 1
        if self.tries == 2 and (not has_order or self._low <= guess < high):
            return guess - reach // 2
        if not has_order:
            step = self.tries // 2 * (reach // 2)
            return guess - reach // 2 + (step if self.tries % 2 else -step)
        if high - self._low < reach:
            return self._low - 1
        return (self._low + high - reach) // 2

    def lies_before(self, offset: int, reach: int) -> None:
        """The run is before this offset."""
        self._high = offset
        if self._low >= offset:  # the list has moved to the left meanwhile
            self._low = max(0, offset - reach * 2**self.tries)

    def lies_behind(self, end: int, reach: int, total: int) -> None:
        """The run isn't before this index."""
        self._low = end
        if self._high is not None and self._high <= end:  # the list has moved to the right meanwhile
            self._high = min(total, end + reach * 2**self.tries)
