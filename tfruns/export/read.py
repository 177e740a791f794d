"""From the server to the parts: the runs of the jobs that aren't there yet, side by side.

Each page is handed to the export's thread, which turns it into a piece while other pages are fetched. One page is in
the thread at a time, and the walk fetches only so far ahead, so that memory is bounded: by bytes, for a response that
is larger than `MAX_PAGE_BYTES` is abandoned, and its job read again in smaller pages.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs

from tfruns.client import Client
from tfruns.errors import (
    APIConnectionError,
    InternalServerError,
    RateLimitError,
    ResponseTooLargeError,
    TfRunsError,
)
from tfruns.export import quarantine
from tfruns.export.errors import ExportError
from tfruns.export.formats import Format
from tfruns.export.page import Page
from tfruns.export.parts import Parts
from tfruns.export.progress import Progress
from tfruns.export.quarantine import Rejected
from tfruns.export.thread import WorkThread
from tfruns.export.watermark import Known
from tfruns.models import RawPage
from tfruns.query import MAX_PAGE_SIZE

_OF_THE_SERVER = (APIConnectionError, InternalServerError, RateLimitError)
"""What ends an export: the next job would fare no better."""
_LOOKED_UP = 20
"""Open runs of a job that are requested one by one; more are found by reading on, down to the oldest."""

MAX_PAGE_BYTES = 3 * 2**20
"""Bytes of a response: five times what 1,000 ordinary runs take."""
_PAGE_SIZES = (MAX_PAGE_SIZE, 300, 80, 20, 4)
"""Runs a page: a job whose responses are too large is read again with the next size."""


@attrs.define
class _Job:
    number: int
    job_id: str
    known: Known | None
    until: float = -math.inf
    """Runs created before, in milliseconds since 1970 UTC, are known for good."""
    unseen: set[str] = attrs.Factory(set)
    """The runs that were open the last time, and haven't come yet."""
    read: int = 0
    runs: int = 0
    rejected: int = 0
    is_past: bool = False
    """Whether all that may be new was seen."""


@attrs.define
class Reader:
    """Reads runs into parts."""

    client: Client
    parts: Parts
    form: Format
    filters: Mapping[str, Any]
    thread: WorkThread
    progress: Progress
    quarantines: bool
    """Whether a bad run is set aside; else it is an error."""
    skipped: dict[str, TfRunsError] = attrs.Factory(dict)
    """The jobs that failed, by id, each with its error."""

    async def read_all(self, jobs: Iterable[tuple[int, str]], *, is_first: bool = False) -> None:
        """Read every run of these jobs, each given by number and id; note what is known then, if it is the first time
        of several."""
        await self._read([_Job(number, job_id, Known() if is_first else None) for number, job_id in jobs])

    async def read_new(self, jobs: Iterable[tuple[int, str]], known: Mapping[str, Known]) -> None:
        """Read what is new in these jobs, and what wasn't final."""
        await self._read([_known_job(number, job_id, known[job_id]) for number, job_id in jobs], MAX_PAGE_SIZE)

    async def _read(self, jobs: Sequence[_Job], max_runs: int | None = None) -> None:
        for page_size in _PAGE_SIZES:
            too_large: list[_Job] = []
            if jobs:
                await self._read_pages({job.job_id: job for job in jobs}, page_size, max_runs, too_large)
            jobs = too_large
        await self.thread.run(self.parts.commit)

    async def _read_pages(
        self, reading: dict[str, _Job], page_size: int, max_runs: int | None, too_large: list[_Job]
    ) -> None:
        is_last = page_size == _PAGE_SIZES[-1]

        async def fail(job_id: str, error: TfRunsError) -> None:
            job = reading.pop(job_id)
            if isinstance(error, ResponseTooLargeError) and not is_last:
                await self._begin_again(job)
                too_large.append(job)
            else:
                await self._skip(job, error)

        walk = self.client.iter_runs_for(
            list(reading),
            on_error=fail,
            max_runs=max_runs,
            page_size=page_size,
            max_response_bytes=None if is_last else MAX_PAGE_BYTES,
            **self.filters,
        )
        async with aclosing(walk.raw_pages(keep_bad=True)) as pages:
            async for job_id, page in pages:
                if page is None:
                    await self._finish(reading.pop(job_id), max_runs, page_size)
                else:
                    await self._keep(reading[job_id], page, walk.progress.runs_expected)
                del page  # before the next is made

    async def _finish(self, job: _Job, max_runs: int | None, page_size: int) -> None:
        try:
            if max_runs is not None and job.read >= max_runs and not job.is_past:
                await self._read_on(job, page_size)
            await self._look_up(job)
        except TfRunsError as error:
            await self._skip(job, error)
        else:
            note = None if job.known is None else attrs.asdict(job.known)
            await self.thread.run(self.parts.finish, job.number, note)
            self.progress.done()

    async def _begin_again(self, job: _Job) -> None:
        await self.thread.run(self.parts.drop, job.number)
        self.progress.dropped(job.runs, job.rejected, is_skipped=False)
        job.read = job.runs = job.rejected = 0

    async def _read_on(self, job: _Job, page_size: int) -> None:
        """Read it again from the start, past the first page."""
        await self._begin_again(job)
        walk = self.client.iter_runs(job.job_id, page_size=page_size, **self.filters)
        async with aclosing(walk.raw_pages(keep_bad=True)) as pages:
            async for page in pages:
                await self._keep(job, page)
                if job.is_past:
                    break

    async def _look_up(self, job: _Job) -> None:
        """Request the runs that were open and haven't come."""
        if job.known is None or not job.unseen:
            return
        filters = {name: value for name, value in self.filters.items() if name != "search_prefix"}

        async def find(run_id: str) -> Page | None:
            walk = self.client.iter_runs(job.job_id, search_prefix=run_id, page_size=10, **filters)
            async with aclosing(walk.raw_pages(keep_bad=True)) as pages:
                async for page in pages:
                    for run, text in zip(page.data, page.texts, strict=True):
                        if run.id == run_id:
                            return Page(job.job_id, [run], lambda text=text: [text])  # type: ignore[misc]
            return None

        wanted = sorted(job.unseen)
        for run_id, found in zip(wanted, await asyncio.gather(*map(find, wanted)), strict=True):
            if found is not None:
                await self._store(job, found)
            else:
                del job.known.open[run_id]
                job.known.gone.append(run_id)

    async def _keep(self, job: _Job, page: RawPage, expected: int = 0) -> None:
        """Keep what of a page isn't known for good."""
        runs = page.data
        found = Page(job.job_id, runs, lambda: page.texts)
        job.read += len(runs) + len(page.bad)
        if job.known is not None and runs:
            job.is_past = runs[-1].created_at < job.until
            found = found.only(
                [at for at, run in enumerate(runs) if run.created_at >= job.until or run.id in job.unseen]
            )
        await self._store(job, found, [Rejected.of_bad_run(run) for run in page.bad], expected)

    async def _store(self, job: _Job, page: Page, bad: Sequence[Rejected] = (), expected: int = 0) -> None:
        if job.known is not None:
            job.known.see(page.runs)
            job.unseen.difference_update(run.id for run in page.runs)
        if page.runs or bad:
            written, rejected = await self.thread.run(self._add, job.number, page, list(bad))
            job.runs += written
            job.rejected += rejected
            self.progress.read(written, expected, rejected)

    def _add(self, number: int, page: Page, rejected: list[Rejected]) -> tuple[int, int]:
        """Turn runs into a piece. Returns how many were written and rejected. (In the thread.)"""
        self.thread.check()
        try:
            piece = self.form.encode(page) if page.runs else b""
        except (ValueError, OverflowError):
            page, unfit = quarantine.split(page, self.form.unfit)
            if not unfit:
                raise
            rejected += unfit
            piece = self.form.encode(page) if page.runs else b""
        if rejected:
            if not self.quarantines:
                first = rejected[0]
                raise ExportError(f"job {page.job_id!r}, run {first.run_id!r} can't be written: {first.why}")
            self.parts.reject(number, b"".join(each.line(page.job_id) for each in rejected), len(rejected))
        if page.runs:
            self.parts.add(number, piece, len(page.runs))
        return len(page.runs), len(rejected)

    async def _skip(self, job: _Job, error: TfRunsError) -> None:
        if isinstance(error, (*_OF_THE_SERVER, ExportError)):
            raise error
        self.skipped[job.job_id] = error
        await self.thread.run(self.parts.drop, job.number)
        self.progress.dropped(job.runs, job.rejected, is_skipped=True)


def _known_job(number: int, job_id: str, known: Known) -> _Job:
    until = known.until
    old = [created_at for created_at in known.open.values() if created_at < until]
    if len(old) > _LOOKED_UP:
        until = min(old)
    return _Job(number, job_id, Known(known.newest, dict(known.open)), until, set(known.open))
