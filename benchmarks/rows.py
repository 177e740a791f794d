"""What is measured: each function gives one or more rows of the table. Times are interleaved: a b c d, a b c d, …"""

import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgspec
import orjson
from truefoundry_sdk.types.list_job_run_response import ListJobRunResponse

import tfruns
from benchmarks.clients import CLIENTS, CONCURRENCY, Walk, ours
from benchmarks.plain import plain_converter
from benchmarks.server import page_body, run_texts, serving
from tfruns.models import JobRun
from tfruns.structure import decode_page


@attrs.frozen
class Row:
    """One line of the table: medians of `unit`, by who, with the spread of ours."""

    what: str
    unit: str
    medians: dict[str, float]
    spread: tuple[float, float] | None = None
    target: str = ""
    is_met: bool | None = None


def interleaved(timed: dict[str, Callable[[], Any]], rounds: int, per: float) -> tuple[dict[str, float], Any]:
    """The median time of each, in seconds times `per`, and the spread of the first."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, run in timed.items():
            gc.collect()
            begun = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - begun) * per)
    first = next(iter(taken.values()))
    return {name: statistics.median(each) for name, each in taken.items()}, (min(first), max(first))


def _walks(url: str, job: str, names: Iterable[str]) -> dict[str, Callable[[], int]]:
    def run(walk: Walk) -> Callable[[], int]:
        return lambda: asyncio.run(walk(url, job))  # type: ignore[arg-type]

    return {name: run(CLIENTS[name]) for name in names}


def end_to_end() -> list[Row]:
    """One job over loopback without latency, and with 100 ms a page."""
    count = 100_000
    with serving(count) as url:
        medians, spread = interleaved(_walks(url, "job-all", CLIENTS), 3, 1e6 / count)
    ratio = medians["vendor"] / medians["ours"]
    rows = [Row("one job, no latency", "us a run", medians, spread, ">= 25x the vendor's SDK", ratio >= 25)]
    with serving(count, latency=100) as url:
        medians, spread = interleaved(_walks(url, "job-all", ["ours", "plain", "floor"]), 3, 1)
        slow, _ = interleaved(_walks(url, "job-all", ["vendor"]), 1, 1)
    medians |= slow
    ratio = medians["vendor"] / medians["ours"]
    rows.append(Row("100 pages, 100 ms a page", "s", medians, spread, ">= 15x the vendor's SDK", ratio >= 15))
    return rows


def decoding() -> list[Row]:
    """A page's bytes to what each library makes of them."""
    body = page_body(run_texts(1000), 0, 1000)
    converter = plain_converter()
    structs = msgspec.json.Decoder(_struct_page())
    timed: dict[str, Callable[[], Any]] = {
        "ours": lambda: decode_page(body, job_id="job", offset=0),
        "orjson.loads": lambda: orjson.loads(body),
        "msgspec": lambda: structs.decode(body),
        "plain cattrs": lambda: [converter.structure(run, JobRun) for run in orjson.loads(body)["data"]],
        "vendor": lambda: ListJobRunResponse.parse_obj(orjson.loads(body)),
    }
    medians, spread = interleaved(timed, 30, 1e6 / 1000)
    ratio = medians["ours"] / medians["orjson.loads"]
    return [Row("decode a page of 1,000", "us a run", medians, spread, "<= 2x orjson.loads", ratio <= 2)]


def _struct_page() -> Any:
    from tfruns import structure

    return structure._structs[tfruns.RunPage]


def many_jobs() -> list[Row]:
    """1,000 jobs of 1 to 50 pages of 100 runs, 20 ms a page, 16 requests at a time; a few jobs are long."""
    sizes = [max(1, min(50, 50 * 20 // (n + 1))) * 100 - 50 for n in range(1000)]
    jobs = [f"job-{size}" for size in sorted(sizes, key=lambda size: size * 7919 % 1009)]

    async def all_ours(url: str) -> int:
        async with tfruns.Client(url, "key", max_concurrency=CONCURRENCY) as client:
            return sum(await asyncio.gather(*(_count(client.iter_runs(job, page_size=100)) for job in jobs)))

    async def all_bytes(url: str) -> int:
        import aiohttp

        slots = asyncio.Semaphore(CONCURRENCY)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as http:

            async def page(job: str, offset: int) -> None:
                query = {"limit": 100, "offset": offset}
                async with slots, http.get(f"{url}/api/svc/v1/jobs/{job}/runs", params=query) as response:
                    await response.read()

            pages = [(job, offset) for job in jobs for offset in range(0, int(job[4:]), 100)]
            await asyncio.gather(*(page(job, offset) for job, offset in pages))
            return len(pages)

    with serving(5000, latency=20) as url:
        timed = {"ours": lambda: asyncio.run(all_ours(url)), "floor": lambda: asyncio.run(all_bytes(url))}
        medians, spread = interleaved(timed, 2, 1)
    ratio = medians["ours"] / medians["floor"]
    what = f"1,000 jobs, {sum(-(-size // 100) for size in sizes):,} pages, 20 ms a page"
    return [Row(what, "s", medians, spread, "<= 1.3x the floor", ratio <= 1.3)]


async def _count(runs: tfruns.RunPaginator) -> int:
    count = 0
    async for _ in runs:
        count += 1
    return count


def memory() -> list[Row]:
    """Peak memory of a process that walks a job, by how many runs it has."""
    peaks = {}
    with serving(1_000_000) as url:
        for size in (50_000, 1_000_000):
            command = [sys.executable, "-m", "benchmarks.rows", url, f"job-{size}"]
            peaks[f"{size:,} runs"] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    few, many = peaks.values()
    return [Row("peak memory of a walk", "MiB", peaks, None, "within 20 MiB", many - few <= 20)]


def start_up() -> list[Row]:
    """The time of `import tfruns` and of `tfruns --help`, each as a process of its own."""

    def run(*arguments: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    timed = {"ours": run("-c", "import tfruns"), "aiohttp, cattrs": run("-c", "import aiohttp, cattrs")}
    timed["python"] = run("-c", "pass")
    medians, spread = interleaved(timed, 9, 1000)
    is_met = medians["ours"] <= 1.1 * medians["aiohttp, cattrs"]
    rows = [Row("import", "ms", medians, spread, "<= 1.1x aiohttp and cattrs", is_met)]
    medians, spread = interleaved({"ours": run("-m", "tfruns", "--help")}, 9, 1000)
    return [*rows, Row("tfruns --help", "ms", medians, spread, "< 300 ms", medians["ours"] < 300)]


def longest_hold() -> list[Row]:
    """For how long the event loop was held at a time, while one job of 100 pages was walked.

    What the process held before is kept from the garbage collector: a full collection of that is not the walk's doing.
    """

    async def walk(url: str) -> float:
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - begun)

        ticking = asyncio.create_task(tick())
        async with tfruns.Client(url, "key") as client:
            async for _ in client.iter_runs("job-all").pages():
                pass
        ticking.cancel()
        return longest * 1000

    gc.freeze()
    with serving(100_000) as url:
        holds = [asyncio.run(walk(url)) for _ in range(5)]
    gc.unfreeze()
    median = statistics.median(holds)
    spread = (min(holds), max(holds))
    return [Row("longest hold of the event loop", "ms", {"ours": median}, spread, "<= 10 ms", median <= 10)]


if __name__ == "__main__":
    asyncio.run(ours(sys.argv[1], sys.argv[2]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
