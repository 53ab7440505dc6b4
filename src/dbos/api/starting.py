"""Starting workflows in the background."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from ..engine.context import Context, current_context
from ..engine.starting import Target, start_plan
from ..error import DBOSException
from .decorators import engine_for_call, find_target
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .runtime import run, run_async

P = ParamSpec("P")
R = TypeVar("R")


def _target(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    misplaced = (current_context() or Context()).options.for_queues()
    if misplaced:
        raise DBOSException(
            f"start_workflow cannot use the enqueue options {', '.join(misplaced)}: they need a queue. Use "
            f"DBOS.enqueue_workflow, or leave the SetEnqueueOptions block."
        )
    return find_target(func, args, kwargs)


class StartCalls:
    """`DBOS.start_workflow`."""

    @overload
    @staticmethod
    def start_workflow(
        func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]: ...

    @overload
    @staticmethod
    def start_workflow(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]: ...

    @staticmethod
    def start_workflow(func: Callable[..., Any], *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Start a workflow in the background and return its handle.

        Returns only after the workflow and its arguments are committed: from then on it is executed to its end, also
        after a crash.

        Args:
            func: A workflow, or a step (which runs as a workflow of one step).
            args, kwargs: Its arguments.

        Returns:
            A handle. An id in use (SetWorkflowID) gives the handle of the workflow that has it.

        Raises:
            DBOSConflictingWorkflowError: the id belongs to a workflow of another function.
            DBOSWorkflowIDInUseError: the id is in use and the block's policy is "reject".

        Durability: in workflow code recorded as one step with the child's id; a replay returns a handle on that child.
        """
        target = _target(func, args, kwargs)
        engine = engine_for_call("System database")
        started = run(engine, start_plan(engine, target))
        if started.execution is None:
            return Handle(started.workflow_id, exists=True)
        engine.launch_in_background(started, target)
        return Handle(started.workflow_id, started.execution.completion, exists=True)

    @overload
    @staticmethod
    async def start_workflow_async(
        func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]: ...

    @overload
    @staticmethod
    async def start_workflow_async(
        func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]: ...

    @staticmethod
    async def start_workflow_async(func: Callable[..., Any], *args: Any, **kwargs: Any) -> WorkflowHandleAsync[Any]:
        """Start a workflow as a task of the running loop and return its handle; otherwise as `start_workflow`.

        A sync workflow is started on the thread pool.
        """
        target = _target(func, args, kwargs)
        engine = engine_for_call("Executor")
        started = await run_async(engine, start_plan(engine, target))
        if started.execution is None:
            return AsyncHandle(started.workflow_id, exists=True)
        if target.info.is_async:
            engine.launch_as_task(started, target)
        else:
            engine.launch_in_background(started, target)
        return AsyncHandle(started.workflow_id, started.execution.completion, exists=True)
