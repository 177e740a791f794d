"""The sandbox in a thread of its own, for code that isn't async."""

import asyncio
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

import tfruns
from tfruns.sandbox import Sandbox


def count(sandbox: Sandbox, job_id: str) -> int:
    async def main() -> int:
        async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
            return await client.count_runs(job_id)

    return asyncio.run(main())


def test_it_serves_while_the_caller_blocks() -> None:
    with Sandbox(["a"], 20) as s:
        url, key = f"{s.url}/api/svc/v1/jobs/a/runs", {"Authorization": f"Bearer {s.api_key}"}
        request = urllib.request.Request(url, headers=key)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            assert response.status == 200
        assert s.requests[-1].status == 200


def test_its_methods_work_from_any_event_loop_and_are_seen_by_the_next_request() -> None:
    with Sandbox(["a"], 0) as s:
        run = asyncio.run(s.create_run("a", status="RUNNING"))
        assert count(s, "a") == 1
        asyncio.run(s.finish_run("a", run.id))
        assert s.runs("a")[0].status == "FINISHED"
        asyncio.run(s.delete_run("a", run.id))
        assert count(s, "a") == 0


def test_many_threads_may_change_and_read_it_at_once() -> None:
    """No change is lost, and no page is torn, while threads and requests work on the same job."""
    with Sandbox(["a"], 100, living=True) as s, ThreadPoolExecutor(8) as pool:

        def change(_: int) -> None:
            for _ in range(25):
                run = asyncio.run(s.create_run("a", status="UNKNOWN", name="mine"))
                s.clock.advance(0.01)
                assert run in s.runs("a")

        async def read() -> None:
            async with tfruns.Client(s.url, s.api_key) as client:
                for _ in range(20):
                    runs = await client.iter_runs("a", page_size=50).collect()
                    assert len({run.id for run in runs}) == len(runs)

        reading = pool.submit(asyncio.run, read())
        list(pool.map(change, range(6)))
        reading.result(60)
        assert sum(run.name == "mine" for run in s.runs("a")) == 150


def test_nothing_is_left_of_it() -> None:
    before = threading.active_count()
    with Sandbox() as s:
        url = s.url
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert not s.url or s.url == url
    with pytest.raises(RuntimeError, match="isn't running"):
        s.runs(s.job_ids[0])
    with s:  # again
        assert count(s, s.job_ids[0]) == 1000


def test_a_start_that_fails_leaves_no_thread_and_an_error() -> None:
    before = threading.active_count()
    with Sandbox() as s:
        port = int(s.url.rpartition(":")[2])
        with pytest.raises(OSError, match="can't listen on"), Sandbox(port=port):
            pass
    with pytest.raises(FileNotFoundError), Sandbox(runs_from="no such file"):
        pass
    assert threading.active_count() == before


async def test_it_can_be_used_in_an_event_loop_too() -> None:
    with Sandbox(["a"], 7) as s:
        async with tfruns.Client(s.url, s.api_key) as client:
            await s.create_run("a")
            assert await client.count_runs("a") == 8
