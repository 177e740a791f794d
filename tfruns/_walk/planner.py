"""Which page a walk requests next, which of its runs are new, and when the walk is complete. No I/O.

What a walk promises: every run that exists from its first response to its last is yielded exactly once, in the
server's order, although other runs are created and deleted meanwhile. Offsets alone can't promise that: a deleted run
moves the rest of the list to the left, past the reader's place; a new one moves it to the right. These modules do it
instead; each explains its rules:

- `anchor`: a response counts only if it holds a run that was consumed before, and only from that run on. So each page
  overlaps the previous one.
- `pace`: how far the list has moved, how much pages overlap, and how many requests are in flight.
- `search`: a response without an anchor is dropped. Once nothing is in flight, single requests search for the last
  consumed run, around the place where it should be.
- `traits`: which totals and limits can be relied on. `Planner._is_end` decides with them whether a page is the last.
- `passes`: orders in which a run can change its place, or in which many runs have equal keys. In these the ids of all
  runs are kept, and the list is walked again for runs that the total shows missing.
- `ProgressGuard`: it makes sure that every walk ends.
"""

import math
from collections.abc import Sequence

import attrs

from tfruns._text import counted
from tfruns._walk.anchor import Anchor, Match
from tfruns._walk.order import Order
from tfruns._walk.pace import Pace
from tfruns._walk.passes import Passes
from tfruns._walk.search import Search
from tfruns._walk.traits import ServerTraits
from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, RunPage
from tfruns.query import MAX_PAGE_SIZE, RunFilter

_MOST_FRUITLESS = 40
"""The walk fails after more responses in a row without a new run: enough for a binary search in any list."""

_EMPTY_IN_A_ROW = 10
"""If a list had runs, so many responses in a row have to say that it is empty: a server may fail for a moment."""

_ADVICE = "The list changes too fast, or the server contradicts itself: try again, or with larger pages"


@attrs.frozen
class PlannedPage:
    """A page to request."""

    offset: int
    limit: int
    gain: int
    """How many of its runs are expected to be new."""
    shift: int
    """The expected index of a run, minus its ordinal."""
    clock: int
    """How many responses were consumed before it was requested."""
    pass_number: int
    """The number of the pass that it belongs to."""
    is_alone: bool
    """Whether nothing else was in flight when it was requested."""


class ProgressGuard:
    """Counts responses, so that a walk that makes no progress ends."""

    def __init__(self) -> None:
        self.responses = 0
        """How many were consumed: the clock of the walk."""
        self.fruitless = 0
        """How many responses in a row held no new run."""
        self._pages = 0.0  # how many pages the list had when the walk began

    def count(self, pages: float = 0) -> None:
        """Take note of a response; by its total the list has so many pages."""
        self.responses += 1
        self.fruitless += 1  # the planner sets it to 0 when new runs are found
        if self.responses == 1:
            self._pages = pages

    def is_too_long(self, *, understates: bool) -> bool:
        """Whether the list seems to grow without end. (A total that is too small says little about its length.)"""
        return self.responses > (200 + 20 * self._pages) * (50 if understates else 1)


class Planner:
    """The plan of one walk.

    `next_request` returns the page to request next. `consume` takes the responses in the order of the requests, and
    returns the runs to yield.

    Args:
        job_id: for errors.
        start: how many runs to skip first.
        page_size: the most runs to request at once, while the list doesn't change.
        max_runs: how many runs to yield at most; None for all.
        by_creation: whether the list is sorted by creation, one way or the other.
        window: the wanted times of creation, if not all are wanted. If the newest runs come first, the walk ends at the
            first run that is too old, unless the responses show another order.
        keeps_ids: whether the ids of all runs are kept, and the list is walked again for missing runs: for orders in
            which runs can change their place, or in which many runs have equal keys.
    """

    def __init__(
        self,
        *,
        job_id: str,
        start: int,
        page_size: int,
        max_runs: int | None,
        by_creation: bool,
        keeps_ids: bool,
        window: RunFilter | None = None,
    ) -> None:
        self.done = max_runs == 0
        self._job_id = job_id
        self._start = start
        self._page_size = max(2, page_size)  # one run of each page is the overlap
        self._max_runs = max_runs
        self._window = window
        self._first_created_at: float | None = None
        self._order = Order(by_creation)
        self._pace = Pace(self._page_size, MAX_PAGE_SIZE)
        self._traits = ServerTraits()
        self._guard = ProgressGuard()
        self._passes = Passes(start) if keeps_ids else None
        self._empty = 0  # how many responses in a row, with nothing else in flight, said that the list is empty
        self._ends_at_total = False  # whether the server refused a page that reaches beyond the end of the list
        self._total_at_anchor = 0  # the total of the response in which an anchor was found last
        self._lost_at = 0  # the clock when the anchor was lost last
        self._yielded = 0
        self._begin()

    def _begin(self) -> None:
        met = self._passes.begin() if self._passes else None
        self._anchor = Anchor(self._start, self._page_size, self._order, met)
        self._search: Search | None = None
        self._end_seen_at: int | None = None
        self._pace.restart()

    # --- what to request ---

    def next_request(self, in_flight: Sequence[PlannedPage]) -> PlannedPage | None:
        """The next page to request; None if a response must come first or the walk is complete.

        Args:
            in_flight: the pages that were requested and not consumed yet.
        """
        if self.done:
            return None
        if self._anchor.last is None:
            return None if in_flight else self._first()
        if in_flight and (self._search or self._is_stale(in_flight[0]) or len(in_flight) >= self._pace.depth):
            return None
        front = self._anchor.front + sum(page.gain for page in in_flight)
        shift = self._pace.predict(self._guard.responses, len(in_flight))
        if in_flight and front >= self._wanted(shift):
            return None
        limit = self._pace.limit
        reach = self._traits.reach(limit)
        overlap = self._pace.overlap(reach, self._guard.responses)
        if self._search:
            # Every response was consumed: the totals say more about the list now than the last anchor does.
            guess = front - 1 + self._pace.shift + round(self._pace.rate) + self._traits.total - self._total_at_anchor
            offset = self._search.next_offset(guess, reach, overlap, self._traits.total, has_order=self._order.is_known)
        else:
            offset = front + shift - overlap
        offset = max(0, offset)
        if self._ends_at_total and self._reaches_beyond_the_end(offset, limit):
            limit = max(2, self._traits.total + 1 - offset)
        self._pace.widen(len(in_flight) + 1)
        return self._planned(offset, limit, reach - overlap, shift, is_alone=not in_flight)

    def _reaches_beyond_the_end(self, offset: int, limit: int) -> bool:
        """Whether a page is larger than needed: one run beyond the end is, so that it isn't full and shows the end."""
        return not self._traits.understates and offset + limit > self._traits.total + 1

    def _is_stale(self, request: PlannedPage) -> bool:
        """Whether the request was sent before an anchor was lost: its offset has the same wrong prediction."""
        return request.clock < self._lost_at

    def _first(self) -> PlannedPage:
        limit = self._page_size if self._max_runs is None else min(self._page_size, self._max_runs)
        return self._planned(self._start, limit, limit, 0, is_alone=True)

    def _planned(self, offset: int, limit: int, gain: int, shift: int, *, is_alone: bool) -> PlannedPage:
        pass_number = self._passes.number if self._passes else 0
        return PlannedPage(offset, limit, gain, shift, self._guard.responses, pass_number, is_alone)

    def _wanted(self, shift: int) -> float:
        """The ordinal up to which pages are requested ahead."""
        end = math.inf if self._traits.understates else self._traits.total - shift
        if self._max_runs is not None:
            end = min(end, self._start + self._max_runs)
        return min(end, self._front_at_oldest())

    def _front_at_oldest(self) -> float:
        """The ordinal at which the first run is too old, if runs were created at a steady rate."""
        last, first = self._anchor.last, self._first_created_at
        if self._ends_at is None or last is None or first is None or first <= last.created_at:
            return math.inf
        share = (first - self._ends_at) / (first - last.created_at)
        return self._start + share * (self._anchor.front - self._start)

    # --- what a response contains ---

    def consume(self, request: PlannedPage, page: RunPage) -> Sequence[JobRun]:
        """The runs of a response to yield now, in order.

        Raises:
            IncompleteWalkError: the list can't be walked to its end.
        """
        runs, total = page.data, page.pagination.total
        self._guard.count(total / max(1, len(runs) - 1))
        self._traits.learn(request.offset, request.limit, len(runs), total, page.pagination.limit)
        self._order.learn(runs)
        self._check_progress(request, len(runs))
        if self._passes and request.pass_number != self._passes.number:
            return self._fresh(runs)
        if request.offset + len(runs) < total:
            self._end_seen_at = None
        match = self._match(request, runs, total)
        if match is None:
            self._lose(request, runs)
            return ()
        fresh = self._fresh(match.new)
        self._pace.observe(match.shift, request.shift, self._guard.responses)
        self._total_at_anchor = total
        # An anchor without a new run behind it only shows where to request next.
        self._search = Search() if self._search and not match.new else None
        if match.new:
            self._guard.fruitless = 0
        if self._yielded == self._max_runs or self._is_past(match.new, runs):
            self.done = True
        elif self._is_end(request, page, found_more=bool(match.new)):
            self._finish()
        return fresh

    def _match(self, request: PlannedPage, runs: Sequence[JobRun], total: int) -> Match | None:
        if not runs and self._anchor.last is not None:
            # A list that has become empty has no anchor. (`_is_end` waits for one more response.)
            self._empty = self._empty + 1 if total == 0 and request.is_alone else 0
            is_emptied = self._empty >= _EMPTY_IN_A_ROW - 1 and not self._traits.understates
            return Match((), self._pace.shift) if is_emptied else None
        self._empty = 0
        expected = self._anchor.front + request.shift - 1 - request.offset
        return self._anchor.match(runs, request.offset, expected)

    def _fresh(self, runs: Sequence[JobRun]) -> Sequence[JobRun]:
        if self._passes:
            runs = self._passes.unseen(runs)
        if self._window is not None:
            runs = [run for run in runs if self._window.is_within(run.created_at)]
        if self._max_runs is not None:
            runs = runs[: self._max_runs - self._yielded]
        self._yielded += len(runs)
        return runs

    @property
    def _ends_at(self) -> float | None:
        """The time of creation before which no run is wanted, if all runs that follow are older."""
        window = self._window
        return window.created_after if window is not None and window.is_newest_first else None

    def _is_past(self, new: Sequence[JobRun], runs: Sequence[JobRun]) -> bool:
        """Whether a response shows that all further runs are too old: possible only if the newest runs come first."""
        if new and self._first_created_at is None:
            self._first_created_at = new[0].created_at
        if self._ends_at is None or not any(run.created_at < self._ends_at for run in new):
            return False
        return self._order.holds_for(runs) and not self._order.is_oldest_first

    def _lose(self, request: PlannedPage, runs: Sequence[JobRun]) -> None:
        """Drop a response without an anchor.

        Only the response to a request of the search shows where the anchor isn't: other responses may be older than the
        runs consumed since. And the responses in flight when an anchor was lost say nothing more about how the list
        moves.
        """
        if not self._is_stale(request):
            self._pace.lose()
            self._lost_at = self._guard.responses
        last = self._anchor.last
        assert last is not None  # noqa: S101  # for the type checker
        if self._search is None:
            self._search = Search()
        elif request.is_alone:
            reach = self._traits.reach(request.limit)
            if not runs or (self._order.is_known and not self._order.is_before(runs[0].created_at, last.created_at)):
                self._search.lies_before(request.offset, reach)
            elif self._order.is_known:
                self._search.lies_behind(request.offset + len(runs), reach, self._traits.total)

    # --- the end ---

    def _is_end(self, request: PlannedPage, page: RunPage, *, found_more: bool) -> bool:
        """Whether a response with an anchor reaches the end of the list.

        It does if it reaches its own total and isn't full, and the server is known to fill pages as long as there are
        more runs. If an earlier total was larger, then runs were deleted, or this response comes from a replica that
        lags behind or a server that is failing: so a second response has to show the same end.
        """
        length, total = len(page.data), page.pagination.total
        if request.offset + length < total or not self._traits.is_last(request.limit, length, page.pagination.limit):
            return False
        if total >= self._traits.longest:
            return True
        agrees = self._end_seen_at is not None and request.clock >= self._end_seen_at and not found_more
        self._end_seen_at = self._guard.responses
        return agrees

    def _finish(self) -> None:
        if self._passes is None or self._passes.is_complete(
            self._traits.total, self._traits.shortest, self._traits.longest, is_unstable=self._anchor.is_unstable
        ):
            self.done = True
        elif self._passes.is_hopeless:
            raise self._failure(
                f"runs can change their place in this order, and {self._passes.number} passes over the list didn't find"
                ' the rest. In the order of creation (sort_by="startTime") runs keep their place'
            )
        else:
            self._begin()

    def refuse(self, request: PlannedPage, message: str) -> None:
        """The server refused the request, which wasn't the first of this walk.

        It may refuse a page that reaches beyond a certain index, a larger page than before, or an offset. Then the page
        is requested again: it reaches no further than needed, or is smaller. An offset is refused for good only if
        nothing else was in flight: otherwise it was a prediction.

        Raises:
            IncompleteWalkError: the list can't be walked on.
        """
        self._guard.count()
        if not self._ends_at_total and self._reaches_beyond_the_end(request.offset, request.limit):
            self._ends_at_total = True
        elif request.limit > self._page_size:
            self._pace.keep_page_size()
        elif request.is_alone:
            raise self._failure(
                f"the server refuses the request at offset {request.offset}: {message}. Narrower filters make the list"
                " shorter, for instance status or version_numbers"
            )
        self._lost_at = self._guard.responses

    # --- every walk ends ---

    def _check_progress(self, request: PlannedPage, length: int) -> None:
        total, guard = self._traits.total, self._guard
        if guard.is_too_long(understates=self._traits.understates):
            raise self._failure(f"the list doesn't come to an end within {guard.responses} responses. {_ADVICE}")
        if guard.fruitless > _MOST_FRUITLESS + self._pace.widest:
            at, end = f"offset {request.offset}", request.offset + length
            if self._traits.fullest == 1:
                what = "no page holds more than one run, so that none can be joined to the one before"
            elif not length:
                what = f"there is nothing from {at} on, and the walk can't tell whether that is the end"
            elif end > total:
                what = f"there are runs up to offset {end}"
            else:
                what = f"the response at {at} can't be joined to the runs read before, or holds no others"
            raise self._failure(f"{what}; {guard.fruitless} responses in a row brought nothing new. {_ADVICE}")

    def _failure(self, what: str) -> IncompleteWalkError:
        total = self._traits.total
        return IncompleteWalkError(
            f"the walk failed after {counted(self._yielded, 'run')}: the server says there are {total}, but {what}",
            job_id=self._job_id,
            offset=self._anchor.front + self._pace.shift,
            seen=self._yielded,
            total=total,
        )
