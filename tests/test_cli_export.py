"""`tfruns export` as its users run it."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from test_cli import end_of, invoke, started

from tfruns.cli.export import FORMATS
from tfruns.export.formats import FORMATS as KNOWN
from tfruns.sandbox import Fault, Sandbox

KEY = "tfy-secret-key-1234567890"


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    async with Sandbox(jobs=3, runs=[30, 0, 1500], api_key=KEY, forbidden=["locked"]) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


def lines_of(path: Path) -> int:
    return len(path.read_bytes().splitlines())


async def test_the_summary_says_what_was_written_for_people_and_as_json(sandbox: Sandbox, tmp_path: Path) -> None:
    path, told = tmp_path / "runs.jsonl", tmp_path / "summary.json"
    ended = await invoke("export", *sandbox.job_ids, "-o", str(path), "--summary-json", str(told))
    assert (ended.status, ended.out, lines_of(path)) == (0, "", 1530)
    assert re.fullmatch(
        rf"{path}: 1,530 runs of 3 jobs, [0-9.]+ kB, in [0-9]+s; 4 requests, 0 of them retried\n", ended.err
    )
    summary = json.loads(told.read_text())
    assert summary.pop("seconds") > 0
    assert summary == {
        "path": str(path),
        "runs": 1530,
        "jobs": 3,
        "skipped": {},
        "bytes": path.stat().st_size,
        "resumed_jobs": 0,
        "requests": 4,
        "retries": 0,
    }
    quiet = await invoke("export", *sandbox.job_ids, "-o", str(path), "--quiet", "--summary-json", "-")
    assert (quiet.status, quiet.err, json.loads(quiet.out)["runs"]) == (0, "", 1530)


async def test_jobs_that_fail_are_named_with_reasons_and_the_status_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.txt"
    jobs.write_text(f"# ours\n\n{sandbox.job_ids[0]}\n  {sandbox.job_ids[2]}  \r\nlocked\n")
    path = tmp_path / "runs.csv"
    ended = await invoke("export", "nowhere", "--jobs-from", str(jobs), "-o", str(path), "--status", "failed")
    assert ended.status == 3
    assert "2 jobs were skipped, and aren't in the file:\n" in ended.err
    assert re.search(r"\n  job 'nowhere', offset 0: 404 ", ended.err)
    assert re.search(r"\n  job 'locked', offset 0: 403 ", ended.err)
    assert 1 < lines_of(path) < 1531


async def test_ids_come_from_standard_input_too(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    command = f"{sys.executable} -m tfruns export --jobs-from - -o {path} --quiet"
    ids = "\\n".join(sandbox.job_ids)
    ended = await invoke(command=("sh", "-c", f"printf '{ids}\\n' | {command}"))
    assert (ended.status, ended.err, lines_of(path)) == (0, "", 1530)


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_interrupted_it_says_how_to_go_on_and_the_same_command_does(
    stop: signal.Signals, status: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    command = ("export", *sandbox.job_ids, "-o", str(path))
    sandbox.faults.append(stall := Fault(breaks="stall", nth=(2,)))
    async with started(*command) as process:
        while len(sandbox.requests) < 4:
            await asyncio.sleep(0.01)
        process.send_signal(stop)
        ended = await end_of(process)
    assert (ended.status, ended.err) == (status, "tfruns: interrupted; the same command goes on from here\n")
    assert path.read_text() == "old"
    sandbox.faults.remove(stall)
    again = await invoke(*command)
    assert (again.status, lines_of(path)) == (0, 1530)
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize("most", [20_000, 300_000])
async def test_a_disk_that_is_full_while_it_reads_is_told_in_one_line_and_leaves_the_old_file(
    most: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))\n"
    code += "from tfruns.cli import main; sys.exit(main())"
    ended = await invoke("export", *sandbox.job_ids, "-o", str(path), command=(sys.executable, "-c", code))
    assert ended.status == 1
    assert "can't be used (is the disk full?)" in ended.complaint
    assert path.read_text() == "old"
    assert (await invoke("export", *sandbox.job_ids, "-o", str(path))).status == 0
    assert lines_of(path) == 1530


@pytest.mark.parametrize(
    "name", ["runs.jsonl", "runs.jsonl.gz", "runs.csv", "runs.parquet", "runs.sqlite", "runs.duckdb"]
)
async def test_a_disk_that_is_full_while_it_writes_leaves_the_old_file_and_nothing_is_read_again(
    name: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text("old")
    code = """
import asyncio, resource, sys, tfruns
from tfruns.export import export_runs

def fill(progress):
    if progress.is_writing:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))

async def main():
    async with tfruns.Client() as client:
        try:
            await export_runs(client, sys.argv[2:], sys.argv[1], on_progress=fill)
        except (OSError, tfruns.TfRunsError) as error:
            print(error)

asyncio.run(main())
"""
    ended = await invoke(str(path), *sandbox.job_ids, command=(sys.executable, "-c", code))
    assert (ended.status, ended.err) == (0, "")
    assert re.search("can't be written|File too large", ended.out)
    assert path.read_text() == "old"
    sandbox.requests.clear()
    assert (await invoke("export", *sandbox.job_ids, "-o", str(path))).status == 0
    assert path.stat().st_size > 4_000
    assert len(sandbox.requests) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


async def test_where_no_file_can_be_it_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where, says in (
        (tmp_path / "no" / "r.csv", "there is no folder"),
        (tmp_path / "file" / "r.csv", "there is no folder"),
    ):
        ended = await invoke("export", "job", "-o", str(where))
        assert ended.status == 1
        assert says in ended.complaint
    (tmp_path / "folder.csv").mkdir()
    assert (
        "is a folder: name a file in it"
        in (await invoke("export", "job", "-o", str(tmp_path / "folder.csv"))).complaint
    )


async def test_a_symbolic_link_stays_one_and_what_it_points_to_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "data.jsonl", tmp_path / "runs.jsonl"
    target.write_text("old")
    link.symlink_to(target)
    assert (await invoke("export", *sandbox.job_ids, "-o", str(link), "--quiet")).status == 0
    assert link.is_symlink()
    assert lines_of(target) == 1530


async def test_a_name_with_newlines_and_escapes_is_a_name_and_is_shown_harmlessly(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "a\nb\x1b[31m.jsonl"
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(path))
    assert (ended.status, lines_of(path)) == (0, 30)
    assert "\x1b" not in ended.err
    assert ended.err.count("\n") == 1


async def test_since_last_writes_what_is_new_into_a_file_of_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    command = ("export", *sandbox.job_ids, "-o", str(tmp_path / "runs.jsonl"), "--since-last", "--quiet")
    assert (await invoke(*command)).status == 0
    run = await sandbox.create_run(sandbox.job_ids[0])
    assert (await invoke(*command)).status == 0
    assert run.id in (tmp_path / "runs.0001.jsonl").read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs.jsonl", "runs.0001.jsonl", "runs.jsonl.tfruns-state"}


async def test_on_a_terminal_there_are_bars_and_they_are_gone_at_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.append(Fault(latency=0.3))
    master, slave = pty.openpty()
    command = (sys.executable, "-m", "tfruns", "export", *sandbox.job_ids, "-o", str(tmp_path / "runs.jsonl"))
    process = await asyncio.create_subprocess_exec(
        *command, stderr=slave, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := await asyncio.to_thread(os.read, master, 65_536):
            shown += chunk
    except OSError:
        pass  # the end of a terminal, on Linux
    os.close(master)
    assert await process.wait() == 0
    text = shown.decode()
    assert "jobs" in text
    assert "/s" in text
    assert "1,530 runs of 3 jobs" in text.rsplit("\x1b[2K", 1)[-1]


def test_the_formats_of_the_option_are_those_of_the_library() -> None:
    assert tuple(form.name for form in KNOWN) == FORMATS
