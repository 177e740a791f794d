"""Pages a second from the sandbox, at 1,000 runs a page, against a server that has the same bytes ready.

Run it from a checkout with `.venv/bin/python -m benchmarks.sandbox`. Each server is a process of its own, and so is the
client, which requests a few pages at a time and throws them away.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

RUNS = 1_000_000
PAGES = 500
AT_ONCE = 4
ROUNDS = 5


async def bytes_of(url: str, key: str) -> bytes:
    """One page as it is."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http, http.get(url) as response:
        return await response.read()


async def pages_a_second(url: str, key: str, offsets: list[int]) -> float:
    """How fast these pages come."""
    left = iter(offsets)

    async def fetch(http: aiohttp.ClientSession) -> None:
        for offset in left:
            async with http.get(f"{url}?limit=1000&offset={offset}") as response:
                assert response.status == 200
                await response.read()

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        begun = time.perf_counter()
        await asyncio.gather(*(fetch(http) for _ in range(AT_ONCE)))
        return len(offsets) / (time.perf_counter() - begun)


async def serve_bytes(body: bytes) -> None:
    """The floor: this body, for whatever is requested."""
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            for _ in range(data.count(b"\r\n\r\n")):
                self._transport.write(response)

    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}/", flush=True)
    await server.serve_forever()


@contextmanager
def process(*arguments: str, stdin: bytes | None = None) -> Iterator[Iterator[str]]:
    """A Python process, and the lines it prints."""
    command = [sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as running:  # type: ignore[call-overload]
        try:
            if stdin is not None:
                running.stdin.write(stdin)
                running.stdin.close()
            yield (line.decode().strip() for line in running.stdout)
        finally:
            running.terminate()


def main() -> None:
    """Print the table."""
    begun = time.perf_counter()
    arguments = ("-m", "tfruns", "sandbox", "--jobs", "1", "--runs", str(RUNS), "--api-key", "key")
    with process(*arguments) as lines:
        host, _, job = next(lines), next(lines), next(lines)
        url = f"{host.partition('=')[2]}/api/svc/v1/jobs/{job}/runs"
        print(
            f"{RUNS:,} runs made in {time.perf_counter() - begun:.0f} s; {PAGES} pages of 1,000, {AT_ONCE} at a time\n"
        )
        body = asyncio.run(bytes_of(f"{url}?limit=1000", "key"))
        with process("-m", "benchmarks.sandbox", "serve", stdin=body) as printed:
            floor = next(printed)
            rates: dict[str, list[float]] = {"the same bytes from memory": [], "shallow": [], "deep": []}
            for _ in range(ROUNDS):
                for what, where, offsets in (
                    ("the same bytes from memory", floor, [0] * PAGES),
                    ("shallow", url, [1000 * (n % 10) for n in range(PAGES)]),
                    ("deep", url, [RUNS - 1000 * (n % 10 + 1) for n in range(PAGES)]),
                ):
                    rates[what].append(asyncio.run(pages_a_second(where, "key", offsets)))
        for what, each in rates.items():
            print(f"{what:<44}{statistics.median(each):>8,.0f} pages/s  ({min(each):,.0f} to {max(each):,.0f})")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve_bytes(sys.stdin.buffer.read()))
    else:
        main()
