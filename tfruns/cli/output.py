"""Standard output, for commands that run in an event loop."""

import asyncio
import contextlib
import errno
import select
import shutil
import sys
import threading
import time
from typing import Any


def is_terminal() -> bool:
    """Whether standard output is a terminal.

    FORCE_COLOR, which makes rich think so, is ignored: it is often set where programs read the output.
    """
    return sys.stdout is not None and sys.stdout.isatty()


def width() -> int | None:
    """How many cells a line of standard output has: None if it isn't a terminal."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def has_colours() -> bool:
    """Whether standard output is a terminal that shows colours, and its user wants them (NO_COLOR)."""
    from rich.console import Console

    if not is_terminal():
        return False
    console = Console()
    return not console.no_color and console.color_system not in (None, "windows")


def encoded(text: str) -> bytes:
    """Text as standard output takes it: in the locale's encoding."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


async def write(data: bytes) -> None:
    """Write to standard output, and wait until all is written.

    A reader may stop reading for a long time, as a pager does. Meanwhile the requests in flight must go on: if the
    event loop were blocked, they would time out. So a separate thread writes. It is a daemon, and holds no lock of
    Python's buffers, so that Ctrl-C ends the program even then.

    Raises:
        BrokenPipeError: nobody reads any more.
        OSError: another reason why it can't be written, such as a full disk.
    """
    if sys.stdout is None:  # the program was started with standard output closed
        raise OSError(errno.EBADF, "it is closed")
    stream: Any = sys.stdout.buffer
    raw = getattr(stream, "raw", stream)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        problem = None
        try:
            left = memoryview(data)
            while left:
                written = raw.write(left)
                if written is None:  # another process that shares the pipe has made it non-blocking, and it is full
                    time.sleep(0.01)
                else:
                    left = left[written:]
        except OSError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has already ended, by Ctrl-C
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=work, name="tfruns-stdout", daemon=True).start()
    await done


async def until_nobody_reads() -> None:
    """Wait until the reader of standard output has ended, as `head` does after ten lines; for ever if it isn't a pipe.

    Without this, a command that prints only now and then would go on until its next line.
    """
    if sys.stdout is None or not hasattr(select, "poll"):  # the latter on Windows
        await asyncio.Event().wait()
        return
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors and hang-ups are reported in any case
    while not poll.poll(0):  # noqa: ASYNC110  # there is nothing that the event loop can wait for
        await asyncio.sleep(0.5)
