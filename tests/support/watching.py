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


@attrs.define(eq=False)
class _Sleeper:
    due: float
    turn: "asyncio.Future[None]"
    """Done when it is to look at the time again."""
    until: "asyncio.Future[Any]"


@attrs.define(eq=False)
class IdleTimer(ClosedSignal):
    """Time that passes only while each job of a watch waits for nothing but time."""

    time: float = attrs.field(default=0.0, kw_only=True)
    jobs: frozenset[str] = attrs.field(default=frozenset(), init=False)
    """Those of the watch."""
    _sleepers: dict[str, _Sleeper] = attrs.field(factory=dict, init=False)
    """By the names of their tasks."""
    _is_passing: bool = attrs.field(default=False, init=False)

    async def pass_time(self, seconds: float) -> None:
        """Called when no job has anything to do for so many seconds."""
        self.time += seconds

    def slow(self) -> Collection[str]:
        """The jobs of which a poll may be in flight while time passes."""
        return ()

    def now(self) -> float:
        return self.time

    async def wait(self, seconds: float, until: "asyncio.Future[Any] | None" = None) -> None:
        task = asyncio.current_task()
        assert task is not None
        new = asyncio.get_running_loop().create_future
        sleeper = _Sleeper(self.time + max(0.0, seconds), new(), until or new())
        self._sleepers[task.get_name()] = sleeper
        try:
            while self.time < sleeper.due and not sleeper.until.done():
                sleeper.turn = new()
                self._wake()
                await asyncio.wait([sleeper.turn, sleeper.until], return_when=asyncio.FIRST_COMPLETED)
                if not sleeper.turn.done() or self.time >= sleeper.due:
                    continue
                sleeper.turn = new()
                if self._is_idle():
                    self._is_passing = True
                    try:
                        await self.pass_time(sleeper.due - self.time)
                    finally:
                        self._is_passing = False
                    for each in self._sleepers.values():
                        if each.due <= self.time and not each.turn.done():
                            each.turn.set_result(None)
        finally:
            del self._sleepers[task.get_name()]
            self._wake()

    def _is_idle(self) -> bool:
        slow, asleep = self.slow(), self._sleepers
        if self._is_passing or len(asleep) + len(slow) < len(self.jobs):
            return False
        if any(sleeper.until.done() or sleeper.turn.done() for sleeper in asleep.values()):
            return False
        return all(f"tfruns watch {job_id}" in asleep or job_id in slow for job_id in self.jobs)

    def _wake(self) -> None:
        """If nothing else happens, wake the one whose time comes next."""
        if self._sleepers and self._is_idle():
            min(self._sleepers.values(), key=lambda each: each.due).turn.set_result(None)


@attrs.define(eq=False)
class SteppedTimer(IdleTimer):
    """Calls `pause` with the seconds that a watch would wait."""

    pause: Callable[[float], Awaitable[None]]

    async def pass_time(self, seconds: float) -> None:
        await self.pause(seconds)
        self.time += seconds


INTERVAL = 1_000.0
"""Seconds between two polls. A shorter pause comes before a poll that confirms what the last one said."""


class Over(Exception):
    """Raised by a pause to end a watch."""


def watch_of(client: Client, job_ids: Any, timer: IdleTimer, **arguments: Any) -> Watch:
    """A watch whose time is that of the timer."""
    timer.jobs = frozenset([job_ids] if isinstance(job_ids, str) else job_ids)
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
