"""Databases in a file: rows of the same runs are replaced in one transaction, and everything else stays."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.export.test_export import READERS
from tests.support.combinations import each_once
from tests.support.hostile import run
from tests.support.jobs import Jobs
from tfruns.export import ExportError, ExportProgress
from tfruns.export.tables import SqliteTable

FORMS = ["sqlite", "duckdb"]


@contextlib.contextmanager
def connected(path: Path) -> Iterator[Callable[[str], list[Any]]]:
    """What runs a statement in a database."""
    is_duckdb = path.suffix == ".duckdb"
    database: Any = duckdb.connect(str(path)) if is_duckdb else sqlite3.connect(path, isolation_level=None)
    try:
        yield lambda statement: database.execute(statement).fetchall()
    finally:
        database.close()


def sql(path: Path, *statements: str) -> list[Any]:
    """The rows of the last of some statements."""
    rows: list[Any] = []
    with connected(path) as execute:
        for statement in statements:
            rows = execute(statement)
    return rows


def ids(path: Path) -> set[tuple[str, str]]:
    rows = [(row["job_id"], row["id"]) for row in READERS[path.suffix[1:]](path)]
    assert len(set(rows)) == len(rows)
    return set(rows)


def test_a_few_rows_are_written_without_reading_a_large_table() -> None:
    """SQLite looks each staged row up in the table's index, not each row of the table among those that are staged."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute("ATTACH ':memory:' AS tfruns_staged")
        for name in ("main", "tfruns_staged"):
            database.execute(SqliteTable.definition(f"{name}.runs"))
        statements: list[str] = []
        database.set_trace_callback(statements.append)
        SqliteTable("", database).upsert()
        database.set_trace_callback(None)
        update, insert = (
            [step for *_, step in database.execute(f"EXPLAIN QUERY PLAN {statement}")] for statement in statements
        )
    assert update == ["SCAN new", "SEARCH old USING INDEX sqlite_autoindex_runs_1 (job_id=? AND id=?)"]
    assert insert[-1] == "SEARCH new USING COVERING INDEX sqlite_autoindex_runs_1 (job_id=? AND id=?)"


@pytest.mark.parametrize("form", FORMS)
async def test_everything_else_stays(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """Rows of other jobs and of runs that are gone, other tables, views and indexes; values in columns of the user."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1, status="RUNNING"), run(2)], b=[run(3)])
    await jobs.export(path, "a")
    sql(
        path,
        "CREATE TABLE mine (text VARCHAR)",
        "INSERT INTO mine VALUES ('kept')",
        "CREATE VIEW failed AS SELECT id FROM runs WHERE status = 'FAILED'",
        "CREATE INDEX by_status ON runs (status)",
        "ALTER TABLE runs ADD COLUMN note VARCHAR" if form == "duckdb" else "ALTER TABLE runs ADD COLUMN note TEXT",
        "UPDATE runs SET note = 'seen'",
    )
    jobs["a"] = [run(1, status="FAILED"), run(4)]
    summary = await jobs.export(path, "a", "b")
    assert (summary.runs, summary.removed_rows) == (3, 0)
    assert ids(path) == {("a", "run-1"), ("a", "run-2"), ("a", "run-4"), ("b", "run-3")}
    assert sql(path, "SELECT * FROM mine") == [("kept",)]
    assert sql(path, "SELECT * FROM failed") == [("run-1",)]
    assert sql(path, "SELECT id, note FROM runs WHERE note IS NOT NULL ORDER BY 1") == [
        ("run-1", "seen"),
        ("run-2", "seen"),
    ]
    names = "SELECT index_name FROM duckdb_indexes()" if form == "duckdb" else "SELECT name FROM sqlite_master"
    assert ("by_status",) in sql(path, names)


@pytest.mark.parametrize("form", FORMS)
async def test_a_column_that_an_older_version_didnt_have_is_added(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """In the transaction of the rows; it is null in those that aren't written again."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1, exitCode=1)], b=[run(2, exitCode=2)])
    await jobs.export(path, "a", "b")
    sql(path, "ALTER TABLE runs DROP COLUMN exit_code", "ALTER TABLE runs DROP COLUMN tenant_name")
    before = path.read_bytes()
    jobs["a"] = [run(1, exitCode=2**64)]
    with pytest.raises(ExportError, match="run-1"):
        await jobs.export(path, "a", on_bad_run="raise")
    assert path.read_bytes() == before
    jobs["a"] = [run(1, exitCode=1, tenantName="acme")]
    await jobs.export(path, "a")
    columns = "SELECT id, exit_code, tenant_name FROM runs ORDER BY id"
    assert sql(path, columns) == [("run-1", 1, "acme"), ("run-2", None, None)]


@pytest.mark.parametrize("form", FORMS)
async def test_replace_empties_the_own_table_alone(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """The summary counts the rows that no newer one replaces."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1), run(2), {**run(5), "duration": 2**63}], b=[run(3), run(4)])
    await jobs.export(path)
    sql(path, "CREATE TABLE mine (text VARCHAR)", "INSERT INTO mine VALUES ('kept')")
    del jobs["a"][1:]
    summary = await jobs.export(path, "a", replace=True)
    assert summary.removed_rows == 3
    assert ids(path) == {("a", "run-1")}
    assert sql(path, "SELECT * FROM mine") == [("kept",)]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", FORMS)
async def test_two_states_write_to_one_database(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """Each keeps what the other has written, in turns."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(n) for n in range(30)], b=[run(n) for n in range(30, 35)])
    for turn in range(3):
        for job_id, runs in jobs.items():
            runs.insert(0, run(100 + turn, createdAt=1_700_000_000_001 + turn))
            await jobs.export(path, job_id, state=tmp_path / f"{job_id}.json")
        assert ids(path) == {(job_id, each["id"]) for job_id, runs in jobs.items() for each in runs}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", [b"no database\n" * 500, b"PAR1", b"x" * 9000])
async def test_a_file_that_is_no_database_is_refused_and_stays(
    form: str, content: bytes, jobs: Jobs, tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{form}"
    path.write_bytes(content)
    jobs.update(a=[run(1)])
    for options in ({}, {"replace": True}, {"state": tmp_path / "state.json"}):
        with pytest.raises(ExportError, match=r"runs\.\w+ is no database of .*, and is left as it is"):
            await jobs.export(path, **options)
    assert (path.read_bytes(), jobs.requests) == (content, 0)


async def test_a_database_of_the_other_kind_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    """DuckDB would look for an extension that reads it."""
    jobs.update(a=[run(1)])
    await jobs.export(tmp_path / "runs.sqlite")
    await jobs.export(tmp_path / "runs.duckdb")
    (tmp_path / "runs.sqlite").rename(tmp_path / "other.duckdb")
    (tmp_path / "runs.duckdb").rename(tmp_path / "other.sqlite")
    with pytest.raises(ExportError, match="no database of DuckDB"):
        await jobs.export(tmp_path / "other.duckdb")
    with pytest.raises(ExportError, match="no database of SQLite"):
        await jobs.export(tmp_path / "other.sqlite")


@pytest.mark.parametrize("form", FORMS)
async def test_an_empty_file_becomes_a_database(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """As made by mktemp."""
    path = tmp_path / f"runs.{form}"
    path.touch(mode=0o640)
    jobs.update(a=[run(1)])
    await jobs.export(path)
    assert ids(path) == {("a", "run-1")}
    assert path.stat().st_mode & 0o777 == 0o640


MISFITS = {
    "it has no column status ": "ALTER TABLE runs DROP COLUMN status",
    "it has no column command ": "ALTER TABLE runs RENAME COLUMN command TO line",
    "its column mine may not be null and has no default": "",
    "it is no table": "ALTER TABLE runs RENAME TO other; CREATE VIEW runs AS SELECT * FROM other",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("says", MISFITS)
async def test_a_table_that_doesnt_fit_is_refused_before_anything_is_read(
    form: str, says: str, jobs: Jobs, tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1)])
    await jobs.export(path)
    change = MISFITS[says]
    if "mine" in says:
        change = "ALTER TABLE runs ADD COLUMN mine INTEGER DEFAULT 1; ALTER TABLE runs ALTER mine SET NOT NULL"
        change = f"{change}; ALTER TABLE runs ALTER mine DROP DEFAULT" if form == "duckdb" else ""
    if not change:
        ((made,),) = sql(path, "SELECT sql FROM sqlite_master WHERE name = 'runs'")
        change = f"DROP TABLE runs; {made.replace('(', '(mine INTEGER NOT NULL, ', 1)}"
    sql(path, *change.split("; "))
    before, requests = path.read_bytes(), jobs.requests
    with pytest.raises(ExportError, match=rf"the table runs of .* can't be written: .*{says}"):
        await jobs.export(path)
    assert jobs.requests == requests
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("id INTEGER, PRIMARY KEY (job_id, id)", "its column id is INTEGER, not TEXT"),
        ("id TEXT, PRIMARY KEY (id)", r"it has no primary key \(job_id, id\)"),
        ("id TEXT COLLATE NOCASE, PRIMARY KEY (job_id, id)", r"it has no primary key \(job_id, id\)"),
        ("id TEXT, PRIMARY KEY (job_id, id)", None),
        ("id VARCHAR(99), UNIQUE (id, job_id)", None),
        ("id TEXT, at INTEGER PRIMARY KEY NOT NULL, UNIQUE (job_id, id)", None),
    ],
)
async def test_a_table_of_sqlite_that_the_user_made_is_taken_if_it_holds_all(
    made: str, says: str | None, jobs: Jobs, tmp_path: Path
) -> None:
    """In whatever order its columns are, and however they are written."""
    path = tmp_path / "runs.sqlite"
    counts = {"total_retries", "duration", "exit_code"}
    jobs.update(a=[])
    await jobs.export(tmp_path / "empty.sqlite")
    names = [name for _, name, *_ in sql(tmp_path / "empty.sqlite", "PRAGMA table_info(runs)")]
    rest = [f"{name.upper()} {'bigint' if name in counts else 'text'}" for name in reversed(names) if name != "id"]
    sql(path, f"CREATE TABLE Runs ({', '.join(rest)}, extra DEFAULT 7, {made})")
    jobs.update(a=[run(1), run(2)])
    if says is not None:
        jobs.requests = 0
        with pytest.raises(ExportError, match=f"can't be written: {says}"):
            await jobs.export(path)
        assert jobs.requests == 0
        return
    for _ in range(2):
        await jobs.export(path)
    assert sql(path, "SELECT id, name, extra FROM runs ORDER BY 1") == [("run-1", "name-1", 7), ("run-2", "name-2", 7)]


@pytest.mark.parametrize("key", ["PRIMARY KEY (job_id, id)", "UNIQUE (id)", "CHECK (true)"])
async def test_a_table_of_duckdb_may_have_a_key(key: str, jobs: Jobs, tmp_path: Path) -> None:
    """Rows are replaced with one and without."""
    path = tmp_path / "main.duckdb"
    jobs.update(a=[run(1, status="RUNNING"), run(2)])
    await jobs.export(path)
    ((made,),) = sql(path, "SELECT sql FROM duckdb_tables()")
    sql(path, "DROP TABLE runs", made.rstrip(");") + f", {key});")
    await jobs.export(path)
    jobs["a"][0] = run(1, status="FAILED")
    await jobs.export(path)
    assert sql(path, "SELECT id, status FROM runs ORDER BY 1") == [("run-1", "FAILED"), ("run-2", "FINISHED")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["state", "full"])
async def test_a_row_that_the_server_contradicts_is_removed(form: str, mode: str, jobs: Jobs, tmp_path: Path) -> None:
    """A run ended with a value that no table holds: its old row doesn't say for ever that it is running."""
    path = tmp_path / f"runs.{form}"
    options: dict[str, Any] = {"state": tmp_path / "state.json"} if mode == "state" else {}
    jobs.update(a=[run(1), run(2, status="RUNNING"), run(3, status="RUNNING")])
    await jobs.export(path, **options)
    jobs["a"][1:] = [run(2, status="FAILED", duration=2**63), run(3, status=None)]
    summary = await jobs.export(path, **options)
    assert (summary.rejected, summary.removed_rows) == (2, 2)
    assert ids(path) == {("a", "run-1")}
    jobs["a"][1:] = [run(2, status="FAILED", duration=2**62), run(3, status="FAILED")]
    summary = await jobs.export(path, **options)
    assert (summary.rejected, summary.removed_rows) == (0, 0)
    assert sql(path, "SELECT id, status FROM runs ORDER BY 1") == [
        ("run-1", "FINISHED"),
        ("run-2", "FAILED"),
        ("run-3", "FAILED"),
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_what_other_jobs_had_set_aside_stays_in_the_quarantine(form: str, jobs: Jobs, tmp_path: Path) -> None:
    """A full export replaces what is there of its own jobs; one of some runs, what is there of these runs."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1, duration=2**63), run(2, status=None)], b=[run(3, duration=2**63)], c=[run(4)])

    def rejected() -> list[tuple[str, str]]:
        lines = map(json.loads, path.with_name(f"{path.name}.rejected.jsonl").read_text().splitlines())
        return sorted((line["jobId"], line["runId"]) for line in lines)

    await jobs.export(path, "a", "b", "c")
    await jobs.export(path, "c")
    assert rejected() == [("a", "run-1"), ("a", "run-2"), ("b", "run-3")]
    await jobs.export(path, "a", search_prefix="run-1")
    assert rejected() == [("a", "run-1"), ("a", "run-2"), ("b", "run-3")]
    jobs["a"][0] = run(1)
    assert (await jobs.export(path, "a")).rejected == 1
    assert rejected() == [("a", "run-2"), ("b", "run-3")]


@each_once(
    "name, form", ["status=all", "id=1", "created_at=2026-11-29", "a*b[c]", "it's", "ü \n", "a#b%20c"], FORMS[::-1]
)
async def test_no_name_in_a_path_is_taken_for_something_else(form: str, name: str, jobs: Jobs, tmp_path: Path) -> None:
    """Not for the value of a column, a pattern or a part of a URL; for a folder, and for the file."""
    jobs.update(**{"job-1": [run(1, status="RUNNING"), run(2, status="FAILED")], "job-2": [run(3)]})
    folder = tmp_path / name
    folder.mkdir()
    (tmp_path / "aXb-c").mkdir()
    path, clean = folder / f"{name}.{form}", tmp_path / f"copy.{form}"
    for _ in range(2):
        await jobs.export(path, state=tmp_path / "state.json")
        jobs["job-1"][0]["status"] = "FAILED"
    shutil.copy(path, clean)
    rows = [(row["job_id"], row["id"], row["status"]) for row in READERS[form](clean)]
    assert sorted(rows) == [("job-1", "run-1", "FAILED"), ("job-1", "run-2", "FAILED"), ("job-2", "run-3", "FINISHED")]


@pytest.mark.skipif(sys.platform == "win32", reason="no character of a name")
@pytest.mark.parametrize("mark", ["?", "\\"])
async def test_a_path_that_duckdb_cant_write_to_is_refused_at_once(mark: str, jobs: Jobs, tmp_path: Path) -> None:
    """It would put its log into another folder, or fail at the end."""
    jobs.update(a=[run(1)])
    (tmp_path / f"a{mark}b").mkdir()
    for path in (tmp_path / f"a{mark}b.duckdb", tmp_path / f"a{mark}b" / "runs.duckdb"):
        with pytest.raises(ExportError, match="DuckDB can't write to a path with '"):
            await jobs.export(path)
        assert jobs.requests == 0
        path = path.with_suffix(".sqlite")
        await jobs.export(path)
        assert ids(path) == {("a", "run-1")}
        jobs.requests = 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_database_that_another_process_holds_is_refused_before_anything_is_read(
    form: str, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1)])
    await jobs.export(path)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.1}))
    code = {
        "sqlite": "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE')",
        "duckdb": "import duckdb, sys; c = duckdb.connect(sys.argv[1])",
    }[form]
    holder = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", f"{code}; print('held', flush=True); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        requests = jobs.requests
        with pytest.raises(ExportError, match="the table runs of .* can't be written: .*lock"):
            await jobs.export(path)
        assert jobs.requests == requests
    await jobs.export(path)


async def test_a_database_of_duckdb_that_the_own_process_has_open_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    """A second handle on the file would damage it."""
    path = tmp_path / "runs.duckdb"
    jobs.update(a=[run(1)])
    await jobs.export(path)
    with connected(path) as execute, pytest.raises(ExportError, match="can't be written: .*different configuration"):
        await jobs.export(path)
        assert execute("SELECT count(*) FROM runs") == [(1,)]
    await jobs.export(path)


async def test_a_database_of_sqlite_in_utf_16_is_refused_at_once(jobs: Jobs, tmp_path: Path) -> None:
    """It could take no rows from another one."""
    jobs["a"] = [run(1)]
    sql(tmp_path / "runs.sqlite", "PRAGMA encoding = 'UTF-16le'", "CREATE TABLE mine (a)")
    with pytest.raises(ExportError, match="the database is in UTF-16le"):
        await jobs.export(tmp_path / "runs.sqlite")
    assert jobs.requests == 0


async def test_a_name_that_sqlite_needs_is_taken(jobs: Jobs, tmp_path: Path) -> None:
    """By an index: that is known before anything is read. A trigger of the name doesn't matter."""
    jobs["a"] = [run(1)]
    path = tmp_path / "runs.sqlite"
    sql(path, "CREATE TABLE mine (a)", "CREATE TRIGGER runs AFTER DELETE ON mine BEGIN SELECT 1; END")
    await jobs.export(path)
    assert ids(path) == {("a", "run-1")}
    sql(path, "DROP TABLE runs", "CREATE INDEX runs ON mine (a)")
    jobs.requests = 0
    with pytest.raises(ExportError, match="can't be written: it is no table"):
        await jobs.export(path)
    assert jobs.requests == 0


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
async def test_a_folder_whose_name_isnt_text_holds_a_database_of_sqlite_alone(jobs: Jobs, tmp_path: Path) -> None:
    jobs["a"] = [run(1)]
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for _ in range(2):
        await jobs.export(folder / "runs.sqlite")
    assert ids(folder / "runs.sqlite") == {("a", "run-1")}
    jobs.requests = 0
    with pytest.raises(ExportError, match="DuckDB can't write to a path with "):
        await jobs.export(folder / "runs.duckdb")
    assert jobs.requests == 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_database_that_appears_while_runs_are_read_keeps_what_is_in_it(
    form: str, jobs: Jobs, tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1)], b=[run(2)])
    await jobs.export(tmp_path / f"other.{form}", "b")

    def appear(progress: ExportProgress) -> None:
        if progress.is_writing:
            (tmp_path / f"other.{form}").rename(path)

    await jobs.export(path, "a", on_progress=appear)
    assert ids(path) == {("a", "run-1"), ("b", "run-2")}


async def test_a_database_in_wal_mode_stays_in_it_and_readers_go_on(jobs: Jobs, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    jobs.update(a=[run(1)])
    await jobs.export(path)
    sql(path, "PRAGMA journal_mode = WAL")
    with connected(path) as execute:
        execute("BEGIN")
        assert execute("SELECT count(*) FROM runs") == [(1,)]
        jobs["a"].append(run(2))
        await jobs.export(path)
        assert execute("SELECT count(*) FROM runs") == [(1,)]
    assert sql(path, "SELECT count(*) FROM runs") == [(2,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("form", FORMS)
async def test_a_constraint_of_the_user_that_a_row_breaks_changes_nothing(
    form: str, jobs: Jobs, tmp_path: Path
) -> None:
    """The same call goes on once it is gone."""
    path = tmp_path / f"runs.{form}"
    jobs.update(a=[run(1), run(2)])
    await jobs.export(path)
    sql(path, "CREATE UNIQUE INDEX one ON runs (name)")
    jobs["a"][0]["status"] = "FAILED"
    jobs["a"].append(run(3, name="name-2"))
    with pytest.raises(ExportError, match="can't be written: .*onstraint"):
        await jobs.export(path)
    assert sql(path, "SELECT id, status FROM runs ORDER BY 1") == [("run-1", "FINISHED"), ("run-2", "FINISHED")]
    sql(path, "DROP INDEX one")
    assert (await jobs.export(path)).resumed_jobs == 1
    assert len(ids(path)) == 3
