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
from tfruns.sandbox.data import RunMaker
from tfruns.sandbox.server import SeenRequest, Server
from tfruns.sandbox.store import Selection, Store
from tfruns.sandbox.wire import Wire, decode, encode, from_fields, parse

__all__ = ["Sandbox", "SeenRequest"]


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
    ) -> None:
        self._seed = checked_whole("seed", seed)
        self._job_ids = checked_job_ids(jobs, self._seed)
        self._run_counts = checked_run_counts(runs, len(self._job_ids))
        self._host = checked_text("host", host)
        self._port = checked_whole("port", port, 0, 65535)
        self._api_key = "sandbox-" + secrets.token_hex(16) if api_key is None else checked_text("api_key", api_key)
        self._requests = deque[SeenRequest](maxlen=100_000)
        self._makers: dict[str, RunMaker] = {}
        self._store: Store | None = None
        self._server: Server | None = None
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

    async def start(self) -> None:
        """Make the runs and listen.

        Raises:
            OSError: the address can't be listened on.
            RuntimeError: it is running already.
        """
        if self._server is not None:
            raise RuntimeError(f"this sandbox is running already, at {self._url}")
        store = self._store = Store(self._job_ids)
        server = self._server = Server(store, self._api_key, self._requests)
        try:
            for job_id, count in zip(self._job_ids, self._run_counts, strict=True):
                maker = self._makers[job_id] = RunMaker(self._seed, job_id)
                store.put(job_id, maker.history(count))
            port = await server.start(self._host, self._port)
        except BaseException:
            await self.aclose()
            raise
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"http://{host}:{port}"

    async def aclose(self) -> None:
        """Stop listening, close every connection and forget the runs. Does nothing if it isn't running."""
        store, server = self._store, self._server
        self._store = self._server = None
        if store is not None and server is not None:
            try:
                await server.aclose()
            finally:
                store.close()

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
        """Add a run to the job, created some milliseconds after all others, and so the first in the default order.

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
        wire = self._makers[job_id].next_run(store.latest(job_id), status) | changes
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
        store = self._store_of(job_id)
        changes = from_fields(fields)
        if changes.get("id", run_id) != run_id:
            raise ValueError(f"the id of a run can't be changed: got {changes['id']!r} for {run_id!r}")
        text = store.get(job_id, run_id)
        if text is None:
            raise _no_run(job_id, run_id)
        return self._put(job_id, decode(text) | changes)

    async def delete_run(self, job_id: str, run_id: str) -> None:
        """Forget a run.

        Raises:
            KeyError: there is no such job or run.
            RuntimeError: the sandbox isn't running.
        """
        if not self._store_of(job_id).delete(job_id, run_id):
            raise _no_run(job_id, run_id)

    def _put(self, job_id: str, wire: Wire) -> JobRun:
        text = encode(wire)
        run = parse(text)  # refuses what isn't a run, before it is stored
        self._store_of(job_id).put(job_id, [wire])
        return run

    def _store_of(self, job_id: str) -> Store:
        if self._store is None:
            raise RuntimeError("this sandbox isn't running: use it within `async with`")
        if job_id not in self._store.job_ids:
            raise KeyError(f"this sandbox has no job {job_id!r}")
        return self._store


def _no_run(job_id: str, run_id: str) -> KeyError:
    return KeyError(f"job {job_id!r} has no run with the id {run_id!r}")
