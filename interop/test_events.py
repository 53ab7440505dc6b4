"""Events that one implementation publishes and the other reads; and rows that are the same."""

from __future__ import annotations

import base64
import json
import pickle
import time
from typing import Any

import pytest

from interop.sides import Databases, Side
from interop.test_interop import TABLES, masked_rows, query, recorded_in

EVENT_TABLES = {
    "workflow_events": "workflow_uuid, key, value, serialization",
    "workflow_events_history": "workflow_uuid, function_id, key, value, serialization",
}
DIRECTIONS = ["ours-to-incumbent", "incumbent-to-ours"]


def events_in(url: str) -> dict[str, list[dict[str, Any]]]:
    return {
        table: query(url, f"SELECT {columns} FROM {table} ORDER BY {columns}")
        for table, columns in EVENT_TABLES.items()
    }


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """All events of a workflow have no order."""
    is_mapping = row.get("function_name") == "DBOS.get_events"
    return {**row, "output": pickle.loads(base64.b64decode(row["output"]))} if is_mapping else row


def test_the_same_calls_leave_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    left, right = databases.fresh(), databases.fresh()
    mine = ours.running("events.py").answer(left, "run")
    assert mine == incumbent.running("events.py").answer(right, "run")
    assert events_in(left) == events_in(right)
    for table in TABLES:
        assert [readable(row) for row in masked_rows(left, table)] == [
            readable(row) for row in masked_rows(right, table)
        ], table


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_half_a_history_is_continued_by_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    sides = [ours.running("events.py"), incumbent.running("events.py")]
    dying, finishing = sides if direction == "ours-to-incumbent" else sides[::-1]
    url, undisturbed = databases.fresh(), databases.fresh()
    expected = finishing.answer(undisturbed, "run")
    dying.leave(url)
    recorded = recorded_in(url)
    assert {"publishing 4", "reading 6"} <= recorded
    assert {"publishing 5", "reading 5"}.isdisjoint(recorded)
    finished = finishing.answer(url, "finish")
    assert finished == {name: expected[name] for name in finished}
    for table, rows in events_in(undisturbed).items():
        # The third workflow may have been left at any point.
        left, right = ([row for row in r if row["workflow_uuid"] != "portably"] for r in (rows, events_in(url)[table]))
        assert left == right, table


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_waits_for_what_the_other_publishes(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    """Its listener is told; ours needs a moment at most. (The other one looks once per second on SQLite.)"""
    sides = [ours.running("events.py"), incumbent.running("events.py")]
    publishing, waiting = sides if direction == "ours-to-incumbent" else sides[::-1]
    url = databases.fresh()
    with publishing.started(url, "publish") as publisher:
        wait_for_row(url, "SELECT 1 FROM workflow_status WHERE workflow_uuid = 'late'")
        with waiting.started(url, "wait") as waiter:
            assert waiter.stdout is not None
            assert publisher.stdin is not None
            assert waiter.stdout.readline() == "waiting\n"
            publisher.stdin.write("\n")
            publisher.stdin.flush()
            assert json.loads(waiter.stdout.readline()) == {"now": 1}


def wait_for_row(url: str, sql: str) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            if query(url, sql):
                return
        except Exception:  # the tables are not there yet
            pass
        assert time.monotonic() < give_up_at, sql
        time.sleep(0.02)
