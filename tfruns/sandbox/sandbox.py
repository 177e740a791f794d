"""The sandbox itself: its settings, its start and its end, and its methods for tests."""

import contextlib
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Self

from tfruns._checks import checked_int, checked_kind, checked_number, checked_seconds, checked_string
from tfruns._loop_thread import LoopThread
from tfruns.models import JobRun, JobRunStatus
from tfruns.sandbox.data import NEWEST, Wire, made_up_job_ids, parse, read_runs
from tfruns.sandbox.faults import Fault, FaultInjector, Faults, RateLimit
from tfruns.sandbox.jobs import Clock, Job
from tfruns.sandbox.server import SeenRequest, Server

_MOST_JOBS = 100_000
_NOT_RUNNING = "this sandbox isn't running: use it within `async with`, or `with`"


class Sandbox:
    """A server of job runs for tests and for trying things out.

    Within `async with`, or from `await start()` to `await aclose()`, it serves from the running event loop; within
    `with`, from its own thread: for synchronous code, and code that blocks its event loop or has several. Its methods
    can be called from any thread and any event loop (`asyncio.run(sandbox.create_run("my-job-id"))` in synchronous
    code), and the next request sees their changes.

    Its runs are held in memory, some 1.2 kB each, and are the same for the same arguments. They are made when a page
    needs them, which takes some 15 µs a run: those before its end, or all of the job for a filter or another order.
    Choices that the contract leaves to the server are listed in `tfruns.sandbox.server`.

    Args:
        jobs: how many jobs, 1 to 100,000, or their ids.
        runs: how many runs each job has, 0 or more; or one such number for each job.
        seed: what the runs are made from. The runs of a job depend on the seed, its id and their number alone.
        host: the address to listen on.
        port: the port to listen on, up to 65535; 0 for a free one.
        api_key: the bearer token to accept; without one, the sandbox makes one.
        living: create new runs, and let every run move from CREATED through SCHEDULED and RUNNING to its end, as its
            clock moves. What happens when depends on the seed and the clock alone. A job that has 10,000 more runs than
            at the start loses its oldest run when a new one is created.
        clock_start: when its clock starts, which is also when the newest run of each job was created: an aware
            datetime, milliseconds since 1970, or "now"; None for the start of 2026, so that tests see the same times.
        clock_rate: how many seconds of its clock pass in a second; with 0, the clock moves only by `Clock.advance`.
        runs_from: a file of JSON lines, plain or compressed by gzip, to take jobs and runs from, as `tfruns export`
            writes it: each line a run, with its job in `jobId`. `jobs` and `runs` have no effect then, and the clock
            starts at the last event in the file, if that is later.
        faults: what goes wrong, and with which requests: each a `Fault`, or the text of one.
        rate_limit: how many requests a second it accepts.
        forbidden: ids of jobs, existing or not, that the key's owner has no access to (403).

    Attributes:
        url: the URL of the server, `http://host:port`, without a slash at the end. Empty until it is started.
        api_key: the bearer token that it accepts.
        requests: the last 100,000 requests that it has responded to, the latest last. You may clear it.

    Raises:
        ValueError, TypeError: an argument isn't one of these.

    Example:
        >>> from tfruns.sandbox import Sandbox
        >>> async with Sandbox(jobs=["my-job-id"], runs=50, faults=["status=503,rate=0.1"]) as sandbox:
        ...     async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        ...         print(len(await client.iter_runs("my-job-id").collect()), "runs, in spite of the faults")
        50 runs, in spite of the faults

        In synchronous code:

        >>> with Sandbox(jobs=["my-job-id"], runs=50) as sandbox:
        ...     print(sandbox.url.startswith("http://127.0.0.1:"), len(sandbox.runs("my-job-id")))
        True 50
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
        clock_start: datetime | float | Literal["now"] | None = None,
        clock_rate: float = 0.0,
        runs_from: str | PathLike[str] | None = None,
        faults: Iterable[Fault | str] = (),
        rate_limit: RateLimit | None = None,
        forbidden: Iterable[str] = (),
    ) -> None:
        self.url: str = ""
        self._seed = checked_int(seed, "seed")
        job_ids = _job_ids(jobs, self._seed)
        self._sources: dict[str, Any] = dict(zip(job_ids, _run_counts(runs, len(job_ids)), strict=True))
        self._host = _visible(host, "host")
        self._port = checked_int(port, "port", least=0, most=65535)
        self.api_key: str = self.new_key() if api_key is None else _visible(api_key, "api_key")
        self._living = checked_kind(living, "living", "a bool", bool)
        self._clock_start = _milliseconds(clock_start)
        self._clock_rate = checked_seconds(clock_rate, "clock_rate")
        self._runs_from = checked_kind(runs_from, "runs_from", "the path of a file", str | PathLike | None)
        if runs_from == "":
            raise ValueError("runs_from must be the path of a file, got ''")
        self._faults = Faults(faults)
        self._rate_limit = checked_kind(rate_limit, "rate_limit", "a RateLimit", RateLimit | None)
        self._forbidden = frozenset(_items(forbidden, "forbidden", "a sequence of strings", str))
        self.requests: deque[SeenRequest] = deque(maxlen=100_000)
        self._jobs: dict[str, Job] = {}
        self._clock: Clock | None = None
        self._server: Server | None = None

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The ids of its jobs. Those that come from a file are known once it is started."""
        return tuple(self._jobs or self._sources)

    @property
    def faults(self) -> Faults:
        """What goes wrong, from the next request on.

        You may change or replace the list: it takes a `Fault`, or the text of one.

        Example:
            >>> sandbox.faults.append("status=503,nth=1")
            >>> print(await client.count_runs("my-job-id"), "runs, after a retry")
            250 runs, after a retry
        """
        return self._faults

    @faults.setter
    def faults(self, faults: Iterable[Fault | str]) -> None:
        self._faults[:] = faults

    @property
    def clock(self) -> Clock:
        """Its clock. It stands still unless `clock_rate` says otherwise.

        Runs are created and finished at the clock's time. The next request or call does, and shows, all events until
        that time.

        Raises:
            RuntimeError: the sandbox isn't running.
        """
        if self._clock is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._clock

    async def start(self) -> None:
        """Read the runs, if they come from a file, and listen.

        Raises:
            OSError: an address can't be listened on, or a file can't be read.
            ValueError: a file doesn't hold what it should.
            RuntimeError: it is running already.

        Example:
            >>> from tfruns.sandbox import Sandbox
            >>> sandbox = Sandbox(jobs=["my-job-id"])
            >>> await sandbox.start()
            >>> await sandbox.aclose()
        """
        if self._server is not None:
            raise RuntimeError(f"this sandbox is running already, at {self.url}")
        given: dict[str, list[Wire]] = {} if self._runs_from is None else read_runs(self._runs_from)
        times = [max(run["createdAt"], run.get("endTime") or 0) for runs in given.values() for run in runs]
        clock = self._clock = Clock(max([int(self._clock_start), *times]))
        sources = (given or self._sources).items()
        self._jobs = {job_id: Job(job_id, self._seed, runs, clock, living=self._living) for job_id, runs in sources}
        clock.rate = self._clock_rate  # from here on: every job has begun at the same time
        injector = FaultInjector(self._faults, self._rate_limit, self._seed)
        self._server = Server(self._jobs, injector, lambda key: key == self.api_key, self._forbidden, self.requests)
        try:
            self.url = await self._server.start(self._host, self._port)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop listening, close every connection and forget the runs. Does nothing if it isn't running.

        Example:
            >>> await sandbox.aclose()
        """
        server, self._server, self._clock, self._jobs = self._server, None, None, {}
        if server is not None:
            await server.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            thread = stack.enter_context(contextlib.closing(LoopThread("tfruns-sandbox")))
            thread.start(self.start()).result()
            stack.callback(lambda: thread.start(self.aclose()).result())
            self._at_exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._at_exit.close()

    def runs(self, job_id: str) -> list[JobRun]:
        """All runs of the job as they are now, without a request.

        Args:
            job_id: the job.

        Returns:
            Its runs, the newest first.

        Raises:
            KeyError, RuntimeError: there is no such job; the sandbox isn't running.

        Example:
            >>> assert await client.iter_runs("my-job-id").collect() == sandbox.runs("my-job-id")
        """
        return [parse(text) for text in self._job(job_id).page()[1]]

    async def create_run(self, job_id: str, **fields: Any) -> JobRun:
        """Add a run to the job, created now by the clock, but after all others: it is the first in the default order.

        If the last one was created now too, the clock moves on by a millisecond.

        Args:
            job_id: the job.
            fields: fields of `JobRun` by name, in place of the generated values. The generated ones agree with the
                status; without a status, the run is CREATED.

        Returns:
            The new run.

        Raises:
            KeyError: there is no such job, or, for the methods below, no such run.
            TypeError: there is no such field.
            ValueError: a value isn't one that the field can have, or the job has a run with this id.
            RuntimeError: the sandbox isn't running.

        Example:
            >>> run = await sandbox.create_run("my-job-id", status="FAILED", error="out of memory", exit_code=137)
        """
        return self._job(job_id).create(fields)

    async def update_run(self, job_id: str, run_id: str, **fields: Any) -> JobRun:
        """Change these fields of a run, and no others.

        Args:
            job_id: the job.
            run_id: the run.
            fields: fields of `JobRun` by name, each with its new value.

        Returns:
            The run as it is now.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: as in `create_run`; the id can't be changed.

        Example:
            >>> run = await sandbox.create_run("my-job-id")
            >>> run = await sandbox.update_run("my-job-id", run.id, status="SCHEDULED")
        """
        return self._job(job_id).update(run_id, fields)

    async def finish_run(
        self, job_id: str, run_id: str, status: JobRunStatus | str = JobRunStatus.FINISHED, **fields: Any
    ) -> JobRun:
        """End a run, now by the clock.

        Args:
            job_id: the job.
            run_id: the run, which mustn't have ended yet.
            status: how it ends: FINISHED, FAILED or TERMINATED.
            fields: fields of `JobRun` by name, in place of the generated end time, duration, error and exit code.

        Returns:
            The run as it is now.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: as in `create_run`; or the run has ended already, or the
                status isn't one that a run ends with.

        Example:
            >>> run = await sandbox.create_run("my-job-id", status="RUNNING")
            >>> sandbox.clock.advance(60)
            >>> (await sandbox.finish_run("my-job-id", run.id, "FAILED")).status.value
            'FAILED'
        """
        return self._job(job_id).finish(run_id, status, fields)

    async def delete_run(self, job_id: str, run_id: str) -> None:
        """Delete a run.

        Args:
            job_id: the job.
            run_id: the run.

        Raises:
            KeyError, RuntimeError: there is no such job or run; the sandbox isn't running.

        Example:
            >>> await sandbox.delete_run("my-job-id", sandbox.runs("my-job-id")[0].id)
        """
        self._job(job_id).delete(run_id)

    def new_key(self) -> str:
        """Make a new key. The last one is refused (401) from now on.

        A client with `api_key=lambda: sandbox.api_key` uses the new one.
        """
        self.api_key = f"sandbox-{secrets.token_hex(16)}"
        return self.api_key

    def _job(self, job_id: str) -> Job:
        if self._server is None:
            raise RuntimeError(_NOT_RUNNING)
        if job_id not in self._jobs:
            raise KeyError(f"this sandbox has no job {job_id!r}")
        return self._jobs[job_id]


# --- arguments: each error says what was given and what is allowed ---

_LATEST = 250_000_000_000_000  # in the year 9892: some runs can still be created before the calendar ends


def _visible(value: Any, name: str) -> str:
    if not re.fullmatch("[!-~]+", checked_string(value, name)):
        raise ValueError(f"{name} must be one or more visible ASCII characters, without spaces, got {value!r}")
    return str(value)


def _items(values: Any, name: str, allowed: str, kind: type) -> tuple[Any, ...]:
    items = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else (None,)
    if not all(isinstance(item, kind) for item in items):
        raise TypeError(f"{name} must be {allowed}, got {values!r}")
    return items


def _job_ids(jobs: Any, seed: int) -> tuple[str, ...]:
    if isinstance(jobs, int):
        return made_up_job_ids(seed, checked_int(jobs, "jobs", least=1, most=_MOST_JOBS))
    allowed = "a number of jobs or a sequence of job ids"
    ids = _items(jobs, "jobs", allowed, str)
    if not ids or "" in ids or len({*ids}) < len(ids):
        raise ValueError(f"jobs must be {allowed}, at least one, none empty, none twice, got {jobs!r}")
    return tuple(checked_string(job_id, "each of jobs") for job_id in ids)


def _run_counts(runs: Any, job_count: int) -> tuple[int, ...]:
    if isinstance(runs, int):
        runs = (runs,) * job_count
    counts = _items(runs, "runs", "a number of runs or a sequence of them, one for each job", int)
    if len(counts) != job_count:
        raise ValueError(f"runs must hold one number for each job, {job_count} in all, got {len(counts)}: {runs!r}")
    return tuple(checked_int(count, "runs", least=0) for count in counts)


def _milliseconds(start: Any) -> float:
    allowed = 'an aware datetime, "now", None, or milliseconds since 1970'
    if start is None:
        return NEWEST
    if start == "now":
        return time.time() * 1000
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError(f"clock_start must be {allowed}, got {start!r}, which has no time zone")
        return start.timestamp() * 1000
    return checked_number(start, "clock_start", f"{allowed}, from 0 to {_LATEST:.0f}", least=0, most=_LATEST)
