"""Simulated runs: new ones are created, and each moves from CREATED to its end, by the sandbox's clock.

What happens, and when, depends on the seed and the clock alone, not on how often the job is read: all events that are
due are done before the next request for the job, in their order, each with the time when it was due.
"""

import heapq
import random

from tfruns.models import JobRunStatus as Status
from tfruns.sandbox.data import RunMaker, ended
from tfruns.sandbox.store import Store
from tfruns.sandbox.wire import decode

_SECONDS_BETWEEN_RUNS = 30.0  # of one job, on average
_MOST_NEW_RUNS = 10_000  # those of three and a half days; after that each new run replaces the oldest
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
    """The events of one job, each done when it is due."""

    def __init__(self, seed: int, job_id: str, store: Store, maker: RunMaker, now: float) -> None:
        self._seed = seed
        self._job_id = job_id
        self._store = store
        self._maker = maker
        self._most_runs = store.count(job_id) + _MOST_NEW_RUNS
        # The events, soonest first: when, a number for events at the same time, and the run (None: a new one) that
        # leaves this status. If the run is gone by then, or its status was changed by someone else, nothing is done.
        self._due: list[tuple[float, int, str | None, str]] = []
        self._count = 0
        self._arrivals = self._rng()
        self._expect_run(now)

    def expect(self, run_id: str, status: str, now: float) -> None:
        """Schedule the next change of this run, which has this status from now on."""
        rng = self._rng(run_id, status)
        if status == Status.RUNNING:
            seconds = rng.lognormvariate(4.8, 1)  # half of them run for 2 minutes or less
        elif status in _STAYS:
            seconds = rng.uniform(*_STAYS[Status(status)])
        else:
            return  # it has ended, or its status isn't known
        self._push(now + 1 + int(seconds * 1000), run_id, status)

    def run_until(self, now: float, *, most: int) -> bool:
        """Do the events that are due now, but at most so many. True if more of them are left."""
        for _ in range(most):
            if not self._is_due(now):
                return False
            when, _, run_id, status = heapq.heappop(self._due)
            if run_id is None:
                self._create(when)
            else:
                self._move(run_id, status, when)
        return self._is_due(now)

    def _is_due(self, now: float) -> bool:
        return self._due[0][0] <= now  # the list is never empty: a new run is always in it

    def _create(self, when: float) -> None:
        run = self._maker.new_run(int(when), Status.CREATED)
        self._store.put(self._job_id, run)
        if self._store.count(self._job_id) > self._most_runs:
            self._store.delete_oldest(self._job_id)
        self.expect(run["id"], Status.CREATED, when)
        self._expect_run(when)

    def _move(self, run_id: str, status: str, when: float) -> None:
        text = self._store.get(self._job_id, run_id)
        if text is None or (run := decode(text))["status"] != status:
            return
        if status == Status.RUNNING:
            following = Status.FAILED if self._rng(run_id, "fate").random() < 0.15 else Status.FINISHED
        else:
            following = _NEXT[Status(status)]
        changes = ended(run, following, when) if following.is_terminal else {"status": following.value}
        self._store.put(self._job_id, run | changes)
        self.expect(run_id, following, when)

    def _expect_run(self, now: float) -> None:
        seconds = self._arrivals.expovariate(1 / _SECONDS_BETWEEN_RUNS)
        self._push(now + 1 + int(seconds * 1000), None, "")

    def _push(self, when: float, run_id: str | None, status: str) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, run_id, status))

    def _rng(self, *what: object) -> random.Random:
        return random.Random(f"simulation/{(self._seed, self._job_id, *what)!r}")  # noqa: S311  # made-up data
