"""Pages fetched ahead over real HTTP: how many, in which order, and what is left when a walk is left."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

import tfruns
from tests.support.hostile import Request, Stall, page, pages_of, response, run, serve
from tests.support.seeds import seeds
from tfruns import Client
from tfruns.sandbox import Sandbox

KEY = "key"


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncGenerator[None]:
    """After each of these tests, no task is left. (Warnings of what else may be left are errors already.)"""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "tfruns" in task.get_name()} == set()


async def test_the_first_page_is_requested_alone_and_then_as_many_as_allowed() -> None:
    release = asyncio.Event()
    healthy = pages_of(1000)

    async def reply(request: Request) -> bytes:
        if request.offset:
            await release.wait()
        return healthy(request)

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=5) as client:
        walk = aiter(client.iter_runs("job", page_size=10))
        assert (await anext(walk)).id == "run-0"
        while len(requests) < 6:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert [request.offset for request in requests] == [0, 8, 16, 24, 32, 40]
        release.set()
        assert [one.id async for one in walk] == [f"run-{n}" for n in range(1, 1000)]
    assert len(requests) <= math.ceil(1000 / 8) + 2


async def test_no_more_pages_are_requested_than_the_total_calls_for() -> None:
    async with serve(pages_of(25)) as (url, requests), Client(url, KEY) as client:
        await client.iter_runs("job", page_size=10).collect()
    assert [request.offset for request in requests] == [0, 8, 16]


async def test_a_slow_consumer_stops_the_prefetch() -> None:
    async with serve(pages_of(10_000)) as (url, requests), Client(url, KEY, max_concurrency=4) as client:
        walk = aiter(client.iter_runs("job", page_size=10))
        for _ in range(10):
            await anext(walk)
        await asyncio.sleep(0.2)
        assert len(requests) <= 1 + 4
        for _ in range(8):
            await anext(walk)
        await asyncio.sleep(0.2)
        assert len(requests) <= 2 + 4
        await walk.aclose()


async def test_pages_that_come_out_of_order_are_yielded_in_order_as_soon_as_they_can_be() -> None:
    gates = {offset: asyncio.Event() for offset in range(8, 100, 8)}
    healthy = pages_of(100)

    async def reply(request: Request) -> bytes:
        if request.offset:
            await gates[request.offset].wait()
        return healthy(request)

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        walk = aiter(client.iter_runs("job", page_size=10))
        seen = [(await anext(walk)).id for _ in range(10)]
        for offset in range(16, 100, 8):
            gates[offset].set()
        later = asyncio.ensure_future(anext(walk))
        done, _ = await asyncio.wait([later], timeout=0.1)
        assert not done
        gates[8].set()
        seen.append((await later).id)
        seen += [one.id async for one in walk]
    assert seen == [f"run-{n}" for n in range(100)]


class _Stop(Exception):
    pass


async def leave_by_break(client: Client) -> None:
    async for one in client.iter_runs("job", page_size=10):
        if one.id == "run-15":
            break


async def leave_by_exception(client: Client) -> None:
    with pytest.raises(_Stop):
        async for one in client.iter_runs("job", page_size=10):
            if one.id == "run-15":
                raise _Stop


async def leave_by_aclose(client: Client) -> None:
    walk = aiter(client.iter_runs("job", page_size=10))
    while (await anext(walk)).id != "run-15":
        pass
    await walk.aclose()


async def leave_by_aclosing_pages(client: Client) -> None:
    async with aclosing(client.iter_runs("job", page_size=10).pages()) as pages:
        await anext(pages)


async def leave_by_cancellation(client: Client) -> None:
    task = asyncio.ensure_future(client.iter_runs("job", page_size=10).collect())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_timeout(client: Client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.iter_runs("job", page_size=10).collect()


async def leave_by_closing_the_client(client: Client) -> None:
    walk = aiter(client.iter_runs("job", page_size=10))
    await anext(walk)
    await client.aclose()
    with pytest.raises(tfruns.ClientClosedError):
        async for _ in walk:
            pass


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_exception,
        leave_by_aclose,
        leave_by_aclosing_pages,
        leave_by_cancellation,
        leave_by_timeout,
        leave_by_closing_the_client,
    ],
)
async def test_leaving_a_walk_stops_all_requests_under_way_at_once(leave: Callable[[Client], Awaitable[None]]) -> None:
    healthy = pages_of(10_000)

    async with (
        serve(lambda request: healthy(request) if request.offset < 20 else Stall()) as (url, requests),
        Client(url, KEY, max_concurrency=6) as client,
    ):
        await leave(client)
        await asyncio.sleep(0.05)  # a generator that is only dropped is closed by the event loop, a moment later
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("tfruns")] == []
        before = len(requests)
        await asyncio.sleep(0.1)
        assert len(requests) == before


async def test_a_client_can_be_used_on_after_a_walk_was_left() -> None:
    async with serve(pages_of(500)) as (url, _), Client(url, KEY, max_concurrency=3) as client:
        for _ in range(5):
            await leave_by_break(client)
        assert len(await client.iter_runs("job", page_size=10).collect()) == 500


async def test_an_error_ahead_is_raised_only_when_its_turn_comes() -> None:
    healthy = pages_of(100)

    async def reply(request: Request) -> bytes:
        if request.offset == 40:
            return response(403, {"statusCode": 403, "message": "no"})
        await asyncio.sleep(0.02)
        return healthy(request)

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        seen: list[str] = []
        with pytest.raises(tfruns.PermissionDeniedError):
            async for one in client.iter_runs("job", page_size=10):
                seen.append(one.id)  # noqa: PERF401
    assert seen == [f"run-{n}" for n in range(42)]


@pytest.mark.property
@pytest.mark.parametrize("max_concurrency", [1, 4, 16])
@pytest.mark.parametrize("query", [{}, {"order": "asc"}, {"sort_by": "deploymentVersion"}, {"sort_by": "triggeredBy"}])
async def test_a_sandbox_that_changes_under_the_walk_loses_and_repeats_nothing(
    max_concurrency: int, query: dict[str, str]
) -> None:
    for seed in seeds(1, share=0.005):
        await walk_a_sandbox_that_changes(seed, max_concurrency, query)


async def walk_a_sandbox_that_changes(seed: int, max_concurrency: int, query: dict[str, str]) -> None:
    rng = random.Random(seed)
    async with Sandbox(jobs=1, runs=800, seed=seed) as s:
        job_id = s.job_ids[0]
        ids = {one.id for one in s.runs(job_id)}
        lasting = set(ids)

        async def change() -> None:
            seen = 0
            while True:
                for _ in range(len(s.requests) - seen):
                    for _ in range(rng.randint(0, 3)):
                        await s.create_run(job_id)
                    for run_id in rng.sample(sorted(lasting), rng.randint(1, 3)):
                        await s.delete_run(job_id, run_id)
                        lasting.discard(run_id)
                seen = len(s.requests)
                await asyncio.sleep(0)

        async with Client(s.url, s.api_key, max_concurrency=max_concurrency) as client:
            changing = asyncio.ensure_future(change())
            got = [one.id async for one in client.iter_runs(job_id, page_size=100, **query)]  # type: ignore[arg-type]
            changing.cancel()
        assert len(ids) - len(lasting) > 5
        assert len(set(got)) == len(got), seed
        assert lasting <= set(got), seed
        assert len(s.requests) < 80


@pytest.mark.parametrize("sort_by", ["status", "duration"])
async def test_runs_that_finish_under_the_walk_are_not_repeated_in_an_order_that_this_changes(sort_by: str) -> None:
    async with Sandbox(jobs=1, runs=600, seed=5) as s:
        job_id = s.job_ids[0]
        open_runs = [one.id for one in s.runs(job_id) if not one.status.is_terminal]
        assert len(open_runs) > 5
        async with Client(s.url, s.api_key, max_concurrency=2) as client:
            got: list[str] = []
            async for one in client.iter_runs(job_id, page_size=50, sort_by=sort_by):
                if len(got) % 60 == 30 and open_runs:
                    await s.update_run(job_id, open_runs.pop(), status="FINISHED", duration=len(got) * 100)
                got.append(one.id)
        assert len(set(got)) == len(got) == 600


async def test_a_server_that_ignores_the_offset_is_an_error_and_not_a_short_list() -> None:
    reply = response(200, page([run(n) for n in range(10)], 50))
    async with serve(lambda _: reply) as (url, requests), Client(url, KEY) as client:
        with pytest.raises(
            tfruns.IncompleteWalkError, match=r"job 'job': the walk failed after 10 runs: .*50"
        ) as caught:
            await client.iter_runs("job", page_size=10).collect()
    assert (caught.value.seen, caught.value.total) == (10, 50)
    assert len(requests) < 100
