"""Steps without a decorator: any function, and ids reserved in advance."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from ..engine.context import current_execution
from ..engine.execution import Execution
from ..engine.running_loop import refuse_running_loop
from ..engine.steps import StepSpec, step_plan
from ..error import DBOSException
from ..serialization import check_text
from .options import StepOptions, is_coroutine_function, step_spec
from .runtime import current_engine, state

P = ParamSpec("P")
R = TypeVar("R")


def _spec(options: StepOptions | None, function: Callable[..., Any]) -> StepSpec:
    given: dict[str, Any] = {key: value for key, value in (options or {}).items() if key in _STEP_OPTIONS}
    name = given.pop("name", None) or function.__qualname__
    check_text(name, "step name")
    return step_spec(name, is_coroutine_function(function), **given)


_STEP_OPTIONS = frozenset(StepOptions.__annotations__)


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

    @overload
    def run(
        self,
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    def run(
        self, dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    def run(self, dbos_step_options: StepOptions | None, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step at this id, otherwise as `DBOS.run_step`; at most once."""
        refuse_running_loop("run")
        execution = self._use()
        spec = _spec(dbos_step_options, func)
        return execution.engine.run(step_plan(execution, self._step_id, spec, func, args, kwargs))

    @overload
    async def run_async(
        self,
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    async def run_async(
        self, dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    async def run_async(
        self, dbos_step_options: StepOptions | None, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run a step at this id, otherwise as `DBOS.run_step_async`; at most once."""
        self._use()
        return await _run_step_async(self._step_id, dbos_step_options, func, args, kwargs)

    def _use(self) -> Execution:
        execution = current_execution()
        if execution is None or execution.workflow_id != self._workflow_id:
            raise DBOSException(
                f"Step {self._step_id} was reserved by workflow {self._workflow_id} and can run only in its workflow "
                f"code, not in a step, another workflow or outside"
            )
        if self._used:
            raise DBOSException(
                f"The reservation of step {self._step_id} of workflow {self._workflow_id} was used already; each "
                f"runs once"
            )
        self._used = True
        return execution


class StepCalls:
    """`DBOS.run_step` and `DBOS.reserve_step`."""

    @overload
    @staticmethod
    def run_step(
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    @staticmethod
    def run_step(
        dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @staticmethod
    def run_step(dbos_step_options: StepOptions | None, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
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
    @staticmethod
    async def run_step_async(
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    @staticmethod
    async def run_step_async(
        dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @staticmethod
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

    @staticmethod
    def reserve_step() -> StepReservation:
        """Draw the next step id of the running workflow now, to run the step later.

        Raises:
            DBOSException: not called from workflow code.
        """
        execution = current_execution()
        if execution is None:
            raise DBOSException("DBOS.reserve_step must be called from workflow code, not from a step or outside")
        return StepReservation(execution.workflow_id, execution.draw())
