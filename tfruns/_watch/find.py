"""Where runs are that the newest part of a list doesn't show: a search for them by few requests."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any

from tfruns.models import JobRunStatus
from tfruns.query import MAX_PAGE_SIZE

OPEN = tuple(status for status in JobRunStatus if not status.is_terminal)

Read = Callable[..., Awaitable[object]]
"""`read(wanted, **filters)` reads the runs of a job that match these filters of `Client.iter_runs`, at least until it
has met all that are wanted, and removes each that it meets from the runs that are left."""


async def find_runs(
    left: Collection[str],
    read: Read,
    *,
    total: float,
    still_open: Collection[str] = (),
    names: Mapping[str, str] = {},
    created_after: float | None = None,
) -> None:
    """Read the runs whose ids are in `left`, until it is empty or nothing is left to try: what remains wasn't found.

    (One response is no proof: such a run is gone only if it isn't found later either.) The job has about `total` runs,
    maybe inf. Of the ids, those in `still_open` may be open, in a status that is known. A run is searched for by its
    name, too, if the id doesn't find it. All were created at `created_after`, in ms since 1970, or later.
    """
    if len(left_open := {run_id for run_id in left if run_id in still_open}) > 1:
        await read(left_open, status=OPEN)
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
