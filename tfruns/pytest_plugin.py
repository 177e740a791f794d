"""Fixtures for pytest, available wherever tfruns is installed: a sandbox, and a client of it.

Example:
    >>> async def test_count(tfruns_sandbox, tfruns_client):
    ...     assert await tfruns_client.count_runs(tfruns_sandbox.job_ids[0]) == 1000

They work in async tests under pytest-asyncio, in either of its modes, and anyio's plugin on asyncio; and in synchronous
tests, because the sandbox serves from its own thread: so `asyncio.run`, FastAPI's `TestClient`, a subprocess, or a
client in another language can use it too. The client needs asyncio: where anyio runs a test on trio as well, that run
is skipped.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import tfruns

if TYPE_CHECKING:
    from tfruns.sandbox import Sandbox


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, so that `--strict-markers` accepts it."""
    what = "tfruns_sandbox(**arguments): what the fixture tfruns_sandbox passes to tfruns.sandbox.Sandbox"
    config.addinivalue_line("markers", what)


@pytest.fixture
def tfruns_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """A `tfruns.sandbox.Sandbox` for this test, in its own thread: by default 2 jobs of 1,000 runs.

    `@pytest.mark.tfruns_sandbox(jobs=["a"], runs=50)` passes it other arguments. In a synchronous test, call its async
    methods by `asyncio.run(tfruns_sandbox.create_run("a"))`.
    """
    from tfruns.sandbox import Sandbox

    marker = request.node.get_closest_marker("tfruns_sandbox")
    with Sandbox(*(marker.args if marker else ()), **(marker.kwargs if marker else {})) as sandbox:
        yield sandbox


def _needs_asyncio(request: pytest.FixtureRequest) -> None:
    if "anyio_backend" not in request.fixturenames or request.getfixturevalue("anyio_backend_name") == "asyncio":
        return
    reason = "tfruns needs asyncio, and this test runs on trio: let a fixture `anyio_backend` return 'asyncio'"
    if "anyio_backend" in getattr(getattr(request.node, "callspec", None), "params", ()):
        pytest.skip(reason)  # anyio runs it on asyncio, too
    pytest.fail(reason, pytrace=False)


@pytest.fixture
def tfruns_client(request: pytest.FixtureRequest, tfruns_sandbox: "Sandbox") -> "Iterator[tfruns.Client]":
    """A `tfruns.Client` of the sandbox of this test, with the key that the sandbox accepts at the time.

    It can be used in one event loop at a time: the test's, an `asyncio.run` of the test, or that of a `TestClient`.
    """
    _needs_asyncio(request)
    loops: list[asyncio.AbstractEventLoop] = []

    def remember_loop(_: object) -> None:
        loops[:] = [asyncio.get_running_loop()]

    client = tfruns.Client(
        tfruns_sandbox.url,
        lambda: tfruns_sandbox.api_key,
        # Plugins may close the test's event loop before this fixture ends: no connection must be left open in it.
        headers={"Connection": "close"},
        on_request=remember_loop,
    )
    yield client
    # A client is closed in the event loop that it was used in, if that is still open.
    if loops and loops[0].is_running():
        asyncio.run_coroutine_threadsafe(client.aclose(), loops[0]).result()
    elif loops and not loops[0].is_closed():
        loops[0].run_until_complete(client.aclose())
    else:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(client.aclose())
