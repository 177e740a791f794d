"""When a request is tried again, and how long to wait before: no I/O, only decisions."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
import attrs
import tenacity

from tfruns.described import described
from tfruns.errors import APIConnectionError, APIError, APIStatusError
from tfruns.query import checked_int

_RETRIED_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
_WAIT_STATUSES = frozenset({429, 503})
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_A_DAY = 86_400.0  # in seconds; what is longer is a slip of units


def _whole(_: object, field: "attrs.Attribute[int]", value: int) -> None:
    checked_int(value, field.name, least=0 if field.name == "budget" else 1, most=1_000)


def _seconds(_: object, field: "attrs.Attribute[float]", value: float) -> None:
    least = 0.001 if field.name == "deadline" else 0.0
    allowed = f"{field.name} must be seconds, a number from {least:g} to {_A_DAY:g}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{allowed}, got {value!r}")
    if not least <= value <= _A_DAY:
        raise ValueError(f"{allowed}, got {value!r}")


@described
@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a request is retried.

    Retried are connection errors, timeouts, answers that were cut off, and the statuses 408, 425, 429 and 5xx; any
    other failure is raised at once. The wait before the nth retry is drawn at random between 0 and
    `initial_backoff * 2**(n - 1)`, at most `max_backoff`. A wait that the server asks for (`retry-after-ms`,
    `Retry-After`, or `X-RateLimit-Reset` on a 429 or 503), up to `max_server_wait`, comes before it.

    With the defaults, a server that fails a quarter of its answers at random breaks one walk of 120 pages in 8,000.

    Raises:
        TypeError, ValueError: a value that isn't a number, or is out of range.

    Example:
        >>> patient = tfruns.RetryPolicy(max_attempts=30, deadline=3600)
        >>> async with tfruns.Client(retry=patient) as client:
        ...     runs = await client.iter_runs("my-job-id", retry=tfruns.RetryPolicy(max_attempts=1)).collect()

    .. versionadded:: 0.1.0
    """

    max_attempts: int = attrs.field(default=10, validator=_whole)
    """How often a request is sent at most, the first time included: 1 means no retries."""
    initial_backoff: float = attrs.field(default=0.1, validator=_seconds)
    """Seconds: the longest wait before the first retry."""
    max_backoff: float = attrs.field(default=8.0, validator=_seconds)
    """Seconds: the longest wait before any retry, but for what the server asks for."""
    max_server_wait: float = attrs.field(default=60.0, validator=_seconds)
    """Seconds: the longest wait that the server can ask for."""
    deadline: float = attrs.field(default=300.0, validator=_seconds)
    """Seconds: the time for one page in all, every attempt and every wait between them included (but not the time that
    a request waits for its turn among the client's others)."""
    budget: int = attrs.field(default=500, validator=_whole)
    """How many more retries than good answers a client may make, over all its requests: where most answers fail,
    retries only multiply the load. A good answer earns one retry back."""


def retrying(
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Awaitable[None]],
    before_sleep: Callable[[tenacity.RetryCallState], None],
    spent: Callable[[], float],
    budget: "Budget",
) -> tenacity.AsyncRetrying:
    """A policy at work on one request.

    Args:
        policy: how often, and how patiently.
        sleep: waits so many seconds.
        before_sleep: is told of each retry.
        spent: tells how many seconds of the deadline are over.
        budget: what all requests may retry together.
    """
    backoff = tenacity.wait_random_exponential(multiplier=policy.initial_backoff, max=policy.max_backoff)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        asked = server_wait(error) if isinstance(error, APIStatusError) else 0.0
        return min(asked, policy.max_server_wait) + backoff(state)

    after_attempts = tenacity.stop_after_attempt(policy.max_attempts)
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_retried),
        wait=wait,
        stop=lambda state: (
            after_attempts(state) or spent() + state.upcoming_sleep >= policy.deadline or not budget.spend(state)
        ),
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


class Budget:
    """The retries that all requests of a client may make together."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def spend(self, state: tenacity.RetryCallState) -> bool:
        """Take one retry, if there is one; else the error says so."""
        if self._left > 0:
            self._left -= 1
            return True
        error = state.outcome and state.outcome.exception()
        if isinstance(error, APIError):
            error.is_over_budget = True
        return False

    def earn(self) -> None:
        """A good answer came."""
        self._left = min(self._most, self._left + 1)


def is_retried(error: BaseException) -> bool:
    """Whether the failure may pass by itself."""
    if isinstance(error, APIStatusError):
        return error.status_code in _RETRIED_STATUSES
    # A certificate that doesn't hold now won't hold in a second either.
    return isinstance(error, APIConnectionError) and not isinstance(error.__cause__, aiohttp.ClientSSLError)


def server_wait(error: APIStatusError) -> float:
    """Seconds that the server asks to wait before the next attempt; 0 if it asks for nothing that can be understood."""
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
    if reset is None or error.status_code not in _WAIT_STATUSES:
        return 0.0
    # Servers send either the seconds left or the time of the reset; no limit is reset in thirty years.
    return reset if reset < 1e9 else max(0.0, (reset / 1000 if reset > 1e11 else reset) - _server_time(headers))


def _decimal(headers: Mapping[str, str], name: str) -> float | None:
    value = headers.get(name, "").strip()
    return float(value) if _DECIMAL.fullmatch(value) else None


def _server_time(headers: Mapping[str, str]) -> float:
    """The server's clock, so that a wrong clock here makes no wrong wait; ours if it doesn't tell."""
    try:
        return _timestamp(headers.get("date", ""))
    except (ValueError, OverflowError):
        return time.time()


def _timestamp(http_date: str) -> float:
    date = parsedate_to_datetime(http_date)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
