"""Exports in each format, against the walk alone (`async for` over `iter_runs_for` of the same runs).

`python -m benchmarks.exports [RUNS] [FORMAT ...]`: medians of interleaved rounds, each measured in a process of its
own, with peak memory, and with the least CPU of the rounds, which is worth something on a busy machine, too; then the
memory of an export of 10,000 runs of 50 kB each. `--usual` adds the vendor's usual recipe: its SDK into a list of dicts
into a pandas frame into Parquet, over a tenth of the runs.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.server import serving

TARGETS = {
    "jsonl": 1.15,
    "jsonl.gz": None,
    "jsonl.zst": 1.15,
    "parquet": 1.3,
    "arrow": 1.3,
    "duckdb": 1.5,
    "csv": 1.5,
    "sqlite": 1.9,
}
"""How many times the walk alone each may take."""
MOST_MEMORY = 256
_JOBS = 10
_LATENCY = 100
"""Milliseconds that each response takes."""
_ROUNDS = 3


async def walk(url: str, jobs: list[str], path: Path) -> int:
    import tfruns

    runs = 0
    async with tfruns.Client(url, "key") as client:
        async for _ in client.iter_runs_for(jobs):
            runs += 1
    return runs


async def export(url: str, jobs: list[str], path: Path) -> int:
    import tfruns
    from tfruns.export import export_runs

    async with tfruns.Client(url, "key") as client:
        return (await export_runs(client, jobs, path)).runs


async def usual(url: str, jobs: list[str], path: Path) -> int:
    import httpx
    import pandas
    from truefoundry_sdk import AsyncTrueFoundry

    rows: list[dict[str, Any]] = []
    async with httpx.AsyncClient(timeout=120) as http:
        client = AsyncTrueFoundry(api_key="key", base_url=url, httpx_client=http)
        for job in jobs:
            async for run in await client.jobs.list_runs(job, limit=1000):
                rows.append({"job_id": job, **run.dict()})  # noqa: PERF401  # as people write it
    pandas.DataFrame(rows).to_parquet(path)
    return len(rows)


def measure(name: str, url: str, jobs: list[str], path: Path) -> dict[str, float]:
    """Seconds, seconds of CPU and MiB of a process. (What the SDK imports isn't counted; what a format imports is.)"""
    command = [sys.executable, "-m", "benchmarks.exports", "--work", name, url, json.dumps(jobs), str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def work(name: str, url: str, jobs: str, path: str) -> None:
    import tfruns.client
    import tfruns.export  # noqa: F401

    do = {"walk": walk, "usual": usual}.get(name, export)
    begun, cpu = time.perf_counter(), time.process_time()
    runs = asyncio.run(do(url, json.loads(jobs), Path(path)))
    taken = {"s": time.perf_counter() - begun, "CPU": time.process_time() - cpu}
    print(json.dumps({**taken, "MiB": clients._peak_memory(), "runs": runs}))


def _compare(names: list[str], runs: int, folder: Path) -> None:
    size = runs // _JOBS
    jobs = [f"job-{size + number}" for number in range(_JOBS)]  # an id counts once
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ("walk", *names)}
    sizes: dict[str, float] = {}
    with serving(size + _JOBS, latency=_LATENCY) as url:
        for _ in range(_ROUNDS):
            for name, results in taken.items():
                path = folder / f"runs.{name}"
                results.append(measure(name, url, jobs, path))
                sizes[name] = path.stat().st_size / 2**20 if path.exists() else 0
                path.unlink(missing_ok=True)
        seconds = {name: statistics.median(each["s"] for each in results) for name, results in taken.items()}
        runs = int(taken["walk"][0]["runs"])
        for name, results in taken.items():
            ratio, target = seconds[name] / seconds["walk"], TARGETS.get(name)
            judged = "" if target is None else f" (target {target}: {'met' if ratio <= target else 'MISSED'})"
            print(
                f"{name}: {runs:,} runs, {seconds[name] / runs * 1e6:.2f} us a run, of CPU at least"
                f" {min(each['CPU'] for each in results) / runs * 1e6:.2f} us; {ratio:.2f} times the walk{judged};"
                f" peak memory {max(each['MiB'] for each in results):.0f} MiB; file {sizes[name]:.0f} MiB",
                flush=True,
            )
        if "--usual" in sys.argv:
            few = [f"job-{size // 10 + number}" for number in range(_JOBS)]
            found = measure("usual", url, few, folder / "runs.parquet")
            each = found["s"] / found["runs"]
            ratio = each / (seconds["walk"] / runs)
            print(f"the usual recipe: {each * 1e6:.2f} us a run, {ratio:.1f} times the walk; {found['MiB']:.0f} MiB")


def _weigh(names: list[str], folder: Path) -> None:
    with serving(10_000, error_size=50_000) as url:
        for name in names:
            path = folder / f"runs.{name}"
            found = measure(name, url, ["job-10000"], path)
            judged = "met" if found["MiB"] <= MOST_MEMORY else "MISSED"
            print(
                f"{name}, 10,000 runs of 50 kB: {found['s']:.1f} s, peak memory {found['MiB']:.0f} MiB"
                f" (target {MOST_MEMORY}: {judged})",
                flush=True,
            )
            path.unlink()


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    names = [argument for argument in sys.argv[1:] if argument in TARGETS] or list(TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        _compare(names, (numbers or [300_000])[0], Path(folder))
        _weigh(names, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
