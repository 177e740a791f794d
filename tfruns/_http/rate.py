"""The rate that a server accepts, learned from what it refuses: a token bucket that has no clock of its own.

A refusal may mean that the rate is too high, or have nothing to do with it: a proxy may refuse one request in ten at
any load, or other clients may use up a limit. If every refusal lowered the rate, it would fall to nothing; if none did,
a server with a limit would refuse most of the requests. So outcomes are judged in rounds:

- A round with few refusals lets the rate grow: by little near the goodput of the last round with many refusals, and
  twice as much with each round after that. While nothing is known, the rate doubles.
- A round with many refusals sets the rate to the goodput, which is the number of good responses in the last second.
- If as large a share is refused after that, a round at 70 % of the goodput, an experiment, finds out why. If the
  refusals end, they were about the rate. If their share stays the same, they aren't: the cut is undone, that share is
  *usual* from then on, and only a larger share counts as many. Whether it is still usual is tested from time to time.

The constants were tuned on simulated servers (`benchmarks.limits_simulated`), and tested on other seeds.
"""

import math
from collections import deque

import attrs

_LATE = 0.05
"""Seconds: timers fire late; only so much of the lost time is made up for."""
_SLOWEST = 1.0
"""Requests a second: a learned rate never holds a request back for longer than a second."""
_IDLE = 1.0
"""Seconds without anything to send, after which earlier responses don't count as a measure of the rate any more."""
_FORGOTTEN = 10.0
"""Seconds without anything to send, after which the rate is forgotten. Until then it doubles with each second."""

_SHORT = 0.1
"""Seconds: a shorter wait that the server requests doesn't stop the clock of sending."""

_ROUND = 0.5
"""How many seconds a round lasts; half as many if the rate is known to be too low."""
_OUTCOMES = 8
"""The least number of outcomes in a round, if any of them is a refusal."""
_GOOD_OUTCOMES = 3
"""The least number of outcomes in a round, if none of them is a refusal."""
_REFUSALS_IN_A_ROW = 4
"""So many refusals in a row end a round."""
_REFUSALS_OF_MANY = 6
"""So many refusals end a round if they are half of its outcomes."""
_ALWAYS_USUAL = 0.02
"""A share of refusals up to this never counts as many."""

_CUT = 0.97
"""The share of the goodput to go on with, so that a server's bucket fills a little."""
_GROWTH = 0.015
"""The first steps of growth, as a share of the rate, ..."""
_LEAST_STEP = 0.5
"""... and at least, in requests a second, so that a client with a small share of a common limit gets a larger one."""
_LARGEST_STEP = 0.3
_QUITE_SURE = 8
"""Rounds with few refusals after which the rate doubles: the server accepts more than it did before."""
_COSTLY = 0.1
"""Seconds: a single refusal that requests a longer wait counts as many, ..."""
_COSTLY_CUT = 0.85
"""... lowers the rate by more, ..."""
_CAUTION = 10.0
"""... and keeps it from growing beyond the goodput for so many times that wait, as another refusal costs as much."""

_EXPERIMENT = 0.7
_SLOW = 5.0
"""Requests a second: below this rate an experiment goes up and not down, to four times the rate."""
_EXPECTED = 5.0
"""An experiment lasts until so many refusals are expected, if they aren't about the rate."""
_BELIEVED = 6.0
"""Seconds of sending until the usual share is tested again. They double each time that it is confirmed, up to 30."""


@attrs.define
class _Round:
    """The outcomes of the requests that were sent since the rate last changed."""

    began: float = 0.0
    """A time on the clock of sending."""
    counts_from: float = -math.inf
    """A time on the wall clock: requests sent before it aren't counted."""
    sent: int = 0
    good: int = 0
    refused: int = 0
    refused_in_a_row: int = 0
    is_costly: bool = False
    """Whether a refusal requested a long wait, which holds back all requests."""

    @property
    def outcomes(self) -> int:
        return self.good + self.refused

    @property
    def share(self) -> float:
        return self.refused / self.outcomes


@attrs.frozen
class _Experiment:
    """What was known before the rate was changed to find out why requests are refused."""

    rate: float
    goodput: float
    share: float


class RateLimiter:
    """When the next request may be sent.

    Args:
        max_rate: the most requests a second; infinite for any.
    """

    def __init__(self, max_rate: float) -> None:
        self._max_rate = max_rate
        self._learned = math.inf
        self._remembered = math.inf
        self._next_at = -math.inf
        # The clock of sending stops while nothing is to be sent, or nothing may be. Most times are on that clock.
        self._paused = 0.0
        self._began: float | None = None
        self._goods: deque[float] = deque()  # when the good responses of the last second arrived
        self._round = _Round()
        self._cautious_until = -math.inf
        # What is known from the last rounds with many refusals:
        self._ceiling = math.inf  # the goodput in the last of them
        self._is_unsure = True  # whether that is still unknown
        self._good_rounds = 0  # since then
        self._bad_rounds = 0  # in a row
        self._refused = self._outcomes = 0  # in these
        self._last_share = 0.0
        self._rate_before = math.inf  # the first of them
        self._refused_below_ceiling = 0
        # What is known from experiments:
        self._experiment: _Experiment | None = None
        self._usual = 0.0  # the share of refusals that is not about the rate
        self._usual_until = -math.inf
        self._believed = _BELIEVED
        self._evidence = 0.0, 0.0  # refusals and outcomes, older ones with less weight
        self._no_experiment_until = -math.inf
        self._experiment_pause = 1.0

    @property
    def rate(self) -> float:
        """Requests a second that may be sent now."""
        return min(self._max_rate, self._learned)

    @property
    def is_limited(self) -> bool:
        """Whether the rate is below the most."""
        return self._learned < self._max_rate

    @property
    def earliest(self) -> float:
        """When the next request may be sent."""
        return self._next_at

    # --- what happens ---

    def sent(self, now: float, *, held: float, idle: float, not_before: float) -> None:
        """A request is sent.

        Args:
            now: the time.
            held: seconds since the last request in which the server wanted none.
            idle: seconds in which there was no request to send.
            not_before: until when the server wanted no requests.
        """
        self._paused += max(0.0, held - _SHORT) + idle
        clock = now - self._paused
        if idle >= _IDLE:
            self._learned *= 2.0**idle if idle < _FORGOTTEN else math.inf
            self._experiment = None
            self._goods.clear()
            self._began = None
        if self._began is None:
            self._began = clock
            self._new_round(now, latency=0.0)
        self._round.sent += 1
        # Time held back earns no burst credit.
        self._next_at = max(self._next_at, now - _LATE, min(now, not_before)) + 1 / self.rate

    def good(self, sent_at: float, now: float) -> None:
        """A request sent at that time got a good response."""
        self._goods.append(now - self._paused)
        if len(self._goods) % 64 == 0:
            self._count(now - self._paused)  # so that it doesn't grow
        if sent_at >= self._round.counts_from:
            self._round.good += 1
            self._round.refused_in_a_row = 0
            self._judge(sent_at, now)

    def refused(self, sent_at: float, now: float, wait: float) -> None:
        """A request sent at that time was refused; `wait` is what the server requests, in seconds."""
        if wait > _COSTLY:
            self._round.is_costly = True
            self._cautious_until = max(self._cautious_until, now - self._paused + _CAUTION * wait)
        if sent_at >= self._round.counts_from:
            self._round.refused += 1
            self._round.refused_in_a_row += 1
            self._judge(sent_at, now)

    def remember(self) -> None:
        """Requests begin to fail. It may be an outage, which says nothing about the rate: so keep the present one."""
        self._remembered = self._learned

    def stopped(self, now: float, *, is_about_rate: bool) -> None:
        """So many requests in a row have failed that only probes are sent."""
        clock = now - self._paused
        if is_about_rate and (count := self._count(clock)):
            self._learned = max(_SLOWEST, min(self._learned, float(count)))
            self._is_unsure = self._seconds(clock) < 0.2
            self._ceiling = math.inf if self._is_unsure else float(count)
            self._good_rounds = 0 if self._seconds(clock) >= 1.0 else 3
        if self._experiment is not None:
            self._learned = max(self._learned, _CUT * self._experiment.goodput)
            self._experiment = None
        if not is_about_rate:
            self._learned = max(self._learned, self._remembered)
        self._round.counts_from = math.inf

    def resumed(self, now: float) -> None:
        """A probe got a good response."""
        if self._is_unsure and self._goods:  # the server has taken one request since the last good response
            self._learned = max(self._learned, 1 / max(1e-3, now - self._paused - self._goods[-1]))
        self._new_round(now, latency=0.0)

    # --- how outcomes change the rate ---

    def _seconds(self, clock: float) -> float:
        return 0.0 if self._began is None else clock - self._began

    def _count(self, clock: float) -> int:
        while self._goods and self._goods[0] <= clock - 1.0:
            self._goods.popleft()
        return len(self._goods)

    def _goodput(self, clock: float) -> float:
        return max(_SLOWEST, self._count(clock) / min(1.0, max(0.25, self._seconds(clock))))

    def _new_round(self, now: float, latency: float) -> None:
        # Refusals of requests that were already in flight don't count for the new rate.
        self._round = _Round(began=now - self._paused, counts_from=now + min(0.25, latency))

    def _judge(self, sent_at: float, now: float) -> None:
        clock = now - self._paused
        this = self._round
        seconds = max(0.02, clock - this.began)
        sent = min(self._learned, this.sent / seconds)  # a second
        if self._is_broken_off(this):
            self._experiment = None
        if self._experiment is not None:
            expected = this.outcomes * self._experiment.share
            is_enough = expected >= _EXPECTED or (expected >= 3 and not this.refused)
            if not (is_enough or this.outcomes >= 100 or seconds >= 3.0):
                return
            self._conclude(self._experiment, this, clock)
        elif this.refused >= _REFUSALS_OF_MANY and this.share >= 0.5 + self._usual / 2:
            self._brake(sent * (this.good + 0.5) / (this.outcomes + 1), clock)
        elif not self._is_over(this, seconds):
            return
        elif self._is_bad(this):
            self._slow_down(this, seconds, sent, clock)
        else:
            self._speed_up(this, sent, clock)
        self._new_round(now, now - sent_at)

    def _is_broken_off(self, this: _Round) -> bool:
        """Whether far more requests are refused in the experiment than before it: the server has changed."""
        before = self._experiment
        return before is not None and this.outcomes >= _OUTCOMES and this.share > 1.5 * before.share + 0.2

    def _is_over(self, this: _Round, seconds: float) -> bool:
        if not this.refused:
            is_too_slow = self.is_limited and (self._is_unsure or self._learned < 0.9 * self._ceiling)
            return this.outcomes >= _GOOD_OUTCOMES and seconds >= (_ROUND / 2 if is_too_slow else _ROUND)
        is_blocked = this.refused_in_a_row >= _REFUSALS_IN_A_ROW and self._usual < 0.1
        is_overshot = self._is_unsure and self.is_limited and this.refused >= _REFUSALS_OF_MANY and this.share >= 0.25
        return this.outcomes >= _OUTCOMES and (is_blocked or is_overshot or seconds >= _ROUND)

    def _is_bad(self, this: _Round) -> bool:
        if self._learned == math.inf and this.refused < 3:
            return False
        if this.is_costly and this.refused and not self._usual:
            return True
        usual = max(self._usual, _ALWAYS_USUAL)
        chance = math.sqrt(usual * (1 - usual) / this.outcomes)  # a standard deviation
        return this.share > usual + (2 if self._usual else 1) * chance

    def _brake(self, rate: float, clock: float) -> None:
        """Most requests are refused: slow down at once, without measuring."""
        count = self._count(clock)
        self._learned = max(_SLOWEST, min(self._learned, max(rate, count / 2)))
        if self._is_unsure and self._seconds(clock) >= 1.0:
            self._ceiling = float(count)
        self._is_unsure = self._ceiling == math.inf
        self._good_rounds = self._bad_rounds = self._refused = self._outcomes = 0

    def _slow_down(self, this: _Round, seconds: float, sent: float, clock: float) -> None:
        """Many requests are refused."""
        goodput = self._goodput(clock)
        if self._learned * (1 - self._usual) <= self._ceiling < math.inf:
            self._refused_below_ceiling += this.refused
        self._is_unsure = self._is_unsure and self._seconds(clock) < _ROUND
        self._ceiling = math.inf if self._is_unsure else goodput
        self._good_rounds = max(0, self._good_rounds - 3) if this.refused == 1 else 0
        if not self._bad_rounds:
            self._rate_before = self._learned
        self._bad_rounds += 1
        self._refused += this.refused
        self._outcomes += this.outcomes
        self._usual = self._usual / 2 if self._usual > 2 * _ALWAYS_USUAL else 0.0  # maybe it wasn't usual
        is_lasting = self._bad_rounds >= 2 and this.refused >= 2 and this.share >= self._last_share / 2
        self._last_share = this.share
        is_doubtful = self._learned == math.inf or (is_lasting and self._refused_below_ceiling >= 3)
        if is_doubtful and seconds >= _ROUND and clock >= self._no_experiment_until:
            share = self._refused / self._outcomes
            self._begin_experiment(self._rate_before, min(goodput, sent * (1 - share)), share)
        else:
            cut = 1.0 if self._usual else _COSTLY_CUT if this.is_costly else _CUT
            self._learned = max(_SLOWEST, min(self._learned, cut * goodput / (1 - self._usual)))

    def _speed_up(self, this: _Round, sent: float, clock: float) -> None:
        """Few requests are refused."""
        usual = self._usual
        if usual * this.outcomes >= 3 and this.share < usual / 3:
            self._usual = this.share
        if usual and clock >= self._usual_until:
            self._begin_experiment(self._learned, min(self._goodput(clock), sent * (1 - this.share)), this.share)
        else:
            self._grow(sent, clock)

    def _grow(self, sent: float, clock: float) -> None:
        self._bad_rounds = self._refused = self._outcomes = 0
        if self._learned == math.inf:
            return
        if self._is_unsure:
            self._learned *= 2
        elif self._learned < 0.9 * self._ceiling:
            self._learned = min(2 * self._learned, 0.9 * self._ceiling)
        elif clock >= self._cautious_until:
            self._good_rounds += 1
            step = max(_GROWTH * self._learned, _LEAST_STEP) * 2 ** max(0, self._good_rounds - 2)
            largest = 1.0 if self._good_rounds > _QUITE_SURE else _LARGEST_STEP
            self._learned += min(step, max(largest * self._learned, _LEAST_STEP))
        if self._learned >= 4 * max(sent, self._count(clock)):  # the rate isn't what holds requests back
            self._learned = math.inf
            self._good_rounds = 0

    def _begin_experiment(self, rate: float, goodput: float, share: float) -> None:
        self._experiment = _Experiment(rate, goodput, share)
        self._learned = _EXPERIMENT * goodput if goodput >= _SLOW else 4 * max(_SLOWEST, goodput)

    def _conclude(self, before: _Experiment, this: _Round, clock: float) -> None:
        self._experiment = None
        self._refused_below_ceiling = 0
        if this.refused >= 2 and before.share / 3 <= this.share <= 1.5 * before.share + 0.05:
            refused, outcomes = self._evidence
            self._evidence = refused / 2 + this.refused, outcomes / 2 + this.outcomes
            self._usual = min(0.5, self._evidence[0] / self._evidence[1])
            self._usual_until = clock + self._believed
            self._believed = min(30.0, 2 * self._believed)
            self._experiment_pause = 1.0
            self._learned = max(_SLOWEST, self._learned, before.rate, before.goodput / (1 - self._usual))
            self._ceiling = math.inf
            self._is_unsure = False
        else:
            self._evidence = 0.0, 0.0
            self._usual = 0.0
            self._believed = _BELIEVED
            self._no_experiment_until = clock + self._experiment_pause
            self._experiment_pause = min(30.0, 2 * self._experiment_pause)
            self._learned = max(_SLOWEST, _CUT * before.goodput)
