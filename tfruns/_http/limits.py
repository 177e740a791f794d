"""How fast a client may send: how many requests at once, how many a second, and whose turn it is.

A server that is asked too much says so: 429, or 503, often with a wait. Then every request of the client is held back
until the wait is over, not just the one that was told, and half as many may be under way. A 429 is about the rate, too:
it falls to what the server was seen to allow. While answers are good, both climb back: the concurrency by one for each
round of good answers; the rate quickly up to near what was refused, and from there slowly.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tfruns.errors import ClientClosedError

_NEAR = 0.8  # of the rate that was refused
_QUICKLY = math.log(2)  # doubles in a second
_SLOWLY = 0.01  # by so much in a second
_LATE = 0.05  # seconds: timers fire late, and what they lose is made up for, but no more than this


class Pace:
    """How many requests may be under way, and when the next may be sent. It has no clock: it is told all times.

    Args:
        max_concurrency: the most requests under way at once.
        max_rate: the most requests a second; infinite for any.
    """

    def __init__(self, max_concurrency: int, max_rate: float) -> None:
        self._max_concurrency = max_concurrency
        self._max_rate = max_rate
        self._concurrency = float(max_concurrency)
        self._rate = max_rate
        self._refused_rate = math.inf
        self._next_at = self._held_until = -math.inf
        self._slowed_at = -math.inf  # when the concurrency was last halved
        self._since: float | None = None  # the last refusal, or the first request
        self._climbed_at = 0.0
        self._good = 0  # answers since the last refusal

    @property
    def concurrency(self) -> int:
        """How many requests may be under way now."""
        return int(self._concurrency)

    @property
    def earliest(self) -> float:
        """When the next request may be sent."""
        return max(self._next_at, self._held_until)

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self._since is None:
            self._since = self._climbed_at = now
        # A hold earns nothing that could be sent at once after it.
        self._next_at = max(self._next_at, now - _LATE, min(now, self._held_until)) + 1 / self._rate

    def good(self, now: float) -> None:
        """A request was answered as asked."""
        self._good += 1
        self._concurrency = min(self._max_concurrency, self._concurrency + 1 / self._concurrency)
        if self._rate < self._max_rate:
            seconds = min(60.0, max(0.0, now - max(self._climbed_at, self._held_until)))
            quickly = min(self._rate * math.exp(_QUICKLY * seconds), _NEAR * self._refused_rate)
            slowly = self._rate * math.exp(_SLOWLY * seconds)
            self._rate = min(self._max_rate, max(quickly, slowly))
        self._climbed_at = now

    def trouble(self, sent_at: float, now: float, wait: float = 0.0) -> None:
        """A request sent at that time shows the server in trouble, and it asks for that wait."""
        self._held_until = max(self._held_until, now + wait)
        if sent_at >= self._slowed_at:  # else it was on its way already when others showed the same
            self._concurrency = max(1.0, self._concurrency / 2)
            self._slowed_at = now

    def refused(self, sent_at: float, now: float, wait: float = 0.0) -> None:
        """A request sent at that time was one too many, and the server asks for that wait."""
        if self._since is not None and sent_at >= max(self._since, self._slowed_at):
            seconds = max(1e-3, now - self._since)
            at_most = (self._good + 1) / seconds  # by that count, the one that was too many included
            self._refused_rate = at_most if self._rate == math.inf else max(self._rate, at_most)
            self._rate = min(self._rate, max(1, self._good) / seconds)
            self._since = self._climbed_at = now
            self._good = 0
        self.trouble(sent_at, now, wait)


class Throttle:
    """Lets requests through at a pace. Where several jobs wait, each gets its turn, however many requests it has.

    All of its requests belong to one event loop.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.under_way = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by job; the first is next
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, job_id: str) -> AsyncGenerator[None]:
        """Wait for the turn of a request, and hold its place until it is over."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, deque()).append(turn)
        self._let_through()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it had just come
                self._over()
            raise
        try:
            yield
        finally:
            self._over()

    def close(self) -> None:
        """Let nothing more through: who waits gets ClientClosedError."""
        if self._timer is not None:
            self._timer.cancel()
        for turns in self._waiting.values():
            for turn in turns:
                if not turn.done():
                    turn.set_exception(ClientClosedError())
        self._waiting.clear()

    def _over(self) -> None:
        self.under_way -= 1
        self._let_through()

    def _let_through(self) -> None:
        while self._waiting and self.under_way < self.pace.concurrency:
            now = time.monotonic()
            if self.pace.earliest > now:
                if self._timer is not None:
                    self._timer.cancel()
                delay = self.pace.earliest - now
                self._timer = asyncio.get_running_loop().call_later(delay, self._let_through)
                return
            turn = self._next()
            if not turn.done():  # cancelled
                self.under_way += 1
                self.pace.sent(now)
                turn.set_result(None)

    def _next(self) -> "asyncio.Future[None]":
        job_id = next(iter(self._waiting))
        turns = self._waiting.pop(job_id)
        turn = turns.popleft()
        if turns:
            self._waiting[job_id] = turns  # behind the others
        return turn
