"""The sandbox's lists, changed in place, against lists made anew."""

import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.seeds import examples
from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.sandbox.store import Selection, Store

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


def served(store: Store, selection: Selection) -> list[str]:
    total, texts = store.page("job", selection)
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
    store = Store(["job"])
    store.fill("job", start)
    runs = {one["id"]: one for one in start}
    for change in [None, *changes]:
        if isinstance(change, int):
            assert store.delete("job", f"run-{change}") == (runs.pop(f"run-{change}", None) is not None)
        elif change is not None:
            store.put("job", change)
            runs[change["id"]] = change
        for selection in selections:
            assert served(store, selection) == expected(list(runs.values()), selection)


def test_every_order_falls_and_rises_alike() -> None:
    rng = random.Random(5)
    runs = [
        run(
            n, createdAt=rng.randint(0, 9), duration=rng.choice([None, 1, 2]), triggeredBy=rng.choice([None, "a", "ab"])
        )
        for n in range(200)
    ]
    store = Store(["job"])
    store.fill("job", runs)
    for selection in SELECTIONS:
        assert served(store, selection) == expected(runs, selection)


def test_a_page_deep_in_a_long_list_costs_as_little_as_the_first_even_while_runs_come_and_go() -> None:
    count = 200_000
    store = Store(["job"])
    store.fill("job", (run(n) for n in range(count)))
    selections = [Selection(), Selection(sort_by=JobRunsSortBy.DURATION), Selection(status=("FINISHED",))]

    def seconds(offset: int) -> float:
        taken = []
        for n in range(50):
            store.put("job", run(count + n % 3))
            store.delete("job", f"run-{count + n % 3}")
            begun = time.perf_counter()
            for selection in selections:
                total, texts = store.page("job", selection, offset, 10)
                assert (total, len(texts)) == (count, 10)
            taken.append(time.perf_counter() - begun)
        return min(taken)

    seconds(0)
    # Far from what the walk over all runs before it would take: a thousand times as long.
    assert seconds(count - 10) < 30 * seconds(0)
