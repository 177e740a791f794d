"""The runs of many jobs in data frames, lists and counts, as those of one job."""

import sys
from typing import Any

import pytest

import tfruns
from tfruns.sandbox import Sandbox

pytest.importorskip("pyarrow")
JOBS = {"a": 250, "b": 3, "empty": 0}


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox([*JOBS], [*JOBS.values()])


async def test_a_collected_list_has_every_run_with_its_job(sandbox: Sandbox) -> None:
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        runs = await client.iter_runs_for(JOBS, ordered=True).collect()
        one_by_one = [(job_id, run) for job_id in JOBS for run in await client.iter_runs(job_id).collect()]
    assert isinstance(runs, tfruns.JobsRunList)
    assert runs == one_by_one


async def test_small_jobs_share_a_batch() -> None:
    """One for each job would take longer than its request and its runs."""
    jobs = [f"job-{number}" for number in range(60)]
    async with Sandbox(jobs, runs=10) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        table = await client.iter_runs_for(jobs).to_arrow()
        found = await client.iter_runs_for(jobs).collect()
    assert table["id"].num_chunks == 2
    assert sorted(zip(table["job_id"].to_pylist(), table["id"].to_pylist(), strict=True)) == sorted(
        (job_id, run.id) for job_id, run in found
    )


async def test_data_frames_have_the_rows_of_the_table(sandbox: Sandbox) -> None:
    pandas = pytest.importorskip("pandas")
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        walked = client.iter_runs_for(JOBS, ordered=True)
        table, frame = await walked.to_arrow(), await walked.to_pandas()
    assert frame.equals(table.to_pandas())
    assert isinstance(frame, pandas.DataFrame)
    assert [*frame["job_id"]] == ["a"] * 250 + ["b"] * 3


@pytest.mark.parametrize("package", ["pandas", "polars"])
async def test_a_missing_package_is_missed_before_the_runs_are_fetched(
    package: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the error says how to install it."""
    monkeypatch.setitem(sys.modules, package, None)
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(ImportError, match=f"pip install {package}"):
            await getattr(client.iter_runs("a"), f"to_{package}")()
        assert len(sandbox.requests) == 0


@pytest.mark.polars
async def test_polars_has_them_too(sandbox: Sandbox) -> None:
    polars = pytest.importorskip("polars")
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        walked = client.iter_runs_for(JOBS, ordered=True)
        assert (await walked.to_polars()).equals(polars.DataFrame(await walked.to_arrow()))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [({}, 253), ({"offset": 2}, 249), ({"max_runs": 100}, 103), ({"max_runs": 0}, 0), ({"created_after": -1.0}, 253)],
)
async def test_a_count_is_the_sum_over_the_jobs(filters: dict[str, Any], expected: int, sandbox: Sandbox) -> None:
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        assert await client.iter_runs_for(JOBS, **filters).count() == expected


async def test_a_count_takes_two_requests_a_job_at_most_and_reads_hardly_a_run(sandbox: Sandbox) -> None:
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        await client.iter_runs_for(JOBS).count()
        assert len(sandbox.requests) <= 2 * len(JOBS)
        assert client.stats().bytes < 10_000


async def test_a_count_leaves_out_the_jobs_that_are_skipped(sandbox: Sandbox) -> None:
    async with sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        walked = client.iter_runs_for(["a", "none", "b"], on_error="skip")
        assert await walked.count() == 253
        assert [*walked.skipped] == ["none"]
        with pytest.raises(tfruns.NotFoundError):
            await client.iter_runs_for(["a", "none"]).count()
