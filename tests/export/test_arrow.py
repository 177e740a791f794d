"""Runs as Arrow tables, and what takes them from there."""

import datetime
import sys

import duckdb
import pyarrow as pa
import pytest

import tfruns
from tests.export.test_export import fill, flat, of_arrow
from tests.support.hostile import page, response, run, serve
from tfruns import Client
from tfruns.arrow import SCHEMA
from tfruns.sandbox import Sandbox

KEY = "a-long-enough-key"


async def test_a_walk_is_a_table_of_its_runs_in_their_order() -> None:
    async with Sandbox(jobs=1, runs=50) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await fill(sandbox)
        job_id = sandbox.job_ids[0]
        wanted = [flat(job_id, run) async for run in client.iter_runs(job_id)]
        table = await client.iter_runs(job_id, page_size=10).to_arrow()
        batches = [batch async for batch in client.iter_runs(job_id, page_size=10).arrow_batches()]
    assert table.schema == SCHEMA
    assert of_arrow(table) == wanted
    assert len(batches) > 4
    assert {batch.schema for batch in batches} == {SCHEMA}
    assert of_arrow(pa.Table.from_batches(batches)) == wanted


async def test_a_job_without_runs_is_an_empty_table_with_every_column() -> None:
    async with Sandbox(["empty"], 0) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        table = await client.iter_runs("empty").to_arrow()
    assert (table.num_rows, table.schema) == (0, SCHEMA)


@pytest.mark.polars
async def test_pandas_polars_and_duckdb_take_the_table() -> None:
    polars = pytest.importorskip("polars")
    async with Sandbox(jobs=1, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        walk = client.iter_runs(sandbox.job_ids[0])
        runs, table = await walk.collect(), await walk.to_arrow()
    names = [run.name for run in runs]
    frame = table.to_pandas()
    assert frame["name"].tolist() == names
    assert frame["created_at"][0].to_pydatetime() == runs[0].created
    assert polars.from_arrow(table)["name"].to_list() == names  # type: ignore[index,union-attr]
    async with Sandbox(jobs=1, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        walk = client.iter_runs(sandbox.job_ids[0])
        assert (await walk.to_pandas()).equals(frame)
        assert (await walk.to_polars()).equals(polars.from_arrow(table))  # type: ignore[arg-type]
    with duckdb.connect() as database:
        database.register("runs", table)
        assert database.execute("SELECT name FROM runs").fetchall() == [(name,) for name in names]


async def test_moments_are_exact_to_the_microsecond_and_what_64_bits_cant_hold_is_named() -> None:
    async with serve(lambda _: response(200, page([run(0, createdAt=1_700_000_000_000.125, duration="7")]))) as (
        url,
        _,
    ):
        async with Client(url, KEY) as client:
            row = (await client.iter_runs("job").to_arrow()).to_pylist()[0]
    assert row["created_at"] == datetime.datetime(2023, 11, 14, 22, 13, 20, 125, datetime.UTC)
    assert row["duration"] == 7
    async with serve(lambda _: response(200, page([run(0, createdAt=1e300)]))) as (url, _), Client(url, KEY) as client:
        with pytest.raises(ValueError, match="created_at holds a number that 64 bits can't"):
            await client.iter_runs("job").to_arrow()


@pytest.mark.parametrize("package", ["pandas", "polars"])
async def test_a_data_frame_without_its_package_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so before anything is fetched."""
    monkeypatch.setitem(sys.modules, package, None)
    async with Sandbox(jobs=1, runs=3) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        walk = client.iter_runs(sandbox.job_ids[0])
        with pytest.raises(ImportError, match=rf"to_{package}\(\) needs {package}: (uv )?pip install {package}"):
            await getattr(walk, f"to_{package}")()
        assert not sandbox.requests
