"""One walk over the pages of a job: fetched ahead, consumed in the order of requests."""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Self

import attrs

from tfruns._decode.body import split_page
from tfruns._http.options import RequestOptions
from tfruns._http.transport import Fetched, Transport
from tfruns._walk import token
from tfruns._walk.frontier import Place
from tfruns._walk.planner import Planner
from tfruns._walk.request import PlannedPage
from tfruns.errors import BadRequestError, IncompleteWalkError, UnprocessableEntityError
from tfruns.models import BadRun, JobRun, RawPage, RunPage
from tfruns.query import PageRequest, RunFilter


@attrs.frozen
class NewRuns:
    """The new runs of a response."""

    runs: Sequence[JobRun]
    body: bytes = attrs.field(repr=False)
    page: RunPage
    expected: int
    """How many runs the walk yields in all, by what is known now."""
    token_after: Callable[[int], str] | None = attrs.field(default=None, repr=False)
    """The resume token after so many of them, in the order by creation."""

    def pages(self, size: int) -> Iterator[RunPage]:
        """The same runs, at most `size` in a page."""
        for start in range(0, len(self.runs), size):
            page = RunPage(tuple(self.runs[start : start + size]), self.page.pagination)
            if self.token_after is not None:
                vars(page)["_resume_token"] = functools.partial(self.token_after, start + len(page))
            yield page

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
        fits_window: bool,
        place: Place | None,
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
            filter=filter,
            start=offset,
            page_size=page_size,
            max_runs=max_runs,
            fits_window=fits_window,
            place=place,
        )
        self._has_begun = False
        self._planned: deque[PlannedPage] = deque()
        self._fetching: deque[asyncio.Future[Fetched]] = deque()
        self._kept: dict[PlannedPage, Fetched] = {}  # behind a gap, still as bytes
        self._ready: deque[tuple[Fetched, RunPage | None, Sequence[int], Place | None]] = deque()  # to be taken next

    @property
    def ahead(self) -> int:
        """How many pages are in flight, or have arrived and weren't taken yet."""
        return len(self._planned) + len(self._kept) + len(self._ready)

    @property
    def expected(self) -> int:
        """How many runs it yields in all, by what is known now."""
        return self._planner.expected

    @property
    def is_over(self) -> bool:
        """Whether everything was taken."""
        return self._planner.done and not self._ready

    async def __aenter__(self) -> Self:
        self._transport.enter_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NewRuns:
        while await self.arrive():
            new = await self.take()
            if new is not None:
                return new
        raise StopAsyncIteration

    async def arrive(self) -> bool:
        """Wait until the next response has arrived, still as bytes. False once the walk is over."""
        if self._ready:
            return True
        if not self._has_begun and not self._planned:
            await self._fetch_first()
        self._fetch_ahead()
        if not self._fetching:
            return False
        fetching = self._fetching[0]
        if self._has_begun and fetching.done():  # other tasks must run between two pages that have both arrived
            await asyncio.sleep(0)
        with suppress(BadRequestError, UnprocessableEntityError):  # `take` handles them
            await fetching
        return True

    async def take(self) -> NewRuns | None:
        """The new runs of the response that has arrived; None if it has none."""
        if not self._ready:
            await self._consume()
        if self._planner.done:
            await self._cancel()
        new = None
        if self._ready:
            fetched, page, rows, before = self._ready.popleft()
            page = page or await self._read(fetched)
            runs = page.data[rows[0] :] if len(rows) == len(page.data) - rows[0] else [page.data[at] for at in rows]
            self.counters.runs += len(runs)
            token_after = None if before is None else functools.partial(self._token_after, before, runs)
            new = NewRuns(runs, fetched.body, page, self.expected, token_after)
        self._prefetch.mark(self)
        self._fetch_ahead()
        return new

    def _token_after(self, before: Place, runs: Sequence[JobRun], count: int) -> str:
        return token.encode(before.after(runs[:count]), self._job_id, self._filter)

    async def _consume(self) -> None:
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
            return
        page = await self._read(fetched)
        self._remove_first()
        new = self._planner.consume(planned, page)
        arrived = {planned: fetched, **self._kept}
        for one, rows, place in new:
            self._ready.append((arrived[one], page if one is planned else None, rows, place))
        self._kept = {one: arrived[one] for one in self._planner.kept}

    async def _read(self, fetched: Fetched) -> RunPage:
        return await self._transport.read(fetched, keep_bad=self._keep_bad)

    def _remove_first(self) -> None:
        self._planned.popleft()
        self._fetching.popleft()
        self._has_begun = True

    def _fetch_ahead(self) -> None:
        while True:
            if not self._prefetch.allows(self):
                if self._planned or not self._kept:
                    return
                self._planner.forget_last_kept()  # the walk can't go on without another page
                self._kept = {one: self._kept[one] for one in self._planner.kept}
            page = self._planner.next_request(self._planned)
            if page is None:
                return
            fetching = self._fetch(page)
            self._fetching.append(asyncio.create_task(fetching, name=f"tfruns {self._job_id} at {page.offset}"))
            self._planned.append(page)
            self._prefetch.mark(self)

    async def _fetch_first(self) -> None:
        """Fetch the first page, in this task: nothing can be fetched beside it."""
        page = self._planner.next_request(self._planned)
        if page is None:
            return
        fetched: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self._fetching.append(fetched)
        self._planned.append(page)
        self._prefetch.mark(self)
        try:
            fetched.set_result(await self._fetch(page))
        except Exception as error:
            fetched.set_exception(error)

    async def _fetch(self, page: PlannedPage) -> Fetched:
        if page.pause:
            await asyncio.sleep(page.pause)
        request = PageRequest(self._job_id, page.order.of(self._filter), page.limit, page.offset)
        return await self._transport.fetch(request, self._options)

    async def _cancel(self) -> None:
        """Stop the requests in flight, and wait until they have stopped."""
        tasks = [*self._fetching]
        self._fetching.clear()
        self._planned.clear()
        self._kept.clear()
        self._prefetch.mark(self)
        for task in tasks:
            task.cancel()
        if tasks:
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
