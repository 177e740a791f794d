"""What every test has: an environment without a control plane of its own."""

import importlib.util
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.contract import problems
from tfruns.sandbox.respond import respond

# What can't be imported without a package that the README's test command doesn't install.
_NEEDS = {
    "docs/test_side_by_side.py": "truefoundry_sdk",
    "docs/test_vendor.py": "truefoundry_sdk",
    "docs/test_documented.py": "pyspark",
    "export/test_postgres.py": "adbc_driver_postgresql",
    "export/test_stores.py": "moto",
    "spark": "pyspark",
    "test_surface.py": "pyspark",
}
collect_ignore = [path for path, package in _NEEDS.items() if importlib.util.find_spec(package) is None]

# A process started in the background may have been told to ignore Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_control_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may be logged in somewhere: no test may see that."""
    monkeypatch.delenv("TFY_HOST", raising=False)
    monkeypatch.delenv("TFY_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


@pytest.fixture(autouse=True)
def _every_answer_of_a_sandbox_keeps_the_contract(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """But where a test is about one that can't: a page of HTML, or a value newer than the contract."""
    violations: list[str] = []

    async def checked(asked: web.BaseRequest, answer: web.Response, effects: Any) -> web.Response:
        if answer.content_type == "application/json":
            assert isinstance(answer.body, bytes)
            violations.extend(problems(answer.status, json.loads(answer.body)))
        elif effects.refusal is None or not effects.refusal.html:
            violations.append(f"an answer of {answer.content_type}")
        return await respond(asked, answer, effects)

    if "beyond_contract" not in request.keywords:
        monkeypatch.setattr("tfruns.sandbox.server.respond", checked)
    yield
    assert not violations
