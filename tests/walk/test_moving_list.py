"""Walks over real HTTP, of a list that changes while responses arrive out of order."""

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.hostile import Request, page, response, run, serve
from tfruns import Client, IncompleteWalkError, JobRun, UnprocessableEntityError
from tfruns._http.connections import ClosedSignal

KEY = "key"


class MovingList:
    """A server whose responses take a random time, and show the list as it is when they are sent.

    Args:
        count: how many runs there are at first: `run-0` is the newest.
        inserted: how many new runs there are after each response.
        cap: the largest total that the server says.
        refused_from: the first offset that is refused.
        empty: numbers of responses that hold nothing.
        versions: into how many groups of equal keys the list falls, each in another order in each response.
    """

    def __init__(
        self,
        count: int,
        *,
        inserted: float = 0,
        cap: float = math.inf,
        refused_from: float = math.inf,
        empty: frozenset[int] = frozenset(),
        versions: int = 0,
    ) -> None:
        self.runs = [run(number) for number in range(count)]
        self.ids = [one["id"] for one in self.runs]
        self.largest = 0
        self._inserted = inserted
        self._cap = cap
        self._refused_from = refused_from
        self._empty = empty
        self._versions = versions
        self._rng = random.Random(count)
        self._due = 0.0

    async def __call__(self, request: Request) -> bytes:
        if request.offset:
            await asyncio.sleep(self._rng.uniform(0.001, 0.003))  # so that responses overtake each other
        self.largest = max(self.largest, request.limit)
        if request.offset >= self._refused_from:
            return response(422, {"statusCode": 422, "message": "offset is too large"})
        if request.number in self._empty:
            return response(200, page([], 0))
        listed = self._listed()
        reply = response(
            200, page(listed[request.offset : request.offset + request.limit], int(min(self._cap, len(listed))))
        )
        self._change()
        return reply

    def _listed(self) -> list[dict[str, Any]]:
        if not self._versions:
            return self.runs
        by_chance = {one["id"]: self._rng.random() for one in self.runs}
        return sorted(self.runs, key=lambda one: (hash_of(one["id"]) % self._versions, by_chance[one["id"]]))

    def _change(self) -> None:
        self._due += self._inserted
        while self._due >= 1:
            self._due -= 1
            number = len(self.runs)
            self.runs.insert(0, {**run(number), "createdAt": 1_700_000_000_000 + number})


def hash_of(one: str) -> int:
    return int(one.removeprefix("run-")) * 7919


async def walk(server: Callable[[Request], Any], **options: Any) -> tuple[list[JobRun], list[Request]]:
    async with serve(server) as (url, requests), Client(url, KEY, max_concurrency=16) as client:
        return await client.iter_runs("job", **options).collect(), requests


def lasting(server: MovingList, found: list[JobRun]) -> list[str]:
    there = set(server.ids)
    return [one.id for one in found if one.id in there]


@pytest.mark.parametrize("inserted", [0.1, 10])
async def test_a_busy_job_takes_little_more_than_a_still_one(inserted: float) -> None:
    """The pipeline keeps up: at most twice the requests of the still list, with responses out of order (point 1)."""
    server = MovingList(2000, inserted=inserted)
    found, requests = await walk(server, page_size=50)
    assert lasting(server, found) == server.ids
    assert len({one.id for one in found}) == len(found)
    assert len(requests) <= 2 * (2000 / 49 + 2)


async def test_larger_pages_are_requested_where_the_list_moves() -> None:
    """Pages are larger than `page_size` only where the list moves."""
    still, moving = MovingList(1000), MovingList(1000, inserted=40)
    await walk(still, page_size=50)
    found, _ = await walk(moving, page_size=50)
    assert still.largest == 50
    assert moving.largest > 50
    assert lasting(moving, found) == moving.ids


@pytest.mark.parametrize("sort_by", ["deploymentVersion", "triggeredBy", "status", "duration"])
async def test_equal_keys_without_a_tie_breaker_are_all_found(sort_by: str) -> None:
    """A still list with equal keys in another order in each response is read whole (point 2)."""
    server = MovingList(600, versions=7)
    found, _ = await walk(server, page_size=100, sort_by=sort_by)
    assert sorted(one.id for one in found) == sorted(server.ids)


@pytest.mark.parametrize("number", [1, 3, 7, 11])
async def test_an_empty_response_in_mid_walk_ends_nothing(number: int) -> None:
    """One empty 200 with a total of 0 isn't believed (point 4)."""
    server = MovingList(500, empty=frozenset({number}))
    found, _ = await walk(server, page_size=50)
    assert [one.id for one in found] == server.ids


async def test_an_emptied_list_is_requested_again_over_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once: an older state of the server passes."""
    waits: list[float] = []

    async def waited(self: ClosedSignal, seconds: float, until: "asyncio.Future[Any] | None" = None) -> None:
        if until is None:
            waits.append(seconds)
        else:
            await wait(self, seconds, until)

    wait = ClosedSignal.wait
    monkeypatch.setattr(ClosedSignal, "wait", waited)
    with pytest.raises(IncompleteWalkError, match="there is nothing"):
        await walk(MovingList(500, empty=frozenset(range(2, 100))), page_size=50)
    assert sum(waits) > 6
    assert waits == sorted(waits)


async def test_a_total_that_is_capped_makes_no_walk_short() -> None:
    """A list whose total is capped at a number is read to its end (point 7)."""
    server = MovingList(700, cap=300)
    found, _ = await walk(server, page_size=50)
    assert [one.id for one in found] == server.ids


async def test_an_order_that_is_refused_ends_nothing() -> None:
    """The last runs can't be requested then: what stands behind the last one seen is."""
    server = MovingList(700, cap=300)

    async def replies(request: Request) -> bytes:
        return response(422, {"statusCode": 422}) if "order=" in request.target else await server(request)

    found, requests = await walk(replies, page_size=50)
    assert [one.id for one in found] == server.ids
    assert any("order=" in request.target for request in requests)


@pytest.mark.parametrize("cap", [400, math.inf])
async def test_an_offset_that_is_refused_in_mid_walk_is_an_error_that_names_it(cap: float) -> None:
    """All runs before the refused offset are yielded; then the error names the offset and what to do (point 7)."""
    server = MovingList(700, refused_from=400, cap=cap)
    found = []
    async with serve(server) as (url, requests), Client(url, KEY) as client:
        with pytest.raises(
            IncompleteWalkError, match=r"refuses the request at offset 4\d\d: offset is too large"
        ) as caught:
            async for one in client.iter_runs("job", page_size=50):
                found.append(one.id)  # noqa: PERF401  # an error ends it
    assert found == server.ids[: len(found)]
    assert len(found) >= 400
    assert "Narrower filters make the list shorter, for instance status or version_numbers" in str(caught.value)
    assert isinstance(caught.value.__cause__, UnprocessableEntityError)
    assert len(requests) < 80


async def test_a_first_request_that_is_refused_raises_the_servers_error() -> None:
    """A refusal of the first request isn't about the walk."""
    with pytest.raises(UnprocessableEntityError, match="offset is too large"):
        await walk(MovingList(700, refused_from=400), offset=500)
