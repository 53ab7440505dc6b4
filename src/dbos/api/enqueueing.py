"""Enqueueing workflows."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar, overload

from ..engine.context import Context, Options, Timeout, current_context, current_execution, take_assigned_id
from ..engine.enqueueing import NamedTarget, check_options, enqueue_named_plan, enqueue_plan
from ..engine.plans import Plan
from ..engine.starting import Target, find_recorded_child
from ..error import DBOSException
from ..logs import logger
from ..serialization import WorkflowSerializationFormat, check_text
from .decorators import engine_for_call, find_target
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .options import check_priority
from .runtime import check_unsharded, run, run_async

if TYPE_CHECKING:
    from ..engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


class CommonOptions(TypedDict, total=False):
    """What enqueues by name and items of a bulk enqueue have in common; EnqueueOptions says what they mean."""

    workflow_id: str
    workflow_id_reuse_policy: Literal["return-existing", "reject"]
    app_version: str
    workflow_timeout: float
    delay_seconds: float
    deduplication_id: str
    duplication_policy: Literal["reject", "return-existing"]
    priority: int
    queue_partition_key: str
    authenticated_user: str
    authenticated_roles: list[str]
    serialization_type: WorkflowSerializationFormat
    class_name: str
    instance_name: str
    attributes: dict[str, Any]
    application_name: str


class _RequiredEnqueueOptions(TypedDict):
    workflow_name: str
    queue_name: str


class EnqueueOptions(_RequiredEnqueueOptions, CommonOptions, total=False):
    """What to enqueue, and how, by name: for workflows whose function is not at hand.

    workflow_name: The registered name of the workflow. Required.
    queue_name: The queue. Required.
    workflow_id: Its id; default SetWorkflowID, else a fresh one.
    workflow_id_reuse_policy: "return-existing" (default), or "reject" to raise DBOSWorkflowIDInUseError.
    app_version: The version that must run it; default the latest when it is claimed.
    workflow_timeout: In seconds from its start.
    delay_seconds: Not before so many seconds from now.
    deduplication_id: At most one waiting or running workflow of the queue holds it.
    duplication_policy: When it is held: "reject" (default) or "return-existing".
    priority: 1 (first) to 2147483647; without one a workflow goes before all of them.
    queue_partition_key: The partition of the queue.
    authenticated_user, authenticated_roles: The identity it runs with.
    serialization_type: The format of its arguments and result.
    class_name, instance_name: The registered class, and configured instance, of a method.
    attributes: A JSON object stored with it.
    application_name: The application that shall run it; default this one.
    shard_key: Only for a sharded system database.
    """

    otel_context: Any
    shard_key: str


def check_queue_name(queue_name: str) -> None:
    if not isinstance(queue_name, str) or not queue_name:
        raise DBOSException(f"A queue name is a non-empty text, not {queue_name!r}")
    check_text(queue_name, "queue name")


def _target(queue_name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    check_queue_name(queue_name)
    check_options((current_context() or Context()).options)
    return find_target(func, args, kwargs)


@dataclasses.dataclass(slots=True)
class Merged:
    """The options of one enqueue: those given, and the ambient ones where none is given."""

    options: Options
    workflow_id: str | None
    reject: bool
    roles: tuple[str | None, list[str] | None] | None


def merge(given: Mapping[str, Any], ambient: Options, check: Callable[[Options], None] = check_options) -> Merged:
    """Check the options given (keys of EnqueueOptions that are not None) and complete them.

    `check` is about combinations of them.
    """
    check_unsharded(given.get("shard_key"))
    workflow_id, policy = given.get("workflow_id"), given.get("workflow_id_reuse_policy")
    if workflow_id is not None and (not isinstance(workflow_id, str) or not workflow_id.strip()):
        raise DBOSException(f"A workflow id must be a non-empty text, not {workflow_id!r}")
    if policy not in (None, "return-existing", "reject"):
        raise DBOSException(f"workflow_id_reuse_policy must be 'return-existing' or 'reject', not {policy!r}")
    changes: dict[str, Any] = {
        key: given[key]
        for key in ("app_version", "deduplication_id", "duplication_policy", "priority", "queue_partition_key")
        if key in given
    }
    if "priority" in changes:
        check_priority(changes["priority"])
    if "delay_seconds" in given:
        changes["delay_until_epoch_ms"] = _due_ms(given["delay_seconds"])
    if "workflow_timeout" in given:
        changes["timeout"] = _timeout(given["workflow_timeout"])
    if "attributes" in given:
        changes["attributes"] = {**(ambient.attributes or {}), **_checked_attributes(given["attributes"])}
    merged: Options = dataclasses.replace(ambient, **changes)
    check(merged)
    roles = None
    if "authenticated_user" in given or "authenticated_roles" in given:
        roles = (given.get("authenticated_user"), given.get("authenticated_roles"))
    return Merged(merged, workflow_id, policy == "reject", roles)


def named_target(name: str, given: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTarget:
    return NamedTarget(
        name,
        args,
        kwargs,
        given.get("class_name"),
        given.get("instance_name"),
        given.get("serialization_type"),
        given.get("application_name"),
    )


KNOWN_OPTIONS = frozenset(EnqueueOptions.__required_keys__ | EnqueueOptions.__optional_keys__)


def no_such_option(key: object) -> str:
    """That there is no such option, and what was probably meant."""
    close = difflib.get_close_matches(str(key), KNOWN_OPTIONS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Options are {', '.join(sorted(KNOWN_OPTIONS))}."
    return f"There is no enqueue option {key!r}. {hint}"


def _named_plan(engine: Engine, options: EnqueueOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan[str]:
    """`enqueue_workflow_with_options`; options that are unset, or None, are the ambient ones.

    In workflow code the step id is drawn, and its record looked at, before anything is checked (03 R43, R44).
    """
    execution, step_id = current_execution(), None
    if execution is not None:
        step_id = execution.draw()
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    name, queue_name = given["workflow_name"], given["queue_name"]
    ambient = (current_context() or Context()).options
    if execution is not None and step_id is not None:
        child_id = yield from find_recorded_child(execution, step_id, name)
        if child_id is not None:
            if "workflow_id" not in given:
                take_assigned_id(ambient)
            return child_id
    for key in given.keys() - KNOWN_OPTIONS:
        # As in other releases it changes nothing (03 R30); that shall not happen unnoticed.
        logger.warning("Workflow %r was enqueued with an option that is ignored. %s", name, no_such_option(key))
    check_queue_name(queue_name)
    merged = merge(given, ambient)
    return (
        yield from enqueue_named_plan(
            engine,
            queue_name,
            named_target(name, given, args, kwargs),
            merged.options,
            workflow_id=merged.workflow_id,
            reject=merged.reject,
            roles=merged.roles,
            step_id=step_id,
        )
    )


def _due_ms(delay_seconds: Any) -> int:
    if (
        isinstance(delay_seconds, bool)
        or not isinstance(delay_seconds, (int, float))
        or not math.isfinite(delay_seconds)
    ):
        raise DBOSException(f"delay_seconds must be a finite number of seconds, not {delay_seconds!r}")
    return max(0, min(int((time.time() + delay_seconds) * 1000), 2**63 - 1))


def _timeout(seconds: Any) -> Timeout:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        raise DBOSException(f"workflow_timeout must be a finite number of seconds, not {seconds!r}")
    return Timeout(min(int(seconds * 1000), 2**63 - 1))


def _checked_attributes(attributes: Any) -> dict[str, Any]:
    if not isinstance(attributes, dict):
        raise DBOSException(f"Workflow attributes must be a dictionary, not {type(attributes).__name__}")
    try:
        json.dumps(attributes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DBOSException(f"Workflow attributes must be storable as JSON: {error}") from error
    return attributes


class EnqueueCalls:
    """`DBOS.enqueue_workflow` and `DBOS.enqueue_workflow_with_options`."""

    @overload
    @staticmethod
    def enqueue_workflow(
        queue_name: str, func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]: ...

    @overload
    @staticmethod
    def enqueue_workflow(
        queue_name: str, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]: ...

    @staticmethod
    def enqueue_workflow(queue_name: str, func: Callable[..., Any], *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Put a workflow on a queue and return its handle.

        Returns only after the workflow and its arguments are committed. A process that serves the queue starts it as
        soon as the limits of the queue allow; that need not be this one. The queue need not be registered yet.

        Args:
            queue_name: The name of the queue.
            func: A workflow, or a step (which runs as a workflow of one step).
            args, kwargs: Its arguments.

        Returns:
            A handle. An id in use (SetWorkflowID) gives the handle of the workflow that has it.

        Raises:
            DBOSQueueDeduplicatedError: another workflow of the queue holds the deduplication id.
            DBOSConflictingWorkflowError: the id belongs to a workflow of another function.
            DBOSWorkflowIDInUseError: the id is in use and the block's policy is "reject".

        Durability: in workflow code recorded as one step with the child's id; a replay returns a handle on that child.
        """
        target = _target(queue_name, func, args, kwargs)
        engine = engine_for_call("System database")
        return Handle(run(engine, enqueue_plan(engine, queue_name, target)), exists=True)

    @overload
    @staticmethod
    async def enqueue_workflow_async(
        queue_name: str, func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]: ...

    @overload
    @staticmethod
    async def enqueue_workflow_async(
        queue_name: str, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]: ...

    @staticmethod
    async def enqueue_workflow_async(
        queue_name: str, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """As `enqueue_workflow`, from async code."""
        target = _target(queue_name, func, args, kwargs)
        engine = engine_for_call("Executor")
        return AsyncHandle(await run_async(engine, enqueue_plan(engine, queue_name, target)), exists=True)

    @staticmethod
    def enqueue_workflow_with_options(options: EnqueueOptions, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Put a workflow on a queue by name; otherwise as `enqueue_workflow`.

        The name is not looked up: any process that has registered it and serves the queue runs it, of the version
        `app_version` or else of the latest version.

        Raises:
            KeyError: `workflow_name` or `queue_name` is missing.
            DBOSException: an option has no meaning; further errors as for `enqueue_workflow`.
        """
        engine = engine_for_call("System database")
        return Handle(run(engine, _named_plan(engine, options, args, kwargs)), exists=True)

    @staticmethod
    async def enqueue_workflow_with_options_async(
        options: EnqueueOptions, *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """As `enqueue_workflow_with_options`, from async code."""
        engine = engine_for_call("Executor")
        return AsyncHandle(await run_async(engine, _named_plan(engine, options, args, kwargs)), exists=True)
