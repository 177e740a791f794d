"""The runs of many jobs: several jobs are walked at the same time, within the client's limit of requests."""

import asyncio
import heapq
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable, Sized
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

import attrs

from tfruns._checks import checked_job_id
from tfruns._table.frames import Tables
from tfruns._table.lists import JobsRunList
from tfruns._walk.iteration import Iteration
from tfruns._walk.paginator import RunPaginator, expected, shown, walk_of
from tfruns._walk.walker import NewRuns, Prefetch, Walk
from tfruns.errors import NOT_ABOUT_ONE_JOB, TfRunsError
from tfruns.models import JobRun, RawPage, RunPage
from tfruns.types import OnError

if TYPE_CHECKING:
    import pyarrow

_MOST_STARTED = 1_000
"""How many jobs may have started without having ended."""
_MOST_NEW_IN_A_ROW = 31
"""How many new jobs may go first in a row while a job that has started waits."""
_READ_AT_ONCE = 32
"""How many job ids are read before other tasks run."""


@attrs.frozen(kw_only=True)
class JobsProgress:
    """How far the runs of many jobs were read: the value of `JobsPaginator.progress`.

    Example:
        >>> runs = client.iter_runs_for(["job-a", "job-b"])
        >>> async for job_id, run in runs:
        ...     progress = runs.progress
        >>> print(f"{progress.runs} runs of about {progress.runs_expected}")
        500 runs of about 500
    """

    jobs_started: int
    """Jobs whose walk has started."""
    jobs_done: int
    """Jobs whose runs were all yielded."""
    jobs_skipped: int
    """Jobs that failed and were skipped. An id that comes twice counts twice."""
    pages: int
    """Pages with runs."""
    runs: int
    """Runs in those pages."""
    runs_expected: int
    """Runs of all jobs that have started, by the server's count. (Those of other jobs aren't known yet.)"""


class JobsPaginator(Tables):
    """The runs of many jobs, as `Client.iter_runs_for` returns them. Nothing is requested until they are iterated.

    `async for job_id, run in …` yields each run with its job's id. Each `async for` is a new walk from the start.

    Attributes:
        skipped: the jobs that failed and were skipped, by id, each with its error, in the walk that started last.

    Example:
        >>> runs = client.iter_runs_for(["job-a", "no-such-job"], on_error="skip")
        >>> found = [run async for job_id, run in runs]
        >>> print(len(found), "runs; skipped:", ", ".join(runs.skipped))
        250 runs; skipped: no-such-job
    """

    def __init__(
        self,
        job_ids: Iterable[str] | AsyncIterable[str],
        *,
        template: RunPaginator,
        side_by_side: int,
        ordered: bool,
        on_error: OnError,
    ) -> None:
        self.skipped: dict[str, TfRunsError] = {}
        self._job_ids = job_ids
        self._template = template
        self._side_by_side = side_by_side
        self._ordered = ordered
        self._on_error = on_error
        self._walks: _JobWalks | None = None
        self._iteration: Iteration[tuple[str, JobRun]] = Iteration()

    def __repr__(self) -> str:
        number = f"{len(self._job_ids):,} jobs" if isinstance(self._job_ids, Sized) else "many jobs"
        return shown(self._template, number)

    @property
    def progress(self) -> JobsProgress:
        """The progress of the walk that started last."""
        walks = self._walks
        return JobsProgress(
            jobs_started=walks.started if walks else 0,
            jobs_done=walks.done if walks else 0,
            jobs_skipped=walks.skipped if walks else 0,
            pages=walks.pages if walks else 0,
            runs=walks.runs if walks else 0,
            runs_expected=sum(walks.expected.values()) + walks.expected_of_ended if walks else 0,
        )

    def _begin(self, **changes: Any) -> "_JobWalks":
        self.skipped.clear()
        template = attrs.evolve(self._template, **changes)
        self._walks = _JobWalks(self._job_ids, template, self._side_by_side, ordered=self._ordered)
        return self._walks

    def __aiter__(self) -> AsyncGenerator[tuple[str, JobRun]]:
        return self._iteration.take() or self._iteration.begin(self._begin(), self._runs_of)

    async def __anext__(self) -> tuple[str, JobRun]:
        return await self._iteration.next(aiter(self))

    async def aclose(self) -> None:
        """Close the walks that `async for` and `anext` have begun, as `RunPaginator.aclose` does.

        Raises:
            RuntimeError: a task waits for the next run: cancel that task, which closes the walk as well.

        Example:
            >>> from contextlib import aclosing
            >>> async with aclosing(client.iter_runs_for(["job-a", "job-b"])) as runs:
            ...     job_id, run = await anext(runs)

        .. versionadded:: 0.3.0
        """
        await self._iteration.aclose()

    async def _runs_of(self, walks: "_JobWalks") -> AsyncGenerator[tuple[str, JobRun]]:
        async with walks:
            async for job_id, found in walks:
                if isinstance(found, BaseException):
                    await self._handle_failure(walks, job_id, found)
                elif found is not None:
                    for run in found.runs:
                        yield job_id, run
                del found  # before the next is made

    async def pages(self) -> AsyncGenerator[tuple[str, RunPage]]:
        """Yield each page of `RunPaginator.pages` with its job's id.

        Yields:
            `(job_id, page)`: those of one job in the server's order, those of several as they arrive.

        Raises:
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> async for job_id, page in client.iter_runs_for(["job-a", "job-b"], ordered=True).pages():
            ...     print(job_id, len(page.data), "of", page.pagination.total)
            job-a 250 of 250
            job-b 250 of 250

        .. versionadded:: 0.2.0
        """
        size = self._template.page_size
        async with self._begin() as walks:
            async for job_id, found in walks:
                if isinstance(found, BaseException):
                    await self._handle_failure(walks, job_id, found)
                elif found is not None:
                    for page in found.pages(size):
                        yield job_id, page
                del found  # before the next is made

    async def arrow_batches(self) -> "AsyncGenerator[pyarrow.RecordBatch]":
        """Yield the same pages as Arrow record batches with `tfruns.arrow.SCHEMA`, in which `job_id` is a column.

        Every library that reads Arrow can read them: dlt, Delta Lake, ADBC, DuckDB, Polars (extra `arrow`).

        Yields:
            A batch for each page: those of one job in the server's order, those of several as they arrive.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> async for batch in client.iter_runs_for(["job-a", "job-b"]).arrow_batches():
            ...     print(batch.num_rows, "rows")
            250 rows
            250 rows

        .. versionadded:: 0.2.0
        """
        from tfruns.arrow import record_batch

        size = self._template.page_size
        async with self._begin() as walks:
            async for job_id, found in walks:
                if isinstance(found, BaseException):
                    await self._handle_failure(walks, job_id, found)
                elif found is not None:
                    for start in range(0, len(found.runs), size):
                        yield record_batch(job_id, found.runs[start : start + size])
                del found  # before the next is made

    async def collect(self) -> JobsRunList:
        """Every run, as one list of `(job_id, run)`, which is a table, too. Takes memory for all of them.

        Returns:
            The runs: those of one job in the server's order, those of several as they arrive.

        Raises:
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> failed = await client.iter_runs_for(["job-a", "job-b"], status="FAILED").collect()

        .. versionadded:: 0.3.0
        """
        return JobsRunList([found async for found in self._runs_of(self._begin())])

    async def count(self) -> int:
        """How many runs the walk would yield by the server's counts now: a request or two for each job.

        The server doesn't count by time of creation. With `created_after` or `created_before` the runs are read, and
        counted.

        Returns:
            The sum over all jobs, each less `offset`, and at most `max_runs`; without those that were skipped.

        Raises:
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> print(await client.iter_runs_for(["job-a", "job-b"]).count())
            500

        .. versionadded:: 0.3.0
        """
        if self._template.filter.has_window:
            async with aclosing(self.pages()) as pages:
                return sum([len(page) async for _, page in pages])
        counted = 0
        first = 1 if self._template.max_runs is None else min(1, self._template.max_runs)
        async with self._begin(max_runs=first) as walks:
            async for job_id, found in walks:
                if isinstance(found, BaseException):
                    await self._handle_failure(walks, job_id, found)
                elif found is not None:
                    counted += expected(found.page.pagination.total, self._template)
        return counted

    async def raw_pages(self, *, keep_bad: bool = False) -> AsyncGenerator[tuple[str, RawPage | None]]:
        """Yield each page of `RunPaginator.raw_pages` with its job's id, and the end of each job.

        Args:
            keep_bad: as in `RunPaginator.raw_pages`.

        Yields:
            `(job_id, page)` for each page, and `(job_id, None)` once a job has no more pages; but not for a job that is
            skipped.

        Raises:
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> async for job_id, page in client.iter_runs_for(["job-a", "job-b"], ordered=True).raw_pages():
            ...     print(job_id, "is done" if page is None else f"{len(page.texts)} runs")
            job-a 250 runs
            job-a is done
            job-b 250 runs
            job-b is done
        """
        async with self._begin(keep_bad=keep_bad) as walks:
            async for job_id, found in walks:
                if isinstance(found, BaseException):
                    await self._handle_failure(walks, job_id, found)
                elif found is None:
                    yield job_id, None
                else:
                    for page in found.raw_pages(self._template.page_size):
                        yield job_id, page
                del found  # before the next is made

    async def _handle_failure(self, walks: "_JobWalks", job_id: str, error: BaseException) -> None:
        if not isinstance(error, TfRunsError) or isinstance(error, NOT_ABOUT_ONE_JOB) or self._on_error == "raise":
            raise error
        self.skipped[job_id] = error
        walks.skipped += 1
        if callable(self._on_error):
            result = self._on_error(job_id, error)
            if inspect.isawaitable(result):
                await result


@attrs.frozen
class _NoMoreJobs:
    """There are no more job ids."""

    error: BaseException | None


class _Channel:
    """A queue of the jobs with a response that wasn't consumed yet: of one job, or of all if their order is any.

    A response waits as bytes: several decoded pages don't fit into the processor's cache, and it takes twice the time
    to read and to free them.
    """

    def __init__(self, walk: Walk | None = None) -> None:
        self.walk = walk
        self.arrived: asyncio.Queue[_Job | _NoMoreJobs] = asyncio.Queue()


@attrs.define(eq=False)
class _Job:
    number: int
    job_id: str
    walk: Walk
    channel: _Channel
    is_over: bool = False
    error: BaseException | None = None

    def __lt__(self, other: "_Job") -> bool:
        return self.number < other.number


class JobScheduler:
    """Which job requests a page next.

    New jobs go first, so that small jobs don't wait for large ones. Of the others, the one that started first goes
    first: then its walk ends soon, before its list has changed much.
    """

    def __init__(self) -> None:
        self._new: deque[_Job] = deque()
        self._started: list[_Job] = []
        self._new_in_a_row = 0
        self._idle: deque[asyncio.Future[None]] = deque()  # workers without a job

    def add(self, job: _Job, *, is_new: bool) -> bool:
        """Let a job wait for its turn. Whether a worker was idle."""
        if is_new:
            self._new.append(job)
        else:
            heapq.heappush(self._started, job)
        while self._idle:
            if not (worker := self._idle.popleft()).done():
                worker.set_result(None)
                return True
        return False

    async def next(self) -> tuple[_Job, bool]:
        """The job whose turn it is, and whether it is new."""
        while not (self._new or self._started):
            self._idle.append(asyncio.get_running_loop().create_future())
            await self._idle[-1]
        takes_new = self._new and not (self._started and self._new_in_a_row >= _MOST_NEW_IN_A_ROW)
        self._new_in_a_row = self._new_in_a_row + 1 if takes_new else 0
        return (self._new.popleft(), True) if takes_new else (heapq.heappop(self._started), False)


class _JobWalks:
    """Walks several jobs at the same time: an async iterator of their pages, inside `async with`.

    Each of a few workers takes the job whose turn it is, and waits for its next response: a job has no task of its own.
    """

    def __init__(
        self, job_ids: Iterable[str] | AsyncIterable[str], template: RunPaginator, side_by_side: int, *, ordered: bool
    ) -> None:
        self.started = self.done = self.skipped = self.pages = self.runs = self.expected_of_ended = 0
        self._all = self._ended = 0  # how many walks there are, and how many of them have ended
        self.expected: dict[int, int] = {}
        self._job_ids = job_ids
        self._template = template
        self._most_workers = side_by_side
        self._workers = 0
        self._prefetch = Prefetch(side_by_side)
        self._scheduler = JobScheduler()
        self._walks: dict[int, Walk] = {}  # those that have started and not ended
        self._job_slots = asyncio.Semaphore(side_by_side if ordered else _MOST_STARTED)
        self._turns = asyncio.Semaphore(side_by_side)  # of jobs that wait for a response, or for its consumer
        self._shared = None if ordered else _Channel()
        self._channels: asyncio.Queue[_Channel | _NoMoreJobs] = asyncio.Queue()  # if ordered
        self._channel = self._shared  # the channel that is read now
        self._ending: _Job | None = None  # its end is reported next
        self._has_all_jobs = self._is_over = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._template._transport.enter_loop()  # pyright: ignore[reportPrivateUsage]
        self._start(self._read_jobs())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        while tasks := [*self._tasks]:  # an iterable of ids that swallows its cancellation may have started one more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # CPython 3.12 gathers tasks that are done without running their callbacks first.
            self._tasks.difference_update(tasks)
        while self._walks:
            await self._walks.popitem()[1].__aexit__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, NewRuns | BaseException | None]:
        """The next page of a job; and at the end of each job its error, or None."""
        while True:
            if self._ending is not None:
                return self._end(self._ending)
            if self._has_all_jobs and self._all == self._ended:
                raise StopAsyncIteration
            match await self._next_item():
                case _NoMoreJobs(error):
                    if error is not None:
                        raise error
                    self._has_all_jobs = True
                case job:
                    new = await self._take(job)
                    if new is not None and new.runs:
                        return job.job_id, new

    async def _next_item(self) -> _Job | _NoMoreJobs:
        if self._channel is None:
            channel = await self._channels.get()
            if isinstance(channel, _NoMoreJobs):
                return channel
            self._channel = channel
            self._prefetch.front = channel.walk
        return await self._channel.arrived.get()

    async def _take(self, job: _Job) -> NewRuns | None:
        """The new runs of the response that has arrived. Then the job waits for its next turn, if there is one."""
        new = None
        try:
            if not job.is_over:
                new = await job.walk.take()
                job.is_over = job.walk.is_over
        except (Exception, asyncio.CancelledError) as caught:
            job.error, job.is_over = _raised(caught), True
        self._turns.release()
        if new is not None and new.runs:
            self.expected[job.number] = new.expected
            self.pages += 1
            self.runs += len(new.runs)
        if job.is_over:
            self._ending = job
            await self._walks.pop(job.number).__aexit__()
        else:
            self._scheduler.add(job, is_new=False)
        return new

    def _end(self, job: _Job) -> tuple[str, BaseException | None]:
        self._ending = None
        self._ended += 1
        self.done += job.error is None
        self.expected_of_ended += min(self.expected.pop(job.number, 0), job.walk.expected)
        if self._shared is None:
            self._channel = None
        self._job_slots.release()
        return job.job_id, job.error

    def _start(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_jobs(self) -> None:
        """Read one job id after another, whenever fewer than the allowed number of jobs have started."""
        error: BaseException | None = None
        try:
            ids = self._each_id()
            await self._job_slots.acquire()
            async for job_id in ids:
                if self._is_over:
                    return
                walk = walk_of(self._template, self._prefetch, checked_job_id(job_id))
                self._all += 1
                job = _Job(self._all, job_id, walk, self._shared or _Channel(walk))
                if job.channel is not self._shared:
                    self._channels.put_nowait(job.channel)
                has_worker = self._scheduler.add(job, is_new=True)
                if not has_worker and self._workers < self._most_workers:
                    self._workers += 1
                    self._start(self._work())
                if self._all % _READ_AT_ONCE == 0:
                    await asyncio.sleep(0)  # let other tasks run
                await self._job_slots.acquire()
        except (Exception, asyncio.CancelledError) as caught:
            error = _raised(caught)
        if self._shared is not None:
            self._shared.arrived.put_nowait(_NoMoreJobs(error))
        else:
            self._channels.put_nowait(_NoMoreJobs(error))

    async def _each_id(self) -> AsyncGenerator[str]:
        if isinstance(self._job_ids, AsyncIterable):
            async for job_id in self._job_ids:
                yield job_id
        else:
            for job_id in self._job_ids:
                yield job_id

    async def _work(self) -> None:
        while True:
            await self._turns.acquire()
            job, is_new = await self._scheduler.next()
            if is_new:
                self.started += 1
                self._walks[job.number] = job.walk
            try:
                job.is_over = not await job.walk.arrive()
            except (Exception, asyncio.CancelledError) as caught:
                job.error, job.is_over = _raised(caught), True
            job.channel.arrived.put_nowait(job)


def _raised(error: BaseException) -> BaseException:
    """The error, if it isn't a cancellation of this task. (The caller's functions may raise CancelledError, too.)"""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    return error
