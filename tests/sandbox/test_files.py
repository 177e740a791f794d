"""The file that a sandbox starts from, and what it takes over its admin address."""

import gzip
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
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


# --- admin ---


@attrs.frozen
class Admin:
    """Asks the admin address of a sandbox."""

    sandbox: Sandbox
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        url = self.sandbox.admin_url + path
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
async def admin() -> AsyncGenerator[Admin]:
    async with Sandbox(["a/b"], 5, admin_port=0) as s, aiohttp.ClientSession() as http:
        yield Admin(s, http)


async def test_runs_are_created_changed_finished_and_deleted_over_the_admin_address(admin: Admin) -> None:
    status, made = await admin.ask("POST", "/jobs/a%2Fb/runs", {"name": "mine", "status": "RUNNING"})
    assert (status, made["name"]) == (201, "mine")
    assert admin.sandbox.runs("a/b")[0].to_dict() == made
    path = f"/jobs/a%2Fb/runs/{made['id']}"
    status, changed = await admin.ask("PATCH", path, {"totalRetries": 3})
    assert (status, changed) == (200, {**made, "totalRetries": 3})
    await admin.ask("PATCH", "/clock", {"advance": 9})
    status, done = await admin.ask("POST", f"{path}/finish", {"status": "FAILED", "error": "oh"})
    assert (status, done["status"], done["error"], done["duration"]) == (200, "FAILED", "oh", 9)
    assert (await admin.ask("DELETE", path)) == (204, None)
    assert len(admin.sandbox.runs("a/b")) == 5
    assert (await admin.ask("POST", "/jobs/a%2Fb/runs"))[0] == 201


async def test_clock_faults_and_key_are_set_over_the_admin_address(admin: Admin) -> None:
    s = admin.sandbox
    then = s.clock.now
    assert await admin.ask("GET", "/clock") == (200, {"now": then, "rate": 0})
    assert await admin.ask("PATCH", "/clock", {"advance": 1.5}) == (200, {"now": then + 1500, "rate": 0})
    assert (await admin.ask("PATCH", "/clock", {"rate": 2}))[1]["rate"] == s.clock.rate == 2
    assert await admin.ask("PUT", "/faults", ["status=418"]) == (200, {"count": 1})
    old = s.api_key
    assert await admin.ask("POST", "/key") == (200, {"apiKey": s.api_key})
    assert s.api_key != old
    async with tfruns.Client(s.url, s.api_key) as client:
        with pytest.raises(tfruns.APIStatusError, match="418"):
            await client.count_runs("a/b")
        assert await admin.ask("PUT", "/faults", []) == (200, {"count": 0})
        assert await client.count_runs("a/b") == 5


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/jobs/none/runs", {}, 404, "no job 'none'"),
        ("PATCH", "/jobs/a%2Fb/runs/none", {"name": "x"}, 404, "no run with the id 'none'"),
        ("DELETE", "/jobs/a%2Fb/runs/none", None, 404, "no run with the id 'none'"),
        ("POST", "/jobs/a%2Fb/runs", {"created_at": 5}, 422, "no field 'created_at'; its fields are id, name"),
        ("POST", "/jobs/a%2Fb/runs", {"duration": "x"}, 422, "duration"),
        ("POST", "/jobs/a%2Fb/runs", [], 422, "must be a JSON object"),
        ("PATCH", "/clock", {"advance": -1}, 422, "seconds must be"),
        ("PATCH", "/clock", {"advance": "1"}, 422, "seconds must be"),
        ("PATCH", "/clock", {"speed": 1}, 422, "takes advance and rate, got speed"),
        ("PUT", "/faults", ["x"], 422, "a fault is made of"),
        ("PUT", "/faults", {"a": 1}, 422, "a fault is made of"),
        ("GET", "/nowhere", None, 404, "Not Found"),
        ("PUT", "/clock", None, 405, "Method Not Allowed"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_an_http_error(
    admin: Admin, method: str, path: str, body: Any, status: int, says: str
) -> None:
    before = states(admin.sandbox)
    answered, error = await admin.ask(method, path, body)
    assert (answered, error["statusCode"]) == (status, status)
    assert says in error["message"]
    assert states(admin.sandbox) == before


async def test_a_body_that_is_no_json_is_refused(admin: Admin) -> None:
    async with admin.http.post(admin.sandbox.admin_url + "/jobs/a%2Fb/runs", data=b"{") as answer:
        assert answer.status == 422
    async with admin.http.post(admin.sandbox.admin_url + "/jobs/a%2Fb/runs", data=b"[" * 100_000) as answer:
        assert answer.status == 422


async def test_web_pages_have_no_access_to_the_admin_address(admin: Admin) -> None:
    status, _ = await admin.ask("POST", "/key", Origin="https://evil.example")
    assert status == 403


async def test_the_served_address_does_not_take_changes(admin: Admin) -> None:
    async with admin.http.post(f"{admin.sandbox.url}/jobs/a%2Fb/runs", json={}) as answer:
        assert answer.status == 404
    async with Sandbox(1, 1) as plain:
        assert plain.admin_url == ""
