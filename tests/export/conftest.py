"""What several tests of exports share."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster, cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL for all tests: each takes a table of its own name."""
    with cluster() as found:
        yield found
