"""Looking at workflows through a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...engine.plans import Plan, Read
from ...engine.waiting import wait_first_plan
from ...error import DBOSNonExistentWorkflowError
from ..listing import queued_workflow_listing, workflow_listing
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


class WorkflowMethods:
    """Handles, listings, steps."""

    _session: Session

    list_workflows = blocking("list_workflows", workflow_listing)
    list_workflows_async = twin("list_workflows", workflow_listing)
    list_queued_workflows = blocking("list_queued_workflows", queued_workflow_listing)
    list_queued_workflows_async = twin("list_queued_workflows", queued_workflow_listing)
    list_workflow_steps = blocking("list_workflow_steps", step_listing)
    list_workflow_steps_async = twin("list_workflow_steps", step_listing)

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
