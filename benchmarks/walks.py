"""Walks side by side, the vendor's SDK and ours, on a still list and on lists that change with each page.

Run it from a checkout with `.venv/bin/python -m benchmarks.walks`. The server is another process.
"""

import asyncio
import time

import httpx
from truefoundry_sdk import AsyncTrueFoundry

import tfruns
from benchmarks.server import serving

RUNS = 20_000


async def vendor(url: str) -> list[str]:
    async with httpx.AsyncClient(timeout=60) as http:
        client = AsyncTrueFoundry(api_key="key", base_url=url, httpx_client=http)
        ids: list[str] = []
        async for run in await client.jobs.list_runs("job-all", limit=1000):
            ids.append(run.id)
            if len(ids) > 3 * RUNS:  # it follows a list that grows for ever, for ever
                break
        return ids


async def ours(url: str) -> list[str]:
    async with tfruns.Client(url, "key") as client:
        return [run.id async for run in client.iter_runs("job-all")]


async def left(url: str) -> set[str]:
    """The ids that are there now, by one look at all of them."""
    async with tfruns.Client(url, "key", max_concurrency=1) as client:
        return {run.id async for run in client.iter_runs("job-all")}


def main() -> None:
    print(f"{RUNS:,} runs, 1,000 a page; lost: there all along, never yielded; repeated: yielded twice or more\n")
    print(f"{'list':<34}{'client':<10}{'s':>7}{'requests':>10}{'yielded':>9}{'lost':>6}{'repeated':>10}")
    lists = {
        "still": {},
        "5 runs deleted after each page": {"delete": 5},
        "5 runs created after each page": {"insert": 5},
        "5 deleted, 5 created": {"delete": 5, "insert": 5},
    }
    for name, changes in lists.items():
        for client in (vendor, ours):
            with serving(RUNS, **changes) as url:
                begun = time.perf_counter()
                ids = asyncio.run(client(url))
                seconds = time.perf_counter() - begun
                requests = httpx.get(url + "/requests").text
                lasting = {one for one in asyncio.run(left(url)) if one.startswith("run-")}
            lost, repeated = len(lasting - set(ids)), len(ids) - len(set(ids))
            print(f"{name:<34}{client.__name__:<10}{seconds:>7.2f}{requests:>10}{len(ids):>9,}{lost:>6}{repeated:>10,}")


if __name__ == "__main__":
    main()
