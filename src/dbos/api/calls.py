"""What workflow code calls, and what looks at workflows: each operation once as a plan, in two forms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, cast, overload

from ..engine.context import Context, current_context, current_execution
from ..engine.engine import Engine, is_coroutine_function
from ..engine.operations import operation_plan
from ..engine.patches import patch_plan
from ..engine.plans import Plan, Read
from ..engine.steps import StepSpec, step_plan
from ..engine.waiting import (
    existing_status_plan,
    result_plan,
    sleep_plan,
    status_plan,
    steps_plan,
    wait_first_plan,
)
from ..engine.workers import refuse_running_loop
from ..error import DBOSException, DBOSNonExistentWorkflowError
from ..serialization import check_text
from ..types import INTERNAL_QUEUE_NAME, StepInfo, VersionInfo, WorkflowStatus
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .options import StepOptions, step_spec
from .runtime import blocking, current_engine, run, run_async, state, twin

P = ParamSpec("P")
R = TypeVar("R")


# --- steps without a decorator


def _spec(options: StepOptions | None, function: Callable[..., Any]) -> StepSpec:
    given: dict[str, Any] = {key: value for key, value in (options or {}).items() if key in _STEP_OPTIONS}
    name = given.pop("name", None) or function.__qualname__
    check_text(name, "step name")
    return step_spec(name, is_coroutine_function(function), **given)


_STEP_OPTIONS = frozenset(StepOptions.__annotations__)


@overload
def run_step(
    dbos_step_options: StepOptions | None,
    func: Callable[P, Coroutine[Any, Any, R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R: ...


@overload
def run_step(
    dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R: ...


def run_step(
    dbos_step_options: StepOptions | None, func: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call any function as a step of the running workflow.

    Args:
        dbos_step_options: See StepOptions; None for the defaults.
        func: A function; a coroutine function runs on the event loop of DBOS while this call waits.
        args, kwargs: Its arguments.

    Durability: recorded as one step; a replay returns or raises what was recorded. Outside of workflows a plain
    call.
    """
    refuse_running_loop("run_step")
    execution = current_execution()
    if execution is None:
        if state.instance is None:
            current_engine()
        if is_coroutine_function(func):
            instance = state.instance
            if instance is None or instance.engine is None:
                raise RuntimeError("run_step of a coroutine function needs DBOS.launch(): no event loop is started")
            return instance.engine.loops.run(func(*args, **kwargs))
        return func(*args, **kwargs)
    step_id = execution.draw()
    plan = step_plan(execution, step_id, _spec(dbos_step_options, func), func, args, kwargs)
    return execution.engine.run(plan)


@overload
async def run_step_async(
    dbos_step_options: StepOptions | None,
    func: Callable[P, Coroutine[Any, Any, R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R: ...


@overload
async def run_step_async(
    dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R: ...


async def run_step_async(
    dbos_step_options: StepOptions | None, func: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """As `run_step`, from async code. A sync function runs in a worker thread."""
    execution = current_execution()
    if execution is None:
        engine = current_engine("Executor")
        if is_coroutine_function(func):
            return await func(*args, **kwargs)
        return await engine.loops.in_thread(func, *args, **kwargs)
    return await _run_step_async(execution.draw(), dbos_step_options, func, args, kwargs)


async def _run_step_async(
    step_id: int,
    options: StepOptions | None,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    execution = current_execution()
    assert execution is not None
    spec = _spec(options, func)
    spec.in_thread = not spec.is_async
    return await execution.engine.run_async(step_plan(execution, step_id, spec, func, args, kwargs))


class StepReservation:
    """A step id drawn in advance: fixes the order of steps whose work is done later or in another task."""

    def __init__(self, workflow_id: str, step_id: int) -> None:
        self._workflow_id = workflow_id
        self._step_id = step_id
        self._used = False

    def __repr__(self) -> str:
        return f"StepReservation({self._workflow_id!r}, step {self._step_id}{', used' if self._used else ''})"

    @property
    def step_id(self) -> int:
        """The reserved id."""
        return self._step_id

    def run(
        self,
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run a step at this id, otherwise as `DBOS.run_step`; at most once."""
        refuse_running_loop("run")
        execution = self._use()
        spec = _spec(dbos_step_options, func)
        result: R = execution.engine.run(step_plan(execution, self._step_id, spec, func, args, kwargs))
        return result

    async def run_async(
        self,
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run a step at this id, otherwise as `DBOS.run_step_async`; at most once."""
        self._use()
        return cast(R, await _run_step_async(self._step_id, dbos_step_options, func, args, kwargs))

    def _use(self) -> Any:
        execution = current_execution()
        if execution is None or execution.workflow_id != self._workflow_id:
            raise DBOSException(
                f"Step {self._step_id} was reserved by workflow {self._workflow_id} and can run only in its workflow "
                f"code, not in a step, another workflow or outside"
            )
        if self._used:
            raise DBOSException(
                f"The reservation of step {self._step_id} of workflow {self._workflow_id} was used already; each runs once"
            )
        self._used = True
        return execution


def reserve_step() -> StepReservation:
    """Draw the next step id of the running workflow now, to run the step later.

    Raises:
        DBOSException: not called from workflow code.
    """
    execution = current_execution()
    if execution is None:
        raise DBOSException("DBOS.reserve_step must be called from workflow code, not from a step or outside")
    return StepReservation(execution.workflow_id, execution.draw())


# --- sleep, patches


def _sleep(seconds: float) -> Plan[None]:
    """Sleep durably: a workflow that is recovered wakes at the time first planned, at once if that has passed.

    Args:
        seconds: How long; 0 or less returns at once.

    Raises:
        DBOSException: not called from workflow code.

    Durability: the wake-up time is recorded as one step before the sleep begins.
    """
    _check_placement("DBOS.sleep", seconds > 0)
    return sleep_plan(_engine(), seconds)


def _check_placement(what: str, needed: bool) -> None:
    if needed and state.instance is not None and current_context() is None:
        raise DBOSException(f"{what} must be called from within a workflow: outside, use time.sleep")


def _engine() -> Engine:
    execution = current_execution()
    return execution.engine if execution is not None else current_engine()


sleep = blocking("sleep", _sleep)
sleep_async = twin("sleep", _sleep)


def _patch(patch_name: str) -> Plan[bool]:
    """Whether this workflow follows the new code from here on.

    True for a workflow that comes here for the first time with the new code, and for every replay of it; False for
    one that was past this point already, which goes on with the old code.

    Raises:
        DBOSException: not called from workflow code.

    Durability: True is recorded as one step (a marker); False records nothing.
    """
    return patch_plan(patch_name, deprecated=False)


def _deprecate_patch(patch_name: str) -> Plan[bool]:
    """In place of `patch` once no workflow on the old path is left; remove it when no marker is left. Always True."""
    return patch_plan(patch_name, deprecated=True)


def _placed(name: str, plan: Callable[[str], Plan[bool]]) -> Callable[[str], bool]:
    """Patches report a wrong place before a missing application."""

    def call(patch_name: str) -> bool:
        refuse_running_loop(name)
        return run(_placed_engine(name, patch_name), plan(patch_name))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = plan.__doc__
    return staticmethod(call)


def _placed_twin(name: str, plan: Callable[[str], Plan[bool]]) -> Callable[[str], Coroutine[Any, Any, bool]]:
    async def call(patch_name: str) -> bool:
        return await run_async(_placed_engine(name, patch_name), plan(patch_name))

    call.__name__ = call.__qualname__ = f"{name}_async"
    call.__doc__ = plan.__doc__
    return staticmethod(call)


def _placed_engine(name: str, patch_name: str) -> Engine:
    execution = current_execution()
    if execution is None:
        raise DBOSException(f"DBOS.{name}({patch_name!r}) must be called from workflow code, not from a step or outside")
    check_text(patch_name, "patch name")
    return execution.engine


patch = _placed("patch", _patch)
patch_async = _placed_twin("patch", _patch)
deprecate_patch = _placed("deprecate_patch", _deprecate_patch)
deprecate_patch_async = _placed_twin("deprecate_patch", _deprecate_patch)


# --- results and status


def _check_unsharded(shard_key: str | None) -> None:
    if shard_key is not None:
        raise DBOSException(f"A shard key was given ({shard_key!r}), but the system database is not sharded")


def _get_result(workflow_id: str, *, shard_key: str | None = None) -> Plan[Any]:
    """Wait for a workflow to end; its value, or its exception raised. Waits for ever for an id that never starts.

    Durability: in workflow code recorded as one step; a replay returns or raises what was recorded.
    """
    _check_unsharded(shard_key)
    return result_plan(_engine(), workflow_id)


def _get_workflow_status(workflow_id: str, *, shard_key: str | None = None) -> Plan[WorkflowStatus | None]:
    """The status of a workflow with its arguments and result, or None when there is none.

    Durability: in workflow code recorded as one step.
    """
    _check_unsharded(shard_key)
    return status_plan(_engine(), workflow_id)


def _list_workflow_steps(
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
        limit, offset: Which of them; default all.

    Durability: in workflow code recorded as one step.
    """
    _check_unsharded(shard_key)
    return steps_plan(_engine(), workflow_id, load_output, limit, offset)


get_result = blocking("get_result", _get_result)
get_result_async = twin("get_result", _get_result)
get_workflow_status = blocking("get_workflow_status", _get_workflow_status)
get_workflow_status_async = twin("get_workflow_status", _get_workflow_status)
list_workflow_steps = blocking("list_workflow_steps", _list_workflow_steps)
list_workflow_steps_async = twin("list_workflow_steps", _list_workflow_steps)


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
    _check_unsharded(shard_key)
    engine = _engine()
    if existing_workflow:
        run(engine, existing_status_plan(engine, workflow_id))
    return Handle(workflow_id)


async def retrieve_workflow_async(
    workflow_id: str, existing_workflow: bool = True, *, shard_key: str | None = None
) -> WorkflowHandleAsync[Any]:
    """As `retrieve_workflow`, from async code."""
    _check_unsharded(shard_key)
    engine = _engine()
    if existing_workflow:
        await run_async(engine, existing_status_plan(engine, workflow_id))
    return AsyncHandle(workflow_id)


def _distinct_ids(handles: Sequence[Any]) -> list[str]:
    ids = [handle.workflow_id for handle in handles]
    if not ids:
        raise ValueError("wait_first needs at least one handle")
    if len(set(ids)) != len(ids):
        raise ValueError("wait_first was given several handles of one workflow")
    return ids


def wait_first(
    handles: list[WorkflowHandle[Any]], *, polling_interval_sec: float = 1.0
) -> WorkflowHandle[Any]:
    """The handle of a workflow that has ended, whichever way; waits for the first.

    Raises:
        ValueError: no handles, or two of one workflow.

    Durability: in workflow code the winner is recorded as one step; a replay returns its handle.
    """
    refuse_running_loop("wait_first")
    ids = _distinct_ids(handles)
    engine = _engine()
    winner = run(engine, wait_first_plan(engine, ids, polling_interval_sec))
    return {handle.workflow_id: handle for handle in handles}[winner]


async def wait_first_async(
    handles: list[WorkflowHandleAsync[Any]], *, polling_interval_sec: float = 1.0
) -> WorkflowHandleAsync[Any]:
    """As `wait_first`, with async handles."""
    ids = _distinct_ids(handles)
    engine = _engine()
    winner = await run_async(engine, wait_first_plan(engine, ids, polling_interval_sec))
    return {handle.workflow_id: handle for handle in handles}[winner]


async def asyncio_wait(
    fs: list[Awaitable[Any]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 (the signature of asyncio.wait)
    return_when: str = asyncio.ALL_COMPLETED,
) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    """`asyncio.wait` over awaitables, deterministic in workflows.

    Durability: in workflow code it is recorded which were done; a replay starts all, waits for exactly those, and
    returns them as done and the others as pending. Timeout and return_when are ignored then.
    """
    execution = current_execution()
    if execution is None:
        tasks = [asyncio.ensure_future(f) for f in fs]
        return await asyncio.wait(tasks, timeout=timeout, return_when=return_when)  # type: ignore[type-var,return-value]

    engine = execution.engine
    tasks_made: list[asyncio.Task[Any]] = []

    async def wait() -> list[int]:
        tasks_made.extend(cast(Any, asyncio.ensure_future(f)) for f in fs)
        done, _ = await asyncio.wait(tasks_made, timeout=timeout, return_when=return_when)
        return [index for index, task in enumerate(tasks_made) if task in done]

    from ..engine.plans import Call

    def inner() -> Plan[list[int]]:
        # The tasks run workflow code, so they must not see the context of this operation.
        indices: list[int] = yield Call(_as_workflow_code(wait), is_async=True)
        return indices

    context = current_context()
    assert context is not None

    def _as_workflow_code(function: Callable[[], Coroutine[Any, Any, list[int]]]) -> Callable[[], Any]:
        async def call() -> list[int]:
            from ..engine.context import enter, leave

            token = enter(Context(execution, None, context.identity))
            try:
                return await function()
            finally:
                leave(token)

        return call

    recorded = await engine.run_async(operation_plan("DBOS.asyncio_wait", inner()))
    if not tasks_made:
        tasks_made.extend(cast(Any, asyncio.ensure_future(f)) for f in fs)
        wanted = [tasks_made[index] for index in recorded]
        if wanted:
            await asyncio.wait(wanted)
    finished = {tasks_made[index] for index in recorded}
    return finished, set(tasks_made) - finished


# --- managing


def _cancel_workflows(
    workflow_ids: list[str], *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel workflows that have not ended. Unknown and finished ones are ignored.

    A running workflow stops at its next operation; a step that is running ends first, and is not recorded.

    Args:
        cancel_children: Also cancel all their descendants.

    Durability: in workflow code recorded as one step.
    """
    _check_unsharded(shard_key)
    return operation_plan("DBOS.cancelWorkflow", _cancel(_engine(), list(workflow_ids), cancel_children))


def _cancel_workflow(
    workflow_id: str, *, cancel_children: bool = False, shard_key: str | None = None
) -> Plan[None]:
    """Cancel a workflow; see `cancel_workflows`."""
    return _cancel_workflows([workflow_id], cancel_children=cancel_children, shard_key=shard_key)


def _cancel(engine: Engine, workflow_ids: list[str], cancel_children: bool) -> Plan[None]:
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
) -> Plan[list[str]]:
    _check_unsharded(shard_key)
    return operation_plan("DBOS.resumeWorkflow", _resume(_engine(), list(workflow_ids), queue_name))


def _resume(engine: Engine, workflow_ids: list[str], queue_name: str | None) -> Plan[None]:
    existing: list[str] = yield Read(lambda store: store.find_existing(workflow_ids))
    missing = [workflow_id for workflow_id in workflow_ids if workflow_id not in set(existing)]
    if missing:
        raise DBOSNonExistentWorkflowError("target", ", ".join(missing))
    queue = queue_name or INTERNAL_QUEUE_NAME
    yield Read(lambda store: store.resume_workflows(workflow_ids, queue, engine.clock.now_ms()))
    engine.dispatcher.wake()


cancel_workflow = blocking("cancel_workflows", _cancel_workflow)
cancel_workflow_async = twin("cancel_workflow", _cancel_workflow)
cancel_workflows = blocking("cancel_workflows", _cancel_workflows)
cancel_workflows_async = twin("cancel_workflows", _cancel_workflows)


def resume_workflows(
    workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
) -> list[WorkflowHandle[Any]]:
    """Run workflows again that were cancelled or given up, from their last recorded step. Finished ones stay as they are.

    Args:
        queue_name: The queue to put them on; default one without limits.

    Raises:
        DBOSNonExistentWorkflowError: one of them does not exist; nothing changes then.

    Durability: in workflow code recorded as one step.
    """
    refuse_running_loop("resume_workflows")
    run(_engine(), _resume_workflows(workflow_ids, queue_name=queue_name, shard_key=shard_key))
    return [Handle(workflow_id) for workflow_id in workflow_ids]


async def resume_workflows_async(
    workflow_ids: list[str], *, queue_name: str | None = None, shard_key: str | None = None
) -> list[WorkflowHandleAsync[Any]]:
    """As `resume_workflows`, from async code."""
    await run_async(_engine(), _resume_workflows(workflow_ids, queue_name=queue_name, shard_key=shard_key))
    return [AsyncHandle(workflow_id) for workflow_id in workflow_ids]


def resume_workflow(
    workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
) -> WorkflowHandle[Any]:
    """Run a workflow again that was cancelled or given up; see `resume_workflows`."""
    refuse_running_loop("resume_workflow")
    return resume_workflows([workflow_id], queue_name=queue_name, shard_key=shard_key)[0]


async def resume_workflow_async(
    workflow_id: str, *, queue_name: str | None = None, shard_key: str | None = None
) -> WorkflowHandleAsync[Any]:
    """As `resume_workflow`, from async code."""
    return (await resume_workflows_async([workflow_id], queue_name=queue_name, shard_key=shard_key))[0]


# --- application versions (never recorded: a replay asks again)


def list_application_versions() -> list[VersionInfo]:
    """Own and unowned application versions, newest first."""
    engine = current_engine()
    return engine.drivers.read(lambda store: store.list_versions(engine.settings.name))


def get_latest_application_version() -> VersionInfo:
    """The version with the highest timestamp; DBOSException when none is registered."""
    versions = list_application_versions()
    if not versions:
        raise DBOSException("No application versions found")
    return versions[0]


def set_latest_application_version(version_name: str, *, application_name: str | None = None) -> None:
    """Make a registered version the latest.

    Raises:
        DBOSException: no such version is registered, or another application owns it.
    """
    engine = current_engine()
    owner = application_name or engine.settings.name
    now_ms = engine.clock.now_ms()
    if not engine.drivers.read(lambda store: store.promote_version(version_name, owner, now_ms)):
        known = ", ".join(version["version_name"] for version in list_application_versions()[:10])
        raise DBOSException(f"Application version {version_name!r} is not registered. Known versions: {known}")


def _in_thread(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return await current_engine("Executor").loops.in_thread(function, *args, **kwargs)

    call.__name__ = call.__qualname__ = f"{function.__name__}_async"
    call.__doc__ = f"As `{function.__name__}`, from async code."
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call


list_application_versions_async = _in_thread(list_application_versions)
get_latest_application_version_async = _in_thread(get_latest_application_version)
set_latest_application_version_async = _in_thread(set_latest_application_version)
