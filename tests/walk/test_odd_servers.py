"""Lists that stand still, from servers that an attack from outside was built of: each walk is whole, and in order."""

import math
import random
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.hostile import Handler, Request, page, response, run, serve
from tfruns import Client, IncompleteWalkError

Runs = list[dict[str, Any]]
STILL = [run(number) for number in range(600)]
MIXED = random.Random(1).sample(STILL, len(STILL))
BY_DURATION = [run(number, createdAt=1_700_000_000_000 - at) for at, number in enumerate(range(600))]
random.Random(2).shuffle(BY_DURATION)


def answers(
    listed: Runs,
    change: Callable[[Request, Runs], Runs] = lambda _, rows: rows,
    *,
    key: Callable[[dict[str, Any]], Any] | None = None,
) -> Handler:
    """Pages of a list; in the order by creation those of the list sorted by `key`, in either direction."""

    def answer(request: Request) -> bytes:
        now = listed
        if key and "sortBy" not in request.target:
            now = sorted(listed, key=key, reverse="order=asc" in request.target)
        rows = change(request, now[request.offset : request.offset + request.limit])
        return response(200, page(rows, len(listed) if rows else 0))

    return answer


def reversed_rows(_: Request, rows: Runs) -> Runs:
    return rows[::-1]


def clamped(_: Request, rows: Runs) -> Runs:
    return rows[:100]


def third_is_empty(request: Request, rows: Runs) -> Runs:
    return [] if request.number == 2 else rows


def fourth_to_seventh_are_empty(request: Request, rows: Runs) -> Runs:
    return [] if 3 <= request.number < 7 else rows


def cut(request: Request, rows: Runs) -> Runs:
    return rows[: 30 + request.number * 7 % 60]


async def ids_of(handler: Handler, depth: int, **options: Any) -> tuple[list[str], int]:
    async with serve(handler) as (url, requests), Client(url, "key", max_concurrency=depth) as client:
        return [one.id async for one in client.iter_runs("job", **options)], len(requests)


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("page_size", [20, 100])
@pytest.mark.parametrize("order", [None, "asc"])
async def test_pages_whose_rows_come_in_reverse(depth: int, page_size: int, order: str | None) -> None:
    """They look like a list from old to new, of which the second page has nothing."""
    found, _ = await ids_of(answers(STILL, reversed_rows), depth, page_size=page_size, order=order)
    assert sorted(found) == sorted(one["id"] for one in STILL)


async def test_long_pages_whose_rows_come_in_reverse() -> None:
    """Only a part of the first page is remembered: a whole list can't be promised, and the error says so."""
    with pytest.raises(IncompleteWalkError, match="failed after 300 runs.*doesn't sort it by creation"):
        await ids_of(answers(STILL, reversed_rows), 1, page_size=300)


async def test_a_last_page_whose_rows_come_in_reverse() -> None:
    """From old to new: nothing of it joins the first page, whose rows look like those of a list from new to old."""
    handler = answers(STILL[:150], reversed_rows, key=lambda one: -one["createdAt"])
    found, _ = await ids_of(handler, 1, page_size=100, order="asc")
    assert sorted(found) == sorted(one["id"] for one in STILL[:150])


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("change", [third_is_empty, fourth_to_seventh_are_empty])
async def test_an_unsorted_list_that_is_empty_for_a_moment(depth: int, change: Callable[[Request, Runs], Runs]) -> None:
    found, _ = await ids_of(answers(MIXED, change), depth, page_size=50)
    assert sorted(found) == sorted(one["id"] for one in MIXED)


async def test_an_unsorted_list_of_which_pages_hold_less_than_asked_for() -> None:
    """A pass over it takes pages as long as they are, less a quarter; not one for each run."""
    found, requests = await ids_of(answers(MIXED, clamped), 4)
    assert sorted(found) == sorted(one["id"] for one in MIXED)
    assert requests < 40


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("change", [third_is_empty, cut])
async def test_another_order_is_kept_over_a_page_that_is_cut_or_empty(
    depth: int, change: Callable[[Request, Runs], Runs]
) -> None:
    """What that page should have held is requested again, before what comes after it."""
    handler = answers(BY_DURATION, change, key=lambda one: -one["createdAt"])
    found, _ = await ids_of(handler, depth, page_size=100, sort_by="duration", order="desc")
    assert found == [one["id"] for one in BY_DURATION]


async def test_a_list_that_grows_faster_than_small_pages_are_read() -> None:
    """In another order: larger pages overtake it."""
    listed = [run(number) for number in range(300)]

    def grows(_: Request, rows: Runs) -> Runs:
        listed[:0] = [run(-1 - len(listed) - more) for more in range(100)]
        return rows

    handler = answers(listed, grows, key=lambda one: -one["createdAt"])
    found, _ = await ids_of(handler, 1, page_size=20, sort_by="duration", order="desc")
    assert len(found) == len(set(found))
    assert {f"run-{number}" for number in range(300)} <= set(found)


@pytest.mark.parametrize("depth", [1, 16])
async def test_one_burst_where_pages_hold_less_than_asked_for(depth: int) -> None:
    """The rate at which the list seemed to grow doesn't mislead the search in the list that stands still again."""
    listed = STILL[:]

    def burst(request: Request, rows: Runs) -> Runs:
        if request.number == 5:
            listed[:0] = [run(number) for number in range(-1000, 0)]
        return rows[:20]

    found, _ = await ids_of(answers(listed, burst), depth)
    assert found == [one["id"] for one in STILL]


@pytest.mark.parametrize("depth", [1, 16])
async def test_refused_offsets_and_totals_that_are_too_small(depth: int) -> None:
    """In another order: pages ahead of the end are refused, and no more are requested until it is known."""

    def answer(request: Request) -> bytes:
        if request.number > 400:  # an endless walk fails
            return response(403, {"statusCode": 403, "message": "enough"})
        if request.offset >= 200:
            return response(422, {"statusCode": 422, "message": "beyond the end"})
        listed = STILL[:200] if "order=asc" not in request.target else STILL[199::-1]
        return response(200, page(listed[request.offset : request.offset + request.limit], 0))

    found, _ = await ids_of(answer, depth, page_size=5, sort_by="duration")
    assert sorted(found) == sorted(one["id"] for one in STILL[:200])


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("sort_by", [None, "startTime"])
async def test_runs_of_pages_that_are_too_large_come_in_smaller_ones(depth: int, sort_by: Any) -> None:
    """Each once, in order, also a run that is larger by itself than a page may be; nothing is begun anew."""
    errors = {0: 9_000, 301: 90_000, **dict.fromkeys(range(400, 420), 2_000)}
    large = [one | {"error": "x" * errors.get(number, 9)} for number, one in enumerate(STILL)]
    found: list[str] = []
    async with serve(answers(large)) as (url, requests), Client(url, "key", max_concurrency=depth) as client:
        walk = client.iter_runs("job", page_size=100, sort_by=sort_by)
        async for some in walk.raw_pages(max_page_bytes=30_000):
            found += [one.id for one in some.data]
            assert len(some.data) <= 4 or sum(map(len, some.texts)) < 30_000
    assert found == [one["id"] for one in STILL]
    assert len(requests) < 500


def oldest_first(request: Request, listed: Runs) -> Runs:
    """The list, which begins with the newest runs, in the order that is requested."""
    return listed[::-1] if "order=asc" in request.target else listed


async def test_the_end_of_a_list_that_grows_comes_in_its_order() -> None:
    """The last runs, which come in reverse, are taken in the order of the list, whatever part of a page they are."""
    listed = [run(number) for number in range(8)]

    def answer(request: Request) -> bytes:
        if request.number:
            listed[:0] = [run(-len(listed) - more) for more in (2, 1, 0)]
        rows = oldest_first(request, listed)[request.offset : request.offset + request.limit]
        return response(200, page(rows, len(listed)))

    found, _ = await ids_of(answer, 1, page_size=5)
    assert found == [f"run-{number}" for number in range(8)]


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("lag", [590, 200])
@pytest.mark.parametrize("stale", [(1, 2), (1, 3), (2, 3), (3, 4)])
async def test_what_an_older_state_lacks_is_not_gone(order: str, lag: int, stale: tuple[int, int]) -> None:
    """Two responses without the newest runs neither skip what lies between nor end the walk."""

    def answer(request: Request) -> bytes:
        now = STILL[lag:] if request.number in stale else STILL
        rows = oldest_first(request, now)[request.offset : request.offset + request.limit]
        return response(200, page(rows, len(now)))

    found, _ = await ids_of(answer, 1, page_size=150, order=order)
    assert found == [one["id"] for one in (STILL if order == "desc" else STILL[::-1])]


@pytest.mark.parametrize(
    ("order", "lag", "stale"), [("desc", 590, 5), ("desc", 200, 5), ("asc", 590, 5), ("asc", 200, 5), ("asc", 3, 6)]
)
async def test_what_an_older_state_lacks_is_not_gone_by_another_key(order: str, lag: int, stale: int) -> None:
    """Both passes know what was in the list: one that ended early, and one that begins behind the newest runs."""

    def answer(request: Request) -> bytes:
        now = STILL[lag:] if 1 <= request.number < stale else STILL
        rows = oldest_first(request, now)[request.offset : request.offset + request.limit]
        return response(200, page(rows, len(now)))

    found, _ = await ids_of(answer, 1, page_size=150, order=order, sort_by="startTime")
    assert sorted(found) == sorted(one["id"] for one in STILL)


async def test_what_joins_is_taken_at_once_though_it_counts_fewer_runs() -> None:
    """A response that begins the list isn't requested again where it holds known runs."""
    starts: list[int] = []

    def answer(request: Request) -> bytes:
        now = STILL[160:] if request.number >= 2 else STILL
        starts.append(request.offset)
        return response(200, page(now[request.offset :][: request.limit], len(now)))

    found, _ = await ids_of(answer, 1, page_size=150)
    assert found == [one["id"] for one in STILL]
    assert starts.count(0) <= 3


async def test_a_list_by_another_key_that_is_not_quite_sorted_by_creation_takes_no_request_more() -> None:
    """Its newest run isn't the first one: that is no sign of an older state."""
    listed = [STILL[1], STILL[0], *STILL[2:]]
    found, requests = await ids_of(answers(listed), 1, page_size=150, sort_by="duration")
    assert found == [one["id"] for one in listed]
    assert requests <= 2 * (math.ceil(len(listed) / 148) + 2)


async def test_the_variables_of_a_traceback_hold_no_list_of_all_ids() -> None:
    """By another key all ids are kept: no error shows them all to what shows variables (Sentry, rich)."""

    def answer(request: Request) -> Any:
        return response(422, {}) if request.number > 2 else answers(STILL)(request)

    with pytest.raises(IncompleteWalkError) as caught:
        await ids_of(answer, 1, page_size=150, sort_by="startTime")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "".join(shown.format()).count("run-") < 100


async def test_an_empty_first_response_is_no_proof() -> None:
    """A job has no runs if two responses say so, in any order, and so it is with a filter that no run matches."""
    for filters in ({}, {"status": "FINISHED"}, {"sort_by": "startTime"}, {"search_prefix": "run"}):
        found, _ = await ids_of(answers(STILL, lambda request, rows: rows if request.number else []), 1, **filters)
        assert found == [one["id"] for one in STILL]
        assert await ids_of(answers([]), 1, **filters) == ([], 2)


@pytest.mark.parametrize("sort_by", [None, "startTime"])
async def test_a_total_without_a_run_is_no_empty_list(sort_by: str | None) -> None:
    """Unless there is a filter, whose totals may be those of the list without it."""

    def answer(_: Request) -> bytes:
        return response(200, page([], len(STILL)))

    with pytest.raises(IncompleteWalkError):
        await ids_of(answer, 1, sort_by=sort_by)
    assert (await ids_of(answer, 1, sort_by=sort_by, status="FAILED"))[0] == []


async def test_nothing_behind_an_end_that_has_moved_is_no_proof() -> None:
    """What stands where the last run stood before is gone with most of the list: the walk isn't silently short."""

    def answer(request: Request) -> bytes:
        listed, most = ([run(number) for number in range(10)], 1000) if not request.number else ([run(3), run(9)], 1)
        rows = oldest_first(request, listed)[request.offset : request.offset + min(most, request.limit)]
        return response(200, page(rows, len(listed)))

    with pytest.raises(IncompleteWalkError):
        await ids_of(answer, 1, page_size=4)


async def test_a_list_that_shrinks_to_runs_of_one_moment_has_an_end() -> None:
    """Responses behind a gap, of runs that were deleted meanwhile, don't hold it up."""
    full = [run(number, **({"createdAt": run(13)["createdAt"]} if number == 12 else {})) for number in range(20)]

    def answer(request: Request) -> bytes:
        listed = (full, full[11:])[request.number] if request.number < 2 else full[12:14]
        rows = oldest_first(request, listed)[request.offset : request.offset + request.limit]
        return response(200, page(rows, len(listed)))

    found, _ = await ids_of(answer, 1, page_size=5)
    assert found == [f"run-{number}" for number in (*range(5), 12, 13)]


async def test_a_growing_list_with_an_absurd_total_has_an_end() -> None:
    """From old to new: it grows as fast as it is read, and its total is never reached."""
    listed = [run(0)]

    def answer(request: Request) -> bytes:
        if request.number > 600:  # an endless walk fails
            return response(403, {"statusCode": 403, "message": "enough"})
        listed[:0] = [run(-len(listed) - more) for more in range(4, -1, -1)]
        rows = oldest_first(request, listed)[request.offset : request.offset + request.limit]
        return response(200, page(rows, 10**12))

    found, _ = await ids_of(answer, 1, page_size=10, order="asc")
    assert found == [f"run-{-number}" for number in range(len(found))]


@pytest.mark.parametrize("depth", [1, 16])
async def test_a_run_with_a_false_time_hides_no_other(depth: int) -> None:
    """It begins a page behind a gap: its time alone is no proof that nothing stands before it."""
    times = (0, 4, 5, 5, 5, 5, 20, 22, *range(30, 45))
    for false in range(len(times)):
        listed = [
            run(number, createdAt=1e20 if number == false else 1_700_000_000_000 - time)
            for number, time in enumerate(times)
        ]
        found, _ = await ids_of(answers(listed), depth, page_size=3)
        assert sorted(found) == sorted(row["id"] for row in listed)
