"""An export removes or replaces only what exports of its own kind have written, and says what it has removed."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.export.test_dataset import content
from tests.export.test_export import StoppedError, stop_after
from tests.export.test_increments import Server
from tests.support.hostile import run
from tfruns import Client
from tfruns.export import ExportError, ExportSummary, export_runs, files
from tfruns.sandbox import Fault, Sandbox

DAY = 86_400_000
NOW = 20_000 * DAY + DAY // 2
only_posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX")


def days(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/runs.*"))


@attrs.define
class Place:
    """A folder by day, and a server of some runs a day."""

    server: Server
    client: Client
    path: Path
    format: str

    async def export(self, **options: Any) -> ExportSummary:
        return await export_runs(
            self.client, options.pop("jobs", ["job"]), f"{self.path}/", format=self.format, **options
        )


@pytest.fixture(params=["jsonl", "parquet"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    runs = [run(n, createdAt=NOW - n * DAY // 2, status="FAILED" if n % 5 else "FINISHED") for n in range(20)]
    server = Server(runs)
    async with server.serve() as client:
        yield Place(server, client, tmp_path / "runs", request.param)


async def test_a_window_replaces_its_days_whole_and_leaves_all_others(place: Place) -> None:
    """It begins at the start of a day in UTC, so that no day ever holds a part of its runs."""
    await place.export()
    before = {path: path.stat().st_mtime_ns for path in place.path.glob("*/runs.*")}
    wanted = content(place.path, place.format)
    place.server.runs[0]["name"] = "changed"
    del place.server.runs[2]
    summary = await place.export(created_after=datetime.fromtimestamp((NOW - 1.2 * DAY) / 1000, UTC))
    after = {path: path.stat().st_mtime_ns for path in place.path.glob("*/runs.*")}
    assert after.keys() == before.keys()
    assert len(before.items() - after.items()) == 2
    found = content(place.path, place.format)
    assert found["job", "run-0"]["name"] == "changed"
    assert wanted.keys() - found.keys() == {("job", "run-2")}
    assert (summary.removed_files, summary.runs) == (0, 3)
    before_only = await place.export(created_before=datetime.fromtimestamp((NOW - 8.9 * DAY) / 1000, UTC))
    assert before_only.runs == 2
    assert content(place.path, place.format) == found


async def test_days_of_a_window_that_have_no_runs_any_more_are_removed_and_counted(place: Place) -> None:
    await place.export()
    place.server.runs[:4] = []
    summary = await place.export(created_after=NOW - 1.5 * DAY)
    assert (summary.runs, summary.removed_files) == (0, 2)
    assert len(days(place.path)) == 8


@pytest.mark.parametrize(
    ("place", "options", "says"),
    [
        ("jsonl", {"status": "FAILED"}, r"whose status is None, not \['FAILED'\]"),
        ("jsonl", {"search_prefix": "run-1"}, "whose search_prefix is None, not 'run-1'"),
        ("parquet", {"jobs": ["other"]}, r"of other jobs \(without 'other', with 'job'\)"),
        ("jsonl", {"jobs": ["job", "other"]}, r"of other jobs \(without 'other'\)"),
        ("parquet", {"state": "state.json", "jobs": ["other"]}, r"other jobs \(without 'other', with 'job'\)"),
    ],
    indirect=["place"],
)
async def test_a_folder_is_refused_to_other_exports_until_it_is_begun_anew(
    options: dict[str, Any], says: str, place: Place
) -> None:
    """The error says what differs and what to do; nothing is requested, and nothing has changed."""
    if "state" in options:
        options = options | {"state": place.path.with_name("state.json")}
    await place.export()
    wanted, requests = content(place.path, place.format), place.server.requests
    with pytest.raises(
        ExportError, match=rf"{says}.* Give another folder, or begin anew with replace=True \(--replace\)"
    ):
        await place.export(**options)
    assert place.server.requests == requests
    assert content(place.path, place.format) == wanted
    await place.export()
    summary = await place.export(replace=True, **options)
    assert summary.runs > 0
    assert {job for job, _ in content(place.path, place.format)} == {*options.get("jobs", ["job"])}
    assert (await place.export(**options)).runs == (0 if "state" in options else summary.runs)


async def test_a_folder_belongs_to_one_control_plane(place: Place) -> None:
    await place.export()
    async with place.server.serve() as other:
        with pytest.raises(ExportError, match="whose control plane is 'http"):
            await export_runs(other, ["job"], f"{place.path}/", format=place.format)


async def test_begun_anew_a_folder_loses_what_exports_have_written_in_another_format_too(place: Place) -> None:
    """And nothing that others have written."""
    other = "jsonl.zst"
    await export_runs(place.client, ["job"], f"{place.path}/", format=other)
    with pytest.raises(ExportError, match="which isn't of such a dataset"):
        await place.export()
    (place.path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds mine\.txt"):
        await place.export(replace=True)
    (place.path / "mine.txt").unlink()
    count = len(days(place.path))
    place.server.runs[4:] = []
    assert (await place.export(replace=True)).removed_files == count
    assert len([*place.path.glob("*/runs.*")]) == 2
    assert len([*place.path.rglob("*_tfruns*")]) == 1


async def test_a_job_that_is_skipped_keeps_the_rows_that_the_folder_has_of_it(tmp_path: Path) -> None:
    async with Sandbox(jobs=2, runs=30) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        first, second = sandbox.job_ids
        await export_runs(client, [first, second], f"{tmp_path}/runs/", format="jsonl")
        before = content(tmp_path / "runs", "jsonl")
        sandbox.faults.append(Fault(status=403, job_id=second))
        summary = await export_runs(client, [first, second], f"{tmp_path}/runs/", format="jsonl")
        assert [*summary.skipped] == [second]
    assert content(tmp_path / "runs", "jsonl") == before


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.parquet", "runs/"])
async def test_an_export_without_jobs_is_refused(name: str, tmp_path: Path) -> None:
    """It would replace what is there by nothing."""

    async def none() -> AsyncIterator[str]:
        for job_id in ():
            yield job_id

    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        for jobs in ([], (), none()):
            with pytest.raises(ValueError, match="job_ids is empty"):
                await export_runs(client, jobs, f"{tmp_path}/{name}", format="jsonl" if name == "runs/" else None)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "form"), [("runs.jsonl", None), ("runs.csv", None), ("runs/", "jsonl"), ("runs/", "parquet")]
)
async def test_files_and_folders_refuse_a_second_state(name: str, form: str | None, tmp_path: Path) -> None:
    """Its exports would replace those of the first, whose increments would never bring them back."""
    async with Sandbox(jobs=2, runs=30) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        (tmp_path / "states").mkdir()

        async def export(who: str, **options: Any) -> ExportSummary:
            job = sandbox.job_ids["ab".index(who)]
            state = tmp_path / "states" / who
            return await export_runs(client, [job], f"{tmp_path}/{name}", state=state, format=form, **options)

        await export("a")
        for _ in range(2):
            with pytest.raises(ExportError, match="is of other exports than|holds exports with another state"):
                await export("b")
            await sandbox.create_run(sandbox.job_ids[0])
            assert (await export("a")).runs > 0
        written = {path for path in tmp_path.rglob("runs*") if path.is_file()}
        anew = await export("b", replace=True)
        assert anew.runs == 30
        left = {path for path in tmp_path.rglob("runs*") if path.is_file()}
        if form is None:
            assert (len(written), len(left), anew.removed_files) == (3, 1, 2)
        else:
            with pytest.raises(ExportError, match="replace=True"):
                await export("a")


async def test_begun_anew_numbered_files_are_those_that_the_state_has_counted_or_that_follow_without_a_gap(
    tmp_path: Path,
) -> None:
    """What somebody has put beside them stays, and isn't counted as removed."""
    path, state, by_hand = tmp_path / "runs.csv", tmp_path / "state", tmp_path / "runs.2024.csv"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for number, removed in ((2, "0001"), (4, "0000"), (4, "0002")):
            for _ in range(number):
                await export_runs(client, sandbox.job_ids, path, state=state)
            by_hand.write_text("mine")
            (tmp_path / f"runs.{removed}.csv").unlink()
            summary = await export_runs(client, sandbox.job_ids, path, state=state, replace=True)
            assert sorted(found.name for found in tmp_path.glob("runs*")) == ["runs.0000.csv", "runs.2024.csv"]
            assert summary.removed_files == number - 1 - (removed != "0000")
            by_hand.unlink()
            state.unlink()
            (tmp_path / "runs.0000.csv").unlink()


@pytest.mark.parametrize("form", ["jsonl", "csv.gz", "jsonl.zst", "parquet", "arrow"])
async def test_begun_anew_a_file_that_no_export_has_written_stays_though_its_name_is_the_next(
    form: str, tmp_path: Path
) -> None:
    """Those of exports go although the first is missing, and the state that had counted them."""
    path, state = tmp_path / f"runs.{form}", tmp_path / "state"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:

        async def export(**options: Any) -> ExportSummary:
            return await export_runs(client, sandbox.job_ids, path, state=state, **options)

        await export()
        mine = path.with_name(f"runs.0001.{form}")
        other = pyarrow.table({"mine": [1]})
        if form == "parquet":
            pyarrow.parquet.write_table(other, mine)
        elif form == "arrow":
            with pyarrow.ipc.new_file(mine, other.schema) as writer:
                writer.write_table(other)
        else:
            mine.write_bytes(b"mine, of another program")
        before = mine.read_bytes()
        assert (await export(replace=True)).removed_files == 0
        assert mine.read_bytes() == before
        mine.unlink()
        for _ in range(2):
            await export()
        state.unlink()
        path.with_name(f"runs.0000.{form}").unlink()
        assert (await export(replace=True)).removed_files == 2
        assert {found.name for found in tmp_path.glob("runs*")} == {f"runs.0000.{form}"}


async def test_a_state_whose_files_were_replaced_by_exports_with_another_goes_on_no_more(tmp_path: Path) -> None:
    """Its next file would lack what the other has thrown away. Where its own first file was moved away, it goes on."""
    path = tmp_path / "runs.jsonl"
    async with Sandbox(jobs=2, runs=[30, 20]) as sandbox, Client(sandbox.url, sandbox.api_key) as client:

        async def export(who: str, **options: Any) -> ExportSummary:
            job = sandbox.job_ids["ab".index(who)]
            return await export_runs(client, [job], path, state=tmp_path / who, **options)

        for _ in range(3):
            await export("a")
            await sandbox.create_run(sandbox.job_ids[0])
        await export("b", replace=True)
        before = (tmp_path / "runs.0000.jsonl").read_bytes()
        with pytest.raises(ExportError, match=r"runs\.0000\.jsonl is of other exports than those with the state .*/a"):
            await export("a")
        assert {found.name for found in tmp_path.glob("runs*")} == {"runs.0000.jsonl"}
        assert (tmp_path / "runs.0000.jsonl").read_bytes() == before
        assert (await export("b")).path.name == "runs.0001.jsonl"  # type: ignore[union-attr]
        for found in tmp_path.glob("runs*"):
            found.rename(tmp_path / f"moved-{found.name}")
        assert (await export("a")).path.name == "runs.0003.jsonl"  # type: ignore[union-attr]


@pytest.mark.parametrize("record", ["_none", "_tfruns.json", "_tfruns.parquet"])
async def test_a_folder_that_doesnt_say_whose_it_is_is_refused_though_it_is_to_be_begun_anew(
    record: str, place: Place
) -> None:
    """Its files may be those of another program, which names them in the same way; or its record is damaged."""
    theirs = place.path / "created_date=2020-01-01" / f"runs.{place.format}"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"mine": 1}')
    theirs.with_name(record).write_text("damaged")
    for replace in (False, True):
        with pytest.raises(ExportError, match=r"holds created_date=2020-01-01/.*, and doesn.t say whose"):
            await place.export(replace=replace)
    assert theirs.read_text() == '{"mine": 1}'
    assert not place.server.requests


@pytest.mark.parametrize("name", ["_tfruns.json", "created_date=2020-01-01/_tfruns.parquet"])
async def test_what_has_the_name_of_a_record_and_is_none_stays(name: str, place: Place) -> None:
    theirs = place.path / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"mine": 1}')
    with pytest.raises(ExportError, match="and doesn.t say whose"):
        await place.export(replace=True)
    assert theirs.read_text() == '{"mine": 1}'


async def test_a_file_written_just_before_a_kill_is_written_again_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says which file it has begun to write."""
    from tfruns.export.watermark import State

    path, state = tmp_path / "runs.jsonl", tmp_path / "state"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for number in range(2):
            save = State.save

            def killed(self: State, path: Path, save: Any = save) -> None:
                if self.writing is None:
                    raise StoppedError
                save(self, path)

            await sandbox.create_run(sandbox.job_ids[0])
            with monkeypatch.context() as patched:
                patched.setattr(State, "save", killed)
                with pytest.raises(StoppedError):
                    await export_runs(client, sandbox.job_ids, path, state=state)
            assert (tmp_path / f"runs.{number:04}.jsonl").exists()
            summary = await export_runs(client, sandbox.job_ids, path, state=state)
            assert summary.path == tmp_path / f"runs.{number:04}.jsonl"


@pytest.mark.parametrize("name", ["runs.parquet", "runs/", "memory://locks/runs.jsonl"])
async def test_one_destination_takes_one_export_at_a_time_whatever_the_working_folder(
    name: str, tmp_path: Path
) -> None:
    """Or the state's folder."""
    destination = name if "://" in name else f"{tmp_path}/{name}"
    async with Sandbox(jobs=2, runs=50, faults=["latency=0.2"]) as sandbox:
        async with Client(sandbox.url, sandbox.api_key) as client:
            exports = []
            for number in range(4):
                (tmp_path / f"work-{number}").mkdir()
                options: dict[str, Any] = {"work_dir": tmp_path / f"work-{number}"}
                if number % 2:
                    options = {"state": tmp_path / f"work-{number}" / "state"}
                form = "parquet" if name == "runs/" else None
                exports.append(export_runs(client, sandbox.job_ids, destination, format=form, **options))
            ended = await asyncio.gather(*exports, return_exceptions=True)
    refused = [error for error in ended if isinstance(error, ExportError)]
    assert len(refused) == 3
    assert all("another export is at work on " in str(error) for error in refused)
    assert not [*tmp_path.rglob("*lock*")]


@pytest.mark.parametrize(("hours", "goes_on"), [(5, True), (25, False)])
async def test_an_interrupted_export_says_how_old_it_is_and_beyond_a_day_begins_anew(
    hours: int, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.jsonl"
    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(StoppedError):
            await export_runs(client, sandbox.job_ids, path, on_progress=stop_after(1))
        new = await sandbox.create_run(sandbox.job_ids[0])
        later = time.time() + hours * 3600
        monkeypatch.setattr(time, "time", lambda: later)
        with caplog.at_level(logging.WARNING, "tfruns"):
            summary = await export_runs(client, sandbox.job_ids, path)
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    if goes_on:
        assert (summary.resumed_jobs, round((summary.resumed_age or 0) / 3600)) == (1, 5)
    else:
        assert (summary.resumed_jobs, summary.resumed_age) == (0, None)
        assert new.id in ids
        assert "that was interrupted 1 day ago begins anew" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs mount")
@pytest.mark.parametrize("mounted", ["runs.csv", "state.json"])
async def test_a_file_that_is_mounted_by_itself_is_refused_first(
    mounted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: no new file can take its place."""
    (tmp_path / mounted).write_text("{}")
    (tmp_path / "a folder").mkdir()
    monkeypatch.setattr(files, "is_mounted", (tmp_path / mounted).__eq__)
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        options = {"state": tmp_path / "state.json"} if mounted == "state.json" else {}
        with pytest.raises(ExportError, match=f"{mounted} is mounted as a single file, .*: mount the folder"):
            await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", **options)
        assert not sandbox.requests


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mounts")
def test_mounts_are_known(tmp_path: Path) -> None:
    """By the kernel's list, where names are escaped."""
    path = tmp_path / "a b.csv"
    path.touch()
    assert not files.is_mounted(path)
    mount = f"mount --bind '{path}' '{path}'"
    code = (
        f"from pathlib import Path; from tfruns.export.files import is_mounted; print(is_mounted(Path({str(path)!r})))"
    )
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        pytest.skip(f"no mount is allowed here: {ended.stderr}")
    assert ended.stdout == "True\n"


@contextlib.contextmanager
def windows_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`fsync` as on Windows, where a file must be open for writing."""
    fcntl = pytest.importorskip("fcntl")
    sync = os.fsync

    def windows_sync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", windows_sync)
        patched.setattr(files, "_IS_POSIX", False)
        yield


@pytest.mark.parametrize(
    "name", ["r.jsonl", "r.jsonl.zst", "r.csv", "r.parquet", "r.arrow", "r.sqlite", "r.duckdb", "runs/"]
)
async def test_a_file_is_written_by_the_rules_of_windows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(jobs=1, runs=50) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with windows_rules(monkeypatch):
            for state in (None, tmp_path / "state.json"):
                form = "jsonl" if name == "runs/" else None
                summary = await export_runs(client, sandbox.job_ids, f"{tmp_path}/{name}", format=form, state=state)
                assert summary.runs == 50


async def test_a_file_that_a_reader_has_open_is_waited_for_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no other file can take its place until it is closed."""
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    move, tries = os.replace, []

    def windows_replace(fresh: Any, place: Any) -> None:
        tries.append(place)
        if len(tries) < most:
            raise PermissionError(errno.EACCES, "Access is denied", str(place))
        move(fresh, place)

    monkeypatch.setattr(os, "replace", windows_replace)
    monkeypatch.setattr(files, "_IS_POSIX", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        most = 100
        with pytest.raises(ExportError, match="can't be replaced: close the program that has it open"):
            await export_runs(client, sandbox.job_ids, path)
        assert path.read_text() == "old"
        tries.clear()
        most = 3
        assert (await export_runs(client, sandbox.job_ids, path)).resumed_jobs == 1
    assert len(path.read_text().splitlines()) == 5


@only_posix
@pytest.mark.parametrize("planted", ["state.json.new", "summary.json.new"])
async def test_nothing_is_written_through_a_planted_link(planted: str, tmp_path: Path) -> None:
    """In a folder where others may write."""
    from tfruns.cli.export import summary_file

    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / planted).symlink_to(victim)
    if planted.startswith("summary"):
        with summary_file(str(tmp_path / "summary.json"), "runs"):
            pass
    else:
        async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
            await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", state=tmp_path / "state.json")
    assert victim.read_text() == "mine"
    assert not (tmp_path / planted).exists()


@only_posix
async def test_a_link_in_place_of_a_folder_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "runs.csv.tfruns-new").symlink_to(tmp_path / "elsewhere")
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(ExportError, match=r"runs\.csv\.tfruns-new is a symbolic link: remove it"):
            await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", work_dir=tmp_path / "work")
        assert not sandbox.requests
        day = (await client.list_runs(sandbox.job_ids[0], limit=1)).data[0].created.date().isoformat()
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / f"created_date={day}").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ExportError, match=f"created_date={day} is a symbolic link: remove it"):
            await export_runs(client, sandbox.job_ids, f"{tmp_path}/runs/", format="jsonl")
    assert [*(tmp_path / "elsewhere").iterdir()] == []


async def test_an_age_counts_from_this_call(tmp_path: Path) -> None:
    """A window of a folder by day that was given as a time ago."""
    server = Server([run(n, createdAt=time.time() * 1000 - n * DAY) for n in range(6)])
    async with server.serve() as client:
        await export_runs(client, ["job"], f"{tmp_path}/runs/", format="jsonl")
        summary = await export_runs(
            client, ["job"], f"{tmp_path}/runs/", format="jsonl", created_after=timedelta(days=2)
        )
    assert summary.runs == 3
    assert len(days(tmp_path / "runs")) == 6


@pytest.mark.parametrize("name", ["runs.csv", "runs/", "runs.sqlite"])
@pytest.mark.parametrize("is_filtered", [False, True])
async def test_an_empty_response_doesnt_replace_what_is_there(is_filtered: bool, name: str, tmp_path: Path) -> None:
    """An empty list is requested again before it is believed, with a filter too: it had found runs before."""
    server = Server([run(n, createdAt=NOW - n, status="FAILED") for n in range(30)])
    options: dict[str, Any] = {"format": "jsonl"} if name == "runs/" else {"replace": name == "runs.sqlite"}
    if is_filtered:
        options["status"] = "FAILED"
    async with server.serve() as client:
        await export_runs(client, ["job"], f"{tmp_path}/{name}", **options)
        for empty in (1, 6):
            server.requests, server.is_empty_for = 0, empty
            summary = await export_runs(client, ["job"], f"{tmp_path}/{name}", **options)
            assert (summary.runs, summary.removed_files, summary.removed_rows) == (30, 0, 0)
            assert server.requests == empty + 1
        server.runs.clear()
        assert (await export_runs(client, ["job"], f"{tmp_path}/{name}", **options)).runs == 0


@pytest.mark.parametrize("name", ["runs/", "runs.sqlite"])
async def test_a_list_that_is_empty_for_seconds_removes_no_open_run(name: str, tmp_path: Path) -> None:
    """Of an increment: the list is requested over the same pauses as in a walk."""
    server = Server([run(n, createdAt=NOW - n, status="RUNNING") for n in range(3)])
    options: dict[str, Any] = {"format": "jsonl"} if name == "runs/" else {}
    async with server.serve() as client:
        for server.is_empty_for in (0, 7):
            summary = await export_runs(client, ["job"], f"{tmp_path}/{name}", state=tmp_path / "state", **options)
            assert (summary.removed_files, summary.removed_rows) == (0, 0)
        server.runs.clear()
        summary = await export_runs(client, ["job"], f"{tmp_path}/{name}", state=tmp_path / "state", **options)
        assert summary.removed_rows == 3


async def test_a_day_that_isnt_as_an_export_writes_it_is_refused_and_stays(place: Place, tmp_path: Path) -> None:
    """Such as that of another version, with other columns: its other runs would be lost."""
    state = tmp_path / "state"
    await place.export(state=state)
    newest = max(place.path.glob("*/runs.*"))
    if place.format == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": ["run-0"]}), newest)
    else:
        newest.write_text('{"id": "run-0"}\n')
    before = newest.read_bytes()
    place.server.runs.insert(0, run(99, createdAt=NOW + 1))
    with pytest.raises(ExportError, match=rf"{newest.name} isn't what an export .*has written"):
        await place.export(state=state)
    assert newest.read_bytes() == before


async def test_a_folder_is_known_after_old_days_were_removed(place: Place, tmp_path: Path) -> None:
    """By hand, or by a rule of the bucket that removes what is old: the newest day says whose folder it is."""
    state = tmp_path / "state"
    await place.export(state=state)
    oldest = min(place.path.glob("created_date=*"))
    record = next(place.path.rglob("_tfruns.*"))
    os.utime(record, (0, 0))
    shutil.rmtree(oldest)
    place.server.runs.insert(0, run(99, createdAt=NOW + DAY))
    assert (await place.export(state=state)).runs == 1
    record = next(place.path.rglob("_tfruns.*"))
    assert record.stat().st_mtime > time.time() - DAY
    assert (await place.export(created_after=datetime.fromtimestamp((NOW - 2 * DAY) / 1000, UTC))).removed_files == 0
    assert not oldest.exists()
    with pytest.raises(ExportError, match="other jobs"):
        await place.export(jobs=["other"])


async def test_a_window_that_ends_later_by_now_isnt_filled_from_an_interrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was read whole before midnight would lack a day that the window has after it."""
    now = NOW / 1000
    monkeypatch.setattr(time, "time", lambda: now)
    server = Server([run(n, createdAt=NOW - n * DAY // 4) for n in range(40)])
    async with server.serve() as client:

        async def export(**options: Any) -> ExportSummary:
            return await export_runs(client, ["a", "b"], f"{tmp_path}/runs/", format="jsonl", **options)

        await export()
        wanted = content(tmp_path / "runs", "jsonl")
        window = {"created_after": timedelta(days=7), "created_before": timedelta(days=2)}
        for hours, resumed in ((10, 1), (20, 0)):
            now = NOW / 1000
            with pytest.raises(StoppedError):
                await export(**window, on_progress=stop_after(1))
            now += hours * 3600
            assert (await export(**window)).resumed_jobs == resumed
            assert content(tmp_path / "runs", "jsonl") == wanted


async def test_a_state_is_as_it_was_after_a_replacement_that_found_no_room(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the exports with it go on."""
    state = tmp_path / "state"
    await place.export(state=state)
    before = state.read_bytes()

    def close(_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tfruns.export.dataset.Days.close", close)
        with pytest.raises(OSError, match="no space"):
            await place.export(state=state, replace=True)
    assert state.read_bytes() == before
    place.server.runs.insert(0, run(99, createdAt=NOW + DAY))
    assert (await place.export(state=state)).runs == 1


@pytest.mark.parametrize("name", ["runs.csv", "runs/"])
async def test_a_replacement_that_cant_be_put_in_place_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the runs that are there, nor the quarantine, nor the state, with which the next export goes on."""
    server = Server([run(n, createdAt=NOW - n * DAY) for n in range(5)] + [run(9, createdAt=NOW - DAY, status=None)])
    state = tmp_path / "state"

    def files_there() -> dict[str, bytes]:
        found = {path for path in tmp_path.rglob("*") if path.is_file()}
        return {str(path): path.read_bytes() for path in found if path.name != "_SUCCESS"}

    async with server.serve() as client:

        async def export(**options: Any) -> ExportSummary:
            form = "jsonl" if name == "runs/" else None
            return await export_runs(client, ["job"], f"{tmp_path}/{name}", format=form, state=state, **options)

        for number in range(3):
            server.runs.insert(0, run(20 + number, createdAt=NOW + number * 1000, status=None if number else "FAILED"))
            await export()
        before = files_there()
        move = os.replace

        def full(fresh: Any, place: Any) -> None:
            if Path(place) not in (state, tmp_path / "state.new"):
                raise OSError(errno.ENOSPC, "no space left on device", str(place))
            move(fresh, place)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(OSError, match="no space"):
                await export(replace=True)
        for left in tmp_path.glob("*.tfruns-partial"):  # from which the same call would go on
            shutil.rmtree(left)
        assert files_there() == before
        server.runs.insert(0, run(30, createdAt=NOW + 9000))
        assert (await export()).runs == 1


async def test_days_without_runs_go_once_all_others_are_in_place(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.export()
    before = days(place.path)
    place.server.runs[10:] = []
    place.server.runs.insert(0, run(99, createdAt=NOW + DAY))
    move = os.replace

    def full(fresh: Any, to: Any) -> None:
        if "created_date=2024-10-05/runs." in Path(to).as_posix():
            raise OSError(errno.ENOSPC, "no space left on device", str(to))
        move(fresh, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            await place.export()
    assert days(place.path) == before
    assert (await place.export()).removed_files == 5


@pytest.mark.parametrize("sent", ["of the server", None, 7, ["a"]])
async def test_a_line_has_the_job_that_was_read(sent: object, tmp_path: Path) -> None:
    """A newer server may send a `jobId` of its own: it makes no run of one job another's, and stops no increment."""
    server = Server([run(n, createdAt=NOW - n, jobId=sent, status="RUNNING") for n in range(3)])
    async with server.serve() as client:
        for status in ("RUNNING", "FINISHED"):
            for each in server.runs:
                each["status"] = status
            await export_runs(client, ["a", "b"], f"{tmp_path}/runs/", format="jsonl", state=tmp_path / "state")
            await export_runs(client, ["a", "b"], f"{tmp_path}/runs/", format="jsonl", state=tmp_path / "state")
            found = content(tmp_path / "runs", "jsonl")
            assert {key: row["status"] for key, row in found.items()} == {
                (job, one["id"]): status for job in ("a", "b") for one in server.runs
            }


async def test_a_folder_without_a_run_may_become_that_of_other_jobs(place: Place) -> None:
    """And belongs to these alone from then on."""
    runs = place.server.runs[:]
    place.server.runs.clear()
    await place.export(jobs=["empty"])
    place.server.runs += runs
    for _ in range(2):
        assert (await place.export()).runs == 20
    with pytest.raises(ExportError, match="other jobs"):
        await place.export(jobs=["empty"])


async def test_jobs_may_be_added_to_a_first_export_that_was_killed_as_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day later it begins anew, with the jobs that there are by then, as an increment does."""
    from tfruns.export.watermark import State

    arguments: dict[str, Any] = {"format": "jsonl", "state": tmp_path / "state"}
    save = State.save

    def killed(self: State, path: Path) -> None:
        if self.writing is None:
            raise StoppedError
        save(self, path)

    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr(State, "save", killed)
            await export_runs(client, sandbox.job_ids[:1], f"{tmp_path}/runs/", **arguments)
        shutil.rmtree(tmp_path / "runs.tfruns-partial", ignore_errors=True)
        shutil.rmtree(tmp_path / "state.tfruns-partial", ignore_errors=True)
        assert (await export_runs(client, sandbox.job_ids, f"{tmp_path}/runs/", **arguments)).runs == 10
