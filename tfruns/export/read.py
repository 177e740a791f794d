"""From the server to the journal: the runs of the jobs that it doesn't have yet, side by side."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs

from tfruns.client import Client
from tfruns.errors import APIConnectionError, InternalServerError, RateLimitError, TfRunsError
from tfruns.export.journal import Journal
from tfruns.export.lines import as_lines
from tfruns.export.progress import Progress
from tfruns.export.since import Known
from tfruns.models import RawPage
from tfruns.query import MAX_PAGE_SIZE

_OF_THE_SERVER = (APIConnectionError, InternalServerError, RateLimitError)
"""What ends an export: the next job would fare no better."""
_LOOKED_UP = 20
"""Open runs of a job that are asked for one by one; more are found by reading on, down to the oldest."""


@attrs.define
class _Job:
    number: int
    job_id: str
    known: Known | None
    until: float = -math.inf
    """Runs created before, in milliseconds since 1970 UTC, are known for good."""
    unseen: set[str] = attrs.Factory(set)
    """The runs that were open the last time, and haven't come yet."""
    pages: int = 0
    read: int = 0
    runs: int = 0
    is_past: bool = False
    """Whether all that may be new was seen."""


@attrs.define
class Collector:
    """Reads runs into a journal."""

    client: Client
    journal: Journal
    filters: Mapping[str, Any]
    work: Callable[..., Awaitable[Any]]
    """Awaits a function in a thread."""
    progress: Progress
    skipped: dict[str, TfRunsError] = attrs.Factory(dict)
    """The jobs that failed, by id, each with its error."""

    async def read_all(self, jobs: Iterable[tuple[int, str]], *, is_first: bool = False) -> None:
        """Read every run of these jobs, each given by number and id; note what is known then, if it is the first time
        of several."""
        await self._read(_Job(number, job_id, Known() if is_first else None) for number, job_id in jobs)

    async def read_new(self, jobs: Iterable[tuple[int, str]], known: Mapping[str, Known]) -> None:
        """Read what is new in these jobs, and what wasn't final."""
        await self._read((self._known_job(number, job_id, known[job_id]) for number, job_id in jobs), MAX_PAGE_SIZE)

    def _known_job(self, number: int, job_id: str, known: Known) -> _Job:
        until = known.until
        old = [created_at for created_at in known.open.values() if created_at < until]
        if len(old) > _LOOKED_UP:
            until = min(old)
        return _Job(number, job_id, Known(known.newest, dict(known.open)), until, set(known.open))

    async def _read(self, jobs: Iterable[_Job], max_runs: int | None = None) -> None:
        reading = {job.job_id: job for job in jobs}

        async def fail(job_id: str, error: TfRunsError) -> None:
            await self._skip(reading.pop(job_id), error)

        walk = self.client.iter_runs_for(list(reading), on_error=fail, max_runs=max_runs, **self.filters)
        async with aclosing(walk.raw_pages()) as pages:
            async for job_id, page in pages:
                if page is not None:
                    await self._keep(reading[job_id], page)
                    self.progress.read(len(page.data), walk.progress.runs_expected)
                else:
                    await self._finish(reading.pop(job_id), max_runs)
        await self.work(self.journal.commit)

    async def _finish(self, job: _Job, max_runs: int | None) -> None:
        try:
            if max_runs is not None and job.read >= max_runs and not job.is_past:
                await self._read_on(job)
            await self._look_up(job)
        except TfRunsError as error:
            await self._skip(job, error)
        else:
            await self.work(self.journal.finish, job.number, job.runs, job.known and attrs.asdict(job.known))
            self.progress.done()

    async def _read_on(self, job: _Job) -> None:
        """Read it again from the start, past the first page."""
        await self.work(self.journal.drop, job.number)
        job.runs = job.pages = 0
        async with aclosing(self.client.iter_runs(job.job_id, **self.filters).raw_pages()) as pages:
            async for page in pages:
                await self._keep(job, page)
                if job.is_past:
                    break

    async def _look_up(self, job: _Job) -> None:
        """Ask for the runs that were open and haven't come."""
        assert job.known is not None or not job.unseen  # noqa: S101  # for the type checker
        filters = {name: value for name, value in self.filters.items() if name != "search_prefix"}

        async def find(run_id: str) -> RawPage | None:
            walk = self.client.iter_runs(job.job_id, search_prefix=run_id, page_size=10, **filters)
            async with aclosing(walk.raw_pages()) as pages:
                async for page in pages:
                    for run, text in zip(page.data, page.texts, strict=True):
                        if run.id == run_id:
                            return RawPage((run,), (text,), page.pagination)
            return None

        asked = sorted(job.unseen)
        for run_id, page in zip(asked, await asyncio.gather(*map(find, asked)), strict=True):
            if page is not None:
                await self._keep(job, page)
            elif job.known is not None:
                del job.known.open[run_id]
                job.known.gone.append(run_id)

    async def _keep(self, job: _Job, page: RawPage) -> None:
        """Keep what of a page isn't known for good."""
        runs, texts = page.data, page.texts
        job.read += len(runs)
        if job.known is not None:
            job.is_past = runs[-1].created_at < job.until
            kept = [at for at, run in enumerate(runs) if run.created_at >= job.until or run.id in job.unseen]
            runs, texts = tuple(runs[at] for at in kept), tuple(texts[at] for at in kept)
            job.known.see(runs)
            job.unseen.difference_update(run.id for run in runs)
        if runs:
            await self.work(_add_page, self.journal, job.number, job.pages, job.job_id, texts)
            job.pages += 1
            job.runs += len(runs)

    async def _skip(self, job: _Job, error: TfRunsError) -> None:
        if isinstance(error, _OF_THE_SERVER):
            raise error
        self.skipped[job.job_id] = error
        await self.work(self.journal.drop, job.number)
        self.progress.skipped(job.runs)


def _add_page(journal: Journal, job: int, number: int, job_id: str, texts: Sequence[bytes]) -> None:
    journal.add_page(job, number, as_lines(job_id, texts))
