"""Enqueueing many workflows with one call: all of them, or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..error import DBOSException, DBOSStepNondeterminismError, DBOSUnexpectedStepError
from ..ids import new_ids
from ..records import Answer, DeduplicationTaken, Enqueue, ExistingWorkflow, ParentStep, Verdict, WorkflowStarted
from ..storage.store import BulkRefused, Store, StoreFailed
from .context import Context, Options, current_context, take_assigned_id
from .enqueueing import note_enqueued
from .errors import ExecutionInterrupted
from .execution import Execution
from .operations import misuse
from .plans import Plan, Read
from .starting import MakeRecord, attach, encode_inputs, refuse_deduplication, refuse_shard_key, warn_of_taken_id
from .steps import recorded_error

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(slots=True)
class Request:
    """One of the workflows to enqueue; `options` are complete.

    `like` is an earlier request from which it differs in nothing but the arguments.
    """

    name: str
    make_record: MakeRecord
    options: Options
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    workflow_id: str | None = None
    reject: bool = False
    like: Request | None = None


def enqueue_workflows_plan(engine: Engine, requests: Sequence[Request]) -> Plan[list[str]]:
    """Enqueue all, or none; their ids in order. In workflow code each is a step of its own, as if enqueued alone."""
    context = current_context() or Context()
    parent = context.execution
    if context.step_status is not None:
        take_assigned_id(context.options)
        raise misuse(
            "Workflows cannot be enqueued from a step. Do it in the workflow, or in code outside of workflows."
        )
    step_ids = [] if parent is None else [parent.draw() for _ in requests]
    ids = _choose_ids(requests, context, step_ids)
    refuse_shard_key(context.options)
    started_at_ms = engine.clock.now_ms()
    recorded = yield from _find_recorded(engine, parent, requests, step_ids)
    missing = [index for index in range(len(requests)) if index not in recorded]
    if not missing:
        return list(recorded.values())

    enqueues: list[Enqueue] = []

    def write(store: Store) -> dict[int, Answer]:
        if not enqueues:
            # Here, since async code has this done in a thread: it takes as long as the statements.
            enqueues.extend(_build(engine, requests, missing, ids, context, step_ids, started_at_ms))
        return store.enqueue_workflows(enqueues)

    answers = yield from _write(write, enqueues, missing, parent)
    for place in sorted(answers):
        index, enqueue, answer = missing[place], enqueues[place], answers[place]
        try:
            yield from _check(enqueue, answer, parent, started_at_ms)
        except DBOSException as error:
            raise at_item(error, index)
        if isinstance(answer, DeduplicationTaken) and answer.holder_id is not None:
            recorded[index] = answer.holder_id
    note_enqueued(engine, [enqueue.record for place, enqueue in enumerate(enqueues) if place not in answers])
    return [recorded.get(index, workflow_id) for index, workflow_id in enumerate(ids)]


def at_item(error: Exception, index: int) -> Exception:
    """The error, which names the item that it is about."""
    where = f"Item {index}: "
    if isinstance(error, DBOSException):
        error.message = where + error.message
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (where + error.args[0],)
    elif not isinstance(error, DBOSException) and sys.version_info >= (3, 11):
        # Only its own code knows what the arguments mean.
        error.add_note(f"This was item {index}.")
    return error


def _choose_ids(requests: Sequence[Request], context: Context, step_ids: Sequence[int]) -> list[str]:
    """An id for each: its own, else the ambient one (once), else that of a child, else a fresh one."""
    parent = context.execution
    fresh = new_ids(len(requests)) if parent is None else [f"{parent.workflow_id}-{step_id}" for step_id in step_ids]
    ids = [request.workflow_id or workflow_id for request, workflow_id in zip(requests, fresh)]
    without = [index for index, request in enumerate(requests) if request.workflow_id is None]
    if context.options.assigned_id is None or not without:
        return ids
    assigned = take_assigned_id(context.options)
    if assigned is not None:
        first = without.pop(0)
        ids[first] = assigned.workflow_id
        requests[first].reject = requests[first].reject or assigned.reuse_policy == "reject"
    if without and parent is None:
        warn_of_taken_id(context.options, requests[without[0]].name)
    return ids


def _find_recorded(
    engine: Engine, parent: Execution | None, requests: Sequence[Request], step_ids: Sequence[int]
) -> Plan[dict[int, str]]:
    """The children that are recorded, by index; a recorded error is raised again."""
    recorded: dict[int, str] = {}
    if parent is None:
        return recorded
    for index, (request, step_id) in enumerate(zip(requests, step_ids)):
        record = yield from parent.find_recorded(step_id, request.name)
        if record is None:
            continue
        if record.error is not None:
            error = recorded_error(parent, record)
            raise at_item(error, index) if isinstance(error, Exception) else error
        if record.child_workflow_id is None:
            raise DBOSUnexpectedStepError(parent.workflow_id, step_id, request.name, record.name)
        recorded[index] = record.child_workflow_id
    return recorded


def _build(
    engine: Engine,
    requests: Sequence[Request],
    missing: Sequence[int],
    ids: Sequence[str],
    context: Context,
    step_ids: Sequence[int],
    started_at_ms: int,
) -> list[Enqueue]:
    """The records of those requests that are not recorded."""
    parent = context.execution
    models: dict[int, WorkflowStarted] = {}
    enqueues: list[Enqueue] = []
    for index, token in zip(missing, new_ids(len(missing))):
        request = requests[index]
        try:
            record = _record(engine, request, ids[index], token, context, models)
        except Exception as error:
            raise at_item(error, index)
        if parent is not None:
            record.parent = ParentStep(
                parent.workflow_id,
                parent.owner_token,
                step_ids[index],
                started_at_ms,
                engine.clock.now_ms(),
                request.reject,
            )
        attach_to_holder = request.options.duplication_policy == "return-existing"
        enqueues.append(Enqueue(record, "reject" if request.reject else "attach", attach_to_holder))
    return enqueues


def _record(
    engine: Engine,
    request: Request,
    workflow_id: str,
    token: str,
    context: Context,
    models: dict[int, WorkflowStarted],
) -> WorkflowStarted:
    model = models.get(id(request.like))
    if model is not None:
        assert model.serialization is not None
        which = f"id {workflow_id}"
        inputs = encode_inputs(engine, request.name, which, request.args, request.kwargs, model.serialization)
        return model.like(workflow_id, token, inputs)
    if request.options is not context.options:
        context = Context(context.execution, None, context.identity, request.options)
    record = models[id(request.like or request)] = request.make_record(workflow_id, context, context.execution)
    return record


def _write(
    write: Callable[[Store], dict[int, Answer]],
    enqueues: Sequence[Enqueue],
    missing: Sequence[int],
    parent: Execution | None,
) -> Plan[dict[int, Answer]]:
    try:
        answers: dict[int, Answer] = yield Read(write)
    except BulkRefused as error:
        refused = enqueues[error.index].record
        raise DBOSException(
            f"Item {missing[error.index]}: the system database refused workflow {refused.workflow_id!r} "
            f"({refused.name!r}): {error}. Nothing was stored. Check its texts (id, names, serialized values) for "
            f"characters or sizes the database cannot hold."
        ) from error
    except StoreFailed as error:
        if parent is not None:
            raise ExecutionInterrupted(error) from error
        raise
    return answers


def _check(enqueue: Enqueue, answer: Answer, parent: Execution | None, started_at_ms: int) -> Plan[None]:
    """Raise if the answer is none that a single enqueue would accept."""
    record = enqueue.record
    if isinstance(answer, ExistingWorkflow):
        yield from attach(record, answer, enqueue.on_existing == "reject", parent, started_at_ms)
    elif isinstance(answer, DeduplicationTaken):
        if not enqueue.attach_to_holder:
            yield from refuse_deduplication(record, parent, started_at_ms)
    elif answer is not Verdict.APPLIED:
        assert parent is not None
        assert record.parent is not None
        if answer is Verdict.FENCED:
            raise parent.fenced()
        raise DBOSStepNondeterminismError(parent.workflow_id, record.parent.step_id)
