"""A server of run pages that costs next to nothing: a response is a join of JSON texts, kept for the next request.

It runs in a process of its own, checks nothing, and serves only what the benchmarks request. On request it is slow, or
compresses, or its list changes as responses are sent. A job's id says how many runs it has: `job-500` has the first
500, `job-all` all of them. `/requests` says how many pages were requested.
"""

import argparse
import asyncio
import gzip
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tfruns.sandbox.data import NEWEST, encode, history

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MADE_UP = 5_000  # made once and repeated under ids of their own: making a million takes too long
_RESPONSES_KEPT = 512  # walks over 100 pages, with and without overlap, in each encoding


def run_texts(count: int, error_size: int = 0) -> list[bytes]:
    """So many runs as JSON texts, newest first; where a size is given, each with an error of so many characters."""
    made = sorted(history(0, "job", min(count, _MADE_UP)), key=lambda run: -run["createdAt"])
    error = "".join(random.Random(0).choices("0123456789abcdef \n", k=2 * error_size))
    texts = []
    for n in range(count):
        at = n * 37 % max(1, error_size)
        own = {"error": error[at : at + error_size]} if error_size else {}
        texts.append(encode({**made[n % len(made)], "id": f"run-{n:021d}", "createdAt": NEWEST - n * 10, **own}))
    return texts


def page_body(texts: list[bytes], offset: int, limit: int) -> bytes:
    """The body of the response for this page of these runs."""
    page = b",".join(texts[offset : offset + limit])
    return b'{"data":[%b],"pagination":{"total":%d,"offset":%d,"limit":%d}}' % (page, len(texts), offset, limit)


class _Server(asyncio.Protocol):
    def __init__(self, texts: list[bytes], options: argparse.Namespace) -> None:
        self._texts = texts
        self._options = options
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            delay = self._options.latency + self._options.rng.random() * self._options.jitter
            asyncio.get_running_loop().call_later(delay / 1000, self._respond, head)

    def _respond(self, head: bytes) -> None:
        """The list is read when the response is sent, so that responses out of order show it at different times."""
        self._transport.write(self._response(head))

    def _response(self, head: bytes) -> bytes:
        options = self._options
        target = head.split(b" ", 2)[1].decode()
        if target == "/requests":
            return _whole(b"%d" % options.requests)
        options.requests += 1
        encoding = _encoding(head) if options.compress else ""
        if (target, encoding) not in options.responses:
            if len(options.responses) >= _RESPONSES_KEPT:
                del options.responses[next(iter(options.responses))]
            options.responses[target, encoding] = _whole(self._page(target), encoding)
        response: bytes = options.responses[target, encoding]
        if options.requests % options.every == 0:
            self._change()
        return response

    def _page(self, target: str) -> bytes:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        size = url.path.split("/")[-2].removeprefix("job-")
        texts = self._texts if size == "all" else self._texts[: int(size)]
        return page_body(texts, int(query["offset"]), int(query["limit"]))

    def _change(self) -> None:
        options = self._options
        for _ in range(options.delete):
            del self._texts[options.rng.randrange(len(self._texts))]
        for _ in range(options.insert):
            options.born += 1
            created = {"id": f"new-{options.born:021d}", "createdAt": NEWEST + options.born}
            self._texts.insert(0, encode({**next(history(0, "job", 1)), **created}))
        if options.delete or options.insert:
            options.responses.clear()


def _encoding(head: bytes) -> str:
    """What a proxy that prefers zstd to gzip, as the vendor's does, makes of the request."""
    accepted = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"accept-encoding:")), b"")
    return next((name for name in ("zstd", "gzip") if name.encode() in accepted), "")


def _whole(body: bytes, encoding: str = "") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    if encoding:
        head += b"Content-Encoding: %b\r\n" % encoding.encode()
        body = zstd.compress(body) if encoding == "zstd" else gzip.compress(body)
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


async def _serve(options: argparse.Namespace) -> None:
    texts = run_texts(options.runs, options.error_size)
    server = await asyncio.get_running_loop().create_server(lambda: _Server(texts, options), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


@contextmanager
def serving(runs: int, **how: Any) -> Iterator[str]:
    """Serve so many runs from another process: gives the URL.

    Args:
        runs: how many.
        how: `latency` of a response, and at most so much more, at random, by `jitter`, in milliseconds; `insert` and
            `delete`, how many runs come and go after each page, or after `every` so many; `compress`, whether to, with
            zstd or gzip; `error_size`, of how many characters each run has an error.
    """
    options = [f"--runs={runs}", *(f"--{name}={value:d}" for name, value in how.items())]
    command = [sys.executable, "-m", "benchmarks.server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "insert", "delete", "latency", "jitter", "compress", "error_size"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    state = argparse.Namespace(responses={}, requests=0, born=0, rng=random.Random(0))
    asyncio.run(_serve(parser.parse_args(namespace=state)))
