"""An export that is killed at any moment goes on, and ends as if it hadn't been."""

import asyncio
import contextlib
import logging
import random
import signal
import sqlite3
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.export import test_dataset
from tests.export.test_export import READERS, of_arrow
from tests.export.test_increments import rows_of
from tests.support import forked
from tests.support.cli import needs_posix
from tests.support.living import change
from tfruns import Client, RetryPolicy
from tfruns.export import ExportProgress, export_runs
from tfruns.export.formats import zstd
from tfruns.sandbox import Sandbox

pytestmark = [pytest.mark.slow, needs_posix]

KILLS = 8


def export(steps: Connection, url: str, key: str, path: str, ids: list[str], options: dict[str, Any]) -> None:
    """What a process does: it sends a `.` for each step, and a `w` for those after all runs were read."""
    logging.getLogger("tfruns").setLevel(logging.CRITICAL)

    def tell(progress: ExportProgress) -> None:
        steps.send_bytes(b"w" if progress.is_writing else b".")

    async def work() -> None:
        async with Client(url, key, max_concurrency=4, retry=RetryPolicy(initial_backoff=0.01)) as client:
            await export_runs(client, ids, path, on_progress=tell, **options)

    asyncio.run(work())


async def export_and_kill(
    sandbox: Sandbox, path: Path | str, *, after: int, pause: float, is_late: bool = False, **options: Any
) -> bool:
    """Start the export, and kill it so many seconds after so many steps, or (`is_late`) after all runs were read.
    Returns whether it was over before that."""
    process, steps = forked.start(export, sandbox.url, sandbox.api_key, str(path), sandbox.job_ids, options)
    with contextlib.closing(steps), contextlib.closing(process):
        with contextlib.suppress(EOFError):
            while (is_late or after > 0) and (await asyncio.to_thread(steps.recv_bytes) != b"w" or not is_late):
                after -= 1
            await asyncio.sleep(pause)
            process.kill()
        await asyncio.to_thread(process.join)
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode == 0


def content(path: Path) -> object:
    form = path.suffix[1:]
    if form == "zst":  # jobs that came together in another way make other frames
        return zstd.decompress(path.read_bytes())
    return READERS[form](path) if form in READERS else path.read_bytes()


@pytest.mark.parametrize("form", ["jsonl", "jsonl.zst", "parquet", "sqlite", "duckdb"])
async def test_an_export_killed_at_many_moments_ends_as_an_undisturbed_one(form: str, tmp_path: Path) -> None:
    chance = random.Random(form)
    sizes = [chance.choice([0, 3, 300, 1500]) for _ in range(24)]
    faults = ["status=503,rate=0.05", "breaks=cut,rate=0.03", "breaks=reset,rate=0.02"]
    wanted, path = tmp_path / f"wanted.{form}", tmp_path / f"runs.{form}"
    kills = 0
    async with Sandbox(jobs=len(sizes), runs=sizes, faults=faults) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            await export_runs(client, sandbox.job_ids, wanted)
        while kills < KILLS or not path.exists():
            path.unlink(missing_ok=True)
            after = chance.randrange(30) if kills < KILLS else sys.maxsize
            if not await export_and_kill(sandbox, path, after=after, pause=chance.random() * 0.03):
                kills += 1
            if path.exists():
                assert content(path) == content(wanted)
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == [path.name, wanted.name]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
async def test_a_folder_killed_within_a_window_keeps_every_other_day_and_each_day_whole(
    form: str, tmp_path: Path
) -> None:
    """After each kill a day is that of before or that of now."""
    chance, folder = random.Random(form), tmp_path / "runs"
    async with Sandbox(jobs=6, runs=400) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, f"{folder}/", format=form)
        before = test_dataset.content(folder, form)
        newest = max(row.get("created_at") or row["createdAt"] for row in before.values())
        window = {"created_after": newest - 4 * 86_400_000}
        first = window["created_after"] // 86_400_000 * 86_400_000
        for job_id in sandbox.job_ids:
            for run in await client.iter_runs(job_id, created_after=first).collect():
                await sandbox.update_run(job_id, run.id, command="changed")
        await export_runs(client, sandbox.job_ids, f"{tmp_path}/now/", format=form, **window)
        now = test_dataset.content(tmp_path / "now", form)
        kills = is_over = 0
        while not (is_over and kills >= KILLS):
            after = chance.randrange(16) if kills < KILLS else sys.maxsize
            pause = chance.random() * 0.05
            is_over = await export_and_kill(sandbox, f"{folder}/", after=after, pause=pause, format=form, **window)
            kills += not is_over
            found = test_dataset.content(folder, form)
            assert found.keys() == before.keys()
            by_day: dict[int, set[str]] = {}
            for key, row in found.items():
                created_at = row.get("created_at") or row["createdAt"]
                assert row == before[key] or (created_at >= first and row == now[key])
                by_day.setdefault(created_at // 86_400_000, set()).add(row["command"])
            assert all(len(commands) == 1 for commands in by_day.values() if "changed" in commands)
    assert found == before | now
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["now", "runs"]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "folder"])
async def test_increments_killed_at_many_moments_are_together_what_one_export_is(form: str, tmp_path: Path) -> None:
    """Field by field, and a run is written into no two rows of a table."""
    chance = random.Random(form)
    path = f"{tmp_path}/runs/" if form == "folder" else tmp_path / f"runs.{form}"
    options = {"state": str(tmp_path / "state.json"), "format": "parquet" if form == "folder" else None}
    kills = 0
    async with Sandbox(jobs=5, runs=[0, 5, 40, 200, 1200], living=True, seed=3) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            while kills < KILLS:
                if not await export_and_kill(
                    sandbox, path, after=chance.randrange(20), pause=chance.random() * 0.05, **options
                ):
                    kills += 1
                await change(sandbox, chance)
                sandbox.clock.advance(chance.choice([60, 600, 4000]))
            for _ in range(2):  # the first may go on from what was read before the last change
                await export_and_kill(sandbox, path, after=sys.maxsize, pause=0, **options)
            full = (
                await export_runs(client, sandbox.job_ids, tmp_path / f"full.{form.replace('folder', 'parquet')}")
            ).path
    wanted = rows_of([Path(full)])
    if form == "folder":
        assert test_dataset.content(Path(path), "parquet") == wanted
    else:
        assert rows_of(sorted(tmp_path.glob(f"runs*.{form}"))) == wanted


FORMS = ["sqlite", "duckdb", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.mark.parametrize("form", FORMS)
async def test_increments_killed_at_many_moments_leave_a_table_as_before_or_as_after(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A dozen kills, half of them while the table is written; other tables stay, and in the end no field differs."""
    chance = random.Random(form)
    path, options = str(tmp_path / f"runs.{form}"), {"state": str(tmp_path / "state.json")}
    if form == "postgres":
        cluster = request.getfixturevalue("postgres")
        path, options = cluster.url, {**options, "table": "killed"}

    def rows() -> dict[tuple[str, str], Any]:
        if form != "postgres":
            found = READERS[form](Path(path))
            assert connect(path).execute("SELECT * FROM mine").fetchall() == [("kept",)]
        else:
            from adbc_driver_postgresql import dbapi

            with dbapi.connect(path) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT * FROM killed")
                found = of_arrow(cursor.fetch_arrow_table())
        keyed = {(row["job_id"], row["id"]): row for row in found}
        assert len(keyed) == len(found)
        return keyed

    def connect(path: str) -> Any:
        if form == "sqlite":
            return sqlite3.connect(path, isolation_level=None)
        import duckdb

        return duckdb.connect(path)

    kills = 0
    async with (
        Sandbox(jobs=5, runs=[0, 5, 40, 400, 3000], living=True, seed=3) as sandbox,
        Client(sandbox.url, sandbox.api_key) as client,
    ):
        await export_runs(client, sandbox.job_ids, path, **options)  # type: ignore[arg-type]
        if form != "postgres":
            with contextlib.closing(connect(path)) as database:
                database.execute("CREATE TABLE mine (text VARCHAR)")
                database.execute("INSERT INTO mine VALUES ('kept')")
        while kills < 12:
            if chance.random() < 0.3:
                Path(options["state"]).unlink()  # the next export is a full one, into the table that is there
            await change(sandbox, chance)
            sandbox.clock.advance(chance.choice([60, 600, 4000]))
            before, found = rows(), []
            for _ in range(3):
                is_late = chance.random() < 0.6
                pause = chance.random() * (0.15 if is_late else 0.03)
                kills += not await export_and_kill(
                    sandbox, path, after=chance.randrange(8), pause=pause, is_late=is_late, **options
                )
                found.append(rows())
            assert await export_and_kill(sandbox, path, after=sys.maxsize, pause=0, **options)
            after = rows()
            assert all(each in (before, after) for each in found)
        await export_runs(client, sandbox.job_ids, tmp_path / "full.parquet")
    if form == "postgres":
        cluster.psql("DROP TABLE killed; DROP TABLE IF EXISTS killed_rejected")
    wanted = {(row["job_id"], row["id"]): row for row in READERS["parquet"](tmp_path / "full.parquet")}
    assert after == wanted
