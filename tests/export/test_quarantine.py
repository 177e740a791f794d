"""One value poisons no export: what can't be written is set aside, and all else is written."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

import tfruns
from tests.export.test_export import READERS
from tests.export.test_increments import Server
from tests.support.hostile import Request, page, response, run, serve
from tests.support.jobs import Jobs
from tfruns import Client
from tfruns.export import ExportError, ExportSummary, export_runs
from tfruns.export.formats import zstd

BAD_VALUES: list[dict[str, Any]] = [
    {"duration": 2**63},
    {"exitCode": -(2**63) - 1},
    {"createdAt": 253_402_300_800_000},
    {"endTime": -62_135_596_800_001},
    {"endTime": 1e300, "totalRetries": 2**70},
]
MALFORMED: list[Any] = [{"status": None}, {"id": 5}, {"createdAt": "now"}]


def broken_run(number: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {**run(number), **fields}


async def export(runs: list[Any], path: Path, **options: Any) -> ExportSummary:
    def reply(request: Request) -> bytes:
        return response(200, page(runs[request.offset : request.offset + request.limit], len(runs)))

    async with serve(reply) as (url, _), Client(url, "a-long-enough-key") as client:
        return await export_runs(client, ["job"], path, **options)


def ids(path: Path) -> list[str]:
    if path.suffix == ".jsonl":
        return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]
    return [row["id"] for row in READERS[path.suffix[1:]](path)]


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow", "sqlite", "duckdb"])
async def test_values_that_no_table_holds_go_to_the_quarantine_and_the_other_runs_are_written(
    form: str, tmp_path: Path
) -> None:
    """A number beyond 64 bits or a year beyond 9999 ends no export."""
    path = tmp_path / f"runs.{form}"
    bad = {10 * (n + 1): fields for n, fields in enumerate(BAD_VALUES)}
    runs = [broken_run(n, bad.get(n, {})) for n in range(100)]
    summary = await export(runs, path)
    assert (summary.runs, summary.rejected, summary.skipped) == (95, 5, {})
    assert sorted(ids(path)) == sorted(f"run-{n}" for n in range(100) if n not in bad)
    assert summary.quarantine == tmp_path / f"runs.{form}.rejected.jsonl"
    lines = [json.loads(line) for line in summary.quarantine.read_text().splitlines()]
    assert [(line["jobId"], line["runId"]) for line in lines] == [("job", f"run-{n}") for n in bad]
    assert [line["field"] for line in lines] == ["duration", "exit_code", "created_at", "end_time", "total_retries"]
    assert [json.loads(line["text"]) for line in lines] == [runs[n] for n in bad]
    assert "expected a number of 64 bits, got 9223372036854775808" in lines[0]["why"]
    assert (await export(runs[:10], path)).quarantine is None
    assert not summary.quarantine.exists()


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "sqlite"])
async def test_a_malformed_run_takes_none_of_its_job_with_it(form: str, tmp_path: Path) -> None:
    """Not even the raw text of its neighbours; JSON lines hold what tables can't."""
    path = tmp_path / f"runs.{form}"
    at = {0: MALFORMED[0], 1500: MALFORMED[1], 2499: MALFORMED[2]}
    runs: list[Any] = [broken_run(n, at.get(n, {})) for n in range(2500)]
    runs[700], runs[701] = "no object", {}
    runs[702] = broken_run(702, {"duration": 2**63})
    summary = await export(runs, path)
    of_value = 0 if form == "jsonl" else 1
    assert (summary.runs, summary.rejected, summary.skipped) == (2495 - of_value, 5 + of_value, {})
    assert len(set(ids(path))) == 2495 - of_value
    assert summary.quarantine is not None
    lines = [json.loads(line) for line in summary.quarantine.read_text().splitlines()]
    found = {line["runId"]: line for line in lines}
    assert found["run-0"]["field"] == "status"
    assert json.loads(found["run-0"]["text"]) == runs[0]
    assert {json.dumps(json.loads(line["text"])) for line in lines} >= {'"no object"', "{}"}


async def test_who_wants_no_quarantine_gets_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """`on_bad_run="raise"` names the job, the run and the field."""
    path = tmp_path / "runs.csv"
    path.write_text("old")
    with pytest.raises(ExportError, match=r"job 'job', run 'run-1' can't be written: duration: expected a number"):
        await export([run(0), broken_run(1, BAD_VALUES[0])], path, on_bad_run="raise")
    with pytest.raises(ExportError, match=r"run 'run-1' can't be written: status"):
        await export([run(0), broken_run(1, MALFORMED[0])], path, on_bad_run="raise")
    with pytest.raises(ValueError, match="on_bad_run must be one of quarantine, raise, got 'skip'"):
        await export([], path, on_bad_run="skip")
    with pytest.raises(TypeError, match="replace must be True or False, got 'no'"):
        await export([], path, replace="no")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.csv"]


@pytest.mark.parametrize("text", [b"mine\n", b"", b"{}\n", b'["\xff"]\n'])
async def test_a_file_that_no_export_has_written_stays(text: bytes, tmp_path: Path) -> None:
    """Where no run is set aside, only lines of an earlier export are removed from beside the file."""
    path, beside = tmp_path / "runs.csv", tmp_path / "runs.csv.rejected.jsonl"
    await export([run(1), MALFORMED[0] | {"id": "bad"}], path)
    assert beside.stat().st_size
    await export([run(1)], path)
    assert not beside.exists()
    beside.write_bytes(text)
    await export([run(1)], path)
    assert beside.read_bytes() == text


async def test_a_response_that_is_no_page_still_fails_its_job(tmp_path: Path) -> None:
    """There is nothing in it to set aside; and where every job fails, the old file stays."""
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    async with (
        serve(lambda _: response(200, {"data": [run(0)]})) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        with pytest.raises(
            ExportError, match="each of the 2 jobs failed, and nothing was written to .*runs.jsonl: "
        ) as failed:
            await export_runs(client, ["a", "b"], path)
    assert isinstance(failed.value.__cause__, tfruns.DecodeError)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.jsonl"]


async def test_an_empty_response_takes_nothing_out_of_the_quarantine_of_a_table(tmp_path: Path) -> None:
    server = Server([broken_run(0, BAD_VALUES[0])])
    async with server.serve() as client:
        for server.is_empty_for in (0, 6):
            summary = await export_runs(client, ["job"], tmp_path / "runs.sqlite")
            assert (summary.rejected, summary.quarantine) == (1, tmp_path / "runs.sqlite.rejected.jsonl")
        server.runs.clear()
        await export_runs(client, ["job"], tmp_path / "runs.sqlite")
    assert not (tmp_path / "runs.sqlite.rejected.jsonl").exists()


@pytest.mark.parametrize("where", ["local", "memory"])
async def test_a_folder_keeps_what_was_set_aside_of_jobs_and_days_that_an_export_doesnt_cover(
    where: str, jobs: Jobs, tmp_path: Path
) -> None:
    """As it keeps the runs of these; a run that is covered and can be written leaves the quarantine."""
    day = [(20_000 + number) * 86_400_000 for number in range(10)]
    jobs.update(
        a=[run(9, createdAt=day[9]), run(8, createdAt=day[8], name=None), run(2, createdAt=day[2], name=None)],
        b=[run(1, createdAt=day[1], status=None), run(0, createdAt=None)],
    )
    folder = f"{tmp_path}/runs/" if where == "local" else f"memory://{tmp_path.name}/runs/"

    async def rejected(**options: Any) -> list[str]:
        await jobs.export(folder, "a", "b", format="jsonl", **options)
        found = fsspec.filesystem("file" if where == "local" else "memory")
        name = folder.removesuffix("/") + ".rejected.jsonl"
        lines = found.cat_file(name).splitlines() if found.exists(name) else []
        return sorted(json.loads(line)["runId"] for line in lines)

    assert await rejected() == ["run-0", "run-1", "run-2", "run-8"]
    jobs["a"][1]["name"] = jobs["a"][2]["name"] = "good now"
    assert await rejected(created_after=day[5]) == ["run-0", "run-1", "run-2"]
    del jobs["b"]
    assert await rejected() == ["run-0", "run-1"]
    jobs["b"] = [run(1, createdAt=day[1]), run(0, createdAt=day[1])]
    assert await rejected(created_after=day[5]) == ["run-0", "run-1"]
    assert await rejected() == []


@pytest.mark.parametrize("form", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
async def test_responses_that_are_too_large_are_fetched_again_in_smaller_pages(form: str, tmp_path: Path) -> None:
    """However large a run is, and wherever in the list it stands."""
    path = tmp_path / f"runs.{form}"
    sizes = {1100: 9_000_000, 1101: 2_000_000, **dict.fromkeys(range(1200, 1300), 40000)}
    runs = [broken_run(n, {"error": "x" * sizes[n]} if n in sizes else {}) for n in range(1400)]
    summary = await export(runs, path)
    assert (summary.runs, summary.rejected, summary.skipped) == (1400, 0, {})
    assert ids(path) == [f"run-{n}" for n in range(1400)]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.zst", "csv", "parquet", "sqlite"])
async def test_a_job_that_fails_half_way_leaves_nothing_of_its_runs_in_the_file(form: str, tmp_path: Path) -> None:
    """Though its first pages may have been written already, while others were fetched."""
    path = tmp_path / f"runs.{form}"
    runs_of = {job: [run(n, id=f"{job}-{n}") for n in range(1300)] for job in ("bad-1", "a", "bad-2", "bad-3", "b")}

    def reply(request: Request) -> bytes:
        job = request.target.split("/")[-2]
        if job in ("bad-1", "bad-2", "bad-3") and request.offset > 900:
            return response(404, {"statusCode": 404, "message": "gone"})
        runs = runs_of[job]
        return response(200, page(runs[request.offset : request.offset + request.limit], len(runs)))

    async with serve(reply) as (url, _), Client(url, "a-long-enough-key", max_concurrency=1) as client:
        summary = await export_runs(client, [*runs_of], path)
        only = await export_runs(client, ["a", "b"], tmp_path / f"only.{form}")
    assert (summary.runs, sorted(summary.skipped)) == (2600, ["bad-1", "bad-2", "bad-3"])
    if form == "jsonl.zst":
        assert zstd.decompress(path.read_bytes()) == zstd.decompress(only.path.read_bytes())
    else:
        assert ids(path) == ids(only.path) == [f"{job}-{n}" for job in "ab" for n in range(1300)]


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow", "sqlite", "duckdb"])
@pytest.mark.parametrize("field", ["createdAt", "endTime"])
async def test_a_moment_that_no_table_holds_is_set_aside_among_runs_that_all_can_be_held(
    field: str, form: str, tmp_path: Path
) -> None:
    runs = [broken_run(n, {field: 253_402_300_800_000} if n == 3 else {}) for n in range(5)]
    summary = await export(runs, tmp_path / f"runs.{form}")
    assert (summary.runs, summary.rejected) == (4, 1)
