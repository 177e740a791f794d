"""The program `tfruns` in a process of its own, as its users run it."""

import asyncio
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pyte

import tfruns

ROOT = str(Path(tfruns.__file__).parents[1])
PROGRAM = (sys.executable, "-W", "error", "-m", "tfruns")
KEY = "tfy-secret-key-1234567890"
NASTY = "\x1b[31mred\x1b[0m \x9b1m\x07 \u202eeman\n\rFAILED \u2028學"


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
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return Ended(process.returncode, (out or b"").decode(), err.decode())


async def invoke(*args: str, **options: object) -> Ended:
    async with started(*args, **options) as process:  # type: ignore[arg-type]
        return await end_of(process)


async def exported(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The two variables that `tfruns sandbox` prints when it is ready."""
    assert process.stdout is not None
    variables = {}
    for _ in range(2):
        words = shlex.split((await asyncio.wait_for(process.stdout.readline(), 30)).decode())
        assert words[0] == "export"
        name, _, value = words[1].partition("=")
        variables[name] = value
    return variables


class Terminal:
    """A terminal of a size, with what is on its screen."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """All that was written to it."""

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

    async def until(self, shown: Callable[[str], bool]) -> None:
        """Read until the screen is as it is to be."""
        async with asyncio.timeout(30):
            while not shown("\n".join(self.screen)):
                assert await self.read(), "\n".join(self.screen)


@asynccontextmanager
async def running_on_terminal(
    *args: str, size: tuple[int, int] = (120, 40), **env: str
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, Terminal]]:
    """The program, with standard output on a terminal of so many columns and lines."""
    terminal = Terminal(*size)
    try:
        async with started(*args, stdout=terminal.slave, **{"TERM": "xterm-256color"} | env) as process:
            os.close(terminal.slave)
            yield process, terminal
    finally:
        os.close(terminal.master)


async def on_terminal(*args: str, **options: Any) -> Terminal:
    """The terminal after the program has ended, with success."""
    async with running_on_terminal(*args, **options) as (process, terminal):
        while await terminal.read():
            pass
        assert (await end_of(process)).status == 0
    return terminal
