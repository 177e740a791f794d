"""How a job is polled: with the fewest requests that show all that may have changed."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import attrs

from tfruns._walk.paginator import RunPaginator
from tfruns._watch.diff import Beginning, PollResult, Snapshot, steps_back
from tfruns.models import JobRun, JobRunStatus, RunPage
from tfruns.query import MAX_PAGE_SIZE

PAGE_SIZE = 50
"""How many of the newest runs a poll requests first. It requests more only if those aren't enough."""

_OPEN = tuple(status for status in JobRunStatus if not status.is_terminal)

IterRuns = Callable[..., RunPaginator]
"""`Client.iter_runs`."""


async def find_runs(
    left: Collection[str],
    read: Callable[..., Awaitable[object]],
    *,
    total: float,
    still_open: Collection[str] = (),
    names: Mapping[str, str] = {},
    created_after: float | None = None,
) -> None:
    """Read the runs whose ids are in `left`, until it is empty or nothing is left to try: what remains wasn't found.

    `read(wanted, **filters)` reads the runs that match these filters of `Client.iter_runs`, at least until it has met
    all that are wanted, and removes each that it meets from `left`.
    (One response is no proof: such a run is gone only if it isn't found later either.) The job has about `total` runs,
    maybe inf. Those in `still_open` may be open, in a known status. A run is searched for by its name, too, if the id
    doesn't find it. All were created at `created_after`, in ms since 1970, or later.
    """
    if len(left_open := {run_id for run_id in left if run_id in still_open}) > 1:
        await read(left_open, status=_OPEN)
    if len(left) > 2 + total / MAX_PAGE_SIZE:  # reading the whole list takes fewer requests
        await read(left, created_after=created_after)
        return

    async def search(run_id: str) -> None:
        for prefix in filter(None, (run_id, names.get(run_id))):
            if run_id in left:
                await read({run_id}, search_prefix=prefix)

    await side_by_side(search(run_id) for run_id in left)


async def side_by_side(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of this, and end the rest of it if one fails."""
    # (No TaskGroup: before Python 3.13, a cancellation that comes as one of its tasks fails is lost.)
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@attrs.frozen
class Job:
    """A job to poll, and the filters of its runs."""

    _iter_runs: IterRuns
    job_id: str
    _filters: Mapping[str, Any]

    def _runs(self, **more: Any) -> RunPaginator:
        return self._iter_runs(self.job_id, **self._filters, **more)

    async def poll(self, known: Snapshot | Beginning) -> PollResult:
        """All that may have changed since the snapshot: one request while only runs among the newest are open.

        A single open run further down costs one more request; several cost one for each 1,000 of them, and one for each
        that isn't open any more, or is in a status that this version doesn't know. A run that should be among the
        newest, and isn't there or stands where it stood before, is searched for by itself.
        """
        page = await self._runs().fetch(0, PAGE_SIZE)
        if isinstance(known, Beginning):
            return await self._first_poll(known, page)
        poll = await self._newest(page, known.since)
        wanted = {run_id: known.known.get(run_id, poll.runs[run_id]) for run_id in steps_back(known, poll)}
        wanted |= {
            run_id: run
            for run_id, run in known.known.items()
            if run_id not in poll.runs
            and (run is None or not run.status.is_terminal or run_id in known.doubted or run.created_at > poll.floor)
        }
        found, floor = await self.find(wanted, poll.total), poll.floor
        if any(run.created_at > floor for run in found.values() if run is not None and run.id not in poll.runs):
            floor = math.inf  # the list lacks this run: it comes from an older state
        return PollResult({**poll.runs, **found}, floor)

    async def _first_poll(self, beginning: Beginning, page: RunPage) -> PollResult:
        """The newest runs, all open runs, and all other runs that are to be reported first.

        The open runs are requested by status, which can't name the statuses that this version doesn't know: if, by the
        server's count, a run further down is in one, the whole list is read. It is also read if one page can hold all
        runs, or if runs that ended since a time are wanted: the API has neither a filter nor an order for these.
        """
        for _ in range(2):  # an empty list is no proof
            if not page.data:
                page = await self._runs().fetch(0, PAGE_SIZE)
        is_small = page.pagination.total <= MAX_PAGE_SIZE
        if not _is_all(page) and (is_small or beginning.watermark is not None or beginning.since == -math.inf):
            return await self._everything(beginning)
        poll = await self._newest(page, beginning.since)
        if poll.floor == -math.inf:
            return poll
        if await self._may_hide_open_runs(poll):
            return await self._everything(beginning)
        still_open = await self._runs(status=_OPEN).collect()
        floor = poll.floor
        if floor == math.inf:
            floor = max((run.created_at for run in poll.found if run.created_at < beginning.since), default=-math.inf)
        return PollResult({**{run.id: run for run in still_open}, **poll.runs}, floor)

    async def find(self, wanted: Mapping[str, JobRun | None], total: float) -> dict[str, JobRun | None]:
        """These runs, given as they were seen last, as they are now: None for one that wasn't found. The job has about
        `total` runs, maybe inf."""
        found: dict[str, JobRun | None] = dict.fromkeys(wanted)
        left = set(wanted)

        async def read(ids: Collection[str], **chosen: Any) -> None:
            ids = set(ids)
            filters: Mapping[str, Any] = {} if "search_prefix" in chosen else self._filters
            async with aclosing(aiter(self._iter_runs(self.job_id, **filters, **chosen))) as runs:
                async for run in runs:
                    if run.id in ids:
                        found[run.id] = run
                        left.discard(run.id)
                        ids.discard(run.id)
                        if not ids:
                            return

        # A server may refuse a filter by a status that this version doesn't know.
        still_open = {run_id for run_id, run in wanted.items() if run is None or run.status in _OPEN}
        names = {run_id: run.name for run_id, run in wanted.items() if run is not None}
        await find_runs(left, read, total=total, still_open=still_open, names=names)
        return found

    async def first(self, prefix: str, is_wanted: Callable[[JobRun], bool]) -> JobRun | None:
        """The first wanted run of those whose id or name begins with the prefix; None if there is none."""
        async with aclosing(aiter(self._iter_runs(self.job_id, search_prefix=prefix, page_size=10))) as runs:
            async for run in runs:
                if is_wanted(run):
                    return run
        return None

    async def _may_hide_open_runs(self, poll: PollResult) -> bool:
        """Whether there may be runs in unknown statuses further down than the newest."""
        # The page that counts the runs in known statuses shows the newest of them: a run that was created meanwhile is
        # seen there. Other changes meanwhile can only make the count too small, which leads to a needless walk.
        page = await self._runs(status=[*JobRunStatus]).fetch(0, 1)
        unknown = sum(not run.status.is_known for run in poll.found)
        return any(run.id not in poll.runs for run in page.data) or poll.total - page.pagination.total > unknown

    async def _everything(self, beginning: Beginning) -> PollResult:
        """A walk over all runs. It keeps the newest runs, those that are to be reported, and the open ones."""
        kept: dict[str, JobRun | None] = {}
        floor = -math.inf
        async with aclosing(aiter(self._runs())) as runs:
            async for run in runs:
                if len(kept) < PAGE_SIZE or not run.status.is_terminal or beginning.reports(run):
                    kept[run.id] = run
                else:
                    floor = max(floor, run.created_at)
        return PollResult(kept, floor)

    async def _newest(self, page: RunPage, since: float) -> PollResult:
        """All runs that were created at this time, in ms since 1970, or later; `page` is the first page."""
        runs, is_all, most = page.data, _is_all(page), MAX_PAGE_SIZE
        # The last run may have others behind it that were created at the same time.
        while not (is_all or (runs and runs[-1].created_at < min(since, runs[0].created_at))):
            # A walk, because runs may be created or deleted between two pages; with a limit, because it fetches ahead.
            runs = ()
            async for page in self._runs(max_runs=most).pages():
                runs += page.data
            is_all, most = len(runs) < most, 4 * most
        created = [run.created_at for run in runs]
        # If the server's order isn't that of creation, a run that isn't among these may still be there.
        floor = created[-1] if created and created == sorted(created, reverse=True) else math.inf
        return PollResult({run.id: run for run in runs}, -math.inf if is_all else floor, page.pagination.total)


def _is_all(page: RunPage) -> bool:
    """Whether a first page of `PAGE_SIZE` runs holds all there are."""
    return page.pagination.total <= len(page.data) < min(PAGE_SIZE, page.pagination.limit or PAGE_SIZE)
