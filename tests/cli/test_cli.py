"""The program `tfruns` as its users run it, judged by what it prints and how it ends."""

import asyncio
import datetime
import json
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

import tfruns
from tests.support.cli import (
    KEY,
    NASTY,
    Ended,
    end_of,
    exported,
    invoke,
    invoke_process,
    needs_posix,
    needs_terminals,
    on_terminal,
    reading,
    started,
)
from tests.support.hostile import Stall, page, response, serve
from tests.support.hostile import run as run_of
from tfruns.cli import options, output
from tfruns.cli.table import human_age, human_duration
from tfruns.sandbox import Sandbox


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    async with Sandbox(jobs=1, runs=1_200, api_key=KEY) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


# --- list and count ---------------------------------------------------------------------------------------------------


async def test_the_json_lines_are_the_stored_runs_in_order(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    assert (await invoke("list", job, "--json")).runs() == [run.to_dict() for run in sandbox.runs(job)]


@needs_posix
async def test_the_json_is_compact_utf8_even_in_a_locale_of_ascii(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    made = await sandbox.create_run(job, name="学習 é")
    ended = await invoke_process(
        "list", job, "--json", "--max-runs", "1", LC_ALL="POSIX", PYTHONUTF8="0", PYTHONIOENCODING="ascii"
    )
    assert ended.out == json.dumps(made.to_dict(), ensure_ascii=False, separators=(",", ":")) + "\n"


@needs_posix
async def test_the_table_shows_what_the_locale_can_in_a_locale_of_ascii(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    await sandbox.create_run(job, name="学習-1")
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    ended = await invoke_process("list", job, "--max-runs", "1", **ascii_only)
    assert (ended.status, ended.err) == (0, "")
    assert "\\u5b66\\u7fd2-1" in ended.out


async def test_the_table_has_a_row_for_each_run_with_aligned_columns(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    ended = await invoke("list", job, "--page-size", "1000", "--search-prefix", "train-")
    heading, *rows = ended.out.splitlines()
    runs = [run for run in sandbox.runs(job) if run.name.startswith("train-")]
    assert len(rows) == len(runs)
    assert re.split(r"  +", heading) == [
        *("STATUS", "CREATED (UTC)", "DURATION", "VERSION", "TRIGGERED BY", "NAME", "ID", "ERROR")
    ]
    for row, stored in zip(rows, runs, strict=True):
        subject = stored.triggered_by_subject
        trigger = stored.triggered_by or (subject.subject_display_name if subject else None) or "-"
        created = f"{stored.created:%Y-%m-%d %H:%M:%S}"
        to_the_left = {"STATUS": stored.status.value, "CREATED": created, "TRIGGERED": trigger, "NAME": stored.name}
        for name, cell in {**to_the_left, "ID": stored.id}.items():
            start = heading.index(name)
            assert row[start : start + len(cell) + 2].rstrip() == cell
        for name, cell in (("DURATION", human_duration(stored.duration)), ("VERSION", stored.deployment_version)):
            end = heading.index(name) + len(name)
            assert row[end - len(cell) - 1 : end + 1] == f" {cell} "


@pytest.mark.parametrize(
    ("arguments", "matches"),
    [
        ("", lambda run: True),
        ("--status failed", lambda run: run.status == "FAILED"),
        ("--status FAILED --status Running", lambda run: run.status in ("FAILED", "RUNNING")),
        (
            "--triggered-by ml-platform --triggered-by ci-deployer",
            lambda run: run.triggered_by in ("ml-platform", "ci-deployer"),
        ),
        ("--version-number 3 --version-number 4", lambda run: run.deployment_version in ("3", "4")),
        ("--search-prefix train-a", lambda run: run.name.startswith("train-a") or run.id.startswith("train-a")),
        ("--status failed --version-number 5", lambda run: run.status == "FAILED" and run.deployment_version == "5"),
    ],
)
async def test_list_prints_and_count_counts_the_runs_that_match(
    sandbox: Sandbox, arguments: str, matches: Callable[[tfruns.JobRun], bool]
) -> None:
    job = sandbox.job_ids[0]
    expected = [run.id for run in sandbox.runs(job) if matches(run)]
    listed, counted = await asyncio.gather(
        invoke("list", job, "--json", *arguments.split()), invoke("count", job, *arguments.split())
    )
    assert expected
    assert [run["id"] for run in listed.runs()] == expected
    assert counted == Ended(0, f"{len(expected)}\n", "")


async def test_count_as_json_names_the_job(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    ended = await invoke("count", job, "--json")
    assert json.loads(ended.out) == {"job_id": job, "count": 1_200}
    assert ended.out.endswith("}\n")


async def test_offset_max_runs_and_page_size_choose_the_stretch(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    ended = await invoke("list", job, "--json", "--offset", "3", "--max-runs", "7", "--page-size", "2")
    assert [run["id"] for run in ended.runs()] == [run.id for run in sandbox.runs(job)[3:10]]


async def test_sort_by_and_order_choose_the_order(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    created = [
        run["createdAt"]
        for run in (await invoke("list", job, "--json", "--sort-by", "startTime", "--order", "asc")).runs()
    ]
    assert created == sorted(run.created_at for run in sandbox.runs(job))


async def test_a_list_without_runs_prints_no_line_but_a_note_on_stderr() -> None:
    async with Sandbox(jobs=1, runs=0) as empty:
        where = {"TFY_HOST": empty.url, "TFY_API_KEY": empty.api_key}
        assert await invoke("list", empty.job_ids[0], **where) == Ended(0, "", "tfruns: no runs\n")
        assert await invoke("list", empty.job_ids[0], "--json", **where) == Ended(0, "", "")


async def test_host_and_key_come_from_the_credentials_file_and_the_option_goes_before_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.job_ids[0]
    monkeypatch.delenv("TFY_HOST")
    monkeypatch.delenv("TFY_API_KEY")
    file = Path.home() / ".truefoundry" / "credentials.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"host": sandbox.url, "access_token": KEY}))
    assert (await invoke("count", job)).out == "1200\n"
    file.write_text(json.dumps({"host": "http://127.0.0.1:9", "access_token": KEY}))
    assert (await invoke("count", job, "--host", sandbox.url + "/", TFY_API_KEY=KEY)).out == "1200\n"
    refused = await invoke("count", job, "--host", sandbox.url)
    assert refused.complaint == (
        f"tfruns: no API key is given for {sandbox.url}: set TFY_API_KEY, or log in with the TrueFoundry CLI"
        f" (tfy login) ({file} is for http://127.0.0.1:9, and its token goes there alone)"
    )


# --- what the server's text can do ------------------------------------------------------------------------------------


async def test_escape_sequences_of_the_server_never_reach_the_output(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    made = await sandbox.create_run(job, name=NASTY, triggered_by="\x1b]0;title\x07")
    table, lines = await asyncio.gather(
        invoke("list", job, "--max-runs", "1"), invoke("list", job, "--max-runs", "1", "--json")
    )
    for ended in (table, lines):
        assert (ended.status, ended.err) == (0, "")
        assert not re.search(r"[^\n\x20-\x7e\xa0-\u2027\u2030-\U0010ffff]", ended.out)
    assert "\\x1b[31mred\\x1b[0m \\x9b1m\\x07 \\u202eeman\\n\\rFAILED \\u2028學" in table.out
    assert table.out.count("\n") == 2
    assert json.loads(lines.out) == made.to_dict()


async def test_an_error_of_the_server_is_one_harmless_line() -> None:
    reply = response(422, {"statusCode": 422, "message": "not\nlike \x1b[31mthis\x1b[0m\r\n\nat all"})
    async with serve(lambda _: reply) as (url, _):
        ended = await invoke("list", "job", TFY_HOST=url, TFY_API_KEY=KEY)
    assert ended.status == 1
    assert "not like \\x1b[31mthis\\x1b[0m at all" in ended.complaint


async def test_a_date_beyond_the_calendar_is_shown_as_the_server_has_it() -> None:
    far = {
        "createdAt": 10**17,
        "duration": -3,
        "triggeredBySubject": {"subjectId": "1", "subjectType": "x", "subjectSlug": "ana"},
    }
    async with serve(lambda _: response(200, page([run_of(0, **far)]))) as (url, _):
        ended = await invoke("list", "job", TFY_HOST=url, TFY_API_KEY=KEY)
    assert ended.status == 0
    assert re.split(r"  +", ended.out.splitlines()[1]) == [
        "FINISHED",
        "100000000000000000 ms",
        "-3s",
        "1",
        "ana",
        "name-0",
        "run-0",
    ]


@needs_terminals
async def test_statuses_are_coloured_on_a_terminal_unless_its_user_wants_no_colours(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    await sandbox.create_run(job, status="FAILED", name=NASTY)
    red = "\x1b[31mFAILED"
    coloured = (await on_terminal("list", job, "--max-runs", "1")).raw.decode()
    plain = (await on_terminal("list", job, "--max-runs", "1", NO_COLOR="1")).raw.decode()
    piped = (await invoke("list", job, "--max-runs", "1", FORCE_COLOR="1")).out
    assert red in coloured
    assert "\x1b[31mred" not in coloured
    assert "FAILED" in plain
    assert "\x1b" not in plain + piped


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["list", ""], "JOB is empty"),
        (["count", " "], "JOB is empty"),
        (["list"], "JOB"),
        (["list", "https://acme.truefoundry.cloud/jobs/job"], "is a URL: JOB is the id of a job alone"),
        (["show", "https://acme.truefoundry.cloud/jobs/job", "run"], "is a URL: JOB is the id of a job alone"),
        (["list", "job", "--max-runs", "many"], "'many' is not a valid whole number"),
        (["wait", "job", "run", "--timeout", "soon"], "'soon' is not a valid number of seconds, or a duration such as"),
        (["list", "job", "--status", "paused"], "'paused' is not one of"),
        (["list", "job", "--page-size", "1001"], "--page-size"),
        (["list", "job", "--offset", "-1"], "--offset"),
        (["list", "job", "--sort-by", "name"], "--sort-by"),
        (["count", "job", "--version-number", "nan"], "--version-number must be finite"),
        (["list", "job", "--timeout", "nan"], "'nan' is no number"),
        (["list", "job", "--max-rate", "nan"], "'nan' is no number"),
        (["export", "job", "-o", "runs.jsonl", "--patience", "nan"], "'nan' is no number"),
        (["count", "job", "--order", "asc"], "--order"),
        (["lst", "job"], "lst"),
        (["list", "job", "--since", "soon"], "'soon' is no time: give one such as 30m, 2h, 7d, 2026-11-23"),
        (["list", "job", "--since", "2h", "--until", "3h"], "no run matches"),
        (["count", "job", "--since", "-2h"], "'-2h' is no time"),
        (["export", "-o", "runs.csv"], "no jobs were given"),
        (["export", "job"], "--output"),
        (["export", "job", "-o", "runs.xlsx"], "the name 'runs.xlsx' doesn't say which format"),
        (["export", "job", "-o", "runs.csv", "--format", "xlsx"], "--format"),
        (["export", "job", "-o", "runs.csv", "--jobs-from", "no-such-file"], "no-such-file"),
        (["export", " ", "-o", "runs.csv"], "JOB is empty"),
        (
            ["export", "job", "-o", "runs.csv", "--state", "state.json", "--status", "failed"],
            "it reads the newest runs of any status first",
        ),
        (["list", "job", "--api-key", "k"], "--api-key"),
        (["demo", "--runs", "0"], "--runs"),
        (["sandbox", "--jobs", "-1"], "--jobs must be a whole number from 1"),
        (["list", "job", "--sort-by", "created_at"], "Did you mean startTime?"),
        (["list", "job", "--sort-by", "createdAt"], "Did you mean startTime?"),
        (["export", "job", "-o", "runs.csv", "--sort-by", "triggered_by"], "Did you mean triggeredBy?"),
    ],
)
async def test_wrong_usage_is_reported_in_one_line_with_status_2(arguments: list[str], named: str) -> None:
    ended = await invoke(*arguments, TFY_HOST="http://127.0.0.1:9", TFY_API_KEY=KEY)
    assert ended.status == 2
    assert named in ended.complaint
    assert re.search(r"\(see tfruns( list| show| count| demo| export| wait| sandbox)? --help\)$", ended.complaint)


async def test_without_a_host_or_a_key_it_says_which_variable_to_set() -> None:
    no_host, no_key = await asyncio.gather(
        invoke("list", "job"), invoke("count", "job", "--host", "http://127.0.0.1:9")
    )
    assert (no_host.status, no_key.status) == (1, 1)
    assert "TFY_HOST" in no_host.complaint
    assert "TFY_API_KEY" in no_key.complaint


async def test_an_unknown_job_is_named(sandbox: Sandbox) -> None:
    ended = await invoke("list", "no-such-job")
    assert ended.status == 1
    assert "'no-such-job'" in ended.complaint
    assert "404" in ended.complaint


async def test_a_refused_key_is_not_shown(sandbox: Sandbox) -> None:
    ended = await invoke("count", sandbox.job_ids[0], TFY_API_KEY="tfy-wrong-key-987")
    assert ended.status == 1
    assert "401" in ended.complaint
    assert "tfy-wrong-key-987" not in ended.out + ended.err


@pytest.mark.usefixtures("quick_clock")
async def test_a_wrong_port_ends_soon_and_with_few_lines() -> None:
    ended = await invoke("list", "job", TFY_HOST="http://127.0.0.1:9", TFY_API_KEY=KEY)
    assert ended.status == 1
    *notices, error = ended.err.splitlines()
    assert len(notices) <= 3  # how many depends on chance, and on how busy the machine is
    assert all("attempt" in notice for notice in notices)
    assert "is the host right, and the network in order?" in error


@pytest.mark.parametrize(
    ("line", "patience"),
    [
        ("list no-such-job", 30),
        ("count no-such-job", 30),
        ("show no-such-job run", 30),
        ("export no-such-job -o runs.csv", 300),
        ("watch no-such-job", 300),
        ("wait no-such-job run", 300),
    ],
)
async def test_who_waits_at_a_terminal_waits_for_less_of_an_outage(
    sandbox: Sandbox, line: str, patience: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`list`, `count` and `show` have a result for somebody; the others are there to outlast an outage."""
    used = []

    class Recording(tfruns.Client):
        def __init__(self, *arguments: Any, retry: tfruns.RetryPolicy, **settings: Any) -> None:
            used.append(retry.patience)
            super().__init__(*arguments, retry=retry, **settings)

    monkeypatch.setattr(tfruns, "Client", Recording)
    monkeypatch.chdir(tmp_path)
    assert (await invoke(*line.split())).status == 1
    assert used == [patience]


@pytest.mark.usefixtures("quick_clock")
async def test_a_quick_retry_is_silent_and_a_long_wait_a_line_on_stderr_and_none_on_stdout() -> None:
    good = response(200, page([run_of(0)]))
    bad = response(503, {"statusCode": 503, "message": "try\n\x1b[1mlater"})
    slow = response(503, {"statusCode": 503, "message": "try\n\x1b[1mlater"}, retry_after_ms="2000")
    async with serve(lambda request: (bad, slow, good)[request.number]) as (url, _):
        ended = await invoke("list", "job", "--json", TFY_HOST=url, TFY_API_KEY=KEY)
    assert ended.status == 0
    assert ended.out.count("\n") == 1
    assert re.fullmatch(r"tfruns: job 'job', offset 0: 503 [^\n]*try \\x1b\[1mlater[^\n]*attempt 2[^\n]*\n", ended.err)


@needs_posix
async def test_a_reader_that_goes_away_ends_it_quietly(sandbox: Sandbox) -> None:
    reader, writer = os.pipe()
    async with started("list", sandbox.job_ids[0], "--json", stdout=writer) as process:
        os.close(writer)
        assert (await asyncio.to_thread(os.read, reader, 10)).startswith(b'{"id":')
        os.close(reader)
        assert await end_of(process) == Ended(0, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["list", "count"])
async def test_output_that_cannot_be_written_is_an_error_of_one_line(sandbox: Sandbox, command: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    ended = await invoke(command, sandbox.job_ids[0], stdout=full)
    os.close(full)
    assert ended.status == 1
    assert "No space left" in ended.complaint


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_summary_that_cannot_be_printed_is_an_error_of_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    command = ("export", sandbox.job_ids[0], "-o", str(tmp_path / "runs.csv"), "--quiet", "--summary-json", "-")
    ended = await invoke_process(*command, stdout=full)
    os.close(full)
    assert ended == Ended(1, "", "tfruns: standard output: No space left on device\n")
    assert (tmp_path / "runs.csv").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("args", [("demo", "--runs", "10"), ("--version",), ("list", "--help")])
async def test_a_full_disk_is_reported_in_one_line_by_commands_without_a_server_too(args: tuple[str, ...]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    ended = await invoke(*args, stdout=full)
    os.close(full)
    assert ended == Ended(1, "", "tfruns: standard output: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_full_disk_is_not_reported_again_when_python_ends() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    ended = await invoke_process("demo", "--runs", "10", stdout=full)
    os.close(full)
    assert ended == Ended(1, "", "tfruns: standard output: No space left on device\n")


@needs_posix
async def test_ctrl_c_ends_it_with_status_130_while_a_request_is_under_way() -> None:
    requested = asyncio.Event()

    def stall(_: object) -> Stall:
        requested.set()
        return Stall()

    async with serve(stall) as (url, _), started("list", "job", TFY_HOST=url, TFY_API_KEY=KEY) as process:
        await asyncio.wait_for(requested.wait(), 30)
        process.send_signal(signal.SIGINT)
        assert await end_of(process) == Ended(130, "", "\ntfruns: interrupted\n")


@needs_posix
async def test_ctrl_c_ends_it_with_status_130_while_nobody_reads_its_output(sandbox: Sandbox) -> None:
    reader, writer = os.pipe()
    async with started("list", sandbox.job_ids[0], "--json", stdout=writer) as process:
        os.close(writer)
        await asyncio.to_thread(os.read, reader, 10)
        process.send_signal(signal.SIGINT)
        assert await end_of(process) == Ended(130, "", "\ntfruns: interrupted\n")
        os.close(reader)


async def test_a_reader_that_pauses_does_not_stop_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe, os.fdopen(reader, "rb") as end:
        monkeypatch.setattr(sys, "stdout", pipe)
        writing = asyncio.create_task(output.write(b"x" * 200_000))
        await asyncio.sleep(0.05)  # comes back only if the loop runs
        assert not writing.done()
        assert await asyncio.to_thread(end.read, 200_000) == b"x" * 200_000
        await asyncio.wait_for(writing, 10)
        monkeypatch.undo()


# --- sandbox and demo -------------------------------------------------------------------------------------------------


@needs_posix
async def test_sandbox_says_where_it_is_responds_and_ends_cleanly() -> None:
    flags = "--jobs 2 --runs 30 --seed 7 --still --clock-start 2026-01-01T00:00Z --api-key it's-$mine"
    async with started("sandbox", *flags.split()) as process:
        env = await exported(process)
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 90)).decode() for _ in range(2)]
        assert env["TFY_API_KEY"] == "it's-$mine"
        async with (
            Sandbox(jobs=2, runs=30, seed=7) as same,
            tfruns.Client(env["TFY_HOST"], env["TFY_API_KEY"]) as client,
        ):
            assert [line.strip() for line in lines] == list(same.job_ids)
            for job in same.job_ids:
                assert await client.iter_runs(job).collect() == same.runs(job)
        process.send_signal(signal.SIGINT)
        assert await end_of(process) == Ended(130, "", "tfruns: ready; Ctrl-C stops it\n\ntfruns: interrupted\n")


async def test_a_port_in_use_is_reported_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await invoke("sandbox", "--port", port, "--runs", "1")
    assert ended.status == 1
    assert f"127.0.0.1 port {port}" in ended.complaint


@needs_posix
async def test_sandbox_has_faults_and_a_clock_by_flags() -> None:
    flags = "--runs 30 --living --clock-rate 600 --fault status=418,nth=1 --fault limit=7 --rate-limit 900/50"
    flags += " --forbidden shut"
    async with started("sandbox", *flags.split()) as process:
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 90)).decode().strip() for _ in range(3)]
        host, key = (line.partition("=")[2] for line in lines[:2])
        async with tfruns.Client(host, key, retry=tfruns.RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(tfruns.APIStatusError, match="418"):
                await client.count_runs(lines[2])
            assert len((await client.list_runs(lines[2])).data) == 7
            for error in (tfruns.APIStatusError, tfruns.PermissionDeniedError):
                with pytest.raises(error):
                    await client.count_runs("shut")
            async with asyncio.timeout(90):
                while await client.count_runs(lines[2]) <= 30:  # its clock runs
                    await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert (await end_of(process)).status == 143


async def test_sandbox_says_what_it_does_until_it_is_ready(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("hello\n")
    ended = await invoke("sandbox", "--runs-from", str(tmp_path / "runs.jsonl"))
    first, second = ended.err.splitlines()
    assert (ended.status, first) == (1, f"tfruns: reading {tmp_path / 'runs.jsonl'}")
    assert "line 1 isn't JSON" in second


async def test_the_sandbox_of_the_readme_is_of_today_and_lives() -> None:
    """Its newest runs were created just now, some are running, and what happens can be watched and waited for."""
    async with started("sandbox", "--jobs", "my-job-id", "--runs", "2000", "--clock-rate", "600") as process:
        env = await exported(process)
        since, running, waited = await asyncio.gather(
            invoke("count", "my-job-id", "--since", "2h", **env),
            invoke("count", "my-job-id", "--status", "running", **env),
            invoke("wait", "my-job-id", "train-7f3a", "--timeout", "60", "--interval", "0.1", "0.1", **env),
        )
        assert int(since.out) > 0
        assert int(running.out) > 0
        assert "train-7f3a" in waited.out
        assert waited.status in (0, 3)
        async with reading("watch", "my-job-id", "--interval", "0.05", "0.1", **env) as line:
            assert "my-job-id" in await line()


async def test_sandbox_serves_what_list_wrote(sandbox: Sandbox, tmp_path: Path) -> None:
    job = sandbox.job_ids[0]
    runs = [{**run.to_dict(), "jobId": job} for run in sandbox.runs(job)[:20]]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    async with started("sandbox", "--runs-from", str(tmp_path / "runs.jsonl")) as process:
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 90)).decode().strip() for _ in range(3)]
        async with tfruns.Client(*(line.partition("=")[2] for line in lines[:2])) as client:
            assert await client.iter_runs(job).collect() == sandbox.runs(job)[:20]


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        ("--fault x=1", 2, "a fault is made of status"),
        ("--fault status=99", 2, "from 400 to 599, got 99"),
        ("--rate-limit fast", 2, "such as 50 or 50/10, got 'fast'"),
        ("--rate-limit 0", 2, "per_second must be above 0"),
        ("--clock-rate -1", 2, "--clock-rate must be"),
        ("--clock-start soon", 2, "'soon' is no time"),
        ("--runs-from /no/such/file", 2, "/no/such/file"),
        ("--port {port}", 1, "can't listen on"),
    ],
)
async def test_a_bad_flag_of_sandbox_is_reported_in_one_line(
    tmp_path: Path, flags: str, status: int, says: str
) -> None:
    file = tmp_path / "file"
    file.write_text("hello " * 20)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = flags.format(file=file, port=taken.getsockname()[1])
        ended = await invoke("sandbox", "--runs", "1", *flags.split())
    assert ended.status == status
    assert says in ended.complaint


async def test_demo_says_what_it_does_and_sums_up_the_runs_by_status() -> None:
    ended = await invoke("demo", "--runs", "2500", "--seed", "3", FORCE_COLOR="1")
    assert (ended.status, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    first, *lines = ended.out.splitlines()
    assert "sandbox" in first
    assert "2,500 runs" in first
    assert "2,500 of 2,500 runs" in lines
    async with Sandbox(jobs=1, runs=2_500, seed=3) as same:
        runs = same.runs(same.job_ids[0])
    for status, number in Counter(run.status.value for run in runs).items():
        longest = human_duration(
            max((run.duration for run in runs if run.status == status and run.duration), default=None)
        )
        shown = next(line for line in lines if re.match(rf"\W*{status}\W+{number:,}\W", line))
        assert f"{number / 2_500:.1%}" in shown
        assert longest in shown
    assert all(run.id in ended.out for run in runs[:3])
    assert re.fullmatch(r"2,500 runs in [\d.]+ s by \d requests: [\d,]+ runs a second.*", lines[-1])


async def test_demo_of_a_single_run() -> None:
    ended = await invoke("demo", "--runs", "1")
    assert (ended.status, ended.out.splitlines()[:2]) == (
        0,
        ["Lists 1 run of a made-up job over HTTP, from a sandbox on this machine.", "1 of 1 run"],
    )


@needs_terminals
async def test_demo_shows_a_bar_on_a_terminal() -> None:
    shown = (await on_terminal("demo", "--runs", "1200")).text
    assert "━" in shown
    assert "1200/1200" in shown
    assert "1,200 of 1,200 runs" not in shown


# --- help and installation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "count", "export", "watch", "wait", "demo", "sandbox"])
async def test_every_command_has_help_with_an_example(command: str) -> None:
    for option in ("--help", "-h"):
        ended = await invoke(command, option)
        assert (ended.status, ended.err) == (0, "")
        assert f"  tfruns {command} " in re.split("Examples?:", ended.out)[1]


async def test_help_lists_the_commands_and_a_bare_tfruns_shows_it_as_wrong_usage() -> None:
    explicit, bare = await asyncio.gather(invoke("--help"), invoke())
    assert explicit.status == 0
    assert all(
        f"\n  {command} " in explicit.out for command in ("list", "count", "export", "watch", "wait", "demo", "sandbox")
    )
    assert bare == Ended(2, "", explicit.out)


async def test_version_is_the_package_s() -> None:
    assert await invoke("--version") == Ended(0, f"tfruns {tfruns.__version__}\n", "")


@pytest.mark.parametrize("missing", ["click", "rich"])
async def test_without_the_extra_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    ended = await invoke("list", "job")
    assert ended.status == 1
    # Here it is run in a checkout, where a tfruns from elsewhere would be another.
    assert re.search(r"needs click and rich: (uv )?pip install --editable '\.\[cli\]'$", ended.complaint)


def test_the_choices_are_those_of_the_models() -> None:
    assert list(options.STATUSES) == [status.value for status in tfruns.JobRunStatus]
    assert list(options.SORT_KEYS) == [key.value for key in tfruns.JobRunsSortBy]
    assert list(options.DIRECTIONS) == [direction.value for direction in tfruns.SortDirection]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3_599, "59m 59s"), (7_260, "2h 01m"), (90_000, "1d 01h")],
)
def test_durations_are_shown_as_their_two_largest_units(seconds: float | None, shown: str) -> None:
    assert human_duration(seconds) == shown


async def test_since_lists_and_counts_the_runs_created_since_and_reads_no_further(sandbox: Sandbox) -> None:
    job_id = sandbox.job_ids[0]
    newest, *_, middle = (await invoke("list", job_id, "--json", "--max-runs", "300")).runs()
    since = datetime.datetime.fromtimestamp(middle["createdAt"] / 1000, datetime.UTC).isoformat()  # type: ignore[operator]
    sandbox.requests.clear()
    listed = (await invoke("list", job_id, "--json", "--since", since, "--page-size", "100")).runs()
    assert listed[0]["id"] == newest["id"]
    assert len(listed) >= 300
    assert min(run["createdAt"] for run in listed) == middle["createdAt"]  # type: ignore[type-var]
    assert await invoke("count", job_id, "--since", since) == Ended(0, f"{len(listed)}\n", "")
    ago = await invoke("list", job_id, "--since", "1s")
    assert (ago.status, ago.out) == (0, "")
    assert (await invoke("count", job_id, "--since", "5000w")).out == "1200\n"


async def test_since_stops_reading_a_long_list_where_older_runs_begin() -> None:
    async with Sandbox(jobs=1, runs=40_000, api_key=KEY) as long:
        (job_id,) = long.job_ids
        run = await long.create_run(job_id)
        where = {"TFY_HOST": long.url, "TFY_API_KEY": KEY}
        for command, shown in (("list", run.id), ("count", "1\n")):
            long.requests.clear()
            ended = await invoke(command, job_id, "--since", f"{run.created:%Y-%m-%dT%H:%M:%S.%fZ}", **where)
            assert ended.status == 0
            assert shown in ended.out
            assert 1 <= len(long.requests) <= 20  # of the 41 that all would take; pages are fetched ahead


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0s"), (59.9, "59s"), (60, "1m"), (7_300, "2h"), (86_400, "1d"), (1e9, "11,574d")]
)
def test_an_age_is_shown_as_its_largest_unit(seconds: float, shown: str) -> None:
    assert human_age(seconds) == shown


@needs_terminals
async def test_a_terminal_shows_how_long_ago_each_run_was_created_and_a_pipe_does_not(sandbox: Sandbox) -> None:
    job_id = sandbox.job_ids[0]
    created_at = int(time.time() * 1000) - 3 * 3_600_000 - 600_000
    run = await sandbox.create_run(job_id, name="three-hours", created_at=created_at)
    command = ("list", job_id, "--search-prefix", "three-hours")
    heading, row = (await on_terminal(*command, NO_COLOR="1")).text.splitlines()
    assert re.split(r"  +", heading)[:4] == ["STATUS", "CREATED (UTC)", "AGE", "DURATION"]
    assert re.split(r"  +", row)[1:3] == [f"{run.created:%Y-%m-%d %H:%M:%S}", "3h"]
    assert "AGE" not in (await invoke(*command)).out
