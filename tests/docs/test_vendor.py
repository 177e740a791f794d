"""The vendor's SDK, pointed at the sandbox, and ours list the same runs."""

import itertools
import json
from typing import Any

import pytest

pytest.importorskip("truefoundry_sdk")

import httpx
from truefoundry_sdk import AsyncTrueFoundry, ForbiddenError, NotFoundError, UnprocessableEntityError
from truefoundry_sdk.core.api_error import ApiError

import tfruns
from tfruns.sandbox import Fault, Sandbox

pytestmark = pytest.mark.vendor

FILTERS: list[dict[str, Any]] = [
    {},
    *({"status": [status]} for status in tfruns.JobRunStatus),
    {"status": ["FAILED", "RUNNING"]},
    {"version_numbers": [3]},
    {"version_numbers": [1, 2, 5]},
    {"search_prefix": "train-"},
    {"search_prefix": "no such prefix"},
    {"status": ["FAILED"], "version_numbers": [2, 3], "search_prefix": "train-"},
]
ORDERS: list[dict[str, Any]] = [
    {"sort_by": sort_by, "order": order}
    for sort_by, order in itertools.product(
        [None, *(one.value for one in tfruns.JobRunsSortBy)], [None, *(one.value for one in tfruns.SortDirection)]
    )
]


async def both(s: Sandbox, limit: int, query: dict[str, Any]) -> tuple[list[Any], list[tfruns.JobRun]]:
    """Every run by the vendor's SDK, and by ours."""
    job_id = s.job_ids[0]
    given = {name: value for name, value in query.items() if value is not None}
    async with httpx.AsyncClient() as http:
        vendor = AsyncTrueFoundry(api_key=s.api_key, base_url=s.url, httpx_client=http)
        theirs = [one async for one in await vendor.jobs.list_runs(job_id, limit=limit, **given)]
    async with tfruns.Client(s.url, s.api_key) as client:
        ours = await client.iter_runs(job_id, page_size=limit, **query).collect()
    return theirs, ours


def same(theirs: list[Any], ours: list[tfruns.JobRun]) -> None:
    """Every field of ours is in theirs with the same value, and nothing of theirs is missing in ours."""
    assert [without_nulls(one.to_dict()) for one in ours] == [without_nulls(json.loads(one.json())) for one in theirs]


def without_nulls(value: Any) -> Any:
    """The vendor's SDK leaves out what the server sent as null."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return value


@pytest.mark.parametrize("query", FILTERS, ids=str)
async def test_both_list_the_same_runs_for_every_filter(query: dict[str, Any]) -> None:
    async with Sandbox(jobs=1, runs=400, seed=3) as s:
        theirs, ours = await both(s, 150, query)
        same(theirs, ours)
        assert bool(ours) == (query.get("search_prefix") != "no such prefix")


async def test_both_list_the_same_runs_by_subject() -> None:
    async with Sandbox(jobs=1, runs=400, seed=3) as s:
        slugs = sorted({one.triggered_by for one in s.runs(s.job_ids[0]) if one.triggered_by is not None})
        assert len(slugs) >= 2
        for wanted in (slugs[:1], slugs[:2]):
            theirs, ours = await both(s, 150, {"triggered_by": wanted})
            same(theirs, ours)
            assert {one.triggered_by for one in ours} == set(wanted)


@pytest.mark.parametrize("query", ORDERS, ids=str)
async def test_both_list_the_same_runs_in_every_order(query: dict[str, Any]) -> None:
    async with Sandbox(jobs=1, runs=400, seed=3) as s:
        theirs, ours = await both(s, 150, query)
        same(theirs, ours)
        assert len(ours) == 400


@pytest.mark.parametrize("limit", [7, 100, 399, 400, 401, 1000])
async def test_both_list_the_same_runs_at_every_page_size(limit: int) -> None:
    async with Sandbox(jobs=1, runs=400, seed=3) as s:
        theirs, ours = await both(s, limit, {})
        same(theirs, ours)
        assert len(ours) == 400


TYPED = {
    403: (ForbiddenError, tfruns.PermissionDeniedError),
    404: (NotFoundError, tfruns.NotFoundError),
    422: (UnprocessableEntityError, tfruns.UnprocessableEntityError),
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503])
async def test_each_status_is_an_error_of_its_own_type_in_both(status: int) -> None:
    async with Sandbox(["job"], 1, faults=[Fault(status=status)]) as s:
        once = tfruns.RetryPolicy(max_attempts=1)
        async with httpx.AsyncClient() as http, tfruns.Client(s.url, s.api_key, retry=once) as client:
            vendor = AsyncTrueFoundry(api_key=s.api_key, base_url=s.url, httpx_client=http)
            with pytest.raises(ApiError) as theirs:
                await vendor.jobs.list_runs("job", request_options={"max_retries": 0})
            with pytest.raises(tfruns.APIStatusError) as ours:
                await client.list_runs("job")
    assert theirs.value.status_code == ours.value.status_code == status
    if status in TYPED:
        assert (type(theirs.value), type(ours.value)) == TYPED[status]
        assert ours.value.message in str(theirs.value.body)


async def test_the_sandboxs_own_refusals_are_typed_errors_in_both() -> None:
    async with Sandbox(["job", "closed"], 1, forbidden=["closed"]) as s, httpx.AsyncClient() as http:
        vendor = AsyncTrueFoundry(api_key=s.api_key, base_url=s.url, httpx_client=http)
        for error, job_id, limit in (
            (ForbiddenError, "closed", 10),
            (NotFoundError, "none", 10),
            (UnprocessableEntityError, "job", 1001),
        ):
            with pytest.raises(error) as raised:
                await vendor.jobs.list_runs(job_id, limit=limit)
            assert str(raised.value.status_code) in str(raised.value.body)


async def test_both_see_the_same_runs_that_live() -> None:
    async with Sandbox(jobs=1, runs=200, seed=3, living=True) as s:
        for _ in range(5):
            s.clock.advance(300)
            theirs, ours = await both(s, 100, {"sort_by": "status"})
            same(theirs, ours)
            assert len(ours) == len(s.runs(s.job_ids[0]))


async def test_both_are_refused_alike() -> None:
    async with Sandbox(jobs=1, runs=1) as s, tfruns.Client(s.url, "wrong") as client:
        async with httpx.AsyncClient() as http:
            vendor = AsyncTrueFoundry(api_key="wrong", base_url=s.url, httpx_client=http)
            with pytest.raises(ApiError) as theirs:
                await vendor.jobs.list_runs(s.job_ids[0])
        with pytest.raises(tfruns.AuthenticationError) as ours:
            await client.list_runs(s.job_ids[0])
        assert theirs.value.status_code == ours.value.status_code == 401
