"""From the server to the journal: the jobs that it doesn't have yet, side by side."""

from collections.abc import Callable, Sequence
from typing import Any

from tfruns.client import Client
from tfruns.errors import APIConnectionError, InternalServerError, RateLimitError, TfRunsError
from tfruns.export.journal import Journal
from tfruns.export.lines import as_lines
from tfruns.export.progress import Progress

_OF_THE_SERVER = (APIConnectionError, InternalServerError, RateLimitError)
"""What ends an export: the next job would fare no better."""


async def collect(
    client: Client,
    journal: Journal,
    jobs: Sequence[tuple[int, str]],
    filters: dict[str, Any],
    *,
    work: Callable[..., Any],
    progress: Progress,
) -> dict[str, TfRunsError]:
    """Read the runs of these jobs into the journal. Returns the jobs that failed, each with its error.

    Args:
        client: what asks.
        journal: where they go.
        jobs: number and id of each job.
        filters: which runs.
        work: awaits a function in a thread.
        progress: is told.
    """
    numbers = {job_id: number for number, job_id in jobs}
    pages = dict.fromkeys(numbers, 0)
    runs = dict.fromkeys(numbers, 0)

    async def skip(job_id: str, error: TfRunsError) -> None:
        if isinstance(error, _OF_THE_SERVER):
            raise error
        await work(journal.drop, numbers[job_id])
        progress.skipped(runs[job_id])

    walk = client.iter_runs_for(list(numbers), on_error=skip, **filters)
    async for job_id, page in walk.raw_pages():
        number = numbers[job_id]
        if page is None:
            await work(journal.finish, number, runs[job_id], None)
            progress.done()
            continue
        await work(_keep, journal, number, pages[job_id], job_id, page.texts)
        pages[job_id] += 1
        runs[job_id] += len(page.data)
        progress.read(len(page.data), walk.progress.runs_expected)
    await work(journal.commit)
    return walk.skipped


def _keep(journal: Journal, number: int, page: int, job_id: str, texts: Sequence[bytes]) -> None:
    journal.add_page(number, page, as_lines(job_id, texts))
