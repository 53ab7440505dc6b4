"""Handles: a workflow's id with the ways to ask for its result and status."""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar

from ..engine.execution import Completion
from ..engine.running_loop import refuse_running_loop, running_loop
from ..engine.waiting import existing_status_plan, handle_result_plan
from ..error import DBOSException
from ..types import WorkflowStatus
from .runtime import current_engine, run, run_async

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class WorkflowHandle(Protocol[R_co]):
    """A workflow, seen from sync code."""

    workflow_id: str
    shard_key: str | None

    def get_workflow_id(self) -> str:
        """The id of the workflow."""
        ...

    def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R_co:
        """Wait for the workflow to end; its value, or its exception raised.

        Args:
            polling_interval_sec: How often to look in the database, in seconds, when nothing wakes the wait earlier.
            timeout_seconds: How long to wait at most. Default None, for ever.

        Raises:
            DBOSResultTimeoutError: the workflow has not ended in time; it goes on. It is a TimeoutError.
            DBOSAwaitedWorkflowCancelledError: the workflow was cancelled.
            DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded: it was given up after too many recoveries.

        Durability: in workflow code recorded as the step `DBOS.getResult`; a replay returns what was recorded, and
        raises a timeout again. The time of a wait that a crash has cut off begins anew.
        """
        ...

    def get_status(self) -> WorkflowStatus:
        """The status of the workflow; DBOSNonExistentWorkflowError when there is none.

        Durability: in workflow code recorded as the step `DBOS.getStatus`.
        """
        ...


class WorkflowHandleAsync(Protocol[R_co]):
    """A workflow, seen from async code. Methods as in WorkflowHandle."""

    workflow_id: str
    shard_key: str | None

    def get_workflow_id(self) -> str: ...

    async def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R_co: ...

    async def get_status(self) -> WorkflowStatus: ...


def _refuse_self_deadlock(completion: Completion | None) -> None:
    """Raise RuntimeError when the wait would block the event loop that has to run the workflow (02 R239)."""
    if completion is None or completion.done or completion.loop is None:
        return
    if running_loop() is completion.loop:
        raise RuntimeError(
            "get_result() was called on the event loop that runs the workflow, which it would block for ever. Start "
            "it with `await DBOS.start_workflow_async(...)` and await the result, or wait in another thread."
        )


def check_limit(timeout_seconds: float | None) -> float | None:
    """How long to wait, None for ever; DBOSException for what is no time."""
    if timeout_seconds is None:
        return None
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)) or not timeout_seconds >= 0:
        raise DBOSException(f"timeout_seconds must be a number from 0 on, or None, not {timeout_seconds!r}")
    return None if math.isinf(timeout_seconds) else timeout_seconds


class Handle(Generic[R]):
    """The sync handle; live when it holds the completion of an execution in this process."""

    def __init__(self, workflow_id: str, completion: Completion | None = None, *, exists: bool = False) -> None:
        self.workflow_id = workflow_id
        self.shard_key: str | None = None
        self._completion = completion
        # Whether the workflow was there when the handle was made: if it is not any more, waiting for it is an error.
        self._exists = exists

    def __repr__(self) -> str:
        return f"WorkflowHandle({self.workflow_id!r}{', live' if self._completion else ''})"

    def get_workflow_id(self) -> str:
        return self.workflow_id

    def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R:
        engine = current_engine()
        _refuse_self_deadlock(self._completion)
        plan = handle_result_plan(
            engine,
            self.workflow_id,
            self._completion,
            polling_interval_sec,
            must_exist=self._exists,
            timeout_seconds=check_limit(timeout_seconds),
        )
        result: R = run(engine, plan)
        return result

    def get_status(self) -> WorkflowStatus:
        refuse_running_loop("get_workflow_status")
        engine = current_engine()
        return run(engine, existing_status_plan(engine, self.workflow_id))


class AsyncHandle(Generic[R]):
    """The async handle; live when it holds the completion of an execution in this process."""

    def __init__(self, workflow_id: str, completion: Completion | None = None, *, exists: bool = False) -> None:
        self.workflow_id = workflow_id
        self.shard_key: str | None = None
        self._completion = completion
        # Whether the workflow was there when the handle was made: if it is not any more, waiting for it is an error.
        self._exists = exists

    def __repr__(self) -> str:
        return f"WorkflowHandleAsync({self.workflow_id!r}{', live' if self._completion else ''})"

    def get_workflow_id(self) -> str:
        return self.workflow_id

    async def get_result(self, *, polling_interval_sec: float = 1.0, timeout_seconds: float | None = None) -> R:
        engine = current_engine("Executor")
        plan = handle_result_plan(
            engine,
            self.workflow_id,
            self._completion,
            polling_interval_sec,
            must_exist=self._exists,
            timeout_seconds=check_limit(timeout_seconds),
        )
        result: R = await run_async(engine, plan)
        return result

    async def get_status(self) -> WorkflowStatus:
        engine = current_engine("Executor")
        return await run_async(engine, existing_status_plan(engine, self.workflow_id))
