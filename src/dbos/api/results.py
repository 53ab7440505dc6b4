"""Results and status of workflows: ask, wait, list the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..engine.plans import Plan
from ..engine.running_loop import refuse_running_loop
from ..engine.waiting import existing_status_plan, result_plan, status_plan, steps_plan, wait_first_plan
from ..types import StepInfo, WorkflowStatus
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync, check_limit
from .runtime import (
    blocking,
    check_ids,
    check_page,
    check_unsharded,
    engine_for_async,
    engine_here,
    on_engine,
    run,
    run_async,
    twin,
)

if TYPE_CHECKING:
    from ..engine.core import Core


def _get_result(workflow_id: str, *, shard_key: str | None = None, timeout_seconds: float | None = None) -> Plan[Any]:
    """Wait for a workflow to end; its value, or its exception raised. An id that has no workflow yet is waited for.

    Args:
        timeout_seconds: How long to wait at most. Default None, for ever.

    Raises:
        DBOSResultTimeoutError: the workflow has not ended in time; it goes on. It is a TimeoutError.
        DBOSNonExistentWorkflowError: the workflow was deleted meanwhile.

    Durability: in workflow code recorded as one step; a replay returns or raises what was recorded, a timeout too. The
    time of a wait that a crash has cut off begins anew.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    return result_plan(engine_here(), workflow_id, check_limit(timeout_seconds))


def _get_workflow_status(workflow_id: str, *, shard_key: str | None = None) -> Plan[WorkflowStatus | None]:
    """The status of a workflow with its arguments and result, or None when there is none.

    Durability: in workflow code recorded as one step.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    return status_plan(engine_here(), workflow_id)


def step_listing(
    core: Core,
    workflow_id: str,
    *,
    load_output: bool = True,
    limit: int | None = None,
    offset: int | None = None,
    shard_key: str | None = None,
) -> Plan[list[StepInfo]]:
    """The recorded steps of a workflow, in order; empty for an unknown one.

    Args:
        load_output: False leaves `output` and `error` None and does not read them.
        limit, offset: How many, and how many to leave out before them; default all. A limit of 0 is none.

    Raises:
        ValueError: one of them has a value that means nothing; the message names it.
        DBOSQueryTimeoutError: it took longer than `observability_query_timeout_sec` (Postgres).

    Durability: in workflow code recorded as one step.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    check_page(limit, offset)
    if not isinstance(load_output, bool):
        raise ValueError(f"load_output must be True or False, not {load_output!r}")
    return steps_plan(core, workflow_id, load_output, limit, offset)


def distinct_ids(handles: Sequence[Any]) -> list[str]:
    ids = [handle.workflow_id for handle in handles]
    if not ids:
        raise ValueError("wait_first needs at least one handle")
    if len(set(ids)) != len(ids):
        raise ValueError("wait_first was given several handles of one workflow")
    return ids


class ResultCalls:
    """Handles, results, status and steps of workflows."""

    get_result = blocking("get_result", _get_result)
    get_result_async = twin("get_result", _get_result)
    get_workflow_status = blocking("get_workflow_status", _get_workflow_status)
    get_workflow_status_async = twin("get_workflow_status", _get_workflow_status)
    list_workflow_steps = blocking("list_workflow_steps", on_engine(step_listing))
    list_workflow_steps_async = twin("list_workflow_steps", on_engine(step_listing))

    @staticmethod
    def retrieve_workflow(
        workflow_id: str, existing_workflow: bool = True, *, shard_key: str | None = None
    ) -> WorkflowHandle[Any]:
        """A handle on a workflow.

        Args:
            existing_workflow: False returns at once, without looking whether the workflow exists.

        Raises:
            DBOSNonExistentWorkflowError: there is no such workflow.

        Durability: in workflow code the look is recorded as one step.
        """
        refuse_running_loop("retrieve_workflow")
        check_unsharded(shard_key)
        check_ids(workflow_id)
        engine = engine_here()
        if existing_workflow:
            run(engine, existing_status_plan(engine, workflow_id))
        return Handle(workflow_id, exists=existing_workflow)

    @staticmethod
    async def retrieve_workflow_async(
        workflow_id: str, existing_workflow: bool = True, *, shard_key: str | None = None
    ) -> WorkflowHandleAsync[Any]:
        """As `retrieve_workflow`, from async code."""
        check_unsharded(shard_key)
        check_ids(workflow_id)
        engine = engine_for_async()
        if existing_workflow:
            await run_async(engine, existing_status_plan(engine, workflow_id))
        return AsyncHandle(workflow_id, exists=existing_workflow)

    @staticmethod
    def wait_first(handles: list[WorkflowHandle[Any]], *, polling_interval_sec: float = 1.0) -> WorkflowHandle[Any]:
        """The handle of a workflow that has ended, whichever way; waits for the first.

        Raises:
            ValueError: no handles, or two of one workflow.
            DBOSNonExistentWorkflowError: all of them were deleted meanwhile.

        Durability: in workflow code the winner is recorded as one step; a replay returns its handle.
        """
        refuse_running_loop("wait_first")
        ids = distinct_ids(handles)
        engine = engine_here()
        winner = run(engine, wait_first_plan(engine, ids, polling_interval_sec))
        return {handle.workflow_id: handle for handle in handles}[winner]

    @staticmethod
    async def wait_first_async(
        handles: list[WorkflowHandleAsync[Any]], *, polling_interval_sec: float = 1.0
    ) -> WorkflowHandleAsync[Any]:
        """As `wait_first`, with async handles."""
        ids = distinct_ids(handles)
        engine = engine_for_async()
        winner = await run_async(engine, wait_first_plan(engine, ids, polling_interval_sec))
        return {handle.workflow_id: handle for handle in handles}[winner]
