"""The file that a sandbox starts from."""

import gzip
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

import tfruns
from tfruns.sandbox import Sandbox


def states(s: Sandbox) -> dict[str, list[tfruns.JobRun]]:
    return {job_id: s.runs(job_id) for job_id in s.job_ids}


# --- runs to start from ---


def lines(runs: dict[str, list[tfruns.JobRun]], **more: Any) -> bytes:
    return b"".join(
        json.dumps({**run.to_dict(), "jobId": job_id, **more}).encode() + b"\n"
        for job_id, each in runs.items()
        for run in each
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_it_starts_from_a_file_of_json_lines(tmp_path: Path, pack: Any) -> None:
    async with Sandbox(["b", "a/é"], (20, 30)) as s:
        runs = states(s)
    (tmp_path / "runs").write_bytes(pack(lines(runs) + b"\n"))
    async with Sandbox(runs_from=tmp_path / "runs") as again:
        assert again.job_ids == ("b", "a/é")
        assert states(again) == runs
        made = await again.create_run("b")
        assert again.runs("b")[0] == made


async def test_a_field_that_is_not_known_is_served_as_it_was(tmp_path: Path) -> None:
    async with Sandbox(["a"], 1) as s:
        (tmp_path / "runs").write_bytes(lines(states(s), newField={"x": [1, None]}))
    async with Sandbox(runs_from=tmp_path / "runs") as s, tfruns.Client(s.url, s.api_key) as client:
        async for page in client.iter_runs("a").raw_pages():
            served = json.loads(page.texts[0])
    assert served["newField"] == {"x": [1, None]}
    assert "jobId" not in served


async def test_what_older_servers_sent_is_brought_to_the_form_of_the_contract(tmp_path: Path) -> None:
    async with Sandbox(["a"], 1) as s:
        [run] = s.runs("a")
    older: dict[str, Any] = {**run.to_dict(), "jobId": "a", "deploymentVersion": 12, "duration": "77"}
    del older["totalRetries"]
    (tmp_path / "runs").write_text(json.dumps(older))
    async with Sandbox(runs_from=tmp_path / "runs") as s, tfruns.Client(s.url, s.api_key) as client:
        assert await client.iter_runs("a").collect() == [attrs.evolve(run, duration=77, total_retries=0)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no runs"),
        (b"{\n", "line 1 isn't JSON"),
        (b"\n[]\n", "line 2 isn't a run with its job"),
        (b'{"id": "x"}\n', "line 1 isn't a run with its job"),
        (b'{"id": "x", "jobId": "a"}\n', "line 1 isn't a run: .*name"),
        (b"\xff\xfe\n", "line 1 isn't JSON"),
        (gzip.compress(b'{"id": "x", "jobId": "a"}\n' * 99, mtime=0)[:-20], "is cut off or damaged|isn't a run"),
        (b"\x1f\x8bnonsense", "is cut off or damaged"),
    ],
)
async def test_a_file_that_cannot_be_understood_says_where(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "runs").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        await Sandbox(runs_from=tmp_path / "runs").start()


async def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Sandbox(runs_from=tmp_path / "nowhere").start()
