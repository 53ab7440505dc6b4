"""Records for the tests of the store and the journal, with everything filled in that a test does not care about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dbos.records import ParentStep, StepCompleted, StreamEnd, StreamWritten, WorkflowFinished, WorkflowStarted
from dbos.storage.database import SqlStore
from dbos.types import INTERNAL_QUEUE_NAME, Claim, ClaimedWorkflow, QueueConfig

LARGEST = 2**63 - 1
TABLES = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
# Gone with their workflow, where foreign keys are enforced.
EFFECT_TABLES = ("notifications", "workflow_events", "workflow_events_history", "streams")


class Rows(Protocol):
    """Runs SQL with `%s` parameters and gives the rows by column name."""

    def __call__(self, sql: str, *parameters: Any) -> list[dict[str, Any]]: ...


def start(workflow_id: str, **given: Any) -> WorkflowStarted:
    """A workflow that its creator executes at once, owned by the token `token-<id>`."""
    fields: dict[str, Any] = {
        "status": "PENDING",
        "name": "checkout",
        "class_name": None,
        "config_name": None,
        "inputs": f"inputs of {workflow_id}",
        "serialization": "py_pickle",
        "creator_token": f"token-{workflow_id}",
        "owner_token": f"token-{workflow_id}",
        "executor_id": "test",
        "application_version": "v1",
        "application_id": "",
        "application_name": "test-app",
        "recovery_attempts": 1,
    }
    return WorkflowStarted(workflow_id, **(fields | given))


def child(workflow_id: str, parent_id: str, step_id: int, **given: Any) -> WorkflowStarted:
    """A child that a step of the parent starts; `reject_existing` and `parent_token` go to the parent's step."""
    step = ParentStep(
        parent_id,
        given.pop("parent_token", f"token-{parent_id}"),
        step_id,
        100,
        200,
        given.pop("reject_existing", False),
    )
    return start(workflow_id, parent=step, **given)


def step(workflow_id: str, step_id: int, **given: Any) -> StepCompleted:
    """A step of the execution that `start` made."""
    fields: dict[str, Any] = {
        "owner_token": f"token-{workflow_id}",
        "name": "charge",
        "output": f"output of {workflow_id}/{step_id}",
        "error": None,
        "serialization": "py_pickle",
        "started_at_ms": 1_000 + step_id,
        "completed_at_ms": 2_000 + step_id,
        "application_name": "test-app",
    }
    return StepCompleted(workflow_id, step_id=step_id, **(fields | given))


def entry(workflow_id: str, step_id: int, value: str, **given: Any) -> StreamWritten:
    """A stream entry of the execution that `start` made, in workflow code; `in_step` makes it one of a step."""
    token = given.pop("owner_token", f"token-{workflow_id}")
    row = step(workflow_id, step_id, owner_token=token, output=None, name="DBOS.writeStream", serialization=None)
    recorded = None if given.pop("in_step", False) else row
    end = given.pop("end", None) or StreamEnd()
    return StreamWritten(workflow_id, token, step_id, given.pop("key", "k"), value, "portable_json", end, recorded)


def finish(workflow_id: str, **given: Any) -> WorkflowFinished:
    """The success of the execution that `start` made."""
    fields: dict[str, Any] = {
        "owner_token": f"token-{workflow_id}",
        "status": "SUCCESS",
        "output": f"result of {workflow_id}",
        "error": None,
        "serialization": "py_pickle",
    }
    return WorkflowFinished(workflow_id, **(fields | given))


def claim(store: SqlStore, token: str, **given: Any) -> list[ClaimedWorkflow]:
    """A claim by the application of `start`, from the internal queue, at the time 1,000,000."""
    fields: dict[str, Any] = {
        "queue_name": INTERNAL_QUEUE_NAME,
        "executor_id": "claimer",
        "application_version": "v1",
        "application_name": "test-app",
        "is_latest": False,
        "limit": 100,
        "now_ms": 1_000_000,
    }
    fields |= given
    queue, now_ms = QueueConfig(fields.pop("queue_name")), fields.pop("now_ms")
    return store.claim_workflows(queue, Claim(token, **fields), now_ms)


def ids(workflows: Sequence[ClaimedWorkflow]) -> list[str]:
    return [workflow.workflow_id for workflow in workflows]


def enqueue(store: SqlStore, read: Rows, *workflow_ids: str, **given: Any) -> None:
    """Workflows that wait on the internal queue, all with the same priority (`priority`) and age (`created_at`)."""
    priority, created_at = given.pop("priority", 0), given.pop("created_at", 500)
    queue_name = given.pop("queue_name", INTERNAL_QUEUE_NAME)
    given = {"status": "ENQUEUED", "owner_token": None, "executor_id": None} | given
    store.commit([start(workflow_id, **given) for workflow_id in workflow_ids])
    for workflow_id in workflow_ids:
        read(
            "UPDATE workflow_status SET queue_name = %s, priority = %s, created_at = %s WHERE workflow_uuid = %s",
            queue_name,
            priority,
            created_at,
            workflow_id,
        )


def everything(read: Rows) -> dict[str, list[str]]:
    """All rows of the workflows, comparable."""
    return {table: sorted(repr(sorted(row.items())) for row in read(f"SELECT * FROM {table}")) for table in TABLES}


def column(read: Rows, name: str, *workflow_ids: str) -> list[Any]:
    """One column of some workflows, in the order of the ids given."""
    return [read(f"SELECT {name} FROM workflow_status WHERE workflow_uuid = %s", w)[0][name] for w in workflow_ids]
