"""Starting a workflow with an id that exists (02 section 3.4)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, SetWorkflowTimeout
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import Gate, rows, status_row


def count(database_url: str) -> int:
    return int(rows(database_url, "SELECT COUNT(*) AS n FROM workflow_status")[0]["n"])


def test_a_second_start_ignores_its_arguments_and_changes_nothing(app: type[DBOS], database_url: str) -> None:
    """02 R37, R40, R41."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf(value: int) -> int:
        runs.append(value)
        return value

    with SetWorkflowID("id"):
        assert wf(1) == 1
    before = status_row(database_url, "id")
    with SetWorkflowID("id"), SetWorkflowTimeout(5), SetWorkflowAttributes({"a": 1}):
        assert wf(2) == 1
    with SetWorkflowID("id"):
        handle = DBOS.start_workflow(wf, 3)
    assert handle.workflow_id == "id"
    assert handle.get_result() == 1
    assert runs == [1]
    assert status_row(database_url, "id") == before


def test_an_id_of_another_function_conflicts(app: type[DBOS]) -> None:
    """02 R38: code 9, telling the recorded and the given name."""

    @DBOS.workflow(name="first")
    def first() -> None: ...

    @DBOS.workflow(name="second")
    def second() -> None: ...

    with SetWorkflowID("id"):
        first()
    for call in (second, lambda: DBOS.start_workflow(second)):
        with SetWorkflowID("id"), pytest.raises(DBOSConflictingWorkflowError) as conflict:
            call()
        assert conflict.value.dbos_error_code == 9
        assert "first" in str(conflict.value)
        assert "second" in str(conflict.value)


def test_a_direct_call_with_the_id_of_a_failed_workflow_raises_its_error(app: type[DBOS]) -> None:
    """02 R41: it never runs a terminal workflow again."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf() -> None:
        runs.append(1)
        raise KeyError("the recorded one")

    for _ in range(2):
        with SetWorkflowID("id"), pytest.raises(KeyError, match="the recorded one"):
            wf()
    assert runs == [1]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("CANCELLED", DBOSAwaitedWorkflowCancelledError),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded),
    ],
)
def test_a_direct_call_with_the_id_of_a_stopped_workflow_says_so(
    app: type[DBOS], database_url: str, status: str, error: type[DBOSException]
) -> None:
    """02 R41, R163."""

    @DBOS.workflow()
    def wf() -> None: ...

    with SetWorkflowID("id"):
        wf()
    rows(database_url, "UPDATE workflow_status SET status = %s WHERE workflow_uuid = 'id'", status)
    with SetWorkflowID("id"), pytest.raises(error) as raised:
        wf()
    assert raised.value.workflow_id == "id"  # type: ignore[attr-defined]


def test_a_direct_call_waits_for_the_execution_that_has_the_id(app: type[DBOS]) -> None:
    """02 R41: it never runs a body next to an existing execution."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf() -> int:
        runs.append(1)
        entered.open()
        gate.wait()
        return len(runs)

    gate, entered = Gate(), Gate()
    with SetWorkflowID("id"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    results: list[int] = []

    def attach() -> None:
        with SetWorkflowID("id"):
            results.append(wf())

    thread = threading.Thread(target=attach)
    thread.start()
    gate.open()
    thread.join(60)
    assert results == [1]
    assert handle.get_result() == 1


def test_of_many_simultaneous_starts_of_one_id_exactly_one_executes(app: type[DBOS]) -> None:
    """02 R42."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf() -> int:
        runs.append(1)
        return 42

    barrier = threading.Barrier(8)
    results: list[int] = []

    def start() -> None:
        barrier.wait()
        with SetWorkflowID("one"):
            results.append(DBOS.start_workflow(wf).get_result())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [42] * 8
    assert runs == [1]


async def test_of_many_simultaneous_awaited_starts_of_one_id_exactly_one_executes(app: type[DBOS]) -> None:
    """02 R42, in one batch of the journal."""
    runs: list[int] = []

    @DBOS.workflow()
    async def wf() -> int:
        runs.append(1)
        await asyncio.sleep(0)
        return 42

    async def start() -> int:
        with SetWorkflowID("one"):
            return await wf()

    assert await asyncio.gather(*[start() for _ in range(8)]) == [42] * 8
    assert runs == [1]


# --- reuse policy


@pytest.mark.parametrize("policy", ["other", "", 1])
def test_a_bad_reuse_policy_is_refused_at_construction(policy: Any) -> None:
    """02 R43."""
    with pytest.raises(DBOSException):
        SetWorkflowID("id", workflow_id_reuse_policy=policy)


def test_reject_raises_for_an_id_in_use_in_any_status(app: type[DBOS], database_url: str) -> None:
    """02 R44: before the comparison of names, for direct calls and background starts, and it writes nothing."""

    @DBOS.workflow(name="first")
    def first() -> None: ...

    @DBOS.workflow(name="second")
    def second() -> None: ...

    with SetWorkflowID("id", workflow_id_reuse_policy="reject"):
        first()
    before = status_row(database_url, "id")
    for call in (first, second, lambda: DBOS.start_workflow(first)):
        with SetWorkflowID("id", workflow_id_reuse_policy="reject"), pytest.raises(DBOSWorkflowIDInUseError) as used:
            call()
        error = used.value
        assert error.dbos_error_code == 27
        assert (error.workflow_id, error.workflow_status, error.workflow_name) == ("id", "SUCCESS", "first")
    assert status_row(database_url, "id") == before
    assert count(database_url) == 1


def test_the_policy_is_consumed_with_the_id(app: type[DBOS]) -> None:
    """02 R45."""

    @DBOS.workflow()
    def wf() -> str | None:
        return DBOS.workflow_id

    with SetWorkflowID("id", workflow_id_reuse_policy="reject"):
        assert wf() == "id"
        assert wf() != "id"
