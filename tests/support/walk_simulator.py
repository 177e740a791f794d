"""A walk in simulated time: a server whose list changes, responses that arrive in any order, and a planner.

No I/O and no clock: a walk of 4,000 runs takes some ten milliseconds. Tests hold the promises of a walk against it, and
`python -m benchmarks.walk_schedules` counts requests and latencies with it.
"""

import bisect
import heapq
import itertools
import math
import random
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from tfruns._walk.planner import PlannedPage, Planner
from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, JobRunStatus, Pagination, RunPage


def make_run(number: int, created_at: float, id: str | None = None) -> JobRun:  # noqa: A002
    """A run of which the planner sees only `id` and `created_at`."""
    return JobRun(
        id=id or f"r{number}",
        name="n",
        application_name="a",
        deployment_version="1",
        created_at=created_at,
        command="",
        status=JobRunStatus.FINISHED,
    )


@attrs.define
class Row:
    """A run and the key that the server sorts it by."""

    run: JobRun
    key: float


@attrs.define(kw_only=True)
class World:
    """How a server and its list behave. Rates are in runs for each response.

    The list is kept in the server's order: newest first where `descending`, else oldest first.
    """

    count: int = 1000
    descending: bool = True
    inserted: float = 0.0
    deleted: float = 0.0
    middle: float = 0.0
    """Runs that appear anywhere in the list, for each response."""
    burst: tuple[float, int] = (0.0, 0)
    """The chance of a burst with each response, and its size."""
    deleted_block: tuple[float, int] = (0.0, 0)
    """The chance that a block of neighbours is deleted with each response, and its size."""
    same_key: int = 1
    """How many runs share a key: versions, or runs created in one millisecond."""
    unstable: bool = False
    """Runs with equal keys come in another order in each response."""
    jitter: float = 0.0
    """By how much `created_at` differs from the key at most."""
    hides_key: bool = False
    """The list is sorted by another key than creation, which `same_key` runs share on average."""
    jumps: float = 0.0
    """Runs that get another key, for each response."""
    duplicates: float = 0.0
    """The chance that a run is listed a second time, up to five rows further down."""
    recreated: float = 0.0
    """Runs that are deleted and created again with their id, for each response."""
    clamp: int = 1000
    ignores_offset: bool = False
    refuses_offsets_from: float = math.inf
    refuses_ends_above: float = math.inf
    """Pages that reach beyond this index are refused, as by Elasticsearch."""
    refuses_limits_above: int = 1000
    total: str = "true"
    """true, capped, stale, estimated, rounded, small, big, random."""
    cap: int = 500
    echo: str = "limit"
    """Which limit the response says: limit (the server's), requested, none."""
    lag: int = 0
    """Replicas: every other response shows the list as it was so many responses ago."""
    empty_at: frozenset[int] = frozenset()
    """Responses, by number, that are empty, with a total of 0."""
    short: float = 0.0
    """The chance that a response holds only half of its rows."""
    changes_end_after: int | None = None
    """The list stands still after so many responses."""


class Server:
    """The list of a world, and the responses to requests."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.born = 0
        self.responses = 0
        self.rows: list[Row] = []
        self.places: dict[str, float]
        self.history: deque[list[Row]] = deque(maxlen=max(1, world.lag + 1))
        self.stale_total = 0
        self._due = dict.fromkeys(("inserted", "deleted", "middle", "jumps", "recreated"), 0.0)
        for _ in range(world.count):
            self.rows.insert(0, self._new()) if world.descending else self.rows.append(self._new())
        if world.jumps or world.hides_key:
            self.rows.sort(key=self._place)
        self.lasting = {row.run.id for row in self.rows}
        self.places = {row.run.id: at for at, row in enumerate(self.rows)}
        if world.unstable:
            self.places = {row.run.id: self._place(row) for row in self.rows}
        self.recreated: set[str] = set()
        self.stale_total = len(self.rows)
        self._remember()

    def _remember(self) -> None:
        if self.world.lag:
            self.history.append(list(self.rows))

    def _new(self) -> Row:
        self.born += 1
        world = self.world
        key = float(self.born // world.same_key)
        created: float = key + (self.rng.uniform(-world.jitter, world.jitter) if world.jitter else 0.0)
        if world.hides_key:
            key = float(self.rng.randrange(max(1, world.count // world.same_key)))
        if world.jumps:
            key = self.rng.random()
        return Row(make_run(self.born, created), key)

    def _place(self, row: Row) -> float:
        return -row.key if self.world.descending else row.key

    def _insert_new(self, count: int) -> None:
        rows = [self._new() for _ in range(count)]
        if not (self.world.jumps or self.world.hides_key):
            self._insert_at_end(rows)
            return
        for row in rows:
            bisect.insort(self.rows, row, key=self._place)

    def _insert_at_end(self, rows: list[Row]) -> None:
        if self.world.descending:
            self.rows[:0] = rows[::-1]
        else:
            self.rows += rows

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
            if what == "inserted":
                self._insert_new(int(times))
            else:
                for _ in range(int(times)):
                    self._change_one(what)
        if world.burst[1] and rng.random() < world.burst[0]:
            self._insert_new(world.burst[1])
        if world.deleted_block[1] and rng.random() < world.deleted_block[0] and self.rows:
            at = rng.randrange(len(self.rows))
            for row in self.rows[at : at + world.deleted_block[1]]:
                self.lasting.discard(row.run.id)
            del self.rows[at : at + world.deleted_block[1]]
        self._remember()

    def _change_one(self, what: str) -> None:
        rng, rows = self.rng, self.rows
        if not rows:
            return
        if what == "deleted":
            self._delete(rng.randrange(len(rows)))
        elif what == "middle" and self.world.hides_key:
            self._insert_new(1)
        elif what == "middle":
            at = rng.randrange(len(rows))
            self.born += 1
            rows.insert(at, Row(make_run(self.born, rows[at].run.created_at), rows[at].key))
        elif what == "jumps":
            row = rows.pop(rng.randrange(len(rows)))
            row.key = rng.random()
            bisect.insort(rows, row, key=self._place)
        elif what == "recreated":
            at = rng.randrange(len(rows))
            run = rows[at].run
            self._delete(at)
            self.recreated.add(run.id)
            row = self._new()
            row.run = make_run(0, row.run.created_at, run.id)
            self._insert_at_end([row])

    def respond(self, request: PlannedPage) -> RunPage | None:
        """The page that a request gets, of the list as it stands; None where the server refuses the offset."""
        world, rng = self.world, self.rng
        self.responses += 1
        rows = self.rows
        if world.lag and self.responses % 2:
            rows = self.history[0]
        if (
            request.limit > world.refuses_limits_above
            or request.offset >= world.refuses_offsets_from
            or request.offset + request.limit > world.refuses_ends_above
        ):
            self.change()
            return None
        offset = 0 if world.ignores_offset else request.offset
        limit = min(request.limit, world.clamp)
        count = len(rows)
        if world.unstable:
            page = self._shuffled(rows, offset, min(limit, len(rows) - offset))
        elif world.duplicates:
            listed = self._with_duplicates([row.run for row in rows])
            count, page = len(listed), listed[offset : offset + limit]
        else:
            page = [row.run for row in rows[offset : offset + limit]]
        total = self._total(count)
        if world.short and rng.random() < world.short:
            page = page[: (len(page) + 1) // 2]
        if self.responses in world.empty_at:
            page, total = [], 0
        echo = {"limit": limit, "requested": request.limit, "none": None}[world.echo]
        self.change()
        return RunPage(tuple(page), Pagination(total, request.offset, echo))

    def _shuffled(self, rows: list[Row], offset: int, limit: int) -> list[JobRun]:
        if limit <= 0:
            return []
        # Equals of which none is in the page needn't be shuffled.
        begin = bisect.bisect_left(rows, self._place(rows[offset]), key=self._place)
        end = bisect.bisect_right(rows, self._place(rows[offset + limit - 1]), key=self._place)
        listed: list[JobRun] = []
        for _, group in itertools.groupby(rows[begin:end], key=self._place):
            members = [row.run for row in group]
            self.rng.shuffle(members)
            listed += members
        return listed[offset - begin : offset - begin + limit]

    def _with_duplicates(self, listed: list[JobRun]) -> list[JobRun]:
        copies = []
        for at, run in enumerate(listed):
            dice = zlib.crc32(run.id.encode())
            if dice % 1000 < 1000 * self.world.duplicates:
                copies.append((at + 1 + dice // 1000 % 5, run))
        for at, run in reversed(copies):
            listed.insert(at, run)
        return listed

    def _total(self, true: int) -> int:
        match self.world.total:
            case "capped":
                return min(true, self.world.cap)
            case "stale":
                if not self.responses % 10:
                    self.stale_total = true
                return self.stale_total
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
    by_creation: bool | None = None,
    keeps_ids: bool | None = None,
    most_requests: int = 100_000,
    planner: Any = None,
) -> Outcome:
    """One walk, from the first request to the end or the error. The list is read when a response arrives."""
    rng = random.Random(seed)
    server = Server(world, rng)
    if by_creation is None:
        by_creation = not (world.hides_key or world.jumps)
    if keeps_ids is None:
        keeps_ids = not by_creation
    planner = planner or Planner(
        job_id="j", start=start, page_size=page_size, max_runs=max_runs, by_creation=by_creation, keeps_ids=keeps_ids
    )
    latency = ARRIVALS[arrival]
    now = 0.0
    events: list[tuple[float, int]] = []
    queue: deque[PlannedPage] = deque()
    numbers: deque[int] = deque()
    arrived: dict[int, RunPage | None] = {}
    requests: dict[int, PlannedPage] = {}
    yielded: list[str] = []
    count = ahead = 0
    error = None

    def request_ahead() -> None:
        nonlocal count
        while len(queue) < depth and (page := planner.next_request(queue)) is not None:
            queue.append(page)
            numbers.append(count)
            requests[count] = page
            heapq.heappush(events, (now + latency(rng, count), count))
            count += 1

    try:
        request_ahead()
        while queue:
            ahead = max(ahead, len(queue))
            while numbers[0] not in arrived:
                now, number = heapq.heappop(events)
                arrived[number] = server.respond(requests.pop(number))
            page = arrived.pop(numbers.popleft())
            planned = queue.popleft()
            if page is None:
                planner.refuse(planned, "422")
            else:
                yielded += [run.id for run in planner.consume(planned, page)]
            if planner.done:
                break
            request_ahead()
            if count > most_requests:
                raise AssertionError(f"{count} requests, and no end")
        assert planner.done, "the planner requests nothing more, and is not done"
    except IncompleteWalkError as caught:
        error = caught
    seen = set(yielded)
    places = [server.places[one] for one in yielded if one in server.lasting]
    return Outcome(
        yielded=yielded,
        requests=count,
        time=now,
        error=error,
        lost=0 if error or max_runs is not None or start else len(server.lasting - seen),
        repeated=len([one for one in yielded if one not in server.recreated]) - len(seen - server.recreated),
        disordered=sum(after < before for before, after in itertools.pairwise(places)),
        ahead=ahead,
    )
