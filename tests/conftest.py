"""What every test has: an environment without a control plane of its own, and the seeds that the options say."""

import gc
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.support import seeds
from tests.support.contract import problems
from tfruns._http.connections import ClosedSignal
from tfruns.sandbox import Fault
from tfruns.sandbox.server import respond

# A process started in the background may ignore Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each process that imports aiohttp reads the machine's certificates, for a tenth of a second: no test leaves loopback.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)

# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each process would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_NUMBERS = itertools.count()
_OF_ONE_MARKER = {
    "tests/docs/test_vendor.py": "vendor",
    "tests/docs/test_side_by_side.py": "vendor",
    "tests/export/test_postgres.py": "postgres",
    "tests/export/test_stores.py": "s3",
    "tests/spark/test_*.py": "spark",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tfruns")
    group.addoption(
        "--seed", type=seeds.parse_seed, metavar="N|fresh", help="Where properties begin. Default: always the same."
    )
    group.addoption("--examples", type=int, metavar="N", help="How often each property is tried. Default: a few times.")


@pytest.hookimpl(tryfirst=True)  # hypothesis reads its option when it is configured
def pytest_configure(config: pytest.Config) -> None:
    config.option.seed = getattr(config, "workerinput", {}).get("seed", config.getoption("seed"))
    seeds.use(config.option.seed, config.getoption("examples"))
    if config.option.seed is not None:
        config.option.hypothesis_seed = str(config.option.seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Each process of pytest-xdist reads the options again, and would draw a seed of its own."""
    node.workerinput["seed"] = node.config.getoption("seed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules whose tests are left out anyway, and that import what takes seconds, aren't imported."""
    left_out = str(config.getoption("markexpr"))
    is_left_out = any(
        f"not {marker}" in left_out and collection_path.match(pattern) for pattern, marker in _OF_ONE_MARKER.items()
    )
    return True if is_left_out else None


def pytest_collection_finish() -> None:
    """What was collected is half a million objects: a test that collects garbage needn't go through them each time."""
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a third of the time is spent waiting, for other processes and timers."""
    return (os.cpu_count() or 1) + 1


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if config.getoption("seed") is None else f"to run it again: {_again(config)}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("seed") is not None and terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"A failure by a fresh seed is a finding. To run it again: {_again(config)}")


def _again(config: pytest.Config) -> str:
    number = config.getoption("examples")
    return f"pytest --seed {config.getoption('seed')}" + ("" if number is None else f" --examples {number}")


@pytest.fixture(autouse=True)
def _no_control_plane(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever runs the tests may be logged in somewhere: no test may see that.

    A test's home is its `tmp_path`; one without gets a folder that isn't there, because making 3,000 takes seconds.
    """
    monkeypatch.delenv("TFY_HOST", raising=False)
    monkeypatch.delenv("TFY_API_KEY", raising=False)
    if "tmp_path" in request.fixturenames:
        home = request.getfixturevalue("tmp_path")
    else:
        home = tmp_path_factory.getbasetemp() / f"home-{next(_NUMBERS)}"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes 50 times as fast for all in this process that waits: between two polls, before a retry, until
    something is believed. Timeouts are in real seconds."""
    now, wait = ClosedSignal.now, ClosedSignal.wait
    monkeypatch.setattr(ClosedSignal, "now", lambda self: now(self) * 50)
    monkeypatch.setattr(ClosedSignal, "wait", lambda self, seconds, *until: wait(self, seconds / 50, *until))


@pytest.fixture(autouse=True)
def _every_answer_of_a_sandbox_keeps_the_contract(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """But where a test is about one that can't: a page of HTML, or a value newer than the contract."""
    violations: list[str] = []

    async def checked(request: web.BaseRequest, response: web.Response, faults: list[Fault]) -> web.StreamResponse:
        if response.content_type == "application/json":
            assert isinstance(response.body, bytes)
            body = msgspec.json.decode(response.body)
            if runs := body.get("data"):  # of a long page, some runs from its first to its last
                body["data"] = [*runs[:: 1 + len(runs) // 50], runs[-1]]
            violations.extend(problems(response.status, body))
        elif not any(fault.html for fault in faults):
            violations.append(f"a response of {response.content_type}")
        return await respond(request, response, faults)

    if "beyond_contract" not in request.keywords:
        monkeypatch.setattr("tfruns.sandbox.server.respond", checked)
    yield
    assert not violations
