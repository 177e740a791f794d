"""The recipes for services: each runs as it stands against a control plane with faults, and shows what it says."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
import yaml
from yarl import URL

import tfruns
from tests.support.cli import invoke
from tests.support.readme import DOCS, README, Block, blocks
from tests.support.snippets import run_snippet
from tfruns.sandbox import Fault, Sandbox

OBSERVED = {block.heading: block for block in blocks("python", DOCS / "observability.md")}
[QUEUE] = blocks("python", DOCS / "queue.md")
[FASTAPI] = blocks("python", DOCS / "fastapi.md")


def output(recipe: Block) -> str:
    """What the recipe prints as a program, where the first response is a 503."""
    with Sandbox(["my-job-id"], 200, faults=[Fault(status=503, nth=1)]) as sandbox:
        env = {**os.environ, "TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key, "PYTHONPATH": str(README.parent)}
        command = [sys.executable, "-W", "error", "-c", recipe.source]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert sandbox.api_key not in done.stdout
    errors = [line for line in done.stderr.splitlines() if "attempt 1 failed" not in line]  # logging's last resort
    assert (done.returncode, errors) == (0, [])
    return done.stdout


def test_every_recipe_was_found() -> None:
    assert list(OBSERVED) == ["Prometheus", "Run states as gauges", "structlog", "OpenTelemetry"]


def test_a_queue_worker_reads_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is a page; the next one goes on from its token, in another event loop."""
    monkeypatch.chdir(tmp_path)
    assert output(QUEUE) == "200 runs\n"


def test_prometheus_collects_counts_times_and_retries() -> None:
    printed = output(OBSERVED["Prometheus"])
    values = dict(re.findall(r"^(tfruns_[^ ]+) ([\d.e+]+)$", printed, re.MULTILINE))
    assert printed.startswith("200 runs\n")
    assert values['tfruns_request_seconds_count{status="503"}'] == "1.0"
    assert values['tfruns_retries_total{error="InternalServerError"}'] == "1.0"
    assert float(values["tfruns_requests_total"]) >= 2
    assert values["tfruns_runs_total"] == "200.0"
    assert float(values["tfruns_bytes_total"]) > 10_000
    assert (values["tfruns_in_flight"], values["tfruns_waiting"]) == ("0.0", "0.0")
    assert "\ntfruns_failures_total{" not in printed


def test_gauges_follow_the_runs_that_have_not_ended(unused_tcp_port: int) -> None:
    jobs = ["my-job-id", "my-other-job-id"]
    with Sandbox(jobs, [200, 0], clock_start="now") as sandbox:
        [run_id, *_] = [run.id for run in sandbox.runs(jobs[0]) if run.status == "RUNNING"] or [""]
        if not run_id:
            run_id = asyncio.run(sandbox.create_run(jobs[0], status="RUNNING")).id
        env = {**os.environ, "TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key, "PYTHONPATH": str(README.parent)}
        command = [sys.executable, "-W", "error", "-c", OBSERVED["Run states as gauges"].source]
        program = subprocess.Popen(command, env={**env, "PORT": str(unused_tcp_port)}, stderr=subprocess.PIPE)
        try:
            url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
            scrape(url, lambda values: open_runs(values) == expected_open(sandbox, jobs))
            asyncio.run(sandbox.finish_run(jobs[0], run_id, "FAILED"))
            asyncio.run(sandbox.create_run(jobs[1], status="SCHEDULED"))
            ended = scrape(url, lambda values: open_runs(values) == expected_open(sandbox, jobs))
            assert ended['tfruns_ended_runs_total{job_id="my-job-id",status="FAILED"}'] == 1
        finally:
            program.kill()
            program.communicate()


def scrape(url: str, is_right: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The values of the metrics, once they are right."""
    values: dict[str, float] = {}
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as response:  # noqa: S310
            found = re.findall(r"^(tfruns_\w+{.*}) ([\d.e+]+)$", response.read().decode(), re.MULTILINE)
            values = {name: float(value) for name, value in found}
            if is_right(values):
                return values
        time.sleep(0.1)
    pytest.fail(f"the gauges stay at {values}")


def open_runs(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("tfruns_open_runs{") and value}


def expected_open(sandbox: Sandbox, jobs: list[str]) -> dict[str, float]:
    runs = [(job, run.status) for job in jobs for run in sandbox.runs(job) if not run.status.is_terminal]
    return {f'tfruns_open_runs{{job_id="{job}",status="{status}"}}': n for (job, status), n in Counter(runs).items()}


def test_a_night_of_the_cron_job_reads_little_more_than_what_is_new(tmp_path: Path) -> None:
    """Its command runs as it stands, but for the folders of its volumes and the host."""
    pa = pytest.importorskip("pyarrow.dataset")
    [recipe] = blocks("yaml", DOCS / "kubernetes.md")
    spec = yaml.safe_load(recipe.source)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    [program, *arguments] = container["command"]
    for mount in container["volumeMounts"]:
        folder = tmp_path / mount["name"]
        folder.mkdir()
        arguments = [one.replace(f"={mount['mountPath']}/", f"={folder}/") for one in arguments]
    assert program == "tfruns"
    (tmp_path / "config" / "jobs.txt").write_text("my-job-id\nmy-other-job-id\n")
    with Sandbox(["my-job-id", "my-other-job-id"], [1200, 30], clock_start="now") as sandbox:
        env = {"TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key}
        assert {one["name"] for one in container["env"]} == {*env}
        requests = []
        for _ in range(2):
            done = asyncio.run(invoke(*arguments, **env))
            assert done.status == 0, done.err
            ids = pa.dataset(tmp_path / "data" / "runs", partitioning="hive").to_table(columns=["id"])["id"].to_pylist()
            assert sorted(ids) == sorted(run.id for job in sandbox.job_ids for run in sandbox.runs(job))
            requests.append(json.loads((tmp_path / "data" / "summary.json").read_text())["requests"])
            asyncio.run(sandbox.create_run("my-other-job-id", name="after"))
        assert requests[1] <= requests[0]
    assert (tmp_path / "data" / "runs.state.json").is_file()


@pytest.mark.recipes
async def test_the_cells_of_the_notebook_run_and_draw_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("duckdb")
    cells = blocks("python", DOCS / "notebooks.md")
    async with Sandbox(["my-job-id", "my-other-job-id"], [2500, 3]) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", sandbox.api_key)
        names: dict[str, Any] = {"__name__": "__main__"}
        for cell in cells:
            names = await run_snippet(cell.source, filename="notebooks.md", namespace=names)
        failed = [run.id for run in sandbox.runs("my-job-id") if run.status == "FAILED"]
        await names["client"].aclose()
    assert len(names["page"]) > 0
    assert sorted(run.id for run in names["failed"]) == sorted(failed)
    bar = names["bar"]
    assert (bar.n, bar.total) == (len(failed), len(failed))
    assert "my-other-job-id" in capsys.readouterr().out


def test_structlog_has_the_extras_and_what_is_bound() -> None:
    records = [json.loads(line) for line in output(OBSERVED["structlog"]).splitlines()]
    refused = next(record for record in records if record.get("status_code") == 503)
    retried = next(record for record in records if record["level"] == "info" and "wait" in record)
    good = next(record for record in records if record.get("status_code") == 200)
    for record in (refused, retried, good):
        assert (record["job_id"], record["offset"], record["logger"]) == ("my-job-id", 0, "tfruns")
        assert record["report"] == "weekly"
    assert (refused["attempt"], retried["attempt"], good["attempt"]) == (1, 1, 2)
    assert good["seconds"] > 0
    assert refused["request_id"] == retried["request_id"]


def test_opentelemetry_has_a_span_for_each_attempt() -> None:
    printed = output(OBSERVED["OpenTelemetry"])
    spans = [json.loads(text) for text in re.findall(r"^{.*?^}$", printed, re.MULTILINE | re.DOTALL)]
    assert [span["attributes"]["http.response.status_code"] for span in spans][:2] == [503, 200]
    assert {span["name"] for span in spans} == {"GET /api/svc/v1/jobs/{jobId}/runs"}


@asynccontextmanager
async def served(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, tfruns.Client]]:
    """The service of the recipe, by uvicorn on loopback: its URL, and its client."""
    monkeypatch.setenv("TFY_HOST", sandbox.url)
    monkeypatch.setenv("TFY_API_KEY", sandbox.api_key)
    names: dict[str, Any] = {"__name__": "service"}
    await run_snippet(FASTAPI.source, filename="fastapi.md", namespace=names)
    server = uvicorn.Server(uvicorn.Config(names["app"], port=0, ws="none", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", server.lifespan.state["client"]
    finally:
        server.should_exit = True
        await serving


async def test_the_service_streams_runs_and_says_whether_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(["my-job-id", "other", "empty"], [5, 2500, 0]) as sandbox:
        async with served(sandbox, monkeypatch) as (url, _), aiohttp.ClientSession(url) as http:
            async with http.get("/ready") as response:
                assert (response.status, await response.json()) == (200, {"runs": 5})
            async with http.get("/jobs/other/runs") as response:
                runs = [json.loads(line) async for line in response.content]
                assert (response.status, response.content_type) == (200, "application/x-ndjson")
            assert len({run["id"] for run in runs}) == len(runs) == 2500
            async with http.get("/jobs/empty/runs") as response:
                assert (response.status, await response.read()) == (200, b"")
            async with http.get("/jobs/none/runs") as response:
                assert (response.status, await response.json()) == (404, {"detail": "there is no job 'none'"})
            sent = len(sandbox.requests)
            sandbox.faults.append(Fault(status=503))
            async with http.get("/ready") as response:
                assert (response.status, await response.json()) == (503, {"detail": "InternalServerError"})
            assert len(sandbox.requests) == sent + 1
            sandbox.new_key()
            sandbox.faults.clear()
            async with http.get("/ready") as response:
                assert (response.status, await response.json()) == (503, {"detail": "AuthenticationError"})


@pytest.mark.beyond_contract
async def test_the_service_returns_a_page_as_the_control_plane_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(["my-job-id"], 250) as sandbox:
        paused = await sandbox.create_run("my-job-id", status=tfruns.JobRunStatus("PAUSED"))
        async with served(sandbox, monkeypatch) as (url, client), aiohttp.ClientSession(url) as http:
            expected = await client.list_runs("my-job-id")
            async with http.get("/jobs/my-job-id/page") as response:
                assert (response.status, await response.json()) == (200, expected.to_dict())
            async with http.get("/jobs/my-job-id/page?status=FAILED&status=RUNNING&offset=1") as response:
                runs = tfruns.RunPage.from_dict(await response.json())
            async with http.get("/jobs/my-job-id/page?status=FIALED") as response:
                assert response.status == 422  # the mistake is the reader's, and no outage
                assert "FIALED" in (await response.json())["detail"]
        assert expected[0] == paused
        assert {run.status for run in runs} == {"FAILED", "RUNNING"}


async def test_the_service_describes_runs_in_its_openapi(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(["my-job-id"], 5) as sandbox:
        async with served(sandbox, monkeypatch) as (url, _), aiohttp.ClientSession(url) as http:
            async with http.get("/openapi.json") as response:
                described = await response.json()
    get = described["paths"]["/jobs/{job_id}/page"]["get"]
    returned = get["responses"]["200"]["content"]["application/json"]["schema"]
    assert returned == {"$ref": "#/components/schemas/RunPage"}
    schemas = described["components"]["schemas"]
    assert {"JobRun", "JobRunStatus", "Pagination", "RunPage", "Subject", "SubjectType"} <= schemas.keys()
    assert schemas["RunPage"]["properties"]["data"]["items"] == {"$ref": "#/components/schemas/JobRun"}
    assert schemas["JobRun"]["properties"]["exitCode"]["description"] == "Exit code of the command."
    [status] = [one for one in get["parameters"] if one["name"] == "status"]
    assert {"$ref": "#/components/schemas/JobRunStatus"} in [one.get("items") for one in status["schema"]["anyOf"]]


async def test_an_id_that_no_job_can_have_is_a_422(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the reader, so it is the reader's mistake, and nothing is requested."""
    async with Sandbox(["my-job-id"], 5) as sandbox:
        async with served(sandbox, monkeypatch) as (url, _), aiohttp.ClientSession() as http:
            for job_id in ("%2e%2e", "%2E", "%20", "a%20", "%09x"):
                for page in ("runs", "page"):
                    async with http.get(URL(f"{url}/jobs/{job_id}/{page}", encoded=True)) as response:
                        assert response.status == 422, await response.text()
                        assert "job_id" in (await response.json())["detail"]
        assert not sandbox.requests


async def test_what_the_control_plane_refuses_is_a_502(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a 500, which would say that the service itself is broken."""
    async with Sandbox(["my-job-id"], 5, forbidden=["my-job-id"]) as sandbox:
        async with served(sandbox, monkeypatch) as (url, _), aiohttp.ClientSession(url) as http:
            async with http.get("/jobs/my-job-id/runs") as response:
                assert response.status == 502
                assert (await response.json())["detail"] == "the control plane: PermissionDeniedError"


@pytest.mark.parametrize("waits_for", ["the control plane", "the reader"])
async def test_a_reader_that_disconnects_cancels_the_walk(waits_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the walk waits for a page or for the reader: its requests end, and no task of it is left."""
    with Sandbox(["my-job-id"], 25_000) as sandbox:  # in a thread, so that all tasks here are the service's
        if waits_for == "the control plane":
            sandbox.faults.append(Fault(breaks="stall", nth=tuple(range(3, 100))))
        async with served(sandbox, monkeypatch) as (url, client), asyncio.timeout(90):
            before = asyncio.all_tasks()
            async with aiohttp.ClientSession(url) as http:
                async with http.get("/jobs/my-job-id/runs") as response:
                    await response.content.readline()
                    while len(sandbox.requests) < 4 or (client.stats().in_flight > 0) != (waits_for != "the reader"):
                        await asyncio.sleep(0.01)
                    assert asyncio.all_tasks() - before
                    response.close()
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
            assert client.stats().in_flight == 0
            assert client.stats().runs < 25_000
