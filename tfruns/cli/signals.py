"""What ends a command early: Ctrl-C, SIGTERM and SIGHUP, in the same way for all commands."""

import asyncio
import signal
import sys
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

import click

_Result = TypeVar("_Result")

_LIKE_CTRL_C = ("SIGTERM", "SIGHUP", "SIGBREAK")
_received: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does now: in an event loop of `asyncio.run` cancel its task, the first time; else interrupt."""
    _received.append(number)
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


def handle_signals() -> None:
    """From now on, signals that would end the program end it as Ctrl-C does, which cleans up.

    A container's first process has no default handlers: without one of its own, it would ignore SIGTERM. What the
    program was started to ignore, as by `nohup`, stays ignored.
    """
    if threading.current_thread() is threading.main_thread():  # only that one may have handlers
        for number in (getattr(signal, name) for name in _LIKE_CTRL_C if hasattr(signal, name)):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _interrupt)


def interrupted_status() -> int:
    """The exit status after an interruption: 128 and the number of the signal, as in shells, so 130 for Ctrl-C."""
    return 128 + (_received or [signal.SIGINT])[0]


def run_async(command: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run`; an interruption is a KeyboardInterrupt, whatever error it leads to while the command cleans up."""

    async def main() -> _Result:
        task = asyncio.current_task()
        try:
            return await command
        except Exception:
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise

    return asyncio.run(main())


def end_line() -> None:
    """End the line in which a terminal has put `^C`."""
    if sys.stderr.isatty():
        click.echo(err=True)
