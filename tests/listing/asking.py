"""Asking for workflows, as an application and as a client at the same time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from dbos import DBOS, DBOSClient, WorkflowStatus

Insert = Callable[..., None]

MONDAY = datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc)
MONDAY_MS = int(MONDAY.timestamp() * 1000)


def at(milliseconds: int) -> str:
    """A time as the filters take it."""
    return (MONDAY + timedelta(milliseconds=milliseconds)).isoformat()


# While a test has one, it is asked for everything that the application is asked for.
clients: list[DBOSClient] = []


def ids(found: list[WorkflowStatus]) -> list[str]:
    return [status.workflow_id for status in found]


def listed(**filters: Any) -> list[str]:
    """What the application finds, and a client too."""
    found = ids(DBOS.list_workflows(**filters))
    for client in clients:
        assert ids(client.list_workflows(**filters)) == found
    return found


def queued(**filters: Any) -> list[str]:
    found = ids(DBOS.list_queued_workflows(**filters))
    for client in clients:
        assert ids(client.list_queued_workflows(**filters)) == found
    return found
