"""One walk over the pages of a job: fetched ahead, consumed in the order of requests."""

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Self, TypeVar

import attrs

from tfruns._decode.body import split_page
from tfruns._http.options import RequestOptions
from tfruns._http.retry import PageFetch
from tfruns._http.transport import Transport
from tfruns._text import shortened
from tfruns._token import pack, unpack
from tfruns._walk.frontier import Place
from tfruns._walk.planner import Planner
from tfruns._walk.request import PlannedPage, is_whole_list
from tfruns.errors import BadRequestError, IncompleteWalkError, ResponseTooLargeError, UnprocessableEntityError
from tfruns.models import JobRun, Pagination, RawPage, RunPage, only
from tfruns.query import MAX_PAGE_SIZE, PageRequest, RunFilter, given_filters


@attrs.frozen(kw_only=True)
class WalkOptions:
    """What is walked of a job, and how: the same for each of many jobs."""

    transport: Transport
    request_options: RequestOptions
    filter: RunFilter
    page_size: int
    fits_window: bool
    offset: int
    max_runs: int | None
    place: Place | None = None
    keep_bad: bool = False
    max_page_bytes: int | None = None

    @cached_property
    def bounded_options(self) -> RequestOptions:
        return self.request_options.with_changes(None, max_response_bytes=self.max_page_bytes)

    def first_request(self, job_id: str) -> PageRequest | None:
        """The first request of a walk from the start of a list: it is the planner's, which then needn't be made yet."""
        if self.place is not None or self.filter.has_window or self.max_runs == 0:
            return None
        limit = max(3, self.page_size) if self.max_runs is None else min(max(3, self.page_size), self.max_runs)
        return PageRequest(job_id, self.filter, limit, self.offset)


_FEWEST_RUNS = 4  # of a page whose size in bytes is limited
_T = TypeVar("_T")
_VERSION = "tfrunswalk1"  # of resume tokens


def place_of(token: object, job_id: str, wanted: RunFilter, moving: Collection[str]) -> tuple[Place, RunFilter]:
    """The place in a resume token, and the filter of its walk, in which a time that was counted from a call (`moving`)
    is the one of then. An error says why it can't be used for these runs of the job."""

    def read(content: Any) -> tuple[str, Place]:
        job_id, (newest_first, near, index, slack) = content
        return job_id, Place(newest_first, tuple((one, time) for one, time in near), index, slack)

    filters, (meant, place) = unpack(_VERSION, token, given_filters(wanted), read, moving)
    if meant != job_id:
        raise ValueError(f"resume_token is of another job: {shortened(meant, 80)!r}, got {job_id!r}")
    return place, RunFilter(**filters) if moving else wanted


_NO_PAGE = RunPage((), Pagination(total=0))


@attrs.define
class NewRuns:
    """The new runs of a response. (The last of a job of several may hold none.)"""

    walk: "Walk"
    runs: Sequence[JobRun] = ()
    page: RunPage = _NO_PAGE
    rows: Sequence[int] = ()
    """Which runs of the page they are."""
    body: bytes = attrs.field(default=b"", repr=False)
    before: Place | None = None
    """Where the walk stood before them, in the order by creation."""
    is_last: bool = False
    """Whether the job, one of several, has no more."""

    def _parts(self, values: Sequence[_T]) -> Iterator[Sequence[_T]]:
        """The values, at most `page_size` in a part."""
        size = self.walk.options.page_size
        return (values[start : start + size] for start in range(0, len(values), size))

    def pages(self) -> Iterator[RunPage]:
        count = 0
        for runs in self._parts(self.runs):
            page = RunPage(tuple(runs), self.page.pagination)
            count += len(page)
            if self.before is not None:
                vars(page)["_resume_token"] = partial(self._resume_token, self.before, count)
            yield page

    def _resume_token(self, before: Place, count: int) -> str:
        place = before.after(self.runs[:count])
        return pack(_VERSION, given_filters(self.walk.options.filter), [self.walk.job_id, attrs.astuple(place)])

    def raw_pages(self) -> Iterator[RawPage]:
        whole = RawPage(self.page.data, self.page.pagination, split=partial(split_page, self.body))
        return (only(whole, rows) for rows in self._parts(self.rows))


class Walk:
    """One walk: an async iterator of the new runs of each response, inside `async with`.

    (It isn't a generator, because an event loop that is shut down in the middle of a walk closes nested generators in
    any order.)
    """

    def __init__(self, options: WalkOptions, job_id: str, prefetch: "Prefetch") -> None:
        self.options = options
        self.job_id = job_id
        self.pages = self.runs = 0  # that were yielded
        self.ahead = 0  # as `Prefetch` has it
        self.prefetch = prefetch
        self._has_begun = False
        self._whole: int | None = None  # how many runs the list has, if the first response held all of them
        self._in_flight: dict[PlannedPage, asyncio.Task[PageFetch]] = {}
        self._arrived: tuple[PlannedPage | None, PageFetch] | None = None
        self._kept: dict[PlannedPage, PageFetch] = {}  # behind a gap, still as bytes
        self._ready: list[tuple[PageFetch, RunPage | None, Sequence[int], Place | None]] = []  # to be taken next

    @cached_property
    def _planner(self) -> Planner:
        """The plan, which a walk doesn't need whose first response holds the whole list."""
        options = self.options
        return Planner(
            job_id=self.job_id,
            filter=options.filter,
            start=options.offset,
            page_size=options.page_size,
            max_runs=options.max_runs,
            fits_window=options.fits_window,
            place=options.place,
        )

    @property
    def expected(self) -> int:
        """How many runs it yields in all, by what is known now."""
        return self._planner.expected if self._whole is None else self._whole

    @property
    def _is_done(self) -> bool:
        return self._whole is not None or self._planner.done

    @property
    def is_over(self) -> bool:
        """Whether everything was taken."""
        return self._is_done and not self._ready

    async def __aenter__(self) -> Self:
        self.options.transport.enter_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        if tasks := self.cancel():
            await asyncio.gather(*tasks, return_exceptions=True)

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
        if not self._has_begun:  # nothing can be fetched beside the first page, so it needs no task
            page, request = None, self.options.first_request(self.job_id)
            if request is None:
                page = self._planner.next_request(())
                if page is None:
                    return False
                request = self._request(page)
            self.prefetch.count(self, 1)
            self._has_begun = True
            try:
                self._arrived = page, await self.options.transport.fetch(request, self.options.bounded_options)
            except ResponseTooLargeError as error:
                await self._shrink(request.limit, error)
        while not self._ready and self._arrived is None:
            self._fetch_ahead()
            if self._is_done:
                return False
            page, fetching = next(iter(self._in_flight.items()))
            await asyncio.sleep(0)  # other tasks must run between two pages that have both arrived
            try:
                self._arrived = page, await fetching
            except (BadRequestError, UnprocessableEntityError) as refused:  # maybe only for its offset
                try:
                    self._planner.refuse(page, refused.message)
                except IncompleteWalkError as incomplete:
                    raise incomplete from refused
            except ResponseTooLargeError as error:
                await self._shrink(page.limit, error)
                continue
            del self._in_flight[page]
            self._count_ahead()
        return True

    async def take(self) -> NewRuns | None:
        """The new runs of the response that has arrived; None if it has none."""
        if self._arrived:
            await self._consume(*self._arrived)
        if self._in_flight and self._is_done:
            await self.__aexit__()
        new = None
        if self._ready:
            fetched, page, rows, before = self._ready.pop(0)
            page = page or await self._read(fetched)
            first, last = rows[0], rows[-1]  # the rows of the list's end are in reverse
            is_slice = last - first == len(rows) - 1
            runs = page.data[first : last + 1] if is_slice else [page.data[at] for at in rows]
            new = NewRuns(self, runs, page, rows, fetched.response.body, before)
        self._count_ahead()
        self._fetch_ahead()
        return new

    async def _consume(self, planned: PlannedPage | None, fetched: PageFetch) -> None:
        page = await self._read(fetched)
        self._arrived = None
        if planned is None and is_whole_list(fetched.request, page):
            self._whole = len(page.data)
            wanted, before = self.options.filter, None
            if wanted.is_by_creation:
                before = Place(wanted.is_newest_first, (), self.options.offset)
            self._ready.append((fetched, page, range(len(page.data)), before))
            return
        planned = planned or self._planner.next_request(())
        assert planned is not None  # noqa: S101  # for the type checker
        new = self._planner.consume(planned, page)
        responses = {planned: fetched, **self._kept}
        for one, rows, place in new:
            self._ready.append((responses[one], page if one is planned else None, rows, place))
        self._kept = {one: responses[one] for one in self._planner.kept}

    def _read(self, fetched: PageFetch) -> Coroutine[Any, Any, RunPage]:
        return self.options.transport.read(fetched, keep_bad=self.options.keep_bad)

    async def _fetch(self, page: PlannedPage) -> PageFetch:
        if page.pause:
            await self.options.transport.closed.wait(page.pause)
        return await self.options.transport.fetch(self._request(page), self.options.bounded_options)

    async def _shrink(self, limit: int, error: ResponseTooLargeError) -> None:
        """A response with at most so many runs is too large: go on with smaller pages. The smallest have no limit."""
        if self.options.max_page_bytes is None:
            raise error
        await self.__aexit__()
        page_size, most = max(_FEWEST_RUNS, limit // 4), limit // 2
        if page_size == _FEWEST_RUNS:
            self.options, most = attrs.evolve(self.options, max_page_bytes=None), MAX_PAGE_SIZE
        self._planner.shrink(page_size, most)

    def _request(self, page: PlannedPage) -> PageRequest:
        return PageRequest(self.job_id, page.order.of(self.options.filter), page.limit, page.offset)

    def _fetch_ahead(self) -> None:
        while not self._is_done:
            if not self.prefetch.allows(self):
                if self._in_flight or not self._kept:
                    return
                self._planner.forget_last_kept()  # the walk can't go on without another page
                self._kept = {one: self._kept[one] for one in self._planner.kept}
            page = self._planner.next_request([*self._in_flight])
            if page is None:
                return
            name = f"tfruns {self.job_id} at {page.offset}"
            self._in_flight[page] = self.options.transport.start(self._fetch(page), name)
            self._count_ahead()

    def _count_ahead(self) -> None:
        ahead = len(self._in_flight) + len(self._kept) + len(self._ready) + (self._arrived is not None)
        self.prefetch.count(self, ahead)

    def cancel(self) -> list[asyncio.Task[PageFetch]]:
        """Stop the requests in flight. Returns their tasks, which end a moment later."""
        tasks = [*self._in_flight.values()]
        for task in tasks:
            task.cancel()
        self._in_flight.clear()
        self._kept.clear()
        self._arrived = None
        self._count_ahead()
        return tasks


class Prefetch:
    """How many pages several walks together may have ahead of their consumers. Each walk may always have one.

    Pages that are in flight are ahead, and those that have arrived and weren't taken yet.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ahead_in_all = 0

    def count(self, walk: Walk, ahead: int) -> None:
        self._ahead_in_all += ahead - walk.ahead
        walk.ahead = ahead

    def allows(self, walk: Walk) -> bool:
        return not walk.ahead or self._ahead_in_all < self._most
