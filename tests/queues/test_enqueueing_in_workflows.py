"""Enqueueing in workflow code: steps and replays (03 sections 4.4 and 4.8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSQueueDeduplicatedError,
    DBOSUnexpectedStepError,
    DBOSWorkflowFunctionNotFoundError,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import NOWHERE, Gate, declare_echo, replay, rows, status_row, step_rows, wait_for_status

Config = dict[str, Any]


def test_an_enqueue_in_a_workflow_is_recorded_as_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R42, R44."""
    echo = declare_echo()
    DBOS.register_queue("mail")

    @DBOS.workflow()
    def parent() -> list[str]:
        first = DBOS.enqueue_workflow("mail", echo, 1)
        second = DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": "mail"}, 2)
        return [first.workflow_id, second.workflow_id]

    with SetWorkflowID("p"):
        assert parent() == ["p-1", "p-2"]
    assert [
        (row["function_id"], row["function_name"], row["child_workflow_id"]) for row in step_rows(database_url, "p")
    ] == [
        (1, "echo", "p-1"),
        (2, "echo", "p-2"),
    ]
    assert status_row(database_url, "p-1")["parent_workflow_id"] == "p"
    wait_for_status(database_url, "p-1", "SUCCESS")
    wait_for_status(database_url, "p-2", "SUCCESS")
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid IN ('p-1', 'p-2')")
    assert replay(config, "p") == ["p-1", "p-2"]
    assert rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = 'p-1'") == []


async def test_gathered_enqueues_are_numbered_in_argument_order(config: Config, database_url: str) -> None:
    """03 R43."""
    DBOS(config=config)
    echo = declare_echo()

    @DBOS.workflow()
    async def parent() -> list[str]:
        handles = await asyncio.gather(*[DBOS.enqueue_workflow_async(NOWHERE, echo, number) for number in range(20)])
        return [handle.workflow_id for handle in handles]

    DBOS.launch()
    with SetWorkflowID("p"):
        assert await parent() == [f"p-{number}" for number in range(1, 21)]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_enqueueing_from_a_step_is_a_clear_error(app: type[DBOS], database_url: str) -> None:
    """03 section 4.8; section 15, 16."""
    echo = declare_echo()

    @DBOS.step()
    def step() -> str:
        try:
            DBOS.enqueue_workflow(NOWHERE, echo)
        except AssertionError as error:
            return str(error)
        return "no error"

    @DBOS.workflow()
    def parent() -> str:
        return step()

    assert "from a step" in parent()
    assert len(rows(database_url, "SELECT * FROM workflow_status")) == 1


def test_children_do_not_inherit_enqueue_options(app: type[DBOS], database_url: str) -> None:
    """03 R31."""
    echo = declare_echo()
    DBOS.register_queue("mail")

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetEnqueueOptions(priority=5):
        handle = DBOS.enqueue_workflow("mail", parent)
    assert status_row(database_url, handle.get_result())["priority"] == 0


def test_an_enqueue_that_is_refused_takes_no_step_id(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R43."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        for options in (
            {"duplication_policy": "return-existing"},
            {"deduplication_id": "d", "queue_partition_key": "p"},
        ):
            with SetEnqueueOptions(**options), pytest.raises(DBOSException):  # type: ignore[arg-type]
                DBOS.enqueue_workflow(NOWHERE, echo)
        with pytest.raises(DBOSWorkflowFunctionNotFoundError):
            DBOS.enqueue_workflow(NOWHERE, len, "x")
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        assert parent() == "p-1"
    assert replay(config, "p") == "p-1"


def test_another_function_at_a_recorded_enqueue_is_refused(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R44."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        parent()
    rows(database_url, "UPDATE operation_outputs SET function_name = 'another'")
    with pytest.raises(DBOSUnexpectedStepError, match="another"):
        replay(config, "p")


def test_a_refused_id_is_recorded_and_replayed_but_not_a_conflict(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R45, R48, R49."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None:
        pass

    @DBOS.workflow()
    def parent() -> list[str]:
        seen = []
        with SetWorkflowID("w", workflow_id_reuse_policy="reject"):
            try:
                DBOS.enqueue_workflow(NOWHERE, echo)
            except DBOSWorkflowIDInUseError as error:
                seen.append(error.workflow_status)
        with SetWorkflowID("w"):
            try:
                DBOS.enqueue_workflow(NOWHERE, other)
            except DBOSConflictingWorkflowError:
                seen.append("conflict")
        return seen

    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == ["ENQUEUED", "conflict"]
    (step,) = step_rows(database_url, "p")
    assert step["error"] is not None
    DBOS.cancel_workflow("w")
    assert replay(config, "p") == ["ENQUEUED", "conflict"]


def test_a_refused_deduplication_is_recorded_and_replayed(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R45: also when the id has been released meanwhile."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        with SetEnqueueOptions(deduplication_id="d"):
            try:
                return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
            except DBOSQueueDeduplicatedError as error:
                return f"refused {error.workflow_id}"

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == "refused p-1"
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == "refused p-1"


def test_the_holder_is_recorded_as_the_child(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R53."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
            return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == holder.workflow_id
    (step,) = step_rows(database_url, "p")
    assert (step["function_name"], step["child_workflow_id"], step["output"]) == ("echo", holder.workflow_id, None)
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == holder.workflow_id


def test_an_enqueue_by_an_execution_that_lost_its_workflow_writes_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R46."""
    echo = declare_echo()
    taken, go_on = Gate(), Gate()

    @DBOS.workflow()
    def parent() -> str:
        taken.open()
        go_on.wait()
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    taken.wait()
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL")
    go_on.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert [row["workflow_uuid"] for row in rows(database_url, "SELECT workflow_uuid FROM workflow_status")] == ["p"]
