"""The package as it is imported."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfruns
from tfruns import _names


def test_the_names_for_type_checkers_are_the_names_at_run_time() -> None:
    declared = re.findall(r"import (\w+) as \1\n", Path(_names.__file__).read_text())
    assert sorted([*declared, "__version__"]) == sorted(tfruns.__all__)  # type: ignore[attr-defined]


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    assert len(tfruns.__all__) > 40  # type: ignore[attr-defined]
    for name in tfruns.__all__:  # type: ignore[attr-defined]
        assert name in dir(tfruns)
        assert getattr(tfruns, name).__doc__, name


def test_a_pickle_is_read_by_a_process_that_has_imported_nothing_yet() -> None:
    error = tfruns.IncompleteWalkError("it failed", job_id="j", offset=1, seen=2, total=3)
    subject = tfruns.Subject(subject_id="1", subject_type=tfruns.SubjectType("user"), subject_slug="ann")
    pickled = pickle.dumps((error, subject, tfruns.RetryPolicy()))
    code = f"import pickle; print(*map(repr, pickle.loads({pickled!r})), sep='|')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"{error!r}|{subject!r}|{tfruns.RetryPolicy()!r}"


def test_a_traceback_shows_the_public_name() -> None:
    code = "import tfruns; tfruns.Client('http://127.0.0.1:1', 'key', headers={}).iter_runs('j'); tfruns.Client()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "\ntfruns.ConfigurationError: no host is given" in done.stderr


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'tfruns' has no attribute 'Cleint'"):
        _ = tfruns.Cleint  # type: ignore[attr-defined]


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


def test_a_client_needs_none_of_the_extras() -> None:
    extras = ("pyarrow", "duckdb", "pyspark", "opentelemetry", "click", "rich", "zstandard", "pytest", "sqlite3")
    code = f"""
import sys
before = {{*sys.modules}}  # what measures coverage imports sqlite3
import tfruns
tfruns.Client, tfruns.RunPaginator, tfruns.RunChange
print([name for name in {extras!r} if name in sys.modules.keys() - before])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
