"""The runs of a sandbox while it is there: what they start from, and what becomes of them by its clock."""

from collections.abc import Mapping
from typing import Any, Self

from tfruns.models import JobRun, JobRunStatus
from tfruns.sandbox.clock import Clock
from tfruns.sandbox.data import NEWEST, RunMaker, ended
from tfruns.sandbox.database import Database
from tfruns.sandbox.files import read_runs
from tfruns.sandbox.simulation import Simulation
from tfruns.sandbox.store import Selection, Store
from tfruns.sandbox.wire import Wire, decode, encode, from_fields, parse


class History:
    """The runs of every job, each change of which is dated by the clock."""

    def __init__(
        self,
        store: Store,
        database: Database | None,
        makers: Mapping[str, RunMaker],
        *,
        seed: int,
        living: bool,
        clock_rate: float,
    ) -> None:
        self.store = store
        self.clock = Clock(max(NEWEST, store.last_moment()), clock_rate)
        self._database = database
        self._makers = {
            job_id: makers.get(job_id) or RunMaker(seed, job_id, since=self.clock.now) for job_id in store.job_ids
        }
        self._simulation = Simulation(seed, store, self._makers, self.clock.now) if living else None

    @classmethod
    def begin(
        cls,
        *,
        seed: int,
        run_counts: Mapping[str, int],
        runs_from: str | None,
        database: str | None,
        living: bool,
        clock_rate: float,
    ) -> Self:
        """Make the runs, or read them: from the database if it has any, else from the file, if one is given.

        Raises:
            OSError: a file can't be read.
            ValueError: a file isn't what it should be.
        """
        kept = None if database is None else Database(database)
        try:
            makers: dict[str, RunMaker] = {}
            store = _stocked(kept, runs_from, seed, run_counts, makers)
            return cls(store, kept, makers, seed=seed, living=living, clock_rate=clock_rate)
        except BaseException:
            if kept is not None:
                kept.close()
            raise

    def close(self) -> None:
        """Close the database, if there is one."""
        if self._database is not None:
            self._database.close()

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The ids of the jobs."""
        return tuple(self.store.job_ids)

    def now(self) -> int:
        """The time by the clock, in ms since 1970, with all done that was due by it."""
        now = self.clock.now
        if self._simulation is not None:
            self._simulation.run_until(now)
        return now

    def runs(self, job_id: str) -> list[JobRun]:
        """All runs of the job, the newest first."""
        _, texts = self._store_of(job_id).page(job_id, Selection())
        return [parse(text) for text in texts]

    def create(self, job_id: str, fields: dict[str, Any]) -> JobRun:
        """Add a run; see `Sandbox.create_run`."""
        store = self._store_of(job_id)
        changes = from_fields(fields)
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
        run = self._run(job_id, run_id)
        return self._put(job_id, run | _changes(run_id, fields))

    def finish(self, job_id: str, run_id: str, status: JobRunStatus | str, fields: dict[str, Any]) -> JobRun:
        """End a run; see `Sandbox.finish_run`."""
        run = self._run(job_id, run_id)
        if JobRunStatus(run["status"]).is_terminal:
            raise ValueError(f"the run {run_id!r} has ended already: it is {run['status']}")
        if not isinstance(status, str) or not JobRunStatus(status).is_terminal:
            raise ValueError(f"status must be one that a run ends with, FINISHED, FAILED or TERMINATED, got {status!r}")
        end = ended(run, JobRunStatus(status), self.clock.now)
        return self._put(job_id, run | end | _changes(run_id, fields))

    def delete(self, job_id: str, run_id: str) -> None:
        """Forget a run."""
        if not self._store_of(job_id).delete(job_id, run_id):
            raise _no_run(job_id, run_id)

    def _run(self, job_id: str, run_id: str) -> Wire:
        text = self._store_of(job_id).get(job_id, run_id)
        if text is None:
            raise _no_run(job_id, run_id)
        return decode(text)

    def _put(self, job_id: str, wire: Wire) -> JobRun:
        run = parse(encode(wire))  # refuses what isn't a run, before it is stored
        self._store_of(job_id).put(job_id, wire)
        if self._simulation is not None:
            self._simulation.expect(job_id, run.id, run.status, self.clock.now)
        return run

    def _store_of(self, job_id: str) -> Store:
        if job_id not in self.store.job_ids:
            raise KeyError(f"this sandbox has no job {job_id!r}")
        self.now()
        return self.store


def _stocked(
    kept: Database | None,
    runs_from: str | None,
    seed: int,
    run_counts: Mapping[str, int],
    makers: dict[str, RunMaker],
) -> Store:
    """A store with the runs to start from; the makers of those that were made go on from them."""
    if kept is not None and (job_ids := kept.job_ids()):
        store = Store(job_ids, kept)
        for job_id in job_ids:
            store.fill(job_id, map(decode, kept.runs(job_id)))
        return store
    if runs_from is not None:
        given = read_runs(runs_from)
        store = Store(given, kept)
        for job_id, runs in given.items():
            store.fill(job_id, runs)
    else:
        store = Store(run_counts, kept)
        for job_id, count in run_counts.items():
            makers[job_id] = RunMaker(seed, job_id)
            store.fill(job_id, makers[job_id].history(count))
    if kept is not None:
        kept.fill(store.job_ids, store.texts())
    return store


def _changes(run_id: str, fields: dict[str, Any]) -> Wire:
    changes = from_fields(fields)
    if changes.get("id", run_id) != run_id:
        raise ValueError(f"the id of a run can't be changed: got {changes['id']!r} for {run_id!r}")
    return changes


def _no_run(job_id: str, run_id: str) -> KeyError:
    return KeyError(f"job {job_id!r} has no run with the id {run_id!r}")
