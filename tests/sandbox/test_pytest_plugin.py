"""The fixtures, in test suites of their own."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")  # or pytest-asyncio itself warns
ASYNC = """
import pytest
{imports}

{mark}
async def test_two_lines(tfruns_sandbox, tfruns_client):
    assert await tfruns_client.count_runs(tfruns_sandbox.job_ids[0]) == 1000
    run = await tfruns_sandbox.create_run(tfruns_sandbox.job_ids[0])
    assert await tfruns_client.iter_runs(tfruns_sandbox.job_ids[0]).first() == run
    tfruns_sandbox.new_key()
    assert await tfruns_client.count_runs(tfruns_sandbox.job_ids[0]) == 1001

{mark}
@pytest.mark.tfruns_sandbox(["a"], runs=3, faults=["status=503,nth=1"])
async def test_arguments(tfruns_sandbox, tfruns_client):
    assert await tfruns_client.count_runs("a") == 3

{mark}
async def test_a_walk_that_is_left(tfruns_sandbox, tfruns_client):
    async for run in tfruns_client.iter_runs(tfruns_sandbox.job_ids[0], page_size=10):
        break
"""
SYNC = """
import asyncio
import fastapi
import pytest
import tfruns
from fastapi.testclient import TestClient

def test_asyncio_run(tfruns_sandbox, tfruns_client):
    job_id = tfruns_sandbox.job_ids[0]
    run = asyncio.run(tfruns_sandbox.create_run(job_id, status="RUNNING"))
    assert asyncio.run(tfruns_client.count_runs(job_id)) == 1001
    assert asyncio.run(tfruns_client.iter_runs(job_id).first()) == run  # an event loop of its own again

@pytest.fixture
def app(tfruns_sandbox, tfruns_client):
    app = fastapi.FastAPI()

    @app.get("/failed/{job_id}")
    async def failed(job_id: str) -> int:
        return await tfruns_client.count_runs(job_id, status="FAILED")

    return app

@pytest.mark.tfruns_sandbox(["a"], runs=0)
def test_fastapi(tfruns_sandbox, app):
    asyncio.run(tfruns_sandbox.create_run("a", status="FAILED"))
    with TestClient(app) as web:
        assert web.get("/failed/a").json() == web.get("/failed/a").json() == 1
    web = TestClient(app)  # with an event loop for each request
    assert web.get("/failed/a").json() == web.get("/failed/a").json() == 1

@pytest.fixture
def web(app):
    with TestClient(app) as web:
        yield web

@pytest.mark.tfruns_sandbox(["a"], runs=7)
def test_fastapi_by_fixtures(tfruns_sandbox, web):
    assert web.get("/failed/a").json() == sum(run.status == "FAILED" for run in tfruns_sandbox.runs("a"))

def test_a_client_of_the_test_s_own(tfruns_sandbox):
    async def main():
        async with tfruns.Client(tfruns_sandbox.url, tfruns_sandbox.api_key) as client:
            return [run.id async for run in client.iter_runs(tfruns_sandbox.job_ids[1])]

    assert asyncio.run(main()) == [run.id for run in tfruns_sandbox.runs(tfruns_sandbox.job_ids[1])]

def test_unused(tfruns_client):
    assert isinstance(tfruns_client, tfruns.Client)

def test_nothing(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("tfruns")
"""


def suite(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test suite where tfruns is installed, as far as entry points go."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = folder / "site" / "tfruns-0.0.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tfruns\nVersion: 0.0.0\n")
    listed = "".join(f"{name} = {module}\n" for name, module in entry_points.items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{listed}")
    (folder / "test_it.py").write_text(test)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed.parent), str(ROOT)])}
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-W", "error", "--strict-markers", *options]
    command += ["-p", "no:cacheprovider", "-p", "no:schemathesis", f"--rootdir={folder}", str(folder / "test_it.py")]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


AUTO = ("-o", "asyncio_mode=auto", *SCOPE)
STRICT = ("-o", "asyncio_mode=strict", *SCOPE)
NO_ASYNCIO = ("-p", "no:asyncio")
NEITHER = ("-p", "no:asyncio", "-p", "no:anyio")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "options", "passed"),
    [
        ("", AUTO, 3),
        ("", (*AUTO, "-o", "asyncio_default_test_loop_scope=session"), 3),
        ("@pytest.mark.asyncio", STRICT, 3),
        ("@pytest.mark.anyio", NO_ASYNCIO, 3),
        ("@pytest.mark.anyio", STRICT, 3),
    ],
    ids=[
        "pytest-asyncio, auto",
        "one event loop for all",
        "pytest-asyncio, strict",
        "anyio alone",
        "anyio beside pytest-asyncio",
    ],
)
def test_async_tests_need_nothing_but_the_fixtures(
    tmp_path: Path, mark: str, options: tuple[str, ...], passed: int
) -> None:
    """A sandbox and a client of it work under every plugin for async tests, and leave nothing behind."""
    imports = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n" if "anyio" in mark else ""
    if options == NO_ASYNCIO:  # as where pytest-asyncio isn't installed
        (tmp_path / "pytest_asyncio.py").write_text("raise ImportError\n")
    done = suite(tmp_path, ASYNC.format(mark=mark, imports=imports), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [NO_ASYNCIO, STRICT], ids=["anyio alone", "anyio beside pytest-asyncio"])
def test_trio_is_refused_by_name(tmp_path: Path, options: tuple[str, ...]) -> None:
    """anyio runs each test on trio too, where it is installed: those are skipped, with the reason, and the others run.
    A suite that runs on trio alone isn't skipped in silence: it fails with that reason."""
    pytest.importorskip("trio")
    test = ASYNC.format(mark="@pytest.mark.anyio", imports="")
    done = suite(tmp_path, test, *options, "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed, 3 skipped" in done.stdout
    assert "tfruns needs asyncio" in done.stdout
    (tmp_path / "alone").mkdir()
    imports = "@pytest.fixture\ndef anyio_backend():\n    return 'trio'\n"
    done = suite(tmp_path / "alone", ASYNC.format(mark="@pytest.mark.anyio", imports=imports), *options)
    assert "3 errors" in done.stdout
    assert "tfruns needs asyncio" in done.stdout
    assert "no running event loop" not in done.stdout


@pytest.mark.slow
def test_a_sandbox_serves_programs_on_trio(tmp_path: Path) -> None:
    """It has its own thread: a program that talks HTTP by itself may run on any event loop."""
    pytest.importorskip("trio")
    test = """
import httpx2
import pytest

@pytest.mark.anyio
async def test_http(tfruns_sandbox):
    await tfruns_sandbox.create_run(tfruns_sandbox.job_ids[0])
    headers = {"Authorization": f"Bearer {tfruns_sandbox.api_key}"}
    async with httpx2.AsyncClient(base_url=tfruns_sandbox.url, headers=headers) as http:
        response = await http.get(f"/api/svc/v1/jobs/{tfruns_sandbox.job_ids[0]}/runs")
        assert response.json()["pagination"]["total"] == 1001
"""
    done = suite(tmp_path, test, *NO_ASYNCIO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [AUTO, STRICT, NO_ASYNCIO, NEITHER], ids=["auto", "strict", "anyio alone", "neither plugin"]
)
def test_synchronous_tests_need_nothing_but_the_fixtures(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Synchronous tests, FastAPI's TestClient among them, reach the sandbox, whatever plugin is there."""
    done = suite(tmp_path, SYNC, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_the_plugin_costs_test_suites_nothing_that_do_not_use_it() -> None:
    code = (
        "import asyncio, pytest, sys; before = set(sys.modules); import tfruns.pytest_plugin;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not {"aiohttp", "msgspec", "cattrs", "attrs", "tenacity"} & set(done.stdout.split())
    assert "tfruns" in done.stdout.split()


@pytest.mark.slow
def test_the_fixtures_are_listed_with_what_they_give(tmp_path: Path) -> None:
    done = suite(tmp_path, "def test_nothing(): pass\n", "--markers", *SCOPE)
    assert "@pytest.mark.tfruns_sandbox(**arguments)" in done.stdout
    (tmp_path / "more").mkdir()
    done = suite(tmp_path / "more", "def test_nothing(): pass\n", "--fixtures", *SCOPE)
    assert "A `tfruns.Client` of the sandbox of this test" in done.stdout
