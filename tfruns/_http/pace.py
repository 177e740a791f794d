"""How fast a client may send: at what rate, how many requests at once, and how while the server is away.

Nothing here has a clock or does I/O: the time is an argument of every method, so that tests needn't wait. The constants
of the rate were tuned on simulated servers, and tested on other seeds (`benchmarks.limits_simulated`).
"""

import math
from collections import deque

import attrs

_IN_OUTAGE = 10  # so many failures in a row, without a good response between them, and only probes are sent
_FIRST_PROBE, _LAST_PROBE = 0.01, 1.0
"""Seconds from a failure to the next probe, at least and at most; between, a quarter of the outage so far."""
_PROBE_LOST_AFTER = 5.0  # seconds after which the next probe is sent, even if there is no response to the last one
_NEWEST = 0.1  # the weight of the newest outcome among all: three failures in a row are a quarter
_OUTAGE_UNKNOWN_AFTER = 60.0  # seconds without a call after which it isn't known any more whether an outage lasts

_LATE = 0.05  # seconds: timers fire late; only so much of the lost time is made up for
_SLOWEST = 1.0  # requests a second: a learned rate never holds a request back for longer than a second
_IDLE, _FORGOTTEN = 1.0, 10.0
"""After so many seconds without anything to send the rate doubles with each second, and is forgotten in the end."""
_SHORT = 0.1  # seconds: a shorter wait that the server requests doesn't stop the clock of sending
_ROUND = 0.3
"""The least seconds of a round. It also has eight outcomes; three are enough if none of them is a refusal."""
_EXPECTED = 4.0  # a test ends when so many refusals are to be expected if the rate isn't the reason
_NEGLIGIBLE = 0.02  # a share of refusals up to this never counts as many
_CUT = 0.97  # the share of the goodput to go on with, so that a server's bucket fills a little
_STEP, _LEAST_STEP, _LARGEST_STEP = 0.015, 0.5, 0.3
"""The first and the largest step of growth, as shares of the rate, and the least in requests a second."""
_CAREFUL = 10.0  # for so many times the wait that a refusal requests, the rate doesn't grow


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


@attrs.define
class _Round:
    """The outcomes of the requests that were sent since the rate last changed."""

    began: float = 0.0  # a time on the clock of sending
    counts_from: float = -math.inf  # a time on the wall clock: requests sent before it aren't counted
    tests: tuple[float, float] | None = None  # the rate, and the share of refusals, before a cut that this round tests
    good: int = 0
    refused: int = 0


class RateLimiter:
    """When the next request may be sent: at `max_rate` requests a second, or at the rate that the server accepts.

    That is learned from what it refuses. A refusal may mean that the rate is too high, or have nothing to do with it: a
    proxy may refuse one request in ten at any load. So outcomes are counted in rounds, each at one rate:

    - After few refusals the rate grows, by more with each such round.
    - After many refusals the rate is cut to the goodput, the number of good responses in the last second. The next
      round tests whether that helps. If half of that share or more is refused again, the rate isn't the reason: the
      cut is undone.
    """

    def __init__(self, max_rate: float) -> None:
        self.earliest = -math.inf  # when the next request may be sent
        self._max_rate = max_rate
        self._learned = math.inf
        self._good_rounds = 0  # since the last cut
        self._careful_until = -math.inf
        self._round = _Round()
        # The clock of sending stops while nothing is to be sent, or nothing may be.
        self._paused = 0.0
        self._began = math.inf
        self._goods: deque[float] = deque()  # when the good responses of the last second arrived, on that clock

    @property
    def rate(self) -> float:
        return min(self._max_rate, self._learned)

    @property
    def is_limited(self) -> bool:
        return self._learned < self._max_rate

    def sent(self, now: float, *, held: float, idle: float) -> None:
        """A request is sent, after so many seconds in which the server wanted none, or there was none to send."""
        self._paused += max(_SHORT, held, idle) - _SHORT
        if idle >= _IDLE or self._began == math.inf:
            self._learned *= 2.0**idle if idle < _FORGOTTEN else math.inf
            self._began = now - self._paused
            self._round = _Round(self._began, now)
        self.earliest = max(self.earliest, now - _LATE) + 1 / self.rate

    def good(self, sent_at: float, now: float) -> None:
        self._goods.append(now - self._paused)
        self._count(sent_at, now, is_good=True)

    def refused(self, sent_at: float, now: float, wait: float) -> None:
        """A request sent at that time was refused; `wait` is what the server requests, in seconds."""
        self._careful_until = max(self._careful_until, now - self._paused + _CAREFUL * wait)
        self._count(sent_at, now, is_good=False)

    def outage(self, now: float, *, is_about_rate: bool) -> None:
        """So many requests in a row have failed that only probes are sent from now on, which aren't counted."""
        self._round = _Round(now - self._paused, now)
        if not is_about_rate:
            self._learned = math.inf  # what an outage has refused says nothing about the rate
        elif goodput := self._goodput(now):
            self._cut(goodput)

    def _goodput(self, now: float) -> float:
        clock = now - self._paused
        while self._goods and self._goods[0] <= clock - 1.0:
            self._goods.popleft()
        return len(self._goods) / min(1.0, max(0.25, clock - self._began))

    def _count(self, sent_at: float, now: float, *, is_good: bool) -> None:
        """Count the outcome, and change the rate if the round is over."""
        this, rate = self._round, self._learned
        if sent_at < this.counts_from:
            return
        this.good += is_good
        this.refused += not is_good
        outcomes = this.good + this.refused
        share = this.refused / outcomes
        if this.tests is not None:
            is_over = outcomes * this.tests[1] >= _EXPECTED
        else:
            is_over = now - self._paused - this.began >= _ROUND and outcomes >= (8 if this.refused else 3)
        if not is_over:
            return
        goodput = self._goodput(now)
        # Refusals of requests that were already in flight don't count for the new rate.
        self._round = _Round(now - self._paused, now + min(0.25, now - sent_at))
        if this.tests and this.tests[1] / 2 <= share:
            self._learned = max(rate, 2 * this.tests[0])
        elif share > _NEGLIGIBLE and (rate < math.inf or this.refused >= 3):
            self._round.tests = rate, share
            self._cut(goodput)
        elif rate < math.inf:
            self._grow(goodput, now)

    def _cut(self, goodput: float) -> None:
        self._learned = max(_SLOWEST, min(self._learned, _CUT * goodput))
        self._good_rounds = 0

    def _grow(self, goodput: float, now: float) -> None:
        if now - self._paused >= self._careful_until:
            self._good_rounds += 1
            step = max(_STEP * self._learned, _LEAST_STEP) * 2 ** max(0, self._good_rounds - 2)
            self._learned += min(step, max(_LARGEST_STEP * self._learned, _LEAST_STEP))
        if self._learned >= 4 * max(1.0, goodput):  # the rate isn't what holds requests back
            self._learned = math.inf


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
        self.failures = 0  # in a row
        self._failing_since = 0.0  # without the time in which no call was pending

    @property
    def in_outage(self) -> bool:
        """Whether all requests have failed for a while, so that only probes are sent."""
        return self.failures >= _IN_OUTAGE

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
        return max(self._rate.earliest, self._held_until, self._probe_at if self.in_outage else -math.inf)

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
        return (now if self._pending else self._idle_since) - self._failing_since if self.failures else 0.0

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
            self._concurrency.slow_start(self.in_flight)
        else:
            self._concurrency.good()
        self.failures = 0
        self.last_good = now
        self._rate.good(sent_at, now)

    def failed(self, sent_at: float, now: float, *, refusal: int | None = None, wait: float = 0.0) -> None:
        """A request sent at that time got no response, or an error of the server: if that is a `refusal`, its status.

        `wait` is what the server requests with that, in seconds.
        """
        self._over(now)
        if not self.failures:
            self._failing_since = now
        self.failures += 1
        if self.failures == _IN_OUTAGE:
            self._rate.outage(now, is_about_rate=refusal == 429)
        if refusal is None:
            self._concurrency.failed(sent_at, now)
        else:
            self._held_until = max(self._held_until, now + wait)
            if not self.in_outage:
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
