"""The place of a walk in a list that is sorted by creation: a time. It is the one rule by which responses are joined.

A run's time of creation never changes, and stands in every run; the key of a run is that time, counted so that keys
rise along the list. The *frontier* is the key of the run that was consumed last. The rule keeps this statement true:

    Every lasting run (one that exists for the whole walk) up to the frontier was consumed, and none beyond it.

A response is a slice of the list as it was at one moment, without gaps. So it holds every run that existed then with a
key between its first and its last key; and everything before too, if it begins the list. If its first key lies before
the frontier, it joins: what is new are its runs from the frontier on, but for those at the frontier that were consumed
before. Then the frontier is its last key, and the statement is true again. Deleted runs don't matter, nor does when the
response was sent, or the order among equal keys: a group of equal keys counts only when a response that begins before
the group shows it. So pages overlap by the last such group, and by one run more.

Two things make a server differ from this. Where the rows of a response aren't quite sorted by their keys (it sorts by a
time near `created_at`), the `slack` is twice the largest inversion that was seen: a response has to begin so much
before the frontier, and the ids of all runs so near to it are known. And where a page can't hold the whole group at the
frontier, a response joins if it begins with runs of that group in the order in which they were consumed.
"""

import itertools
import math
import operator
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Sequence

import attrs

from tfruns._walk.request import PlannedPage
from tfruns.models import BadRun, JobRun

_MOST_INVERTED = 1 / 3
"""If more of the neighbours than this share are in the wrong order, the server doesn't sort by creation."""
_SEVERAL = 3
"""So many runs of one key in the order in which they were consumed are no chance."""


@attrs.frozen
class Place:
    """Where a walk stands, in a form that outlives it: it is all that a new walk needs to go on."""

    newest_first: bool
    """Whether the times of creation fall along the list."""
    near: tuple[tuple[str, float], ...]
    """The ids of the consumed runs that a response may hold again, with their times of creation."""
    index: int
    """Where the next run stood in the list."""
    slack: float = 0.0

    def after(self, runs: Sequence[JobRun | BadRun]) -> "Place":
        """The place once these runs were consumed, too."""
        sign = -1 if self.newest_first else 1
        near = [*self.near, *((run.id, run.created_at) for run in runs)]
        limit = max(sign * time for _, time in near) - self.slack
        kept = tuple(one for one in near if sign * one[1] >= limit)
        return attrs.evolve(self, near=kept, index=self.index + len(runs))


class Slice:
    """The runs of one response, in the order of the walk, by their keys.

    Args:
        request: the request that it responds to.
        runs: the runs as they came.
        sign: 1 if the times of creation rise along the list, -1 if they fall.
        is_tail: whether the runs came from the end of the list, in reverse.
    """

    def __init__(
        self, request: PlannedPage, runs: Sequence[JobRun | BadRun], sign: int, *, is_tail: bool = False
    ) -> None:
        self.request = request
        self.before: Place | None = None
        """Where the walk stood before it was consumed."""
        self.sign = sign
        self.is_tail = is_tail
        self._runs: Sequence[JobRun | BadRun] = runs[::-1] if is_tail else runs
        self._ids: list[str] | None = None
        self.times = [run.created_at for run in self._runs]
        rises = all(map(operator.lt if sign > 0 else operator.gt, self.times, itertools.islice(self.times, 1, None)))
        self.is_sorted = rises or self.times == sorted(self.times, reverse=sign < 0)
        self.has_equals = not rises and len(set(self.times)) < len(self.times)
        self.first = sign * self.times[0]
        """The first key."""
        self.last = sign * self.times[-1] if self.is_sorted else max(map(self.key, range(len(self))))
        """The largest key."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def begins_list(self) -> bool:
        """Whether nothing stands before it in the list."""
        return not self.is_tail and self.request.offset == 0

    @property
    def end(self) -> int:
        """The index behind its last run."""
        return self.request.offset + len(self.times)

    def key(self, at: int) -> float:
        """The key of a run."""
        return self.sign * self.times[at]

    def id(self, at: int) -> str:
        """The id of a run."""
        return self._runs[at].id if self._ids is None else self._ids[at]

    def keys_and_ids(self, rows: Sequence[int]) -> tuple[list[float], list[str]]:
        """The keys and the ids of some of its runs."""
        sign, times, runs = self.sign, self.times, self._runs
        ids = [runs[at].id for at in rows] if self._ids is None else [self._ids[at] for at in rows]
        return [sign * times[at] for at in rows], ids

    @property
    def ids(self) -> list[str]:
        """The ids of its runs."""
        return self.keys_and_ids(range(len(self)))[1]

    def release_runs(self) -> None:
        """Keep only times and ids: the slice has to wait, and its runs take memory."""
        self._ids = self.ids
        self._runs = ()

    def first_entries(self, rows: Sequence[int]) -> Sequence[int]:
        """The same rows, less those of a run that is listed again."""
        if self.is_sorted and not self.has_equals:
            return rows
        by_id: dict[str, int] = {}
        for at in rows:
            by_id.setdefault(self.id(at), at)
        return list(by_id.values())

    def largest_group(self) -> int:
        """How many of its runs share one key at most."""
        return Counter(self.times).most_common(1)[0][1] if self.has_equals else 1


class Frontier:
    """The key of the run that was consumed last, and what is remembered of the runs consumed before it.

    Args:
        place: where a walk before this one has ended.
        remembered: of how many runs the ids are kept, at least.
        skips: whether the list has runs before its first slice that aren't wanted.
    """

    def __init__(self, place: Place | None, *, remembered: int, skips: bool) -> None:
        self.key = -math.inf
        self.slack = 0.0
        self._remembered = remembered
        self._pages: deque[tuple[list[float], list[str]]] = deque()  # of the runs consumed last
        self._forgotten = -math.inf  # the largest key whose run isn't remembered
        self._begins_at = math.inf if skips else -math.inf  # the first key, if runs before it are skipped
        self._pairs = self._inverted = 0
        self._count = 0  # of the runs that are remembered
        if place is not None:
            sign = -1 if place.newest_first else 1
            keys = [sign * time for _, time in place.near]
            self.key, self.slack = max(keys), place.slack
            self._forget(math.nextafter(self.key - self.slack, -math.inf))
            self._pages.append((keys, [one for one, _ in place.near]))
            self._count = len(keys)

    @property
    def has_begun(self) -> bool:
        """Whether a run was consumed."""
        return self.key != -math.inf

    @property
    def remembers_all(self) -> bool:
        """Whether the ids of all consumed runs are known."""
        return self._forgotten == -math.inf

    def near(self, *, everything: bool = False) -> dict[str, float]:
        """The consumed runs that a response may hold again, in the order of consumption: ids, and their keys."""
        limit = -math.inf if everything else self.key - self.slack
        pages = []
        for keys, ids in reversed(self._pages):
            first = 0 if self.slack or everything else bisect_left(keys, limit)
            pages.append([(one, key) for one, key in zip(ids[first:], keys[first:], strict=True) if key >= limit])
            if first:
                break
        return dict(itertools.chain.from_iterable(reversed(pages)))

    def place(self, index: int, *, newest_first: bool) -> Place:
        """The place, with the index in the list at which the next run is expected."""
        near = tuple((one, abs(key)) for one, key in self.near().items())
        return Place(newest_first, near, index, self.slack)

    def learn(self, rows: Slice) -> bool:
        """Take note of how a response is sorted. Returns whether the list can be one that is sorted by creation."""
        self._pairs += len(rows) - 1
        if not rows.is_sorted:
            highest = before = rows.first
            for key in map(rows.key, range(len(rows))):
                self._inverted += key < before
                highest, before = max(highest, key), key
                self.slack = max(self.slack, 2 * (highest - key))
        is_known = self.remembers_all or self.key - self.slack > self._forgotten
        return is_known and (self._inverted <= self._pairs * _MOST_INVERTED or not self.remembers_all)

    def holds(self, rows: Slice) -> bool:
        """Whether a response joins by its first key."""
        return rows.begins_list or rows.first < self.key - self.slack or not self.has_begun

    def is_past(self, rows: Slice) -> bool:
        """Whether it holds no run behind the frontier, and none at it that wasn't consumed."""
        limit, known = self.key - self.slack, {*self.near()}
        return self.key >= rows.last and all(rows.id(at) in known for at in range(len(rows)) if rows.key(at) >= limit)

    def take(self, rows: Slice, *, reach: int) -> Sequence[int] | None:
        """Consume what is new in a response: the indices of those runs, in order. None if it doesn't join.

        Args:
            rows: the response.
            reach: how many runs a response holds at most.
        """
        near = self.near()
        if self.holds(rows):
            first = 0
        elif len(near) + 1 >= reach and rows.id(0) in near:
            again = list(near)[list(near).index(rows.id(0)) :]
            if len(again) < min(_SEVERAL, reach - 1) or again != rows.ids[: len(again)]:
                return None
            first = len(again)
        else:
            return None
        limit = self.key - self.slack
        behind = len(rows)
        if rows.is_sorted:
            first = bisect_left(range(behind), limit, first, key=rows.key)
            behind = bisect_right(range(behind), self.key, first, key=rows.key)
        if self._begins_at >= limit:  # what stands before the first known run may be among the skipped ones
            first = next((at for at in range(first, behind) if rows.id(at) in near), first)
        new: Sequence[int] = [at for at in range(first, behind) if rows.key(at) >= limit and rows.id(at) not in near]
        new = [*new, *range(behind, len(rows))] if new else range(behind, len(rows))
        new = rows.first_entries(new)
        if new:
            self._advance(rows, new)
        return new

    def _advance(self, rows: Slice, new: Sequence[int]) -> None:
        if not self.has_begun and self._begins_at == math.inf:
            self._begins_at = rows.key(new[0])
        self.key = max(self.key, rows.last)
        if rows.is_sorted and len(new) > self._remembered and rows.key(new[-self._remembered]) < rows.last:
            # More is hardly ever needed, and to keep all ids of a large page would take longer than the rest.
            self._forget(rows.key(new[-self._remembered - 1]))
            new = new[-self._remembered :]
        self._pages.append(rows.keys_and_ids(new))
        self._count += len(new)
        while self._count - len(self._pages[0][0]) >= self._remembered:
            largest = max(self._pages[0][0])
            if largest >= self.key - self.slack:
                break
            self._forget(largest)
            self._count -= len(self._pages.popleft()[0])

    def _forget(self, key: float) -> None:
        self._forgotten = max(self._forgotten, key)
