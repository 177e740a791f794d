"""Whose the files of an export are, and who may read them."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.export.test_export import StoppedError, stop_after
from tfruns import Client
from tfruns.export import ExportError, ExportProgress, export_runs
from tfruns.export.files import locked
from tfruns.sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")
FORMATS = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet", "arrow", "sqlite", "duckdb"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_the_name_of_a_link_says_the_format(tmp_path: Path) -> None:
    """It is what the caller knows; what it leads to is written."""
    (tmp_path / "runs.csv").symlink_to(tmp_path / "target.txt")
    async with Sandbox(1, 3) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv")
    assert (tmp_path / "target.txt").read_text().startswith("job_id,")
    assert (tmp_path / "runs.csv").is_symlink()


@pytest.mark.parametrize("form", FORMATS)
async def test_what_is_being_written_is_for_its_owner_alone_and_the_end_has_the_mode_of_what_was_there(
    form: str, tmp_path: Path
) -> None:
    """Beside a private file there is never a copy that others can read."""
    path = tmp_path / f"runs.{form}"
    seen: dict[str, int] = {}

    def look(_: ExportProgress) -> None:
        seen.update({str(found.relative_to(tmp_path)): mode(found) for found in tmp_path.rglob("*")})

    async with Sandbox(jobs=2, runs=30) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, path, on_progress=look)
        umask = os.umask(0)
        os.umask(umask)
        assert mode(path) == 0o666 & ~umask
        path.chmod(0o640)
        await export_runs(client, sandbox.job_ids, path)
    assert mode(path) == 0o640
    folder = path.name + ".tfruns-partial"
    assert seen.pop(folder) == 0o700
    assert {name for name, found in seen.items() if found & 0o077} <= {path.name}
    assert f"{folder}/pieces" in seen


async def test_a_working_folder_that_others_could_have_filled_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forged rows would go into the file."""
    path, folder = tmp_path / "runs.jsonl", tmp_path / "runs.jsonl.tfruns-partial"
    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(StoppedError):
            await export_runs(client, sandbox.job_ids, path, on_progress=stop_after(1))
        for found in (folder, folder / "manifest", folder / "pieces"):
            before = mode(found)
            found.chmod(before | 0o022)
            with pytest.raises(ExportError, match="other users may write to .*, and could have put anything into it"):
                await export_runs(client, sandbox.job_ids, path)
            found.chmod(before)
        with monkeypatch.context() as patched:
            owner = os.geteuid() + 1
            patched.setattr(os, "geteuid", lambda: owner)
            with pytest.raises(ExportError, match="belongs to another user .* remove it, or name another folder"):
                await export_runs(client, sandbox.job_ids, path)
        pieces = (folder / "pieces").rename(tmp_path / "elsewhere")
        (folder / "pieces").symlink_to(pieces)
        with pytest.raises(ExportError, match="is a symbolic link: remove it"):
            await export_runs(client, sandbox.job_ids, path)
        pieces.replace(folder / "pieces")
        assert (await export_runs(client, sandbox.job_ids, path)).resumed_jobs == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.jsonl"]


async def test_a_folder_of_ones_own_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    """Such as one that was made by hand."""
    path, folder = tmp_path / "runs.jsonl", tmp_path / "runs.jsonl.tfruns-partial"
    folder.mkdir(mode=0o755)
    modes = []
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, path, on_progress=lambda _: modes.append(mode(folder)))
    assert set(modes) == {0o700}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
async def test_the_owner_of_the_file_that_is_replaced_stays_its_owner(tmp_path: Path) -> None:
    """Where that is allowed."""
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
    assert len(path.read_bytes().splitlines()) == 5


@pytest.mark.skipif(os.name != "posix", reason="of POSIX")
async def test_a_new_owner_is_reported_once_the_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a folder with the sticky bit, it isn't."""
    path, may_replace = tmp_path / "runs.jsonl", False
    path.write_text("old")
    stat, move = Path.stat, os.replace

    def of_another(self: Path, **options: Any) -> os.stat_result:
        found = stat(self, **options)
        is_old = self == path and found.st_size == 3
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:]]) if is_old else found

    def chown(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def replace(fresh: Path, place: Path) -> None:
        if not may_replace:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(place))
        move(fresh, place)

    monkeypatch.setattr(Path, "stat", of_another)
    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "replace", replace)
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(PermissionError):
            await export_runs(client, sandbox.job_ids, path)
        assert not caplog.messages
        may_replace = True
        await export_runs(client, sandbox.job_ids, path)
    assert "now it is yours" in caplog.text


@pytest.mark.parametrize(
    ("name", "wrong"), [("r.sqlite", "r.sqlite"), ("r/", "r"), ("r/", "r/created_date=1970-01-01")]
)
async def test_what_may_not_be_written_to_is_refused_before_anything_is_read(
    name: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = "jsonl" if name == "r/" else None
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        await export_runs(client, sandbox.job_ids, f"{tmp_path}/{name}", format=form)
        if "=" in wrong:
            (tmp_path / wrong).mkdir()
        sandbox.requests.clear()
        may = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / wrong and may(path, mode))
        with pytest.raises(ExportError, match=rf"{wrong} can't be written: you have no right to"):
            await export_runs(client, sandbox.job_ids, f"{tmp_path}/{name}", format=form)
        assert not sandbox.requests


async def test_the_work_can_be_done_in_another_folder(tmp_path: Path) -> None:
    """Two destinations of one name may share it, and nothing is left in it."""
    work = tmp_path / "work"
    work.mkdir()
    async with Sandbox(jobs=2, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            with pytest.raises(StoppedError):
                await export_runs(
                    client, sandbox.job_ids, tmp_path / name / "runs.csv", work_dir=work, on_progress=stop_after(1)
                )
        assert len([*work.iterdir()]) == 2
        for name in ("one", "two"):
            summary = await export_runs(client, sandbox.job_ids, tmp_path / name / "runs.csv", work_dir=work)
            assert summary.resumed_jobs == 1
            assert [entry.name for entry in (tmp_path / name).iterdir()] == ["runs.csv"]
        with pytest.raises(ExportError, match="there is no folder .*nowhere to work in"):
            await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", work_dir=tmp_path / "nowhere")
    assert not [*work.iterdir()]


async def test_two_exports_with_one_state_are_refused(tmp_path: Path) -> None:
    """They would write the same increment, each a half of it."""
    state = tmp_path / "state.json"
    async with Sandbox(jobs=1, runs=5) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        with (
            locked(tmp_path / "state.json.lock"),
            pytest.raises(ExportError, match="another export is at work with the state .*state.json"),
        ):
            await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", state=state)
        await export_runs(client, sandbox.job_ids, tmp_path / "runs.csv", state=state)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["runs.0000.csv", "state.json"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/2"])
async def test_an_open_stream_is_no_file(name: str) -> None:
    """Whatever is behind it, a file that is whole can't take its place."""
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(ExportError, match=f"{name} is an open stream, .*tfruns export -o -"):
            await export_runs(client, ["job"], name, format="csv")


async def test_a_url_that_became_a_path_is_refused(tmp_path: Path) -> None:
    """A path has one slash where the URL has two: it would name a folder."""
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(ValueError, match="a URL must be given as a string"):
            await export_runs(client, ["job"], Path("s3://bucket/runs.csv"))
    assert [*tmp_path.iterdir()] == []
