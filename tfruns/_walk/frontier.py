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

import math
import operator
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import attrs

from tfruns._walk.request import PlannedPage
from tfruns.models import BadRun, JobRun

_MOST_INVERTED = 1 / 3
"""If more of the neighbours than this share are in the wrong order, the server doesn't sort by creation."""
SEVERAL = 3
"""So many runs of one key in the order in which they were consumed are no chance."""
_REMEMBERED = 100
"""Of how many runs the ids are kept at least, for a slack that isn't known yet."""


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
    """The runs of a response in the order of the walk: their ids, and their keys."""

    def __init__(
        self, request: PlannedPage, runs: Sequence[JobRun | BadRun], *, newest_first: bool, is_tail: bool = False
    ) -> None:
        self.request = request
        self.before: Place | None = None
        """Where the walk stood before it was consumed."""
        self.is_tail = is_tail
        """Whether the runs came from the end of the list, in reverse."""
        self._runs = runs[::-1] if is_tail else runs
        self._ids: list[str] = []
        self.times = [run.created_at for run in self._runs]
        for at in range(1, len(runs) if is_tail else 0):
            if isinstance(self._runs[at], BadRun):  # its time may be that of the run behind it, which may be new
                self.times[at] = self.times[at - 1]
        self.key: Callable[[float], float] = operator.neg if newest_first else operator.pos
        """Makes a key of a time."""
        in_order = sorted(self.times, reverse=newest_first)
        self.is_sorted = self.times == in_order
        self.rises = self.is_sorted and len({*in_order}) == len(in_order)
        """Whether each key is larger than the one before."""
        self.first = self.key(self.times[0])
        self.last = self.key(in_order[-1])

    @property
    def ids(self) -> list[str]:
        """The ids of its runs. From then on, it doesn't hold the runs themselves."""
        if not self._ids:
            self._ids, self._runs = [run.id for run in self._runs], ()
        return self._ids

    @cached_property
    def keys(self) -> list[float]:
        """The keys of its runs. Only where they aren't quite sorted are all of them needed."""
        return [*map(self.key, self.times)]

    def ids_of(self, rows: Sequence[int]) -> list[str]:
        return [self._ids[at] for at in rows] if self._ids else [self._runs[at].id for at in rows]

    @property
    def begins_list(self) -> bool:
        """Whether nothing stands before it in the list."""
        return not self.is_tail and self.request.offset == 0

    @property
    def end(self) -> int:
        """The index behind its last run."""
        return self.request.offset + len(self.times)

    def falls(self) -> bool:
        """Whether its keys fall, though they should rise."""
        return self.first > self.keys[-1] and self.keys == sorted(self.keys, reverse=True)

    def largest_fall(self) -> float:
        """By how much a key lies below one before it at most."""
        return 0.0 if self.is_sorted else max(map(operator.sub, accumulate(self.keys, max), self.keys))

    def largest_group(self) -> int:
        """How many of its runs share one key at most."""
        return 1 if self.rises else max(Counter(self.times).values())

    def first_entries(self, rows: Sequence[int]) -> Sequence[int]:
        """The same rows, less those of a run that is listed again."""
        if self.rises:
            return rows
        by_id: dict[str, int] = {}
        for at in rows:
            by_id.setdefault(self.ids[at], at)
        return [*by_id.values()]


class Frontier:
    """The key of the run that was consumed last, and what is remembered of the runs consumed before it.

    `skips` says whether the list has runs before its first slice that aren't wanted.
    """

    def __init__(self, place: Place | None, *, skips: bool) -> None:
        self.key = self._forgotten = -math.inf  # of the run consumed last, and the largest that isn't remembered
        self.slack = 0.0
        self._keys: list[float] = []
        self._ids: list[str] = []
        self._begins_at = math.inf if skips else -math.inf  # the first key, if runs before it are skipped
        self._pairs = self._inverted = 0
        if place is not None:
            self._ids = [one for one, _ in place.near]
            self._keys = [-time if place.newest_first else time for _, time in place.near]
            self.key, self.slack = max(self._keys), place.slack
            self._forgotten = math.nextafter(self.key - self.slack, -math.inf)

    @property
    def has_begun(self) -> bool:
        """Whether a run was consumed."""
        return self.key != -math.inf

    @property
    def all_ids(self) -> list[str] | None:
        """The ids of all runs that were consumed, if none is forgotten."""
        return self._ids if self._forgotten == -math.inf else None

    def near(self) -> dict[str, float]:
        """The consumed runs that a response may hold again, in the order of consumption: ids, and their keys."""
        limit = self.key - self.slack
        first = 0 if self.slack else bisect_left(self._keys, limit)
        rows = range(first, len(self._keys))
        return {self._ids[at]: self._keys[at] for at in rows if self._keys[at] >= limit}

    def learn(self, rows: Slice) -> bool:
        """Take note of how a response is sorted. Returns whether the list can be one that is sorted by creation."""
        self._pairs += len(rows.times) - 1
        self._inverted += 0 if rows.is_sorted else sum(map(operator.gt, rows.keys, rows.keys[1:]))
        self.slack = max(self.slack, 2 * rows.largest_fall())
        remembers_all = self._forgotten == -math.inf
        is_known = remembers_all or self.key - self.slack > self._forgotten
        return is_known and (self._inverted <= self._pairs * _MOST_INVERTED or not remembers_all)

    def is_past(self, rows: Slice) -> bool:
        """Whether it holds no run behind the frontier, and none at it that wasn't consumed."""
        limit, near = self.key - self.slack, self.near()
        at_frontier = [at for at, key in enumerate(rows.keys) if key >= limit] if self.key >= rows.last else []
        return self.key >= rows.last and near.keys() >= {*rows.ids_of(at_frontier)}

    def take(self, rows: Slice, near: Mapping[str, float], *, reach: int) -> Sequence[int] | None:
        """Consume what is new in a response: the indices of those runs, in order. None if it doesn't join.

        `near` is what the frontier says, and `reach` how many runs a response holds at most.
        """
        limit = self.key - self.slack
        first, behind = 0, len(rows.times)
        if not (rows.begins_list or self._is_before(rows, limit) or not self.has_begun):
            again = [*near]
            again = again[again.index(rows.ids[0]) :] if len(near) + 1 >= reach and rows.ids[0] in near else []
            first = len(again)
            if first < max(1, min(SEVERAL, reach - 1)) or again != rows.ids[:first]:
                return None
        if rows.is_sorted:
            first = bisect_left(rows.times, limit, first, key=rows.key)
            behind = bisect_right(rows.times, self.key, first, key=rows.key)
        if self._begins_at >= limit:  # what stands before the first known run may be among the skipped ones
            first = next((at for at in range(first, behind) if rows.ids[at] in near), first)
        again_or_new = [at for at in range(first, behind) if rows.key(rows.times[at]) >= limit]
        ids = rows.ids_of(again_or_new)
        at_frontier = [at for at, one in zip(again_or_new, ids, strict=True) if one not in near]
        beyond = range(behind, len(rows.times))
        new = rows.first_entries([*at_frontier, *beyond] if at_frontier else beyond)
        if new:
            self._advance(rows, new)
        return new

    def _is_before(self, rows: Slice, limit: float) -> bool:
        """Whether it begins before the limit: by a run that is known, or by two, for the time of one may be false."""
        is_alone = len(rows.times) < 2 or rows.key(rows.times[1]) > self.key
        return rows.first < limit and not (is_alone and rows.ids_of([0])[0] not in self._ids)

    def _advance(self, rows: Slice, new: Sequence[int]) -> None:
        if not self.has_begun and self._begins_at == math.inf:
            self._begins_at = rows.key(rows.times[new[0]])
        self.key = max(self.key, rows.last)
        limit = self.key - self.slack
        if rows.is_sorted and len(new) > _REMEMBERED and rows.key(rows.times[new[-_REMEMBERED]]) < limit:
            # More is hardly ever needed, and to keep all of a large page would take longer than the rest.
            self._forgotten = max(self._forgotten, rows.key(rows.times[new[-_REMEMBERED - 1]]))
            new = new[-_REMEMBERED:]
        self._keys += [rows.key(rows.times[at]) for at in new]
        self._ids += rows.ids_of(new)
        if self.slack:
            near = next(at for at, key in enumerate(self._keys) if key >= limit)
        else:
            near = bisect_left(self._keys, limit)
        forgotten = min(near, len(self._keys) - _REMEMBERED)
        if forgotten > 0:
            self._forgotten = max(self._forgotten, max(self._keys[:forgotten]))
            del self._keys[:forgotten], self._ids[:forgotten]
