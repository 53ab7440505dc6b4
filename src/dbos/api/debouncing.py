"""Debouncing: run a workflow once for many calls, some time after the last of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from ..engine.context import AssignedID, Context, Options, current_context, take_assigned_id
from ..engine.debouncing import LONGEST_MS, debounce_plan, function_debounce
from ..engine.plans import Plan
from ..engine.registry import WorkflowInfo
from ..engine.running_loop import refuse_running_loop
from ..engine.starting import Target
from ..error import DBOSException, DBOSWorkflowFunctionNotFoundError
from ..serialization import check_text
from ..types import INTERNAL_QUEUE_NAME
from .decorators import WORKFLOW_ATTRIBUTE, engine_for_call
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .queue import Queue
from .runtime import check_unsharded, run, run_async

if TYPE_CHECKING:
    from ..engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")
# Of the functions that make a debouncer, whose class has no types yet.
Q = ParamSpec("Q")
S = TypeVar("S")


class Debouncer(Generic[P, R]):
    """Runs a workflow once for many calls with the same key, when no call has come for a while.

    Only the database knows what is debounced, so debouncers of one workflow in any number of processes share its keys.
    Making one changes nothing and needs no launched application.
    """

    def __init__(
        # A name says nothing of types: any arguments are accepted, unless the variable is declared with some.
        self: Debouncer[..., Any],
        workflow_name: str,
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
        application_name: str | None = None,
    ) -> None:
        """A debouncer for the workflow registered under a name.

        Args:
            workflow_name: Its registered name.
            debounce_timeout_sec: The run starts at the latest so many seconds after the first call, however many
                others follow. None or 0 is no limit.
            queue: The queue to run on, or its name; it must be registered when `debounce` is called. Default none: the
                run starts as soon as it is due.
            application_name: The application that shall run it; default this one. For another application the run
                belongs to no version until it is claimed.

        Raises:
            DBOSException: an argument has no meaning.
        """
        if not isinstance(workflow_name, str) or not workflow_name:
            raise DBOSException(f"A workflow name is a non-empty text, not {workflow_name!r}")
        check_text(workflow_name, "workflow name")
        if application_name is not None:
            if not isinstance(application_name, str) or not application_name:
                raise DBOSException(f"An application name is a non-empty text, not {application_name!r}")
            check_text(application_name, "application name")
        self._workflow_name = workflow_name
        self._queue_name = queue_name_of(queue)
        self._timeout_ms = timeout_milliseconds(debounce_timeout_sec)
        self._application_name = application_name

    @staticmethod
    def create(
        workflow: Callable[Q, S],
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
        application_name: str | None = None,
    ) -> Debouncer[Q, S]:
        """A debouncer for a workflow function; further arguments as for the class.

        Raises:
            TypeError: the workflow is a method; only plain and static functions can be debounced.
            DBOSWorkflowFunctionNotFoundError: the function is not a workflow.
        """
        made: Any = Debouncer(
            _name_of(workflow),
            debounce_timeout_sec=debounce_timeout_sec,
            queue=queue,
            application_name=application_name,
        )
        debouncer: Debouncer[Q, S] = made
        return debouncer

    @staticmethod
    def create_async(
        workflow: Callable[Q, Coroutine[Any, Any, S]],
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
        application_name: str | None = None,
    ) -> Debouncer[Q, S]:
        """As `create`, for an async workflow."""
        made: Any = Debouncer(
            _name_of(workflow),
            debounce_timeout_sec=debounce_timeout_sec,
            queue=queue,
            application_name=application_name,
        )
        debouncer: Debouncer[Q, S] = made
        return debouncer

    def debounce(
        self, debounce_key: str, debounce_period_sec: float, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Let the workflow run with these arguments after the period, unless another call with the key comes before.

        A call while the workflow of the key waits replaces its arguments and moves its start to the period from now,
        at the latest to the end of the debounce timeout that it began with. The run uses the arguments of the last
        call. A call after that begins anew, also while the run goes on.

        Returns only after the call is committed: from then on a run with its arguments, or with later ones, is certain.

        Args:
            debounce_key: Calls with the same key, workflow and queue are one.
            debounce_period_sec: How long from now until the run, in seconds; 0 or less is at once.
            args, kwargs: The arguments of the workflow.

        Returns:
            A handle on the workflow that waits; every call it stands for gets the same one. SetWorkflowID names the
            workflow if this call begins anew; if that id is in use, its workflow is returned and nothing is scheduled.

        Raises:
            DBOSQueueDeduplicatedError: the key is held by a workflow that was not debounced, or of another name or
                application. Its `workflow_id` is the holder.
            DBOSException: an option around the call contradicts it (deduplication id, delay, priority, partition key,
                duplication policy "return-existing", id reuse policy "reject"); nothing is written.
            Exception: no workflow is registered under the name, or no queue.

        Durability: in workflow code recorded as the step `DBOS.debounce_delayed_workflow`, in the same transaction, and
        a new workflow as a second step with its id; a replay returns a handle on that workflow and changes nothing.
        """
        if self._queue_name is not None:
            refuse_running_loop("debounce")
        engine: Engine = engine_for_call("System database")
        return Handle(run(engine, self._plan(engine, debounce_key, debounce_period_sec, args, kwargs)))

    async def debounce_async(
        self, debounce_key: str, debounce_period_sec: float, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]:
        """As `debounce`, from async code. Gathered calls have their step ids in the order of the arguments."""
        engine: Engine = engine_for_call("Executor")
        return AsyncHandle(await run_async(engine, self._plan(engine, debounce_key, debounce_period_sec, args, kwargs)))

    def _plan(
        self, engine: Engine, key: object, period_seconds: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Plan[str]:
        options = (current_context() or Context()).options
        # Taken before anything can fail, and also by a call that only bounces.
        assigned = take_assigned_id(options)
        key = checked_key(key)
        period_ms = milliseconds("debounce_period_sec", period_seconds)
        _check_options(options, assigned)
        info = engine.registry.workflows.get(self._workflow_name)
        if info is None:
            raise Exception(
                f"No workflow is registered under the name {self._workflow_name!r}, so it cannot be debounced. Give "
                f"the name of a decorated function, whose module is imported."
            )
        _check_function(info)
        call = function_debounce(
            engine,
            Target(info, info.function, args, kwargs),
            self._queue_name or INTERNAL_QUEUE_NAME,
            f"{self._workflow_name}-{key}",
            period_ms=period_ms,
            timeout_ms=self._timeout_ms,
            application_name=None if self._application_name == engine.settings.name else self._application_name,
            needs_queue=self._queue_name not in (None, INTERNAL_QUEUE_NAME),
        )
        return debounce_plan(engine, call, None if assigned is None else assigned.workflow_id)


def _name_of(workflow: Callable[..., Any]) -> str:
    """The registered name of a function that can be debounced."""
    if getattr(workflow, "__self__", None) is not None:
        raise TypeError(
            f"{getattr(workflow, '__qualname__', workflow)!r} is a method; only plain and static workflow functions "
            f"can be debounced, since the receiver is not stored"
        )
    info = getattr(workflow, WORKFLOW_ATTRIBUTE, None)
    if not isinstance(info, WorkflowInfo):
        raise DBOSWorkflowFunctionNotFoundError(
            "<NONE>",
            f"{getattr(workflow, '__qualname__', workflow)!r} is not a workflow: decorate it with @DBOS.workflow()",
        )
    _check_function(info)
    return info.name


def _check_function(info: WorkflowInfo) -> None:
    is_method = info.is_undecorated_method if info.kind == "function" else info.kind != "static"
    if is_method:
        raise TypeError(
            f"Workflow {info.name!r} is a method; only plain and static workflow functions can be debounced, since the "
            f"receiver is not stored"
        )


def _check_options(options: Options, assigned: AssignedID | None) -> None:
    """Refuse ambient options that contradict a debounce."""
    check_unsharded(options.shard_key)
    misplaced = [
        name
        for name, is_given in (
            ("deduplication_id", options.deduplication_id is not None),
            ("delay_seconds", options.delay_until_epoch_ms is not None),
            ("priority", options.priority is not None),
            ("queue_partition_key", options.queue_partition_key is not None),
            ("duplication_policy 'return-existing'", options.duplication_policy == "return-existing"),
            ("workflow_id_reuse_policy 'reject'", assigned is not None and assigned.reuse_policy == "reject"),
        )
        if is_given
    ]
    if misplaced:
        raise DBOSException(
            f"debounce cannot be combined with {', '.join(misplaced)}: the debouncer decides on key, start and "
            f"place. Leave the SetEnqueueOptions or SetWorkflowID block that gives it."
        )


def queue_name_of(queue: object) -> str | None:
    """The name of a queue that is given by a Queue or a name."""
    name = queue.name if isinstance(queue, Queue) else queue
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise DBOSException(f"queue must be a Queue or a non-empty name, not {queue!r}")
    check_text(name, "queue name")
    return name


def timeout_milliseconds(seconds: object) -> int | None:
    """A debounce timeout in milliseconds; None and 0 are no limit."""
    timeout_ms = None if seconds is None else milliseconds("debounce_timeout_sec", seconds) or None
    if timeout_ms is not None and timeout_ms < 0:
        raise DBOSException(f"debounce_timeout_sec must not be negative, but is {seconds!r}")
    return timeout_ms


def checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise DBOSException(f"A debounce key is a text, not {key!r}")
    check_text(key, "debounce key")
    return key


def milliseconds(name: str, seconds: object) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        raise DBOSException(f"{name} must be a finite number of seconds, not {seconds!r}")
    return max(-LONGEST_MS, min(int(seconds * 1000), LONGEST_MS))
