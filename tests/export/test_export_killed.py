"""An export that is killed at any moment goes on, and ends as if it hadn't been."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.export.test_export import READERS
from tfruns import Client
from tfruns.export import export_runs
from tfruns.export.compress import zstd
from tfruns.sandbox import Sandbox

pytestmark = pytest.mark.slow

KILLS = 12
CHILD = """
import asyncio, json, logging, sys
from tfruns import Client, RetryPolicy
from tfruns.export import export_runs
from tfruns.export.compress import zstd

logging.getLogger("tfruns").setLevel(logging.CRITICAL)
url, key, path, ids = sys.argv[1:]

def tell(progress):
    sys.stdout.write("w" if progress.is_writing else ".")
    sys.stdout.flush()

async def main():
    async with Client(url, key, max_concurrency=4, retry=RetryPolicy(initial_backoff=0.01)) as client:
        await export_runs(client, json.loads(ids), path, on_progress=tell)

asyncio.run(main())
"""


async def export_and_kill(sandbox: Sandbox, path: Path, *, after: int, pause: float) -> bool:
    """Start the export, and kill it so many seconds after so many steps. Returns whether it was over before that."""
    ids = json.dumps(sandbox.job_ids)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, sandbox.url, sandbox.api_key, str(path), ids, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    steps = 0
    while steps < after and (said := await process.stdout.read(1)):
        steps += len(said)
    await asyncio.sleep(pause)
    if process.returncode is None:
        # Not by the process itself: where it has just ended, that would take its status from who waits for it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await process.stdout.read()
    status = await process.wait()
    assert status in (0, -signal.SIGKILL)
    return status == 0


def content(path: Path) -> object:
    form = path.suffix[1:]
    if form == "zst":  # jobs that came together in another way make other frames
        return zstd.decompress(path.read_bytes())
    return READERS[form](path) if form in READERS else path.read_bytes()


@pytest.mark.parametrize("form", ["jsonl", "jsonl.zst", "parquet", "sqlite", "duckdb"])
async def test_an_export_killed_at_many_moments_ends_as_an_undisturbed_one(form: str, tmp_path: Path) -> None:
    chance = random.Random(form)
    sizes = [chance.choice([0, 3, 300, 1500]) for _ in range(24)]
    faults = ["status=503,rate=0.05", "breaks=cut,rate=0.03", "breaks=reset,rate=0.02"]
    wanted, path = tmp_path / f"wanted.{form}", tmp_path / f"runs.{form}"
    kills = 0
    async with Sandbox(jobs=len(sizes), runs=sizes, faults=faults) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            await export_runs(client, sandbox.job_ids, wanted)
        while kills < KILLS or not path.exists():
            path.unlink(missing_ok=True)
            after = chance.randrange(30) if kills < KILLS else sys.maxsize
            if not await export_and_kill(sandbox, path, after=after, pause=chance.random() * 0.03):
                kills += 1
            if path.exists():
                assert content(path) == content(wanted)
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == [path.name, wanted.name]
