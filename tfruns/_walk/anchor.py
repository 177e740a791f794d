"""What a walk knows of its place in the list: the order answers show, the runs taken lately, and where to search."""

import itertools
from collections import deque
from collections.abc import Collection, Sequence

from tfruns.models import JobRun


class Order:
    """The order by creation, one way or the other, as far as the answers show it."""

    def __init__(self, is_usable: bool) -> None:
        self._is_usable = is_usable
        self._sign = 0

    @property
    def is_known(self) -> bool:
        """Whether it is one, and which way it goes."""
        return self._is_usable and self._sign != 0

    def learn(self, runs: Sequence[JobRun]) -> None:
        """Take note of an answer. One that isn't sorted, or contradicts those before, ends all use of the order."""
        if not self._is_usable or not runs:
            return
        created = [run.created_at for run in runs]
        if created[0] == created[-1]:
            self._is_usable = created.count(created[0]) == len(created)
            return
        sign = 1 if created[0] < created[-1] else -1
        self._is_usable = self._sign in (0, sign) and created == sorted(created, reverse=sign < 0)
        self._sign = sign

    def before(self, run: JobRun, other: JobRun) -> bool:
        """Whether the run stands before the other, and not level with it."""
        return self._sign * run.created_at < self._sign * other.created_at

    def holds_for(self, runs: Sequence[JobRun]) -> bool:
        """Whether the order is known, and the runs are in it."""
        return self.is_known and not any(map(self.before, runs[1:], runs))


class Recent:
    """The ids of the runs that were taken last. (The runs themselves are the caller's, and may be gone by then.)"""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._numbers: dict[str, int] = {}  # in the order in which they were taken
        self._stretches: deque[tuple[Collection[str], float]] = deque()  # with the creation of the first run of each
        self._taken = 0

    def admit(self, runs: Sequence[JobRun]) -> Sequence[JobRun]:
        """Those of the runs that aren't known, each once. They are remembered, and the oldest forgotten."""
        numbers = dict(zip([run.id for run in runs], itertools.count(self._taken)))
        if len(numbers) < len(runs) or not self._numbers.keys().isdisjoint(numbers):
            runs = list({run.id: run for run in runs if run.id not in self._numbers}.values())
            numbers = dict(zip([run.id for run in runs], itertools.count(self._taken)))
        if runs:
            self._numbers |= numbers
            self._taken += len(numbers)
            self._stretches.append((numbers, runs[0].created_at))
            while len(self._numbers) - len(self._stretches[0][0]) >= self._kept:
                for forgotten in self._stretches.popleft()[0]:
                    del self._numbers[forgotten]
        return runs

    def find(self, runs: Sequence[JobRun], last: JobRun, likely: int) -> int | None:
        """The index of the last of the runs that is known, if any is."""
        if likely < len(runs) and runs[likely].id == last.id:
            return likely
        return next((at for at in range(len(runs) - 1, -1, -1) if runs[at].id in self._numbers), None)

    def is_among_the_newest(self, run: JobRun, count: int) -> bool:
        """Whether that known run is among so many that were taken last."""
        return self._numbers[run.id] >= self._taken - count

    def begins_level_with(self, last: JobRun) -> bool:
        """Whether runs created with that one may have been forgotten."""
        return len(self._numbers) >= self._kept and self._stretches[0][1] == last.created_at


class Search:
    """For the place of the last run yielded, between two offsets."""

    def __init__(self, high: int) -> None:
        self.tries = 0
        self._low = 0
        self._high = high

    def lies_before(self, offset: int, reach: int) -> None:
        """The place is further to the left than this offset."""
        self._high = offset
        if self._low >= offset:  # the list has moved to the left since
            self._low = max(0, offset - reach * 2**self.tries)

    def lies_behind(self, end: int, total: int, reach: int) -> None:
        """The place is not before this index."""
        self._low = end
        if self._high <= end:  # the list has moved to the right since
            self._high = max(end + 1, min(total, end + reach * 2**self.tries))

    def next(self, reach: int, guess: int, *, has_order: bool) -> int:
        """Where to look next: beside the answer without a tie, or where the totals suggest; then by bisection.

        Where there is no order to tell by on which side the place is: to and fro, ever further away.
        """
        self.tries += 1
        beside = self._high - reach + 1
        if self.tries == 1 and beside <= guess < self._high:
            return beside
        if self.tries <= 2 and (self._low <= guess < self._high or not has_order):
            return guess - reach // 2
        if not has_order:
            step = self.tries // 2 * (reach // 2)
            return guess - reach // 2 + (step if self.tries % 2 else -step)
        if self._high - self._low < reach:
            return self._low - 1
        return (self._low + self._high - reach) // 2
