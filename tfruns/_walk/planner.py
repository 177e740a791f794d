"""Which page a walk requests next, which of its runs are new, and when the walk is complete. No I/O.

What a walk promises: every run that exists from its first response to its last is yielded exactly once, in the server's
order, although other runs are created and deleted meanwhile. `frontier` has the one rule that keeps it, for lists
sorted by creation. Here are the requests that the rule needs (`CreationWalk`), and how the end is shown:

- Pages are requested ahead, each overlapping the one before. A response behind a gap is kept, and what lies between
  is requested, centred on its start, while pages are requested ahead as before.
- Where that fails, the place of the frontier is searched for by single requests: responses before it and behind it
  are the bounds (`Search`).
- The list ends with a page that is shorter than the server's pages are, unless a total contradicts it. Where one
  does, a request in the reversed order shows the list's last runs: a slice like others, which joins once the frontier
  is there. From a server that doesn't reverse, what stands behind the frontier is requested.

In other orders runs can change their place, and no rule holds: `PlainWalk` reads plain pages, and keeps all ids. Then
one `CreationWalk` yields what that didn't find.
"""

import math
from collections.abc import Iterator, Sequence

from tfruns._text import counted
from tfruns._walk.frontier import Frontier, Place, Slice
from tfruns._walk.pace import Pace
from tfruns._walk.request import PageOrder, PlannedPage, Purpose
from tfruns._walk.server import ServerBehaviour
from tfruns.errors import IncompleteWalkError
from tfruns.models import RunPage
from tfruns.query import MAX_PAGE_SIZE, RunFilter

_MOST_FRUITLESS = 40
"""The walk fails after more responses in a row without a new run: enough for a binary search in any list."""
_REMEMBERED = 256
"""Of how many runs the ids are kept at least."""
_SUSPICIOUS = 4
"""After so many, the walk may be at the end of the list, whatever the totals say."""
_MOST_REFUSALS = 4
"""The walk fails after so many refused requests in a row, with nothing else in flight."""
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before a list that seems to have become empty is requested again."""
_MOST_PASSES_IN_VAIN = 4
_FEWEST = 50
"""The fewest runs of a page whose size depends on how many runs a window may hold."""

_ADVICE = "The list changes too fast, or the server contradicts itself: try again, or with larger pages"


class UnsortedError(Exception):
    """The server doesn't sort by creation."""


class WalkEndedError(Exception):
    """The list can't be walked to its end; the argument says why."""


New = tuple[Slice, Sequence[int]]
"""A response, and the indices of its runs that are new."""


class Guard:
    """Counts responses, so that a walk that makes no progress ends."""

    def __init__(self) -> None:
        self.clock = 0
        """How many responses were consumed."""
        self._most = 0.0  # how many responses with few new runs the list may take
        self.fruitless = 0
        """How many responses in a row held no new run."""
        self._poor = 0  # how many responses held few

    def count(self, server: ServerBehaviour, page_size: int, widest: int) -> None:
        """Take note of a response, or fail."""
        self.clock += 1
        self.fruitless += 1
        self._poor += 1
        if self.clock == 1:
            self._most = 200 + 20 * server.most / max(1, server.reach(page_size) - 2)
        if self.fruitless > _MOST_FRUITLESS + widest:
            raise WalkEndedError(f"{self.fruitless} responses in a row brought nothing new. {_ADVICE}")
        if self._poor > self._most or self.clock > self._most * (50 if server.understates else 1):
            raise WalkEndedError(f"it doesn't come to an end within {self.clock} responses. {_ADVICE}")

    def found(self, *, much: bool) -> None:
        """The response held a new run; `much` if a good part of it is new."""
        self.fruitless = 0
        self._poor -= much


class Search:
    """The search for the place of the frontier, with nothing else in flight.

    Bounds come from responses that end before it or begin behind it. With one bound it jumps away from it, twice as far
    each time; with two it bisects. Of two that contradict each other, since the list has moved, the older is forgotten.
    """

    def __init__(self) -> None:
        self._low: float | None = None
        self._high: float | None = None
        self._tries = 0

    @property
    def is_on(self) -> bool:
        """Whether there is something to search for."""
        return self._low is not None or self._high is not None

    def move(self, by: float) -> None:
        """The list has moved."""
        self._low = None if self._low is None else self._low + by
        self._high = None if self._high is None else self._high + by

    def lies_behind(self, index: int, *, is_newest: bool) -> None:
        """The place isn't before this index."""
        if self._low is None or is_newest or index > self._low:
            self._low = index
            if self._high is not None and self._high <= index:
                self._high, self._tries = None, 0

    def lies_before(self, index: int, *, is_newest: bool) -> None:
        """The place isn't behind this index."""
        if self._high is None or is_newest or index < self._high:
            self._high = index
            if self._low is not None and self._low >= index:
                self._low, self._tries = None, 0

    def next_offset(self, reach: int, overlap: int) -> int:
        """The offset of the next request, for a page of `reach` runs."""
        jump = (int(2**self._tries) - 1) * reach
        self._tries += 1
        if self._low is not None and self._high is not None:
            return math.floor(self._low + self._high - reach) // 2
        return math.floor(
            self._low - overlap + jump if self._low is not None else (self._high or 0) - reach // 2 - jump
        )


class CreationWalk:
    """The walk over a list that is sorted by creation.

    Args:
        order: how its pages are requested.
        newest_first: whether the newest runs come first then.
        start: how many runs to skip first.
        page_size: the most runs to request at once, while the list doesn't change.
        place: where to go on, if the list isn't read from its start.
        ends_at: the key after which no run is wanted.
        fits_window: whether pages are only as large as the runs up to there need.
        had_runs: whether the list is known to have had runs.
        can_be_emptied: whether a list that had runs may have none.
    """

    def __init__(
        self,
        *,
        order: PageOrder,
        newest_first: bool,
        start: int,
        page_size: int,
        max_runs: float,
        place: Place | None = None,
        ends_at: float = math.inf,
        fits_window: bool = False,
        had_runs: bool = False,
        can_be_emptied: bool = False,
    ) -> None:
        self.done = False
        self.kept: list[Slice] = []
        """The responses behind a gap, sorted by their first keys."""
        self.server = ServerBehaviour()
        self.newest_first = newest_first
        self.frontier = Frontier(place, remembered=_REMEMBERED, skips=start > 0)
        self.index = start if place is None else place.index
        """Where the run behind the frontier stood in the list last."""
        self._order = order
        self._reversed = PageOrder.OLDEST_FIRST if newest_first else PageOrder.NEWEST_FIRST
        self._page_size = page_size
        self._max_runs = max_runs
        self._ends_at = ends_at
        self._fits_window = fits_window and ends_at != math.inf
        self._had_runs = had_runs or place is not None
        self._can_be_emptied = can_be_emptied
        self._pace = Pace(page_size, max(page_size, MAX_PAGE_SIZE))
        self._guard = Guard()
        self._search = Search()
        self._gaps: list[int] = []  # the starts of kept responses, in the list, before which a page is requested next
        self._consumed = self.index  # runs consumed so far, with those before the start
        self._first: tuple[float, int] | None = None  # the key of the first run, and the total then
        self._group = 1  # how many neighbours share a key
        self._lost_at = 0  # the clock when a prediction failed last
        self._tail: Slice | None = None
        self._wants_tail = self._ignores_order = False
        self._bare_at = -1  # the clock when a response, alone, showed the frontier and nothing behind it
        self._empty = 0  # how many single responses in a row were empty for no reason
        self._ends_at_total = False  # whether the server refused a page that reaches beyond the end of the list
        self._refusals, self._refused_from = 0, math.inf

    # --- what to request ---

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request; None if a response must come first."""
        if self._first is None and not self.frontier.has_begun:
            limit = self._page_size if self._max_runs > self._page_size else max(1, int(self._max_runs))
            limit = min(limit, _FEWEST) if self._fits_window else limit
            return None if in_flight else self._planned(Purpose.AHEAD, self.index, limit, in_flight)
        limit = self._pace.limit
        if self._wants_tail and not any(page.purpose is Purpose.TAIL for page in in_flight):
            if not self._ignores_order:
                self._wants_tail = False
                return self._planned(Purpose.TAIL, 0, limit, in_flight)
            if self._bare_at == self._guard.clock:
                self._wants_tail = False
                return self._planned(Purpose.BEHIND, self.index, limit, in_flight)
        if in_flight and (self._search.is_on or len(in_flight) + len(self.kept) >= self._pace.depth):
            return None
        self._pace.widest = max(self._pace.widest, len(in_flight) + 1)
        near = len(self.frontier.near()) + 1 if not in_flight else self._group + 1
        if near >= limit:
            limit = min(2 * near, self._pace.most)
        reach = self.server.reach(limit)
        overlap = min(near + self._pace.margin(reach, self._guard.clock), reach - 1)
        if near >= reach:  # no page can begin before the group: it begins with runs of it that are known
            overlap = max(1, reach // 2)
        purpose = Purpose.AHEAD
        if self._gaps:
            offset, purpose = self._gaps.pop(0) - reach // 2, Purpose.GAP
        elif self._search.is_on:
            offset = self._search.next_offset(reach, overlap) + round(self._pace.rate)
        elif not in_flight:
            offset = self.index + round(self._pace.rate) - overlap
        else:
            # Requests come in the order of the list.
            last = next((page.offset + reach for page in reversed(in_flight) if page.purpose is Purpose.AHEAD), 0)
            end = max(self.index, last, *(rows.end for rows in self.kept))
            if end >= self.wanted:
                return None
            offset = end + round(self._pace.rate) - overlap
        if self._ends_at_total and self._reaches_beyond_the_end(max(0, offset), limit):
            limit = max(2, self.server.total + 1 - max(0, offset))
        if self._fits_window and purpose is Purpose.AHEAD and not self._search.is_on:
            limit = min(limit, overlap + max(_FEWEST, math.ceil(min(limit, 1.1 * (self.wanted - offset - overlap)))))
        return self._planned(purpose, max(0, offset), limit, in_flight, overlap)

    def _planned(
        self, purpose: Purpose, offset: int, limit: int, in_flight: Sequence[PlannedPage], overlap: int = 0
    ) -> PlannedPage:
        order = self._reversed if purpose is Purpose.TAIL else self._order
        pause = _PAUSES[self._empty - 1] if self._empty else 0.0
        return PlannedPage(offset, limit, order, purpose, self._guard.clock, not in_flight, overlap, pause)

    @property
    def wanted(self) -> float:
        """The index up to which pages are requested ahead: about where the first run stands that isn't wanted."""
        end = math.inf if self.server.understates else self.server.total
        end = min(end, self.index + self._max_runs - self._consumed)
        if self._first is not None and self._ends_at != math.inf and self.frontier.key > self._first[0]:
            # Where the first run that isn't wanted stands, if runs were created at a steady rate.
            share = (self._ends_at - self._first[0]) / (self.frontier.key - self._first[0])
            end = min(end, self.index + (share - 1) * self._consumed)
        return end

    def _reaches_beyond_the_end(self, offset: int, limit: int) -> bool:
        """Whether a page is larger than needed: one run beyond the end is, so that it isn't full and shows the end."""
        return not self.server.understates and offset + limit > self.server.total + 1

    # --- what a response contains ---

    def consume(self, request: PlannedPage, page: RunPage) -> list[New]:
        """The new runs of a response, and of those that were kept and now join."""
        runs, total, said = page.data, page.pagination.total, page.pagination.limit
        if request.purpose is not Purpose.TAIL:
            self.server.learn(request.offset, request.limit, len(runs), total, said)
        self._guard.count(self.server, self._page_size, self._pace.widest)
        self._search.move(self._pace.rate)
        if not runs:
            self._consume_nothing(request, total)
            return []
        self._empty = 0
        if request.purpose is Purpose.TAIL:
            return self._consume_tail(request, page)
        if request.purpose is Purpose.BEHIND:
            self._pace.go_alone()  # the list may grow at the end that can't be seen: only the largest pages reach it
        rows = Slice(request, runs, self._sign)
        is_short = self.server.is_short(request.limit, len(runs), said)
        is_end = is_short and rows.end >= self.server.most and not self.server.understates
        if is_end and not self.frontier.has_begun:
            self.done = True  # it holds all runs that are wanted, in whatever order they come
            rows.before = Place(self.newest_first, (), self.index)
            return [(rows, rows.first_entries(range(len(rows))))]
        if self._first is None:
            if (
                not self.frontier.has_begun
                and rows.first > rows.key(-1)
                and rows.times == sorted(rows.times, reverse=self._sign > 0)
            ):
                # The server has another default than the contract. Then no window ends the walk.
                self.newest_first, self._ends_at = not self.newest_first, math.inf
                rows = Slice(request, runs, self._sign)
            self._first = rows.first, total
        if not self.frontier.learn(rows):
            raise UnsortedError
        self._group = max(rows.largest_group(), self._group // 2)
        new = self._take(rows)
        if new is None and self.frontier.is_past(rows):  # it begins at the frontier, and holds only known runs
            self._search.lies_behind(rows.end, is_newest=request.is_alone)
            self.done = request.purpose is Purpose.BEHIND and not self.kept
            return []
        if new is None:
            self._keep(rows)
            return []
        found: list[New] = []
        if new:
            self.index, self._refusals = rows.end, 0
            self._pace.observe(rows.end - self._consumed, request.overlap - new[0], self._guard.clock)
            found = [(rows, new), *self._take_kept()]
            self._search, self._gaps = Search(), self._gaps if self.kept else []
        if (is_end and not self.kept) or (self._tail is not None and self.frontier.is_past(self._tail)):
            self.done = True
        else:
            self._doubt_end(rows, is_short=is_short, found_more=bool(new))
        return found

    @property
    def _sign(self) -> int:
        return -1 if self.newest_first else 1

    def _take(self, rows: Slice) -> Sequence[int] | None:
        before = self.frontier.place(self.index, newest_first=self.newest_first)
        new = self.frontier.take(rows, reach=self.server.reach(self._pace.most))
        if new:
            rows.before = before
            self._consumed += len(new)
            self._guard.found(much=4 * len(new) > len(rows))
            self.done |= self.frontier.key - self.frontier.slack > self._ends_at
        return new

    def _take_kept(self) -> list[New]:
        found: list[New] = []
        while self.kept and (new := self._take(self.kept[0])) is not None:
            rows = self.kept.pop(0)
            if new:
                self.index = rows.end + round(self._pace.rate * (self._guard.clock - rows.request.clock))
                found.append((rows, new))
        return found

    def _keep(self, rows: Slice) -> None:
        """Keep a response behind a gap, and fill the gap."""
        request = rows.request
        before = [each for each in self.kept if each.first <= rows.first]
        is_joined = any(each.last - self.frontier.slack > rows.first for each in before)
        if request.is_alone or (not is_joined and request.purpose is Purpose.GAP) or self._search.is_on:
            self._search.lies_before(request.offset, is_newest=request.is_alone)
            self._lose(request)
        elif not is_joined:
            self._gaps.append(request.offset)
            self._pace.widen_margin()
        if not any(each.last >= rows.last for each in before):
            rows.release_runs()
            self.kept.insert(len(before), rows)

    def _lose(self, request: PlannedPage) -> None:
        if request.clock >= self._lost_at:
            self._pace.lose()
            self._lost_at = self._guard.clock

    def _consume_nothing(self, request: PlannedPage, total: int) -> None:
        if request.purpose is Purpose.BEHIND or (
            self._first is None and not self._had_runs and request.offset >= total
        ):
            self.done = not self.kept
        elif request.purpose is not Purpose.TAIL and (total or self.server.understates) and self.frontier.has_begun:
            end = request.offset if self.server.understates else min(total, request.offset)
            self._search.lies_before(end, is_newest=request.is_alone)
        elif request.is_alone:
            self._empty += 1
            if self._empty > len(_PAUSES):
                if total or not self._can_be_emptied:
                    raise WalkEndedError(
                        f"there is nothing from offset {request.offset} on, in {self._empty} responses in a row"
                    )
                self.done = True

    # --- the end ---

    def _doubt_end(self, rows: Slice, *, is_short: bool, found_more: bool) -> None:
        """A response that joined doesn't show the end of the list: what to do if it looks as if it might."""
        request = rows.request
        if not found_more:
            if rows.last < self.frontier.key:
                self._lose(request)
            self._search.lies_behind(rows.end, is_newest=request.is_alone)
            is_cut = len(rows) < self.server.reach(request.limit)
            if request.is_alone and (is_cut or rows.last == self.frontier.key):
                self._bare_at = self._guard.clock
            is_there = request.is_alone and (is_cut or (self._tail is None and self._guard.fruitless >= _SUSPICIOUS))
            self._wants_tail |= request.purpose is not Purpose.BEHIND and (is_there or rows.end >= self.server.total)
        elif is_short:
            self._wants_tail |= rows.end >= self.server.total
        elif self._first is not None and self._consumed > self._first[1]:
            self._wants_tail |= self._tail is None  # it grows, or its totals are too small
            if not self.server.understates:
                self._pace.go_alone()

    def _consume_tail(self, request: PlannedPage, page: RunPage) -> list[New]:
        tail = Slice(request, page.data, self._sign, is_tail=True)
        is_cut = len(tail) < min(request.limit, page.pagination.total)
        if tail.first > tail.key(-1) or (is_cut and tail.first == tail.last):  # it isn't reversed, or shows no order
            self._ignores_order = self._wants_tail = True
            return []
        if not self.frontier.learn(tail):
            raise UnsortedError
        new = self._take(tail)
        if new is None:
            tail.release_runs()
            self._tail = tail
            return []
        self.done = True
        return [(tail, new)] if new else []

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request.

        It may refuse a page that reaches beyond a certain index, a larger page than before, an offset behind the end,
        or to reverse the list. An offset is refused for good if nothing else was in flight: otherwise it was a
        prediction.
        """
        self._guard.count(self.server, self._page_size, self._pace.widest)
        if request.limit > self._page_size:
            self._pace.limit_pages(request.limit // 2)
            self._wants_tail |= request.purpose is Purpose.TAIL
        elif request.purpose is Purpose.TAIL:
            self._ignores_order = self._wants_tail = True
        elif (
            not self._ends_at_total
            and request.offset < self.server.total
            and self._reaches_beyond_the_end(request.offset, request.limit)
        ):
            self._ends_at_total = True
        else:
            end = request.offset if self.server.understates else min(request.offset, self.server.total)
            self._search.lies_before(end, is_newest=request.is_alone)
            self._refusals += request.is_alone
            self._refused_from = min(self._refused_from, request.offset)
            if self._refusals >= _MOST_REFUSALS or request.offset == 0:
                raise WalkEndedError(
                    f"the server refuses the request at offset {self._refused_from}: {message}. Narrower filters make"
                    " the list shorter, for instance status or version_numbers"
                )


class PlainWalk:
    """Plain pages from one index to another, or to the end of the list: for orders in which runs can move.

    Args:
        start: the first index.
        stop: the index behind the last; None for the end of the list.
        page_size: how many runs to request at once.
        seen: the ids of all runs that were consumed, to which new ones are added.
        overlaps: whether pages overlap by a quarter, for runs that move to the left meanwhile.
    """

    def __init__(
        self, *, start: int, stop: float, page_size: int, max_runs: float, seen: set[str], overlaps: bool = False
    ) -> None:
        self.done = False
        self.holds_all = False
        """Whether one response held the whole list."""
        self.found: list[float] = []
        """When the new runs were created."""
        self.least = math.inf
        """The smallest total."""
        self.server = ServerBehaviour()
        self.index = start
        self.kept: list[Slice] = []
        self.is_skipped = stop != math.inf
        """Whether its runs aren't wanted."""
        self._start = start
        self._stop = stop
        self._overlaps = overlaps
        self._page_size = self._size = page_size
        self._max_runs = max_runs
        self._seen = seen
        self._guard = Guard()
        self._met: set[str] = set()  # in this pass
        self._next = start
        self._fruitless = 0
        self._widest = 1

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request; None if a response must come first."""
        if in_flight:
            end = math.inf if self.server.understates else self.server.total
            end = min(end, self._stop, self._start + self._max_runs)
            if not self._guard.clock or self._next >= end:
                return None
        else:
            self._next = self.index
        limit = int(min(self._size, self._stop - self._next, max(1, self._max_runs)))
        page = PlannedPage(
            self._next, limit, PageOrder.AS_ASKED, Purpose.AHEAD, self._guard.clock, is_alone=not in_flight
        )
        self._next += max(1, self.server.reach(limit) - (limit // 4 if self._overlaps else 0))
        self._widest = max(self._widest, len(in_flight) + 1)
        return page

    def consume(self, request: PlannedPage, page: RunPage) -> list[New]:
        """The runs of a response that weren't seen before."""
        runs, total, said = page.data, page.pagination.total, page.pagination.limit
        self.server.learn(request.offset, request.limit, len(runs), total, said)
        self._guard.count(self.server, request.limit, self._widest)
        self.least = min(self.least, total)
        rows = Slice(request, runs, 1) if runs else None
        is_repeated = rows is None or self._met.issuperset(rows.ids)
        self._fruitless = self._fruitless + 1 if is_repeated else 0
        self._met.update(() if rows is None else rows.ids)
        new: Sequence[int] = [] if rows is None else [at for at, one in enumerate(rows.ids) if one not in self._seen]
        if rows is not None and new:
            new = rows.first_entries(new)
            self._seen.update(rows.ids)
            self.found += [rows.times[at] for at in new]
        self._guard.found(much=2 * len(new) > len(runs))
        if 2 * len(new) < len(runs):  # the list grows, or all is known: larger pages
            self._size = max(self._size, min(2 * self._size, MAX_PAGE_SIZE))
        self.index = max(self.index, request.offset + len(runs))
        is_short = self.server.is_short(request.limit, len(runs), said)
        reaches_end = self.index >= total and (is_short or not self.server.understates)
        if not runs or reaches_end or self.index >= self._stop or self._fruitless > self._widest + 2:
            self.done = True
            self.holds_all = request.offset == 0 and is_short and not self.server.understates
        return [(rows, new)] if rows is not None and new else []

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request: it wants smaller pages, or the list ends here."""
        if request.limit > self._page_size:
            self._size = self._page_size
        elif request.is_alone:
            self.done = True


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
        self._expected: set[PlannedPage] = set()  # what the current walk has requested

    def _by_creation(self, place: Place | None) -> Iterator["CreationWalk | PlainWalk"]:
        window = self._filter
        newest_first = window.is_newest_first if place is None else place.newest_first
        ends_at = window.created_before
        if newest_first:
            ends_at = None if window.created_after is None else -window.created_after
        if newest_first != window.is_newest_first:  # the server has another order than the contract
            ends_at = None
        yield CreationWalk(
            order=PageOrder.AS_ASKED,
            newest_first=newest_first,
            start=self._start,
            page_size=self._page_size,
            max_runs=math.inf if window.has_window else self._left,
            place=place,
            ends_at=math.inf if ends_at is None else ends_at,
            fits_window=self._fits_window,
            can_be_emptied=window.status is not None,
        )

    def _by_another_key(self) -> Iterator["CreationWalk | PlainWalk"]:
        """The list in the order that is wanted; then, by creation, what has moved meanwhile."""
        first = self._plain_walk()
        yield first
        if first.holds_all:
            return
        if self._start:
            yield self._plain_walk(stop=self._start)
        after = self._filter.created_after
        yield CreationWalk(
            order=PageOrder.NEWEST_FIRST,
            newest_first=True,
            start=0,
            page_size=self._page_size,
            max_runs=math.inf,
            ends_at=math.inf if after is None else -after,
            had_runs=bool(self._seen),
            can_be_emptied=self._filter.status is not None,
        )

    def _unsorted(self) -> Iterator["CreationWalk | PlainWalk"]:
        """Passes over a list that should be sorted by creation, until one brings nothing new and the total agrees."""
        newest, in_vain = math.inf, 0
        while in_vain < _MOST_PASSES_IN_VAIN:
            walk = self._plain_walk(overlaps=True)
            yield walk
            in_vain = 0 if any(created_at <= newest for created_at in walk.found) else in_vain + 1
            newest = min(newest, max(walk.found, default=math.inf))
            is_still = walk.least >= walk.server.most
            if in_vain >= 3 - 2 * is_still and self._start + len(self._seen) >= walk.least:
                return
        raise WalkEndedError(
            "the server doesn't sort it by creation, and several passes over it didn't find the rest. " + _ADVICE
        )

    def _plain_walk(self, stop: float = math.inf, *, overlaps: bool = False) -> "PlainWalk":
        most = math.inf if self._filter.has_window or stop != math.inf else self._left
        start = self._start if stop == math.inf else 0
        return PlainWalk(
            start=start, stop=stop, page_size=self._page_size, max_runs=most, seen=self._seen, overlaps=overlaps
        )

    @property
    def expected(self) -> int:
        """How many runs the walk yields in all, by what is known now."""
        walk = self._walk
        left = max(0, walk.server.total - self._start)
        if self._filter.has_window and isinstance(walk, CreationWalk):
            left = (
                self._yielded if self.done else min(left, self._yielded + math.ceil(max(0, walk.wanted - walk.index)))
            )
        return int(min(left, self._left))

    @property
    def kept(self) -> Sequence[PlannedPage]:
        """The requests whose responses were kept: `consume` returns their runs later, or never."""
        return [rows.request for rows in self._walk.kept]

    def forget_last_kept(self) -> None:
        """Drop the kept response that is the farthest from the place of the walk: it is requested again, later."""
        self._walk.kept.pop()

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request; None if a response must come first or the walk is complete.

        Args:
            in_flight: the pages that were requested and not consumed yet.
        """
        if self.done:
            return None
        if len(in_flight) != len(self._expected):
            in_flight = [page for page in in_flight if page in self._expected]
        page = self._walk.next_request(in_flight)
        if page is not None:
            self._expected.add(page)
        return page

    def consume(self, request: PlannedPage, page: RunPage) -> list[tuple[PlannedPage, Sequence[int], Place | None]]:
        """The runs to yield now, in order: requests, each with the indices of runs in its response.

        And with the place before those runs, from which another walk could go on: in the order by creation alone.

        Raises:
            IncompleteWalkError: the list can't be walked to its end.
        """
        found: list[tuple[PlannedPage, Sequence[int], Place | None]] = []
        if request in self._expected:  # otherwise it is of a walk that is over
            self._expected.remove(request)
            try:
                for rows, new in self._walk.consume(request, page):
                    wanted = self._wanted(rows, new)
                    if wanted:
                        last = len(rows) - 1
                        place = rows.before if self._filter.is_by_creation else None
                        wanted = [last - at for at in wanted] if rows.is_tail else wanted
                        found.append((rows.request, wanted, place))
                self.done |= self._yielded >= self._left
                if self._walk.done:
                    self._go_on()
            except UnsortedError:
                self._walk_plainly()
            except WalkEndedError as error:
                raise self._failure(str(error)) from None
        return found

    def _wanted(self, rows: Slice, new: Sequence[int]) -> Sequence[int]:
        if isinstance(self._walk, CreationWalk) and self._seen:
            new = [at for at in new if rows.ids[at] not in self._seen]
            self._seen.update(rows.ids[at] for at in new)
        elif isinstance(self._walk, PlainWalk) and self._walk.is_skipped:
            return ()
        window = self._filter
        if window.has_window:
            new = [at for at in new if window.is_within(rows.times[at])]
        if len(new) > self._left - self._yielded:
            new = new[: int(self._left) - self._yielded]
        self._yielded += len(new)
        return new

    def _go_on(self) -> None:
        self._expected.clear()
        walk = next(self._stages, None)
        if walk is None:
            self.done = True
        else:
            self._walk = walk

    def _walk_plainly(self) -> None:
        walk = self._walk
        assert isinstance(walk, CreationWalk)  # noqa: S101  # for the type checker
        if not self._seen and not walk.frontier.remembers_all:
            raise self._failure(f"the server doesn't sort it by creation. {_ADVICE}")
        self._seen.update(walk.frontier.near(everything=True))
        self._stages = self._unsorted()
        self._go_on()

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request, which wasn't the first of this walk.

        Raises:
            IncompleteWalkError: the list can't be walked on.
        """
        if request in self._expected:
            self._expected.remove(request)
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
