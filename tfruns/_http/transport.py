"""One page request in, the bytes of its answer out: connection, key, timeout, retries, throttling and errors."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import attrs
import tenacity
from multidict import CIMultiDict
from yarl import URL

from tfruns._decode.lenient import decode_leniently
from tfruns._decode.structure import decode_page
from tfruns._http.credentials import KeySource
from tfruns._http.events import ClientStats, HookError, Hooks, RequestEvent, ResponseEvent, RetryEvent, tell
from tfruns._http.limits import Pace, Throttle
from tfruns._http.options import CallOptions
from tfruns._http.responses import Response, status_error, why
from tfruns._http.retry import Budget, retrying, server_wait
from tfruns.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    EventLoopError,
    ResponseTooLargeError,
)
from tfruns.models import RunPage
from tfruns.query import PageRequest

_TROUBLE = frozenset({502, 503, 504})

logger = logging.getLogger("tfruns")


@attrs.define
class _Call:
    """One page request, with all its attempts."""

    request: PageRequest
    options: CallOptions
    attempts: int = 0
    spent: float = 0.0
    """Seconds on attempts and the waits between them, without the waits for its turn."""

    def told(self) -> dict[str, Any]:
        asked = self.request
        return {"job_id": asked.job_id, "offset": asked.offset, "limit": asked.limit, "attempt": self.attempts}


class Session:
    """Sends page requests, at most `max_concurrency` at a time, from any number of tasks of one event loop."""

    def __init__(
        self,
        *,
        base_url: str,
        key: KeySource,
        options: CallOptions,
        max_concurrency: int,
        max_rate: float,
        hooks: Hooks,
        http: aiohttp.ClientSession | None,
        trace_configs: Sequence[aiohttp.TraceConfig],
    ) -> None:
        self.base_url = base_url
        self.options = options
        self.max_concurrency = max_concurrency
        self.closed = False
        self._key = key
        self._http = http
        self._owns_http = http is None
        self._trace_configs = trace_configs
        self._hooks = hooks
        self._pace = Pace(max_concurrency, max_rate)
        self._budget = Budget(options.retry.budget)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._requests = self._retries = self._bytes = self._runs = 0

    # --- what belongs to one event loop ---

    def check_open(self) -> None:
        """Raise ClientClosedError if the session was closed, by us or by its owner."""
        if self.closed:
            raise ClientClosedError
        if self._http is not None and self._http.closed:
            raise ClientClosedError("the aiohttp session that the client was given is closed: keep it open meanwhile")

    async def _open(self) -> aiohttp.ClientSession:
        """The connections, in the running event loop."""
        self.check_open()
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._check_process()
            left = self._leave_loop()
            self._loop = loop
            self._throttle = Throttle(self._pace)
            self._closing = asyncio.Event()
            self._key.bind()
            if left is not None:
                await left.close()
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.max_concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[*self._trace_configs],
            )
        return self._http

    def _leave_loop(self) -> aiohttp.ClientSession | None:
        """Leave the event loop of before, if there was one and it is closed. Returns the connections left there."""
        if self._loop is None:
            return None
        if not self._loop.is_closed():
            raise EventLoopError("the client is in use in another event loop: make a client for each")
        if not self._owns_http:
            raise EventLoopError(
                "the aiohttp session that the client was given belongs to an event loop that is over: make both anew"
            )
        left, self._http = self._http, None
        return left

    def _check_process(self) -> None:
        if self._loop is not None and os.getpid() != self._process:
            raise EventLoopError("the client was in use before this process was forked: make a client in each process")
        self._process = os.getpid()

    async def aclose(self) -> None:
        """Make no more requests, and close the connections unless they are the caller's."""
        if self._loop is not None and not self._loop.is_closed():
            self._check_process()
            if self._loop is not asyncio.get_running_loop():
                raise EventLoopError("the client is in use in another event loop: close it there")
            self._throttle.close()
            self._closing.set()
        self.closed = True
        if self._http is not None and self._owns_http:
            await self._http.close()

    # --- one request ---

    async def fetch(self, request: PageRequest, options: CallOptions) -> bytes:
        """The body of the 200 that answers the request.

        Raises:
            APIConnectionError, APITimeoutError: no whole answer came, the last retry included.
            APIStatusError: an answer with another status; its subclass says which.
            ResponseTooLargeError: the response is larger than the options allow.
            ClientClosedError, EventLoopError: the session was closed, or belongs elsewhere.
            ConfigurationError: the key that the caller's function gave can't be sent.
        """
        call = _Call(request, options)
        attempts = retrying(
            options.retry,
            sleep=self._sleep,
            before_sleep=lambda state: self._tell_retry(call, state),
            spent=lambda: call.spent,
            budget=self._budget,
        )
        try:
            return await attempts(self._attempt, call)
        except APIError as error:
            error.attempts = call.attempts
            raise
        except (HookError, StopAsyncIteration) as failed:
            raised = failed.error if isinstance(failed, HookError) else failed
            if isinstance(raised, StopAsyncIteration):  # it would look like the end of the walk
                raise RuntimeError("a function given to the client raised StopAsyncIteration") from raised
            raise raised from None

    async def _attempt(self, call: _Call) -> bytes:
        http = await self._open()
        async with self._throttle.turn(call.request.job_id):
            began = time.monotonic()
            call.attempts += 1
            try:
                response = await self._ask(http, call)
            except ResponseTooLargeError:
                raise
            except APIError:
                self._pace.trouble(began, time.monotonic())
                raise
            finally:
                call.spent += time.monotonic() - began
            if response.status == 200:
                self._budget.earn()
                self._pace.good(time.monotonic())
                return response.body
            error = status_error(call.request, response, self.base_url, self._key)
            wait = min(server_wait(error), call.options.retry.max_server_wait)
            if response.status == 429:
                self._pace.refused(began, time.monotonic(), wait)
            elif response.status in _TROUBLE:
                self._pace.trouble(began, time.monotonic(), wait)
            raise error

    async def _ask(self, http: aiohttp.ClientSession, call: _Call) -> Response:
        seconds = max(0.001, min(call.options.timeout, call.options.retry.deadline - call.spent))
        job_id, offset = call.request.job_id, call.request.offset
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                key = await self._key.current()
                response = await self._send(http, call, key)
                if response.status == 401 and self._key.can_renew:
                    response = await self._send(http, call, await self._key.renew(key))
                return response
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            self.check_open()  # closing breaks what is under way, and shows in many ways
            if limit.expired():
                by = "the timeout" if seconds == call.options.timeout else "what is left of the retry policy's deadline"
                failure: APIConnectionError = APITimeoutError(
                    f"no whole answer from {self.base_url} within {seconds:.3g} s, {by}", job_id=job_id, offset=offset
                )
            else:
                failure = APIConnectionError(
                    f"no whole answer from {self.base_url}: {self._key.hide(why(error))}", job_id=job_id, offset=offset
                )
            holds_key = self._key.hide(repr(error)) != repr(error)  # aiohttp's errors hold the request's headers
            # Nor may the frames of its traceback: those that show variables would show the headers, too.
            failure.__cause__ = None if holds_key else error.with_traceback(None)
        except ValueError as error:
            if not (http.trust_env and "AUTH" in str(error)):
                raise
            raise ConfigurationError(
                f"the netrc file has a login for {self.base_url}, which the aiohttp session that the client was given"
                " would send in place of the API key: take it out, or set NETRC to another file"
            ) from None
        except RuntimeError as error:
            if not self.closed:
                raise
            raise ClientClosedError from error
        raise failure

    async def _send(self, http: aiohttp.ClientSession, call: _Call, key: str) -> Response:
        tell(self._hooks.on_request, RequestEvent(**call.told()))
        self._requests += 1
        began = time.monotonic()
        request = http.get(
            URL(self.base_url + call.request.target(), encoded=True),
            headers={**call.options.headers, "Authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(),  # ours is around it, and covers the key and the renewal too
            allow_redirects=False,  # the key is for this host alone
            raise_for_status=False,
        )
        async with request as response:
            body = await self._read(response, call)
        request_id = response.headers.get("x-request-id")
        event = ResponseEvent(
            **call.told(),
            status_code=response.status,
            size=len(body),
            seconds=time.monotonic() - began,
            request_id=self._key.hide(request_id) if request_id is not None else None,
        )
        logger.debug(
            "job %r, offset %d: %d, %d bytes in %.3f s",
            event.job_id,
            event.offset,
            event.status_code,
            event.size,
            event.seconds,
            extra=attrs.asdict(event),
        )
        tell(self._hooks.on_response, event)
        return Response(response.status, response.reason or "", CIMultiDict(response.headers), body)

    async def _read(self, response: aiohttp.ClientResponse, call: _Call) -> bytes:
        blocks, size = [], 0
        while block := await response.content.readany():
            blocks.append(block)
            size += len(block)
            self._bytes += len(block)
            if size > call.options.max_response_bytes:
                raise ResponseTooLargeError(
                    f"the response is longer than {call.options.max_response_bytes:,} bytes: request smaller pages",
                    job_id=call.request.job_id,
                    offset=call.request.offset,
                )
        return b"".join(blocks)

    def decode(self, body: bytes, *, job_id: str, offset: int, keep_bad: bool = False) -> RunPage:
        """The page of runs in a body, by `decode_page` or `decode_leniently`; its errors don't show the key."""
        decode = decode_leniently if keep_bad else decode_page
        return decode(body, job_id=job_id, offset=offset, hide=self._key.hide)

    # --- retries ---

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    def _tell_retry(self, call: _Call, state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        assert isinstance(error, Exception)  # noqa: S101  # for the type checker
        call.spent += state.upcoming_sleep
        self._retries += 1
        event = RetryEvent(**call.told(), error=error, wait=state.upcoming_sleep)
        logger.warning(
            "%s; attempt %d failed, the next is in %.2f s",
            error,
            event.attempt,
            event.wait,
            extra={**call.told(), "wait": event.wait, "request_id": getattr(error, "request_id", None)},
        )
        tell(self._hooks.on_retry, event)

    # --- counts ---

    def count_runs(self, runs: int) -> None:
        """So many runs are handed out."""
        self._runs += runs

    def stats(self) -> ClientStats:
        """The counts so far."""
        return ClientStats(
            requests=self._requests,
            retries=self._retries,
            bytes=self._bytes,
            runs=self._runs,
            under_way=0 if self._loop is None else self._throttle.under_way,
            concurrency=self._pace.concurrency,
        )
