"""How far one walk has got, and what a paginator says of itself."""

from datetime import timedelta

import pytest

import tfruns
from tfruns.sandbox import Sandbox


async def test_progress_counts_up_to_what_the_server_counts() -> None:
    async with Sandbox(["job"], 250) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        runs = client.iter_runs("job", page_size=100)
        assert runs.progress == tfruns.RunsProgress(pages=0, runs=0, runs_expected=0)
        seen = [(len(page), runs.progress) async for page in runs.pages()]
    assert sum(number for number, _ in seen) == 250
    for at, (_, progress) in enumerate(seen, 1):
        assert progress == tfruns.RunsProgress(pages=at, runs=sum(number for number, _ in seen[:at]), runs_expected=250)


@pytest.mark.parametrize("way", ["runs", "pages", "raw_pages", "arrow_batches", "collect"])
async def test_every_way_to_read_the_runs_counts_and_begins_anew(way: str) -> None:
    if way == "arrow_batches":
        pytest.importorskip("pyarrow")
    async with Sandbox(["job"], 250) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        runs = client.iter_runs("job", offset=20, max_runs=200)
        for _ in range(2):
            if way == "collect":
                await runs.collect()
            else:
                async for _ in runs if way == "runs" else getattr(runs, way)():
                    pass
            assert runs.progress == tfruns.RunsProgress(pages=1, runs=200, runs_expected=200)


@pytest.mark.parametrize("window", [{}, {"created_after": 0}])
async def test_counting_yields_no_run(window: dict[str, float]) -> None:
    """Neither the progress of the walk before nor the client's statistics count what was only counted."""
    async with Sandbox(["a", "b"], 20) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        one = client.iter_runs("a", offset=5, **window)  # type: ignore[arg-type]
        many = client.iter_runs_for(["a", "b"], max_runs=12, **window)  # type: ignore[arg-type]
        await one.collect()
        await many.collect()
        before = client.stats().runs, one.progress, many.progress
        sandbox.requests.clear()
        assert (await one.count(), await many.count()) == (15, 24)
        assert (client.stats().runs, one.progress, many.progress) == before
        assert len(sandbox.requests) == 3 or window


def test_a_repr_says_the_job_the_filters_and_what_to_do() -> None:
    client = tfruns.Client("http://127.0.0.1:1", "key")
    what = (
        "read them with `async for`, or await `.collect()`, `.to_pandas()`, `.to_polars()`, `.to_arrow()` or `.count()`"
    )
    assert repr(client.iter_runs("a'b")) == f'<the runs of job "a\'b": {what}>'
    walked = client.iter_runs("job", status="failed", order="asc", max_runs=5, created_before=2e12)
    given = "order='asc', status=('FAILED',), created_before=2000000000000.0, max_runs=5"
    assert repr(walked) == f"<the runs of job 'job' with {given}: {what}>"
    assert repr(client.iter_runs_for(["a", "b"], status="FAILED")).startswith(
        "<the runs of 2 jobs with status=('FAILED',): "
    )
    assert repr(client.iter_runs_for(iter(["a"]), created_after=timedelta(1))).startswith(
        "<the runs of many jobs with "
    )
