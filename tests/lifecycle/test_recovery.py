"""Who may write for a workflow, and how it is taken up again (02 sections 13 and 14)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSConfiguredInstance, DBOSContextSetAuth, SetWorkflowID, SetWorkflowTimeout
from dbos.error import (
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSNotAuthorizedError,
    DBOSRecoveryError,
    MaxRecoveryAttemptsExceededError,
)
from tests.helpers import (
    Gate,
    make_pending,
    relaunch,
    rows,
    status_row,
    step_names,
    wait_for_status,
    wait_until,
)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


def steal(database_url: str, workflow_id: str) -> None:
    """As if another execution had claimed the workflow."""
    rows(
        database_url,
        "UPDATE workflow_status SET owner_xid = 'somebody else' WHERE workflow_uuid = %s",
        workflow_id,
    )


def finish_elsewhere(database_url: str, workflow_id: str, output: str) -> None:
    """As if that execution had recorded its outcome."""
    rows(
        database_url,
        "INSERT INTO workflow_output (workflow_uuid, output) VALUES (%s, %s)",
        workflow_id,
        output,
    )
    rows(
        database_url,
        "UPDATE workflow_status SET status = 'SUCCESS', owner_xid = NULL WHERE workflow_uuid = %s",
        workflow_id,
    )


# --- ownership


def test_a_start_writes_one_token_as_creator_and_owner_and_the_end_clears_the_owner(
    app: type[DBOS], database_url: str, gate: Gate
) -> None:
    # 02 R147, R148
    entered = threading.Event()

    @DBOS.workflow()
    def work() -> None:
        entered.set()
        gate.wait()

    with SetWorkflowID("owned"):
        handle = DBOS.start_workflow(work)
    assert entered.wait(60)
    running = status_row(database_url, "owned")
    assert running["owner_xid"] == running["creator_xid"]
    assert running["creator_xid"]
    assert running["recovery_attempts"] == 1
    assert (running["executor_id"], running["application_version"]) == ("test", "v1")
    gate.open()
    handle.get_result()
    ended = status_row(database_url, "owned")
    assert ended["owner_xid"] is None
    assert ended["creator_xid"] == running["creator_xid"]


@pytest.mark.parametrize("catches", ["nothing", "Exception", "BaseException"])
def test_an_execution_that_lost_its_workflow_delivers_the_outcome_of_the_new_owner(
    app: type[DBOS], database_url: str, gate: Gate, catches: str
) -> None:
    # 02 R149, R150, R71, R129
    entered = threading.Event()
    caught: tuple[type[BaseException], ...] = {
        "nothing": (),
        "Exception": (Exception,),
        "BaseException": (BaseException,),
    }[catches]
    after: list[str] = []

    @DBOS.step(name="first")
    def first() -> str:
        entered.set()
        gate.wait()
        return "lost"

    @DBOS.step(name="second")
    def second() -> None:
        after.append("the body of a step ran after the loss")

    @DBOS.workflow()
    def work() -> str:
        for step in (first, second, second):
            try:
                step()
            except caught:
                continue
        return "the result of the old owner"

    @DBOS.workflow()
    def other() -> str:
        return "the result of the new owner"

    with SetWorkflowID("other"):
        other()
    with SetWorkflowID("stolen"):
        handle = DBOS.start_workflow(work)
    assert entered.wait(60)
    steal(database_url, "stolen")
    gate.open()
    results: list[Any] = []
    waiter = threading.Thread(target=lambda: results.append(handle.get_result()))
    waiter.start()
    (text,) = rows(database_url, "SELECT output FROM workflow_output WHERE workflow_uuid = 'other'")
    finish_elsewhere(database_url, "stolen", text["output"])
    waiter.join(60)
    assert results == ["the result of the new owner"]
    assert after == []
    assert step_names(database_url, "stolen") == {}


def test_an_outcome_of_a_lost_execution_is_discarded(app: type[DBOS], database_url: str, gate: Gate) -> None:
    # 02 R63, R65
    entered = threading.Event()

    @DBOS.workflow()
    def work() -> str:
        entered.set()
        gate.wait()
        return "discarded"

    @DBOS.workflow()
    def other() -> str:
        return "kept"

    with SetWorkflowID("other"):
        other()
    with SetWorkflowID("lost"):
        handle = DBOS.start_workflow(work)
    assert entered.wait(60)
    (text,) = rows(database_url, "SELECT output FROM workflow_output WHERE workflow_uuid = 'other'")
    finish_elsewhere(database_url, "lost", text["output"])
    gate.open()
    assert handle.get_result() == "kept"


# --- recovery


def test_recovery_runs_the_body_again_with_stored_inputs_and_recorded_steps(
    app: type[DBOS], config: dict[str, Any]
) -> None:
    # 02 R153-R156, R161
    url = config["system_database_url"]
    bodies: list[tuple[str, Any]] = []

    @DBOS.step(name="first")
    def first(value: int) -> int:
        bodies.append(("first", value))
        return value + 1

    @DBOS.step(name="second")
    def second(value: int) -> int:
        bodies.append(("second", value))
        return value * 10

    @DBOS.workflow()
    def work(value: int, *, extra: int) -> int:
        bodies.append(("body", (value, extra)))
        return second(first(value)) + extra

    with SetWorkflowID("recovered"):
        assert work(1, extra=5) == 25
    created = status_row(url, "recovered")
    bodies.clear()
    make_pending(url, "recovered", steps_until=1)
    relaunch(config)
    assert DBOS.retrieve_workflow("recovered").get_result() == 25
    assert bodies == [("body", (1, 5)), ("second", 2)]
    row = status_row(url, "recovered")
    assert row["status"] == "SUCCESS"
    assert row["recovery_attempts"] == 2
    for column in ("created_at", "priority", "creator_xid", "workflow_deadline_epoch_ms"):
        assert row[column] == created[column], column


def test_recovery_is_for_pending_work_of_this_executor_version_and_application_only(
    app: type[DBOS], config: dict[str, Any]
) -> None:
    """03 R108, R109."""
    # 02 R153, R158, 01 R52
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> int:
        return 1

    others = {
        "executor": ("executor_id", "another"),
        "version": ("application_version", "v0"),
        "owner": ("application_name", "another-app"),
    }
    for workflow_id in ("mine", "unowned", "finished", *others):
        with SetWorkflowID(workflow_id):
            work()
        if workflow_id != "finished":
            make_pending(url, workflow_id)
    for workflow_id, (column, value) in others.items():
        rows(url, f"UPDATE workflow_status SET {column} = %s WHERE workflow_uuid = %s", value, workflow_id)
    rows(url, "UPDATE workflow_status SET application_name = NULL WHERE workflow_uuid = 'unowned'")
    relaunch(config)
    for workflow_id in ("mine", "unowned"):
        assert DBOS.retrieve_workflow(workflow_id).get_result() == 1
        row = status_row(url, workflow_id)
        assert row["recovery_attempts"] == 2
        # a claim takes the workflow over (01 R71)
        assert row["application_name"] == "test-app"
    for workflow_id in others:
        row = status_row(url, workflow_id)
        assert (row["status"], row["recovery_attempts"]) == ("PENDING", 1), workflow_id
    assert status_row(url, "finished")["recovery_attempts"] == 1


def test_work_left_to_another_version_is_reported_with_its_count(
    app: type[DBOS], config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R231, R261
    @DBOS.workflow()
    def work() -> int:
        return 1

    for number in range(3):
        with SetWorkflowID(f"old-{number}"):
            work()
        make_pending(config["system_database_url"], f"old-{number}")
    relaunch({**config, "application_version": "v2"})
    assert "3 PENDING workflows belong to application version v1" in caplog.text


def test_recovery_on_demand_takes_over_a_dead_executor(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R157, R154: idempotent
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> int:
        return 2

    for workflow_id in ("dead-1", "dead-2"):
        with SetWorkflowID(workflow_id):
            work()
        make_pending(url, workflow_id)
        rows(url, "UPDATE workflow_status SET executor_id = 'dead' WHERE workflow_uuid = %s", workflow_id)
    handles = DBOS._recover_pending_workflows(["dead", "unknown"])
    assert sorted(handle.workflow_id for handle in handles) == ["dead-1", "dead-2"]
    assert [handle.get_result() for handle in handles] == [2, 2]
    assert DBOS._recover_pending_workflows(["dead"]) == []
    assert status_row(url, "dead-1")["executor_id"] == "test"


def test_recovering_a_live_execution_is_safe(app: type[DBOS], database_url: str, gate: Gate) -> None:
    # 05 R107, R108, 02 R152, R157: it loses ownership and parks; the step runs twice, its record exists once
    entered: list[int] = []

    @DBOS.step(name="step")
    def step() -> str:
        entered.append(1)
        if len(entered) == 1:
            gate.wait()
            return "first"
        return "second"

    @DBOS.workflow()
    def work() -> str:
        return step()

    with SetWorkflowID("alive"):
        live = DBOS.start_workflow(work)
    wait_until(lambda: entered)
    (handle,) = DBOS._recover_pending_workflows(["test"])
    assert handle.get_result() == "second"
    gate.open()
    assert live.get_result() == "second"
    assert step_names(database_url, "alive") == {1: "step"}


def test_recovery_keeps_the_deadline(app: type[DBOS], config: dict[str, Any]) -> None:
    """03 R92, R111."""
    # 02 R125
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> int:
        return 1

    with SetWorkflowID("dated"), SetWorkflowTimeout(3600):
        work()
    before = status_row(url, "dated")
    make_pending(url, "dated")
    relaunch(config)
    assert DBOS.retrieve_workflow("dated").get_result() == 1
    after = status_row(url, "dated")
    for column in ("workflow_timeout_ms", "workflow_deadline_epoch_ms"):
        assert after[column] == before[column] is not None


def test_recovery_restores_the_identity(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R184, R187
    seen: list[tuple[str | None, list[str] | None]] = []

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> None:
        seen.append((DBOS.authenticated_user, DBOS.authenticated_roles))

    with SetWorkflowID("as-alice"), DBOSContextSetAuth("alice", ["admin", "other"]):
        work()
    make_pending(config["system_database_url"], "as-alice")
    relaunch(config)
    DBOS.retrieve_workflow("as-alice").get_result()
    assert seen == [("alice", ["admin", "other"])] * 2


def test_recovery_without_the_role_ends_the_workflow(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R159 (i), R188
    url = config["system_database_url"]

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> None: ...

    with SetWorkflowID("demoted"), DBOSContextSetAuth("alice", ["admin"]):
        work()
    make_pending(url, "demoted")
    rows(url, "UPDATE workflow_status SET authenticated_roles = '[\"user\"]'")
    relaunch({**config, "log_level": "CRITICAL"})
    with pytest.raises(DBOSNotAuthorizedError, match="alice"):
        DBOS.retrieve_workflow("demoted").get_result()
    assert status_row(url, "demoted")["status"] == "ERROR"


def test_recovery_finds_instances_and_classes(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R159 (f), section 17
    url = config["system_database_url"]

    @DBOS.dbos_class("Shop")
    class Shop(DBOSConfiguredInstance):
        def __init__(self, city: str) -> None:
            super().__init__(city)
            self.city = city

        @DBOS.workflow(name="sell")
        def sell(self, thing: str) -> str:
            return f"{thing} in {self.city}"

        @classmethod
        @DBOS.workflow(name="kind")
        def kind(cls) -> str:
            return cls.__name__

    shop = Shop("Berlin")
    with SetWorkflowID("method"):
        assert shop.sell("bread") == "bread in Berlin"
    with SetWorkflowID("class"):
        assert Shop.kind() == "Shop"
    for workflow_id in ("method", "class"):
        make_pending(url, workflow_id)
    relaunch(config)
    assert DBOS.retrieve_workflow("method").get_result() == "bread in Berlin"
    assert DBOS.retrieve_workflow("class").get_result() == "Shop"
    # an instance that is not there leaves the row for a process that has it
    make_pending(url, "method")
    rows(url, "UPDATE workflow_status SET config_name = 'Paris' WHERE workflow_uuid = 'method'")
    relaunch({**config, "log_level": "CRITICAL"})
    wait_until(lambda: status_row(url, "method")["recovery_attempts"] == 3)
    assert status_row(url, "method")["status"] == "PENDING"


def test_inputs_that_cannot_be_read_end_the_workflow(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R159 (b)
    url = config["system_database_url"]

    @DBOS.workflow()
    def work(value: int) -> None: ...

    with SetWorkflowID("unreadable"):
        work(1)
    make_pending(url, "unreadable")
    rows(url, "UPDATE workflow_input SET inputs = 'AAAA' WHERE workflow_uuid = 'unreadable'")
    relaunch({**config, "log_level": "CRITICAL"})
    with pytest.raises(Exception, match=r"pickle|load key|ran out"):
        DBOS.retrieve_workflow("unreadable").get_result()
    assert status_row(url, "unreadable")["status"] == "ERROR"


def test_inputs_of_an_unknown_format_leave_the_workflow_pending(
    app: type[DBOS], config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R159 (b), R253
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> None: ...

    with SetWorkflowID("foreign"):
        work()
    make_pending(url, "foreign")
    rows(url, "UPDATE workflow_status SET serialization = 'martian' WHERE workflow_uuid = 'foreign'")
    relaunch(config)
    wait_until(lambda: "martian" in caplog.text)
    DBOS.destroy()
    assert status_row(url, "foreign")["status"] == "PENDING"


def test_a_row_without_an_id_ends_in_a_recovery_error(app: type[DBOS], config: dict[str, Any]) -> None:
    """03 R96."""
    # 02 R159 (a)
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> None: ...

    with SetWorkflowID("to-be-emptied"):
        work()
    make_pending(url, "to-be-emptied")
    rows(url, "DELETE FROM workflow_input")
    rows(url, "UPDATE workflow_status SET workflow_uuid = ''")
    relaunch({**config, "log_level": "CRITICAL"})
    assert wait_for_status(url, "", "ERROR")
    with pytest.raises(DBOSRecoveryError, match="empty"):
        DBOS.get_result("")


# --- attempts


def test_a_workflow_that_keeps_dying_is_set_aside_after_its_attempts(
    app: type[DBOS], config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R161-R163
    url = config["system_database_url"]
    runs: list[int] = []

    @DBOS.workflow(max_recovery_attempts=2)
    def work() -> str:
        runs.append(1)
        return "done"

    with SetWorkflowID("fatal"):
        work()
    for attempt in (2, 3):
        make_pending(url, "fatal")
        relaunch(config)
        assert wait_for_status(url, "fatal", "SUCCESS")
        assert status_row(url, "fatal")["recovery_attempts"] == attempt
    assert len(runs) == 3
    make_pending(url, "fatal")
    relaunch(config)
    assert wait_for_status(url, "fatal", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    row = status_row(url, "fatal")
    assert len(runs) == 3
    assert (row["owner_xid"], row["queue_name"], row["started_at_epoch_ms"]) == (None, None, None)
    assert row["completed_at"] is not None
    assert rows(url, "SELECT * FROM workflow_output WHERE workflow_uuid = 'fatal'") == []
    assert any(
        "fatal" in record.getMessage() and "continue it with" in record.getMessage()
        for record in list(caplog.records)
        if record.levelname == "ERROR"
    )
    # waiters and direct calls are told
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        DBOS.retrieve_workflow("fatal").get_result()
    with SetWorkflowID("fatal"), pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        work()
    # it can be resumed, with a new budget
    assert DBOS.resume_workflow("fatal").get_result() == "done"
    assert status_row(url, "fatal")["recovery_attempts"] == 1
    assert MaxRecoveryAttemptsExceededError("fatal", 2).max_retries == 2


def test_attempts_may_be_unlimited(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R162
    url = config["system_database_url"]

    @DBOS.workflow(max_recovery_attempts=None)
    def work() -> int:
        return 1

    with SetWorkflowID("stubborn"):
        work()
    make_pending(url, "stubborn")
    rows(url, "UPDATE workflow_status SET recovery_attempts = 5000")
    relaunch(config)
    assert DBOS.retrieve_workflow("stubborn").get_result() == 1


@pytest.mark.parametrize("value", [-1, "3", 2.5, True])
def test_a_bad_number_of_attempts_is_refused_at_decoration(value: Any) -> None:
    from dbos.error import DBOSException

    with pytest.raises(DBOSException, match="max_recovery_attempts"):
        DBOS.workflow(max_recovery_attempts=value)


def test_a_recovery_of_many_takes_each_once(app: type[DBOS], config: dict[str, Any]) -> None:
    # 05 R108, 02 R155, R156
    url = config["system_database_url"]
    lock = threading.Lock()
    runs: dict[str, int] = {}

    @DBOS.workflow()
    def work() -> str:
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        with lock:
            runs[workflow_id] = runs.get(workflow_id, 0) + 1
        return workflow_id

    handles = [DBOS.start_workflow(work) for _ in range(400)]
    ids = [handle.get_result() for handle in handles]
    rows(url, "DELETE FROM workflow_output")
    rows(url, "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'dead'")
    runs.clear()
    relaunch(config)
    for workflow_id in ids:
        assert DBOS.retrieve_workflow(workflow_id).get_result() == workflow_id
    assert runs == dict.fromkeys(ids, 1)
