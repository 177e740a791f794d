"""The connections of a client, which belong to one event loop of one process at a time."""

import asyncio
import os
from collections.abc import Sequence

import aiohttp

from tfruns.errors import ClientClosedError, EventLoopError


class Connections:
    """An aiohttp session: the caller's, or our own, made when it is first needed, and again in another event loop."""

    def __init__(
        self, http: aiohttp.ClientSession | None, *, most: int, trace_configs: Sequence[aiohttp.TraceConfig]
    ) -> None:
        self.is_closed = False
        self._http = http
        self._left_behind: aiohttp.ClientSession | None = None
        self._is_ours = http is None
        self._most = most
        self._trace_configs = trace_configs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    @property
    def is_in_use(self) -> bool:
        """Whether they belong to an event loop that isn't closed."""
        return self._loop is not None and not self._loop.is_closed()

    def check_open(self) -> None:
        """Raise ClientClosedError if they were closed, by us or by their owner."""
        if self.is_closed:
            raise ClientClosedError
        if self._http is not None and self._http.closed:
            raise ClientClosedError("the aiohttp session that the client was given is closed: keep it open meanwhile")

    def enter_loop(self) -> bool:
        """Bind to the running event loop. Returns whether that is another one than before.

        Raises:
            ClientClosedError: they were closed.
            EventLoopError: they are in use elsewhere.
        """
        self.check_open()
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return False
        self._check_process()
        if self._loop is not None:
            if self.is_in_use:
                raise EventLoopError("the client is in use in another event loop: make a client for each")
            if not self._is_ours:
                raise EventLoopError(
                    "the aiohttp session that the client was given belongs to an event loop that is over: make both"
                    " anew"
                )
            self._left_behind, self._http = self._http, None
        self._loop = loop
        return True

    async def http(self) -> aiohttp.ClientSession:
        """The session to send with, in the event loop that was entered."""
        left, self._left_behind = self._left_behind, None
        if left is not None:
            await left.close()
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[*self._trace_configs],
            )
        return self._http

    def check_closable(self) -> None:
        """Raise EventLoopError if they are in use in another event loop, or were before a fork."""
        if self.is_in_use:
            self._check_process()
            if self._loop is not asyncio.get_running_loop():
                raise EventLoopError("the client is in use in another event loop: close it there")

    async def aclose(self) -> None:
        """Close them, unless the session is the caller's."""
        self.is_closed = True
        if self._http is not None and self._is_ours:
            await self._http.close()

    def _check_process(self) -> None:
        if self._loop is not None and os.getpid() != self._process:
            raise EventLoopError("the client was in use before this process was forked: make a client in each process")
        self._process = os.getpid()
