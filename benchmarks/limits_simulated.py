"""The pace of a client against servers that refuse requests, in simulated time.

`python -m benchmarks.limits_simulated` prints the table of `benchmarks/README.md`: for each server the time in
multiples of the ideal one, and the share of requests that it refused, over seeds that the pace was not tuned on.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from statistics import mean

import attrs

from tfruns._http.options import RetryPolicy
from tfruns._http.pace import SendPace

REQUESTS = 1_000
"""200 jobs of 5 pages."""
CONCURRENCY = 16
LATENCY = 0.02, 0.06
"""Seconds, at least and at most."""
TUNED_ON = {*range(3, 12), *range(1_000, 1_200), *range(2_000, 2_012), *range(7_001, 7_026)}
SEEDS = range(9_101, 9_126)


class Bucket:
    """A server with a token bucket, whose rate may change; and it may refuse a share of requests whatever the rate."""

    def __init__(
        self, rng: random.Random, rates: list[tuple[float, float]], burst: float = math.inf, share: float = 0.0
    ) -> None:
        self.rng, self.rates, self.burst, self.share = rng, rates, burst, share
        self.tokens, self.filled_at = burst, 0.0

    def takes(self, now: float) -> bool:
        if self.rng.random() < self.share:
            return False
        rate = next(rate for since, rate in reversed(self.rates) if since <= now)
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class FixedSeconds:
    """A server that takes so many requests in each second of its clock."""

    def __init__(self, rng: random.Random, most: int) -> None:
        self.most = most
        self.phase = rng.random()
        self.second, self.taken = -1, 0

    def takes(self, now: float) -> bool:
        second = math.floor(now + self.phase)
        if second != self.second:
            self.second, self.taken = second, 0
        self.taken += 1
        return self.taken <= self.most


Server = Bucket | FixedSeconds


@attrs.define
class Result:
    seconds: float = 0.0
    sent: int = 0
    refused: int = 0

    @property
    def share(self) -> float:
        return self.refused / self.sent


class Client:
    """A client with so many requests to make; its walks have at most `at_once` of them waiting, backing off or in
    flight."""

    def __init__(self, world: "World", requests: int, at_once: int, concurrency: int) -> None:
        self.world, self.left, self.at_once = world, requests, at_once
        self.pace = SendPace(concurrency, math.inf)
        self.active = 0
        self.waiting: deque[int] = deque()  # how often each was sent
        self.wakes_at = math.inf

    def go_on(self, now: float) -> None:
        while self.left and self.active < self.at_once:
            self.left -= 1
            self.active += 1
            self.waiting.append(0)
        while self.waiting and self.pace.in_flight < self.pace.concurrency:
            if self.pace.earliest > now:
                if not now < self.wakes_at <= self.pace.earliest:
                    self.wakes_at = self.pace.earliest
                    self.world.at(self.wakes_at, self.go_on)
                return
            self._send(self.waiting.popleft() + 1, now)

    def _send(self, attempt: int, sent_at: float) -> None:
        world = self.world
        self.pace.sent(sent_at)
        world.result.sent += 1
        on_the_way = world.rng.uniform(*world.latency) / 2

        def arrive(now: float) -> None:
            takes = world.server.takes(now)
            back = on_the_way if takes or not world.refuses_at_once else 0.0
            world.at(now + back, lambda then: self._end(attempt, sent_at, then, takes=takes))

        world.at(sent_at + on_the_way, arrive)

    def _end(self, attempt: int, sent_at: float, now: float, *, takes: bool) -> None:
        world = self.world
        if takes:
            self.pace.good(sent_at, now)
            self.active -= 1
            world.result.seconds = now
        else:
            world.result.refused += 1
            self.pace.failed(sent_at, now, refusal=429, wait=world.wait)
            policy = RetryPolicy()
            backoff = world.rng.uniform(0, min(policy.max_backoff, policy.initial_backoff * 2 ** (attempt - 1)))

            def again(then: float) -> None:
                self.waiting.append(attempt)
                self.go_on(then)

            world.at(now + world.wait + backoff, again)
        self.go_on(now)


class World:
    """A server, its clients, and what happens next."""

    def __init__(
        self,
        server: Callable[[random.Random], Server],
        seed: int,
        *,
        clients: int = 1,
        wait: float = 0.0,
        requests: int = REQUESTS,
        at_once: int = 2 * CONCURRENCY,
        latency: tuple[float, float] = LATENCY,
        refuses_at_once: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.server = server(self.rng)
        self.wait, self.latency = wait, latency
        self.refuses_at_once = refuses_at_once  # so that the first outcomes of a burst are refusals
        self.result = Result()
        self.clients = [Client(self, requests, at_once, CONCURRENCY) for _ in range(clients)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def run(self) -> Result:
        for client in self.clients:
            self.at(0.0, client.go_on)
        while self._events:
            now, _, what = heapq.heappop(self._events)
            what(now)
        return self.result


UNLIMITED = CONCURRENCY / mean(LATENCY)
"""Requests a second that the concurrency and the latency allow."""


def ideal_of_fixed_seconds(world: World) -> float:
    assert isinstance(world.server, FixedSeconds)
    now, left = 0.0, REQUESTS
    while True:
        end = math.floor(now + world.server.phase) + 1 - world.server.phase
        takes = min(world.server.most, math.ceil(UNLIMITED * (end - now)))
        if takes >= left:
            return now + left / UNLIMITED + mean(LATENCY)
        now, left = end, left - takes


def _at_random(share: float, target: float | None, *, times: int = 1, slower: float = 1, **options: float) -> "Row":
    ideal = times * REQUESTS / (1 - share) / UNLIMITED * slower
    options |= {"requests": times * REQUESTS, "latency": tuple(slower * seconds for seconds in LATENCY)}  # type: ignore[dict-item]
    return Row(lambda rng: Bucket(rng, [(0.0, math.inf)], share=share), lambda _: ideal, target, options=options)


def _bucket(rate: float, burst: float, **options: float) -> "Row":
    server = partial(Bucket, rates=[(0.0, rate)], burst=burst)
    return Row(server, lambda _: (REQUESTS - burst) / rate, 1.15, most_refused=0.15, options=options)


@attrs.frozen
class Row:
    """One line of the table."""

    server: Callable[[random.Random], Server]
    ideal: Callable[[World], float]
    """Seconds that a client would take that knows the server."""
    target: float | None
    """The most, in multiples of that."""
    most_refused: float | None = None
    options: dict[str, float] = attrs.field(factory=dict)

    def run(self, seed: int) -> tuple[float, float]:
        """Multiples of the ideal time, and the share of requests that were refused."""
        at_once = CONCURRENCY * (1 + seed % 2)
        world = World(self.server, seed, at_once=at_once, **self.options)  # type: ignore[arg-type]
        result = world.run()
        return result.seconds / self.ideal(world), result.share


_STEPS = [(0.0, 100.0), (3.0, 20.0), (13.0, 100.0)]
ROWS = {
    "bucket of 20 a second, burst 10": _bucket(20, 10),
    "bucket of 100, burst 10": _bucket(100, 10),
    "bucket of 50, which refuses at once": _bucket(50, 10, refuses_at_once=True),
    "random 1 %": _at_random(0.01, 2.0),
    "random 10 %": _at_random(0.1, 2.0),
    "random 1 %, 20 times as long": _at_random(0.01, 2.0, times=20),
    "random 10 %, 20 times as long": _at_random(0.1, 2.0, times=20),
    "random 10 %, 10 times as slow": _at_random(0.1, 2.0, times=3, slower=10),
    "random 10 %, Retry-After 1": _at_random(0.1, None, wait=1.0),
    "random 30 %": _at_random(0.3, 8.0),
    "bucket of 50 plus random 5 %": Row(
        lambda rng: Bucket(rng, [(0.0, 50.0)], 10, share=0.05), lambda _: (REQUESTS - 10) / 50, None
    ),
    "limit 100, then 20, then 100": Row(
        lambda rng: Bucket(rng, _STEPS, 10), lambda _: 13 + (REQUESTS - 510) / 100, 1.4, most_refused=0.25
    ),
    "100 per fixed second": Row(lambda rng: FixedSeconds(rng, 100), ideal_of_fixed_seconds, 1.15, most_refused=0.15),
    "3 clients share 60 a second": Row(
        lambda rng: Bucket(rng, [(0.0, 60.0)], 10),
        lambda _: (3 * REQUESTS - 10) / 60,
        1.4,
        most_refused=0.25,
        options={"clients": 3},
    ),
}


def main() -> None:
    print("| server | times the ideal: mean (median, worst) | target | refused: mean (worst) |\n|---|---|---|---|")
    for name, row in ROWS.items():
        times, shares = (sorted(column) for column in zip(*map(row.run, SEEDS), strict=True))
        target = "" if row.target is None else f"{row.target:g}"
        target += "" if row.most_refused is None else f", refused {row.most_refused:.0%}"
        print(
            f"| {name} | {mean(times):.2f} ({times[len(times) // 2]:.2f}, {times[-1]:.2f}) | {target} |"
            f" {mean(shares):.1%} ({shares[-1]:.1%}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
