"""The runs that a walk consumed last, and how a response is joined to them.

A response is a part of the list as it stood at one moment, without gaps. Say that every lasting run (one that exists for
the whole walk) up to some place was consumed, and none beyond it. If a response holds a consumed run, the *anchor*, then
the lasting runs that come next stand behind the anchor there, or behind the end of the response. So consuming what is
unknown behind the first known run keeps the statement true, whenever the response was sent, and in whatever order
responses arrive. It has to be the first one: a run that is listed twice, or that was created again with its old id, would
hide what stands before it.

Where the list is sorted by creation, more can be said:

- A known run that now stands beyond the last consumed one was created again. It is no anchor.
- What is unknown and not older than all that is remembered is new, also before the first known run: runs of one
  millisecond may come in another order in each response. A server that does this must show the whole group, so from then
  on a response has to begin before the last consumed run.
- If every remembered run was deleted, a response that begins before the last consumed run has no gap either.
"""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence

import attrs

from tfruns._walk.order import Order
from tfruns.models import JobRun

_KEPT = 256
"""Of how many runs the ids are kept at least, to recognise them; four pages if that is more."""


@attrs.frozen
class Match:
    """A response that was joined to the runs consumed before."""

    new: Sequence[JobRun]
    """The runs to consume, in order."""
    shift: int
    """By how much the index of the last consumed run in this response exceeds its ordinal."""


@attrs.frozen
class _Page:
    """The runs that one response brought."""

    ordinals: Mapping[str, int]
    """By id."""
    created_at: float
    """Creation of the first of them."""


class Anchor:
    """The runs that were consumed last.

    Each consumed run has an ordinal, counted from `start`: on a list that stands still, its index. The runs themselves
    are the caller's, and may be gone by then: only their ids are kept.

    Args:
        start: ordinal of the first run.
        page_size: how many runs a page holds.
        order: the order of the list.
        met: the ids of all runs consumed, in orders where all are kept; None where only the latest are.
    """

    def __init__(self, start: int, page_size: int, order: Order, met: set[str] | None) -> None:
        self.last: JobRun | None = None
        self.front = start
        """Ordinal of the next run."""
        self._order = order
        self._met = met
        self._kept = max(_KEPT, 4 * page_size)
        self._pages: deque[_Page] = deque()
        self._forgets = False
        self.is_unstable = False
        """Whether runs with equal keys were seen in another order than that in which they were consumed."""

    def match(self, runs: Sequence[JobRun], offset: int, expected: int, *, by_place: bool = False) -> Match | None:
        """Join a response to what was consumed; None if it can't be joined.

        Args:
            runs: the response.
            offset: its place.
            expected: the index in it at which the last consumed run is expected.
            by_place: whether to take it even though it can't be joined, for ids of all runs are kept.
        """
        ids = [run.id for run in runs]
        if self.last is None:
            return self._consume(runs, ids, offset + len(runs))
        if self._met is None and not self.is_unstable and self._is_last(runs, expected):
            # Most responses are these: nothing moved. All that is checked of the runs is that none is known.
            shift = offset + expected + 1 - self.front
            new = ids[expected + 1 :]
            page = self._numbered(new)
            if len(page) == len(new) and self._is_news(page):
                self._remember(runs[expected + 1 :], page)
                return Match(runs[expected + 1 :], shift)
        return self._join(runs, ids, offset, by_place=by_place)

    def _join(self, runs: Sequence[JobRun], ids: Sequence[str], offset: int, *, by_place: bool) -> Match | None:
        last = self.last
        assert last is not None  # noqa: S101  # for the type checker
        in_order = self._order.holds_for(runs)
        begins_before = offset == 0 or (
            in_order and bool(runs) and self._order.is_before(runs[0].created_at, last.created_at)
        )
        anchors = {
            at: ordinal
            for at, ordinal in enumerate(map(self._ordinal, ids))
            if ordinal is not None and not (in_order and self._order.is_before(last.created_at, runs[at].created_at))
        }
        if not anchors and not (in_order and begins_before) and not by_place:
            return None
        if self._met is not None:
            new = [at for at, one in enumerate(ids) if one not in self._met]
            self.is_unstable |= any(after < before for before, after in itertools.pairwise(anchors.values()))
        elif in_order:
            new = self._not_older(runs, ids)
            self.is_unstable |= self._shows_another_order(runs, anchors)
            if self.is_unstable and not begins_before:
                return None
        else:
            new = [at for at in range(min(anchors) + 1, len(ids)) if self._ordinal(ids[at]) is None]
        if not new and not anchors and not by_place:  # it ends before the place
            return None
        if new:
            return self._consume([runs[at] for at in new], [ids[at] for at in new], offset + len(runs))
        at = max(anchors, key=anchors.__getitem__, default=None)
        return Match((), offset + len(runs) - self.front if at is None else offset + at - anchors[at])

    def _not_older(self, runs: Sequence[JobRun], ids: Sequence[str]) -> list[int]:
        """The unknown runs that are not older than all that is remembered: what is older may have been forgotten."""
        oldest = self._pages[0].created_at
        return [
            at
            for at, run in enumerate(runs)
            if self._ordinal(ids[at]) is None
            and not self._order.is_before(run.created_at, oldest)
            and not (self._forgets and run.created_at == oldest)
        ]

    def _shows_another_order(self, runs: Sequence[JobRun], anchors: Mapping[int, int]) -> bool:
        """Whether runs that were created together now stand in another order than that in which they were consumed."""
        ranks = [anchors.get(at, self.front) for at in range(len(runs))]
        return any(
            ranks[at] < ranks[at - 1] and runs[at].created_at == runs[at - 1].created_at for at in range(1, len(runs))
        )

    def _consume(self, runs: Sequence[JobRun], ids: Sequence[str], end: int) -> Match:
        page = self._numbered(ids)
        if len(page) < len(ids):
            runs = list({run.id: run for run in runs}.values())
            page = self._numbered(list(page))
        self._remember(runs, page)
        return Match(runs, end - self.front)

    def _numbered(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(zip(ids, itertools.count(self.front)))

    def _remember(self, runs: Sequence[JobRun], page: Mapping[str, int]) -> None:
        if not runs:
            return
        self.last = runs[-1]
        self.front += len(runs)
        self._pages.append(_Page(page, runs[0].created_at))
        if self._met is not None:
            self._met.update(page)
        while (
            len(self._pages) > 4
            and sum(len(each.ordinals) for each in itertools.islice(self._pages, 1, None)) >= self._kept
        ):
            self._pages.popleft()
            self._forgets = True

    def _is_last(self, runs: Sequence[JobRun], at: int) -> bool:
        last = self.last
        return last is not None and at < len(runs) and runs[at].id == last.id and runs[at].created_at == last.created_at

    def _is_news(self, ids: Mapping[str, int]) -> bool:
        """Whether none of the ids is among the latest."""
        checked = 0
        for page in reversed(self._pages):
            if not ids.keys().isdisjoint(page.ordinals):
                return False
            checked += len(page.ordinals)
            if checked >= _KEPT:
                break
        return True

    def _ordinal(self, one: str) -> int | None:
        return next((page.ordinals[one] for page in self._pages if one in page.ordinals), None)
