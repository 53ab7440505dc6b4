"""Resuming: what changes, what goes on, and several who manage one workflow (05 sections 11.7 and 11.17)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.api.runtime import state
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSNonExistentWorkflowError
from tests.helpers import Gate, relaunch, rows, status_row, step_names, wait_until

from .rows_of import LATER_MS, STATUSES, add_workflow
from .sides import Side, done
from .test_cancelling import FINISHED, all_rows
from .test_forking import declare, executed, run

Config = dict[str, Any]
INTERNAL = "_dbos_internal_queue"
CLEARED = ("owner_xid", "workflow_deadline_epoch_ms", "deduplication_id", "started_at_epoch_ms", "completed_at")


@pytest.mark.parametrize("queue_name", ["elsewhere", None])
def test_a_resume_changes_all_that_have_not_finished(
    sides: list[Side], database_url: str, queue_name: str | None
) -> None:
    """05 R86, R87: what waits or runs too; priority, partition, timeout and version stay."""
    for side in sides:
        ids = [f"{side} {status}" for status in STATUSES]
        for workflow_id, status in zip(ids, STATUSES):
            place = None if status in ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED") else "nowhere"
            given = dict.fromkeys(("started_at_epoch_ms", "completed_at", "workflow_deadline_epoch_ms"), LATER_MS)
            given |= {"priority": 3, "workflow_timeout_ms": 5000, "recovery_attempts": 50}
            texts = {"owner_xid": "own", "deduplication_id": workflow_id, "queue_partition_key": "p"}
            add_workflow(database_url, workflow_id, status, queue_name=place, **given, **texts)
        before = all_rows(database_url)
        handles = side.resume_workflows(ids, queue_name=queue_name)
        assert [handle.workflow_id for handle in handles] == ids
        after = all_rows(database_url)
        for workflow_id, status in zip(ids, STATUSES):
            row = after[workflow_id]
            if status in FINISHED:
                assert row == before[workflow_id], workflow_id
                continue
            expected = ("ENQUEUED", queue_name or INTERNAL, 0)
            assert (row["status"], row["queue_name"], row["recovery_attempts"]) == expected, workflow_id
            assert [row[name] for name in CLEARED] == [None] * len(CLEARED), workflow_id
            assert row["updated_at"] > 7
            kept = set(row) - {"status", "queue_name", "recovery_attempts", "updated_at", "request", *CLEARED}
            assert all(row[name] == before[workflow_id][name] for name in kept), workflow_id


def test_nothing_is_resumed_when_ids_are_missing_and_all_are_named(sides: list[Side], database_url: str) -> None:
    """05 R86."""
    for side in sides:
        add_workflow(database_url, f"{side}", "CANCELLED")
        before = status_row(database_url, f"{side}")
        with pytest.raises(DBOSNonExistentWorkflowError) as error:
            side.resume_workflows(["x", f"{side}", "y"])
        assert (error.value.destination, error.value.destination_id) == ("target", "x, y")
        with pytest.raises(DBOSNonExistentWorkflowError):
            side.resume_workflow("x")
        assert status_row(database_url, f"{side}") == before


def test_resuming_what_has_finished_gives_its_outcome(sides: list[Side]) -> None:
    """05 R86."""
    three = declare()

    @DBOS.workflow(name="failing")
    def failing() -> None:
        raise ValueError("failed")

    for side in sides:
        run(three, f"{side}", "x")
        with pytest.raises(ValueError, match="failed"):
            run(failing, f"{side} failed")
        executed.clear()
        good, bad = side.resume_workflows([f"{side}", f"{side} failed"])
        assert done(good.get_result()) == "xaxbxc"
        with pytest.raises(ValueError, match="failed"):
            done(bad.get_result())
        assert executed == []


def test_recorded_steps_are_not_repeated(sides: list[Side], database_url: str) -> None:
    """05 R87."""
    three = declare()
    for side in sides:
        run(three, f"{side}", "x")
        rows(database_url, "DELETE FROM workflow_output")
        rows(database_url, "DELETE FROM operation_outputs WHERE workflow_uuid = %s AND function_id = 3", f"{side}")
        rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = %s", f"{side}")
        executed.clear()
        assert done(side.resume_workflow(f"{side}").get_result()) == "xaxbxc"
        assert executed == [f"{side} xc"]


def test_only_a_worker_of_its_version_takes_what_is_resumed(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R87: the version stays, and a queue that nobody serves is no error."""
    three = declare()
    run(three, "w", "x")
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', application_version = 'v2'")
    DBOS.resume_workflow("w")
    # What comes behind it in the same queue is done: this one was passed over.
    run(three, "marker", "x")
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'marker'")
    DBOS.resume_workflow("marker").get_result()
    assert status_row(database_url, "w")["status"] == "ENQUEUED"
    relaunch(config | {"application_version": "v2"})
    assert DBOS.get_result("w") == "xaxbxc"
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'w'")
    DBOS.resume_workflow("w", queue_name="nobody-serves-this")
    assert status_row(database_url, "w")["queue_name"] == "nobody-serves-this"


class Relay:
    """A workflow whose executions wait one by one, each at its own gate in a step."""

    def __init__(self, name: str) -> None:
        self.entered = [Gate() for _ in range(4)]
        self.gates = [Gate() for _ in range(4)]
        self.begun = 0

        @DBOS.workflow(name=name)
        def relay() -> int:
            number = self.begun
            self.begun += 1

            def held() -> int:
                self.entered[number].open()
                self.gates[number].wait()
                return number

            return DBOS.run_step({"name": "held"}, held)

        self.function = relay


def test_of_two_resumes_each_brings_an_execution_and_the_last_one_counts(sides: list[Side], database_url: str) -> None:
    """05 R87, R106, R107: all handles deliver the same outcome, and the steps of older executions are refused."""
    for side in sides[::2]:
        relay = Relay(f"relay {side}")
        with SetWorkflowID(f"{side}"):
            handles: list[Any] = [DBOS.start_workflow(relay.function)]
        tokens = []
        for number in (0, 1):
            relay.entered[number].wait()
            tokens.append(status_row(database_url, f"{side}")["owner_xid"])
            handles.append(side.resume_workflow(f"{side}"))
        relay.entered[2].wait()
        tokens.append(status_row(database_url, f"{side}")["owner_xid"])
        assert len(set(tokens)) == 3
        for number in (0, 1):
            relay.gates[number].open()
        assert step_names(database_url, f"{side}") == {}
        relay.gates[2].open()
        assert [done(handle.get_result()) for handle in handles] == [2, 2, 2]
        assert step_names(database_url, f"{side}") == {1: "held"}


def test_a_recovery_during_a_step_takes_the_workflow_away_once(app: type[DBOS], database_url: str) -> None:
    """05 R107, R108: doing it again is harmless, as nothing is left that a dead process owns."""
    relay = Relay("relay")
    with SetWorkflowID("w"):
        first = DBOS.start_workflow(relay.function)
    relay.entered[0].wait()
    assert state.instance is not None
    engine = state.instance.engine
    assert engine is not None
    token = status_row(database_url, "w")["owner_xid"]
    taken = [engine.store.requeue_pending("test", "v1", "test-app") for _ in range(3)]
    assert taken == [["w"], [], []]
    engine.note_changed()
    relay.entered[1].wait()
    assert status_row(database_url, "w")["owner_xid"] not in (token, None)
    relay.gates[0].open()
    relay.gates[1].open()
    assert (first.get_result(), relay.begun) == (1, 2)


def test_what_is_cancelled_or_moved_before_its_claim_is_not_claimed(sides: list[Side], database_url: str) -> None:
    """05 R105: a claim takes what is still enqueued, and on that queue."""
    three = declare()
    DBOS.register_queue("paused", global_concurrency=0)
    for side in sides:
        handles = []
        for name in ("cancelled", "moved", "kept"):
            with SetWorkflowID(f"{side} {name}"):
                handles.append(DBOS.enqueue_workflow("paused", three, "x"))
        side.cancel_workflow(f"{side} cancelled")
        side.resume_workflow(f"{side} moved", queue_name="nowhere")
    executed.clear()
    queue = DBOS.retrieve_queue("paused")
    assert queue is not None
    queue.set_global_concurrency(None)
    for side in sides:
        assert DBOS.get_result(f"{side} kept") == "xaxbxc"
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            DBOS.get_result(f"{side} cancelled")
        assert status_row(database_url, f"{side} moved")["status"] == "ENQUEUED"
    assert {line.rpartition(" ")[0] for line in executed} == {f"{side} kept" for side in sides}


@pytest.mark.parametrize("change", ["cancelled", "resumed", "deleted"])
def test_what_is_lost_between_its_claim_and_its_start_records_nothing_and_frees_its_slot(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """05 R105 in ours: the claim gives all that the start needs, so nobody looks again; the first operation does."""
    assert state.instance is not None
    engine = state.instance.engine
    assert engine is not None
    ran: list[str | None] = []

    @DBOS.workflow()
    def wf() -> int:
        DBOS.run_step({"name": "first"}, lambda: None)
        ran.append(DBOS.workflow_id)
        return 1

    store: Any = engine.store
    real = store.claim_workflows
    changes: dict[str, Any] = {
        "cancelled": lambda: store.cancel_workflows(["w"], 1),
        "resumed": lambda: store.resume_workflows(["w"], "nowhere", 1),
        "deleted": lambda: store.delete_workflows(["w"]),
    }
    lost: list[Any] = []

    def claim(*args: Any, **kwargs: Any) -> Any:
        claimed = real(*args, **kwargs)
        if claimed and not lost:
            lost.append(claimed)
            changes[change]()
        return claimed

    monkeypatch.setattr(store, "claim_workflows", claim)
    DBOS.register_queue("mail", worker_concurrency=1)
    with SetWorkflowID("w"):
        DBOS.enqueue_workflow("mail", wf)
    wait_until(lambda: lost)
    with SetWorkflowID("v"):
        assert DBOS.enqueue_workflow("mail", wf).get_result() == 1
    assert ran == ["v"]
    assert step_names(database_url, "w") == {}
