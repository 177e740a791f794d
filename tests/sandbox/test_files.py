"""What a sandbox keeps in a database, starts from, and takes over its admin address."""

import gzip
import json
import sqlite3
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


# --- database ---


async def test_a_database_keeps_the_runs_and_every_change(tmp_path: Path) -> None:
    file = tmp_path / "runs.sqlite"
    async with Sandbox(2, (30, 0), database=file) as s:
        first, second = s.job_ids
        made = [await s.create_run(second) for _ in range(3)]
        await s.finish_run(second, made[0].id)
        await s.delete_run(second, made[1].id)
        await s.update_run(first, s.runs(first)[5].id, name="new name")
        before = states(s)
    async with Sandbox(5, 7, seed=3, database=str(file)) as again:
        assert again.job_ids == (first, second)
        assert states(again) == before
        born = {(await again.create_run(job_id)).id for job_id in (first, second) for _ in range(50)}
        assert len(born) == 100
        async with tfruns.Client(again.url, again.api_key) as client:
            assert await client.count_runs(first) == 80
    async with Sandbox(database=file) as third:
        assert len(third.runs(second)) == 52


async def test_runs_that_live_are_kept_too_and_live_on(tmp_path: Path) -> None:
    async with Sandbox(1, 20, database=tmp_path / "db", living=True) as s:
        s.clock.advance(600)
        before, then = states(s), s.clock.now
    async with Sandbox(database=tmp_path / "db", living=True) as again:
        assert states(again) == before
        assert again.clock.now <= then
        again.clock.advance(3600)
        after = states(again)
    [job_id] = before
    assert len(after[job_id]) > len(before[job_id])
    assert {run.id for run in before[job_id]} < {run.id for run in after[job_id]}


async def test_a_file_that_is_no_database_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "text", tmp_path / "other"
    text.write_text("hello " * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    contents = text.read_bytes(), other.read_bytes()
    with pytest.raises(ValueError, match="isn't a SQLite database"):
        await Sandbox(database=text).start()
    with pytest.raises(ValueError, match="none that a sandbox has made"):
        await Sandbox(database=other).start()
    with pytest.raises(OSError, match="can't be opened"):
        await Sandbox(database=tmp_path / "no" / "such").start()
    assert (text.read_bytes(), other.read_bytes()) == contents


async def test_a_database_has_one_sandbox_at_a_time(tmp_path: Path) -> None:
    async with Sandbox(1, 1, database=tmp_path / "db"):
        with pytest.raises(OSError, match="locked"):
            await Sandbox(1, 1, database=tmp_path / "db").start()
    async with Sandbox(1, 1, database=tmp_path / "db") as s:
        assert len(s.runs(s.job_ids[0])) == 1


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
        (gzip.compress(b'{"id": "x", "jobId": "a"}\n' * 99)[:-20], "is cut off or damaged|isn't a run"),
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
