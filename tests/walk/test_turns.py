"""How many jobs request a page at the same time, and which comes next. No HTTP."""

import asyncio
from contextlib import suppress

from tfruns._walk.jobs import _Turns


class Queue:
    """Jobs that wait for their turn, and the order in which they get it."""

    def __init__(self, most: int) -> None:
        self.turns = _Turns(most)
        self.order: list[int] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def _take(self, number: int, is_new: bool) -> None:
        await self.turns.take(number, is_new=is_new)
        self.order.append(number)

    def join(self, *numbers: int, is_new: bool) -> None:
        for number in numbers:
            self.tasks[number] = asyncio.create_task(self._take(number, is_new))

    async def settle(self) -> list[int]:
        for _ in range(5):
            await asyncio.sleep(0)
        return self.order


async def test_no_more_than_the_most_have_a_turn() -> None:
    """The others wait until one gives its turn back."""
    queue = Queue(2)
    queue.join(1, 2, 3, 4, 5, is_new=True)
    assert await queue.settle() == [1, 2]
    queue.turns.give_back()
    assert await queue.settle() == [1, 2, 3]
    queue.turns.give_back()
    queue.turns.give_back()
    assert await queue.settle() == [1, 2, 3, 4, 5]
    queue.join(6, is_new=False)
    assert await queue.settle() == [1, 2, 3, 4, 5]
    queue.turns.give_back()
    assert await queue.settle() == [1, 2, 3, 4, 5, 6]
    queue.turns.give_back()
    queue.turns.give_back()
    queue.join(7, 8, 9, is_new=True)
    assert await queue.settle() == [1, 2, 3, 4, 5, 6, 7, 8]
    queue.turns.give_back()
    await queue.settle()
    await asyncio.gather(*queue.tasks.values())


async def test_new_jobs_come_first_and_of_the_others_the_oldest() -> None:
    """Small jobs don't wait for large ones, and a walk that has begun ends soon."""
    queue = Queue(1)
    queue.join(1, is_new=True)
    await queue.settle()
    queue.join(4, 2, 3, is_new=False)
    queue.join(6, 5, is_new=True)
    for _ in range(5):
        await queue.settle()
        queue.turns.give_back()
    assert await queue.settle() == [1, 5, 6, 2, 3, 4]


async def test_31_new_jobs_in_a_row() -> None:
    """Then one that has started gets a turn, however many new ones wait, and then the count begins again."""
    queue = Queue(1)
    queue.join(0, is_new=False)
    await queue.settle()
    queue.join(1000, 1001, is_new=False)
    queue.join(*range(1, 80), is_new=True)
    for _ in range(70):
        await queue.settle()
        queue.turns.give_back()
    order = await queue.settle()
    assert order[:66] == [0, *range(1, 32), 1000, *range(32, 63), 1001, 63]
    for task in queue.tasks.values():
        task.cancel()
    await asyncio.gather(*queue.tasks.values(), return_exceptions=True)


async def test_a_job_that_is_cancelled_while_it_waits_takes_no_turn() -> None:
    """The next one gets it."""
    queue = Queue(1)
    queue.join(1, 2, 3, is_new=True)
    await queue.settle()
    queue.tasks[2].cancel()
    with suppress(asyncio.CancelledError):
        await queue.tasks[2]
    queue.turns.give_back()
    assert await queue.settle() == [1, 3]
    queue.join(4, is_new=True)
    assert await queue.settle() == [1, 3]
    queue.turns.give_back()
    assert await queue.settle() == [1, 3, 4]


async def test_a_job_that_is_cancelled_just_as_it_gets_a_turn_gives_it_back() -> None:
    """No turn is lost."""
    queue = Queue(1)
    queue.join(1, 2, 3, is_new=True)
    await queue.settle()
    queue.turns.give_back()  # it is 2's turn, but it hasn't run since
    queue.tasks[2].cancel()
    assert await queue.settle() == [1, 3]
    assert queue.tasks[2].cancelled()


async def test_more_than_31_new_jobs_where_none_has_started() -> None:
    """Nobody is waited for who isn't there."""
    queue = Queue(1)
    queue.join(*range(40), is_new=True)
    for _ in range(39):
        await queue.settle()
        queue.turns.give_back()
    assert await queue.settle() == [*range(40)]
    await asyncio.gather(*queue.tasks.values())
