"""Messages between two implementations on one database, and histories of messages that the other continues."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from interop.sides import Databases, Side
from interop.test_interop import query

MISSING = "['DBOSNonExistentWorkflowError', 'DBOS Error 5: Non-existent `send` destination workflow ID: nobody']"
EXPECTED = [
    f"[1, {{'x': [2.5, 'naïve ☃']}}, {MISSING}, None, ['step', b'bytes'], 'l1', 'l2', "
    "['portable', 0, 1, None, {'a': (1, None)}]]",
    "[1, {'x': [2.5, 'naïve ☃']}, 'l1', 'l2', {'a': (1, None)}]",
]


@pytest.fixture
def pair(ours: Side, incumbent: Side) -> dict[str, Side]:
    return {side.name: side.running("messages_program.py") for side in (ours, incumbent)}


def mailboxes(url: str) -> list[str]:
    """The messages without their ids and times, which differ in every run."""
    columns = "destination_uuid, topic, message, serialization, consumed, consumed_by_function_id"
    found = query(url, f"SELECT message_uuid, {columns} FROM notifications")
    for row in found:
        row["consumed"] = bool(row["consumed"])
        if "::" not in row["message_uuid"]:
            row["message_uuid"] = len(row["message_uuid"])
        if row["topic"] == "own":
            # In which order those of a bulk are received is open there.
            row["consumed_by_function_id"] = None
    return sorted(json.dumps(row, sort_keys=True) for row in found)


def steps(url: str) -> list[str]:
    columns = "workflow_uuid, function_id, function_name, output, error, serialization, child_workflow_id"
    found = query(url, f"SELECT {columns} FROM operation_outputs ORDER BY workflow_uuid, function_id")
    own = {row["message"] for row in query(url, "SELECT message FROM notifications WHERE topic = 'own'")}
    for row in found:
        if row["function_name"] == "DBOS.sleep" or row["output"] in own:
            row["output"] = row["serialization"] = "any"
    return [json.dumps(row) for row in found]


def test_the_same_program_leaves_the_same_rows(databases: Databases, pair: dict[str, Side]) -> None:
    mine, theirs = databases.fresh(), databases.fresh()
    assert pair["ours"].call(mine, "run") == pair["incumbent"].call(theirs, "run") == EXPECTED
    assert mailboxes(mine) == mailboxes(theirs)
    assert steps(mine) == steps(theirs)


@pytest.mark.parametrize(("maker", "finisher"), [("ours", "incumbent"), ("incumbent", "ours")])
def test_histories_left_by_one_are_continued_by_the_other(
    databases: Databases, pair: dict[str, Side], maker: str, finisher: str
) -> None:
    """Half of the messages are received, and the deadline of the next wait is recorded."""
    url = databases.fresh()
    pair[maker].leave(url)
    assert pair[finisher].call(url, "finish") == EXPECTED
    once: Any = query(url, "SELECT COUNT(*) AS n FROM notifications WHERE consumed")
    assert once[0]["n"] == 14


@pytest.mark.parametrize(("receiver", "sender"), [("ours", "incumbent"), ("incumbent", "ours")])
def test_each_sends_to_workflows_that_wait_in_a_process_of_the_other(
    databases: Databases, pair: dict[str, Side], receiver: str, sender: str
) -> None:
    url = databases.fresh()
    # Whoever comes first makes the tables.
    pair[receiver].call(url, "nothing")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pair[receiver].call, url, "wait")
        pair[sender].call(url, "send")
        assert waiting.result() == ["['plain', ['portable'], 'from a workflow']"] * 2
