"""Runs that live: new ones come, and each goes its way from CREATED to its end, by the sandbox's clock.

What happens, and when, depends on the seed and the clock alone, not on how often anyone looks: what was due is done,
in its order and dated when it was due, before the next request is answered.
"""

import heapq
import random
from collections.abc import Mapping

from tfruns.models import JobRunStatus as Status
from tfruns.sandbox.data import RunMaker, ended
from tfruns.sandbox.store import Store
from tfruns.sandbox.wire import decode

_SECONDS_BETWEEN_RUNS = 30.0  # of one job, on average
_NEXT = {
    Status.CREATED: Status.SCHEDULED,
    Status.SCHEDULED: Status.RUNNING,
    Status.TERMINATION_REQUESTED: Status.TERMINATING,
    Status.TERMINATING: Status.TERMINATED,
}
_STAYS = {  # in seconds, the least and the most
    Status.CREATED: (1, 5),
    Status.SCHEDULED: (2, 20),
    Status.TERMINATION_REQUESTED: (1, 3),
    Status.TERMINATING: (2, 30),
}


class Simulation:
    """What is due in the jobs of a store."""

    def __init__(self, seed: int, store: Store, makers: Mapping[str, RunMaker], now: float) -> None:
        self._seed = seed
        self._store = store
        self._makers = makers
        # What is due, soonest first: when, which of those made at once, job, and the run (None: a new one) that leaves
        # this status. By then it may be gone, or its status changed by someone else: then nothing is done.
        self._due: list[tuple[float, int, str, str | None, str]] = []
        self._count = 0
        self._arrivals = {job_id: _rng(seed, job_id) for job_id in makers}
        for job_id in makers:
            self._expect_run(job_id, now)
            for run_id, status in store.statuses(job_id):
                self.expect(job_id, run_id, status, now)

    def expect(self, job_id: str, run_id: str, status: str, now: float) -> None:
        """Let this run, which has had this status since now, go on from there."""
        rng = _rng(self._seed, job_id, run_id, status)
        if status == Status.RUNNING:
            seconds = rng.lognormvariate(4.8, 1)  # half of them run for 2 minutes or less
        elif status in _STAYS:
            seconds = rng.uniform(*_STAYS[Status(status)])
        else:
            return  # it has ended, or there is no telling
        self._push(now + 1 + int(seconds * 1000), job_id, run_id, status)

    def run_until(self, now: float) -> None:
        """Do all that was due by now."""
        while self._due and self._due[0][0] <= now:
            when, _, job_id, run_id, status = heapq.heappop(self._due)
            if run_id is None:
                self._create(job_id, when)
            else:
                self._move(job_id, run_id, status, when)

    def _create(self, job_id: str, when: float) -> None:
        run = self._makers[job_id].new_run(int(when), Status.CREATED)
        self._store.put(job_id, run)
        self.expect(job_id, run["id"], Status.CREATED, when)
        self._expect_run(job_id, when)

    def _move(self, job_id: str, run_id: str, status: str, when: float) -> None:
        text = self._store.get(job_id, run_id)
        if text is None or (run := decode(text))["status"] != status:
            return
        if status == Status.RUNNING:
            fate = _rng(self._seed, job_id, run_id, "fate")
            following = Status.FAILED if fate.random() < 0.15 else Status.FINISHED
        else:
            following = _NEXT[Status(status)]
        changes = ended(run, following, when) if following.is_terminal else {"status": following.value}
        self._store.put(job_id, run | changes)
        self.expect(job_id, run_id, following, when)

    def _expect_run(self, job_id: str, now: float) -> None:
        seconds = self._arrivals[job_id].expovariate(1 / _SECONDS_BETWEEN_RUNS)
        self._push(now + 1 + int(seconds * 1000), job_id, None, "")

    def _push(self, when: float, job_id: str, run_id: str | None, status: str) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, job_id, run_id, status))


def _rng(*what: object) -> random.Random:
    return random.Random(f"life/{what!r}")  # noqa: S311  # made-up data
