"""An export that is cancelled, or runs out of space, leaves nothing but what the next call goes on from."""

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.export.test_export import READERS
from tests.support import forked
from tfruns import Client
from tfruns.export import ExportError, export_runs
from tfruns.export.checkpoint import NUMBER, Checkpoint
from tfruns.export.files import WorkThread
from tfruns.sandbox import Sandbox

TRIES = 15


@pytest.mark.slow
@pytest.mark.parametrize("cancellations", [1, 2, 3])
@pytest.mark.parametrize("form", ["jsonl", "sqlite"])
async def test_a_cancellation_at_any_moment_leaves_no_lock_no_thread_and_no_empty_folder(
    form: str, cancellations: int, tmp_path: Path
) -> None:
    """However often it is repeated: the next call works at once, with garbage not collected."""
    chance = random.Random(form + str(cancellations))
    path, state = tmp_path / f"runs.{form}", tmp_path / "state.json"
    async with Sandbox(jobs=5, runs=[0, 3, 300, 1500, 50]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for number in range(TRIES):
            options = {"state": state} if number % 2 else {}
            tasks = asyncio.all_tasks()
            export = asyncio.create_task(export_runs(client, sandbox.job_ids, path, **options))
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            for _ in range(cancellations):
                export.cancel()
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
            await asyncio.wait([export])
            assert export.cancelled() or export.result().runs == 1853
            left = {task for task in asyncio.all_tasks() - tasks - {export} if "web_protocol" not in repr(task)}
            assert not left  # but for the server's
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfruns-export")]
            for folder in tmp_path.glob("*.tfruns-partial"):
                assert sorted(found.name for found in folder.iterdir()) == ["manifest", "pieces"]
            assert not [*tmp_path.glob("*.lock")]
            summary = await export_runs(client, sandbox.job_ids, path, **options)
            assert summary.runs == 1853 or options  # an increment, where the one before was over
            assert {found.name for found in tmp_path.iterdir()} <= {summary.path.name, path.name, state.name}
            for found in tmp_path.iterdir():
                found.unlink()


def export(steps: Connection, url: str, key: str, path: str, ids: list[str], most: int) -> None:
    """What a process does that may write files of so many bytes: it sends a `w` for each step after all were read."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    async def work() -> None:
        async with Client(url, key, max_concurrency=1) as client:
            try:
                await export_runs(
                    client, ids, path, on_progress=lambda now: steps.send_bytes(b"w" if now.is_writing else b".")
                )
            except (ExportError, OSError):
                sys.exit(3)

    asyncio.run(work())


async def steps_of(steps: Connection) -> bytes:
    """All that it sends."""
    found = b""
    with contextlib.suppress(EOFError):
        while True:
            found += await asyncio.to_thread(steps.recv_bytes)
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX's")
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "sqlite", "duckdb"])
async def test_where_there_is_no_space_the_old_file_stays_and_the_same_call_goes_on(form: str, tmp_path: Path) -> None:
    """While reading, and while finishing."""
    path, wanted = tmp_path / f"runs.{form}", tmp_path / f"wanted.{form}"
    is_database = form in ("sqlite", "duckdb")
    if not is_database:
        path.write_bytes(b"old")
    async with Sandbox(jobs=6, runs=1000) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, wanted)
        ended = {}
        for most in (30_000, 60_000, 150_000, 300_000, 450_000, 700_000, 10_000_000):
            process, steps = forked.start(export, sandbox.url, sandbox.api_key, str(path), sandbox.job_ids, most)
            with contextlib.closing(steps), contextlib.closing(process):
                sent = await steps_of(steps)
                await asyncio.to_thread(process.join)
                assert process.exitcode in (0, 3)
                ended[most] = (process.exitcode, b"w" in sent)
            if ended[most][0] == 0:
                break
            assert not path.exists() if is_database else path.read_bytes() == b"old"
    assert ended[30_000] == (3, False)  # while reading
    assert (0, True) in ended.values()
    if is_database:  # files are written while the runs are read
        assert (3, True) in ended.values()
    if form in READERS:
        assert READERS[form](path) == READERS[form](wanted)
    else:
        assert path.read_bytes() == wanted.read_bytes()
    assert sorted(found.name for found in tmp_path.iterdir()) == [path.name, wanted.name]


async def test_a_cancellation_stops_the_thread_at_its_next_check() -> None:
    """Not only when it has uploaded what it has made."""
    ended = []

    def work(thread: WorkThread) -> None:
        for _ in range(200):
            thread.check()
            time.sleep(0.01)
        ended.append(True)

    async with WorkThread() as thread:
        task = asyncio.create_task(thread.run(work, thread))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not ended


def test_nothing_is_left_of_what_an_increment_before_had_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the lines of both are as long."""
    monkeypatch.setattr(time, "time", lambda: 1.7e9)

    def export(number: int, piece: bytes, *job_ids: str) -> list[str]:
        """The jobs that were read whole before."""
        kept = Checkpoint(tmp_path / "work", {NUMBER: number})
        found = [*kept.done]
        for job_id in job_ids:
            kept.add(job_id, piece, 1, [])
            kept.finish(job_id, None)
        kept.leave()
        return found

    assert export(1, b"1", "a", "b", "c") == []
    assert export(2, b"123456789", "d") == []
    assert export(2, b"") == ["d"]
