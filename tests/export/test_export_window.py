"""Exports of the runs that were created within a time."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tfruns import Client
from tfruns.export import export_runs
from tfruns.export.destination import find_destination
from tfruns.export.pipeline import Export
from tfruns.export.secrets import Hidden
from tfruns.sandbox import Sandbox


async def test_only_runs_of_the_window_are_written(tmp_path: Path) -> None:
    """Of each job, in the server's order."""
    async with Sandbox(2, 300) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        moments = sorted(run.created_at for run in (await client.list_runs(sandbox.job_ids[0], limit=300)).data)
        window = {"created_after": moments[100], "created_before": moments[200]}
        summary = await export_runs(client, sandbox.job_ids, tmp_path / "runs.jsonl", **window)  # type: ignore[arg-type]
        written = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
        wanted = [
            run.id
            for job_id in sandbox.job_ids
            for run in (await client.list_runs(job_id, limit=300)).data
            if moments[100] <= run.created_at < moments[200]
        ]
    assert [run["id"] for run in written] == wanted
    assert summary.runs == len(wanted) > 100


async def test_so_long_ago_is_the_same_argument_at_each_call(tmp_path: Path) -> None:
    """So that an export that was interrupted goes on, though the clock has."""
    async with Client("https://a.example", "key") as client:
        about = [
            Export(
                client=client,
                destination=find_destination(Hidden(tmp_path / "runs.jsonl"), Hidden(None), "runs", None),
                filters={"sort_by": None, "order": None, "status": None, **window},
                state_path=None,
                replace=False,
                work_dir=None,
                on_bad_run="raise",
                on_progress=None,
                page_size=1000,
            ).arguments
            for window in (
                {"created_after": timedelta(hours=24), "created_before": None},
                {"created_after": timedelta(hours=24), "created_before": None},
                {"created_after": timedelta(hours=25), "created_before": None},
            )
        ]
    assert about[0] == about[1] != about[2]


async def test_an_increment_has_no_window(tmp_path: Path) -> None:
    async with Client("https://a.example", "key") as client:
        with pytest.raises(ValueError, match="state goes with no .*created_after"):
            await export_runs(
                client, ["job"], tmp_path / "r.csv", state=tmp_path / "state", created_after=timedelta(hours=1)
            )
