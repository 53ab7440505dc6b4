"""Workflow ids that are in use, and deduplication ids (03 sections 4.5 and 4.6)."""

from __future__ import annotations

import pytest

from dbos import DBOS, EnqueueOptions, SetEnqueueOptions, SetWorkflowID
from dbos.error import DBOSConflictingWorkflowError, DBOSQueueDeduplicatedError, DBOSWorkflowIDInUseError
from tests.helpers import NOWHERE, Gate, declare_echo, rows, status_row, wait_for_status

# --- ids in use


def test_an_id_in_use_gives_the_existing_workflow(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R47: the new arguments are dropped, the row stays on its queue."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    with SetWorkflowID("w"):
        assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    with SetWorkflowID("w"):
        assert DBOS.enqueue_workflow("other", echo, 2).get_result() == 1
    assert "keeps its own" in caplog.text
    assert status_row(database_url, "w")["queue_name"] == "mail"


def test_an_id_of_another_function_is_refused(app: type[DBOS]) -> None:
    """03 R48."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None: ...

    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    with SetWorkflowID("w"), pytest.raises(DBOSConflictingWorkflowError):
        DBOS.enqueue_workflow(NOWHERE, other)


def test_an_id_in_use_is_refused_on_demand(app: type[DBOS]) -> None:
    """03 R49."""
    echo = declare_echo()
    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    with SetWorkflowID("w", workflow_id_reuse_policy="reject"), pytest.raises(DBOSWorkflowIDInUseError) as caught:
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    assert (caught.value.workflow_id, caught.value.workflow_status) == ("w", "ENQUEUED")
    options: EnqueueOptions = {
        "workflow_name": "echo",
        "queue_name": NOWHERE,
        "workflow_id": "w",
        "workflow_id_reuse_policy": "reject",
    }
    with pytest.raises(DBOSWorkflowIDInUseError):
        DBOS.enqueue_workflow_with_options(options, 1)


# --- deduplication


def test_a_deduplication_id_is_held_until_the_workflow_ends(app: type[DBOS], database_url: str) -> None:
    """03 R51, R52, R54."""
    gate = Gate()

    @DBOS.workflow()
    def work() -> str:
        gate.wait()
        return "done"

    DBOS.register_queue("mail")
    with SetEnqueueOptions(deduplication_id="d"):
        first = DBOS.enqueue_workflow("mail", work)
        with SetWorkflowID("refused"), pytest.raises(DBOSQueueDeduplicatedError) as caught:
            DBOS.enqueue_workflow("mail", work)
        wait_for_status(database_url, first.workflow_id, "PENDING")
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", work)
        elsewhere = DBOS.enqueue_workflow(NOWHERE, work)
    error = caught.value
    assert (error.workflow_id, error.queue_name, error.deduplication_id) == ("refused", "mail", "d")
    assert rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = 'refused'") == []
    assert rows(database_url, "SELECT * FROM workflow_input WHERE workflow_uuid = 'refused'") == []
    assert status_row(database_url, elsewhere.workflow_id)["status"] == "ENQUEUED"
    gate.open()
    assert first.get_result() == "done"
    assert status_row(database_url, first.workflow_id)["deduplication_id"] is None
    with SetEnqueueOptions(deduplication_id="d"):
        assert DBOS.enqueue_workflow("mail", work).get_result() == "done"


def test_cancelling_gives_the_deduplication_id_back(app: type[DBOS]) -> None:
    """03 R52."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        first = DBOS.enqueue_workflow(NOWHERE, echo)
        DBOS.cancel_workflow(first.workflow_id)
        assert DBOS.enqueue_workflow(NOWHERE, echo).workflow_id != first.workflow_id


def test_return_existing_gives_the_holder(app: type[DBOS]) -> None:
    """03 R53."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
        first = DBOS.enqueue_workflow(NOWHERE, echo, 1)
        assert DBOS.enqueue_workflow(NOWHERE, echo, 2).workflow_id == first.workflow_id


def test_the_holder_of_a_deduplication_id_may_be_another_function(app: type[DBOS]) -> None:
    """03 R53."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None:
        pass

    with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
        holder = DBOS.enqueue_workflow(NOWHERE, other)
        assert DBOS.enqueue_workflow(NOWHERE, echo, 1).workflow_id == holder.workflow_id


def test_the_id_is_examined_before_the_deduplication_id(app: type[DBOS]) -> None:
    """03 R50."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        for _ in range(2):
            with SetWorkflowID("w"):
                assert DBOS.enqueue_workflow(NOWHERE, echo, 1).workflow_id == "w"


def test_an_empty_key_beside_a_deduplication_id_is_accepted(app: type[DBOS], database_url: str) -> None:
    """03 R37: the check ignores empty texts."""
    echo = declare_echo()
    with SetEnqueueOptions(queue_partition_key="", deduplication_id="d"):
        handle = DBOS.enqueue_workflow(NOWHERE, echo)
    row = status_row(database_url, handle.workflow_id)
    assert (row["queue_partition_key"], row["deduplication_id"]) == ("", "d")
