"""The plan of a walk: which page to ask for next, which of its runs are new, and when the walk is over. No I/O.

What a walk promises: every run that exists from its first request to its last is yielded exactly once, in the server's
order, although other runs come and go meanwhile. Offsets alone can't promise that: a deleted run shifts the rest of the
list to the left, past a reader; a new one shifts it to the right. The argument for what is done here instead:

1.  An answer is a stretch of the list as it stood at one moment, without gaps. Runs that live through the whole walk
    (call them lasting) stand in the same order in every answer.
2.  Say that so far every lasting run up to the last run yielded was yielded, and none beyond it. If an answer holds
    that last run (the *tie*), the lasting run that comes next stands behind it there, or behind the answer's end; and
    no run behind it was yielded. So yielding what stands behind the tie keeps this true. It doesn't matter when the
    answer was given, nor in which order answers come: pages can be fetched ahead.
3.  So each page is asked for with an overlap: it begins with the last run of the page before. Where an answer has no
    tie after all, for runs before it were deleted, nothing of it is taken; a *bridge* is asked for first, further to
    the left, until one ties.
4.  If the last run itself was deleted, another one ties. While it is near, a run that was yielded just before it, by
    its id (`Recent`): but only in an answer that is newer, for an older one may hold runs between the two that are
    gone since. Far away, or when all that is near was deleted, any place in the order: where runs are sorted by
    creation, in the direction that the answers themselves show, an answer that begins before the last run misses
    nothing, and what is new in it is what was created beyond that run.
5.  The walk is over at an answer with a tie which, by the total it carries itself, reaches the end of the list, and is
    shorter than a page the server has shown it can fill. Where that isn't sure, the end is asked for a second time.

Orders whose key changes under the walk (status, duration) break 1.: runs jump. There the ids of all runs that were
yielded are kept, so that none is repeated; and if the end comes with fewer runs met than the total says there are, the
list is swept again for what is missing.

It ends: each answer brings a new run or counts as fruitless; too many fruitless ones in a row, or more answers in all
than a list of the size first told could need, and the walk fails with what was seen.
"""

import math
from collections.abc import Sequence

import attrs

from tfruns._walk.anchor import Order, Recent, Search
from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, RunPage

_FRUITLESS = 40
"""So many answers in a row without a new run, and the walk has failed: enough to bisect any list for a lost place."""

_ADVICE = "The list changes too fast, or the server contradicts itself: try again, or with larger pages"

_SWEEPS = 4
"""How often a list whose runs jump is swept before what is still missing is an error."""

_KEPT = 256
"""Of how many runs the ids are kept at least, to recognise them; four pages if that is more."""


@attrs.frozen
class Ask:
    """A page to ask for."""

    offset: int
    limit: int
    asked_at: int
    """How many answers had been taken by then."""
    is_bridge: bool = False
    """Whether it is asked for only to find the tie of another answer."""


@attrs.frozen
class Taken:
    """What an answer was good for."""

    fresh: Sequence[JobRun] = ()
    """The runs to yield now, in order."""
    bridge: Ask | None = None
    """The answer has no tie: the answer to this is to be taken next."""
    again: bool = False
    """After the bridge, the same answer is to be taken once more."""
    restart: bool = False
    """Answers still under way are of no use any more."""


class Plan:
    """The plan of one walk: `upcoming` says what to ask for, `take` is told the answers in the order of asking.

    Args:
        job_id: for errors.
        start: how many runs to skip first.
        page_size: the most runs to ask for at once.
        max_runs: how many runs to yield at most; None for all.
        by_creation: whether the list is sorted by creation, one way or the other.
        runs_jump: whether runs change their place in the order under the walk.
    """

    def __init__(
        self, *, job_id: str, start: int, page_size: int, max_runs: int | None, by_creation: bool, runs_jump: bool
    ) -> None:
        self.done = max_runs == 0
        self._job_id = job_id
        self._start = start
        self._limit = max(2, page_size)  # one run of each page is the overlap
        self._max_runs = max_runs
        self._order = Order(by_creation)
        self._seen: set[str] | None = set() if runs_jump else None

        self._yielded = 0
        self._answers = 0
        self._most_answers = math.inf  # until the first answer tells how long the list is
        self._fruitless = 0
        self._most_under_way = 0
        self._fullest = 0  # the most runs that an answer brought
        self._doubted = False  # whether a total was less than what came
        self._falls_short = False  # whether a page was shorter than the server's own limit, with more to come
        self._exceeds = False  # whether one was longer
        self._sweeps = 0
        self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._sweeps += 1
        self._recent = Recent(max(_KEPT, 4 * self._limit))
        self._met: set[str] = set()  # the runs of this sweep, where runs jump
        self._last: JobRun | None = None  # the run that the next answer is tied to
        self._last_at = 0  # its index, in the newest answer that held it
        self._last_taken = 0  # the number of that answer
        self._last_seen = 0  # the number of the newest answer that held it
        self._newest = 0  # when the newest answer was asked for
        self._total = self._last_total = 0  # the total of the newest answer, and of the one that held the last run
        self._asked_to = self._start  # the index up to which pages were asked for
        self._under_way = 0  # how many of them were not taken yet
        self._overlap = 1
        self._smooth = 0  # answers in a row that had a tie at once
        self._ending = False  # the newest answer reached the end, but didn't prove it
        self._search: Search | None = None
        self._offered_again: Ask | None = None

    @property
    def _reach(self) -> int:
        """How many runs a page may bring: as many as asked for, unless the server clamps it."""
        return min(self._limit, self._fullest) if self._fullest else self._limit

    @property
    def _last_now(self) -> int:
        """Where the last run stands by now, if all that came and went since did so before it."""
        return self._last_at + self._total - self._last_total

    def upcoming(self) -> Ask | None:
        """The next page to ask for; None where that depends on the answers under way, or nothing is left to ask."""
        if self.done:
            return None
        wanted_to = self._total if self._max_runs is None else min(self._total, self._start + self._max_runs)
        if self._under_way and (self._last is None or self._asked_to >= wanted_to):
            return None
        if self._last is None:
            limit = self._limit if self._max_runs is None else min(self._limit, self._max_runs)
            ask = Ask(self._start, limit, self._answers)
        else:
            ask = Ask(max(0, self._asked_to - self._overlap), self._limit, self._answers)
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)
        self._asked_to = ask.offset + min(ask.limit, self._reach)
        return ask

    def take(self, ask: Ask, page: RunPage) -> Taken:
        """What the answer to `ask` is good for.

        Raises:
            IncompleteWalkError: there is no use in going on.
        """
        runs, total = page.data, page.pagination.total
        end = ask.offset + len(page.data)
        if ask.asked_at >= self._newest:
            self._newest, self._total = ask.asked_at, total
        self._count(ask, page)
        self._order.learn(runs)
        chain = self._behind_tie(ask, runs, total)
        if chain is None:
            return self._bridge(ask, end)
        chain = self._recent.admit(chain)
        self._under_way -= 1
        fresh = self._fresh(runs, chain)
        if chain:
            self._last, self._last_at, self._last_total, self._last_taken = chain[-1], end - 1, total, self._answers
        self._adapt(end, found_more=bool(chain))
        if fresh or chain:
            self._fruitless = 0
        self._yielded += len(fresh)
        if self._yielded == self._max_runs:
            self.done = True
        elif self._is_end(ask, page, end, total, found_more=bool(chain)):
            return self._finish(fresh, total)
        return Taken(fresh)

    def _fresh(self, runs: Sequence[JobRun], chain: Sequence[JobRun]) -> Sequence[JobRun]:
        """Which runs to yield: those behind the tie, or where runs jump, all that weren't yielded yet."""
        fresh = chain
        if self._seen is not None:
            fresh = list({run.id: run for run in runs if run.id not in self._seen}.values())
            self._seen.update(run.id for run in fresh)
            self._met.update(run.id for run in runs)
        return fresh if self._max_runs is None else fresh[: self._max_runs - self._yielded]

    # --- the tie (2. and 4.) ---

    def _behind_tie(self, ask: Ask, runs: Sequence[JobRun], total: int) -> Sequence[JobRun] | None:
        """The runs behind the tie; None if there is no tie."""
        last = self._last
        if last is None:
            return runs
        if not runs:
            return () if ask.offset == 0 and not self._doubted else None
        at = self._recent.find(runs, last, self._overlap - 1)
        if at is not None and runs[at].id == last.id and ask.asked_at >= self._last_seen:
            self._last_at, self._last_total, self._last_seen = ask.offset + at, total, self._answers
        if at is not None and (runs[at].id == last.id or self._seen is not None):
            return runs[at + 1 :]
        is_newer = ask.asked_at >= self._last_taken
        # In an older answer, runs behind the tie may have stood before the last one, and be gone since. And what was
        # created behind a run that was taken long ago would lead back to where nothing is remembered.
        if at is not None and is_newer and self._recent.is_among_the_newest(runs[at], self._limit):
            return runs[at + 1 :]
        # Ids are sure; the order is what is left where a bridge found none of them.
        is_bridged = self._search is not None and self._search.tries > 0
        if is_bridged and not self._recent.begins_level_with(last) and self._order.holds_for(runs):
            if at is None and ask.offset > 0 and not self._order.before(runs[0], last):
                return None
            beyond = [run for run in runs[0 if at is None else at + 1 :] if not self._order.before(run, last)]
            # In an older answer, a run created with the last one may have stood before it, and be gone since.
            if is_newer or not beyond or self._order.before(last, beyond[0]):
                return beyond
        return None

    # --- the bridge (3.) ---

    def _bridge(self, ask: Ask, end: int) -> Taken:
        search = self._search = self._search or Search(ask.offset)
        again = end > ask.offset and not ask.is_bridge and ask is not self._offered_again
        if ask.is_bridge:  # only those are newer than what is known
            search.lies_before(ask.offset, self._reach)
        offset = search.next(self._reach, self._last_now, has_order=self._order.is_known)
        offset = max(0, min(offset, self._total - self._reach + 1))
        if again:
            self._offered_again = ask
            self._under_way += 1
        self._smooth = 0
        return Taken(bridge=Ask(offset, self._limit, self._answers, is_bridge=True), again=again)

    def _adapt(self, end: int, *, found_more: bool) -> None:
        """Set what depends on where the tie was found."""
        if self._search is not None:
            if found_more:
                self._search = None
                self._overlap = max(1, min(self._reach // 2, 4 * self._overlap))
            else:
                self._search.lies_behind(end, self._total, self._reach)
                if self._last_seen == self._answers:
                    self._search.tries = 0
        else:
            self._smooth += 1
            if self._smooth % 16 == 0:
                self._overlap = max(1, self._overlap // 2)
        follows_at = end
        if not found_more and self._order.is_known:  # the list moved on by more than a page: follow it
            follows_at = max(end, min(self._total, self._last_now))
        if not self._under_way or self._asked_to < follows_at:
            self._asked_to = follows_at

    # --- the end (5.) ---

    def _is_end(self, ask: Ask, page: RunPage, end: int, total: int, *, found_more: bool) -> bool:
        length, limit = len(page.data), page.pagination.limit or 0
        self._exceeds |= 0 < limit < length
        says_its_limit = limit > 0 and not self._exceeds
        full = min(ask.limit, limit) if says_its_limit else ask.limit
        if end < total:
            self._falls_short |= length < full
            self._ending = False
            return False
        is_full = length >= full
        # A page that isn't full is the last one, if the server is known to give more where there is more; else, if
        # asking once more from there brings nothing either.
        is_trusted = says_its_limit and not self._falls_short and not self._doubted
        is_last = is_trusted or length < self._fullest or length <= 1
        if not is_full and (is_last or (self._ending and not found_more and length <= self._overlap)):
            return True
        self._ending = True
        return False

    def _finish(self, fresh: Sequence[JobRun], total: int) -> Taken:
        if self._seen is not None and self._start + len(self._met) < total:
            if self._sweeps < _SWEEPS:
                self._begin_sweep()
                return Taken(fresh, restart=True)
            if self._start + self._yielded < total:
                raise self._failure(
                    f"runs change their place faster than {_SWEEPS} sweeps could find them. Another order stands still:"
                    " by start time",
                    total,
                )
        self.done = True
        return Taken(fresh)

    # --- that it ends at all ---

    def _count(self, ask: Ask, page: RunPage) -> None:
        total, length = page.pagination.total, len(page.data)
        self._fullest = max(self._fullest, length)
        self._doubted |= length > 0 and ask.offset + length > total
        self._answers += 1
        if self._answers == 1:
            pages = math.ceil(max(total, length) / max(1, self._reach - 1))
            self._most_answers = 100 + 8 * pages * (1 if self._seen is None else _SWEEPS)
        self._fruitless += 1  # until it proves fruitful
        if self._answers > self._most_answers:
            raise self._failure(
                f"the list doesn't come to an end within {self._answers} answers. {_ADVICE}", total, ask.offset
            )
        if self._fruitless > _FRUITLESS + self._most_under_way:
            at, end = f"offset {ask.offset}", ask.offset + length
            if self._fullest == 1 and total > 1:
                what = "no page holds more than one run, so that none can be tied to the one before"
            elif not length:
                what = f"there is nothing from {at} on, and the walk can't tell whether that is the end"
            elif end > total:
                what = f"there are runs up to offset {end}"
            else:
                what = f"the answer at {at} can't be tied to the runs read before, or holds no others"
            why = f"{what}; {self._fruitless} answers in a row brought nothing new"
            raise self._failure(f"{why}. {_ADVICE}", total, ask.offset)

    def _failure(self, what: str, total: int, offset: int | None = None) -> IncompleteWalkError:
        return IncompleteWalkError(
            f"{self._yielded} runs were read, then the walk failed: the server says there are {total}, but {what}",
            job_id=self._job_id,
            offset=self._asked_to if offset is None else offset,
            seen=self._yielded,
            total=total,
        )
