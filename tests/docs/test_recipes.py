"""The recipes for services: each runs as it stands against a control plane with faults, and shows what it says."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from yarl import URL

import tfruns
from tests.support.readme import DOCS, README, Block, blocks
from tests.support.snippets import run_snippet
from tfruns.sandbox import Fault, Sandbox

OBSERVED = {block.heading: block for block in blocks("python", DOCS / "observability.md")}
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
    assert list(OBSERVED) == ["Prometheus", "structlog", "OpenTelemetry"]


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


@pytest.mark.parametrize("page", ["runs", "page"])
@pytest.mark.parametrize("job_id", ["%2e%2e", "%2E", "%20", "a%20", "%09x"])
async def test_an_id_that_no_job_can_have_is_a_422(job_id: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the reader, so it is the reader's mistake, and nothing is requested."""
    async with Sandbox(["my-job-id"], 5) as sandbox:
        async with served(sandbox, monkeypatch) as (url, _), aiohttp.ClientSession() as http:
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
