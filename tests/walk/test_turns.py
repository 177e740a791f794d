"""Which job requests a page next, and by how many workers. No HTTP."""

import asyncio
from typing import Any

from tfruns._walk.jobs import JobScheduler, _Job


def job(number: int, *, is_new: bool = True) -> _Job:
    nothing: Any = None
    return _Job(number, nothing, nothing, has_started=not is_new)


async def order(scheduler: JobScheduler, count: int) -> list[int]:
    return [(await scheduler.get()).number for _ in range(count)]


async def test_new_jobs_come_first_and_of_the_others_the_oldest() -> None:
    """Small jobs don't wait for large ones, and a walk that has begun ends soon."""
    scheduler = JobScheduler()
    for number in (4, 2, 3):
        scheduler.put_nowait(job(number, is_new=False))
    for number in (5, 6):
        scheduler.put_nowait(job(number))
    assert await order(scheduler, 5) == [5, 6, 2, 3, 4]


async def test_31_new_jobs_in_a_row() -> None:
    """Then one that has started gets a turn, however many new ones wait, and then the count begins again."""
    scheduler = JobScheduler()
    for number in (1000, 1001):
        scheduler.put_nowait(job(number, is_new=False))
    for number in range(1, 80):
        scheduler.put_nowait(job(number))
    assert await order(scheduler, 65) == [*range(1, 32), 1000, *range(32, 63), 1001, 63]


async def test_more_than_31_new_jobs_where_none_has_started() -> None:
    """Nobody is waited for who isn't there."""
    scheduler = JobScheduler()
    for number in range(40):
        scheduler.put_nowait(job(number))
    assert await order(scheduler, 40) == [*range(40)]


async def test_each_job_wakes_one_idle_worker() -> None:
    """And one that was cancelled takes no job with it."""
    scheduler = JobScheduler()
    workers = [asyncio.create_task(scheduler.get()) for _ in range(3)]
    await asyncio.sleep(0)
    workers[0].cancel()
    await asyncio.sleep(0)
    scheduler.put_nowait(job(1))
    await asyncio.wait([workers[1]], timeout=5)
    assert workers[1].result().number == 1
    assert not workers[2].done()
    scheduler.put_nowait(job(2, is_new=False))
    assert (await workers[2]).number == 2
    scheduler.put_nowait(job(3))
    assert await order(scheduler, 1) == [3]
