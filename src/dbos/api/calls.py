"""What workflow code calls: durable sleep, patches, asyncio.wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..engine.context import Context, current_context, current_execution, enter, leave
from ..engine.operations import operation_plan
from ..engine.patches import patch_plan
from ..engine.plans import Call, Plan
from ..engine.running_loop import refuse_running_loop
from ..engine.waiting import sleep_plan
from ..error import DBOSException
from ..serialization import check_text
from .runtime import blocking, engine_here, run, run_async, state, twin

if TYPE_CHECKING:
    import asyncio

    from ..engine.engine import Engine


def _sleep(seconds: float) -> Plan[None]:
    """Sleep durably: a workflow that is recovered wakes at the time first planned, at once if that has passed.

    Args:
        seconds: How long; 0 or less returns at once.

    Raises:
        DBOSException: not called from workflow code.

    Durability: the wake-up time is recorded as one step before the sleep begins.
    """
    _check_placement("DBOS.sleep", seconds > 0)
    return sleep_plan(engine_here(), seconds)


def _check_placement(what: str, needed: bool) -> None:
    if needed and state.instance is not None and current_context() is None:
        raise DBOSException(f"{what} must be called from within a workflow: outside, use time.sleep")


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


def _placed(name: str, plan: Callable[[str], Plan[bool]]) -> staticmethod[[str], bool]:
    """Patches report a wrong place before a missing application."""

    def call(patch_name: str) -> bool:
        refuse_running_loop(name)
        return run(_placed_engine(name, patch_name), plan(patch_name))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = plan.__doc__
    return staticmethod(call)


def _placed_twin(name: str, plan: Callable[[str], Plan[bool]]) -> staticmethod[[str], Coroutine[Any, Any, bool]]:
    async def call(patch_name: str) -> bool:
        return await run_async(_placed_engine(name, patch_name), plan(patch_name))

    call.__name__ = call.__qualname__ = f"{name}_async"
    call.__doc__ = plan.__doc__
    return staticmethod(call)


def _placed_engine(name: str, patch_name: str) -> Engine:
    execution = current_execution()
    if execution is None:
        raise DBOSException(
            f"DBOS.{name}({patch_name!r}) must be called from workflow code, not from a step or outside"
        )
    check_text(patch_name, "patch name")
    return execution.engine


async def _wait(
    fs: list[Awaitable[Any]], timeout: float | None, return_when: str
) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    import asyncio

    context = current_context()
    execution = current_execution()
    if execution is None or context is None:
        tasks = [asyncio.ensure_future(f) for f in fs]
        return await asyncio.wait(tasks, timeout=timeout, return_when=return_when)
    tasks = []

    async def first_time() -> list[int]:
        # The awaitables are workflow code, not part of the recorded operation that waits for them.
        token = enter(Context(execution, None, context.identity))
        try:
            tasks.extend(asyncio.ensure_future(f) for f in fs)
        finally:
            leave(token)
        done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=return_when)
        return [index for index, task in enumerate(tasks) if task in done]

    def inner() -> Plan[list[int]]:
        indices: list[int] = yield Call(first_time, is_async=True)
        return indices

    indices = await execution.engine.run_async(operation_plan("DBOS.asyncio_wait", inner(), record_errors=False))
    if not tasks:
        # A replay: the same ones are done now as were then.
        tasks.extend(asyncio.ensure_future(f) for f in fs)
        if indices:
            await asyncio.wait([tasks[index] for index in indices])
    done = {tasks[index] for index in indices}
    return done, set(tasks) - done


class WorkflowCalls:
    """Durable sleep, patches, asyncio.wait."""

    sleep = blocking("sleep", _sleep)
    sleep_async = twin("sleep", _sleep)
    patch = _placed("patch", _patch)
    patch_async = _placed_twin("patch", _patch)
    deprecate_patch = _placed("deprecate_patch", _deprecate_patch)
    deprecate_patch_async = _placed_twin("deprecate_patch", _deprecate_patch)

    @staticmethod
    async def asyncio_wait(
        fs: list[Awaitable[Any]],
        *,
        timeout: float | None = None,
        return_when: str = "ALL_COMPLETED",
    ) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
        """`asyncio.wait` over awaitables, deterministic in workflows.

        Durability: in workflow code it is recorded which were done; a replay starts all, waits for exactly those, and
        returns them as done and the others as pending. `timeout` and `return_when` are ignored then.
        """
        return await _wait(fs, timeout, return_when)
