"""Reads runs from the server into the checkpoint: all jobs that aren't there yet, side by side.

Each page is handed to the export's thread, which turns it into a piece while other pages are fetched. One page is in
the thread at a time, and the walk fetches only a limited number of pages ahead, so that memory is bounded. It is
bounded in bytes, because a response that is larger than `MAX_PAGE_BYTES` is abandoned, and its job is read again in
smaller pages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs
import msgspec

from tfruns._http.retry import RetryPolicy
from tfruns.client import Client
from tfruns.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    EventLoopError,
    InternalServerError,
    ResponseTooLargeError,
    TfRunsError,
)
from tfruns.export.checkpoint import Checkpoint
from tfruns.export.finish import Content
from tfruns.export.quarantine import RejectedRun, unfit
from tfruns.export.results import ExportError, Progress
from tfruns.export.thread import WorkThread
from tfruns.export.watermark import JobState, Reading
from tfruns.export.writer import Format
from tfruns.models import BadRun, JobRunStatus, RawPage
from tfruns.query import MAX_PAGE_SIZE

_NOT_ABOUT_THE_JOB = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that say nothing about the job."""
_END_THE_EXPORT = (AuthenticationError, ClientClosedError, ConfigurationError, EventLoopError, ExportError)
"""Errors that every other job would have too: they end the export."""
_ONE_TRY = RetryPolicy(max_attempts=1, patience=86_400)
_OPEN = tuple(status.value for status in JobRunStatus if not status.is_terminal)
_FEW = 3
"""How many open runs of a job are requested one by one; if there are more, they are listed by status first."""
_SEARCHED = 20
"""How many runs are requested one by one if neither the newest runs nor the open ones include them; more only if that
takes fewer requests than reading all runs."""
_PAUSE = 1.0
"""Seconds before a request is sent again whose response said that something has gone."""
_PIECES_AT_ONCE = 4
"""How many pieces are written after each page, at most, while others are fetched."""
_SIDE_BY_SIDE = 8
"""How many jobs with more than one page to read are read side by side for an increment."""

MAX_PAGE_BYTES = 3 * 2**20
"""The most bytes of a response: five times the size of 1,000 ordinary runs."""
_SMALLER_PAGES = (300, 80, 20, 4)
"""Runs per page: a job whose responses are too large is read again with the next size."""
_QUIET_PAGE = 100
"""Size of the first page of an increment, for jobs that had fewer new runs the last time."""


@attrs.define
class _Job:
    number: int
    job_id: str
    reading: Reading | None = None
    """What earlier exports know of the job, if this export has a state."""
    read: int = 0
    total: int = 0
    """How many runs the server says there are."""
    runs: int = 0
    rejected: int = 0
    is_past: bool = False
    """Whether all runs that may be new were read."""


@attrs.define
class Reader:
    """Reads runs into the checkpoint."""

    client: Client
    content: Content
    format_: Format
    doubts_empty_lists: bool
    """Whether a list without a run is read again before it is believed, as it would replace runs that are there."""
    filters: Mapping[str, Any]
    thread: WorkThread
    progress: Progress
    quarantines: bool
    """Whether a bad run is set aside; else it is an error."""
    page_size: int = MAX_PAGE_SIZE
    others: Sequence[str] = ()
    """All jobs of the export, first those that are likely to respond well."""
    _finished: str | None = None
    skipped: dict[str, TfRunsError] = attrs.Factory(dict)
    """The jobs that failed, by id, each with its error."""

    @property
    def checkpoint(self) -> Checkpoint:
        return self.content.checkpoint

    @property
    def _page_sizes(self) -> Sequence[int]:
        return (self.page_size, *(size for size in _SMALLER_PAGES if size < self.page_size))

    async def read_all(self, jobs: Iterable[tuple[int, str]], *, is_first: bool = False) -> None:
        """Read every run of these jobs, each given by number and id; `is_first` also keeps what the next export has to
        know."""
        empty: list[_Job] = []

        async def end(job: _Job) -> None:
            if job.read == 0 and self.doubts_empty_lists:
                empty.append(job)
            else:
                await self._finish(job)

        await self._read_whole(
            [_Job(number, id_, Reading(JobState()) if is_first else None) for number, id_ in jobs], end
        )
        if empty:
            await asyncio.sleep(_PAUSE)
            await self._read_whole(empty, self._finish)
        await self.thread.run(self.checkpoint.commit)

    async def _read_whole(self, left: list[_Job], end: Callable[[_Job], Awaitable[None]]) -> None:
        for page_size in self._page_sizes:
            too_large: list[_Job] = []
            if left:
                await self._read_pages(left, page_size, end, too_large)
            left = too_large

    async def read_new(self, jobs: Iterable[tuple[int, str]], known: Mapping[str, JobState]) -> None:
        """Read the runs of these jobs that are new or hadn't ended.

        First one page of each is read, which is enough for most; the rest of the others is read a few jobs at a time.
        """
        reading = [_Job(number, job_id, Reading(known[job_id])) for number, job_id in jobs]
        left: list[_Job] = []
        for is_quiet in (True, False):
            some = [job for job in reading if (known[job.job_id].count < 0.9 * _QUIET_PAGE) == is_quiet]
            page_size = min(_QUIET_PAGE, self._page_sizes[0]) if is_quiet else self._page_sizes[0]

            async def end(job: _Job, page_size: int = page_size) -> None:
                # One empty response is no proof that a list is empty that wasn't: it is read again.
                job.is_past |= job.read < page_size and (job.read > 0 or known[job.job_id].newest is None)
                if job.is_past and not (job.reading and job.reading.unseen):
                    await self._finish(job)
                else:
                    left.append(job)

            if some:
                await self._read_pages(some, page_size, end, left, max_runs=page_size)
        waiting = iter(left)

        async def work() -> None:
            for job in waiting:
                await self._read_rest(job)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_SIDE_BY_SIDE, len(left))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self.thread.run(self.checkpoint.commit)

    async def _read_pages(
        self,
        jobs: Sequence[_Job],
        page_size: int,
        end: Callable[[_Job], Awaitable[None]],
        too_large: list[_Job],
        max_runs: int | None = None,
    ) -> None:
        """Read these jobs side by side, and call `end` with each that has no more runs."""
        reading = {job.job_id: job for job in jobs}

        async def fail(job_id: str, error: TfRunsError) -> None:
            job = reading.pop(job_id)
            if isinstance(error, ResponseTooLargeError) and not self._is_last(page_size):
                await self._begin_again(job)
                too_large.append(job)
            else:
                await self._skip(job, error)

        walk = self.client.iter_runs_for(
            list(reading),
            on_error=fail,
            max_runs=max_runs,
            page_size=None if page_size == MAX_PAGE_SIZE else page_size,  # None: no larger than a window needs
            max_response_bytes=None if self._is_last(page_size) else MAX_PAGE_BYTES,
            **self.filters,
        )
        async with aclosing(walk.raw_pages(keep_bad=True)) as pages:
            async for job_id, page in pages:
                if page is None:
                    await end(reading.pop(job_id))
                else:
                    await self._keep(reading[job_id], page, walk.progress.runs_expected)
                del page  # before the next is made

    def _is_last(self, page_size: int) -> bool:
        return page_size <= self._page_sizes[-1]

    async def _finish(self, job: _Job) -> None:
        reading = job.reading
        note = None if reading is None else {"known": msgspec.to_builtins(reading.known), "removed": reading.removed}
        await self.thread.run(self.checkpoint.finish, job.number, note)
        self._finished = job.job_id
        self.progress.done()

    async def _begin_again(self, job: _Job) -> None:
        await self.thread.run(self.checkpoint.drop, job.number)
        self.progress.dropped(job.runs, job.rejected, is_skipped=False)
        job.read = job.runs = job.rejected = 0
        job.is_past = False
        if job.reading is not None:
            job.reading.begin()

    # --- runs of an increment that aren't on the first page ---

    async def _read_rest(self, job: _Job) -> None:
        reading = job.reading
        assert reading is not None  # noqa: S101  # for the type checker
        for page_size in self._page_sizes:
            try:
                if not job.is_past:
                    if job.read == 0:
                        await asyncio.sleep(_PAUSE)
                    await self._begin_again(job)
                    await self._walk(job, page_size, created_after=reading.since)
                await self._find_open(job, reading, page_size)
                await self._finish(job)
            except ResponseTooLargeError as error:
                job.is_past = False
                if self._is_last(page_size):
                    await self._skip(job, error)
            except TfRunsError as error:
                await self._skip(job, error)
                return
            else:
                return

    async def _walk(self, job: _Job, page_size: int, *, is_search: bool = False, **filters: Any) -> None:
        walk = self.client.iter_runs(
            job.job_id,
            page_size=page_size,
            max_response_bytes=None if self._is_last(page_size) else MAX_PAGE_BYTES // 2,
            **{**self.filters, **filters},
        )
        async with aclosing(walk.raw_pages(keep_bad=True)) as pages:
            async for page in pages:
                await self._keep(job, page, is_search=is_search)
                del page

    async def _find_open(self, job: _Job, reading: Reading, page_size: int) -> None:
        """Find the runs that must be found, and weren't read yet. One response is no proof that a run has gone."""
        if len(reading.unseen) > _FEW:
            await self._walk(job, page_size, is_search=True, status=_OPEN)
        await self._find(job, reading, reading.unseen, page_size)
        if vanished := reading.vanished:
            await asyncio.sleep(_PAUSE)
            await self._find(job, reading, vanished, page_size)
        for run_id in sorted(reading.unseen):
            reading.mark_deleted(run_id)

    async def _find(self, job: _Job, reading: Reading, wanted: Collection[str], page_size: int) -> None:
        if len(wanted) > max(_SEARCHED, job.total // MAX_PAGE_SIZE):
            oldest = min(map(reading.created_at, wanted))
            await self._walk(job, page_size, is_search=True, created_after=oldest)
        else:
            await asyncio.gather(*(self._look_up(job, run_id) for run_id in sorted(wanted)))

    async def _look_up(self, job: _Job, run_id: str) -> None:
        await self._walk(job, 10, is_search=True, search_prefix=run_id)

    # --- pages ---

    async def _keep(self, job: _Job, page: RawPage, expected: int = 0, *, is_search: bool = False) -> None:
        """Keep those runs of a page that weren't written yet."""
        runs = page.data
        job.read += len(runs) + len(page.bad)
        if not is_search:
            job.total = page.pagination.total
        if job.reading is not None and job.reading.since is not None and runs:
            # Only if the newest runs come first, as they should; else all runs are read.
            job.is_past |= runs[-1].created_at < job.reading.since <= runs[0].created_at
        written, rejected = await self.thread.run(self._add, job, page, is_search)
        job.runs += written
        job.rejected += rejected
        if written or rejected:
            self.progress.read(written, expected, rejected)

    def _add(self, job: _Job, page: RawPage, is_search: bool) -> tuple[int, int]:
        """Turn runs into a piece. Returns how many were written and rejected. (In the thread.)"""
        self.thread.check()
        job_id, reading = job.job_id, job.reading
        bad: Sequence[BadRun] = page.bad
        if reading is not None:
            page = reading.record(page, is_search=is_search)
            bad = reading.record_bad(bad, is_search=is_search)
        rejected = [RejectedRun.of_bad_run(job_id, run) for run in bad]
        try:
            piece = self.format_.encode(job_id, page) if page.data else b""
        except (ValueError, OverflowError):
            problems = [unfit(job_id, run, self.format_) for run in page.data]
            if not any(problems):
                raise
            for run, text, found in zip(page.data, page.texts, problems, strict=True):
                if found:
                    rejected.append(RejectedRun.of(job_id, run.id, found, text))
                    if reading is not None:
                        reading.set_aside(run.id, run.created_at, text, has_ended=run.status.is_terminal)
            page = page.only([at for at, found in enumerate(problems) if not found])
            piece = self.format_.encode(job_id, page) if page.data else b""
        if rejected:
            if not self.quarantines:
                first = rejected[0]
                raise ExportError(f"job {job_id!r}, run {first.run_id!r} can't be written: {first.why}")
            self.checkpoint.reject(job.number, b"".join(each.line for each in rejected), len(rejected))
        if page.data:
            self.checkpoint.add(job.number, piece, len(page.data))
        self.content.assembly.advance(_PIECES_AT_ONCE)
        return len(page.data), len(rejected)

    # --- jobs that fail ---

    async def _skip(self, job: _Job, error: TfRunsError) -> None:
        if isinstance(error, _END_THE_EXPORT) or (
            _is_of_server(error) and not await self._is_of_job(job.job_id, error)
        ):
            raise error
        self.skipped[job.job_id] = error
        await self.thread.run(self.checkpoint.drop, job.number, is_failed=True)
        self.progress.dropped(job.runs, job.rejected, is_skipped=True)

    async def _is_of_job(self, job_id: str, error: TfRunsError) -> bool:
        """Whether the server fails on this job alone: if it responds with a 500 here, and well to another job."""
        if not isinstance(error, InternalServerError) or error.status_code in _NOT_ABOUT_THE_JOB:
            return False
        others = (self._finished, *self.others)
        witness = next((each for each in others if each and each != job_id and each not in self.skipped), None)
        if witness is None:
            return False
        try:
            await self.client.count_runs(witness, retry=_ONE_TRY)
        except APIError as other:
            return not _is_of_server(other)
        return True


def _is_of_server(error: TfRunsError) -> bool:
    """Whether the whole server fails, maybe for a while: it ends the export, as the next job would fail too."""
    if isinstance(error, APIStatusError):
        return error.status_code in _NOT_ABOUT_THE_JOB or error.status_code >= 500
    return isinstance(error, APIConnectionError)
