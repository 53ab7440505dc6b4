"""Managing workflows: cancel, resume, fork, rewind, delete, delay, attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine import management
from ..engine.context import current_context, current_execution, take_assigned_id
from ..engine.operations import Change, change_plan
from ..engine.plans import Plan
from ..engine.running_loop import refuse_running_loop
from ..engine.starting import refuse_shard_key, warn_of_taken_id
from ..engine.waiting import existing_status_plan
from ..error import DBOSWorkflowIDInUseError
from ..ids import new_id
from ..records import StepCompleted
from . import requests
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .runtime import blocking, engine_for_async, engine_here, run, run_async, twin


def _cancel_workflows(
    workflow_ids: list[str], *, cancel_children: bool = False, shard_key: str | None = None
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
    engine = engine_here()
    return change_plan(engine, "DBOS.cancelWorkflow", lambda step: management.cancel(engine, ids, cascades, step=step))


def _cancel_workflow(workflow_id: str, *, cancel_children: bool = False, shard_key: str | None = None) -> Plan[None]:
    """Cancel a workflow; see `cancel_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return _cancel_workflows([workflow_id], cancel_children=cancel_children)


def _resume_workflows(workflow_ids: list[str], queue_name: str | None, shard_key: str | None) -> Plan[None]:
    ids = requests.checked_ids(workflow_ids, shard_key)
    queue = requests.checked_queue(queue_name)
    engine = engine_here()
    return change_plan(engine, "DBOS.resumeWorkflow", lambda step: management.resume(engine, ids, queue, step=step))


def _delete_workflows(
    workflow_ids: list[str], *, delete_children: bool = False, shard_key: str | None = None
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
    engine = engine_here()
    return change_plan(engine, "DBOS.deleteWorkflow", lambda step: management.delete(engine, ids, cascades, step=step))


def _delete_workflow(workflow_id: str, *, delete_children: bool = False, shard_key: str | None = None) -> Plan[None]:
    """Delete a workflow; see `delete_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return _delete_workflows([workflow_id], delete_children=delete_children)


def _set_workflow_delay(
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
    engine = engine_here()
    due_ms = requests.checked_due_ms(engine.clock.now_ms(), delay_seconds, delay_until_epoch_ms)
    return change_plan(
        engine, "DBOS.setWorkflowDelay", lambda step: management.set_delay(engine, workflow_id, due_ms, step)
    )


def _update_workflow_attributes(
    workflow_id: str, attributes: dict[str, Any] | None, *, merge: bool = False, shard_key: str | None = None
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
    engine = engine_here()
    return change_plan(
        engine,
        "DBOS.updateWorkflowAttributes",
        lambda step: management.update_attributes(engine, workflow_id, text, merge, step),
    )


def _fork(
    workflow_id: str,
    start_step: int,
    application_version: str | None,
    queue_name: str | None,
    queue_partition_key: str | None,
    replacement_children: dict[str, str] | None,
    timeout_seconds: float | None,
    shard_key: str | None,
    *,
    together: bool,
) -> Plan[str]:
    """The id of a new fork. `together` draws the ids of both steps at once, as the async form does (02 R90)."""
    engine = engine_here()
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
        owner=engine.settings.name,
        application_version=application_version,
        queue_name=queue_name,
        queue_partition_key=queue_partition_key,
        replacement_children=replacement_children,
        timeout_seconds=timeout_seconds,
        shard_key=shard_key,
    )

    def make(step: StepCompleted | None) -> Plan[str]:
        if assigned is not None:
            return (yield from management.fork(engine, replace(wanted, workflow_id=assigned.workflow_id), step))
        if step is not None:
            try:
                own = replace(wanted, workflow_id=f"{step.workflow_id}-{step.step_id}")
                return (yield from management.fork(engine, own, step))
            except DBOSWorkflowIDInUseError:
                # The step was forked before: its workflow was rewound since.
                pass
        return (yield from management.fork(engine, replace(wanted, workflow_id=new_id()), step))

    return _fork_and_look(make, together)


def _fork_and_look(make: Change[str], together: bool) -> Plan[str]:
    engine, execution = engine_here(), current_execution()
    if execution is None:
        return (yield from make(None))
    fork_step, status_step = (execution.draw(), execution.draw()) if together else (None, None)
    fork_id = yield from change_plan(engine, "DBOS.forkWorkflow", make, step_id=fork_step)
    yield from existing_status_plan(engine, fork_id, step_id=status_step)
    return fork_id


def _rewind(
    workflow_id: str,
    start_step: int | None,
    application_version: str | None,
    queue_name: str | None,
    queue_partition_key: str | None,
    shard_key: str | None,
) -> Plan[None]:
    wanted = requests.rewind_request(
        workflow_id,
        start_step,
        application_version=application_version,
        queue_name=queue_name,
        queue_partition_key=queue_partition_key,
        shard_key=shard_key,
    )
    engine = engine_here()
    return change_plan(engine, "DBOS.rewindWorkflow", lambda step: management.rewind(engine, wanted, step))


class ManagementCalls:
    """Cancel, resume, fork, rewind, delete, delay, attributes."""

    cancel_workflow = blocking("cancel_workflows", _cancel_workflow)
    cancel_workflow_async = twin("cancel_workflow", _cancel_workflow)
    cancel_workflows = blocking("cancel_workflows", _cancel_workflows)
    cancel_workflows_async = twin("cancel_workflows", _cancel_workflows)
    delete_workflow = blocking("delete_workflows", _delete_workflow)
    delete_workflow_async = twin("delete_workflow", _delete_workflow)
    delete_workflows = blocking("delete_workflows", _delete_workflows)
    delete_workflows_async = twin("delete_workflows", _delete_workflows)
    set_workflow_delay = blocking("set_workflow_delay", _set_workflow_delay)
    set_workflow_delay_async = twin("set_workflow_delay", _set_workflow_delay)
    update_workflow_attributes = blocking("update_workflow_attributes", _update_workflow_attributes)
    update_workflow_attributes_async = twin("update_workflow_attributes", _update_workflow_attributes)

    @staticmethod
    def resume_workflows(
        workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[WorkflowHandle[Any]]:
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
        refuse_running_loop("resume_workflows")
        run(engine_here(), _resume_workflows(workflow_ids, queue_name, shard_key))
        return [Handle(workflow_id, exists=True) for workflow_id in workflow_ids]

    @staticmethod
    async def resume_workflows_async(
        workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[WorkflowHandleAsync[Any]]:
        """As `resume_workflows`, from async code."""
        engine = engine_for_async()
        await run_async(engine, _resume_workflows(workflow_ids, queue_name, shard_key))
        return [AsyncHandle(workflow_id, exists=True) for workflow_id in workflow_ids]

    @staticmethod
    def resume_workflow(
        workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> WorkflowHandle[Any]:
        """Run a workflow again that was cancelled or given up; see `resume_workflows`."""
        refuse_running_loop("resume_workflow")
        requests.checked_id(workflow_id, shard_key)
        return ManagementCalls.resume_workflows([workflow_id], queue_name=queue_name)[0]

    @staticmethod
    async def resume_workflow_async(
        workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> WorkflowHandleAsync[Any]:
        """As `resume_workflow`, from async code."""
        requests.checked_id(workflow_id, shard_key)
        return (await ManagementCalls.resume_workflows_async([workflow_id], queue_name=queue_name))[0]

    @staticmethod
    def fork_workflow(
        workflow_id: str,
        start_step: int,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        replacement_children: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> WorkflowHandle[Any]:
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
        refuse_running_loop("fork_workflow")
        plan = _fork(
            workflow_id,
            start_step,
            application_version,
            queue_name,
            queue_partition_key,
            replacement_children,
            timeout_seconds,
            shard_key,
            together=False,
        )
        return Handle(run(engine_here(), plan), exists=True)

    @staticmethod
    async def fork_workflow_async(
        workflow_id: str,
        start_step: int,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        replacement_children: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> WorkflowHandleAsync[Any]:
        """As `fork_workflow`, from async code."""
        engine = engine_for_async()
        plan = _fork(
            workflow_id,
            start_step,
            application_version,
            queue_name,
            queue_partition_key,
            replacement_children,
            timeout_seconds,
            shard_key,
            together=True,
        )
        return AsyncHandle(await run_async(engine, plan), exists=True)

    @staticmethod
    def rewind_workflow(
        workflow_id: str,
        *,
        start_step: int | None = None,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        shard_key: str | None = None,
    ) -> WorkflowHandle[Any]:
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
        refuse_running_loop("rewind_workflow")
        plan = _rewind(workflow_id, start_step, application_version, queue_name, queue_partition_key, shard_key)
        run(engine_here(), plan)
        return Handle(workflow_id, exists=True)

    @staticmethod
    async def rewind_workflow_async(
        workflow_id: str,
        *,
        start_step: int | None = None,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        shard_key: str | None = None,
    ) -> WorkflowHandleAsync[Any]:
        """As `rewind_workflow`, from async code."""
        engine = engine_for_async()
        plan = _rewind(workflow_id, start_step, application_version, queue_name, queue_partition_key, shard_key)
        await run_async(engine, plan)
        return AsyncHandle(workflow_id, exists=True)
