"""How fast a client may send: at what rate, how many requests at once, and how while the server is away.

Nothing here has a clock or does I/O: the time is an argument of every method, so that tests needn't wait.
"""

import math

from tfruns._http.rate import RateLimiter

_IN_OUTAGE = 10  # so many failures in a row, without a good response between them, and only probes are sent
_FIRST_PROBE, _LAST_PROBE = 0.01, 1.0
"""Seconds from a failure to the next probe, at least and at most; between, a quarter of the outage so far."""
_PROBE_LOST_AFTER = 5.0  # seconds after which the next probe is sent, even if there is no response to the last one
_NEWEST = 0.1  # the weight of the newest outcome among all: three failures in a row are a quarter
_OUTAGE_UNKNOWN_AFTER = 60.0  # seconds without a call after which it isn't known any more whether an outage lasts


class ConcurrencyLimiter:
    """How many requests may be in flight: half as many when a quarter fails, one more after each round without that."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = self._slow_start_until = float(most)
        self._halved_at = -math.inf
        self._failed_share = 0.0  # of the last outcomes, of which the newest counts most

    @property
    def limit(self) -> int:
        return int(self._limit)

    @property
    def is_limited(self) -> bool:
        """Whether the limit is below the most because of failures, and not only after an outage."""
        return self.limit < self.most and self._slow_start_until < self.most

    def good(self) -> None:
        self._failed_share *= 1 - _NEWEST
        step = 1.0 if self._limit < self._slow_start_until else 1 / self._limit
        self._limit = min(float(self.most), self._limit + step)

    def failed(self, sent_at: float, now: float) -> None:
        """A request sent at that time got an error that too many requests at once may have caused."""
        if sent_at < self._halved_at:  # it was already in flight when the limit was halved
            return
        self._failed_share += _NEWEST * (1 - self._failed_share)
        if self._failed_share >= 0.25:
            self._limit = self._slow_start_until = max(1.0, self._limit / 2)
            self._halved_at, self._failed_share = now, 0.0

    def slow_start(self, in_flight: int) -> None:
        """Start again with one request more than are in flight, and add one for each good response."""
        self._limit = min(float(self.most), in_flight + 1.0)
        self._slow_start_until, self._failed_share = float(self.most), 0.0


class SendPace:
    """How many requests may be in flight, and when the next may be sent.

    A wait that the server requests holds back all requests. After ten failures in a row only probes are sent, until one
    gets a good response; then the client is back at full speed in a few rounds (slow start).
    """

    def __init__(self, max_concurrency: int, max_rate: float) -> None:
        self.in_flight = 0
        self.last_good: float | None = None  # when the last good response arrived
        self.has_responded = False
        self.has_given_page = False  # then the host is a control plane
        self.is_unreachable = False  # there was no response yet, and the last request couldn't even reach the host
        self._rate = RateLimiter(max_rate)
        self._concurrency = ConcurrencyLimiter(max_concurrency)
        self._over_at = math.inf  # when the last request that was in flight was over
        self._held_until = self._probe_at = -math.inf
        self._blocked = self._blocked_counted_at = self._blocked_when_sent = 0.0
        self._pending = 0  # calls that have begun and not ended
        self._idle_since = 0.0  # when the last of them ended
        self._failures = 0  # in a row
        self._failing_since = 0.0  # without the time in which no call was pending

    @property
    def in_outage(self) -> bool:
        """Whether all requests have failed for a while, so that only probes are sent."""
        return self._failures >= _IN_OUTAGE

    @property
    def concurrency(self) -> int:
        return self._concurrency.most if self.in_outage else self._concurrency.limit

    @property
    def rate(self) -> float:
        return self._rate.rate

    @property
    def is_limited(self) -> bool:
        """Whether fewer requests may be sent than the client's own limits allow."""
        return self.in_outage or self._rate.is_limited or self._concurrency.is_limited

    @property
    def earliest(self) -> float:
        return max(self._rate.earliest, self._probe_at) if self.in_outage else self._rate.earliest

    def held_for(self, now: float) -> float:
        """Seconds that are left of a wait that the server requested."""
        return max(0.0, self._held_until - now)

    def blocked(self, now: float) -> float:
        """Seconds so far in which the server held requests back: it had requested a wait, or was away."""
        until = now if self.in_outage else min(now, self._held_until)
        return self._blocked + max(0.0, until - self._blocked_counted_at)

    def outage(self, now: float) -> float:
        """Seconds since the first failure without a good response after it, in which any call was pending.

        What happens while nobody wants anything isn't known, and counts for nothing.
        """
        return (now if self._pending else self._idle_since) - self._failing_since if self._failures else 0.0

    def begin(self, now: float) -> None:
        """A call begins, which takes one or more requests, and ends with `end`."""
        if not self._pending:
            idle = now - self._idle_since
            self._failing_since = now if idle > _OUTAGE_UNKNOWN_AFTER else self._failing_since + idle
        self._pending += 1

    def end(self, now: float) -> None:
        self._pending -= 1
        self._idle_since = now

    def sent(self, now: float) -> None:
        blocked = self.blocked(now)
        held, self._blocked_when_sent = blocked - self._blocked_when_sent, blocked
        idle = 0.0 if self.in_flight else max(0.0, now - max(self._over_at, self.earliest))
        self._rate.sent(now, held=held, idle=idle)
        self.in_flight += 1
        self._probe_at = now + _PROBE_LOST_AFTER

    def good(self, sent_at: float, now: float) -> None:
        self._over(now)
        if self.in_outage:
            self._rate.resumed(now)
            self._concurrency.slow_start(self.in_flight)
        else:
            self._concurrency.good()
        self._failures = 0
        self.last_good = now
        self._rate.good(sent_at, now)

    def failed(self, sent_at: float, now: float, *, refusal: int | None = None, wait: float = 0.0) -> None:
        """A request sent at that time got no response, or an error of the server: if that is a `refusal`, its status.

        `wait` is what the server requests with that, in seconds.
        """
        self._over(now)
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        if self._failures == _IN_OUTAGE:
            self._rate.stopped(now, is_about_rate=refusal == 429)
        if refusal is None:
            self._concurrency.failed(sent_at, now)
        else:
            self._held_until = max(self._held_until, now + wait)
            self._rate.refused(sent_at, now, wait)
        self._probe_at = self._next_probe(now)

    def cancelled(self, now: float) -> None:
        self._over(now)
        self._probe_at = min(self._probe_at, self._next_probe(now))

    def _over(self, now: float) -> None:
        self._blocked, self._blocked_counted_at = self.blocked(now), now
        self.in_flight -= 1
        self._over_at = now

    def _next_probe(self, now: float) -> float:
        return now + min(_LAST_PROBE, max(_FIRST_PROBE, self.outage(now) / 4))
