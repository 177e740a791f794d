"""Networks as they are: outages and their ends, broken handshakes, proxies, sessions and functions of the caller's."""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

import tfruns
from tests.support.hostile import Reply, Request, Stall, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns._http import retry
from tfruns.sandbox import Sandbox

KEY = "tfy-secret-key-1234567890"
NEVER = RetryPolicy(max_attempts=1)
QUICK = RetryPolicy(initial_backoff=0)
ONE_RUN = response(200, page([run(0)]))
DOWN = response(503, {"statusCode": 503, "message": "down"})


# --- after an outage ---


@pytest.mark.parametrize("callers", [1, 8])
async def test_after_an_outage_beyond_the_patience_the_next_call_is_sent(callers: int) -> None:
    """However many calls have failed by then: what they waited for says nothing about now."""
    is_down = False

    def reply(_: Request) -> Reply:
        return DOWN if is_down else ONE_RUN

    retry = RetryPolicy(patience=0.5)
    async with serve(reply) as (url, requests), Client(url, KEY, retry=retry) as client:
        await client.count_runs("job")
        is_down = True
        for _ in range(3):
            calls = (client.count_runs(f"job-{n}") for n in range(callers))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, tfruns.APIError) for result in results)
        is_down = False
        sent = len(requests)
        assert await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(callers))) == [1] * callers
    assert len(requests) == sent + callers


async def test_each_call_in_an_outage_is_sent_or_waits_for_one_that_is() -> None:
    """None fails without a request since it began."""
    sent: list[float] = []

    def reply(_: Request) -> Reply:
        sent.append(time.monotonic())
        return DOWN if len(sent) > 1 else ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY, retry=RetryPolicy(patience=0.3)) as client:
        await client.count_runs("job")

        async def call(number: int) -> None:
            for _ in range(5):
                began = time.monotonic()
                with pytest.raises(tfruns.APIError):
                    await client.count_runs(f"job-{number}")
                assert any(began <= at for at in sent)

        await asyncio.gather(*map(call, range(8)))
    assert len(sent) < 8 * 5 * 5


async def test_an_error_counts_no_seconds_in_which_nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can know how the server was while nobody asked it."""
    clock = 0.0
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + clock)
    async with serve(lambda r: DOWN if r.number else ONE_RUN) as (url, _):
        async with Client(url, KEY, retry=RetryPolicy(patience=0.2, max_backoff=0.02)) as client:
            await client.count_runs("job")
            for clock in (0.0, 50.0, 3600.0):  # noqa: B007  # `monotonic` reads it
                with pytest.raises(tfruns.APIError) as caught:
                    await client.count_runs("job")
                assert "patience of 0.2 s" in str(caught.value)
            assert caught.value.attempts > 1  # after an hour it is a new outage


# --- first contact ---


@pytest.mark.parametrize("reply", [DOWN, Stall(), response(429, {})], ids=["503", "silence", "429"])
async def test_a_server_that_accepts_and_does_not_respond_well_is_waited_for(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be starting. Only a host that can't be reached is given up soon."""
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.05)
    began = time.monotonic()

    def now(_: Request) -> Reply:
        return reply if time.monotonic() < began + 0.3 else ONE_RUN

    async with serve(now) as (url, _), Client(url, KEY, timeout=0.2, retry=RetryPolicy(max_backoff=0.1)) as client:
        assert await client.count_runs("job") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_host_that_cannot_be_reached_is_given_up_soon(
    host: str, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown name, a refused connection."""
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.3)
    async with Client(f"http://{host}:{unused_tcp_port}", KEY, allow_http=True) as client:
        began = time.monotonic()
        with pytest.raises(tfruns.APIConnectionError, match=r"of the 0\.3 s for a host that has never responded"):
            await client.count_runs("job")
        assert time.monotonic() - began < 20


async def test_a_host_that_speaks_no_tls_is_given_up_as_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.3)
    async with Sandbox(1, 1) as sandbox, Client(sandbox.url.replace("http:", "https:"), KEY) as client:
        with pytest.raises(tfruns.APIConnectionError, match=r"of the 0\.3 s for a host that has never responded"):
            await client.count_runs("job")


async def test_a_timeout_too_short_for_anything_is_not_called_a_deadline() -> None:
    """None is set."""
    async with serve(lambda _: Stall()) as (url, _), Client(url, KEY, timeout=0.0001, retry=NEVER) as client:
        with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.0001 s, the timeout"):
            await client.count_runs("job")


async def test_a_wait_of_a_day_is_said_to_be_the_servers() -> None:
    """The patience isn't over after no time at all."""
    reply = response(429, {"statusCode": 429, "message": "slower"}, retry_after="86400")
    async with serve(lambda _: reply) as (url, requests):
        async with Client(url, KEY, retry=RetryPolicy(patience=30)) as client:
            with pytest.raises(tfruns.RateLimitError, match="the server asks for a wait of 86,400 s, and"):
                await client.count_runs("job")
            with pytest.raises(tfruns.APIConnectionError, match="asks all requests to wait for 60 s, and 30 s"):
                await client.count_runs("other")
    assert len(requests) == 1


# --- TLS ---


@asynccontextmanager
async def tls_front(
    authority: trustme.CA, broken: Callable[[int], bytes | None]
) -> AsyncGenerator[tuple[str, ssl.SSLContext]]:
    """An https server that ends some connections before the handshake, with these bytes."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tasks: set[asyncio.Task[Any]] = set()
    count = 0

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response(200, page([run(0)]), connection="close"))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    inner = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=server_context)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        count += 1
        if (sent := broken(count)) is not None:
            writer.write(sent)
            await reader.read(1)
            writer.close()
            return
        there = await asyncio.open_connection(*inner.sockets[0].getsockname())
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

    front = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{front.sockets[0].getsockname()[1]}", context
    finally:
        front.close()
        inner.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)


ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # a handshake failure
PLAIN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("broken", [ALERT, PLAIN, b""], ids=["alert", "plain text", "closed"])
@pytest.mark.parametrize("first", [1, 2])
async def test_handshakes_that_fail_for_a_moment_are_tried_again(broken: bytes, first: int) -> None:
    """A balancer reloads."""
    authority = trustme.CA()
    async with tls_front(authority, lambda n: broken if first <= n < first + 2 else None) as (url, context):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with Client(url, KEY, session=session, retry=QUICK) as client:
                assert [await client.count_runs("job") for _ in range(3)] == [1, 1, 1]
                assert client.stats().retries >= 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"SSL_CERT_FILE names .*ca\.pem, from which no certificates can be read: No such file"),
        (b"", r"SSL_CERT_FILE names .*ca\.pem, from which no certificates can be read: "),
        (b"junk", r"SSL_CERT_FILE names .*ca\.pem, from which no certificates can be read: "),
        (trustme.CA().cert_pem.bytes(), r"SSL_CERT_FILE names .*ca\.pem, and its CA isn't in there"),
    ],
    ids=["missing", "empty", "junk", "another"],
)
async def test_a_file_of_certificates_that_does_not_help_is_named(
    content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice to set SSL_CERT_FILE is of no use to one who did."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with tls_front(trustme.CA(), lambda _: None) as (url, _), Client(url, KEY) as client:
        with pytest.raises(tfruns.APIConnectionError, match=says) as caught:
            await client.count_runs("job")
        assert caught.value.attempts == 1  # a certificate that isn't trusted won't be in a second either
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(tfruns.APIConnectionError, match="private CA can be named by SSL_CERT_FILE"):
            await client.count_runs("job")


# --- what others put in between ---


def _traced(read: Callable[[aiohttp.ClientResponse], Any]) -> dict[str, Any]:
    async def on_end(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        await read(params.response)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(on_end)
    return {"trace_configs": [config]}


@pytest.mark.parametrize("method", ["read", "text", "json"])
async def test_a_hook_that_reads_the_body_takes_nothing_from_us(method: str) -> None:
    """Neither a trace config nor a middleware; and what is too large stays too large."""
    read = getattr(aiohttp.ClientResponse, method)

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        answer = await handler(request)
        await read(answer)
        return answer

    async with serve(pages_of(50)) as (url, _):
        async with Client(url, KEY, **_traced(read)) as client:
            assert len(await client.iter_runs("job", page_size=10).collect()) == 50
            with pytest.raises(tfruns.ResponseTooLargeError):
                await client.iter_runs("job", max_response_bytes=1_000).collect()
        async with (
            aiohttp.ClientSession(middlewares=[middleware]) as session,
            Client(url, KEY, session=session) as client,
        ):
            assert len(await client.iter_runs("job", page_size=10).collect()) == 50


class ProxyError(Exception):
    """What libraries for SOCKS raise is no error of aiohttp's, nor of the system's."""


@pytest.mark.parametrize("error", [ProxyError("host unreachable"), RuntimeError("odd"), EOFError("gone")])
async def test_whatever_a_connector_raises_is_a_connection_error_with_its_cause(error: Exception) -> None:
    """It is retried like any other, and no walk ends by it."""

    class Connector(aiohttp.TCPConnector):
        count = 0

        async def connect(self, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count % 3 == 2 or self.count > 30:
                raise error
            return await super().connect(*args, **kwargs)

    async with serve(pages_of(50)) as (url, _), aiohttp.ClientSession(connector=Connector()) as session:
        async with Client(url, KEY, session=session, retry=QUICK) as client:
            assert len([1 async for _ in client.iter_runs_for(["a", "b"], page_size=10)]) == 100
            session.connector.count = 30  # type: ignore[union-attr]
            with pytest.raises(tfruns.APIConnectionError) as caught:
                await client.count_runs("job", retry=NEVER)
            assert caught.value.__cause__ is error


async def test_a_bug_in_a_function_of_the_callers_is_raised_as_it_is() -> None:
    """Five minutes of retries wouldn't mend it."""

    async def on_start(*_: object) -> None:
        raise TypeError("a bug")

    config = aiohttp.TraceConfig()
    config.on_request_start.append(on_start)
    async with serve(pages_of(1)) as (url, _), Client(url, KEY, trace_configs=[config]) as client:
        with pytest.raises(TypeError, match="a bug"):
            await client.count_runs("job")


# --- event loops ---


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_session_of_another_event_loop_is_named(is_closed: bool) -> None:
    """aiohttp's own error is a bare RuntimeError, or none at all."""
    other = asyncio.new_event_loop()

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = other.run_until_complete(make())
    thread = None if is_closed else threading.Thread(target=other.run_forever)
    if thread is not None:
        thread.start()

    async def use() -> None:
        client = Client("http://127.0.0.1:1", KEY, session=session)
        for call in (
            client.count_runs("job"),
            client.iter_runs("job").collect(),
            anext(aiter(client.iter_runs("job"))),
        ):
            with pytest.raises(tfruns.EventLoopError, match="was made in another event loop"):
                await call

    try:
        asyncio.run(use())
    finally:
        if thread is not None:
            other.call_soon_threadsafe(other.stop)
            thread.join()
        other.run_until_complete(session.close())
        other.close()


async def _first(client: Client) -> object:
    return await anext(aiter(client.iter_runs("job")))


async def _first_of_many(client: Client) -> object:
    return await anext(aiter(client.iter_runs_for(["job"])))


async def _first_change(client: Client) -> object:
    return await anext(aiter(client.watch_runs("job")))


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.count_runs("job"),
        lambda client: client.wait_for_run("job", "run"),
        *(_first, _first_of_many, _first_change),
    ],
)
def test_without_asyncio_the_error_names_it(call: Callable[[Client], Any]) -> None:
    """As under trio: and no coroutine is left that was never awaited."""
    coroutine = call(Client("http://127.0.0.1:1", KEY))
    with pytest.raises(tfruns.EventLoopError, match="no event loop of asyncio is running"):
        coroutine.send(None)


@pytest.mark.parametrize("many", [False, True])
def test_a_walk_that_its_event_loop_has_closed_is_not_over_silently(many: bool) -> None:
    """What `anext` has begun in one `asyncio.run` can't go on in the next: a loop over the rest would be short."""
    with Sandbox(jobs=1, runs=20) as sandbox:
        client = Client(sandbox.url, sandbox.api_key, headers={"Connection": "close"})
        runs: Any = client.iter_runs_for(sandbox.job_ids) if many else client.iter_runs(sandbox.job_ids[0])

        async def begin() -> None:
            await anext(runs)

        async def rest() -> int:
            return len([run async for run in runs])

        asyncio.run(begin())
        with pytest.raises(tfruns.EventLoopError, match="begin it anew"):
            asyncio.run(rest())
        assert asyncio.run(rest()) == 20
        asyncio.run(client.aclose())


# --- proxies ---


@asynccontextmanager
async def proxy(reply: bytes) -> AsyncGenerator[str]:
    """An HTTP proxy that refuses whatever it is asked: gives its address."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("status", [407, 403, 502])
async def test_a_proxy_that_refuses_is_named_without_its_login(status: int) -> None:
    """It isn't the control plane that is at fault."""
    async with proxy(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status) as address:
        async with aiohttp.ClientSession(proxy=f"http://me:hunter22@{address}") as session:
            async with Client("https://plane.example", KEY, session=session, retry=NEVER) as client:
                with pytest.raises(tfruns.APIConnectionError) as caught:
                    await client.count_runs("job")
    assert f"the proxy http://{address} refused to connect to it: {status} No" in str(caught.value)
    assert _nothing_shows(caught.value, "hunter22", "bWU6aHVudGVyMjI=")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_down_is_named_without_its_login(scheme: str, unused_tcp_port: int) -> None:
    """Whether the control plane is reached by https or not."""
    async with aiohttp.ClientSession(proxy=f"http://me:hunter22@127.0.0.1:{unused_tcp_port}") as session:
        client = Client(f"{scheme}://plane.example", KEY, session=session, retry=NEVER, allow_http=True)
        with pytest.raises(tfruns.APIConnectionError) as caught:
            await client.count_runs("job")
    assert f"could not connect to the proxy 127.0.0.1:{unused_tcp_port}" in str(caught.value)
    assert _nothing_shows(caught.value, "hunter22", "bWU6aHVudGVyMjI=")


def _nothing_shows(error: BaseException | None, *secrets: str) -> bool:
    while error is not None:
        assert not any(secret in shown for secret in secrets for shown in (str(error), repr(error), repr(vars(error))))
        error = error.__cause__ or error.__context__
    return True


# --- large heads ---


@pytest.mark.parametrize(
    "headers",
    [{"content_security_policy": "x" * 20_000}, {f"x_header_{n}": "y" for n in range(600)}],
    ids=["a long one", "many"],
)
async def test_large_heads_of_responses_are_read(headers: dict[str, str]) -> None:
    """aiohttp's own limits are 8,190 bytes and 128 headers."""
    async with serve(lambda _: response(200, page([run(0)]), **headers)) as (url, _), Client(url, KEY) as client:
        assert await client.count_runs("job") == 1


# --- headers and keys ---


@pytest.mark.parametrize(
    "name",
    ["Host", "transfer-encoding", "Content-Length", "Upgrade", "TE", "Trailer", "Expect"],
)
async def test_headers_that_http_itself_needs_are_refused(name: str) -> None:
    """They would send the key elsewhere, or break the connection."""
    with pytest.raises(ValueError, match=f"the header {name} can't be given"):
        Client("https://plane.example", KEY, headers={name: "x"})
    with pytest.raises(ValueError, match=f"the header {name} can't be given"):
        Client("https://plane.example", KEY).iter_runs("job", headers={name: "x"})


@pytest.mark.parametrize("cut", [slice(0, 15), slice(10, None), slice(3, 20)])
async def test_a_part_of_the_key_is_shown_no_more_than_the_whole(cut: slice) -> None:
    """Servers shorten what they echo."""
    echo = response(401, {"message": f"no such key {KEY[cut]}… here"}, x_echo=f"Bearer {KEY[cut]}")
    async with serve(lambda _: echo) as (url, _), Client(url, KEY) as client:
        with pytest.raises(tfruns.AuthenticationError, match=r"no such key \[API key\]… here") as caught:
            await client.count_runs("job")
    assert _nothing_shows(caught.value, KEY[cut])


# --- logs and hooks of the caller's ---


class Raises(logging.Handler):
    """Raises for each record, as a filter or as a handler."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error("a bug")


@pytest.mark.parametrize("kind", ["filter", "handler"])
@pytest.mark.parametrize("error", [ValueError, BrokenPipeError])
async def test_a_log_that_cannot_be_written_changes_nothing(kind: str, error: type[Exception]) -> None:
    """Neither a walk through refusals and an outage, nor a watch."""
    logger = logging.getLogger("tfruns")
    raises = Raises(error)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(raises) if kind == "filter" else logger.addHandler(raises)
    try:
        replies = dict.fromkeys(range(3, 20), DOWN) | {n: response(429, {}) for n in range(40, 60, 2)}
        async with asyncio.timeout(60), serve(lambda r: replies.get(r.number) or pages_of(20)(r)) as (url, _):
            async with Client(url, KEY, max_concurrency=4) as client:
                jobs = [f"job-{n}" for n in range(20)]
                assert len([1 async for _ in client.iter_runs_for(jobs, page_size=5)]) == 400
                await asyncio.sleep(0)
                assert (client.stats().in_flight, client.stats().waiting) == (0, 0)
    finally:
        logger.setLevel(level)
        logger.removeFilter(raises) if kind == "filter" else logger.removeHandler(raises)


@pytest.mark.parametrize("name", ["on_request", "on_response", "on_retry", "on_failure"])
async def test_a_hook_that_raises_holds_up_no_other_request(name: str) -> None:
    """The place is given back, whatever the hook does."""

    def fails(event: Any) -> None:
        if event.job_id == "bad":
            raise LookupError("a bug")

    statuses = {"on_retry": 500, "on_failure": 404}

    def reply(request: Request) -> Reply:
        return response(statuses.get(name, 200), {}) if "/bad/" in request.target else pages_of(1)(request)

    hooks: dict[str, Any] = {name: fails}
    async with asyncio.timeout(30), serve(reply) as (url, _), Client(url, KEY, max_concurrency=1, **hooks) as client:
        calls = [client.count_runs(job) for job in ["bad", "a", "bad", "b", "c"]]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, int, LookupError, int, int]
