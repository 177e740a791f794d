"""Waiting for the end of one run: what comes back, what is raised, what it costs, and what it leaves behind."""

import asyncio
import gc
import logging
import pickle
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import tfruns
from tfruns import Client, JobRun, RetryPolicy
from tfruns._watch import schedule
from tfruns.sandbox import Fault, Sandbox

SOON = {"interval": (0.005, 0.02)}
LONG = {"interval": 3_600}


@pytest.fixture
async def s() -> AsyncGenerator[Sandbox]:
    async with Sandbox(1, 120) as sandbox:
        yield sandbox


@pytest.fixture
async def client(s: Sandbox) -> AsyncGenerator[Client]:
    async with Client(s.url, s.api_key, retry=RetryPolicy(max_attempts=1)) as client:
        yield client


def tasks_of_ours() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tfruns")]


def pollers() -> list[str]:
    """Not the requests that one has in flight."""
    return [name for name in tasks_of_ours() if name.startswith("tfruns wait")]


async def begun(s: Sandbox, waits: list["asyncio.Task[JobRun]"], polls: int = 1) -> None:
    """Until each wait has found its run, and so many polls were made."""
    async with asyncio.timeout(30):
        while len(s.requests) < len(waits) + polls:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "TERMINATED"])
@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_run_that_ends(s: Sandbox, client: Client, status: str, by: str) -> None:
    """It comes back as it ended, by id and by name."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id)
    wait = asyncio.create_task(client.wait_for_run(job_id, getattr(run, by), **SOON))
    await begun(s, [wait], 3)
    assert not wait.done()
    ended = await s.finish_run(job_id, run.id, status)
    assert await asyncio.wait_for(wait, 30) == ended
    assert tasks_of_ours() == []


async def test_a_run_that_has_ended(s: Sandbox, client: Client) -> None:
    """It comes back by one request."""
    [job_id] = s.job_ids
    run = next(one for one in reversed(s.runs(job_id)) if one.status.is_terminal)
    assert await client.wait_for_run(job_id, run.id, **LONG) == run
    assert len(s.requests) == 1


async def test_several_runs_with_that_name(s: Sandbox, client: Client) -> None:
    """The newest is meant."""
    [job_id] = s.job_ids
    for number in range(3):
        await s.create_run(job_id, id=f"id-{number}", name="nightly", status="FINISHED")
    await s.create_run(job_id, name="nightly-2", status="FINISHED")
    assert (await client.wait_for_run(job_id, "nightly")).id == "id-2"


async def test_raise_for_failure(s: Sandbox, client: Client) -> None:
    """A failure is an error only with it."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id, status="FAILED", error="out of\nmemory")
    assert await client.wait_for_run(job_id, run.id) == run
    with pytest.raises(tfruns.RunFailedError, match="has ended as FAILED: out of memory") as caught:
        await client.wait_for_run(job_id, run.name, raise_for_failure=True)
    assert caught.value.run == run
    done = await s.create_run(job_id, status="FINISHED")
    assert await client.wait_for_run(job_id, done.id, raise_for_failure=True) == done


async def test_a_run_that_is_not_there(s: Sandbox, client: Client) -> None:
    """RunNotFoundError."""
    [job_id] = s.job_ids
    run = s.runs(job_id)[0]
    with pytest.raises(tfruns.RunNotFoundError, match="no run with the id or the name") as caught:
        await client.wait_for_run(job_id, run.id[:-1], listed_within=0)
    assert (caught.value.job_id, caught.value.run) == (job_id, None)
    with pytest.raises(tfruns.NotFoundError):
        await client.wait_for_run("no-such-job", "run")


@pytest.mark.usefixtures("quick_clock")
async def test_a_run_that_is_deleted(s: Sandbox, client: Client) -> None:
    """RunDeletedError, with the run as it was seen last."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id, status="RUNNING")
    wait = asyncio.create_task(client.wait_for_run(job_id, run.id))
    await begun(s, [wait])
    await s.delete_run(job_id, run.id)
    with pytest.raises(tfruns.RunDeletedError, match="was deleted, it was RUNNING") as caught:
        await asyncio.wait_for(wait, 30)
    assert caught.value.run == run
    assert tasks_of_ours() == []


async def test_a_timeout(s: Sandbox, client: Client) -> None:
    """A TimeoutError that says where the run stands, if that is known."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id, status="RUNNING")
    with pytest.raises(TimeoutError, match="hasn't ended within 0.2 s, it is RUNNING") as caught:
        await client.wait_for_run(job_id, run.id, timeout=0.2, **SOON)
    assert isinstance(caught.value, tfruns.WaitTimeoutError)
    assert caught.value.run == run
    assert tasks_of_ours() == []
    s.faults.append(Fault(latency=30.0))
    with pytest.raises(tfruns.WaitTimeoutError, match="hasn't ended within 0.1 s$"):
        await client.wait_for_run(job_id, run.id, timeout=0.1)


async def test_many_waits_share_their_requests(s: Sandbox, client: Client) -> None:
    """All those for runs of one job."""
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(40)]
    waits = [asyncio.create_task(client.wait_for_run(job_id, run.id, interval=0.3)) for run in runs for _ in range(2)]
    async with asyncio.timeout(30):
        while sum("searchPrefix" in request.query for request in s.requests) < len(waits):
            await asyncio.sleep(0.005)
    s.requests.clear()
    await begun(s, [], 2)
    assert all("status=RUNNING" in request.query for request in s.requests)  # one request for all of them
    assert pollers() == [f"tfruns wait {job_id}"]
    for run in runs[:20]:
        await s.finish_run(job_id, run.id)
    early = await asyncio.wait_for(asyncio.gather(*waits[:40]), 30)
    assert [run.id for run in early] == [run.id for run in runs[:20] for _ in range(2)]
    assert not any(wait.done() for wait in waits[40:])
    for run in runs[20:]:
        await s.finish_run(job_id, run.id, "FAILED")
    late = await asyncio.wait_for(asyncio.gather(*waits[40:]), 30)
    assert {run.status for run in late} == {"FAILED"}
    assert tasks_of_ours() == []


async def test_a_wait_that_joins(s: Sandbox, client: Client) -> None:
    """The shortest interval counts, at once."""
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(2)]
    slow = asyncio.create_task(client.wait_for_run(job_id, runs[0].id, **LONG))
    await begun(s, [slow], 0)
    quick = asyncio.create_task(client.wait_for_run(job_id, runs[1].id, **SOON))
    await begun(s, [slow, quick], 1)
    for run in runs:
        await s.finish_run(job_id, run.id)
    assert {(await asyncio.wait_for(wait, 30)).status for wait in (slow, quick)} == {"FINISHED"}


async def test_waits_that_join_without_end(s: Sandbox, client: Client) -> None:
    """They don't put off the next poll, however soon they come after each other."""
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(2)]
    first = asyncio.create_task(client.wait_for_run(job_id, runs[0].id, interval=0.2))
    others: list[asyncio.Task[JobRun]] = []
    await begun(s, [first], 0)
    await s.finish_run(job_id, runs[0].id)
    while not first.done():
        assert len(others) < 500
        others.append(asyncio.create_task(client.wait_for_run(job_id, runs[1].id, interval=0.2)))
        await asyncio.sleep(0.02)
    assert (await first).status == "FINISHED"
    await s.finish_run(job_id, runs[1].id)
    assert {(await asyncio.wait_for(wait, 30)).status for wait in others} == {"FINISHED"}


async def test_a_cancelled_wait(s: Sandbox, client: Client) -> None:
    """It leaves no task, and the other waits go on."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id)
    waits = [asyncio.create_task(client.wait_for_run(job_id, run.id, **SOON)) for _ in range(2)]
    await begun(s, waits)
    waits[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits[0]
    assert pollers() == [f"tfruns wait {job_id}"]
    await s.finish_run(job_id, run.id)
    assert (await asyncio.wait_for(waits[1], 30)).status == "FINISHED"
    last = asyncio.create_task(client.wait_for_run(job_id, (await s.create_run(job_id)).id, **LONG))
    while not pollers():
        await asyncio.sleep(0.005)
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    assert tasks_of_ours() == []


async def test_closing_the_client(s: Sandbox) -> None:
    """It ends every wait with a ClientClosedError."""
    client = Client(s.url, s.api_key)
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(3)]
    waits = [asyncio.create_task(client.wait_for_run(job_id, run.id, **LONG)) for run in runs]
    await begun(s, waits, 0)
    await asyncio.sleep(0.05)
    await client.aclose()
    for wait in waits:
        with pytest.raises(tfruns.ClientClosedError):
            await asyncio.wait_for(wait, 30)
    assert tasks_of_ours() == []


async def test_an_outage(s: Sandbox, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """It ends no wait, whether it begins before the first request or later: one warning, and one when it is over."""
    [job_id] = s.job_ids
    with caplog.at_level(logging.WARNING, "tfruns"):
        for comes_first in (True, False):
            run = await s.create_run(job_id)
            s.requests.clear()
            caplog.clear()
            if comes_first:
                s.faults.append(Fault(status=503))
            wait = asyncio.create_task(client.wait_for_run(job_id, run.id, **SOON))
            await begun(s, [wait], 4)
            s.faults[:] = [Fault(breaks="reset")]
            await begun(s, [wait], len(s.requests) + 4)
            s.faults.clear()
            run = await s.finish_run(job_id, run.id)
            assert await asyncio.wait_for(wait, 30) == run
            messages = [record.message for record in caplog.records]
            ours = [text for text in messages if "the wait goes on" in text or "can be polled again" in text]
            assert ["the wait goes on" in text for text in ours] == [True, False]


async def test_an_outage_that_outlasts_the_timeout(s: Sandbox, client: Client) -> None:
    """The timeout counts, not the outage."""
    [job_id] = s.job_ids
    s.faults.append(Fault(status=503))
    with pytest.raises(tfruns.WaitTimeoutError, match=r"hasn't ended within 0.1 s$"):
        await client.wait_for_run(job_id, "run", timeout=0.1, **SOON)
    assert tasks_of_ours() == []


async def test_cancelled_at_any_moment(s: Sandbox, client: Client) -> None:
    """A cancelled wait is over at once, and leaves no task, even as its requests fail at that moment."""
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(3)]
    for steps in range(0, 240, 9):
        s.faults[:] = [Fault(status=500)] if steps % 2 else []
        waits = [asyncio.create_task(client.wait_for_run(job_id, run.id, interval=0.001)) for run in runs]
        for _ in range(steps):
            await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 30)
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        assert tasks_of_ours() == []


async def test_cancelled_as_the_run_is_found_to_be_deleted(
    s: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that nobody gets any more is no warning of the event loop."""
    monkeypatch.setattr(schedule, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(schedule, "_LEAST_POLLS", 1)
    warnings: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: warnings.append(context["message"]))
    [job_id] = s.job_ids
    ends: set[type[BaseException | JobRun]] = set()
    for steps in range(40):
        run = await s.create_run(job_id, status="RUNNING")
        s.requests.clear()
        wait = asyncio.create_task(client.wait_for_run(job_id, run.id, interval=0.01))
        await begun(s, [wait], 0)
        await s.delete_run(job_id, run.id)
        while len(s.requests) < 3:
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        wait.cancel()
        ends |= {type(end) for end in await asyncio.gather(wait, return_exceptions=True)}
        del wait
    gc.collect()
    assert asyncio.CancelledError in ends
    assert warnings == []


@pytest.mark.usefixtures("quick_clock")
async def test_an_error_that_stays(s: Sandbox, client: Client) -> None:
    """It ends every wait on the job; a later wait begins anew."""
    [job_id] = s.job_ids
    runs = [await s.create_run(job_id) for _ in range(2)]
    waits = [asyncio.create_task(client.wait_for_run(job_id, run.id)) for run in runs]
    await begun(s, waits)
    s.faults.append(Fault(status=403))
    for wait in waits:
        with pytest.raises(tfruns.PermissionDeniedError):
            await asyncio.wait_for(wait, 30)
    assert tasks_of_ours() == []
    s.faults.clear()
    done = await s.finish_run(job_id, runs[0].id)
    assert await client.wait_for_run(job_id, done.id) == done


@pytest.mark.usefixtures("quick_clock")
async def test_a_wait_that_begins_while_its_job_is_refused(s: Sandbox, client: Client) -> None:
    """The job was polled for another wait, so being refused for a moment doesn't end this one either."""
    [job_id] = s.job_ids
    other = asyncio.create_task(client.wait_for_run(job_id, (await s.create_run(job_id)).id, **LONG))
    done = await s.create_run(job_id, status="FINISHED")
    async with asyncio.timeout(30):
        while not pollers():
            await asyncio.sleep(0.005)
    s.faults.append(Fault(status=403, nth=2))
    assert await client.wait_for_run(job_id, done.id) == done
    assert not other.done()
    other.cancel()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"run": ""}, ValueError, "run is empty"),
        ({"run": 5}, TypeError, "run must be the id or the name of a run"),
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds above 0, got 0"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds above 0, got '1'"),
        ({"interval": -1}, ValueError, "interval must be above 0"),
        ({"job_id": ""}, ValueError, "job_id is empty"),
        ({"raise_for_failure": "no"}, TypeError, "raise_for_failure must be True or False, got 'no'"),
    ],
)
async def test_bad_arguments(
    s: Sandbox, client: Client, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    """They fail before any request."""
    with pytest.raises(error, match=says):
        await client.wait_for_run(**{"job_id": s.job_ids[0], "run": "run", **arguments})
    assert not s.requests


def test_errors_are_pickled() -> None:
    """They cross process borders."""
    error = tfruns.RunDeletedError("run 'x' was deleted", job_id="job", run=None)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.job_id, copy.run) == ("job 'job': run 'x' was deleted", "job", None)


async def test_a_timeout_of_a_hook_is_not_that_of_the_wait(s: Sandbox, client: Client) -> None:
    def fail(_: object) -> None:
        raise TimeoutError("of the hook")

    client.add_hooks(on_response=fail)
    with pytest.raises(TimeoutError, match="of the hook"):
        await client.wait_for_run(s.job_ids[0], "run", timeout=30)


@pytest.mark.parametrize("trouble", ["outage", "deleted"])
async def test_a_wait_that_is_over_leaves_no_trouble_to_waits_of_other_jobs(
    s: Sandbox, client: Client, trouble: str
) -> None:
    """Its outage, and what wasn't believed of its runs, would change their warnings, and how soon they believe."""
    [job_id] = s.job_ids
    run = await s.create_run(job_id)
    wait = asyncio.create_task(client.wait_for_run(job_id, run.id, **SOON))
    await begun(s, [wait])
    if trouble == "deleted":
        await s.delete_run(job_id, run.id)
    else:
        s.faults.append(Fault(status=503))
    known = client._waiter._trouble
    async with asyncio.timeout(30):
        while not (known.claims or known.failing_since):
            await asyncio.sleep(0.005)
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    assert (known.claims, known.failing_since) == ({}, {})
