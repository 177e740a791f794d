"""The runs of a sandbox while it serves: where they come from, and how its clock changes them."""

import threading
from collections.abc import KeysView, Mapping
from typing import Any

from tfruns.models import JobRun, JobRunStatus
from tfruns.sandbox.clock import Clock
from tfruns.sandbox.data import NEWEST, RunMaker, ended
from tfruns.sandbox.files import read_runs
from tfruns.sandbox.simulation import Simulation
from tfruns.sandbox.store import NEWEST_FIRST, Selection, Store
from tfruns.sandbox.wire import Wire, decode, encode, from_fields, in_capitals, parse

_STEP = 500  # runs to make, or events to simulate, before other requests get their turn: some 10 ms


class History:
    """The runs of every job; each change has the time of the clock. Threads may share it.

    The runs of a job are made when a page needs them, and simulated when they are next needed: a job that nobody reads
    costs nothing, and the newest page of a long history little.
    """

    def __init__(
        self,
        *,
        seed: int,
        run_counts: Mapping[str, int],
        runs_from: str | None,
        living: bool,
        clock_rate: float,
        clock_start: float | None,
    ) -> None:
        given = {} if runs_from is None else read_runs(runs_from)
        start = int(NEWEST if clock_start is None else clock_start)
        last = (max(run["createdAt"], run.get("endTime") or 0) for runs in given.values() for run in runs)
        self.clock = Clock(max(start, *last) if given else start, clock_rate)
        self._start = self.clock.now
        self._seed = seed
        self._living = living
        self._lock = threading.RLock()
        self._store = Store(given or run_counts)
        self._given = given
        self._run_counts = run_counts
        self._makers: dict[str, RunMaker] = {}
        self._simulations: dict[str, Simulation] = {}

    @property
    def job_ids(self) -> KeysView[str]:
        """The ids of the jobs."""
        return self._store.job_ids

    def step(self, job_id: str, selection: Selection = NEWEST_FIRST, end: int | None = None) -> bool:
        """Do a part of the work that is needed before a page up to this place can be served (None: all pages). True if
        more is needed.
        """
        with self._lock:
            if job_id not in self._store.job_ids:
                raise KeyError(f"this sandbox has no job {job_id!r}")
            if job_id not in self._makers:
                self._begin(job_id)
            simulation = self._simulations.get(job_id)
            if self._store.needs_more(job_id, selection, end):
                for run_id, status in self._store.make(job_id, _STEP):
                    if simulation is not None:
                        simulation.expect(run_id, status, self._start)
                return True
            return simulation is not None and simulation.run_until(self.clock.now, most=_STEP)

    def _begin(self, job_id: str) -> None:
        maker = self._makers[job_id] = RunMaker(self._seed, job_id, since=self._start)
        if self._given:
            runs = sorted(self._given.pop(job_id), key=lambda run: (-run["createdAt"], run["id"]))
            self._store.begin(job_id, iter(runs), len(runs))
        else:
            count = self._run_counts[job_id]
            self._store.begin(job_id, RunMaker(self._seed, job_id).history(count, self._start), count)
        if self._living:
            self._simulations[job_id] = Simulation(self._seed, job_id, self._store, maker, self._start)

    def page(self, job_id: str, selection: Selection, offset: int, limit: int) -> tuple[int, list[bytes]]:
        """How many runs are selected in all, and the JSON texts of those on the page."""
        with self._lock:
            return self._store_of(job_id, selection, offset + limit).page(job_id, selection, offset, limit)

    def runs(self, job_id: str) -> list[JobRun]:
        """All runs of the job, the newest first."""
        with self._lock:
            _, texts = self._store_of(job_id).page(job_id, NEWEST_FIRST)
        return [parse(text) for text in texts]

    def create(self, job_id: str, fields: dict[str, Any]) -> JobRun:
        """Add a run; see `Sandbox.create_run`."""
        with self._lock:
            changes = from_fields(fields)
            # One that isn't the newest, or has the id of another, needs them all.
            store = self._store_of(job_id, end=None if changes.keys() & {"id", "createdAt"} else 1)
            status = JobRunStatus(changes.get("status", "CREATED"))
            latest = store.latest(job_id)
            if latest == self.clock.now:
                self.clock.advance(0.001)
            created_at = self.clock.now if latest is None else max(self.clock.now, int(latest) + 1)
            wire = self._makers[job_id].new_run(created_at, status) | changes
            if store.get(job_id, wire["id"]) is not None:
                raise ValueError(f"job {job_id!r} has a run with the id {wire['id']!r} already")
            return self._put(job_id, wire)

    def update(self, job_id: str, run_id: str, fields: dict[str, Any]) -> JobRun:
        """Change a run; see `Sandbox.update_run`."""
        with self._lock:
            run = self._run(job_id, run_id)
            return self._put(job_id, run | _changes(run_id, fields))

    def finish(self, job_id: str, run_id: str, status: JobRunStatus | str, fields: dict[str, Any]) -> JobRun:
        """End a run; see `Sandbox.finish_run`."""
        with self._lock:
            run = self._run(job_id, run_id)
            if JobRunStatus(run["status"]).is_terminal:
                raise ValueError(f"the run {run_id!r} has ended already: it is {run['status']}")
            status = in_capitals(status)
            if not isinstance(status, str) or not JobRunStatus(status).is_terminal:
                raise ValueError(
                    f"status must be one that a run ends with, FINISHED, FAILED or TERMINATED, got {status!r}"
                )
            end = ended(run, JobRunStatus(status), self.clock.now)
            return self._put(job_id, run | end | _changes(run_id, fields))

    def delete(self, job_id: str, run_id: str) -> None:
        """Delete a run."""
        with self._lock:
            if not self._store_of(job_id).delete(job_id, run_id):
                raise _no_run(job_id, run_id)

    def _run(self, job_id: str, run_id: str) -> Wire:
        text = self._store_of(job_id).get(job_id, run_id)
        if text is None:
            raise _no_run(job_id, run_id)
        return decode(text)

    def _put(self, job_id: str, wire: Wire) -> JobRun:
        run = parse(encode(wire))  # refuses what isn't a run, before it is stored
        self._store.put(job_id, wire)
        if (simulation := self._simulations.get(job_id)) is not None:
            simulation.expect(run.id, run.status, self.clock.now)
        return run

    def _store_of(self, job_id: str, selection: Selection = NEWEST_FIRST, end: int | None = None) -> Store:
        while self.step(job_id, selection, end):
            pass
        return self._store


def _changes(run_id: str, fields: dict[str, Any]) -> Wire:
    changes = from_fields(fields)
    if changes.get("id", run_id) != run_id:
        raise ValueError(f"the id of a run can't be changed: got {changes['id']!r} for {run_id!r}")
    return changes


def _no_run(job_id: str, run_id: str) -> KeyError:
    return KeyError(f"job {job_id!r} has no run with the id {run_id!r}")
