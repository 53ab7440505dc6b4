"""Starting: write a new workflow, to be executed here at once or to wait on a queue."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..error import (
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSQueueDeduplicatedError,
    DBOSStepNondeterminismError,
    DBOSUnexpectedStepError,
    DBOSWorkflowIDInUseError,
)
from ..ids import new_id
from ..logs import logger
from ..records import (
    DeduplicationTaken,
    ExistingWorkflow,
    ParentStep,
    QueuePlace,
    Verdict,
    WorkflowStarted,
)
from ..serialization import check_text, explain
from ..storage.store import StoreFailed
from .context import NO_OPTIONS, Context, Identity, Options, current_context, take_assigned_id
from .effects import step_row
from .errors import ExecutionInterrupted
from .execution import Execution
from .operations import misuse, record_operation
from .plans import Call, Commit, Plan
from .registry import WorkflowInfo
from .steps import record_step, recorded_error

if TYPE_CHECKING:
    from .core import Core
    from .engine import Engine


@dataclass(slots=True)
class Target:
    """A workflow function with what it is called with. `receiver` is the class or instance of a method."""

    info: WorkflowInfo
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    receiver: Any = None
    class_name: str | None = None
    config_name: str | None = None

    def body(self) -> Call:
        args = self.args if self.receiver is None else (self.receiver, *self.args)
        return Call(self.function, args, self.kwargs, self.info.is_async)


@dataclass(slots=True)
class Started:
    """The result of a start: an execution of ours, or the id of a workflow that exists already."""

    workflow_id: str
    execution: Execution | None = None
    identity: Identity | None = None


# Makes the record of a new workflow with this id, for this context, as a child of this execution.
MakeRecord = Callable[[str, Context, "Execution | None"], WorkflowStarted]
# What to do when the deduplication id of a record is held, which was to be started at this time: the id of the workflow
# to take for the new one, or None to try again.
MeetHolder = Callable[[WorkflowStarted, "Execution | None", int], Plan["str | None"]]


@dataclass(slots=True)
class Created:
    """What a creation came to: our `record` is written, or (None) the workflow of this id was there."""

    workflow_id: str
    record: WorkflowStarted | None = None


def start_plan(engine: Engine, target: Target, *, step_id: int | None = None, direct: bool = False) -> Plan[Started]:
    """Write a new workflow that this process executes, as a child when called from workflow code; or find the
    existing one.

    `step_id` is the id of the start in the parent, when the caller has drawn it already. `direct` marks a call, which
    ignores the ambient options for enqueues.
    """
    identity: Identity | None = None

    def make_record(workflow_id: str, context: Context, parent: Execution | None) -> WorkflowStarted:
        nonlocal identity
        record, identity = start_record(engine, target, workflow_id, context, parent)
        if direct:
            record.application_version = engine.application_version
            if context.options is not NO_OPTIONS:
                engine.dispatcher.warnings.note_call(target.info.name, context.options)
        return record

    created = yield from create_plan(engine, target.info.name, make_record, step_id=step_id)
    record = created.record
    if record is None:
        return Started(created.workflow_id)
    execution = Execution(
        engine,
        record.workflow_id,
        target.info.name,
        record.creator_token,
        serialization=record.serialization,
        deadline_ms=record.deadline_ms,
    )
    return Started(record.workflow_id, execution, identity)


def create_plan(
    engine: Core,
    name: str,
    make_record: MakeRecord,
    *,
    step_id: int | None = None,
    workflow_id: str | None = None,
    reject: bool = False,
    attach_to_holder: bool = False,
    meet_holder: MeetHolder | None = None,
) -> Plan[Created]:
    """Write the record of a new workflow, in workflow code together with the parent's step; or find the existing one.

    The id is `workflow_id`, else the ambient one, else that of a child, else a fresh one. `reject` refuses an id in
    use; `attach_to_holder` takes the workflow that holds the deduplication id for the new one; `meet_holder` decides
    what to do about it, and records the step if it takes it.
    """
    context = current_context() or Context()
    parent = context.execution
    if context.step_status is not None:
        take_assigned_id(context.options)
        raise misuse(
            f"Workflow {name!r} cannot be started or enqueued from a step. Do it in the workflow, or in code outside "
            f"of workflows."
        )
    if parent is not None and step_id is None:
        step_id = parent.draw()
    assigned = take_assigned_id(context.options) if workflow_id is None else None
    if assigned is None and workflow_id is None and context.options.assigned_id is not None and parent is None:
        warn_of_taken_id(context.options, name)
    refuse_shard_key(context.options)
    started_at_ms = engine.clock.now_ms()
    if parent is not None:
        assert step_id is not None
        recorded_id = yield from find_recorded_child(parent, step_id, name)
        if recorded_id is not None:
            return Created(recorded_id)
    if workflow_id is not None:
        pass
    elif assigned is not None:
        workflow_id = assigned.workflow_id
        reject = reject or assigned.reuse_policy == "reject"
    elif parent is not None:
        workflow_id = f"{parent.workflow_id}-{step_id}"
    else:
        workflow_id = new_id()
    record = make_record(workflow_id, context, parent)
    if parent is not None:
        assert step_id is not None
        record.parent = ParentStep(
            parent.workflow_id, parent.owner_token, step_id, started_at_ms, engine.clock.now_ms(), reject
        )
    while True:
        answer = yield from _commit(record, parent)
        if answer is Verdict.APPLIED:
            return Created(workflow_id, record)
        if answer is Verdict.FENCED:
            assert parent is not None
            raise parent.fenced()
        if answer is Verdict.REPEATED:
            assert parent is not None
            assert step_id is not None
            raise DBOSStepNondeterminismError(parent.workflow_id, step_id)
        if isinstance(answer, ExistingWorkflow):
            yield from attach(record, answer, reject, parent, started_at_ms)
            return Created(workflow_id)
        assert isinstance(answer, DeduplicationTaken)
        assert record.queue is not None
        if meet_holder is not None:
            met = yield from meet_holder(record, parent, started_at_ms)
            if met is not None:
                return Created(met)
            continue
        if not attach_to_holder:
            yield from refuse_deduplication(record, parent, started_at_ms)
        if answer.holder_id is not None:
            if parent is not None:
                assert step_id is not None
                yield from _record_holder(engine, parent, record, answer.holder_id, started_at_ms)
            return Created(answer.holder_id)


def find_recorded_child(parent: Execution, step_id: int, name: str) -> Plan[str | None]:
    """The workflow that the parent has started or enqueued at this step; its recorded failure is raised again."""
    recorded = yield from parent.find_recorded(step_id, name)
    if recorded is None:
        return None
    if recorded.error is not None:
        raise recorded_error(parent, recorded)
    if recorded.child_workflow_id is None:
        raise DBOSUnexpectedStepError(parent.workflow_id, step_id, name, recorded.name)
    return recorded.child_workflow_id


def _commit(record: WorkflowStarted, parent: Execution | None) -> Plan[Verdict | ExistingWorkflow | DeduplicationTaken]:
    try:
        answer: Verdict | ExistingWorkflow | DeduplicationTaken = yield Commit(record)
    except StoreFailed as error:
        if parent is not None:
            raise ExecutionInterrupted(error) from error
        raise
    return answer


def attach(
    record: WorkflowStarted, existing: ExistingWorkflow, reject: bool, parent: Execution | None, started_at_ms: int
) -> Plan[None]:
    """The id is in use: refuse, unless the workflow that has it is of the same function."""
    workflow_id = record.workflow_id
    if reject:
        yield from refuse(
            DBOSWorkflowIDInUseError(workflow_id, existing.status, existing.name or ""), record, parent, started_at_ms
        )
    for what, stored, given in (
        ("name", existing.name, record.name),
        ("class name", existing.class_name, record.class_name),
        ("config name", existing.config_name, record.config_name),
    ):
        if stored != given:
            raise DBOSConflictingWorkflowError(
                workflow_id,
                f"Workflow {workflow_id} exists with {what} {stored!r}, but was started now with {what} {given!r}. "
                f"Use another id, or call the same function.",
            )
    queue_name = record.queue.queue_name if record.queue is not None else None
    if existing.queue_name is not None and existing.queue_name != queue_name:
        logger.warning(
            "Workflow %s exists on queue %r; this start asked for %s, the workflow keeps its own",
            workflow_id,
            existing.queue_name,
            "no queue" if queue_name is None else f"queue {queue_name!r}",
        )


def refuse_deduplication(record: WorkflowStarted, parent: Execution | None, started_at_ms: int) -> Plan[None]:
    """Another workflow holds the deduplication id."""
    assert record.queue is not None
    error = DBOSQueueDeduplicatedError(record.workflow_id, record.queue.queue_name, record.queue.deduplication_id or "")
    yield from refuse(error, record, parent, started_at_ms)


def warn_of_taken_id(options: Options, name: str) -> None:
    assert options.assigned_id is not None
    logger.warning(
        "SetWorkflowID(%r) gives its id to the first start in its block only; this start of %r gets a new one",
        options.assigned_id.workflow_id,
        name,
    )


def _record_holder(
    engine: Core, parent: Execution, record: WorkflowStarted, holder_id: str, started_at_ms: int
) -> Plan[None]:
    """The step of the start, with the workflow that was found as its child."""
    assert record.parent is not None
    step = step_row(parent, record.parent.step_id, record.name, started_at_ms)
    step.completed_at_ms = engine.clock.now_ms()
    step.child_workflow_id = holder_id
    yield from record_step(parent, step)


def refuse(error: Exception, record: WorkflowStarted, parent: Execution | None, started_at_ms: int) -> Plan[None]:
    """Raise the error; in workflow code it is recorded, since a replay must meet it too."""
    if parent is not None and record.parent is not None:
        yield from record_operation(parent, record.parent.step_id, record.name, started_at_ms, error=error)
    raise error


def start_record(
    engine: Engine,
    target: Target,
    workflow_id: str,
    context: Context,
    parent: Execution | None,
    encoded: tuple[str, str] | None = None,
) -> tuple[WorkflowStarted, Identity]:
    """The record of a workflow that starts here at once; `encoded` are its arguments, if they are encoded already."""
    info, options, settings = target.info, context.options, engine.settings
    inputs, format_name = encoded or encode_target(engine, target, f"id {workflow_id}")
    identity = context.identity.copy()
    timeout_ms, deadline_ms = None, None
    if options.timeout is not None:
        timeout_ms = options.timeout.milliseconds
        if timeout_ms is not None:
            deadline_ms = min(engine.clock.now_ms() + timeout_ms, 2**63 - 1)
    elif parent is not None:
        deadline_ms = parent.deadline_ms
    token = engine.new_token()
    record = WorkflowStarted(
        workflow_id=workflow_id,
        status="PENDING",
        name=info.name,
        class_name=target.class_name,
        config_name=target.config_name,
        inputs=inputs,
        serialization=format_name,
        creator_token=token,
        owner_token=token,
        executor_id=engine.executor_id,
        application_version=options.app_version or engine.application_version,
        application_id=os.environ.get("DBOS__APPID", ""),
        application_name=settings.name,
        recovery_attempts=1,
        timeout_ms=timeout_ms,
        deadline_ms=deadline_ms,
        authenticated_user=identity.user,
        authenticated_roles=json.dumps(identity.roles) if identity.roles else None,
        assumed_role=identity.assumed_role,
        # None is SQL NULL, where the reference stores JSON null: the index on attributes stays free of rows without.
        attributes=json.dumps(options.attributes) if options.attributes else None,
    )
    check_record(record)
    return record, identity


def encode_target(engine: Engine, target: Target, which: str) -> tuple[str, str]:
    """The arguments as they are stored, and the name of their format."""
    format_name = engine.payloads.format_for(target.info.serialization_type)
    return encode_inputs(engine, target.info.name, which, target.args, target.kwargs, format_name), format_name


def encode_inputs(
    engine: Core, name: str, which: str, args: tuple[Any, ...], kwargs: dict[str, Any], format_name: str
) -> str:
    """The arguments of a workflow as they are stored; `which` tells the workflow in an error."""
    try:
        return engine.payloads.encode_arguments(args, kwargs, format_name)
    except Exception as error:
        raise explain(error, f"the arguments of workflow {name!r} ({which})") from error


def check_record(record: WorkflowStarted) -> None:
    """Refuse texts that no database can hold, before anything is written."""
    queue = record.queue or QueuePlace("")
    for what, text in (
        ("workflow id", record.workflow_id),
        ("workflow name", record.name),
        ("authenticated user", record.authenticated_user),
        ("authenticated roles", record.authenticated_roles and "".join(json.loads(record.authenticated_roles))),
        ("application version", record.application_version),
        ("queue name", queue.queue_name),
        ("deduplication id", queue.deduplication_id),
        ("queue partition key", queue.partition_key),
    ):
        if text is not None and (not text.isascii() or "\0" in text):
            check_text(text, what)


def refuse_shard_key(options: Options) -> None:
    if options.shard_key is not None:
        raise DBOSException(
            f"A shard key was given ({options.shard_key!r}), but the system database is not sharded. Remove "
            f"SetShardKey."
        )
