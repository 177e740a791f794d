"""Which page a walk requests next, which of its runs are new, and when the walk is complete. No I/O.

What a walk promises: every run that exists from its first response to its last is yielded exactly once, in the server's
order, although other runs are created and deleted meanwhile. `frontier` has the one rule that keeps it, for lists
sorted by creation, and `creation` the requests that the rule needs. In other orders runs can change their place, and no
rule holds: `_PlainWalk` reads plain pages, and keeps all ids. Then one `CreationWalk` yields what that didn't find.
"""

import math
from collections.abc import Iterator, Sequence

import attrs

from tfruns._text import counted
from tfruns._walk.creation import ADVICE, PAUSES, CreationWalk, Guard, New, UnsortedError, WalkEndedError
from tfruns._walk.frontier import Place, Slice
from tfruns._walk.pace import Pace, ServerBehaviour
from tfruns._walk.request import PageOrder, PlannedPage, Purpose
from tfruns.errors import IncompleteWalkError
from tfruns.models import RunPage
from tfruns.query import RunFilter

_MOST_PASSES = 40
_MOST_PASSES_IN_VAIN = 8
_MOST_IN_VAIN = 16
"""Plain pages end after more responses in a row that bring the end no nearer: a growing list, or runs met before."""


@attrs.define(eq=False, repr=False, kw_only=True)
class _PlainWalk:
    """Plain pages: for orders in which runs can move. The ids of what they hold are added to `seen`."""

    start: int
    most: float = math.inf  # how many runs are read
    page_size: int
    seen: set[str]
    overlaps: bool = False  # whether pages overlap by a quarter, for runs that move to the left meanwhile
    is_wanted: bool = True  # whether its runs are yielded
    had_runs: bool = False  # whether the list is known to have had runs

    done: bool = False
    holds_all: bool = False  # whether one response held the whole list
    found: list[float] = attrs.Factory(list)  # when the new runs were created
    least: float = math.inf  # the smallest total
    server: ServerBehaviour = attrs.Factory(ServerBehaviour)
    index: int = attrs.field(init=False)
    kept: list[Slice] = attrs.Factory(list)
    _next: int = 0
    pace: Pace = attrs.field(init=False)
    guard: Guard = attrs.Factory(Guard)
    _met: set[str] = attrs.Factory(set)  # in this pass
    _in_vain: int = 0  # how many responses in a row brought the end no nearer
    _empty: int = 0  # how many responses in a row were empty for no reason
    _behind: float = math.inf  # how many runs stood behind the last response
    _has_gap: bool = False  # whether what is in flight lies behind a gap

    def __attrs_post_init__(self) -> None:
        self.index, self.pace = self.start, Pace(self.page_size)

    @property
    def wanted(self) -> float:
        """The index up to which pages are requested."""
        return min(self.server.bound, self.start + self.most)

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        if not in_flight:
            self._next = self.index
            if self._has_gap:
                self._has_gap = False
                self.pace.lose()
        elif (
            not self.guard.clock
            or self._has_gap
            or self._empty
            or self._next >= self.wanted
            or len(in_flight) >= self.pace.depth
        ):
            return None
        self.pace.most_in_flight = max(self.pace.most_in_flight, len(in_flight) + 1)
        limit = int(min(self.pace.limit, max(1, self.start + self.most - self._next)))
        pause = PAUSES[self._empty - 1] if self._empty else 0.0
        alone = not in_flight
        page = PlannedPage(self, self._next, limit, PageOrder.AS_ASKED, Purpose.AHEAD, is_alone=alone, pause=pause)
        reach = self.server.reach(limit)
        self._next += max(1, reach - (reach // 4 if self.overlaps else 0))
        return page

    def consume(self, request: PlannedPage, page: RunPage) -> list[New]:
        runs, total, stated_limit = page.data, page.pagination.total, page.pagination.limit
        is_short = self.server.learn(request.offset, request.limit, len(runs), total, stated_limit)
        self.guard.count(self.server, request.limit, self.pace.most_in_flight)
        if request.offset > self.index:  # a page before it was cut: it is requested again, after the rest of that
            self._has_gap = True
            return []
        if self._is_doubtful(request, len(runs), total):
            return []
        self._empty = 0
        self.least = min(self.least, total)
        self.index = max(self.index, request.offset + len(runs))
        if not runs or self.index >= self.start + self.most or (self.index >= total and is_short):
            self.done = True
            self.holds_all = request.offset == 0 and is_short and not self.server.understates
        if not runs:
            return []
        rows = Slice(request, runs, newest_first=True)
        new = rows.first_entries([at for at, one in enumerate(rows.ids) if one not in self.seen])
        self.seen.update(rows.ids)
        self.guard.found(len(new), len(runs))
        self.found += [rows.times[at] for at in new]
        behind, self._behind = self._behind, total - self.index
        if 2 * len(new) < len(runs) or self._behind >= behind:  # all is known, or the list grows: larger pages
            self.pace.lose()
        is_inside = self.index < total or 2 * len(runs) > self.server.reach(request.limit)
        is_nearer = is_inside and self._behind < max(1, behind) and not self._met.issuperset(rows.ids)
        self._met.update(rows.ids)
        self._in_vain = 0 if is_nearer else self._in_vain + 1
        self.done |= self._in_vain > _MOST_IN_VAIN
        return [(rows, new)] if new else []

    def _is_doubtful(self, request: PlannedPage, length: int, total: int) -> bool:
        """Whether a response is empty where runs should be, and wasn't so often enough."""
        if length or self.server.understates or request.offset >= (total or max(self.server.most, self.had_runs)):
            return False
        self._empty += 1
        return self._empty <= (1 if total else len(PAUSES))

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request: it wants smaller pages, or the list ends here."""
        del message
        self.guard.count(self.server, request.limit, self.pace.most_in_flight)
        self.pace.limit_pages(request.limit // 2)
        self._has_gap = True  # what is requested behind it waits, until it is alone
        self.done |= request.is_alone and request.limit <= self.page_size


@attrs.define(eq=False, repr=False, kw_only=True)
class Planner:
    """The plan of one walk, which consumes the responses in the order of the requests."""

    job_id: str
    filter: RunFilter
    start: int
    page_size: int
    max_runs: int | None
    fits_window: bool = False  # whether pages are only as large as the window of the filter needs
    place: Place | None = None  # where an earlier walk has stopped, in the order by creation

    done: bool = attrs.field(init=False)
    _left: float = attrs.field(init=False)
    _yielded: int = 0
    _seen: set[str] = attrs.Factory(set)  # all ids, in other orders than by creation
    _stages: Iterator[CreationWalk | _PlainWalk] = attrs.field(init=False)
    _walk: CreationWalk | _PlainWalk = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = self.max_runs == 0
        self.page_size = max(3, self.page_size)  # two runs of a page are the overlap
        self._left = math.inf if self.max_runs is None else self.max_runs
        self._stages = self._by_creation() if self.filter.is_by_creation else self._by_another_key()
        self._walk = next(self._stages)

    def _by_creation(self) -> Iterator[CreationWalk | _PlainWalk]:
        window, place = self.filter, self.place
        newest_first = window.is_newest_first if place is None else place.newest_first
        limit = None  # no window ends the walk if the server has another order than the contract
        if newest_first == window.is_newest_first:
            limit = window.created_after if newest_first else window.created_before
        yield CreationWalk(
            order=PageOrder.AS_ASKED,
            newest_first=newest_first,
            start=self.start,
            page_size=self.page_size,
            max_runs=math.inf if window.has_window else self._left,
            place=place,
            ends_at=math.inf if limit is None else -limit if newest_first else limit,
            fits_window=self.fits_window and limit is not None,
            had_runs=place is not None,
            filter=window,
        )

    def _by_another_key(self) -> Iterator[CreationWalk | _PlainWalk]:
        """The list in the order that is wanted; then, by creation, what has moved meanwhile."""
        most = math.inf if self.filter.has_window else self._left
        first = _PlainWalk(start=self.start, most=most, page_size=self.page_size, seen=self._seen)
        yield first
        if first.holds_all and self._seen:
            return
        if self.start:
            yield _PlainWalk(start=0, most=self.start, page_size=self.page_size, seen=self._seen, is_wanted=False)
        after = self.filter.created_after
        yield CreationWalk(
            order=PageOrder.NEWEST_FIRST,
            newest_first=True,
            page_size=self.page_size,
            ends_at=math.inf if after is None else -after,
            had_runs=bool(self._seen),
            known=-max(first.found, default=math.inf),
            server=first.server,
            claims=0 if self._seen else 1,
            filter=self.filter,
        )

    def _unsorted(self) -> Iterator[CreationWalk | _PlainWalk]:
        """Passes over a list that should be sorted by creation, until one brings nothing new and the total agrees."""
        newest, in_vain, passes = math.inf, 0, 0
        while in_vain < _MOST_PASSES_IN_VAIN and passes < _MOST_PASSES:
            walk = _PlainWalk(start=self.start, page_size=self.page_size, seen=self._seen, overlaps=True, had_runs=True)
            yield walk
            passes += 1
            in_vain = 0 if any(created_at <= newest for created_at in walk.found) else in_vain + 1
            newest = min(newest, max(walk.found, default=math.inf))
            is_still = walk.least >= walk.server.most
            if in_vain >= 3 - 2 * is_still and self.start + len(self._seen) >= walk.least:
                return
        raise WalkEndedError(
            "the server doesn't sort it by creation, and several passes over it didn't find the rest. " + ADVICE
        )

    @property
    def expected(self) -> int:
        """How many runs the walk yields in all, by what is known now."""
        left = max(0, self._walk.server.total - self.start)
        if self.filter.has_window:
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
        """
        if request.planned_by is not self._walk:
            return []
        found: list[tuple[PlannedPage, Sequence[int], Place | None]] = []
        try:
            for rows, new in self._walk.consume(request, page):
                wanted = self._wanted(rows, new)
                if wanted:
                    last = len(rows.times) - 1
                    place = rows.before if self.filter.is_by_creation else None
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
        walk, window = self._walk, self.filter
        if isinstance(walk, _PlainWalk):
            new = new if walk.is_wanted else ()
        elif self._seen:
            new = [at for at in new if rows.ids[at] not in self._seen]
            self._seen.update(rows.ids[at] for at in new)
        if window.has_window:
            first, end = window.window
            new = [at for at in new if first <= rows.times[at] < end]
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
        """The server refused the request, which wasn't the first of this walk."""
        if request.planned_by is self._walk:
            try:
                self._walk.refuse(request, message)
                if self._walk.done:
                    self._go_on()
            except WalkEndedError as error:
                raise self._failure(str(error)) from None

    def shrink(self, page_size: int, most: int) -> None:
        """Go on with smaller pages, of at most so many runs, and with nothing in flight."""
        walk = self._walk
        self.page_size = walk.page_size = walk.pace.page_size = min(self.page_size, page_size)
        walk.pace.limit_pages(most)
        walk.guard = Guard(walk.guard.clock)  # more responses are needed
        walk.kept.clear()

    def _failure(self, what: str) -> IncompleteWalkError:
        total = self._walk.server.total
        return IncompleteWalkError(
            f"the walk failed after {counted(self._yielded, 'run')}: the server says there are {total}, but {what}",
            job_id=self.job_id,
            offset=self._walk.index,
            seen=self._yielded,
            total=total,
        )
