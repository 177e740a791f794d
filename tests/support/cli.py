"""The program `tfruns`: within this process, which takes milliseconds, or in a process of its own, which takes most of
a second of CPU time, and is for signals, pipes, terminals, locales, and how the program ends.
"""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import shlex
import struct
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from unittest import mock

import attrs
import pyte
import pytest

import tfruns
from tfruns.cli import main

try:
    import fcntl
    import pty
    import termios
except ImportError:  # on Windows
    pty = None  # type: ignore[assignment]

ROOT = str(Path(tfruns.__file__).parents[1])
PROGRAM = (sys.executable, "-W", "error", "-m", "tfruns")
KEY = "tfy-secret-key-1234567890"
NASTY = "\x1b[31mred\x1b[0m \x9b1m\x07 \u202eeman\n\rFAILED \u2028學"
CLOSED = -1
"""In place of a file descriptor: no standard output."""
_ONE_AT_A_TIME = threading.Lock()
"""The standard streams, the environment and the arguments belong to the whole process."""

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals, pipes and shells of POSIX")
needs_terminals = pytest.mark.skipif(pty is None, reason="needs pseudo-terminals")


@attrs.frozen
class Ended:
    """How the program ended."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr, without the newline: there must be no more, and nothing on stdout."""
        assert re.fullmatch(r"tfruns: [^\n]+\n", self.err), self.err
        assert self.out == ""
        return self.err[:-1]

    def runs(self) -> list[dict[str, object]]:
        """The runs in lines of JSON, where nothing went wrong."""
        assert (self.status, self.err) == (0, "")
        return [json.loads(line) for line in self.out.splitlines()]


# --- within this process ----------------------------------------------------------------------------------------------


async def invoke(*args: str, stdin: bytes = b"", stdout: int | None = None, **env: str) -> Ended:
    """Run the program in a thread of this process.

    Args:
        args: its arguments.
        stdin: what it can read from standard input.
        stdout: a file descriptor for standard output, which stays open, or `CLOSED` for none. By default what it prints
            is in the result.
        env: variables of its environment, besides those of this process.
    """
    result: Future[Ended] = Future()

    def work() -> None:
        try:
            with _ONE_AT_A_TIME:
                result.set_result(_run(args, stdin, stdout, env))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, name="tfruns-command", daemon=True).start()  # one that hangs must not hang the tests
    return await asyncio.wait_for(asyncio.wrap_future(result), 120)


def _run(args: tuple[str, ...], stdin: bytes, stdout: int | None, env: dict[str, str]) -> Ended:
    logger = logging.getLogger("tfruns")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    err = io.StringIO()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(tempfile.TemporaryFile())
        out = None
        if stdout != CLOSED:
            out = stack.enter_context(_text_stream(kept.fileno() if stdout is None else stdout))
        stack.enter_context(mock.patch.dict(os.environ, env))
        if "COLUMNS" not in env:
            os.environ.pop("COLUMNS", None)
            os.environ.pop("LINES", None)
        stack.enter_context(mock.patch("sys.argv", ["tfruns", *args]))
        stack.enter_context(mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))))
        stack.enter_context(mock.patch("sys.stdout", out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            status = main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        finally:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
        if out is not None:
            out.flush()
        kept.seek(0)
        return Ended(status, kept.read().decode(), err.getvalue())


def _text_stream(descriptor: int) -> IO[str]:
    """A stream like the standard output of a process."""
    return open(os.dup(descriptor), "w", encoding="utf-8", newline="\n")


@asynccontextmanager
async def reading(*args: str, **env: str) -> AsyncGenerator[Callable[[], Awaitable[str]]]:
    """The program within this process, as a function that reads its next line. After the block nobody reads any more,
    and it must have ended without a failure.
    """
    reader, writer = os.pipe()
    running = asyncio.create_task(invoke(*args, stdout=writer, **env))
    running.add_done_callback(lambda _: os.close(writer))
    with os.fdopen(reader, "rb", buffering=0) as lines:
        yield lambda: asyncio.wait_for(asyncio.to_thread(lambda: lines.readline().decode()), 60)
    assert await running == Ended(0, "", "")


# --- in a process of its own ------------------------------------------------------------------------------------------


@asynccontextmanager
async def started(
    *args: str, command: tuple[str, ...] = PROGRAM, stdout: int = asyncio.subprocess.PIPE, **env: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The program, which is gone after the block. Its terminal, if it has one, says its size itself."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    path = os.pathsep.join((os.environ.get("PYTHONPATH", ""), ROOT))
    process = await asyncio.create_subprocess_exec(
        *command,
        *args,
        env={**inherited, "PYTHONPATH": path, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def end_of(process: asyncio.subprocess.Process) -> Ended:
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    texts = [(stream or b"").decode().replace(os.linesep, "\n") for stream in (out, err)]
    return Ended(process.returncode, *texts)


async def invoke_process(*args: str, **options: object) -> Ended:
    async with started(*args, **options) as process:  # type: ignore[arg-type]
        return await end_of(process)


async def invoke_line(line: str, **env: str) -> Ended:
    """A line as one types it: by a shell, but within this process where the program stands alone."""
    if found := re.fullmatch(r"tfruns ([^|&<>;$`]+?)(?: > (\S+))?", line):
        with open(found[2], "wb") if found[2] else contextlib.nullcontext() as file:  # noqa: ASYNC230
            return await invoke(*shlex.split(found[1]), stdout=file and file.fileno(), **env)
    return await invoke_process(command=("bash", "-c", f"set -o pipefail; {line}"), **env)


async def exported(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The two variables that `tfruns sandbox` prints when it is ready."""
    assert process.stdout is not None
    variables = {}
    for _ in range(2):
        words = shlex.split((await asyncio.wait_for(process.stdout.readline(), 60)).decode())
        assert words[0] == "export"
        name, _, value = words[1].partition("=")
        variables[name] = value
    return variables


# --- on a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of a size, with what is on its screen."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.raw = b""
        """All that was written to it."""
        self.err = ""
        """What went to standard error instead, once the program has ended."""

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size, and an empty screen."""
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._clear()

    def _clear(self) -> None:
        self._screen = pyte.Screen(self.columns, self.lines)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        """All that was written to it, without colours, lines ending as they do in files."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.raw.decode()).replace("\r\n", "\n")

    @property
    def screen(self) -> list[str]:
        """The lines that are on it now, but those at the end that are empty."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    async def read(self) -> bool:
        """Read more of what the program writes. False at its end."""
        try:
            chunk = await asyncio.to_thread(os.read, self.master, 65_536)
        except OSError:  # the end of a terminal, on Linux
            chunk = b""
        self.raw += chunk
        self._stream.feed(chunk)
        return bool(chunk)

    async def until(self, shown: Callable[[str], bool], *, is_drawn_anew: bool = False) -> None:
        """Read until the screen is as it is to be: after a change of its size, once all of it is drawn at once."""
        async with asyncio.timeout(120):
            while not shown("\n".join(self.screen)):
                if is_drawn_anew:
                    self._clear()
                assert await self.read(), "\n".join(self.screen)


async def on_terminal(*args: str, size: tuple[int, int] = (120, 40), **env: str) -> Terminal:
    """The terminal after the program has ended there, with success, within this process."""
    terminal = Terminal(*size)
    kind = {"TERM": "xterm-256color", "COLUMNS": str(size[0]), "LINES": str(size[1])}
    try:
        running = asyncio.create_task(invoke(*args, stdout=terminal.slave, **kind | env))
        running.add_done_callback(lambda _: os.close(terminal.slave))
        while await terminal.read():
            pass
        ended = await running
    finally:
        os.close(terminal.master)
    assert ended.status == 0, ended
    terminal.err = ended.err
    return terminal


@asynccontextmanager
async def running_on_terminal(
    *args: str, size: tuple[int, int] = (120, 40), **env: str
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, Terminal]]:
    """The program in a process of its own, with standard output on a terminal of so many columns and lines."""
    terminal = Terminal(*size)
    try:
        async with started(*args, stdout=terminal.slave, **{"TERM": "xterm-256color"} | env) as process:
            os.close(terminal.slave)
            yield process, terminal
    finally:
        os.close(terminal.master)
