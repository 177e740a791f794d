"""A walk that goes on from a resume token: over both walks, each run once, however the list changed in between."""

import asyncio
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Request, page, response, run, serve
from tests.support.seeds import seeds
from tfruns import Client

KEY = "a-long-enough-key"
NEWEST = 1_700_000_000_000


class ChangingList:
    """A list of runs, newest first or oldest first as it is asked for, which changes by a bit with each response."""

    def __init__(self, chance: random.Random, count: int, same_time: int = 1) -> None:
        self.chance = chance
        self.rows = [run(number, createdAt=NEWEST - number // same_time) for number in range(count)]
        self.lasting = {row["id"] for row in self.rows}
        self.born = 0

    def change(self, created: int, deleted: int) -> None:
        for _ in range(created):
            self.born += 1
            self.rows.insert(0, run(100_000 + self.born, createdAt=NEWEST + self.born))
        for _ in range(min(deleted, len(self.rows) - 1)):
            self.lasting.discard(self.rows.pop(self.chance.randrange(len(self.rows)))["id"])

    def __call__(self, request: Request) -> bytes:
        rows = self.rows[::-1] if "order=asc" in request.target else self.rows
        body = page(rows[request.offset :][: request.limit], len(rows))
        if self.born < 1000:
            self.change(self.chance.choice([0, 0, 1, 3]), self.chance.choice([0, 0, 1]))
        return response(200, body)


@pytest.mark.property
@pytest.mark.parametrize("order", ["asc", "desc", None])
async def test_the_rest_is_exactly_the_rest(order: Any) -> None:
    """Broken off at any page, and gone on with by another client after any changes, a walk yields each run once."""
    for seed in seeds(2, share=0.005):
        chance = random.Random(seed)
        same_time = chance.choice([1, 1, 2, 7])
        for stop in (1, 4):
            server = ChangingList(chance, 50, same_time)
            async with serve(server) as (url, _):
                seen: list[str] = []
                token: str | None = None
                more = True
                while more:
                    more = False
                    async with Client(url, KEY, max_concurrency=chance.choice([1, 4])) as client:
                        walked = client.iter_runs("job", page_size=10, order=order, resume_token=token)
                        async for number, one in numbered(walked):
                            seen += [each.id for each in one]
                            token = json.loads(json.dumps(one.resume_token))
                            if number == stop:
                                more = True
                                break
                    if server.born < 1000:
                        server.change(chance.choice([0, 1, 50, 400]), chance.choice([0, 1, 20]))
            assert len(seen) == len({*seen}), (seed, stop)
            assert server.lasting <= {*seen}, (seed, stop)


async def numbered(walked: tfruns.RunPaginator) -> Any:
    number = 0
    async for one in walked.pages():
        number += 1
        yield number, one


async def test_a_token_is_short_and_only_pages_of_a_walk_have_one() -> None:
    server = ChangingList(random.Random(1), 30)
    async with serve(server) as (url, _), Client(url, KEY) as client:
        tokens = [one.resume_token async for one in client.iter_runs("job", page_size=10).pages()]
        assert all(token is not None and len(token) < 300 for token in tokens)
        assert (await client.list_runs("job")).resume_token is None
        by_status = [one.resume_token async for one in client.iter_runs("job", sort_by="status", page_size=10).pages()]
        assert set(by_status) == {None}
        assert "resume" not in repr([one async for one in client.iter_runs("job").pages()])
        server.born = 1000  # the list stands still
        rest = client.iter_runs("job", page_size=10, resume_token=tokens[0])
        assert await rest.count() == len(await rest.collect())


async def test_the_same_filters_are_the_same_in_any_order_and_a_timedelta_counts_from_the_earlier_call() -> None:
    """A set is in another order in each process, and a moment later a timedelta means another time."""
    server = ChangingList(random.Random(1), 30)
    server.born = 1000  # the list stands still
    server.rows = [run(number, createdAt=NEWEST - 60_000 * number) for number in range(30)]
    window = datetime.now(UTC) - datetime.fromtimestamp((NEWEST - 60_000 * 25) / 1000, UTC)
    async with serve(server) as (url, _), Client(url, KEY) as client:
        filters: dict[str, Any] = {"created_after": window, "page_size": 10}
        pages = [one async for one in client.iter_runs("job", status=["FINISHED", "FAILED"], **filters).pages()]
        await asyncio.sleep(0.002)
        runs = client.iter_runs("job", status=["FAILED", "FINISHED"], resume_token=pages[0].resume_token, **filters)
        assert await runs.collect() == [one for rest in pages[1:] for one in rest]
        with pytest.raises(ValueError, match="resume_token was made with other filters"):
            client.iter_runs("job", status="FAILED", resume_token=pages[0].resume_token, **filters)
        with pytest.raises(ValueError, match="resume_token was made with other filters"):
            client.iter_runs("job", status=["FAILED", "FINISHED"], resume_token=pages[0].resume_token)


@pytest.mark.parametrize("stale", [2, 5])
async def test_a_walk_from_old_to_new_knows_how_long_the_list_was(stale: int) -> None:
    """Responses from an older state, which lacks even the run of the token, don't end it."""
    server = ChangingList(random.Random(1), 300)
    server.born = 1000  # the list stands still

    def answer(request: Request) -> bytes:
        rows = server.rows[100:] if seen and request.number < seen[-1] + stale else server.rows
        ordered = rows[::-1] if "order=asc" in request.target else rows
        return response(200, page(ordered[request.offset :][: request.limit], len(rows)))

    seen: list[int] = []
    async with serve(answer) as (url, requests), Client(url, KEY) as client:
        pages = [one async for one in client.iter_runs("job", page_size=50, order="asc").pages()]
        rest = [one.id for later in pages[5:] for one in later]
        seen.append(len(requests))
        runs = client.iter_runs("job", page_size=50, order="asc", resume_token=pages[4].resume_token)
        assert [one.id for one in await runs.collect()] == rest != []


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"job_id": "other"}, ValueError, "resume_token is of another job: 'job', got 'other'"),
        ({"status": "FAILED"}, ValueError, "resume_token was made with other filters"),
        ({"order": "asc"}, ValueError, "resume_token was made with other filters"),
        ({"sort_by": "startTime"}, ValueError, "leave out sort_by='startTime'"),
        ({"offset": 5}, ValueError, "leave out offset=5"),
        ({"resume_token": "tfruns1.abc"}, ValueError, "resume_token must begin with 'tfrunswalk1.'"),
        ({"resume_token": 5}, TypeError, "resume_token must be a string, got 5"),
    ],
)
async def test_a_token_that_cannot_be_used(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """It is refused at the call, with the reason."""
    async with serve(ChangingList(random.Random(1), 30)) as (url, _), Client(url, KEY) as client:
        pages = [one async for one in client.iter_runs("job", page_size=10).pages()]
        given = {"job_id": "job", "resume_token": pages[0].resume_token, **arguments}
        with pytest.raises(error, match=says):
            client.iter_runs(**given)


async def test_a_token_that_was_changed_is_damaged() -> None:
    """Whichever of its characters was lost or changed."""
    async with serve(ChangingList(random.Random(1), 30)) as (url, _), Client(url, KEY) as client:
        token = await anext(one.resume_token async for one in client.iter_runs("job", page_size=10).pages())
        assert token is not None
        for at in range(token.index(".") + 1, len(token) - 1):
            for changed in (
                token[:at] + token[at + 1 :],
                token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :],
            ):
                with pytest.raises(ValueError, match="resume_token is damaged"):
                    client.iter_runs("job", resume_token=changed)
