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


@attrs.define
class Trouble:
    """The claims that aren't believed yet, and the jobs that can't be polled for now, of all jobs together."""

    activity: str
    now: Callable[[], float]
    claims: dict[str, dict[tuple[str, str | None], tuple[int, float]]] = attrs.field(factory=dict, init=False)
    """By job and by what is claimed of which run: in how many polls, and for how many seconds."""
    failing_since: dict[str, float] = attrs.field(factory=dict, init=False)
    longest_wrong: float = attrs.field(default=0.0, init=False)
    wrong_at: float = attrs.field(default=0.0, init=False)


@attrs.define
class PollSchedule:
    """When a job is polled next: soon while runs change, later with each poll that finds nothing."""

    job_id: str
    interval: tuple[float, float]
    trouble: Trouble
    _now: float = attrs.field(init=False)
    _skip: float = attrs.field(init=False)
    _claimed_at: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._now, self._skip = self.interval

    def next(self, *, changed: bool) -> float:
        """Seconds to wait after a successful poll; up to a tenth less at random, so that the polls of jobs spread."""
        least, self._skip = self.interval
        self._now = least if changed else min(self._skip, self._now * _GROWTH)
        return min(self._pause_of_claims(), least + (self._now - least) * random.uniform(0.9, 1))  # noqa: S311

    def after_failure(self, error: TfRunsError, *, was_polled: bool) -> float:
        """Seconds to wait if the failure of a poll, after its retries, is transient, or says that a job which was there
        isn't there any more, and isn't believed yet. Any other is raised.

        If many jobs fail together, only the first failure and the end of the whole outage are warnings: the other jobs
        are logged at INFO, and each further failure of a job at DEBUG.
        """
        failing_since = self.trouble.failing_since
        if isinstance(error, IncompleteWalkError) or (isinstance(error, APIError) and error.is_transient):
            seconds = self._now = self.interval[1]
            level = logging.INFO if failing_since else logging.WARNING
            level = logging.DEBUG if self.job_id in failing_since else level
            failing_since.setdefault(self.job_id, self.trouble.now())
            text = "%s; %s goes on, and polls again in %.2f s"
            log(level, text, error, self.trouble.activity, seconds, extra={"job_id": self.job_id, "wait": seconds})
            return seconds
        if was_polled and isinstance(error, (NotFoundError, PermissionDeniedError)) and self.doubted({"": None}):
            return self._pause_of_claims()
        failing_since.pop(self.job_id, None)
        raise error

    def end_outage(self) -> None:
        """A poll has succeeded: log the end of the job's outage, if there was one."""
        failing_since = self.trouble.failing_since
        if (since := failing_since.pop(self.job_id, None)) is not None:
            level = logging.INFO if failing_since else logging.WARNING
            text = "job %r can be polled again, after %.0f s"
            log(level, text, self.job_id, self.trouble.now() - since, extra={"job_id": self.job_id})

    def forget(self) -> None:
        self.trouble.claims.pop(self.job_id, None)
        self.trouble.failing_since.pop(self.job_id, None)

    def after_skip(self) -> float:
        """Seconds to wait after a failure that may be permanent: twice as long each time."""
        most = self.interval[1]
        pause, self._now = self._skip, most
        self._skip = min(2 * pause, max(most, _LONGEST_PAUSE))
        return pause

    def doubted(self, claims: Mapping[str, str | None]) -> set[str]:
        """Of the claims that a poll has made, by run, those that aren't believed yet. A claim of an earlier poll that
        this one hasn't made was wrong."""
        trouble, now = self.trouble, self.trouble.now()
        # A claim doesn't last while no poll succeeds.
        elapsed, self._claimed_at = min(now - self._claimed_at, self._pause_of_claims()), now
        before = trouble.claims.pop(self.job_id, {})
        # How many seconds a wrong claim lasted, the longest one; less with the time since.
        wrong_by = trouble.longest_wrong * math.exp2(-(now - trouble.wrong_at) / _FORGOTTEN)
        if wrong := before.keys() - claims.items():
            wrong_by = trouble.longest_wrong = max(wrong_by, *(before[key][1] for key in wrong))
            trouble.wrong_at = now
        others = sum(map(len, trouble.claims.values()))
        needed = min(_MOST_SECONDS, _LEAST_SECONDS + 3 * wrong_by + _SECONDS_EACH * (len(claims) + others - 1))
        left = {}
        for key in claims.items():
            polls, seconds = before.get(key, (0, -elapsed))
            if polls + 1 < _LEAST_POLLS or seconds + elapsed < needed:
                left[key] = polls + 1, seconds + elapsed
        if left:
            trouble.claims[self.job_id] = left
        return {run_id for run_id, _ in left}

    def _pause_of_claims(self) -> float:
        """Seconds until the next poll because of the job's claims; inf if there are none."""
        claims = self.trouble.claims
        if self.job_id not in claims:
            return math.inf
        youngest = min(seconds for _, seconds in claims[self.job_id].values())
        return max(1.0, min(youngest / 2, _LONGEST_PAUSE_OF_CLAIMS), len(claims) / _MOST_POLLS)
