"""Which request is sent next: a queue for all requests of a client, at the pace that fits the server.

If requests of several jobs wait, each job gets its turn, however many requests it has. A request that the server holds
back for longer than its retry policy allows leaves the queue with an error.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque

from tfruns._http.pace import SendPace
from tfruns._http.responses import REFUSED, Response, server_wait
from tfruns._http.retry import PageFetch
from tfruns._log import log
from tfruns._text import seconds
from tfruns.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError, DecodeError

_LOGGED_AFTER = 1.0
"""Seconds without a good response after which that is logged: a rate limit alone may cause shorter pauses."""
_RECOVERED_AFTER = 10.0  # seconds at full speed after which a server that refused requests counts as recovered


class Limiter:
    """Lets requests be sent at a pace, which is kept when the event loop is closed. All belong to one event loop."""

    def __init__(self, pace: SendPace, base_url: str) -> None:
        self.pace = pace
        self._base_url = base_url
        # By job; the first is next. Cancelled ones stay for a while.
        self._queues: OrderedDict[str, deque[PageFetch]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._last_error: APIError | None = None
        self._outage_since: float | None = None  # when the outage that was logged began
        self._limited_at: float | None = None  # when the server, of which that was logged, last took fewer requests

    @property
    def waiting(self) -> list[PageFetch]:
        return [fetch for queue in self._queues.values() for fetch in queue if not fetch.turn.done()]

    def join(self, fetch: PageFetch) -> None:
        """Put an attempt into the queue. It is in flight when its turn has come, which may be at once."""
        fetch.blocked, fetch.failures, fetch.sent_at = self.pace.blocked(time.monotonic()), self.pace.failures, None
        fetch.turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(fetch.request.job_id, deque()).append(fetch)
        self._let_through()

    def leave(self, fetch: PageFetch, outcome: Response | Exception | None) -> None:
        """An attempt is over, or was cancelled (None): send the next, and only then say what happened."""
        if fetch.sent_at is None:
            fetch.turn.cancel()
            return
        now, pace = time.monotonic(), self.pace
        if isinstance(outcome, (APIError, Response)) and outcome.is_transient:
            status = getattr(outcome, "status_code", None)
            refusal = status if status in REFUSED else None
            pace.failed(fetch.sent_at, now, refusal=refusal, wait=server_wait(outcome))
            if isinstance(outcome, APIError):
                self._last_error = outcome
        elif isinstance(outcome, (Response, APIStatusError, DecodeError)):
            pace.good(fetch.sent_at, now)
        else:  # it was cancelled, or it wasn't the server that responded
            pace.cancelled(now)
        if self._queues:
            self._let_through()
        self._report(now)

    def _let_through(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, pace, wakes_at = time.monotonic(), self.pace, math.inf
        if self._queues and (pace.in_outage or pace.held_for(now)):
            for fetch in self.waiting:
                left = self._seconds_left(fetch, now)
                if isinstance(left, APIError):
                    fetch.turn.set_exception(left)
                else:
                    wakes_at = min(wakes_at, now + max(0.001, left))
        while self._queues and pace.in_flight < pace.concurrency and pace.earliest <= now:
            job_id, queue = self._queues.popitem(last=False)
            fetch = queue.popleft()
            if queue:
                self._queues[job_id] = queue  # behind the others
            if not fetch.turn.done():  # neither cancelled nor too late
                pace.sent(now)
                fetch.sent_at = now
                fetch.turn.set_result(None)
        if self._queues:
            if pace.in_flight < pace.concurrency:
                wakes_at = min(wakes_at, pace.earliest)
            if wakes_at < math.inf:
                self._timer = asyncio.get_running_loop().call_later(max(0.0, wakes_at - now), self._let_through)

    def _seconds_left(self, fetch: PageFetch, now: float) -> float | APIError:
        """Seconds for which it may wait, or the error if the server holds it back for longer than its policy allows."""
        pace, server, most = self.pace, self._base_url, fetch.policy.max_attempts
        fetch.count_blocked(now)
        held_for, outage = pace.held_for(now), pace.outage(now)
        # In an outage each failure of another is an attempt for all that wait.
        tried = max(0, pace.failures - fetch.failures) if pace.in_outage else 0
        # Its patience is over by a wait, or because of what was tried since it waits.
        left, limit = fetch.limit(outage if tried else 0.0 if held_for else -math.inf)
        if tried and most is not None and fetch.attempts + tried >= most:
            limit = "the retry policy allows no more attempts"
        elif held_for < left:
            return left
        why = f"no good response from {server} for {seconds(outage)}"
        if held_for:
            why = f"{server} asks all requests to wait for {seconds(held_for)}"
        reason = f"{why}, and {limit}"
        if isinstance(fetch.error, APIError):
            fetch.error.gave_up_because = reason
            return fetch.error
        kind = APITimeoutError if held_for >= fetch.left else APIConnectionError
        last = f"; the last failure: {self._last_error.args[0]}" if self._last_error else ""
        return kind(f"not sent: {reason}{last}")

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
            if self._limited_at is None:
                speed = f"{pace.concurrency} at once"
                speed += "" if math.isinf(pace.rate) else f" and {pace.rate:.3g} a second"
                log(logging.WARNING, "%s refuses or fails requests: slowing down to %s", server, speed)
            self._limited_at = now
        elif self._limited_at is not None and now - self._limited_at >= _RECOVERED_AFTER:
            self._limited_at = None
            log(logging.WARNING, "%s takes requests again: back to full speed", server)
