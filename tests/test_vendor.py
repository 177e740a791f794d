"""The vendor's SDK, pointed at the sandbox, and ours list the same runs."""

import itertools
import json
from typing import Any

import httpx
import pytest
from truefoundry_sdk import AsyncTrueFoundry
from truefoundry_sdk.core.api_error import ApiError

import tfruns
from tfruns.sandbox import Sandbox

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


async def test_both_are_refused_alike() -> None:
    async with Sandbox(jobs=1, runs=1) as s, tfruns.Client(s.url, "wrong") as client:
        async with httpx.AsyncClient() as http:
            vendor = AsyncTrueFoundry(api_key="wrong", base_url=s.url, httpx_client=http)
            with pytest.raises(ApiError) as theirs:
                await vendor.jobs.list_runs(s.job_ids[0])
        with pytest.raises(tfruns.AuthenticationError) as ours:
            await client.list_runs(s.job_ids[0])
        assert theirs.value.status_code == ours.value.status_code == 401
