"""A database made by one implementation is the other's as well."""

from __future__ import annotations

import base64
import pickle
import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from interop.sides import Databases, Side
from tests.databases import path_of
from tests.storage.introspection import comparable, read_postgres, read_sqlite

HELD = ["checkout", "checkout-async", "waiting-for-child", "debouncing", "streaming"]
TABLES = {
    "workflow_status": "workflow_uuid",
    "workflow_input": "workflow_uuid",
    "workflow_output": "workflow_uuid",
    "operation_outputs": "workflow_uuid, function_id",
    "streams": "workflow_uuid, key, offset",
}
QUEUES = {"queues": "name"}
SCHEDULES = {"workflow_schedules": "schedule_name"}
# Different in every run: only whether they are set is compared.
MASKED = {
    *("created_at", "updated_at", "completed_at", "started_at_epoch_ms", "completed_at_epoch_ms"),
    *("workflow_deadline_epoch_ms", "retention_timestamp", "creator_xid", "owner_xid"),
    *("delay_until_epoch_ms", "queue_id", "schedule_id"),
    *("delay_until_epoch_ms", "debounce_deadline_epoch_ms", "queue_id"),
}
# The incumbent stores the name of the class in place of the name that was given to a PortableWorkflowError; we
# store the given one. Both read both.
DELIBERATE: dict[str, list[dict[str, Any]]] = {
    "workflow_output": [
        {
            "row": ["portable-failing"],
            "error": (
                '{"name":"Failed","message":"it failed","code":17,"data":{"a":[1,null]}}',
                '{"name":"PortableWorkflowError","message":"it failed","code":17,"data":{"a":[1,null]}}',
            ),
        }
    ]
}


def query(url: str, sql: str) -> list[dict[str, Any]]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(url), timeout=30)) as lite:
            lite.row_factory = sqlite3.Row
            return [dict(row) for row in lite.execute(sql)]
    with psycopg.connect(url, row_factory=dict_row, options="-c search_path=dbos") as connection:
        return connection.execute(sql.encode()).fetchall()


def ids_in(url: str) -> list[str]:
    rows = query(url, "SELECT workflow_uuid FROM workflow_status")
    return sorted(row["workflow_uuid"] for row in rows)


def recorded_in(url: str) -> set[str]:
    rows = query(url, "SELECT workflow_uuid, function_id FROM operation_outputs")
    return {f"{row['workflow_uuid']} {row['function_id']}" for row in rows}


def masked_rows(url: str, table: str) -> list[dict[str, Any]]:
    rows = query(url, f"SELECT * FROM {table}")
    for row in rows:
        for column in MASKED & row.keys():
            row[column] = "set" if row[column] is not None else None
        if row.get("attributes") == "null":
            row["attributes"] = None  # readers take JSON null and SQL NULL alike (05 section 2.1)
        if row.get("function_name") == "DBOS.sleep":
            row["output"] = "a time"
        elif row.get("function_name") == "DBOS.getStatus":
            row["output"] = masked_status(row["output"])
    return sorted(rows, key=lambda row: [row[column] for column in (TABLES | QUEUES | SCHEDULES)[table].split(", ")])


def masked_status(output: str) -> dict[str, Any]:
    """A stored WorkflowStatus, without its times."""
    fields = vars(pickle.loads(base64.b64decode(output)))
    return {name: value is not None if name in MASKED | {"dequeued_at"} else value for name, value in fields.items()}


def same_outcomes(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Equal, but for what our messages say on top: they begin with the other's."""
    assert left.keys() == right.keys()
    for workflow_id in left:
        (kind, *mine), (other_kind, *others) = left[workflow_id], right[workflow_id]
        assert kind == other_kind, workflow_id
        assert same_texts(mine, others), (workflow_id, mine, others)


def same_texts(left: list[str], right: list[str]) -> bool:
    return len(left) == len(right) and all(
        one.startswith(two.rstrip(".")) or two.startswith(one.rstrip(".")) for one, two in zip(left, right)
    )


def test_the_same_program_leaves_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    our_url, their_url = databases.fresh(), databases.fresh()
    same_outcomes(ours.call(our_url, "run")["answer"], incumbent.call(their_url, "run")["answer"])
    same_rows(our_url, their_url, TABLES, DELIBERATE)


def test_the_same_enqueues_leave_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    our_url, their_url = databases.fresh(), databases.fresh()
    assert ours.call(our_url, "enqueue")["answer"] == incumbent.call(their_url, "enqueue")["answer"]
    note = [{"row": ["q-cancelled"], "request": ('{"dbos.queue":"parts"}', None)}]
    same_rows(our_url, their_url, TABLES | QUEUES, {"workflow_status": note})


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours"])
def test_workflows_enqueued_by_one_are_run_by_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    enqueueing, running = (ours, incumbent) if direction == "ours-to-incumbent" else (incumbent, ours)
    url, undisturbed = databases.fresh(), databases.fresh()
    ids = running.call(undisturbed, "enqueue")["answer"]
    expected = running.call(undisturbed, "finish", *ids)["answer"]
    assert {kind for kind, *_ in expected.values()} == {"SUCCESS"}
    assert enqueueing.call(url, "enqueue")["answer"] == ids
    assert running.call(url, "finish", *ids)["answer"] == expected
    for side in (ours, incumbent):
        assert side.call(url, "finish", *ids)["executed"] == []


def test_the_same_schedules_leave_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    our_url, their_url = databases.fresh(), databases.fresh()
    ids = ours.call(our_url, "schedule")["answer"]
    assert ids == incumbent.call(their_url, "schedule")["answer"]
    # A token by which a repeated insert finds its own row, which the incumbent gives to all workflows but these.
    tokens = [{"row": [workflow_id], "creator_xid": ("set", None)} for workflow_id in sorted(ids)]
    same_rows(our_url, their_url, TABLES | QUEUES | SCHEDULES, {"workflow_status": tokens})


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours"])
def test_schedules_made_by_one_are_run_by_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    making, running = (ours, incumbent) if direction == "ours-to-incumbent" else (incumbent, ours)
    url, undisturbed = databases.fresh(), databases.fresh()
    ids = running.call(undisturbed, "schedule")["answer"]
    expected = running.call(undisturbed, "finish", *ids)["answer"]
    assert {kind for kind, *_ in expected.values()} == {"SUCCESS"}
    assert making.call(url, "schedule")["answer"] == ids
    assert running.call(url, "finish", *ids)["answer"] == expected
    assert making.call(url, "tick")["answer"] == running.call(url, "tick")["answer"]


DEBOUNCED = ["d-plain", "d-queue", "d-async", "d-portable"]


def test_the_same_debounces_leave_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    our_url, their_url = databases.fresh(), databases.fresh()
    for side, url in ((ours, our_url), (incumbent, their_url)):
        assert side.call(url, "debounce")["answer"] == 2 * DEBOUNCED
    same_rows(our_url, their_url, TABLES)


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours"])
def test_what_one_debounces_the_other_bounces_and_runs(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    first, second = (ours, incumbent) if direction == "ours-to-incumbent" else (incumbent, ours)
    url = databases.fresh()
    first.call(url, "debounce")
    found = second.call(url, "bounce")["answer"]
    assert list(found) == DEBOUNCED
    assert [result for _, result in found.values()] == [
        "4",
        "4",
        "7",
        "{'sum': 3, 'name': 'é', 'step': 1, 'null': None}",
    ]
    assert len(ids_in(url)) == len(DEBOUNCED) + 1


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours", "ours-to-ours"])
def test_a_queued_workflow_cancelled_by_one_is_resumed_by_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    # Ours notes the queue where the incumbent does not look, and finds the way back only with a note.
    cancelling, _, resuming = direction.partition("-to-")
    sides = {"ours": ours, "incumbent": incumbent}
    url = databases.fresh()
    sides[cancelling].call(url, "enqueue")
    assert sides[resuming].call(url, "resume", "q-cancelled")["answer"] == ["SUCCESS", "13"]
    (row,) = query(url, "SELECT queue_name, priority FROM workflow_status WHERE workflow_uuid = 'q-cancelled'")
    back = {"ours-to-ours": "parts", "ours-to-incumbent": "_dbos_internal_queue", "incumbent-to-ours": None}
    assert row == {"queue_name": back[direction], "priority": 4}


@pytest.mark.parametrize("maker", ["ours", "incumbent"])
def test_both_list_the_same_workflows(databases: Databases, ours: Side, incumbent: Side, maker: str) -> None:
    url = databases.fresh()
    ids = (ours if maker == "ours" else incumbent).call(url, "enqueue")["answer"]
    waiting = ours.call(url, "list")["answer"]
    assert waiting == incumbent.call(url, "list")["answer"]
    ours.call(url, "finish", *ids)
    finished = ours.call(url, "list")["answer"]
    assert finished == incumbent.call(url, "list")["answer"]
    assert finished != waiting
    assert len(finished) > 25
    assert sum(bool(found) for found in finished) > 14


def same_rows(our_url: str, their_url: str, tables: dict[str, str], deliberate: dict[str, Any] | None = None) -> None:
    for table in tables:
        mine, theirs = masked_rows(our_url, table), masked_rows(their_url, table)
        keys = tables[table].split(", ")
        assert [[row[key] for key in keys] for row in mine] == [[row[key] for key in keys] for row in theirs]
        different = [
            {"row": [one[key] for key in keys], column: (one[column], two[column])}
            for one, two in zip(mine, theirs)
            for column in two
            if one[column] != two[column]
        ]
        assert different == (deliberate or {}).get(table, []), table


def test_both_make_the_same_schema(databases: Databases, ours: Side, incumbent: Side) -> None:
    facts = []
    for side in (ours, incumbent):
        url = databases.fresh()
        side.call(url, "read")
        if databases.backend == "sqlite":
            with closing(sqlite3.connect(path_of(url))) as lite:
                facts.append(comparable(read_sqlite(lite)))
        else:
            with psycopg.connect(url) as connection:
                facts.append(comparable(read_postgres(connection)))
    mine, theirs = facts
    for part in theirs:
        assert mine[part] == theirs[part], part


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours"])
def test_workflows_left_by_one_are_finished_by_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    dying, finishing = (ours, incumbent) if direction == "ours-to-incumbent" else (incumbent, ours)
    url, undisturbed = databases.fresh(), databases.fresh()
    expected = finishing.call(undisturbed, "run")["answer"]
    dying.leave(url)
    recorded = recorded_in(url)
    assert {"checkout 1", "checkout 2", "checkout 3", "checkout 4", "checkout 5", "checkout-async 5"} <= recorded
    assert {"checkout 6", "checkout-async 6"}.isdisjoint(recorded)

    finished = finishing.call(url, "finish", *HELD)
    same_outcomes(finished["answer"], {workflow_id: expected[workflow_id] for workflow_id in HELD})
    assert recorded.isdisjoint(finished["executed"]), "a recorded step was executed again"
    ids = ids_in(url)
    rows = [row for row in masked_rows(undisturbed, "operation_outputs") if row["workflow_uuid"] in ids]
    assert masked_rows(url, "operation_outputs") == rows
    assert masked_rows(url, "streams") == masked_rows(undisturbed, "streams")


@pytest.mark.parametrize("maker", ["ours", "incumbent"])
def test_both_read_the_same_from_one_database(databases: Databases, ours: Side, incumbent: Side, maker: str) -> None:
    url = databases.fresh()
    (ours if maker == "ours" else incumbent).call(url, "run")
    ids = ids_in(url)
    mine = ours.call(url, "read", *ids)["answer"]
    theirs = incumbent.call(url, "read", *ids)["answer"]
    assert mine.keys() == theirs.keys()
    same_outcomes(
        {workflow_id: read["outcome"] for workflow_id, read in mine.items()},
        {workflow_id: read["outcome"] for workflow_id, read in theirs.items()},
    )
    for workflow_id in ids:
        one, two = mine[workflow_id], theirs[workflow_id]
        assert same_texts(one["error"], two["error"]), workflow_id
        assert one["status"] == two["status"], workflow_id
        assert one["stream"] == two["stream"], workflow_id
        for step, other in zip(one["steps"], two["steps"], strict=True):
            assert same_texts(step.pop("error"), other.pop("error")), (workflow_id, step["function_id"])
            assert step == other, workflow_id


def test_each_recovers_and_reads_a_database_that_both_have_used(
    databases: Databases, ours: Side, incumbent: Side
) -> None:
    url = databases.fresh()
    expected = incumbent.call(url, "run")["answer"]
    # The ids are in use: each start attaches to the workflow that has it, whoever made it.
    again = ours.call(url, "run")
    same_outcomes(again["answer"], expected)
    assert again["executed"] == []
    same_outcomes(incumbent.call(url, "run")["answer"], expected)
