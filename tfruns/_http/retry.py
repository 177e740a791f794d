"""When a request is retried, and how long to wait before that: parts for tenacity. No I/O, only decisions."""

import asyncio
import math
import time
from typing import Any, cast

import tenacity

from tfruns._http.options import RequestOptions
from tfruns._http.pace import SendPace
from tfruns._http.responses import Response, requested_wait, server_wait
from tfruns._text import seconds
from tfruns.errors import APIError, APIStatusError
from tfruns.query import PageRequest

_OUT_OF_REACH = frozenset({429, 502, 503, 504})  # statuses that say nothing about the request itself
_FIRST_CONTACT = 5.0  # seconds to wait for a host that was never reached: it may be wrong
_OWN_FAILURES = 10  # the most attempts at a request that the server fails on while it responds well to others
_OWN_FAILURES_WITHOUT_OTHERS = 5
"""After so many of them, further failures count too, even without other requests: it isn't a new outage."""


class PageFetch(tenacity.RetryCallState):
    """One page request with all its attempts, from the queue to the response."""

    def __init__(self, request: PageRequest, options: RequestOptions, pace: SendPace) -> None:
        super().__init__(RETRYING, None, (), {})
        self.request = request
        self.options = options
        self.policy = options.retry
        self.pace = pace
        self.attempts = 0  # how often it was sent
        self.spent = 0.0  # seconds of the deadline that have passed
        self.own_failures = 0  # those that say something about the request, not about the server as a whole
        self.request_id: str | None = None  # the server's id of the last attempt
        self.has_warned = False
        self.error: Any = None  # the APIError of the last attempt that failed
        self.response: Response  # once it has arrived
        self._failing_since = math.inf  # in seconds of the deadline
        self._failed_at: float | None = None
        # Of the present attempt:
        self.blocked = 0.0  # of the seconds in which the server held requests back, those that were counted
        self.turn: asyncio.Future[None]  # if it had to wait: ends when it is in flight, or with an error if it was late
        self.failures = 0  # of the client, in a row, by then
        self.sent_at: float | None = None

    def where(self) -> dict[str, Any]:
        return {"job_id": self.request.job_id, "offset": self.request.offset, "limit": self.request.limit}

    @property
    def left(self) -> float:
        """Seconds of the deadline that are left."""
        return math.inf if self.policy.deadline is None else self.policy.deadline - self.spent

    def limit(self, passed: float) -> tuple[float, str]:
        """In how many seconds another attempt is too late, if so many have passed without a good response; and why."""
        policy = self.policy
        limits = {f"the retry policy's patience of {seconds(policy.patience)}": policy.patience - passed}
        if policy.deadline is not None:
            limits[f"the retry policy's deadline of {seconds(policy.deadline)}"] = self.left
        if self.pace.is_unreachable:
            limits[f"the {seconds(_FIRST_CONTACT)} for a host that has never responded"] = _FIRST_CONTACT - passed
        name = min(limits, key=limits.__getitem__)
        return limits[name], f"{seconds(max(0.0, limits[name]))} are left of {name}"

    def count_blocked(self, now: float) -> None:
        """Count what the server has held it back since it joined the queue, or since this was called last."""
        before, self.blocked = self.blocked, self.pace.blocked(now)
        self.spent += self.blocked - before

    @property
    def failing(self) -> float:
        """Seconds since it first failed."""
        return max(0.0, self.spent - self._failing_since)

    def set_error(self, error: APIError) -> None:
        self.error = error
        self.set_exception((type(error), error, error.__traceback__))

    def fail(self, now: float) -> None:
        self._failing_since = min(self._failing_since, self.spent)
        is_about_server = not isinstance(self.error, APIStatusError) or self.error.status_code in _OUT_OF_REACH
        last_good = self.pace.last_good
        others_are_well = last_good is None or self._failed_at is None or last_good >= self._failed_at
        if not is_about_server and (others_are_well or self.own_failures >= _OWN_FAILURES_WITHOUT_OTHERS):
            self.own_failures += 1
        self._failed_at = now


class Wait(tenacity.wait.wait_base):
    """Wait as long as the server requests, and then for a random time that grows with each attempt.

    In an outage there is no such time: probes are sent at their own.
    """

    def __call__(self, retry_state: Any) -> float:
        fetch: PageFetch = retry_state
        requested, policy = server_wait(fetch.error), fetch.policy
        if fetch.pace.in_outage:
            return requested
        return requested + tenacity.wait_random_exponential(policy.initial_backoff, policy.max_backoff)(fetch)


class Stop(tenacity.stop.stop_base):
    """Stop after the attempts, the deadline or the patience of the policy; the error says why, if it must."""

    def __call__(self, retry_state: Any) -> bool:
        fetch: PageFetch = retry_state
        most, wait = fetch.policy.max_attempts, fetch.upcoming_sleep
        if fetch.attempts >= most if most else fetch.own_failures >= _OWN_FAILURES:
            return True
        left, limit = fetch.limit(max(fetch.pace.outage(time.monotonic()), fetch.failing))
        if wait < left:
            return False
        requested = requested_wait(fetch.error)
        why = f"the next attempt would come in {seconds(wait)}"
        if requested and requested >= left:
            why = f"the server asks for a wait of {seconds(requested)}"
        fetch.error.gave_up_because = f"{why}, and {limit}"
        return True


RETRYING = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception(lambda error: cast("APIError", error).is_transient),
    wait=Wait(),
    stop=Stop(),
    after=lambda fetch: cast("PageFetch", fetch).fail(time.monotonic()),
    reraise=True,
)
"""What decides about the retries of a `PageFetch`."""
