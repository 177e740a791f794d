"""What a walk makes of the pages that it has fetched: texts, bad runs, turns of other tasks, and its end."""

import asyncio
import json

import pytest

from tests.support.hostile import Reply, Request, Stall, page, pages_of, response, run, serve
from tfruns import Client
from tfruns.models import RawPage

KEY = "key"


async def with_bad_runs(bad: set[int], *, count: int = 12, page_size: int = 5, field: str = "status") -> list[RawPage]:
    """The pages of a list, some of whose runs can't be understood."""
    runs = [run(number, **({field: []} if number in bad else {})) for number in range(count)]

    def answer(request: Request) -> bytes:
        rows = runs[::-1] if "order=asc" in request.target else runs
        return response(200, page(rows[request.offset :][: request.limit], count))

    async with serve(answer) as (url, _), Client(url, KEY) as client:
        return [one async for one in client.iter_runs("job", page_size=page_size).raw_pages(keep_bad=True)]


@pytest.mark.parametrize(
    "bad", [set(), {0}, {4}, {5}, {3, 4, 5}, {6, 8}, {11}, {0, 1, 2, 3, 4}, set(range(5, 9)), set(range(12))]
)
async def test_bad_runs_stand_beside_the_others_and_each_run_has_its_own_text(bad: set[int]) -> None:
    """With `keep_bad`, no run is missing, none stands twice, and no text is another run's."""
    pages = await with_bad_runs(bad)
    assert [one.id for each in pages for one in each.data] == [f"run-{n}" for n in range(12) if n not in bad]
    assert [one.id for each in pages for one in each.bad] == [f"run-{n}" for n in sorted(bad)]
    for each in pages:
        assert [json.loads(text)["id"] for text in each.texts] == [one.id for one in each.data]
        assert len(each.data) + len(each.bad) <= 5
        assert all(json.loads(one.text)["id"] == one.id for one in each.bad)


@pytest.mark.parametrize(
    ("count", "page_size", "bad"),
    [(5, 3, {1, 4}), (8, 4, {2, 7}), (13, 4, {11}), (13, 7, {10, 11, 12}), (45, 4, {43}), (400, 20, {216})],
)
async def test_a_time_that_cant_be_read_stops_no_walk(count: int, page_size: int, bad: set[int]) -> None:
    """A run whose `createdAt` isn't known stands once in the pages, wherever it is, and so does every other one."""
    pages = await with_bad_runs(bad, count=count, page_size=page_size, field="createdAt")
    assert [one.id for each in pages for one in each.data] == [f"run-{n}" for n in range(count) if n not in bad]
    assert [one.id for each in pages for one in each.bad] == [f"run-{n}" for n in sorted(bad)]


async def test_other_tasks_run_between_two_pages_that_have_both_arrived() -> None:
    """A consumer that never waits doesn't keep other tasks from running until the list ends."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serve(pages_of(60)) as (url, requests), Client(url, KEY, max_concurrency=16) as client:
        pages = client.iter_runs("job", page_size=10).pages()
        await anext(pages)
        while len(requests) < 8 or client.stats().in_flight:
            await asyncio.sleep(0.01)
        task = asyncio.create_task(take_turns())
        seen = [turns async for _ in pages]
        task.cancel()
    assert len(seen) == 7
    assert all(after > before for before, after in zip([0, *seen], seen, strict=False))


async def test_a_walk_that_is_complete_does_not_wait_for_what_is_in_flight() -> None:
    """Once a run is too old, the requests for what comes after it are stopped."""

    def handler(request: Request) -> Reply:
        if request.offset > 20:
            return Stall()
        # The first ten runs are much newer than the rest: much more of the list seems to be wanted than is.
        runs = [
            run(number, createdAt=1_700_000_000_000 - number * (1 if number < 10 else 1000)) for number in range(90)
        ]
        return response(200, page(runs[request.offset :][: request.limit], 90))

    async with serve(handler) as (url, requests), Client(url, KEY) as client:
        runs = client.iter_runs("job", page_size=10, created_after=1_700_000_000_000 - 12_500)
        async with asyncio.timeout(30):
            assert [one.id for one in await runs.collect()] == [f"run-{n}" for n in range(13)]
            assert len(requests) > 5
            async for one in runs:
                while one.id == "run-12" and client.stats().in_flight:  # however slow the consumer is
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", ["pages", "raw_pages", "arrow_batches"])
@pytest.mark.parametrize("many", [False, True])
async def test_a_page_is_never_empty_and_never_too_long(form: str, many: bool) -> None:
    """Where the list moves, responses hold more runs than `page_size`, or nothing new."""
    if form == "arrow_batches":
        pytest.importorskip("pyarrow")
    inserted = {"a": 0, "b": 0}
    longest = 0

    def handler(request: Request) -> Reply:
        nonlocal longest
        job_id = request.target.split("/")[5]
        inserted[job_id] += 20 if request.number > 1 else 0
        runs = [run(number) for number in range(-inserted[job_id], 100)]
        longest = max(longest, request.limit)
        return response(200, page(runs[request.offset :][: request.limit], len(runs)))

    found: list[tuple[str, list[str]]] = []
    async with serve(handler) as (url, requests), Client(url, KEY, max_concurrency=2) as client:
        both = client.iter_runs_for(["a", "b"], page_size=10, ordered=True)
        walks = both if many else client.iter_runs("a", page_size=10)
        async for each in getattr(walks, form)():
            job_id, one = each if isinstance(each, tuple) else ("a", each)
            if form == "arrow_batches":
                columns = one.to_pydict()
                found.append((columns["job_id"][0], columns["id"]))
            elif one is not None:
                found.append((job_id, [run.id for run in one.data]))
    for job_id in ("a", "b")[: 1 + many]:
        ids = [one for its_id, ids in found if its_id == job_id for one in ids]
        assert [one for one in ids if "--" not in one] == [f"run-{number}" for number in range(100)]
        assert len(set(ids)) == len(ids)
    assert {len(ids) for _, ids in found} <= set(range(1, 11))
    assert longest > 10
    assert len(requests) > 5
