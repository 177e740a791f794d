"""What several tests of exports share. (What a test has no packages for is imported only where it is used.)"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

import tfruns
from tests.support.hostile import serve
from tests.support.jobs import Jobs
from tests.support.postgres import Cluster, cluster
from tfruns import Client
from tfruns._walk.creation import PAUSES
from tfruns.export import pipeline
from tfruns.sandbox import Sandbox

if TYPE_CHECKING:
    from tests.support.objects import ObjectStore


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(jobs=3, runs=[40, 0, 25]) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with Client(
        sandbox.url, sandbox.api_key, retry=tfruns.RetryPolicy(max_attempts=1), max_concurrency=1
    ) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL for all tests: each takes a table of its own name."""
    with cluster() as found:
        yield found


@pytest.fixture(scope="session")
def object_store_of_all() -> "Iterator[ObjectStore]":
    """One S3 for all tests: moto knows one only."""
    from tests.support.objects import object_store

    with object_store() as store:
        yield store


@pytest.fixture
def bucket(object_store_of_all: "ObjectStore") -> "Iterator[ObjectStore]":
    """An empty bucket."""
    yield object_store_of_all
    object_store_of_all.empty()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose response says that something has gone is sent again at once."""
    monkeypatch.setattr(pipeline, "_PAUSE", 0)
    monkeypatch.setattr(pipeline, "PAUSES", (0,) * len(PAUSES))


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    jobs = Jobs()
    async with serve(jobs.reply) as (url, _), Client(url, "a-long-enough-key") as client:
        jobs.client = client
        yield jobs
