"""Managing workflows: cancel, resume, fork, rewind, delete, delay, attributes.

Each operation is a function of the core, which makes it a call of the application and of clients. Clients run no
workflow, so with them nothing is recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ..engine import management
from ..engine.context import current_context, current_execution, take_assigned_id
from ..engine.operations import Change, change_plan
from ..engine.plans import Plan
from ..engine.running_loop import running_loop
from ..engine.starting import refuse_shard_key, warn_of_taken_id
from ..engine.waiting import existing_status_plan
from ..error import DBOSWorkflowIDInUseError
from ..ids import new_id
from ..records import StepCompleted
from . import requests
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .runtime import blocking, on_engine, twin

if TYPE_CHECKING:
    from ..engine.core import Core

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H")


def cancel_many(
    core: Core, workflow_ids: list[str], *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel workflows that have not ended. Unknown and finished ones are ignored.

    A running workflow stops at its next operation; a step that is running ends first, and is not recorded.

    Args:
        workflow_ids: Any number of them; either all are cancelled or, when the call fails, none.
        cancel_children: Also cancel all their descendants.

    Durability: in workflow code recorded as the step `DBOS.cancelWorkflow`, in the transaction that cancels. So a
    replay does not cancel again, also not the workflow that has cancelled itself and was resumed.
    """
    ids = requests.checked_ids(workflow_ids, shard_key)
    cascades = requests.checked_flag(cancel_children, "cancel_children")
    return change_plan(core, "DBOS.cancelWorkflow", lambda step: management.cancel(core, ids, cascades, step=step))


def cancel_one(
    core: Core, workflow_id: str, *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel a workflow; see `cancel_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return cancel_many(core, [workflow_id], cancel_children=cancel_children)


def resume_many(
    core: Core, workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
) -> Plan[list[str]]:
    """Run workflows again that were cancelled or given up, from their last recorded step.

    Finished ones stay as they are.

    Args:
        workflow_ids: Any number of them; either all are resumed or, when the call fails, none.
        queue_name: The queue to put them on; whether anybody serves it is not checked. Default the queue on which
            they were when they were cancelled or given up, with their partition key and under its limits. What was
            on none, and what waits or runs, is taken past its queue: at once, and without limits.

    Raises:
        DBOSNonExistentWorkflowError: one of them does not exist; nothing changes then.

    Durability: in workflow code recorded as the step `DBOS.resumeWorkflow`, in the transaction that resumes.
    """
    ids = requests.checked_ids(workflow_ids, shard_key)
    queue = requests.checked_queue(queue_name)

    def resume() -> Plan[list[str]]:
        yield from change_plan(core, "DBOS.resumeWorkflow", lambda step: management.resume(core, ids, queue, step=step))
        return list(workflow_ids)

    return resume()


def resume_one(
    core: Core, workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
) -> Plan[str]:
    """Run a workflow again that was cancelled or given up; see `resume_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return _only(resume_many(core, [workflow_id], queue_name=queue_name))


def delete_many(
    core: Core, workflow_ids: list[str], *, delete_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Remove workflows in whatever state: status, arguments, result, steps, messages, events and streams.

    Unknown ones are ignored. One that is running stops at its next operation, and writes nothing more. Who waits for
    the result of a deleted workflow gets DBOSNonExistentWorkflowError.

    Args:
        workflow_ids: Any number of them; either all are deleted or, when the call fails, none.
        delete_children: Also delete all their descendants.

    Durability: in workflow code recorded as the step `DBOS.deleteWorkflow`, in the transaction that deletes.
    """
    ids = requests.checked_ids(workflow_ids, shard_key)
    cascades = requests.checked_flag(delete_children, "delete_children")
    return change_plan(core, "DBOS.deleteWorkflow", lambda step: management.delete(core, ids, cascades, step=step))


def delete_one(
    core: Core, workflow_id: str, *, delete_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Delete a workflow; see `delete_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return delete_many(core, [workflow_id], delete_children=delete_children)


def move_start(
    core: Core,
    workflow_id: str,
    *,
    delay_seconds: float | None = None,
    delay_until_epoch_ms: int | None = None,
    shard_key: str | None = None,
) -> Plan[None]:
    """Move the start of a delayed workflow; nothing happens to one that is not delayed any more.

    Args:
        workflow_id: The workflow.
        delay_seconds: Not before so many seconds from now.
        delay_until_epoch_ms: Not before this time, in milliseconds since the epoch. Exactly one of the two.

    Raises:
        DBOSException: none of the two, both, or a negative one is given.

    Durability: in workflow code recorded as the step `DBOS.setWorkflowDelay`, in the transaction of the change.
    """
    requests.checked_id(workflow_id, shard_key)
    due_ms = requests.checked_due_ms(core.clock.now_ms(), delay_seconds, delay_until_epoch_ms)
    return change_plan(
        core, "DBOS.setWorkflowDelay", lambda step: management.set_delay(core, workflow_id, due_ms, step)
    )


def update_attributes(
    core: Core,
    workflow_id: str,
    attributes: dict[str, Any] | None,
    *,
    merge: bool = False,
    shard_key: str | None = None,
) -> Plan[None]:
    """Replace the attributes of a workflow, in whatever state it is. An unknown one is ignored.

    Args:
        workflow_id: The workflow.
        attributes: A JSON object. None removes all.
        merge: Only change the keys that are given, each as a whole, and keep the others. The value None is stored as
            JSON null.

    Raises:
        DBOSException: the attributes cannot be stored as JSON, or are None with `merge`.

    Durability: in workflow code recorded as the step `DBOS.updateWorkflowAttributes`, in the transaction of the change.
    """
    requests.checked_id(workflow_id, shard_key)
    text = requests.checked_attributes(attributes, merge)
    return change_plan(
        core,
        "DBOS.updateWorkflowAttributes",
        lambda step: management.update_attributes(core, workflow_id, text, merge, step),
    )


def fork(
    core: Core,
    workflow_id: str,
    start_step: int,
    *,
    application_version: str | None = None,
    queue_name: str | None = None,
    queue_partition_key: str | None = None,
    replacement_children: dict[str, str] | None = None,
    timeout_seconds: float | None = None,
    shard_key: str | None = None,
) -> Plan[str]:
    """Start a new workflow with the arguments of another one and what that has recorded before `start_step`.

    Copied are steps, events and stream entries, as they are at one moment; the source may still run. Messages are
    not: those received before `start_step` are replayed, later ones have to be sent to the fork. Children that were
    started before stay attached, later ones are new.

    Args:
        workflow_id: The source, in any state; it stays as it is.
        start_step: The step that is executed first. 1 and less copy nothing; beyond the end copies everything.
        application_version: Who must run the fork; default the latest version.
        queue_name: The queue to put it on; default none: it starts at once.
        queue_partition_key: Its partition on that queue.
        replacement_children: Children of the source by id, and those that take their place in the copied steps. The
            fork gets the results of these.
        timeout_seconds: From the start of the fork; default none. Priority, timeout and schedule of the source are
            not copied.

    Returns:
        A handle on the fork. Its id is that of a `SetWorkflowID` block, else a generated one; in workflow code
        `<workflow id>-<step id>`.

    Raises:
        DBOSNonExistentWorkflowError: there is no such workflow.
        DBOSWorkflowIDInUseError: the id of the block is in use.

    Durability: in workflow code recorded as the steps `DBOS.forkWorkflow`, in the transaction that makes the fork,
    and `DBOS.getStatus`; a replay returns a handle on the same fork.
    """
    context, execution = current_context(), current_execution()
    assigned = None
    if context is not None:
        assigned = take_assigned_id(context.options)
        if assigned is None and context.options.assigned_id is not None and execution is None:
            warn_of_taken_id(context.options, "fork")
        refuse_shard_key(context.options)
    wanted = requests.fork_request(
        workflow_id,
        start_step,
        creator_token=new_id(),
        owner=core.application_name,
        application_version=application_version,
        queue_name=queue_name,
        queue_partition_key=queue_partition_key,
        replacement_children=replacement_children,
        timeout_seconds=timeout_seconds,
        shard_key=shard_key,
    )

    def make(step: StepCompleted | None) -> Plan[str]:
        if assigned is not None:
            return (yield from management.fork(core, replace(wanted, workflow_id=assigned.workflow_id), step))
        if step is not None:
            try:
                own = replace(wanted, workflow_id=f"{step.workflow_id}-{step.step_id}")
                return (yield from management.fork(core, own, step))
            except DBOSWorkflowIDInUseError:
                # The step was forked before: its workflow was rewound since.
                pass
        return (yield from management.fork(core, replace(wanted, workflow_id=new_id()), step))

    # The async form draws the ids of both steps at once (02 R90); it alone is called on a loop.
    return _fork_and_look(core, make, together=running_loop() is not None)


def _fork_and_look(core: Core, make: Change[str], *, together: bool) -> Plan[str]:
    execution = current_execution()
    if execution is None:
        return (yield from make(None))
    fork_step, status_step = (execution.draw(), execution.draw()) if together else (None, None)
    fork_id = yield from change_plan(core, "DBOS.forkWorkflow", make, step_id=fork_step)
    yield from existing_status_plan(core, fork_id, step_id=status_step)
    return fork_id


def rewind(
    core: Core,
    workflow_id: str,
    *,
    start_step: int | None = None,
    application_version: str | None = None,
    queue_name: str | None = None,
    queue_partition_key: str | None = None,
    shard_key: str | None = None,
) -> Plan[str]:
    """Run a workflow that has ended again from a step on, under the same id.

    Its outcome and what it recorded from that step on are forgotten: steps, events set there, messages received
    there and those nobody has received, ends of streams. Entries written into streams stay, and so does everything
    its steps did in the world.

    Args:
        workflow_id: A workflow that succeeded, failed, was cancelled or given up.
        start_step: The step that is executed first; default 1.
        application_version: Who must run it; default the version it had.
        queue_name: The queue to put it on; default none: it starts at once.
        queue_partition_key: Its partition on that queue.

    Raises:
        ValueError: `start_step` is less than 1.
        DBOSNonExistentWorkflowError: there is no such workflow.
        DBOSException: it has not ended. Cancel it first.

    Durability: in workflow code recorded as the step `DBOS.rewindWorkflow`, in the transaction that rewinds.
    """
    wanted = requests.rewind_request(
        workflow_id,
        start_step,
        application_version=application_version,
        queue_name=queue_name,
        queue_partition_key=queue_partition_key,
        shard_key=shard_key,
    )

    def turn_back() -> Plan[str]:
        yield from change_plan(core, "DBOS.rewindWorkflow", lambda step: management.rewind(core, wanted, step))
        return workflow_id

    return turn_back()


def _only(inner: Plan[list[T]]) -> Plan[T]:
    (one,) = yield from inner
    return one


def _handle(workflow_id: str) -> WorkflowHandle[Any]:
    return Handle(workflow_id, exists=True)


def _async_handle(workflow_id: str) -> WorkflowHandleAsync[Any]:
    return AsyncHandle(workflow_id, exists=True)


def _handles(workflow_ids: list[str]) -> list[WorkflowHandle[Any]]:
    return [_handle(workflow_id) for workflow_id in workflow_ids]


def _async_handles(workflow_ids: list[str]) -> list[WorkflowHandleAsync[Any]]:
    return [_async_handle(workflow_id) for workflow_id in workflow_ids]


def _giving(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]], handle: Callable[[T], H]
) -> staticmethod[P, H]:
    """The blocking form of an operation, whose callers get handles on the workflows that it names."""
    inner = blocking(name, on_engine(operation)).__func__

    @functools.wraps(inner)
    def call(*args: P.args, **kwargs: P.kwargs) -> H:
        return handle(inner(*args, **kwargs))

    return staticmethod(call)


def _giving_async(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]], handle: Callable[[T], H]
) -> staticmethod[P, Coroutine[Any, Any, H]]:
    """The async form of the same operation."""
    inner = twin(name, on_engine(operation)).__func__

    @functools.wraps(inner)
    async def call(*args: P.args, **kwargs: P.kwargs) -> H:
        return handle(await inner(*args, **kwargs))

    return staticmethod(call)


class ManagementCalls:
    """Cancel, resume, fork, rewind, delete, delay, attributes."""

    cancel_workflow = blocking("cancel_workflows", on_engine(cancel_one))
    cancel_workflow_async = twin("cancel_workflow", on_engine(cancel_one))
    cancel_workflows = blocking("cancel_workflows", on_engine(cancel_many))
    cancel_workflows_async = twin("cancel_workflows", on_engine(cancel_many))
    resume_workflow = _giving("resume_workflow", resume_one, _handle)
    resume_workflow_async = _giving_async("resume_workflow", resume_one, _async_handle)
    resume_workflows = _giving("resume_workflows", resume_many, _handles)
    resume_workflows_async = _giving_async("resume_workflows", resume_many, _async_handles)
    fork_workflow = _giving("fork_workflow", fork, _handle)
    fork_workflow_async = _giving_async("fork_workflow", fork, _async_handle)
    rewind_workflow = _giving("rewind_workflow", rewind, _handle)
    rewind_workflow_async = _giving_async("rewind_workflow", rewind, _async_handle)
    delete_workflow = blocking("delete_workflows", on_engine(delete_one))
    delete_workflow_async = twin("delete_workflow", on_engine(delete_one))
    delete_workflows = blocking("delete_workflows", on_engine(delete_many))
    delete_workflows_async = twin("delete_workflows", on_engine(delete_many))
    set_workflow_delay = blocking("set_workflow_delay", on_engine(move_start))
    set_workflow_delay_async = twin("set_workflow_delay", on_engine(move_start))
    update_workflow_attributes = blocking("update_workflow_attributes", on_engine(update_attributes))
    update_workflow_attributes_async = twin("update_workflow_attributes", on_engine(update_attributes))
