"""The walk over a job's pages, and the face it has: an async iterable of runs."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import attrs

from tfruns.models import JobRun, RawPage, RunPage
from tfruns.plan import Ask, Plan
from tfruns.query import PageRequest, RunFilter
from tfruns.session import Session
from tfruns.structure import decode_page, split_page


async def fetch_page(session: Session, request: PageRequest) -> RunPage:
    """One page, fetched and structured."""
    body = await session.fetch(request)
    return decode_page(body, job_id=request.job_id, offset=request.offset)


@attrs.frozen
class _Answer:
    body: bytes
    page: RunPage


_Ahead = deque[tuple[Ask, asyncio.Task[bytes] | _Answer]]


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
    _session: Session = attrs.field(repr=False, alias="session")

    def __aiter__(self) -> AsyncGenerator[JobRun]:
        return self._runs()

    async def _runs(self) -> AsyncGenerator[JobRun]:
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for run in page.data:
                    yield run
                del page  # before the next is made

    async def pages(self) -> AsyncGenerator[RunPage]:
        """Yield the same runs page by page, as `RunPage`, with what the server said of the whole list then.

        Pages are fetched ahead, as many as the client's `max_concurrency` allows. No page is empty: a job without runs
        yields none. Each page after the first is asked for with a row of overlap, so that it holds one run less than
        `page_size`, or fewer where the list changes meanwhile.
        """
        async with aclosing(self._walk()) as walk:
            async for fresh, answer in walk:
                for start in range(0, len(fresh), self.page_size):
                    yield RunPage(tuple(fresh[start : start + self.page_size]), answer.page.pagination)
                del fresh, answer

    async def raw_pages(self) -> AsyncGenerator[RawPage]:
        """Yield the same pages, as `RawPage`: each run with the text that the server sent, for whoever stores that."""
        async with aclosing(self._walk()) as walk:
            async for fresh, answer in walk:
                texts = dict(zip(map(id, answer.page.data), split_page(answer.body), strict=True))
                for start in range(0, len(fresh), self.page_size):
                    runs = tuple(fresh[start : start + self.page_size])
                    yield RawPage(runs, tuple(texts[id(run)] for run in runs), answer.page.pagination)
                del fresh, answer, texts

    async def _walk(self) -> AsyncGenerator[tuple[Sequence[JobRun], _Answer]]:
        """Yield the runs that are new, with the answer that brought them."""
        plan = Plan(
            job_id=self.job_id,
            start=self.offset,
            page_size=self.page_size,
            max_runs=self.max_runs,
            by_creation=self.filter.is_by_creation,
            runs_jump=self.filter.runs_jump,
        )
        ahead: _Ahead = deque()
        try:
            self._fetch_ahead(plan, ahead)
            while ahead:
                ask, answer = ahead.popleft()
                if not isinstance(answer, _Answer):
                    if answer.done():  # where many pages are there already, others get their turn between them
                        await asyncio.sleep(0)
                    answer = self._decode(ask, await answer)
                taken = plan.take(ask, answer.page)
                if taken.restart or plan.done:
                    await _cancel(ahead)
                if taken.again:
                    ahead.appendleft((ask, answer))
                if taken.bridge is not None:
                    ahead.appendleft((taken.bridge, self._start(taken.bridge)))
                self._fetch_ahead(plan, ahead)
                if taken.fresh:
                    yield taken.fresh, answer
                del taken, answer  # so that runs die young, and the next page takes their place in memory
        finally:
            await _cancel(ahead)

    def _fetch_ahead(self, plan: Plan, ahead: _Ahead) -> None:
        while len(ahead) < self._session.max_concurrency and (ask := plan.upcoming()) is not None:
            ahead.append((ask, self._start(ask)))

    def _start(self, ask: Ask) -> asyncio.Task[bytes]:
        request = PageRequest(self.job_id, self.filter, ask.limit, ask.offset)
        return asyncio.create_task(self._session.fetch(request), name=f"tfruns {self.job_id} at {ask.offset}")

    def _decode(self, ask: Ask, body: bytes) -> _Answer:
        return _Answer(body, decode_page(body, job_id=self.job_id, offset=ask.offset))

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


async def _cancel(ahead: _Ahead) -> None:
    """Stop what is under way, and see it stopped."""
    tasks = [answer for _, answer in ahead if isinstance(answer, asyncio.Task)]
    ahead.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
