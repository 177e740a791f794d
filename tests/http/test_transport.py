"""One request over real HTTP: what is retried, what is raised, and what the server gets to see."""

import asyncio
import gc
import gzip
import itertools
import json
import logging
import os
import random
import re
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import pytest

import tfruns
from tests.support.hostile import Raw, Reply, Request, Stall, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns._http import transport
from tfruns._http.responses import Response

KEY = "tfy-secret-key-1234567890"
AT_ONCE = RetryPolicy(initial_backoff=0)
NEVER = RetryPolicy(max_attempts=1)
ONE_RUN = response(200, page([run(0)]))


async def fetch_page(url: str, retry: RetryPolicy = AT_ONCE, **options: object) -> tfruns.RunPage:
    async with Client(url, KEY, retry=retry, **options) as client:  # type: ignore[arg-type]
        return await client.list_runs("job")


async def fails_with(kind: type[tfruns.TfRunsError], reply: Reply, retry: RetryPolicy = AT_ONCE) -> tuple[str, int]:
    """What the error says, and how many requests it took."""
    async with serve(lambda _: reply) as (url, requests):
        with pytest.raises(kind) as caught:
            await fetch_page(url, retry)
        assert type(caught.value) is kind
        return str(caught.value), len(requests)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, tfruns.BadRequestError),
        (401, tfruns.AuthenticationError),
        (403, tfruns.PermissionDeniedError),
        (404, tfruns.NotFoundError),
        (409, tfruns.ConflictError),
        (422, tfruns.UnprocessableEntityError),
        (418, tfruns.APIStatusError),
        (407, tfruns.APIStatusError),
        (204, tfruns.APIStatusError),
        (206, tfruns.APIStatusError),
        (304, tfruns.APIStatusError),
    ],
)
async def test_a_refusal_is_raised_at_once_as_its_own_error(status: int, kind: type[tfruns.APIStatusError]) -> None:
    body = {"statusCode": status, "message": "not like this", "code": "E7", "details": [{"field": "x"}]}
    reply = response(status, b"" if status in (204, 304) else body, x_request_id="req-9")
    async with serve(lambda _: reply) as (url, requests):
        with pytest.raises(kind) as caught:
            await fetch_page(url)
    error = caught.value
    assert type(error) is kind
    assert len(requests) == 1
    assert (error.status_code, error.request_id, error.job_id, error.offset) == (status, "req-9", "job", 0)
    assert error.headers["X-Request-Id"] == "req-9"
    if status not in (204, 304):
        assert (error.message, error.code, error.details) == ("not like this", "E7", [{"field": "x"}])
        hint = {
            401: f" (the key from the argument api_key was refused: is it correct, not expired, and issued by {url}?)",
            403: " (may the owner of the key from the argument api_key see this job?)",
            404: f" (is the job's id right, and {url} its control plane?)",
            407: " (a proxy on the way to it wants a login)",
        }.get(status, "")
        assert str(error) == f"job 'job', offset 0: {status} Whatever: not like this{hint} (request id req-9)"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
async def test_a_failure_that_may_pass_is_retried_until_it_passes(status: int) -> None:
    async with serve(lambda r: response(status, {"message": "later"}) if r.number < 3 else ONE_RUN) as (url, requests):
        assert len((await fetch_page(url)).data) == 1
    assert len(requests) == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, tfruns.RateLimitError), (503, tfruns.InternalServerError), (500, tfruns.InternalServerError)],
)
async def test_a_failure_that_stays_is_raised_after_the_last_attempt(
    status: int, kind: type[tfruns.TfRunsError]
) -> None:
    text, requests = await fails_with(
        kind, response(status, {"message": "no"}), RetryPolicy(max_attempts=3, initial_backoff=0)
    )
    assert requests == 3
    assert "after 3 attempts" in text


BROKEN = {
    "cut off": Raw(ONE_RUN[:-10]),
    "cut off in the head": Raw(ONE_RUN[:20]),
    "reset": Raw(ONE_RUN[:-10], reset=True),
    "closed without a word": Raw(b""),
    "no HTTP": Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a chunk cut off": Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}"),
    "broken gzip": response(200, b"not gzip", content_encoding="gzip"),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_a_response_that_breaks_off_is_retried(reply: Reply) -> None:
    async with serve(lambda r: reply if r.number < 2 else ONE_RUN) as (url, requests):
        assert len((await fetch_page(url)).data) == 1
    assert len(requests) == 3


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_a_response_that_always_breaks_off_is_a_connection_error(reply: Reply) -> None:
    text, requests = await fails_with(tfruns.APIConnectionError, reply, RetryPolicy(max_attempts=2, initial_backoff=0))
    # aiohttp itself sends once more on a new connection where the server closes one without answering.
    assert requests in (2, 4)
    assert "after 2 attempts" in text
    assert text.startswith("job 'job', offset 0: no complete response from http://127.0.0.1:")


async def test_a_host_that_refuses_connections_is_a_connection_error_that_names_it() -> None:
    async with serve(pages_of(1)) as (url, _):
        pass
    with pytest.raises(tfruns.APIConnectionError, match=url) as caught:
        await fetch_page(url, RetryPolicy(max_attempts=2, initial_backoff=0))
    assert caught.value.attempts == 2


@pytest.mark.parametrize("reply", [Stall(), Stall(ONE_RUN[:-10])], ids=["no response", "half a response"])
async def test_the_timeout_is_for_the_whole_response_and_is_retried(reply: Reply) -> None:
    async with serve(lambda r: reply if r.number < 1 else ONE_RUN) as (url, requests):
        assert len((await fetch_page(url, timeout=0.2)).data) == 1
        assert len(requests) == 2
        with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.2 s"):
            async with serve(lambda _: reply) as (stalled, _):
                await fetch_page(stalled, NEVER, timeout=0.2)


async def test_the_deadline_ends_an_attempt_that_is_under_way() -> None:
    async with serve(lambda _: Stall()) as (url, requests):
        with pytest.raises(tfruns.APITimeoutError):
            await fetch_page(url, RetryPolicy(initial_backoff=0, deadline=0.3))
    assert len(requests) == 1


async def test_no_retry_starts_that_would_come_after_the_deadline() -> None:
    text, requests = await fails_with(
        tfruns.RateLimitError, response(429, {"message": "no"}, retry_after="30"), RetryPolicy(deadline=5)
    )
    assert requests == 1
    assert "429" in text


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "0.3"},
        {"retry_after_ms": "300"},
        {"retry_after": formatdate(2_000_000_001, usegmt=True), "date": formatdate(2_000_000_000, usegmt=True)},
        {"x_ratelimit_reset": "0.3"},
    ],
    ids=["seconds", "milliseconds", "a date", "a reset"],
)
async def test_a_wait_the_server_demands_is_kept(headers: dict[str, str]) -> None:
    times: list[float] = []

    def reply(request: Request) -> bytes:
        times.append(time.monotonic())
        return ONE_RUN if request.number else response(429, {"message": "slow down"}, **headers)

    async with serve(reply) as (url, _):
        await fetch_page(url)
    assert times[1] - times[0] >= 0.3


async def test_each_retry_is_logged_with_why_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reply = response(503, {"message": "deploying"}, x_request_id="req-1")
    async with serve(lambda r: ONE_RUN if r.number > 1 else reply) as (url, _):
        await fetch_page(url)
    records = [record for record in caplog.records if record.name == "tfruns"]
    assert [record.levelname for record in records] == ["INFO", "INFO"]
    assert "503 Whatever: deploying" in records[0].getMessage()
    assert "attempt 1 failed, the next starts in 0.00 s" in records[0].getMessage()
    extras = vars(records[1])
    assert (extras["job_id"], extras["offset"], extras["attempt"], extras["request_id"]) == ("job", 0, 2, "req-1")
    assert KEY not in caplog.text


async def test_what_lasts_is_a_warning_once_for_a_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick retries are none: of a server that fails often, they would fill a log."""
    monkeypatch.setattr(transport, "_WORTH_A_WARNING", 0.05)
    caplog.set_level(logging.INFO, "tfruns")
    refusals = [response(503, {}), *[response(503, {}, retry_after_ms="60")] * 3]
    async with serve(lambda r: refusals[r.number] if r.number < 4 else ONE_RUN) as (url, _):
        await fetch_page(url)
    retries = [record for record in caplog.records if "attempt" in record.getMessage()]
    assert [record.levelname for record in retries] == ["INFO", "WARNING", "INFO", "INFO"]


async def test_a_timeout_that_is_retried_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tfruns")
    async with serve(lambda r: ONE_RUN if r.number else Stall()) as (url, _):
        await fetch_page(url, timeout=0.2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_the_defaults_carry_120_pages_through_a_server_that_fails_a_quarter_of_its_responses() -> None:
    healthy = pages_of(120)
    failures = random.Random(5)

    def reply(request: Request) -> Reply:
        if failures.random() >= 0.25:
            return healthy(request)
        return failures.choice([response(500, b"<html>oops"), response(429, {}), Raw(b""), Raw(healthy(request)[:-5])])  # type: ignore[return-value]

    async with serve(reply) as (url, _), Client(url, KEY, retry=RetryPolicy(initial_backoff=0)) as client:
        assert [r.id async for r in client.iter_runs("job", page_size=2)] == [f"run-{n}" for n in range(120)]


async def test_a_retried_request_leaves_no_response_to_the_garbage_collector() -> None:
    """Neither the one that failed nor the one that came: a page is large, and the collector runs seldom."""
    replies = itertools.cycle([response(500, {"statusCode": 500, "message": "no"}), ONE_RUN])
    async with serve(lambda _: next(replies)) as (url, _), Client(url, KEY, retry=AT_ONCE) as client:
        gc.collect()
        gc.disable()
        try:
            before = [one for one in gc.get_objects() if isinstance(one, Response)]  # of other tests
            for _ in range(10):
                await client.list_runs("job")
            now = [one for one in gc.get_objects() if isinstance(one, Response)]
        finally:
            gc.enable()
        assert len(now) <= len(before) + 2  # the last failure, and what the loop still holds


async def test_what_the_server_gets_to_see() -> None:
    async with serve(pages_of(1)) as (url, requests):
        await fetch_page(url + "/prefix/", headers={"X-Team": "a", "user-agent": "mine"})
    request = requests[0]
    assert request.target == "/prefix/api/svc/v1/jobs/job/runs?limit=100&offset=0"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "a"
    assert request.headers["user-agent"] == "mine"
    assert request.headers["accept"] == "application/json"
    assert "gzip" in request.headers["accept-encoding"]


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_response_is_read(coding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(json.dumps(page([run(n) for n in range(100)])).encode())
    async with serve(lambda _: response(200, body, content_encoding=coding)) as (url, _):
        assert len((await fetch_page(url)).data) == 100


@pytest.mark.parametrize("job_id", ["a/b", "../x", "a?b=c", "a#b", "100%", "%2e%2e", "a b", "ジョブ", "a\nb"])
async def test_no_job_id_reaches_another_path(job_id: str) -> None:
    async with serve(pages_of(1)) as (url, requests), Client(url, KEY) as client:
        await client.list_runs(job_id)
    path = requests[0].target.partition("?")[0]
    assert path.startswith("/api/svc/v1/jobs/")
    assert path.endswith("/runs")
    segment = path.removeprefix("/api/svc/v1/jobs/").removesuffix("/runs")
    assert "/" not in segment
    assert unquote(segment) == job_id


async def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else() -> None:
    async with (
        serve(pages_of(1)) as (elsewhere, strays),
        serve(lambda _: response(307, {}, location=elsewhere)) as (url, _),
    ):
        with pytest.raises(tfruns.APIStatusError, match="307"):
            await fetch_page(url)
    assert strays == []


async def test_a_redirect_is_reported_with_where_it_leads_and_what_to_check() -> None:
    said, count = await fails_with(tfruns.APIStatusError, response(301, b"", location="https://login.example/x"))
    assert "redirects to https://login.example/x" in said
    assert re.search(r"is http://127.0.0.1:\d+ the right host\?", said)
    assert count == 1


async def test_the_servers_echo_of_the_key_is_not_repeated() -> None:
    echo = response(401, {"message": f"bad token {KEY}"}, x_echo=f"Bearer {KEY}")
    async with serve(lambda _: echo) as (url, _):
        with pytest.raises(tfruns.AuthenticationError) as caught:
            await fetch_page(url)
    assert KEY not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize(
    "reply",
    [
        response(200, f"<html>{KEY}</html>".encode()),
        response(200, b"x" * 185 + KEY.encode()),  # what is shown of it would end within the key
        response(200, {"data": [], "pagination": {"total": f"{KEY}{KEY}"}}),
        response(200, json.dumps({"data": 1, "pagination": KEY}).replace("tfy", r"\u0074fy").encode()),
        response(401, {"message": "no", "code": KEY, "details": [{KEY: KEY}]}),
        response(401, json.dumps({"message": KEY}).replace("tfy", r"\u0074fy").encode()),
        Raw(f"HTTP/1.1 404 {KEY}\r\ncontent-length: 0\r\n\r\n".encode()),
        Raw(f"HTTP/1.1 {KEY} x\r\n\r\n".encode()),
        Raw(f"{KEY}\r\n\r\n".encode()),
    ],
)
async def test_no_error_shows_the_key_or_half_of_it_wherever_the_server_echoes_it(reply: Reply) -> None:
    async with serve(lambda _: reply) as (url, _):
        with pytest.raises(tfruns.APIError) as caught:
            await fetch_page(url, NEVER)
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "secret" not in shown
    assert KEY[:12] not in shown
    assert KEY[-12:] not in shown


async def test_a_short_key_takes_no_words_out_of_errors() -> None:
    async with serve(lambda _: response(404, {"message": "there is no such job"})) as (url, _):
        with pytest.raises(tfruns.NotFoundError, match="there is no such job"):
            async with Client(url, "o") as client:
                await client.list_runs("job")


async def test_a_response_without_end_is_refused_before_it_fills_the_memory() -> None:
    bomb = gzip.compress(b" " * (101 * 2**20), compresslevel=1)
    async with serve(lambda _: response(200, bomb, content_encoding="gzip")) as (url, requests):
        with pytest.raises(tfruns.DecodeError, match="longer than 104,857,600 bytes"):
            await fetch_page(url)
    assert len(requests) == 1


async def test_a_key_function_that_hangs_ends_in_a_timeout() -> None:
    async def hang() -> str:
        await asyncio.sleep(3600)
        return KEY

    async with serve(pages_of(1)) as (url, requests):
        async with Client(url, hang, timeout=0.1, retry=NEVER) as client:
            with pytest.raises(tfruns.APITimeoutError):
                await client.list_runs("job")
    assert requests == []


async def test_waiting_for_a_turn_takes_nothing_from_the_deadline_or_the_timeout() -> None:
    async def slowly(request: Request) -> bytes:
        await asyncio.sleep(0.1)
        return pages_of(1)(request)

    retry = RetryPolicy(max_attempts=1, deadline=1)
    async with serve(slowly) as (url, requests):
        async with Client(url, KEY, max_concurrency=1, timeout=1, retry=retry) as client:
            pages = await asyncio.gather(*(client.list_runs(f"job-{n}") for n in range(15)))
    assert [len(got.data) for got in pages] == [1] * 15
    assert len(requests) == 15


async def test_a_wait_that_the_server_demands_holds_back_every_request_of_the_client() -> None:
    reply = response(429, {"message": "slow down"}, retry_after="1")
    async with serve(lambda r: reply if r.number == 0 else pages_of(1)(r)) as (url, requests):
        async with Client(url, KEY, retry=AT_ONCE) as client:
            first = asyncio.create_task(client.list_runs("a"))
            while not requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await client.list_runs("b")
            assert time.monotonic() - began > 0.5
            await first


@pytest.mark.parametrize("sleeps", [True, False])
async def test_closing_the_client_ends_its_waits_at_once(sleeps: bool) -> None:
    reply = response(429, {"message": "slow down"}, retry_after="50")
    async with serve(lambda _: reply if sleeps else Stall()) as (url, requests):
        client = Client(url, KEY, max_concurrency=1)
        tasks = [asyncio.create_task(client.list_runs(f"job-{n}")) for n in range(3)]
        while not requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await client.aclose()
        async with asyncio.timeout(10):
            errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [tfruns.ClientClosedError] * 3


def test_a_client_goes_on_in_the_next_event_loop_and_refuses_two_at_once() -> None:
    async def in_first(client: Client, url: str) -> None:
        assert len((await client.list_runs("job")).data) == 1
        with pytest.raises(tfruns.EventLoopError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, client.list_runs("job"))

    async def main(client: Client | None) -> Client:
        async with serve(pages_of(1)) as (url, _):
            client = client or Client(url, KEY)
            client._transport.base_url = url
            await in_first(client, url)
            return client

    client = asyncio.run(main(None))
    assert asyncio.run(main(client)) is client
    asyncio.run(client.aclose())
    gc.collect()


FORKED = """
import asyncio, os, tfruns
from tfruns.sandbox import Sandbox

async def fetch_page(client, job_id):
    try:
        await client.list_runs(job_id)
    except tfruns.EventLoopError as error:
        print(error, flush=True)

async def main():
    async with Sandbox(jobs=1, runs=1) as sandbox:
        client = tfruns.Client(sandbox.url, sandbox.api_key)
        await fetch_page(client, sandbox.job_ids[0])
        return client

client = asyncio.run(main())
if os.fork() == 0:
    asyncio.run(fetch_page(client, "job"))
    os._exit(0)
os.wait()
asyncio.run(client.aclose())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
async def test_a_client_that_was_in_use_before_a_fork_says_so_in_the_child() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        FORKED,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(tfruns.__file__).parents[1],
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.count(b"\n")) == (0, 1)
    assert b"make a client in each process" in out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_session_that_would_send_other_credentials_is_refused() -> None:
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b")) as session:
        with pytest.raises(ValueError, match="auth"):
            Client("http://127.0.0.1:1", KEY, session=session)


def test_a_half_read_walk_is_closed_quietly_when_its_loop_ends() -> None:
    complaints = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with serve(pages_of(50)) as (url, _):
            client = Client(url, KEY)
            walk = aiter(client.iter_runs("job", page_size=5))
            pages = client.iter_runs("job", page_size=5).pages()
            await anext(walk)
            await anext(pages)
            kept.extend([walk, pages, client])

    kept: list[object] = []
    asyncio.run(main())
    assert complaints == []
    asyncio.run(kept.pop().aclose())  # type: ignore[attr-defined]


class Keys:
    """Hands out key-0, key-1, …"""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"key-{self.calls - 1}"

    async def later(self) -> str:
        await asyncio.sleep(0)
        return self()


def accepts(key: str) -> object:
    def reply(request: Request) -> bytes:
        good = request.headers["authorization"] == f"Bearer {key}"
        return pages_of(50)(request) if good else response(401, {"statusCode": 401, "message": "expired"})

    return reply


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_key_function_is_called_again_after_a_401(kind: str) -> None:
    keys = Keys()
    async with serve(accepts("key-1")) as (url, requests):  # type: ignore[arg-type]
        async with Client(url, keys if kind == "sync" else keys.later) as client:
            assert len(await client.iter_runs("job", page_size=10).collect()) == 50
    assert keys.calls == 2
    assert sum(request.headers["authorization"] == "Bearer key-0" for request in requests) == 1


async def test_a_key_function_is_called_again_only_once() -> None:
    keys = Keys()
    async with serve(accepts("another")) as (url, requests), Client(url, keys) as client:  # type: ignore[arg-type]
        with pytest.raises(tfruns.AuthenticationError):
            await client.list_runs("job")
    assert (keys.calls, len(requests)) == (2, 2)


async def test_requests_refused_together_ask_for_one_new_key() -> None:
    keys = Keys()
    async with serve(accepts("key-1")) as (url, _), Client(url, keys.later) as client:  # type: ignore[arg-type]
        await asyncio.gather(*(client.list_runs("job") for _ in range(12)))
    assert keys.calls == 2


async def test_a_fixed_key_is_not_sent_again_after_a_401() -> None:
    async with serve(accepts("another")) as (url, requests):  # type: ignore[arg-type]
        with pytest.raises(tfruns.AuthenticationError):
            await fetch_page(url)
    assert len(requests) == 1


async def test_a_key_function_that_returns_nonsense_is_a_configuration_error() -> None:
    async with serve(pages_of(1)) as (url, requests), Client(url, lambda: "two\nlines") as client:
        with pytest.raises(tfruns.ConfigurationError, match="newline"):
            await client.list_runs("job")
    assert requests == []


async def test_no_more_requests_are_under_way_than_max_concurrency() -> None:
    in_flight, most = 0, 0

    async def reply(request: Request) -> bytes:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1
        return ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=3) as client:
        await asyncio.gather(*(client.list_runs(f"job-{n}") for n in range(20)))
    assert len(requests) == 20
    assert most == 3


async def test_waiting_for_a_free_slot_is_no_part_of_the_timeout() -> None:
    async def reply(_: Request) -> bytes:
        await asyncio.sleep(0.15)
        return ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY, max_concurrency=1, timeout=0.4, retry=NEVER) as client:
        assert len(await asyncio.gather(*(client.list_runs("job") for _ in range(5)))) == 5


async def test_a_closed_client_says_so() -> None:
    async with serve(pages_of(1)) as (url, requests):
        async with Client(url, KEY) as client:
            await client.list_runs("job")
        for use in (client.list_runs("job"), client.count_runs("job"), client.iter_runs("job").collect()):
            with pytest.raises(tfruns.ClientClosedError, match="closed"):
                await use
        with pytest.raises(tfruns.ClientClosedError):
            async with client:
                pass
        await client.aclose()
    assert len(requests) == 1
    assert "closed" in repr(client)


async def test_a_client_closed_while_it_waits_says_so() -> None:
    async with serve(lambda _: Stall()) as (url, requests):
        client = Client(url, KEY)
        waiting = asyncio.ensure_future(client.list_runs("job"))
        while not requests:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(tfruns.ClientClosedError):
            await waiting


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("reply", [Stall(), Stall(ONE_RUN[:30]), Stall(ONE_RUN[:-10])], ids=["nothing", "head", "body"])
async def test_closing_ends_what_is_in_flight_at_once_wherever_its_response_stands(reply: Reply, is_ours: bool) -> None:
    """Also on a session of the caller's, which stays open, and while a body is read, which aiohttp doesn't wake."""
    came = asyncio.Event()

    def stalls(_: Request) -> Reply:
        came.set()
        return reply

    async with serve(stalls) as (url, _), aiohttp.ClientSession() as http:
        client = Client(url, KEY, session=None if is_ours else http)
        request = asyncio.ensure_future(client.list_runs("job"))
        await came.wait()
        await asyncio.sleep(0.02)
        await client.aclose()
        with pytest.raises(tfruns.ClientClosedError):
            await asyncio.wait_for(request, 5)
        assert not http.closed


@pytest.mark.parametrize("turns", range(5))
async def test_a_client_may_be_closed_in_the_moment_in_which_a_timeout_expires(turns: int) -> None:
    """At each turn of the event loop around that moment, the request ends by one or the other."""
    came = asyncio.Event()

    def stalls(_: Request) -> Reply:
        came.set()
        return Stall()

    async with serve(stalls) as (url, _):
        client = Client(url, KEY, timeout=60, retry=NEVER)
        request = asyncio.ensure_future(client.list_runs("job"))
        await came.wait()
        (limit,) = client._transport._sending
        limit.reschedule(0.0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises((tfruns.ClientClosedError, tfruns.APITimeoutError)):
            await request


async def test_the_callers_session_is_used_and_left_open() -> None:
    async with serve(pages_of(1)) as (url, requests):
        async with aiohttp.ClientSession(headers={"X-Mine": "yes"}, raise_for_status=True) as http:
            async with Client(url, KEY, session=http) as client:
                await client.list_runs("job")
            assert not http.closed
            assert requests[0].headers["x-mine"] == "yes"
        other = Client(url, KEY, session=http)
        with pytest.raises(tfruns.ClientClosedError, match="was given"):
            await other.list_runs("job")


async def test_the_callers_session_may_raise_for_status_itself() -> None:
    async with serve(lambda _: response(404, {"statusCode": 404, "message": "no such job"})) as (url, _):
        async with aiohttp.ClientSession(raise_for_status=True) as http, Client(url, KEY, session=http) as client:
            with pytest.raises(tfruns.NotFoundError, match="no such job"):
                await client.list_runs("job")


async def test_a_client_that_made_no_request_leaves_nothing_to_close() -> None:
    client = Client("http://127.0.0.1:1", KEY)
    del client
    gc.collect()


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": 10**400},
        {"timeout": "60"},
        {"timeout": True},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"retry": None},
        {"retry": 3},
        {"session": "mine"},
        {"headers": ["X-Team"]},
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        Client("http://127.0.0.1:1", KEY, **wrong)  # type: ignore[arg-type]


async def test_the_key_is_in_no_repr() -> None:
    async with serve(pages_of(1)) as (url, _), Client(url, KEY) as client:
        runs = client.iter_runs("job")
        await runs.first()
        assert KEY not in repr(client) + repr(runs) + repr(vars(client))
