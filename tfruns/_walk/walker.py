"""One walk over a job's pages: fetched ahead, taken in their order, and given on as what each has brought."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from tfruns._decode.structure import split_page
from tfruns._http.options import CallOptions
from tfruns._http.transport import Fetched, Transport
from tfruns._walk.planner import Ask, Plan
from tfruns.models import JobRun, RawPage, RunPage
from tfruns.query import PageRequest, RunFilter


@attrs.frozen
class _Answer:
    body: bytes = attrs.field(repr=False)
    page: RunPage


@attrs.frozen
class Step:
    """What a walk has found."""

    fresh: Sequence[JobRun]
    """The runs that are new."""
    answer: _Answer
    """What brought them."""

    def raw_pages(self, size: int) -> Iterator[RawPage]:
        """The same runs with their texts, at most so many a page."""
        page = self.answer.page
        texts = dict(zip(map(id, page.data), split_page(self.answer.body), strict=True))
        for start in range(0, len(self.fresh), size):
            runs = tuple(self.fresh[start : start + size])
            yield RawPage(runs, tuple(texts[id(run)] for run in runs), page.pagination)


class Walk:
    """One walk: an async iterator of steps, within `async with`.

    (No generator: where an event loop is shut down in the middle of a walk, generators within generators are closed in
    no order.)
    """

    def __init__(
        self,
        transport: Transport,
        options: CallOptions,
        prefetch: "Prefetch",
        *,
        job_id: str,
        filter: RunFilter,  # noqa: A002  # as everywhere
        page_size: int,
        offset: int,
        max_runs: int | None,
    ) -> None:
        self._transport = transport
        self._options = options
        self._prefetch = prefetch
        self._job_id = job_id
        self._filter = filter
        self._plan = Plan(
            job_id=job_id,
            start=offset,
            page_size=page_size,
            max_runs=max_runs,
            by_creation=filter.is_by_creation,
            runs_jump=filter.runs_jump,
        )
        self._ahead: deque[tuple[Ask, asyncio.Task[Fetched] | _Answer]] = deque()

    @property
    def ahead(self) -> int:
        """How many pages are under way or wait to be taken."""
        return len(self._ahead)

    @property
    def is_over(self) -> bool:
        """Whether every step was told."""
        return self._plan.done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cancel()
        self._prefetch.mark(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Step:
        self._fetch_ahead()
        while self._ahead:
            ask, answer = self._ahead[0]
            if not isinstance(answer, _Answer):
                if answer.done():  # where many pages are there already, others get their turn between them
                    await asyncio.sleep(0)
                fetched = await answer
                answer = _Answer(fetched.body, self._transport.read(fetched))
            self._ahead.popleft()
            taken = self._plan.take(ask, answer.page)
            if taken.restart or self._plan.done:
                await self._cancel()
            if taken.again:
                self._ahead.appendleft((ask, answer))
            if taken.bridge is not None:
                self._ahead.appendleft((taken.bridge, self._start(taken.bridge)))
            self._fetch_ahead()
            if taken.fresh:
                self._transport.counters.runs += len(taken.fresh)
                return Step(taken.fresh, answer)
            del taken, answer  # so that runs die young, and the next page takes their place in memory
        raise StopAsyncIteration

    def _fetch_ahead(self) -> None:
        while self._prefetch.allows(self) and (ask := self._plan.upcoming()) is not None:
            self._ahead.append((ask, self._start(ask)))
        self._prefetch.mark(self)

    def _start(self, ask: Ask) -> asyncio.Task[Fetched]:
        request = PageRequest(self._job_id, self._filter, ask.limit, ask.offset)
        fetching = self._transport.fetch(request, self._options)
        return asyncio.create_task(fetching, name=f"tfruns {self._job_id} at {ask.offset}")

    async def _cancel(self) -> None:
        """Stop what is under way, and see it stopped."""
        tasks = [answer for _, answer in self._ahead if isinstance(answer, asyncio.Task)]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Prefetch:
    """How many pages walks may have ahead of their consumers, all together. Each may always have one."""

    def __init__(self, most: int) -> None:
        self.front: Walk | None = None
        """The walk that is waited for, and may have as many for itself."""
        self._most = most
        self._walks: set[Walk] = set()  # those that have pages ahead

    def mark(self, walk: Walk) -> None:
        """Take note of whether the walk has pages ahead."""
        if walk.ahead:
            self._walks.add(walk)
        else:
            self._walks.discard(walk)

    def allows(self, walk: Walk) -> bool:
        """Whether the walk may fetch another page."""
        if not walk.ahead or walk is self.front:
            return walk.ahead < self._most
        return sum(other.ahead for other in self._walks if other is not self.front) < self._most
