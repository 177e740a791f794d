"""The pace that fits the server, in simulated time: nothing here sleeps or sends."""

import math
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.limits_simulated import REQUESTS, ROWS, SEEDS, TUNED_ON, Bucket, World
from tfruns._http.pace import ConcurrencyLimiter, SendPace

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["sent", "good", "failed", "refused", "away", "cancelled"]),
        st.floats(0, 2) | st.just(3600.0),  # seconds since the event before
        st.floats(0, 1),  # seconds since it was sent
        st.just(0.0) | st.floats(0, 60),  # the wait that the server asks for
    )
)


@given(EVENTS, st.integers(1, 64), st.floats(0.001, 1000) | st.just(math.inf))
def test_a_pace_stays_within_its_limits_and_never_stops(
    events: list[tuple[str, float, float, float]], most: int, max_rate: float
) -> None:
    """It keeps `max_concurrency` and the waits that the server asks for, and else lets a request go each second."""
    pace, now, held_until = SendPace(most, max_rate), 0.0, -math.inf
    for kind, pause, ago, wait in events:
        now += pause
        if kind == "sent" or pace.in_flight == 0:
            now = max(now, pace.earliest)
            pace.sent(now)
        elif kind == "good":
            pace.good(now - ago, now)
        elif kind == "failed":
            pace.failed(now - ago, now)
        elif kind == "cancelled":
            pace.cancelled(now)
        else:
            pace.failed(now - ago, now, refusal=429 if kind == "refused" else 503, wait=wait)
            held_until = max(held_until, now + wait) if wait else held_until
        assert 1 <= pace.concurrency <= most
        assert pace.rate <= max_rate
        assert held_until <= pace.earliest
        # Without probes in flight, the wait is a second; with one, it counts as lost after five.
        assert pace.earliest <= max(now, held_until) + max(1.01, 1 / max_rate + 0.01, 5.0 * (pace.in_flight > 0))
        assert 0 <= pace.blocked(now) <= now


@given(st.floats(0.01, 1000), st.integers(2, 200), st.floats(0, 3))
def test_no_more_requests_than_the_most_go_out(rate: float, count: int, pause: float) -> None:
    """`max_rate` holds however often requests are let through, and idle time earns no more than what timers lose."""
    pace, now = SendPace(16, rate), 0.0
    for _ in range(count):
        now = max(now, pace.earliest)
        pace.sent(now)
        pace.good(now, now)
    pace.sent(now + pause)
    assert now >= (count - 1) / rate * (1 - 1e-9) - 0.05
    assert pace.earliest >= now + min(pause, 1 / rate) - 0.05 - 1e-6


@pytest.mark.parametrize("idle", [0.5, 3, 10, 60, 12 * 3600])
def test_one_refusal_after_idle_time_holds_back_nothing(idle: float) -> None:
    """In 0.1.0, three good requests, a pause of a minute and one 429 made each of the next requests wait 20 s."""
    pace, now = SendPace(16, math.inf), 0.0
    for _ in range(3):
        pace.sent(now)
        pace.good(now, now + 0.05)
        now += 0.1
    now += idle
    pace.sent(now)
    pace.failed(now, now + 0.05, refusal=429)
    for _ in range(20):
        now += 0.06
        assert pace.earliest <= now
        pace.sent(now)
        pace.good(now, now + 0.05)


def test_one_refusal_in_many_requests_costs_next_to_nothing() -> None:
    """In 0.1.0, one 429 in 401 requests took an export from 3.9 to 40.8 s."""

    class OneRefusal(Bucket):
        count = 0

        def takes(self, now: float) -> bool:
            self.count += 1
            return self.count != 200

    ideal = World(lambda rng: Bucket(rng, [(0.0, math.inf)]), 1, requests=401).run().seconds
    assert World(lambda rng: OneRefusal(rng, [(0.0, math.inf)]), 1, requests=401).run().seconds <= 1.1 * ideal


def test_refusals_in_quiet_times_cost_a_later_burst_nothing() -> None:
    """Five single 429s, each three quiet seconds apart; then 200 requests at 32 at once, within 1.3 times the ideal."""

    def burst(pace: SendPace, now: float) -> float:
        began, ends = now, []
        for _ in range(200):
            if len(ends) >= pace.concurrency:
                now = max(now, ends.pop(0))
                pace.good(now - 0.1, now)
            now = max(now, pace.earliest)
            pace.sent(now)
            ends.append(now + 0.1)
        return ends[-1] - began

    ideal = burst(SendPace(32, math.inf), 0.0)
    pace, now = SendPace(32, math.inf), 0.0
    for _ in range(5):
        for is_good in (True, False, True):
            pace.sent(now)
            pace.good(now, now + 0.05) if is_good else pace.failed(now, now + 0.05, refusal=429)
            now += 0.1
        now += 3
    assert burst(pace, now - 3) <= 1.3 * ideal  # at once, without a pause before it
    assert ideal < 0.8


def test_the_seeds_of_these_tests_are_not_those_of_the_tuning() -> None:
    """What is measured is not what was fitted."""
    assert not TUNED_ON & set(SEEDS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if "20 times" in name or "3 clients" in name else ())
        for name, row in ROWS.items()
        if row.target is not None
    ],
)
def test_the_pace_fits_the_server(name: str) -> None:
    """On the mean of some seeds: the targets of `benchmarks/README.md`; and no seed is far from them."""
    row = ROWS[name]
    assert row.target is not None
    seeds = SEEDS[:3] if "times as" in name else SEEDS[:8]
    times, shares = zip(*map(row.run, seeds), strict=True)
    assert sum(times) / len(times) <= row.target
    assert max(times) <= 1.15 * row.target
    if row.most_refused is not None:
        assert sum(shares) / len(shares) <= row.most_refused
        assert max(shares) <= 2.5 * row.most_refused


def test_a_refusal_that_demands_a_wait_makes_the_rate_careful() -> None:
    """With a `Retry-After` of a second on each refusal, a limit is not tried again and again at a second each."""

    def seconds(seed: int) -> float:
        return World(lambda rng: Bucket(rng, [(0.0, 50.0)], 10), seed, wait=1.0, requests=2 * REQUESTS).run().seconds

    assert mean(map(seconds, SEEDS[:4])) <= 1.6 * (2 * REQUESTS - 10) / 50


def test_hours_without_a_refusal_change_nothing() -> None:
    """A busy client gets thousands of rounds without a refusal: the rate has no limit all the while.

    And what is kept of the responses is what has come in the last seconds.
    """
    pace = SendPace(1, math.inf)
    for second in range(5_000):
        pace.sent(float(second))
        pace.good(float(second), second + 0.9)
    assert pace.rate == math.inf
    assert len(pace._rate._goods) < 10


def test_concurrency_halves_when_a_quarter_fails() -> None:
    """Once for what was in flight together; and climbs by one a round."""
    limiter = ConcurrencyLimiter(16)
    limiter.failed(0.0, 1.0)
    limiter.failed(0.0, 1.0)
    assert limiter.limit == 16  # two failures may be chance
    for _ in range(14):
        limiter.failed(0.0, 1.0)
    assert limiter.limit == 8
    for _ in range(3):
        limiter.failed(2.0, 3.0)
    assert limiter.limit == 4
    for _ in range(4):
        limiter.good()
    assert 4 <= limiter.limit <= 5
    for _ in range(400):
        limiter.good()
    assert limiter.limit == 16


def test_failures_now_and_then_leave_the_concurrency_alone() -> None:
    """One reset connection in ten says nothing about the load."""
    limiter = ConcurrencyLimiter(16)
    for number in range(1000):
        if number % 10 == 5:
            limiter.failed(float(number), float(number))
        else:
            limiter.good()
        assert limiter.limit == 16


def test_an_outage_costs_few_probes_and_ends_without_a_burst() -> None:
    """Five minutes without a good response: about one probe a second. Then twice as many requests with each round."""
    pace, now, sent = SendPace(16, math.inf), 0.0, 0
    pace.begin(now)
    for _ in range(16):
        pace.sent(now)
    for _ in range(16):
        pace.failed(0.0, 0.1)
    while now < 300:
        now = max(now, pace.earliest)
        pace.sent(now)
        sent += 1
        pace.failed(now, now + 0.01)
        assert pace.outage(now + 0.01) == pytest.approx(now - 0.09)
    assert pace.in_outage
    assert pace.blocked(now + 0.01) == pytest.approx(now - 0.09)
    assert sent < 350
    now = pace.earliest
    pace.sent(now)
    pace.good(now, now + 0.05)
    assert not pace.in_outage
    assert pace.outage(now + 0.05) == 0
    rounds = []
    while pace.concurrency < 16:
        now += 0.1
        count = pace.concurrency
        rounds.append(count)
        for _ in range(count):
            assert pace.earliest <= now
            pace.sent(now)
        for _ in range(count):
            pace.good(now, now + 0.05)
    assert rounds == [1, 2, 4, 8]


def test_a_probe_without_a_response_is_not_waited_for() -> None:
    """A server that takes a request and says nothing would hold all others back until the timeout."""
    pace = SendPace(4, math.inf)
    for _ in range(10):
        pace.sent(0.0)
        pace.failed(0.0, 1.0)
    now = pace.earliest
    pace.sent(now)
    assert pace.earliest == now + 5


def test_time_in_which_nobody_wants_anything_is_no_outage() -> None:
    """A client that was idle can't know how long the server was away, and after a minute forgets that it was."""
    pace = SendPace(4, math.inf)
    pace.begin(0.0)
    pace.sent(0.0)
    pace.failed(0.0, 1.0)
    assert pace.outage(11.0) == 10  # the call backs off
    pace.sent(11.0)
    pace.failed(11.0, 12.0)
    pace.end(12.0)
    assert pace.outage(50.0) == 11
    pace.begin(50.0)
    assert pace.outage(51.0) == 12
    pace.sent(51.0)
    pace.failed(51.0, 52.0)
    pace.end(52.0)
    assert pace.outage(52.0) == 13
    pace.begin(120.0)
    assert pace.outage(121.0) == 1
