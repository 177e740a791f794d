"""A walk over real HTTP: what is yielded, in which order, with how many requests."""

import asyncio
import copy
import json
import math
import pickle
import traceback
from collections.abc import AsyncGenerator, Callable
from importlib.util import find_spec

import pytest

import tfruns
from tests.support.hostile import Raw, Request, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns.sandbox import Sandbox

KEY = "key"


async def collected(runs: tfruns.RunPaginator, ids: list[str]) -> None:
    """Put the ids into the list one by one, so that those before an error are there."""
    async for one in runs:
        ids.append(one.id)  # noqa: PERF401


async def test_6_000_runs_are_yielded_with_every_field_as_the_server_stored_it() -> None:
    async with Sandbox(jobs=1, runs=6_000, seed=7) as s, Client(s.url, s.api_key) as client:
        runs = [one async for one in client.iter_runs(s.job_ids[0])]
        stored = s.runs(s.job_ids[0])
        requests = len(s.requests)
    assert len(runs) == 6_000
    assert [one.to_dict() for one in runs] == [one.to_dict() for one in stored]
    assert runs == stored
    assert requests <= math.ceil(6_000 / 998) + 2


@pytest.mark.parametrize("page_size", [1, 2, 3, 10, 1000])
async def test_any_page_size_yields_each_run_once_in_order(page_size: int) -> None:
    for count in (0, 1, 2, 3, 9, 10, 11, 19, 20, 28, 100):
        async with serve(pages_of(count)) as (url, requests), Client(url, KEY) as client:
            runs = [one.id async for one in client.iter_runs("job", page_size=page_size)]
            assert runs == [f"run-{n}" for n in range(count)]
            assert len(requests) <= math.ceil(count / max(1, page_size - 2)) + 2
            assert max(request.limit for request in requests) <= max(3, page_size)
            assert all(request.offset < max(1, count) for request in requests)


@pytest.mark.parametrize("page_size", [1, 7, 1000])
async def test_pages_hold_the_same_runs_and_are_never_empty_or_too_long(page_size: int) -> None:
    async with serve(pages_of(30)) as (url, _), Client(url, KEY) as client:
        pages = [one async for one in client.iter_runs("job", page_size=page_size).pages()]
        assert [one.id for each in pages for one in each.data] == [f"run-{n}" for n in range(30)]
        assert all(1 <= len(each.data) <= page_size for each in pages)
        assert {each.pagination.total for each in pages} == {30}
        assert [one async for one in client.iter_runs("job", offset=30).pages()] == []


@pytest.mark.parametrize("max_runs", [None, 0, 1, 2, 10, 11, 30, 31])
async def test_offset_and_max_runs_cut_the_same_walk(max_runs: int | None) -> None:
    async with serve(pages_of(30)) as (url, requests), Client(url, KEY) as client:
        for offset in (0, 1, 9, 10, 29, 30, 31):
            requests.clear()
            runs = client.iter_runs("job", page_size=10, offset=offset, max_runs=max_runs)
            wanted = [f"run-{n}" for n in range(30)][offset:][:max_runs]
            assert [one.id for one in await runs.collect()] == wanted
            if max_runs is not None:
                assert len(requests) <= math.ceil(max_runs / 9) + 2
            assert await runs.count() == len(wanted)
            first = await runs.first()
            assert (first and first.id) == (wanted[0] if wanted else None)


async def test_nothing_is_requested_before_the_first_run_is_requested() -> None:
    async with serve(pages_of(3)) as (url, requests), Client(url, KEY) as client:
        runs = client.iter_runs("job")
        walk = aiter(runs)
        assert requests == []
        assert (await anext(walk)).id == "run-0"
        assert len(requests) == 1
        await walk.aclose()


async def test_first_and_count_take_one_request_for_one_run() -> None:
    async with serve(pages_of(5000)) as (url, requests), Client(url, KEY) as client:
        first = await client.iter_runs("job").first()
        assert first is not None
        assert first.id == "run-0"
        assert await client.iter_runs("job").count() == 5000
        assert await client.count_runs("job") == 5000
    assert [(request.limit, request.offset) for request in requests] == [(1, 0)] * 3


async def test_first_does_not_believe_an_empty_page_of_a_list_that_has_runs() -> None:
    def empty_at_first(request: Request) -> bytes:
        return response(200, page([], 5)) if request.number == 0 else pages_of(5)(request)

    async with serve(empty_at_first) as (url, _), Client(url, KEY) as client:
        first = await client.iter_runs("job").first()
    assert first is not None
    assert first.id == "run-0"


async def test_each_iteration_is_a_walk_of_its_own() -> None:
    async with serve(pages_of(5)) as (url, _), Client(url, KEY) as client:
        runs = client.iter_runs("job")
        assert await runs.collect() == await runs.collect() != []


async def test_list_runs_is_exactly_one_page_as_the_server_gives_it() -> None:
    async with serve(pages_of(30)) as (url, requests), Client(url, KEY) as client:
        one = await client.list_runs("job", limit=7, offset=3)
    assert [each.id for each in one.data] == [f"run-{n}" for n in range(3, 10)]
    assert one.pagination.total == 30
    assert [(request.limit, request.offset) for request in requests] == [(7, 3)]


FILTERS = {
    "status": ["FAILED", tfruns.JobRunStatus.FINISHED],
    "triggered_by": ["a@b.c", "d"],
    "version_numbers": [1, "2"],
    "search_prefix": "train &x",
    "sort_by": "startTime",
    "order": tfruns.SortDirection.ASC,
}


async def test_filters_go_with_every_request_of_every_method() -> None:
    filters = "triggeredBy=a%40b.c&triggeredBy=d&status=FAILED&status=FINISHED&versionNumbers=1&versionNumbers=2"
    wanted = {
        f"searchPrefix=train%20%26x&sortBy=startTime&order=asc&{filters}",
        f"searchPrefix=train%20%26x&order=desc&{filters}",  # the second pass, by creation
    }
    async with serve(pages_of(30)) as (url, requests), Client(url, KEY) as client:
        runs = client.iter_runs("job", page_size=10, **FILTERS)  # type: ignore[arg-type]
        await runs.collect()
        await runs.first()
        await runs.count()
        await client.list_runs("job", **FILTERS)  # type: ignore[arg-type]
        await client.count_runs("job", **FILTERS)  # type: ignore[arg-type]
    assert len(requests) >= 8
    assert {request.target.split("&", 2)[2] for request in requests} == wanted


BAD_PAGES = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html><title>Sign in</title>",
    "a list": [],
    "null": None,
    "data is null": {"data": None, "pagination": {"total": 0}},
    "data is missing": {"pagination": {"total": 0}},
    "no total": {"data": [], "pagination": {}},
    "invalid UTF-8": b'{"data": [], "pagination": {"total": "\xff"}}',
    "a bad run": page([run(0), run(1, createdAt="yesterday", status=None)]),
}


@pytest.mark.parametrize("body", BAD_PAGES.values(), ids=BAD_PAGES)
async def test_a_response_that_is_no_page_is_one_error_that_names_the_job_and_the_offset(body: object) -> None:
    healthy = pages_of(30)

    def reply(request: Request) -> bytes:
        return healthy(request) if request.offset < 18 else response(200, body)

    async with serve(reply) as (url, _), Client(url, KEY, retry=RetryPolicy(max_attempts=1)) as client:
        seen: list[str] = []
        with pytest.raises(tfruns.DecodeError, match=r"job 'my job', offset 24: ") as caught:
            await collected(client.iter_runs("my job", page_size=10), seen)
    assert seen == [f"run-{n}" for n in range(26)]
    if body == BAD_PAGES["a bad run"]:
        assert [(p.position, p.run_id, p.field) for p in caught.value.problems] == [
            (25, "run-1", "createdAt"),
            (25, "run-1", "status"),
        ]


async def test_a_page_that_fails_ends_the_walk_after_the_runs_before_it() -> None:
    healthy = pages_of(30)

    def reply(request: Request) -> bytes:
        return healthy(request) if request.offset < 18 else response(403, {"statusCode": 403, "message": "not yours"})

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        seen: list[str] = []
        with pytest.raises(tfruns.PermissionDeniedError, match="not yours"):
            await collected(client.iter_runs("job", page_size=10), seen)
    assert seen == [f"run-{n}" for n in range(26)]


async def test_statuses_and_subject_types_of_tomorrow_are_kept_apart() -> None:
    subjects = [{"subjectId": "s", "subjectType": kind} for kind in ("agent", "agent-channel-identity")]
    runs = [
        run(0, status="PAUSED", triggeredBySubject=subjects[0]),
        run(1, status="QUEUED", triggeredBySubject=subjects[1]),
    ]
    async with (
        serve(lambda _: response(200, {**page(runs), "novelty": {"x": [1]}})) as (url, _),
        Client(url, KEY) as client,
    ):
        got = (await client.list_runs("job")).data
    assert [one.status for one in got] == ["PAUSED", "QUEUED"]
    assert got[0].status != got[1].status
    assert [one.triggered_by_subject and one.triggered_by_subject.subject_type for one in got] == [
        "agent",
        "agent-channel-identity",
    ]
    assert [one.to_dict()["status"] for one in got] == ["PAUSED", "QUEUED"]
    assert [one.to_dict()["triggeredBySubject"]["subjectType"] for one in got] == ["agent", "agent-channel-identity"]


async def test_a_total_in_the_place_the_prose_says_is_found() -> None:
    async with (
        serve(lambda _: response(200, {"data": [run(0)], "totalCount": 1})) as (url, _),
        Client(url, KEY) as client,
    ):
        assert await client.count_runs("job") == 1
        assert len(await client.iter_runs("job").collect()) == 1


async def test_many_tasks_share_a_client() -> None:
    async with Sandbox(jobs=5, runs=300, seed=1) as s, Client(s.url, s.api_key, max_concurrency=4) as client:
        walks = [client.iter_runs(job_id, page_size=50).collect() for job_id in s.job_ids for _ in range(3)]
        got = await asyncio.gather(*walks)
        assert [list(each) for each in got[::3]] == [s.runs(job_id) for job_id in s.job_ids]
        assert got[0::3] == got[1::3] == got[2::3]


async def test_a_cut_off_page_in_the_middle_is_fetched_again() -> None:
    healthy = pages_of(50)
    cut: set[int] = set()

    def reply(request: Request) -> Raw | bytes:
        if request.offset in cut or request.offset == 0:
            return healthy(request)
        cut.add(request.offset)
        return Raw(healthy(request)[:-20])

    async with serve(reply) as (url, _), Client(url, KEY, retry=tfruns.RetryPolicy(initial_backoff=0)) as client:
        assert len(await client.iter_runs("job", page_size=10).collect()) == 50
    assert cut


@pytest.mark.parametrize("page_size", [1, 7, 1000])
async def test_raw_pages_hold_the_same_runs_each_with_the_text_the_server_sent(page_size: int) -> None:
    """Also in another process: a page can be pickled."""

    sent = [
        json.dumps(
            run(n, command=f"größe {n} 🚀", newField={"n": [n, 1e400 if n == 5 else None]}), indent=n % 3 or None
        )
        for n in range(30)
    ]

    def reply(request: Request) -> bytes:
        texts = ",".join(sent[request.offset : request.offset + request.limit])
        return response(200, f'{{"data":[{texts}],"pagination":{{"total":30}}}}'.replace("Infinity", "1e400").encode())

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        pages = [one async for one in client.iter_runs("job", page_size=page_size).raw_pages()]
    assert [one.id for each in pages for one in each.data] == [f"run-{n}" for n in range(30)]
    texts = [text.decode() for each in pages for text in each.texts]
    assert texts == [one.replace("Infinity", "1e400") for one in sent]
    twins: list[tfruns.RawPage] = pickle.loads(pickle.dumps(pages))  # noqa: S301
    assert [(twin, twin.texts) for twin in twins] == [(each, each.texts) for each in pages]


@pytest.mark.parametrize(
    "mangle", [lambda body: b"\xef\xbb\xbf" + body, lambda body: body.replace(b"true", b"\\ud800")]
)
async def test_the_texts_of_a_page_that_only_leniency_understands_are_written_anew(
    mangle: Callable[[bytes], bytes],
) -> None:
    body = mangle(json.dumps(page([run(0, deploymentVersion=3, newField="kept")])).encode())
    async with serve(lambda _: response(200, body)) as (url, _), Client(url, KEY) as client:
        (only,) = [one async for one in client.iter_runs("job").raw_pages()]
    (text,) = only.texts
    kept = json.loads(text)
    assert kept == run(0, deploymentVersion=3, newField="kept", command=kept["command"])
    assert kept["command"] == only.data[0].command


KINDS_OF_WALK: list[Callable[[Client], AsyncGenerator[object]]] = [
    lambda client: aiter(client.iter_runs("job", page_size=3)),
    lambda client: client.iter_runs("job", page_size=3).pages(),
    lambda client: client.iter_runs("job", page_size=3).raw_pages(),
    pytest.param(
        lambda client: client.iter_runs("job", page_size=3).arrow_batches(),
        marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow"),
    ),
    lambda client: aiter(client.iter_runs_for(["job", "other"], page_size=3)),
    lambda client: client.watch_runs("job", start="existing"),  # type: ignore[return-value]
]


@pytest.mark.parametrize("walk_of", KINDS_OF_WALK, ids=["runs", "pages", "raw_pages", "arrow", "jobs", "watch"])
def test_an_event_loop_ends_in_the_middle_of_a_walk_without_an_error(
    walk_of: Callable[[Client], AsyncGenerator[object]],
) -> None:
    """asyncio closes all generators that are left at once, in no order."""
    errors: list[object] = []
    left: list[object] = []  # so that the garbage collector closes nothing before

    async def main(url: str, key: str) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with Client(url, key) as client:
            walk = walk_of(client)
            left.append(walk)
            left.append(await anext(walk))

    with Sandbox(jobs=["job", "other"], runs=100) as sandbox:  # in a loop of its own
        asyncio.run(main(sandbox.url, sandbox.api_key))
    assert errors == []


def test_a_walk_is_not_copied_with_the_key_and_no_half_made_copy_is_shown() -> None:
    runs = Client("https://a.example", KEY).iter_runs("job")
    for copied in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="can't be pickled or copied") as caught:
            copied(runs)
        assert traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
