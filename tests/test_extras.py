"""What is missing is named with the command that installs it, in the way in which tfruns was installed."""

import json
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tfruns._extras import install, install_package

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("prefix", "marker", "extra", "says"),
    [
        ("uv/archive-v0/5tILW", None, "cli", "uvx --from 'tfruns[cli]' tfruns demo --rows 'a b'"),
        ("uv/archive-v0/5tILW", None, "duckdb", "uvx --from 'tfruns[cli,duckdb]' tfruns demo --rows 'a b'"),
        ("uv/tools/tfruns", "uv-receipt.toml", "cli", "uv tool install 'tfruns[cli]'"),
        ("pipx/.cache/1312", "pipx_metadata.json", "cli", "pipx run --spec 'tfruns[cli]' tfruns demo --rows 'a b'"),
        ("pipx/venvs/tfruns", "pipx_metadata.json", "arrow", "pipx install -f 'tfruns[cli,arrow]'"),
        ("venv", None, "arrow", "pip install --editable '.[arrow]'"),
    ],
)
def test_the_command_is_the_tools_own(
    prefix: str, marker: str | None, extra: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uv 0.13 and pipx lay out their environments."""
    folder = tmp_path / prefix
    folder.mkdir(parents=True)
    if marker is not None:
        (folder / marker).touch()
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "argv", ["tfruns", "demo", "--rows", "a b"])
    assert install(extra) in (says, f"uv {says}")  # uv has installed the tests' own packages, or pip


CHECKOUT = {"url": "file:///home/ana/tfruns", "dir_info": {}}


@pytest.mark.parametrize(
    ("origin", "installer", "says"),
    [
        ({}, "pip", "pip install 'tfruns[arrow]'"),
        ({}, "uv", "uv pip install 'tfruns[arrow]'"),
        ({"url": "https://example.com/tfruns.whl"}, "pip", "pip install 'tfruns[arrow]'"),
        (CHECKOUT, "pip", "pip install '.[arrow]'"),
        (CHECKOUT | {"dir_info": {"editable": True}}, "uv", "uv pip install --editable '.[arrow]'"),
    ],
)
def test_the_command_fits_what_was_installed_by_which_installer(
    origin: dict[str, object], installer: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkout, `tfruns[arrow]` would be another tfruns than the one that needs it."""

    class Installed(Distribution):
        def read_text(self, filename: str) -> str | None:
            return {"direct_url.json": json.dumps(origin) if origin else None, "INSTALLER": installer + "\n"}[filename]

        def locate_file(self, path: object) -> object:  # type: ignore[override]
            raise NotImplementedError

    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed())
    assert install("arrow") == says
    assert install_package("pandas") == f"{'uv ' * (installer == 'uv')}pip install pandas"


def test_all_is_every_extra_for_users_that_has_wheels() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [everything] = extras["all"]
    named = set(everything.removeprefix("tfruns[").removesuffix("]").split(","))
    assert named == extras.keys() - {"all", "spark", "test", "dev", "recipes", "bench"}
    assert not any("pyspark" in requirement for name in named for requirement in extras[name])
