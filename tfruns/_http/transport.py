"""How a request is sent: in one or more attempts, each of which waits for its turn, is sent, and is judged."""

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import attrs
import tenacity
from yarl import URL

from tfruns._http.connections import Connections
from tfruns._http.credentials import KeySource
from tfruns._http.events import (
    CallerError,
    ClientStats,
    Counters,
    FailureEvent,
    Hooks,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    call_hooks,
)
from tfruns._http.exchange import exchange
from tfruns._http.limits import Limiter, NotSentError, Turn
from tfruns._http.options import CallOptions
from tfruns._http.pace import Pace
from tfruns._http.responses import Response, connection_error, read_page, status_error, timeout_error
from tfruns._http.retry import REFUSED, Call, is_retried, retrying, server_wait
from tfruns._http.secret import Secret
from tfruns._http.tracebacks import ErrorContext
from tfruns.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    DecodeError,
    EventLoopError,
)
from tfruns.models import RunPage
from tfruns.query import PageRequest

logger = logging.getLogger("tfruns")

_WORTH_A_WARNING = 2.0
"""If a request fails for so many seconds, including the next wait, its retry is logged as a warning, once."""


@attrs.define
class _Call:
    """One page request, with all its attempts."""

    request: PageRequest
    options: CallOptions
    began: float
    retries: Call
    last_error: APIError | None = None
    request_id: str | None = None
    """The server's id of the last attempt."""
    has_warned: bool = False
    """Whether a warning was logged for it."""

    def where(self) -> dict[str, Any]:
        return {"job_id": self.request.job_id, "offset": self.request.offset, "limit": self.request.limit}


@attrs.frozen
class Fetched:
    """A response with the status 200, and the call that it belongs to."""

    response: Response
    call: _Call = attrs.field(repr=False)

    @property
    def body(self) -> bytes:
        """The JSON of the page."""
        return self.response.body


class Transport:
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
        counters: Counters,
        http: aiohttp.ClientSession | None,
        trace_configs: Sequence[aiohttp.TraceConfig],
    ) -> None:
        self.base_url = base_url
        self.options = options
        self.max_concurrency = max_concurrency
        self.counters = counters
        self._key = key
        self.hooks = hooks
        self._connections = Connections(http, most=max_concurrency, trace_configs=trace_configs)
        self._pace = Pace(max_concurrency, max_rate)
        self._limiter: Limiter | None = None
        self._sending: set[asyncio.Timeout] = set()

    # --- how a request is sent, from the outside in ---

    async def fetch(self, request: PageRequest, options: CallOptions) -> Fetched:
        """A response with the status 200.

        Raises:
            APIConnectionError, APITimeoutError: there was no complete response, after the last retry.
            APIStatusError: a response with another status; its subclass says which.
            ResponseTooLargeError: the response is larger than the options allow.
            ClientClosedError, EventLoopError: the client was closed, or belongs to another event loop or process.
            ConfigurationError: the key that the caller's function returned can't be sent.
        """
        try:
            return await self._fetch(request, options)
        finally:
            for on_end in self.hooks.on_end:
                on_end()

    async def _fetch(self, request: PageRequest, options: CallOptions) -> Fetched:
        call = _Call(request, options, time.monotonic(), Call(options.retry))
        try:
            return Fetched(await self._attempts(call), call)
        except (ClientClosedError, EventLoopError):
            raise
        except CallerError as failed:
            error, is_of_a_hook = failed.error, failed.is_of_a_hook
        except NotSentError as failed:
            error, is_of_a_hook = self._not_sent(call, failed), False
        except Exception as failed:
            error, is_of_a_hook = failed, False
        if not is_of_a_hook:
            error = self._failed(call, error)
        raise error

    async def _attempts(self, call: _Call) -> Response:
        try:
            return await self._attempt(call)
        except APIError as error:
            if not is_retried(error):
                raise
            failed = [error]
        # tenacity is used only after a failed attempt: for one that succeeds, it would take longer than all our other
        # code.
        attempts = retrying(
            call.retries,
            sleep=self._sleep,
            before_sleep=lambda state: self._before_retry(call, state),
            reason_to_give_up=lambda error, wait: self._reason_to_give_up(call, error, wait),
            is_away=lambda: self._pace.is_away,
        )

        async def attempt() -> Response:
            if failed:
                raise failed.pop()
            return await self._attempt(call)

        return await attempts(attempt)

    async def _attempt(self, call: _Call) -> Response:
        with ErrorContext(call.request):
            limiter = self._enter_loop()
            http = await self._connections.http()
            retries = call.retries
            turn = limiter.turn(call.request.job_id, call.options.retry, spent=retries.spent, attempts=retries.attempts)
            async with turn as sending:
                began = time.monotonic()
                retries.spent += sending.held_for(began)
                retries.attempts += 1
                call.request_id = None
                try:
                    response = await self._send_in_time(http, call)
                    limiter.has_responded = True
                    if response.status == 200:
                        sending.good()
                        return response
                    raise status_error(
                        response, self._key.redactor, base_url=self.base_url, key_origin=self._key.origin
                    )
                except APIError as error:
                    retries.spent += time.monotonic() - began
                    call.last_error = error
                    self._judge(sending, error)
                    raise

    def _judge(self, sending: Turn, error: APIError) -> None:
        """Slow down or stop the client's other requests, if this failure says something about the server."""
        if not is_retried(error):
            if not isinstance(error, APIConnectionError):  # such as a certificate that isn't trusted
                sending.good()  # the server is healthy: only the request is wrong
        elif isinstance(error, APIStatusError) and error.status_code in REFUSED:
            sending.refused(error, server_wait(error), is_about_rate=error.status_code == 429)
        else:
            sending.failed(error)

    def _reason_to_give_up(self, call: _Call, error: BaseException, wait: float) -> str | None:
        now = time.monotonic()
        call.retries.failed(error, now, self._pace.last_good)
        patience = call.options.retry.patience if self._limiter is None else self._limiter.patience(call.options.retry)
        return call.retries.reason_to_give_up(wait, outage=self._pace.outage(now), patience=patience)

    def _not_sent(self, call: _Call, failed: NotSentError) -> APIError:
        """The error for a request that the server held back for too long: its last error, if it has failed before."""
        error = call.last_error
        if error is None:
            error = failed.error
            error.job_id, error.offset = call.request.job_id, call.request.offset
        else:
            error.gave_up_because = failed.reason
        return error

    async def _send_in_time(self, http: aiohttp.ClientSession, call: _Call) -> Response:
        deadline = call.options.retry.deadline
        left = math.inf if deadline is None else deadline - call.retries.spent
        seconds = max(0.001, min(call.options.timeout, left))
        limit = asyncio.timeout(seconds)
        handled = sys.exception()
        try:
            async with limit:
                self._sending.add(limit)
                try:
                    return await self._send_with_key(http, call)
                finally:
                    self._sending.discard(limit)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            self._connections.check_open()  # closing ends the requests in flight, with various errors
            if limit.expired():
                failure: APIConnectionError = timeout_error(
                    self.base_url, seconds, is_deadline=seconds != call.options.timeout
                )
                failure.__cause__ = error
            else:
                failure = connection_error(error, self._key.redactor, self.base_url, handled=handled)
        except ValueError as error:
            if not (http.trust_env and "AUTH" in str(error)):
                raise
            raise ConfigurationError(
                f"the netrc file has a login for {self.base_url}, which the aiohttp session that the client was given"
                " would send in place of the API key: take it out, or set NETRC to another file"
            ) from None
        except RuntimeError as error:
            if not self.is_closed:
                raise
            raise ClientClosedError from error
        raise failure

    async def _send_with_key(self, http: aiohttp.ClientSession, call: _Call) -> Response:
        key = await self._key.current()
        response = await self._send(http, call, key)
        if response.status == 401:
            renewed = await self._key.renew(key)
            if renewed != key:
                response = await self._send(http, call, renewed)
        return response

    async def _send(self, http: aiohttp.ClientSession, call: _Call, key: Secret) -> Response:
        call_hooks(self.hooks.on_request, RequestEvent(**call.where(), attempt=call.retries.attempts))
        self.counters.requests += 1
        began = time.monotonic()
        url = URL(self.base_url + call.request.target(), encoded=True)
        response = await exchange(http, url, call.options.headers, key, max_bytes=call.options.max_response_bytes)
        self.counters.bytes += len(response.body)
        request_id = response.headers.get("x-request-id")
        call.request_id = None if request_id is None else self._key.redactor.clean(request_id)
        event = ResponseEvent(
            **call.where(),
            attempt=call.retries.attempts,
            status_code=response.status,
            size=len(response.body),
            seconds=time.monotonic() - began,
            request_id=call.request_id,
        )
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "job %r, offset %d: %d, %d bytes in %.3f s",
                event.job_id,
                event.offset,
                event.status_code,
                event.size,
                event.seconds,
                extra=attrs.asdict(event),
            )
        call_hooks(self.hooks.on_response, event)
        return response

    def read(self, fetched: Fetched, *, keep_bad: bool = False) -> RunPage:
        """The page of runs in a response.

        Args:
            fetched: the response.
            keep_bad: whether a `BadRun` replaces a run that can't be understood. Otherwise such a run is an error.

        Raises:
            DecodeError: it isn't what the contract says.
        """
        try:
            return read_page(fetched.call.request, fetched.response, self._key.redactor, keep_bad=keep_bad)
        except DecodeError as error:
            failure = error
        raise self._failed(fetched.call, failure)

    # --- what is reported ---

    def _before_retry(self, call: _Call, state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        assert isinstance(error, Exception)  # noqa: S101  # for the type checker
        call.retries.spent += state.upcoming_sleep
        self.counters.retries += 1
        event = RetryEvent(**call.where(), attempt=call.retries.attempts, error=error, wait=state.upcoming_sleep)
        lasts = call.retries.failing >= _WORTH_A_WARNING or isinstance(error, APITimeoutError)
        level = logging.INFO
        if lasts and not call.has_warned and not self._pace.is_away:  # an outage has its own warning
            level = logging.WARNING
            call.has_warned = True
        logger.log(
            level,
            "%s; attempt %d failed, the next starts in %.2f s",
            error,
            event.attempt,
            event.wait,
            extra={
                **call.where(),
                "attempt": event.attempt,
                "wait": event.wait,
                "request_id": call.request_id,
            },
        )
        call_hooks(self.hooks.on_retry, event)

    def _failed(self, call: _Call, error: Exception) -> Exception:
        """The error to raise, after the hook was called with it: the hook's own error, if it raises one."""
        if isinstance(error, APIError):
            error.attempts = call.retries.attempts
        event = FailureEvent(
            **call.where(),
            attempts=call.retries.attempts,
            seconds=time.monotonic() - call.began,
            error=error,
            request_id=call.request_id,
        )
        try:
            call_hooks(self.hooks.on_failure, event)
        except CallerError as failed:
            return failed.error
        return error

    def stats(self) -> ClientStats:
        """The counts so far, and how fast the client sends."""
        return ClientStats(
            requests=self.counters.requests,
            retries=self.counters.retries,
            bytes=self.counters.bytes,
            runs=self.counters.runs,
            in_flight=self._pace.in_flight,
            waiting=0 if self._limiter is None else self._limiter.waiting,
            concurrency=self._pace.concurrency,
            rate=None if math.isinf(self._pace.rate) else self._pace.rate,
        )

    # --- opening and closing ---

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and can send nothing more."""
        return self._connections.is_closed

    def check_open(self) -> None:
        """Raise ClientClosedError if it was closed, or the caller's aiohttp session was."""
        self._connections.check_open()

    def _enter_loop(self) -> Limiter:
        if self._connections.enter_loop() or self._limiter is None:
            self._pace.in_flight = 0
            self._limiter = Limiter(self._pace, self.base_url)
            self._closing = asyncio.Event()
            self._key.bind()
        return self._limiter

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def aclose(self) -> None:
        """Send nothing more, and close the connections unless they are the caller's."""
        self._connections.check_closable()
        if self._connections.is_in_use and self._limiter is not None:
            self._limiter.close()
            self._closing.set()
            for limit in self._sending:  # closing a connection doesn't wake a task that reads a body from it
                if not limit.expired():
                    limit.reschedule(0.0)
        await self._connections.aclose()
