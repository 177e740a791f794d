"""Which faults a request has: drawn by their rates and counted by their numbers."""

import collections
import random
import time
from collections.abc import Iterable

import attrs

from tfruns.sandbox.faults import Break, Fault, RateLimit, WaitAs


@attrs.frozen
class ActiveFaults:
    """The effects of all faults of one request."""

    delay: float = 0.0
    refusal: Fault | None = None
    """The first fault with a status or a page of HTML."""
    wait_as: WaitAs = "seconds"
    """How the refusal says how long to wait."""
    breaks: Break | None = None
    limit: int | None = None
    total: int = 0


NO_FAULTS = ActiveFaults()


class FaultInjector:
    """Decides which faults each request has."""

    def __init__(self, faults: list[Fault], rate_limit: RateLimit | None, seed: int) -> None:
        self.faults = faults
        self._limit = rate_limit
        self._rng = random.Random(f"faults/{seed}")  # noqa: S311  # made-up faults
        self._counts = collections.Counter[str]()
        self._tokens = 0.0 if rate_limit is None else float(rate_limit.burst)
        self._since = time.monotonic()

    def next(self, job_id: str) -> ActiveFaults:
        """The effects on the next request for this job."""
        self._counts[job_id] += 1
        if self._limit is not None and (wait := self._wait(self._limit)):
            said = None if self._limit.wait_as is None else wait
            return ActiveFaults(refusal=Fault(status=429, wait=said), wait_as=self._limit.wait_as or "seconds")
        if not self.faults:
            return NO_FAULTS
        return self._together([fault for fault in self.faults if self._hits(fault, job_id)])

    def _hits(self, fault: Fault, job_id: str) -> bool:
        return (
            fault.job_id in (None, job_id)
            and (not fault.nth or self._counts[job_id] in fault.nth)
            and (fault.rate == 1 or self._rng.random() < fault.rate)
        )

    def _together(self, faults: Iterable[Fault]) -> ActiveFaults:
        faults = list(faults)
        return ActiveFaults(
            delay=sum(fault.latency for fault in faults),
            refusal=next((fault for fault in faults if fault.status is not None or fault.html), None),
            breaks=next((fault.breaks for fault in faults if fault.breaks is not None), None),
            limit=min((fault.limit for fault in faults if fault.limit is not None), default=None),
            total=sum(fault.total for fault in faults),
        )

    def _wait(self, limit: RateLimit) -> float:
        """Take one token out of the bucket. Returns 0, or the seconds until there is a token."""
        now = time.monotonic()
        self._tokens = min(limit.burst, self._tokens + (now - self._since) * limit.per_second)
        self._since = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / limit.per_second
