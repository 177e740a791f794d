"""The runs of many jobs at once: complete, fair, under one limit, and one bad job spoils no other."""

import asyncio
import random
import re
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, suppress

import attrs
import pytest

import tfruns
from tests.support.hostile import Request, page, pages_of, response, serve
from tfruns import Client
from tfruns.sandbox import Sandbox

COUNTS = [0, 1, 7, 10, 11, 35, 60]


def tasks_left() -> list[str]:
    """The tasks that are still there, but for this one and those of the sandbox's connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [repr(task) for task in others if not re.search("RequestHandler|_accept_connection", repr(task))]


async def wanted(client: Client, sandbox: Sandbox) -> dict[str, list[str]]:
    return {job_id: [run.id async for run in client.iter_runs(job_id)] for job_id in sandbox.job_ids}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 16])
async def test_every_run_of_every_job_comes_once_and_in_the_order_of_its_job(ordered: bool, concurrency: int) -> None:
    async with Sandbox(jobs=len(COUNTS), runs=COUNTS) as sandbox:
        async with Client(sandbox.url, sandbox.api_key, max_concurrency=concurrency) as client:
            found: dict[str, list[str]] = {job_id: [] for job_id in sandbox.job_ids}
            runs = client.iter_runs_for(sandbox.job_ids, page_size=5, ordered=ordered)
            sequence = []
            async for job_id, run in runs:
                found[job_id].append(run.id)
                sequence.append(job_id)
            assert found == await wanted(client, sandbox)
    if ordered:
        assert sequence == [job_id for job_id, count in zip(sandbox.job_ids, COUNTS, strict=True) for _ in range(count)]
    progress = runs.progress
    assert (progress.jobs_started, progress.jobs_done, progress.jobs_skipped) == (7, 7, 0)
    assert progress.runs == progress.runs_expected == sum(COUNTS)
    assert progress.pages >= 7


async def test_progress_before_a_walk_and_of_the_next_one() -> None:
    """There is none before, and each walk begins anew, with no jobs skipped."""
    responses = iter([response(404, {"statusCode": 404, "message": "no such job"})])

    def handler(request: Request) -> bytes:
        return next(responses, None) or pages_of(12)(request)

    async with serve(handler) as (url, _), Client(url, "key") as client:
        runs = client.iter_runs_for(["a"], page_size=10, on_error="skip")
        assert attrs.astuple(runs.progress) == (0, 0, 0, 0, 0, 0)
        assert [one async for one in runs] == []
        assert attrs.astuple(runs.progress) == (1, 0, 1, 0, 0, 0)
        assert [*runs.skipped] == ["a"]
        assert len([one async for one in runs]) == 12
        assert attrs.astuple(runs.progress) == (1, 1, 0, 2, 12, 12)
        assert runs.skipped == {}


async def test_a_page_is_decoded_only_once_the_page_before_was_consumed() -> None:
    """However many responses have arrived: decoded pages take several times the memory, and twice the time if they
    wait."""
    arrived: list[str] = []
    async with Sandbox(jobs=8, runs=10) as sandbox, AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            Client(sandbox.url, sandbox.api_key, on_response=lambda event: arrived.append(event.job_id))
        )
        runs = client.iter_runs_for(sandbox.job_ids)
        pages = await stack.enter_async_context(aclosing(runs.pages()))
        await anext(pages)
        async with asyncio.timeout(10):
            while len(arrived) < 8 or client.stats().in_flight:
                await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        assert client.stats().runs == runs.progress.runs == 10
        await anext(pages)
        assert client.stats().runs == runs.progress.runs == 20


async def test_no_more_than_a_thousand_job_ids_are_read_ahead() -> None:
    read = 0
    async with Sandbox(jobs=1, runs=3) as sandbox:

        async def ids() -> AsyncGenerator[str]:
            nonlocal read
            while True:
                read += 1
                yield sandbox.job_ids[0]

        def endless() -> Iterator[str]:
            nonlocal read
            while True:
                read += 1
                yield sandbox.job_ids[0]

        async with Client(sandbox.url, sandbox.api_key, max_concurrency=3) as client:
            for source in (own := ids(), endless()):
                read = 0
                walk = aiter(client.iter_runs_for(source))
                for _ in range(30):
                    await anext(walk)
                await walk.aclose()
                assert read <= 10 + 1_000 + 1
            await own.aclose()
        assert tasks_left() == []


async def test_ids_that_swallow_a_cancellation_end_with_the_next_of_them() -> None:
    """As those do that wait by `asyncio.wait_for` before Python 3.12, now and then."""

    async def ids() -> AsyncIterator[str]:
        yield sandbox.job_ids[0]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        yield sandbox.job_ids[0]
        await asyncio.sleep(60)

    async with asyncio.timeout(10), Sandbox(jobs=1, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        async with aclosing(aiter(client.iter_runs_for(ids()))) as walk:
            await anext(walk)
        assert len(sandbox.requests) == 1


async def test_a_bad_job_is_skipped_and_reported_while_the_others_stay_whole() -> None:
    async with Sandbox(jobs=3, runs=20, forbidden=["locked"]) as sandbox:
        ids = [sandbox.job_ids[0], "nowhere", sandbox.job_ids[1], "locked", sandbox.job_ids[2]]
        reported = []
        async with Client(sandbox.url, sandbox.api_key) as client:
            runs = client.iter_runs_for(ids, on_error="skip")
            assert Counter([job_id async for job_id, _ in runs]) == dict.fromkeys(sandbox.job_ids, 20)
            assert {job_id: type(error) for job_id, error in runs.skipped.items()} == {
                "nowhere": tfruns.NotFoundError,
                "locked": tfruns.PermissionDeniedError,
            }
            assert runs.progress.jobs_skipped == 2
            assert runs.progress.jobs_done == 3

            async def tell(job_id: str, error: tfruns.TfRunsError) -> None:
                reported.append((job_id, type(error)))

            called = client.iter_runs_for(ids, on_error=tell)
            assert len([run async for _, run in called]) == 60
            assert sorted(reported) == [("locked", tfruns.PermissionDeniedError), ("nowhere", tfruns.NotFoundError)]

            with pytest.raises(tfruns.APIStatusError, match="'nowhere'|'locked'"):
                _ = [run async for _, run in client.iter_runs_for(ids)]
        async with Client(sandbox.url, "a-key-that-is-wrong") as client:
            with pytest.raises(tfruns.AuthenticationError):
                _ = [run async for _, run in client.iter_runs_for(ids, on_error="skip")]
        assert tasks_left() == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_pages_that_cant_be_read_or_are_refused_hold_up_no_other_job(ordered: bool) -> None:
    healthy = pages_of(15)

    def reply(request: Request) -> bytes:
        if request.offset and "/bad-" in request.target:
            return response(200, page([{"id": "what is this"}], 15))
        if (request.offset or request.limit > 10) and "/refused-" in request.target:
            return response(400, {"statusCode": 400, "message": "no such offset"})
        return healthy(request)

    good, bad, refused = ([f"{kind}-{n}" for n in range(4)] for kind in ("good", "bad", "refused"))
    ids = [job_id for three in zip(bad, refused, good, strict=True) for job_id in three]
    async with serve(reply) as (url, _), Client(url, "key") as client, asyncio.timeout(30):
        runs = client.iter_runs_for(ids, page_size=10, ordered=ordered, on_error="skip")
        found = Counter([job_id async for job_id, _ in runs])
    assert found == {job_id: 15 if job_id in good else 10 for job_id in ids}
    assert {job_id: type(error) for job_id, error in runs.skipped.items()} == {
        **dict.fromkeys(bad, tfruns.DecodeError),
        **dict.fromkeys(refused, tfruns.IncompleteWalkError),
    }


async def test_jobs_that_failed_take_no_part_of_the_prefetch() -> None:
    """However many: those that are left fetch as far ahead as before."""
    healthy = pages_of(300)
    in_flight = most = 0

    async def reply(request: Request) -> bytes:
        nonlocal in_flight, most
        if "/bad-" in request.target:
            return response(200, page([{"id": "what is this"}], 1))
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1
        return healthy(request)

    ids = [*(f"bad-{number}" for number in range(12)), "good"]
    async with serve(reply) as (url, _), Client(url, "key", max_concurrency=4) as client:
        runs = client.iter_runs_for(ids, page_size=10, on_error="skip")
        assert len(await runs.collect()) == 300
    assert len(runs.skipped) == 12
    assert most >= 3


async def test_a_job_of_one_page_doesnt_wait_for_one_of_many() -> None:
    async with Sandbox(jobs=21, runs=[3000, *[1] * 20]) as sandbox:
        async with Client(sandbox.url, sandbox.api_key, max_concurrency=4) as client:
            order = [job_id async for job_id, _ in client.iter_runs_for(sandbox.job_ids, page_size=10)]
    assert len(order) == 3020
    last_of_large = max(at for at, job_id in enumerate(order) if job_id == sandbox.job_ids[0])
    assert last_of_large > max(at for at, job_id in enumerate(order) if job_id == sandbox.job_ids[-1])


async def test_tasks_that_share_a_client_stay_exact_while_others_are_cancelled() -> None:
    chance = random.Random(3)
    async with Sandbox(jobs=4, runs=120) as sandbox, Client(sandbox.url, sandbox.api_key, max_concurrency=5) as client:
        expected = {job_id: len(ids) for job_id, ids in (await wanted(client, sandbox)).items()}

        async def collect() -> Counter[str]:
            return Counter([job_id async for job_id, _ in client.iter_runs_for(sandbox.job_ids, page_size=10)])

        tasks = [asyncio.create_task(collect()) for _ in range(10)]
        cancelled = chance.sample(tasks, 5)
        for task in cancelled:
            await asyncio.sleep(chance.random() / 20)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for task, result in zip(tasks, results, strict=True):
            assert result == expected or (task in cancelled and isinstance(result, asyncio.CancelledError))
        assert sum(result == expected for result in results) >= 5
    assert tasks_left() == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_slow_consumer_stops_the_prefetch_of_all_jobs_together(ordered: bool) -> None:
    async with Sandbox(jobs=8, runs=1000) as sandbox, Client(sandbox.url, sandbox.api_key, max_concurrency=4) as client:
        walk = aiter(client.iter_runs_for(sandbox.job_ids, page_size=10, ordered=ordered))
        await anext(walk)
        sent = -1
        while sent < len(sandbox.requests):
            sent = len(sandbox.requests)
            await asyncio.sleep(0.3)
        await walk.aclose()
    assert 4 <= sent <= 4 * 4 + 4


async def test_in_order_a_slow_response_holds_up_few_other_jobs() -> None:
    """Twice as many jobs as requests may be in flight are fetched, with the one that is waited for."""
    healthy, enough, others = pages_of(3), asyncio.Event(), 0

    async def reply(request: Request) -> bytes:
        nonlocal others
        if "/slow/" in request.target:
            await enough.wait()
        elif (others := others + 1) == 7:
            enough.set()
        return healthy(request)

    ids = ["slow", *(f"job-{number}" for number in range(20))]
    async with serve(reply) as (url, _), Client(url, "key", max_concurrency=4) as client, asyncio.timeout(20):
        found = [job_id async for job_id, _ in client.iter_runs_for(ids, ordered=True)]
    assert found == [job_id for job_id in ids for _ in range(3)]


@pytest.mark.parametrize("job_ids", ["job", b"job", 5, None])
async def test_what_is_no_iterable_of_ids_is_refused_at_the_call(job_ids: object) -> None:
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(TypeError, match="job_ids must be an iterable"):
            client.iter_runs_for(job_ids)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ordered must be True or False, got 'no'"):
            client.iter_runs_for(["job"], ordered="no")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="on_error must be"):
            client.iter_runs_for([], on_error="ignore")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="job_id is empty"):
            _ = [run async for run in client.iter_runs_for(["  "], on_error="skip")]
        assert [run async for run in client.iter_runs_for([])] == []


async def test_progress_counts_each_job_once_and_expects_what_will_come() -> None:
    async with Sandbox(jobs=2, runs=[20, 3]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        ids = ["nowhere", sandbox.job_ids[0], "nowhere", sandbox.job_ids[1]]
        runs = client.iter_runs_for(ids, on_error="skip", offset=1, max_runs=5)
        assert len([run async for _, run in runs]) == 7
        progress = runs.progress
        assert (progress.jobs_started, progress.jobs_done, progress.jobs_skipped) == (4, 2, 2)
        assert (progress.runs, progress.runs_expected) == (7, 7)
        assert [*runs.skipped] == ["nowhere"]
        runs = client.iter_runs_for(["nowhere"])
        with pytest.raises(tfruns.NotFoundError):
            _ = [run async for _, run in runs]
        assert (runs.progress.jobs_done, runs.progress.jobs_skipped) == (0, 0)


@pytest.mark.parametrize("error", [asyncio.CancelledError, pytest.fail.Exception])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("by", ["ids", "key", "hook"])
async def test_whatever_a_function_of_the_callers_raises_ends_the_walk_and_doesnt_hang_it(
    by: str, ordered: bool, error: type[BaseException]
) -> None:
    """Also what is no Exception, as what pytest's `fail` raises."""

    async def ids() -> AsyncIterator[str]:
        yield sandbox.job_ids[0]
        if by == "ids":
            raise error

    async def key() -> str:
        if by == "key":
            raise error
        return sandbox.api_key

    def hook(_: object) -> None:
        if by == "hook":
            raise error

    async with Sandbox(jobs=1, runs=3) as sandbox, Client(sandbox.url, key, on_response=hook) as client:
        async with asyncio.timeout(30):
            with pytest.raises(error):
                _ = [run async for run in client.iter_runs_for(ids(), ordered=ordered)]
        assert tasks_left() == []


async def test_a_function_that_ends_an_iterator_doesnt_end_the_walk_as_if_it_were_whole() -> None:
    async def on_error(*_: object) -> None:
        raise StopAsyncIteration

    async with Sandbox(jobs=1, runs=3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(RuntimeError, match="a function given to the client raised StopAsyncIteration"):
            await client.iter_runs_for(["no-such-job", *sandbox.job_ids], on_error=on_error).collect()


@pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("ordered", [False, True])
async def test_no_iterator_of_ids_ends_the_walk_by_an_error_as_if_it_were_whole(
    ordered: bool, error: type[BaseException]
) -> None:
    """Nor the task that reads them, for which the walk would wait for ever."""

    def next_id() -> str:
        if given:
            raise error
        given.append(sandbox.job_ids[0])
        return given[0]

    given: list[str] = []
    async with Sandbox(jobs=1, runs=3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match=f"a function given to the client raised {error.__name__}"):
                await client.iter_runs_for(iter(next_id, None), ordered=ordered).collect()


async def test_the_variables_of_a_traceback_are_short_however_many_jobs_there_are() -> None:
    """What shows them (Sentry, rich) ends: each job led to all others, and so on."""

    def no_key() -> str:
        raise KeyError

    async with Sandbox(jobs=8, runs=3) as sandbox, Client(sandbox.url, no_key) as client:
        with pytest.raises(KeyError) as caught:
            await client.iter_runs_for(sandbox.job_ids * 500).collect()
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert len("".join(shown.format())) < 30_000


async def test_ids_that_come_only_once_are_walked_only_once() -> None:
    """A second walk over an iterator would be silently empty."""
    async with Sandbox(jobs=2, runs=3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        runs = client.iter_runs_for(iter(sandbox.job_ids))
        assert await runs.count() == 6
        with pytest.raises(ValueError, match="job_ids is an iterator, whose ids come only once: give a list"):
            await runs.collect()
        again = client.iter_runs_for(sandbox.job_ids)
        assert await again.count() == len(await again.collect()) == 6


async def test_a_source_of_ids_that_ignores_its_cancellation_begins_no_more_walks() -> None:
    async def ids() -> AsyncIterator[str]:
        yield sandbox.job_ids[0]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        for job_id in sandbox.job_ids:
            yield job_id

    async with Sandbox(jobs=3, runs=3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        async with asyncio.timeout(30):
            walk = aiter(client.iter_runs_for(ids()))
            await anext(walk)
            await walk.aclose()
        assert tasks_left() == []
        assert len(sandbox.requests) == 1
