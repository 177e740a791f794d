"""How a watch looks at a job: which requests show all that may have changed, and no more of them than it takes."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs

from tfruns._walk.paginator import RunPaginator
from tfruns._watch.diff import Look, View
from tfruns.lists import RunLister
from tfruns.models import JobRun, JobRunStatus
from tfruns.query import MAX_PAGE_SIZE

PAGE_SIZE = 50
"""How many of the newest runs a look begins with. Only if that isn't enough it asks for more."""

_OPEN = tuple(status for status in JobRunStatus if not status.is_terminal)


@attrs.frozen
class Job:
    """A job to look at, and which of its runs."""

    client: RunLister
    job_id: str
    filters: Mapping[str, Any]

    async def first_look(self, since: float = math.inf) -> Look:
        """The newest runs, at least all created since then (in ms since 1970), and all open ones."""

        def is_enough(runs: Sequence[JobRun]) -> bool:
            # The last one may have others behind it that were created at the same time.
            return bool(runs) and runs[-1].created_at < min(since, runs[0].created_at)

        newest, is_all, total = await self._newest(is_enough, 0 if since == -math.inf else None)
        seen = {run.id for run in newest}
        others = {} if is_all else {run.id: run async for run in self._all_open() if run.id not in seen}
        return Look(newest, is_all, others, total)

    async def look(self, view: View) -> Look:
        """All that may have changed since the view: one request while nothing is open but the newest runs.

        Open runs further down cost a request if it is one; if there are more, a request for each 1,000 of them, and one
        for each that isn't open any more.
        """
        newest, is_all, total = await self._newest(view.is_known_down_to, view.total)
        wanted = {run_id: view.open[run_id] for run_id in view.open.keys() - {run.id for run in newest}}
        return Look(newest, is_all, await self.find(wanted, total), total)

    async def find(self, wanted: Mapping[str, JobRun | None], total: float) -> dict[str, JobRun | None]:
        """These runs as they stand: None for one that isn't there.

        Args:
            wanted: their ids, and how they were seen last.
            total: how many runs there are, about; inf if that isn't known.
        """
        found: dict[str, JobRun | None] = {}
        if len(wanted) > 1:
            await self._read(self._all_open(), wanted, found)
        left = wanted.keys() - found.keys()
        if len(left) > 2 + total / MAX_PAGE_SIZE:  # reading the whole list takes fewer requests
            await self._read(self.client.iter_runs(self.job_id, **self.filters), left, found)
            left = wanted.keys() - found.keys()
        try:
            async with asyncio.TaskGroup() as tasks:
                under_way = {run_id: tasks.create_task(self._find(run_id, wanted[run_id])) for run_id in left}
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return found | {run_id: task.result() for run_id, task in under_way.items()}

    async def _read(self, walk: RunPaginator, wanted: Collection[str], found: dict[str, JobRun | None]) -> None:
        left = set(wanted)
        async with aclosing(aiter(walk)) as runs:
            async for run in runs:
                if run.id in left:
                    found[run.id] = run
                    left.discard(run.id)
                    if not left:
                        return

    async def _find(self, run_id: str, last: JobRun | None) -> JobRun | None:
        # That it is gone is believed only if its name doesn't find it either.
        for prefix in (run_id,) if last is None else (run_id, last.name):
            async with aclosing(aiter(self.search(prefix))) as runs:
                async for run in runs:
                    if run.id == run_id:
                        return run
        return None

    def search(self, prefix: str) -> RunPaginator:
        """The runs whose id or name begins with this."""
        return self.client.iter_runs(self.job_id, search_prefix=prefix, page_size=10)

    def _all_open(self) -> RunPaginator:
        return self.client.iter_runs(self.job_id, status=_OPEN, **self.filters)

    async def _newest(
        self, is_enough: Callable[[Sequence[JobRun]], bool], total_before: int | None
    ) -> tuple[Sequence[JobRun], bool, int]:
        """The newest runs, as many as are enough; whether those are all; and how many there are."""
        page = await self.client.list_runs(self.job_id, limit=PAGE_SIZE, **self.filters)
        total = page.pagination.total
        is_all = total <= len(page.data) < min(PAGE_SIZE, page.pagination.limit or PAGE_SIZE)
        if is_all or is_enough(page.data):
            return page.data, is_all, total
        # A walk, for runs may come and go between two pages. It is told how far, for it fetches ahead.
        most = MAX_PAGE_SIZE if total_before is None else max(0, total - total_before) + 2 * PAGE_SIZE
        while True:
            runs: list[JobRun] = []
            walk = self.client.iter_runs(self.job_id, max_runs=most, **self.filters)
            async with aclosing(walk.pages()) as pages:
                async for page in pages:
                    runs += page.data
                    total = page.pagination.total
                    if is_enough(runs):
                        return runs, False, total
            if len(runs) < most:
                return runs, True, total
            most *= 4
