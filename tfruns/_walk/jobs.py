"""The runs of many jobs: a few jobs walked side by side, under the client's one limit of requests."""

import asyncio
import heapq
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Literal, Self

import attrs

from tfruns._walk.paginator import RunPaginator, expected, walk_of
from tfruns._walk.walker import Found, Prefetch, Walk
from tfruns.described import described
from tfruns.errors import AuthenticationError, ClientClosedError, ConfigurationError, EventLoopError, TfRunsError
from tfruns.models import JobRun, RawPage
from tfruns.query import checked_job_id

OnError = Literal["raise", "skip"] | Callable[[str, TfRunsError], Awaitable[object] | object]

_BEGUN_AT_ONCE = 1_000
"""Jobs: so many may have begun at most, without having ended."""
_NEW_IN_A_ROW = 31
"""Jobs that begin before one that has begun goes on."""

_NOT_OF_ONE_JOB = (AuthenticationError, ClientClosedError, ConfigurationError, EventLoopError)


@described
@attrs.frozen(kw_only=True)
class JobsProgress:
    """How far the runs of many jobs were read, as `JobsPaginator.progress` tells it.

    Example:
        >>> runs = client.iter_runs_for(["job-a", "job-b"])
        >>> async for job_id, run in runs:
        ...     progress = runs.progress
        >>> print(f"{progress.runs} runs of about {progress.runs_expected}")
        500 runs of about 500

    .. versionadded:: 0.1.0
    """

    jobs_begun: int
    """Jobs whose walk has begun."""
    jobs_done: int
    """Jobs of which every run was yielded."""
    jobs_skipped: int
    """Jobs that failed and were skipped; an id that comes twice, twice."""
    pages: int
    """Pages that brought runs."""
    runs: int
    """Runs in those pages."""
    runs_expected: int
    """Runs that the jobs begun bring in all, by the server's count. (There is no telling of the others.)"""


class JobsPaginator:
    """The runs of many jobs, as `Client.iter_runs_for` gives them: nothing is requested until they are asked for.

    `async for job_id, run in …` yields each run with its job's id. Each `async for` is a new walk from the start.

    Attributes:
        skipped: the jobs that failed and were skipped, by id, each with its error; of the walk that began last.

    Example:
        >>> runs = client.iter_runs_for(["job-a", "no-such-job"], on_error="skip")
        >>> found = [run async for job_id, run in runs]
        >>> print(len(found), "runs; skipped:", ", ".join(runs.skipped))
        250 runs; skipped: no-such-job

    .. versionadded:: 0.1.0
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
        self._crew: _Crew | None = None

    @property
    def progress(self) -> JobsProgress:
        """How far the walk that began last has come, as `JobsProgress`."""
        crew = self._crew
        return JobsProgress(
            jobs_begun=crew.begun if crew else 0,
            jobs_done=crew.done if crew else 0,
            jobs_skipped=crew.skipped if crew else 0,
            pages=crew.pages if crew else 0,
            runs=crew.runs if crew else 0,
            runs_expected=sum(crew.expected.values()) + crew.expected_of_ended if crew else 0,
        )

    async def __aiter__(self) -> AsyncGenerator[tuple[str, JobRun]]:
        self.skipped.clear()
        self._crew = _Crew(self._job_ids, self._template, self._side_by_side, ordered=self._ordered)
        async with self._crew as crew:
            async for job_id, found in crew:
                if isinstance(found, BaseException):
                    await self._deal_with(crew, job_id, found)
                elif found is not None:
                    for run in found.runs:
                        yield job_id, run
                del found  # before the next is made

    async def raw_pages(self, *, keep_bad: bool = False) -> AsyncGenerator[tuple[str, RawPage | None]]:
        """Yield each page with its job's id, as `RunPaginator.raw_pages` has it, and tell the end of each job.

        Args:
            keep_bad: as in `RunPaginator.raw_pages`.

        Yields:
            `(job_id, page)` for each page, and `(job_id, None)` once a job has no more. A job that is skipped after
            some pages has no such end.

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
        self.skipped.clear()
        template = attrs.evolve(self._template, keep_bad=keep_bad)
        self._crew = _Crew(self._job_ids, template, self._side_by_side, ordered=self._ordered)
        async with self._crew as crew:
            async for job_id, found in crew:
                if isinstance(found, BaseException):
                    await self._deal_with(crew, job_id, found)
                elif found is None:
                    yield job_id, None
                else:
                    for page in found.raw_pages(self._template.page_size):
                        yield job_id, page
                del found  # before the next is made

    async def _deal_with(self, crew: "_Crew", job_id: str, error: BaseException) -> None:
        if not isinstance(error, TfRunsError) or isinstance(error, _NOT_OF_ONE_JOB) or self._on_error == "raise":
            raise error
        self.skipped[job_id] = error
        crew.skipped += 1
        if callable(self._on_error):
            answer = self._on_error(job_id, error)
            if inspect.isawaitable(answer):
                await answer


@attrs.frozen
class _End:
    """A job's walk is over."""

    job_id: str
    error: BaseException | None


@attrs.frozen
class _Fed:
    """There are no more job ids."""

    error: BaseException | None


@attrs.frozen(eq=False)
class _Lane:
    """Where the pages of one job arrive, or those of all jobs."""

    pages: asyncio.Queue[tuple[str, Found] | _End | _Fed]
    walk: Walk | None = None


class _Turns:
    """Which jobs may go on: so many at once. New ones come first, so that small jobs don't wait for large ones; of the
    others the first, so that a walk that goes on is over soon, before its list has changed much."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._new: list[tuple[int, asyncio.Future[None]]] = []
        self._begun: list[tuple[int, asyncio.Future[None]]] = []
        self._new_in_a_row = 0

    async def take(self, number: int, *, is_new: bool) -> None:
        """Wait until this job may go on."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._new if is_new else self._begun, (number, turn))
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Another may go on."""
        self._free += 1
        self._give()

    def _give(self) -> None:
        while self._free and (self._new or self._begun):
            takes_new = self._new and not (self._begun and self._new_in_a_row >= _NEW_IN_A_ROW)
            self._new_in_a_row = self._new_in_a_row + 1 if takes_new else 0
            _, turn = heapq.heappop(self._new if takes_new else self._begun)
            if not turn.done():  # cancelled
                self._free -= 1
                turn.set_result(None)


class _Crew:
    """Tasks that walk a few jobs side by side: an async iterator of what they find, within `async with`."""

    def __init__(
        self, job_ids: Iterable[str] | AsyncIterable[str], template: RunPaginator, side_by_side: int, *, ordered: bool
    ) -> None:
        self.begun = self.done = self.skipped = self.pages = self.runs = self.expected_of_ended = 0
        self._fed = self._ended = 0
        self.expected: dict[int, int] = {}
        self._job_ids = job_ids
        self._template = template
        self._prefetch = Prefetch(side_by_side)
        self._turns = _Turns(side_by_side)
        self._places = asyncio.Semaphore(side_by_side if ordered else _BEGUN_AT_ONCE)
        self._shared = None if ordered else _Lane(asyncio.Queue(maxsize=1))
        self._lanes: asyncio.Queue[_Lane | _Fed] = asyncio.Queue()  # where ordered; as long as there are places
        self._lane: _Lane | None = None  # that is read now, where ordered
        self._is_fed = self._is_over = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._begin(self._feed())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        while tasks := [*self._tasks]:  # a source of ids that swallows its cancellation may have begun one more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Of tasks that are done, CPython 3.12 gathers without a pause for their callbacks.
            self._tasks.difference_update(tasks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Found | BaseException | None]:
        while not (self._is_fed and self._fed == self._ended):
            match await self._arrival():
                case _Fed(error):
                    if error is not None:
                        raise error
                    self._is_fed = True
                case _End(job_id, error):
                    self._ended += 1
                    self.done += error is None
                    self._places.release()
                    return job_id, error
                case found:
                    return found
        raise StopAsyncIteration

    async def _arrival(self) -> tuple[str, Found] | _End | _Fed:
        if self._shared is not None:
            return await self._shared.pages.get()
        if self._lane is None:
            lane = await self._lanes.get()
            if isinstance(lane, _Fed):
                return lane
            self._lane = lane
            self._prefetch.front = lane.walk
        arrival = await self._lane.pages.get()
        if isinstance(arrival, _End):
            self._lane = None
        return arrival

    def _begin(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _feed(self) -> None:
        """Begin the walk of one job after another, whenever there is a place for it."""
        error: BaseException | None = None
        try:
            ids = self._each_id()
            await self._places.acquire()
            async for job_id in ids:
                if self._is_over:
                    return
                walk = walk_of(attrs.evolve(self._template, job_id=checked_job_id(job_id)), self._prefetch)
                lane = self._shared or _Lane(asyncio.Queue(maxsize=1), walk)
                self._fed += 1
                self._begin(self._walk(job_id, walk, lane, self._fed))
                if lane is not self._shared:
                    self._lanes.put_nowait(lane)
                await asyncio.sleep(0)  # others get their turn
                await self._places.acquire()
        except (Exception, asyncio.CancelledError) as caught:
            error = _raised(caught)
        if self._shared is not None:
            await self._shared.pages.put(_Fed(error))
        else:
            self._lanes.put_nowait(_Fed(error))

    async def _each_id(self) -> AsyncGenerator[str]:
        if isinstance(self._job_ids, AsyncIterable):
            async for job_id in self._job_ids:
                yield job_id
        else:
            for job_id in self._job_ids:
                yield job_id

    async def _walk(self, job_id: str, walk: Walk, lane: _Lane, number: int) -> None:
        error: BaseException | None = None
        try:
            async with walk:
                await self._turns.take(number, is_new=True)
                self.begun += 1
                while await self._goes_on(job_id, walk, lane, number):
                    await self._turns.take(number, is_new=False)
        except (Exception, asyncio.CancelledError) as caught:
            error = _raised(caught)
        self.expected_of_ended += self.expected.pop(number, 0)
        await lane.pages.put(_End(job_id, error))

    async def _goes_on(self, job_id: str, walk: Walk, lane: _Lane, number: int) -> bool:
        """Bring one page, and give back the turn. False at the end of the walk."""
        try:
            step = await anext(walk, None)
            if step is None:
                return False
            self.expected[number] = expected(step.page.pagination.total, self._template)
            self.pages += 1
            self.runs += len(step.runs)
            await lane.pages.put((job_id, step))
            return not walk.is_over
        finally:
            self._turns.give_back()


def _raised(error: BaseException) -> BaseException:
    """The error, where a function of the caller's raised it (of a task that isn't cancelled, CancelledError too);
    a cancellation goes on."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    return error
