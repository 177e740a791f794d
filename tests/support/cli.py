"""The program `tfruns` in a process of its own, as its users run it."""

import asyncio
import json
import os
import pty
import re
import shlex
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

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
    """The program, which is gone after the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        *args,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((os.environ.get("PYTHONPATH", ""), ROOT)), **env},
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


async def on_terminal(*args: str, **env: str) -> str:
    """What the program prints where standard output is a terminal."""
    master, slave = pty.openpty()
    async with started(*args, stdout=slave, **{"TERM": "xterm-256color", "COLUMNS": "120"} | env) as process:
        os.close(slave)
        shown = b""
        try:
            while chunk := await asyncio.to_thread(os.read, master, 65_536):
                shown += chunk
        except OSError:
            pass  # the end of a terminal, on Linux
        os.close(master)
        assert (await end_of(process)).status == 0
    return shown.decode()
