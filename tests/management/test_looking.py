"""Looking at workflows: steps, status, handles, results (05 sections 11.2, 11.4 and 11.5)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID, WorkflowStatus
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSException,
    DBOSNonExistentWorkflowError,
)
from tests.helpers import Gate, rows, wait_until

from .rows_of import add_workflow
from .sides import Side, done
from .test_forking import declare, run

KEYS = ["function_id", "function_name", "output", "error", "child_workflow_id", "child_shard_key"]
KEYS += ["started_at_epoch_ms", "completed_at_epoch_ms"]


def test_the_steps_of_a_workflow_are_listed_in_order(
    sides: list[Side], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """05 R71, R77: what cannot be read back is shown as it is stored."""

    @DBOS.step(name="failing")
    def failing() -> None:
        raise ValueError("no")

    @DBOS.workflow(name="stepping")
    def stepping() -> int:
        with pytest.raises(ValueError, match="no"):
            failing()
        return sum(DBOS.run_step({"name": f"s{number}"}, lambda n=number: n) for number in range(3))

    run(stepping, "w")
    for side in sides:
        steps = side.list_workflow_steps("w")
        assert [list(step) for step in steps] == [KEYS] * 4
        assert [(step["function_id"], step["function_name"]) for step in steps] == [
            *[(1, "failing"), (2, "s0"), (3, "s1"), (4, "s2")]
        ]
        assert [step["output"] for step in steps] == [None, 0, 1, 2]
        assert (repr(steps[0]["error"]), steps[1]["error"]) == ("ValueError('no')", None)
        assert all(0 < step["started_at_epoch_ms"] <= step["completed_at_epoch_ms"] for step in steps)
        without = side.list_workflow_steps("w", load_output=False)
        assert [(step["output"], step["error"]) for step in without] == [(None, None)] * 4
        assert without[2] == steps[2] | {"output": None}
        assert side.list_workflow_steps("w", limit=2, offset=1) == steps[1:3]
        assert [step["function_id"] for step in side.list_workflow_steps("w", offset=2)] == [3, 4]
        assert side.list_workflow_steps("w", limit=0) == side.list_workflow_steps("absent") == []
    rows(database_url, "UPDATE operation_outputs SET output = 'out' WHERE function_id = 2")
    rows(database_url, "UPDATE operation_outputs SET error = 'err' WHERE function_id = 1")
    for side in sides:
        steps = side.list_workflow_steps("w")
        assert (steps[0]["error"], steps[1]["output"], steps[2]["output"]) == ("err", "out", 1)
    assert "A payload of workflow w cannot be read back" in caplog.text


def test_pages_of_steps_without_a_meaning_are_refused(sides: list[Side]) -> None:
    """05 R77: by name, as in listings."""
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"limit": "1"}, {"limit": True}, {"offset": -1}, {"offset": 1.5}]
    for given in (*wrong, {"load_output": 1}):
        for side in sides:
            with pytest.raises(ValueError, match=next(iter(given))):
                side.list_workflow_steps("w", **given)


def test_a_direct_child_call_is_two_steps_and_a_start_one(sides: list[Side]) -> None:
    """05 R78, R99: the start, and the result with the time of the whole call."""

    @DBOS.workflow(name="child")
    def child(number: int) -> int:
        gate.wait()
        return number

    @DBOS.workflow(name="parent")
    def parent() -> int:
        direct = child(1)
        handle = DBOS.start_workflow(child, 2)
        return direct + handle.get_result()

    gate = Gate()
    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    wait_until(lambda: DBOS.list_workflow_steps("p"))
    gate.open()
    assert handle.get_result() == 3
    for side in sides:
        steps = side.list_workflow_steps("p")
        assert [(step["function_name"], step["child_workflow_id"], step["output"]) for step in steps] == [
            ("child", "p-1", None),
            ("DBOS.getResult", "p-1", 1),
            ("child", "p-3", None),
            ("DBOS.getResult", "p-3", 2),
        ]
        assert steps[0]["completed_at_epoch_ms"] <= steps[1]["completed_at_epoch_ms"]
        assert abs(steps[0]["started_at_epoch_ms"] - steps[1]["started_at_epoch_ms"]) < 5_000
        assert [status.workflow_id for status in side.list_workflows(parent_workflow_id="p")] == ["p-1", "p-3"]
        assert [status.workflow_id for status in side.list_workflows(has_parent=False)] == ["p"]


def test_a_status_has_every_attribute(sides: list[Side], database_url: str) -> None:
    """05 section 11.2, R71."""
    columns: dict[str, Any] = {
        "class_name": "c",
        "config_name": "i",
        "authenticated_user": "ann",
        "assumed_role": "admin",
        "authenticated_roles": '["admin", "user"]',
        "completed_at": 8,
        "queue_name": "mail",
        "executor_id": "e",
        "application_id": "a",
        "recovery_attempts": 2,
        "workflow_timeout_ms": 9,
        "workflow_deadline_epoch_ms": 10,
        "deduplication_id": "d",
        "queue_partition_key": "p",
        "priority": 4,
        "forked_from": "x",
        "parent_workflow_id": "y",
        "schedule_name": "s",
        "was_forked_from": True,
        "started_at_epoch_ms": 6,
        "delay_until_epoch_ms": 3,
        "attributes": '{"k": 1}',
        "serialization": "portable_json",
    }
    add_workflow(database_url, "w", "SUCCESS", **columns)
    rows(database_url, """UPDATE workflow_input SET inputs = '{"positionalArgs": [1], "namedArgs": {"b": 2}}'""")
    rows(database_url, "INSERT INTO workflow_output (workflow_uuid, output) VALUES ('w', '5')")
    expected = {name: value for name, value in columns.items() if name not in ("serialization", "application_id")}
    for new, old in (("dequeued_at", "started_at_epoch_ms"),):
        expected[new] = expected.pop(old)
    expected |= {"authenticated_roles": ["admin", "user"], "attributes": {"k": 1}, "app_id": "a"}
    expected |= {"workflow_id": "w", "status": "SUCCESS", "name": "f", "created_at": 5, "updated_at": 7, "output": 5}
    expected |= {"app_version": "other", "application_name": "test-app", "error": None}
    expected |= {"shard_key": None, "parent_shard_key": None}
    for side in sides:
        (status,) = side.list_workflows()
        found = dict(vars(status))
        arguments = found.pop("input")
        assert (list(arguments["args"]), arguments["kwargs"]) == ([1], {"b": 2})
        assert found == expected
        assert set(vars(status)) == set(WorkflowStatus.__annotations__)
        assert vars(done(side.retrieve_workflow("w").get_status())) == vars(status)


def test_attributes_that_are_null_are_none(sides: list[Side], database_url: str) -> None:
    """05 section 11.2."""
    for workflow_id, attributes in (("sql", None), ("json", "null")):
        add_workflow(database_url, workflow_id, "ERROR", attributes=attributes)
    for side in sides:
        assert [status.attributes for status in side.list_workflows()] == [None, None]


def test_an_unknown_workflow_has_no_handle_and_no_status(sides: list[Side]) -> None:
    """05 R79."""
    for side in sides:
        with pytest.raises(DBOSNonExistentWorkflowError) as error:
            side.retrieve_workflow("absent")
        assert (error.value.destination, error.value.destination_id) == ("target", "absent")
        if not side.is_client:
            assert side.get_workflow_status("absent") is None
            handle = side.retrieve_workflow("absent", existing_workflow=False)
            with pytest.raises(DBOSNonExistentWorkflowError):
                done(handle.get_status())


def test_a_handle_gives_its_id_its_status_and_the_outcome(sides: list[Side], database_url: str) -> None:
    """05 R79, R80."""
    three = declare()

    @DBOS.workflow(name="failing")
    def failing() -> None:
        raise ValueError("failed")

    run(three, "w", "x")
    with pytest.raises(ValueError, match="failed"):
        run(failing, "f")
    add_workflow(database_url, "c", "CANCELLED")
    add_workflow(database_url, "m", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    stopped: list[tuple[str, type[Exception]]] = [
        *[("c", DBOSAwaitedWorkflowCancelledError), ("m", DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded)],
        ("f", ValueError),
    ]
    for side in sides:
        handle = side.retrieve_workflow("w")
        assert (handle.workflow_id, handle.get_workflow_id(), handle.shard_key) == ("w", "w", None)
        assert done(handle.get_status()).status == "SUCCESS"
        assert done(handle.get_result(polling_interval_sec=0.1)) == "xaxbxc"
        for workflow_id, error in stopped:
            with pytest.raises(error):
                done(side.retrieve_workflow(workflow_id).get_result())


def test_a_local_handle_of_what_was_cancelled_and_resumed_waits_for_the_new_outcome(app: type[DBOS]) -> None:
    """05 R80."""
    entered, gates, runs = [Gate(), Gate()], [Gate(), Gate()], list[int]()

    @DBOS.workflow()
    def wf() -> int:
        number = len(runs)
        runs.append(number)
        entered[number].open()
        gates[number].wait()
        return number

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered[0].wait()
    DBOS.cancel_workflow("w")
    DBOS.resume_workflow("w")
    entered[1].wait()
    gates[0].open()
    gates[1].open()
    assert handle.get_result() == 1


def test_the_first_that_ends_is_found_whatever_its_end(sides: list[Side], database_url: str) -> None:
    """05 R80: an end is any terminal state; no handles, or one twice, are refused."""
    add_workflow(database_url, "waits", "ENQUEUED")
    for status in ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
        add_workflow(database_url, status, status)
        for side in sides:
            handles = [side.retrieve_workflow(workflow_id) for workflow_id in ("waits", status)]
            assert side.wait_first(handles) is handles[1]
    for side in sides:
        handle = side.retrieve_workflow("waits")
        for none in ([], [handle, handle]):
            with pytest.raises(ValueError, match="handle"):
                side.wait_first(none)


def test_who_waits_by_a_client_for_what_is_not_there_yet_gets_its_result(app: type[DBOS], database_url: str) -> None:
    """05 R80: no row is no end; a deleted workflow is one in ours."""
    three = declare()
    got: list[Any] = []
    with DBOSClient(system_database_url=database_url, application_name="test-app", use_listen_notify=True) as client:
        run(three, "w", "x")
        handle = client.retrieve_workflow("w")
        DBOS.rewind_workflow("w", queue_name="nowhere")
        thread = threading.Thread(target=lambda: got.append(handle.get_result()))
        thread.start()
        client.resume_workflow("w")
        thread.join(60)
        assert got == ["xaxbxc"]
        client.delete_workflow("w")
        with pytest.raises(DBOSException):
            handle.get_status()
