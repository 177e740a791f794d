"""What must change nothing, a standard error that takes no messages; and what ends every command cleanly, a signal."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from tests.support.cli import KEY, PROGRAM, Ended, end_of, invoke_process, needs_posix, running_on_terminal, started
from tests.support.combinations import each_once
from tests.support.hostile import Reply, Stall, page, response, serve
from tests.support.hostile import run as run_of
from tfruns.sandbox import Fault, Sandbox

QUICK = ("--interval", "0.02", "0.05")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
pytestmark = needs_posix
STATUS_OF = {} if sys.platform == "win32" else {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    async with Sandbox(jobs=["a-job", "b-job"], runs=(3_500, 20), api_key=KEY) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


# --- standard error that takes no messages ----------------------------------------------------------------------------


def broken() -> int:
    """A pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full() -> int:
    """A disk without any room."""
    return os.open("/dev/full", os.O_WRONLY)


STDERRS = [broken, pytest.param(full, marks=FULL)]


async def with_stderr(stderr: int, *args: str, **env: str) -> tuple[int, bytes]:
    """The status of the program with this standard error, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **env}
    )
    os.close(stderr)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out


async def test_a_warning_that_nobody_reads_loses_no_run(sandbox: Sandbox) -> None:
    """In the middle of a list, requests are refused, with a wait that is reported."""
    sandbox.faults.append(Fault(status=503, wait=2, nth=(3, 4)))
    status, out = await with_stderr(broken(), "list", "a-job", "--json", "--page-size", "500")
    assert (status, out.count(b"\n")) == (0, 3_500)


@each_once(
    "line, status, stderr",
    [
        ("export b-job no-such-job -o {folder}/runs.jsonl --summary-json {folder}/summary.json", 3),
        ("export b-job -o {folder}/runs.jsonl --summary-json {folder}/summary.json", 0),
        ("wait b-job no-such-run --listed-within 0", 6),
        pytest.param(*("list no-such-job", 1), marks=pytest.mark.slow),
        pytest.param(*("list a-job --search-prefix none", 0), marks=pytest.mark.slow),
        pytest.param(*("list a-job --status nonsense", 2), marks=pytest.mark.slow),
        pytest.param(*("lst", 2), marks=pytest.mark.slow),
        pytest.param(*("", 2), marks=pytest.mark.slow),
    ],
    STDERRS,
)
async def test_no_message_changes_the_status(
    sandbox: Sandbox, tmp_path: Path, line: str, status: int, stderr: Callable[[], int]
) -> None:
    """`tfruns wait JOB RUN && deploy` deploys nothing that hasn't run."""
    ended = await with_stderr(stderr(), *line.format(folder=tmp_path).split())
    assert ended == (status, b"")
    if line.startswith("export"):
        assert (tmp_path / "runs.jsonl").read_bytes().count(b"\n") == 20
        assert "error" not in json.loads((tmp_path / "summary.json").read_text())


async def test_a_watch_goes_on_after_a_warning_that_nobody_reads(sandbox: Sandbox) -> None:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "watch", "b-job", "--json", *QUICK, stdout=subprocess.PIPE, stderr=(stderr := broken())
    )
    os.close(stderr)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while len(sandbox.requests) < 3:
                await asyncio.sleep(0.01)
            sandbox.faults.append(fault := Fault(status=503, wait=2))
            await asyncio.sleep(1)
            sandbox.faults.remove(fault)
            run = await sandbox.create_run("b-job")
            assert json.loads(await process.stdout.readline())["run"]["id"] == run.id
    finally:
        process.kill()
        await process.communicate()


async def test_a_reader_of_messages_that_has_stopped_reading_holds_nothing_up(sandbox: Sandbox, tmp_path: Path) -> None:
    """A journal may be stopped while its pipe is full: 70 kB of skipped jobs don't fit."""
    jobs = [f"no-such-job-{number}-{'x' * 400}" for number in range(100)]
    (tmp_path / "jobs.txt").write_text("\n".join(["b-job", *jobs]))
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    try:
        status, _ = await with_stderr(
            writer, "export", "--jobs-from", str(tmp_path / "jobs.txt"), "-o", str(tmp_path / "runs.csv")
        )
        assert status == 3
        assert (tmp_path / "runs.csv").exists()
    finally:
        os.close(reader)


async def test_a_reader_of_messages_that_is_slow_gets_all_of_them(sandbox: Sandbox, tmp_path: Path) -> None:
    jobs = [f"no-such-job-{number}-{'x' * 400}" for number in range(100)]
    (tmp_path / "jobs.txt").write_text("\n".join(["b-job", *jobs]))
    command = " ".join(map(shlex.quote, (*PROGRAM, "export", "--jobs-from", "jobs.txt", "-o", "runs.csv", "--quiet")))
    slow = "import sys, time; time.sleep(1); print(len(sys.stdin.read().splitlines()))"
    line = f"cd {shlex.quote(str(tmp_path))}; {command} 2> >({sys.executable} -c '{slow}' >counted); wait $!"
    assert (await invoke_process(command=("bash", "-c", line))).out == ""
    async with asyncio.timeout(60):
        while not (tmp_path / "counted").read_text():
            await asyncio.sleep(0.05)
    assert int((tmp_path / "counted").read_text()) == 101  # the heading and the jobs


@pytest.mark.parametrize("stderr", STDERRS)
async def test_what_others_print_on_it_changes_nothing_either(stderr: Callable[[], int]) -> None:
    """Warnings, loggers, tracebacks of callbacks and rich's consoles all end there."""
    code = """
import asyncio, logging, sys, warnings
import click
from rich.console import Console
from tfruns.cli.output import guard_streams

async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

guard_streams()
logging.getLogger("other").warning("text")
warnings.warn("text")
click.echo("text", err=True)
Console(stderr=True).print("text")
print("text", file=sys.stderr, flush=True)
asyncio.run(main())
print("done")
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=(number := stderr())
    )
    os.close(number)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (0, b"done\n")


async def test_only_the_reader_of_standard_output_that_goes_away_is_success(sandbox: Sandbox) -> None:
    """A pipe that a summary goes to isn't standard output."""
    reader, writer = os.pipe()
    os.close(reader)
    command = (*PROGRAM, "export", "b-job", "-o", "-", "--summary-json", f"/dev/fd/{writer}")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(writer,)
    )
    os.close(writer)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"Broken pipe" in err


# --- signals ----------------------------------------------------------------------------------------------------------


def stalls(requests: list[None]) -> Callable[[object], Reply]:
    """A first page, and then no more responses."""

    def reply(_: object) -> Reply:
        requests.append(None)
        return response(200, page([run_of(0, status="RUNNING")], 5_000)) if len(requests) == 1 else Stall()

    return reply


COMMANDS = [
    pytest.param("list job", marks=pytest.mark.slow),  # `test_ctrl_c_ends_it_with_status_130_…` has it
    pytest.param("count job --since 5000w", marks=pytest.mark.slow),
    "export job -o runs.csv",
    "watch job",
    "wait job run-0",
]


@each_once("line, number", COMMANDS, [*STATUS_OF])
async def test_a_signal_ends_every_command_with_the_same_statuses(
    line: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    requests: list[None] = []
    async with serve(stalls(requests)) as (url, _), started(*line.split(), TFY_HOST=url, TFY_API_KEY=KEY) as process:
        async with asyncio.timeout(60):
            while not requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        process.send_signal(number)
        ended = await end_of(process)
    assert ended.status == STATUS_OF[number]
    assert ended.err.strip().startswith("tfruns: interrupted")


@each_once("command, number", ["watch"], [*STATUS_OF])
async def test_a_signal_gives_the_terminal_its_cursor_back(
    sandbox: Sandbox, command: str, number: signal.Signals
) -> None:
    async with running_on_terminal(command, "b-job", *QUICK) as (process, terminal):
        await terminal.until(lambda screen: "open" in screen)
        assert terminal.raw.rindex(HIDE) > terminal.raw.rfind(SHOW)
        process.send_signal(number)
        while await terminal.read():
            pass
        assert (await end_of(process)).status == STATUS_OF[number]
    assert terminal.raw.rindex(SHOW) > terminal.raw.rindex(HIDE)


OTHERS = [
    pytest.param(line, marks=pytest.mark.slow) for line in ("list job", "wait job run-0", "export job -o runs.csv")
]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@each_once("line, number", ["watch job", *OTHERS], [*STATUS_OF])
async def test_the_first_process_of_a_container_obeys_signals_too(
    line: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives such a process no default handlers."""
    probe = await asyncio.create_subprocess_exec("unshare", "--pid", "--fork", "true", stderr=subprocess.DEVNULL)
    if await probe.wait():
        pytest.skip("this user may make no process namespaces")
    monkeypatch.chdir(tmp_path)
    requests: list[None] = []
    command = ("unshare", "--pid", "--fork", "--kill-child", *PROGRAM)
    async with (
        serve(stalls(requests)) as (url, _),
        started(*line.split(), command=command, TFY_HOST=url, TFY_API_KEY=KEY) as process,
    ):
        async with asyncio.timeout(60):
            while not requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), number)
        assert (await end_of(process)).status == STATUS_OF[number]


async def test_a_program_that_was_started_to_ignore_a_hang_up_does(sandbox: Sandbox) -> None:
    async with started("watch", "b-job", *QUICK, command=("nohup", *PROGRAM)) as process:
        async with asyncio.timeout(60):
            while len(sandbox.requests) < 3:
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        run = await sandbox.create_run("b-job")
        assert run.id in (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def test_a_sandbox_whose_reader_has_enough_ends(tmp_path: Path) -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m tfruns sandbox --runs 10 | head -n 1"
    ended: Ended = await invoke_process(command=("bash", "-c", line))
    assert ended.status == 0
    assert ended.out.startswith("export TFY_HOST=")
