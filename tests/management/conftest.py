"""What tests of management share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbos import DBOS, DBOSClient

from .sides import Side


@pytest.fixture
def sides(app: type[DBOS], database_url: str) -> Iterator[list[Side]]:
    """The four forms of every call, in one application; a test does with each of them the same."""
    with DBOSClient(system_database_url=database_url, application_name="test-app", use_listen_notify=True) as client:
        yield [Side(target, is_async=is_async) for target in (DBOS, client) for is_async in (False, True)]
