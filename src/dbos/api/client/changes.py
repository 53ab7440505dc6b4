"""Changing workflows through a client: fork, rewind, delete, attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...engine import management
from ...engine.context import current_context, take_assigned_id
from ...engine.plans import Plan
from ...ids import new_id
from .. import requests
from .handles import ClientAsyncHandle, ClientHandle
from .session import Session, blocking, twin

if TYPE_CHECKING:
    from ...engine.core import Core
    from ...types import Fork


def _delete_workflows(
    core: Core, workflow_ids: list[str], *, delete_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Remove workflows in whatever state: status, arguments, result, steps, messages, events and streams.

    Unknown ones are ignored. One that is running stops at its next operation, and writes nothing more.

    Args:
        workflow_ids: Any number of them; either all are deleted or, when the call fails, none.
        delete_children: Also delete all their descendants.
    """
    ids = requests.checked_ids(workflow_ids, shard_key)
    return management.delete(core, ids, requests.checked_flag(delete_children, "delete_children"))


def _delete_workflow(
    core: Core, workflow_id: str, *, delete_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Delete a workflow; see `delete_workflows`."""
    requests.checked_id(workflow_id, shard_key)
    return _delete_workflows(core, [workflow_id], delete_children=delete_children)


def _update_workflow_attributes(
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
    """
    requests.checked_id(workflow_id, shard_key)
    return management.update_attributes(core, workflow_id, requests.checked_attributes(attributes, merge), merge)


class ChangeMethods:
    """Fork, rewind and delete workflows, change their attributes."""

    _session: Session

    delete_workflow = blocking("delete_workflow", _delete_workflow)
    delete_workflow_async = twin("delete_workflow", _delete_workflow)
    delete_workflows = blocking("delete_workflows", _delete_workflows)
    delete_workflows_async = twin("delete_workflows", _delete_workflows)
    update_workflow_attributes = blocking("update_workflow_attributes", _update_workflow_attributes)
    update_workflow_attributes_async = twin("update_workflow_attributes", _update_workflow_attributes)

    def fork_workflow(
        self,
        workflow_id: str,
        start_step: int,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        replacement_children: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> ClientHandle[Any]:
        """Start a new workflow with the arguments of another one and what that has recorded before `start_step`.

        Args:
            workflow_id: The source, in any state; it stays as it is.
            start_step: The step that is executed first. 1 and less copy nothing; beyond the end copies everything.
            application_version: Who must run the fork; default the latest version.
            queue_name: The queue to put it on; default none: it starts at once.
            queue_partition_key: Its partition on that queue.
            replacement_children: Children of the source by id, and those that take their place in the copied steps.
            timeout_seconds: From the start of the fork; default none.

        Returns:
            A handle on the fork. Its id is that of an enclosing `SetWorkflowID` block, else a generated one.

        Raises:
            DBOSNonExistentWorkflowError: there is no such workflow.
            DBOSWorkflowIDInUseError: the id of the block is in use.
        """
        wanted = _with_id(
            requests.fork_request(
                workflow_id,
                start_step,
                creator_token=new_id(),
                owner=self._session.core.application_name,
                application_version=application_version,
                queue_name=queue_name,
                queue_partition_key=queue_partition_key,
                replacement_children=replacement_children,
                timeout_seconds=timeout_seconds,
                shard_key=shard_key,
            )
        )
        return ClientHandle(self._session, self._session.call(lambda core: management.fork(core, wanted)))

    async def fork_workflow_async(
        self,
        workflow_id: str,
        start_step: int,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        replacement_children: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> ClientAsyncHandle[Any]:
        """As `fork_workflow`, from async code."""
        session = self._session
        wanted = _with_id(
            requests.fork_request(
                workflow_id,
                start_step,
                creator_token=new_id(),
                owner=(await session.open_async()).application_name,
                application_version=application_version,
                queue_name=queue_name,
                queue_partition_key=queue_partition_key,
                replacement_children=replacement_children,
                timeout_seconds=timeout_seconds,
                shard_key=shard_key,
            )
        )
        return ClientAsyncHandle(session, await session.call_async(lambda core: management.fork(core, wanted)))

    def rewind_workflow(
        self,
        workflow_id: str,
        *,
        start_step: int | None = None,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        shard_key: str | None = None,
    ) -> ClientHandle[Any]:
        """Run a workflow that has ended again from a step on, under the same id.

        Its outcome and what it recorded from that step on are forgotten: steps, events set there, messages received
        there and those nobody has received, ends of streams. What its steps did in the world stays.

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
        """
        plan = _rewinding(workflow_id, start_step, application_version, queue_name, queue_partition_key, shard_key)
        self._session.call(plan)
        return ClientHandle(self._session, workflow_id)

    async def rewind_workflow_async(
        self,
        workflow_id: str,
        *,
        start_step: int | None = None,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        shard_key: str | None = None,
    ) -> ClientAsyncHandle[Any]:
        """As `rewind_workflow`, from async code."""
        plan = _rewinding(workflow_id, start_step, application_version, queue_name, queue_partition_key, shard_key)
        await self._session.call_async(plan)
        return ClientAsyncHandle(self._session, workflow_id)


def _with_id(wanted: Fork) -> Fork:
    """The id of a `SetWorkflowID` block is the one thing around a client's call that it takes (04 R504)."""
    context = current_context()
    assigned = None if context is None else take_assigned_id(context.options)
    return replace(wanted, workflow_id=new_id() if assigned is None else assigned.workflow_id)


def _rewinding(
    workflow_id: str,
    start_step: int | None,
    application_version: str | None,
    queue_name: str | None,
    queue_partition_key: str | None,
    shard_key: str | None,
) -> Any:
    wanted = requests.rewind_request(
        workflow_id,
        start_step,
        application_version=application_version,
        queue_name=queue_name,
        queue_partition_key=queue_partition_key,
        shard_key=shard_key,
    )
    return lambda core: management.rewind(core, wanted)
