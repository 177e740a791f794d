"""The runs of many jobs as pages and as Arrow."""

import pytest

from tests.support.hostile import Request, page, pages_of, response, run, serve
from tfruns import Client, RunPage


async def test_pages_batches_and_the_table_hold_the_same_runs() -> None:
    """Each run once, with its job's id; a job that fails is skipped in each form."""
    pytest.importorskip("pyarrow")
    healthy = pages_of(230)

    def reply(request: Request) -> bytes:
        return response(404, {"statusCode": 404, "message": "no"}) if "/gone/" in request.target else healthy(request)

    async with serve(reply) as (url, _), Client(url, "key") as client:
        runs = client.iter_runs_for(["a", "gone", "b"], page_size=100, on_error="skip", ordered=True)
        pages = [(job_id, page) async for job_id, page in runs.pages()]
        assert list(runs.skipped) == ["gone"]
        assert runs.progress.jobs_done == 2
        batches = [batch async for batch in runs.arrow_batches()]
        table = await runs.to_arrow()
        assert list(runs.skipped) == ["gone"]
    assert all(isinstance(page, RunPage) and 0 < len(page.data) <= 100 for _, page in pages)
    expected = [(job_id, f"run-{n}") for job_id in ("a", "b") for n in range(230)]
    assert [(job_id, run.id) for job_id, page in pages for run in page] == expected
    columns = table.select(["job_id", "id"]).to_pydict()
    assert list(zip(columns["job_id"], columns["id"], strict=True)) == expected
    assert sum(batch.num_rows for batch in batches) == table.num_rows == 460


async def test_a_walk_left_early_leaves_nothing_behind() -> None:
    async with serve(pages_of(5000)) as (url, _), Client(url, "key") as client:
        pages = client.iter_runs_for(["a", "b"], page_size=10).pages()
        async for _ in pages:
            break
        await pages.aclose()
        assert client.stats().in_flight == 0


async def test_raw_pages_of_many_jobs_skip_as_the_others_do() -> None:
    """A job that fails is skipped and has no end; a run that can't be understood is a failure of its job."""

    def reply(request: Request) -> bytes:
        if "/gone/" in request.target:
            return response(404, {"statusCode": 404, "message": "no"})
        return response(200, page([run(0, status=5)] if "/bad/" in request.target else [run(0)]))

    failed: list[str] = []
    async with serve(reply) as (url, _), Client(url, "key") as client:
        runs = client.iter_runs_for(
            ["a", "gone", "bad", "b"], ordered=True, on_error=lambda job_id, error: failed.append(job_id)
        )
        found = [(job_id, raw and len(raw.data)) async for job_id, raw in runs.raw_pages()]
        kept = [(job_id, raw and len(raw.bad)) async for job_id, raw in runs.raw_pages(keep_bad=True)]
    assert found == [("a", 1), ("a", None), ("b", 1), ("b", None)]
    assert kept == [("a", 0), ("a", None), ("bad", 1), ("bad", None), ("b", 0), ("b", None)]
    assert failed == ["gone", "bad", "gone"]


@pytest.mark.parametrize("form", ["pages", "raw_pages"])
async def test_an_error_that_is_not_ours_ends_all_jobs(form: str) -> None:
    """What the caller's own function raises is no failure of a job."""

    def failing(event: object) -> None:
        raise LookupError("the caller's")

    async with serve(pages_of(5)) as (url, _), Client(url, "key", on_request=failing) as client:
        runs = client.iter_runs_for(["a", "b"], on_error="skip")
        with pytest.raises(LookupError, match="the caller's"):
            async for _ in getattr(runs, form)():
                pass
    assert runs.skipped == {}
