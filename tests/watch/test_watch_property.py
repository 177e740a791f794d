"""What a watch reports of each run is what happened to it, merged between two polls: of one job, poll by poll."""

import asyncio
import logging
import random
from collections import Counter, defaultdict
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.seeds import examples, seeds
from tests.support.watching import INTERVAL, Over, stepped
from tfruns import ChangeKind, Client, JobRun, RetryPolicy, RunChange
from tfruns._watch import schedule
from tfruns._watch.poll import PAGE_SIZE
from tfruns.sandbox import Fault, Sandbox

IMPATIENT = RetryPolicy(max_attempts=2, initial_backoff=0.0, max_backoff=0.0)
FAULTS = (Fault(status=503, rate=0.2), Fault(status=429, wait=0.0, rate=0.1), Fault(breaks="reset", rate=0.1))


class Account:
    """What a consumer knows by what was reported, checked as it is reported."""

    def __init__(self, runs: list[JobRun]) -> None:
        self.runs = {run.id: run for run in runs}
        self.finished = Counter[str]()

    def take(self, change: RunChange) -> None:
        last = self.runs.get(change.run.id)
        assert change.before == last, "before is what was reported last, so that nothing is missed or reported twice"
        if change.kind == ChangeKind.DELETED:
            assert change.run == last
            del self.runs[change.run.id]
            return
        assert change.run != last
        ended = change.run.status.is_terminal
        self.finished[change.run.id] += ended
        assert self.finished[change.run.id] <= 1
        assert change.kind == ("finished" if ended else "appeared" if last is None else "changed")
        self.runs[change.run.id] = change.run


ACTS = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 3000)),
    st.tuples(st.just("create"), st.sampled_from([1, 3, 40, 130])),
    st.tuples(st.just("at once"), st.sampled_from([2, 30, 70])),
    st.tuples(st.just("late"), st.integers(0, 12)),
    st.tuples(st.just("finish"), st.integers(0, 10**6)),
    st.tuples(st.just("delete"), st.integers(0, 19)),
    st.tuples(st.just("delete open"), st.integers(0, 10**6)),
    st.tuples(st.just("faults"), st.booleans()),
    st.tuples(st.just("restart"), st.integers(1, 80)),
)


async def act(s: Sandbox, what: str, number: int) -> None:
    [job_id] = s.job_ids
    runs = s.runs(job_id)
    still_open = [run for run in runs if not run.status.is_terminal]
    match what:
        case "pass":
            s.clock.advance(number)
        case "create":
            for _ in range(number):
                await s.create_run(job_id)
        case "at once":
            last = await s.create_run(job_id)
            for at in range(number):
                await s.create_run(job_id, created_at=last.created_at, status=("FAILED", "CREATED")[at % 2])
        case "late" if number < len(runs):
            created_at = runs[number].created_at - 1
            if sum(run.created_at >= created_at for run in runs) <= 20:  # a watch promises no more
                await s.create_run(job_id, created_at=created_at, status="FINISHED")
        case "finish" if still_open:
            await s.finish_run(job_id, still_open[number % len(still_open)].id)
        case "delete" if number < len(runs):
            if len(runs) >= PAGE_SIZE and runs[number].created_at <= runs[PAGE_SIZE - 11].created_at:
                return  # many were created at once: whether it is gone can't be seen from the newest of them
            await s.delete_run(job_id, runs[number].id)
        case "delete open" if still_open:
            await s.delete_run(job_id, still_open[number % len(still_open)].id)
        case "faults":
            s.faults[:] = FAULTS if number else ()


async def play(script: list[list[tuple[str, int]]], runs: int, seed: int) -> None:
    """Each poll of a watch after a part of the script; check what was reported after it."""
    failures = logging.Handler()
    failed: list[str] = []
    failures.emit = lambda record: failed.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tfruns")
    logger.addHandler(failures)
    logger.setLevel(logging.DEBUG)  # of an outage, only the beginning is a warning
    script = [*script, [("faults", 0)], []]
    async with Sandbox(1, runs, seed, living=True) as s, Client(s.url, s.api_key, retry=IMPATIENT) as client:
        [job_id] = s.job_ids
        account: Account | None = None
        restart_after = 0

        async def pause(seconds: float) -> None:
            nonlocal account, restart_after
            if seconds < INTERVAL:
                return
            if not any("the watch goes on" in line for line in failed):
                account = account or Account(s.runs(job_id))
                assert account.runs == {run.id: run for run in s.runs(job_id)}
            failed.clear()
            if not script:
                raise Over
            deleted = 0
            for what, number in script.pop(0):
                if what == "restart":
                    restart_after = number
                elif what != "delete" or (deleted := deleted + 1) <= 10:
                    await act(s, what, number)

        token = None
        with pytest.raises(Over):
            while True:
                watch = stepped(client, job_id, pause, resume_token=token)
                async with aclosing(watch.changes()) as changes:
                    async for change in changes:
                        assert account is not None, "a watch from now on reports nothing of what was there before"
                        account.take(change)
                        restart_after -= 1
                        if restart_after == 0:
                            token = change.resume_token
                            break
    logger.removeHandler(failures)
    logger.setLevel(logging.NOTSET)
    assert account is not None


@pytest.mark.property
@settings(max_examples=examples(6, share=0.05))
@given(
    script=st.lists(st.lists(ACTS, min_size=1, max_size=6), min_size=1, max_size=8),
    runs=st.sampled_from([0, 1, 15, 49, 50, 51, 70, 300]),
    seed=st.integers(0, 3),
)
def test_reports_are_what_happened(script: list[list[tuple[str, int]]], runs: int, seed: int) -> None:
    """Through faults, bursts, late runs and restarts."""
    asyncio.run(play(script, runs, seed))


@pytest.mark.property
async def test_runs_may_change_between_the_requests_of_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missed or reported twice then."""
    for seed in seeds(1, share=0.01):
        await watch_a_list_that_changes(seed, monkeypatch)


async def watch_a_list_that_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LEAST_SECONDS", 0.1)
    monkeypatch.setattr(schedule, "_SECONDS_EACH", 0.0)
    rng = random.Random(seed)
    async with Sandbox(1, 200, seed) as s, Client(s.url, s.api_key, retry=IMPATIENT) as client:
        [job_id] = s.job_ids
        account = Account(s.runs(job_id))
        history: dict[str, list[JobRun]] = defaultdict(list)
        for run in s.runs(job_id):
            history[run.id].append(run)

        still_open = {run.id for run in account.runs.values() if not run.status.is_terminal}

        async def create() -> None:
            run = await s.create_run(job_id)
            history[run.id].append(run)
            still_open.add(run.id)

        async def change_things() -> None:
            for _ in range(80):
                await asyncio.sleep(rng.choice([0, 0, 0, 0.002, 0.01]))
                what, run_id = rng.random(), rng.choice(sorted(still_open))
                if what < 0.4 or len(still_open) < 5:
                    for _ in range(rng.choice([1, 1, 5, 70])):
                        await create()
                elif what < 0.6:
                    history[run_id].append(await s.update_run(job_id, run_id, status="RUNNING", command=str(what)))
                else:
                    still_open.remove(run_id)
                    if what < 0.9:
                        history[run_id].append(await s.finish_run(job_id, run_id, rng.choice(["FINISHED", "FAILED"])))
                    else:
                        await s.delete_run(job_id, run_id)
            await create()  # so that there is a change to end with

        changes = client.watch_runs(job_id, interval=(0.001, 0.005), start="now")
        first = asyncio.ensure_future(anext(changes))
        while not s.requests or len({request.query for request in s.requests}) < 2:
            await asyncio.sleep(0.01)  # until the first poll is over, and the second has begun
        await asyncio.sleep(0.05)
        changing = asyncio.create_task(change_things())
        async with asyncio.timeout(60), aclosing(changes):
            account.take(await first)
            async for change in changes:
                account.take(change)
                if change.kind != ChangeKind.DELETED:
                    states = history[change.run.id]
                    assert change.before is None or states.index(change.before) < states.index(change.run)
                if changing.done() and account.runs == {run.id: run for run in s.runs(job_id)}:
                    break
    await changing
