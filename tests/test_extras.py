"""What is missing is named with the command that installs it, in the way in which tfruns was installed."""

import sys
import tomllib
from pathlib import Path

import pytest

from tfruns._extras import install

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
    assert install(extra) == says


def test_all_is_every_extra_for_users_that_has_wheels() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [everything] = extras["all"]
    named = set(everything.removeprefix("tfruns[").removesuffix("]").split(","))
    assert named == extras.keys() - {"all", "spark", "test", "dev", "recipes", "bench"}
    assert not any("pyspark" in requirement for name in named for requirement in extras[name])
