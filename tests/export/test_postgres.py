"""Exports to PostgreSQL: rows take the place of those of the same runs, all in one transaction."""

import asyncio
import json
import logging
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow
import pytest

polars = pytest.importorskip("polars")
pytest.importorskip("adbc_driver_postgresql")

from adbc_driver_postgresql import dbapi

import tfruns
from tests.export.test_export import READERS, StoppedError, fill, flat, of_arrow, stop_after
from tests.http.test_key_stays_home import LOOKS
from tests.support.hostile import page, response, run, serve
from tests.support.jobs import Jobs
from tests.support.living import exported_in_rounds
from tests.support.postgres import ENCODED, PASSWORD, Cluster
from tfruns import Client
from tfruns.export import ExportError, export_runs
from tfruns.sandbox import Fault, Sandbox

pytestmark = pytest.mark.postgres


@pytest.fixture
def table(request: pytest.FixtureRequest, postgres: Cluster) -> Iterator[str]:
    """The name of a table of the test's own, which isn't there yet."""
    name = f"runs {zlib.crc32(request.node.name.encode()):x}"
    yield name
    postgres.psql(f'DROP TABLE IF EXISTS "{name}", "{name}_rejected"')


def rows(postgres: Cluster, table: str) -> pyarrow.Table:
    with dbapi.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608
        return cursor.fetch_arrow_table()


def by_key(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    keyed = {(row["job_id"], row["id"]): row for row in found}
    assert len(keyed) == len(found)
    return keyed


async def test_what_others_read_from_the_table_is_what_the_server_has(
    postgres: Cluster, table: str, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    await fill(sandbox)
    summary = await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert (str(summary.path), summary.runs) == (f"{postgres.address}, table {table}", 69)
    assert summary.size == int(postgres.psql(f"SELECT pg_total_relation_size('\"{table}\"')"))
    wanted = by_key([flat(job_id, run) for job_id in sandbox.job_ids async for run in client.iter_runs(job_id)])
    query = f'SELECT * FROM "{table}"'  # noqa: S608
    with dbapi.connect(postgres.url) as connection:
        frame = pandas.read_sql(query, connection, dtype_backend="pyarrow")
    arrow = rows(postgres, table)
    tables = {
        "pandas": pyarrow.Table.from_pandas(frame, preserve_index=False),
        "polars": polars.read_database_uri(query, postgres.url, engine="adbc").to_arrow(),
        "duckdb": duckdb.sql("FROM arrow").to_arrow_table(),
        "psql": _by_psql(postgres, table),
    }
    assert len(arrow) == 69
    for name, found in tables.items():
        assert by_key(of_arrow(found)) == wanted, name
    assert [*(tmp_path / ".cache" / "tfruns").iterdir()] == []


def _by_psql(postgres: Cluster, table: str) -> pyarrow.Table:
    """What psql sees, as JSON: moments as texts."""
    rows = json.loads(postgres.psql(f'SELECT json_agg(runs) FROM "{table}" AS runs'))  # noqa: S608
    for row in rows:
        for name in ("created_at", "end_time"):
            row[name] = None if row[name] is None else pandas.Timestamp(row[name]).to_pydatetime()
    return pyarrow.Table.from_pylist(rows)


async def test_ten_exports_of_a_living_list_make_the_table_that_one_export_makes(
    postgres: Cluster, table: str, tmp_path: Path
) -> None:
    async def export(client: Client, job_ids: Sequence[str]) -> None:
        await export_runs(client, job_ids, postgres.url, table=table, state=tmp_path / "state.json")

    async with exported_in_rounds("postgres", export) as (client, job_ids):
        full = (await export_runs(client, job_ids, tmp_path / "full.parquet")).path
    found = by_key(of_arrow(rows(postgres, table)))
    assert found == by_key(READERS["parquet"](Path(full)))
    assert len(found) > 1445
    state = (tmp_path / "state.json").read_text()
    assert postgres.address in state
    assert PASSWORD not in state
    assert ENCODED not in state


async def test_rows_of_other_jobs_stay_and_those_that_are_the_same_are_not_written(
    postgres: Cluster, table: str, sandbox: Sandbox, client: Client
) -> None:
    """A table may hold what several exports write, and be exported to every night."""
    first, _, third = sandbox.job_ids
    await export_runs(client, [first], postgres.url, table=table)
    await export_runs(client, [third], postgres.url, table=table)
    await sandbox.update_run(third, (await client.list_runs(third, limit=1)).data[0].id, status="RUNNING")
    versions = f'SELECT count(DISTINCT xmin::text) FROM "{table}"'  # noqa: S608
    assert postgres.psql(versions) == "2"
    await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert postgres.psql(f'SELECT count(*) FROM "{table}" GROUP BY xmin::text ORDER BY 1') == "1\n24\n40"  # noqa: S608


async def test_runs_that_the_table_cant_hold_stand_in_a_table_beside_it(postgres: Cluster, table: str) -> None:
    """A character that PostgreSQL has no text with ends no export, nor does an id that is too long for an index."""
    runs: list[Any] = [run(0), {**run(1), "duration": 2**63}, {**run(2), "name": "a\0b"}, {**run(3), "id": "x" * 3000}]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :], len(runs)))) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        summary = await export_runs(client, ["job"], postgres.url, table=table)
        assert (summary.runs, summary.rejected) == (1, 3)
        assert summary.quarantine == f"{postgres.address}, table {table}_rejected"
        found = postgres.psql(f'SELECT job_id, left(run_id, 5), field, why, length(text) > 50 FROM "{table}_rejected"')  # noqa: S608
        assert found.splitlines() == [
            "job|run-1|duration|duration: expected a number of 64 bits, got 9223372036854775808|t",
            "job|run-2|name|name: expected text without the character U+0000|t",
            "job|xxxxx|id|id: expected at most 2,600 bytes with the job's id|t",
        ]
        del runs[1:]
        assert (await export_runs(client, ["job"], postgres.url, table=table)).quarantine is None
    assert postgres.psql(f'SELECT count(*) FROM "{table}_rejected"') == "0"  # noqa: S608


async def test_an_increment_keeps_the_runs_that_an_earlier_one_rejected(
    postgres: Cluster, table: str, tmp_path: Path
) -> None:
    """They are not read again."""
    runs: list[Any] = [run(0), {**run(1), "name": "a\0b"}]
    async with (
        serve(lambda request: response(200, page(runs[request.offset :], len(runs)))) as (url, _),
        Client(url, "a-long-enough-key") as client,
    ):
        for number in range(3):
            summary = await export_runs(client, ["job"], postgres.url, table=table, state=tmp_path / "state.json")
            assert summary.rejected == (number == 0)
            assert postgres.psql(f'SELECT run_id FROM "{table}_rejected"') == "run-1"  # noqa: S608


@pytest.mark.parametrize(
    ("change_", "says"),
    [
        ("ALTER TABLE {} DROP COLUMN status", "it has no column status text"),
        ("ALTER TABLE {} ALTER created_at TYPE timestamp", "its column created_at is timestamp without time zone, not"),
        ("ALTER TABLE {} ALTER exit_code TYPE integer", "its column exit_code is integer, not bigint"),
        ("ALTER TABLE {} ALTER name TYPE varchar(99)", r"its column name is character varying\(99\), not text"),
        ("ALTER TABLE {} ADD mine integer NOT NULL", "its column mine may not be"),
        ("ALTER TABLE {} DROP CONSTRAINT {key}", r"it has no primary key \(job_id, id\)"),
        ("DROP TABLE {0}; CREATE VIEW {0} AS SELECT 1", "it is no table"),
    ],
)
async def test_a_table_that_doesnt_fit_is_refused_before_anything_is_read(
    change_: str, says: str, postgres: Cluster, table: str, sandbox: Sandbox, client: Client
) -> None:
    await export_runs(client, sandbox.job_ids[1:2], postgres.url, table=table)
    postgres.psql(change_.format(f'"{table}"', key=f'"{table}_pkey"'))
    sandbox.requests.clear()
    with pytest.raises(ExportError, match=rf"table {table} can't be written: {says}"):
        await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert not sandbox.requests
    if "VIEW" in change_:
        postgres.psql(f'DROP VIEW "{table}"')


async def test_a_table_with_more_columns_and_wider_types_is_taken_as_it_is(
    postgres: Cluster, table: str, sandbox: Sandbox, client: Client
) -> None:
    await export_runs(client, sandbox.job_ids[1:2], postgres.url, table=table)
    postgres.psql(f'ALTER TABLE "{table}" ADD loaded_at timestamptz DEFAULT now(), ALTER name TYPE varchar')
    await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert postgres.psql(f'SELECT count(*), count(loaded_at) FROM "{table}"') == "65|65"  # noqa: S608


async def test_a_column_that_an_older_version_didnt_have_is_added(postgres: Cluster, table: str, jobs: Jobs) -> None:
    """By the owner of the table; others see before anything is read that they may not."""
    jobs.update(a=[run(1, exitCode=1)], b=[run(2, exitCode=2)])
    await jobs.export(postgres.url, "a", "b", table=table)
    postgres.psql(f'ALTER TABLE "{table}" DROP COLUMN exit_code')
    postgres.psql(f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
    try:
        postgres.psql(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO writer')
        jobs.requests = 0
        with pytest.raises(ExportError, match=rf"table {table} can't be written: .*must be owner"):
            await jobs.export(postgres.url.replace("tests:", "writer:", 1), "a", table=table)
        assert jobs.requests == 0
    finally:
        postgres.psql("DROP OWNED BY writer; DROP ROLE writer")
    await jobs.export(postgres.url, "a", table=table)
    assert postgres.psql(f'SELECT id, exit_code FROM "{table}" ORDER BY id').split() == ["run-1|1", "run-2|␀"]  # noqa: S608


async def test_a_table_that_is_gone_is_not_taken_for_an_empty_one(
    postgres: Cluster, table: str, sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    arguments: Any = {"table": table, "state": tmp_path / "state.json"}
    await export_runs(client, sandbox.job_ids, postgres.url, **arguments)
    postgres.psql(f'DROP TABLE "{table}"')
    with pytest.raises(ExportError, match="isn't there, but by .*state.json it was written before"):
        await export_runs(client, sandbox.job_ids, postgres.url, **arguments)
    with pytest.raises(ExportError, match="with another database: give another file"):
        await export_runs(client, sandbox.job_ids, postgres.url, table="other", state=tmp_path / "state.json")


async def test_what_fails_in_the_middle_changes_nothing_and_the_same_call_goes_on(
    postgres: Cluster, table: str, sandbox: Sandbox, client: Client
) -> None:
    await export_runs(client, sandbox.job_ids[2:], postgres.url, table=table)
    postgres.psql(f"""ALTER TABLE "{table}" ADD CONSTRAINT few CHECK (job_id <> '{sandbox.job_ids[0]}')""")
    with pytest.raises(ExportError, match=r"can't be written: .*violates check constraint \"few\""):
        await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert postgres.psql(f'SELECT count(*) FROM "{table}"') == "25"  # noqa: S608
    postgres.psql(f'ALTER TABLE "{table}" DROP CONSTRAINT few')
    sandbox.requests.clear()
    summary = await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    assert (summary.resumed_jobs, len(sandbox.requests)) == (3, 0)
    assert postgres.psql(f'SELECT count(*) FROM "{table}"') == "65"  # noqa: S608


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_statement_that_waits_is_cancelled_and_leaves_nothing(
    cancellations: int, postgres: Cluster, table: str, sandbox: Sandbox, client: Client
) -> None:
    await export_runs(client, sandbox.job_ids[1:2], postgres.url, table=table)
    with dbapi.connect(postgres.url) as other, other.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{table}"')
        export = asyncio.create_task(export_runs(client, sandbox.job_ids, postgres.url, table=table))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while await asyncio.to_thread(postgres.psql, waiting) == "0":
            assert not export.done()
        for _ in range(cancellations):
            export.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([export])
        assert export.cancelled()
    assert postgres.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%tfruns%' AND state <> 'idle'") == "1"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfruns-export")]
    assert (await export_runs(client, sandbox.job_ids, postgres.url, table=table)).resumed_jobs == 3
    assert postgres.psql(f'SELECT count(*) FROM "{table}"') == "65"  # noqa: S608


async def test_several_exports_may_write_to_one_table_at_once(postgres: Cluster, table: str, tmp_path: Path) -> None:
    """From several machines, say, which make it, and write the same rows in another order."""
    exports = []
    async with Sandbox(jobs=4, runs=1500) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for number in range(4):
            (tmp_path / str(number)).mkdir()
            ids = sandbox.job_ids[:: (-1) ** number]
            exports.append(export_runs(client, ids, postgres.url, table=table, work_dir=tmp_path / str(number)))
        summaries = await asyncio.gather(*exports)
    assert [summary.runs for summary in summaries] == [6000] * 4
    assert postgres.psql(f'SELECT count(*) FROM "{table}"') == "6000"  # noqa: S608


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "csv"}, "format goes with files"),
        ({"storage_options": {"key": PASSWORD}}, "storage_options go with object stores"),
        ({"table": ""}, "table must be the name of a table, .* got ''"),
        ({"table": "a.b.c"}, "table must be the name of a table"),
        ({"table": "x" * 64}, "of at most 63 bytes"),
        ({"destination": f"postgresql://tests:{PASSWORD}@127.0.0.1/postgres"}, "the URL of the database can't be"),
        ({"destination": f"postgresql://127.0.0.1:x/postgres?password={ENCODED}"}, "the URL of the database can't be"),
        ({"destination": f"postgresql://127.0.0.1:1/postgres?password={ENCODED}"}, "can't be written: .*Connection"),
        ({"destination": f"postgresql://127.0.0.1/?no={ENCODED}"}, "can't be written: .*invalid URI query parameter"),
        ({"destination": "postgresql://me:50%pass%2Fw%40rd%3Aof%3Fthe%23tests@127.0.0.1:1/db"}, "can't be written: "),
        ({"destination": f"postgresql:///db?host=/no/such&password={ENCODED}"}, r"db\?host=/no/such, table .*written"),
        ({"destination": f"runs.csv?{PASSWORD}", "table": "mine"}, "table goes with postgresql:// alone"),
    ],
)
async def test_wrong_arguments_are_refused_without_the_password(arguments: dict[str, Any], says: str) -> None:
    given = {"destination": f"postgresql://tests:{ENCODED}@127.0.0.1:1/postgres", **arguments}
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises((ValueError, ExportError), match=says) as caught:
            await export_runs(client, ["job"], **given)
    _assert_hidden(caught.value)


async def test_no_password_is_shown_where_an_export_fails(
    postgres: Cluster,
    table: str,
    sandbox: Sandbox,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """In no message, variable, log or name of a file, whatever it fails from."""
    caplog.set_level(logging.DEBUG, "tfruns")
    errors: list[BaseException] = []
    wrong_password = postgres.url.replace(ENCODED, f"x{ENCODED}")
    for url, options in (
        (wrong_password, {}),
        (postgres.url, {"on_progress": stop_after(1)}),
        (postgres.url.replace("/postgres", "/no-such-database"), {}),
        (postgres.url, {"table": "pg_class"}),
    ):
        try:
            await export_runs(client, sandbox.job_ids, url, **{"table": table, **options})
        except (ExportError, StoppedError) as error:
            errors.append(error)
    names = [str(path) for path in tmp_path.rglob("*")]
    assert any("tfruns-partial" in name for name in names)
    assert not [name for name in names if PASSWORD in name or ENCODED in name]
    manifests = [path.read_text() for path in tmp_path.rglob("manifest")]
    assert not [text for text in manifests if PASSWORD in text or ENCODED in text]
    sandbox.faults.append(Fault(status=500))
    with pytest.raises(tfruns.InternalServerError) as failed:
        await export_runs(client, sandbox.job_ids, postgres.url, table=table)
    errors.append(failed.value)
    assert len(errors) == 5
    for error in errors:  # type: ignore[misc]
        _assert_hidden(error, caplog.text)  # type: ignore[misc]


def _assert_hidden(error: BaseException, logs: str = "") -> None:
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without the test itself
    shown_by = {look: show(error) for look, show in LOOKS.items()} | {"logs": logs}
    assert [look for look, text in shown_by.items() if PASSWORD in text or ENCODED in text] == []


# --- encodings, rights and pools ---


@pytest.mark.parametrize("where", ["environment", "URL", "role"])
@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252"])
async def test_texts_arrive_whatever_encoding_the_client_is_set_to(
    where: str, encoding: str, postgres: Cluster, table: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they did not: `café` was stored as `cafÃ©`."""
    jobs["jöb"] = [run(1, name="café"), run(2, name="Ωmega", error="🐍"), {**run(3, name="ż"), "duration": 2**63}]
    url = postgres.url
    if where == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", encoding)
    elif where == "URL":
        url += f"?client_encoding={encoding}"
    else:
        postgres.psql(f"ALTER ROLE tests SET client_encoding = '{encoding}'")
    try:
        summary = await jobs.export(url, table=table)
    finally:
        postgres.psql("ALTER ROLE tests RESET client_encoding")
    assert (summary.runs, summary.rejected) == (2, 1)
    assert postgres.psql(f'SELECT job_id, name, error FROM "{table}" ORDER BY id') == "jöb|café|␀\njöb|Ωmega|🐍"  # noqa: S608
    assert json.loads(postgres.psql(f'SELECT text FROM "{table}_rejected"'))["name"] == "ż"  # noqa: S608


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "KOI8R", "EUC_JP", "SQL_ASCII"])
async def test_what_the_encoding_of_the_database_cant_hold_is_set_aside(
    encoding: str, postgres: Cluster, jobs: Jobs
) -> None:
    """With its text as JSON, whose escapes any encoding can hold; in ASCII, as that of what others read, any bytes."""
    name = f"in_{encoding.lower()}"
    postgres.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        url = postgres.url.replace("/postgres", f"/{name}")
        holds = {"LATIN1": "é", "WIN1252": "é€", "KOI8R": "Ж", "EUC_JP": "日本", "SQL_ASCII": "🐍"}[encoding]
        jobs["job"] = [run(1, name=holds), run(2, name="a 🐍 \0"), run(3, error=f"{holds} 🐍"), run(4)]
        summary = await jobs.export(url)
        if encoding == "SQL_ASCII":
            assert (summary.runs, summary.rejected) == (3, 1)
            return
        assert (summary.runs, summary.rejected) == (2, 2)
        assert postgres.psql("SELECT id, name FROM runs ORDER BY 1", name) == f"run-1|{holds}\nrun-4|name-4"
        found = postgres.psql("SELECT json_agg(json_build_array(run_id, field, why, text)) FROM runs_rejected", name)
        for (run_id, field, why, text), wanted in zip(json.loads(found), jobs["job"][1:3], strict=True):
            assert (run_id, field) == (wanted["id"], "name" if run_id == "run-2" else "error")
            assert "the database's encoding" in why
            assert json.loads(text) == wanted
        jobs["job"][1:3] = [run(2), run(3)]
        assert (await jobs.export(url)).rejected == 0
        assert postgres.psql("SELECT count(*) FROM runs_rejected", name) == "0"
    finally:
        postgres.psql(f"DROP DATABASE {name}")


async def test_what_other_jobs_had_set_aside_stays(postgres: Cluster, table: str, jobs: Jobs) -> None:
    """A full export replaces what is there of its own jobs; one of some runs, what is there of these runs."""
    jobs.update(a=[run(1, error="\0"), run(2, status=None)], b=[run(3)], c=[run(4, duration=2**63)])

    def rejected() -> list[str]:
        return postgres.psql(f'SELECT job_id, run_id FROM "{table}_rejected" ORDER BY 1, 2').splitlines()  # noqa: S608

    await jobs.export(postgres.url, "a", "c", table=table)
    await jobs.export(postgres.url, "b", table=table)
    assert rejected() == ["a|run-1", "a|run-2", "c|run-4"]
    jobs["a"][0] = run(1)
    await jobs.export(postgres.url, "a", search_prefix="run-1", table=table)
    assert rejected() == ["a|run-2", "c|run-4"]
    del jobs["a"][1:]
    await jobs.export(postgres.url, "a", table=table)
    assert rejected() == ["c|run-4"]
    summary = await jobs.export(postgres.url, "b", table=table, replace=True)
    assert (summary.removed_rows, rejected()) == (1, [])
    assert postgres.psql(f'SELECT job_id, id FROM "{table}"') == "b|run-3"  # noqa: S608


async def test_a_rejected_run_is_written_once_if_the_state_isnt_saved(
    postgres: Cluster, table: str, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the end of the transaction and the state."""
    jobs["a"] = [run(1, error="\0"), run(2)]
    with monkeypatch.context() as patched:
        patched.setattr("tfruns.export.watermark.State.save", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            await jobs.export(postgres.url, table=table, state=tmp_path / "state.json")
    assert (await jobs.export(postgres.url, table=table, state=tmp_path / "state.json")).resumed_jobs == 1
    assert postgres.psql(f'SELECT count(*) FROM "{table}_rejected"') == "1"  # noqa: S608


@pytest.mark.parametrize("mode", ["state", "full"])
async def test_a_row_that_the_server_contradicts_is_removed(
    mode: str, postgres: Cluster, table: str, jobs: Jobs, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"state": tmp_path / "state.json"} if mode == "state" else {}
    jobs["a"] = [run(1), run(2, status="RUNNING"), run(3, status="RUNNING")]
    await jobs.export(postgres.url, table=table, **options)
    jobs["a"][1:] = [run(2, status="FAILED", error="\0"), run(3, status=None)]
    summary = await jobs.export(postgres.url, table=table, **options)
    assert (summary.rejected, summary.removed_rows) == (2, 2)
    assert postgres.psql(f'SELECT id FROM "{table}"') == "run-1"  # noqa: S608


@pytest.mark.parametrize("length", [54, 55, 63])
async def test_a_name_of_any_length_has_a_table_of_rejected_runs_beside_it(
    length: int, postgres: Cluster, jobs: Jobs
) -> None:
    """However long, it is another table; another one for another table."""
    jobs["a"] = [run(1, error="\0"), run(2)]
    names = [f"{'é' * 26}{end:_>{length - 52}}" for end in "ab"]
    for name in names:
        summary = await jobs.export(postgres.url, table=name)
        assert (summary.runs, summary.rejected) == (1, 1)
        beside = str(summary.quarantine).rpartition("table ")[2]
        assert postgres.psql(f'SELECT count(*) FROM "{name}"') == "1"  # noqa: S608
        assert postgres.psql(f'SELECT count(*) FROM "{beside}"') == "1"  # noqa: S608
        postgres.psql(f'DROP TABLE "{name}"')
    for found in postgres.psql("SELECT relname FROM pg_class WHERE relname LIKE '%\\_rejected'").splitlines():
        postgres.psql(f'DROP TABLE "{found}"')


async def test_rights_that_will_be_needed_are_checked_before_anything_is_read(postgres: Cluster, jobs: Jobs) -> None:
    """CREATE for what isn't there, TEMP for staging, DELETE for rows that the server contradicts."""
    jobs["a"] = [run(1, error="\0"), run(2)]
    postgres.psql("CREATE DATABASE guarded")
    postgres.psql(f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
    url = postgres.url.replace("/postgres", "/guarded").replace("tests:", "writer:", 1)

    async def refused(says: str) -> None:
        jobs.requests = 0
        with pytest.raises(ExportError, match=says):
            await jobs.export(url)
        assert jobs.requests == 0

    def do(statement: str) -> None:
        postgres.psql(statement, "guarded")

    try:
        await refused("table runs can't be written: it isn't there, and there is no schema in which you may make it")
        await jobs.export(postgres.url.replace("/postgres", "/guarded"))
        await refused("table runs can't be written: you may not SELECT, INSERT, UPDATE, DELETE")
        do("GRANT SELECT, INSERT, UPDATE ON runs TO writer")
        await refused("table runs can't be written: you may not DELETE")
        do("GRANT DELETE ON runs TO writer")
        await refused("table runs_rejected can't be written: you may not SELECT, INSERT, DELETE")
        do("ALTER TABLE runs_rejected RENAME TO other")
        await refused("table runs_rejected can't be written: it isn't there, and there is no schema")
        do("ALTER TABLE other RENAME TO runs_rejected; GRANT SELECT, INSERT, DELETE ON runs_rejected TO writer")
        do("REVOKE TEMP ON DATABASE guarded FROM public")
        await refused("you may make no temporary table in the database")
        do("GRANT TEMP ON DATABASE guarded TO public; ALTER ROLE writer SET default_transaction_read_only = on")
        await refused("the database is read-only")
        do("ALTER ROLE writer RESET default_transaction_read_only")
        summary = await jobs.export(url)
        assert (summary.runs, summary.rejected) == (1, 1)
    finally:
        postgres.psql("DROP DATABASE guarded")
        postgres.psql("DROP ROLE writer")


async def test_a_connection_that_is_anothers_after_the_transaction_has_nothing_left(
    postgres: Cluster, table: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pool by transaction: the next export gets the same session."""
    jobs["a"] = [run(1, error="\0"), run(2)]
    with dbapi.connect(postgres.url) as session:

        class Borrowed:
            def __getattr__(self, name: str) -> Any:
                return getattr(session, name)

            def close(self) -> None:
                session.rollback()

        monkeypatch.setattr(dbapi, "connect", lambda _: Borrowed())
        for _ in range(2):
            assert (await jobs.export(postgres.url, table=table)).runs == 1
        with session.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
            assert cursor.fetchall() == [(0,)]
