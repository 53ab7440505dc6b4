"""How a workflow ends, and who gets what (02 section 5)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSException,
    DBOSNonExistentWorkflowError,
)
from tests.helpers import Gate, make_pending, relaunch, rows, status_row, step_rows, wait_for_status, wait_until
from tests.samples import AppError, LockedError, PickyError, Unpicklable

Config = dict[str, Any]


def test_the_caller_of_a_live_execution_gets_the_original_object(app: type[DBOS]) -> None:
    """02 R66: all others a copy, a new one per call."""
    original: list[dict[str, int]] = [{"a": 1}]

    @DBOS.workflow()
    def wf() -> list[dict[str, int]]:
        return original

    assert wf() is original
    handle = DBOS.start_workflow(wf)
    assert handle.get_result() is original
    polling = DBOS.retrieve_workflow(handle.workflow_id)
    first, second = polling.get_result(), polling.get_result()
    assert first == second == original
    assert first is not original
    assert first is not second


def test_the_caller_of_a_live_execution_gets_the_original_exception(app: type[DBOS]) -> None:
    """02 R62, R66."""
    original = AppError("broken", 7)

    @DBOS.workflow()
    def wf() -> None:
        raise original

    with pytest.raises(AppError) as direct:
        wf()
    assert direct.value is original
    handle = DBOS.start_workflow(wf)
    with pytest.raises(AppError) as live:
        handle.get_result()
    assert live.value is original
    with pytest.raises(AppError) as polled:
        DBOS.retrieve_workflow(handle.workflow_id).get_result()
    assert polled.value is not original
    assert polled.value.args == ("broken", 7)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_an_unserializable_result_becomes_the_error_of_the_workflow(
    app: type[DBOS], database_url: str, flavour: str
) -> None:
    """02 R67, with a message naming workflow and type."""

    @DBOS.workflow(name="makes a lock")
    def sync_wf() -> Any:
        return threading.Lock()

    @DBOS.workflow(name="makes a lock too")
    async def async_wf() -> Any:
        return threading.Lock()

    wf = sync_wf if flavour == "sync" else async_wf
    handle = DBOS.start_workflow(wf)
    for asked in (handle, DBOS.retrieve_workflow(handle.workflow_id)):
        with pytest.raises(TypeError, match="makes a lock") as error:
            asked.get_result()
        assert "lock" in str(error.value)
        assert handle.workflow_id in str(error.value)
    assert status_row(database_url, handle.workflow_id)["status"] == "ERROR"


@pytest.mark.parametrize(
    "error", [LockedError("cannot be stored"), PickyError(3, "cannot be read")], ids=["lock", "picky"]
)
def test_an_exception_that_cannot_be_stored_gets_a_stand_in_with_its_class_and_text(
    app: type[DBOS], database_url: str, error: Exception
) -> None:
    """02 R68, R234, R264: also one that pickles but could not be read back. The live caller gets the original."""

    @DBOS.workflow()
    def wf() -> None:
        raise error

    handle = DBOS.start_workflow(wf)
    with pytest.raises(type(error)) as live:
        handle.get_result()
    assert live.value is error
    with pytest.raises(Exception) as stored:
        DBOS.retrieve_workflow(handle.workflow_id).get_result()
    assert type(stored.value) is Exception
    assert str(stored.value) == f"{type(error).__name__}: {error}"
    assert status_row(database_url, handle.workflow_id)["status"] == "ERROR"
    with SetWorkflowID("direct"), pytest.raises(type(error)):
        wf()


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_fatal_exception_is_not_an_outcome(
    app: type[DBOS], config: Config, database_url: str, fatal: type[BaseException]
) -> None:
    """02 R69, R70: the row stays PENDING, the waiting thread gets it, and recovery runs the workflow again."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf() -> str:
        runs.append(1)
        if len(runs) <= 2:
            raise fatal()
        return "survived"

    with SetWorkflowID("direct"), pytest.raises(fatal):
        wf()
    with SetWorkflowID("pool"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(fatal):
        handle.get_result()
    for workflow_id in ("direct", "pool"):
        assert status_row(database_url, workflow_id)["status"] == "PENDING"
        assert rows(database_url, "SELECT * FROM workflow_output WHERE workflow_uuid = %s", workflow_id) == []
    relaunch(config)
    assert DBOS.retrieve_workflow("direct").get_result() == "survived"
    assert DBOS.retrieve_workflow("pool").get_result() == "survived"


def test_a_workflow_that_raises_cancelled_error_stays_pending(app: type[DBOS], database_url: str) -> None:
    """02 R69, R259: no form of CancelledError becomes an outcome."""
    import concurrent.futures

    @DBOS.workflow()
    async def wf() -> None:
        raise asyncio.CancelledError()

    @DBOS.workflow()
    def sync_wf() -> None:
        raise concurrent.futures.CancelledError()

    with SetWorkflowID("async"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(DBOSException):
        handle.get_result()
    assert status_row(database_url, "async")["status"] == "PENDING"
    with SetWorkflowID("sync"), pytest.raises(concurrent.futures.CancelledError):
        sync_wf()
    assert status_row(database_url, "sync")["status"] == "PENDING"


@pytest.mark.parametrize("kind", ["coroutine workflow", "coroutine step"])
def test_destroy_never_turns_running_async_work_into_a_failure(
    app: type[DBOS], config: Config, database_url: str, kind: str
) -> None:
    """02 R232, R259: it is cut off like by a crash, and continues after the next launch."""
    runs: list[int] = []

    async def body() -> str:
        runs.append(1)
        entered.open()
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "continued"

    @DBOS.workflow()
    async def async_wf() -> str:
        return await body()

    @DBOS.workflow()
    def sync_wf() -> str:
        return DBOS.run_step({"name": "body"}, body)

    entered = Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(async_wf if kind == "coroutine workflow" else sync_wf)
    entered.wait()
    DBOS.destroy()
    wait_until(lambda: handle._completion.done)  # type: ignore[attr-defined]
    assert status_row(database_url, "w")["status"] == "PENDING"
    assert step_rows(database_url, "w") == []
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("w").get_result() == "continued"


def test_destroy_on_an_adopted_loop_leaves_async_work_pending(config: Config, database_url: str) -> None:
    """02 R232: the end of the main loop is no outcome either."""

    @DBOS.workflow()
    async def wf() -> str:
        entered.open()
        if not again:
            await asyncio.Event().wait()
        return "continued"

    again: list[int] = []
    entered = Gate()

    async def main() -> None:
        DBOS(config=config)
        DBOS.launch()
        with SetWorkflowID("w"):
            await DBOS.start_workflow_async(wf)
        while not entered.is_open:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert status_row(database_url, "w")["status"] == "PENDING"
    again.append(1)
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == "continued"
    DBOS.destroy(destroy_registry=True)


def test_an_execution_that_lost_its_workflow_discards_its_result_and_delivers_the_recorded_one(
    app: type[DBOS], database_url: str
) -> None:
    """02 R65, R71, R150: parked until somebody else records the outcome."""

    @DBOS.workflow()
    def wf() -> str:
        if not runs:
            runs.append(1)
            entered.open()
            gate.wait()
            return "the stale result"
        return "the owner's result"

    runs: list[int] = []
    entered, gate = Gate(), Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS._recover_pending_workflows(["test"])
    assert wait_for_status(database_url, "w", "SUCCESS") == "SUCCESS"
    gate.open()
    assert handle.get_result() == "the owner's result"


def test_a_step_of_an_execution_that_lost_its_workflow_is_not_recorded(app: type[DBOS], database_url: str) -> None:
    """02 R77, R150."""

    @DBOS.step()
    def step() -> str:
        if not runs:
            runs.append(1)
            entered.open()
            gate.wait()
            return "stale"
        return "fresh"

    @DBOS.workflow()
    def wf() -> str:
        first = step()
        after.append(first)
        return first

    runs: list[int] = []
    after: list[str] = []
    entered, gate = Gate(), Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS._recover_pending_workflows(["test"])
    wait_for_status(database_url, "w", "SUCCESS")
    gate.open()
    assert handle.get_result() == "fresh"
    assert after == ["fresh"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("CANCELLED", DBOSAwaitedWorkflowCancelledError),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded),
        (None, DBOSNonExistentWorkflowError),
    ],
)
async def test_a_parked_direct_call_says_what_became_of_the_workflow(
    app: type[DBOS], database_url: str, status: str | None, error: type[DBOSException]
) -> None:
    """02 R71: also when the row has vanished."""

    @DBOS.workflow()
    async def wf() -> str:
        if status is None:
            rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = 'w'")
        else:
            sql = "UPDATE workflow_status SET status = %s, owner_xid = NULL WHERE workflow_uuid = 'w'"
            rows(database_url, sql, status)
        return "too late"

    with SetWorkflowID("w"), pytest.raises(error):
        await wf()


def test_an_error_workflow_is_never_recovered(app: type[DBOS], config: Config) -> None:
    """02 R62."""
    runs: list[int] = []

    @DBOS.workflow()
    def wf() -> None:
        runs.append(1)
        raise AppError("final")

    with SetWorkflowID("w"), pytest.raises(AppError):
        wf()
    relaunch(config)
    with pytest.raises(AppError):
        DBOS.retrieve_workflow("w").get_result()
    assert runs == [1]


def test_a_workflow_that_is_dispatched_too_often_is_given_up(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R161, R162, R163: max_recovery_attempts + 1 executions per budget, and a resume gives a new one."""
    runs: list[int] = []

    @DBOS.workflow(max_recovery_attempts=1)
    def wf() -> int:
        runs.append(1)
        return len(runs)

    with SetWorkflowID("w"):
        wf()
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == 2
    assert status_row(database_url, "w")["recovery_attempts"] == 2
    make_pending(database_url, "w")
    relaunch(config)
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        DBOS.retrieve_workflow("w").get_result()
    row = status_row(database_url, "w")
    assert (row["status"], row["owner_xid"], row["queue_name"]) == ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, None)
    assert row["completed_at"] is not None
    assert runs == [1, 1]
    assert DBOS.resume_workflow("w").get_result() == 3
    assert status_row(database_url, "w")["recovery_attempts"] == 1


def test_an_unserializable_object_inside_a_result_is_found_too(app: type[DBOS], database_url: str) -> None:
    """02 R67."""

    @DBOS.workflow()
    def wf() -> Any:
        return {"deep": [Unpicklable()]}

    with SetWorkflowID("w"), pytest.raises(TypeError, match="refuses to be pickled"):
        wf()
    assert status_row(database_url, "w")["status"] == "ERROR"


def test_a_text_the_database_cannot_hold_is_no_reason_to_hang(app: type[DBOS], database_url: str) -> None:
    """02 R264: the outcome is always recorded, whatever characters are in it."""

    @DBOS.workflow()
    def wf() -> str:
        raise AppError("a\0b \udcff")

    with SetWorkflowID("w"), pytest.raises(AppError):
        wf()
    assert status_row(database_url, "w")["status"] == "ERROR"
