"""`tfruns export` as its users run it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

import tfruns
from tests.support.cli import (
    KEY,
    Ended,
    Terminal,
    end_of,
    invoke,
    invoke_process,
    needs_posix,
    needs_terminals,
    started,
)
from tfruns.cli.export import FORMATS
from tfruns.cli.report import Lines
from tfruns.export import ExportProgress, export_runs
from tfruns.export.destination import FORMATS as KNOWN
from tfruns.sandbox import Fault, Sandbox

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    monkeypatch.setattr("tfruns.export.pipeline.PAUSES", (0,))  # before an empty list is believed
    async with Sandbox(jobs=3, runs=[30, 0, 1500], api_key=KEY, forbidden=["locked"]) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


def lines_of(path: Path) -> int:
    return len(path.read_bytes().splitlines())


async def test_the_summary_says_what_was_written_for_people_and_as_json(sandbox: Sandbox, tmp_path: Path) -> None:
    path, summary_file = tmp_path / "runs.jsonl", tmp_path / "summary.json"
    ended = await invoke("export", *sandbox.job_ids, "-o", str(path), "--summary-json", str(summary_file))
    assert (ended.status, ended.out, lines_of(path)) == (0, "", 1530)
    assert re.fullmatch(
        rf"{re.escape(str(path))}: 1,530 runs of 3 jobs, [0-9.]+ kB, in [0-9]+s; 5 requests, 0 of them retried\n",
        ended.err,
    )
    summary = json.loads(summary_file.read_text())
    assert summary.pop("seconds") > 0
    assert summary == {
        "path": str(path),
        "runs": 1530,
        "jobs": 3,
        "skipped": {},
        "rejected": 0,
        "quarantine": None,
        "removed_files": 0,
        "removed_rows": 0,
        "size": path.stat().st_size,
        "resumed_jobs": 0,
        "resumed_age": None,
        "requests": 5,
        "retries": 0,
    }
    quiet = await invoke("export", *sandbox.job_ids, "-o", str(path), "--quiet", "--summary-json", "-")
    assert (quiet.status, quiet.err, json.loads(quiet.out)["runs"]) == (0, "", 1530)


async def test_where_every_job_fails_the_old_file_stays_and_the_summary_says_so(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """An empty file, and yesterday's success, would pass for today's."""
    path, summary_file = tmp_path / "runs.jsonl", tmp_path / "summary.json"
    path.write_text("old")
    summary_file.write_text('{"runs": 5}')
    ended = await invoke("export", "nowhere", "locked", "-o", str(path), "--summary-json", str(summary_file))
    assert ended.status == 1
    assert f"each of the 2 jobs failed, and nothing was written to {path}: job 'nowhere', offset 0: 404" in ended.err
    assert path.read_text() == "old"
    summary = json.loads(summary_file.read_text())
    assert summary["path"] == str(path)
    assert "each of the 2 jobs failed" in summary["error"]


async def test_runs_that_cant_be_written_are_counted_and_reported_at_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """With the file in which they are."""
    await sandbox.create_run(sandbox.job_ids[0], duration=2**63)
    path = tmp_path / "runs.csv"
    ended = await invoke("export", *sandbox.job_ids, "-o", str(path), "--quiet")
    assert ended == Ended(0, "", f"1 run couldn't be written: see {path}.rejected.jsonl\n")


async def test_jobs_that_fail_are_named_with_reasons_and_the_status_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.txt"
    jobs.write_text(f"# ours\n\n{sandbox.job_ids[0]}\n  {sandbox.job_ids[2]}  \r\nlocked\n")
    path = tmp_path / "runs.csv"
    ended = await invoke("export", "nowhere", "--jobs-from", str(jobs), "-o", str(path), "--status", "failed")
    assert ended.status == 3
    assert "2 jobs skipped, of which nothing was written:\n" in ended.err
    assert re.search(r"\n  job 'nowhere', offset 0: 404 ", ended.err)
    assert re.search(r"\n  job 'locked', offset 0: 403 ", ended.err)
    assert 1 < lines_of(path) < 1531


async def test_ids_come_from_standard_input_too(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    ids = "".join(f"{job_id}\n" for job_id in sandbox.job_ids).encode()
    ended = await invoke("export", "--jobs-from", "-", "-o", str(path), "--quiet", stdin=ids)
    assert (ended.status, ended.err, lines_of(path)) == (0, "", 1530)


YESTERDAY = '{"path": "runs.jsonl", "runs": 5}'


@needs_posix
@pytest.mark.parametrize(
    ("stop", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
async def test_interrupted_it_says_how_to_go_on_and_the_same_command_does(
    stop: signal.Signals, status: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    """In its summary, too."""
    path, summary_file = tmp_path / "runs.jsonl", tmp_path / "summary.json"
    path.write_text("old")
    summary_file.write_text(YESTERDAY)
    command = ("export", *sandbox.job_ids, "-o", str(path), "--summary-json", str(summary_file))
    sandbox.faults.append(stall := Fault(breaks="stall", nth=(2,)))
    async with started(*command) as process:
        while len(sandbox.requests) < 4:
            await asyncio.sleep(0.01)
        process.send_signal(stop)
        ended = await end_of(process)
    assert (ended.status, ended.err) == (
        status,
        "tfruns: interrupted; the same command goes on with the jobs that weren't read whole\n",
    )
    assert path.read_text() == "old"
    assert json.loads(summary_file.read_text()) == {"path": str(path), "error": "interrupted"}
    sandbox.faults.remove(stall)
    again = await invoke(*command)
    assert (again.status, lines_of(path)) == (0, 1530)
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs.jsonl", "summary.json"}


@needs_posix
async def test_the_summary_of_an_export_that_was_killed_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    """In place of yesterday's success."""
    path, summary_file = tmp_path / "runs.jsonl", tmp_path / "summary.json"
    summary_file.write_text(YESTERDAY)
    sandbox.faults.append(Fault(breaks="stall", nth=(2,)))
    async with started("export", *sandbox.job_ids, "-o", str(path), "--summary-json", str(summary_file)) as process:
        while len(sandbox.requests) < 2:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await end_of(process)
    why = "the export has not ended: it is at work, or was killed"
    assert json.loads(summary_file.read_text()) == {"path": str(path), "error": why}


needs_limits = pytest.mark.skipif(resource is None, reason="needs limits of resources")


@contextlib.contextmanager
def full_disk(most: int | None = None) -> Iterator[Callable[[int], None]]:
    """A disk that is full: each file of this process can have so many bytes, or as many as the function is given."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(bytes_: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))

    if most is not None:
        limit(most)
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@needs_limits
@pytest.mark.parametrize("most", [20_000, 300_000])
async def test_a_disk_that_is_full_while_it_reads_is_reported_in_one_line_and_leaves_the_old_file(
    most: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    with full_disk(most):
        ended = await invoke("export", *sandbox.job_ids, "-o", str(path))
    assert ended.status == 1
    assert "can't be written: " in ended.complaint
    assert path.read_text() == "old"
    assert (await invoke("export", *sandbox.job_ids, "-o", str(path))).status == 0
    assert lines_of(path) == 1530


@needs_limits
@pytest.mark.parametrize("name", ["runs.parquet", "runs.sqlite", "runs.duckdb"])
async def test_a_disk_that_is_full_while_it_writes_leaves_the_old_file_and_nothing_is_read_again(
    name: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix in (".sqlite", ".duckdb"):
        await invoke("export", sandbox.job_ids[0], "-o", str(path))
    else:
        path.write_text("old")
    old = path.read_bytes()
    with full_disk() as limit:

        def fill(progress: ExportProgress) -> None:
            if progress.is_writing:
                limit(4_000)

        async with tfruns.Client() as client:
            with pytest.raises((OSError, tfruns.TfRunsError), match="can't be written|File too large"):
                await export_runs(client, sandbox.job_ids, path, on_progress=fill)
    assert path.read_bytes() == old
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
    assert "or write s3:// for a URL" in (await invoke("export", "job", "-o", "s3:/bucket/runs.csv")).complaint
    (tmp_path / "folder.csv").mkdir()
    assert (
        "is a folder: name a file in it"
        in (await invoke("export", "job", "-o", str(tmp_path / "folder.csv"))).complaint
    )


@pytest.mark.parametrize("kind", ["folder behind a link", "link to nothing", "file"])
async def test_what_is_in_the_way_of_the_place_for_what_was_read_is_reported_and_left(
    kind: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    way, other = tmp_path / "runs.csv.tfruns-partial", tmp_path / "other"
    if kind == "file":
        way.write_text("mine")
    else:
        way.symlink_to(other)
    if kind == "folder behind a link":
        other.mkdir()
        (other / "mine").write_text("mine")
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"))
    assert ended.status == 1
    assert ended.complaint.startswith(f"tfruns: {way} is in the way")
    assert not sandbox.requests
    assert (way if kind == "file" else other / "mine" if other.exists() else way).lstat()
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")
async def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "runs.csv"
    os.mkfifo(pipe)
    ended = await invoke("export", "job", "-o", str(pipe), TFY_HOST="http://127.0.0.1:9", TFY_API_KEY=KEY)
    assert ended.status == 1
    assert "is no ordinary file" in ended.complaint
    assert pipe.is_fifo()


@needs_posix
async def test_a_name_that_is_too_long_is_reported_in_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(tmp_path / ("n" * 245 + ".csv")))
    assert ended.status == 1
    assert "File name too long" in ended.complaint
    assert not list(tmp_path.iterdir())


async def test_a_symbolic_link_stays_one_and_what_it_points_to_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "data.jsonl", tmp_path / "runs.jsonl"
    target.write_text("old")
    link.symlink_to(target)
    assert (await invoke("export", *sandbox.job_ids, "-o", str(link), "--quiet")).status == 0
    assert link.is_symlink()
    assert lines_of(target) == 1530


@needs_posix
async def test_a_name_with_newlines_and_escapes_is_a_name_and_is_shown_harmlessly(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "a\nb\x1b[31m.jsonl"
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(path))
    assert (ended.status, lines_of(path)) == (0, 30)
    assert "\x1b" not in ended.err
    assert ended.err.count("\n") == 1


async def test_with_a_state_what_is_new_is_written_into_a_file_of_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    """The state is where it is said to be."""
    command = ("export", *sandbox.job_ids, "-o", str(tmp_path / "runs.jsonl"), "--state", str(tmp_path / "state"))
    assert (await invoke(*command)).status == 0
    run = await sandbox.create_run(sandbox.job_ids[0])
    assert (await invoke(*command, "--quiet")) == Ended(0, "", "")
    assert run.id in (tmp_path / "runs.0001.jsonl").read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs.0000.jsonl", "runs.0001.jsonl", "state"}


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
@pytest.mark.parametrize("form", [None, "jsonl", "csv"])
async def test_standard_output_gets_what_the_file_would(
    name: str, form: str | None, sandbox: Sandbox, tmp_path: Path
) -> None:
    """And nothing else: the summary goes to standard error."""
    path = tmp_path / f"runs.{form or 'jsonl'}"
    await invoke("export", *sandbox.job_ids, "-o", str(path))
    more = () if form is None else ("--format", form)
    summary_file = tmp_path / "summary.json"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ended = await invoke(
        "export", *sandbox.job_ids, "-o", name, *more, "--summary-json", str(summary_file), TMPDIR=str(scratch)
    )
    assert (ended.status, ended.out) == (0, path.read_bytes().decode())
    assert re.fullmatch(r"standard output: 1,530 runs of 3 jobs, [^\n]*\n", ended.err)
    assert json.loads(summary_file.read_text())["path"] == "-"
    assert not list(scratch.iterdir())


async def test_standard_output_gets_nothing_of_an_export_that_fails(sandbox: Sandbox, tmp_path: Path) -> None:
    """Where a run can't be written, standard error says so."""
    ended = await invoke("export", "nowhere", "-o", "-")
    assert ended.status == 1
    assert ended.complaint.startswith(
        "tfruns: the job failed, and nothing was written to standard output: job 'nowhere'"
    )
    run = await sandbox.create_run(sandbox.job_ids[0], duration=2**63)
    ended = await invoke("export", sandbox.job_ids[0], "-o", "-", "--format", "csv", "--quiet")
    assert (ended.status, ended.out.count("\r\n")) == (0, 31)
    assert re.fullmatch(
        rf"1 run couldn't be written:\n  job '{sandbox.job_ids[0]}', run '{run.id}': duration: [^\n]*\n", ended.err
    )


@needs_posix
async def test_a_reader_of_standard_output_that_goes_away_ends_it_quietly(sandbox: Sandbox) -> None:
    """As `head` does."""
    command = f"{sys.executable} -m tfruns export {' '.join(sandbox.job_ids)} -o - --quiet | head -n 3"
    ended = await invoke_process(command=("bash", "-c", f"set -o pipefail; {command}"))
    assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 3)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
async def test_a_summary_that_cant_be_written_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await invoke("export", *sandbox.job_ids, "-o", str(tmp_path / "runs.csv"), "--summary-json", "/dev/full")
    assert ended.status == 1
    assert "/dev/full: No space left on device" in ended.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_standard_output_that_is_full_is_an_error_and_no_success(sandbox: Sandbox, tmp_path: Path) -> None:
    """In the summary, too."""
    summary_file = tmp_path / "summary.json"
    full = os.open("/dev/full", os.O_WRONLY)
    command = ("export", sandbox.job_ids[0], "-o", "-", "--summary-json", str(summary_file))
    ended = await invoke(*command, stdout=full)
    os.close(full)
    assert ended.status == 1
    assert ended.complaint == "tfruns: standard output: No space left on device"
    assert "No space left" in json.loads(summary_file.read_text())["error"]


@pytest.mark.parametrize(
    ("option", "value", "seen"),
    [
        (
            "--page-size",
            "10",
            lambda sandbox: max(int(re.findall(r"limit=(\d+)", r.query)[0]) for r in sandbox.requests) == 10,
        ),
        ("--max-attempts", "1", lambda sandbox: len(sandbox.requests) == 1),
        ("--patience", "0.2", lambda sandbox: len(sandbox.requests) < 8),
    ],
)
async def test_options_say_how_requests_are_sent(
    option: str, value: str, seen: Callable[[Sandbox], bool], sandbox: Sandbox, tmp_path: Path
) -> None:
    """With the words of the client's arguments."""
    if option != "--page-size":
        sandbox.faults.append(Fault(status=503))
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"), option, value, "--quiet")
    assert ended.status == (0 if option == "--page-size" else 1)
    assert seen(sandbox)


async def test_timeout_rate_and_concurrency_reach_the_client(sandbox: Sandbox, tmp_path: Path) -> None:
    """For lists, too."""
    sandbox.faults.append(Fault(breaks="stall"))
    settings = ("--timeout", "0.2", "--max-attempts", "1", "--max-rate", "50", "--max-concurrency", "1")
    for command in (("export", "-o", str(tmp_path / "runs.csv"), sandbox.job_ids[0]), ("list", sandbox.job_ids[0])):
        ended = await invoke(*command, *settings)
        assert ended.status == 1
        assert "within 0.2 s, the timeout" in ended.complaint


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")
async def test_a_summary_into_a_pipe_is_the_last_word_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nobody need read before the end."""
    pipe = tmp_path / "summary"
    os.mkfifo(pipe)
    command = ("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"), "--summary-json", str(pipe))
    text, ended = await asyncio.gather(asyncio.to_thread(pipe.read_text), invoke(*command))
    assert ended.status == 0
    assert json.loads(text)["runs"] == 30
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "{}/runs.xlsx"), "doesn't say which format is meant"),
        (("-o", "{}/no/such/runs.csv"), "there is no folder"),
        (("-o", "{}/runs.csv", "--jobs-from", "{}/jobs.txt"), "line 1: one id"),
        (
            ("-o", "{}/runs.csv", "--state", "{}/state", "--order", "asc"),
            "--state goes with no --sort-by, --order, --status, --since, --until: it reads",
        ),
        (("-o", "{}/runs.csv", "--host", "nonsense"), "--host must begin with"),
    ],
)
async def test_after_any_failure_the_summary_says_so(
    arguments: tuple[str, ...], says: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """In place of yesterday's success."""
    summary_file = tmp_path / "summary.json"
    summary_file.write_text(YESTERDAY)
    (tmp_path / "jobs.txt").write_text("a,b\n")
    words = [word.format(tmp_path) for word in arguments]
    ended = await invoke("export", sandbox.job_ids[0], *words, "--summary-json", str(summary_file))
    assert ended.status in (1, 2)
    summary = json.loads(summary_file.read_text())
    assert summary["path"] == words[1]
    assert says in summary["error"]


async def on_terminal(*args: str) -> str:
    """What the program prints where standard error is a terminal."""
    terminal = Terminal(120, 40)
    command = (sys.executable, "-m", "tfruns", *args)
    process = await asyncio.create_subprocess_exec(
        *command, stderr=terminal.slave, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    )
    os.close(terminal.slave)
    while await terminal.read():
        pass
    os.close(terminal.master)
    assert await process.wait() == 0
    return terminal.raw.decode()


@needs_terminals
async def test_on_a_terminal_there_are_bars_and_they_are_gone_at_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.append(Fault(latency=0.3))
    text = await on_terminal("export", *sandbox.job_ids, "-o", str(tmp_path / "runs.jsonl"))
    assert "jobs" in text
    assert "/s" in text
    assert "1,530 runs of 3 jobs" in text.rsplit("\x1b[2K", 1)[-1]


@needs_terminals
async def test_on_a_terminal_a_long_wait_is_shown_under_the_bars(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.append(Fault(status=429, wait=2, nth=(1,)))
    text = await on_terminal("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.jsonl"))
    before_the_first_page = text.split("30 of 30")[0]
    assert re.search(r", 1 retry; [0-9:]{8} job '.*', offset 0: 429 Too Many", before_the_first_page)


@pytest.mark.usefixtures("quick_clock")
async def test_elsewhere_a_long_wait_is_a_line_a_quick_retry_is_none_and_with_quiet_there_is_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    command = ("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.jsonl"))
    sandbox.faults[:] = [Fault(status=503, nth=1), Fault(status=503, wait=2, nth=2)]
    notice, summary = (await invoke(*command, FORCE_COLOR="1")).err.splitlines()
    assert re.match("tfruns: job '.*', offset 0: 503 .* attempt 2 failed, the next starts in 2.", notice)
    assert "2 of them retried" in summary
    sandbox.faults[:] = [Fault(status=503, wait=2, nth=4)]
    assert await invoke(*command, "--quiet") == Ended(0, "", "")


def test_elsewhere_there_is_a_line_now_and_then_more_and_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = Lines(lambda: now)
    told_at = []
    for second in range(4_000):
        now = float(second)
        done = {"jobs": 9, "jobs_done": 2, "jobs_skipped": 1, "runs_expected": 50_000, "is_writing": False}
        lines.show(ExportProgress(runs=1_000 + second * 10, **done))
        if said := capsys.readouterr().err:
            told_at.append(second)
            assert said == f"3 of 9 jobs, {1_000 + second * 10:,} runs, 10/s\n"
    assert told_at == [10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630]


async def test_quiet_still_names_the_jobs_that_were_skipped(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await invoke("export", "locked", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"), "--quiet")
    assert ended.status == 3
    assert re.fullmatch(r"1 job skipped, [^\n]*:\n  job 'locked', offset 0: 403 [^\n]*\n", ended.err)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no jobs were given"),
        (b"# nothing\n\n  \n", "no jobs were given"),
        (b"\xef\xbb\xbf# a job\n\n\xff\n", "{}, line 3: isn't text in UTF-8"),
        (b"fine\n..\n", "{}, line 2: JOB can't be '..'"),
        (b"fine\na,b\n", "{}, line 2: one id, and nothing else, must stand on a line, got 'a,b' with a comma"),
        (b'["a", "b"]\n', '{}, line 1: one id, and nothing else, must stand on a line, got \'["a", "b"]\' with ['),
        (b'{"jobs": ["a"]}', "{}, line 1: one id"),
        (b"# ours\nfine # the first\n", "{}, line 2: one id, and nothing else, must stand on a line, got 'fine # the"),
        (b"fine#1\n", "with #"),
        (b"id\tname\n", "with a tab"),
        (b"- fine\n", "with a space"),
        (b"'fine'\n", "one id"),
        (b"a" * 500 + b" b\n", "aaa…' with a space"),
        (b"fi\x00ne\n", "with the character U+0000"),
        ("fine".encode("utf-16-le"), "with the character U+0000"),
        ("fi\u200bne\n".encode(), "with the character U+200B"),
        ("fi\ufeffne\n".encode(), "with the character U+FEFF"),
    ],
)
async def test_what_is_wrong_in_a_file_of_jobs_is_reported_with_file_and_line(
    content: bytes, says: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs.txt"
    jobs.write_bytes(content)
    ended = await invoke("export", "--jobs-from", str(jobs), "-o", str(tmp_path / "runs.csv"))
    assert ended.status == 2
    assert says.format(jobs) in ended.complaint
    assert not sandbox.requests
    assert [entry.name for entry in tmp_path.iterdir()] == ["jobs.txt"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (["-o", "-", "--format", "parquet"], "standard output can be jsonl or csv, but no parquet: name a file"),
        (["-o", "-", "--state", "{}/state"], "--state needs a file with -o"),
        (["-o", "-", "--summary-json", "-"], "-o and --summary-json name the same file"),
        (["-o", "{}/a.csv", "--state", "{}/a.csv"], "-o and --state name the same file"),
        (["-o", "{}/a.csv", "--summary-json", "{}/./a.csv"], "-o and --summary-json name the same file"),
        (["-o", "{}/a.csv", "--summary-json", "{}/no/a.json"], "--summary-json: there can't be a file"),
        (["-o", "{}/a.csv", "--summary-json", "{}"], "--summary-json: there can't be a file"),
    ],
)
async def test_a_destination_that_cant_be_meant_is_refused(where: list[str], says: str, tmp_path: Path) -> None:
    ended = await invoke("export", "job", *(word.format(tmp_path) for word in where))
    assert ended.status == 2
    assert says in ended.complaint
    assert not list(tmp_path.iterdir())


async def test_the_list_of_jobs_is_not_overwritten(sandbox: Sandbox, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(sandbox.job_ids[0])
    for more in (("-o", str(jobs)), ("-o", str(tmp_path / "a.csv"), "--summary-json", str(jobs))):
        ended = await invoke("export", "--jobs-from", str(jobs), *more)
        assert ended.status == 2
        assert "--jobs-from" in ended.complaint
        assert "name the same file" in ended.complaint
    assert jobs.read_text() == sandbox.job_ids[0]
    assert not sandbox.requests


@needs_posix
async def test_a_link_that_leads_in_a_circle_is_refused_before_any_request(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").symlink_to("runs.csv")
    ended = await invoke("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"))
    assert ended.status == 1
    assert "leads in a circle" in ended.complaint
    assert not sandbox.requests


@needs_posix
async def test_of_two_exports_into_one_file_one_is_refused_and_the_other_is_whole(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    command = ("export", *sandbox.job_ids, "-o", str(tmp_path / "runs.jsonl"))
    sandbox.faults.append(stall := Fault(breaks="stall", nth=(2,)))
    async with started(*command, "--quiet") as first:
        while len(sandbox.requests) < 2:
            await asyncio.sleep(0.01)
        second = await invoke(*command)
        assert second.status == 1
        assert "another export is at work on " in second.complaint
        first.send_signal(signal.SIGINT)
        assert (await end_of(first)).status == 130
    sandbox.faults.remove(stall)
    other = await invoke(*command, "--status", "failed")
    assert other.status == 1
    assert "an export with other arguments was interrupted here: status was null and is" in other.complaint
    assert (await invoke(*command)).status == 0
    assert lines_of(tmp_path / "runs.jsonl") == 1530


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("export job -o runs --format parqet", "parquet"),
        ("export job -o runs --format JSON", "jsonl"),
        ("watch job --start opne", "open"),
        ("list job --order ascending", "asc"),
        ("list job --status succeeded", "FINISHED"),
    ],
)
async def test_a_word_that_is_misspelled_gets_the_one_that_is_meant(line: str, meant: str) -> None:
    """As in Python."""
    ended = await invoke(*line.split())
    assert ended.status == 2
    assert f". Did you mean {meant}? (see tfruns {line.split()[0]} --help)" in ended.complaint


def test_the_formats_of_the_option_are_those_of_the_library() -> None:
    assert tuple(form.name for form in KNOWN) == FORMATS


@pytest.mark.s3
async def test_an_object_store_needs_no_more_than_its_own_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.support import objects

    with objects.object_store() as store:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", objects.KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", objects.SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        summary_file = tmp_path / "summary.json"
        url = "s3://bucket/some/runs.jsonl"
        ended = await invoke("export", *sandbox.job_ids, "-o", url, "--summary-json", str(summary_file))
        assert (ended.status, ended.out) == (0, "")
        assert ended.err.startswith(f"{url}: 1,530 runs of 3 jobs, ")
        assert json.loads(summary_file.read_text())["path"] == url
        assert len(store.read("some/runs.jsonl").splitlines()) == 1530
        store.empty()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--table", "mine"), "table mine can't be written: .*Connection refused"),
        (("--table", "a.b.c"), "--table must be the name of a table"),
        (("--format", "csv"), "--format goes with files"),
    ],
)
async def test_no_password_of_a_url_is_printed(
    options: tuple[str, ...], says: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    summary_file = tmp_path / "summary.json"
    url = "postgresql://me:hunter22@127.0.0.1:1/db"
    ended = await invoke("export", *sandbox.job_ids, "-o", url, *options, "--summary-json", str(summary_file))
    assert ended.status in (1, 2)
    assert re.search(says, ended.err)
    assert json.loads(summary_file.read_text())["path"] == "postgresql://127.0.0.1:1/db"
    assert "hunter22" not in ended.err + ended.out + summary_file.read_text()


async def test_characters_that_cant_be_seen_are_no_part_of_an_id(sandbox: Sandbox, tmp_path: Path) -> None:
    """As where several files with a mark at their start are joined, or ids are copied from a page."""
    jobs, path = tmp_path / "jobs.txt", tmp_path / "runs.jsonl"
    first, second, third = sandbox.job_ids
    jobs.write_text(f"\ufeff{first}\r\n\ufeff{second}\u200b\n\u2060 {third}\u200e\n\ufeff\n\ufeff# none\n", "utf-8")
    ended = await invoke("export", "--jobs-from", str(jobs), "-o", str(path))
    assert ended.status == 0
    assert "1,530 runs of 3 jobs" in ended.err


async def test_a_folder_of_others_is_refused_and_what_was_removed_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--since` leaves the days before as they are; `--replace` begins anew."""
    command = ("export", sandbox.job_ids[2], "-o", f"{tmp_path}/runs/", "--format", "jsonl")
    summary_file = tmp_path / "summary.json"
    assert (await invoke(*command)).status == 0
    before = {*tmp_path.glob("runs/*/*")}
    since = await invoke(*command, "--since", "3d")
    assert (since.status, {*tmp_path.glob("runs/*/*")}) == (0, before)
    assert "removed" not in since.err
    other = await invoke("export", sandbox.job_ids[0], *command[2:])
    assert other.status == 1
    assert "begin anew with replace=True (--replace)" in other.complaint
    anew = await invoke("export", sandbox.job_ids[0], *command[2:], "--replace", "--summary-json", str(summary_file))
    assert anew.status == 0
    removed = json.loads(summary_file.read_text())["removed_files"]
    assert removed == len(before - {*tmp_path.glob("runs/*/*")}) > 0
    assert f"removed {removed} files" in anew.err
