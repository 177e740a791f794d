"""Which jobs a task reads: they are counted on the driver, and put into even groups."""

import heapq
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql.datasource import InputPartition

from tfruns.client import Client
from tfruns.errors import NotFoundError, PermissionDeniedError, TfRunsError
from tfruns.query import RunFilter
from tfruns.spark.options import OF_SERVER, Options

logger = logging.getLogger("tfruns")

_NAMED = 10


class RunsPartition(InputPartition):
    """The jobs that one task reads. It holds no key."""

    def __init__(self, job_ids: Sequence[str], *, run_filter: RunFilter, base_url: str, max_rate: float | None) -> None:
        self.job_ids = tuple(job_ids)
        self.filter = run_filter
        self.base_url = base_url
        self.max_rate = max_rate


async def plan_partitions(options: Options) -> list[RunsPartition]:
    """The partitions of a read."""
    async with options.client() as client:
        counts = await _counted(client, options)
        # How many runs are in a window isn't known before they are read: most jobs have few that are new.
        has_start = options.filter.created_after is not None
        requests = {
            job_id: 1 if has_start else math.ceil(runs / options.page_size) + 1 for job_id, runs in counts.items()
        }
        max_rate = options.client_arguments.get("max_rate")
        whole = sum(requests.values())
        return [
            RunsPartition(
                group,
                run_filter=options.filter,
                base_url=client.base_url,
                max_rate=max_rate and max_rate * sum(requests[job_id] for job_id in group) / whole,
            )
            for group in balanced(requests, options.num_partitions)
        ]


async def _counted(client: Client, options: Options) -> dict[str, int]:
    """How many runs each job has."""
    job_ids = options.job_ids()
    # The server doesn't count by time of creation.
    filters: Any = {name: getattr(options.filter, name) for name in OF_SERVER}
    walk = client.iter_runs_for(job_ids, max_runs=1, on_error=raise_unless_refused, **filters)
    counts = {job_id: page.pagination.total async for job_id, page in walk.pages()}
    if walk.skipped and options.on_error == "raise":
        raise _refusal([*walk.skipped.values()])
    for error in walk.skipped.values():
        logger.warning("skipped: %s", error)
    return {job_id: counts.get(job_id, 0) for job_id in job_ids if job_id not in walk.skipped}


def raise_unless_refused(_: str, error: TfRunsError) -> None:
    """Raise the error of a job that can't be skipped."""
    if not isinstance(error, (NotFoundError, PermissionDeniedError)):
        raise error


def _refusal(refused: Sequence[TfRunsError]) -> TfRunsError:
    """The first refusal, with the other jobs noted."""
    first, *others = refused
    if others:
        named = "; ".join(map(str, others[:_NAMED]))
        more = f"; and {len(others) - _NAMED:,} more jobs" if len(others) > _NAMED else ""
        first.add_note(f"Other jobs failed in the same way: {named}{more}")
    first.add_note("The option onError=skip leaves out jobs with a 403 or a 404.")
    return first


def balanced(requests: Mapping[str, int], groups: int) -> list[list[str]]:
    """At most so many groups of jobs, none empty, with requests shared out evenly: the largest jobs first, each to the
    group that has the fewest requests so far."""
    even: list[list[str]] = [[] for _ in range(min(groups, len(requests)))]
    least = [(0, number) for number in range(len(even))]
    for job_id in sorted(requests, key=lambda job_id: -requests[job_id]):
        load, number = heapq.heappop(least)
        even[number].append(job_id)
        heapq.heappush(least, (load + requests[job_id], number))
    return even
