"""The recipes for data platforms, each run as a program against a control plane, where its packages are there."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from tests.support.readme import DOCS, README, blocks
from tfruns.sandbox import Sandbox

pytestmark = pytest.mark.recipes
JOBS = ["my-job-id", "my-other-job-id"]


def run_program(source: str, url: str, sandbox: Sandbox, folder: Path, *flags: str, **variables: str) -> str:
    """Run it in the folder, against the control plane at the URL, and return what it printed."""
    env = {**os.environ, "TFY_HOST": url, "TFY_API_KEY": sandbox.api_key, "PYTHONPATH": str(README.parent), **variables}
    command = [sys.executable, *flags, "-c", source]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sandbox.api_key not in done.stdout + done.stderr
    return done.stdout


def open_run(sandbox: Sandbox) -> str:
    runs = [run for run in sandbox.runs("my-job-id") if run.name == "train-7f3a" and run.status == "RUNNING"]
    return max(runs, key=lambda run: run.created_at).id


def happen(sandbox: Sandbox) -> None:
    """A run that was open ends, and a new one begins."""
    run_id = open_run(sandbox)
    asyncio.run(sandbox.finish_run("my-job-id", run_id, "FAILED"))
    asyncio.run(sandbox.create_run("my-other-job-id", name="after", status="RUNNING"))


def expected(sandbox: Sandbox) -> list[tuple[str, str, str]]:
    return sorted((job_id, run.id, str(run.status)) for job_id in JOBS for run in sandbox.runs(job_id))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(JOBS, [1200, 30], clock_start="now") as sandbox:
        asyncio.run(sandbox.create_run("my-job-id", name="train-7f3a", status="RUNNING"))
        yield sandbox


def test_dlt_merges_what_changed_and_repeats_no_run(sandbox: Sandbox, tmp_path: Path) -> None:
    pytest.importorskip("dlt")
    duckdb = pytest.importorskip("duckdb")
    [recipe] = blocks("python", DOCS / "dlt.md")
    settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(tmp_path / "dlt")}
    for number in (1231, 1232):
        run_program(recipe.source, sandbox.url, sandbox, tmp_path, **settings)
        with duckdb.connect(tmp_path / "runs.duckdb") as database:
            found = database.sql("SELECT job_id, id, status FROM truefoundry.runs").fetchall()
        assert len(found) == number
        assert sorted(found) == expected(sandbox)
        if number == 1231:
            happen(sandbox)


def test_a_delta_table_takes_increments_that_bring_the_end_of_open_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    [recipe] = blocks("python", DOCS / "delta.md")
    for version, number in enumerate((1231, 1232)):
        run_program(recipe.source, sandbox.url, sandbox, tmp_path, "-W", "error")
        table = deltalake.DeltaTable(tmp_path / "runs-delta")
        found = table.to_pyarrow_table(columns=["job_id", "id", "status"]).to_pylist()
        assert sorted(tuple(row.values()) for row in found) == expected(sandbox)
        assert (table.version(), len(found)) == (version, number)
        if number == 1231:
            happen(sandbox)


@contextmanager
def with_applications(sandbox: Sandbox) -> Iterator[str]:
    """A control plane that lists its jobs, too, 100 a response, and leaves the rest to the sandbox."""

    async def applications(request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {sandbox.api_key}"
        assert (request.query["applicationType"], request.query["workspaceFqn"]) == ("job", "my-cluster:my-workspace")
        jobs = [*JOBS, *(f"gone-{number}" for number in range(200))]
        offset, limit = int(request.query["offset"]), int(request.query["limit"])
        subject = {"subjectId": "s", "subjectType": "user"}
        fields = {"type": "job", "createdBySubject": subject, "lifecycleStage": "active", "autopilot": {}}
        data = [{"id": job_id, **fields} for job_id in jobs[offset : offset + limit]]
        pagination = {"total": len(jobs), "offset": offset, "limit": limit}
        return web.json_response({"data": data, "pagination": pagination})

    async def others(request: web.Request) -> web.Response:
        headers = {"authorization": request.headers["authorization"]}
        async with ClientSession() as http, http.get(sandbox.url + request.path_qs, headers=headers) as response:
            return web.Response(body=await response.read(), status=response.status, content_type=response.content_type)

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/api/svc/v1/apps", applications)
        app.router.add_get("/{rest:.*}", others)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    urls: list[str] = []
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert started.wait(30)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.mark.vendor
def test_the_jobs_of_a_workspace_come_from_the_vendors_sdk(sandbox: Sandbox, tmp_path: Path) -> None:
    pytest.importorskip("truefoundry_sdk")
    [recipe] = blocks("python", DOCS / "workspace.md")
    with with_applications(sandbox) as url:
        *lines, last = run_program(recipe.source, url, sandbox, tmp_path).splitlines()
    failed = {(job_id, run.name) for job_id in JOBS for run in sandbox.runs(job_id) if run.status == "FAILED"}
    assert {tuple(line.split()[:2]) for line in lines} == failed
    assert last == "200 jobs skipped"


RUN_DAG = """
from runs_dag import report_dag
ended = report_dag.test()
print("ENDED", ended.state, *sorted((one.task_id, str(one.state)) for one in ended.get_task_instances()))
"""


@pytest.mark.parametrize(("status", "ends"), [("FINISHED", "success"), ("FAILED", "failed")])
def test_airflow_defers_until_the_run_has_ended(sandbox: Sandbox, status: str, ends: str, tmp_path: Path) -> None:
    pytest.importorskip("airflow", exc_type=ImportError)
    folder = tmp_path / "dags"
    folder.mkdir()
    for name, block in zip(("tfruns_sensor.py", "runs_dag.py"), blocks("python", DOCS / "airflow.md"), strict=True):
        (folder / name).write_text(block.source)
    run_id = open_run(sandbox)

    def end_the_run_that_is_waited_for() -> None:
        while not sandbox.requests:
            time.sleep(0.05)
        asyncio.run(sandbox.finish_run("my-job-id", run_id, status))

    variables = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{README.parent}:{folder}",
    }
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env={**os.environ, **variables}, check=True, timeout=300
    )
    thread = threading.Thread(target=end_the_run_that_is_waited_for, daemon=True)
    thread.start()
    printed = run_program(RUN_DAG, sandbox.url, sandbox, tmp_path, **variables)
    thread.join()
    assert "Pausing task as DEFERRED" in printed
    [last] = [line for line in printed.splitlines() if line.startswith("ENDED")]
    after = "success" if ends == "success" else "upstream_failed"
    assert last == f"ENDED {ends} ('failed_runs', '{after}') ('trained', '{ends}')"
