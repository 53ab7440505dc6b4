"""Cancelling: what changes, who is reached, what a running execution notices (05 section 11.6)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError
from tests.helpers import Gate, rows, status_row, step_names, wait_for_status

from .rows_of import STATUSES, add_workflow, remains
from .sides import Side, done

FINISHED = ("SUCCESS", "ERROR")
CLEARED = ("owner_xid", "queue_name", "deduplication_id", "started_at_epoch_ms")


def all_rows(database_url: str) -> dict[str, dict[str, Any]]:
    return {row["workflow_uuid"]: row for row in rows(database_url, "SELECT * FROM workflow_status")}


def test_a_cancellation_changes_all_that_have_not_finished(sides: list[Side], database_url: str) -> None:
    """05 R81: unknown ones are ignored; finished ones and payloads stay as they are."""
    for side in sides:
        given = {"owner_xid": "own", "queue_name": "nowhere", "started_at_epoch_ms": 6, "completed_at": 7}
        for status in STATUSES:
            workflow_id = f"{side} {status}"
            add_workflow(database_url, workflow_id, status, **given, deduplication_id=workflow_id)
        before = all_rows(database_url)
        ids = [f"{side} {status}" for status in STATUSES]
        assert side.cancel_workflows([*ids, "absent"]) is None
        after = all_rows(database_url)
        for workflow_id, status in zip(ids, STATUSES):
            row = after[workflow_id]
            if status in FINISHED:
                assert row == before[workflow_id], workflow_id
                continue
            assert row["status"] == "CANCELLED", workflow_id
            assert [row[name] for name in CLEARED] == [None] * len(CLEARED), workflow_id
            assert row["completed_at"] == row["updated_at"] > 7, workflow_id
            kept = set(row) - {"status", "completed_at", "updated_at", "request", *CLEARED}
            assert all(row[name] == before[workflow_id][name] for name in kept), workflow_id
        assert {workflow_id: row for workflow_id, row in after.items() if workflow_id not in ids} == {
            workflow_id: row for workflow_id, row in before.items() if workflow_id not in ids
        }
    inputs = rows(database_url, "SELECT inputs FROM workflow_input")
    assert [row["inputs"] for row in inputs] == ["given"] * len(STATUSES) * len(sides)


def test_what_is_cancelled_again_gets_fresh_times_and_stays_so(sides: list[Side], database_url: str) -> None:
    """05 R81: also one that was given up."""
    for side in sides:
        for status in ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
            workflow_id = f"{side} {status}"
            add_workflow(database_url, workflow_id, status, completed_at=7)
            for _ in range(2):
                rows(database_url, "UPDATE workflow_status SET completed_at = 7, updated_at = 7")
                assert side.cancel_workflow(workflow_id) is None
                row = status_row(database_url, workflow_id)
                assert (row["status"], row["completed_at"] > 7, row["updated_at"] > 7) == ("CANCELLED", True, True)


def test_descendants_are_cancelled_only_if_so_wanted(sides: list[Side], database_url: str) -> None:
    """05 R82: also those of finished ones; forks are no children."""
    for side in sides:
        top = f"{side}"
        add_workflow(database_url, top, "PENDING")
        add_workflow(database_url, f"{top}-1", "SUCCESS", parent_workflow_id=top)
        add_workflow(database_url, f"{top}-1-1", "DELAYED", parent_workflow_id=f"{top}-1")
        add_workflow(database_url, f"{top}-1-1-1", "ENQUEUED", parent_workflow_id=f"{top}-1-1", application_name="b")
        add_workflow(database_url, f"{top} fork", "ENQUEUED", forked_from=top)

        def statuses(top: str = top) -> list[str]:
            return [status_row(database_url, f"{top}{end}")["status"] for end in ("", "-1", "-1-1", "-1-1-1", " fork")]

        side.cancel_workflow(top)
        assert statuses() == ["CANCELLED", "SUCCESS", "DELAYED", "ENQUEUED", "ENQUEUED"]
        side.cancel_workflow(top, cancel_children=True)
        assert statuses() == ["CANCELLED", "SUCCESS", "CANCELLED", "CANCELLED", "ENQUEUED"]


def test_a_cancelled_parent_starts_no_children(sides: list[Side], database_url: str) -> None:
    """05 R82: so a cascade is complete."""
    for side in sides:
        entered, gate = Gate(), Gate()

        @DBOS.workflow(name=f"child of {side}")
        def child() -> None: ...

        @DBOS.workflow(name=f"parent of {side}")
        def parent(entered: Gate = entered, gate: Gate = gate, child: Any = child) -> None:
            entered.open()
            gate.wait()
            DBOS.start_workflow(child)

        with SetWorkflowID(f"{side}"):
            handle = DBOS.start_workflow(parent)
        entered.wait()
        side.cancel_workflow(f"{side}", cancel_children=True)
        gate.open()
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            handle.get_result()
        assert remains(database_url, f"{side}-1") == []


def test_a_step_that_runs_is_not_recorded_and_runs_again_after_a_resume(sides: list[Side], database_url: str) -> None:
    """05 R83: it goes on to its end; `except Exception` does not swallow the cancellation behind it."""
    for side in sides:
        entered, gate, runs, after = Gate(), Gate(), list[int](), list[str]()

        @DBOS.workflow(name=f"holding {side}")
        def holding(entered: Gate = entered, gate: Gate = gate, runs: Any = runs, after: Any = after) -> int:
            def held() -> int:
                entered.open()
                gate.wait()
                runs.append(1)
                return len(runs)

            try:
                value = DBOS.run_step({"name": "held"}, held)
                after.append("went on")
            except Exception:
                after.append("swallowed")
                return 0
            return value

        with SetWorkflowID(f"{side}"):
            handle = DBOS.start_workflow(holding)
        entered.wait()
        side.cancel_workflow(f"{side}")
        assert (runs, status_row(database_url, f"{side}")["status"]) == ([], "CANCELLED")
        gate.open()
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            handle.get_result()
        assert (runs, after, step_names(database_url, f"{side}")) == ([1], [], {})
        side.resume_workflow(f"{side}")
        assert DBOS.get_result(f"{side}") == 2
        assert after == ["went on"]


def test_a_cancellation_before_the_outcome_wins_and_every_handle_says_so(sides: list[Side], database_url: str) -> None:
    """05 R83, R104: a body without further operations loses at its outcome."""
    for side in sides:
        entered, gate = Gate(), Gate()

        @DBOS.workflow(name=f"computing {side}")
        def computing(entered: Gate = entered, gate: Gate = gate) -> str:
            entered.open()
            gate.wait()
            return "refused"

        with SetWorkflowID(f"{side}"):
            own = DBOS.start_workflow(computing)
        other = side.retrieve_workflow(f"{side}")
        entered.wait()
        side.cancel_workflow(f"{side}")
        gate.open()
        for wait in (own.get_result, lambda other=other: done(other.get_result())):
            with pytest.raises(DBOSAwaitedWorkflowCancelledError) as cancelled:
                wait()
            assert cancelled.value.workflow_id == f"{side}"
        assert status_row(database_url, f"{side}")["status"] == "CANCELLED"
        assert "workflow_output" not in remains(database_url, f"{side}")


def test_an_outcome_before_the_cancellation_wins(sides: list[Side], database_url: str) -> None:
    """05 R81, R104."""

    @DBOS.workflow(name="quick")
    def quick() -> str:
        return "done"

    for side in sides:
        with SetWorkflowID(f"{side}"):
            quick()
        before = status_row(database_url, f"{side}")
        side.cancel_workflow(f"{side}")
        assert status_row(database_url, f"{side}") == before
        assert done(side.retrieve_workflow(f"{side}").get_result()) == "done"


def test_a_deadline_cancels_own_and_unowned_work_and_no_children(app: type[DBOS], database_url: str) -> None:
    """05 R84: what waits or is delayed too; a child without a deadline of its own goes on."""
    due = {"workflow_deadline_epoch_ms": 1, "queue_name": "nowhere"}
    add_workflow(database_url, "foreign", "ENQUEUED", application_name="other-app", **due)
    add_workflow(database_url, "child", "ENQUEUED", parent_workflow_id="ENQUEUED", queue_name="nowhere")
    add_workflow(database_url, "later", "ENQUEUED", **due | {"workflow_deadline_epoch_ms": 2**50})
    add_workflow(database_url, "unowned", "ENQUEUED", application_name=None, **due)
    for status in ("PENDING", "ENQUEUED", "DELAYED"):
        add_workflow(database_url, status, status, **due, deduplication_id=status, started_at_epoch_ms=6)
    for workflow_id in ("unowned", "PENDING", "ENQUEUED", "DELAYED"):
        wait_for_status(database_url, workflow_id, "CANCELLED")
        row = status_row(database_url, workflow_id)
        assert [row[name] for name in CLEARED] == [None] * len(CLEARED)
        assert row["completed_at"] == row["updated_at"] > 7
    assert [status_row(database_url, name)["status"] for name in ("foreign", "child", "later")] == ["ENQUEUED"] * 3
