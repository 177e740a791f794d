"""The clients that are compared, each in a process of its own, so that none pays for what another imports or leaves.

- ours: tfruns, with its defaults.
- vendor: the vendor's SDK.
- plain: aiohttp, orjson and cattrs, as one would write it well.
- bytes: the bytes alone, read and dropped by one who knows beforehand which pages there are.
- floor: the same, and msgspec decodes each page.
- gathered: tfruns, with `iter_runs` for each job, side by side.
- bare: a task for each job, a semaphore, aiohttp, and msgspec: one page of each job, without any promise.

`Worker` is such a process as seen from outside.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CONCURRENCY = 16
NAMES = ("ours", "vendor", "plain", "bytes", "floor")
Walk = Callable[[str, list[str], int], Awaitable[int]]
"""From the server's URL, the jobs and the page size to how many runs came."""


async def ours(url: str, jobs: list[str], page_size: int, **headers: str) -> int:
    """tfruns, with its defaults."""
    import tfruns

    runs = 0
    async with tfruns.Client(url, "key", max_concurrency=CONCURRENCY, headers=headers) as client:
        if len(jobs) == 1:
            async for _ in client.iter_runs(jobs[0], page_size=page_size):
                runs += 1
        else:
            async for _ in client.iter_runs_for(jobs, page_size=page_size):
                runs += 1
    return runs


async def ours_gzip(url: str, jobs: list[str], page_size: int) -> int:
    """tfruns where the server may only use gzip."""
    return await ours(url, jobs, page_size, **{"Accept-Encoding": "gzip"})


async def ours_identity(url: str, jobs: list[str], page_size: int) -> int:
    """tfruns where the server may not compress."""
    return await ours(url, jobs, page_size, **{"Accept-Encoding": "identity"})


async def ours_gathered(url: str, jobs: list[str], page_size: int) -> int:
    """tfruns, with a walk of its own for each job, all at once."""
    import tfruns

    async def count(job: str) -> int:
        return len([run async for run in client.iter_runs(job, page_size=page_size)])

    async with tfruns.Client(url, "key", max_concurrency=CONCURRENCY) as client:
        return sum(await asyncio.gather(*map(count, jobs)))


async def bare(url: str, jobs: list[str], page_size: int) -> int:
    """What one would write who needs only the first page of each job."""
    import aiohttp
    import msgspec

    from tfruns.models import RunPage

    slots = asyncio.Semaphore(CONCURRENCY)
    decoder = msgspec.json.Decoder(RunPage)

    async def count(job: str) -> int:
        async with slots, http.get(f"{url}/api/svc/v1/jobs/{job}/runs?limit={page_size}&offset=0") as response:
            return len(decoder.decode(await response.read()).data)

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer key"}) as http:
        return sum(await asyncio.gather(*map(count, jobs)))


async def vendor(url: str, jobs: list[str], page_size: int) -> int:
    """The vendor's SDK: a job page by page, as it does; so many jobs at a time."""
    import httpx
    from truefoundry_sdk import AsyncTrueFoundry

    slots = asyncio.Semaphore(CONCURRENCY)

    async def count(job: str) -> int:
        runs = 0
        async with slots:
            async for _ in await client.jobs.list_runs(job, limit=page_size):
                runs += 1
        return runs

    async with httpx.AsyncClient(timeout=120) as http:
        client = AsyncTrueFoundry(api_key="key", base_url=url, httpx_client=http)
        return sum(await asyncio.gather(*map(count, jobs)))


async def plain(url: str, jobs: list[str], page_size: int) -> int:
    """aiohttp, orjson and cattrs as they come: a job's first page for its total, then the others, all at once."""
    import aiohttp
    import orjson

    from benchmarks.plain import plain_converter
    from tfruns.models import JobRun

    converter = plain_converter()

    async def page(job: str, offset: int) -> tuple[int, int]:
        query = {"limit": page_size, "offset": offset}
        async with http.get(f"{url}/api/svc/v1/jobs/{job}/runs", params=query) as response:
            page = orjson.loads(await response.read())
        return len([converter.structure(run, JobRun) for run in page["data"]]), page["pagination"]["total"]

    async def count(job: str) -> int:
        runs, total = await page(job, 0)
        others = await asyncio.gather(*(page(job, offset) for offset in range(page_size, total, page_size)))
        return runs + sum(more for more, _ in others)

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer key"}) as http:
        return sum(await asyncio.gather(*map(count, jobs)))


async def bytes_alone(url: str, jobs: list[str], page_size: int) -> int:
    """The bytes alone. The jobs' names say how many runs there are."""
    return await _fetched(url, jobs, page_size, lambda body: None)


async def floor(url: str, jobs: list[str], page_size: int) -> int:
    """The bytes, decoded by msgspec."""
    import msgspec

    from tfruns.models import RunPage

    return await _fetched(url, jobs, page_size, msgspec.json.Decoder(RunPage).decode)


async def _fetched(url: str, jobs: list[str], page_size: int, use: Callable[[bytes], object]) -> int:
    import aiohttp

    pages = ((job, offset) for job in jobs for offset in range(0, _size(job), page_size))

    async def fetch(pages: Iterator[tuple[str, int]]) -> None:
        for job, offset in pages:
            target = f"/api/svc/v1/jobs/{job}/runs?limit={page_size}&offset={offset}"
            async with http.get(url + target) as response:
                use(await response.read())

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer key"}) as http:
        await asyncio.gather(*(fetch(pages) for _ in range(CONCURRENCY)))
    return sum(map(_size, jobs))


def _size(job: str) -> int:
    return int(job.removeprefix("job-"))


class Worker:
    """One of them, in a process of its own that reads from standard input what to walk."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-m", "benchmarks.clients", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def walk(self, url: str, jobs: list[str], page_size: int = 1000, *, watch: bool = False) -> dict[str, Any]:
        """Walk the jobs: `s` and `cpu` seconds, peak `MiB` so far, and if watched, the loop's longest hold in `ms`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([url, jobs, page_size, watch]), file=self._process.stdin, flush=True)
        result: dict[str, Any] = json.loads(self._process.stdout.readline())
        return result


async def _watched(walk: Awaitable[int]) -> float:
    """For how many ms the event loop was held at most, counted in CPU time: other processes hold it up, too.

    What the process held before is kept from the garbage collector: a full collection of that is not the walk's doing.
    """
    gc.freeze()
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begun)

    ticking = asyncio.create_task(tick())
    await walk
    ticking.cancel()
    gc.unfreeze()
    return longest * 1000


def _work(walk: Walk) -> None:
    for line in sys.stdin:
        url, jobs, page_size, watch = json.loads(line)
        gc.collect()
        begun, cpu = time.perf_counter(), time.process_time()
        held = asyncio.run(_watched(walk(url, jobs, page_size))) if watch else None
        if not watch:
            runs = asyncio.run(walk(url, jobs, page_size))  # type: ignore[arg-type]
            assert jobs == ["job-all"] or runs == sum(map(_size, jobs))
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        print(json.dumps({"s": seconds, "cpu": cpu, "MiB": _peak_memory(), "ms": held}), flush=True)


def _peak_memory() -> float:
    """In MiB. (`getrusage` would count what the parent held when it forked.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    clients: dict[str, Walk] = {"ours": ours, "zstd": ours, "gzip": ours_gzip, "none": ours_identity}
    clients |= {"gathered": ours_gathered, "bare": bare}
    _work({**clients, "vendor": vendor, "plain": plain, "bytes": bytes_alone, "floor": floor}[sys.argv[1]])
