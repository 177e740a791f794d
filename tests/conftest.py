"""What every test has: an environment without a control plane of its own."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.contract import problems
from tfruns.sandbox.respond import respond

# A process started in the background may ignore Ctrl-C, and its children would inherit that.
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

    async def checked(request: web.BaseRequest, response: web.Response, effects: Any) -> web.Response:
        if response.content_type == "application/json":
            assert isinstance(response.body, bytes)
            violations.extend(problems(response.status, json.loads(response.body)))
        elif effects.refusal is None or not effects.refusal.html:
            violations.append(f"a response of {response.content_type}")
        return await respond(request, response, effects)

    if "beyond_contract" not in request.keywords:
        monkeypatch.setattr("tfruns.sandbox.server.respond", checked)
    yield
    assert not violations
