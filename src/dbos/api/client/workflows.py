"""Looking at workflows and managing them through a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...engine.plans import Plan, Read
from ...engine.waiting import wait_first_plan
from ...error import DBOSNonExistentWorkflowError
from ..listing import queued_workflow_listing, workflow_listing
from ..management import _cancel, _delay, _resume, due_time_ms
from ..results import distinct_ids, step_listing
from ..runtime import check_ids, check_unsharded
from .handles import ClientAsyncHandle, ClientHandle
from .session import Session, blocking, twin

if TYPE_CHECKING:
    from ...engine.core import Core


def _existing(core: Core, workflow_id: str, shard_key: str | None) -> Plan[str]:
    check_unsharded(shard_key)
    check_ids(workflow_id)
    if not (yield Read(lambda store: store.find_existing([workflow_id]))):
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    return workflow_id


def _cancel_workflows(
    core: Core, workflow_ids: list[str], *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel workflows that have not ended. Unknown and finished ones are ignored.

    A running workflow stops at its next operation; a step that is running ends first, and is not recorded.

    Args:
        cancel_children: Also cancel all their descendants.
    """
    check_unsharded(shard_key)
    check_ids(*workflow_ids)
    return _cancel(core, list(workflow_ids), cancel_children)


def _cancel_workflow(
    core: Core, workflow_id: str, *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel a workflow; see `cancel_workflows`."""
    return _cancel_workflows(core, [workflow_id], cancel_children=cancel_children, shard_key=shard_key)


def _resume_workflows(
    core: Core, workflow_ids: Sequence[str], queue_name: str | None, shard_key: str | None
) -> Plan[None]:
    check_unsharded(shard_key)
    check_ids(*workflow_ids)
    return _resume(core, list(workflow_ids), queue_name)


def _set_workflow_delay(
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
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    return _delay(core, workflow_id, due_time_ms(core, delay_seconds, delay_until_epoch_ms))


class WorkflowMethods:
    """Handles, listings, steps; cancel, resume, delay."""

    _session: Session

    list_workflows = blocking("list_workflows", workflow_listing)
    list_workflows_async = twin("list_workflows", workflow_listing)
    list_queued_workflows = blocking("list_queued_workflows", queued_workflow_listing)
    list_queued_workflows_async = twin("list_queued_workflows", queued_workflow_listing)
    list_workflow_steps = blocking("list_workflow_steps", step_listing)
    list_workflow_steps_async = twin("list_workflow_steps", step_listing)
    cancel_workflow = blocking("cancel_workflow", _cancel_workflow)
    cancel_workflow_async = twin("cancel_workflow", _cancel_workflow)
    cancel_workflows = blocking("cancel_workflows", _cancel_workflows)
    cancel_workflows_async = twin("cancel_workflows", _cancel_workflows)
    set_workflow_delay = blocking("set_workflow_delay", _set_workflow_delay)
    set_workflow_delay_async = twin("set_workflow_delay", _set_workflow_delay)

    def retrieve_workflow(self, workflow_id: str, *, shard_key: str | None = None) -> ClientHandle[Any]:
        """A handle on a workflow, whatever its application; DBOSNonExistentWorkflowError when there is none."""
        session = self._session
        return ClientHandle(session, session.call(lambda core: _existing(core, workflow_id, shard_key)))

    async def retrieve_workflow_async(
        self, workflow_id: str, *, shard_key: str | None = None
    ) -> ClientAsyncHandle[Any]:
        """As `retrieve_workflow`, from async code."""
        session = self._session
        return ClientAsyncHandle(
            session, await session.call_async(lambda core: _existing(core, workflow_id, shard_key))
        )

    def wait_first(self, handles: list[Any], *, polling_interval_sec: float = 1.0) -> Any:
        """The handle of a workflow that has ended, whichever way; waits for the first.

        Raises:
            ValueError: no handles, or two of one workflow.
        """
        ids = distinct_ids(handles)
        winner = self._session.call(lambda core: wait_first_plan(core, ids, polling_interval_sec))
        return {handle.workflow_id: handle for handle in handles}[winner]

    async def wait_first_async(self, handles: list[Any], *, polling_interval_sec: float = 1.0) -> Any:
        """As `wait_first`, from async code."""
        ids = distinct_ids(handles)
        winner = await self._session.call_async(lambda core: wait_first_plan(core, ids, polling_interval_sec))
        return {handle.workflow_id: handle for handle in handles}[winner]

    def resume_workflows(
        self, workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[ClientHandle[Any]]:
        """Run workflows again that were cancelled or given up, from their last recorded step.

        Finished ones stay as they are.

        Args:
            queue_name: The queue to put them on; default the one on which they were, else none.

        Raises:
            DBOSNonExistentWorkflowError: one of them does not exist; nothing changes then.
        """
        self._session.call(lambda core: _resume_workflows(core, workflow_ids, queue_name, shard_key))
        return [ClientHandle(self._session, workflow_id) for workflow_id in workflow_ids]

    async def resume_workflows_async(
        self, workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
    ) -> list[ClientAsyncHandle[Any]]:
        """As `resume_workflows`, from async code."""
        await self._session.call_async(lambda core: _resume_workflows(core, workflow_ids, queue_name, shard_key))
        return [ClientAsyncHandle(self._session, workflow_id) for workflow_id in workflow_ids]

    def resume_workflow(
        self, workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> ClientHandle[Any]:
        """Run a workflow again that was cancelled or given up; see `resume_workflows`."""
        return self.resume_workflows([workflow_id], queue_name=queue_name, shard_key=shard_key)[0]

    async def resume_workflow_async(
        self, workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
    ) -> ClientAsyncHandle[Any]:
        """As `resume_workflow`, from async code."""
        return (await self.resume_workflows_async([workflow_id], queue_name=queue_name, shard_key=shard_key))[0]
