"""A paginator is an async iterator that `contextlib.aclosing` closes."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tfruns import Client
from tfruns.sandbox import Fault, Sandbox


def tasks_of_ours() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tfruns")]


def walks(client: Client, s: Sandbox) -> list[Any]:
    return [client.iter_runs(s.job_ids[0], page_size=10), client.iter_runs_for(s.job_ids, page_size=10)]


async def test_aclosing_closes_at_once() -> None:
    """After the block no request of the walk is in flight, though it was left by `break`."""
    async with Sandbox(2, 300) as s, Client(s.url, s.api_key) as client:
        for paginator in walks(client, s):
            s.faults[:] = []
            async with aclosing(paginator) as runs:
                async for _ in runs:
                    s.faults.append(Fault(latency=30.0))
                    break
                kept = aiter(runs)  # a second walk, which isn't iterated
            assert tasks_of_ours() == []
            assert [each async for each in kept] == []
            await paginator.aclose()


async def test_anext_goes_on() -> None:
    """Run by run, and an `async for` yields the rest; all other walks are new ones, also after `aclose`."""
    async with Sandbox(2, 35) as s, Client(s.url, s.api_key) as client:
        for paginator in walks(client, s):
            everything = await paginator.collect()
            first = [await anext(paginator), await anext(paginator)]
            assert len(await paginator.collect()) == len(everything)
            rest = [each async for each in paginator]
            assert len({each[1].id if isinstance(each, tuple) else each.id for each in [*first, *rest]}) == len(
                everything
            )
            assert len(first) + len(rest) == len(everything)
            await anext(paginator)
            await paginator.aclose()
            assert len([each async for each in paginator]) == len(everything)
            assert isinstance(paginator, AsyncIterator)


async def test_anext_at_the_end() -> None:
    """StopAsyncIteration, again and again; no request before the first."""
    async with Sandbox(1, 2) as s, Client(s.url, s.api_key) as client:
        runs = client.iter_runs(s.job_ids[0])
        assert len(s.requests) == 0
        assert {(await anext(runs)).id, (await anext(runs)).id} == {run.id for run in s.runs(s.job_ids[0])}
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(runs)
        await runs.aclose()
        assert tasks_of_ours() == []


@pytest.mark.parametrize("which", [0, 1])
async def test_pages_that_nobody_closes_are_collected_in_silence(which: int) -> None:
    """An error that a variable holds keeps their generator in a reference cycle, which ends long after the client."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def read(s: Sandbox, pages: int) -> None:
        try:
            async with Client(s.url, s.api_key) as client:
                async for _ in walks(client, s)[which].pages():
                    pages -= 1
                    assert pages, "enough"
        except AssertionError as error:
            kept = error  # noqa: F841  # a cycle: frame, error, traceback, frame

    async with Sandbox(20, 30) as s:
        s.faults.append(Fault(latency=0.1, rate=0.5))
        for pages in range(1, 9, 2):
            await asyncio.create_task(read(s, pages))
        gc.collect()
        await asyncio.sleep(0.05)
    assert said == []
