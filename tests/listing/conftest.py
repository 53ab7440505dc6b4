"""Workflows to list, and who asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient
from tests.helpers import rows
from tests.listing.asking import MONDAY_MS, Insert, clients


@pytest.fixture
def client(app: type[DBOS], database_url: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database_url, application_name="test-app") as made:
        clients.append(made)
        yield made
        clients.clear()


@pytest.fixture
def insert(client: DBOSClient, database_url: str) -> Insert:
    """Writes a workflow as some process might have: the columns that matter, the others as usual."""

    def insert_one(workflow_id: str, **given: Any) -> None:
        row = {
            "workflow_uuid": workflow_id,
            "status": "SUCCESS",
            "name": "f",
            "application_name": "test-app",
            "created_at": MONDAY_MS,
            "updated_at": MONDAY_MS,
        } | given
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        rows(database_url, f"INSERT INTO workflow_status ({names}) VALUES ({places})", *row.values())

    return insert_one


@pytest.fixture(params=["sorted", "in order"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by an index and sorted, as when there are few; or in the order of all, as when there are many."""
    if request.param == "in order":
        monkeypatch.setattr("dbos.storage.listing.FEW", 1)
        monkeypatch.setattr("dbos.storage.listing.FEW_AT_THE_END", 1)
