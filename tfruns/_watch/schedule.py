"""When a job is polled next, which failures are transient, and what is logged about them."""

import logging
import random

from tfruns._checks import checked_number
from tfruns._log import log
from tfruns.errors import APIError, IncompleteWalkError, TfRunsError
from tfruns.types import Interval

_INTERVALS = "above 0 and at most 86,400 seconds, or a tuple of the least and the most, such as (2, 30)"
_GROWTH = 1.5
_LONGEST_PAUSE = 600.0  # in seconds, of a job that is skipped; more if the interval is longer


def checked_interval(interval: Interval) -> tuple[float, float]:
    """The least and the most seconds between two polls."""
    least, most = interval if isinstance(interval, tuple) and len(interval) == 2 else (interval, interval)
    for seconds in (least, most):
        checked_number(seconds, "interval", _INTERVALS, above=0, most=86_400)
    if least > most:
        raise ValueError(f"interval must be the least seconds and then the most, got {interval!r}")
    return least, most


def is_transient(error: TfRunsError) -> bool:
    """Whether a poll that failed with this error, after its retries, may succeed later."""
    return isinstance(error, IncompleteWalkError) or (isinstance(error, APIError) and error.is_transient)


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
        """Seconds to wait after a transient failure."""
        self._now = self._most
        return self._most

    def after_skip(self) -> float:
        """Seconds to wait after a failure that may be permanent: twice as long each time."""
        pause, self._now = self._pause, self._most
        self._pause = min(2 * pause, max(self._most, _LONGEST_PAUSE))
        return pause


class Outages:
    """The jobs that can't be polled for now. The log says once that an outage has begun, and once that it is over.

    If many jobs fail together, only the first failure and the end of the whole outage are warnings: the other jobs are
    logged at INFO, and each further failure of a job at DEBUG.
    """

    def __init__(self, activity: str) -> None:
        self._activity = activity
        self._since: dict[str, float] = {}

    def failed(self, error: TfRunsError, job_id: str, seconds: float, *, now: float) -> None:
        """Log the transient failure of a poll; the next poll is in so many seconds."""
        level = logging.DEBUG if job_id in self._since else logging.INFO if self._since else logging.WARNING
        self._since.setdefault(job_id, now)
        text = "%s; %s goes on, and polls again in %.2f s"
        log(level, text, error, self._activity, seconds, extra={"job_id": job_id, "wait": seconds})

    def passed(self, job_id: str, *, now: float) -> None:
        """Log the end of the job's outage, if there was one: a poll succeeded."""
        if (since := self._since.pop(job_id, None)) is None:
            return
        level = logging.INFO if self._since else logging.WARNING
        log(level, "job %r can be polled again, after %.0f s", job_id, now - since, extra={"job_id": job_id})

    def forget(self, job_id: str) -> None:
        """The job now fails with an error that isn't transient, which isn't logged here."""
        self._since.pop(job_id, None)
