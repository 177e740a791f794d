"""One walk over the pages of a job: fetched ahead, consumed in the order of requests."""

import asyncio
import functools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Self

import attrs

from tfruns._decode.fast import split_page
from tfruns._http.options import RequestOptions
from tfruns._http.transport import Fetched, Transport
from tfruns._walk.planner import PlannedPage, Planner
from tfruns.errors import BadRequestError, IncompleteWalkError, UnprocessableEntityError
from tfruns.models import BadRun, JobRun, RawPage, RunPage
from tfruns.query import PageRequest, RunFilter


@attrs.frozen
class Found:
    """The new runs of a response."""

    runs: Sequence[JobRun]
    body: bytes = attrs.field(repr=False)
    page: RunPage

    def raw_pages(self, size: int) -> Iterator[RawPage]:
        """The same runs with their texts, at most `size` in a page."""
        for start in range(0, len(self.runs), size):
            found = self.runs[start : start + size]
            runs = tuple(run for run in found if not isinstance(run, BadRun))
            bad = () if len(runs) == len(found) else tuple(run for run in found if isinstance(run, BadRun))
            split = functools.partial(_texts_of, runs, self.page.data, self.body)
            yield RawPage(runs, self.page.pagination, bad, split)


def _texts_of(runs: Sequence[JobRun], all_runs: Sequence[JobRun], body: bytes) -> tuple[bytes, ...]:
    """The texts of some of the runs of a response."""
    texts = split_page(body)
    skipped = len(all_runs) - len(runs)
    # Nearly always they are all runs but the first few: then they are the last ones of the response.
    if runs and all_runs[skipped] is runs[0]:
        return texts[skipped:]
    by_run = dict(zip(map(id, all_runs), texts, strict=True))
    return tuple(by_run[id(run)] for run in runs)


class Walk:
    """One walk: an async iterator of the new runs of each response, inside `async with`.

    (It isn't a generator, because an event loop that is shut down in the middle of a walk closes nested generators in
    any order.)
    """

    def __init__(
        self,
        transport: Transport,
        options: RequestOptions,
        prefetch: "Prefetch",
        *,
        job_id: str,
        filter: RunFilter,  # noqa: A002  # the public name
        page_size: int,
        offset: int,
        max_runs: int | None,
        keep_bad: bool,
    ) -> None:
        self._transport = transport
        self._options = options
        self._prefetch = prefetch
        self.counters = transport.counters
        self._job_id = job_id
        self._filter = filter
        self._keep_bad = keep_bad
        self._planner = Planner(
            job_id=job_id,
            start=offset,
            page_size=page_size,
            max_runs=max_runs,
            by_creation=filter.is_by_creation,
            keeps_ids=not filter.is_by_creation,
            window=filter if filter.has_window else None,
        )
        self._has_begun = False
        self._planned: deque[PlannedPage] = deque()
        self._fetching: deque[asyncio.Task[Fetched]] = deque()

    @property
    def ahead(self) -> int:
        """How many pages are in flight, or have arrived and weren't consumed yet."""
        return len(self._planned)

    @property
    def is_over(self) -> bool:
        """Whether the walk is complete."""
        return self._planner.done

    async def __aenter__(self) -> Self:
        self._transport.enter_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Found:
        while await self.arrive():
            found = await self.take()
            if found is not None and found.runs:
                return found
            del found  # frees the page before the next one is made
        raise StopAsyncIteration

    async def arrive(self) -> bool:
        """Wait until the next response has arrived, still as bytes. False once the walk is over."""
        self._fetch_ahead()
        if not self._fetching:
            return False
        fetching = self._fetching[0]
        if fetching.done():  # other tasks must run between two pages that have both arrived
            await asyncio.sleep(0)
        with suppress(BadRequestError, UnprocessableEntityError):  # `take` handles them
            await fetching
        return True

    async def take(self) -> Found | None:
        """The new runs of the response that has arrived. None if the server refused the request's offset or limit."""
        found = await self._consume()
        if self._planner.done:
            await self._cancel()
        self._fetch_ahead()
        if found is not None:
            self.counters.runs += len(found.runs)
        return found

    async def _consume(self) -> Found | None:
        planned, fetching = self._planned[0], self._fetching[0]
        try:
            fetched = fetching.result()
        except (BadRequestError, UnprocessableEntityError) as error:
            if not self._has_begun:  # the first request was refused for another reason than its offset
                raise
            self._remove_first()
            try:
                self._planner.refuse(planned, error.message)
            except IncompleteWalkError as incomplete:
                raise incomplete from error
            return None
        page = await self._transport.read(fetched, keep_bad=self._keep_bad)
        self._remove_first()
        return Found(self._planner.consume(planned, page), fetched.body, page)

    def _remove_first(self) -> None:
        self._planned.popleft()
        self._fetching.popleft()
        self._has_begun = True
        self._prefetch.mark(self)

    def _fetch_ahead(self) -> None:
        while self._prefetch.allows(self) and (page := self._planner.next_request(self._planned)) is not None:
            request = PageRequest(self._job_id, self._filter, page.limit, page.offset)
            fetching = self._transport.fetch(request, self._options)
            self._fetching.append(asyncio.create_task(fetching, name=f"tfruns {self._job_id} at {page.offset}"))
            self._planned.append(page)
            self._prefetch.mark(self)

    async def _cancel(self) -> None:
        """Stop the requests in flight, and wait until they have stopped."""
        tasks = [*self._fetching]
        self._fetching.clear()
        self._planned.clear()
        self._prefetch.mark(self)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Prefetch:
    """How many pages several walks together may have ahead of their consumers. Each walk may always have one."""

    def __init__(self, most: int) -> None:
        self.front: Walk | None = None
        """The walk whose pages are consumed now. It has its own limit, as high as that of all others together."""
        self._most = most
        self._ahead: dict[Walk, int] = {}  # of those that have pages ahead
        self._ahead_in_all = 0

    def mark(self, walk: Walk) -> None:
        """Take note of how many pages the walk has ahead."""
        self._ahead_in_all += walk.ahead - self._ahead.pop(walk, 0)
        if walk.ahead:
            self._ahead[walk] = walk.ahead

    def allows(self, walk: Walk) -> bool:
        """Whether the walk may fetch another page."""
        if not walk.ahead or walk is self.front:
            return walk.ahead < self._most
        of_front = 0 if self.front is None else self._ahead.get(self.front, 0)
        return self._ahead_in_all - of_front < self._most
