"""The rate that a server accepts, learned from what it refuses.

A refusal may mean that the rate is too high, or have nothing to do with it: a proxy may refuse one request in ten at
any load. So outcomes are counted in rounds, each at one rate:

- After few refusals the rate grows: by little near the ceiling, which is the goodput at the last cut, else by more.
- After many refusals the rate is cut to the goodput, the number of good responses in the last second. The next round
  tests whether that helps. If about the same share is refused again, the rate isn't the reason: the cut is undone.

The constants were tuned on simulated servers, and tested on other seeds (`benchmarks.limits_simulated`).
"""

import math
from collections import deque

import attrs

_LATE = 0.05  # seconds: timers fire late; only so much of the lost time is made up for
_SLOWEST = 1.0  # requests a second: a learned rate never holds a request back for longer than a second
_IDLE, _FORGOTTEN = 1.0, 10.0
"""After so many seconds without anything to send the rate doubles with each second, and is forgotten in the end."""
_SHORT = 0.1  # seconds: a shorter wait that the server requests doesn't stop the clock of sending
_ROUND = 0.5
"""The least seconds of a round. It also has eight outcomes; three are enough if none of them is a refusal."""
_TEST, _EXPECTED = 3.0, 4.0
"""The most seconds of a test. It ends when so many refusals are to be expected if the rate isn't the reason."""
_FLOOD = 6  # so many refusals end a round at once if they are half of its outcomes
_NEGLIGIBLE = 0.02  # a share of refusals up to this never counts as many
_CUT = 0.97  # the share of the goodput to go on with, so that a server's bucket fills a little
_STEP, _LEAST_STEP, _LARGEST_STEP = 0.015, 0.5, 0.3
"""The first and the largest step of growth, as shares of the rate, and the least in requests a second."""
_CAREFUL = 10.0  # for so many times the wait that a refusal requests, the rate doesn't grow beyond the ceiling


@attrs.define
class _Round:
    """The outcomes of the requests that were sent since the rate last changed."""

    began: float = 0.0  # a time on the clock of sending
    counts_from: float = -math.inf  # a time on the wall clock: requests sent before it aren't counted
    tests: tuple[float, float] | None = None  # the rate, and the share of refusals, before a cut that this round tests
    good: int = 0
    refused: int = 0


class RateLimiter:
    """When the next request may be sent, at `max_rate` requests a second or fewer. It has no clock of its own."""

    def __init__(self, max_rate: float) -> None:
        self.earliest = -math.inf  # when the next request may be sent
        self._max_rate = max_rate
        self._learned = math.inf
        self._ceiling = math.inf
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
            self._goods.clear()
            self._began = now - self._paused
            self._round = _Round(self._began, now)
        self.earliest = max(self.earliest, now - _LATE) + 1 / self.rate

    def good(self, sent_at: float, now: float) -> None:
        self._goods.append(now - self._paused)
        if sent_at >= self._round.counts_from:
            self._round.good += 1
            self._judge(sent_at, now)

    def refused(self, sent_at: float, now: float, wait: float) -> None:
        """A request sent at that time was refused; `wait` is what the server requests, in seconds."""
        if wait > 0:
            self.earliest = max(self.earliest, now + wait)
        self._careful_until = max(self._careful_until, now - self._paused + _CAREFUL * wait)
        if sent_at >= self._round.counts_from:
            self._round.refused += 1
            self._judge(sent_at, now)

    def stopped(self, now: float, *, is_about_rate: bool) -> None:
        """So many requests in a row have failed that only probes are sent until `resumed`."""
        if not is_about_rate:
            self._learned = math.inf  # what an outage has refused says nothing about the rate
        elif goodput := self._goodput(now):
            self._cut(goodput, goodput)
        self._round.counts_from = math.inf

    def resumed(self, now: float) -> None:
        """A probe got a good response."""
        self._round = _Round(now - self._paused, now)

    def _goodput(self, now: float) -> float:
        clock = now - self._paused
        while self._goods and self._goods[0] <= clock - 1.0:
            self._goods.popleft()
        return len(self._goods) / min(1.0, max(0.25, clock - self._began))

    def _judge(self, sent_at: float, now: float) -> None:
        """Change the rate if the round is over."""
        this, rate = self._round, self._learned
        outcomes = this.good + this.refused
        share = this.refused / outcomes
        seconds = max(0.02, now - self._paused - this.began)
        is_flood = this.refused >= _FLOOD and share >= 0.5
        if this.tests is None:
            is_over = seconds >= _ROUND and outcomes >= (8 if this.refused else 3)
        else:
            is_over = seconds >= _TEST or outcomes * this.tests[1] >= _EXPECTED
        if not is_over and not is_flood:
            return
        goodput = self._goodput(now)
        # Refusals of requests that were already in flight don't count for the new rate.
        self._round = _Round(now - self._paused, now + min(0.25, now - sent_at))
        if this.tests and this.tests[1] / 2 <= share <= 1.5 * this.tests[1] + 0.05:
            self._learned = max(rate, 2 * this.tests[0])
            self._ceiling = math.inf
        elif is_flood or (share > _NEGLIGIBLE and (rate < math.inf or this.refused >= 3)):
            self._round.tests = rate, share
            # Refusals may come faster than pages, of which a flood then shows hardly any.
            accepted = min(rate, outcomes / seconds) * (this.good + 0.5) / (outcomes + 1)
            self._cut(max(accepted, goodput / 2) if is_flood else goodput, goodput)
        else:
            self._grow(goodput, now)

    def _cut(self, goodput: float, ceiling: float) -> None:
        self._learned = max(_SLOWEST, min(self._learned, _CUT * goodput))
        self._ceiling = ceiling
        self._good_rounds = 0

    def _grow(self, goodput: float, now: float) -> None:
        if self._learned < 0.9 * self._ceiling:
            self._learned = min(2 * self._learned, 0.9 * self._ceiling)
        elif self._learned < math.inf and now - self._paused >= self._careful_until:
            self._good_rounds += 1
            step = max(_STEP * self._learned, _LEAST_STEP) * 2 ** max(0, self._good_rounds - 2)
            self._learned += min(step, max(_LARGEST_STEP * self._learned, _LEAST_STEP))
        if self._learned >= 4 * max(1.0, goodput):  # the rate isn't what holds requests back
            self._learned = math.inf
