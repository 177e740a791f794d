"""Which request is sent next: a queue for all requests of a client, at the pace that fits the server.

If requests of several jobs wait, each job gets its turn, however many requests it has. A request that the server holds
back for longer than its retry policy allows leaves the queue with an error.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs

from tfruns._http.pace import Pace
from tfruns._http.retry import RetryPolicy
from tfruns.errors import APIConnectionError, APIError, APITimeoutError, ClientClosedError

_FIRST_CONTACT = 5.0
"""Seconds to wait for a server that has never responded: its host may be wrong."""
_LOGGED_AFTER = 1.0
"""Seconds without a good response after which that is logged: a rate limit alone may cause shorter pauses."""
_RECOVERED_AFTER = 10.0
"""Seconds at full speed after which a server that refused requests counts as recovered."""

logger = logging.getLogger("tfruns")


class NotSentError(Exception):
    """The server held a request back for longer than its retry policy allows.

    Attributes:
        reason: how long the server held it back, and what the policy allows.
        error: the error for a request that was never sent.
    """

    def __init__(self, reason: str, kind: type[APIConnectionError], last: APIError | None) -> None:
        self.reason = reason
        self.error = kind(f"not sent: {reason}" + (f"; the last failure: {last.args[0]}" if last else ""))


@attrs.define(eq=False)
class Turn:
    """One request that waits or is in flight. One method is called for its outcome; none if it was cancelled."""

    limiter: "Limiter"
    policy: RetryPolicy
    spent: float
    """How many seconds of the deadline have passed."""
    attempts: int
    """Attempts before this one, and probes that failed in its place."""
    may_send: asyncio.Future[None]
    blocked: float
    """`Pace.blocked` when this request began to wait."""
    sent_at: float = math.nan
    is_over: bool = False

    def good(self) -> None:
        """A response has arrived that shows that the server is healthy."""
        self._end()
        self.limiter.pace.good(self.sent_at, time.monotonic())

    def refused(self, error: APIError, wait: float, *, is_about_rate: bool) -> None:
        """It was refused because of the server's load; `wait` is what the server requests, in seconds."""
        self._end()
        self.limiter.pace.refused(self.sent_at, time.monotonic(), wait, is_about_rate=is_about_rate)
        self.limiter.failed(self, error)

    def failed(self, error: APIError) -> None:
        """No complete response has arrived, or one with an error of the server."""
        self._end()
        self.limiter.pace.failed(self.sent_at, time.monotonic())
        self.limiter.failed(self, error)

    def _end(self) -> None:
        self.is_over = True

    def held_for(self, now: float) -> float:
        """Seconds that the server has held it back while it waited."""
        return self.limiter.pace.blocked(now) - self.blocked


class Limiter:
    """Lets requests be sent at a pace. All of them belong to one event loop.

    Args:
        pace: how fast; it is kept when the event loop is closed.
        base_url: the server's, for messages.
    """

    def __init__(self, pace: Pace, base_url: str) -> None:
        self.pace = pace
        self.waiting = 0
        self.has_responded = False
        """Whether there was any response yet."""
        self._base_url = base_url
        self._queues: dict[str, deque[Turn]] = {}  # by job; the first is next
        self._timer: asyncio.TimerHandle | None = None
        self._last_error: APIError | None = None
        self._away_since: float | None = None  # when the outage that was logged began
        self._is_slow = False  # whether that was logged
        self._limited_at = -math.inf

    @asynccontextmanager
    async def turn(self, job_id: str, policy: RetryPolicy, *, spent: float, attempts: int) -> AsyncGenerator[Turn]:
        """Wait for the turn of a request, and hold its place until it is over.

        Raises:
            NotSentError: the server holds it back for longer than the policy allows.
            ClientClosedError: the client was closed.
        """
        now = time.monotonic()
        may_send: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turn = Turn(self, policy, spent, attempts, may_send, self.pace.blocked(now))
        self._queues.setdefault(job_id, deque()).append(turn)
        self.waiting += 1
        self._expire(turn, now)
        self._let_through()
        try:
            await may_send
        except asyncio.CancelledError:
            if not may_send.done() or may_send.cancelled():
                self.waiting -= 1  # it is still in the queue
            elif may_send.exception() is None:  # its turn had just come
                self._over(turn)
            raise
        try:
            yield turn
        finally:
            self._over(turn)

    def patience(self, policy: RetryPolicy) -> float:
        """How many seconds to wait now without a good response."""
        is_first_contact = not self.has_responded and isinstance(self._last_error, APIConnectionError)
        if is_first_contact and not isinstance(self._last_error, APITimeoutError):
            return min(policy.patience, _FIRST_CONTACT)
        return policy.patience

    def failed(self, turn: Turn, error: APIError) -> None:
        """A request has failed because of the server."""
        self._last_error = error
        if self.pace.is_away:  # a probe is an attempt for all that wait
            for waiting in self._each_waiting():
                waiting.attempts += 1

    def close(self) -> None:
        """Send nothing more: requests that wait end with ClientClosedError."""
        if self._timer is not None:
            self._timer.cancel()
        for turn in self._each_waiting():
            turn.may_send.set_exception(ClientClosedError())
        self._queues.clear()
        self.waiting = 0

    # --- the queue ---

    def _each_waiting(self) -> list[Turn]:
        return [turn for queue in self._queues.values() for turn in queue if not turn.may_send.done()]

    def _over(self, turn: Turn) -> None:
        now = time.monotonic()
        if not turn.is_over:
            self.pace.cancelled(now)
        self._report(now)
        for waiting in self._each_waiting() if self._is_blocked(now) else ():
            self._expire(waiting, now)
        self._let_through()

    def _let_through(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        while self._queues and self.pace.in_flight < self.pace.concurrency:
            if self.pace.earliest > now:
                break
            turn = self._next()
            if not turn.may_send.done():  # neither cancelled nor expired
                self.waiting -= 1
                self.pace.sent(now)
                turn.sent_at = now
                turn.may_send.set_result(None)
        if self.waiting:
            wakes_at = self.pace.earliest if self.pace.in_flight < self.pace.concurrency else math.inf
            if self._is_blocked(now):
                wakes_at = min(wakes_at, now + self._seconds_to_next_expiry(now))
            if wakes_at < math.inf:
                delay = max(0.0, wakes_at - now)
                self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = time.monotonic()
        for waiting in self._each_waiting() if self._is_blocked(now) else ():
            self._expire(waiting, now)
        self._let_through()

    def _next(self) -> Turn:
        job_id = next(iter(self._queues))
        queue = self._queues.pop(job_id)
        turn = queue.popleft()
        if queue:
            self._queues[job_id] = queue  # behind the others
        return turn

    # --- for how long the server may hold requests back ---

    def _is_blocked(self, now: float) -> bool:
        return self.pace.is_away or self.pace.held_for(now) > 0

    def _seconds_left(self, turn: Turn, now: float) -> float:
        """Seconds that the turn may still be held back."""
        left = math.inf if turn.policy.deadline is None else turn.policy.deadline - turn.spent - turn.held_for(now)
        if outage := self.pace.outage(now):
            left = min(left, self.patience(turn.policy) - outage)
        return left

    def _seconds_to_next_expiry(self, now: float) -> float:
        return min((self._seconds_left(turn, now) for turn in self._each_waiting()), default=math.inf)

    def _expire(self, turn: Turn, now: float) -> None:
        """End the wait if the server holds the request back for longer than its policy allows."""
        if not self._is_blocked(now):
            return
        held_for, outage = self.pace.held_for(now), self.pace.outage(now)
        policy = turn.policy
        deadline_left = math.inf if policy.deadline is None else policy.deadline - turn.spent - turn.held_for(now)
        patience = self.patience(policy)
        kind: type[APIConnectionError] = APIConnectionError
        if deadline_left <= 0 or held_for >= deadline_left:
            kind = APITimeoutError
            what = f"asks all requests to wait for {held_for:.3g} s" if held_for else "is away"
            left = f"{max(0.0, deadline_left):.3g} s are left of the retry policy's deadline of {policy.deadline} s"
            reason = f"{self._base_url} {what}, and {left}"
        elif outage >= patience:
            reason = f"{self._base_url} has never responded"
            if patience == policy.patience:
                allowed = f"the retry policy's patience is {patience:.3g} s"
                reason = f"no good response from {self._base_url} for {outage:.3g} s, and {allowed}"
        elif self.pace.is_away and policy.max_attempts is not None and turn.attempts >= policy.max_attempts:
            reason = f"no good response from {self._base_url}, and the retry policy allows no more attempts"
        else:
            return
        self.waiting -= 1
        turn.may_send.set_exception(NotSentError(reason, kind, self._last_error))

    # --- what is logged ---

    def _report(self, now: float) -> None:
        """Log once that the server is away or accepts fewer requests, and once that this is over."""
        if self.pace.is_away:
            if self._away_since is None and self.pace.outage(now) >= _LOGGED_AFTER:
                self._away_since = now - self.pace.outage(now)
                logger.warning("no good response from %s: only probes are sent until there is one", self._base_url)
        elif self._away_since is not None:
            logger.warning("%s responds again, after %.1f s", self._base_url, now - self._away_since)
            self._away_since = None
        elif self.pace.is_limited and not self.pace.outage(now):  # an outage that begins is neither
            self._limited_at = now
            if not self._is_slow:
                self._is_slow = True
                rate = "" if math.isinf(self.pace.rate) else f" and {self.pace.rate:.3g} a second"
                logger.warning(
                    "%s refuses or fails requests: slowing down to %d at once%s",
                    self._base_url,
                    self.pace.concurrency,
                    rate,
                )
        elif self._is_slow and now - self._limited_at >= _RECOVERED_AFTER:
            self._is_slow = False
            logger.warning("%s takes requests again: back to full speed", self._base_url)
