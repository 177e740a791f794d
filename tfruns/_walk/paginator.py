"""The runs of one job: an async iterable, and pages, lists, tables and counts of the same runs."""

import abc
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar
from weakref import WeakSet

import attrs

from tfruns._extras import require
from tfruns._table.lists import RunList
from tfruns._walk.walker import NewRuns, Prefetch, Walk, WalkOptions
from tfruns.errors import EventLoopError
from tfruns.models import JobRun, RawPage, RunPage
from tfruns.query import PageRequest, RunFilter, given_filters

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_BATCH = 500  # rows, at least, of a batch: one for each of many small jobs takes longer than the jobs
P = TypeVar("P")
T = TypeVar("T")


class Paginator(abc.ABC, Generic[T]):
    """An async iterator, of which each `async for` is a walk of its own; a walk fetches pages while it is entered.

    The walks that `async for` and `anext` have begun are held weakly, and so are the generators of their runs: Python
    closes one soon after `break`, but until then its walk still fetches pages.
    """

    def __init__(self, options: WalkOptions) -> None:
        self._options = options
        self._last: Any = None  # the walk that started last
        self._begun: tuple[WeakSet[AsyncGenerator[T]], WeakSet[Any]] = WeakSet(), WeakSet()
        self._of_anext: AsyncGenerator[T] | None = None
        self._has_ended = False  # whether that one has come to its end, or failed

    @abc.abstractmethod
    def _walk(self, **changes: Any) -> Any:
        """A new walk, with other options."""

    @abc.abstractmethod
    def _runs(self, new: NewRuns) -> Iterable[T]:
        """What is yielded for these runs."""

    async def _each(
        self, parts: Callable[[NewRuns], Iterable[P]], walk: Any = None, **changes: Any
    ) -> AsyncGenerator[P]:
        """Yield the parts of each response. (No generator goes through another: see `Walk`.)"""
        self._last = walk or self._walk(**changes)
        async with self._last as walk:
            async for new in walk:
                walk.pages += bool(new.runs)
                walk.runs += len(new.runs)
                self._options.transport.add_runs(len(new.runs))
                for part in parts(new):
                    yield part
                del new  # before the next is made

    def _described(self, jobs: str) -> str:
        options = self._options
        limits = {"offset": options.offset, "max_runs": options.max_runs}
        given = given_filters(options.filter) | {name: value for name, value in limits.items() if value}
        which = f" with {', '.join(f'{name}={value!r}' for name, value in given.items())}" if given else ""
        return (
            f"<the runs of {jobs}{which}: read them with `async for`, or await `.collect()`, `.to_pandas()`, "
            "`.to_polars()`, `.to_arrow()` or `.count()`>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a walk can't be pickled or copied: it holds the client; call its method again")

    def arrow_batches(self) -> "AsyncGenerator[pyarrow.RecordBatch]":
        """Yield the same pages as Arrow record batches with `tfruns.arrow.SCHEMA`, in which `job_id` is a column.

        Every library that reads Arrow can read them: dlt, Delta Lake, ADBC, DuckDB, Polars (extra `arrow`).

        Yields:
            A batch for each page: those of one job in the server's order, those of several as they arrive.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError, TfRunsError: while iterating: as `to_arrow`.

        Example:
            >>> async for batch in client.iter_runs_for(["job-a", "job-b"]).arrow_batches():
            ...     print(batch.num_rows, "rows")
            250 rows
            250 rows
        """
        from tfruns.arrow import record_batch

        return self._each(lambda new: (record_batch(new.walk.job_id, page.data) for page in new.pages()))

    async def to_arrow(self) -> "pyarrow.Table":
        """Every run, as one Arrow table with `tfruns.arrow.SCHEMA` (extra `arrow`). Takes memory for all of them.

        Returns:
            The table: the runs of one job in the server's order, those of several as their pages arrived.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs` and `Client.iter_runs_for`.

        Example:
            >>> table = await client.iter_runs_for(["job-a", "job-b"]).to_arrow()
            >>> print(table.num_rows, "runs of", len(table["job_id"].unique()), "jobs")
            500 runs of 2 jobs
        """
        from tfruns._table.arrow import mixed_batch, table

        batches: list[pyarrow.RecordBatch] = []
        job_ids: list[str] = []
        runs: list[JobRun] = []
        async with aclosing(self._each(lambda new: ((new.walk.job_id, page.data) for page in new.pages()))) as pages:
            async for job_id, data in pages:
                job_ids += [job_id] * len(data)
                runs += data
                if len(runs) >= _BATCH:
                    batches.append(mixed_batch(job_ids, runs))
                    job_ids, runs, data = [], [], ()  # the page is freed before the next
        return table([*batches, mixed_batch(job_ids, runs)])

    async def to_pandas(self) -> "pandas.DataFrame":
        """Every run, as a pandas data frame: `to_arrow`, converted.

        Returns:
            The data frame, its rows as in `to_arrow`.

        Raises:
            ImportError: pyarrow or pandas isn't installed.
            ValueError, TfRunsError: as `to_arrow`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_pandas()
            >>> print(len(frame))
            250
        """
        require("pandas", "to_pandas()")  # before the runs are fetched
        return (await self.to_arrow()).to_pandas()

    async def to_polars(self) -> "polars.DataFrame":
        """Every run, as a Polars data frame: `to_arrow`, converted.

        Returns:
            The data frame, its rows as in `to_arrow`.

        Raises:
            ImportError: pyarrow or Polars isn't installed.
            ValueError, TfRunsError: as `to_arrow`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_polars()
            >>> print(frame.height)
            250
        """
        package = require("polars", "to_polars()")  # before the runs are fetched
        frame: polars.DataFrame = package.DataFrame(await self.to_arrow())
        return frame

    async def count(self) -> int:
        """How many runs the walk would yield by the server's count now: one request for a job, two if it has no runs.

        The server doesn't count by time of creation: with `created_after` or `created_before` the runs are read.

        Returns:
            The server's count, less `offset`, and at most `max_runs`; for several jobs the sum, without those that were
            skipped.

        Raises:
            TfRunsError: see `Client.iter_runs` and `Client.iter_runs_for`.

        Example:
            >>> print(await client.iter_runs("my-job-id", offset=50).count())
            200
            >>> print(await client.iter_runs_for(["job-a", "job-b"]).count())
            500
        """
        options = self._options
        must_read = options.filter.has_window or options.place is not None
        first = {} if must_read else {"offset": 0, "max_runs": int(options.max_runs != 0)}
        async with self._walk(**first) as walk:
            if must_read:
                return sum([len(new.runs) async for new in walk])
            left = [max(0, new.page.pagination.total - options.offset) async for new in walk]
        return sum(left if options.max_runs is None else [min(count, options.max_runs) for count in left])

    def __aiter__(self) -> AsyncGenerator[T]:
        left, self._of_anext = self._of_anext, None
        if left is not None:
            if getattr(left, "ag_frame", left) is None and not self._has_ended:
                raise EventLoopError("the event loop in which this was begun is over, and has closed it: begin it anew")
            return left
        walk = self._walk()
        runs = self._each(self._runs, walk)
        self._begun[0].add(runs)
        self._begun[1].add(walk)
        return runs

    async def __anext__(self) -> T:
        runs = aiter(self)
        self._of_anext, self._has_ended = runs, False
        try:
            return await anext(runs)
        except BaseException:
            self._has_ended = True
            raise

    async def aclose(self) -> None:
        """Close the walks that `async for` and `anext` have begun, with their requests in flight.

        It can be iterated again. (What `pages` and other methods return has an `aclose` of its own.)

        Raises:
            RuntimeError: a task waits for the next run: cancel that task, which closes the walk as well.

        Example:
            >>> runs = client.iter_runs("my-job-id")
            >>> newest = await anext(runs)
            >>> await runs.aclose()
        """
        self._of_anext = None
        for runs in [*self._begun[0]]:
            await runs.aclose()
        for walk in [*self._begun[1]]:
            await walk.__aexit__()


@attrs.frozen(kw_only=True)
class RunsProgress:
    """How far the runs of a job were read: the value of `RunPaginator.progress`.

    Example:
        >>> runs = client.iter_runs("my-job-id")
        >>> async for run in runs:
        ...     progress = runs.progress
        >>> print(f"{progress.runs} runs of about {progress.runs_expected}")
        250 runs of about 250
    """

    pages: int = 0
    """Pages with runs."""
    runs: int = 0
    """Runs in those pages."""
    runs_expected: int = 0
    """Runs of the job, by the server's count with the last page; 0 until the first page."""


class RunPaginator(Paginator[JobRun]):
    """The runs of one job, as `Client.iter_runs` returns them. Nothing is requested until they are iterated.

    `async for run in paginator` yields each `JobRun` in the server's order. Each `async for`, and each call of a
    method, is a new walk from the start. All of them raise the errors of `Client.iter_runs`.

    After `break`, Python closes a walk a moment later; `contextlib.aclosing` closes it at once. It is an
    `AsyncIterator`, too: `anext` begins a walk, or goes on with it, and an `async for` after that yields what is left.

    Attributes:
        job_id: the job.

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

    def __init__(self, job_id: str, options: WalkOptions) -> None:
        super().__init__(options)
        self.job_id: str = job_id

    def __repr__(self) -> str:
        return self._described(f"job {self.job_id!r}")

    @property
    def filter(self) -> RunFilter:
        """Which of its runs, and in which order."""
        return self._options.filter

    @property
    def page_size(self) -> int:
        """How many runs a page holds, while the list doesn't change."""
        return self._options.page_size

    @property
    def offset(self) -> int:
        """How many runs are skipped first."""
        return self._options.offset

    @property
    def max_runs(self) -> int | None:
        """How many runs are yielded at most; None for all."""
        return self._options.max_runs

    @property
    def progress(self) -> RunsProgress:
        """The progress of the walk that started last."""
        walk = self._last
        return RunsProgress(pages=walk.pages, runs=walk.runs, runs_expected=walk.expected) if walk else RunsProgress()

    def _walk(self, **changes: Any) -> Walk:
        options = attrs.evolve(self._options, **changes) if changes else self._options
        return Walk(options, self.job_id, Prefetch(options.transport.max_concurrency))

    def _runs(self, new: NewRuns) -> Sequence[JobRun]:
        return new.runs

    def pages(self) -> AsyncGenerator[RunPage]:
        """Yield the same runs page by page, as `RunPage`, with what the server said about the whole list at that time.

        Pages are fetched ahead, as many as the client's `max_concurrency` allows. No page is empty: a job without runs
        yields none. A page after the first holds fewer runs than `page_size`, for each overlaps the one before.

        Yields:
            Each page, in the server's order.

        Example:
            >>> async for page in client.iter_runs("my-job-id", page_size=100).pages():
            ...     print(f"{len(page.data)} more runs of {page.pagination.total}")
            100 more runs of 250
            95 more runs of 250
            55 more runs of 250
        """
        return self._each(NewRuns.pages)

    def raw_pages(self, *, keep_bad: bool = False, max_page_bytes: int | None = None) -> AsyncGenerator[RawPage]:
        """Yield the same pages as `RawPage`: each run with the text that the server sent, if you want to store that.

        Args:
            keep_bad: whether a run that can't be understood goes into `RawPage.bad`; else it raises a `DecodeError`.
            max_page_bytes: the bytes of a response, decompressed, above which its runs are requested again in smaller
                pages; a page of few runs may have more. None for no such limit.

        Yields:
            Each page, in the server's order.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> async for page in client.iter_runs("my-job-id").raw_pages():
            ...     for run, text in zip(page.data, page.texts):
            ...         print(run.name, len(text), "bytes of JSON")
        """
        return self._each(NewRuns.raw_pages, keep_bad=keep_bad, max_page_bytes=max_page_bytes)

    async def collect(self) -> RunList:
        """Every run, as one list, which is a table, too. Takes memory for all of them.

        Returns:
            The runs, in the server's order.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> failed = await client.iter_runs("my-job-id", status="FAILED").collect()
        """
        return RunList([run async for run in self._each(self._runs)], job_id=self.job_id)

    async def first(self) -> JobRun | None:
        """The first run, or None if there is none: one request for one run, unless a time of creation is given.

        Returns:
            The run: in the default order, the newest.

        Raises:
            TfRunsError: see `Client.iter_runs`.

        Example:
            >>> last_failure = await client.iter_runs("my-job-id", status="FAILED").first()
        """
        one = {} if self.filter.has_window else {"max_runs": int(self.max_runs != 0)}
        async with aclosing(self._each(self._runs, **one)) as runs:
            return await anext(runs, None)

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
        transport = self._options.transport
        request = PageRequest(self.job_id, self.filter, limit, offset)
        page = await transport.read(await transport.fetch(request, self._options.request_options))
        transport.add_runs(len(page.data))
        return page
