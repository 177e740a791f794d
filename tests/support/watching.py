"""Time that passes only when a watch has nothing to do: an hour of it in a moment, and each poll when a test says."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Any

import attrs

from tfruns import Client, RunChange
from tfruns._http.connections import ClosedSignal
from tfruns._watch.watcher import Watch
from tfruns.query import RunFilter, chosen_filter


@attrs.define
class SteppedTimer(ClosedSignal):
    """Calls `pause` with the seconds that a watch would wait while no poll is in flight."""

    pause: Callable[[float], Awaitable[None]]
    time: float = 0.0

    def now(self) -> float:
        return self.time

    async def wait(self, tasks: Collection["asyncio.Future[Any]"], seconds: float) -> None:
        if tasks:
            await asyncio.wait(tasks)
        else:
            await self.pause(seconds)
            self.time += seconds


INTERVAL = 1_000.0
"""Seconds between two polls. A shorter pause comes before a poll that confirms what the last one said."""


class Over(Exception):
    """Raised by a pause to end a watch."""


def watch_of(client: Client, job_ids: Any, timer: ClosedSignal, **arguments: Any) -> Watch:
    """A watch whose time is that of the timer."""
    given = {"interval": INTERVAL, "start": "now", "resume_token": None, "on_error": "raise", **arguments}
    filters = {name: given.pop(name) for name in arguments.keys() & attrs.fields_dict(RunFilter)}
    chosen = chosen_filter(given.pop("filter", None), filters)
    return Watch(client.iter_runs, timer, job_ids, **given, chosen=chosen)


def stepped(client: Client, job_ids: Any, pause: Callable[[float], Awaitable[None]], **arguments: Any) -> Watch:
    """A watch whose polls happen one after the other, with `pause` called between them."""
    return watch_of(client, job_ids, SteppedTimer(pause), **arguments)


async def rounds(client: Client, job_ids: Any, *acts: Callable[[], Awaitable[Any]], **arguments: Any) -> list[Any]:
    """What a watch reports after its first poll, and after each of the acts, once it is confirmed: a list for each."""
    reported: list[list[RunChange]] = [[]]
    left = list(acts)

    async def pause(seconds: float) -> None:
        if seconds < INTERVAL:
            return
        if not left:
            raise Over
        reported.append([])
        await left.pop(0)()

    try:
        async with aclosing(stepped(client, job_ids, pause, **arguments).changes()) as changes:
            async for change in changes:
                reported[-1].append(change)
    except Over:
        return reported
    raise AssertionError("a watch doesn't end")
