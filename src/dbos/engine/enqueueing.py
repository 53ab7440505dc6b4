"""Enqueueing: write a new workflow that waits on a queue, for any process that serves it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..error import DBOSException, DBOSQueueDeduplicatedError
from ..ids import new_id
from ..records import DeduplicationTaken, Enqueue, ExistingWorkflow, QueuePlace, WorkflowStarted
from ..serialization import WorkflowSerializationFormat
from .context import Context, Options, current_context
from .execution import Execution
from .plans import Plan
from .starting import MakeRecord, Target, attach, check_record, create_plan, encode_inputs, start_record

if TYPE_CHECKING:
    from .core import Core
    from .engine import Engine


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """A workflow by name, with what it is called with: its function need not exist in this process."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    class_name: str | None = None
    config_name: str | None = None
    serialization_type: WorkflowSerializationFormat | None = None
    application_name: str | None = None


def enqueue_plan(engine: Engine, queue_name: str, target: Target) -> Plan[str]:
    """Enqueue a registered workflow with the ambient options; the id of the workflow that waits."""
    options = (current_context() or Context()).options
    make_record = record_of_target(engine, queue_name, target, options)
    return (yield from _enqueue(engine, target.info.name, make_record, options, None, False))


def record_of_target(engine: Engine, queue_name: str, target: Target, options: Options) -> MakeRecord:
    """Makes the record of a registered workflow that waits on a queue, with these options."""

    def make_record(workflow_id: str, context: Context, parent: Execution | None) -> WorkflowStarted:
        record, _ = start_record(engine, target, workflow_id, context, parent)
        return waiting_record(record, queue_name, options)

    return make_record


def enqueue_named_plan(
    engine: Core,
    queue_name: str,
    target: NamedTarget,
    options: Options,
    *,
    workflow_id: str | None,
    reject: bool,
    roles: tuple[str | None, list[str] | None] | None,
    step_id: int | None = None,
) -> Plan[str]:
    """Enqueue a workflow by name; `options` are complete, `roles` the user and roles if they are not ambient.

    `step_id` is the id of the step in the caller, when it has drawn one and found no record there.
    """
    make_record = record_of_name(engine, queue_name, target, options, roles)
    return (yield from _enqueue(engine, target.name, make_record, options, workflow_id, reject, step_id))


def record_of_name(
    engine: Core,
    queue_name: str,
    target: NamedTarget,
    options: Options,
    roles: tuple[str | None, list[str] | None] | None,
) -> MakeRecord:
    """Makes the record of a workflow, given by name, that waits on a queue; arguments as `enqueue_named_plan`."""
    format_name = engine.payloads.format_for(target.serialization_type)

    def make_record(workflow_id: str, context: Context, parent: Execution | None) -> WorkflowStarted:
        inputs = encode_inputs(engine, target.name, f"id {workflow_id}", target.args, target.kwargs, format_name)
        identity = context.identity
        user, user_roles = (identity.user, identity.roles) if roles is None else roles
        timeout = options.timeout
        record = WorkflowStarted(
            workflow_id=workflow_id,
            status="ENQUEUED",
            name=target.name,
            class_name=target.class_name,
            config_name=target.config_name,
            inputs=inputs,
            serialization=format_name,
            creator_token=new_id(),
            owner_token=None,
            executor_id=None,
            application_version=options.app_version,
            application_id=engine.application_id,
            application_name=target.application_name or engine.application_name,
            recovery_attempts=0,
            timeout_ms=None if timeout is None else timeout.milliseconds,
            deadline_ms=parent.deadline_ms if parent is not None and timeout is None else None,
            authenticated_user=user,
            authenticated_roles=json.dumps(user_roles) if user_roles else None,
            # Named work starts under the roles of its user, whatever role the caller has assumed (03 R39).
            assumed_role=None,
            attributes=json.dumps(options.attributes) if options.attributes else None,
        )
        return waiting_record(record, queue_name, options)

    return make_record


def _enqueue(
    engine: Core,
    name: str,
    make_record: MakeRecord,
    options: Options,
    workflow_id: str | None,
    reject: bool,
    step_id: int | None = None,
) -> Plan[str]:
    created = yield from create_plan(
        engine,
        name,
        make_record,
        step_id=step_id,
        workflow_id=workflow_id,
        reject=reject,
        attach_to_holder=options.duplication_policy == "return-existing",
    )
    if created.record is not None:
        note_enqueued(engine, [created.record])
    return created.workflow_id


def enqueue_within(
    engine: Core, connection: Any, make_record: MakeRecord, workflow_id: str | None, reject: bool
) -> str:
    """Enqueue a workflow in the transaction of a SQLAlchemy connection, once and at once; its id.

    Nobody is told here, since the caller has yet to commit; other processes are by the commit itself.
    """
    record = make_record(workflow_id or new_id(), Context(), None)
    answer = engine.store.enqueue_within(connection, Enqueue(record, "reject" if reject else "attach"))
    if isinstance(answer, ExistingWorkflow):
        for _ in attach(record, answer, reject, None, 0):
            raise AssertionError("a call outside of workflows records nothing")
    elif isinstance(answer, DeduplicationTaken):
        assert record.queue is not None
        raise DBOSQueueDeduplicatedError(
            record.workflow_id, record.queue.queue_name, record.queue.deduplication_id or ""
        )
    return record.workflow_id


def note_enqueued(engine: Core, records: Sequence[WorkflowStarted]) -> None:
    """Workflows were put on queues: those who serve them look."""
    queue_names: set[str] = set()
    places: set[tuple[str, bool, str | None]] = set()
    due_ms: int | None = None
    for record in records:
        queue = record.queue
        assert queue is not None
        places.add((queue.queue_name, queue.partition_key is not None, record.application_name))
        if queue.delay_until_ms is None:
            queue_names.add(queue.queue_name)
        else:
            due_ms = queue.delay_until_ms if due_ms is None else min(due_ms, queue.delay_until_ms)
    for place in places:
        engine.note_placed(*place)
    if due_ms is not None:
        engine.note_delayed(due_ms)
    if queue_names:
        engine.note_queued(queue_names)


def waiting_record(record: WorkflowStarted, queue_name: str, options: Options) -> WorkflowStarted:
    """Turn the record of a start into that of a workflow on a queue."""
    record.status = "ENQUEUED" if options.delay_until_epoch_ms is None else "DELAYED"
    record.owner_token = None
    record.recovery_attempts = 0
    if options.timeout is not None:
        # The time in the queue does not count: the claim makes the deadline.
        record.deadline_ms = None
    record.queue = QueuePlace(
        queue_name,
        priority=options.priority or 0,
        deduplication_id=options.deduplication_id,
        partition_key=options.queue_partition_key,
        delay_until_ms=options.delay_until_epoch_ms,
    )
    check_record(record)
    return record


def check_options(options: Options | Mapping[str, Any]) -> None:
    """Refuse combinations of enqueue options that have no meaning; DBOSException, before anything is written."""
    given = (
        options
        if isinstance(options, Mapping)
        else {
            "deduplication_id": options.deduplication_id,
            "duplication_policy": options.duplication_policy,
            "queue_partition_key": options.queue_partition_key,
        }
    )
    policy = given.get("duplication_policy")
    if policy not in (None, "reject", "return-existing"):
        raise DBOSException(f"duplication_policy must be 'reject' or 'return-existing', not {policy!r}")
    if policy == "return-existing" and given.get("deduplication_id") is None:
        raise DBOSException("duplication_policy 'return-existing' needs a deduplication_id")
    if given.get("deduplication_id") and given.get("queue_partition_key"):
        raise DBOSException(
            f"A deduplication id ({given['deduplication_id']!r}) cannot be used together with a queue partition key "
            f"({given['queue_partition_key']!r})"
        )
