"""Exports to object stores: an object appears when it is whole, nothing else is left, and no key is shown."""

import asyncio
import contextlib
import io
import json
import logging
import shutil
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas
import pyarrow.parquet
import pytest

polars = pytest.importorskip("polars")

import tfruns
from tests.export.test_export import StoppedError, fill, flat, of_arrow, stop_after
from tests.http.test_key_stays_home import LOOKS
from tests.support.hostile import page, response, run, serve
from tests.support.objects import KEY, SECRET, ObjectStore
from tfruns import Client
from tfruns.export import ExportError, export_runs, store
from tfruns.sandbox import Fault, Sandbox

pytestmark = pytest.mark.s3


async def test_what_others_read_from_the_object_is_what_the_server_has(
    bucket: ObjectStore, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    await fill(sandbox)
    url, options = "s3://bucket/some/runs.parquet", bucket.options
    summary = await export_runs(client, sandbox.job_ids, url, storage_options=options)
    wanted = [flat(job_id, run) for job_id in sandbox.job_ids async for run in client.iter_runs(job_id)]
    content = bucket.read("some/runs.parquet")
    assert (summary.path, summary.runs, summary.size, summary.quarantine) == (url, 69, len(content), None)
    assert bucket.names() == ["some/runs.parquet"]
    assert of_arrow(pyarrow.parquet.read_table(io.BytesIO(content))) == wanted
    file_system = fsspec.filesystem("s3", **options)
    read_by = {
        "pandas": pandas.read_parquet(url, storage_options=options, dtype_backend="pyarrow"),
        "polars": polars.read_parquet(io.BytesIO(file_system.cat_file(url))),
    }
    with duckdb.connect() as database:
        database.register_filesystem(file_system)
        read_by["duckdb"] = database.sql(f"FROM '{url}'").to_arrow_table()
    tables = {
        "pandas": pyarrow.Table.from_pandas(read_by["pandas"], preserve_index=False),
        "polars": read_by["polars"].to_arrow(),
        "duckdb": read_by["duckdb"],
    }
    for name, table in tables.items():
        assert of_arrow(table) == wanted, name
    assert [*(tmp_path / ".cache" / "tfruns").iterdir()] == []


async def test_runs_that_cant_be_written_stand_in_an_object_beside_it(bucket: ObjectStore) -> None:
    """Which is gone when there are none any more."""
    runs = [run(0), {**run(1), "duration": 2**63}]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :], len(runs)))) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        summary = await export_runs(client, ["job"], "s3://bucket/runs.csv", storage_options=bucket.options)
        assert (summary.rejected, summary.quarantine) == (1, "s3://bucket/runs.csv.rejected.jsonl")
        assert json.loads(bucket.read("runs.csv.rejected.jsonl"))["runId"] == "run-1"
        runs.pop()
        await export_runs(client, ["job"], "s3://bucket/runs.csv", storage_options=bucket.options)
    assert bucket.names() == ["runs.csv"]


async def test_increments_are_objects_of_their_own_and_are_not_left_to_pass_for_newer(
    bucket: ObjectStore, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    async def export() -> tfruns.export.ExportSummary:
        options = {"state": tmp_path / "state.json", "storage_options": bucket.options}
        return await export_runs(client, sandbox.job_ids, "s3://bucket/runs.jsonl", **options)

    await export()
    new = await sandbox.create_run(sandbox.job_ids[0])
    assert (await export()).path == "s3://bucket/runs.0001.jsonl"
    assert new.id in bucket.read("runs.0001.jsonl").decode()
    assert bucket.names() == ["runs.0000.jsonl", "runs.0001.jsonl"]
    assert SECRET not in (tmp_path / "state.json").read_text()
    (tmp_path / "state.json").unlink()
    with pytest.raises(ExportError, match=r"runs\.0001\.jsonl is of other exports than those"):
        await export()


async def test_objects_of_before_are_there_until_the_new_one_is(
    bucket: ObjectStore, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    """An upload that fails with `replace` changes neither them nor the state, with which exports go on."""
    state = tmp_path / "state.json"

    async def export(**more: bool) -> tfruns.export.ExportSummary:
        options = {"state": state, "storage_options": bucket.options, **more}
        return await export_runs(client, sandbox.job_ids, "s3://bucket/runs.jsonl", **options)

    for _ in range(3):
        await export()
        await sandbox.create_run(sandbox.job_ids[0])
    before = {name: bucket.read(name) for name in bucket.names()}, state.read_bytes()
    bucket.on_request = lambda method, query: method == "PUT" and "x-id" not in query
    with pytest.raises(ExportError, match=r"runs\.0000\.jsonl can't be written"):
        await export(replace=True)
    bucket.on_request = lambda _method, _query: False
    assert ({name: bucket.read(name) for name in bucket.names()}, state.read_bytes()) == before
    shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
    summary = await export()
    assert (summary.path, summary.runs) == ("s3://bucket/runs.0003.jsonl", 1)
    assert (await export(replace=True)).removed_files == 3
    assert bucket.names() == ["runs.0000.jsonl"]


async def test_who_may_only_write_is_refused_before_anything_is_read(
    bucket: ObjectStore, sandbox: Sandbox, client: Client
) -> None:
    """Whether a quarantine has to go couldn't be seen."""
    bucket.on_request = lambda method, _query: method in ("GET", "HEAD")
    with pytest.raises(ExportError, match=r"s3://bucket/runs\.csv can't be written: .*"):
        await export_runs(client, sandbox.job_ids, "s3://bucket/runs.csv", storage_options=bucket.options)
    assert not sandbox.requests


async def test_who_may_not_delete_is_told_what_is_left(
    bucket: ObjectStore, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    """Where nothing has to go, no such right is needed."""

    async def export(destination: str, **options: Any) -> tfruns.export.ExportSummary:
        store = {"storage_options": bucket.options}
        return await export_runs(client, sandbox.job_ids, f"s3://bucket/{destination}", **store, **options)

    bucket.on_request = lambda method, query: method == "DELETE" or "delete" in query
    for _ in range(2):
        await export("runs.csv")
        await export("runs.jsonl", state=tmp_path / "state")
    with pytest.raises(ExportError, match=r"runs\.0001\.jsonl is left, and .* right to delete\): .*not today"):
        await export("runs.jsonl", state=tmp_path / "state", replace=True)
    await export("days/", format="jsonl")
    before = {name: bucket.read(name) for name in bucket.names()}
    with pytest.raises(ExportError, match=r"days/_SUCCESS is left, and can't be removed"):
        await export("days/", format="jsonl", created_after=timedelta(days=1))
    assert {name: bucket.read(name) for name in bucket.names()} == before


@pytest.fixture
async def large(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Sandbox, Client]]:
    """What takes three parts to upload."""
    monkeypatch.setattr(store, "_BLOCK", 5 * 2**20)
    async with Sandbox(jobs=2, runs=10_000) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        bucket.client.put_object(Bucket="bucket", Key="runs.jsonl", Body=b"old")
        yield sandbox, client


@pytest.mark.parametrize(
    ("method", "query", "value"),
    [
        ("POST", "uploads", ""),
        ("PUT", "partNumber", "1"),
        ("PUT", "partNumber", "3"),
        ("POST", "uploadId", None),
    ],
    ids=["as it begins", "at the first part", "at the last part", "as it is completed"],
)
async def test_an_upload_that_fails_leaves_the_old_object_and_no_parts_and_the_same_call_goes_on(
    method: str, query: str, value: str | None, bucket: ObjectStore, large: tuple[Sandbox, Client]
) -> None:
    sandbox, client = large

    def refuse(verb: str, given: dict[str, list[str]]) -> bool:
        return verb == method and query in given and value in (None, given[query][0])

    bucket.on_request = refuse
    arguments: Any = (client, sandbox.job_ids, "s3://bucket/runs.jsonl")
    with pytest.raises(ExportError, match=r"s3://bucket/runs\.jsonl can't be written: "):
        await export_runs(*arguments, storage_options=bucket.options)
    assert (bucket.names(), bucket.uploads(), bucket.read("runs.jsonl")) == (["runs.jsonl"], [], b"old")
    bucket.on_request = lambda _method, _query: False
    sandbox.requests.clear()
    summary = await export_runs(*arguments, storage_options=bucket.options)
    assert (summary.resumed_jobs, len(sandbox.requests)) == (2, 0)
    assert len(bucket.read("runs.jsonl").splitlines()) == 20_000
    assert (bucket.names(), bucket.uploads()) == (["runs.jsonl"], [])


@pytest.mark.parametrize("cancellations", [1, 2])
@pytest.mark.parametrize("part", ["1", "2", "3"])
async def test_an_upload_that_is_cancelled_leaves_the_old_object_and_no_parts(
    part: str, cancellations: int, bucket: ObjectStore, large: tuple[Sandbox, Client]
) -> None:
    """But while the last part is sent, and the upload is completed with it: that comes too late."""
    sandbox, client = large
    came, goes_on = threading.Event(), threading.Event()

    def notice(_method: str, query: dict[str, list[str]]) -> bool:
        if query.get("partNumber") == [part]:
            came.set()
            goes_on.wait()
        return False

    bucket.on_request = notice
    export = asyncio.create_task(
        export_runs(client, sandbox.job_ids, "s3://bucket/runs.jsonl", storage_options=bucket.options)
    )
    await asyncio.to_thread(came.wait)
    for _ in range(cancellations):
        export.cancel()
        await asyncio.sleep(0)
    goes_on.set()
    await asyncio.wait([export])
    assert export.cancelled()
    lines = 1 if part != "3" else 20_000
    assert (bucket.names(), bucket.uploads()) == (["runs.jsonl"], [])
    assert len(bucket.read("runs.jsonl").splitlines()) == lines
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfruns-export")]


def _ours(error: BaseException) -> Any:
    """The traceback without the frame of the test itself."""
    assert error.__traceback__ is not None
    return error.__traceback__.tb_next


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}, r"Could not connect to .*http://127\.0\.0\.1:1"),
        ({"nonsense": SECRET}, "can't be written: .*nonsense"),
        ({"profile": SECRET}, r"can't be written: .*\[hidden\]"),
    ],
    ids=["no server", "a wrong option", "a secret in the error"],
)
async def test_what_is_wrong_with_the_store_is_said_before_anything_is_read_and_no_key_is_shown(
    options: dict[str, Any],
    says: str,
    bucket: ObjectStore,
    sandbox: Sandbox,
    client: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "tfruns")
    given = bucket.options | options
    with pytest.raises(ExportError, match=says) as caught:
        await export_runs(client, sandbox.job_ids, "s3://bucket/runs.csv", storage_options=given)
    assert not sandbox.requests
    _assert_hidden(caught.value, caplog)


async def test_no_key_is_shown_where_the_export_fails_for_another_reason_or_is_cancelled(
    bucket: ObjectStore, sandbox: Sandbox, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tfruns")
    url = "s3://bucket/runs.csv"
    sandbox.faults.append(fault := Fault(status=500))
    with pytest.raises(tfruns.InternalServerError) as failed:
        await export_runs(client, sandbox.job_ids, url, storage_options=bucket.options)
    _assert_hidden(failed.value, caplog)
    sandbox.faults.remove(fault)
    with pytest.raises(StoppedError) as stopped:
        await export_runs(client, sandbox.job_ids, url, storage_options=bucket.options, on_progress=stop_after(1))
    _assert_hidden(stopped.value, caplog)
    with pytest.raises(ValueError, match="on_bad_run") as wrong:
        await export_runs(client, sandbox.job_ids, url, storage_options=bucket.options, on_bad_run="no")  # type: ignore[arg-type]
    _assert_hidden(wrong.value, caplog)
    with pytest.raises(ValueError, match="storage_options go with a URL") as path:
        await export_runs(client, sandbox.job_ids, "runs.csv", storage_options=bucket.options)
    _assert_hidden(path.value, caplog)
    task = asyncio.ensure_future(export_runs(client, sandbox.job_ids, url, storage_options=bucket.options))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert bucket.names() == []


def _assert_hidden(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    error.__traceback__ = _ours(error)
    shown_by = {look: show(error) for look, show in LOOKS.items()} | {"logs": caplog.text}
    assert [look for look, text in shown_by.items() if KEY in text or SECRET in text] == []
