"""A server of run pages that costs next to nothing: an answer is a join of JSON texts, kept for the next who asks.

It runs in a process of its own, checks nothing, and answers only what the benchmarks ask. On request it is slow, or its
list changes with each page. A job's id says how many runs it has: `job-500` has the first 500, `job-all` all of them.
`/asked` says how many pages were asked for.
"""

import argparse
import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

from tfruns.sandbox.data import NEWEST, RunMaker
from tfruns.sandbox.wire import encode

_MADE_UP = 5_000  # made once and repeated under ids of their own: making a million takes too long
_ANSWERS_KEPT = 256  # two walks over 100 pages, with and without overlap


def run_texts(count: int, error_size: int = 0) -> list[bytes]:
    """So many runs as JSON texts, newest first; where a size is given, each with an error of so many characters."""
    made = sorted(RunMaker(0, "job").history(min(count, _MADE_UP)), key=lambda run: -run["createdAt"])
    chance = random.Random(0)
    error = "".join(chance.choices("0123456789abcdef \n", k=2 * error_size))
    texts = []
    for n in range(count):
        own = {"error": error[at : at + error_size]} if (at := n * 37 % (error_size or 1)) or error_size else {}
        texts.append(encode({**made[n % len(made)], "id": f"run-{n:021d}", "createdAt": NEWEST - n * 10, **own}))
    return texts


def page_body(texts: list[bytes], offset: int, limit: int) -> bytes:
    """The body of the answer for this page of these runs."""
    page = b",".join(texts[offset : offset + limit])
    return b'{"data":[%b],"pagination":{"total":%d,"offset":%d,"limit":%d}}' % (page, len(texts), offset, limit)


class _Server(asyncio.Protocol):
    def __init__(self, texts: list[bytes], options: argparse.Namespace) -> None:
        self._texts = texts
        self._options = options
        self._rng = random.Random(0)
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            answer = self._answer(head.split(b" ", 2)[1].decode())
            asyncio.get_running_loop().call_later(self._options.latency / 1000, self._transport.write, answer)

    def _answer(self, target: str) -> bytes:
        options = self._options
        if target == "/asked":
            return _whole(b"%d" % options.asked)
        options.asked += 1
        if target not in options.answers:
            if len(options.answers) == _ANSWERS_KEPT:
                del options.answers[next(iter(options.answers))]
            options.answers[target] = self._page(target)
        answer: bytes = options.answers[target]
        self._change()
        return answer

    def _page(self, target: str) -> bytes:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        size = url.path.split("/")[-2].removeprefix("job-")
        texts = self._texts if size == "all" else self._texts[: int(size)]
        return _whole(page_body(texts, int(query["offset"]), int(query["limit"])))

    def _change(self) -> None:
        options = self._options
        for _ in range(options.delete):
            del self._texts[self._rng.randrange(len(self._texts))]
        for _ in range(options.insert):
            options.born += 1
            created = {"id": f"new-{options.born:021d}", "createdAt": NEWEST + options.born}
            self._texts.insert(0, encode({**next(RunMaker(0, "job").history(1)), **created}))
        if options.delete or options.insert:
            options.answers.clear()


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def _serve(options: argparse.Namespace) -> None:
    texts = run_texts(options.runs, options.error_size)
    server = await asyncio.get_running_loop().create_server(lambda: _Server(texts, options), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


@contextmanager
def serving(runs: int, *, latency: float = 0, insert: int = 0, delete: int = 0, error_size: int = 0) -> Iterator[str]:
    """Serve so many runs from another process: gives the URL.

    `latency` is in milliseconds; `insert` and `delete` are how many runs come and go after each page.
    """
    options = [
        f"--runs={runs}",
        f"--latency={latency}",
        f"--insert={insert}",
        f"--delete={delete}",
        f"--error-size={error_size}",
    ]
    command = [sys.executable, "-m", "benchmarks.server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "insert", "delete", "born", "asked"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--error-size", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0)
    asyncio.run(_serve(parser.parse_args(namespace=argparse.Namespace(answers={}))))
