"""The recipes for data platforms, each run as a program against a control plane, where its packages are there."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import ClientSession, web

from tests.support.readme import DOCS, README, Block, blocks
from tfruns.sandbox import Sandbox

pytestmark = pytest.mark.recipes
JOBS = ["my-job-id", "my-other-job-id"]
LATER = "my-later-job-id"


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


def expected(sandbox: Sandbox, jobs: Sequence[str] = JOBS) -> list[tuple[str, str, str]]:
    return sorted((job_id, run.id, str(run.status)) for job_id in jobs for run in sandbox.runs(job_id))


def with_jobs(recipe: Block, jobs: Sequence[str]) -> str:
    """The recipe with a load of those jobs."""
    named = '["my-job-id", "my-other-job-id"]'
    assert recipe.source.count(named) == 1
    return recipe.source.replace(named, str([*jobs]).replace("'", '"'))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox([*JOBS, LATER], [1200, 30, 500], clock_start="now") as sandbox:
        for job_id in sandbox.job_ids:  # no old run is open, so that increments have something to leave out
            for run in sandbox.runs(job_id):
                if not run.status.is_terminal:
                    asyncio.run(sandbox.finish_run(job_id, run.id))
        sandbox.clock.advance(60)
        asyncio.run(sandbox.create_run("my-job-id", name="train-7f3a", status="RUNNING"))
        yield sandbox


def read_dlt(folder: Path) -> list[tuple[Any, ...]]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(folder / "runs.duckdb") as database:
        return sorted(database.sql("SELECT job_id, id, status FROM truefoundry.runs").fetchall())


def read_delta(folder: Path) -> list[tuple[Any, ...]]:
    deltalake = pytest.importorskip("deltalake")
    table = deltalake.DeltaTable(folder / "runs-delta")
    return sorted(tuple(row.values()) for row in table.to_pyarrow_table(columns=["job_id", "id", "status"]).to_pylist())


@attrs.frozen
class Loading:
    """A recipe that is run every night, and what its table has."""

    recipe: Block
    read: Callable[[Path], list[tuple[Any, ...]]]
    flags: tuple[str, ...]
    folder: Path
    sandbox: Sandbox

    def load(self, jobs: Sequence[str] = JOBS) -> None:
        settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(self.folder / "dlt")}
        source = with_jobs(self.recipe, jobs)
        run_program(source, self.sandbox.url, self.sandbox, self.folder, *self.flags, **settings)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.read(self.folder)


@pytest.fixture(params=["dlt", "delta"])
def loading(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Loading:
    pytest.importorskip({"dlt": "dlt", "delta": "deltalake"}[request.param])
    [recipe] = blocks("python", DOCS / f"{request.param}.md")
    read, flags = (read_dlt, ()) if request.param == "dlt" else (read_delta, ("-W", "error"))
    return Loading(recipe, read, flags, tmp_path, sandbox)


def test_a_second_load_brings_what_has_changed_and_repeats_no_run(loading: Loading) -> None:
    """A run that was open has its end, a new one is there, and nothing else is read again."""
    loading.load()
    assert len(loading.rows()) == 1231
    assert loading.rows() == expected(loading.sandbox)
    happen(loading.sandbox)
    loading.sandbox.requests.clear()
    loading.load()
    assert len(loading.rows()) == 1232
    assert loading.rows() == expected(loading.sandbox)
    assert len(loading.sandbox.requests) < 100


def test_a_job_that_is_added_later_is_read_whole(loading: Loading) -> None:
    """However long ago its runs were, and whatever the others have; and a job that is left out keeps its rows."""
    loading.load()
    happen(loading.sandbox)
    loading.load([*JOBS, LATER])
    assert loading.rows() == expected(loading.sandbox, [*JOBS, LATER])
    asyncio.run(loading.sandbox.create_run("my-job-id"))
    loading.load([LATER])
    assert len(loading.rows()) == 1232 + 500
    loading.load([*JOBS, LATER])
    assert loading.rows() == expected(loading.sandbox, [*JOBS, LATER])


def test_loads_without_runs_change_nothing(loading: Loading) -> None:
    """Of a job that has none yet, or in which nothing has happened since."""
    with Sandbox(JOBS, 0, api_key=loading.sandbox.api_key) as sandbox:
        loading = attrs.evolve(loading, sandbox=sandbox)
        loading.load()
        asyncio.run(sandbox.create_run("my-job-id", status="FINISHED"))
        for _ in range(2):
            loading.load()
            assert loading.rows() == expected(sandbox)


def test_a_run_created_during_a_load_is_in_the_next(loading: Loading) -> None:
    """Even in a job that was read before, while later runs of another job are read."""
    sandbox = loading.sandbox
    asyncio.run(sandbox.finish_run("my-job-id", open_run(sandbox)))
    sandbox.faults.append("latency=2,job-id=my-job-id,nth=1")

    def create() -> None:
        while not any("my-other-job-id" in request.path for request in sandbox.requests):
            time.sleep(0.01)
        time.sleep(0.2)
        asyncio.run(sandbox.create_run("my-other-job-id", name="between"))
        sandbox.clock.advance(10)
        asyncio.run(sandbox.create_run("my-job-id", name="later"))

    creating = threading.Thread(target=create)
    creating.start()
    loading.load()
    creating.join()
    assert len(loading.rows()) == 1232  # all but the one that was created in between
    sandbox.faults.clear()
    loading.load()
    assert loading.rows() == expected(sandbox)


def test_a_load_that_was_interrupted_is_completed_by_the_next(loading: Loading) -> None:
    """Between the export and the merge, and between the merge and the end: no run is lost or repeated."""
    crash = "raise SystemExit('crash')"
    merging = {"dlt": "print(pipeline.run(runs(file)))", "delta": "with ParquetFile(file) as runs:"}
    [at] = [line for line in merging.values() if line in loading.recipe.source]
    for place in (at, "file.unlink()  # it is in the table"):
        source = loading.recipe.source.replace(
            place, f"{crash}; {place}" if "with" not in place else f"{crash}\n        {place}"
        )
        broken = attrs.evolve(loading, recipe=attrs.evolve(loading.recipe, source=source))
        with pytest.raises(AssertionError, match="crash"):
            broken.load()
        happen(loading.sandbox)
        asyncio.run(loading.sandbox.create_run("my-job-id", name="train-7f3a", status="RUNNING"))
        loading.load()
        assert loading.rows() == expected(loading.sandbox)


def test_a_delta_table_keeps_its_own_columns_and_a_new_one_gets_every_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """Columns that were added to the table stay as they are; a table that was deleted is filled again."""
    deltalake = pytest.importorskip("deltalake")
    [recipe] = blocks("python", DOCS / "delta.md")
    loading = Loading(recipe, read_delta, ("-W", "error"), tmp_path, sandbox)
    loading.load()
    path = str(tmp_path / "runs-delta")
    deltalake.DeltaTable(path).alter.add_columns([deltalake.Field("note", deltalake.schema.PrimitiveType("string"))])
    deltalake.DeltaTable(path).update(updates={"note": "'ours'"})
    happen(sandbox)
    loading.load()
    assert loading.rows() == expected(sandbox)
    notes = deltalake.DeltaTable(path).to_pyarrow_table(columns=["note"])["note"].to_pylist()
    assert sorted(notes, key=str) == [None] + ["ours"] * 1231
    shutil.rmtree(path)
    loading.load()
    assert loading.rows() == expected(sandbox)


@contextmanager
def with_applications(sandbox: Sandbox, shifts: Sequence[int] = ()) -> Iterator[str]:
    """A control plane that lists its jobs, too, 100 a response, and leaves the rest to the sandbox. Between its first
    responses, jobs come or go, so that the list shifts by these numbers."""
    shift = iter(shifts)

    async def applications(request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {sandbox.api_key}"
        assert (request.query["applicationType"], request.query["workspaceFqn"]) == ("job", "my-cluster:my-workspace")
        jobs = [*(f"gone-{number}" for number in range(100)), *JOBS, *(f"gone-{number}" for number in range(100, 200))]
        offset, limit = max(0, int(request.query["offset"]) + next(shift, 0)), int(request.query["limit"])
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
    assert {(line.split(" ")[0], line.partition(" ")[2].rpartition(" ")[0]) for line in lines} == failed
    assert last == "200 jobs skipped"


@pytest.mark.vendor
@pytest.mark.parametrize("shift", [5, -5], ids=["jobs are deleted", "jobs are created"])
def test_a_workspace_that_changes_while_it_is_listed_loses_and_repeats_no_job(
    sandbox: Sandbox, shift: int, tmp_path: Path
) -> None:
    """The vendor's paging skips jobs or lists them twice then: no run is missing, and none is there twice."""
    pytest.importorskip("truefoundry_sdk")
    [recipe] = blocks("python", DOCS / "workspace.md")
    with with_applications(sandbox, [0, shift, shift]) as url:
        *lines, last = run_program(recipe.source, url, sandbox, tmp_path).splitlines()
    failed = [run for job_id in JOBS for run in sandbox.runs(job_id) if run.status == "FAILED"]
    assert len(lines) == len(set(lines)) == len(failed)
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
