"""A walk in simulated time: a server whose list changes, responses that arrive in any order, and a planner.

No I/O and no clock: a walk of 4,000 runs takes some ten milliseconds. Tests hold the promises of a walk against it, and
`python -m benchmarks.walk_schedules` counts requests and latencies with it. The server knows nothing of the planner.
Its pages don't pass the decoder, which refuses some: a rule for such pages would never be used.
"""

import bisect
import heapq
import itertools
import math
import random
import zlib
from collections import deque
from collections.abc import Callable

import attrs

from tests.support.runs import make_run
from tfruns._walk.planner import Planner
from tfruns._walk.request import PageOrder, PlannedPage
from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, Pagination, RunPage
from tfruns.query import RunFilter

EPOCH = 1e12


@attrs.define
class Row:
    """A run, the time that the server sorts it by, and its key in another order."""

    run: JobRun
    time: float
    key: float


@attrs.define(kw_only=True)
class World:
    """How a server and its list behave. Rates are in runs for each response."""

    count: int = 1000
    inserted: float = 0.0
    deleted: float = 0.0
    middle: float = 0.0
    """Runs that appear anywhere in the list, for each response."""
    bursts: dict[int, int] = attrs.Factory(dict)
    """How many runs are created at once with the response of a number."""
    burst: tuple[float, int] = (0.0, 0)
    """The chance of a burst with each response, and its size."""
    deleted_block: tuple[float, int] = (0.0, 0)
    """The chance that a block of neighbours is deleted with each response, and its size."""
    same_time: int = 1
    """How many runs were created in one millisecond."""
    unstable: bool = False
    """Runs with equal keys come in another order in each response."""
    same_order: bool = False
    """Runs with equal times come in the same order in both directions of the list."""
    jitter: float = 0.0
    """By how much `created_at` differs from the time that the server sorts by at most."""
    shuffled: bool = False
    """The rows of a response come in any order."""
    sorted_by: str | None = None
    """Another key: groups (of `same_key` runs on average), missing (for two thirds), random."""
    same_key: int = 1
    jumps: float = 0.0
    """Runs that get another key, for each response."""
    duplicates: float = 0.0
    """The chance that a run is listed a second time, up to five rows further down."""
    recreated: float = 0.0
    """Runs that are deleted and created again with their id, for each response."""
    clamp: int = 1000
    cut: tuple[int, ...] = ()
    """Responses are cut to one of these lengths, as if their bytes were limited."""
    ignores_offset: bool = False
    ignores_order: bool = False
    refuses_offsets_from: float = math.inf
    refuses_beyond_end: bool = False
    """An offset behind the last run is refused."""
    refuses_ends_above: float = math.inf
    """Pages that reach beyond this index are refused, as by Elasticsearch."""
    refuses_limits_above: int = 1000
    total: str = "true"
    """true, capped, stale, estimated, rounded, small, big, random, zero, unfiltered, response."""
    cap: int = 500
    echo: str = "limit"
    """Which limit the response says: limit (the server's), requested, none, count (of this response)."""
    lag: int = 0
    """Replicas: every other response shows the list as it was so many responses ago."""
    stale: tuple[float, int] = (0.0, 0)
    """The chance that a response, but the first, shows the list of long ago, and how many of the runs it lacks."""
    cached: int = 0
    """A page is given again as it was, for so many responses."""
    empty_at: frozenset[int] = frozenset()
    """Responses, by number, that are empty, with a total of 0."""
    short: float = 0.0
    """The chance that a response holds only half of its rows."""
    changes_end_after: int | None = None
    """The list stands still after so many responses."""


class Server:
    """The list of a world, kept from old to new, and the responses to requests."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.born = 0
        self.responses = 0
        self.rows = [self._new() for _ in range(world.count)]
        self.lasting = {row.run.id for row in self.rows}
        self.recreated: set[str] = set()
        self._history: deque[list[Row]] = deque(maxlen=max(1, world.lag + 1))
        self._cache: dict[tuple[int, int, bool, bool], tuple[int, RunPage]] = {}
        self._stale_total = len(self.rows)
        self._old = self.rows[: max(0, len(self.rows) - world.stale[1])]
        self._due = dict.fromkeys(("inserted", "deleted", "middle", "jumps", "recreated"), 0.0)
        self._remember()

    def _remember(self) -> None:
        if self.world.lag:
            self._history.append(list(self.rows))

    def _key(self) -> float:
        world, rng = self.world, self.rng
        if world.sorted_by == "groups":
            return float(rng.randrange(max(1, world.count // world.same_key)))
        if world.sorted_by == "missing":
            return 0.0 if rng.random() < 2 / 3 else rng.random()
        return rng.random()

    def _new(self) -> Row:
        self.born += 1
        world = self.world
        time = float(self.born // world.same_time)
        created: float = time + (self.rng.uniform(-world.jitter, world.jitter) if world.jitter else 0.0)
        return Row(make_run(self.born, EPOCH + created), time, self._key())

    def _delete(self, at: int) -> None:
        self.lasting.discard(self.rows[at].run.id)
        del self.rows[at]

    def change(self) -> None:
        """What happens to the list with each response."""
        world, rng = self.world, self.rng
        if world.changes_end_after is not None and self.responses > world.changes_end_after:
            return
        for what in self._due:
            self._due[what] += getattr(world, what)
            times, self._due[what] = divmod(self._due[what], 1)
            for _ in range(int(times)):
                self._change_one(what)
        burst = world.bursts.get(self.responses, 0)
        if world.burst[1] and rng.random() < world.burst[0]:
            burst += world.burst[1]
        self.rows += [self._new() for _ in range(burst)]
        if world.deleted_block[1] and rng.random() < world.deleted_block[0] and self.rows:
            at = rng.randrange(len(self.rows))
            for row in self.rows[at : at + world.deleted_block[1]]:
                self.lasting.discard(row.run.id)
            del self.rows[at : at + world.deleted_block[1]]
        self._remember()

    def _change_one(self, what: str) -> None:
        rng, rows = self.rng, self.rows
        if what == "inserted":
            rows.append(self._new())
        elif not rows:
            return
        elif what == "deleted":
            self._delete(rng.randrange(len(rows)))
        elif what == "middle":
            at = rng.randrange(len(rows))
            self.born += 1
            rows.insert(at, Row(make_run(self.born, rows[at].run.created_at), rows[at].time, self._key()))
        elif what == "jumps":
            rows[rng.randrange(len(rows))].key = self._key()
        elif what == "recreated":
            at = rng.randrange(len(rows))
            run = rows[at].run
            self._delete(at)
            self.recreated.add(run.id)
            row = self._new()
            row.run = make_run(0, row.run.created_at, run.id)
            rows.append(row)

    def listed(self, rows: list[Row], *, by_key: bool, newest_first: bool) -> list[Row]:
        """The rows in an order."""
        if by_key:
            return sorted(rows, key=lambda row: row.key)
        return rows[::-1] if newest_first else rows

    def respond(self, offset: int, limit: int, *, by_key: bool, newest_first: bool) -> RunPage | None:
        """The page that a request gets, of the list as it stands; None where the server refuses it."""
        world, rng = self.world, self.rng
        self.responses += 1
        rows = self._history[0] if world.lag and self.responses % 2 else self.rows
        if world.stale[0] and self.responses > 1 and rng.random() < world.stale[0]:
            rows = self._old
        if (
            limit > world.refuses_limits_above
            or offset >= world.refuses_offsets_from
            or offset + limit > world.refuses_ends_above
            or (world.refuses_beyond_end and offset >= max(1, len(rows)))
        ):
            self.change()
            return None
        asked = (offset, limit, by_key, newest_first)
        if world.cached and asked in self._cache and self.responses - self._cache[asked][0] <= world.cached:
            self.change()
            return self._cache[asked][1]
        requested, limit = limit, min(limit, world.clamp, rng.choice(world.cut) if world.cut else limit)
        start = 0 if world.ignores_offset else offset
        count = len(rows)
        if world.duplicates:
            listed = self._with_duplicates(
                [row.run for row in self.listed(rows, by_key=by_key, newest_first=newest_first)]
            )
            count, page = len(listed), listed[start : start + limit]
        elif world.unstable:
            page = self._with_equals_shuffled(rows, start, limit, by_key=by_key, newest_first=newest_first)
        elif by_key:
            page = [row.run for row in self.listed(rows, by_key=True, newest_first=False)[start : start + limit]]
        elif newest_first and world.same_order:
            page = [row.run for row in sorted(rows, key=lambda row: -row.time)[start : start + limit]]
        elif newest_first:
            stop = max(0, count - start)
            page = [row.run for row in rows[max(0, stop - limit) : stop]][::-1]
        else:
            page = [row.run for row in rows[start : start + limit]]
        if world.short and rng.random() < world.short:
            page = page[: (len(page) + 1) // 2]
        if world.shuffled:
            rng.shuffle(page)
        total = self._total(count, offset + len(page))
        if self.responses in world.empty_at:
            page, total = [], 0
        echo = {"limit": limit, "requested": requested, "none": None, "count": len(page)}[world.echo]
        response = RunPage(tuple(page), Pagination(total, offset, echo))
        self._cache[asked] = self.responses, response
        self.change()
        return response

    def _with_equals_shuffled(
        self, rows: list[Row], offset: int, limit: int, *, by_key: bool, newest_first: bool
    ) -> list[JobRun]:
        listed = self.listed(rows, by_key=by_key, newest_first=newest_first)
        page = listed[offset : offset + limit]
        if not page:
            return []

        def value(row: Row) -> float:
            return row.key if by_key else -row.time if newest_first else row.time

        # Equals of which none is in the page needn't be shuffled.
        begin = bisect.bisect_left(listed, value(page[0]), key=value)
        end = bisect.bisect_right(listed, value(page[-1]), key=value)
        shuffled: list[JobRun] = []
        for _, group in itertools.groupby(listed[begin:end], key=value):
            members = [row.run for row in group]
            self.rng.shuffle(members)
            shuffled += members
        return shuffled[offset - begin : offset - begin + limit]

    def _with_duplicates(self, listed: list[JobRun]) -> list[JobRun]:
        copies = []
        for at, run in enumerate(listed):
            dice = zlib.crc32(run.id.encode())
            if dice % 1000 < 1000 * self.world.duplicates:
                copies.append((at + 1 + dice // 1000 % 5, run))
        for at, run in reversed(copies):
            listed.insert(at, run)
        return listed

    def _total(self, true: int, end: int) -> int:
        match self.world.total:
            case "capped":
                return min(true, self.world.cap)
            case "stale":
                if not self.responses % 10:
                    self._stale_total = true
                return self._stale_total
            case "estimated":
                return max(0, round(true * self.rng.uniform(0.9, 1.1)))
            case "rounded":
                return round(true, -1)
            case "small":
                return true // 2
            case "big":
                return true * 2
            case "random":
                return self.rng.randint(1, 2 * true + 1)
            case "zero":
                return 0
            case "unfiltered":
                return true * 3 + 50
            case "response":
                return end
        return true


@attrs.define
class Outcome:
    """How a walk went."""

    yielded: list[str]
    requests: int
    time: float
    error: IncompleteWalkError | None
    lost: int
    repeated: int
    disordered: int
    """Lasting runs that come before one that stood before them."""
    ahead: int
    """The most pages in flight or waiting."""
    is_endless: bool = False
    is_emptied: bool = False
    """Whether the list has no run at the end."""


ARRIVALS: dict[str, Callable[[random.Random, int], float]] = {
    # Seconds that the request with this number takes.
    "in order": lambda rng, number: 0.1,
    "jitter": lambda rng, number: rng.uniform(0.05, 0.15),
    "reversed": lambda rng, number: 0.1 + 0.01 * (16 - number % 16),
    "one slow": lambda rng, number: 1.0 if number % 7 == 3 else 0.1,
    "random": lambda rng, number: rng.expovariate(10) + 0.001,
    "pairs": lambda rng, number: 0.15 if number % 2 else 0.05,
}


def walk(
    world: World,
    *,
    page_size: int = 100,
    depth: int = 16,
    arrival: str = "jitter",
    seed: int = 0,
    start: int = 0,
    max_runs: int | None = None,
    order: str | None = None,
    created_after: float | None = None,
    status: str | None = None,
    most_requests: int = 20_000,
) -> Outcome:
    """One walk, from the first request to the end or the error. The list is read when a response arrives."""
    rng = random.Random(seed)
    server = Server(world, rng)
    run_filter = RunFilter(
        sort_by="status" if world.sorted_by else None, order=order, created_after=created_after, status=status
    )
    planner = Planner(job_id="j", filter=run_filter, start=start, page_size=page_size, max_runs=max_runs)
    asks_oldest = order == "asc"
    first_order = server.listed(server.rows, by_key=bool(world.sorted_by), newest_first=not asks_oldest)
    places = {row.run.id: row.key if world.sorted_by else abs(row.time) for row in first_order}
    latency = ARRIVALS[arrival]
    now = 0.0
    events: list[tuple[float, int]] = []
    queue: deque[PlannedPage] = deque()
    numbers: deque[int] = deque()
    arrived: dict[int, RunPage | None] = {}
    requests: dict[int, PlannedPage] = {}
    pages: dict[PlannedPage, RunPage] = {}
    yielded: list[str] = []
    count = ahead = 0
    error, is_endless = None, False

    def request_ahead() -> None:
        nonlocal count
        while True:
            if len(queue) + len(planner.kept) >= depth:
                if queue:
                    return
                if planner.kept:
                    planner.forget_last_kept()
            page = planner.next_request(queue)
            if page is None:
                return
            queue.append(page)
            numbers.append(count)
            requests[count] = page
            heapq.heappush(events, (now + page.pause + latency(rng, count), count))
            count += 1

    try:
        request_ahead()
        while queue:
            ahead = max(ahead, len(queue) + len(planner.kept))
            while numbers[0] not in arrived:
                now, number = heapq.heappop(events)
                sent = requests.pop(number)
                by_key = world.sorted_by is not None and sent.order is PageOrder.AS_ASKED
                newest_first = (
                    not asks_oldest if sent.order is PageOrder.AS_ASKED else sent.order is PageOrder.NEWEST_FIRST
                )
                if world.ignores_order:
                    newest_first = not asks_oldest
                arrived[number] = server.respond(sent.offset, sent.limit, by_key=by_key, newest_first=newest_first)
            page = arrived.pop(numbers.popleft())
            planned = queue.popleft()
            if page is None:
                if count == 1:
                    break  # the first request was refused: the client raises the server's error
                planner.refuse(planned, "422")
            else:
                pages[planned] = page
                for source, new, _ in planner.consume(planned, page):
                    yielded += [pages[source].data[at].id for at in new]
                alive = {*planner.kept}
                for each in [one for one in pages if one not in alive]:
                    del pages[each]
            if planner.done:
                break
            request_ahead()
            if count > most_requests:
                is_endless = True
                break
        else:
            assert planner.done, "the planner requests nothing more, and is not done"
    except IncompleteWalkError as caught:
        error = caught
    seen = set(yielded)
    wanted = [places[one] for one in yielded if one in server.lasting]
    is_descending = not world.sorted_by and not asks_oldest
    disordered = sum(
        (after > before) if is_descending else (after < before) for before, after in itertools.pairwise(wanted)
    )
    lasting = server.lasting
    if created_after is not None:
        lasting = {row.run.id for row in server.rows if row.run.id in lasting and row.run.created_at >= created_after}
    return Outcome(
        yielded=yielded,
        requests=count,
        time=now,
        error=error,
        lost=0 if error or is_endless or max_runs is not None or start else len(lasting - seen),
        repeated=len([one for one in yielded if one not in server.recreated]) - len(seen - server.recreated),
        disordered=disordered,
        ahead=ahead,
        is_endless=is_endless,
        is_emptied=not server.rows,
    )
