"""`@DBOS.workflow`, `@DBOS.step`, classes, roles."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from ..engine.context import current_context, current_execution
from ..engine.registry import TEMPORARY_PREFIX, FunctionInfo, Registry, ValidateArgs, WorkflowInfo
from ..engine.starting import Target
from ..engine.steps import StepSpec, step_plan
from ..engine.workflows import call_plan, check_roles
from ..error import DBOSException, DBOSWorkflowFunctionNotFoundError
from ..serialization import WorkflowSerializationFormat, check_text
from .options import is_coroutine_function, step_spec
from .runtime import current_engine, run, run_async, state
from .validation import make_pydantic_args_validator, pydantic_args_validator

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type[Any])

# Where a wrapper keeps what the decorators know about it: the workflow to start under its name (for a step, the
# one-step workflow), and the roles it needs.
WORKFLOW_ATTRIBUTE = "__dbos_workflow__"
FUNCTION_ATTRIBUTE = "__dbos_function__"


def workflow(
    *,
    name: str | None = None,
    max_recovery_attempts: int | None = 100,
    serialization_type: WorkflowSerializationFormat | None = None,
    validate_args: ValidateArgs | None = None,
    auto_upgrade: bool | None = None,
    stored_result: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a durable workflow.

    Each of its steps is recorded when it completes; after a crash the workflow starts again with the same arguments,
    recorded steps return their recorded results, and execution continues behind the last of them. So a workflow must
    be deterministic: everything that may differ from run to run belongs in steps.

    Args:
        name: Registered name; default the function's qualified name. Stored with each workflow.
        max_recovery_attempts: How many executions after the first are allowed; None is no limit.
        serialization_type: Format of arguments and result: DEFAULT (the configured serializer), PORTABLE (JSON, for
            other languages) or NATIVE (pickle).
        validate_args: Called with (args, kwargs) before a stored workflow is executed; returns what to call with.
        auto_upgrade: Accepted for compatibility; has no effect here.
        stored_result: Deliver the result, or the error, as it is read back from what was stored, to the first caller
            too. Default False: whoever waits in the process that executes it gets the object itself, and only later
            callers what was stored of it, for example a list where a tuple was.

    Returns:
        A decorator. The decorated function keeps its signature; a call runs the workflow and returns its result.

    Raises:
        DBOSException: another module has registered a workflow of the same name.
    """
    if callable(name):
        raise TypeError("Write @DBOS.workflow() with parentheses")
    if max_recovery_attempts is not None and (
        isinstance(max_recovery_attempts, bool)
        or not isinstance(max_recovery_attempts, int)
        or max_recovery_attempts < 0
    ):
        raise DBOSException(
            f"max_recovery_attempts must be a whole number from 0 on, or None for no limit, "
            f"not {max_recovery_attempts!r}"
        )
    registry = state.registry

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        method = _method_kind(function)
        if method is not None:
            # The decorators in the other order (02 R246): the method stays what it is.
            return cast(Callable[P, R], method(decorate(cast(Any, function).__func__)))
        registered_name = _checked_name(name, function, "workflow")
        is_async = is_coroutine_function(function)
        if not is_async and is_coroutine_function(inspect.unwrap(function)):
            # A plain wrapper around a coroutine function, such as an older required_roles.
            raise DBOSException(
                f"Workflow {registered_name!r} wraps a coroutine function in a plain one; decorate the coroutine "
                f"function itself, or make the decorator in between async"
            )
        info = WorkflowInfo(
            registered_name,
            function,
            is_async,
            required_roles=_inherited_roles(function),
            max_recovery_attempts=max_recovery_attempts,
            serialization_type=serialization_type,
            stored_result=stored_result,
            auto_upgrade=auto_upgrade,
            source=function,
            # Until its class is decorated; plain functions have no such parameter.
            is_undecorated_method=_first_parameter(function) in ("self", "cls"),
        )
        if validate_args is pydantic_args_validator:
            info.validate_args = make_pydantic_args_validator(function)
        else:
            info.validate_args = validate_args
        registry.register_workflow(info)
        wrapper = _workflow_wrapper(info, function, registry)
        setattr(wrapper, WORKFLOW_ATTRIBUTE, info)
        setattr(wrapper, FUNCTION_ATTRIBUTE, info)
        return wrapper

    return decorate


def _method_kind(function: object) -> Callable[[Any], Any] | None:
    """staticmethod or classmethod, if the function is wrapped in one already."""
    return type(function) if isinstance(function, (staticmethod, classmethod)) else None


def _workflow_wrapper(info: WorkflowInfo, function: Callable[P, R], registry: Registry) -> Callable[P, R]:
    if info.is_async:

        @functools.wraps(cast(Any, function))
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            _check_registry(info, registry)
            engine = engine_for_call("Executor")
            return await run_async(engine, call_plan(engine, make_target(info, function, args, kwargs)))

        return cast(Callable[P, R], call_async)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_registry(info, registry)
        engine = engine_for_call("System database")
        result: R = run(engine, call_plan(engine, make_target(info, function, args, kwargs)))
        return result

    return call


def _check_registry(info: WorkflowInfo, registry: Registry) -> None:
    if registry is not state.registry:
        raise DBOSException(
            f"Workflow {info.name!r} was decorated before DBOS.destroy(destroy_registry=True), so recovery could not "
            f"find it any more. Decorate the function again."
        )


def engine_for_call(accessed: str) -> Any:
    execution = current_execution()
    # Inside a workflow its own engine counts, also when that is being destroyed.
    return execution.engine if execution is not None else current_engine(accessed)


def make_target(
    info: WorkflowInfo, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Target:
    """What to call, with the receiver of a method taken off the arguments.

    Raises Exception when a method's class or instance is not registered, since recovery could not find it.
    """
    if info.kind == "instance":
        if not args:
            raise TypeError(f"Workflow {info.name!r} is a method and needs its instance as first argument")
        instance = args[0]
        owner = state.registry.class_of(type(instance)) or info.owner
        config_name = getattr(instance, "config_name", None)
        if owner is None or config_name is None:
            raise Exception(
                f"Workflow method {info.name!r} was called on an instance without a config_name. Derive its class "
                f"from DBOSConfiguredInstance, so that recovery can find the instance."
            )
        return Target(info, function, args[1:], kwargs, instance, owner.name, str(config_name))
    if info.kind == "class":
        cls = args[0]
        owner = state.registry.class_of(cls) or info.owner
        assert owner is not None
        return Target(info, function, args[1:], kwargs, cls, owner.name)
    if info.kind == "function" and args and info.is_undecorated_method:
        raise Exception(
            f"Workflow {info.name!r} looks like a method, but its class is not registered. Decorate the class with "
            f"@DBOS.dbos_class(), with @classmethod or @staticmethod above @DBOS.workflow()."
        )
    return Target(info, function, args, kwargs)


def find_target(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    """The target of `start_workflow` and the like: a decorated function, a bound method, or a decorated step."""
    receiver = getattr(func, "__self__", None)
    info: WorkflowInfo | None = getattr(func, WORKFLOW_ATTRIBUTE, None)
    if info is None:
        raise DBOSWorkflowFunctionNotFoundError(
            "<NONE>",
            f"{getattr(func, '__qualname__', func)!r} is not a workflow: decorate it with @DBOS.workflow() or "
            f"@DBOS.step()",
        )
    if receiver is not None:
        args = (receiver, *args)
    return make_target(info, info.function if receiver is not None else _own_function(func, info), args, kwargs)


def is_plain_function(func: object) -> bool:
    """Whether `find_target` does nothing with the arguments of the function."""
    info: WorkflowInfo | None = getattr(func, WORKFLOW_ATTRIBUTE, None)
    bound = getattr(func, "__self__", None) is not None
    return info is not None and info.kind in ("function", "static") and not info.is_undecorated_method and not bound


def _own_function(func: Callable[..., Any], info: WorkflowInfo) -> Callable[..., Any]:
    """The older function object of a name registered twice still runs its own body (02 R8)."""
    own: WorkflowInfo = getattr(func, WORKFLOW_ATTRIBUTE)
    return own.function


def step(
    *,
    name: str | None = None,
    retries_allowed: bool = False,
    interval_seconds: float = 1.0,
    max_attempts: int = 3,
    backoff_rate: float = 2.0,
    should_retry: Callable[[BaseException], bool | Awaitable[bool]] | None = None,
    preemptible: bool = False,
    timeout_seconds: float | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a step: inside a workflow its result is recorded, and never computed twice once recorded.

    A crash between the end of the body and the record runs the body again, so what it does outside should be
    repeatable. Outside of workflows, and inside other steps, a call is a plain call.

    Args:
        name: Name in the history; default the function's qualified name.
        retries_allowed: Try again after an Exception. Default False.
        interval_seconds: Wait before the second attempt, in seconds. Default 1.
        max_attempts: Attempts in all. Default 3.
        backoff_rate: Multiplier of the wait per further attempt. Default 2; a wait is at most 3600 s.
        should_retry: Called with the exception; false gives up at once.
        preemptible: Cancel a running async step when its workflow is cancelled.
        timeout_seconds: The longest an attempt of an async step may take, in seconds.

    Raises:
        DBOSException: an option does not fit the function, or its value is out of range.

    Durability: recorded as one step with its value or its exception. A replay returns or raises a copy of it.
    """
    if callable(name):
        raise TypeError("Write @DBOS.step() with parentheses")
    registry = state.registry

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        method = _method_kind(function)
        if method is not None:
            # The decorators in the other order (02 R246): the method stays what it is.
            return cast(Callable[P, R], method(decorate(cast(Any, function).__func__)))
        registered_name = _checked_name(name, function, "step")
        is_async = is_coroutine_function(function)
        spec = step_spec(
            registered_name,
            is_async,
            retries_allowed=retries_allowed,
            interval_seconds=interval_seconds,
            max_attempts=max_attempts,
            backoff_rate=backoff_rate,
            should_retry=should_retry,
            preemptible=preemptible,
            timeout_seconds=timeout_seconds,
        )
        info = FunctionInfo(registered_name, function, is_async, required_roles=_inherited_roles(function))
        wrapper = _step_wrapper(spec, info, function)
        workflow_info = WorkflowInfo(TEMPORARY_PREFIX + registered_name, wrapper, is_async, source=function)
        setattr(wrapper, WORKFLOW_ATTRIBUTE, workflow_info)
        setattr(wrapper, FUNCTION_ATTRIBUTE, info)
        registry.register_workflow(workflow_info)
        return wrapper

    return decorate


def _step_wrapper(spec: StepSpec, info: FunctionInfo, function: Callable[P, R]) -> Callable[P, R]:
    if spec.is_async:

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            execution = current_execution()
            if execution is None:
                return await cast(Any, function)(*args, **kwargs)
            if info.required_roles is not None or info.owner is not None:
                _check_step_roles(info)
            plan = step_plan(execution, execution.draw(), spec, function, args, kwargs)
            return await execution.engine.run_async(plan)

        return cast(Callable[P, R], call_async)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        execution = current_execution()
        if execution is None:
            return function(*args, **kwargs)
        if info.required_roles is not None or info.owner is not None:
            _check_step_roles(info)
        result: R = execution.engine.run(step_plan(execution, execution.draw(), spec, function, args, kwargs))
        return result

    return call


def _check_step_roles(info: FunctionInfo) -> None:
    context = current_context()
    check_roles(info, context.identity if context is not None else None)


def _first_parameter(function: Callable[..., Any]) -> str | None:
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):
        return None


def _checked_name(name: str | None, function: Any, what: str) -> str:
    """The registered name; it is stored, so it must be a text the database can hold."""
    if not callable(function):
        raise TypeError(
            f"@DBOS.{what}() decorates a function, not {type(function).__name__}; put @staticmethod and "
            f"@classmethod above it"
        )
    if name is not None and not isinstance(name, str):
        raise DBOSException(f"The name of a {what} must be a text, not {name!r}")
    chosen: str = name or function.__qualname__
    check_text(chosen, f"{what} name")
    return chosen


# --- classes


def dbos_class(class_name: str | None = None) -> Callable[[C], C]:
    """Register a class whose methods are workflows, under `class_name` or its qualified name.

    Raises:
        Exception: another class is registered under that name.
    """
    if class_name is not None and not isinstance(class_name, str):
        raise TypeError("Write @DBOS.dbos_class() with parentheses")
    if class_name is not None:
        check_text(class_name, "class name")
    registry = state.registry

    def decorate(cls: C) -> C:
        _register_class(registry, class_name or cls.__qualname__, cls)
        return cls

    return decorate


def default_required_roles(roles: list[str]) -> Callable[[C], C]:
    """Register a class and give its workflows and steps these roles, one of which a caller needs."""
    registry = state.registry

    def decorate(cls: C) -> C:
        known = next((info for info in registry.classes.values() if info.cls is cls), None)
        info = known or _register_class(registry, cls.__qualname__, cls)
        info.default_roles = list(roles)
        return cls

    return decorate


def _register_class(registry: Any, name: str, cls: type[Any]) -> Any:
    known = next((info for info in registry.classes.values() if info.cls is cls), None)
    if known is not None and known.name != name and known.name == cls.__qualname__:
        del registry.classes[known.name]
        roles = known.default_roles
    else:
        roles = known.default_roles if known is not None else None
    owner = registry.register_class(name, cls)
    owner.default_roles = roles
    for attribute in vars(cls).values():
        function, kind = attribute, "instance"
        if isinstance(attribute, staticmethod):
            function, kind = attribute.__func__, "static"
        elif isinstance(attribute, classmethod):
            function, kind = attribute.__func__, "class"
        for key in (WORKFLOW_ATTRIBUTE, FUNCTION_ATTRIBUTE):
            info = getattr(function, key, None)
            if isinstance(info, FunctionInfo):
                info.kind = kind
                info.owner = owner
    return owner


class DBOSConfiguredInstance:
    """Base class of classes whose workflows are instance methods.

    Stored workflows name their instance by `config_name`; make the same instances in every process, before
    `DBOS.launch()`. The instance's own state is never stored.
    """

    def __init__(self, config_name: str) -> None:
        check_text(str(config_name), "config_name")
        self.config_name = config_name
        state.registry.register_instance(self)


# --- roles


def required_roles(roles: list[str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let only callers with one of the roles call a function; the first match becomes the assumed role.

    For workflows put it above `@DBOS.workflow()`; below works too. Raises DBOSNotAuthorizedError at the call.
    """
    wanted = list(roles)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        info: FunctionInfo | None = getattr(function, FUNCTION_ATTRIBUTE, None)
        if info is not None:
            info.required_roles = wanted
            started: WorkflowInfo | None = getattr(function, WORKFLOW_ATTRIBUTE, None)
            if started is not None:
                started.required_roles = wanted
        checked = info or FunctionInfo(
            getattr(function, "__qualname__", repr(function)),
            function,
            is_coroutine_function(function),
            required_roles=wanted,
        )

        def check() -> None:
            context = current_context()
            try:
                check_roles(checked, context.identity if context is not None else None)
            except DBOSException as denied:
                if info is None and not hasattr(function, FUNCTION_ATTRIBUTE) and not registered(wrapper):
                    raise DBOSWorkflowFunctionNotFoundError("<NONE>", str(denied)) from None
                raise

        wrapper: Callable[P, R]
        if is_coroutine_function(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                check()
                return await cast(Any, function)(*args, **kwargs)

            wrapper = cast(Callable[P, R], call_async)
        else:

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                check()
                return function(*args, **kwargs)

            wrapper = call
        wrapper.__dbos_roles__ = wanted  # type: ignore[attr-defined]
        return wrapper

    def registered(wrapper: Callable[..., Any]) -> bool:
        return any(info.function is wrapper for info in state.registry.workflows.values())

    return decorate


def _inherited_roles(function: Any) -> list[str] | None:
    """The roles of a `required_roles` wrapper below the decorator."""
    return getattr(function, "__dbos_roles__", None)
