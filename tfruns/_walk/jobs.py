"""The runs of many jobs: several jobs are walked at the same time, within the client's limit of requests.

These are all the gates before a page, from the outside in. A page of a single job passes the last two alone:

1. A job starts: at most 1,000 jobs (in order: twice as many as requests may be in flight, so that a slow response
   doesn't hold up all others) have started and not ended.
2. It is the job's turn to wait for a response: as many jobs do as requests may be in flight, and `JobScheduler` says
   which. So many more jobs may have a response that wasn't consumed yet.
3. It may fetch a page beside that one: `Prefetch` counts the pages of all jobs, and the plan of the walk its own.
4. The client's queue, in which the requests of all walks wait until the server can take them (`_http.limits`). There
   are as many connections as requests may be in flight, so nothing waits for those.
"""

import asyncio
import heapq
import inspect
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from typing import Any, Self, TypeVar

import attrs

from tfruns._checks import checked_job_id
from tfruns._http.events import UserCodeError
from tfruns._http.responses import NO_PAGE
from tfruns._table.lists import JobsRunList
from tfruns._walk.paginator import Paginator
from tfruns._walk.walker import NewRuns, Prefetch, Walk, WalkOptions
from tfruns.errors import NOT_ABOUT_ONE_JOB, APIStatusError, DecodeError, TfRunsError
from tfruns.models import JobRun, RawPage, RunPage
from tfruns.types import OnError

_T = TypeVar("_T")

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
    """Jobs whose last page was read."""
    jobs_skipped: int
    """Jobs that failed and were skipped. An id that comes twice counts twice."""
    pages: int
    """Pages with runs."""
    runs: int
    """Runs in those pages."""
    runs_expected: int
    """Runs of all jobs that have started, by the server's count. (Those of other jobs aren't known yet.)"""


class JobsPaginator(Paginator[tuple[str, JobRun]]):
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
        self, job_ids: Iterable[str] | AsyncIterable[str], options: WalkOptions, *, ordered: bool, on_error: OnError
    ) -> None:
        super().__init__(options)
        self.skipped: dict[str, TfRunsError] = {}
        self._job_ids = job_ids
        self._ordered = ordered
        self._on_error: OnError = on_error
        self._has_walked = False

    def __repr__(self) -> str:
        return self._described(f"{len(self._job_ids):,} jobs" if isinstance(self._job_ids, Sized) else "many jobs")

    @property
    def progress(self) -> JobsProgress:
        """The progress of the walk that started last."""
        return JobsProgress(**{name: getattr(self._last, name, 0) for name in attrs.fields_dict(JobsProgress)})

    def _walk(self, **changes: Any) -> "_JobWalks":
        if self._has_walked and isinstance(self._job_ids, (Iterator, AsyncIterator)):
            raise ValueError("job_ids is an iterator, whose ids come only once: give a list, to walk them again")
        self._has_walked = True
        self.skipped.clear()
        options = attrs.evolve(self._options, **changes)
        return _JobWalks(self._job_ids, options, self._ordered, self._on_error, self.skipped)

    def _runs(self, new: NewRuns) -> Iterable[tuple[str, JobRun]]:
        return _with_job(new, new.runs)

    def pages(self) -> AsyncGenerator[tuple[str, RunPage]]:
        """Yield each page of `RunPaginator.pages` with its job's id.

        Yields:
            `(job_id, page)`: those of one job in the server's order, those of several as they arrive.

        Example:
            >>> async for job_id, page in client.iter_runs_for(["job-a", "job-b"], ordered=True).pages():
            ...     print(job_id, len(page.data), "of", page.pagination.total)
            job-a 250 of 250
            job-b 250 of 250
        """
        return self._each(lambda new: _with_job(new, new.pages()))

    async def collect(self) -> JobsRunList:
        """Every run, as one list of `(job_id, run)`, which is a table, too. Takes memory for all of them.

        Returns:
            The runs: those of one job in the server's order, those of several as they arrive.

        Raises:
            TfRunsError: see `Client.iter_runs_for`.

        Example:
            >>> failed = await client.iter_runs_for(["job-a", "job-b"], status="FAILED").collect()
        """
        return JobsRunList([run async for run in self._each(self._runs)])

    def raw_pages(
        self, *, keep_bad: bool = False, max_page_bytes: int | None = None
    ) -> AsyncGenerator[tuple[str, RawPage | None]]:
        """Yield each page of `RunPaginator.raw_pages` with its job's id, and the end of each job.

        Args:
            keep_bad: as in `RunPaginator.raw_pages`.
            max_page_bytes: as there.

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
        return self._each(
            lambda new: _with_job(new, itertools.chain(new.raw_pages(), [None] * new.is_last)),
            keep_bad=keep_bad,
            max_page_bytes=max_page_bytes,
        )


def _with_job(new: NewRuns, values: Iterable[_T]) -> Iterable[tuple[str, _T]]:
    return zip(itertools.repeat(new.walk.job_id), values, strict=False)


@attrs.define(eq=False, repr=False)
class _Job:
    number: int
    walk: Walk
    arrived: "asyncio.Queue[_Job | BaseException | None]"
    """Where it is put once a response has arrived, or it is over.

    The response waits as bytes: several decoded pages don't fit into the processor's cache, and it takes twice the time
    to read and to free them.
    """
    has_started: bool = False
    is_over: bool = False
    is_repeated: bool = False
    error: BaseException | None = None
    expected: int = 0


class JobScheduler(asyncio.Queue[_Job]):
    """Which job requests a page next.

    New jobs go first, so that small jobs don't wait for large ones. Of the others, the one that started first goes
    first: then its walk ends soon, before its list has changed much.
    """

    def _init(self, maxsize: int) -> None:
        self._new: deque[_Job] = deque()
        self._started: list[tuple[int, _Job]] = []
        self._new_in_a_row = 0

    def empty(self) -> bool:
        return not (self._new or self._started)

    def _put(self, item: _Job) -> None:
        if item.has_started:
            heapq.heappush(self._started, (item.number, item))
        else:
            self._new.append(item)

    def _get(self) -> _Job:
        if self._new and not (self._started and self._new_in_a_row >= _MOST_NEW_IN_A_ROW):
            self._new_in_a_row += 1
            return self._new.popleft()
        self._new_in_a_row = 0
        return heapq.heappop(self._started)[1]


@attrs.define(eq=False, repr=False, slots=False)
class _JobWalks:
    """Walks several jobs at the same time: an async iterator of their pages, inside `async with`.

    Each of a few workers takes the job whose turn it is, and waits for its next response: a job has no task of its own.
    """

    _job_ids: Iterable[str] | AsyncIterable[str]
    _options: WalkOptions
    _ordered: bool
    _on_error: OnError
    _errors: dict[str, TfRunsError]  # of the jobs that are skipped

    def __attrs_post_init__(self) -> None:
        self.jobs_started = self.jobs_done = self.jobs_skipped = 0
        self.pages = self.runs = self.runs_expected = 0
        self._read = 0  # how many job ids
        most = self._most = self._options.transport.max_concurrency
        self._prefetch = Prefetch(most)
        self._scheduler = JobScheduler()
        self._job_slots = asyncio.Semaphore(2 * most if self._ordered else _MOST_STARTED)
        # Jobs with a response that wasn't consumed yet; if ordered, all that started. In the end None, or an error.
        self._items: asyncio.Queue[_Job | BaseException | None] = asyncio.Queue(most * (2 if self._ordered else 1))
        self._front: _Job | None = None  # if ordered, whose pages are consumed now
        self._has_all_jobs = self._is_over = False
        self._walks: set[Walk] = set()  # those that haven't ended
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._options.transport.enter_loop()
        self._tasks.append(self._options.transport.start(self._read_jobs()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        fetching = itertools.chain.from_iterable(walk.cancel() for walk in self._walks)
        await asyncio.gather(*self._tasks, *fetching, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NewRuns:
        """The new runs of the next response of a job; the last ones of a job that isn't skipped say so."""
        while self._walks or not self._has_all_jobs:
            item = await self._next_item()
            if isinstance(item, _Job):
                new = await self._take(item)
                if new is not None:
                    return new
            elif item is not None:
                raise item
            else:
                self._has_all_jobs = True
        raise StopAsyncIteration

    async def _next_item(self) -> _Job | BaseException | None:
        if self._front is None:
            item = await self._items.get()
            if not self._ordered or not isinstance(item, _Job):
                return item
            self._front = item
        return await self._front.arrived.get()

    async def _take(self, job: _Job) -> NewRuns | None:
        """The new runs of the response that has arrived. Then the job waits for its next turn, if there is one."""
        new = None
        try:
            if not job.is_over:
                new = await job.walk.take()
                job.is_over = job.walk.is_over
        except BaseException as caught:
            job.error, job.is_over = _raised(caught), True
        before, job.expected = job.expected, job.walk.expected
        self.runs_expected += job.expected - before
        if self._read > 1 and not job.is_repeated and _is_first_contact(job.error):
            job.walk.cancel()  # it begins anew: other jobs may have got a page meanwhile, from the same server
            job.is_repeated, job.is_over, job.error = True, False, None
        if not job.is_over:
            self._scheduler.put_nowait(job)
            return new
        await self._end(job)
        if job.error is None:
            new = new or NewRuns(job.walk)
            new.is_last = True
        return new

    async def _end(self, job: _Job) -> None:
        self._front = None
        self._walks.discard(job.walk)
        self._job_slots.release()
        await job.walk.__aexit__()
        error, job_id = job.error, job.walk.job_id
        if error is None:
            self.jobs_done += 1
            return
        if not isinstance(error, TfRunsError) or isinstance(error, NOT_ABOUT_ONE_JOB) or self._on_error == "raise":
            raise error
        self._errors[job_id] = error
        self.jobs_skipped += 1
        try:
            if callable(self._on_error) and inspect.isawaitable(result := self._on_error(job_id, error)):
                await result
        except StopAsyncIteration as caught:
            raise _raised(caught) from None

    async def _read_jobs(self) -> None:
        """Read one job id after another, whenever fewer than the allowed number of jobs have started."""
        error: BaseException | None = None
        try:
            job_ids = self._job_ids
            await self._job_slots.acquire()
            async for job_id in job_ids if isinstance(job_ids, AsyncIterable) else _Each(iter(job_ids)):
                if self._is_over:
                    return
                # In order, only the job whose pages are consumed fetches more than its first page.
                prefetch = Prefetch(self._most) if self._ordered else self._prefetch
                walk = Walk(self._options, checked_job_id(job_id), prefetch)
                self._walks.add(walk)
                self._read += 1
                job = _Job(self._read, walk, asyncio.Queue() if self._ordered else self._items)
                if self._ordered:
                    await self._items.put(job)
                self._scheduler.put_nowait(job)
                if self._read <= self._most:
                    self._tasks.append(self._options.transport.start(self._work()))
                if self._read % _READ_AT_ONCE == 0:
                    await asyncio.sleep(0)  # let other tasks run
                await self._job_slots.acquire()
        except BaseException as caught:
            error = _raised(caught)
        await self._items.put(error)

    async def _work(self) -> None:
        while True:
            job = await self._scheduler.get()
            if not job.has_started:
                job.has_started = True
                self.jobs_started += 1
            try:
                job.is_over = not await job.walk.arrive()
            except BaseException as caught:
                job.error, job.is_over = _raised(caught), True
            await job.arrived.put(job)


@attrs.define
class _Each(AsyncIterator[_T]):
    """The same values. (No generator: an event loop closes one that was left in a task of its own.)"""

    _values: Iterator[_T]

    async def __anext__(self) -> _T:
        try:
            for value in self._values:
                return value
        except (StopAsyncIteration, GeneratorExit) as error:
            raise UserCodeError(error).error from None
        raise StopAsyncIteration


def _is_first_contact(error: object) -> bool:
    """Whether the server has sent something else than a page, as a proxy does, and hadn't sent any page before."""
    if isinstance(error, APIStatusError):
        return error.status_code in NO_PAGE and not error.is_transient
    return isinstance(error, DecodeError) and not error.is_page and not error.is_transient


def _raised(error: BaseException) -> BaseException:
    """The error, if it isn't the end of this task. (The caller's functions may raise CancelledError, too.)"""
    if isinstance(error, StopAsyncIteration):  # it would look like the end of the walk
        return UserCodeError(error).error
    task = asyncio.current_task()
    is_cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    if is_cancelled or isinstance(error, GeneratorExit):
        raise error
    return error
