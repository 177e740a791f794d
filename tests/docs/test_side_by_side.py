"""What the README promises beside the vendor's SDK: the same server, seen by both, where the two differ."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

pytest.importorskip("truefoundry_sdk")

import httpx
from truefoundry_sdk import AsyncTrueFoundry

import tfruns
from tests.support.hostile import page, response, run, serve
from tfruns.sandbox import Fault, Sandbox

pytestmark = pytest.mark.vendor


async def vendors(url: str, key: str, job_id: str, limit: int = 100) -> AsyncIterator[Any]:
    async with httpx.AsyncClient() as http:
        client = AsyncTrueFoundry(api_key=key, base_url=url, httpx_client=http)
        async for one in await client.jobs.list_runs(job_id, limit=limit):
            yield one


async def ours(url: str, key: str, job_id: str, limit: int = 100) -> AsyncIterator[Any]:
    async with tfruns.Client(url, key) as client:
        async for one in client.iter_runs(job_id, page_size=limit):
            yield one


Lister = Callable[..., AsyncIterator[Any]]


async def listed_while_it_changes(lister: Lister, *, deleted: int, created: int) -> tuple[list[str], set[str]]:
    """The ids that a client lists while runs are deleted and created after each 100; and those there all along."""
    async with Sandbox(["job"], 2_000, seed=1) as sandbox:
        lasting = {one.id for one in sandbox.runs("job")}
        ids: list[str] = []
        async with aclosing(lister(sandbox.url, sandbox.api_key, "job")) as runs:  # type: ignore[type-var]
            async for one in runs:
                ids.append(one.id)
                if len(ids) % 100 == 0:
                    for gone in sandbox.runs("job")[:deleted]:
                        await sandbox.delete_run("job", gone.id)
                        lasting.discard(gone.id)
                    for _ in range(created):
                        await sandbox.create_run("job")
                if len(ids) > 4_000:
                    break
        return ids, lasting


async def test_runs_deleted_under_a_walk_make_the_vendors_sdk_lose_others_and_ours_none() -> None:
    ids, lasting = await listed_while_it_changes(vendors, deleted=5, created=0)
    assert len(lasting - set(ids)) > 50
    ids, lasting = await listed_while_it_changes(ours, deleted=5, created=0)
    assert lasting <= set(ids)
    assert len(ids) == len(set(ids))


async def test_runs_created_under_a_walk_make_the_vendors_sdk_repeat_others_and_ours_none() -> None:
    ids, _ = await listed_while_it_changes(vendors, deleted=0, created=5)
    assert len(ids) - len(set(ids)) > 50
    ids, lasting = await listed_while_it_changes(ours, deleted=0, created=5)
    assert lasting <= set(ids)
    assert len(ids) == len(set(ids))


async def test_a_server_that_ignores_the_offset_is_walked_for_ever_by_the_vendors_sdk_and_refused_by_ours() -> None:
    always = response(200, page([run(number) for number in range(100)], 500))
    async with serve(lambda _: always) as (url, _):
        count = 0
        async with aclosing(vendors(url, "key", "job")) as runs:  # type: ignore[type-var]
            async for _ in runs:
                count += 1
                if count == 2_000:
                    break
        assert count == 2_000
        with pytest.raises(tfruns.IncompleteWalkError):
            _ = [one async for one in ours(url, "key", "job")]


async def test_two_new_statuses_become_one_in_the_vendors_sdk_and_stay_themselves_in_ours() -> None:
    two = [run(0, status="PAUSED"), run(1, status="QUEUED")]
    async with serve(lambda request: response(200, page(two[request.offset :], 2))) as (url, _):
        assert [one.status.value async for one in vendors(url, "key", "job")] == ["QUEUED", "QUEUED"]
        assert [one.status.value async for one in ours(url, "key", "job")] == ["PAUSED", "QUEUED"]


@pytest.mark.parametrize("breaks", ["reset", "cut"])
async def test_a_connection_that_breaks_ends_a_walk_of_the_vendors_sdk_and_is_retried_by_ours(breaks: str) -> None:
    async with Sandbox(["job"], 950, faults=[f"breaks={breaks},nth=4"]) as sandbox:
        with pytest.raises(httpx.TransportError):
            _ = [one async for one in vendors(sandbox.url, sandbox.api_key, "job")]
        sandbox.faults[:] = [Fault(breaks="reset" if breaks == "reset" else "cut", nth=4)]
        assert [one async for one in ours(sandbox.url, sandbox.api_key, "job")] == sandbox.runs("job")
