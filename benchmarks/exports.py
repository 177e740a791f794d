"""Exports of a million runs in each format, against the bytes alone and the usual recipe.

`python -m benchmarks.exports [RUNS]`: runs a second and peak memory, each by a process of its own. The usual recipe is
the vendor's SDK into a list of dicts into a pandas frame into Parquet. It is measured on a tenth of the runs, unless
`--whole` asks for all: that takes minutes.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.server import serving

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "arrow", "sqlite", "duckdb")
_JOBS = 10


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


async def floor(url: str, jobs: list[str], path: Path) -> int:
    return await clients.bytes_alone(url, jobs, 1000)


def measure(name: str, url: str, jobs: list[str], path: Path) -> dict[str, float]:
    """Seconds and MiB of a process that does it."""
    command = [sys.executable, "-m", "benchmarks.exports", "--work", name, url, json.dumps(jobs), str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def work(name: str, url: str, jobs: str, path: str) -> None:
    do = {"floor": floor, "usual": usual}.get(name, export)
    begun = time.perf_counter()
    asyncio.run(do(url, json.loads(jobs), Path(path)))
    print(json.dumps({"s": time.perf_counter() - begun, "MiB": clients._peak_memory()}))


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    size = (numbers or [1_000_000])[0] // _JOBS
    names = ["floor", *FORMATS, "usual"]
    with serving(size + _JOBS) as url, tempfile.TemporaryDirectory() as folder:
        for name in names:
            part = 10 if name == "usual" and "--whole" not in sys.argv else 1
            jobs = [f"job-{size // part + number}" for number in range(_JOBS)]  # an id counts once
            runs = sum(int(job[4:]) for job in jobs)
            path = Path(folder) / f"runs.{'parquet' if name == 'usual' else name}"
            found = measure(name, url, jobs, path)
            mib = path.stat().st_size / 2**20 if path.exists() else 0
            print(
                f"{name}: {runs:,} runs in {found['s']:.1f} s, {runs / found['s']:,.0f} runs a second,"
                f" {found['s'] / runs * 1e6:.2f} us a run; peak memory {found['MiB']:.0f} MiB; file {mib:.0f} MiB",
                flush=True,
            )
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
