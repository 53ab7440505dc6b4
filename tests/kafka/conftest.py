from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS
from tests.kafka.cluster import MockCluster

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
    """A consumer's configuration, with a group of the test's own.

    The mock brokers let a new member of a known group wait for as long as a session lasts.
    """
    return {
        "bootstrap.servers": cluster.servers,
        "group.id": f"group-{next(_numbers)}",
        "session.timeout.ms": 2000,
        "heartbeat.interval.ms": 300,
        "log_level": 0,
    }


@pytest.fixture
def unlaunched(config: dict[str, Any]) -> Iterator[type[DBOS]]:
    """A constructed application; the test launches it."""
    DBOS(config=config)  # type: ignore[arg-type]
    yield DBOS
    DBOS.destroy(destroy_registry=True)
