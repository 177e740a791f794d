"""The commands `watch` and `wait` as their users run them."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support.cli import KEY, NASTY, Ended, invoke, needs_posix, reading
from tfruns.sandbox import Sandbox

QUICK = ("--interval", "0.02", "0.05")


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    async with Sandbox(jobs=["a-job", "b-job"], runs=60, api_key=KEY) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


async def looked(sandbox: Sandbox, requests: int = 4) -> None:
    """Until the first looks at both jobs are over."""
    async with asyncio.timeout(90):
        while len(sandbox.requests) < requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)


@needs_posix
@pytest.mark.usefixtures("quick_clock")
async def test_watch_prints_a_harmless_line_for_each_change(sandbox: Sandbox) -> None:
    async with reading("watch", "a-job", "b-job") as line:
        await looked(sandbox, 6)
        await sandbox.create_run("b-job", id="id-1", name=f"name {NASTY}")
        appeared = await line()
        assert appeared.startswith("appeared  b-job  CREATED  name \\x1b[31m")
        assert appeared.endswith("  id-1\n")
        await sandbox.finish_run("b-job", "id-1", "FAILED")
        assert (await line()).startswith("finished  b-job  CREATED -> FAILED  name ")
        await sandbox.delete_run("b-job", "id-1")
        assert (await line()).startswith("deleted   b-job  FAILED  name ")
        await sandbox.create_run("b-job")  # the program sees that nobody reads when it has something to print


@needs_posix
async def test_watch_prints_json_and_goes_on_from_its_file(sandbox: Sandbox, tmp_path: Path) -> None:
    kept = str(tmp_path / "place")
    command = ("watch", "a-job", "--json", "--resume-from", kept, *QUICK)
    async with reading(*command) as line:
        await looked(sandbox, 3)
        run = await sandbox.create_run("a-job")
        expected = {"kind": "appeared", "jobId": "a-job", "run": run.to_dict(), "before": None}
        assert json.loads(await line()) == expected
        ended = await sandbox.finish_run("a-job", run.id)
        expected = {"kind": "finished", "jobId": "a-job", "run": ended.to_dict(), "before": run.to_dict()}
        assert json.loads(await line()) == expected
    meanwhile = await sandbox.create_run("a-job", status="FINISHED")
    async with reading(*command) as line:
        # The end may have come between the printing of the last line and its being noted.
        if (change := json.loads(await line())) == expected:
            change = json.loads(await line())
        assert change["run"] == meanwhile.to_dict()


@pytest.mark.parametrize(("end", "status"), [("FINISHED", 0), ("FAILED", 3), ("TERMINATED", 4)])
async def test_the_status_of_wait_says_how_the_run_ended(sandbox: Sandbox, end: str, status: int) -> None:
    run = await sandbox.create_run("a-job")
    waiting = asyncio.create_task(invoke("wait", "a-job", run.name, "--json", *QUICK))
    await looked(sandbox, 2)
    ended = await sandbox.finish_run("a-job", run.id, end)
    result = await waiting
    assert (result.status, result.err) == (status, "")
    assert json.loads(result.out) == ended.to_dict()


async def test_wait_prints_the_run_as_list_does(sandbox: Sandbox) -> None:
    run = await sandbox.create_run("a-job", status="FINISHED")
    waited, listed = await asyncio.gather(
        invoke("wait", "a-job", run.id), invoke("list", "a-job", "--search-prefix", run.id)
    )
    assert (waited.status, waited.out) == (0, listed.out)


@pytest.mark.usefixtures("quick_clock")
async def test_wait_has_a_status_for_each_way_not_to_see_the_end(sandbox: Sandbox) -> None:
    run = await sandbox.create_run("a-job")
    missing, late, unknown = await asyncio.gather(
        invoke("wait", "a-job", "no-such-run", "--listed-within", "0"),
        invoke("wait", "a-job", run.id, "--timeout", "0.01m"),
        invoke("wait", "no-such-job", run.id),
    )
    assert (missing.status, late.status, unknown.status) == (6, 7, 1)
    assert "no run with the id or the name 'no-such-run'" in missing.complaint
    assert "hasn't ended within 0.6 s, it is CREATED" in late.complaint
    assert "no-such-job" in unknown.complaint
    sandbox.requests.clear()
    waiting = asyncio.create_task(invoke("wait", "a-job", run.id))
    await looked(sandbox, 2)
    await sandbox.delete_run("a-job", run.id)
    deleted = await waiting
    assert deleted.status == 5
    assert "was deleted" in deleted.complaint


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("watch", "JOB..."),
        ("watch a-job --interval 5 2", "the least seconds and then the most"),
        ("watch a-job --start never", "never"),
        ("wait a-job", "RUN"),
        ("wait a-job run --timeout 0", "--timeout"),
        ("wait a-job run --timeout 1M", "'1M' is not a valid number of seconds, or a duration such as 1h30m"),
    ],
)
async def test_wrong_usage_is_reported_in_one_line_with_status_2(sandbox: Sandbox, command: str, named: str) -> None:
    ended = await invoke(*command.split())
    assert ended.status == 2
    assert named in ended.complaint


@pytest.mark.parametrize("where", ["nowhere", "file", "read-only"])
async def test_a_place_that_cant_be_kept_is_wrong_usage_before_anything_is_requested(
    where: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be found out with the first change, maybe hours later."""
    (tmp_path / "file").touch()
    (tmp_path / "read-only").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "read-only" not in str(path) and may(path, mode))
    ended = await invoke("watch", "a-job", "--resume-from", str(tmp_path / where / "place"))
    assert (ended.status, len(sandbox.requests)) == (2, 0)
    assert f"--resume-from: there can't be a file {tmp_path / where / 'place'}" in ended.complaint


@needs_posix
@pytest.mark.parametrize("path", ["/dev/null", "/proc/place", "/dev/" + "long" * 63])
async def test_a_place_that_holds_no_files_is_wrong_usage_too(path: str, sandbox: Sandbox) -> None:
    """No permission shows it: the administrator may write to every folder, and can't in some."""
    ended = await invoke("watch", "a-job", "--resume-from", path)
    assert (ended.status, len(sandbox.requests)) == (2, 0)
    assert f"--resume-from: there can't be a file {path}" in ended.complaint
    assert not Path("/dev/null").is_file()


@needs_posix
async def test_a_watch_that_is_stopped_before_anything_happens_keeps_the_place_it_had(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """What is tried before the first request leaves nothing behind, and follows a link to the file itself."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "place")
    command = ("watch", "a-job", "--resume-from", str(tmp_path / "link"), *QUICK)
    async with reading(*command) as line:
        await looked(sandbox, 3)
        assert [*(tmp_path / "folder").iterdir()] == []
        await sandbox.create_run("a-job")
        assert "appeared" in await line()
    assert (tmp_path / "link").is_symlink()
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["place"]


async def test_a_damaged_place_is_reported_and_not_overwritten(sandbox: Sandbox, tmp_path: Path) -> None:
    kept = tmp_path / "place"
    kept.write_text("tfruns1.nonsense\n")
    ended: Ended = await invoke("watch", "a-job", "--resume-from", str(kept))
    assert ended.status == 2
    assert "the token in the file of --resume-from is damaged" in ended.complaint
    assert kept.read_text() == "tfruns1.nonsense\n"
