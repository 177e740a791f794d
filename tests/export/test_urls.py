"""URLs as destinations: which are known, and where a file is moved to its name."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from tests.http.test_key_stays_home import LOOKS
from tfruns import Client
from tfruns.export import ExportError, export_runs, store
from tfruns.export.checkpoint import cache_folder
from tfruns.export.secrets import Hidden, clean, masked_url, secrets_of
from tfruns.sandbox import Sandbox


async def test_elsewhere_than_in_object_stores_a_file_is_moved_to_its_name_when_it_is_whole(
    sandbox: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    seen = []
    move = type(memory).mv

    def watched(self: Any, *paths: str) -> None:
        seen.append(memory.find("/a"))
        move(self, *paths)

    monkeypatch.setattr(type(memory), "mv", watched)
    try:
        assert (await export_runs(client, sandbox.job_ids, "memory://a/runs.jsonl")).runs == 65
        assert (seen, memory.find("/a")) == ([["/a/runs.jsonl.tfruns-new"]], ["/a/runs.jsonl"])

        def fails(*_: Any) -> None:
            raise OSError("no space")

        monkeypatch.setattr(type(memory), "mv", fails)
        with pytest.raises(ExportError, match=r"memory://a/runs\.jsonl can't be written: no space"):
            await export_runs(client, sandbox.job_ids[:1], "memory://a/runs.jsonl")
        assert memory.find("/a") == ["/a/runs.jsonl"]
        assert len(memory.cat_file("/a/runs.jsonl").splitlines()) == 65
    finally:
        memory.store.clear()


@pytest.mark.parametrize("scheme", ["MEMORY", "Memory"])
async def test_a_scheme_may_be_written_in_any_case(sandbox: Sandbox, client: Client, scheme: str) -> None:
    memory = fsspec.filesystem("memory")
    try:
        await export_runs(client, sandbox.job_ids, f"{scheme}://a/runs.jsonl")
        assert memory.find("/a") == ["/a/runs.jsonl"]
    finally:
        memory.store.clear()


async def test_a_file_url_is_a_path(sandbox: Sandbox, client: Client, tmp_path: Path) -> None:
    summary = await export_runs(client, sandbox.job_ids, f"file://{tmp_path}/runs.csv")
    assert summary.path == tmp_path / "runs.csv"
    assert summary.path.is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftps+x://me:hunter22@host/runs.csv", r"can't be written to a URL with ftps\+x://: give a path"),
        ("https://me:hunter22@host/runs.csv", "can't be written to a URL with https://"),
        ("postgresql+psycopg2://me:hunter22@host/db", r"can't be written to a URL with postgresql\+psycopg2://"),
        ("sftp://me:hunter22@host/runs.doc", r"the name 'runs\.doc' doesn't say which format"),
        ("sftp://me:hunt/er22@host/", "sftp://host/ names no object: give one such as sftp://bucket/runs.parquet"),
        ("s3://me:hunter22@bucket/", "s3://bucket/ names no object"),
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_without_its_password(url: str, says: str, tmp_path: Path) -> None:
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(ValueError, match=says) as caught:
            await export_runs(client, ["job"], url)
    error = caught.value.with_traceback(_ours(caught.value))
    assert [look for look, show in LOOKS.items() if "er22" in show(error)] == []
    assert [*tmp_path.iterdir()] == []


async def test_what_isnt_installed_is_named(
    sandbox: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is read."""
    with pytest.raises(ExportError, match=r"destinations with gs:// need gcsfs: (uv )?pip install gcsfs"):
        await export_runs(client, sandbox.job_ids, "gs://bucket/runs.csv")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ExportError, match=r"destinations with s3:// need fsspec: (uv )?pip install .*fsspec"):
        await export_runs(client, sandbox.job_ids, "s3://bucket/runs.csv")
    assert not sandbox.requests
    assert [*tmp_path.rglob("*partial*")] == []


def _ours(error: BaseException) -> Any:
    """The traceback without the frame of the test itself."""
    assert error.__traceback__ is not None
    return error.__traceback__.tb_next


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://bucket", "s3://bucket names no object"),
        ("s3:///runs.csv", "s3:///runs.csv names no object"),
        ("s3://", "s3:// names no object"),
        ("s3://bucket/a::b.csv", "two colons"),
        ("s3://bucket/a//", "two slashes in a row"),
        ("s3://bucket/a//b.csv", "two slashes in a row"),
        ("s3://bucket//b.csv", "two slashes in a row"),
        ("memory://a//", "two slashes in a row"),
        ("memory://a::b/runs.csv", "two colons"),
    ],
)
async def test_a_url_with_two_meanings_is_refused_at_the_call(url: str, says: str) -> None:
    """With a format, too, which would make any name one of a file."""
    async with Client("http://127.0.0.1:1", "a-long-enough-key") as client:
        with pytest.raises(ValueError, match=says):
            await export_runs(client, ["job"], url, format="jsonl")


@pytest.mark.parametrize(("version", "is_old"), [("0.4.2", True), ("2023.12.0", True), ("2024.6.0", False)])
def test_a_package_that_is_too_old_is_named_with_the_version_wanted(
    version: str, is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that a resolver has chosen to go with a new boto3."""
    monkeypatch.setitem(sys.modules, "s3fs", SimpleNamespace(__version__=version))
    if is_old:
        with pytest.raises(ExportError, match=rf"s3fs {version} is too old: (uv )?pip install 's3fs>=2024\.6'"):
            store._check_version("s3fs")
    else:
        store._check_version("s3fs")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "abfs://box@account.dfs.core.windows.net/runs.csv?token=1",
            "abfs://box@account.dfs.core.windows.net/runs.csv",
        ),
        ("abfs://me:hunter22@host/runs.csv", "abfs://host/runs.csv"),
        ("s3://key:hunter22@bucket/a@b?.csv", "s3://bucket/a@b?.csv"),
    ],
)
def test_of_a_url_all_but_passwords_and_tokens_is_shown(url: str, shown: str) -> None:
    """Azure's begin with a container, not with a user; a key of S3 may hold a question mark."""
    assert masked_url(Hidden(url)) == shown


def test_secrets_are_found_wherever_they_stand_in_options() -> None:
    options = Hidden({"client_kwargs": {"keys": ["hunter22", (b"swordfish",)]}, "anon": False, "region": "eu"})
    secrets = secrets_of(Hidden("s3://bucket/runs.csv"), options)
    assert clean("hunter22 or swordfish in eu", secrets) == "[hidden] or [hidden] in eu"


def test_words_of_a_url_that_arent_secret_stay_in_messages() -> None:
    url = Hidden("postgresql://me:hunter22@host/db?sslmode=require&sslpassword=swordfish&application_name=SSL")
    secrets = secrets_of(url, Hidden(None))
    text = "SSL was required, but hunter22 and swordfish"
    assert clean(text, secrets) == "SSL was required, but [hidden] and [hidden]"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="of the XDG's systems")
def test_a_relative_folder_for_caches_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its specification says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, wanted in (("relative", ".cache"), ("", ".cache"), (str(tmp_path / "own"), "own")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == tmp_path / wanted / "tfruns"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="of the XDG's systems")
def test_without_a_home_the_work_is_done_among_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in many containers, where nothing else may be written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "caches"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"tfruns-{os.getuid()}"
    assert cache_folder().stat().st_mode & 0o777 == 0o700
