"""How a watch ends: by a cancellation at any moment, by `break`, by `aclose`; and what it leaves behind: nothing."""

import asyncio
import gc
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from tfruns import Client, JobRun, RetryPolicy, RunWatch, TfRunsError
from tfruns._watch.poll import Job
from tfruns.sandbox import Fault, Sandbox

ONCE = RetryPolicy(max_attempts=1)


def tasks_of_ours() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tfruns")]


async def until_none_is_left() -> None:
    async with asyncio.timeout(30):
        while tasks_of_ours():
            await asyncio.sleep(0)


async def test_cancelled_at_any_moment() -> None:
    """It is over at once, and leaves no task, even as its polls fail at that moment."""
    async with Sandbox(3, 70) as s, Client(s.url, s.api_key, retry=ONCE) as client:
        for steps in range(0, 240, 9):
            s.faults[:] = [Fault(status=500)] if steps % 2 else []
            watch = client.watch_runs(s.job_ids, interval=0.001)
            pending = asyncio.ensure_future(anext(watch))
            for _ in range(steps):
                await asyncio.sleep(0)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(pending, 30)
            assert tasks_of_ours() == []
            await watch.aclose()
            await watch.aclose()


async def test_cancelled_in_on_error() -> None:
    """A cancellation while the caller's function runs ends the watch like any other."""
    async with Sandbox(["a"], 10) as s, Client(s.url, s.api_key, retry=ONCE) as client:
        is_called = asyncio.Event()

        async def on_error(job_id: str, error: Exception) -> None:
            is_called.set()
            await asyncio.sleep(3600)

        watch = client.watch_runs(["a", "no-such-job"], on_error=on_error)
        pending = asyncio.ensure_future(anext(watch))
        await asyncio.wait_for(is_called.wait(), 30)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(pending, 30)
        assert tasks_of_ours() == []


async def test_break_lets_go_of_it() -> None:
    """Without waiting for the garbage collector."""
    async with Sandbox(2, 60) as s, Client(s.url, s.api_key) as client:
        gc.disable()
        try:
            async for change in client.watch_runs(s.job_ids, start="open", interval=0.001):
                assert change.resume_token
                break
            await until_none_is_left()
        finally:
            gc.enable()


async def test_aclose_before_the_first_change() -> None:
    """A watch that was never iterated makes no request, and ends as well."""
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:
        watch = client.watch_runs(s.job_ids)
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        assert not s.requests


async def test_closing_the_client_in_the_middle() -> None:
    """What is in flight ends; skipped jobs don't hide that the client is closed."""
    async with Sandbox(2, 60) as s:
        client = Client(s.url, s.api_key)
        s.faults.append(Fault(latency=30.0))
        watch = client.watch_runs(s.job_ids, on_error="skip")
        pending = asyncio.ensure_future(anext(watch))
        while not tasks_of_ours():
            await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(Exception, match="the client is closed"):
            await asyncio.wait_for(pending, 30)
        assert tasks_of_ours() == []


def test_one_event_loop_after_the_other() -> None:
    """A client may watch and wait in one event loop and, when that is over, in another."""
    clients: list[Client] = []

    async def use(port: int) -> int:
        async with Sandbox(["a"], 60, port=port, api_key="key") as s:
            client = clients[0] if clients else Client(s.url, "key")
            clients[:] = [client]
            run = await s.create_run("a", status="RUNNING")
            waiting = asyncio.create_task(client.wait_for_run("a", run.id, interval=0.01))
            async with aclosing(client.watch_runs("a", start="open", interval=0.01)) as changes:
                assert (await anext(changes)).job_id == "a"
                await s.finish_run("a", run.id)
                async for change in changes:
                    if change.kind == "finished":
                        assert change.run.id == run.id
                        break
            assert (await asyncio.wait_for(waiting, 30)).status == "FINISHED"
            return int(s.url.rpartition(":")[2])

    port = asyncio.run(use(0))
    asyncio.run(use(port))
    asyncio.run(clients[0].aclose())


async def test_two_watches_of_one_client() -> None:
    """They don't disturb each other."""
    async with Sandbox(["a"], 60) as s, Client(s.url, s.api_key) as client:

        async def first(watch: RunWatch) -> str:
            async with aclosing(watch) as changes:
                return (await anext(changes)).run.id

        watches = [client.watch_runs("a", start="open"), client.watch_runs("a", start="existing")]
        found = await asyncio.gather(*map(first, watches))
        assert found[1] == s.runs("a")[-1].id
        assert tasks_of_ours() == []


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_as_a_search_fails(turns: int) -> None:
    """The cancellation counts, not the failure, however many turns of the event loop lie between both."""
    fails = asyncio.Event()

    class Failing:
        async def iter_runs(self, job_id: str, **_: object) -> AsyncGenerator[JobRun]:
            await fails.wait()
            raise TfRunsError(job_id)
            yield

    finding = asyncio.create_task(Job(Failing().iter_runs, "a", {}).find({"run": None}, math.inf))  # type: ignore[arg-type]
    while not fails._waiters:
        await asyncio.sleep(0)
    fails.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_in_time = finding.cancel()
    [end] = await asyncio.gather(finding, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError if was_in_time else TfRunsError)
