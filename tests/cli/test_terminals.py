"""The program on real terminals, small ones among them: what fits, what is cut, and what says so."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncGenerator

import pytest
from rich.cells import cell_len

from tests.support.cli import (
    KEY,
    Ended,
    Terminal,
    end_of,
    invoke,
    invoke_process,
    needs_terminals,
    on_terminal,
    reading,
    running_on_terminal,
)
from tests.support.runs import make_run
from tfruns import RunChange
from tfruns.cli.table import Board
from tfruns.sandbox import Sandbox

pytestmark = needs_terminals
SIZES = [(80, 24), (50, 24), (200, 50), (24, 10)]
QUICK = ("--interval", "0.02", "0.05")
STATUSES = {"CREATED", "SCHEDULED", "RUNNING", "FINISHED", "FAILED", "TERMINATED", "TERMINATING", "UNKNOWN"}
STATUSES |= {"TERMINATION_REQUESTED"}
ERROR = "OOMKilled: container exceeded its memory limit of 16Gi\nin a second line"


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to, with names of every width."""
    async with Sandbox(jobs=["a-job", "b-job"], runs=(120, 0), api_key=KEY, clock_start="now") as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        await sandbox.create_run("a-job", status="FAILED", error=ERROR, name="學" * 40)
        await sandbox.create_run("a-job", status="FAILED", error="no module", name="x" * 300, triggered_by="y" * 90)
        yield sandbox


def fits(terminal: Terminal, columns: int) -> bool:
    """Whether no line that was written is wider than the terminal, which would wrap it."""
    return all(cell_len(line) <= columns for line in terminal.text.split("\n"))


# --- list and wait ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_no_line_of_a_list_wraps_and_no_status_is_cut(sandbox: Sandbox, size: tuple[int, int]) -> None:
    terminal = await on_terminal("list", "a-job", size=size)
    heading, *rows = terminal.text.splitlines()
    assert fits(terminal, size[0])
    assert len(rows) == 50
    assert terminal.err.endswith("50 of 122: --all, or --max-runs\n")
    assert heading.startswith("STATUS")
    assert {row.split()[0] for row in rows} <= STATUSES


async def test_a_list_of_80_columns_has_the_name_the_age_the_duration_and_the_error(sandbox: Sandbox) -> None:
    heading, newest, older, *_ = (await on_terminal("list", "a-job", size=(80, 24))).text.splitlines()
    assert re.split(r"  +", heading) == ["STATUS", "AGE", "DURATION", "NAME", "ERROR"]
    assert re.search(r"FAILED +\d+s +\S.* x+… +no module$", newest)  # what is cut ends with an ellipsis
    assert re.search(r"FAILED .* 學+… +OOMKilled: .*…$", older)


async def test_a_list_of_50_columns_has_the_name_and_the_error_and_counts_what_it_leaves_out(sandbox: Sandbox) -> None:
    terminal = await on_terminal("list", "a-job", "--status", "failed", size=(50, 24))
    heading, newest, *_ = terminal.text.splitlines()
    assert re.split(r"  +", heading) == ["STATUS", "AGE", "NAME", "ERROR"]
    assert newest.endswith("no module")
    assert terminal.err == (
        "tfruns: 5 columns left out to fit the terminal: CREATED (UTC), DURATION, VERSION, TRIGGERED BY, ID"
        " (--wide shows all)\n"
    )


async def test_a_list_without_errors_has_no_column_of_them(sandbox: Sandbox) -> None:
    shown = (await on_terminal("list", "a-job", "--status", "finished", size=(80, 24))).text
    assert "ERROR" not in shown.splitlines()[0]
    assert "ID" in shown.splitlines()[0].split()


@pytest.mark.parametrize(("status", "left_out"), [("finished", ""), ("failed", "ERROR")], ids=str)
async def test_errors_are_left_out_only_where_there_are_some(sandbox: Sandbox, status: str, left_out: str) -> None:
    columns = 200 if not left_out else 24
    command = ("list", "a-job", "--status", status, "--max-runs", "2")
    terminal = await on_terminal(*command, size=(columns, 24))
    assert ("ERROR" in terminal.err) == bool(left_out)


async def test_errors_of_a_later_page_are_shown_under_headings_of_their_own(sandbox: Sandbox) -> None:
    await sandbox.create_run("b-job", status="FAILED", error="out of disk", name="older")
    await sandbox.create_run("b-job", status="FINISHED", error=None, name="newer")
    terminal = await on_terminal("list", "b-job", "--page-size", "1", size=(80, 24))
    first, newer, second, older = terminal.text.splitlines()
    assert (first.split()[-1], second.split()[-1]) == ("ID", "ERROR")
    assert "newer" in newer
    assert older.endswith("out of disk")


async def test_what_is_no_terminal_gets_every_column_whole(sandbox: Sandbox) -> None:
    ended = await invoke("list", "a-job", "--max-runs", "2", COLUMNS="50")
    heading, newest, older = ended.out.splitlines()
    assert re.split(r"  +", heading) == [
        *("STATUS", "CREATED (UTC)", "DURATION", "VERSION", "TRIGGERED BY", "NAME", "ID", "ERROR")
    ]
    assert "x" * 300 in newest
    assert "y" * 90 in newest
    assert older.endswith("  OOMKilled: container exceeded its memory limit of 16Gi in a second line")
    assert ended.err == ""


async def test_a_locale_that_has_no_ellipsis_gets_three_dots(sandbox: Sandbox) -> None:
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    command = ("list", "a-job", "--max-runs", "1")
    async with running_on_terminal(*command, size=(80, 24), **environment) as (process, terminal):
        assert (await leaving(process, terminal)).status == 0
    assert re.search(r"x\.\.\.  no module", terminal.text)
    assert fits(terminal, 80)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_wait_prints_its_run_within_the_terminal(sandbox: Sandbox, size: tuple[int, int]) -> None:
    run = await sandbox.create_run("a-job", status="FINISHED", name="done" * 30)
    terminal = await on_terminal("wait", "a-job", run.id, size=size)
    assert fits(terminal, size[0])
    assert "FINISHED" in terminal.text


async def test_wait_says_on_a_terminal_that_it_waits(sandbox: Sandbox) -> None:
    """Who waits at a terminal sees that something happens; standard output still holds the run alone."""
    run = await sandbox.create_run("a-job", status="RUNNING", name="train-1")
    waiting = asyncio.create_task(on_terminal("wait", "a-job", "train-1", *QUICK))
    async with asyncio.timeout(60):
        while not sandbox.requests:
            await asyncio.sleep(0.01)
    await sandbox.finish_run("a-job", run.id, "FINISHED")
    terminal = await waiting
    assert "waiting for the end of 'train-1'" in terminal.err
    assert "FINISHED" in terminal.text
    assert "waiting" not in terminal.text


# --- demo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (50, 24)], ids=str)
async def test_the_demo_cuts_no_status_and_breaks_no_word(size: tuple[int, int]) -> None:
    terminal = await on_terminal("demo", "--runs", "1200", size=size)
    table = terminal.text.partition("Runs by status:")[2].partition("The first")[0]
    assert {line.split()[0] for line in table.split("\n") if line.strip()} == STATUSES | {"STATUS"}
    assert "TERMINATION_REQUESTED" in table
    whole = (await invoke("demo", "--runs", "1200")).out
    first = terminal.text.partition("\x1b")[0].partition("runs ")[0]
    assert set(first.split()[:-1]) <= set(whole.split())
    for line in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "\n", terminal.text.replace("\r", "\n")).split("\n"):
        assert cell_len(line) <= size[0]


# --- watch ------------------------------------------------------------------------------------------------------------


async def test_a_failure_is_seen_among_more_runs_than_fit(sandbox: Sandbox) -> None:
    """A run that failed stays on the screen, with its error, however many are open or ended after it."""
    runs = [await sandbox.create_run("b-job", name=f"run-{n}", status="RUNNING") for n in range(60)]
    async with running_on_terminal("watch", "b-job", *QUICK, size=(50, 24)) as (process, terminal):
        await terminal.until(lambda screen: "60 open (" in screen)
        assert "\x1b[36mRUNNING" in terminal.raw.decode()
        await sandbox.finish_run("b-job", runs[0].id, "FAILED", error="OOMKilled: exceeded")
        await terminal.until(lambda screen: "1 failed" in screen)
        for run in runs[1:40]:
            await sandbox.finish_run("b-job", run.id)
        await terminal.until(lambda screen: "20 open" in screen)
        assert "\x1b[31mFAILED" in terminal.raw.decode()
        assert len(terminal.screen) <= 24
        [failed] = [line for line in terminal.screen if line.startswith("FAILED")]
        assert runs[0].name in failed
        assert "OOMKilled" in failed
        assert sum(line.startswith("FINISHED") for line in terminal.screen) >= 9
        assert sum(line.startswith("RUNNING") for line in terminal.screen) >= 9
        counts = terminal.screen[-1]
        assert counts.endswith("not shown)")  # there is room for no more, and no word is cut
        hidden = [int(number) for number in re.findall(r"\((\d+) not shown\)", counts)]
        shown = sum(line.split()[0] in STATUSES for line in terminal.screen)
        assert shown + sum(hidden) == 60
        process.send_signal(signal.SIGINT)
        assert (await leaving(process, terminal)).status == 130
        assert any(line.startswith("FAILED") for line in terminal.screen)  # the last state stays


async def test_a_watch_sums_up_as_many_statuses_as_fit_and_says_that_there_are_others(sandbox: Sandbox) -> None:
    """A part of them alone would pass for all."""
    for status in ("RUNNING", "RUNNING", "SCHEDULED", "UNKNOWN"):
        await sandbox.create_run("b-job", status=status)
    async with running_on_terminal("watch", "b-job", *QUICK, size=(88, 24)) as (process, terminal):
        await terminal.until(lambda screen: "2 RUNNING, 1 SCHEDULED, 1 UNKNOWN; Ctrl-C to end" in screen)
        terminal.resize(64, 24)
        await terminal.until(lambda screen: "0 failed; 2 RUNNING and others; Ctrl-C to end" in screen)
        process.send_signal(signal.SIGINT)
        await leaving(process, terminal)


async def leaving(process: asyncio.subprocess.Process, terminal: Terminal) -> Ended:
    """The end of a program, which can't come while nobody reads what it writes."""
    while await terminal.read():
        pass
    return await end_of(process)


async def test_no_line_of_a_watch_wraps_however_its_terminal_is_resized(sandbox: Sandbox) -> None:
    for name in ("x" * 300, "學" * 50):
        await sandbox.create_run("b-job", name=name, status="RUNNING")

    def is_whole(screen: str) -> bool:
        lines = screen.split("\n")
        heading, rows, counts = lines[0], lines[1:-1], lines[-1]
        hidden = re.findall(r"^13 open(?: \((\d+) not shown\))?, ", counts)
        has_headings = heading.startswith("JOB" if terminal.columns > 24 else ("JOB", "STATUS"))
        each_a_run = all(set(row.split()) & STATUSES for row in rows)
        is_wide = max(map(cell_len, terminal.screen)) > terminal.columns // 2
        return bool(hidden) and has_headings and each_a_run and is_wide and len(rows) + int(hidden[0] or 0) == 13

    async with running_on_terminal("watch", "a-job", "b-job", *QUICK, size=(80, 24)) as (process, terminal):
        for size in SIZES:
            terminal.resize(*size)
            await terminal.until(is_whole, is_drawn_anew=True)
            assert max(map(cell_len, terminal.screen)) <= size[0]
        process.send_signal(signal.SIGINT)
        await leaving(process, terminal)


def test_a_run_that_is_deleted_after_its_end_is_shown_no_more() -> None:
    board = Board(several=False)
    run = make_run(1, 1e12, "run-of-old")
    board.take(RunChange(kind="finished", job_id="job", run=run, before=None))
    assert "run-of-old" in board.text()
    board.take(RunChange(kind="deleted", job_id="job", run=run, before=run))
    assert "run-of-old" not in board.text()
    assert "1 ended" in board.text()


async def test_a_terminal_that_can_draw_nothing_gets_a_line_for_each_change(sandbox: Sandbox) -> None:
    async with running_on_terminal("watch", "b-job", "--start", "existing", *QUICK, TERM="dumb") as (process, terminal):
        run = await sandbox.create_run("b-job")
        await terminal.until(lambda screen: f"appeared  b-job  CREATED  {run.name}" in screen)
        process.send_signal(signal.SIGINT)
        await leaving(process, terminal)
    assert b"\x1b" not in terminal.raw


@pytest.mark.parametrize("command", ["list a-job", "list a-job --json", "watch b-job --start existing --json"])
async def test_a_reader_that_has_enough_ends_it_with_status_0(sandbox: Sandbox, command: str) -> None:
    """`| head` is no failure; a watch ends without waiting for a change that it couldn't write."""
    await sandbox.create_run("b-job")
    async with reading(*command.split(), *(QUICK if "watch" in command else ())) as line:
        assert await line()


async def test_head_gets_its_line_and_the_pipeline_succeeds(sandbox: Sandbox) -> None:
    await sandbox.create_run("b-job")
    line = f"set -o pipefail; {sys.executable} -m tfruns watch b-job --start existing --json | head -n 1"
    ended = await invoke_process(command=("bash", "-c", line))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("\n") == 1
