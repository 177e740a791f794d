"""The order of a list by creation, if the responses show that it has one."""

from collections.abc import Sequence

from tfruns.models import JobRun


class Order:
    """The order by creation, one way or the other.

    It is used only as long as every response agrees with it: a server may sort by a time that differs from the
    `created_at` that it returns.

    Args:
        is_usable: whether the list is meant to be sorted by creation at all.
    """

    def __init__(self, is_usable: bool) -> None:
        self._is_usable = is_usable
        self._sign = 0

    @property
    def is_known(self) -> bool:
        """Whether the list is sorted by creation, and it is known which way."""
        return self._is_usable and self._sign != 0

    @property
    def is_oldest_first(self) -> bool:
        """Whether the list is known to be sorted by creation, the oldest first."""
        return self.is_known and self._sign > 0

    def learn(self, runs: Sequence[JobRun]) -> None:
        """Learn the direction from the first and last run of a response. A contradiction ends all use of the order."""
        if self._is_usable and runs:
            first, last = runs[0].created_at, runs[-1].created_at
            if first != last:
                sign = 1 if first < last else -1
                self._is_usable = self._sign in (0, sign)
                self._sign = sign

    def holds_for(self, runs: Sequence[JobRun]) -> bool:
        """Whether nothing contradicts the order. A response that isn't sorted ends all use of it."""
        if self._is_usable:
            created = [run.created_at for run in runs]
            self._is_usable = created == sorted(created, reverse=self._sign < 0)
        return self._is_usable

    def is_before(self, created_at: float, other: float) -> bool:
        """Whether a run that was created at `created_at` comes strictly before one that was created at `other`."""
        return self._sign * created_at < self._sign * other
