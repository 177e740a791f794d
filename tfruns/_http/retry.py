"""When a request is retried, and how long to wait before that: no I/O, only decisions."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import attrs
import tenacity

from tfruns._checks import checked_int, checked_number
from tfruns.errors import APIConnectionError, APIError, APIStatusError

REFUSED = frozenset({429, 503})
"""Statuses with which a server refuses a request because of its load."""
_OUT_OF_REACH = frozenset({429, 502, 503, 504})
"""Statuses that say nothing about the request itself."""
_RETRIED_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_A_DAY = 86_400.0  # in seconds; a longer time is a mistake in the unit
_LONGEST_WAIT = 60.0
"""Seconds: if a server requests a longer wait, a retry comes after these; it may have recovered, or be wrong."""
_OWN_FAILURES = 10
"""The most attempts at a request that the server fails on while it responds well to others."""

_OWN_FAILURES_WITHOUT_OTHERS = 5
"""After so many of them, further failures count too, even without other requests: it isn't a new outage."""


def _attempts(_: object, field: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None:
        checked_int(value, field.name, least=1, most=1_000)


def _seconds(_: object, field: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is None and field.default is None:
        return
    least = 0.001 if field.name == "deadline" else 0.0
    allowed = f"seconds, a number from {least:g} to {_A_DAY:g}"
    checked_number(value, field.name, allowed, least=least, most=_A_DAY)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and for how long a request is retried.

    Retried are connection errors, timeouts, responses that were cut off, and the statuses 408, 425, 429 and 5xx; any
    other failure is raised at once. The wait before the nth retry is drawn at random between 0 and
    `initial_backoff * 2**(n - 1)`, at most `max_backoff`. A wait that the server requests (`retry-after-ms`,
    `Retry-After`, or `X-RateLimit-Reset` on a 429 or 503) comes before it, up to a minute, and holds back all requests
    of the client. While every request fails, single requests probe the server, about one a second, and all others wait.

    The defaults are made for batch jobs, which an outage of some minutes doesn't end. A service that must respond soon
    sets `deadline`. AWS's SDKs retry, in their standard mode, like `RetryPolicy(max_attempts=3, max_backoff=20)`, and
    Stripe's like `RetryPolicy(max_attempts=3, initial_backoff=0.5, max_backoff=5)`. Both give up on an outage within
    seconds.

    Raises:
        TypeError, ValueError: a value isn't a number, or is out of range.

    Example:
        >>> patient = tfruns.RetryPolicy(patience=3600)
        >>> async with tfruns.Client(retry=patient) as client:
        ...     runs = await client.iter_runs("my-job-id", retry=tfruns.RetryPolicy(max_attempts=1)).collect()

    .. versionadded:: 0.1.0
    """

    max_attempts: int | None = attrs.field(default=None, validator=_attempts)
    """How often a request is sent at most, including the first time: 1 means no retries. None for as often as
    `patience` and `deadline` allow; but ten times if the server fails on this request (with a 500, for example) while
    it responds well to others."""
    initial_backoff: float = attrs.field(default=0.1, validator=_seconds)
    """Seconds: the longest wait before the first retry."""
    max_backoff: float = attrs.field(default=8.0, validator=_seconds)
    """Seconds: the longest wait before any retry, besides what the server requests."""
    deadline: float | None = attrs.field(default=None, validator=_seconds)
    """Seconds for one page in all: every attempt, every wait between them, and the time in which the server holds it
    back; but not the time in which it waits for its turn because of `max_concurrency` and `max_rate`. None for no
    limit."""
    patience: float = attrs.field(default=300.0, validator=_seconds)
    """Seconds: how long to wait for the end of an outage. A request fails once the client has had no good response from
    the server for so long, or once this request alone has failed for so long. (A server that has never responded since
    the client was made is given five seconds: its host may be wrong.)"""


@attrs.define
class Call:
    """The attempts at one request so far."""

    policy: RetryPolicy
    attempts: int = 0
    spent: float = 0.0
    """How many seconds of the deadline have passed."""
    own_failures: int = 0
    """Failures that say something about the request, not about the server as a whole."""
    failing_since: float | None = None
    """How many seconds of the deadline had passed when it first failed."""
    failed_at: float | None = None

    @property
    def failing(self) -> float:
        """Seconds since it first failed."""
        return 0.0 if self.failing_since is None else self.spent - self.failing_since

    def failed(self, error: BaseException, now: float, last_good: float | None) -> None:
        """An attempt has failed; `last_good` is when any request of the client last got a good response."""
        if self.failing_since is None:
            self.failing_since = self.spent
        is_about_server = not isinstance(error, APIStatusError) or error.status_code in _OUT_OF_REACH
        others_are_well = last_good is None or self.failed_at is None or last_good >= self.failed_at
        if not is_about_server and (others_are_well or self.own_failures >= _OWN_FAILURES_WITHOUT_OTHERS):
            self.own_failures += 1
        self.failed_at = now

    def reason_to_give_up(self, wait: float, *, outage: float, patience: float) -> str | None:
        """Why there is no further attempt after that wait; None if there is one, and empty if no reason has to be
        given.

        Args:
            wait: seconds before the next attempt.
            outage: seconds since the client had its last good response, if it has had failures since.
            patience: how many seconds to wait for the server.
        """
        policy = self.policy
        if policy.max_attempts is not None:
            if self.attempts >= policy.max_attempts:
                return ""
        elif self.own_failures >= _OWN_FAILURES:
            return ""
        if policy.deadline is not None and self.spent + wait >= policy.deadline:
            if self.spent >= policy.deadline:  # the error says so itself
                return ""
            return f"the next attempt would come after the retry policy's deadline of {policy.deadline:.3g} s"
        if max(outage, self.failing) + wait >= patience:
            if patience < policy.patience:
                return f"there was no response yet in {outage:.3g} s"
            return f"the retry policy's patience of {policy.patience:.3g} s is over"
        return None


def retrying(
    call: Call,
    *,
    sleep: Callable[[float], Awaitable[None]],
    before_sleep: Callable[[tenacity.RetryCallState], None],
    reason_to_give_up: Callable[[BaseException, float], str | None],
    is_away: Callable[[], bool],
) -> tenacity.AsyncRetrying:
    """The policy, applied to one request.

    Args:
        call: the request.
        sleep: waits so many seconds.
        before_sleep: is called before each retry.
        reason_to_give_up: why there is no further attempt after this error and that wait; None if there is one.
        is_away: whether every request fails: then probes are sent at their own times.
    """
    policy = call.policy
    backoff = tenacity.wait_random_exponential(multiplier=policy.initial_backoff, max=policy.max_backoff)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        requested = server_wait(error) if isinstance(error, APIStatusError) else 0.0
        return requested + (0.0 if is_away() else backoff(state))

    def stop(state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None  # noqa: S101  # for the type checker
        error = state.outcome.exception()
        assert error is not None  # noqa: S101  # the same
        reason = reason_to_give_up(error, state.upcoming_sleep)
        if reason and isinstance(error, APIError):
            error.gave_up_because = reason
        return reason is not None

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_retried),
        wait=wait,
        stop=stop,
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def is_retried(error: BaseException) -> bool:
    """Whether the failure may pass by itself."""
    if isinstance(error, APIStatusError):
        return error.status_code in _RETRIED_STATUSES
    # A certificate that isn't valid now won't be valid in a second either.
    return isinstance(error, APIConnectionError) and not isinstance(error.__cause__, aiohttp.ClientSSLError)


def server_wait(error: APIStatusError) -> float:
    """Seconds to wait before the next attempt that the server requests, a minute at most; 0 if it requests none."""
    return min(_requested_wait(error), _LONGEST_WAIT)


def _requested_wait(error: APIStatusError) -> float:
    headers = error.headers
    if (milliseconds := _decimal(headers, "retry-after-ms")) is not None:
        return milliseconds / 1000
    if (seconds := _decimal(headers, "retry-after")) is not None:
        return seconds
    try:
        return max(0.0, _timestamp(headers.get("retry-after", "")) - _server_time(headers))
    except (ValueError, OverflowError):
        pass
    reset = _decimal(headers, "x-ratelimit-reset")
    if reset is None or error.status_code not in REFUSED:
        return 0.0
    # Servers send either the seconds left or the time of the reset; no limit is reset in thirty years.
    return reset if reset < 1e9 else max(0.0, (reset / 1000 if reset > 1e11 else reset) - _server_time(headers))


def _decimal(headers: Mapping[str, str], name: str) -> float | None:
    value = headers.get(name, "").strip()
    return float(value) if _DECIMAL.fullmatch(value) else None


def _server_time(headers: Mapping[str, str]) -> float:
    """The server's time, so that a wrong clock here makes no wrong wait; this machine's if it isn't in the headers."""
    try:
        return _timestamp(headers.get("date", ""))
    except (ValueError, OverflowError):
        return time.time()


def _timestamp(http_date: str) -> float:
    date = parsedate_to_datetime(http_date)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
