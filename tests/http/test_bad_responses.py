"""A bad response is not the end: what isn't a page at all is a failed attempt, like a 502. Over real HTTP."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tfruns
from tests.support.hostile import Raw, Reply, Request, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns.export import export_runs

KEY = "a-long-enough-key"
QUICK = RetryPolicy(initial_backoff=0)


def body_of(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


def first_brace(body: bytes) -> bytes:
    """The body up to the end of its first run: it looks whole at both ends."""
    return body[: body.index(b"}") + 1]


NO_PAGE: dict[str, Callable[[bytes], Reply]] = {
    "half the JSON": lambda body: response(200, body[: len(body) // 2]),
    "cut after a run": lambda body: response(200, first_brace(body)),
    "no length, closed early": lambda body: Raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body[:40]),
    "empty": lambda _: response(200, b""),
    "white space": lambda _: response(200, b" \r\n"),
    "gzip without its end": lambda body: response(200, gzip.compress(body)[:60], content_encoding="gzip"),
    "a maintenance page": lambda _: response(200, b"<html>back soon</html>", content_type="text/html"),
    "a redirect to a login page": lambda _: response(302, b"", location="https://login.example/"),
    "no content": lambda _: Raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "JSON of another kind": lambda _: response(200, {"message": "warming up"}),
    "a list": lambda _: response(200, []),
    "null": lambda _: response(200, None),
    "a 503 that is called 200": lambda _: response(200, {"statusCode": 503, "message": "back soon"}),
    "half of one": lambda _: response(200, b'{"statusCode": 503, "mess'),
}
every_form = pytest.mark.parametrize("form", NO_PAGE.values(), ids=NO_PAGE)


def bad_at(number: int, form: Callable[[bytes], Reply], count: int) -> Callable[[Request], Reply]:
    """A list of so many runs, one response of which is no page."""
    pages = pages_of(count)
    return lambda r: form(body_of(pages(r))) if r.number == number else pages(r)


@every_form
async def test_one_bad_response_ends_no_walk(form: Callable[[bytes], Reply]) -> None:
    """Each run comes once, in its order, whichever way the runs are read."""
    async with serve(bad_at(2, form, 50)) as (url, _), Client(url, KEY, retry=QUICK) as client:
        walk = client.iter_runs("job", page_size=10)
        assert [run.id async for run in walk] == [f"run-{n}" for n in range(50)]
        assert client.stats().retries == 1
    for at in (1, 3):
        async with serve(bad_at(at, form, 50)) as (url, _), Client(url, KEY, retry=QUICK) as client:
            await client.count_runs("job")
            pages = client.iter_runs_for(["job"], page_size=10).raw_pages()
            texts = [json.loads(text)["id"] async for _, page in pages if page for text in page.texts]
            assert texts == [f"run-{n}" for n in range(50)]


@every_form
async def test_one_bad_response_ends_no_watch_and_no_wait(form: Callable[[bytes], Reply]) -> None:
    """The poll is repeated, and what changes meanwhile is reported."""
    rows = [run(0, status="RUNNING")]

    def reply(request: Request) -> Reply:
        if request.number == 6:
            rows[0] = run(0, status="FINISHED")
        body = json.dumps(page(rows)).encode()
        return form(body) if request.number in (2, 3) else response(200, body)

    async with asyncio.timeout(30), serve(reply) as (url, _), Client(url, KEY, retry=QUICK) as client:
        waits = asyncio.create_task(client.wait_for_run("job", "run-0", interval=0.05))
        async for change in client.watch_runs("job", interval=0.05):
            assert change.kind == "finished"
            break
        assert (await waits).status == "FINISHED"


@every_form
async def test_one_bad_response_leaves_no_job_out_of_an_export(form: Callable[[bytes], Reply], tmp_path: Path) -> None:
    """All runs of all jobs are in the file."""
    async with serve(bad_at(3, form, 30)) as (url, _), Client(url, KEY, retry=QUICK) as client:
        await export_runs(client, ["a", "b"], tmp_path / "runs.jsonl")
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 60


@every_form
async def test_bad_responses_are_retried_for_as_long_as_the_patience_says(form: Callable[[bytes], Reply]) -> None:
    """Once there was a good page, they are an outage, and then the error is what it was; before, it comes at once."""
    is_bad = False

    def reply(request: Request) -> Reply:
        return form(body_of(pages_of(3)(request))) if is_bad else pages_of(3)(request)

    retry = RetryPolicy(patience=0.2, max_backoff=0.02)
    async with serve(reply) as (url, requests), Client(url, KEY, retry=retry) as client:
        assert (await client.list_runs("job")).pagination.total == 3
        is_bad = True
        began = time.monotonic()
        with pytest.raises(tfruns.APIError) as caught:
            await client.list_runs("job")
        assert 0.1 <= time.monotonic() - began < 10
        assert caught.value.is_transient
        assert len(requests) > 3
        is_bad = False
        assert (await client.list_runs("job")).pagination.total == 3


@pytest.mark.parametrize("name", sorted({*NO_PAGE} - {"a 503 that is called 200", "gzip without its end"}))
async def test_at_first_contact_a_bad_response_fails_at_once(name: str) -> None:
    """The host may be another's, which no patience changes. (The others are failures of the server in any case.)"""
    form = NO_PAGE[name]
    async with serve(lambda r: form(body_of(pages_of(3)(r)))) as (url, requests), Client(url, KEY) as client:
        with pytest.raises((tfruns.DecodeError, tfruns.APIStatusError)) as caught:
            await client.list_runs("job")
        assert not caught.value.is_transient
    assert len(requests) == 1


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", ["a maintenance page", "empty", "a redirect to a login page"])
async def test_at_first_contact_bad_responses_leave_out_no_job_of_many(name: str, ordered: bool) -> None:
    """They are requested again: other jobs may have got their pages meanwhile."""
    pages, form, job_ids = pages_of(3), NO_PAGE[name], [f"job-{n}" for n in range(20)]
    async with (
        serve(lambda r: form(b"") if r.number < 16 else pages(r)) as (url, _),
        Client(url, KEY, retry=QUICK) as client,
    ):
        walk = client.iter_runs_for(job_ids, on_error="skip", ordered=ordered)
        found = await walk.collect()
    assert walk.skipped == {}
    assert sorted(job_id for job_id, _ in found) == sorted(job_ids * 3)
    assert (walk.progress.jobs_started, walk.progress.jobs_done) == (20, 20)


async def test_wrong_fields_of_a_good_page_fail_at_once_at_any_time() -> None:
    """The server won't send others a moment later."""
    bad = response(200, page([run(0, status=5)]))
    async with serve(lambda r: bad if r.number else pages_of(1)(r)) as (url, requests), Client(url, KEY) as client:
        await client.list_runs("job")
        with pytest.raises(tfruns.DecodeError, match="status: expected a string, got 5") as caught:
            await client.list_runs("job")
        assert caught.value.is_page
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, tfruns.AuthenticationError),
        (403, tfruns.PermissionDeniedError),
        (404, tfruns.NotFoundError),
        (422, tfruns.UnprocessableEntityError),
    ],
)
async def test_an_error_that_comes_with_200_is_told_as_that_error(status: int, kind: type[tfruns.TfRunsError]) -> None:
    """Some gateways do that."""
    told = response(200, {"statusCode": status, "message": "not like this"})
    async with serve(lambda _: told) as (url, requests), Client(url, KEY) as client:
        with pytest.raises(kind, match="not like this"):
            await client.list_runs("job")
    assert len(requests) == 1


async def test_a_401_that_comes_with_200_renews_the_key() -> None:
    """As any other."""
    keys = iter(["an-old-key-000", "a-new-key-1111"])

    def reply(request: Request) -> Reply:
        is_new = request.headers["authorization"].endswith("1111")
        return pages_of(1)(request) if is_new else response(200, {"statusCode": 401, "message": "expired"})

    async with serve(reply) as (url, _), Client(url, lambda: next(keys)) as client:
        assert await client.count_runs("job") == 1


async def test_a_walk_through_a_server_whose_every_fifth_response_is_no_page() -> None:
    """Nothing is lost, repeated or out of order."""
    forms = [*NO_PAGE.values()]

    def reply(request: Request) -> Reply:
        is_bad = request.number % 5 == 4
        whole = pages_of(400)(request)
        return forms[request.number // 5 % len(forms)](body_of(whole)) if is_bad else whole

    async with serve(reply) as (url, _), Client(url, KEY, retry=QUICK) as client:
        assert [run.id async for run in client.iter_runs("job", page_size=5)] == [f"run-{n}" for n in range(400)]
