"""Workflows made by one implementation are managed by the other, and afterwards the rows are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interop.sides import Databases, Side
from interop.test_interop import TABLES, masked_rows, query
from tests.management.rows_of import CLOSED, add_events, add_message, add_stream

PROGRAM = Path(__file__).with_name("managing.py")
MORE_TABLES = {
    "workflow_events": "workflow_uuid, key",
    "workflow_events_history": "workflow_uuid, function_id, key",
    "streams": 'workflow_uuid, key, "offset"',
    "notifications": "message_uuid",
}
FORKS = {"counted-2-fork", "fork", "fork-of-all", "fork-of-nothing", "fork-waits"}
# What never had a queue has the name of the internal one only while it waits.
RAN_WITHOUT_QUEUE = {"counted-2-fork", "fork", "fork-of-all", "rewound-1", "rewound-2"}
DELIBERATE: dict[tuple[Any, ...], tuple[Any, Any]] = {
    # The token by which a fork is found again whose answer was lost.
    **{("workflow_status", workflow_id, "creator_xid"): ("set", None) for workflow_id in FORKS},
    **{("workflow_status", name, "queue_name"): (None, "_dbos_internal_queue") for name in RAN_WITHOUT_QUEUE},
    # The result of the child that was replaced, which is not that of the one in its place: ours is not copied.
    ("operation_outputs", "fork-of-all", 2, "output"): ("113", "2"),
}
PICKLED = {"gARLcS4=": "113", "gARLAi4=": "2"}


@pytest.fixture
def sides(ours: Side, incumbent: Side) -> dict[str, Side]:
    return {side.name: replace(side, program=PROGRAM) for side in (ours, incumbent)}


def make(maker: Side, url: str) -> Any:
    answer = maker.call(url, "make")["answer"]
    for workflow_id in ("counted-1", "counted-2", "rewound-1", "rewound-2", "deleted-1"):
        add_events(url, workflow_id, (1, "k", "one"), (2, "k", "two"), (3, "k", "three"), (3, "late", "l"))
        add_stream(url, workflow_id, (1, "a"), (2, "b"), (3, CLOSED), (3, "d"))
        add_message(url, workflow_id, f"{workflow_id} read", 2)
        add_message(url, workflow_id, f"{workflow_id} read late", 3)
        add_message(url, workflow_id, f"{workflow_id} unread")
    return answer


def differences(our_url: str, their_url: str) -> dict[tuple[Any, ...], tuple[Any, Any]]:
    """Where the rows of two databases differ, and how; they must be of the same workflows and steps."""
    found: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for table in TABLES | MORE_TABLES:
        mine, theirs = rows_of(our_url, table), rows_of(their_url, table)
        keys = [name for name in ("workflow_uuid", "function_id", "key", "offset", "message") if name in theirs[0]]
        identities = [[row[key] for key in keys] for row in mine]
        assert identities == [[row[key] for key in keys] for row in theirs], table
        for identity, one, two in zip(identities, mine, theirs):
            for column in two:
                if one[column] != two[column]:
                    found[(table, *identity, column)] = (one[column], two[column])
    return found


def rows_of(url: str, table: str) -> list[dict[str, Any]]:
    if table in MORE_TABLES:
        rows = query(url, f"SELECT * FROM {table} ORDER BY {MORE_TABLES[table]}")
        for row in rows:
            row.pop("created_at_epoch_ms", None)
        return rows
    rows = masked_rows(url, table)
    for row in rows:
        if row.get("function_name") == "DBOS.getStatus":
            # Whether the fork was running already when its status was read is a matter of luck.
            row["output"] = (row["output"]["workflow_id"], row["output"]["forked_from"])
        if isinstance(row.get("attributes"), str):
            row["attributes"] = json.loads(row["attributes"])
        row["output"] = PICKLED.get(row.get("output"), row.get("output"))
    return rows


@pytest.mark.parametrize("maker", ["ours", "incumbent"])
def test_both_manage_workflows_of_either_alike(databases: Databases, sides: dict[str, Side], maker: str) -> None:
    ours, incumbent = sides["ours"], sides["incumbent"]
    our_url, their_url = databases.fresh(), databases.fresh()
    made = [make(sides[maker], url) for url in (our_url, their_url)]
    assert made[0] == made[1]
    mine, theirs = ours.call(our_url, "manage"), incumbent.call(their_url, "manage")
    assert mine["answer"] == theirs["answer"]
    assert sorted(mine["executed"]) == sorted(theirs["executed"])
    assert differences(our_url, their_url) == DELIBERATE
    # What waits is run by the other one, and what has ended is read by it.
    ends = [incumbent.call(our_url, "finish"), ours.call(their_url, "finish")]
    assert ends[0]["answer"] == ends[1]["answer"]
    assert sorted(ends[0]["executed"]) == sorted(ends[1]["executed"])


def test_both_refuse_and_ignore_the_same(databases: Databases, sides: dict[str, Side]) -> None:
    answers: list[Any] = []
    recorded: list[Any] = []
    for side in sides.values():
        url = databases.fresh()
        make(side, url)
        answers.append(side.call(url, "refuse")["answer"])
        sql = "SELECT function_id, function_name, output, error IS NULL AS fine FROM operation_outputs "
        recorded.append(
            [tuple(row.values()) for row in query(url, f"{sql} WHERE workflow_uuid = 'refused' ORDER BY 1")]
        )
    assert answers[0] == answers[1]
    assert recorded[0] == recorded[1]
    assert len(recorded[0]) == 8
