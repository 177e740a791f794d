"""Fixtures for pytest, there wherever tfruns is installed: a sandbox, and a client of it.

Example:
    >>> async def test_count(tfruns_sandbox, tfruns_client):
    ...     assert await tfruns_client.count_runs(tfruns_sandbox.job_ids[0]) == 1000

Async tests need pytest-asyncio, in either of its modes, or, where that isn't installed, anyio's plugin on asyncio. The
fixtures run in the event loop of the test.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

import tfruns

if TYPE_CHECKING:
    from tfruns.sandbox import Sandbox

try:
    # In its strict mode, pytest-asyncio runs async fixtures of its own making alone.
    from pytest_asyncio import fixture as _fixture
except ImportError:
    _fixture: Any = pytest.fixture  # type: ignore[no-redef]  # which anyio's plugin runs


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that `--strict-markers` accepts it."""
    what = "tfruns_sandbox(**arguments): what the fixture tfruns_sandbox passes to tfruns.sandbox.Sandbox"
    config.addinivalue_line("markers", what)


@_fixture
async def tfruns_sandbox(request: pytest.FixtureRequest) -> "AsyncIterator[Sandbox]":
    """A `tfruns.sandbox.Sandbox` for this test: by default 2 jobs of 1,000 runs.

    `@pytest.mark.tfruns_sandbox(jobs=["a"], runs=50)` passes it other arguments.
    """
    from tfruns.sandbox import Sandbox

    marker = request.node.get_closest_marker("tfruns_sandbox")
    async with Sandbox(*(marker.args if marker else ()), **(marker.kwargs if marker else {})) as sandbox:
        yield sandbox


@_fixture
async def tfruns_client(tfruns_sandbox: "Sandbox") -> "AsyncIterator[tfruns.Client]":
    """A `tfruns.Client` of the sandbox of this test, with the key that the sandbox accepts at the time."""
    async with tfruns.Client(tfruns_sandbox.url, lambda: tfruns_sandbox.api_key) as client:
        yield client
