"""The sandbox's lists, changed in place and made as far as a page needs them, against lists made anew."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfruns
from tests.support.seeds import examples
from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.sandbox import Sandbox
from tfruns.sandbox.jobs import NEWEST_FIRST, RunList, Selection

SELECTIONS = [
    Selection(sort_by=sort_by, order=order, **filters)
    for sort_by, order in itertools.product(JobRunsSortBy, SortDirection)
    for filters in ({}, {"status": ("FAILED",)}, {"search_prefix": "a"}, {"triggered_by": ("x", "xy")})
]


def run(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"run-{number}",
        "name": "name",
        "createdAt": number,
        "duration": None,
        "deploymentVersion": "1",
        "triggeredBy": None,
        "status": "FINISHED",
        **fields,
    }


RUNS = st.builds(
    run,
    st.integers(0, 20),
    name=st.sampled_from(["a1", "b1"]),
    createdAt=st.integers(0, 3) | st.just(1.5),
    duration=st.none() | st.integers(0, 3),
    deploymentVersion=st.sampled_from(["1", "10", "9", "1.5", "main"]),
    triggeredBy=st.none() | st.sampled_from(["x", "xy", "y", "", "\U0001f680", "\uffff"]),
    status=st.sampled_from(["FAILED", "RUNNING"]),
)


def expected(runs: list[dict[str, Any]], selection: Selection) -> list[str]:
    """The ids, by three stable sorts, the least important first."""
    read = {
        "startTime": lambda one: one["createdAt"],
        "duration": lambda one: one["duration"],
        "deploymentVersion": lambda one: (
            None if one["deploymentVersion"] == "main" else float(one["deploymentVersion"])
        ),
        "triggeredBy": lambda one: one["triggeredBy"],
        "status": lambda one: one["status"],
    }[selection.sort_by]
    kept = [
        one
        for one in runs
        if (not selection.status or one["status"] in selection.status)
        and (not selection.triggered_by or one["triggeredBy"] in selection.triggered_by)
        and (one["name"].startswith(selection.search_prefix) or one["id"].startswith(selection.search_prefix))
    ]
    kept.sort(key=lambda one: one["id"])
    kept.sort(key=lambda one: one["createdAt"], reverse=True)
    valued = [one for one in kept if read(one) is not None]
    valued.sort(key=read, reverse=selection.order == "desc")
    return [one["id"] for one in valued + [one for one in kept if read(one) is None]]


def filled(runs: list[dict[str, Any]]) -> RunList:
    listed = RunList(iter(sorted(runs, key=lambda one: (-one["createdAt"], one["id"]))), len(runs))
    listed.make(len(runs), NEWEST_FIRST, None)
    return listed


def served(listed: RunList, selection: Selection) -> list[str]:
    total, texts = listed.page(selection)
    assert total == len(texts)
    return [text.split(b'"')[3].decode() for text in texts]


@pytest.mark.property
@settings(max_examples=examples(30, share=0.1))
@given(
    st.lists(RUNS, max_size=15),
    st.lists(RUNS | st.integers(0, 20), max_size=15),
    st.lists(st.sampled_from(SELECTIONS), min_size=1, max_size=6),
)
def test_lists_that_are_kept_through_changes_are_those_made_anew(
    start: list[dict[str, Any]], changes: list[dict[str, Any] | int], selections: list[Selection]
) -> None:
    start = [*{one["id"]: one for one in start}.values()]
    listed = filled(start)
    runs = {one["id"]: one for one in start}
    for change in [None, *changes]:
        if isinstance(change, int):
            assert listed.delete(f"run-{change}") == (runs.pop(f"run-{change}", None) is not None)
        elif change is not None:
            listed.put(change)
            runs[change["id"]] = change
        for selection in selections:
            assert served(listed, selection) == expected(list(runs.values()), selection)


def test_every_order_falls_and_rises_alike() -> None:
    rng = random.Random(5)
    runs = [
        run(
            n, createdAt=rng.randint(0, 9), duration=rng.choice([None, 1, 2]), triggeredBy=rng.choice([None, "a", "ab"])
        )
        for n in range(200)
    ]
    listed = filled(runs)
    for selection in SELECTIONS:
        assert served(listed, selection) == expected(runs, selection)


def test_a_page_of_the_newest_runs_makes_no_others() -> None:
    """A long history costs nothing before it is read, and any other list needs all of it."""
    made = 0

    def runs() -> Iterator[dict[str, Any]]:
        nonlocal made
        for number in range(1000):
            made += 1
            yield run(number, createdAt=1000 - number)

    listed = RunList(runs(), 1000)
    assert len(listed) == 1000
    while listed.make(20, NEWEST_FIRST, 30):
        pass
    assert (listed.page(NEWEST_FIRST, 0, 30)[0], made) == (1000, 40)
    listed.delete_oldest()
    listed.put(run(2000, createdAt=2000))
    assert len(listed) == 1000
    while listed.make(300, Selection(status=("FINISHED",)), 1):
        pass
    assert made == 999
    assert [*map(int, (one.removeprefix("run-") for one in served(listed, NEWEST_FIRST)))] == [2000, *range(999)]


async def test_fifty_long_jobs_serve_their_first_pages_at_once() -> None:
    """Their histories are made only as far as the pages go: a few hundredths of them."""
    async with Sandbox(50, 8_000, living=True) as sandbox:
        async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
            pages = await asyncio.gather(*(client.list_runs(job_id, limit=10) for job_id in sandbox.job_ids))
            assert [page.pagination.total for page in pages] == [8_000] * 50
            assert sum(len(job._runs._by_id) for job in sandbox._jobs.values()) <= 50 * 500
            first, job_id = pages[0].data, sandbox.job_ids[0]
            assert tuple(sandbox.runs(job_id)[:10]) == first
            failed = await client.iter_runs(job_id, status="FAILED").collect()
            assert failed == [run for run in sandbox.runs(job_id) if run.status == "FAILED"]
