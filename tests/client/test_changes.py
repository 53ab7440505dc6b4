"""Forking, rewinding and deleting workflows, and their attributes, through a client (04 R504, R530; 05 section 11)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError, DBOSWorkflowIDInUseError
from tests.helpers import rows, status_row, step_names

executed: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_executed() -> None:
    executed.clear()


def run_counting(workflow_id: str = "w") -> None:
    @DBOS.step(name="count")
    def count(number: int) -> int:
        executed.append(number)
        return number

    @DBOS.workflow(name="counting")
    def counting() -> int:
        return sum(count(number) for number in (1, 2, 3))

    with SetWorkflowID(workflow_id):
        counting()


def test_a_fork_runs_from_the_step_on(client: DBOSClient, database_url: str) -> None:
    run_counting()
    handle = client.fork_workflow("w", 3)
    assert handle.get_result() == 6
    assert executed == [1, 2, 3, 3]
    fork = status_row(database_url, handle.workflow_id)
    assert (fork["forked_from"], fork["application_name"]) == ("w", "test-app")
    assert status_row(database_url, "w")["was_forked_from"]


async def test_a_fork_from_async_code_takes_the_id_of_its_block(client: DBOSClient) -> None:
    """04 R504: the one thing around the call that counts; a second fork needs another one."""
    run_counting()
    with SetWorkflowID("chosen"):
        handle = await client.fork_workflow_async("w", 1)
    assert handle.workflow_id == "chosen"
    assert await handle.get_result() == 6
    with SetWorkflowID("chosen"), pytest.raises(DBOSWorkflowIDInUseError):
        client.fork_workflow("w", 1)


def test_calls_in_workflow_code_are_not_recorded(client: DBOSClient, database_url: str) -> None:
    """04 R504."""
    run_counting()

    @DBOS.workflow()
    def managing() -> None:
        client.fork_workflow("w", 4)
        client.update_workflow_attributes("w", {"a": 1})
        client.delete_workflow("w")

    with SetWorkflowID("m"):
        managing()
    assert step_names(database_url, "m") == {}
    assert rows(database_url, "SELECT 1 FROM workflow_status WHERE workflow_uuid = 'w'") == []


def test_a_rewind_runs_again_from_the_step_on(client: DBOSClient) -> None:
    run_counting()
    assert client.rewind_workflow("w", start_step=2).get_result() == 6
    assert executed == [1, 2, 3, 2, 3]


async def test_a_rewind_from_async_code_begins_at_the_first_step(client: DBOSClient) -> None:
    run_counting()
    handle = await client.rewind_workflow_async("w")
    assert await handle.get_result() == 6
    assert executed == [1, 2, 3] * 2


def test_what_cannot_be_rewound_or_forked(client: DBOSClient) -> None:
    """04 R530."""
    DBOS.register_queue("paused", global_concurrency=0)
    client.enqueue({"workflow_name": "anything", "queue_name": "paused", "workflow_id": "active"})
    with pytest.raises(DBOSException, match="active"):
        client.rewind_workflow("active")
    with pytest.raises(ValueError, match="from 1 on"):
        client.rewind_workflow("active", start_step=0)
    for call in (lambda: client.rewind_workflow("nobody"), lambda: client.fork_workflow("nobody", 1)):
        with pytest.raises(DBOSNonExistentWorkflowError):
            call()
    with pytest.raises(Exception, match="timeout"):
        client.fork_workflow("active", 1, timeout_seconds=0)


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_deleting_one_or_many(client: DBOSClient, database_url: str, flavour: str) -> None:
    """05 R94: unknown ids are ignored."""
    for name in ("a", "b", "c"):
        run_counting(name)
    if flavour == "sync":
        client.delete_workflow("a")
        client.delete_workflows(["b", "unknown"], delete_children=True)
    else:
        await client.delete_workflow_async("a")
        await client.delete_workflows_async(["b", "unknown"], delete_children=True)
    left: list[dict[str, Any]] = rows(database_url, "SELECT workflow_uuid FROM workflow_status")
    assert [row["workflow_uuid"] for row in left] == ["c"]


async def test_attributes_are_replaced_or_merged(client: DBOSClient) -> None:
    """05 R97."""
    run_counting()
    client.update_workflow_attributes("w", {"a": 1, "b": {"c": 2}})
    await client.update_workflow_attributes_async("w", {"b": 3}, merge=True)
    assert client.retrieve_workflow("w").get_status().attributes == {"a": 1, "b": 3}
    client.update_workflow_attributes("w", None)
    assert client.retrieve_workflow("w").get_status().attributes is None
    with pytest.raises(DBOSException, match="None with merge"):
        client.update_workflow_attributes("w", None, merge=True)
    client.update_workflow_attributes("unknown", {"a": 1})
