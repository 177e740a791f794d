"""The package as it is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfruns


def test_the_names_for_type_checkers_are_the_names_at_run_time() -> None:
    source = Path(tfruns.__file__).read_text()
    declared = set(re.findall(r"import (\w+) as \1\n", source))
    assert declared == {*tfruns._HOME_OF, "__version__"}
    for home, name in re.findall(r"    from tfruns\.(\w+) import (\w+) as", source):
        assert tfruns._HOME_OF[name] == home


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    for name in tfruns._HOME_OF:
        assert name in dir(tfruns)
        assert getattr(tfruns, name).__doc__, name


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'tfruns' has no attribute 'Cleint'"):
        _ = tfruns.Cleint


def test_importing_it_does_not_wait_for_aiohttp() -> None:
    code = "import tfruns, sys; print([name for name in ('aiohttp', 'cattrs', 'msgspec') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_changelog_has_a_dated_entry_for_this_version_on_top() -> None:
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert versions[1][0] == tfruns.__version__
    assert all(date for _, date in versions[1:])
