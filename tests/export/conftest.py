"""What several tests of exports share. (What a test has no packages for is imported only where it is used.)"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Cluster, cluster

if TYPE_CHECKING:
    from tests.support.objects import ObjectStore


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
