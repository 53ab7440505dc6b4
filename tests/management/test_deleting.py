"""Deleting workflows, and who waits for them (05 section 11.10, R80)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.helpers import Gate, replay, rows, status_row, step_names, step_rows, wait_until

from .rows_of import TABLES, add_events, add_message, add_stream, add_workflow, remains
from .sides import Side
from .test_forking import declare, executed, run

Config = dict[str, Any]


def fill(database_url: str, workflow_id: str) -> None:
    """Leave it a row in every table."""
    add_events(database_url, workflow_id, (1, "k", "v"))
    add_stream(database_url, workflow_id, (1, "entry"))
    add_message(database_url, workflow_id, f"message for {workflow_id}")


def test_a_deletion_leaves_no_row(sides: list[Side], database_url: str) -> None:
    """05 R94, 04 R142: unknown ids are ignored."""
    three = declare()
    for workflow_id in ("w", "v", "kept"):
        run(three, workflow_id, "x")
        fill(database_url, workflow_id)
    for side in sides:
        assert side.delete_workflows(["w", "absent", "v", "w"]) is None
        assert remains(database_url, "w") == remains(database_url, "v") == []
        assert remains(database_url, "kept") == list(TABLES)
        assert side.delete_workflow("absent") is None
        side.delete_workflows([])
        executed.clear()
        for workflow_id in ("w", "v"):
            assert run(three, workflow_id, "y") == "yaybyc"
            fill(database_url, workflow_id)
        assert len(executed) == 6


def test_children_stay_unless_they_are_to_go_too(sides: list[Side], database_url: str) -> None:
    """05 R94: all descendants, and no forks."""

    @DBOS.workflow(name="leaf")
    def leaf() -> int:
        return 1

    @DBOS.workflow(name="branch")
    def branch() -> int:
        return leaf()

    @DBOS.workflow(name="tree")
    def tree() -> int:
        return branch() + branch()

    left: set[str] = set()
    for side in sides:
        for top in ("t", f"{side}"):
            run(tree, top)
        fork = DBOS.fork_workflow("t", 1)
        fork.get_result()
        side.delete_workflow(f"{side}")
        side.delete_workflow("t", delete_children=True)
        left |= {f"{side}{suffix}" for suffix in ("-1", "-1-1", "-3", "-3-1")}
        left |= {f"{fork.workflow_id}{suffix}" for suffix in ("", "-1", "-1-1", "-3", "-3-1")}
        assert {status.workflow_id for status in DBOS.list_workflows()} == left


@pytest.mark.parametrize("status", ["PENDING", "ENQUEUED", "DELAYED", "CANCELLED", "ERROR"])
def test_a_workflow_in_any_state_is_deleted(sides: list[Side], database_url: str, status: str) -> None:
    """05 R94."""
    for side in sides:
        add_workflow(database_url, "w", status)
        side.delete_workflow("w")
        assert remains(database_url, "w") == []


def test_the_execution_of_a_deleted_workflow_stops_and_writes_nothing(app: type[DBOS], database_url: str) -> None:
    """05 R16, R94."""
    entered, gate = Gate(), Gate()
    reached: list[str] = []

    @DBOS.workflow(name="child")
    def child() -> None:
        reached.append("child")

    @DBOS.workflow()
    def wf() -> None:
        def body() -> None:
            entered.open()
            gate.wait()

        DBOS.run_step({"name": "held"}, body)
        reached.append("behind the step")
        child()

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS.delete_workflow("w")
    gate.open()
    with pytest.raises(DBOSNonExistentWorkflowError, match="w"):
        handle.get_result()
    assert reached == []
    assert DBOS.list_workflows() == []
    assert [table for table in TABLES if rows(database_url, f"SELECT 1 FROM {table}")] == []


@pytest.mark.parametrize("operation", ["sleep", "wait", "retry"])
async def test_a_deletion_wakes_an_execution_that_waits(app: type[DBOS], operation: str) -> None:
    """As a cancellation does."""
    entered = asyncio.Event()

    @DBOS.step(retries_allowed=True, interval_seconds=1000)
    async def failing() -> None:
        entered.set()
        raise ValueError

    @DBOS.workflow()
    async def wf() -> None:
        if operation == "retry":
            await failing()
        entered.set()
        if operation == "sleep":
            await DBOS.sleep_async(1000)
        await DBOS.get_result_async("absent")

    with SetWorkflowID("w"):
        handle = await DBOS.start_workflow_async(wf)
    await entered.wait()
    await DBOS.delete_workflow_async("w")
    with pytest.raises(DBOSNonExistentWorkflowError):
        await asyncio.wait_for(handle.get_result(), 30)


def waiter_for(workflow_id: str) -> tuple[threading.Thread, list[BaseException]]:
    """A thread that waits for the result by id, and what it got."""
    got: list[BaseException] = []

    def wait() -> None:
        try:
            DBOS.get_result(workflow_id)
        except BaseException as error:
            got.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: sleeps_for(workflow_id))
    return thread, got


def sleeps_for(workflow_id: str) -> bool:
    """Whether somebody has looked at the workflow and sleeps until it ends."""
    assert state.instance is not None
    assert state.instance.engine is not None
    waiters = state.instance.engine.signals._waiters.get(("finished", workflow_id), ())
    return any(waiter._wake is not None for waiter in waiters)


def test_waits_for_a_deleted_workflow_end(app: type[DBOS], database_url: str) -> None:
    """05 R80 in ours: what existed and is deleted is not awaited any more; what never existed may be started yet."""
    three = declare()
    DBOS.register_queue("held", global_concurrency=0)
    with SetWorkflowID("w"):
        handle = DBOS.enqueue_workflow("held", three, "x")
    thread, got = waiter_for("w")
    early, never = waiter_for("not yet")
    DBOS.delete_workflow("w")
    thread.join(30)
    assert [type(error) for error in got] == [DBOSNonExistentWorkflowError]
    with pytest.raises(DBOSNonExistentWorkflowError):
        handle.get_result()
    run(three, "not yet", "x")
    early.join(30)
    assert (never, early.is_alive()) == ([], False)


def test_the_first_of_several_is_not_awaited_when_all_are_deleted(app: type[DBOS]) -> None:
    """As a single one; while one is left it is awaited."""
    three = declare()
    DBOS.register_queue("held", global_concurrency=0)
    handles = []
    for workflow_id in ("v", "w"):
        with SetWorkflowID(workflow_id):
            handles.append(DBOS.enqueue_workflow("held", three, "x"))
    got: list[BaseException] = []

    def wait() -> None:
        try:
            DBOS.wait_first(handles)
        except DBOSNonExistentWorkflowError as error:
            got.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: sleeps_for("v"))
    DBOS.delete_workflow("v")
    assert thread.is_alive()
    DBOS.delete_workflow("w")
    thread.join(30)
    assert len(got) == 1


def has_looked(workflow_id: str) -> bool:
    """Whether the watcher has seen that the workflow exists."""
    assert state.instance is not None
    engine = state.instance.engine
    assert engine is not None
    return workflow_id in engine.watcher._seen


@pytest.mark.parametrize("traffic", ["quiet", "busy"])
def test_a_deletion_by_another_program_is_noticed(app: type[DBOS], database_url: str, traffic: str) -> None:
    """Within about a second: the workflow is asked for together with all others that are awaited."""
    three = declare()
    DBOS.register_queue("held", global_concurrency=0)
    with SetWorkflowID("w"):
        DBOS.enqueue_workflow("held", three, "x")
    thread, got = waiter_for("w")
    wait_until(lambda: has_looked("w"))
    rows(database_url, "DELETE FROM workflow_status")
    if traffic == "quiet":
        thread.join(20)
    give_up_at = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < give_up_at:
        # Commits of others, each of which makes the process look for what is likely.
        rows(database_url, "UPDATE queues SET updated_at = updated_at")
    assert [type(error) for error in got] == [DBOSNonExistentWorkflowError]


def test_a_parent_whose_child_was_deleted_does_not_wait_for_ever(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 section 14.24: a replay that has recorded the start but not the result."""

    @DBOS.workflow(name="child")
    def child() -> int:
        return 1

    @DBOS.workflow()
    def calling() -> int:
        return child()

    @DBOS.workflow()
    def starting() -> int:
        return DBOS.start_workflow(child).get_result()

    for name, function in (("c", calling), ("s", starting)):
        run(function, name)
        DBOS.delete_workflow(f"{name}-1")
        assert replay(config, name) == 1
        with pytest.raises(DBOSNonExistentWorkflowError):
            replay(config, name, steps_until=1)


def test_a_workflow_that_deletes_itself_ends_there(app: type[DBOS], database_url: str) -> None:
    """05 R94: it owns nothing any more."""
    reached: list[str] = []

    @DBOS.workflow()
    def wf() -> None:
        DBOS.run_step({"name": "first"}, lambda: None)
        DBOS.delete_workflow(DBOS.workflow_id or "")
        reached.append("behind")

    with pytest.raises(DBOSNonExistentWorkflowError):
        run(wf, "w")
    assert (reached, remains(database_url, "w")) == ([], [])


def test_in_workflow_code_a_deletion_is_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67: a replay does not delete what was started under the id since."""
    three = declare()

    @DBOS.workflow()
    def deleting() -> None:
        DBOS.delete_workflow("w")
        DBOS.delete_workflows(["v", "absent"])

    run(three, "w", "x")
    run(three, "v", "x")
    run(deleting, "d")
    assert step_names(database_url, "d") == {1: "DBOS.deleteWorkflow", 2: "DBOS.deleteWorkflow"}
    assert remains(database_url, "w") == remains(database_url, "v") == []
    run(three, "w", "x")
    replay(config, "d")
    assert len(step_rows(database_url, "w")) == 3


def test_a_deleted_workflow_frees_its_place_and_its_deduplication_id(app: type[DBOS], database_url: str) -> None:
    """03 R52."""
    gate, entered = Gate(), Gate()

    @DBOS.workflow()
    def held() -> None:
        entered.open()
        gate.wait()

    @DBOS.workflow()
    def quick() -> int:
        return 1

    DBOS.register_queue("one", global_concurrency=1)
    with SetWorkflowID("w"), SetEnqueueOptions(deduplication_id="d"):
        DBOS.enqueue_workflow("one", held)
    entered.wait()
    DBOS.delete_workflow("w")
    with SetEnqueueOptions(deduplication_id="d"):
        assert DBOS.enqueue_workflow("one", quick).get_result() == 1
    gate.open()


@pytest.mark.parametrize("given", ["w", b"w", 5, None, ["a", 5], ["a\0"]])
def test_ids_that_are_no_ids_are_refused(app: type[DBOS], database_url: str, given: Any) -> None:
    """A text is no list of ids: its characters are not meant."""
    run(declare(), "w", "x")
    for call in (DBOS.delete_workflows, DBOS.cancel_workflows, DBOS.resume_workflows):
        with pytest.raises(DBOSException):
            call(given)
    assert status_row(database_url, "w")["status"] == "SUCCESS"


def test_flags_are_true_or_false(app: type[DBOS]) -> None:
    with pytest.raises(DBOSException, match="delete_children"):
        DBOS.delete_workflow("w", delete_children="no")  # type: ignore[arg-type]
    with pytest.raises(DBOSException, match="cancel_children"):
        DBOS.cancel_workflow("w", cancel_children=1)  # type: ignore[arg-type]


async def test_deletions_from_async_code(app: type[DBOS], database_url: str) -> None:
    """05 R63."""
    three = declare()
    for workflow_id in ("a", "b", "c"):
        with SetWorkflowID(workflow_id):
            await (await DBOS.start_workflow_async(three, "x")).get_result()
    await DBOS.delete_workflow_async("a")
    await DBOS.delete_workflows_async(["b", "absent"], delete_children=True)
    assert [status.workflow_id for status in await DBOS.list_workflows_async()] == ["c"]
