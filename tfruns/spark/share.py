"""How the jobs are shared out: counted on the driver, cut where that is asked for, and put into even groups."""

import asyncio
import heapq
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
from pyspark.sql.datasource import InputPartition

from tfruns.client import Client
from tfruns.errors import APIStatusError, NotFoundError, PermissionDeniedError
from tfruns.models import JobRunsSortBy, SortDirection
from tfruns.query import RunFilter
from tfruns.spark.options import Options

logger = logging.getLogger("tfruns")

REFUSED = (NotFoundError, PermissionDeniedError)
"""What a job can be skipped for."""

_NAMED = 10


@attrs.frozen
class Stretch:
    """A job, or some of its runs by offset, oldest first."""

    job_id: str
    runs: int
    """How many there were when they were counted."""
    offset: int | None = None
    """Where it begins; None for the whole job."""
    max_runs: int | None = None
    """How many runs it has; None for all to the end."""


class RunsPartition(InputPartition):
    """What one task reads. It holds no key."""

    def __init__(
        self, stretches: Sequence[Stretch], *, run_filter: RunFilter, base_url: str, max_rate: float | None
    ) -> None:
        self.stretches = tuple(stretches)
        self.filter = run_filter
        self.base_url = base_url
        self.max_rate = max_rate


async def share_out(options: Options, job_ids: Sequence[str], run_filter: RunFilter) -> list[RunsPartition]:
    """The partitions of a read.

    Raises:
        TfRunsError: a job can't be counted.
    """
    async with options.client() as client:
        counts = await _counted(client, options, job_ids, run_filter)
        stretches = [part for job_id, runs in counts.items() for part in _cut(job_id, runs, options.split_runs)]
        groups = balanced(stretches, options.num_partitions, options.page_size)
        max_rate = options.client_arguments.get("max_rate")
        whole = sum(_requests(part, options.page_size) for group in groups for part in group)
        return [
            RunsPartition(
                group,
                run_filter=run_filter,
                base_url=client.base_url,
                max_rate=max_rate and max_rate * sum(_requests(part, options.page_size) for part in group) / whole,
            )
            for group in groups
        ]


async def _counted(client: Client, options: Options, job_ids: Sequence[str], run_filter: RunFilter) -> dict[str, int]:
    """How many runs each job has. A handful of tasks, for there may be very many jobs."""
    counts: dict[str, int] = {}
    refused: dict[str, APIStatusError] = {}
    arguments: Any = attrs.asdict(run_filter)

    async def count(waiting: Iterator[str]) -> None:
        for job_id in waiting:
            try:
                counts[job_id] = await client.count_runs(job_id, **arguments)
            except REFUSED as error:
                refused[job_id] = error

    waiting = iter(job_ids)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.client_arguments.get("max_concurrency", 16)):
                group.create_task(count(waiting))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if refused and options.on_error == "raise":
        raise _refusal(refused)
    for error in refused.values():
        logger.warning("skipped: %s", error)
    return {job_id: counts[job_id] for job_id in job_ids if job_id in counts}


def _refusal(refused: dict[str, APIStatusError]) -> APIStatusError:
    """The first refusal, with the other jobs noted."""
    first, *others = refused.values()
    if others:
        named = "; ".join(map(str, others[:_NAMED]))
        more = f"; and {len(others) - _NAMED:,} more jobs" if len(others) > _NAMED else ""
        first.add_note(f"So it was with other jobs: {named}{more}")
    first.add_note("The option onError=skip leaves out jobs that answer 403 or 404.")
    return first


def _cut(job_id: str, runs: int, most: int | None) -> Iterable[Stretch]:
    if most is None or runs <= most:
        return [Stretch(job_id, runs)]
    starts = range(0, runs, most)
    return [
        # The last has no end: runs that have come since stand behind the others.
        Stretch(job_id, min(most, runs - start), start, None if start == starts[-1] else most)
        for start in starts
    ]


def of_stretches(run_filter: RunFilter) -> RunFilter:
    """The filter for a job that is cut: oldest first, so that new runs move no other."""
    return attrs.evolve(run_filter, sort_by=JobRunsSortBy.START_TIME, order=SortDirection.ASC)


def _requests(stretch: Stretch, page_size: int) -> int:
    return math.ceil(stretch.runs / page_size) + 1


def balanced(stretches: Sequence[Stretch], groups: int, page_size: int) -> list[list[Stretch]]:
    """At most so many groups, none empty, as even as may be by requests: the largest first, each to the least group."""
    shares: list[list[Stretch]] = [[] for _ in range(min(groups, len(stretches)))]
    least = [(0, number) for number in range(len(shares))]
    for stretch in sorted(stretches, key=lambda stretch: -stretch.runs):
        load, number = heapq.heappop(least)
        shares[number].append(stretch)
        heapq.heappush(least, (load + _requests(stretch, page_size), number))
    return shares
