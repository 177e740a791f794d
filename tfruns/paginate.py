"""The walk over a job's pages, and the face it has: an async iterable of runs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import attrs

from tfruns.errors import IncompleteWalkError
from tfruns.models import JobRun, RunPage
from tfruns.query import PageRequest, RunFilter
from tfruns.session import Session
from tfruns.structure import decode_page


async def fetch_page(session: Session, request: PageRequest) -> RunPage:
    """One page, fetched and structured."""
    body = await session.fetch(request)
    return decode_page(body, job_id=request.job_id, offset=request.offset)


@attrs.frozen(eq=False)
class RunPaginator:
    """The runs of one job, as `Client.iter_runs` gives them: nothing is requested until they are asked for.

    `async for run in paginator` yields each `JobRun` in the server's order. Each `async for`, and each call of a
    method, is a new walk from the start. All of them raise what `Client.iter_runs` names.
    """

    job_id: str
    """The job."""
    filter: RunFilter
    """Which of its runs, and in which order."""
    page_size: int
    """The most runs a request asks for."""
    offset: int
    """How many runs are skipped first."""
    max_runs: int | None
    """How many runs are yielded at most; None for all."""
    _session: Session = attrs.field(repr=False)

    def __aiter__(self) -> AsyncGenerator[JobRun]:
        return self._runs()

    async def _runs(self) -> AsyncGenerator[JobRun]:
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for run in page.data:
                    yield run

    async def pages(self) -> AsyncGenerator[RunPage]:
        """Yield the same runs page by page, as `RunPage`, with what the server said of the whole list then.

        No page is empty: a job without runs yields none.
        """
        offset, left = self.offset, self.max_runs
        while left is None or left > 0:
            page = await self._fetch(offset, self.page_size if left is None else min(self.page_size, left))
            taken, total = len(page.data), page.pagination.total
            if not taken:
                if offset < total:
                    text = f"the server says there are {total} runs, but has none from offset {offset} on"
                    seen = offset - self.offset
                    raise IncompleteWalkError(text, job_id=self.job_id, offset=offset, seen=seen, total=total)
                return
            yield page
            offset += taken
            left = None if left is None else left - taken
            if offset >= total:
                return

    async def collect(self) -> list[JobRun]:
        """Every run, as one list."""
        return [run async for run in self]

    async def first(self) -> JobRun | None:
        """The first run, or None if there is none: one request for one run."""
        page = await self._fetch(self.offset, 1)
        return page.data[0] if page.data and self.max_runs != 0 else None

    async def count(self) -> int:
        """How many runs the walk would yield by the server's count now: one request."""
        page = await self._fetch(0, 1)
        after_offset = max(0, page.pagination.total - self.offset)
        return after_offset if self.max_runs is None else min(after_offset, self.max_runs)

    async def _fetch(self, offset: int, limit: int) -> RunPage:
        return await fetch_page(self._session, PageRequest(self.job_id, self.filter, limit, offset))
