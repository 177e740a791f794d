"""The plan of a walk, against a model of a server: no network, only what is asked and what is answered."""

import math
import os
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, JobRunStatus, Pagination, RunPage
from tfruns.plan import Ask, Plan

# A long run: TFRUNS_EXAMPLES=100000 python -m pytest tests/test_plan.py
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
    runs_jump: bool = False,
) -> Plan:
    return Plan(
        job_id="j",
        start=start,
        page_size=page_size,
        max_runs=max_runs,
        by_creation=by_creation,
        runs_jump=runs_jump,
    )


class Driver:
    """Does with a plan what the generator does, without a network: pages are asked for ahead, answered one by one."""

    def __init__(self, plan: Plan, depth: int) -> None:
        self.plan = plan
        self.depth = depth
        self.queue: deque[tuple[Ask, RunPage | None]] = deque()
        self.asked = 0
        self.yielded: list[str] = []
        self.ask_ahead()

    def ask_ahead(self) -> None:
        while len(self.queue) < self.depth and (ask := self.plan.upcoming()) is not None:
            self.queue.append((ask, None))
            self.asked += 1

    def answer(self, which: int, server: Callable[[Ask], RunPage]) -> None:
        """Answer one of the requests under way."""
        waiting = [index for index, (_, page) in enumerate(self.queue) if page is None]
        if waiting:
            index = waiting[which % len(waiting)]
            ask = self.queue[index][0]
            self.queue[index] = (ask, server(ask))

    def take(self) -> bool:
        """Take the answer that is next in order, if it is there."""
        if not self.queue or self.queue[0][1] is None:
            return False
        ask, page = self.queue.popleft()
        assert page is not None
        taken = self.plan.take(ask, page)
        self.yielded += [run.id for run in taken.fresh]
        if taken.restart or self.plan.done:
            self.queue.clear()
        if taken.again:
            self.queue.appendleft((ask, page))
        if taken.bridge is not None:
            self.queue.appendleft((taken.bridge, None))
            self.asked += 1
        self.ask_ahead()
        return True

    def finish(self, server: Callable[[Ask], RunPage]) -> None:
        while self.queue:
            self.answer(0, server)
            self.take()
        assert self.plan.done


class ChangingList(RuleBasedStateMachine):
    """A walk over a list that changes at random, between and during its requests."""

    @initialize(
        count=st.integers(0, 80),
        page_size=st.integers(1, 12),
        depth=st.sampled_from([1, 2, 5, 16]),
        ascending=st.booleans(),
        level=st.sampled_from([1, 1, 2, 5]),
        by_creation=st.booleans(),
        echoes=st.booleans(),
    )
    def begin(
        self, count: int, page_size: int, depth: int, ascending: bool, level: int, by_creation: bool, echoes: bool
    ) -> None:
        self.born = 0
        self.level = level  # so many runs are created in one millisecond
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
        self.driver = Driver(make_plan(page_size=page_size, by_creation=by_creation), depth)

    def create(self, count: int) -> None:
        for _ in range(count):
            self.born += 1
            self.runs.append(make_run(self.born, self.born // self.level))

    def serve(self, ask: Ask) -> RunPage:
        listed = self.runs if self.ascending else self.runs[::-1]
        pagination = Pagination(len(listed), ask.offset, ask.limit if self.echoes else None)
        return RunPage(tuple(listed[ask.offset : ask.offset + ask.limit]), pagination)

    @rule(count=st.integers(1, 4))
    def some_are_created(self, count: int) -> None:
        self.changes += 1
        self.create(count)

    @rule(count=st.integers(5, 60))
    def a_burst_is_created(self, count: int) -> None:
        self.changes += 1
        self.create(count)

    @rule(places=st.lists(st.integers(0, 1000), min_size=1, max_size=5))
    def some_are_deleted(self, places: list[int]) -> None:
        self.changes += 1
        for place in places:
            if self.runs:
                self.lasting.discard(self.runs.pop(place % len(self.runs)).id)

    @rule(start=st.integers(0, 100), length=st.integers(5, 40))
    def a_stretch_is_deleted(self, start: int, length: int) -> None:
        self.changes += 1
        self.lasting -= {run.id for run in self.runs[start : start + length]}
        del self.runs[start : start + length]

    @precondition(lambda self: self.changes > 6)
    @rule()
    def all_are_deleted(self) -> None:
        self.lasting.clear()
        self.runs.clear()

    @rule(which=st.integers(0, 15))
    def a_request_is_answered(self, which: int) -> None:
        self.driver.answer(which, self.serve)

    @rule()
    def the_next_in_order_is_answered_and_taken(self) -> None:
        self.driver.answer(0, self.serve)
        self.take()

    @rule()
    def take(self) -> None:
        if not self.failed:
            try:
                self.driver.take()
            except IncompleteWalkError:
                self.failed = True

    @invariant()
    def none_is_repeated_and_the_order_is_kept(self) -> None:
        if not hasattr(self, "driver"):
            return
        assert len(set(self.driver.yielded)) == len(self.driver.yielded)
        places = [self.place[one] for one in self.driver.yielded if one in self.place]
        assert places == sorted(places, reverse=not self.ascending)

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
            assert self.driver.asked <= math.ceil(self.count / max(1, self.page_size - 1)) + 2


ChangingList.TestCase.settings = settings(THOROUGH, stateful_step_count=40)
TestChangingList = ChangingList.TestCase


def walk(
    server: Callable[[Ask], RunPage], plan: Plan, *, depth: int = 4, rng: random.Random | None = None
) -> tuple[list[str], int, IncompleteWalkError | None]:
    """What was yielded, how many requests it took, and the error that ended it."""
    driver = Driver(plan, depth)
    try:
        while driver.queue:
            driver.answer(rng.randrange(16) if rng else 0, server)
            driver.take()
    except IncompleteWalkError as error:
        return driver.yielded, driver.asked, error
    assert plan.done
    return driver.yielded, driver.asked, None


@THOROUGH
@given(
    count=st.integers(0, 60),
    page_size=st.integers(1, 12),
    clamp=st.sampled_from([1, 2, 3, 7, 1000]),
    lie=st.sampled_from(["true", "zero", "half", "one less", "one more", "double", "negative", "random"]),
    ignores_offset=st.booleans(),
    empty_every=st.sampled_from([0, 2, 3, 5]),
    echoes=st.booleans(),
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
    echoes: bool,
    depth: int,
    seed: int,
) -> None:
    assume(clamp > 1 or echoes)  # a server that gives one run and says it's all can't be told from one that is right
    rng = random.Random(seed)
    listed = [make_run(n, n) for n in range(count)]
    lies = {"true": count, "zero": 0, "half": count // 2, "one less": count - 1, "one more": count + 1}
    lies |= {"double": 2 * count, "negative": -5}
    answers = 0

    def server(ask: Ask) -> RunPage:
        nonlocal answers
        answers += 1
        limit = min(ask.limit, clamp)
        offset = 0 if ignores_offset else ask.offset
        rows = listed[offset : offset + limit] if not empty_every or answers % empty_every else []
        # (None of none is no lie that could be told from all having been deleted.)
        total = rng.randint(1, 2 * count + 1) if lie == "random" else lies[lie]
        return RunPage(tuple(rows), Pagination(total, ask.offset, limit if echoes else None))

    yielded, asked, error = walk(server, make_plan(page_size=page_size), depth=depth, rng=rng)
    assert len(set(yielded)) == len(yielded)
    assert yielded == [f"r{n}" for n in range(len(yielded))]
    event(f"{lie}: {'whole' if error is None else 'error'}")
    if error is None:
        assert len(yielded) == count
    assert asked <= 200 + 20 * count
