"""Managing workflows and application versions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..engine.operations import operation_plan
from ..engine.plans import Plan, Read
from ..engine.running_loop import refuse_running_loop
from ..engine.versions import latest_version_plan, list_versions_plan, promote_version_plan
from ..error import DBOSException, DBOSNonExistentWorkflowError
from ..types import VersionInfo
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .runtime import blocking, check_ids, check_unsharded, current_engine, engine_here, run, run_async, twin

if TYPE_CHECKING:
    from ..engine.core import Core

P = ParamSpec("P")
R = TypeVar("R")


def _cancel_workflows(
    workflow_ids: list[str], *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel workflows that have not ended. Unknown and finished ones are ignored.

    A running workflow stops at its next operation; a step that is running ends first, and is not recorded.

    Args:
        cancel_children: Also cancel all their descendants.

    Durability: in workflow code recorded as one step.
    """
    check_unsharded(shard_key)
    check_ids(*workflow_ids)
    return operation_plan("DBOS.cancelWorkflow", _cancel(engine_here(), list(workflow_ids), cancel_children))


def _cancel_workflow(workflow_id: str, *, cancel_children: bool = False, shard_key: str | None = None) -> Plan[None]:
    """Cancel a workflow; see `cancel_workflows`."""
    return _cancel_workflows([workflow_id], cancel_children=cancel_children, shard_key=shard_key)


def _cancel(engine: Core, workflow_ids: list[str], cancel_children: bool) -> Plan[None]:
    level = workflow_ids
    seen = set(level)
    while level:
        ids = level
        # Parents first: once cancelled they can add no children, so the walk misses none.
        yield Read(lambda store: store.cancel_workflows(ids, engine.clock.now_ms()))
        engine.note_cancelled((yield Read(lambda store: store.find_cancelled(ids))))
        if not cancel_children:
            return
        children: list[str] = yield Read(lambda store: store.find_children(ids))
        level = [child for child in children if child not in seen]
        seen.update(level)


def _resume_workflows(
    workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
) -> Plan[None]:
    check_unsharded(shard_key)
    check_ids(*workflow_ids)
    return operation_plan("DBOS.resumeWorkflow", _resume(engine_here(), list(workflow_ids), queue_name))


def _resume(engine: Core, workflow_ids: list[str], queue_name: str | None) -> Plan[None]:
    existing: list[str] = yield Read(lambda store: store.find_existing(workflow_ids))
    missing = [workflow_id for workflow_id in workflow_ids if workflow_id not in set(existing)]
    if missing:
        raise DBOSNonExistentWorkflowError("target", ", ".join(missing))
    queues: list[str] = yield Read(
        lambda store: store.resume_workflows(workflow_ids, queue_name or None, engine.clock.now_ms())
    )
    engine.note_queued(queues)
    if queue_name:
        engine.note_placed(queue_name, None, engine.application_name)


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

    Durability: in workflow code recorded as the step `DBOS.setWorkflowDelay`; a replay does not do it again.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    engine = engine_here()
    due_ms = due_time_ms(engine, delay_seconds, delay_until_epoch_ms)
    return operation_plan("DBOS.setWorkflowDelay", _delay(engine, workflow_id, due_ms))


def due_time_ms(engine: Core, delay_seconds: float | None, delay_until_epoch_ms: int | None) -> int:
    """The time that one of the two means, in ms since the epoch; DBOSException unless exactly one has a meaning."""
    if (delay_seconds is None) == (delay_until_epoch_ms is None):
        raise DBOSException("set_workflow_delay needs exactly one of delay_seconds and delay_until_epoch_ms")
    given = delay_until_epoch_ms if delay_seconds is None else delay_seconds
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < 2**63:
        raise DBOSException(f"The delay must be a number from 0 on, not {given!r}")
    if delay_seconds is not None:
        return engine.clock.now_ms() + int(delay_seconds * 1000)
    return int(given)


def _delay(engine: Core, workflow_id: str, due_ms: int) -> Plan[None]:
    if (yield Read(lambda store: store.set_workflow_delay(workflow_id, due_ms, engine.clock.now_ms()))):
        engine.note_delayed(due_ms)


def _in_thread(function: Callable[P, R]) -> staticmethod[P, Coroutine[Any, Any, R]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return await current_engine("Executor").loops.in_thread(function, *args, **kwargs)

    call.__name__ = call.__qualname__ = f"{function.__name__.lstrip('_')}_async"
    call.__doc__ = f"As `{function.__name__.lstrip('_')}`, from async code."
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return staticmethod(call)


# Application versions. Never recorded: a replay asks again.


def _list_application_versions() -> list[VersionInfo]:
    """Own and unowned application versions, newest first."""
    engine = current_engine()
    return run(engine, list_versions_plan(engine))


def _get_latest_application_version() -> VersionInfo:
    """The version with the highest timestamp; DBOSException when none is registered."""
    engine = current_engine()
    return run(engine, latest_version_plan(engine))


def _set_latest_application_version(version_name: str, *, application_name: str | None = None) -> None:
    """Make a registered version the latest.

    Raises:
        DBOSException: no such version is registered, or another application owns it.
    """
    engine = current_engine()
    run(engine, promote_version_plan(engine, version_name, application_name))


class ManagementCalls:
    """Cancel, resume, application versions."""

    set_workflow_delay = blocking("set_workflow_delay", _set_workflow_delay)
    set_workflow_delay_async = twin("set_workflow_delay", _set_workflow_delay)
    cancel_workflow = blocking("cancel_workflows", _cancel_workflow)
    cancel_workflow_async = twin("cancel_workflow", _cancel_workflow)
    cancel_workflows = blocking("cancel_workflows", _cancel_workflows)
    cancel_workflows_async = twin("cancel_workflows", _cancel_workflows)

    @staticmethod
    def resume_workflows(
        workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[WorkflowHandle[Any]]:
        """Run workflows again that were cancelled or given up, from their last recorded step.

        Finished ones stay as they are.

        Args:
            queue_name: The queue to put them on; whether anybody serves it is not checked. Default the queue on which
                they were when they were cancelled or given up, with their partition key and under its limits. What was
                on none, and what waits or runs, is taken past its queue: at once, and without limits.

        Raises:
            DBOSNonExistentWorkflowError: one of them does not exist; nothing changes then.

        Durability: in workflow code recorded as one step.
        """
        refuse_running_loop("resume_workflows")
        run(engine_here(), _resume_workflows(workflow_ids, queue_name=queue_name, shard_key=shard_key))
        return [Handle(workflow_id) for workflow_id in workflow_ids]

    @staticmethod
    async def resume_workflows_async(
        workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[WorkflowHandleAsync[Any]]:
        """As `resume_workflows`, from async code."""
        await run_async(engine_here(), _resume_workflows(workflow_ids, queue_name=queue_name, shard_key=shard_key))
        return [AsyncHandle(workflow_id) for workflow_id in workflow_ids]

    @staticmethod
    def resume_workflow(
        workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> WorkflowHandle[Any]:
        """Run a workflow again that was cancelled or given up; see `resume_workflows`."""
        refuse_running_loop("resume_workflow")
        return ManagementCalls.resume_workflows([workflow_id], queue_name=queue_name, shard_key=shard_key)[0]

    @staticmethod
    async def resume_workflow_async(
        workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> WorkflowHandleAsync[Any]:
        """As `resume_workflow`, from async code."""
        return (
            await ManagementCalls.resume_workflows_async([workflow_id], queue_name=queue_name, shard_key=shard_key)
        )[0]

    list_application_versions = staticmethod(_list_application_versions)
    list_application_versions_async = _in_thread(_list_application_versions)
    get_latest_application_version = staticmethod(_get_latest_application_version)
    get_latest_application_version_async = _in_thread(_get_latest_application_version)
    set_latest_application_version = staticmethod(_set_latest_application_version)
    set_latest_application_version_async = _in_thread(_set_latest_application_version)
