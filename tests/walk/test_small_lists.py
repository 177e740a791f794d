"""A list that one response holds needs no plan: what is then requested and yielded is what the planner would say."""

import itertools
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Request, page, pages_of, response, run, serve
from tfruns import Client, Pagination, RunPage
from tfruns._walk.planner import Planner
from tfruns._walk.request import is_whole_list
from tfruns.query import PageRequest, RunFilter


def response_of(numbers: range | list[int], total: int, limit: int | None) -> RunPage:
    runs = RunPage.from_dict(page([run(number) for number in numbers])).data
    return RunPage(runs, Pagination(total=total, limit=limit))


def test_a_whole_list_is_what_the_planner_takes_for_one() -> None:
    """Whatever the response says of total and limit, and whatever was asked for."""
    whole = 0
    orders: list[dict[str, Any]] = [{}, {"order": "asc"}, {"sort_by": "startTime"}]
    for filters, offset, max_runs, count, more, said in itertools.product(
        orders, (0, 4), (None, 1, 3), (0, 1, 3, 9, 10), (-1, 0, 1), (None, 0, 3, 10, 1000)
    ):
        limit = 10 if max_runs is None else max_runs
        request = PageRequest("job", RunFilter(**filters), limit, offset)
        body = response_of(range(min(count, limit)), max(0, offset + count + more), said)
        planner = Planner(job_id="job", filter=request.filter, start=offset, page_size=10, max_runs=max_runs)
        planned = planner.next_request(())
        assert planned is not None
        assert (planned.limit, planned.offset, planned.order.of(request.filter)) == (limit, offset, request.filter)
        if is_whole_list(request, body):
            whole += 1
            found = planner.consume(planned, body)
            assert [at for _, rows, _ in found for at in rows] == [*range(len(body.data))]
            assert planner.done
            assert planner.expected == len(body.data)
            if found and request.filter.is_by_creation:
                place = found[0][2]
                assert place is not None
                assert (place.newest_first, place.near, place.index) == (request.filter.is_newest_first, (), offset)
    assert whole > 50


@pytest.mark.parametrize("numbers", [[0, 1, 0], [0, 0]])
def test_a_run_that_is_listed_twice_is_no_whole_list(numbers: list[int]) -> None:
    assert not is_whole_list(PageRequest("job", RunFilter(), 10, 0), response_of(numbers, len(numbers), None))


async def test_a_run_that_is_listed_twice_is_yielded_once() -> None:
    """Although the response holds the whole list."""

    def twice(_: Request) -> bytes:
        return response(200, page([run(0), run(1), run(0)], 3))

    async with serve(twice) as (url, _), Client(url, "key") as client:
        assert [one.id for one in await client.iter_runs("job").collect()] == ["run-0", "run-1"]


@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
@pytest.mark.parametrize("max_runs", [None, 1, 2, 5])
async def test_the_first_request_asks_for_what_is_wanted(page_size: int, max_runs: int | None) -> None:
    """And nothing more is requested of a list that is shorter; that it is empty is asked for once more."""
    async with serve(pages_of(0)) as (url, requests), Client(url, "key") as client:
        runs = client.iter_runs("job", page_size=page_size, max_runs=max_runs)
        assert await runs.collect() == []
        assert runs.progress == tfruns.RunsProgress()
    assert [(request.offset, request.limit) for request in requests] == [
        (0, min(max(3, page_size), max_runs or 1000))
    ] * 2
