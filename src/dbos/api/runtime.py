"""The one application of a process: its registry, and its engine while it is launched."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from ..engine.context import current_execution
from ..engine.errors import EngineStopped, ExecutionInterrupted
from ..engine.execution import public_error
from ..engine.plans import Plan
from ..engine.registry import Registry
from ..engine.running_loop import refuse_running_loop
from ..error import DBOSException
from ..serialization import check_text

if TYPE_CHECKING:
    from ..engine.core import Core
    from ..engine.engine import Engine
    from .app import DBOS

P = ParamSpec("P")
T = TypeVar("T")


class _State:
    """Process-wide: decorators need only the registry, so they work before any application exists."""

    instance: DBOS | None = None
    registry: Registry = Registry()


state = _State()


def current_engine(accessed: str = "System database") -> Engine:
    """The engine of the launched application.

    Raises DBOSException when no application was constructed, or it is not launched.
    """
    instance = state.instance
    if instance is None:
        raise DBOSException("No DBOS was created yet. Construct it with DBOS(config=...) and call DBOS.launch() first.")
    if instance.engine is None:
        raise DBOSException(f"{accessed} accessed before DBOS was launched. Call DBOS.launch() first.")
    return instance.engine


def run(engine: Engine, plan: Plan[T]) -> T:
    """Carry a plan out on this thread. Reasons to stop are for workflows; other callers see what caused them."""
    if current_execution() is not None:
        return engine.run(plan)
    try:
        return engine.run(plan)
    except (EngineStopped, ExecutionInterrupted) as error:
        raise public_error(error) from error


async def run_async(engine: Engine, plan: Plan[T]) -> T:
    """Carry a plan out on the running loop; errors as in `run`."""
    if current_execution() is not None:
        return await engine.run_async(plan)
    try:
        return await engine.run_async(plan)
    except (EngineStopped, ExecutionInterrupted) as error:
        raise public_error(error) from error


def engine_here() -> Engine:
    """The engine of the running workflow, else that of the launched application."""
    execution = current_execution()
    return execution.engine if execution is not None else current_engine()


def engine_for_async() -> Engine:
    """As `engine_here`, for async forms, which name another part when there is none."""
    execution = current_execution()
    return execution.engine if execution is not None else current_engine("Executor")


async def in_fresh_thread(function: Callable[[], T]) -> T:
    """Run a blocking function off the loop, where there are no threads of ours, or none any more."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1, thread_name_prefix="dbos-aside")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function)
    finally:
        thread.shutdown(wait=False)


class Host(Protocol):
    """Where the calls of an object run: in the application of this process, or through a client."""

    @property
    def core(self) -> Core: ...

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out on this thread."""
        ...


class _Application:
    """The engine of the running workflow, else of the launched application, whichever that is at the time."""

    @property
    def core(self) -> Core:
        return engine_here()

    def run(self, plan: Plan[T]) -> T:
        return run(engine_here(), plan)


APPLICATION: Host = _Application()


def on_engine(operation: Callable[Concatenate[Core, P], Plan[T]]) -> Callable[P, Plan[T]]:
    """An operation that clients have too, on the engine of the running workflow or of the launched application."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        return operation(engine_here(), *args, **kwargs)

    call.__signature__ = signature_without_core(operation)  # type: ignore[attr-defined]
    return call


def signature_without_core(operation: Callable[..., Any], *, first: str | None = None) -> inspect.Signature:
    """The signature of an operation without its first parameter, or with that under another name."""
    signature = inspect.signature(operation)
    core, *others = signature.parameters.values()
    if first is not None:
        others = [core.replace(name=first, annotation=inspect.Parameter.empty), *others]
    return signature.replace(parameters=others)


def check_ids(*workflow_ids: str) -> None:
    """Refuse what cannot be the id of a workflow in any database."""
    for workflow_id in workflow_ids:
        if not isinstance(workflow_id, str):
            raise DBOSException(f"A workflow id is a text, not {workflow_id!r}")
        check_text(workflow_id, "workflow id")


def check_page(limit: int | None, offset: int | None) -> None:
    """ValueError for what counts nothing."""
    for argument, value in (("limit", limit), ("offset", offset)):
        if value is not None and (type(value) is not int or not 0 <= value < 2**31):
            raise ValueError(f"{argument} must be a whole number from 0 on, not {value!r}")


def check_unsharded(shard_key: str | list[str] | None) -> None:
    """Refuse shard keys, which only a sharded system database accepts."""
    if shard_key is not None:
        raise DBOSException(f"A shard key was given ({shard_key!r}), but the system database is not sharded")


def blocking(name: str, operation: Callable[P, Plan[T]], *, in_loops: bool = False) -> staticmethod[P, T]:
    """The blocking form of an operation given as a plan; refuses to block an event loop unless `in_loops`."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not in_loops:
            refuse_running_loop(name)
        # A call in the wrong place is refused whether or not the application is launched.
        plan = operation(*args, **kwargs)
        return run(engine_here(), plan)

    call.__name__ = call.__qualname__ = name
    return staticmethod(call)


def twin(name: str, operation: Callable[P, Plan[T]]) -> staticmethod[P, Coroutine[Any, Any, T]]:
    """The async form of the same operation."""

    @functools.wraps(operation)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        engine = engine_for_async()
        return await run_async(engine, operation(*args, **kwargs))

    call.__name__ = call.__qualname__ = f"{name}_async"
    return staticmethod(call)


class classproperty(Generic[T]):
    """A read-only property of the class and of its instances."""

    def __init__(self, getter: Callable[[Any], T]) -> None:
        self._getter = getter
        self.__doc__ = getter.__doc__

    def __get__(self, instance: object, owner: Any) -> T:
        return self._getter(owner)
