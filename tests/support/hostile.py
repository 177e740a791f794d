"""A real HTTP/1.1 server on loopback that responds with exactly the bytes that a test gives it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import msgspec


@attrs.frozen
class Request:
    """One request as it came over the wire."""

    number: int
    """How many came before it."""
    target: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def limit(self) -> int:
        return int(parse_qs(urlsplit(self.target).query)["limit"][0])

    @property
    def offset(self) -> int:
        return int(parse_qs(urlsplit(self.target).query)["offset"][0])


@attrs.frozen
class Raw:
    """Bytes to send as they are, before the connection is closed (or reset)."""

    data: bytes
    reset: bool = False


@attrs.frozen
class Stall:
    """Bytes to send, and then nothing more, with the connection left open."""

    data: bytes = b""


Reply = bytes | Raw | Stall
Handler = Callable[[Request], Reply | Awaitable[Reply]]


def response(status: int, body: Any = None, /, **headers: str) -> bytes:
    """A whole response; a body that isn't bytes is sent as JSON. `retry_after="1"` is the header Retry-After."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = {"content_type": "application/json", "content_length": str(len(data)), **headers}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + data


def run(number: int, **fields: Any) -> dict[str, Any]:
    """A run as the contract has it, the `number`th of its list."""
    return {
        "id": f"run-{number}",
        "name": f"name-{number}",
        "applicationName": "app",
        "deploymentVersion": "1",
        "createdAt": 1_700_000_000_000 - number,
        "command": "true",
        "totalRetries": 0,
        "status": "FINISHED",
        **fields,
    }


def page(runs: list[dict[str, Any]], total: int | None = None) -> dict[str, Any]:
    """A page as the contract has it."""
    return {"data": runs, "pagination": {"total": len(runs) if total is None else total}}


def pages_of(count: int) -> Callable[[Request], bytes]:
    """Answers any page of a list of `count` runs."""
    return lambda request: response(
        200, page([run(n) for n in range(request.offset, min(count, request.offset + request.limit))], count)
    )


@asynccontextmanager
async def serve(handler: Handler) -> AsyncGenerator[tuple[str, list[Request]]]:
    """Serve until the block ends: gives the server's URL, and the requests as they come in."""
    requests: list[Request] = []
    writers: set[asyncio.StreamWriter] = set()
    handlers: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await reader.readuntil(b"\r\n\r\n")) is not None:
            first, *rest = head.decode("latin-1").rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            request = Request(len(requests), first.split(" ")[1], headers)
            requests.append(request)
            reply = handler(request)
            if isinstance(reply, Awaitable):
                reply = await reply
            writer.write(reply if isinstance(reply, bytes) else reply.data)
            await writer.drain()
            if isinstance(reply, Stall):
                await asyncio.sleep(3600)
            if isinstance(reply, Raw):
                if reply.reset:
                    writer.transport.abort()
                return

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        writers.add(writer)
        try:
            await converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()
            handlers.discard(task)
            writers.discard(writer)

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}", requests
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()
