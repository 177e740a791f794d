"""The four that are compared: ours, the vendor's SDK, a plain loop as one would write it well, and the floor."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import orjson
from truefoundry_sdk import AsyncTrueFoundry

import tfruns
from benchmarks.plain import plain_converter
from tfruns.models import JobRun

CONCURRENCY = 16
Walk = Callable[[str, str], Awaitable[int]]
"""From the server's URL and the job to how many runs came."""


async def ours(url: str, job: str) -> int:
    """tfruns, with its defaults."""
    async with tfruns.Client(url, "key") as client:
        count = 0
        async for _ in client.iter_runs(job):
            count += 1
        return count


async def vendor(url: str, job: str) -> int:
    """The vendor's SDK, page by page as it does, at 1,000 a page."""
    async with httpx.AsyncClient(timeout=120) as http:
        client = AsyncTrueFoundry(api_key="key", base_url=url, httpx_client=http)
        count = 0
        async for _ in await client.jobs.list_runs(job, limit=1000):
            count += 1
        return count


async def plain(url: str, job: str) -> int:
    """aiohttp, orjson and cattrs as they come: the first page for the total, then the rest, so many at a time."""
    converter = plain_converter()
    count = 0
    async for body in _bodies(url, job, 1000):
        count += len([converter.structure(run, JobRun) for run in orjson.loads(body)["data"]])
    return count


async def floor(url: str, job: str) -> int:
    """The bytes alone, read and dropped. Gives how many runs it was told of, not how many it saw."""
    total = 0
    async for body in _bodies(url, job, 1000):
        total = total or orjson.loads(body[body.rindex(b'{"total"') : -1])["total"]
    return total


async def _bodies(url: str, job: str, limit: int) -> AsyncIterator[bytes]:
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer key"}) as http:

        async def page(offset: int) -> bytes:
            query = {"limit": limit, "offset": offset}
            async with http.get(f"{url}/api/svc/v1/jobs/{job}/runs", params=query) as response:
                return await response.read()

        first = await page(0)
        yield first
        total = orjson.loads(first[first.rindex(b'{"total"') : -1])["total"]
        under_way: list[asyncio.Task[bytes]] = []
        for offset in range(limit, total, limit):
            under_way.append(asyncio.create_task(page(offset)))
            if len(under_way) == CONCURRENCY:
                yield await under_way.pop(0)
        for task in under_way:
            yield await task


CLIENTS: dict[str, Walk] = {"ours": ours, "vendor": vendor, "plain": plain, "floor": floor}


def ratios(seconds: dict[str, float]) -> dict[str, Any]:
    """How many times as long as ours the others took."""
    return {f"{name}/ours": round(took / seconds["ours"], 2) for name, took in seconds.items() if name != "ours"}
