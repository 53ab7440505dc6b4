"""Delays, and timeouts of workflows that wait (03 section 4.7)."""

from __future__ import annotations

import time

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowTimeout
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSQueueDeduplicatedError
from tests.helpers import NOWHERE, Gate, declare_echo, status_row, wait_for_status

# --- delays


def test_a_delayed_workflow_starts_when_it_is_due(app: type[DBOS], database_url: str) -> None:
    """03 R34, R56, R99."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    began = time.time()
    with SetEnqueueOptions(delay_seconds=0.3, deduplication_id="d"):
        handle = DBOS.enqueue_workflow("mail", echo, 1)
        assert handle.get_status().status == "DELAYED"
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", echo, 1)
    assert handle.get_result() == 1
    row = status_row(database_url, handle.workflow_id)
    assert row["started_at_epoch_ms"] >= row["delay_until_epoch_ms"] >= int((began + 0.3) * 1000) - 1
    assert row["deduplication_id"] is None


@pytest.mark.parametrize("delay_seconds", [0, -5])
def test_a_delay_of_nothing_is_due_at_once(app: type[DBOS], delay_seconds: float) -> None:
    """03 section 4.2."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "echo", "queue_name": "mail", "delay_seconds": delay_seconds}, 3
    )
    assert handle.get_result() == 3
    assert echo


def test_the_delay_counts_from_when_the_options_are_made(app: type[DBOS], database_url: str) -> None:
    """03 R34."""
    echo = declare_echo()
    options = SetEnqueueOptions(delay_seconds=3600)
    until = int((time.time() + 3600) * 1000)
    handles = []
    for _ in range(2):
        with options:
            handles.append(DBOS.enqueue_workflow(NOWHERE, echo))
    first, second = (status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"] for handle in handles)
    assert first == second <= until + 1


# --- timeouts


def test_time_in_the_queue_does_not_count_against_the_timeout(app: type[DBOS], database_url: str) -> None:
    """03 R57, R92."""
    echo = declare_echo()
    queue = DBOS.register_queue("mail", global_concurrency=0)
    with SetWorkflowTimeout(30):
        handle = DBOS.enqueue_workflow("mail", echo)
    assert status_row(database_url, handle.workflow_id)["workflow_deadline_epoch_ms"] is None
    queue.set_global_concurrency(1)
    handle.get_result()
    row = status_row(database_url, handle.workflow_id)
    assert abs(row["workflow_deadline_epoch_ms"] - row["started_at_epoch_ms"] - 30_000) < 1000


def test_a_deadline_is_inherited_unless_a_timeout_is_given(app: type[DBOS], database_url: str) -> None:
    """03 R58, R100: it cancels a workflow that never ran."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        inherited = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        with SetWorkflowTimeout(5):
            own = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        with SetWorkflowTimeout(None):
            none = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        return [inherited, own, none]

    with SetWorkflowTimeout(1.0):
        inherited, own, none = parent()
    assert status_row(database_url, own)["workflow_deadline_epoch_ms"] is None
    row = status_row(database_url, none)
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (None, None)
    wait_for_status(database_url, inherited, "CANCELLED")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        DBOS.retrieve_workflow(inherited).get_result()
    assert status_row(database_url, own)["status"] == "ENQUEUED"


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_timeout_of_nothing_ends_the_workflow_as_it_starts(
    app: type[DBOS], database_url: str, seconds: float
) -> None:
    """03 R59: for an enqueue by name; around one by function SetWorkflowTimeout refuses it (see differences.md)."""
    gate = Gate()

    @DBOS.workflow(name="slow")
    def slow() -> None:
        gate.wait()
        DBOS.sleep(60)

    DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "slow", "queue_name": "mail", "workflow_timeout": seconds}
    )
    wait_for_status(database_url, handle.workflow_id, "CANCELLED")
    gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
