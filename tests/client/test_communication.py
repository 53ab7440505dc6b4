"""What workflows publish, read through a client (04 R515)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dbos import DBOS, DBOSClient
from dbos.error import DBOSException
from tests.helpers import step_rows

ENQUEUE: Any = {"workflow_name": "publish", "queue_name": "mail", "workflow_id": "w"}


def declare() -> None:
    @DBOS.workflow(name="publish")
    def publish() -> None:
        DBOS.set_event("k", {"a": [1, None]})
        DBOS.set_event("none", None)


def test_an_event_is_waited_for_and_read(client: DBOSClient) -> None:
    """04 R515: the workflow need not exist yet."""
    declare()
    client.register_queue("mail")
    client.enqueue(ENQUEUE).get_result()
    assert client.get_event("w", "k") == {"a": [1, None]}
    assert client.get_event("w", "none") is None
    assert client.get_all_events("w") == {"k": {"a": [1, None]}, "none": None}
    assert client.get_all_events("absent") == {}


async def test_waiting_for_an_event_ends_when_it_is_set(client: DBOSClient) -> None:
    """04 R515."""
    declare()
    await client.register_queue_async("mail")
    waiting = [asyncio.ensure_future(client.get_event_async("w", "k")) for _ in range(50)]
    await client.enqueue_async(ENQUEUE)
    assert await asyncio.gather(*waiting) == [{"a": [1, None]}] * 50
    assert await client.get_all_events_async("w") == {"k": {"a": [1, None]}, "none": None}


def test_waiting_for_an_event_ends_after_the_timeout(client: DBOSClient) -> None:
    """04 R515."""
    began = time.monotonic()
    assert client.get_event("absent", "k", 0.05) is None
    assert client.get_event("absent", "k", timeout_seconds=0) is None
    assert time.monotonic() - began >= 0.05
    with pytest.raises(DBOSException, match="not sharded"):
        client.get_event("absent", "k", shard_key="s")


def test_reading_an_event_in_a_workflow_records_nothing(client: DBOSClient, database_url: str) -> None:
    """04 R504."""

    @DBOS.workflow()
    def w() -> str | None:
        client.get_event("absent", "k", 0)
        client.get_all_events("absent")
        return DBOS.workflow_id

    assert step_rows(database_url, w() or "") == []
