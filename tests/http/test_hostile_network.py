"""A network that breaks, drips, lies about lengths and goes away: a typed error in time, or the page, and no leaks."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

import tfruns
from tests.support.hostile import Raw, Reply, Request, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy

KEY = "tfy-secret-key-1234567890"
NEVER = RetryPolicy(max_attempts=1)
ONCE_MORE = RetryPolicy(max_attempts=2, initial_backoff=0)
GOOD = response(200, page([run(0)]))
BODY = GOOD.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_response_that_breaks_off_at_any_byte_is_requested_again(reset: bool) -> None:
    cut = 0

    def reply(request: Request) -> Reply:
        return GOOD if request.number % 2 else Raw(GOOD[:cut], reset=reset)

    async with serve(reply) as (url, requests), Client(url, KEY, retry=ONCE_MORE) as client:
        for cut in range(reset, len(GOOD), 2):  # the server reads it
            assert await client.count_runs("job") == 1, cut
    assert len(requests) == 2 * len(range(reset, len(GOOD), 2))


async def test_a_response_that_always_breaks_off_is_one_typed_error_at_any_byte() -> None:
    cut = 0
    async with serve(lambda _: Raw(GOOD[:cut])) as (url, _):
        for cut in range(0, len(GOOD), 3):  # noqa: B007
            async with Client(url, KEY, retry=NEVER) as client:  # after many failures, one is slow
                with pytest.raises(tfruns.APIConnectionError, match="no complete response"):
                    await client.count_runs("job")


@asynccontextmanager
async def dripping(data: bytes, every: float, at_once: Callable[[int], int]) -> AsyncGenerator[str]:
    """A server that sends a few bytes now and then."""
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            sent = 0
            while sent < len(data):
                step = at_once(sent)
                writer.write(data[sent : sent + step])
                await writer.drain()
                sent += step
                await asyncio.sleep(every)
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("where", ["headers", "body"])
async def test_the_timeout_holds_for_the_whole_response_however_steadily_it_drips(where: str) -> None:
    head = len(GOOD) - len(BODY)
    async with dripping(GOOD, 0.02, lambda sent: 1 if where == "headers" or sent >= head else head) as url:
        async with Client(url, KEY, timeout=0.3, retry=NEVER) as client:
            began = time.monotonic()
            with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.3 s"):
                await client.count_runs("job")
    assert 0.29 <= time.monotonic() - began < 10


async def test_a_response_in_many_small_pieces_is_the_page() -> None:
    async with dripping(GOOD, 0.0, lambda sent: 1) as url, Client(url, KEY, retry=NEVER) as client:
        assert await client.count_runs("job") == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


def in_chunks(size: int, end: bytes = b"0\r\n\r\n", extension: bytes = b"") -> bytes:
    pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + end


@pytest.mark.parametrize(
    "reply",
    [
        CHUNKED + b"\r\n" + in_chunks(7),
        CHUNKED + b"\r\n" + in_chunks(1),
        CHUNKED + b"\r\n" + in_chunks(50, extension=b";a=b"),
        CHUNKED + b"Trailer: X-Sum\r\n\r\n" + in_chunks(50, b"0\r\nX-Sum: 1\r\n\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + GOOD,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + GOOD,
    ],
    ids=lambda reply: repr(reply[:40]),
)
async def test_every_form_that_http_gives_a_response_is_read(reply: bytes) -> None:
    async with serve(lambda _: Raw(reply)) as (url, _), Client(url, KEY, retry=NEVER) as client:
        assert await client.count_runs("job") == 1


@pytest.mark.parametrize(
    "reply",
    [
        CHUNKED + b"\r\n" + in_chunks(7, b""),
        CHUNKED + b"\r\n" + b"zz\r\n" + BODY,
        CHUNKED + b"\r\n" + b"ffffffffffffffffff\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY) + 1, BODY),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n" + BODY,
        b"HTTP/9.9 999\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        BODY,
    ],
    ids=lambda reply: repr(reply[:40]),
)
async def test_what_is_no_response_is_one_typed_error_and_the_next_request_is_well(reply: bytes) -> None:
    async with serve(lambda request: GOOD if request.number else Raw(reply)) as (url, _):
        async with Client(url, KEY, retry=NEVER, timeout=5) as client:
            with pytest.raises(tfruns.APIError) as caught:
                await client.count_runs("job")
            assert len(str(caught.value)) < 3_000
            assert await client.count_runs("job") == 1


async def test_a_connection_that_the_server_closes_between_two_requests_costs_none() -> None:
    def reply(request: Request) -> Reply:
        return Raw(GOOD) if request.number % 2 else GOOD  # keep-alive is promised, and then closed

    async with serve(reply) as (url, _), Client(url, KEY, retry=ONCE_MORE) as client:
        for _ in range(50):
            assert await client.count_runs("job") == 1


async def test_bytes_after_a_response_are_no_part_of_the_next() -> None:
    async with serve(lambda r: GOOD + response(200, page([], 99)) if r.number == 0 else GOOD) as (url, _):
        async with Client(url, KEY, retry=ONCE_MORE) as client:
            assert [await client.count_runs("job") for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "no..dots", "127.0.0.1:1"])
async def test_a_host_that_cant_be_reached_is_named(host: str) -> None:
    if ".." in host:
        with pytest.raises(tfruns.ConfigurationError, match="has no valid host"):
            Client(f"https://{host}", KEY)
        return
    async with Client(f"https://{host}", KEY, retry=NEVER) as client:
        with pytest.raises(tfruns.APIConnectionError, match="could not connect") as caught:
            await client.count_runs("job")
    assert host.partition(":")[0] in str(caught.value)
    assert "Unknown error" not in str(caught.value)


async def test_a_host_with_ipv6_alone_is_asked() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(converse, "::1", 0, family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server, Client(f"http://[::1]:{server.sockets[0].getsockname()[1]}", KEY, retry=NEVER) as client:
        assert await client.count_runs("job") == 1


async def test_a_redirect_to_itself_ends_at_once() -> None:
    async with serve(lambda request: response(302, {}, location=request.target)) as (url, requests):
        async with Client(url, KEY) as client:
            with pytest.raises(tfruns.APIStatusError, match="redirects"):
                await client.iter_runs("job").collect()
    assert len(requests) == 1


async def test_a_response_to_head_no_body_and_204_leave_the_connection_usable() -> None:
    replies = [response(204, b""), response(304, b""), response(200, b"", content_length="0")]

    def reply(request: Request) -> Reply:
        return replies[request.number] if request.number < 3 else pages_of(5)(request)

    async with serve(reply) as (url, _), Client(url, KEY, retry=NEVER) as client:
        for _ in replies:
            with pytest.raises(tfruns.APIError):
                await client.count_runs("job")
        assert await client.count_runs("job") == 5
