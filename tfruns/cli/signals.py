"""What ends a command early: Ctrl-C, SIGTERM and SIGHUP, in the same way for all commands."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

_Result = TypeVar("_Result")

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Interrupted(KeyboardInterrupt):
    """A signal ended the command. Its exit status is 128 and the number of the signal, as in shells: 130 for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.status = 128 + number


def interrupt(number: int, _: FrameType | None = None) -> NoReturn:
    """The handler of signals outside an event loop."""
    raise Interrupted(number)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], object] = interrupt) -> Iterator[None]:
    """Within the block, signals that would end the program call this handler.

    A container's first process has no default handlers: without one of its own, it would ignore SIGTERM. What the
    program was started to ignore, as by `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may have handlers
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def run_async(command: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run`, whose coroutine a signal cancels, so that it cleans up: connections, files, the terminal's cursor.

    It then raises `Interrupted`. A second signal doesn't wait for the cleaning up.
    """
    received: list[int] = []

    async def main() -> _Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101  # for the type checker

        def cancel(number: int, _: FrameType | None) -> None:
            received.append(number)
            if len(received) > 1:
                interrupt(number)
            loop.call_soon_threadsafe(task.cancel)

        with handled(cancel):
            return await command

    try:
        return asyncio.run(main())
    except BaseException:
        if received:
            raise Interrupted(received[0]) from None
        raise


def end_line() -> None:
    """End the line in which a terminal has put `^C`."""
    if sys.stderr.isatty():
        click.echo(err=True)
