"""Thousands of short walks in one process, many cancelled, timed out or met by faults: it ends as it began.

`TFRUNS_SOAK=10000` makes it that many walks, and `-s` shows the figures.
"""

import asyncio
import gc
import logging
import os
import random
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

import tfruns
from tfruns import Client, RetryPolicy
from tfruns.sandbox import Fault, Sandbox

pytestmark = pytest.mark.slow

WALKS = int(os.environ.get("TFRUNS_SOAK", "600"))
FAULTS = [
    Fault(status=503, rate=0.05),
    Fault(breaks="cut", rate=0.03),
    Fault(breaks="reset", rate=0.03),
    Fault(latency=0.02, rate=0.05),
    Fault(html=True, status=502, rate=0.02),
]


def figures() -> dict[str, float]:
    """What this process holds: tasks (but for the sandbox's connections), descriptors, and MiB that Python traces."""
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if "RequestHandler" not in repr(task)]
    return {
        "tasks": len(tasks),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "MiB": round(tracemalloc.get_traced_memory()[0] / 2**20, 1),
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
async def test_thousands_of_walks_with_cancellations_timeouts_and_faults_leave_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance = random.Random(1)
    ends: Counter[str] = Counter()
    caplog.set_level(logging.CRITICAL, "tfruns")
    retry = RetryPolicy(max_attempts=6, initial_backoff=0.001)
    places = asyncio.Semaphore(40)

    async def walk(client: Client, sandbox: Sandbox) -> None:
        job_id = chance.choice([*sandbox.job_ids, "nowhere"])
        timeout = chance.choice([60, 60, 60, 0.001])
        runs = client.iter_runs(
            job_id, page_size=chance.choice([3, 10, 1000]), timeout=timeout, max_runs=chance.choice([None, 5])
        )
        async with places:
            task = asyncio.create_task(runs.collect())
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.02)
                task.cancel()
            try:
                ends[f"{len(await task) > 5}"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except tfruns.TfRunsError as error:
                ends[type(error).__name__] += 1

    async def some(count: int) -> None:
        async with Client(sandbox.url, sandbox.api_key, retry=retry) as client:
            await asyncio.gather(*(walk(client, sandbox) for _ in range(count)))
            assert client.stats().in_flight == 0

    async with Sandbox(jobs=5, runs=[0, 1, 7, 30, 60], faults=FAULTS) as sandbox:
        await some(100)  # what is made once
        sandbox.requests.clear()
        tracemalloc.start()
        await asyncio.sleep(0.2)
        before = figures()
        for _ in range(WALKS // 200):
            await some(200)
            sandbox.requests.clear()
        await asyncio.sleep(0.5)
        after = figures()
        tracemalloc.stop()
    print(f"{WALKS} walks: {dict(ends)}; before {before}; after {after}")
    assert after["tasks"] == before["tasks"]
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["MiB"] <= before["MiB"] + 3
    assert {"cancelled", "APITimeoutError", "NotFoundError", "True", "False"} <= ends.keys()
