"""A host that can't be reached at all, before there was any response: a typo, not an outage."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import tfruns
from tests.support.failures import over_tls
from tests.support.hostile import page, response, run, serve
from tfruns import Client, JobRun, RetryPolicy, RunChange
from tfruns._http import retry
from tfruns.sandbox import Sandbox

ONCE = RetryPolicy(max_attempts=1)
Begin = Callable[[Client], Awaitable[object]]


async def watch(client: Client) -> RunChange:
    return await anext(client.watch_runs("job", interval=0.01))


async def watch_many(client: Client) -> RunChange:
    return await anext(client.watch_runs([f"job-{number}" for number in range(40)], interval=0.01))


async def watch_and_skip(client: Client) -> RunChange:
    return await anext(client.watch_runs(["job", "another"], interval=0.01, on_error="skip"))


async def wait(client: Client) -> JobRun:
    return await client.wait_for_run("job", "run", interval=0.01)


@asynccontextmanager
async def refused() -> AsyncGenerator[str]:
    async with serve(lambda _: response(500)) as (url, _):
        pass
    yield url


@asynccontextmanager
async def unknown() -> AsyncGenerator[str]:
    yield "https://no-such-host.invalid"


@pytest.mark.parametrize("begin", [watch, watch_many, watch_and_skip, wait])
@pytest.mark.parametrize("host", [refused, unknown, over_tls])
async def test_a_host_that_cannot_be_reached(host: Any, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch and a wait fail within seconds, whatever `on_error` says of single jobs."""
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.2)
    async with host() as url, Client(url, "key") as client:
        with pytest.raises(tfruns.APIConnectionError, match="could not connect|certificate isn't trusted") as caught:
            await asyncio.wait_for(begin(client), 30)
    assert not caught.value.is_transient


async def test_an_outage_after_the_first_response_is_waited_out() -> None:
    """Though the connection is refused then: by a watch and by a wait, also one that begins meanwhile."""
    rows = [run(0, status="RUNNING")]
    async with serve(lambda _: response(200, page(rows))) as (url, requests):
        client = Client(url, "key", retry=ONCE)
        changes = client.watch_runs("job", interval=0.01)
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(anext(changes))]
        ends += [asyncio.ensure_future(client.wait_for_run("job", "run-0", interval=0.01))]
        while len(requests) < 10:
            await asyncio.sleep(0.01)
    ends += [asyncio.ensure_future(client.wait_for_run("job", "run-0", interval=0.01))]
    await asyncio.sleep(0.3)
    assert not any(end.done() for end in ends)
    async with client, Sandbox(["job"], 0, port=int(url.rpartition(":")[2]), api_key="key") as s:
        await s.create_run("job", id="run-0", created_at=rows[0]["createdAt"], status="FINISHED")
        change, *ended = await asyncio.wait_for(asyncio.gather(*ends), 30)
        assert (change.kind, [one.status for one in ended]) == ("finished", ["FINISHED"] * 2)
        await changes.aclose()


async def test_a_server_that_is_starting_is_waited_for() -> None:
    """It accepts the connection, and responds with 503 or not at all."""
    starting = True
    async with serve(lambda _: response(503) if starting else response(200, page([run(0)]))) as (url, requests):
        async with Client(url, "key", retry=ONCE) as client:
            waiting = asyncio.ensure_future(client.wait_for_run("job", "run-0", interval=0.01))
            while len(requests) < 5:
                await asyncio.sleep(0.01)
            starting = False
            assert (await asyncio.wait_for(waiting, 30)).id == "run-0"
