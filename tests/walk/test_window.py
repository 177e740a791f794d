"""Runs that were created within a time: `created_after` and `created_before`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.hostile import Request, page, pages_of, response, run, serve
from tfruns import Client
from tfruns.query import RunFilter
from tfruns.sandbox import Sandbox

SORTS: list[dict[str, Any]] = [{}, {"order": "asc"}, {"sort_by": "duration"}, {"sort_by": "startTime", "order": "desc"}]


@pytest.mark.parametrize("sort", SORTS, ids=str)
@pytest.mark.parametrize("page_size", [7, 1000])
async def test_every_order_yields_the_runs_of_the_window(sort: dict[str, Any], page_size: int) -> None:
    """The window is closed at its beginning and open at its end, in every order."""
    async with Sandbox(1, 200) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        job_id = sandbox.job_ids[0]
        everything = await client.iter_runs(job_id, **sort).collect()
        moments = sorted(run.created_at for run in everything)
        after, before = moments[50], moments[120]
        runs = client.iter_runs(job_id, created_after=after, created_before=before, page_size=page_size, **sort)
        wanted = [run.id for run in everything if after <= run.created_at < before]
        assert len(wanted) == 70
        assert sorted([run.id async for run in runs]) == sorted(wanted)
        assert await runs.count() == await client.count_runs(job_id, created_after=after, created_before=before) == 70
        first = await runs.first()
        assert first is not None
        assert first.id in wanted
        assert all([len(page.data) <= page_size async for page in runs.pages()])
        many = client.iter_runs_for([job_id], created_after=after, created_before=before, **sort)
        assert sorted([run.id async for _, run in many]) == sorted(wanted)
        limited = client.iter_runs(job_id, created_after=after, created_before=before, max_runs=10, **sort)
        assert len(await limited.collect()) == 10


async def test_a_walk_of_the_newest_ends_at_the_first_older_run() -> None:
    """And it doesn't fetch ahead much further than it must."""
    async with Sandbox(1, 5000) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        job_id = sandbox.job_ids[0]
        newest = (await client.list_runs(job_id, limit=1000)).data
        begun = client.stats().requests
        runs = await client.iter_runs(job_id, created_after=newest[499].created_at, page_size=50).collect()
        assert [run.id for run in runs] == [run.id for run in newest[:500]]
        assert client.stats().requests - begun <= 20  # 11 at least; times between runs vary


@pytest.mark.parametrize("oldest", [0, 50], ids=["sorted", "but one"])
async def test_a_list_that_is_not_newest_first_is_read_to_its_end(oldest: int) -> None:
    """The server has another order than the one that is documented: no run of the window may be missing."""
    runs = [run(number) for number in reversed(range(100))]
    runs.insert(0, runs.pop(oldest))

    async with (
        serve(lambda request: response(200, page(runs[request.offset :][: request.limit], len(runs)))) as (url, _),
        Client(url, "key") as client,
    ):
        after = run(9)["createdAt"]
        found = await client.iter_runs("job", created_after=after, page_size=10).collect()
    assert [one.id for one in found] == [one["id"] for one in runs if one["createdAt"] >= after]


async def test_one_old_run_among_the_newest_hides_no_others() -> None:
    runs = [run(500), *(run(number) for number in range(50))]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :][: request.limit], len(runs)))) as (url, _),
        Client(url, "key") as client,
    ):
        after = run(19)["createdAt"]
        found = await client.iter_runs("job", created_after=after, page_size=5).collect()
    assert [one.id for one in found] == [f"run-{number}" for number in range(20)]


async def test_a_window_that_is_over_costs_one_request() -> None:
    async with serve(pages_of(10_000)) as (url, requests), Client(url, "key") as client:
        assert await client.iter_runs("job", created_after=timedelta(0)).collect() == []
    assert len(requests) == 1


async def test_the_window_is_not_sent_to_the_server() -> None:
    seen: list[Request] = []
    healthy = pages_of(3)

    async def reply(request: Request) -> bytes:
        seen.append(request)
        return healthy(request)

    async with serve(reply) as (url, _), Client(url, "key") as client:
        await client.iter_runs("job", created_before=datetime.now(UTC), status="FAILED").collect()
    assert "created" not in RunFilter(created_after=0, status="FAILED").query_string()
    assert seen


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (datetime(2026, 1, 1), ValueError, "no time zone"),  # noqa: DTZ001
        (timedelta(hours=-1), ValueError, "in the future"),
        (1_700_000_000, ValueError, "are these seconds?"),
        pytest.param(10**400, ValueError, "milliseconds since 1970, got 1000", id="beyond a float"),
        (float("nan"), ValueError, "got nan"),
        (True, TypeError, "got True"),
        ("2h", TypeError, "got '2h'"),
    ],
)
@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_what_is_no_time_says_what_is(name: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"{name} must be an aware datetime.*{says}"):
        RunFilter(**{name: value})


def test_a_window_that_holds_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no run matches"):
        RunFilter(created_after=timedelta(hours=1), created_before=timedelta(hours=2))


async def test_pages_as_large_as_the_window() -> None:
    """Without a `page_size`, the first page is small, and the next ones hold what the window is likely to hold."""
    async with serve(pages_of(16_000)) as (url, requests), Client(url, "key") as client:
        runs = client.iter_runs("job", created_after=run(29)["createdAt"])
        assert len(await runs.collect()) == 30
        assert [request.limit for request in requests] == [50]
        assert runs.progress.runs_expected == 30
        requests.clear()
        assert len(await client.iter_runs("job", created_after=run(129)["createdAt"]).collect()) == 130
        assert len(requests) == 2
        assert sum(request.limit for request in requests) < 250
        requests.clear()
        assert len(await client.iter_runs("job", created_after=run(9_999)["createdAt"]).collect()) == 10_000
        assert len(requests) <= 13
        requests.clear()
        assert len(await client.iter_runs("job", created_after=run(29)["createdAt"], page_size=700).collect()) == 30
        assert [request.limit for request in requests] == [700]


async def test_what_a_window_can_hold_is_expected() -> None:
    """Not the whole list: from the first page on, by the density of the runs so far; in the end exactly."""
    async with serve(pages_of(16_000)) as (url, _), Client(url, "key") as client:
        many = client.iter_runs_for(["a", "b"], created_after=run(149)["createdAt"])
        expected = [many.progress.runs_expected async for _ in many]
        assert max(expected) <= 360
        assert many.progress.runs_expected == many.progress.runs == 300
        one = client.iter_runs("a", created_after=run(149)["createdAt"], max_runs=10)
        assert len(await one.collect()) == one.progress.runs_expected == 10
