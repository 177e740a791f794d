"""What mypy and pyright say of a user's own file, outside of this project and its settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

USERS_FILE = """
import polars
import pyarrow
import pydantic
import tfruns
from tfruns.types import RunFilter


class Report(pydantic.BaseModel):
    run: tfruns.JobRun
    page: tfruns.RunPage


async def right(client: tfruns.Client, text: str) -> int:
    chosen = RunFilter(status=["FAILED", tfruns.JobRunStatus(text)])
    page = await client.list_runs("job", filter=chosen, limit=10)
    frame = polars.DataFrame(page)
    pairs = await client.iter_runs_for(["job"], status="FAILED", order="asc").collect()
    job_id, run = pairs[0]
    table: pyarrow.Table = pairs.to_arrow()
    again = tfruns.JobRun.from_dict(run.to_dict())
    report = Report(run=again, page=page)
    later = await client.iter_runs(job_id).to_polars()
    return len(page) + frame.height + table.num_rows + len(report.page[0].name) + later.height


async def wrong(client: tfruns.Client) -> None:
    client.iter_runs("job", status="FIALED")  # wrong
    client.iter_runs("job", status=["FAILED", "fialed"])  # wrong
    client.iter_runs("job", sort_by="createdAt")  # wrong
    client.iter_runs("job", order="down")  # wrong
    client.iter_runs_for(["job"], status="FIALED")  # wrong
    await client.count_runs("job", stauts="FAILED")  # wrong
    client.watch_runs("job", status="FIALED")  # wrong
    RunFilter(order="down")  # wrong
    tfruns.Client(token="key")  # wrong
"""
WRONG = [number for number, line in enumerate(USERS_FILE.splitlines(), 1) if line.endswith("# wrong")]


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users_file.py"
    path.write_text(USERS_FILE, encoding="utf-8")
    return path


def run(*command: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_refuses_what_is_wrong_and_nothing_else(users_file: Path) -> None:
    pytest.importorskip("mypy")
    printed = run("mypy", "--strict", "--output=json", users_file.name, folder=users_file.parent)
    found = [json.loads(line) for line in printed.splitlines()]
    assert [one["line"] for one in found if one["severity"] == "error"] == WRONG, printed


def test_pyright_refuses_what_is_wrong_and_nothing_else(users_file: Path) -> None:
    pytest.importorskip("pyright")
    settings = '{"typeCheckingMode": "strict", "reportUnusedImport": "none"}'
    (users_file.parent / "pyrightconfig.json").write_text(settings)
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable, users_file.name]
    printed = run(*command, folder=users_file.parent)
    found = json.loads(printed)["generalDiagnostics"]
    assert [one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"] == WRONG, printed
