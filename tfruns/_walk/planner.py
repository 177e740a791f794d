"""Which page a walk requests next, which of its runs are new, and when the walk is complete. No I/O.

What a walk promises: every run that exists from its first response to its last is yielded exactly once, in the server's
order, although other runs are created and deleted meanwhile. `frontier` has the one rule that keeps it, for lists
sorted by creation, and `creation` the requests that the rule needs. In other orders runs can change their place, and no
rule holds: `_PlainWalk` reads plain pages, and keeps all ids. Then one `CreationWalk` yields what that didn't find.
"""

import math
from collections.abc import Iterator, Sequence

from tfruns._text import counted
from tfruns._walk.creation import ADVICE, CreationWalk, Guard, New, UnsortedError, WalkEndedError
from tfruns._walk.frontier import Place, Slice
from tfruns._walk.pace import ServerBehaviour
from tfruns._walk.request import PageOrder, PlannedPage, Purpose
from tfruns.errors import IncompleteWalkError
from tfruns.models import RunPage
from tfruns.query import MAX_PAGE_SIZE, RunFilter

_MOST_PASSES_IN_VAIN = 4
_MOST_REPEATED = 8
"""Plain pages end after more responses in a row that hold only what this pass has met before."""


class _PlainWalk:
    """Plain pages of at most `most` runs in all: for orders in which runs can move.

    The ids of what it finds are added to `seen`. If it `overlaps`, pages overlap by a quarter, for runs that move to
    the left meanwhile.
    """

    def __init__(
        self, *, start: int, most: float, page_size: int, seen: set[str], overlaps: bool = False, is_wanted: bool = True
    ) -> None:
        self.done = False
        self.holds_all = False
        """Whether one response held the whole list."""
        self.is_wanted = is_wanted
        """Whether its runs are yielded."""
        self.found: list[float] = []
        """When the new runs were created, counted from new to old."""
        self.least = math.inf
        """The smallest total."""
        self.server = ServerBehaviour()
        self.index = self._next = start
        self.kept: list[Slice] = []
        self._stop = start + most
        self._overlaps = overlaps
        self._page_size = self._size = page_size
        self._seen = seen
        self._guard = Guard()
        self._met: set[str] = set()  # in this pass
        self._repeated = 0  # how many responses in a row held only such runs

    @property
    def wanted(self) -> float:
        """The index up to which pages are requested."""
        return min(math.inf if self.server.understates else self.server.total, self._stop)

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request; None if a response must come first."""
        if not in_flight:
            self._next = self.index
        elif not self._guard.clock or self._next >= self.wanted:
            return None
        limit = int(min(self._size, max(1, self._stop - self._next)))
        page = PlannedPage(
            self, self._next, limit, PageOrder.AS_ASKED, Purpose.AHEAD, self._guard.clock, is_alone=not in_flight
        )
        self._next += max(1, self.server.reach(limit) - (limit // 4 if self._overlaps else 0))
        return page

    def consume(self, request: PlannedPage, page: RunPage) -> list[New]:
        """The runs of a response that weren't seen before."""
        runs, total, said = page.data, page.pagination.total, page.pagination.limit
        self.server.learn(request.offset, request.limit, len(runs), total, said)
        self._guard.count(self.server, request.limit, 0)
        self.least = min(self.least, total)
        self.index = max(self.index, request.offset + len(runs))
        is_short = self.server.is_short(request.limit, len(runs), said)
        if not runs or self.index >= self._stop or (self.index >= total and (is_short or not self.server.understates)):
            self.done = True
            self.holds_all = request.offset == 0 and is_short and not self.server.understates
        if not runs:
            return []
        rows = Slice(request, runs, newest_first=True)
        new = rows.first_entries([at for at, one in enumerate(rows.ids) if one not in self._seen])
        self._seen.update(rows.ids)
        self._repeated = self._repeated + 1 if self._met.issuperset(rows.ids) else 0
        self._met.update(rows.ids)
        self.done |= self._repeated > _MOST_REPEATED
        self._guard.found(len(new), len(rows.keys))
        self.found += [-rows.keys[at] for at in new]
        if 2 * len(new) < len(runs):  # the list grows, or all is known: larger pages
            self._size = max(self._size, min(2 * self._size, MAX_PAGE_SIZE))
        return [(rows, new)] if new else []

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request: it wants smaller pages, or the list ends here."""
        del message
        self._size = self._page_size
        self.done |= request.is_alone and request.limit <= self._page_size


class Planner:
    """The plan of one walk.

    `next_request` returns the page to request next. `consume` takes the responses in the order of the requests, and
    returns the runs to yield.

    Args:
        job_id: for errors.
        filter: which runs are wanted, and in which order.
        start: how many runs to skip first.
        page_size: the most runs to request at once, while the list doesn't change.
        max_runs: how many runs to yield at most; None for all.
        fits_window: whether pages are only as large as the window of the filter needs.
        place: where an earlier walk has stopped, in the order by creation.
    """

    def __init__(
        self,
        *,
        job_id: str,
        filter: RunFilter,  # noqa: A002  # the public name
        start: int,
        page_size: int,
        max_runs: int | None,
        fits_window: bool = False,
        place: Place | None = None,
    ) -> None:
        self.done = max_runs == 0
        self._fits_window = fits_window
        self._job_id = job_id
        self._filter = filter
        self._start = start
        self._page_size = max(3, page_size)  # two runs of a page are the overlap
        self._left = math.inf if max_runs is None else max_runs
        self._yielded = 0
        self._seen: set[str] = set()  # all ids, in other orders than by creation
        self._stages = self._by_creation(place) if filter.is_by_creation else self._by_another_key()
        self._walk = next(self._stages)

    def _by_creation(self, place: Place | None) -> Iterator[CreationWalk | _PlainWalk]:
        window = self._filter
        newest_first = window.is_newest_first if place is None else place.newest_first
        limit = None  # no window ends the walk if the server has another order than the contract
        if newest_first == window.is_newest_first:
            limit = window.created_after if newest_first else window.created_before
        yield CreationWalk(
            order=PageOrder.AS_ASKED,
            newest_first=newest_first,
            start=self._start,
            page_size=self._page_size,
            max_runs=math.inf if window.has_window else self._left,
            place=place,
            ends_at=math.inf if limit is None else -limit if newest_first else limit,
            fits_window=self._fits_window and limit is not None,
            had_runs=place is not None,
            can_be_emptied=window.status is not None,
        )

    def _by_another_key(self) -> Iterator[CreationWalk | _PlainWalk]:
        """The list in the order that is wanted; then, by creation, what has moved meanwhile."""
        most = math.inf if self._filter.has_window else self._left
        first = _PlainWalk(start=self._start, most=most, page_size=self._page_size, seen=self._seen)
        yield first
        if first.holds_all:
            return
        if self._start:
            yield _PlainWalk(start=0, most=self._start, page_size=self._page_size, seen=self._seen, is_wanted=False)
        after = self._filter.created_after
        yield CreationWalk(
            order=PageOrder.NEWEST_FIRST,
            newest_first=True,
            page_size=self._page_size,
            ends_at=math.inf if after is None else -after,
            had_runs=bool(self._seen),
            can_be_emptied=self._filter.status is not None,
        )

    def _unsorted(self) -> Iterator[CreationWalk | _PlainWalk]:
        """Passes over a list that should be sorted by creation, until one brings nothing new and the total agrees."""
        newest, in_vain = math.inf, 0
        while in_vain < _MOST_PASSES_IN_VAIN:
            walk = _PlainWalk(
                start=self._start, most=math.inf, page_size=self._page_size, seen=self._seen, overlaps=True
            )
            yield walk
            in_vain = 0 if any(created_at <= newest for created_at in walk.found) else in_vain + 1
            newest = min(newest, max(walk.found, default=math.inf))
            is_still = walk.least >= walk.server.most
            if in_vain >= 3 - 2 * is_still and self._start + len(self._seen) >= walk.least:
                return
        raise WalkEndedError(
            "the server doesn't sort it by creation, and several passes over it didn't find the rest. " + ADVICE
        )

    @property
    def expected(self) -> int:
        """How many runs the walk yields in all, by what is known now."""
        left = max(0, self._walk.server.total - self._start)
        if self._filter.has_window:
            ahead = 0 if self.done else math.ceil(max(0, min(left, self._walk.wanted - self._walk.index)))
            left = min(left, self._yielded + ahead)
        return int(min(left, self._left))

    @property
    def kept(self) -> Sequence[PlannedPage]:
        """The requests whose responses were kept: `consume` returns their runs later, or never."""
        return [rows.request for rows in self._walk.kept]

    def forget_last_kept(self) -> None:
        """Drop the kept response that is the farthest from the place of the walk: it is requested again, later."""
        self._walk.kept.pop()

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request, beside those in flight; None if a response must come first or the walk is over."""
        if self.done:
            return None
        return self._walk.next_request([page for page in in_flight if page.planned_by is self._walk])

    def consume(self, request: PlannedPage, page: RunPage) -> list[tuple[PlannedPage, Sequence[int], Place | None]]:
        """The runs to yield now, in order: requests, each with the indices of runs in its response.

        And with the place before those runs, from which another walk could go on: in the order by creation alone.

        Raises:
            IncompleteWalkError: the list can't be walked to its end.
        """
        if request.planned_by is not self._walk:
            return []
        found: list[tuple[PlannedPage, Sequence[int], Place | None]] = []
        try:
            for rows, new in self._walk.consume(request, page):
                wanted = self._wanted(rows, new)
                if wanted:
                    last = len(rows.keys) - 1
                    place = rows.before if self._filter.is_by_creation else None
                    found.append((rows.request, [last - at for at in wanted] if rows.is_tail else wanted, place))
            self.done |= self._yielded >= self._left
            if self._walk.done:
                self._go_on()
        except UnsortedError:
            self._walk_plainly()
        except WalkEndedError as error:
            raise self._failure(str(error)) from None
        return found

    def _wanted(self, rows: Slice, new: Sequence[int]) -> Sequence[int]:
        walk, window = self._walk, self._filter
        if isinstance(walk, _PlainWalk):
            new = new if walk.is_wanted else ()
        elif self._seen:
            new = [at for at in new if rows.ids[at] not in self._seen]
            self._seen.update(rows.ids[at] for at in new)
        if window.has_window:
            new = [at for at in new if window.is_within(abs(rows.keys[at]))]
        if len(new) > self._left - self._yielded:
            new = new[: int(self._left) - self._yielded]
        self._yielded += len(new)
        return new

    def _go_on(self) -> None:
        walk = next(self._stages, None)
        if walk is None:
            self.done = True
        else:
            self._walk = walk

    def _walk_plainly(self) -> None:
        walk = self._walk
        assert isinstance(walk, CreationWalk)  # noqa: S101  # for the type checker
        if not self._seen:
            if walk.frontier.all_ids is None:
                raise self._failure(f"the server doesn't sort it by creation. {ADVICE}")
            self._seen.update(walk.frontier.all_ids)
        self._stages = self._unsorted()
        self._go_on()

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request, which wasn't the first of this walk.

        Raises:
            IncompleteWalkError: the list can't be walked on.
        """
        if request.planned_by is self._walk:
            try:
                self._walk.refuse(request, message)
                if self._walk.done:
                    self._go_on()
            except WalkEndedError as error:
                raise self._failure(str(error)) from None

    def _failure(self, what: str) -> IncompleteWalkError:
        total = self._walk.server.total
        return IncompleteWalkError(
            f"the walk failed after {counted(self._yielded, 'run')}: the server says there are {total}, but {what}",
            job_id=self._job_id,
            offset=self._walk.index,
            seen=self._yielded,
            total=total,
        )
