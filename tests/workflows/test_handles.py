"""Handles, retrieving and waiting (02 sections 11, 12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowHandle, WorkflowHandleAsync, WorkflowStatus
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSResultTimeoutError,
)
from tests.helpers import Gate, replay, rows, step_names, step_rows
from tests.samples import AppError, LockedError

Config = dict[str, Any]


def test_handles_are_protocols_and_not_for_isinstance(app: type[DBOS]) -> None:
    """02 R131."""

    @DBOS.workflow()
    def wf() -> None: ...

    handle = DBOS.start_workflow(wf)
    assert handle.get_workflow_id() == handle.workflow_id
    assert handle.shard_key is None
    for protocol in (WorkflowHandle, WorkflowHandleAsync):
        with pytest.raises(TypeError):
            isinstance(handle, protocol)
    handle.get_result()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("CANCELLED", DBOSAwaitedWorkflowCancelledError),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded),
    ],
)
async def test_a_polling_handle_raises_for_a_stopped_workflow(
    app: type[DBOS], database_url: str, status: str, error: type[Exception]
) -> None:
    """05 R80, 02 R134."""

    @DBOS.workflow()
    async def wf() -> None: ...

    with SetWorkflowID("w"):
        await wf()
    rows(database_url, "UPDATE workflow_status SET status = %s", status)
    handle = await DBOS.retrieve_workflow_async("w")
    with pytest.raises(error) as raised:
        await handle.get_result()
    assert raised.value.workflow_id == "w"  # type: ignore[attr-defined]
    with pytest.raises(error):
        await DBOS.get_result_async("w")


def test_a_polling_handle_waits_for_a_row_that_does_not_exist_yet(app: type[DBOS]) -> None:
    """05 R80, 02 R134: a missing row is waited for."""

    @DBOS.workflow()
    def wf() -> int:
        return 5

    @DBOS.workflow()
    def waiter() -> int:
        handle = DBOS.retrieve_workflow("later", existing_workflow=False)
        waiting.open()
        return handle.get_result()

    waiting = Gate()
    handle = DBOS.start_workflow(waiter)
    waiting.wait()
    with SetWorkflowID("later"):
        DBOS.start_workflow(wf)
    assert handle.get_result() == 5


def test_an_outcome_that_cannot_be_read_raises_the_serializers_error(app: type[DBOS], database_url: str) -> None:
    """02 R134, 04 R626."""

    @DBOS.workflow()
    def wf() -> int:
        return 5

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE workflow_output SET output = 'not a pickle'")
    with pytest.raises(Exception) as raised:
        DBOS.retrieve_workflow("w").get_result()
    assert not isinstance(raised.value, AssertionError)
    assert DBOS.retrieve_workflow("w").get_status().output == "not a pickle"


def test_get_result_of_an_error_that_does_not_pickle_raises_that_error_in_plain_code(app: type[DBOS]) -> None:
    """02 R234, in place of R137: nothing is recorded in plain code, so nothing has to be serialized."""

    @DBOS.workflow()
    def wf() -> None:
        raise LockedError("the original")

    with pytest.raises(LockedError, match="the original"):
        DBOS.start_workflow(wf).get_result()


def test_get_result_twice_records_two_rows(app: type[DBOS], database_url: str) -> None:
    """02 R136, R139."""

    @DBOS.workflow()
    def child() -> int:
        return 5

    @DBOS.workflow()
    def parent() -> int:
        handle = DBOS.start_workflow(child)
        return handle.get_result() + handle.get_result()

    with SetWorkflowID("p"):
        assert parent() == 10
    assert step_names(database_url, "p") == {1: child.__qualname__, 2: "DBOS.getResult", 3: "DBOS.getResult"}


async def test_the_id_of_get_result_is_drawn_at_the_call(app: type[DBOS], database_url: str) -> None:
    """02 R262, in place of R92, R136, R236: completion order does not matter."""

    @DBOS.step(name="s")
    async def step() -> None:
        go.set()

    @DBOS.workflow()
    async def child() -> int:
        await go.wait()
        return 5

    @DBOS.workflow()
    async def parent() -> int:
        handle = await DBOS.start_workflow_async(child)
        result, _ = await asyncio.gather(handle.get_result(), step())
        status, _ = await asyncio.gather(handle.get_status(), step())
        assert status.status == "SUCCESS"
        return result

    go = asyncio.Event()
    with SetWorkflowID("p"):
        assert await parent() == 5
    names = step_names(database_url, "p")
    assert [names[i] for i in range(2, 6)] == ["DBOS.getResult", "s", "DBOS.getStatus", "s"]


def test_a_getresult_row_of_an_older_history_at_another_position_is_kept(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R97: information only; a row of another name or workflow at its position is left alone."""

    @DBOS.workflow()
    def child(value: int) -> int:
        return value

    @DBOS.workflow()
    def parent() -> list[int]:
        first, second = DBOS.start_workflow(child, 1), DBOS.start_workflow(child, 2)
        return [first.get_result(), second.get_result()]

    with SetWorkflowID("p"):
        parent()
    # As if the second had been awaited first.
    sql = "UPDATE operation_outputs SET function_id = %s WHERE workflow_uuid = 'p' AND function_id = %s"
    for new, old in ((99, 3), (3, 4), (4, 99)):
        rows(database_url, sql, new, old)
    recorded = step_rows(database_url, "p")
    assert replay(config, "p") == [1, 2]
    assert step_rows(database_url, "p") == recorded


def test_get_result_in_a_step_records_nothing(app: type[DBOS], database_url: str) -> None:
    """02 R86, R136."""

    @DBOS.workflow()
    def child() -> int:
        return 5

    @DBOS.workflow()
    def parent() -> Any:
        handle = DBOS.start_workflow(child)

        def step() -> Any:
            status = DBOS.get_workflow_status(handle.workflow_id)
            assert status is not None
            return handle.get_result(), DBOS.get_result(handle.workflow_id), handle.get_status().status, status.name

        return DBOS.run_step({"name": "s"}, step)

    with SetWorkflowID("p"):
        assert parent() == (5, 5, "SUCCESS", child.__qualname__)
    assert step_names(database_url, "p") == {1: child.__qualname__, 2: "s"}


def test_the_status_of_a_workflow_is_recorded_and_read_back(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67, 02 R138, 04 R605."""

    @DBOS.workflow()
    def child(value: int) -> int:
        return value

    @DBOS.workflow()
    def parent() -> list[str]:
        handle = DBOS.start_workflow(child, 3)
        handle.get_result()
        status, again = handle.get_status(), DBOS.get_workflow_status(handle.workflow_id)
        assert isinstance(status, WorkflowStatus)
        assert again is not None
        assert status.input == {"args": (3,), "kwargs": {}}
        return [status.status, again.status, str(again.output)]

    with SetWorkflowID("p"):
        assert parent() == ["SUCCESS", "SUCCESS", "3"]
    assert list(step_names(database_url, "p").values())[2:] == ["DBOS.getStatus", "DBOS.getStatus"]
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'p-1'")
    assert replay(config, "p") == ["SUCCESS", "SUCCESS", "3"]


def test_a_missing_workflow_is_recorded_as_none_and_raised_from_it_on_replay(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R68, R79, 02 R94, R138."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    @DBOS.workflow()
    def parent() -> list[str]:
        found = []
        assert DBOS.get_workflow_status("absent") is None
        for look in (
            lambda: DBOS.retrieve_workflow("absent"),
            lambda: DBOS.retrieve_workflow("absent", existing_workflow=False).get_status(),
        ):
            try:
                look()
            except DBOSNonExistentWorkflowError as error:
                found.append(f"{error.destination} {error.destination_id} {error.dbos_error_code}")
        return found

    with SetWorkflowID("p"):
        assert parent() == ["target absent 5"] * 2
    names = step_names(database_url, "p")
    assert names == {1: "DBOS.getStatus", 2: "DBOS.getStatus", 3: "DBOS.getStatus"}
    assert all(row["error"] is None and row["output"] for row in step_rows(database_url, "p"))
    with SetWorkflowID("absent"):
        wf()
    assert replay(config, "p") == ["target absent 5"] * 2


def test_retrieve_without_looking_draws_no_id(app: type[DBOS], database_url: str) -> None:
    """05 R67, 02 R89."""

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.retrieve_workflow("x", existing_workflow=False).workflow_id

    with SetWorkflowID("p"):
        assert parent() == "x"
    assert step_rows(database_url, "p") == []


def test_dbos_get_result_is_one_step_and_read_back(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67, 02 R143: value and error; child_workflow_id stays NULL."""

    @DBOS.workflow()
    def works() -> int:
        return 7

    @DBOS.workflow()
    def fails() -> None:
        raise AppError("failed")

    @DBOS.workflow()
    def parent() -> list[Any]:
        try:
            DBOS.get_result("fails")
        except AppError as error:
            return [DBOS.get_result("works"), str(error)]
        return []

    with SetWorkflowID("works"):
        works()
    with SetWorkflowID("fails"), pytest.raises(AppError):
        fails()
    with SetWorkflowID("p"):
        assert parent() == [7, "failed"]
    recorded = step_rows(database_url, "p")
    assert [row["function_name"] for row in recorded] == ["DBOS.getResult"] * 2
    assert [row["child_workflow_id"] for row in recorded] == [None, None]
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid IN ('works', 'fails')")
    assert replay(config, "p") == [7, "failed"]


# --- wait_first


def test_wait_first_needs_handles_of_different_workflows(app: type[DBOS], database_url: str) -> None:
    """05 R80, 02 R141: refused before any id is drawn."""

    @DBOS.workflow()
    def parent() -> None:
        handle: WorkflowHandle[Any] = DBOS.retrieve_workflow("x", existing_workflow=False)
        for handles in ([], [handle, handle]):
            with pytest.raises(ValueError):
                DBOS.wait_first(handles)
        DBOS.run_step({"name": "s"}, lambda: None)

    with SetWorkflowID("p"):
        parent()
    assert step_names(database_url, "p") == {1: "s"}


def test_wait_first_returns_the_handle_of_a_workflow_that_has_ended_and_replays_it(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R67, R80, 02 R141, R142: a failure counts; the winner is recorded."""

    @DBOS.workflow(name="child")
    def child(which: int) -> int:
        if which == 1:
            raise AppError("ended first")
        gate.wait()
        return which

    @DBOS.workflow()
    def parent() -> int:
        handles = [DBOS.start_workflow(child, which) for which in range(3)]
        winner = DBOS.wait_first(handles)
        gate.open()
        for handle in handles:
            if handle is not winner:
                handle.get_result()
        return handles.index(winner)

    gate = Gate()
    with SetWorkflowID("p"):
        assert DBOS.start_workflow(parent).get_result() == 1
    assert step_names(database_url, "p")[4] == "DBOS.waitFirst"
    assert replay(config, "p") == 1


async def test_wait_first_async_takes_and_returns_async_handles(app: type[DBOS]) -> None:
    """02 R142."""

    @DBOS.workflow()
    async def child(which: int) -> int:
        if which != 1:
            await go.wait()
        return which

    go = asyncio.Event()
    handles = [await DBOS.start_workflow_async(child, which) for which in range(3)]
    winner = await DBOS.wait_first_async(handles)
    assert winner is handles[1]
    assert await winner.get_result() == 1
    go.set()
    assert [await handle.get_result() for handle in handles] == [0, 1, 2]


async def test_an_interval_of_a_handle_in_another_process_is_respected(app: type[DBOS], database_url: str) -> None:
    """02 R134: work done by somebody else is noticed, within about a second without any interval."""

    @DBOS.workflow()
    async def wf() -> int:
        return 1

    with SetWorkflowID("w"):
        await wf()
    rows(database_url, "UPDATE workflow_status SET status = 'PENDING'")
    handle = await DBOS.retrieve_workflow_async("w")
    waiting = asyncio.create_task(handle.get_result(polling_interval_sec=0.02))
    await asyncio.sleep(0)
    rows(database_url, "UPDATE workflow_status SET status = 'SUCCESS'")
    assert await asyncio.wait_for(waiting, 60) == 1


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_wait_for_a_result_can_be_limited(app: type[DBOS], flavour: str) -> None:
    """04 section 12.20: live, by id and retrieved; the workflow goes on."""
    gate = Gate()

    @DBOS.workflow()
    def waits() -> int:
        gate.wait()
        return 7

    async def all_async(workflow_id: str, seconds: float | None) -> list[Any]:
        live = await DBOS.retrieve_workflow_async(workflow_id)
        return [
            await live.get_result(timeout_seconds=seconds),
            await DBOS.get_result_async(workflow_id, timeout_seconds=seconds),
        ]

    live = DBOS.start_workflow(waits)
    workflow_id = live.workflow_id
    retrieved = DBOS.retrieve_workflow(workflow_id)
    for seconds in (0, 0.01):
        for ask in (live.get_result, retrieved.get_result, lambda **limit: DBOS.get_result(workflow_id, **limit)):
            with pytest.raises(TimeoutError) as late:
                if flavour == "async":
                    asyncio.run(all_async(workflow_id, seconds))
                else:
                    ask(timeout_seconds=seconds)
            assert isinstance(late.value, DBOSResultTimeoutError)
            assert (late.value.workflow_id, late.value.timeout_seconds) == (workflow_id, seconds)
    assert live._completion._waiters == []  # type: ignore[attr-defined]
    gate.open()
    for patience in (None, 60, float("inf")):
        assert asyncio.run(all_async(workflow_id, patience)) == [7, 7]
        assert live.get_result(timeout_seconds=patience) == retrieved.get_result(timeout_seconds=patience) == 7
    # What has ended is there at once.
    assert live.get_result(timeout_seconds=0) == DBOS.get_result(workflow_id, timeout_seconds=0) == 7


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", True])
def test_a_limit_that_is_no_time_is_refused(app: type[DBOS], database_url: str, seconds: Any) -> None:
    """Before a step id is drawn."""

    @DBOS.workflow()
    def wf() -> list[str]:
        found = []
        for ask in (DBOS.get_result, lambda name, **limit: DBOS.retrieve_workflow(name, False).get_result(**limit)):
            with pytest.raises(DBOSException, match="timeout_seconds must be a number") as refused:
                ask("w", timeout_seconds=seconds)
            found.append(refused.value.message)
        return found

    with SetWorkflowID("p"):
        assert all(repr(seconds) in message for message in wf())
    assert step_rows(database_url, "p") == []


def test_a_result_that_did_not_come_in_time_did_not_in_a_replay_either(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """The timeout is recorded as the error of the step."""
    gate = Gate()

    @DBOS.workflow()
    def waits() -> int:
        gate.wait()
        return 7

    @DBOS.workflow()
    def impatient() -> list[Any]:
        handle = DBOS.start_workflow(waits)
        found: list[Any] = []
        for ask in (handle.get_result, lambda **limit: DBOS.get_result(handle.workflow_id, **limit)):
            try:
                ask(timeout_seconds=0.01)
            except DBOSResultTimeoutError as late:
                found.append(late.timeout_seconds)
        gate.open()
        return [*found, handle.get_result(timeout_seconds=60)]

    with SetWorkflowID("p"):
        assert impatient() == [0.01, 0.01, 7]
    assert list(step_names(database_url, "p").values())[1:] == ["DBOS.getResult"] * 3
    assert replay(config, "p") == [0.01, 0.01, 7]
