"""The fixtures, in test suites of their own."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")  # or pytest-asyncio itself warns
TEST = """
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

def test_sync(pytestconfig):
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
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", ["-o", "asyncio_mode=auto", *SCOPE]),
        ("@pytest.mark.asyncio", ["-o", "asyncio_mode=strict", *SCOPE]),
        ("@pytest.mark.anyio", ["-p", "no:asyncio"]),
    ],
    ids=["pytest-asyncio, auto", "pytest-asyncio, strict", "anyio"],
)
def test_two_lines_are_enough_in_every_mode(tmp_path: Path, mark: str, options: list[str]) -> None:
    imports = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n" if "anyio" in mark else ""
    if "anyio" in mark:  # as where pytest-asyncio isn't installed
        (tmp_path / "pytest_asyncio.py").write_text("raise ImportError\n")
    done = suite(tmp_path, TEST.format(mark=mark, imports=imports), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_plugin_costs_test_suites_nothing_that_do_not_use_it() -> None:
    code = (
        "import pytest, pytest_asyncio, sys; before = set(sys.modules); import tfruns.pytest_plugin;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not {"aiohttp", "msgspec", "cattrs", "attrs", "tenacity"} & set(done.stdout.split())
    assert "tfruns" in done.stdout.split()


def test_the_fixtures_are_listed_with_what_they_give(tmp_path: Path) -> None:
    done = suite(tmp_path, "def test_nothing(): pass\n", "--markers", *SCOPE)
    assert "@pytest.mark.tfruns_sandbox(**arguments)" in done.stdout
    (tmp_path / "more").mkdir()
    done = suite(tmp_path / "more", "def test_nothing(): pass\n", "--fixtures", *SCOPE)
    assert "A `tfruns.Client` of the sandbox of this test" in done.stdout
