"""How a request is sent.

From the outside in; each step is one coroutine, and there are no others:

1. `_fetch`: one attempt after another, until tenacity says that there is no further one. (`retry` decides.)
2. `_attempt`: waits in the queue of the client until the pace of the server allows it to be in flight (`limits` and
   `pace`), then holds its place there.
3. `_outcome`: waits until there is a response, or the time is over, and judges it.
4. `_send`: `_exchange`, with its hooks, and once more if the server refuses the key and there is a new one.
5. `Connections.exchange`: aiohttp.

`read` then makes a page of the response. (All gates before a page, also those of a walk, are listed in `_walk.jobs`.)
"""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
import attrs
from yarl import URL

from tfruns._decode.body import decode_page
from tfruns._http.connections import ClosedSignal, Connections
from tfruns._http.credentials import KeySource
from tfruns._http.events import ClientStats, FailureEvent, Hooks, RequestEvent, ResponseEvent, RetryEvent, UserCodeError
from tfruns._http.limits import Limiter
from tfruns._http.options import RequestOptions
from tfruns._http.pace import SendPace
from tfruns._http.responses import NO_PAGE, Response, connection_error, is_unreachable, status_error, timeout_error
from tfruns._http.retry import RETRYING, PageFetch
from tfruns._http.secret import Secret, make_safe
from tfruns._log import log, logger
from tfruns.errors import APIError, APITimeoutError, ClientClosedError, DecodeError, EventLoopError, TfRunsError
from tfruns.models import RunPage
from tfruns.query import PageRequest

_Result = TypeVar("_Result")

_WORTH_A_WARNING = 2.0
"""If a request fails for so many seconds, including the next wait, its retry is logged as a warning, once."""
_BUGS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, RecursionError),
    *(TypeError, ValueError),
)
"""What a mistake in a function of the caller's raises, such as one in a trace config: it is raised as it is."""


class Transport:
    """Sends page requests, at most `max_concurrency` at a time, from any number of tasks of one event loop."""

    def __init__(
        self,
        *,
        base_url: str,
        key: KeySource,
        options: RequestOptions,
        max_concurrency: int,
        max_rate: float,
        http: aiohttp.ClientSession | None,
        trace_configs: Sequence[aiohttp.TraceConfig],
    ) -> None:
        self.base_url = base_url
        self.options = options
        self.max_concurrency = max_concurrency
        self._counts = dict.fromkeys(("requests", "retries", "bytes", "runs"), 0)
        self.hooks = Hooks()
        self.closed = ClosedSignal()
        self._key = key
        self.connections = Connections(http, self.closed, max_concurrency, trace_configs)
        self._pace = SendPace(max_concurrency, max_rate)
        self._limiter = Limiter(self._pace, base_url)
        self._sending: set[asyncio.Timeout] = set()

    # --- how a request is sent, from the outside in ---

    def fetch(self, request: PageRequest, options: RequestOptions) -> Coroutine[Any, Any, PageFetch]:
        """Send a request until there is a response with the status 200."""
        return self._fetch(PageFetch(request, options, self._pace))

    async def _fetch(self, fetch: PageFetch) -> PageFetch:
        self._pace.begin(time.monotonic())
        try:
            while True:
                if fetch.outcome is None:  # else the last response has turned out to be no page
                    try:
                        fetch.response = await self._attempt(fetch)
                    except APIError as error:
                        if fetch.sent_at is None:  # the server has held it back for too long
                            raise
                        fetch.set_error(error)
                    else:
                        fetch.error = None  # its traceback leads to the fetch: the response would stay long
                        return fetch
                RETRYING.begin()  # its statistics belong to a thread
                await RETRYING.iter(fetch)
                self._before_retry(fetch)
                fetch.prepare_for_next_attempt()
                await self.closed.wait(fetch.upcoming_sleep)
        except (ClientClosedError, EventLoopError):
            raise
        except Exception as error:
            final = self._failed(fetch, error)
        finally:
            self._pace.end(time.monotonic())
            self.hooks.call("on_end")
        raise final

    async def _attempt(self, fetch: PageFetch) -> Response:
        handled = sys.exception()
        outcome: Response | Exception | None = None
        try:
            self.enter_loop()
            limiter = self._limiter
            limiter.join(fetch)
            try:
                if not fetch.turn.done():
                    await self.closed.wait(math.inf, fetch.turn)
                fetch.turn.result()  # raises an error if it was too late
                outcome = await self._outcome(fetch, handled)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            finally:
                limiter.leave(fetch, outcome)
        except BaseException as error:
            outcome = None  # else the error leads to itself, and only the garbage collector frees the response
            make_safe(error, fetch.request, handled)
            raise

    async def _outcome(self, fetch: PageFetch, handled: BaseException | None) -> Response | Exception:
        """What an attempt that is in flight comes to. (An error that is raised here would have an unsafe context.)"""
        began, pace = time.monotonic(), self._pace
        fetch.count_blocked(began)
        fetch.attempts += 1
        fetch.request_id = None
        left, timeout = fetch.left, fetch.options.timeout
        limit = asyncio.timeout(max(0.0, min(timeout, left)))
        self._sending.add(limit)
        try:
            async with limit:
                response = await self._send(fetch)
        except Exception as error:
            if isinstance(error, (TfRunsError, UserCodeError)):
                return error
            if (closed := self.connections.why_closed()) is not None:  # that ends requests with various errors
                return closed
            if limit.expired():
                return timeout_error(error, self.base_url, timeout, left)
            if isinstance(error, _BUGS) and not isinstance(error, (aiohttp.ClientError, OSError)):
                return error
            is_known = pace.has_responded
            pace.is_unreachable = not is_known and is_unreachable(error)
            return connection_error(error, self._key.redactor, self.base_url, handled=handled, is_known=is_known)
        finally:
            self._sending.discard(limit)
            fetch.spent += time.monotonic() - began
        pace.has_responded, pace.is_unreachable = True, False
        if response.status == 200:
            return response
        failure = status_error(response, self._key.redactor, base_url=self.base_url, key_origin=self._key.origin)
        if response.status in NO_PAGE:
            failure.is_transient = pace.has_given_page
        return failure

    async def _send(self, fetch: PageFetch) -> Response:
        key = self._key.known
        if key.value is None:
            key = await self._key.renew(key)
        response = await self._exchange(fetch, key)
        if response.status == 401 and (renewed := await self._key.renew(key)) != key:
            response = await self._exchange(fetch, renewed)
        return response

    async def _exchange(self, fetch: PageFetch, key: Secret) -> Response:
        if "on_request" in self.hooks:
            self.hooks.call("on_request", RequestEvent(**fetch.where(), attempt=fetch.attempts))
        self._counts["requests"] += 1
        began, options = time.monotonic(), fetch.options
        url = URL(self.base_url + fetch.request.target(), encoded=True)
        response = await self.connections.exchange(url, options.headers, key, max_bytes=options.max_response_bytes)
        seconds, size = time.monotonic() - began, len(response.body)
        self._counts["bytes"] += size
        fetch.request_id = self._key.redactor.clean(response.headers.get("x-request-id", "")) or None
        if "on_response" in self.hooks or logger.isEnabledFor(logging.DEBUG):
            event = ResponseEvent(
                **fetch.where(),
                attempt=fetch.attempts,
                status_code=response.status,
                size=size,
                seconds=seconds,
                request_id=fetch.request_id,
            )
            text, values = "job %r, offset %d: %d, %d bytes in %.3f s", (event.job_id, event.offset, response.status)
            log(logging.DEBUG, text, *values, size, seconds, extra=attrs.asdict(event))
            self.hooks.call("on_response", event)
        return response.as_error()

    async def read(self, fetch: PageFetch, *, keep_bad: bool = False) -> RunPage:
        """The page of runs in a response, as of `decode_page`. If it turns out to be no page, it is requested again."""
        handled, request, pace, hide = sys.exception(), fetch.request, self._pace, self._key.redactor.clean
        while True:
            try:
                page = decode_page(
                    fetch.response.body, job_id=request.job_id, offset=request.offset, hide=hide, keep_bad=keep_bad
                )
                pace.has_given_page = True
                return page
            except BaseException as error:
                make_safe(error, request, handled)
                if not isinstance(error, DecodeError):
                    raise
                error.is_transient = pace.has_given_page and not error.is_page
                fetch.set_error(error)
            await self._fetch(fetch)

    # --- what is reported ---

    def _before_retry(self, fetch: PageFetch) -> None:
        error, wait = fetch.error, fetch.upcoming_sleep
        fetch.spent += wait
        self._counts["retries"] += 1
        lasts = fetch.failing >= _WORTH_A_WARNING or isinstance(error, APITimeoutError)
        is_warning = lasts and not fetch.has_warned and not self._pace.in_outage  # an outage has its own warning
        fetch.has_warned = fetch.has_warned or is_warning
        extra = {**fetch.where(), "attempt": fetch.attempts, "wait": wait, "request_id": fetch.request_id}
        text = "%s; attempt %d failed, the next starts in %.2f s"
        log(logging.WARNING if is_warning else logging.INFO, text, error, fetch.attempts, wait, extra=extra)
        event = RetryEvent(**fetch.where(), attempt=fetch.attempts, error=error, wait=wait)
        self.hooks.call("on_retry", event)

    def _failed(self, fetch: PageFetch, error: Exception) -> Exception:
        """The error to raise, after the hook was called with it: the hook's own error, if it raises one."""
        if isinstance(error, UserCodeError):
            if error.is_of_a_hook:
                return error.error
            error = error.error
        if isinstance(error, APIError):
            error.attempts = fetch.attempts
            error.is_transient = error.is_transient and not self._pace.is_unreachable
        seconds, request_id = time.monotonic() - fetch.start_time, fetch.request_id
        event = FailureEvent(
            **fetch.where(), attempts=fetch.attempts, seconds=seconds, error=error, request_id=request_id
        )
        try:
            self.hooks.call("on_failure", event)
        except UserCodeError as failed:
            return failed.error
        return error

    def add_runs(self, count: int) -> None:
        self._counts["runs"] += count
        self.hooks.call("on_runs", count)

    def stats(self) -> ClientStats:
        return ClientStats(
            **self._counts,
            in_flight=self._pace.in_flight,
            waiting=len(self._limiter.waiting),
            concurrency=self._pace.concurrency,
            rate=None if math.isinf(self._pace.rate) else self._pace.rate,
        )

    # --- opening and closing ---

    def start(self, coroutine: Coroutine[Any, Any, _Result], name: str | None = None) -> asyncio.Task[_Result]:
        """Start a task of a walk. Its error is raised where it is awaited, if it still is."""
        task = asyncio.create_task(coroutine, name=name)
        _TASKS.add(task)
        task.add_done_callback(_forget)
        return task

    def enter_loop(self) -> None:
        """Bind to the running event loop, or raise what makes that impossible."""
        if self.connections.enter_loop():
            _TASKS.difference_update([task for task in _TASKS if task.get_loop().is_closed()])
            self._pace.in_flight = 0
            self._limiter = Limiter(self._pace, self.base_url)
            self._key.renewing = asyncio.Lock()

    async def aclose(self) -> None:
        """Send nothing more, and close the connections unless they are the caller's."""
        is_in_use = self.connections.is_in_use
        if is_in_use:
            self.connections.check_loop("close it there")
        self.closed.set()
        if is_in_use:
            for limit in self._sending:  # closing a connection doesn't wake a task that reads a body from it
                if not limit.expired():
                    limit.reschedule(0.0)
        await self.connections.aclose()


_TASKS: set[asyncio.Task[Any]] = set()
"""The tasks of walks until they are done: else those of a walk that nobody closes would be collected before it ends."""


def _forget(task: asyncio.Task[Any]) -> None:
    _TASKS.discard(task)
    if not task.cancelled():
        task.exception()  # else asyncio logs that nobody has seen it
