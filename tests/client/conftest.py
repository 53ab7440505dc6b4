"""A client on the database of a launched application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbos import DBOS, DBOSClient


@pytest.fixture
def client(app: type[DBOS], database_url: str) -> Iterator[DBOSClient]:
    """A client of the application that `app` has launched; it listens, so that tests need not wait for polls."""
    with DBOSClient(system_database_url=database_url, application_name="test-app", use_listen_notify=True) as made:
        yield made
