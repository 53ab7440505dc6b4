"""Handles of a client: they ask and wait through its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ...engine.plans import Plan
from ...engine.waiting import existing_status_plan, handle_result_plan
from ...types import WorkflowStatus
from ..handles import AsyncHandle, Handle, check_limit

if TYPE_CHECKING:
    from ...engine.core import Core
    from .session import Session

R = TypeVar("R")


class ClientHandle(Handle[R]):
    """A workflow, seen from sync code through a client."""

    def __init__(self, session: Session, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self._session = session

    def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R:
        """Wait for the workflow to end; its value, or its exception raised. An id that has no workflow yet is waited
        for as well.

        Args:
            polling_interval_sec: How often to look in the database, in seconds, when nothing wakes the wait earlier.
            timeout_seconds: How long to wait at most. Default None, for ever.

        Raises:
            DBOSResultTimeoutError: the workflow has not ended in time; it goes on. It is a TimeoutError.
            DBOSAwaitedWorkflowCancelledError: the workflow was cancelled.
            DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded: it was given up after too many recoveries.
            DBOSException: the client was destroyed.
        """
        result: R = self._session.call(_result_plan(self.workflow_id, polling_interval_sec, timeout_seconds))
        return result

    def get_status(self) -> WorkflowStatus:
        return self._session.call(lambda core: existing_status_plan(core, self.workflow_id))


class ClientAsyncHandle(AsyncHandle[R]):
    """A workflow, seen from async code through a client."""

    def __init__(self, session: Session, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self._session = session

    async def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R:
        """As `ClientHandle.get_result`; waiting holds no thread."""
        plan = _result_plan(self.workflow_id, polling_interval_sec, timeout_seconds)
        result: R = await self._session.call_async(plan)
        return result

    async def get_status(self) -> WorkflowStatus:
        return await self._session.call_async(lambda core: existing_status_plan(core, self.workflow_id))


def _result_plan(
    workflow_id: str, polling_interval_seconds: float, timeout_seconds: float | None
) -> Callable[[Core], Plan[Any]]:
    limit = check_limit(timeout_seconds)
    return lambda core: handle_result_plan(core, workflow_id, None, polling_interval_seconds, timeout_seconds=limit)
