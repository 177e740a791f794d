"""Jobs that fail alone, outages of all, and first polls that are slow: what a watch reports all the same."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import attrs
import pytest

import tfruns
from tests.support.hostile import serve
from tests.support.watching import Over, watch_of
from tests.support.world import World, WorldTimer, history_of
from tfruns import Client, RetryPolicy, RunChange, TfRunsError
from tfruns._watch.schedule import PollSchedule, Trouble

ONCE = RetryPolicy(max_attempts=1)
Action = Callable[[World], object]


@attrs.define
class Steps(WorldTimer):
    """A step of the test whenever the watch has nothing to do; at the end the watch is over."""

    steps: list[Action] = attrs.field(kw_only=True)

    def pause(self) -> None:
        if not self.steps:
            raise Over
        self.steps.pop(0)(self.world)


def nothing(_: World) -> None:
    pass


def fail(job_id: str, status: int) -> Action:
    return lambda world: world.failing.update({job_id: status})


def mend(world: World) -> None:
    world.failing.clear()
    for gate in world.slow.values():
        gate.set()
    world.slow.clear()


def slow(job_id: str) -> Action:
    return lambda world: world.slow.update({job_id: asyncio.Event()})


def create(job_id: str) -> Action:
    return lambda world: world.create(job_id, "RUNNING")


def end_oldest(job_id: str) -> Action:
    """End the oldest run that is open."""

    def step(world: World) -> None:
        runs = world.jobs[job_id]
        world.update(job_id, max(at for at, run in enumerate(runs) if run["status"] == "RUNNING"), "FAILED")

    return step


@pytest.fixture
async def world() -> World:
    return World({job_id: history_of(job_id, 60, 20, 1000) for job_id in ("a", "b")})


async def reports(
    world: World, *steps: Action, skipped: dict[str, TfRunsError] | None = None, **arguments: Any
) -> AsyncGenerator[RunChange]:
    """What a watch of both jobs reports while these steps happen; and which jobs are skipped in the end."""
    async with serve(world.respond) as (url, _), Client(url, "key", retry=ONCE) as client:
        watch = watch_of(client, ("a", "b"), Steps(world=world, steps=list(steps), least=100), **arguments)
        try:
            async with aclosing(watch.changes()) as changes:
                async for change in changes:
                    yield change
        except Over:
            if skipped is not None:
                skipped.update(watch.skipped)


def summary(changes: list[RunChange]) -> list[tuple[str, str, str]]:
    return [(change.job_id, change.kind.value, change.run.id) for change in changes]


@pytest.mark.parametrize("status", [301, 403, 404, 422, 200])
async def test_one_job_fails_alone(world: World, status: int) -> None:
    """With "skip", its error (200: a malformed run) ends it alone; it comes back, and nothing of it was missed."""
    heard: list[tuple[str, str]] = []
    skipped: dict[str, TfRunsError] = {}
    steps = [fail("b", status), nothing, create("a"), create("b"), end_oldest("b"), nothing]
    on_error: Any = lambda job_id, error: heard.append((job_id, type(error).__name__))  # noqa: E731
    found = [one async for one in reports(world, *steps, on_error=on_error, skipped=skipped)]
    assert summary(found) == [("a", "appeared", "a-120")]
    assert len(heard) == 1
    assert heard[0][0] == "b"
    assert list(skipped) == ["b"]
    assert type(skipped["b"]).__name__ == heard[0][1]


async def test_a_job_comes_back(world: World) -> None:
    """Then it leaves `skipped`, and what happened meanwhile is reported, once."""
    skipped: dict[str, TfRunsError] = {}
    steps = [fail("b", 404), nothing, create("b"), end_oldest("b"), mend, *[nothing] * 20]
    found = [one async for one in reports(world, *steps, on_error="skip", skipped=skipped)]
    assert summary(found) == [("b", "finished", "b-old-42"), ("b", "appeared", "b-120")]
    assert found[0].before is not None
    assert skipped == {}


@pytest.mark.parametrize(("status", "error"), [(404, tfruns.NotFoundError), (403, tfruns.PermissionDeniedError)])
async def test_an_error_ends_the_watch_by_default(world: World, status: int, error: type[Exception]) -> None:
    """With on_error="raise", for one job's error is seldom meant to be overlooked."""
    with pytest.raises(error):
        [one async for one in reports(world, fail("b", status), nothing, nothing)]


async def test_a_refused_key_ends_the_watch(world: World) -> None:
    """It isn't about one job: it is raised with "skip" too."""
    with pytest.raises(tfruns.AuthenticationError):
        [one async for one in reports(world, fail("b", 401), nothing, nothing, on_error="skip")]


async def test_on_error_may_be_async_and_may_raise(world: World) -> None:
    """It is called once each time that a job goes away; what it raises ends the watch."""
    heard: list[str] = []

    async def on_error(job_id: str, error: TfRunsError) -> None:
        await asyncio.sleep(0)
        heard.append(job_id)
        if len(heard) == 2:
            raise LookupError(job_id) from error

    steps = [fail("b", 404), *[nothing] * 5, mend, *[nothing] * 20, fail("b", 403), *[nothing] * 20]
    with pytest.raises(LookupError):
        [one async for one in reports(world, *steps, on_error=on_error)]
    assert heard == ["b", "b"]


def test_pauses_of_a_skipped_job_grow() -> None:
    """Twice as long each time, up to ten minutes, or the interval if that is longer; success makes them short."""
    trouble = Trouble("the watch", time.monotonic)
    pace = PollSchedule("job", (2.0, 30.0), trouble)
    assert [pace.after_skip() for _ in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    pace.next(changed=False)
    assert pace.after_skip() == 30
    assert PollSchedule("job", (2.0, 3_600.0), trouble).after_skip() == 3_600


async def test_an_outage_of_any_length(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It ends nothing, whatever fails; the log says once that it began and once that it is over; nothing is lost."""

    def all_fail(world: World) -> None:
        world.failing.update(dict.fromkeys(world.jobs, (408, 425, 500)[len(world.history) % 3]))
        world.create("a", "RUNNING")

    with caplog.at_level(logging.WARNING, "tfruns"):
        found = [
            one async for one in reports(world, nothing, *[all_fail] * 12, mend, nothing, nothing, interval=3_600.0)
        ]
    assert summary(found) == [("a", "appeared", f"a-{120 + number}") for number in range(12)]
    messages = [record.getMessage() for record in caplog.records]
    first, last = (text for text in messages if "the watch goes on" in text or "can be polled again" in text)
    assert "the watch goes on" in first
    assert "can be polled again, after 43200 s" in last


async def test_reports_wait_for_first_polls(world: World) -> None:
    """A job that is slow to respond holds them back for ten seconds; so tokens hold its snapshot."""
    slow("b")(world)
    found = [one async for one in reports(world, mend, nothing, start="open")]
    ids = [change.job_id for change in found]
    assert {*ids} == {"a", "b"}
    # No end time: what was polled is compared with what is there now, and no clock counts.
    world.jobs["b"] = [{**run, "status": "FAILED"} if run["status"] == "RUNNING" else run for run in world.jobs["b"]]
    resumed = [one async for one in reports(world, nothing, resume_token=found[0].resume_token)]
    assert len(resumed) == len(found) - 1
    kinds = {change.run.id: change.kind.value for change in resumed if change.job_id == "b"}
    assert kinds == {"b-old-1": "appeared"} | dict.fromkeys(("b-old-2", "b-old-22", "b-old-42"), "finished")


@pytest.mark.parametrize("start", ["now", "open"])
async def test_reports_do_not_wait_for_ever(world: World, start: str) -> None:
    """A job that never responds holds back no other; a token from then loses nothing of it."""
    slow("b")(world)
    steps = [nothing, create("a"), *[nothing] * 15, create("b"), end_oldest("b"), nothing]
    found = [one async for one in reports(world, *steps, start=start)]
    assert {change.job_id for change in found} == {"a"}
    mend(world)
    resumed = [one async for one in reports(world, nothing, nothing, start="now", resume_token=found[-1].resume_token)]
    others = [("b", "appeared", f"b-old-{number}") for number in (22, 2, 1) if start == "open"]
    expected = [("b", "finished", "b-old-42"), *others, ("b", "appeared", "b-121")]
    assert summary(resumed) == expected


async def test_a_first_poll_that_fails(world: World) -> None:
    """What happens to the job until it responds is reported then, though `start` is "now"."""
    fail("b", 500)(world)
    found = [one async for one in reports(world, nothing, create("b"), end_oldest("b"), nothing, mend, nothing)]
    assert summary(found) == [("b", "finished", "b-old-42"), ("b", "appeared", "b-120")]


@pytest.mark.parametrize("start", ["now", "open"])
async def test_an_old_run_in_an_unknown_status(start: str) -> None:
    """It is open, however far down it is: its end is reported."""
    world = World({job_id: history_of(job_id, 1_500, 2_000, 2_000) for job_id in ("a", "b")})
    world.update("b", 2, "PAUSED")
    world.jobs["b"].insert(0, world.jobs["b"][1] | {"id": "newest", "status": "FINISHED", "endTime": 1})
    world.jobs["b"] = [*world.jobs["b"][:1], *world.jobs["b"][2:3], *world.jobs["b"][4:], world.jobs["b"][3]]
    old = world.jobs["b"][-1] | {"createdAt": world.jobs["b"][-2]["createdAt"] - 1}
    world.jobs["b"][-1] = old

    def end(world: World) -> None:
        assert world.jobs["b"][-1]["status"] == "PAUSED"
        world.update("b", len(world.jobs["b"]) - 1, "FAILED")

    found = [one async for one in reports(world, nothing, end, nothing, start=start)]
    mine = [(one.kind.value, one.run.status.value) for one in found if one.run.id == old["id"]]
    assert mine == [("appeared", "PAUSED")] * (start == "open") + [("finished", "FAILED")]


async def test_a_log_filter_that_fails(world: World) -> None:
    """It ends no watch: neither an outage nor a skipped job waits for the log."""

    def broken(record: logging.LogRecord) -> bool:
        raise ValueError(record)

    logger = logging.getLogger("tfruns")
    logger.addFilter(broken)
    try:
        steps = [fail("b", 503), nothing, mend, fail("b", 404), nothing, create("a"), nothing]
        found = [one async for one in reports(world, *steps, on_error="skip")]
    finally:
        logger.removeFilter(broken)
    assert summary(found) == [("a", "appeared", "a-120")]
