"""Exports to a folder: files by day of creation, each replaced whole, which engines read as they are."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas
import pyarrow
import pytest

from tests.export.test_export import READERS, fill, flat, of_arrow
from tests.support.hostile import page, response, run, serve
from tests.support.living import exported_in_rounds
from tfruns import Client
from tfruns.export import ExportError, dataset, export_runs
from tfruns.export.formats import zstd
from tfruns.sandbox import Sandbox

if TYPE_CHECKING:
    from tests.support.objects import ObjectStore


def by_key(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found = list(rows)
    keyed = {(row.get("job_id") or row["jobId"], row["id"]): row for row in found}
    assert len(keyed) == len(found)
    return keyed


def content(folder: Path, form: str) -> dict[tuple[str, str], dict[str, Any]]:
    """All runs of a dataset, each in the file of its day."""
    rows = []
    for path in folder.glob(f"*/runs.{form}"):
        if form == "parquet":
            found = READERS[form](path)
        else:
            data = zstd.decompress(path.read_bytes()) if form.endswith("zst") else path.read_bytes()
            found = [json.loads(line) for line in data.splitlines()]
        for row in found:
            created_at = row.get("created_at") or row["createdAt"]
            day = datetime.fromtimestamp(created_at / 1000, UTC).date().isoformat()
            assert path.parent.name == f"created_date={day}"
        rows += found
    return by_key(rows)


@pytest.mark.polars
async def test_engines_read_the_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the day as a column; also if the runs are more than are held while they are sorted."""
    polars = pytest.importorskip("polars")
    monkeypatch.setattr(dataset, "_HELD", 10_000)
    folder = tmp_path / "runs"
    async with Sandbox(jobs=3, runs=[400, 0, 2500]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await fill(sandbox)
        summary = await export_runs(client, sandbox.job_ids, f"{folder}/", format="parquet")
        wanted = by_key([flat(job_id, run) for job_id in sandbox.job_ids async for run in client.iter_runs(job_id)])
    assert (summary.path, summary.runs) == (folder, 2904)
    assert summary.size == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    assert content(folder, "parquet") == wanted
    frame = pandas.read_parquet(folder, dtype_backend="pyarrow").drop(columns="created_date")
    database = duckdb.connect()
    database.read_parquet(f"{folder}/*/*.parquet", hive_partitioning=True).create_view("runs")
    tables = {
        "pandas": pyarrow.Table.from_pandas(frame, preserve_index=False),
        "polars": polars.scan_parquet(f"{folder}/").drop("created_date").collect().to_arrow(),
        "duckdb": database.sql("SELECT * EXCLUDE created_date FROM runs").to_arrow_table(),
    }
    for name, table in tables.items():
        assert by_key(of_arrow(table)) == wanted, name
    days = "SELECT count(*) FROM runs WHERE created_date <> CAST(timezone('UTC', created_at) AS DATE)"
    assert database.sql(days).fetchall() == [(0,)]
    database.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.slow  # test_increments.py has one for files here
@pytest.mark.parametrize("form", ["jsonl.zst", "parquet"])
async def test_ten_exports_of_a_living_list_make_the_folder_that_one_export_makes(form: str, tmp_path: Path) -> None:
    async def export(client: Client, job_ids: Sequence[str]) -> None:
        await export_runs(client, job_ids, f"{tmp_path}/runs/", format=form, state=tmp_path / "state.json")

    async with exported_in_rounds(form, export, pauses=(60, 600, 4000, 90_000)) as (client, job_ids):
        await export_runs(client, job_ids, f"{tmp_path}/full/", format=form)
    found = content(tmp_path / "runs", form)
    assert found == content(tmp_path / "full", form)
    assert len(found) > 1445


async def test_an_increment_replaces_only_the_files_of_the_days_that_it_is_about(tmp_path: Path) -> None:
    arguments: Any = {"destination": f"{tmp_path}/runs/", "format": "jsonl", "state": tmp_path / "state.json"}
    async with Sandbox(jobs=1, runs=3000) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        async for run in client.iter_runs(sandbox.job_ids[0]):
            if not run.status.is_terminal:
                await sandbox.finish_run(sandbox.job_ids[0], run.id)
        await export_runs(client, sandbox.job_ids, **arguments)
        before = {path: path.stat().st_ino for path in tmp_path.glob("runs/*/*")}
        sandbox.clock.advance(2 * 86_400)
        new = await sandbox.create_run(sandbox.job_ids[0])
        await export_runs(client, sandbox.job_ids, **arguments)
    after = {path: path.stat().st_ino for path in tmp_path.glob("runs/*/*")}
    (added,) = after.keys() - before.keys()
    assert json.loads(added.read_text())["id"] == new.id
    untouched = [path for path, number in before.items() if after[path] == number]
    assert len(untouched) > len(before) / 2


async def test_a_full_export_takes_away_the_days_that_are_no_more(tmp_path: Path) -> None:
    day = 86_400_000
    runs = [run(number, createdAt=number * day) for number in range(5, 0, -1)]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :], len(runs)))) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        await export_runs(client, ["job"], f"{tmp_path}/runs/", format="jsonl")
        runs[2:] = [run(9, createdAt=2e15)]
        summary = await export_runs(client, ["job"], f"{tmp_path}/runs/", format="jsonl")
        assert (summary.runs, summary.rejected) == (2, 1)
        assert summary.quarantine == tmp_path / "runs.rejected.jsonl"
        names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        assert names == [
            "runs.rejected.jsonl",
            "runs/_SUCCESS",
            "runs/_tfruns.json",
            "runs/created_date=1970-01-05/runs.jsonl",
            "runs/created_date=1970-01-06/runs.jsonl",
        ]
        runs.clear()
        await export_runs(client, ["job"], f"{tmp_path}/runs/", format="jsonl", state=tmp_path / "state")
        assert sorted(path.name for path in tmp_path.glob("runs/**/*")) == ["_SUCCESS", "_tfruns.json"]
        runs.append(run(1, createdAt=day))
        await export_runs(client, ["job"], f"{tmp_path}/runs/", format="jsonl", state=tmp_path / "state")
        assert len([*tmp_path.glob("runs/*/runs.jsonl")]) == 1


@pytest.mark.parametrize(
    "name", ["mine.parquet", "created_date=2026-01-01/part-0.parquet", "created_date=x/runs.jsonl"]
)
async def test_a_folder_with_other_files_is_refused(name: str, tmp_path: Path) -> None:
    """They would be read as runs; and they are nothing that an export should remove."""
    other = tmp_path / "runs" / name
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(ExportError, match=f"runs holds {name}, which isn't of such a dataset"):
            await export_runs(client, sandbox.job_ids, f"{tmp_path}/runs/", format="jsonl")
        assert not sandbox.requests
    assert other.read_text() == "mine"


@pytest.mark.s3
async def test_a_folder_in_an_object_store_is_the_same_and_survives_uploads_that_fail(
    bucket: "ObjectStore", tmp_path: Path
) -> None:
    """Each day is one of before or of now; the file that says that all is well is gone until the same call ends it."""
    options = bucket.options
    arguments: Any = {"format": "jsonl", "storage_options": options, "state": tmp_path / "state.json"}
    async with Sandbox(jobs=2, runs=[1500, 20]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, "s3://bucket/all/runs/", **arguments)
        before = bucket.names()
        assert before[0] == "all/runs/_SUCCESS"
        for _ in range(3):
            sandbox.clock.advance(90_000)
            await sandbox.create_run(sandbox.job_ids[1])
        puts: list[str] = []

        def refuse(method: str, query: dict[str, list[str]]) -> bool:
            if method == "PUT":
                puts.append(method)
            return len(puts) > 1

        bucket.on_request = refuse
        with pytest.raises(ExportError, match=r"s3://bucket/all/runs/created_date=.*/runs\.jsonl can't be written"):
            await export_runs(client, sandbox.job_ids, "s3://bucket/all/runs/", **arguments)
        bucket.on_request = lambda _method, _query: False
        assert "all/runs/_SUCCESS" not in bucket.names()
        sandbox.requests.clear()
        summary = await export_runs(client, sandbox.job_ids, "s3://bucket/all/runs/", **arguments)
        assert (summary.path, summary.resumed_jobs, len(sandbox.requests)) == ("s3://bucket/all/runs/", 2, 0)
        await export_runs(client, sandbox.job_ids, f"{tmp_path}/full/", format="jsonl")
    names = bucket.names()
    assert len(names) == len(before) + 3
    found = [json.loads(line) for name in names if "=" in name for line in bucket.read(name).splitlines()]
    assert by_key(found) == content(tmp_path / "full", "jsonl")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"destination": "runs/"}, "whose format must be one of jsonl, jsonl.gz, jsonl.zst, parquet; none was given"),
        ({"destination": "runs/", "format": "sqlite"}, "must be one of .*; got 'sqlite'"),
        ({"destination": "no/such/runs/", "format": "jsonl"}, "there is no folder .*no/such for runs"),
        ({"destination": "file/", "format": "jsonl"}, "file is no folder"),
        ({"destination": "/", "format": "jsonl"}, "there is no folder / for /"),
        ({"destination": "s3://bucket/", "format": "jsonl"}, "s3://bucket/ names no object"),
        (
            {"destination": "runs/", "format": "jsonl", "state": "runs/state.json"},
            "a file outside of .*runs, whose files",
        ),
        ({"destination": ".", "format": "jsonl"}, "is a folder: name a file in it, or end it with a slash"),
    ],
)
async def test_a_folder_that_cant_be_is_refused(
    arguments: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises((ExportError, ValueError), match=says):
            await export_runs(client, ["job"], **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
