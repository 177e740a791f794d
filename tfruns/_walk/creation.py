"""The walk over a list that is sorted by creation: the requests that the rule of `frontier` needs, and the end. No I/O.

- Pages are requested ahead, each overlapping the one before. A response behind a gap is kept, and what lies between
  is requested, centred on its start, while pages are requested ahead as before.
- Where that fails, the place of the frontier is searched for by single requests: responses before it and behind it
  are the bounds (`_Search`).
- The list ends with a page that is shorter than the server's pages are, unless a total contradicts it. Where one
  does, a request in the reversed order shows the list's last runs: a slice like others, which joins once the frontier
  is there. From a server that doesn't reverse, what stands behind the frontier is requested.
"""

import math
from collections.abc import Sequence

import attrs

from tfruns._walk.frontier import SEVERAL, Frontier, Place, Slice
from tfruns._walk.pace import Pace, ServerBehaviour
from tfruns._walk.request import PageOrder, PlannedPage, Purpose
from tfruns.models import RunPage
from tfruns.query import RunFilter

_MOST_FRUITLESS = 40
"""The walk fails after more responses in a row without a new run: enough for a binary search in any list."""
_MOST_REFUSALS = 8
"""The walk fails after so many refused requests in a row, with nothing else in flight."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before what says that runs are gone is requested again: so many responses in a row aren't believed."""
_FEW_DOUBTS = 2
"""So many of these, where only the total says that runs are gone."""
_LEAST_RESPONSES = 200
"""So many responses a list may take, however short it seems to be."""
_TAIL_EVERY = 256
"""After so many responses the last runs of the list are requested, if it may grow at its end."""
_FEWEST = 50
"""The fewest runs of a page whose size depends on how many runs a window may hold."""

ADVICE = "The list changes too fast, or the server contradicts itself: try again, or with larger pages"


class UnsortedError(Exception):
    """The server doesn't sort by creation."""


class WalkEndedError(Exception):
    """The list can't be walked to its end; the argument says why."""


New = tuple[Slice, Sequence[int]]
"""A response, and the indices of its runs that are new."""


@attrs.define
class Guard:
    """Counts responses, so that a walk that makes no progress ends."""

    clock: int = 0  # how many responses were consumed
    _fruitless: int = 0  # how many in a row held no new run
    _poor: int = 0  # how many held few
    _most: float = 0.0  # how many such the list may take

    def count(self, server: ServerBehaviour, page_size: int, most_in_flight: int) -> None:
        """Take note of a response, or fail."""
        self.clock += 1
        self._fruitless += 1
        self._poor += 1
        if self._most <= _LEAST_RESPONSES:  # no total above 0 was seen yet
            self._most = _LEAST_RESPONSES + 20 * server.most / max(1, server.reach(page_size) - 2)
        if self._fruitless > _MOST_FRUITLESS + 2 * most_in_flight:
            raise WalkEndedError(f"{self._fruitless} responses in a row brought nothing new. {ADVICE}")
        if self._poor > self._most or self.clock > self._most * (50 if server.understates else 1):
            raise WalkEndedError(f"it doesn't come to an end within {self.clock} responses. {ADVICE}")

    def found(self, new: int, length: int) -> None:
        """So many of the runs of that response are new, or of one before it that was kept."""
        self._fruitless = 0
        self._poor -= 4 * new > length


@attrs.define
class _Search:
    """The search for the index behind the frontier, with nothing else in flight.

    Bounds come from responses that end before it, or begin too far behind to join. With one bound it jumps away from
    it, twice as far each time; with two it bisects. Of two that contradict each other, since the list has moved, the
    older is forgotten.
    """

    low: float = -math.inf
    high: float = math.inf
    _tries: int = 0

    @property
    def is_on(self) -> bool:
        return self.low > -math.inf or self.high < math.inf

    def lies_behind(self, index: float) -> None:
        """The place isn't before this index."""
        self.low = index
        if self.high <= self.low:
            self.high, self._tries = math.inf, 0

    def lies_before(self, index: float) -> None:
        """The place isn't behind this index."""
        self.high = index
        if self.low >= self.high:
            self.low, self._tries = -math.inf, 0

    def next_offset(self, reach: int, overlap: int) -> int:
        """The offset of the next request, for a page of `reach` runs."""
        jump = (int(2**self._tries) - 1) * reach
        self._tries += 1
        if self.low == -math.inf:
            return math.floor(self.high) - (reach + overlap) // 2 - jump
        if self.high == math.inf:
            return math.floor(self.low) - overlap + jump
        return math.floor(self.low + self.high - reach - overlap) // 2


def _least_overlap(known: int, reach: int) -> int:
    """With how many known runs a page joins: all at the frontier and one before; or a few, if it can't hold so many."""
    return known + 1 if known + 1 < reach else min(SEVERAL, reach - 1)


@attrs.define(eq=False, repr=False, kw_only=True)
class CreationWalk:
    page_size: int
    order: PageOrder
    newest_first: bool  # whether the newest runs come first in this order
    ends_at: float  # the key after which no run is wanted
    filter: RunFilter
    had_runs: bool = False  # whether the list is known to have had runs
    known: float = -math.inf  # the first key that the list is known to have had
    start: int = 0
    max_runs: float = math.inf
    place: Place | None = None  # where to go on, if the list isn't read from its start
    fits_window: bool = False  # whether pages are only as large as the runs up to `ends_at` need

    done: bool = False
    kept: list[Slice] = attrs.Factory(list)  # the responses behind a gap, sorted by their first keys
    server: ServerBehaviour = attrs.Factory(ServerBehaviour)
    frontier: Frontier = attrs.field(init=False)
    index: int = attrs.field(init=False)  # where the run behind the frontier stood in the list last
    pace: Pace = attrs.field(init=False)
    _consumed: int = attrs.field(init=False)  # runs consumed so far, with those before the start
    guard: Guard = attrs.Factory(Guard)
    _search: _Search = attrs.Factory(_Search)
    _gaps: list[int] = attrs.Factory(list)  # the starts of kept responses before which a page is requested next
    _first: tuple[float, int] | None = None  # the key of the first run, and the total then
    _turned_at: int = 0  # the runs up to the end of the first page, if the list seems to have the order of its rows
    _group: int = 1  # how many runs of the newest response share a key
    _next: Purpose = Purpose.AHEAD  # TAIL or BEHIND: the end is in doubt; requested once nothing is in flight
    _is_exact: bool = False  # whether the next page BEHIND begins with no known run
    _tail: Slice | None = None
    _reverses: bool = True  # whether the server does, as far as it is known
    claims: int = 0  # how many single responses in a row said that runs are gone
    _refusals: int = 0  # how many requests in a row were refused with nothing else in flight
    _refused_from: float = math.inf

    def __attrs_post_init__(self) -> None:
        self.frontier = Frontier(self.place, skips=self.start > 0)
        self.index = self._consumed = self.start if self.place is None else self.place.index
        self.pace = Pace(self.page_size)
        if self.place is not None and not self.newest_first:
            self.server.most = self.place.index  # an older state lacks the newest

    # --- what to request ---

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        limit = self.pace.limit
        is_first = not self.frontier.has_begun
        if in_flight and (
            is_first
            or self._next is not Purpose.AHEAD
            or self._search.is_on
            or len(in_flight) + len(self.kept) >= self.pace.depth
        ):
            return None
        if is_first:
            limit = min(_FEWEST, self.page_size) if self.fits_window else self.page_size
            return self._planned(Purpose.AHEAD, self.index, int(min(limit, max(1, self.max_runs))), in_flight)
        purpose, self._next = self._next, Purpose.AHEAD
        if purpose is Purpose.TAIL:
            return self._planned(purpose, 0, limit, in_flight)
        self.pace.most_in_flight = max(self.pace.most_in_flight, len(in_flight) + 1)
        known = self._group if in_flight else len(self.frontier.near())
        if known + 1 >= limit:
            limit = min(2 * known + 2, self.pace.most)
        reach = self.server.reach(limit)
        overlap = min(_least_overlap(known, reach) + self.pace.margin(reach), reach - 1)
        if purpose is Purpose.BEHIND:
            end = int(self._search.low if self._search.low > -math.inf else self.index)
            overlap = 0 if self._is_exact else reach // 2
            return self._planned(purpose, end - overlap, limit, in_flight, overlap)
        if self._gaps:
            return self._planned(Purpose.GAP, self._gaps.pop(0) - reach // 2, limit, in_flight, overlap)
        rate = round(self.pace.rate)
        if self._search.is_on:
            offset = self._search.next_offset(reach, overlap) + rate
            return self._planned(Purpose.AHEAD, offset, limit, in_flight, overlap)
        end = self.index
        if in_flight:  # they are in the order of the list
            newest = next((page.offset + reach for page in reversed(in_flight) if page.purpose is Purpose.AHEAD), end)
            end = max(end, newest, *(rows.end for rows in self.kept))
        if in_flight and end >= self.wanted:
            return None
        offset = end + rate - overlap
        if self.fits_window:
            limit = min(limit, overlap + max(_FEWEST, math.ceil(min(limit, 1.1 * (self.wanted - offset - overlap)))))
        return self._planned(Purpose.AHEAD, offset, limit, in_flight, overlap)

    def _planned(
        self, purpose: Purpose, offset: int, limit: int, in_flight: Sequence[PlannedPage], overlap: int = 0
    ) -> PlannedPage:
        order = self.order
        if purpose is Purpose.TAIL:
            order = PageOrder.OLDEST_FIRST if self.newest_first else PageOrder.NEWEST_FIRST
        pause = PAUSES[self.claims - 1] if self.claims and (self.server.most or self.had_runs) else 0.0
        return PlannedPage(self, max(0, offset), limit, order, purpose, not in_flight, overlap, pause)

    @property
    def wanted(self) -> float:
        """The index up to which pages are requested ahead: about where the first run stands that isn't wanted."""
        end = min(self.server.bound, self._refused_from, self.index + self.max_runs - self._consumed)
        if self._first is not None and self.ends_at != math.inf and self.frontier.key > self._first[0]:
            # Where the first run that isn't wanted stands, if runs were created at a steady rate.
            share = (self.ends_at - self._first[0]) / (self.frontier.key - self._first[0])
            end = min(end, self.index + (share - 1) * self._consumed)
        return end

    # --- what a response contains ---

    def consume(self, request: PlannedPage, page: RunPage) -> list[New]:
        """The new runs of a response, and of those that were kept and now join."""
        runs, total, stated_limit = page.data, page.pagination.total, page.pagination.limit
        is_tail = request.purpose is Purpose.TAIL
        is_short = not is_tail and self.server.learn(request.offset, request.limit, len(runs), total, stated_limit)
        self.guard.count(self.server, self.page_size, self.pace.most_in_flight)
        if not runs:
            self._consume_nothing(request, total)
            return []
        rows = Slice(request, runs, newest_first=self.newest_first, is_tail=is_tail)
        is_end = is_short and rows.end >= self.server.most and not self.server.understates
        if is_end and not self.frontier.has_begun:
            self.done = True  # it holds all runs that are wanted, in whatever order they come
            rows.before = Place(self.newest_first, (), self.index)
            return [(rows, rows.first_entries(range(len(runs))))]
        if self._first is None:
            if not self.frontier.has_begun and rows.falls():  # the server has another default than the contract
                self._turned_at = self._consumed + len(runs)
                self.newest_first, self.ends_at = not self.newest_first, math.inf  # then no window ends the walk
                rows = Slice(request, runs, newest_first=self.newest_first)
            self._first = rows.first, total
        # A page of a single key, or nearly, shows no order, and no end: more such runs may stand beside it.
        if is_tail and rows.keys[-1] - rows.first <= rows.largest_fall() and max(len(runs), total) > 1:
            self._reverses = False
            return []
        # In a list that begins with the oldest runs, none comes before the first one.
        is_behind = self.place is None and not self.newest_first and not is_tail and request.offset > self.start
        if not self.frontier.learn(rows) or (is_behind and rows.first < self._first[0] - self.frontier.slack):
            raise UnsortedError
        if self._lacks_start(rows, total):
            return []
        self._group = rows.largest_group()
        new = self._take(rows)
        if is_tail:
            self._consume_tail(rows, total, new)
            return [(rows, new)] if new else []
        self.claims = 0
        if new is None and not self.frontier.is_past(rows):
            self._keep(rows)
            return []
        found: list[New] = []
        if new:
            self.index = rows.end
            self.pace.observe(rows.end - self._consumed, request.overlap - new[0], self.guard.clock)
            found = [(rows, new), *self._take_kept()]
            self._search, self._gaps = _Search(), self._gaps if self.kept else []
        else:
            self._search.lies_behind(rows.end)
            if new is not None and rows.last < self.frontier.key:
                self.pace.lose()
        is_past_tail = self._tail is not None and self.frontier.is_past(self._tail)
        is_behind_all = all(each.last <= self.frontier.key for each in self.kept)
        shows_end = is_end and new is not None and self._tail is None and is_behind_all
        self.done |= is_past_tail or shows_end
        if self.done and self._consumed == self._turned_at < total:
            raise UnsortedError  # nothing joined the first page: only the rows of each page are in that order
        self._doubt_end(rows, total, is_short=is_short, found_more=bool(new))
        return found

    def _take(self, rows: Slice) -> Sequence[int] | None:
        near, slack = self.frontier.near(), self.frontier.slack
        new = self.frontier.take(rows, near, reach=self.server.reach(self.pace.most))
        if new:
            times = tuple((one, abs(key)) for one, key in near.items())
            rows.before = Place(self.newest_first, times, self.index, slack)
            self._consumed += len(new)
            self.guard.found(len(new), len(rows.times))
            self._refusals = 0
            self.done |= self.frontier.key - self.frontier.slack > self.ends_at
        return new

    def _take_kept(self) -> list[New]:
        found: list[New] = []
        while self.kept and (new := self._take(self.kept[0])) is not None:
            rows = self.kept.pop(0)
            if new:
                self.index += len(new)  # it stands where it was found by the response before
                found.append((rows, new))
        self.kept = [rows for rows in self.kept if not self.frontier.is_past(rows)]
        return found

    def _keep(self, rows: Slice) -> None:
        """Keep a response behind a gap, and fill the gap."""
        request = rows.request
        before = [each for each in self.kept if each.first <= rows.first]
        is_joined = any(each.last - self.frontier.slack > rows.first for each in before)
        if request.is_alone or request.purpose is Purpose.GAP or self._search.is_on:
            overlap = _least_overlap(len(self.frontier.near()), self.server.reach(request.limit))
            self._search.lies_before(request.offset + overlap)
            self.pace.lose()
        elif not is_joined:
            self._gaps.append(request.offset)
            self.pace.widen_margin()
        if not any(each.last >= rows.last for each in before):
            rows.ids  # noqa: B018  # so that its runs take no memory
            self.kept.insert(len(before), rows)

    # --- the end ---

    def _doubt_end(self, rows: Slice, total: int, *, is_short: bool, found_more: bool) -> None:
        """Find out whether the list ends here, if it may and nothing shows it."""
        request = rows.request
        is_bare = request.is_alone and not found_more
        is_cut = len(rows.times) < self.server.reach(request.limit)
        has_grown = self._first is not None and self._consumed > self._first[1]  # or its totals are too small
        if has_grown and found_more and not self.server.understates:
            self.pace.go_alone()
        if self._reverses:
            is_due = self.guard.clock % _TAIL_EVERY == 0 and not self.newest_first  # lest a growing list has no end
            if (is_bare and is_cut) or (self._tail is None and (is_bare or is_short or has_grown or is_due)):
                self._next = Purpose.TAIL
        elif is_bare and (is_cut or rows.last == self.frontier.key):
            shows_group = rows.begins_list or rows.first < self.frontier.key - self.frontier.slack <= rows.last
            self.done |= shows_group and is_cut and rows.end >= self.server.bound and not self.kept
            # If the next shows known runs and no more, too, it may be cut: then only an empty response shows the end.
            self._next, self._is_exact = Purpose.BEHIND, is_cut and request.purpose is Purpose.BEHIND

    def _consume_tail(self, rows: Slice, total: int, new: Sequence[int] | None) -> None:
        """The last runs of the list: it ends where they end, unless an older state, which lacks the newest, says so."""
        is_fewer = total < self.server.most and not self.newest_first
        is_older = is_fewer and (rows.last < self.frontier.key or self._consumed < self.server.recent)
        doubts = 0
        if is_older:
            doubts = len(PAUSES)
        elif is_fewer and not self.server.understates:
            doubts = _FEW_DOUBTS
        if new is None:
            self._tail = self._tail if is_older else min(self._tail or rows, rows, key=lambda each: each.last)
        elif self._is_doubted(rows.request, doubts):
            self._next = Purpose.TAIL
        else:
            self.done = True

    def _lacks_start(self, rows: Slice, total: int) -> bool:
        """Whether the list begins behind known runs, and this isn't believed yet: an older state lacks the newest."""
        if not (self.newest_first and rows.begins_list):
            return False
        doubts = _FEW_DOUBTS if total < self.server.most and not self.frontier.has_begun else 0
        if -math.inf < max(self.known, self.frontier.key) < min(rows.keys):
            doubts = len(PAUSES)
        return doubts > 0 and self._is_doubted(rows.request, doubts)

    def _is_doubted(self, request: PlannedPage, most: int) -> bool:
        """Whether what a response says isn't believed yet: so many single ones in a row, or fewer, have said it."""
        self.claims += request.is_alone
        return self.claims <= most

    def _consume_nothing(self, request: PlannedPage, total: int) -> None:
        has_runs = total > 0 or self.server.understates
        if not self.frontier.has_begun and not self.had_runs and request.offset >= total:
            self.done = not self._is_doubted(request, 1)
        elif (
            request.purpose is Purpose.BEHIND
            and not request.overlap
            and (request.offset <= total or self.server.understates)
        ):
            self.done = not self.kept or not self._is_doubted(request, len(PAUSES))
            self._next = Purpose.BEHIND
        elif request.purpose is not Purpose.TAIL and has_runs and self.frontier.has_begun:
            self._search.lies_before(min(self.server.bound, request.offset))
        elif request.is_alone and not self._is_doubted(request, len(PAUSES)):
            had_runs = self.frontier.has_begun or self.had_runs
            by_status = self.filter.status is not None  # which runs leave meanwhile
            self.done = by_status and not total if had_runs else self.filter.is_narrow
            if not self.done:
                raise WalkEndedError(
                    f"there is nothing from offset {request.offset} on, in {self.claims} responses in a row"
                )

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request: too large a page, an offset behind what it gives, or the reversed order.

        An offset is refused for good if nothing else was in flight: otherwise it was a prediction.
        """
        self.guard.count(self.server, self.page_size, self.pace.most_in_flight)
        if request.limit > self.page_size and request.offset < self.server.bound:
            self.pace.limit_pages(request.limit // 2)
            self._next = request.purpose if request.purpose is Purpose.TAIL else self._next
        elif request.purpose is Purpose.TAIL:
            self._reverses = False
        else:
            self._search.lies_before(min(self.server.bound, request.offset))
            self._refusals += request.is_alone
            self._refused_from = min(self._refused_from, request.offset)
            if self._refusals >= _MOST_REFUSALS or request.offset == 0:
                raise WalkEndedError(
                    f"the server refuses the request at offset {self._refused_from}: {message}. Narrower filters make"
                    " the list shorter, for instance status or version_numbers"
                )
