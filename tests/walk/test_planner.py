"""The plan of a walk against a model of a server: no network, only requests and responses."""

import math
import os
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tfruns._walk.planner import PlannedPage, Planner
from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, JobRunStatus, Pagination, RunPage

# A long run: TFRUNS_EXAMPLES=100000 python -m pytest tests/walk/test_planner.py
EXAMPLES = int(os.environ.get("TFRUNS_EXAMPLES", "300"))
THOROUGH = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def make_run(number: int, created_at: int) -> JobRun:
    return JobRun(
        id=f"r{number}",
        name="n",
        application_name="a",
        deployment_version="1",
        created_at=created_at,
        command="",
        status=JobRunStatus.FINISHED,
    )


def make_plan(
    *,
    page_size: int,
    start: int = 0,
    max_runs: int | None = None,
    by_creation: bool = True,
    keeps_ids: bool | None = None,
) -> Planner:
    return Planner(
        job_id="j",
        start=start,
        page_size=page_size,
        max_runs=max_runs,
        by_creation=by_creation,
        keeps_ids=not by_creation if keeps_ids is None else keeps_ids,
    )


class Driver:
    """Does with a planner what `Walk` does, without a network: pages are requested ahead, and respond one by one."""

    def __init__(self, plan: Planner, depth: int) -> None:
        self.plan = plan
        self.depth = depth
        self.queue: deque[tuple[PlannedPage, RunPage | None]] = deque()
        self.requests = 0
        self.yielded: list[str] = []
        self.request_ahead()

    def request_ahead(self) -> None:
        while (
            len(self.queue) < self.depth
            and (request := self.plan.next_request([one for one, _ in self.queue])) is not None
        ):
            self.queue.append((request, None))
            self.requests += 1

    def respond(self, which: int, server: Callable[[PlannedPage], RunPage]) -> None:
        """Respond to one of the requests in flight."""
        waiting = [index for index, (_, page) in enumerate(self.queue) if page is None]
        if waiting:
            index = waiting[which % len(waiting)]
            request = self.queue[index][0]
            self.queue[index] = (request, server(request))

    def consume_next(self) -> bool:
        """Consume the response that is next in order, if it is there."""
        if not self.queue or self.queue[0][1] is None:
            return False
        request, page = self.queue.popleft()
        assert page is not None
        self.yielded += [run.id for run in self.plan.consume(request, page)]
        if self.plan.done:
            self.queue.clear()
        self.request_ahead()
        return True

    def finish(self, server: Callable[[PlannedPage], RunPage]) -> None:
        while self.queue:
            self.respond(0, server)
            self.consume_next()
        assert self.plan.done


class ChangingList(RuleBasedStateMachine):
    """A walk over a list that changes at random, between and during its requests."""

    @initialize(
        count=st.integers(0, 80),
        page_size=st.integers(1, 12),
        depth=st.sampled_from([1, 2, 5, 16]),
        ascending=st.booleans(),
        same_key=st.sampled_from([1, 1, 2, 5]),
        jitter=st.sampled_from([0, 0, 1, 5]),
        by_creation=st.booleans(),
        echoes=st.booleans(),
    )
    def begin(
        self,
        count: int,
        page_size: int,
        depth: int,
        ascending: bool,
        same_key: int,
        jitter: int,
        by_creation: bool,
        echoes: bool,
    ) -> None:
        self.born = 0
        self.same_key = same_key  # so many runs are created in one millisecond
        self.jitter = jitter  # the server sorts by a clock of its own, by so much off the one it shows
        self.ascending = ascending
        self.echoes = echoes
        self.page_size = page_size
        self.runs: list[JobRun] = []  # oldest first
        self.create(count)
        self.count = count
        self.lasting = {run.id for run in self.runs}
        self.place = {run.id: index for index, run in enumerate(self.runs)}
        self.changes = 0
        self.failed = False
        self.by_creation = by_creation
        self.driver = Driver(make_plan(page_size=page_size, by_creation=by_creation), depth)

    def create(self, count: int) -> None:
        for _ in range(count):
            self.born += 1
            off = self.born * 7919 % (self.jitter + 1)
            self.runs.append(make_run(self.born, self.born // self.same_key + off))

    def serve(self, request: PlannedPage) -> RunPage:
        listed = self.runs if self.ascending else self.runs[::-1]
        pagination = Pagination(len(listed), request.offset, request.limit if self.echoes else None)
        return RunPage(tuple(listed[request.offset : request.offset + request.limit]), pagination)

    @rule(count=st.integers(1, 4))
    def some_are_created(self, count: int) -> None:
        self.changes += 1
        self.create(count)

    @rule(count=st.integers(5, 60))
    def a_burst_is_created(self, count: int) -> None:
        self.changes += 1
        self.create(count)

    @precondition(lambda self: not self.by_creation)
    @rule(place=st.integers(0, 1000), count=st.integers(1, 15))
    def some_appear_in_the_middle(self, place: int, count: int) -> None:
        self.changes += 1
        for _ in range(count):
            self.born += 1
            self.runs.insert(place % (len(self.runs) + 1), make_run(self.born, self.born))

    @rule(places=st.lists(st.integers(0, 1000), min_size=1, max_size=5))
    def some_are_deleted(self, places: list[int]) -> None:
        self.changes += 1
        for place in places:
            if self.runs:
                self.delete([self.runs[place % len(self.runs)].id])

    def delete(self, ids: list[str]) -> None:
        # Where the order isn't by creation, one of the runs that were yielded last must be left as an anchor.
        left = [one for one in self.driver.yielded[-self.page_size :] if one in {run.id for run in self.runs}]
        gone = set(ids) - (set(left[-1:]) if self.jitter and set(left) <= set(ids) else set())
        self.runs = [run for run in self.runs if run.id not in gone]
        self.lasting -= gone

    @rule(start=st.integers(0, 100), length=st.integers(5, 40))
    def a_block_is_deleted(self, start: int, length: int) -> None:
        self.changes += 1
        self.delete([run.id for run in self.runs[start : start + length]])

    @precondition(lambda self: self.changes > 6)
    @rule()
    def all_are_deleted(self) -> None:
        self.delete([run.id for run in self.runs])

    @rule(which=st.integers(0, 15))
    def a_response_arrives(self, which: int) -> None:
        self.driver.respond(which, self.serve)

    @rule()
    def the_next_in_order_arrives_and_is_consumed(self) -> None:
        self.driver.respond(0, self.serve)
        self.the_next_in_order_is_consumed()

    @rule()
    def the_next_in_order_is_consumed(self) -> None:
        if not self.failed:
            try:
                self.driver.consume_next()
            except IncompleteWalkError:
                self.failed = True

    @invariant()
    def none_is_repeated_and_the_order_is_kept(self) -> None:
        if not hasattr(self, "driver"):
            return
        assert len(set(self.driver.yielded)) == len(self.driver.yielded)
        # (A run that was deleted may come late, from a response that is older than the one before.)
        places = [self.place[one] for one in self.driver.yielded if one in self.lasting]
        # In other orders, what a pass finds comes when it is found.
        assert not self.by_creation or places == sorted(places, reverse=not self.ascending)

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        try:
            if not self.failed:
                self.driver.finish(self.serve)
        except IncompleteWalkError:
            self.failed = True
        event(f"failed: {self.failed}")
        self.none_is_repeated_and_the_order_is_kept()
        if not self.failed:
            assert self.lasting <= set(self.driver.yielded)
        if self.changes == 0:
            assert not self.failed
            assert self.driver.requests <= math.ceil(self.count / max(1, self.page_size - 1)) + 2


ChangingList.TestCase.settings = settings(THOROUGH, stateful_step_count=40)
TestChangingList = ChangingList.TestCase


def walk(
    server: Callable[[PlannedPage], RunPage], plan: Planner, *, depth: int = 4, rng: random.Random | None = None
) -> tuple[list[str], int, IncompleteWalkError | None]:
    """What was yielded, how many requests it took, and the error that ended it."""
    driver = Driver(plan, depth)
    try:
        while driver.queue:
            driver.respond(rng.randrange(16) if rng else 0, server)
            driver.consume_next()
    except IncompleteWalkError as error:
        return driver.yielded, driver.requests, error
    assert plan.done
    return driver.yielded, driver.requests, None


@THOROUGH
@given(
    count=st.integers(0, 60),
    page_size=st.integers(1, 12),
    clamp=st.sampled_from([1, 2, 3, 7, 1000]),
    lie=st.sampled_from(["true", "zero", "half", "one less", "one more", "double", "negative", "random"]),
    ignores_offset=st.booleans(),
    empty_every=st.sampled_from([0, 2, 3, 5]),
    short_every=st.sampled_from([0, 0, 2, 3]),
    echoes=st.sampled_from(["nothing", "its limit", "what was requests"]),
    depth=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 10_000),
)
def test_no_mixture_of_lies_makes_a_walk_short_or_endless(
    count: int,
    page_size: int,
    clamp: int,
    lie: str,
    ignores_offset: bool,
    empty_every: int,
    short_every: int,
    echoes: str,
    depth: int,
    seed: int,
) -> None:
    """Whatever a server says, a walk ends with the whole list or with an error, and repeats nothing."""
    assume(
        clamp > 1 or echoes == "its limit"
    )  # a server that gives one run and says it's all can't be distinguished from one that is right
    # These agree with each other on an end that isn't one, as an honest server might.
    assume(not short_every or (lie in ("true", "one more", "double") and not ignores_offset))
    rng = random.Random(seed)
    listed = [make_run(n, n) for n in range(count)]
    lies = {"true": count, "zero": 0, "half": count // 2, "one less": count - 1, "one more": count + 1}
    lies |= {"double": 2 * count, "negative": -5}
    # Where offsets are ignored and limits clamped, empty responses can look like deleted runs.
    assume(not (ignores_offset and empty_every and clamp < count))
    # Neither can a first page that is said to be all there is, and to be no fuller for there being no more.
    first = min(count, clamp, max(2, page_size))
    assume(echoes != "what was requests" or (lie != "random" and (first == count or lies[lie] != first)))
    responses = 0

    def server(request: PlannedPage) -> RunPage:
        nonlocal responses
        responses += 1
        limit = min(request.limit, clamp)
        offset = 0 if ignores_offset else request.offset
        rows = listed[offset : offset + limit] if not empty_every or responses % empty_every else []
        if short_every and not responses % short_every:
            rows = rows[: (len(rows) + 1) // 2]
        # (None of none is no lie that could be distinguished from all having been deleted.)
        total = rng.randint(1, 2 * count + 1) if lie == "random" else lies[lie]
        echo = {"nothing": None, "its limit": limit, "what was requests": request.limit}
        return RunPage(tuple(rows), Pagination(total, request.offset, echo[echoes]))

    yielded, requests, error = walk(server, make_plan(page_size=page_size), depth=depth, rng=rng)
    assert len(set(yielded)) == len(yielded)
    assert yielded == [f"r{n}" for n in range(len(yielded))]
    event(f"{lie}: {'whole' if error is None else 'error'}")
    if error is None:
        assert len(yielded) == count
    assert requests <= 200 + 20 * count


def serving(
    listed: list[JobRun], *, after: Callable[[], None] = lambda: None, clamp: int = 1000
) -> Callable[[PlannedPage], RunPage]:
    """A server of this list, newest last in it and first in its responses, which changes after each response."""

    def server(request: PlannedPage) -> RunPage:
        limit = min(request.limit, clamp)
        rows = listed[::-1][request.offset : request.offset + limit]
        total = len(listed)
        after()
        return RunPage(tuple(rows), Pagination(total, request.offset, limit))

    return server


@pytest.mark.parametrize("each", [1, 5, 30, 60])
def test_new_runs_at_the_head_for_ever_dont_keep_a_walk_from_its_end(each: int) -> None:
    """Without end, new runs appear at the head, and the walk ends all the same."""
    listed = [make_run(n, n) for n in range(2000)]
    wanted = [run.id for run in listed[::-1]]
    server = serving(
        listed, after=lambda: listed.extend([make_run(len(listed) + n, len(listed) + n) for n in range(each)])
    )
    yielded, requests, error = walk(server, make_plan(page_size=100), depth=16)
    assert error is None
    assert [one for one in yielded if one in set(wanted)] == wanted
    assert requests < 100


@pytest.mark.parametrize("each", [100, 150, 1000])
def test_a_head_that_grows_by_more_than_a_page_a_request_is_an_end_or_an_error(each: int) -> None:
    """More than a page of new runs with each response: the walk ends, whole or with an error."""
    listed = [make_run(n, n) for n in range(2000)]
    wanted = [run.id for run in listed[::-1]]
    server = serving(
        listed, after=lambda: listed.extend([make_run(len(listed) + n, len(listed) + n) for n in range(each)])
    )
    yielded, requests, error = walk(server, make_plan(page_size=100), depth=16)
    assert error is not None or [one for one in yielded if one in set(wanted)] == wanted
    assert len(set(yielded)) == len(yielded)
    assert requests < 500


def test_new_runs_at_the_tail_for_ever_are_an_error_in_the_end() -> None:
    """A list that grows at its end as fast as it is read is an error."""
    listed = [make_run(n, -n) for n in range(500)]
    server = serving(
        listed,
        after=lambda: listed.__setitem__(
            slice(0, 0), [make_run(9000 + len(listed) + n, -9000) for n in range(60)][::-1]
        ),
    )
    yielded, requests, error = walk(server, make_plan(page_size=50), depth=4)
    assert error is not None
    assert "end" in str(error)
    assert error.seen == len(yielded)
    assert requests < 1000


@pytest.mark.parametrize("clamp", [2, 7, 99])
def test_a_server_that_clamps_the_limit_is_walked_at_its_own_pace(clamp: int) -> None:
    """A clamped limit costs no more requests than its pages need."""
    listed = [make_run(n, n) for n in range(300)]
    yielded, requests, error = walk(serving(listed, clamp=clamp), make_plan(page_size=100), depth=8)
    assert error is None
    assert yielded == [run.id for run in listed[::-1]]
    assert requests <= math.ceil(300 / (clamp - 1)) + 2


def test_a_server_that_clamps_the_limit_to_one_is_an_error_that_says_so() -> None:
    """With a single run in a page, no page can overlap the one before."""
    listed = [make_run(n, n) for n in range(5)]
    _, _, error = walk(serving(listed, clamp=1), make_plan(page_size=100))
    assert error is not None
    assert "no page holds more than one run" in str(error)


@pytest.mark.parametrize("each", [1, 5, 40])
@pytest.mark.parametrize("depth", [1, 4, 16])
def test_deletions_all_over_the_list_lose_nothing(each: int, depth: int) -> None:
    """Deleted runs move the list to the left, past the reader, and nothing is lost."""
    rng = random.Random(each)
    listed = [make_run(n, n) for n in range(3000)]
    server = serving(listed, after=lambda: [listed.pop(rng.randrange(len(listed))) for _ in range(each)] and None)
    yielded, _, error = walk(server, make_plan(page_size=100), depth=depth, rng=rng)
    assert error is None
    assert {run.id for run in listed} <= set(yielded)
    assert len(set(yielded)) == len(yielded)


def consumed(plan: Planner, request: PlannedPage | None, runs: list[JobRun], total: int) -> list[str]:
    assert request is not None
    return [
        one.id for one in plan.consume(request, RunPage(tuple(runs), Pagination(total, request.offset, request.limit)))
    ]


def test_forgotten_runs_of_one_millisecond() -> None:
    """A run whose id was forgotten isn't taken for a new one."""
    runs = [make_run(n, 10 if n < 10 else 5) for n in range(900)]
    plan = make_plan(page_size=100)
    for _ in range(7):
        request = plan.next_request([])
        assert request is not None
        assert consumed(plan, request, runs[request.offset : request.offset + 100], 900)
    assert consumed(plan, plan.next_request([]), [runs[8], runs[20]], 900) == []


def test_an_id_that_stands_twice_in_a_response_is_yielded_once() -> None:
    """A response that lists a run twice brings it once."""
    runs = [make_run(n, -n) for n in range(3)]
    plan = make_plan(page_size=10)
    assert consumed(plan, plan.next_request([]), [runs[0], runs[1], runs[1], runs[0], runs[2]], 5) == ["r0", "r1", "r2"]
    assert plan.done


def test_a_list_emptied_under_the_walk_is_at_its_end() -> None:
    """A list that was emptied is complete."""
    listed = [make_run(n, n) for n in range(500)]
    responses = iter(range(1000))
    server = serving(listed, after=lambda: listed.clear() if next(responses) == 2 else None)
    yielded, _, error = walk(server, make_plan(page_size=50), depth=1)
    assert error is None
    assert yielded == [f"r{n}" for n in range(499, 499 - len(yielded), -1)]
    assert len(yielded) < 150


@pytest.mark.parametrize("start", [0, 3, 250, 499, 500, 600])
@pytest.mark.parametrize("max_runs", [None, 0, 1, 49, 50, 51, 300])
def test_start_and_max_runs_request_no_more_than_they_need(start: int, max_runs: int | None) -> None:
    """`offset` and `max_runs` bound the requests."""
    listed = [make_run(n, n) for n in range(500)]
    plan = make_plan(page_size=50, start=start, max_runs=max_runs)
    yielded, requests, error = walk(serving(listed), plan, depth=16)
    assert error is None
    assert yielded == [run.id for run in listed[::-1]][start:][:max_runs]
    assert requests <= math.ceil(min(500, 500 if max_runs is None else max_runs) / 49) + 1


class ChangingKeys:
    """A list sorted by a key that changes under the walk, as status and duration do."""

    def __init__(self, count: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.runs = [(self.rng.random(), make_run(n, n)) for n in range(count)]

    def jump(self, count: int) -> None:
        for _ in range(count):
            index = self.rng.randrange(len(self.runs))
            self.runs[index] = (self.rng.random(), self.runs[index][1])

    def server(self, jumps: int) -> Callable[[PlannedPage], RunPage]:
        def server(request: PlannedPage) -> RunPage:
            rows = [run for _, run in sorted(self.runs, key=lambda pair: pair[0])][
                request.offset : request.offset + request.limit
            ]
            page = RunPage(tuple(rows), Pagination(len(self.runs), request.offset, request.limit))
            self.jump(jumps)
            return page

        return server


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("jumps", [1, 5, 200])
def test_runs_that_change_their_place_are_never_repeated(jumps: int, seed: int) -> None:
    """Nothing is repeated, and what is missing is found or an error."""
    jumping = ChangingKeys(1000, seed)
    plan = make_plan(page_size=100, by_creation=False)
    yielded, requests, error = walk(jumping.server(jumps), plan, depth=4)
    assert len(set(yielded)) == len(yielded)
    assert requests <= 200
    if error is None:
        assert len(yielded) == 1000
    else:
        assert error.seen == len(yielded) < 1000


def test_runs_that_change_their_place_only_during_the_first_pass_are_all_found() -> None:
    """Once the list stands still, what was missed is found."""
    for seed in range(20):
        jumping = ChangingKeys(1000, seed)
        left = iter([20] * 8 + [0] * 10_000)
        serve = jumping.server(0)

        def server(request: PlannedPage) -> RunPage:
            page = serve(request)  # noqa: B023
            jumping.jump(next(left))  # noqa: B023
            return page

        plan = make_plan(page_size=100, by_creation=False)
        yielded, _, error = walk(server, plan, depth=1)
        assert error is None
        assert sorted(yielded) == sorted(run.id for _, run in jumping.runs)
        assert len(yielded) == 1000


@given(page_size=st.integers(1, 20), count=st.integers(0, 100), depth=st.integers(1, 16))
def test_a_still_list_in_an_order_with_changing_keys_is_swept_once(page_size: int, count: int, depth: int) -> None:
    """Where nothing changes, one pass is enough."""
    plan = make_plan(page_size=page_size, by_creation=False)
    yielded, requests, error = walk(ChangingKeys(count, 1).server(0), plan, depth=depth)
    assert error is None
    assert len(yielded) == count
    assert requests <= math.ceil(count / max(1, page_size - 1)) + 2


def test_a_refusal_at_the_start_of_a_further_pass_is_an_error() -> None:
    """A server that refuses the first request of a second pass doesn't make the walk endless."""
    plan = make_plan(page_size=10, by_creation=False)
    runs = [make_run(number, number) for number in range(11)]
    consumed(plan, plan.next_request([]), runs[:10], 12)
    consumed(plan, plan.next_request([]), [runs[9], runs[10], runs[10]], 12)
    request = plan.next_request([])
    assert request is not None
    assert (request.pass_number, request.offset) == (2, 0)
    with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 0: no") as caught:
        plan.refuse(request, "no")
    assert (caught.value.job_id, caught.value.offset, caught.value.seen, caught.value.total) == ("j", 0, 11, 12)


def test_an_error_says_how_far_the_walk_came() -> None:
    """The error has the job, the place where the walk failed, how many runs were read, and the total."""
    plan = make_plan(page_size=10, start=5)
    request = plan.next_request([])
    consumed(plan, request, [make_run(number, -number) for number in range(10)], 100)
    request = plan.next_request([])
    assert request is not None
    consumed(plan, request, [make_run(number, -number) for number in range(7, 17)], 103)
    request = plan.next_request([])
    assert request is not None
    with pytest.raises(IncompleteWalkError) as caught:
        plan.refuse(request, "no")
    assert (caught.value.job_id, caught.value.offset, caught.value.seen, caught.value.total) == ("j", 24, 17, 103)
