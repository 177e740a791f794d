"""The runs of one job: an async iterable, and pages, lists, tables and counts of the same runs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from tfruns._http.events import Counters
from tfruns._http.options import RequestOptions
from tfruns._http.transport import Transport
from tfruns._table.frames import Tables
from tfruns._table.lists import RunList
from tfruns._walk.frontier import Place
from tfruns._walk.iteration import Iteration
from tfruns._walk.walker import NewRuns, Prefetch, Walk
from tfruns.models import JobRun, RawPage, RunPage
from tfruns.query import PageRequest, RunFilter

if TYPE_CHECKING:
    import pyarrow


@attrs.frozen(kw_only=True)
class RunsProgress:
    """How far the runs of a job were read: the value of `RunPaginator.progress`.

    Example:
        >>> runs = client.iter_runs("my-job-id")
        >>> async for run in runs:
        ...     progress = runs.progress
        >>> print(f"{progress.runs} runs of about {progress.runs_expected}")
        250 runs of about 250

    .. versionadded:: 0.3.0
    """

    pages: int = 0
    """Pages with runs."""
    runs: int = 0
    """Runs in those pages."""
    runs_expected: int = 0
    """Runs of the job, by the server's count with the last page; 0 until the first page."""


@attrs.define
class _Latest:
    progress: RunsProgress = RunsProgress()


@attrs.frozen(eq=False, repr=False)
class RunPaginator(Tables):
    """The runs of one job, as `Client.iter_runs` returns them. Nothing is requested until they are iterated.

    `async for run in paginator` yields each `JobRun` in the server's order. Each `async for`, and each call of a
    method, is a new walk from the start. All of them raise the errors of `Client.iter_runs`.

    After `break`, Python closes a walk a moment later; `contextlib.aclosing` closes it at once. It is an
    `AsyncIterator`, too: `anext` begins a walk, or goes on with it, and an `async for` after that yields what is left.

    Example:
        >>> from contextlib import aclosing
        >>> async with aclosing(client.iter_runs("my-job-id")) as runs:
        ...     async for run in runs:
        ...         break
        >>> runs = client.iter_runs("my-job-id", sort_by="startTime", order="asc")
        >>> oldest = await runs.first()
        >>> print(await runs.count(), "runs")
        250 runs
        >>> async for run in runs:
        ...     print(run.name, run.created - oldest.created, "later")
    """

    job_id: str
    """The job."""
    filter: RunFilter
    """Which of its runs, and in which order."""
    page_size: int
    """How many runs a page holds, while the list doesn't change."""
    offset: int
    """How many runs are skipped first."""
    max_runs: int | None
    """How many runs are yielded at most; None for all."""
    _options: RequestOptions = attrs.field(repr=False, alias="options")
    _transport: Transport = attrs.field(repr=False, alias="transport")
    _fits_window: bool = attrs.field(default=False, repr=False, alias="fits_window")
    _place: Place | None = attrs.field(default=None, repr=False, alias="place")
    _keep_bad: bool = attrs.field(default=False, repr=False, alias="keep_bad")
    _latest: _Latest = attrs.field(factory=_Latest, init=False)
    _iteration: Iteration[JobRun] = attrs.field(factory=Iteration, init=False, repr=False)

    def __repr__(self) -> str:
        return shown(self, f"job {self.job_id!r}")

    @property
    def progress(self) -> RunsProgress:
        """The progress of the walk that started last."""
        return self._latest.progress

    def __reduce__(self) -> NoReturn:
        raise TypeError("a walk can't be pickled or copied: it holds the client; call its method again")

    def __aiter__(self) -> AsyncGenerator[JobRun]:
        return self._iteration.take() or self._iteration.begin(self._walk(), self._runs_of)

    async def __anext__(self) -> JobRun:
        return await self._iteration.next(aiter(self))

    async def aclose(self) -> None:
        """Close the walks that `async for` and `anext` have begun, with their requests in flight.

        (The iterators that `pages` and other methods return have an `aclose` of their own.) After that, it can be
        iterated again.

        Raises:
            RuntimeError: a task waits for the next run: cancel that task, which closes the walk as well.

        Example:
            >>> runs = client.iter_runs("my-job-id")
            >>> newest = await anext(runs)
            >>> await runs.aclose()

        .. versionadded:: 0.3.0
        """
        await self._iteration.aclose()

    async def _runs_of(self, walk: Walk) -> AsyncGenerator[JobRun]:
        async with walk:
            async for found in walk:
                self._count(found)
                for run in found.runs:
                    yield run
                del found  # before the next is made

    def _walk(self, **changes: Any) -> Walk:
        self._latest.progress = RunsProgress()
        return walk_of(attrs.evolve(self, **changes) if changes else self, Prefetch(self._transport.max_concurrency))

    def _count(self, found: NewRuns) -> None:
        progress = self.progress
        self._latest.progress = RunsProgress(
            pages=progress.pages + 1,
            runs=progress.runs + len(found.runs),
            runs_expected=found.expected,
        )

    async def pages(self) -> AsyncGenerator[RunPage]:
        """Yield the same runs page by page, as `RunPage`, with what the server said about the whole list at that time.

        Pages are fetched ahead, as many as the client's `max_concurrency` allows. No page is empty: a job without runs
        yields none. Each page after the first overlaps the previous one by two runs or a few more, so that it holds
        fewer runs than `page_size`.

        Yields:
            Each page, in the server's order.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> async for page in client.iter_runs("my-job-id", page_size=100).pages():
            ...     print(f"{len(page.data)} more runs of {page.pagination.total}")
            100 more runs of 250
            95 more runs of 250
            55 more runs of 250
        """
        async with self._walk() as walk:
            async for found in walk:
                self._count(found)
                for page in found.pages(self.page_size):
                    yield page
                del found

    async def raw_pages(self, *, keep_bad: bool = False) -> AsyncGenerator[RawPage]:
        """Yield the same pages as `RawPage`: each run with the text that the server sent, if you want to store that.

        Args:
            keep_bad: whether a run that can't be understood is put into `RawPage.bad`, and the walk goes on. Otherwise
                such a run raises a `DecodeError`.

        Yields:
            Each page, in the server's order.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> async for page in client.iter_runs("my-job-id").raw_pages():
            ...     for run, text in zip(page.data, page.texts):
            ...         print(run.name, len(text), "bytes of JSON")
        """
        async with self._walk(keep_bad=keep_bad) as walk:
            async for found in walk:
                self._count(found)
                for page in found.raw_pages(self.page_size):
                    yield page
                del found

    async def collect(self) -> RunList:
        """Every run, as one list, which is a table, too. Takes memory for all of them.

        Returns:
            The runs, in the server's order.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> failed = await client.iter_runs("my-job-id", status="FAILED").collect()
        """
        return RunList([run async for run in self._runs_of(self._walk())], job_id=self.job_id)

    async def arrow_batches(self) -> "AsyncGenerator[pyarrow.RecordBatch]":
        """Yield the same pages as Arrow record batches with `tfruns.arrow.SCHEMA` (extra `arrow`).

        Yields:
            A batch for each page, in the server's order.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> async for batch in client.iter_runs("my-job-id").arrow_batches():
            ...     print(batch.num_rows, "rows")
            250 rows
        """
        from tfruns.arrow import record_batch

        async with self._walk() as walk:  # not over `pages`: see `Walk` for generators within generators
            async for found in walk:
                self._count(found)
                for start in range(0, len(found.runs), self.page_size):
                    yield record_batch(self.job_id, found.runs[start : start + self.page_size])
                del found

    async def first(self) -> JobRun | None:
        """The first run, or None if there is none: one request for one run, unless a time of creation is given.

        Returns:
            The run: in the default order, the newest.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> last_failure = await client.iter_runs("my-job-id", status="FAILED").first()
        """
        walked = self
        if not self.filter.has_window:
            walked = attrs.evolve(self, max_runs=1 if self.max_runs is None else min(1, self.max_runs))
        async with aclosing(walked._runs_of(walked._walk())) as runs:
            return await anext(runs, None)

    async def count(self) -> int:
        """How many runs the walk would yield by the server's count now: one request.

        The server doesn't count by time of creation. With `created_after` or `created_before` the runs are read, and
        counted.

        Returns:
            The server's count, less `offset`, and at most `max_runs`.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> print(await client.iter_runs("my-job-id", offset=50).count())
            200
        """
        if self.filter.has_window or self._place is not None:
            async with self._walk() as walk:
                walk.counters = Counters()  # these runs aren't yielded
                return sum([len(found.runs) async for found in walk])
        return expected((await self._fetch(0, 1)).pagination.total, self)

    async def fetch(self, offset: int, limit: int) -> RunPage:
        """One page, by one request, as the server gives it. The walk's own `offset` and `max_runs` are ignored.

        Args:
            offset: how many runs to skip, 0 or more.
            limit: how many runs to request, 1 to 1,000.

        Returns:
            The runs in the server's order, and how many there are in all.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> page = await client.iter_runs("my-job-id", status="RUNNING").fetch(offset=0, limit=10)
        """
        page = await self._fetch(offset, limit)
        self._transport.counters.runs += len(page.data)
        return page

    async def _fetch(self, offset: int, limit: int) -> RunPage:
        request = PageRequest(self.job_id, self.filter, limit, offset)
        return await self._transport.read(await self._transport.fetch(request, self._options))


def shown(walked: RunPaginator, jobs: str) -> str:
    """The repr of a paginator: what it walks, and what can be done with it."""
    filters = attrs.asdict(walked.filter, filter=lambda _, value: value is not None)
    limits = {"offset": walked.offset, "max_runs": walked.max_runs}
    given = {**filters, **{name: value for name, value in limits.items() if value}}
    which = f" with {', '.join(f'{name}={value!r}' for name, value in given.items())}" if given else ""
    return (
        f"<the runs of {jobs}{which}: read them with `async for`, or await `.collect()`, `.to_pandas()`, "
        "`.to_polars()`, `.to_arrow()` or `.count()`>"
    )


def expected(total: int, walked: RunPaginator) -> int:
    """How many runs a walk yields from a list with this total."""
    after_offset = max(0, total - walked.offset)
    return after_offset if walked.max_runs is None else min(after_offset, walked.max_runs)


def walk_of(walked: RunPaginator, prefetch: Prefetch, job_id: str | None = None) -> Walk:
    """A new walk over the runs, of another job if one is given, which shares the prefetch with others."""
    return Walk(
        walked._transport,  # pyright: ignore[reportPrivateUsage]
        walked._options,  # pyright: ignore[reportPrivateUsage]
        prefetch,
        job_id=walked.job_id if job_id is None else job_id,
        filter=walked.filter,
        page_size=walked.page_size,
        fits_window=walked._fits_window,  # pyright: ignore[reportPrivateUsage]
        offset=walked.offset,
        max_runs=walked.max_runs,
        place=walked._place,  # pyright: ignore[reportPrivateUsage]
        keep_bad=walked._keep_bad,  # pyright: ignore[reportPrivateUsage]
    )
