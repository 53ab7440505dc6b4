"""A change and the step of the workflow that makes it are one transaction, whatever the number of workflows
(05 R52 and section 9.2 in ours)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, EnqueueItem, SetEnqueueOptions, SetWorkflowID
from dbos.api.runtime import state
from dbos.engine.engine import Engine
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSNonExistentWorkflowError
from dbos.records import StepCompleted, Verdict
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreUnavailable
from dbos.types import Fork, Rewind
from tests.helpers import Gate, replay, rows, status_row, step_names, step_rows, wait_until

from .test_forking import declare, executed, run

Config = dict[str, Any]
Call = Callable[[SqlStore, StepCompleted], Any]

CALLS: dict[str, Call] = {
    "cancel": lambda store, step: store.cancel_workflows(["w"], 1, step),
    "resume": lambda store, step: store.resume_workflows(["w"], None, 1, step),
    # So long that the application, which looks once per second, does not end it meanwhile.
    "delay": lambda store, step: store.set_workflow_delay("w", 2**52, 1, step),
    "fork": lambda store, step: store.fork_workflow(Fork("f", "w", 2, "token", None), 1, step),
    "rewind": lambda store, step: store.rewind_workflow(Rewind("w", 1), 1, step),
    "delete": lambda store, step: store.delete_workflows(["w"], step),
    "attributes": lambda store, step: store.update_attributes("w", '{"a": 1}', 1, step, merge=False),
}
# In which the call changes the workflow.
STATES = {"resume": "CANCELLED", "delay": "DELAYED", "cancel": "DELAYED"}


def engine() -> Engine:
    assert state.instance is not None
    assert state.instance.engine is not None
    return state.instance.engine


def everything(database_url: str) -> list[Any]:
    tables = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
    return [rows(database_url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def prepare(app: type[DBOS], database_url: str, name: str) -> StepCompleted:
    """A workflow to change, and the step of another one that owns itself."""
    run(declare(), "w", "x")
    run(declare(), "caller", "x")
    rows(
        database_url, "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'own' WHERE workflow_uuid = 'caller'"
    )
    rows(
        database_url,
        "UPDATE workflow_status SET status = %s, application_version = 'other' WHERE workflow_uuid = 'w'",
        STATES.get(name, "SUCCESS"),
    )
    return StepCompleted("caller", "own", 9, "DBOS.someCall", None, None, None, 1, 1, "test-app")


@pytest.mark.parametrize("name", CALLS)
def test_an_execution_that_lost_its_workflow_changes_nothing(app: type[DBOS], database_url: str, name: str) -> None:
    """05 R15: the step and the change, or neither."""
    step = prepare(app, database_url, name)
    step.owner_token = "lost"
    before = everything(database_url)
    answer = CALLS[name](engine().store, step)  # type: ignore[arg-type]
    assert Verdict.FENCED in (answer if isinstance(answer, tuple) else (answer,))
    assert everything(database_url) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_answer_was_lost_is_not_made_again(app: type[DBOS], database_url: str, name: str) -> None:
    """05 R58: it finds its step."""
    step = prepare(app, database_url, name)
    before = everything(database_url)
    CALLS[name](engine().store, step)  # type: ignore[arg-type]
    after = everything(database_url)
    assert after != before
    answer = CALLS[name](engine().store, step)  # type: ignore[arg-type]
    assert Verdict.FENCED not in (answer if isinstance(answer, tuple) else (answer,))
    assert everything(database_url) == after
    step.completed_at_ms += 1
    answer = CALLS[name](engine().store, step)  # type: ignore[arg-type]
    assert Verdict.REPEATED in (answer if isinstance(answer, tuple) else (answer,))
    assert everything(database_url) == after


def test_a_call_goes_on_when_the_answer_to_its_change_is_lost(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """05 R57 in ours: every call is repeated, and its effect there once."""
    run(declare(), "w", "x")
    DBOS.register_queue("held", global_concurrency=0)
    lost: list[str] = []

    def lose(name: str) -> None:
        original = getattr(SqlStore, name)

        def change(self: SqlStore, *args: Any, **kwargs: Any) -> Any:
            answer = original(self, *args, **kwargs)
            if name not in lost:
                lost.append(name)
                raise StoreUnavailable("the answer was lost")
            return answer

        monkeypatch.setattr(SqlStore, name, change)

    names = ["cancel_workflows", "resume_workflows", "fork_workflow", "rewind_workflow", "delete_workflows"]
    for name in [*names, "update_attributes", "set_workflow_delay"]:
        lose(name)

    @DBOS.workflow()
    def managing() -> list[Any]:
        fork = DBOS.fork_workflow("w", 3, queue_name="held")
        DBOS.update_workflow_attributes(fork.workflow_id, {"a": 1})
        DBOS.cancel_workflow(fork.workflow_id)
        results = [DBOS.resume_workflow(fork.workflow_id, queue_name="_dbos_internal_queue").get_result()]
        results.append(DBOS.rewind_workflow("w").get_result())
        with SetEnqueueOptions(delay_seconds=1000):
            later = DBOS.enqueue_workflow("held", declare(), "y")
        DBOS.set_workflow_delay(later.workflow_id, delay_seconds=2000)
        DBOS.delete_workflow(later.workflow_id)
        return results

    assert run(managing, "m") == ["xaxbxc", "xaxbxc"]
    assert len(lost) == 7
    assert len(DBOS.list_workflows(forked_from="w")) == 1


# --- cancelling


def test_a_workflow_that_cancels_itself_does_not_cancel_again_when_resumed(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R85 in ours: the step is recorded, and the call does not return."""
    reached: list[str] = []

    @DBOS.workflow()
    def quitting() -> str:
        try:
            DBOS.cancel_workflow(DBOS.workflow_id or "")
            reached.append("behind the call")
        except Exception:
            reached.append("swallowed")
        return DBOS.run_step({"name": "after"}, lambda: "after")

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        run(quitting, "w")
    assert reached == []
    assert step_names(database_url, "w") == {1: "DBOS.cancelWorkflow"}
    assert status_row(database_url, "w")["status"] == "CANCELLED"
    assert DBOS.resume_workflow("w").get_result() == "after"
    assert step_names(database_url, "w") == {1: "DBOS.cancelWorkflow", 2: "after"}


def test_a_cascade_reaches_all_descendants_and_no_others(app: type[DBOS], database_url: str) -> None:
    """05 R82: through finished ones, in one transaction; forks are no children."""
    held, entered = Gate(), Gate()

    @DBOS.workflow(name="leaf")
    def leaf(hold: bool) -> None:
        if hold:
            DBOS.run_step({"name": "hold"}, lambda: (entered.open(), held.wait()))

    @DBOS.workflow(name="branch")
    def branch() -> None:
        DBOS.start_workflow(leaf, True)

    @DBOS.workflow(name="tree")
    def tree() -> None:
        DBOS.start_workflow(branch).get_result()
        leaf(False)
        DBOS.sleep(1000)

    with SetWorkflowID("t"):
        DBOS.start_workflow(tree)
    entered.wait()
    wait_until(lambda: "DBOS.sleep" in step_names(database_url, "t").values())
    rows(database_url, "UPDATE workflow_status SET forked_from = 't' WHERE workflow_uuid = 't-3'")
    DBOS.cancel_workflow("t", cancel_children=True)
    found = {row["workflow_uuid"]: row["status"] for row in rows(database_url, "SELECT * FROM workflow_status")}
    assert found == {"t": "CANCELLED", "t-1": "SUCCESS", "t-1-1": "CANCELLED", "t-3": "SUCCESS"}
    held.open()


def test_a_resumed_workflow_is_not_stopped_by_old_news_of_its_cancellation(app: type[DBOS], database_url: str) -> None:
    """What another process announces may come late: the database says who owns the workflow by now."""
    gate, entered = Gate(), Gate()

    @DBOS.workflow()
    def wf() -> str:
        entered.open()
        DBOS.run_step({"name": "hold"}, gate.wait)
        return DBOS.run_step({"name": "after"}, lambda: "done")

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    engine().note_cancelled(["w"])
    gate.open()
    assert handle.get_result() == "done"


# --- any number


def test_more_ids_than_a_statement_takes(app: type[DBOS], database_url: str) -> None:
    """05 section 14.27: all or none, in one transaction."""

    @DBOS.workflow()
    def wf() -> None: ...

    DBOS.register_queue("held", global_concurrency=0)
    handles = DBOS.enqueue_workflows("held", [EnqueueItem(wf) for _ in range(2_500)])
    ids = [handle.workflow_id for handle in handles]
    unknown = [f"unknown {number}" for number in range(70_000)]
    DBOS.cancel_workflows([*ids, *unknown])
    assert len(DBOS.list_workflows(status="CANCELLED", load_input=False)) == 2_500
    with pytest.raises(DBOSNonExistentWorkflowError, match="unknown 0, unknown 1"):
        DBOS.resume_workflows([*ids, *unknown[:2]])
    assert len(DBOS.list_workflows(status="CANCELLED", load_input=False)) == 2_500
    assert len(DBOS.resume_workflows(ids, queue_name="held")) == 2_500
    assert len(DBOS.list_workflows(status="ENQUEUED", load_input=False)) == 2_500
    DBOS.delete_workflows([*ids, *unknown])
    assert DBOS.list_workflows() == []


def test_an_id_given_twice_counts_once_and_has_two_handles(app: type[DBOS]) -> None:
    run(declare(), "w", "x")
    DBOS.cancel_workflows(["w", "w"])
    handles = DBOS.resume_workflows(["w", "w"])
    assert [handle.get_result() for handle in handles] == ["xaxbxc", "xaxbxc"]


def test_two_that_cancel_each_other_do_not_block_each_other(app: type[DBOS], database_url: str) -> None:
    """Both rows are locked in the order of the ids, whoever calls; the one that comes second has lost."""
    ready = [Gate(), Gate()]

    @DBOS.workflow()
    def rival(number: int, other: str) -> None:
        ready[number].open()
        ready[1 - number].wait()
        DBOS.cancel_workflows([other])

    handles = []
    for number, workflow_id in enumerate("ab"):
        with SetWorkflowID(workflow_id):
            handles.append(DBOS.start_workflow(rival, number, "ba"[number]))
    outcomes = []
    for handle in handles:
        try:
            outcomes.append(handle.get_result())
        except DBOSAwaitedWorkflowCancelledError:
            outcomes.append("cancelled")
    assert "cancelled" in outcomes
    recorded = [step_names(database_url, workflow_id) for workflow_id in "ab"]
    assert {1: "DBOS.cancelWorkflow"} in recorded


def test_a_replay_does_none_of_the_calls_again(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67, R68, 03 R106."""
    run(declare(), "w", "x")

    @DBOS.workflow()
    def managing() -> list[str]:
        DBOS.cancel_workflow("w")
        DBOS.resume_workflows(["w"])
        DBOS.set_workflow_delay("w", delay_seconds=1)
        try:
            DBOS.resume_workflow("absent")
        except DBOSNonExistentWorkflowError as error:
            return [str(error)]
        return []

    first = run(managing, "m")
    names = ["DBOS.cancelWorkflow", "DBOS.resumeWorkflow", "DBOS.setWorkflowDelay", "DBOS.resumeWorkflow"]
    assert list(step_names(database_url, "m").values()) == names
    recorded = step_rows(database_url, "m")
    executed.clear()
    DBOS.delete_workflow("w")
    assert replay(config, "m") == first
    assert (step_rows(database_url, "m"), executed) == (recorded, [])
