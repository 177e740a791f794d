"""Which request is sent next: a queue for all requests of a client, at the pace that fits the server.

If requests of several jobs wait, each job gets its turn, however many requests it has. A request that the server holds
back for longer than its retry policy allows leaves the queue with an error.
"""

import asyncio
import logging
import math
import time
from collections import deque
from typing import Self

from tfruns._http.pace import SendPace
from tfruns._http.responses import REFUSED, server_wait
from tfruns._http.retry import RetryState
from tfruns._log import log
from tfruns._text import seconds
from tfruns.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError, ClientClosedError, DecodeError

_LOGGED_AFTER = 1.0
"""Seconds without a good response after which that is logged: a rate limit alone may cause shorter pauses."""
_RECOVERED_AFTER = 10.0
"""Seconds at full speed after which a server that refused requests counts as recovered."""


class NotSentError(Exception):
    """The server held a request back for longer than its retry policy allows; `error` is for one never sent before."""

    def __init__(self, reason: str, kind: type[APIConnectionError], last: APIError | None) -> None:
        self.reason = reason
        self.error = kind(f"not sent: {reason}" + (f"; the last failure: {last.args[0]}" if last else ""))


class QueuedRequest:
    """One attempt of a request: within `async with` it is in flight. It was cancelled unless `end` is called."""

    def __init__(self, limiter: "Limiter", state: RetryState) -> None:
        self.state = state
        self.probes = 0  # how many have failed while it waited
        self.sent_at = math.nan
        self.may_send: asyncio.Future[None] | None = None
        self._limiter = limiter
        self._pace = limiter.pace
        self._blocked = self._pace.blocked(time.monotonic())
        self._is_over = False

    async def __aenter__(self) -> Self:
        if (waiting := self._limiter.join(self)) is not None:
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.cancelled():
                    self._limiter.waiting -= 1  # it is still in the queue
                elif waiting.exception() is None:  # its turn had just come
                    await self.__aexit__()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_over:
            self._pace.cancelled(time.monotonic())
        self._limiter.go_on()

    def held_for(self, now: float) -> float:
        """Seconds that the server has held it back."""
        return self._pace.blocked(now) - self._blocked

    def end(self, error: APIError | None = None) -> None:
        """There is a good response, or an error, which may say that the server's other requests have to slow down."""
        now, pace = time.monotonic(), self._pace
        if error is None or not error.is_transient:
            if isinstance(error, APIConnectionError) or (isinstance(error, DecodeError) and not error.is_page):
                return  # it wasn't the server that responded
            pace.good(self.sent_at, now)
        elif isinstance(error, APIStatusError) and error.status_code in REFUSED:
            pace.refused(self.sent_at, now, server_wait(error), is_about_rate=error.status_code == 429)
        else:
            pace.failed(self.sent_at, now)
        self._is_over = True
        if error is not None and error.is_transient:
            self._limiter.failed(error)


class Limiter:
    """Lets requests be sent at a pace, which is kept when the event loop is closed. All belong to one event loop."""

    def __init__(self, pace: SendPace, base_url: str) -> None:
        self.pace = pace
        self.waiting = 0
        self._base_url = base_url
        self._queues: dict[str, deque[QueuedRequest]] = {}  # by job; the first is next
        self._timer: asyncio.TimerHandle | None = None
        self._last_error: APIError | None = None
        self._outage_since: float | None = None  # when the outage that was logged began
        self._is_slow = False  # whether that was logged
        self._limited_at = -math.inf

    def join(self, request: QueuedRequest) -> "asyncio.Future[None] | None":
        """None if it is in flight at once; else a future that ends when it is, or with an error if that is too late."""
        now, pace = time.monotonic(), self.pace
        if not self.waiting and pace.in_flight < pace.concurrency and pace.earliest <= now:
            pace.sent(now)
            request.sent_at = now
            return None
        request.may_send = asyncio.get_running_loop().create_future()
        self._queues.setdefault(request.state.request.job_id, deque()).append(request)
        self.waiting += 1
        self._let_through()
        return request.may_send

    def failed(self, error: APIError) -> None:
        """A request has failed because of the server."""
        self._last_error = error
        if self.pace.in_outage:  # a probe is an attempt for all that wait
            for waiting in self._each_waiting():
                waiting.probes += 1

    def go_on(self) -> None:
        """A request is no longer in flight: send the next, and only then say what happened."""
        if self._queues:
            self._let_through()
        self._report(time.monotonic())

    def close(self) -> None:
        """Send nothing more: requests that wait end with ClientClosedError."""
        if self._timer is not None:
            self._timer.cancel()
        for request in self._each_waiting():
            self._end(request, ClientClosedError())
        self._queues.clear()

    def _each_waiting(self) -> list[QueuedRequest]:
        return [one for queue in self._queues.values() for one in queue if one.may_send and not one.may_send.done()]

    def _end(self, request: QueuedRequest, error: Exception | None = None) -> None:
        """End its wait."""
        assert request.may_send is not None  # noqa: S101  # for the type checker
        self.waiting -= 1
        if error is None:
            request.may_send.set_result(None)
        else:
            request.may_send.set_exception(error)

    def _let_through(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, pace, wakes_at = time.monotonic(), self.pace, math.inf
        if self._queues and (pace.in_outage or pace.held_for(now)):
            for request in self._each_waiting():
                left = self._seconds_left(request, now)
                if isinstance(left, NotSentError):
                    self._end(request, left)
                else:
                    wakes_at = min(wakes_at, now + max(0.001, left))
        while self._queues and pace.in_flight < pace.concurrency and pace.earliest <= now:
            job_id, queue = next(iter(self._queues.items()))
            request = queue.popleft()
            del self._queues[job_id]
            if queue:
                self._queues[job_id] = queue  # behind the others
            if request.may_send and not request.may_send.done():  # neither cancelled nor too late
                pace.sent(now)
                request.sent_at = now
                self._end(request)
        if self.waiting:
            if pace.in_flight < pace.concurrency:
                wakes_at = min(wakes_at, pace.earliest)
            if wakes_at < math.inf:
                self._timer = asyncio.get_running_loop().call_later(max(0.0, wakes_at - now), self._let_through)

    def _seconds_left(self, request: QueuedRequest, now: float) -> float | NotSentError:
        """Seconds for which it may wait, or the error if the server holds it back for longer than its policy allows."""
        pace, policy, server = self.pace, request.state.policy, self._base_url
        held_for, outage, patience = pace.held_for(now), pace.outage(now), pace.patience(policy.patience)
        deadline = math.inf if policy.deadline is None else policy.deadline
        left = deadline - request.state.spent - request.held_for(now)
        asks = f"{server} asks all requests to wait for {seconds(held_for)}"
        kind = APIConnectionError
        if left <= 0 or held_for >= left:
            kind = APITimeoutError
            reason = asks if held_for else f"{server} is away"
            reason += f", and {seconds(max(0.0, left))} are left of the retry policy's deadline of {seconds(deadline)}"
        elif held_for and request.held_for(now) + held_for >= policy.patience:
            reason = f"{asks}, and the retry policy's patience is {seconds(policy.patience)}"
        elif not pace.in_outage or not request.probes:  # nothing was tried since it waits
            return left
        elif outage >= patience:
            reason = f"{server} has never responded"
            if patience == policy.patience:
                allowed = f"the retry policy's patience is {seconds(patience)}"
                reason = f"no good response from {server} for {seconds(outage)}, and {allowed}"
        elif policy.max_attempts is not None and request.state.attempts + request.probes >= policy.max_attempts:
            reason = f"no good response from {server}, and the retry policy allows no more attempts"
        else:
            return min(left, patience - outage)
        return NotSentError(reason, kind, self._last_error)

    def _report(self, now: float) -> None:
        """Log once that the server is away or accepts fewer requests, and once that this is over."""
        pace, server = self.pace, self._base_url
        if pace.in_outage:
            if self._outage_since is None and pace.outage(now) >= _LOGGED_AFTER:
                self._outage_since = now - pace.outage(now)
                log(logging.WARNING, "no good response from %s: only probes are sent until there is one", server)
        elif self._outage_since is not None:
            since, self._outage_since = self._outage_since, None
            log(logging.WARNING, "%s responds again, after %.1f s", server, now - since)
        elif pace.is_limited and not pace.outage(now):  # an outage that begins is neither
            self._limited_at = now
            if not self._is_slow:
                self._is_slow = True
                speed = f"{pace.concurrency} at once"
                speed += "" if math.isinf(pace.rate) else f" and {pace.rate:.3g} a second"
                log(logging.WARNING, "%s refuses or fails requests: slowing down to %s", server, speed)
        elif self._is_slow and now - self._limited_at >= _RECOVERED_AFTER:
            self._is_slow = False
            log(logging.WARNING, "%s takes requests again: back to full speed", server)
