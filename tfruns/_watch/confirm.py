"""What responses say that an older or an empty state of the server would say too: believed only if it lasts. No I/O.

A response may come from a replica that lags behind, or is empty for a moment. So what it takes back (a run is gone, an
end is undone, a job isn't there) is a claim, and a claim is believed once every poll has made it for some seconds. It
takes longer if many claims are made at once, which looks like an outage rather than like deletions, and on a server
whose claims have turned out to be wrong: three times as long as any of these lasted.
"""

import math
from collections.abc import Mapping

import attrs

from tfruns.errors import NotFoundError, PermissionDeniedError, TfRunsError

_LEAST_POLLS = 5
_LEAST_SECONDS = 6.0  # that a claim must last before it is believed
_SECONDS_EACH = 5.0  # more, for each further claim that is made at the same time, of all jobs
_MOST_SECONDS = 300.0
_LONGEST_PAUSE = 30.0
_MOST_POLLS = 10  # more a second because of claims, of all jobs
_FORGOTTEN = 600.0  # seconds after which a wrong claim counts half


@attrs.define
class _Claim:
    last: float  # when it was made last
    polls: int = 0
    seconds: float = 0.0  # that it has lasted, without the time in which no poll succeeded


@attrs.define
class Unconfirmed:
    """The claims that aren't believed yet, of all jobs."""

    _jobs: dict[str, dict[tuple[str, str | None], _Claim]] = attrs.field(factory=dict, init=False)
    _longest_wrong: float = attrs.field(default=0.0, init=False)
    _wrong_at: float = attrs.field(default=0.0, init=False)

    def doubted(self, job_id: str, claims: Mapping[str, str | None], now: float) -> set[str]:
        """Of the claims that a poll has made, by run, those that aren't believed yet. A claim of an earlier poll that
        this one hasn't made was wrong."""
        pause = self.pause(job_id)
        before = self._jobs.pop(job_id, {})
        for key in before.keys() - claims.items():
            self._longest_wrong, self._wrong_at = max(self._wrong_by(now), before[key].seconds), now
        left = {key: before.get(key) or _Claim(now) for key in claims.items()}
        needed = _LEAST_SECONDS + 3 * self._wrong_by(now)
        needed += _SECONDS_EACH * (len(left) + sum(map(len, self._jobs.values())) - 1)
        for key, claim in [*left.items()]:
            claim.seconds += min(now - claim.last, pause)
            claim.polls += 1
            claim.last = now
            if claim.polls >= _LEAST_POLLS and claim.seconds >= min(needed, _MOST_SECONDS):
                del left[key]
        if left:
            self._jobs[job_id] = left
        return {run_id for run_id, _ in left}

    def doubts(self, job_id: str, error: TfRunsError, now: float) -> bool:
        """Whether an error says that a job which was there isn't there any more, and isn't believed yet."""
        if not isinstance(error, (NotFoundError, PermissionDeniedError)):
            return False
        return bool(self.doubted(job_id, {"": type(error).__name__}, now))

    def pause(self, job_id: str) -> float:
        """Seconds until the next poll of a job because of its claims; inf if there are none."""
        youngest = min((claim.seconds for claim in self._jobs.get(job_id, {}).values()), default=math.inf)
        if youngest == math.inf:
            return math.inf
        return max(1.0, min(youngest / 2, _LONGEST_PAUSE), len(self._jobs) / _MOST_POLLS)

    def forget(self, job_id: str) -> None:
        """The job isn't polled any more."""
        self._jobs.pop(job_id, None)

    def _wrong_by(self, now: float) -> float:
        """Seconds that a wrong claim lasted, the longest one; less with the time since."""
        return self._longest_wrong * math.exp2(-(now - self._wrong_at) / _FORGOTTEN)
