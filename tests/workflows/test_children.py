"""Child workflows: ids, rows, replay, inheritance (02 section 4)."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSConflictingWorkflowError,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import Gate, make_pending, relaunch, replay, rows, status_row, step_names, step_rows
from tests.samples import AppError

Config = dict[str, Any]


def test_a_direct_child_call_records_the_start_and_the_result(app: type[DBOS], database_url: str) -> None:
    """02 R52, R53, R58, R59."""

    @DBOS.workflow(name="child")
    def child(value: int) -> tuple[str | None, int]:
        return DBOS.workflow_id, value * 2

    @DBOS.workflow(name="parent")
    def parent() -> Any:
        return child(4)

    with SetWorkflowID("p"):
        assert parent() == ("p-1", 8)
    start, result = step_rows(database_url, "p")
    assert (start["function_id"], start["function_name"], start["child_workflow_id"]) == (1, "child", "p-1")
    assert (start["output"], start["error"], start["serialization"]) == (None, None, None)
    assert start["started_at_epoch_ms"] <= start["completed_at_epoch_ms"]
    assert (result["function_id"], result["function_name"], result["child_workflow_id"]) == (2, "DBOS.getResult", "p-1")
    assert result["output"] is not None
    assert result["serialization"] == "py_pickle"
    row = status_row(database_url, "p-1")
    assert (row["parent_workflow_id"], row["status"], row["name"]) == ("p", "SUCCESS", "child")


def test_a_background_child_records_one_step_and_its_result_another(app: type[DBOS], database_url: str) -> None:
    """02 R52, R53, R136."""

    @DBOS.workflow(name="child")
    def child(value: int) -> int:
        return value * 2

    @DBOS.step(name="s")
    def step() -> None: ...

    @DBOS.workflow()
    def parent() -> tuple[str, int]:
        step()
        handle = DBOS.start_workflow(child, 5)
        step()
        return handle.workflow_id, handle.get_result()

    with SetWorkflowID("p"):
        assert parent() == ("p-2", 10)
    assert step_names(database_url, "p") == {1: "s", 2: "child", 3: "s", 4: "DBOS.getResult"}
    assert step_rows(database_url, "p")[3]["child_workflow_id"] == "p-2"


async def test_async_children_get_their_ids_in_argument_order(app: type[DBOS], database_url: str) -> None:
    """02 R52, R100."""

    @DBOS.workflow(name="child")
    async def child(value: int) -> str | None:
        await asyncio.sleep(0.001 * (3 - value))
        return DBOS.workflow_id

    @DBOS.workflow()
    async def parent() -> list[Any]:
        called = await asyncio.gather(*[child(value) for value in range(3)])
        handles = await asyncio.gather(*[DBOS.start_workflow_async(child, value) for value in range(2)])
        return [*called, *[handle.workflow_id for handle in handles]]

    with SetWorkflowID("p"):
        assert await parent() == ["p-1", "p-3", "p-5", "p-7", "p-8"]
    names = step_names(database_url, "p")
    assert [names[i] for i in range(1, 9)] == ["child", "DBOS.getResult"] * 3 + ["child"] * 2


def test_a_replay_starts_no_child_again(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R55."""
    runs: list[str] = []

    @DBOS.workflow()
    def child(value: int) -> int:
        runs.append("child")
        return value + 1

    @DBOS.workflow()
    def parent() -> tuple[int, int, str]:
        runs.append("parent")
        handle = DBOS.start_workflow(child, 10)
        return child(1), handle.get_result(), handle.workflow_id

    with SetWorkflowID("p"):
        result = parent()
    recorded = step_rows(database_url, "p")
    runs.clear()
    assert replay(config, "p") == result == (2, 11, "p-1")
    assert runs == ["parent"]
    assert step_rows(database_url, "p") == recorded


def test_an_unfinished_child_runs_under_its_own_recovery_and_the_parent_waits_for_it(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R55."""
    runs: list[str | None] = []

    @DBOS.workflow()
    def child() -> str:
        runs.append(DBOS.workflow_id)
        return "done"

    @DBOS.workflow()
    def parent() -> tuple[str, str]:
        return child(), DBOS.start_workflow(child).get_result()

    with SetWorkflowID("p"):
        parent()
    make_pending(database_url, "p-1")
    make_pending(database_url, "p-3")
    rows(database_url, "DELETE FROM operation_outputs WHERE function_name = 'DBOS.getResult'")
    runs.clear()
    assert replay(config, "p") == ("done", "done")
    assert sorted(str(run) for run in runs) == ["p-1", "p-3"]


def test_the_recorded_result_of_a_direct_call_is_read_back(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R262, in place of R59: the replay needs the child's row no more."""

    @DBOS.workflow()
    def child() -> str:
        return "from the child"

    @DBOS.workflow()
    def parent() -> str:
        return child() + ", " + DBOS.start_workflow(child).get_result()

    with SetWorkflowID("p"):
        parent()
    for child_id in ("p-1", "p-3"):
        rows(database_url, "DELETE FROM workflow_output WHERE workflow_uuid = %s", child_id)
        rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = %s", child_id)
    assert replay(config, "p") == "from the child, from the child"


def test_the_recorded_error_of_a_direct_call_is_raised_again(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R58, R262."""

    @DBOS.workflow()
    def child() -> None:
        raise AppError("broken")

    @DBOS.workflow()
    def parent() -> str:
        try:
            child()
        except AppError as error:
            return f"caught {error}"
        return "nothing"

    with SetWorkflowID("p"):
        assert parent() == "caught broken"
    assert step_rows(database_url, "p")[1]["error"] is not None
    assert replay(config, "p") == "caught broken"


def test_attaching_to_an_existing_workflow_records_its_id_and_leaves_its_parent_alone(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R54."""

    @DBOS.workflow(name="child")
    def child(value: int) -> int:
        return value

    @DBOS.workflow()
    def parent() -> list[int]:
        with SetWorkflowID("known"):
            called = child(2)
        with SetWorkflowID("known"):
            started = DBOS.start_workflow(child, 3).get_result()
        return [called, started]

    with SetWorkflowID("known"):
        child(1)
    with SetWorkflowID("p"):
        assert parent() == [1, 1]
    assert [(row["function_name"], row["child_workflow_id"]) for row in step_rows(database_url, "p")] == [
        ("child", "known"),
        ("DBOS.getResult", "known"),
        ("child", "known"),
        ("DBOS.getResult", "known"),
    ]
    assert status_row(database_url, "known")["parent_workflow_id"] is None
    assert replay(config, "p") == [1, 1]


def test_two_starts_of_one_assigned_child_id_in_a_gather_run_it_once(app: type[DBOS]) -> None:
    """02 R42, R54, in one batch of the journal."""
    runs: list[int] = []

    @DBOS.workflow()
    async def child() -> int:
        runs.append(1)
        return 9

    @DBOS.workflow()
    async def parent() -> list[int]:
        async def one() -> int:
            with SetWorkflowID("shared"):
                return await child()

        return await asyncio.gather(one(), one(), one())

    assert DBOS.start_workflow(parent).get_result() == [9, 9, 9]
    assert runs == [1]


def test_an_id_in_use_is_recorded_as_the_error_of_the_start_and_raised_again(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R44, R56: a replay does not try again, though the id is free by then."""

    @DBOS.workflow(name="child")
    def child() -> None: ...

    @DBOS.workflow()
    def parent() -> str:
        with SetWorkflowID("known", workflow_id_reuse_policy="reject"):
            try:
                DBOS.start_workflow(child)
            except DBOSWorkflowIDInUseError as error:
                return f"in use by {error.workflow_name}"
        return "started"

    with SetWorkflowID("known"):
        child()
    with SetWorkflowID("p"):
        assert parent() == "in use by child"
    (row,) = step_rows(database_url, "p")
    assert (row["function_id"], row["function_name"]) == (1, "child")
    assert row["error"] is not None
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = 'known'")
    assert replay(config, "p") == "in use by child"


def test_a_conflict_of_a_direct_child_call_is_recorded_at_its_second_id_only(
    app: type[DBOS], database_url: str
) -> None:
    """02 R57, R58."""

    @DBOS.workflow(name="child")
    def child() -> None: ...

    @DBOS.workflow(name="other")
    def other() -> None: ...

    @DBOS.step(name="s")
    def step() -> None: ...

    @DBOS.workflow()
    def parent() -> None:
        with SetWorkflowID("known"), pytest.raises(DBOSConflictingWorkflowError):
            child()
        with SetWorkflowID("known"), pytest.raises(DBOSConflictingWorkflowError):
            DBOS.start_workflow(child)
        step()

    with SetWorkflowID("known"):
        other()
    with SetWorkflowID("p"):
        parent()
    names = step_names(database_url, "p")
    assert names == {2: "DBOS.getResult", 4: "s"}


def test_unserializable_arguments_of_a_child_leave_the_id_of_its_start_empty(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R57, R91."""

    @DBOS.workflow(name="child")
    def child(value: Any) -> None: ...

    @DBOS.step(name="s")
    def step() -> str:
        return "s"

    @DBOS.workflow()
    def parent() -> str:
        with pytest.raises(TypeError):
            DBOS.start_workflow(child, threading.Lock())
        return step()

    with SetWorkflowID("p"):
        parent()
    assert step_names(database_url, "p") == {2: "s"}
    assert replay(config, "p") == "s"


def test_a_child_inherits_identity_and_deadline_and_nothing_else(app: type[DBOS], database_url: str) -> None:
    """02 R60, R120, R167."""

    @DBOS.workflow(name="child")
    def child() -> None: ...

    @DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    def parent() -> None:
        child()

    with (
        DBOSContextSetAuth("ada", ["admin", "user"]),
        SetWorkflowAttributes({"a": 1}),
        SetWorkflowTimeout(500),
        SetEnqueueOptions(app_version="v7"),
        SetWorkflowID("p"),
    ):
        DBOS.start_workflow(parent).get_result()
    mother, row = status_row(database_url, "p"), status_row(database_url, "p-1")
    assert row["authenticated_user"] == "ada"
    assert json.loads(row["authenticated_roles"]) == ["admin", "user"]
    assert row["workflow_deadline_epoch_ms"] == mother["workflow_deadline_epoch_ms"] is not None
    assert row["workflow_timeout_ms"] is None
    assert mother["application_version"] == "v7"
    assert row["application_version"] == "v1"
    assert (mother["serialization"], row["serialization"]) == ("portable_json", "py_pickle")
    assert row["attributes"] in (None, "null")


def test_changing_the_roles_in_a_child_does_not_touch_the_parent(app: type[DBOS]) -> None:
    """02 R60: the role list is copied."""

    @DBOS.workflow()
    def child() -> None:
        roles = DBOS.authenticated_roles
        assert roles is not None
        roles.append("added")
        DBOS.set_authentication("other", ["x"])

    @DBOS.workflow()
    def parent() -> Any:
        child()
        return DBOS.authenticated_user, DBOS.authenticated_roles

    with DBOSContextSetAuth("ada", ["admin"]):
        assert parent() == ("ada", ["admin"])


def test_a_child_outlives_the_cancellation_of_its_parent(app: type[DBOS], database_url: str) -> None:
    """02 R61."""

    @DBOS.workflow()
    def child() -> str:
        gate.wait()
        return "child done"

    @DBOS.workflow()
    def parent() -> str:
        handle = DBOS.start_workflow(child)
        started.open()
        return handle.get_result()

    gate, started = Gate(), Gate()
    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    started.wait()
    DBOS.cancel_workflow("p")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert status_row(database_url, "p-1")["status"] == "PENDING"
    gate.open()
    assert DBOS.retrieve_workflow("p-1").get_result() == "child done"


def test_cancel_children_reaches_all_descendants(app: type[DBOS], database_url: str) -> None:
    """02 R61."""

    @DBOS.workflow()
    def leaf() -> None:
        started.open()
        DBOS.sleep(1000)

    @DBOS.workflow()
    def middle() -> None:
        leaf()

    @DBOS.workflow()
    def parent() -> None:
        middle()

    started = Gate()
    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    started.wait()
    DBOS.cancel_workflow("p", cancel_children=True)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert [status_row(database_url, child)["status"] for child in ("p", "p-1", "p-1-1")] == ["CANCELLED"] * 3


def test_a_parent_can_catch_the_cancellation_of_its_child_and_it_is_recorded(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R130."""

    @DBOS.workflow()
    def child() -> None:
        started.open()
        DBOS.sleep(1000)

    @DBOS.workflow()
    def parent() -> str:
        try:
            child()
        except DBOSAwaitedWorkflowCancelledError as error:
            return f"{error.workflow_id} was cancelled"
        return "finished"

    started = Gate()
    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    started.wait()
    DBOS.cancel_workflow("p-1")
    assert handle.get_result() == "p-1 was cancelled"
    assert step_rows(database_url, "p")[1]["error"] is not None
    relaunch(config)
    assert replay(config, "p") == "p-1 was cancelled"


def test_children_nest_deeper_than_the_pool_is_wide(config: Config) -> None:
    """02 R239, R271: waiting executions do not use the pool up."""
    DBOS(config={**config, "max_executor_threads": 2})  # type: ignore[typeddict-item]

    @DBOS.workflow()
    def nest(depth: int) -> int:
        return depth if depth == 0 else DBOS.start_workflow(nest, depth - 1).get_result() + 1

    DBOS.launch()
    assert DBOS.start_workflow(nest, 6).get_result() == 6
    DBOS.destroy(destroy_registry=True)


def test_a_step_started_as_a_workflow_records_itself_at_one(app: type[DBOS], database_url: str) -> None:
    """02 R12."""

    @DBOS.step(name="work")
    def work(value: int) -> int:
        return value + 1

    @DBOS.workflow()
    def parent() -> int:
        return DBOS.start_workflow(work, 1).get_result()

    with SetWorkflowID("root"):
        assert DBOS.start_workflow(work, 1).get_result() == 2
    assert status_row(database_url, "root")["name"] == "<temp>.work"
    assert step_names(database_url, "root") == {1: "work"}
    with SetWorkflowID("p"):
        assert parent() == 2
    assert step_names(database_url, "p")[1] == "<temp>.work"
    assert step_names(database_url, "p-1") == {1: "work"}
