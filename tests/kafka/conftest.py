from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS
from tests.kafka.cluster import CONSUMER_PROTOCOL, MockCluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[MockCluster]:
    cluster = MockCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def topic(cluster: MockCluster) -> str:
    """A topic of the test's own."""
    name = f"topic-{next(_numbers)}"
    cluster.create_topic(name)
    return name


@pytest.fixture
def kafka(cluster: MockCluster) -> dict[str, Any]:
    """A consumer's configuration, with a group of the test's own."""
    return {
        "bootstrap.servers": cluster.servers,
        "group.id": f"group-{next(_numbers)}",
        "log_level": 0,
        # A mock broker may stop reading a connection: with the default, closing a client waits for a minute then.
        "socket.timeout.ms": 5000,
        **CONSUMER_PROTOCOL,
    }


@pytest.fixture
def unlaunched(config: dict[str, Any]) -> Iterator[type[DBOS]]:
    """A constructed application; the test launches it."""
    DBOS(config=config)  # type: ignore[arg-type]
    yield DBOS
    DBOS.destroy(destroy_registry=True)
