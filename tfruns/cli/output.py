"""Standard output and standard error, as commands use them, and text that is safe to print there."""

import asyncio
import concurrent.futures
import contextlib
import errno
import io
import json
import os
import select
import sys
import threading
import time
from typing import Any

import click

_PATIENCE = 5.0  # seconds that a message may wait for a reader of standard error
_AT_ONCE = 512  # bytes that a pipe takes without waiting, once it has room (POSIX)


class NobodyReadsError(Exception):
    """The reader of standard output has ended, as `head` does after ten lines. That is no failure."""


class _Output(io.FileIO):
    """Standard output. It has no buffer, so nothing is left that Python would try to write again when it ends."""

    def write(self, data: Any) -> int:
        left = memoryview(data)
        try:
            while left:
                if (written := super().write(left)) is None:
                    time.sleep(0.01)  # another process that shares the pipe has made it non-blocking, and it is full
                else:
                    left = left[written:]
        except BrokenPipeError:
            raise NobodyReadsError from None
        except OSError as error:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OSError(error.errno, why, "standard output") from None
        return len(data)


class _Messages(io.FileIO):
    """Standard error. A message that can't be written is dropped. Once one has waited in vain for a reader that has
    stopped reading, as a journal may, the next ones don't wait.
    """

    _patience = _PATIENCE

    def write(self, data: Any) -> int:
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left and self._has_room():
                left = left[super().write(left[:_AT_ONCE]) or 0 :]
        return len(data)

    def _has_room(self) -> bool:
        if not hasattr(select, "poll"):  # on Windows
            return True
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        has_room = bool(poll.poll(self._patience * 1000))
        self._patience = _PATIENCE if has_room else 0.0
        return has_room


def guard_streams() -> None:
    """Make standard output and standard error those of this module, if they are the process's own.

    Where whoever started the program has closed a stream, nothing can be read or written, and no other file must get
    its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDONLY), mode, closefd=False))  # noqa: SIM115
    sys.stdout = _guarded(sys.stdout, _Output)
    sys.stderr = _guarded(sys.stderr, _Messages)


def _guarded(stream: Any, kind: type[io.FileIO]) -> Any:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.FileIO):  # a console of Windows, or a test's
        return stream
    # What the locale can't show must not end a listing.
    own = kind(raw.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(own, stream.encoding, "backslashreplace", write_through=True)


def harmless(text: str) -> str:
    """The text with all that isn't printable escaped: the server's text must not control the terminal, its colours,
    its cursor or the direction of writing, nor look like other lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def on_one_line(text: str) -> str:
    """The text, harmless, with each sequence of white space, including newlines, replaced by one space."""
    return harmless(" ".join(text.split()))


def say(message: str) -> None:
    click.echo(f"tfruns: {on_one_line(message)}", err=True)


def is_terminal() -> bool:
    """Whether standard output is a terminal. (FORCE_COLOR, which rich obeys, is often set where programs read it.)"""
    return sys.stdout.isatty()


def has_colours() -> bool:
    """Whether standard output is a terminal that shows colours, and its user wants them (NO_COLOR)."""
    from rich.console import Console

    if not is_terminal():
        return False
    console = Console()
    return not console.no_color and console.color_system not in (None, "windows")


def as_json_line(value: dict[str, Any]) -> bytes:
    """A line of compact JSON in UTF-8, whatever the locale. If it has a character that controls a terminal, or ends a
    line for some readers, all that isn't ASCII is escaped: the value is the same.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    return text.encode() + b"\n"


async def write(output: str | bytes) -> None:
    """Write to standard output, and wait until all is written.

    A reader may stop reading for a long time, as a pager does. Meanwhile the event loop must go on, or the requests in
    flight would time out: so a thread writes, a daemon, which doesn't hold Ctrl-C up.
    """
    stream: Any = sys.stdout if isinstance(output, str) else sys.stdout.buffer
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            stream.write(output)
            stream.flush()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="tfruns-stdout", daemon=True).start()
    await asyncio.wrap_future(done)


async def until_nobody_reads() -> None:
    """Wait until the reader of standard output has ended; for ever if it isn't a pipe.

    Without this, a command that prints only now and then would go on until its next line.
    """
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)  # errors and hang-ups are reported in any case
        while not poll.poll(0):  # noqa: ASYNC110  # there is nothing that the event loop can wait for
            await asyncio.sleep(0.5)
    except (AttributeError, OSError):  # on Windows; or it is no file
        await asyncio.Event().wait()
