"""An export: every run in one file, in each format, whole or not there, and resumable."""

import asyncio
import contextlib
import csv
import datetime
import gzip
import json
import random
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.ipc
import pyarrow.parquet
import pytest

import tfruns
from tests.support.hostile import page, response, run, serve
from tfruns import Client
from tfruns.export import ExportError, ExportProgress, export_runs, files
from tfruns.export.formats import cell, zstd
from tfruns.sandbox import Fault, Sandbox

AWKWARD: list[dict[str, Any]] = [
    {
        "name": "zażółć-🐍",
        "command": "echo \"a, b\"\nprintf '%s'\r\n\t=1+1",
        "error": '=HYPERLINK("x")',
        "status": "FAILED",
    },
    {"name": "'quoted", "command": "-rf", "error": "\ttabs", "status": "FAILED"},
    {"name": "@at", "command": "+1", "error": "\u2028line", "triggered_by": None, "triggered_by_subject": None},
    {"name": "null", "command": "", "duration": None, "exit_code": None, "end_time": None},
]


async def fill(sandbox: Sandbox) -> None:
    for fields in AWKWARD:
        await sandbox.create_run(sandbox.job_ids[0], **{"status": "RUNNING", **fields})


def flat(job_id: str, run: tfruns.JobRun) -> dict[str, Any]:
    """A run as a row of any of the tables."""
    row: dict[str, Any] = {"job_id": job_id}
    for name, value in ((field, getattr(run, field)) for field in type(run).__slots__):
        if name == "triggered_by_subject":
            for part in tfruns.Subject.__slots__:
                found = None if value is None else getattr(value, part)
                row[part] = found if found is None else str(found)
        else:
            row[name] = str(value) if name == "status" else value
    return row


def text_moment(value: str | None) -> float | None:
    return None if value is None else datetime.datetime.fromisoformat(value).timestamp() * 1000


def moment(value: datetime.datetime | None) -> float | None:
    return None if value is None else round(value.timestamp() * 1000, 3)


def read_json_lines(lines: Iterator[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def uncell(value: str) -> str:
    """The text of a cell that a CSV reader has read: without the apostrophes that mark formulas."""
    return re.sub(r"(^|[;\t\r\n])'(?=[=+\-@＝＋－＠'])", r"\1", value)  # noqa: RUF001


def read_csv(path: Path) -> list[dict[str, Any]]:
    def value(name: str, text: str) -> Any:
        if name in ("created_at", "end_time"):
            return text_moment(text or None)
        if name in ("duration", "exit_code", "total_retries"):
            return int(text) if text else None
        return uncell(text) if text else None

    open_: Any = gzip.open if path.suffix == ".gz" else open
    with open_(path, "rt", encoding="utf-8", newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def of_arrow(table: Any) -> list[dict[str, Any]]:
    return [
        {name: moment(value) if name in ("created_at", "end_time") else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def read_sqlite(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM runs ORDER BY rowid")]
    return [{**row, **{name: text_moment(row[name]) for name in ("created_at", "end_time")}} for row in rows]


def read_duckdb(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect(str(path), read_only=True) as database:
        return of_arrow(database.sql("SELECT * FROM runs ORDER BY rowid").to_arrow_table())


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "csv": read_csv,
    "csv.gz": read_csv,
    "parquet": lambda path: of_arrow(pyarrow.parquet.read_table(path)),
    "arrow": lambda path: of_arrow(pyarrow.ipc.open_file(path).read_all()),
    "sqlite": read_sqlite,
    "duckdb": read_duckdb,
}


@pytest.mark.parametrize("form", READERS)
async def test_each_table_read_back_with_its_own_reader_is_what_the_server_has(form: str, tmp_path: Path) -> None:
    async with Sandbox(jobs=3, runs=[40, 0, 25]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await fill(sandbox)
        summary = await export_runs(client, sandbox.job_ids, tmp_path / f"runs.{form}")
        wanted = [flat(job_id, run) for job_id in sandbox.job_ids async for run in client.iter_runs(job_id)]
    assert (summary.jobs, summary.runs, summary.skipped) == (3, 69, {})
    assert summary.size == summary.path.stat().st_size > 0
    found = READERS[form](tmp_path / f"runs.{form}")
    if form.startswith("csv"):  # it has no null but nothing, as for text without a character
        wanted = [{name: None if value == "" else value for name, value in row.items()} for row in wanted]
    if form == "duckdb":  # whose rows have no order
        found, wanted = (sorted(rows, key=lambda row: (row["job_id"], row["id"])) for rows in (found, wanted))
    assert found == wanted
    assert [path.name for path in tmp_path.iterdir()] == [f"runs.{form}"]


@pytest.mark.parametrize(
    ("name", "open_"),
    [
        ("runs.jsonl", lambda path: path.open("rb")),
        ("runs.ndjson.gz", gzip.open),
        ("runs.jsonl.zst", zstd.open),
    ],
)
async def test_json_lines_are_the_runs_as_the_server_sent_them(
    name: str, open_: Callable[[Path], Any], tmp_path: Path
) -> None:
    async with Sandbox(jobs=2, runs=[30, 20]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await fill(sandbox)
        await export_runs(client, sandbox.job_ids, tmp_path / name)
        wanted = []
        for job_id in sandbox.job_ids:
            async for page in client.iter_runs(job_id).raw_pages():
                wanted += [{"jobId": job_id, **json.loads(text)} for text in page.texts]
    with open_(tmp_path / name) as file:
        found = read_json_lines(iter(file.read().splitlines()))
    assert found == wanted
    assert len(found) == 54


def test_text_that_a_spreadsheet_would_take_for_a_formula_is_marked_and_comes_back() -> None:
    """In any cell, whatever separator is the custom; a null isn't an empty string; and the text comes back."""
    texts = [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=x",
        "\r\n=x",
        "\uff1d1+1",
        "\uff20x",
        "'x",
        "''x",
        "x=1",
        "",
        "1",
        "'",
        "'='=",
    ]
    texts += ["a;=1+1", 'a";=1+1;"', "a;'=1", "a;;-1", "a\n@x", 'say "x", or', "a|-x", ";';'="]
    cells = [cell(text) for text in texts]
    assert cell(None) == ""
    assert cell("") == '""'
    for separator in ",;\t":
        starts = [part for text in cells for part in re.split(rf"[{separator}\r\n]", text.strip('"'))]
        assert not [start for start in starts if start.startswith(tuple("=+-@\uff1d\uff20"))] or separator == ","
    read = [row[0] for row in csv.reader([text + "\r\n" for text in cells if "\n" not in text])]
    assert [uncell(text) for text in read] == [text for text in texts if "\n" not in text]


@pytest.mark.parametrize("odd", [[], ["a\nb"]])
async def test_a_cell_is_the_same_whatever_cells_are_around_it(odd: list[str], tmp_path: Path) -> None:
    """The texts of a column are written at once: none may be taken for a part of another."""
    texts = ["train", "=1+1", 'a"b', "", "a;", "=x", "a;=x", "\t'", "'", "a\r", "-1", "x" * 300, *odd]
    runs = [{**run(n), "name": text, "command": text, "error": text or None} for n, text in enumerate(texts)]
    async with serve(lambda _: response(200, page(runs))) as (url, _), Client(url, "key") as client:
        await export_runs(client, ["job"], tmp_path / "runs.csv")
    written = (tmp_path / "runs.csv").read_bytes().decode()
    for n, text in enumerate(texts):
        assert f'\r\n"job","run-{n}",{cell(text)},"app","1",' in written
        assert f'Z,{cell(text)},0,"FINISHED",,,{cell(text or None)},' in written


async def test_an_export_of_a_sandbox_fills_another_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl.gz"
    async with Sandbox(jobs=2, runs=30) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        job_ids = sandbox.job_ids
        await export_runs(client, job_ids, path)
        wanted = {job_id: await client.iter_runs(job_id).collect() for job_id in job_ids}
    async with Sandbox(runs_from=path) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        assert {job_id: await client.iter_runs(job_id).collect() for job_id in job_ids} == wanted


async def test_jobs_that_fail_by_themselves_are_skipped_and_reported_while_the_others_are_whole(tmp_path: Path) -> None:
    seen: list[ExportProgress] = []
    async with Sandbox(jobs=3, runs=20, forbidden=["locked"]) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            ids = ["nowhere", *sandbox.job_ids, "locked", sandbox.job_ids[0]]
            summary = await export_runs(client, ids, tmp_path / "runs.csv", on_progress=seen.append)
    assert {job_id: type(error) for job_id, error in summary.skipped.items()} == {
        "nowhere": tfruns.NotFoundError,
        "locked": tfruns.PermissionDeniedError,
    }
    assert (summary.jobs, summary.runs) == (3, 60)
    last = seen[-1]
    assert (last.jobs, last.jobs_done, last.jobs_skipped, last.runs, last.is_writing) == (5, 3, 2, 60, True)
    assert last.runs_expected == 60
    assert len(read_csv(tmp_path / "runs.csv")) == 60


async def test_where_the_server_fails_the_old_file_stays_and_the_same_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    never = tfruns.RetryPolicy(max_attempts=1)
    async with (
        Sandbox(jobs=4, runs=50) as sandbox,
        Client(sandbox.url, sandbox.api_key, retry=never, max_concurrency=1) as client,
    ):
        sandbox.faults.append(Fault(status=503, job_id=sandbox.job_ids[2]))
        with pytest.raises(tfruns.InternalServerError):
            await export_runs(client, sandbox.job_ids, path)
        assert path.read_text() == "old"
        with pytest.raises(ExportError, match=r"status was null and is \[\"FAILED\"\]"):
            await export_runs(client, sandbox.job_ids, path, status="FAILED")
        with pytest.raises(
            ExportError, match=r"jobs was \"4 with .* delete .*runs\.jsonl\.tfruns-partial to start afresh"
        ):
            await export_runs(client, sandbox.job_ids[:3], path)
        sandbox.faults.clear()
        sandbox.requests.clear()
        summary = await export_runs(client, sandbox.job_ids, path)
    assert summary.resumed_jobs + len({request.path for request in sandbox.requests}) == 4
    assert summary.resumed_jobs > 0
    assert summary.runs == 200 == len(path.read_text().splitlines())
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.jsonl"]


async def test_what_failed_before_a_job_was_read_leaves_nothing_behind_and_another_export_may_follow(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.jsonl"
    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, "not-the-key") as wrong:
        with pytest.raises(tfruns.AuthenticationError):
            await export_runs(wrong, sandbox.job_ids, path)
        assert list(tmp_path.iterdir()) == []
        async with Client(sandbox.url, sandbox.api_key) as right:
            assert (await export_runs(right, sandbox.job_ids, path, status="FINISHED")).jobs == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_a_run_is_one_line_however_the_server_breaks_its_lines(end: str, tmp_path: Path) -> None:
    body = json.dumps(page([run(0), run(1, command="a\nb")]), indent=1).replace("\n", end).encode()
    async with serve(lambda _: response(200, body)) as (url, _), Client(url, "a-long-enough-key") as client:
        await export_runs(client, ["job"], tmp_path / "runs.jsonl")
    lines = (tmp_path / "runs.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["command"] for line in lines] == ["true", "a\nb"]


async def test_two_exporters_cant_write_one_file(tmp_path: Path) -> None:
    async with Sandbox(jobs=2, runs=50, faults=["latency=0.3"]) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            path = tmp_path / "runs.jsonl"
            first = export_runs(client, sandbox.job_ids, path)
            second = export_runs(client, sandbox.job_ids, path)
            results = await asyncio.gather(first, second, return_exceptions=True)
    refused = [result for result in results if isinstance(result, ExportError)]
    assert len(refused) == 1
    assert "another export is at work" in str(refused[0])
    assert len(path.read_text().splitlines()) == 100


class StoppedError(Exception):
    """What ends an export in the middle."""


def stop_after(jobs: int) -> Callable[[ExportProgress], None]:
    def stop(progress: ExportProgress) -> None:
        if progress.jobs_done == jobs:
            raise StoppedError

    return stop


async def test_other_jobs_are_never_taken_for_those_of_before_whatever_is_in_their_ids(tmp_path: Path) -> None:
    async with Sandbox(["a\nb", "c", "a", "b\nc"], runs=1) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            with pytest.raises(StoppedError):
                await export_runs(client, ["a\nb", "c"], tmp_path / "runs.jsonl", on_progress=stop_after(1))
            with pytest.raises(ExportError, match="jobs was .* and is "):
                await export_runs(client, ["a", "b\nc"], tmp_path / "runs.jsonl")


@pytest.mark.parametrize(("form", "ending"), [("sqlite", "-journal"), ("sqlite", "-wal"), ("duckdb", ".wal")])
async def test_a_database_is_not_replaced_while_a_part_of_the_old_one_would_spoil_it(
    form: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{form}"
    part = tmp_path / f"runs.{form}{ending}"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        part.write_bytes(b"of a write that was cut short")
        with pytest.raises(ExportError, match=f"{ending} holds a part of the database"):
            await export_runs(client, sandbox.job_ids, path)
        assert [entry.name for entry in tmp_path.iterdir()] == [part.name]
        part.unlink()

        def begin(progress: ExportProgress) -> None:
            if progress.is_writing:
                part.write_bytes(b"of a program that has begun to write meanwhile")

        with pytest.raises(ExportError, match=f"{ending} holds a part of the database"):
            await export_runs(client, sandbox.job_ids, path, on_progress=begin)
        part.unlink()
        await export_runs(client, sandbox.job_ids, path)
    assert len(READERS[form](path)) == 5


def test_one_that_opens_the_lock_while_another_removes_it_isnt_alone_with_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that was removed excludes nobody: who gets one makes the file anew."""
    path = tmp_path / "runs.csv.tfruns-lock"
    first, lock = contextlib.ExitStack(), files._lock
    first.enter_context(files.locked(path))

    def late(descriptor: int) -> None:
        monkeypatch.undo()
        first.close()
        lock(descriptor)

    monkeypatch.setattr(files, "_lock", late)
    with files.locked(path), pytest.raises(BlockingIOError), files.locked(path):
        pass
    assert not path.exists()


@pytest.mark.parametrize("name", ["manifest", "pieces"])
async def test_parts_that_were_cut_off_are_read_again_and_never_written_out(name: str, tmp_path: Path) -> None:
    """Whatever is left of the parts after a crash, the export ends with what the server has."""
    path, chance = tmp_path / "runs.jsonl", random.Random(name)
    folder = tmp_path / "runs.jsonl.tfruns-partial"
    resumed = set()
    async with Sandbox(jobs=6, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        whole = (await export_runs(client, sandbox.job_ids, tmp_path / "whole.jsonl")).path.read_bytes()
        with pytest.raises(StoppedError):
            await export_runs(client, sandbox.job_ids, path, on_progress=stop_after(4))
        good = {part: (folder / part).read_bytes() for part in ("manifest", "pieces")}
        size = len(good[name])
        for cut in [0, 50, size - 1, *(chance.randrange(size) for _ in range(12))]:
            folder.mkdir(mode=0o700, exist_ok=True)
            for part, content in good.items():
                (folder / part).write_bytes(content[:cut] if part == name else content)
                (folder / part).chmod(0o600)
            summary = await export_runs(client, sandbox.job_ids, path)
            resumed.add(summary.resumed_jobs)
            assert path.read_bytes() == whole
    assert {0, 3} <= resumed <= {0, 1, 2, 3, 4}


def _without_an_end(pieces: bytes) -> bytes:
    """The first piece is the beginning of a larger one."""
    large = zstd.compress(random.Random(1).randbytes(1_000_000))
    end = pieces.index(large[:4], 4)  # with which each piece begins
    return large[:end] + pieces[end:]


@pytest.mark.parametrize("damaged", [lambda pieces: bytes(byte ^ 1 for byte in pieces), _without_an_end])
async def test_parts_that_were_changed_are_refused(damaged: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Damage within a piece is found, and nothing of it is written."""
    path, folder = tmp_path / "runs.jsonl", tmp_path / "runs.jsonl.tfruns-partial"
    async with Sandbox(jobs=3, runs=20) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(StoppedError):
            await export_runs(client, sandbox.job_ids, path, on_progress=stop_after(2))
        # In every piece: that of the third job, which isn't whole, is read again and may be damaged.
        (folder / "pieces").write_bytes(damaged((folder / "pieces").read_bytes()))
        with pytest.raises(ExportError, match="what was kept in .* is damaged: delete it to start afresh"):
            await export_runs(client, sandbox.job_ids, path)
        assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"destination": "runs.xlsx"}, "the name 'runs.xlsx' doesn't say which format is meant: give one of jsonl, "),
        ({"destination": "runs.csv", "format": "xlsx"}, "format must be one of jsonl, .* got 'xlsx'"),
        ({"destination": "runs.csv", "format": "Parqet"}, "got 'Parqet': did you mean 'parquet'"),
        ({"destination": "runs.cvs"}, "zst.*: did you mean 'csv'"),
        ({"destination": "no/such/runs.csv"}, "there is no folder"),
        ({"destination": "."}, "is a folder"),
        ({"destination": ""}, "destination must be a path or a URL, got ''$"),
        ({"destination": "-", "format": "csv"}, "got '-': only the command line writes to standard output"),
        ({"destination": "runs\udcff.parquet"}, "the path must be in UTF-8"),
        ({"destination": "runs\udcff.csv", "state": "state.json"}, "with a state, .* the path must be in UTF-8"),
        ({"destination": "runs.csv", "status": "BAD"}, "status must be"),
        ({"destination": "runs.csv", "job_ids": ["a", ""]}, "job_id is empty"),
        ({"destination": "runs.csv", "job_ids": "a"}, "job_ids must be an iterable"),
        ({"destination": "runs.csv", "on_progress": 5}, "on_progress must be a function"),
        ({"destination": "runs.csv", "on_progress": asyncio.sleep}, "on_progress must be a plain function"),
    ],
)
async def test_bad_arguments_are_refused_before_any_request_and_leave_nothing(
    arguments: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises((ExportError, ValueError, TypeError), match=says):
            await export_runs(client, **{"job_ids": ["a"], **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("runs.parquet", "pyarrow", "arrow"),
        ("runs.arrow", "pyarrow", "arrow"),
        ("runs.duckdb", "duckdb", "duckdb"),
    ],
)
async def test_a_format_whose_extra_is_missing_is_refused_before_anything_is_read(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    async with Sandbox(jobs=1, runs=3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(ExportError, match=rf"needs {module}: .*pip install .*\[{extra}\]'"):
            await export_runs(client, sandbox.job_ids, tmp_path / name)
        assert not sandbox.requests
    assert not [*tmp_path.iterdir()]
