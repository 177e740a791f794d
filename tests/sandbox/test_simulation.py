"""The sandbox's clock, and the runs that are simulated by it."""

import asyncio
import itertools
import time
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

import tfruns
from tfruns.models import JobRun, JobRunStatus
from tfruns.sandbox import Clock, Sandbox
from tfruns.sandbox.data import NEWEST

ORDER = {"CREATED": 0, "SCHEDULED": 1, "RUNNING": 2, "FINISHED": 3, "FAILED": 3}


def states(s: Sandbox) -> dict[str, list[dict[str, Any]]]:
    return {job_id: [run.to_dict() for run in s.runs(job_id)] for job_id in s.job_ids}


async def test_the_clock_stands_still_until_it_is_moved() -> None:
    async with Sandbox(1, 5) as s:
        then = s.clock.now
        last = s.runs(s.job_ids[0])
        assert then >= max(int(max(run.created_at, run.end_time or 0)) for run in last)
        await asyncio.sleep(0.01)
        assert s.clock.now == then
        s.clock.advance(1.5)
        assert s.clock.now == then + 1500
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = s.clock


async def test_the_clock_can_run_at_a_rate_and_be_stopped() -> None:
    clock = Clock(1000, rate=1_000_000)
    await asyncio.sleep(0.01)
    assert clock.now > 1000 + 9_000_000
    clock.rate = 0
    then = clock.now
    await asyncio.sleep(0.01)
    assert clock.now == then


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (float("nan"), ValueError), (1e10, ValueError), ("5", TypeError)]
)
def test_a_clock_refuses_what_is_not_a_number_of_seconds(value: Any, error: type[Exception]) -> None:
    clock = Clock(0)
    with pytest.raises(error, match="seconds must be a number"):
        clock.advance(value)
    with pytest.raises(error, match="rate must be a number"):
        clock.rate = value
    with pytest.raises(error, match="clock_rate must be a number"):
        Sandbox(clock_rate=value)


async def test_the_clock_starts_where_the_runs_end_or_at_a_given_time() -> None:
    """The newest run was created when the clock starts, and nothing in the history lies in its future."""
    new_year = datetime(2027, 1, 1, tzinfo=UTC)
    for given, expected in ((None, NEWEST), (new_year, 1_798_761_600_000), (12 * 10**11, 12 * 10**11)):
        async with Sandbox(1, 1000, clock_start=given) as s:
            runs = s.runs(s.job_ids[0])
            assert s.clock.now == runs[0].created_at == expected
            assert max(run.end_time or 0 for run in runs) <= expected
    before = time.time()
    async with Sandbox(1, 5, clock_start="now") as s:
        assert before - 1 <= s.clock.now / 1000 <= time.time()


async def test_only_the_times_depend_on_when_the_clock_starts() -> None:
    async with Sandbox(1, 300) as then, Sandbox(1, 300, clock_start="now") as now:
        [job_id] = then.job_ids
        shift = now.clock.now - then.clock.now
        for old, new in zip(then.runs(job_id), now.runs(job_id), strict=True):
            end = old.end_time and old.end_time + shift
            assert attrs.evolve(old, created_at=old.created_at + shift, end_time=end) == new


async def test_runs_are_created_and_finished_at_the_time_of_the_clock() -> None:
    async with Sandbox(1, 5) as s:
        [job_id] = s.job_ids
        s.clock.advance(60)
        run = await s.create_run(job_id, status="RUNNING")
        assert run.created_at == s.clock.now
        s.clock.advance(90.5)
        done = await s.finish_run(job_id, run.id)
        assert (done.status, done.end_time, done.duration, done.exit_code) == ("FINISHED", s.clock.now, 90, 0)
        assert s.runs(job_id)[0] == done


async def test_a_run_can_end_in_any_way_once() -> None:
    async with Sandbox(1, 0) as s:
        [job_id] = s.job_ids
        run = await s.create_run(job_id)
        with pytest.raises(ValueError, match="FINISHED, FAILED or TERMINATED, got 'RUNNING'"):
            await s.finish_run(job_id, run.id, "RUNNING")
        failed = await s.finish_run(job_id, run.id, JobRunStatus.FAILED, error="out of coffee")
        assert (failed.status, failed.error) == ("FAILED", "out of coffee")
        assert failed.exit_code
        with pytest.raises(ValueError, match="has ended already: it is FAILED"):
            await s.finish_run(job_id, run.id)
        with pytest.raises(KeyError, match="no run with the id 'nope'"):
            await s.finish_run(job_id, "nope")
        with pytest.raises(ValueError, match="id of a run can't be changed"):
            await s.finish_run(job_id, (await s.create_run(job_id)).id, id="other")


async def test_without_life_nothing_happens_by_itself() -> None:
    async with Sandbox(2, 50) as s:
        before = states(s)
        s.clock.advance(1_000_000)
        assert states(s) == before


async def test_living_runs_go_their_way_and_never_back() -> None:
    async with Sandbox(1, 40, living=True) as s, tfruns.Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        seen: dict[str, list[JobRun]] = {}
        for _ in range(400):
            s.clock.advance(2)
            for run in await client.iter_runs(job_id).collect():
                seen.setdefault(run.id, []).append(run)
        born = [runs for runs in seen.values() if len(runs) < 400]
        assert len(born) >= 10
        for runs in born:
            steps = [ORDER[run.status] for run in runs]
            assert steps == sorted(steps)
            assert (runs[-1].end_time is not None) == runs[-1].status.is_terminal
        paths = {tuple(status for status, _ in itertools.groupby(run.status.value for run in runs)) for runs in born}
        assert any(path[:3] == ("CREATED", "SCHEDULED", "RUNNING") for path in paths)
        assert {"FINISHED", "FAILED"} & {path[-1] for path in paths}


async def test_runs_that_were_there_at_the_start_live_too() -> None:
    async with Sandbox(1, 100, living=True) as s:
        [job_id] = s.job_ids
        open_ones = {run.id for run in s.runs(job_id) if not run.status.is_terminal and run.status != "UNKNOWN"}
        s.clock.advance(24 * 3600)
        ended = {run.id: run for run in s.runs(job_id)}
        assert len(open_ones) > 5
        assert all(ended[run_id].status.is_terminal for run_id in open_ones)


async def test_the_same_seed_and_the_same_time_make_the_same_lives_however_often_one_looks() -> None:
    async with Sandbox(2, 30, 5, living=True) as often, Sandbox(2, 30, 5, living=True) as once:
        for _ in range(100):
            often.clock.advance(6)
            states(often)
        once.clock.advance(600)
        assert states(once) == states(often)


async def test_a_job_that_is_read_late_has_lived_all_the_same() -> None:
    """The runs of a job are made when it is first read; what it holds doesn't depend on when that is."""
    async with Sandbox(2, 30, 5, living=True) as early, Sandbox(2, 30, 5, living=True) as late:
        states(early)
        for s in (early, late):
            s.clock.advance(3600)
        assert states(late) == states(early)


@pytest.mark.slow
async def test_a_living_job_drops_its_oldest_run_when_it_has_grown_by_ten_thousand() -> None:
    async with Sandbox(1, 20, living=True) as s:
        [job_id] = s.job_ids
        before = s.runs(job_id)
        s.clock.advance(3600)
        assert {run.id for run in before} < {run.id for run in s.runs(job_id)}
        s.clock.advance(12_000 * 30)
        after = s.runs(job_id)
    assert len(after) == 10_020
    assert not {run.id for run in before} & {run.id for run in after}


async def test_a_job_that_needs_much_work_holds_up_no_request_for_another() -> None:
    """While 80,000 runs are made, or a week is simulated, for one request, others get their responses."""
    async with Sandbox(["much", "little"], (80_000, 5), living=True) as s:
        async with tfruns.Client(s.url, s.api_key) as client:
            assert await client.count_runs("little") == 5
            for advanced in (0, 100_000):
                s.clock.advance(advanced)
                much = asyncio.create_task(client.count_runs("much", status="FAILED"))
                for _ in range(2):
                    await client.count_runs("little")
                assert not much.done()
                much.cancel()  # what was made is kept for the next request
                await asyncio.gather(much, return_exceptions=True)


async def test_a_job_costs_nothing_before_it_is_read() -> None:
    async with Sandbox(10_000, 1_000_000, living=True) as s:
        s.clock.advance(1e9)
        assert len(s.job_ids) == 10_000


async def test_what_the_user_does_to_a_living_run_stands() -> None:
    async with Sandbox(1, 0, living=True) as s:
        [job_id] = s.job_ids
        finished = await s.finish_run(job_id, (await s.create_run(job_id)).id)
        deleted = await s.create_run(job_id)
        await s.delete_run(job_id, deleted.id)
        stuck = await s.create_run(job_id, status="UNKNOWN")
        moved = await s.update_run(job_id, (await s.create_run(job_id)).id, status="TERMINATING")
        s.clock.advance(24 * 3600)
        runs = {run.id: run for run in s.runs(job_id)}
        assert runs[finished.id] == finished
        assert deleted.id not in runs
        assert runs[stuck.id] == stuck
        assert runs[moved.id].status == "TERMINATED"
