"""When a job is polled next, which failures are transient, and which responses are believed.

A response may come from a replica that lags behind, or is empty for a moment. So what it takes back (a run is gone, an
end is undone, a job isn't there) is a claim, and a claim is believed once every poll has made it for some seconds. It
takes longer if many claims are made at once, which looks like an outage rather than like deletions, and on a server
whose claims have turned out to be wrong: three times as long as any of these lasted.
"""

import logging
import math
import random
from collections.abc import Callable, Mapping

import attrs

from tfruns._checks import checked_number
from tfruns._log import log
from tfruns.errors import APIError, IncompleteWalkError, NotFoundError, PermissionDeniedError, TfRunsError
from tfruns.types import Interval

_INTERVALS = "above 0 and at most 86,400 seconds, or a tuple of the least and the most, such as (2, 30)"
_GROWTH = 1.5
_LONGEST_PAUSE = 600.0  # in seconds, of a job that is skipped; more if the interval is longer

_LEAST_POLLS = 5
_LEAST_SECONDS = 6.0  # that a claim must last before it is believed
_SECONDS_EACH = 5.0  # more, for each further claim that is made at the same time, of all jobs
_MOST_SECONDS = 300.0
_LONGEST_PAUSE_OF_CLAIMS = 30.0
_MOST_POLLS = 10  # more a second because of claims, of all jobs
_FORGOTTEN = 600.0  # seconds after which a wrong claim counts half


def checked_interval(interval: Interval) -> tuple[float, float]:
    """The least and the most seconds between two polls."""
    least, most = interval if isinstance(interval, tuple) and len(interval) == 2 else (interval, interval)
    for seconds in (least, most):
        checked_number(seconds, "interval", _INTERVALS, above=0, most=86_400)
    if least > most:
        raise ValueError(f"interval must be the least seconds and then the most, got {interval!r}")
    return least, most


class PollSchedule:
    """How long to wait until the next poll: short while runs change, longer with each poll that finds nothing."""

    def __init__(self, interval: tuple[float, float]) -> None:
        self._least, self._most = interval
        self._now = self._least
        self._pause = self._most

    def next(self, *, changed: bool) -> float:
        """Seconds to wait after a successful poll; up to a tenth less at random, so that the polls of jobs spread."""
        self._pause = self._most
        self._now = self._least if changed else min(self._most, self._now * _GROWTH)
        return self._least + (self._now - self._least) * random.uniform(0.9, 1)  # noqa: S311

    def after_failure(self) -> float:
        self._now = self._most
        return self._most

    def after_skip(self) -> float:
        """Seconds to wait after a failure that may be permanent: twice as long each time."""
        pause, self._now = self._pause, self._most
        self._pause = min(2 * pause, max(self._most, _LONGEST_PAUSE))
        return pause


@attrs.define
class _Claim:
    last: float  # when it was made last
    polls: int = 0
    seconds: float = 0.0  # that it has lasted, without the time in which no poll succeeded


@attrs.define
class Unconfirmed:
    """The claims that aren't believed yet, of all jobs."""

    now: Callable[[], float]
    _jobs: dict[str, dict[tuple[str, str | None], _Claim]] = attrs.field(factory=dict, init=False)
    _longest_wrong: float = attrs.field(default=0.0, init=False)
    _wrong_at: float = attrs.field(default=0.0, init=False)

    def doubted(self, job_id: str, claims: Mapping[str, str | None]) -> set[str]:
        """Of the claims that a poll has made, by run, those that aren't believed yet. A claim of an earlier poll that
        this one hasn't made was wrong."""
        now, pause, before = self.now(), self.pause(job_id), self._jobs.pop(job_id, {})
        # How many seconds a wrong claim lasted, the longest one; less with the time since.
        wrong_by = self._longest_wrong * math.exp2(-(now - self._wrong_at) / _FORGOTTEN)
        if wrong := before.keys() - claims.items():
            wrong_by = max(wrong_by, *(before[key].seconds for key in wrong))
            self._longest_wrong, self._wrong_at = wrong_by, now
        left = {key: before.get(key) or _Claim(now) for key in claims.items()}
        needed = _LEAST_SECONDS + 3 * wrong_by + _SECONDS_EACH * (len(left) + sum(map(len, self._jobs.values())) - 1)
        for key, claim in [*left.items()]:
            claim.seconds += min(now - claim.last, pause)
            claim.polls += 1
            claim.last = now
            if claim.polls >= _LEAST_POLLS and claim.seconds >= min(needed, _MOST_SECONDS):
                del left[key]
        if left:
            self._jobs[job_id] = left
        return {run_id for run_id, _ in left}

    def pause(self, job_id: str) -> float:
        """Seconds until the next poll of a job because of its claims; inf if there are none."""
        if job_id not in self._jobs:
            return math.inf
        youngest = min(claim.seconds for claim in self._jobs[job_id].values())
        return max(1.0, min(youngest / 2, _LONGEST_PAUSE_OF_CLAIMS), len(self._jobs) / _MOST_POLLS)

    def forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)


@attrs.define
class Outages:
    """The jobs that can't be polled for now. The log says once that an outage has begun, and once that it is over.

    If many jobs fail together, only the first failure and the end of the whole outage are warnings: the other jobs are
    logged at INFO, and each further failure of a job at DEBUG.
    """

    _activity: str
    _unconfirmed: Unconfirmed
    _since: dict[str, float] = attrs.field(factory=dict, init=False)

    def pause(self, error: TfRunsError, job_id: str, schedule: PollSchedule, *, was_polled: bool) -> float:
        """Seconds until the next poll after this failure, if it is transient, which is logged, or says that a job which
        was there isn't there any more, and isn't believed yet. Any other failure is raised."""
        if isinstance(error, IncompleteWalkError) or (isinstance(error, APIError) and error.is_transient):
            seconds = schedule.after_failure()
            level = logging.DEBUG if job_id in self._since else logging.INFO if self._since else logging.WARNING
            self._since.setdefault(job_id, self._unconfirmed.now())
            text = "%s; %s goes on, and polls again in %.2f s"
            log(level, text, error, self._activity, seconds, extra={"job_id": job_id, "wait": seconds})
            return seconds
        is_claim = was_polled and isinstance(error, (NotFoundError, PermissionDeniedError))
        if is_claim and self._unconfirmed.doubted(job_id, {"": None}):
            return self._unconfirmed.pause(job_id)
        self._since.pop(job_id, None)
        raise error

    def end(self, job_id: str) -> None:
        """A poll of the job has succeeded: log the end of its outage, if there was one."""
        if (since := self._since.pop(job_id, None)) is not None:
            level = logging.INFO if self._since else logging.WARNING
            text = "job %r can be polled again, after %.0f s"
            log(level, text, job_id, self._unconfirmed.now() - since, extra={"job_id": job_id})
