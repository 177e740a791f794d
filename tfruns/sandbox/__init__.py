"""A control plane in a box: the endpoint of the contract over real HTTP, on made-up but realistic runs.

async with Sandbox(jobs=2, runs=1000) as sandbox:
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        async for run in client.iter_runs(sandbox.job_ids[0]):
            ...
"""

import secrets
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tfruns.models import JobRun, JobRunStatus
from tfruns.sandbox.arguments import checked_job_ids, checked_run_counts, checked_text, checked_whole
from tfruns.sandbox.clock import Clock, checked_seconds
from tfruns.sandbox.data import NEWEST, RunMaker, ended
from tfruns.sandbox.life import Life
from tfruns.sandbox.server import SeenRequest, Server
from tfruns.sandbox.store import Selection, Store
from tfruns.sandbox.wire import Wire, decode, encode, from_fields, parse

__all__ = ["Clock", "Sandbox", "SeenRequest"]


class Sandbox:
    """A server of job runs for tests and for trying things out, which lives in the running event loop.

    It is there within `async with`; or from `await start()` to `await aclose()`. Its runs are held in memory, and are
    the same for the same arguments. Changes made by its methods are seen by the next request. Choices that the contract
    leaves to the server are listed in `tfruns.sandbox.server`.

    Args:
        jobs: how many jobs, 1 or more, or their ids.
        runs: how many runs each job has, 0 or more; or one such number for each job.
        seed: what the runs are made from. The runs of a job depend on the seed, its id and their number alone.
        host: the address to listen on.
        port: the port to listen on, up to 65535; 0 for a free one.
        api_key: the bearer token to accept; without one, a new one of the sandbox's own.
        living: let new runs come, and every run go its way from CREATED over SCHEDULED and RUNNING to its end, as its
            clock moves. What happens when depends on the seed and the clock alone.
        clock_rate: how many seconds of its clock pass in a second; with 0, the clock moves only when it is told to.

    Raises:
        ValueError, TypeError: an argument isn't one of these.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        jobs: int | Sequence[str] = 2,
        runs: int | Sequence[int] = 1000,
        seed: int = 0,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        living: bool = False,
        clock_rate: float = 0.0,
    ) -> None:
        self._seed = checked_whole("seed", seed)
        self._job_ids = checked_job_ids(jobs, self._seed)
        self._run_counts = checked_run_counts(runs, len(self._job_ids))
        self._host = checked_text("host", host)
        self._port = checked_whole("port", port, 0, 65535)
        self._api_key = "sandbox-" + secrets.token_hex(16) if api_key is None else checked_text("api_key", api_key)
        self._living = living
        self._clock_rate = checked_seconds("clock_rate", clock_rate)
        self._requests = deque[SeenRequest](maxlen=100_000)
        self._makers: dict[str, RunMaker] = {}
        self._store: Store | None = None
        self._server: Server | None = None
        self._clock: Clock | None = None
        self._life: Life | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens: `http://host:port`, without a slash at the end. Empty until it is started."""
        return self._url

    @property
    def api_key(self) -> str:
        """The bearer token it accepts."""
        return self._api_key

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The ids of its jobs."""
        return self._job_ids

    @property
    def requests(self) -> deque[SeenRequest]:
        """The last 100,000 requests it has answered, the latest last. Clear it as you like."""
        return self._requests

    @property
    def clock(self) -> Clock:
        """Its clock. It starts when the last thing in its runs happened, and stands still unless told otherwise.

        Runs are created and finished at the time it shows. What the clock has passed is done, and seen, by the next
        request or call.

        Raises:
            RuntimeError: the sandbox isn't running.
        """
        if self._clock is None:
            raise _not_running()
        return self._clock

    async def start(self) -> None:
        """Make the runs and listen.

        Raises:
            OSError: the address can't be listened on.
            RuntimeError: it is running already.
        """
        if self._server is not None:
            raise RuntimeError(f"this sandbox is running already, at {self._url}")
        store = self._store = Store(self._job_ids)
        server = self._server = Server(store, self._api_key, self._requests, self._catch_up)
        try:
            for job_id, count in zip(self._job_ids, self._run_counts, strict=True):
                maker = self._makers[job_id] = RunMaker(self._seed, job_id)
                store.fill(job_id, maker.history(count))
            clock = self._clock = Clock(max(NEWEST, store.last_moment()), self._clock_rate)
            if self._living:
                self._life = Life(self._seed, store, self._makers, clock.now)
            port = await server.start(self._host, self._port)
        except BaseException:
            await self.aclose()
            raise
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"http://{host}:{port}"

    async def aclose(self) -> None:
        """Stop listening, close every connection and forget the runs. Does nothing if it isn't running."""
        server = self._server
        self._store = self._server = self._clock = self._life = None
        if server is not None:
            await server.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def runs(self, job_id: str) -> list[JobRun]:
        """All runs of the job as they stand, the newest first.

        Raises:
            KeyError: there is no such job.
            RuntimeError: the sandbox isn't running.
        """
        _, texts = self._store_of(job_id).page(job_id, Selection())
        return [parse(text) for text in texts]

    async def create_run(self, job_id: str, **fields: Any) -> JobRun:
        """Add a run to the job, created now by the clock, but after all others: it is the first in the default order.

        Args:
            job_id: the job.
            fields: fields of `JobRun` by name, in place of the generated values. The generated ones agree with the
                status; without one, the run is CREATED.

        Raises:
            KeyError: there is no such job.
            TypeError: there is no such field.
            ValueError: a value isn't one that the field can have, or the job has a run with this id.
            RuntimeError: the sandbox isn't running.
        """
        store = self._store_of(job_id)
        changes = from_fields(fields)
        status = JobRunStatus(changes.get("status", "CREATED"))
        latest = store.latest(job_id)
        created_at = self.clock.now if latest is None else max(self.clock.now, int(latest) + 1)
        wire = self._makers[job_id].new_run(created_at, status) | changes
        if store.get(job_id, wire["id"]) is not None:
            raise ValueError(f"job {job_id!r} has a run with the id {wire['id']!r} already")
        return self._put(job_id, wire)

    async def update_run(self, job_id: str, run_id: str, **fields: Any) -> JobRun:
        """Change these fields of a run, by their `JobRun` names, and no others.

        Raises:
            KeyError: there is no such job or run.
            TypeError: there is no such field.
            ValueError: a value isn't one that the field can have; the id can't be changed.
            RuntimeError: the sandbox isn't running.
        """
        run = self._run(job_id, run_id)
        return self._put(job_id, run | _changes(run_id, fields))

    async def finish_run(
        self, job_id: str, run_id: str, status: JobRunStatus | str = JobRunStatus.FINISHED, **fields: Any
    ) -> JobRun:
        """End a run, now by the clock.

        Args:
            job_id: the job.
            run_id: the run, which mustn't have ended yet.
            status: how it ends: FINISHED, FAILED or TERMINATED.
            fields: fields of `JobRun` by name, in place of the generated end time, duration, error and exit code.

        Raises:
            KeyError: there is no such job or run.
            TypeError: there is no such field.
            ValueError: the run has ended, the status is no end, or a value isn't one that the field can have.
            RuntimeError: the sandbox isn't running.
        """
        run = self._run(job_id, run_id)
        if JobRunStatus(run["status"]).is_terminal:
            raise ValueError(f"the run {run_id!r} has ended already: it is {run['status']}")
        if not isinstance(status, str) or not JobRunStatus(status).is_terminal:
            raise ValueError(f"status must be one that a run ends with, FINISHED, FAILED or TERMINATED, got {status!r}")
        end = ended(run, JobRunStatus(status), self.clock.now)
        return self._put(job_id, run | end | _changes(run_id, fields))

    async def delete_run(self, job_id: str, run_id: str) -> None:
        """Forget a run.

        Raises:
            KeyError: there is no such job or run.
            RuntimeError: the sandbox isn't running.
        """
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
        if self._life is not None:
            self._life.expect(job_id, run.id, run.status, self.clock.now)
        return run

    def _catch_up(self) -> None:
        if self._life is not None:
            self._life.run_until(self.clock.now)

    def _store_of(self, job_id: str) -> Store:
        if self._store is None:
            raise _not_running()
        if job_id not in self._store.job_ids:
            raise KeyError(f"this sandbox has no job {job_id!r}")
        self._catch_up()
        return self._store


def _changes(run_id: str, fields: dict[str, Any]) -> Wire:
    changes = from_fields(fields)
    if changes.get("id", run_id) != run_id:
        raise ValueError(f"the id of a run can't be changed: got {changes['id']!r} for {run_id!r}")
    return changes


def _not_running() -> RuntimeError:
    return RuntimeError("this sandbox isn't running: use it within `async with`")


def _no_run(job_id: str, run_id: str) -> KeyError:
    return KeyError(f"job {job_id!r} has no run with the id {run_id!r}")
