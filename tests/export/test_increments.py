"""Exports again and again: each reads what is new or wasn't final, and all together are what one export is."""

import contextlib
import json
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import duckdb
import pytest

import tfruns
from tests.export.test_export import READERS, StoppedError, of_arrow, stop_after
from tests.support.hostile import Request, page, response, run, serve
from tests.support.living import change, first_of
from tests.support.readme import ROOMS, blocks
from tfruns import Client
from tfruns.export import ExportError, ExportSummary, export_runs
from tfruns.sandbox import Fault, Sandbox

READ_BY_DUCKDB = {
    "jsonl": "read_json('{}', filename = true)",
    "parquet": "read_parquet('{}', filename = true)",
    "csv": "read_csv('{}', filename = true, union_by_name = true)",
}


def rows_of(paths: list[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """The runs in some files, a later one in place of an earlier one."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in paths:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in path.read_bytes().splitlines()]
            rows |= {(row["jobId"], row["id"]): row for row in found}
        else:
            rows |= {(row["job_id"], row["id"]): row for row in READERS[path.suffix[1:]](path)}
    return rows


@attrs.define
class Server:
    """Serves these runs for any job, newest first, as they are then, and counts what it served."""

    runs: list[dict[str, Any]]
    requests: int = 0
    served: int = 0
    is_empty_for: int = 0
    """How many requests get an empty list."""

    def reply(self, request: Request) -> bytes:
        query = parse_qs(urlsplit(request.target).query)
        found = self.runs
        if statuses := query.get("status"):
            found = [run for run in found if run.get("status") in statuses]
        if prefix := query.get("searchPrefix", [""])[0]:
            found = [run for run in found if str(run.get("id")).startswith(prefix)]
        if self.is_empty_for > 0:  # a replica that lags
            self.is_empty_for -= 1
            found = []
        here = found[request.offset : request.offset + request.limit]
        self.requests += 1
        self.served += len(here)
        pagination = {"total": len(found), "offset": request.offset, "limit": request.limit}
        return response(200, {"data": here, "pagination": pagination})

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator[Client]:
        async with serve(self.reply) as (url, _), Client(url, "a-long-enough-key") as client:
            yield client


async def texts_of(client: Client, job_ids: Sequence[str]) -> dict[tuple[str, str], bytes]:
    """What the server says of each run now."""
    found = {}
    async for job_id, found_page in client.iter_runs_for(job_ids).raw_pages():
        for one, text in zip(found_page.data, found_page.texts, strict=True) if found_page else ():
            found[job_id, one.id] = text
    return found


@first_of("jsonl", "csv", "parquet", "sqlite", "duckdb")
async def test_ten_exports_of_a_living_list_are_together_what_one_export_is_at_the_end(
    form: str, tmp_path: Path
) -> None:
    """And each but the first writes just what has changed."""
    chance, done = random.Random(form), []
    path, state = tmp_path / f"runs.{form}", tmp_path / "state.json"
    known: dict[tuple[str, str], bytes] = {}
    async with Sandbox(jobs=3, runs=[0, 40, 400], living=True, seed=3) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            for number in range(11):
                ids = sandbox.job_ids if number > 2 else sandbox.job_ids[1:]  # one is added only later
                done.append(await export_runs(client, ids, path, state=state))
                now = await texts_of(client, ids)
                assert done[-1].runs == len(now.items() - known.items())
                known = now
                if number < 10:
                    await change(sandbox, chance)
                    sandbox.clock.advance(chance.choice([60, 600, 4000]))
            full = (await export_runs(client, sandbox.job_ids, tmp_path / f"full.{form}")).path
    paths = list(dict.fromkeys(summary.path for summary in done))
    assert len(paths) == (1 if form in ("sqlite", "duckdb") else 11)
    assert rows_of(paths) == rows_of([full])
    assert len(rows_of([full])) == len(known) > 440
    if form in READ_BY_DUCKDB:
        (tmp_path / f"runs.0003.{form}.rejected.jsonl").write_text('{"jobId": "a", "runId": "b"}\n')
        assert_alike_to_duckdb(form, tmp_path / f"runs.????.{form}", full, rows=len(known))


def assert_alike_to_duckdb(form: str, increments: Path, full: Path, *, rows: int) -> None:
    """The query of the docs, over all increments, gives what the full export has."""
    (block,) = blocks("sql", ROOMS / "export" / "README.md")
    query = block.source.replace("job_id", "jobId") if form == "jsonl" else block.source
    of_docs, read = READ_BY_DUCKDB["parquet"].format("runs.????.parquet"), READ_BY_DUCKDB[form]
    assert of_docs in query
    found, wanted = (
        duckdb.sql(query.replace(of_docs, read.format(each))).to_arrow_table() for each in (increments, full)
    )
    assert found.num_rows == rows
    assert found.column_names == wanted.column_names
    assert len(duckdb.sql("FROM found EXCEPT FROM wanted")) == len(duckdb.sql("FROM wanted EXCEPT FROM found")) == 0


async def export(client: Client, job_ids: list[str], path: Path) -> ExportSummary:
    return await export_runs(client, job_ids, path, state=path.with_name("state.json"))


async def test_what_is_known_for_good_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    async with Sandbox(jobs=5, runs=[3000, *[1500] * 4]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        job_ids = sandbox.job_ids
        for job_id in job_ids:
            async for run in client.iter_runs(job_id):
                if not run.status.is_terminal:
                    await sandbox.finish_run(job_id, run.id)
        await export(client, job_ids, path)
        sandbox.clock.advance(86_400)
        new = await sandbox.create_run(job_ids[1])
        sandbox.requests.clear()
        second = await export(client, job_ids, path)
        assert len(sandbox.requests) == 5
        assert new.id in {row["id"] for row in map(json.loads, second.path.read_text().splitlines())}
        assert second.runs < 5 * 1000
        assert second.path.name == "runs.0001.jsonl"


async def test_open_runs_however_old_are_followed_to_their_end_and_deleted_ones_leave_a_database(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.sqlite"
    async with Sandbox(["job"], 2500) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        runs = await client.iter_runs("job").collect()
        for run in runs:
            if not run.status.is_terminal:
                await sandbox.finish_run("job", run.id)
        old, deleted = runs[2000].id, runs[2100].id
        for run_id in (old, deleted):
            await sandbox.update_run("job", run_id, status="RUNNING")
        await export(client, ["job"], path)
        assert rows_of([path])["job", old]["status"] == "RUNNING"
        await sandbox.finish_run("job", old, status="FAILED")
        await sandbox.delete_run("job", deleted)
        sandbox.requests.clear()
        await export(client, ["job"], path)
        rows = rows_of([path])
    assert len(sandbox.requests) <= 8
    assert rows["job", old]["status"] == "FAILED"
    assert ("job", deleted) not in rows
    assert len(rows) == 2499


async def test_more_open_runs_than_can_be_requested_one_by_one_are_found_by_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    async with Sandbox(["job"], 2500) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        runs = await client.iter_runs("job").collect()
        open_ids = [run.id for run in runs[1200:2400:20]]
        for run_id in open_ids:
            await sandbox.update_run("job", run_id, status="RUNNING")
        await export(client, ["job"], path)
        for run_id in open_ids:
            await sandbox.finish_run("job", run_id, status="TERMINATED")
        sandbox.requests.clear()
        await export(client, ["job"], path)
        rows = rows_of([path])
        wanted = {run.id: str(run.status) async for run in client.iter_runs("job")}
    assert {run_id: row["status"] for (_, run_id), row in rows.items()} == wanted
    assert len(sandbox.requests) < 20


@pytest.mark.parametrize("form", ["jsonl", "sqlite"])
async def test_of_a_list_that_stands_still_nothing_is_written_again(form: str, tmp_path: Path) -> None:
    """Not even of runs that could have shown up late, or are open: what is written of them is remembered."""
    now = time.time() * 1000
    statuses = {5: "RUNNING", 700: "UNKNOWN", 2999: "PAUSED"}
    runs = [run(n, createdAt=now - n * 1000, status=statuses.get(n, "FINISHED")) for n in range(3000)]
    server = Server(runs)
    async with server.serve() as client:
        first = await export(client, ["job"], tmp_path / f"runs.{form}")
        server.served = 0
        second = await export(client, ["job"], tmp_path / f"runs.{form}")
        assert (first.runs, second.runs) == (3000, 0)
        assert server.served < 4500  # the last hour is all there is
        runs[700] |= {"duration": 7}
        third = await export(client, ["job"], tmp_path / f"runs.{form}")
        assert third.runs == 1


async def test_a_quiet_job_is_not_read_by_the_thousand(tmp_path: Path) -> None:
    """A hundred runs show that nothing is new, though the newest hasn't ended."""
    server = Server([run(n, createdAt=1.6e12 - n * 3_600_000) for n in range(2000)])
    server.runs[0]["status"] = "RUNNING"
    async with server.serve() as client:
        await export(client, ["job"], tmp_path / "runs.jsonl")
        server.requests = server.served = 0
        assert (await export(client, ["job"], tmp_path / "runs.jsonl")).runs == 0
    assert (server.requests, server.served) == (1, 100)


@pytest.mark.parametrize("status", ["UNKNOWN", "PAUSED"])
async def test_runs_that_never_end_cost_a_request_and_not_the_runs_between(status: str, tmp_path: Path) -> None:
    """In a status that the server can filter by; in another, what lies between is read, and not kept."""
    runs = [run(n, createdAt=1.6e12 - n * 60_000) for n in range(6_000)]
    for at in range(300, 6_000, 95):
        runs[at]["status"] = status
    server = Server(runs)
    async with server.serve() as client:
        await export(client, ["job"], tmp_path / "runs.sqlite")
        server.requests = server.served = 0
        assert (await export(client, ["job"], tmp_path / "runs.sqlite")).runs == 0
        assert server.requests <= (2 if status == "UNKNOWN" else 10)
        assert server.served <= (200 if status == "UNKNOWN" else 6_600)
        for at in (300, 3_055):
            runs[at]["status"] = "FAILED"
        del runs[5_620]
        assert (await export(client, ["job"], tmp_path / "runs.sqlite")).runs == 2
        rows = rows_of([tmp_path / "runs.sqlite"])
    assert {run_id: row["status"] for (_, run_id), row in rows.items()} == {row["id"]: row["status"] for row in runs}


async def test_more_new_runs_than_a_page_holds_are_all_read_in_each_job(tmp_path: Path) -> None:
    """Whatever was usual before."""
    path = tmp_path / "runs.sqlite"
    now = time.time() * 1000
    runs = [run(n, createdAt=now - 9e6 - n * 1000) for n in range(500)]
    server = Server(runs)
    jobs = ["job-1", "job-2"]
    async with server.serve() as client:
        await export(client, jobs, path)
        runs[:0] = [run(10_000 + n, createdAt=now - 4e6 - n * 1000, status="RUNNING") for n in range(1200)]
        assert (await export(client, jobs, path)).runs == 2 * 1200
        runs[:0] = [run(20_000 + n, createdAt=now - n * 1000) for n in range(1100)]
        runs[1100 + 1100]["status"] = "FAILED"
        assert (await export(client, jobs, path)).runs == 2 * 1101
    assert len(rows_of([path])) == 2 * 2800


async def test_a_response_that_is_too_large_costs_an_increment_no_open_run(tmp_path: Path) -> None:
    """What was read before it is read again."""
    path = tmp_path / "runs.sqlite"
    runs = [run(n, createdAt=1.6e12 - n * 3_600_000, status="RUNNING" if n == 2 else "FINISHED") for n in range(50)]
    server = Server(runs)
    async with server.serve() as client:
        await export(client, ["job"], path)
        runs[2]["status"] = "FAILED"
        runs[:0] = [run(1000 + n, createdAt=1.7e12 - n * 1000, error="x" * 40_000) for n in range(400)]
        assert (await export(client, ["job"], path)).runs == 401
        rows = rows_of([path])
    assert rows["job", "run-2"]["status"] == "FAILED"
    assert len(rows) == 450


@pytest.mark.parametrize("form", ["jsonl", "sqlite"])
async def test_each_increment_has_a_quarantine_of_its_own_and_a_run_is_in_one_of_them(
    form: str, tmp_path: Path
) -> None:
    """What was set aside before stays there."""
    path = tmp_path / f"runs.{form}"
    runs = [run(n, createdAt=1.6e12 - n) for n in range(9)]
    runs[3]["status"] = None
    server = Server(runs)
    async with server.serve() as client:
        first = await export(client, ["job"], path)
        runs.insert(0, run(10, createdAt=1.6e12 + 1, status=None))
        second = await export(client, ["job"], path)
        third = await export(client, ["job"], path)
    assert [summary.rejected for summary in (first, second, third)] == [1, 1, 0]
    assert third.quarantine is None
    assert first.quarantine == tmp_path / f"runs.0000.{form}.rejected.jsonl"
    assert second.quarantine == tmp_path / f"runs.0001.{form}.rejected.jsonl"
    found = [json.loads(summary.quarantine.read_text())["runId"] for summary in (first, second)]
    assert found == ["run-3", "run-10"]


async def test_files_sort_in_the_order_of_the_exports(tmp_path: Path) -> None:
    """So that the last of those with a run is the one that counts."""
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        done = [await export(client, sandbox.job_ids, tmp_path / "runs.jsonl.gz") for _ in range(3)]
    names = [summary.path.name for summary in done]
    assert names == sorted(names) == ["runs.0000.jsonl.gz", "runs.0001.jsonl.gz", "runs.0002.jsonl.gz"]


async def test_dated_destinations_share_a_state(tmp_path: Path) -> None:
    """An export that was interrupted on one day goes on under the name of the next."""
    state = tmp_path / "state.json"
    async with Sandbox(jobs=3, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        done = [await export_runs(client, sandbox.job_ids, tmp_path / "runs-2026-11-23.csv", state=state)]
        await sandbox.create_run(sandbox.job_ids[0])
        with pytest.raises(StoppedError):
            await export_runs(
                client, sandbox.job_ids, tmp_path / "runs-2026-11-24.csv", state=state, on_progress=stop_after(1)
            )
        done.append(await export_runs(client, sandbox.job_ids, tmp_path / "runs-2026-11-25.csv", state=state))
        full = await export_runs(client, sandbox.job_ids, tmp_path / "full.csv")
    assert done[1].resumed_jobs > 0
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "state.json",
        "full.csv",
        "runs-2026-11-23.0000.csv",
        "runs-2026-11-25.0001.csv",
    }
    assert rows_of([summary.path for summary in done]) == rows_of([full.path])  # type: ignore[misc]


async def test_the_same_filters_are_the_same_in_any_order(tmp_path: Path) -> None:
    """A set is in another order in each process: neither a state nor a folder is refused for that."""
    async with Sandbox(jobs=1, runs=30) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for numbers in (["11", "12"], ["12", "11", "12"]):
            one = await export_runs(
                client, sandbox.job_ids, tmp_path / "a.jsonl", state=tmp_path / "state.json", version_numbers=numbers
            )
            folder = f"{tmp_path}/runs/"
            whole = await export_runs(client, sandbox.job_ids, folder, format="jsonl", version_numbers=numbers)
        assert (one.runs, whole.runs > 0) == (0, True)


async def test_a_full_export_beside_increments_is_refused(tmp_path: Path) -> None:
    """Those to come would be taken for older than it."""
    path = tmp_path / "runs.csv"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export(client, sandbox.job_ids, path)
        with pytest.raises(ExportError, match=r"runs\.0000\.csv is of exports with a state: "):
            await export_runs(client, sandbox.job_ids, path)
    assert not path.exists()


async def test_a_failure_between_exports_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    never = tfruns.RetryPolicy(max_attempts=1)
    async with Sandbox(jobs=3, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key, retry=never) as client:
        done = [await export(client, sandbox.job_ids, path)]
        run = await sandbox.create_run(sandbox.job_ids[0])
        sandbox.faults.append(Fault(status=503, job_id=sandbox.job_ids[2]))
        with pytest.raises(tfruns.InternalServerError):
            await export(client, sandbox.job_ids, path)
        sandbox.faults.clear()
        await sandbox.finish_run(sandbox.job_ids[0], run.id)
        done += [await export(client, sandbox.job_ids, path), await export(client, sandbox.job_ids, path)]
        full = await export_runs(client, sandbox.job_ids, tmp_path / "full.jsonl")
    assert rows_of([summary.path for summary in done]) == rows_of([full.path])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "isn't the state of an export: delete it"),
        ("[]", "isn't the state of an export"),
        (
            '{"version": 3, "id": "a", "writing": null, "about": {}, "exports": 1, "jobs": {"a": 5}}',
            "isn't the state of an export",
        ),
        ('{"version": 9}', "is of another version of tfruns"),
        ("[" * 100_000, "isn't the state of an export"),
        *(
            (
                f'{{"version": 3, "id": "a", "writing": null, "about": {about}, "exports": {exports}, "jobs": {jobs}}}',
                "isn't the state of an export",
            )
            for about, exports, jobs in [
                ("[]", "1", "{}"),
                ("{}", "-1", "{}"),
                ("{}", "1.5", "{}"),
                ("{}", "true", "{}"),
                ("{}", "1", '{"job": {"newest": NaN}}'),
                ("{}", "1", '{"job": {"newest": "now"}}'),
                ("{}", "1", '{"job": {"open": {"run": null}}}'),
            ]
        ),
        (
            '{"version": 3, "id": "a", "writing": null, "about": {"format": "csv"}, "exports": 1, "jobs": {}}',
            "with another control plane, format: give",
        ),
    ],
)
async def test_a_state_that_cant_be_gone_on_from_is_refused(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(ExportError, match=says):
            await export(client, ["job"], tmp_path / "runs.jsonl")


async def test_a_database_that_is_gone_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export(client, sandbox.job_ids, path)
        path.unlink()
        with pytest.raises(ExportError, match=r"isn't there, but by .* it was written before"):
            await export(client, sandbox.job_ids, path)
        with pytest.raises(ValueError, match="state goes with no sort_by, order, status"):
            await export_runs(client, ["job"], path, state="state", status="FAILED")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
async def test_later_files_whose_state_is_lost_are_not_left_to_pass_for_newer(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs.{form}"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for _ in range(2):
            await export(client, sandbox.job_ids, path)
        first = path.with_name(f"runs.0000.{form}")
        before = first.read_bytes()
        path.with_name("state.json").unlink()
        with pytest.raises(ExportError, match=rf"runs\.0001\.{form} is of other exports than those with the state"):
            await export(client, sandbox.job_ids, path)
        path.with_name(f"runs.0001.{form}").unlink()
        with pytest.raises(ExportError, match=rf"runs\.0000\.{form} is of other exports than those with the state"):
            await export(client, sandbox.job_ids, path)
        assert first.read_bytes() == before
        first.unlink()
        assert (await export(client, sandbox.job_ids, path)).runs == 5


async def test_a_state_can_be_neither_the_destination_nor_in_no_folder_and_that_is_reported_at_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.jsonl"
    (tmp_path / "link.json").symlink_to(path)
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        for since in (path, str(path), tmp_path / "link.json"):
            with pytest.raises(ValueError, match="state must name another file than the destination"):
                await export_runs(client, ["job"], path, state=since)
        with pytest.raises(ExportError, match="there is no folder .*no/such for the state"):
            await export_runs(client, ["job"], path, state=tmp_path / "no" / "such" / "state.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["link.json"]


@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
async def test_a_database_that_lacks_what_the_state_says_it_has_is_not_merged_into(form: str, tmp_path: Path) -> None:
    path, other = tmp_path / f"runs.{form}", tmp_path / f"other.{form}"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export(client, sandbox.job_ids, path)
        path.rename(other)
        with pytest.raises(ExportError, match="with another database: give another file"):
            await export(client, sandbox.job_ids, other)
        if form == "sqlite":
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE mine (a)")
        else:
            duckdb.connect(str(path)).execute("CREATE TABLE mine (a INTEGER)").close()
        with pytest.raises(ExportError, match="can't be written: .*runs"):
            await export(client, sandbox.job_ids, path)
        other.replace(path)
        await export(client, sandbox.job_ids, path)
    assert len(rows_of([path])) == 5


async def test_an_interrupted_export_is_not_thrown_away_by_one_with_a_state(tmp_path: Path) -> None:
    """What was read for a file is kept beside it; for a database, the two would be in each other's way."""
    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for form in ("jsonl", "sqlite"):
            path = tmp_path / f"runs.{form}"
            with pytest.raises(StoppedError):
                await export_runs(client, sandbox.job_ids, path, on_progress=stop_after(1))
            if form == "sqlite":
                with pytest.raises(
                    ExportError, match="with other arguments was interrupted here: number of the export was null"
                ):
                    await export_runs(client, sandbox.job_ids, path, state=tmp_path / "state.json")
            else:
                await export_runs(client, sandbox.job_ids, tmp_path / "other.jsonl", state=tmp_path / "other.json")
            summary = await export_runs(client, sandbox.job_ids, path)
            assert (summary.runs, summary.resumed_jobs) == (10, 1)


async def test_a_run_from_a_clock_that_is_ahead_hides_none_of_those_to_come(tmp_path: Path) -> None:
    now = time.time() * 1000
    of_the_future = run(0, createdAt=now + 10 * 365 * 86_400_000)
    runs = [of_the_future, run(1, createdAt=now - 5)]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :], len(runs)))) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        await export(client, ["job"], tmp_path / "runs.jsonl")
        runs.insert(1, run(2, createdAt=now + 60_000))
        second = await export(client, ["job"], tmp_path / "runs.jsonl")
    assert ("job", "run-2") in rows_of([second.path])


OPEN_FOR_HOURS = 1.6e12 - 5 * 3_600_000


@pytest.mark.parametrize("fields", [{"command": 7}, {"name": None}, {"status": None}, {"createdAt": None}])
@pytest.mark.parametrize("form", ["jsonl", "sqlite"])
async def test_an_open_run_that_turns_bad_takes_none_of_its_job_with_it(
    form: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """It is set aside once, its row is gone from a database, and it is written when it is good again."""
    path = tmp_path / f"runs.{form}"
    server = Server([run(0, createdAt=1.6e12), run(1, createdAt=OPEN_FOR_HOURS, status="RUNNING")])
    async with server.serve() as client:
        await export(client, ["job"], path)
        server.runs[1] = run(1, **{"createdAt": OPEN_FOR_HOURS, "status": "FAILED", **fields})
        server.runs[:0] = [run(n + 10, createdAt=1.6e12 + 60_000, status="RUNNING") for n in range(5)]
        second = await export(client, ["job"], path)
        assert (second.runs, second.rejected, second.skipped) == (5, 1, {})
        if form == "sqlite":
            assert ("job", "run-1") not in rows_of([path])
        third = await export(client, ["job"], path)
        assert (third.runs, third.rejected, third.skipped) == (0, 0, {})
        server.runs[-1] = run(1, createdAt=OPEN_FOR_HOURS, status="FAILED")
        fourth = await export(client, ["job"], path)
    assert fourth.runs == 1
    assert rows_of([fourth.path])["job", "run-1"]["status"] == "FAILED"


async def test_a_bad_run_doesnt_hide_the_open_runs_beside_it(tmp_path: Path) -> None:
    """Where open runs are listed by status, one of them that was always bad is among them."""
    runs = [run(n, createdAt=1.6e12 - n, status="RUNNING") for n in range(6)]
    runs[3]["command"] = 7
    server = Server(runs)
    path = tmp_path / "runs.sqlite"
    async with server.serve() as client:
        assert (await export(client, ["job"], path)).rejected == 1
        runs[:0] = [run(100 + n, createdAt=1.6e12 + 1e9 + n) for n in range(300)]
        runs[-1]["status"] = "FAILED"
        second = await export(client, ["job"], path)
    assert (second.runs, second.rejected, second.skipped) == (301, 0, {})
    assert rows_of([path])["job", "run-5"]["status"] == "FAILED"


@pytest.mark.parametrize("form", ["sqlite", "parquet"])
async def test_a_run_that_ends_with_what_no_table_holds_leaves_no_row_that_says_that_it_runs(
    form: str, tmp_path: Path
) -> None:
    """The summary counts the row, in a database and in a folder; the run is written once it can be; another
    run of its day stays."""
    is_folder = form == "parquet"
    destination = f"{tmp_path}/runs/" if is_folder else str(tmp_path / "runs.sqlite")
    state = tmp_path / "state.json"
    server = Server([run(n, createdAt=OPEN_FOR_HOURS - n, status=["FINISHED", "RUNNING"][n]) for n in range(2)])

    async def export_all() -> ExportSummary:
        return await export_runs(client, ["job"], destination, state=state, format="parquet" if is_folder else None)

    def rows() -> dict[tuple[str, str], dict[str, Any]]:
        paths = [*Path(destination).glob("*/*.parquet")] if is_folder else [Path(destination)]
        return rows_of(paths)

    async with server.serve() as client:
        await export_all()
        assert rows()["job", "run-1"]["status"] == "RUNNING"
        server.runs[1] = run(1, createdAt=OPEN_FOR_HOURS - 1, status="FAILED", duration=2**63)
        second = await export_all()
        assert second.rejected == 1
        assert rows().keys() == {("job", "run-0")}
        third = await export_all()
        assert (third.runs, third.rejected) == (0, 0)
        server.runs[1]["duration"] = 5
        await export_all()
        assert {key[1]: row["status"] for key, row in rows().items()} == {"run-0": "FINISHED", "run-1": "FAILED"}


@pytest.mark.parametrize("responses", [1, 2, 7])
async def test_an_empty_response_loses_no_open_run(responses: int, tmp_path: Path) -> None:
    """One is asked again; and a run that seemed to be gone for a whole export is looked for in those that follow."""
    path = tmp_path / "runs.sqlite"
    old = run(1, createdAt=OPEN_FOR_HOURS, status="RUNNING")
    server = Server([run(0, createdAt=1.6e12), old])
    async with server.serve() as client:
        await export(client, ["job"], path)
        server.is_empty_for = responses
        second = await export(client, ["job"], path)
        if responses == 1:
            assert rows_of([path])["job", "run-1"]["status"] == "RUNNING"
            assert second.removed_rows == 0
        server.is_empty_for = 0
        await export(client, ["job"], path)
        assert rows_of([path])["job", "run-1"]["status"] == "RUNNING"
        old["status"] = "FINISHED"
        await export(client, ["job"], path)
        assert rows_of([path])["job", "run-1"]["status"] == "FINISHED"


async def test_a_run_that_has_gone_costs_no_request_for_ever(tmp_path: Path) -> None:
    """It is looked for in some exports more."""
    path = tmp_path / "runs.sqlite"
    server = Server([run(0, createdAt=1.6e12), run(1, createdAt=OPEN_FOR_HOURS, status="RUNNING")])
    async with server.serve() as client:
        await export(client, ["job"], path)
        server.runs.pop()
        counts = []
        for _ in range(12):
            server.requests = 0
            await export(client, ["job"], path)
            counts.append(server.requests)
    assert counts == [5, *[3] * 10, 1]


async def test_an_end_is_not_undone_by_one_response_of_an_older_state(tmp_path: Path) -> None:
    """A list that is older than the one before shows a run as it was before it ended."""
    path = tmp_path / "runs.jsonl"
    runs = [run(n, createdAt=1.6e12 - n) for n in range(3)]
    server = Server(runs)
    stale = [{**runs[1], "status": "RUNNING"}, runs[2]]

    def reply(request: Request) -> bytes:
        if server.requests == 1:
            server.requests += 1
            return response(200, page(stale))
        return server.reply(request)

    async with serve(reply) as (url, _), Client(url, "a-long-enough-key") as client:
        await export(client, ["job"], path)
        second = await export(client, ["job"], path)
    assert second.runs == 0


@pytest.mark.parametrize(
    "form",
    [
        *("jsonl", "sqlite", "duckdb"),
        pytest.param("csv", marks=pytest.mark.slow),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ],
)
async def test_ten_rounds_are_what_one_export_is_while_runs_turn_bad_end_vanish_and_come_back(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """But for the rows of runs that are bad or gone now, which numbered files keep."""
    chance = random.Random(form)
    place: Any = tmp_path / f"runs.{form}"
    options: dict[str, Any] = {"state": tmp_path / "state.json"}
    if form == "postgres":
        cluster = request.getfixturevalue("postgres")
        place, options = cluster.url, {**options, "table": "rounds"}
    runs = [run(n, createdAt=1.6e12 - n * 400_000, status="RUNNING") for n in range(60)]
    server = Server(runs)
    away: list[dict[str, Any]] = []
    paths = []
    async with server.serve() as client:
        for number in range(11):
            paths.append((await export_runs(client, ["job"], place, **options)).path)
            if number == 10:
                break
            runs += away
            away.clear()
            runs[:0] = [run(100 * (number + 1) + n, createdAt=1.6e12 + number * 4e6 + n) for n in range(3)]
            runs.sort(key=lambda each: -each["createdAt"])
            for each in chance.sample([each for each in runs if each["status"] != "FINISHED"], 8):
                each.update(chance.choice([{"command": 7}, {"command": "true"}, {"duration": 2**63}, {"duration": 3}]))
                if chance.random() < 0.3:
                    each["status"] = "FINISHED"
            away += [runs.pop(chance.randrange(20, len(runs))) for _ in range(3) if number < 9]
            away[:] = [each for each in away if each["status"] != "FINISHED"] + [
                each for each in away if each["status"] == "FINISHED"
            ]
        full = tmp_path / f"full.{form.replace('postgres', 'parquet')}"
        await export_runs(client, ["job"], full)
    wanted = rows_of([full])
    if form == "postgres":
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(cluster.url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM rounds")
            rows = of_arrow(cursor.fetch_arrow_table())
        found = {(row["job_id"], row["id"]): row for row in rows}
        assert len(found) == len(rows)
        assert cluster.psql("SELECT count(*) > 0 FROM rounds_rejected") == "t"
        cluster.psql("DROP TABLE rounds, rounds_rejected")
    else:
        found = rows_of(list(dict.fromkeys(paths)))
    if form in ("jsonl", "csv"):
        assert wanted.keys() <= found.keys()
        found = {key: found[key] for key in wanted}
    assert found == wanted
