"""Every way we know for a call to fail, each as a function that makes it fail and gives the error.

No function here has the key in a variable: the frames of the caller are in a traceback, too.
"""

import asyncio
import json
import os
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import trustme

import tfruns
from tests.support.hostile import Raw, Reply, Request, Stall, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns._http.credentials import credentials_path


def _made_up(seed: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    return "".join(random.Random(seed).choices(letters, k=300))  # as long as a JWT


KEY, NEW_KEY = _made_up(1), _made_up(2)
NEVER = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_backoff=0)
GOOD = response(200, page([run(0)]))
BODY = GOOD.partition(b"\r\n\r\n")[2]

Way = Callable[[], Awaitable[BaseException]]
WAYS: dict[str, Way] = {}


def fragments(text: str) -> list[str]:
    """The parts of a key that stand in a text."""
    return [key[at : at + 12] for key in (KEY, NEW_KEY) for at in range(0, 289, 6) if key[at : at + 12] in text]


def way(name: str) -> Callable[[Way], Way]:
    def add(function: Way) -> Way:
        WAYS[name] = function
        return function

    return add


async def failed(call: Awaitable[object]) -> BaseException:
    """The error of a call that has to fail. It runs in a task, so that it can be cancelled."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task])
    try:
        task.result()
    except BaseException as error:
        return error
    raise AssertionError("the call didn't fail")


@asynccontextmanager
async def client_of(reply: Callable[[Request], Any], **options: Any) -> AsyncIterator[Client]:
    async with serve(reply) as (url, _), Client(url, KEY, **{"retry": NEVER} | options) as client:
        yield client


async def listed(client: Client) -> list[tfruns.JobRun]:
    return await client.iter_runs("job").collect()


# --- no response ---


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@way("refused")
async def _() -> BaseException:
    async with Client(_closed_port(), KEY, retry=TWICE) as client:
        return await failed(client.count_runs("job"))


@way("no such host")
async def _() -> BaseException:
    async with Client("https://no-such-host.invalid", KEY, retry=NEVER) as client:
        return await failed(client.count_runs("job"))


@asynccontextmanager
async def over_tls() -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


@way("untrusted certificate")
async def _() -> BaseException:
    async with over_tls() as url, Client(url, KEY, retry=NEVER) as client:
        return await failed(client.count_runs("job"))


@way("closed under TLS")
async def _() -> BaseException:
    async with over_tls() as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        async with Client(url, KEY, session=http, retry=NEVER) as client:
            return await failed(client.count_runs("job"))


@way("TLS to a server of plain http")
async def _() -> BaseException:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"https://127.0.0.1:{port}", KEY, retry=NEVER) as client:
            return await failed(client.count_runs("job"))


@way("reset while it is sent")
async def _() -> BaseException:
    """The system refuses the bytes of the second request, on a connection that the server has reset meanwhile."""
    listening = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(GOOD)
        is_reset.wait()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        listening.close()

    is_reset = threading.Event()
    thread = threading.Thread(target=once)
    thread.start()
    async with aiohttp.ClientSession() as http:
        http._retry_connection = False  # or aiohttp would send the request once more, on a new connection
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with Client(url, KEY, session=http, retry=NEVER) as client:
            await client.count_runs("job")
            is_reset.set()
            thread.join()  # without a turn of the event loop, so that it doesn't see the reset before it sends
            return await failed(client.count_runs("job"))


def _echo(request: Request) -> str:
    return f"X-Echo: {request.headers['authorization']}\r\n"


def _with_echo(request: Request, cut: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{_echo(request)}Content-Length: {len(BODY) + 500}"
    body = f'{{"echo": "{request.headers["authorization"]}", '.encode() + BODY
    return f"{head}\r\n\r\n".encode() + body[:cut]


BREAKS: dict[str, Callable[[Request], Reply]] = {
    "closed without a response": lambda _: Raw(b""),
    "reset": lambda r: Raw(_with_echo(r), reset=True),
    "cut off": lambda r: Raw(_with_echo(r)),
    "garbled chunks": lambda r: Raw(
        f"HTTP/1.1 200 OK\r\n{_echo(r)}Transfer-Encoding: chunked\r\n\r\n{r.headers['authorization']}\r\n".encode()
    ),
    "garbled status line": lambda r: Raw(f"HTTP/1.1 {r.headers['authorization']}\r\n\r\n".encode()),
    "garbled header": lambda r: Raw(f"HTTP/1.1 200 OK\r\n{r.headers['authorization']}\r\n\r\n".encode()),
    "garbled length": lambda r: Raw(
        f"HTTP/1.1 200 {KEY}\r\n{_echo(r)}Content-Length: {r.headers['authorization']}\r\n\r\n".encode()
    ),
    "broken gzip": lambda r: response(200, KEY.encode(), content_encoding="gzip", x_echo=r.headers["authorization"]),
    "a head too long": lambda r: Raw(f"HTTP/1.1 200 OK\r\nX: {KEY * 100}\r\n\r\n".encode()),
}


def _breaks(reply: Callable[[Request], Reply]) -> Way:
    async def fails() -> BaseException:
        async with client_of(reply, retry=TWICE) as client:
            return await failed(listed(client))

    return fails


WAYS |= {name: _breaks(reply) for name, reply in BREAKS.items()}


# --- not in time ---

STALLS: dict[str, Callable[[Request], Reply]] = {
    "before the head": lambda _: Stall(),
    "within the head": lambda r: Stall(f"HTTP/1.1 200 OK\r\n{_echo(r)}".encode()),
    "within the body": lambda r: Stall(_with_echo(r)),
}


async def _by_timeout(reply: Callable[[Request], Reply]) -> BaseException:
    async with client_of(reply, timeout=0.05) as client:
        return await failed(listed(client))


async def _by_deadline(reply: Callable[[Request], Reply]) -> BaseException:
    async with client_of(reply, retry=RetryPolicy(deadline=0.05)) as client:
        return await failed(client.list_runs("job"))


async def _by_the_callers_timeout(reply: Callable[[Request], Reply]) -> BaseException:
    async def call() -> None:
        async with asyncio.timeout(0.05):
            await client.list_runs("job")

    async with client_of(reply) as client:
        return await failed(call())


async def _by_wait_for(reply: Callable[[Request], Reply]) -> BaseException:
    async with client_of(reply) as client:
        return await failed(asyncio.wait_for(listed(client), 0.05))


async def _while_another_error_is_handled(reply: Callable[[Request], Reply]) -> BaseException:
    async def call() -> None:
        try:
            raise LookupError("the caller's own")
        except LookupError:
            await client.list_runs("job")

    async with client_of(reply, timeout=0.05) as client:
        return await failed(call())


async def _by_cancellation(reply: Callable[[Request], Reply]) -> BaseException:
    came = asyncio.Event()

    def stalls(request: Request) -> Reply:
        came.set()
        return reply(request)

    async with client_of(stalls) as client:
        task = asyncio.create_task(client.list_runs("job"))
        await came.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        return await failed(task)


async def _by_closing(reply: Callable[[Request], Reply]) -> BaseException:
    came = asyncio.Event()

    def stalls(request: Request) -> Reply:
        came.set()
        return reply(request)

    async with client_of(stalls) as client:
        task = asyncio.create_task(client.list_runs("job"))
        await came.wait()
        await asyncio.sleep(0.02)
        await client.aclose()
        return await failed(task)


for _where, _reply in STALLS.items():
    for _how in (
        _by_timeout,
        _by_deadline,
        _by_the_callers_timeout,
        _by_wait_for,
        _while_another_error_is_handled,
        _by_cancellation,
        _by_closing,
    ):
        WAYS[f"{_how.__name__[1:].replace('_', ' ')}, {_where}"] = lambda how=_how, reply=_reply: how(reply)  # type: ignore[misc]


# --- cancelled, or broken by a function of the caller's, at every point of a request ---

POINTS = (
    "request_start",
    "connection_create_start",
    "connection_create_end",
    "dns_resolvehost_start",
    "request_headers_sent",
    "request_end",
)


def _traced(point: str, action: Callable[[], object]) -> aiohttp.TraceConfig:
    async def act(session: aiohttp.ClientSession, context: Any, parameters: Any) -> None:
        del session, context, parameters  # what aiohttp gives to the caller's own function isn't ours to hide
        action()
        await asyncio.sleep(0)

    config = aiohttp.TraceConfig()
    getattr(config, f"on_{point}").append(act)
    return config


def _cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def _raise(*_: object) -> None:
    raise LookupError("a bug of the caller's")


def _at(point: str, action: Callable[[], object]) -> Way:
    async def fails() -> BaseException:
        async with serve(lambda r: Raw(_with_echo(r))) as (url, _):
            url = url.replace("127.0.0.1", "localhost")
            async with Client(url, KEY, retry=NEVER, trace_configs=[_traced(point, action)]) as client:
                return await failed(client.list_runs("job"))

    return fails


def _queued(action: Callable[[], object]) -> Way:
    """Where all connections are taken."""

    async def fails() -> BaseException:
        came = asyncio.Event()

        def stalls(_: Request) -> Reply:
            came.set()
            return Stall()

        connector = aiohttp.TCPConnector(limit=1)
        trace_configs = [_traced("connection_queued_start", action)]
        async with aiohttp.ClientSession(connector=connector, trace_configs=trace_configs) as http:
            async with client_of(stalls, session=http) as client:
                first = asyncio.create_task(client.count_runs("job"))
                await came.wait()
                error = await failed(client.count_runs("job"))
                first.cancel()
                await failed(first)
                return error

    return fails


WAYS["cancelled at connection_queued_start"] = _queued(_cancel)
WAYS["a trace hook raises at connection_queued_start"] = _queued(_raise)

for _point in POINTS:
    WAYS[f"cancelled at {_point}"] = _at(_point, _cancel)
    WAYS[f"a trace hook raises at {_point}"] = _at(_point, _raise)


def _by_a_curious_hook(fail: Callable[[Any], None]) -> Way:
    """A trace hook that has the headers of the request in a variable."""

    async def act(_session: aiohttp.ClientSession, _context: Any, parameters: aiohttp.TraceRequestStartParams) -> None:
        headers = dict(parameters.headers)
        authorization = headers["Authorization"]
        fail(headers)
        assert not authorization

    async def fails() -> BaseException:
        config = aiohttp.TraceConfig()
        config.on_request_start.append(act)
        async with client_of(lambda _: GOOD, trace_configs=[config]) as client:
            return await failed(client.list_runs("job"))

    return fails


def _raise_with(headers: Any) -> None:
    raise LookupError(headers)


WAYS["a trace hook raises with the headers in a variable"] = _by_a_curious_hook(_raise)
WAYS["a trace hook raises with the headers in its error"] = _by_a_curious_hook(_raise_with)


def _by_hook(name: str) -> Way:
    async def fails() -> BaseException:
        reply = response(500, {"message": KEY}) if name in ("on_retry", "on_failure") else GOOD
        retry = TWICE if name == "on_retry" else NEVER
        async with client_of(lambda _: reply, retry=retry, **{name: _raise}) as client:
            return await failed(listed(client))

    return fails


def _cancelled_by_hook(name: str) -> Way:
    async def fails() -> BaseException:
        reply = response(500, {"message": KEY}) if name == "on_retry" else GOOD
        async with client_of(lambda _: reply, retry=TWICE, **{name: lambda _: _cancel()}) as client:
            return await failed(client.list_runs("job"))

    return fails


WAYS |= {f"{name} raises": _by_hook(name) for name in ("on_request", "on_response", "on_retry", "on_failure")}
WAYS |= {f"cancelled in {name}": _cancelled_by_hook(name) for name in ("on_request", "on_retry")}


@way("cancelled while it waits for its turn")
async def _() -> BaseException:
    async with client_of(lambda _: Stall(), max_concurrency=1) as client:
        first = asyncio.create_task(client.count_runs("job"))
        second = asyncio.create_task(client.count_runs("job"))
        await asyncio.sleep(0.02)
        second.cancel()
        error = await failed(second)
        first.cancel()
        await failed(first)
        return error


@way("cancelled while it waits for a retry")
async def _() -> BaseException:
    came = asyncio.Event()
    retry = RetryPolicy(initial_backoff=60, max_backoff=60)
    reply = response(500, {"message": KEY}, x_echo=KEY)
    async with client_of(lambda _: reply, retry=retry, on_retry=lambda _: came.set()) as client:
        task = asyncio.create_task(client.count_runs("job"))
        await came.wait()
        await asyncio.sleep(0)
        task.cancel()
        return await failed(task)


@way("cancelled while it waits for the key")
async def _() -> BaseException:
    async def hangs() -> str:
        await asyncio.sleep(60)
        return KEY

    async with serve(lambda _: GOOD) as (url, _), Client(url, hangs) as client:
        task = asyncio.create_task(client.count_runs("job"))
        await asyncio.sleep(0.02)
        task.cancel()
        return await failed(task)


@way("a walk that is cancelled")
async def _() -> BaseException:
    def reply(request: Request) -> Reply:
        return Stall(_with_echo(request)) if request.offset >= 20 else pages_of(200)(request)

    came = asyncio.Event()

    async def walk() -> None:
        async for _run in client.iter_runs("job", page_size=10):
            came.set()

    async with client_of(reply) as client:
        task = asyncio.create_task(walk())
        await came.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        return await failed(task)


@way("a walk of many jobs that is cancelled")
async def _() -> BaseException:
    async def walk() -> None:
        async for _run in client.iter_runs_for(["a", "b"]):
            pass

    async with client_of(lambda r: Stall(_with_echo(r))) as client:
        task = asyncio.create_task(walk())
        await asyncio.sleep(0.05)
        task.cancel()
        return await failed(task)


# --- a response that is no page ---


def _refusal(status: int) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        echo = request.headers["authorization"]
        body = {"statusCode": status, "message": f"got {request.headers}", "code": echo, "details": [{echo: [echo]}]}
        return response(status, body, x_request_id=echo, location=f"https://other.example/?key={KEY}", x_echo=echo)

    return reply


RESPONSES: dict[str, Callable[[Request], Reply]] = {
    **{f"status {status}": _refusal(status) for status in (301, 307, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503)},
    "the key in the status line": lambda _: Raw(f"HTTP/1.1 404 {KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
    "a refusal that isn't JSON": lambda _: response(403, f"<html>{'x' * 180}{KEY}</html>".encode()),
    "no JSON": lambda _: response(200, f"<html>{KEY}</html>".encode(), x_echo=KEY),
    "JSON cut off": lambda _: response(200, f'{{"data": [{{"id": "{KEY}'.encode(), x_echo=KEY),
    "no UTF-8": lambda _: response(200, b'{"data": "\xff' + KEY.encode()),
    "nested too deep": lambda _: response(200, KEY.encode() + b"[" * 100_000),
    "a wrong field": lambda _: response(200, page([run(0, id=KEY, status=[KEY], command=KEY, createdAt=KEY)])),
    "a wrong total": lambda _: response(200, {"data": [], "pagination": {"total": KEY}, KEY: KEY}),
    "an escaped key": lambda _: response(
        200, json.dumps({"data": [], "pagination": KEY}).replace(KEY[0], f"\\u{ord(KEY[0]):04x}").encode()
    ),
    "a key that is cut": lambda _: response(200, b"x" * 185 + KEY.encode()),
}


def _responds(reply: Callable[[Request], Reply]) -> Way:
    async def fails() -> BaseException:
        async with client_of(reply, retry=TWICE) as client:
            return await failed(listed(client))

    return fails


WAYS |= {name: _responds(reply) for name, reply in RESPONSES.items()}


@way("a page that isn't understood")
async def _() -> BaseException:
    async with client_of(RESPONSES["a wrong field"]) as client:
        return await failed(client.list_runs("job"))


@way("too large")
async def _() -> BaseException:
    async with client_of(lambda _: response(200, KEY.encode() * 10, x_echo=KEY)) as client:
        return await failed(client.iter_runs("job", max_response_bytes=100).first())


@way("an error group of the caller's")
async def _() -> BaseException:
    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for job_id in ("a", "b"):
                group.create_task(client.list_runs(job_id))

    async with client_of(_refusal(403)) as client:
        return await failed(all_of_them())


# --- keys and hosts that can't be used ---


async def _made(make: Callable[[], object]) -> None:
    make()


MADE: dict[str, Callable[[], object]] = {
    "no host": lambda: Client(api_key=KEY),
    "a host that isn't a URL": lambda: Client("a.example", KEY),
    "a host of another type": lambda: Client(5, KEY),  # type: ignore[arg-type]
    "the key in the host": lambda: Client(f"https://{KEY}@a.example", KEY),
    "the key in place of the host": lambda: Client(KEY, "https://a.example"),
    "the key in a port": lambda: Client(f"https://a.example:{KEY}", KEY),
    "plain http": lambda: Client("http://a.example", KEY),
    "a key with a newline": lambda: Client("https://a.example", KEY + "\n"),
    "a key of bytes": lambda: Client("https://a.example", KEY.encode()),  # type: ignore[arg-type]
    "a key in a list": lambda: Client("https://a.example", [KEY]),  # type: ignore[arg-type]
    "a wrong timeout": lambda: Client("https://a.example", KEY, timeout=-1),
    "a wrong policy": lambda: Client("https://a.example", KEY, retry=5),  # type: ignore[arg-type]
    "a wrong header": lambda: Client("https://a.example", KEY, headers={"X": "\n"}),
    "a wrong hook": lambda: Client("https://a.example", KEY, on_retry=5),  # type: ignore[arg-type]
    "a wrong session": lambda: Client("https://a.example", KEY, session=5),  # type: ignore[arg-type]
    "a wrong name": lambda: Client("https://a.example", KEY, nonsense=5),  # type: ignore[call-arg]
    "a wrong page size": lambda: Client("https://a.example", KEY).iter_runs("job", page_size=0),
}
WAYS |= {name: lambda make=make: failed(_made(make)) for name, make in MADE.items()}  # type: ignore[misc]


def _from_environment(**variables: str) -> Way:
    async def fails() -> BaseException:
        os.environ.update(variables)
        try:
            return await failed(_made(Client))
        finally:
            for name in variables:
                del os.environ[name]

    return fails


WAYS["TFY_API_KEY with a newline"] = _from_environment(TFY_HOST="https://a.example", TFY_API_KEY="\n" + KEY)
WAYS["TFY_API_KEY in place of TFY_HOST"] = _from_environment(TFY_HOST=KEY, TFY_API_KEY=KEY)
WAYS["TFY_API_KEY without a host"] = _from_environment(TFY_API_KEY=KEY)


def _file(content: str, mode: int = 0o600) -> Path:
    path = credentials_path()
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


FILES: dict[str, Callable[[], tuple[str, int]]] = {
    "a file that isn't JSON": lambda: (f'{{"access_token": "{KEY}', 0o600),
    "a file that is a list": lambda: (json.dumps([KEY]), 0o600),
    "a file with a broken key": lambda: (json.dumps({"host": "https://a.example", "access_token": KEY + " "}), 0o600),
    "a file with a key in a list": lambda: (json.dumps({"host": "https://a.example", "access_token": [KEY]}), 0o600),
    "a file with a broken host": lambda: (json.dumps({"host": f"https://{KEY}@x", "access_token": KEY}), 0o600),
    "a file without a host": lambda: (json.dumps({"access_token": KEY}), 0o600),
    "a file that others can write": lambda: (json.dumps({"host": "https://a.example", "access_token": KEY}), 0o666),
    "a file for another host": lambda: (json.dumps({"host": "https://b.example", "access_token": KEY}), 0o600),
}


def _by_file(content: Callable[[], tuple[str, int]], name: str) -> Way:
    async def fails() -> BaseException:
        path = _file(*content())
        host = "https://a.example" if "another" in name else None
        try:
            return await failed(_made(lambda: Client(host)))
        finally:
            path.unlink()

    return fails


WAYS |= {name: _by_file(content, name) for name, content in FILES.items()}


@way("a token of the file that is refused, and so is the next")
async def _() -> BaseException:
    async with serve(_refusal(401)) as (url, _):
        path = _file(json.dumps({"host": url, "access_token": KEY}))
        async with Client() as client:
            _file(json.dumps({"host": url, "access_token": NEW_KEY}))
            error = await failed(listed(client))
        path.unlink()
        return error


@way("a refused token in a file that has become another's")
async def _() -> BaseException:
    async with serve(_refusal(401)) as (url, _):
        path = _file(json.dumps({"host": url, "access_token": KEY}))
        async with Client() as client:
            _file(json.dumps({"host": "https://b.example", "access_token": NEW_KEY}))
            error = await failed(listed(client))
        path.unlink()
        return error


FUNCTIONS: dict[str, Callable[[], Any]] = {
    "a function that gives bytes": lambda: KEY.encode(),
    "a function that gives a key with a newline": lambda: KEY + "\n",
    "a function that gives a list": lambda: [KEY],
    "a function whose key is refused": lambda: KEY,
    "a function that raises": _raise,
}


def _by_function(give: Callable[[], Any]) -> Way:
    async def fails() -> BaseException:
        async with serve(_refusal(401)) as (url, _), Client(url, give) as client:
            return await failed(client.count_runs("job"))

    return fails


WAYS |= {name: _by_function(give) for name, give in FUNCTIONS.items()}


@way("a client that is pickled")
async def _() -> BaseException:
    import pickle

    return await failed(_made(lambda: pickle.dumps(Client("https://a.example", KEY))))


@way("a client that is closed")
async def _() -> BaseException:
    async with client_of(lambda _: GOOD) as client:
        await client.count_runs("job")
    return await failed(client.count_runs("job"))


@way("a netrc file")
async def _() -> BaseException:
    netrc = Path.home() / "netrc"
    netrc.write_text("default login someone password else\n")
    netrc.chmod(0o600)
    os.environ["NETRC"] = str(netrc)
    try:
        async with aiohttp.ClientSession(trust_env=True) as http, client_of(lambda _: GOOD, session=http) as client:
            return await failed(client.count_runs("job"))
    finally:
        del os.environ["NETRC"]
