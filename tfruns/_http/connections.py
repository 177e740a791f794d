"""The connections of a client, which belong to one event loop of one process at a time, and whether it is closed."""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import attrs
from yarl import URL

from tfruns._http.responses import Response
from tfruns._http.secret import Secret
from tfruns.errors import ClientClosedError, ConfigurationError, EventLoopError, ResponseTooLargeError

_LONGEST_HEADER, _MOST_HEADERS = 2**16, 4096
"""In bytes, and in a response: aiohttp's own limits are below what some proxies and browsers' policies take."""
_READ_BUFFER = 2**20
"""How many bytes a connection holds before reading pauses: a page of 1,000 runs, to decompress it in few steps."""
# A host that can't be reached is noticed sooner. The caller's timeout covers all the rest.
_TIMEOUT = aiohttp.ClientTimeout(sock_connect=10.0)


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop of asyncio, or an EventLoopError if there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError(
            "no event loop of asyncio is running here, and the client needs one (trio's isn't)"
        ) from None


@attrs.define(eq=False)
class ClosedSignal:
    """Whether a client was closed. Tasks of any event loop can wait for it, one loop after the other."""

    is_set: bool = attrs.field(default=False, init=False)
    _waiters: set[asyncio.Future[Any]] = attrs.field(factory=set, init=False)

    def set(self) -> None:
        self.is_set = True
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    def now(self) -> float:
        """Seconds since some moment in the past. (A test has a clock of its own.)"""
        return running_loop().time()

    async def wait(self, seconds: float, until: "asyncio.Future[Any] | None" = None) -> None:
        """Wait so many seconds (maybe inf), or until the future is done. Raises ClientClosedError once it is closed."""
        waiter = running_loop().create_future() if until is None else until
        self._waiters.add(waiter)
        try:
            if not self.is_set:
                await asyncio.wait([waiter], timeout=None if seconds == math.inf else max(0.0, seconds))
        finally:
            self._waiters.discard(waiter)
        if self.is_set:
            raise ClientClosedError


@attrs.define(eq=False, repr=False)
class Connections:
    """An aiohttp session: the caller's, or our own, made when it is first needed, and again in another event loop."""

    _given: aiohttp.ClientSession | None
    _closed: ClosedSignal
    _most: int
    _trace_configs: Sequence[aiohttp.TraceConfig]
    _own: aiohttp.ClientSession | None = attrs.field(default=None, init=False)
    _left_behind: aiohttp.ClientSession | None = attrs.field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _process: int = attrs.field(default=0, init=False)  # in which they were bound to the event loop

    async def exchange(self, url: URL, headers: Mapping[str, str], key: Secret, *, max_bytes: int) -> Response:
        """Send a request, and read the whole response, whatever its status is. What aiohttp raises is unchanged."""
        if self._left_behind is not None:
            left, self._left_behind = self._left_behind, None
            await left.close()
        http = self._given or self._own
        if http is None:
            http = self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[*self._trace_configs],
                max_line_size=_LONGEST_HEADER,
                max_field_size=_LONGEST_HEADER,
                max_headers=_MOST_HEADERS,
            )
        sending = http.get(
            url,
            headers={**headers, "Authorization": key.bearer()},
            timeout=_TIMEOUT,
            allow_redirects=False,  # the key is for this host alone
            raise_for_status=False,
            read_bufsize=_READ_BUFFER,
        )
        try:
            async with sending as response:
                blocks, size = [], 0
                while size <= max_bytes and (block := await response.content.readany()):
                    blocks.append(block)
                    size += len(block)
                if not blocks:  # the body was read by a trace config or a middleware of the caller's: aiohttp keeps it
                    blocks = [await response.read()]
                    size = len(blocks[0])
                if size > max_bytes:
                    text = f"the response is longer than {max_bytes:,} bytes: use a smaller page size"
                    raise ResponseTooLargeError(text)
                return Response(response.status, response.reason or "", response.headers, b"".join(blocks))
        except ValueError as error:
            if not http.trust_env or "AUTH" not in str(error):
                raise
        raise ConfigurationError(
            f"the netrc file has a login for {url.origin()}, which the aiohttp session that the client was given would"
            " send in place of the API key: take it out, or set NETRC to another file"
        )

    @property
    def is_in_use(self) -> bool:
        """Whether they belong to an event loop that isn't closed."""
        return self._loop is not None and not self._loop.is_closed()

    def why_closed(self) -> ClientClosedError | None:
        """The error if they were closed, by us or by their owner."""
        if self._closed.is_set:
            return ClientClosedError()
        if self._given is not None and self._given.closed:
            return ClientClosedError("the aiohttp session that the client was given is closed: keep it open meanwhile")
        return None

    def check_open(self) -> None:
        if (error := self.why_closed()) is not None:
            raise error

    def enter_loop(self) -> bool:
        """Bind to the running event loop, or raise what makes that impossible: whether it is another than before."""
        self.check_open()
        loop = running_loop()
        if loop is self._loop:
            return False
        self.check_loop("make a client for each")
        if getattr(self._given, "_loop", loop) is not loop:
            raise EventLoopError(
                "the aiohttp session that the client was given was made in another event loop: make it in the one in"
                " which the client is used"
            )
        self._left_behind, self._own = self._own, None
        self._loop, self._process = loop, os.getpid()
        return True

    def check_loop(self, advice: str) -> None:
        """Raise EventLoopError if they are in use in another event loop, or were before a fork."""
        if self._loop is not None and os.getpid() != self._process:
            raise EventLoopError("the client was in use before this process was forked: make a client in each process")
        if self.is_in_use and self._loop is not running_loop():
            raise EventLoopError(f"the client is in use in another event loop: {advice}")

    async def aclose(self) -> None:
        if self._own is not None:
            await self._own.close()
