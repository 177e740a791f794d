"""The runs that a walk consumed last, and how a new response is joined to them.

A response is a part of the list as it was at one moment, without gaps. Suppose that every lasting run (one that exists
for the whole walk) up to some place was consumed, and none beyond it. If a response holds a consumed run, the *anchor*,
then the lasting runs that come next are behind the anchor in it, or behind the end of the response. So if the unknown
runs behind the first known run are consumed, the statement stays true, whenever the response was sent, and in whatever
order responses arrive. It has to be the first known run: a run that is listed twice, or that was created again with its
old id, would hide the runs before it.

If the list is sorted by creation, more rules hold:

- A known run that is now beyond the last consumed one was created again. It is no anchor.
- Unknown runs before the first known one are new too, if they are beyond all runs whose ids were forgotten: runs that
  were created in the same millisecond may come in another order in each response. So if there are such runs, and an
  anchor isn't at the expected place, a response has to hold all of them, and to begin before the last consumed run.
- If every remembered run was deleted, a response that begins before the last consumed run has no gap either.

If it isn't sorted by creation, and runs are listed twice, a single known run may be the second entry of its run,
further down than the place where the response should begin. So two known runs are needed.
"""

import functools
import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence, Set

import attrs

from tfruns._walk.order import Order
from tfruns.models import JobRun

_KEPT = 256
"""How many runs' ids are remembered at least; those of four pages if that is more."""


@attrs.frozen
class Match:
    """A response that was joined to the runs consumed before."""

    new: Sequence[JobRun]
    """The runs to consume, in order."""
    shift: int
    """The index of the last consumed run in this response, minus its ordinal."""


@attrs.frozen
class _Page:
    """The runs consumed from one response."""

    ids: Set[str]
    in_order: Sequence[str] = attrs.field(repr=False)
    """The ids in the order of the runs."""
    first: int
    """Ordinal of the first of them."""
    last_created_at: float
    """Creation of the last of them."""

    @functools.cached_property
    def ordinals(self) -> Mapping[str, int]:
        """By id. If the list doesn't change, this is never used."""
        return dict(zip(self.in_order, itertools.count(self.first)))


class Anchor:
    """The runs that were consumed last.

    Each consumed run has an ordinal, counted from `start`: if the list doesn't change, this is its index. Only ids are
    remembered, not the runs.

    Args:
        start: ordinal of the first run.
        page_size: how many runs a page holds.
        order: the order of the list.
        met: the set for the ids of all consumed runs, in orders for which all are kept; None if only the latest are.
    """

    def __init__(self, start: int, page_size: int, order: Order, met: set[str] | None) -> None:
        self.last: JobRun | None = None
        self.front = start
        """Ordinal of the next run."""
        self._order = order
        self._met = met
        self._kept = max(_KEPT, 4 * page_size)
        self._pages: deque[_Page] = deque()
        self._first_created_at = -math.inf
        self._forgotten: float | None = None  # creation of the last run in the list whose id was forgotten
        self._lists_twice = False  # whether a response listed a run twice
        self._has_equals = False  # whether a response without an anchor at the expected place had equal creations
        self.is_unstable = False
        """Whether runs were seen in another order than they were consumed in; only known if all ids are kept."""

    def match(self, runs: Sequence[JobRun], offset: int, expected: int) -> Match | None:
        """Join a response to the consumed runs; None if it can't be joined.

        Args:
            runs: the runs of the response.
            offset: the offset of the request.
            expected: the index in `runs` at which the last consumed run is expected.
        """
        ids = [run.id for run in runs]
        if self.last is None:
            self._order.holds_for(runs)
            return self._consume(runs, ids, offset + len(runs))
        if self._met is None and not self._has_equals and self._is_last(runs, expected):
            # Most responses are like this: nothing has moved. Then it is only checked that none of the new runs is
            # known.
            shift = offset + expected + 1 - self.front
            new, new_ids = runs[expected + 1 :], ids[expected + 1 :]
            distinct = set(new_ids)
            if len(distinct) == len(new_ids) and self._are_unknown(distinct):
                self._remember(new, new_ids, distinct)
                return Match(new, shift)
        return self._join(runs, ids, offset)

    def _join(self, runs: Sequence[JobRun], ids: Sequence[str], offset: int) -> Match | None:
        last = self.last
        assert last is not None  # noqa: S101  # for the type checker
        in_order = self._order.holds_for(runs)
        begins_before = offset == 0 or self._order.is_before(runs[0].created_at, last.created_at)
        anchors = {
            at: ordinal
            for at, ordinal in enumerate(map(self._ordinal, ids))
            if ordinal is not None and not (in_order and self._order.is_before(last.created_at, runs[at].created_at))
        }
        self._has_equals |= len({run.created_at for run in runs} | {last.created_at}) < len({*ids, last.id})
        if not anchors and not (in_order and begins_before):
            return None
        if self._met is not None:
            self.is_unstable |= any(after < before for before, after in itertools.pairwise(anchors.values()))
            new = [at for at, one in enumerate(ids) if one not in self._met]
        else:
            if self._has_equals and in_order and not begins_before:
                return None
            self._lists_twice |= len(set(ids)) < len(ids)
            if self._lists_twice and not in_order and len(anchors) < 2:
                return None
            first = 0 if in_order else min(anchors)
            new = [at for at in range(first, len(ids)) if self._ordinal(ids[at]) is None]
            if in_order:
                new = [at for at in new if self._can_be_new(runs[at])]
        if not new and not anchors:  # it ends before the place of the last consumed run
            return None
        if new:
            return self._consume([runs[at] for at in new], [ids[at] for at in new], offset + len(runs))
        at = max(anchors, key=anchors.__getitem__)
        return Match((), offset + at - anchors[at])

    def _can_be_new(self, run: JobRun) -> bool:
        """Whether a run with an unknown id is new: beyond all forgotten runs, and not before the start."""
        if self._forgotten is None:
            return not self._order.is_before(run.created_at, self._first_created_at)
        return self._order.is_before(self._forgotten, run.created_at)

    def _consume(self, runs: Sequence[JobRun], ids: Sequence[str], end: int) -> Match:
        distinct = set(ids)
        if len(distinct) < len(ids):
            self._lists_twice = True
            by_id = {run.id: run for run in runs}
            runs, ids = list(by_id.values()), list(by_id)
        self._remember(runs, ids, distinct)
        return Match(runs, end - self.front)

    def _remember(self, runs: Sequence[JobRun], ids: Sequence[str], distinct: Set[str]) -> None:
        if not runs:
            return
        if not self._pages:
            self._first_created_at = runs[0].created_at
        self._pages.append(_Page(distinct, ids, self.front, runs[-1].created_at))
        self.last = runs[-1]
        self.front += len(runs)
        if self._met is not None:
            self._met.update(distinct)
        while sum(len(each.ids) for each in itertools.islice(self._pages, 1, None)) >= self._kept:
            forgotten = self._pages.popleft().last_created_at
            # A run that appears before the last one is consumed after it: pages aren't forgotten in the list's order.
            if self._forgotten is None or self._order.is_before(self._forgotten, forgotten):
                self._forgotten = forgotten

    def _is_last(self, runs: Sequence[JobRun], at: int) -> bool:
        """Whether the last consumed run is there, and no unknown run of the same creation is before it."""
        last = self.last
        if last is None or not 0 <= at < len(runs) or runs[at].id != last.id or runs[at].created_at != last.created_at:
            return False
        equals = itertools.takewhile(lambda run: run.created_at == last.created_at, reversed(runs[:at]))
        return all(self._ordinal(run.id) is not None for run in equals)

    def _are_unknown(self, ids: Set[str]) -> bool:
        """Whether none of the ids is among the latest that are remembered."""
        checked = 0
        for page in reversed(self._pages):
            if not ids.isdisjoint(page.ids):
                return False
            checked += len(page.ids)
            if checked >= _KEPT:
                break
        return True

    def _ordinal(self, one: str) -> int | None:
        return next((page.ordinals[one] for page in self._pages if one in page.ids), None)
