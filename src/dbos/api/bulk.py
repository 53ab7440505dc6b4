"""Enqueueing many workflows with one call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from ..engine.bulk import Request, at_item, enqueue_workflows_plan
from ..engine.context import Context, Options, current_context
from ..engine.enqueueing import check_options, record_of_name, record_of_target
from ..engine.plans import Plan
from ..engine.starting import MakeRecord
from ..error import DBOSException
from .decorators import engine_for_call, find_target, is_plain_function
from .enqueueing import CommonOptions, check_queue_name, merge, named_target
from .handles import AsyncHandle, Handle, WorkflowHandle, WorkflowHandleAsync
from .runtime import run, run_async

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# All are written in one transaction, and their arguments are in memory until then: about 1 kB each.
MAX_ITEMS = 1_000_000


class ItemOptions(CommonOptions, total=False):
    """How to enqueue one of many workflows: the options of EnqueueOptions, which has their meaning."""

    queue_name: str


class EnqueueItem(Generic[R_co]):
    """One of the workflows of `DBOS.enqueue_workflows`: a call that is not made yet.

        EnqueueItem(send_mail, "ann@example.com")
        EnqueueItem(send_mail, "bob@example.com").with_options(priority=1, deduplication_id="bob")
        EnqueueItem("archive", 2024).with_options(queue_name="slow")

    It is written like the call itself, so that type checkers and editors know the parameters, and what the workflow
    returns. Options stand apart, since a workflow may have a parameter of the same name. Items do not change.

    Args:
        workflow: A workflow or a step, which is enqueued as by `DBOS.enqueue_workflow`; or the registered name of a
            workflow, which is enqueued as by `DBOS.enqueue_workflow_with_options`.
        args, kwargs: Its arguments.
    """

    __slots__ = ("args", "kwargs", "options", "workflow")

    @overload
    def __init__(
        self: EnqueueItem[R], workflow: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...

    @overload
    def __init__(self: EnqueueItem[R], workflow: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> None: ...

    @overload
    def __init__(self: EnqueueItem[Any], workflow: str, /, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, workflow: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> None:
        self.workflow = workflow
        self.args = args
        self.kwargs = kwargs
        self.options: ItemOptions | None = None

    def with_options(self, **options: Unpack[ItemOptions]) -> EnqueueItem[R_co]:
        """The same call with these options, beside those that it has; None takes one back.

        Raises:
            DBOSException: there is no such option. Values are checked when the item is enqueued.
        """
        unknown = sorted(options.keys() - ItemOptions.__annotations__.keys())
        if unknown:
            raise DBOSException(
                f"EnqueueItem has no option {', '.join(map(repr, unknown))}. Options are "
                f"{', '.join(sorted(ItemOptions.__annotations__))}; arguments of the workflow go to EnqueueItem(...)."
            )
        item: EnqueueItem[R_co] = object.__new__(EnqueueItem)
        item.workflow, item.args, item.kwargs = self.workflow, self.args, self.kwargs
        item.options = cast(ItemOptions, {**(self.options or {}), **options})
        return item

    def __repr__(self) -> str:
        name = self.workflow if isinstance(self.workflow, str) else getattr(self.workflow, "__qualname__", "?")
        return f"EnqueueItem({name!r}{', ' + repr(self.options) if self.options else ''})"


class BulkCalls:
    """`DBOS.enqueue_workflows`."""

    @staticmethod
    def enqueue_workflows(queue_name: str, items: Iterable[EnqueueItem[R]]) -> list[WorkflowHandle[R]]:
        """Put many workflows on queues, all of them or none, and return their handles.

        One transaction for all: it returns after all are committed, and is many times as fast as single enqueues.
        Each item is enqueued as it would be alone, after those before it: with its own options, else with the ambient
        ones (SetEnqueueOptions, SetWorkflowTimeout and so on). An id in use gives the workflow that has it.

        Args:
            queue_name: The queue of all items that do not name another one.
            items: What to enqueue, at most 1,000,000.

        Returns:
            A handle for each item, in order. Items that fresh ids were made for start in this order, too.

        Raises:
            DBOSQueueDeduplicatedError, DBOSConflictingWorkflowError, DBOSWorkflowIDInUseError: as for
                `enqueue_workflow`, from the first item that cannot be enqueued; the message begins with its index.
            DBOSException: an option has no meaning, or there are too many items. In all cases nothing is written.

        Durability: in workflow code each item is recorded as a step of its own with the child's id, in the same
        transaction; a replay returns handles on those children. The error of an item is recorded as its step.
        """
        engine = engine_for_call("System database")
        return [Handle(workflow_id, exists=True) for workflow_id in run(engine, _plan(engine, queue_name, items))]

    @staticmethod
    async def enqueue_workflows_async(queue_name: str, items: Iterable[EnqueueItem[R]]) -> list[WorkflowHandleAsync[R]]:
        """As `enqueue_workflows`, from async code."""
        engine = engine_for_call("Executor")
        return [
            AsyncHandle(workflow_id, exists=True)
            for workflow_id in await run_async(engine, _plan(engine, queue_name, items))
        ]


def _plan(engine: Engine, queue_name: str, items: Iterable[EnqueueItem[Any]]) -> Plan[list[str]]:
    check_queue_name(queue_name)
    chosen = list(islice(items, MAX_ITEMS + 1))
    if len(chosen) > MAX_ITEMS:
        raise DBOSException(
            f"enqueue_workflows takes at most {MAX_ITEMS:,} items, since all are written in one transaction. Split "
            f"them into several calls."
        )
    ambient = (current_context() or Context()).options
    requests: list[Request] = []
    # The first request for each plain function: the others differ from it in their arguments only.
    models: dict[Any, Request] = {}
    for index, item in enumerate(chosen):
        model = models.get(item.workflow) if isinstance(item, EnqueueItem) and item.options is None else None
        if model is not None:
            requests.append(Request(model.name, model.make_record, ambient, item.args, item.kwargs, like=model))
            continue
        try:
            request = _request(engine, queue_name, item, ambient)
        except Exception as error:
            raise at_item(error, index)
        requests.append(request)
        if item.options is None and is_plain_function(item.workflow):
            models[item.workflow] = request
    return enqueue_workflows_plan(engine, requests)


def _request(engine: Engine, queue_name: str, item: EnqueueItem[Any], ambient: Options) -> Request:
    if not isinstance(item, EnqueueItem):
        raise DBOSException(f"An item to enqueue is an EnqueueItem(workflow, *args, **kwargs), not {item!r}")
    workflow = item.workflow
    if item.options is None and not isinstance(workflow, str):
        check_options(ambient)
        target = find_target(workflow, item.args, item.kwargs)
        make_record = record_of_target(engine, queue_name, target, ambient)
        return Request(target.info.name, make_record, ambient, item.args, item.kwargs)
    given = {key: value for key, value in (item.options or {}).items() if value is not None}
    queue_name = cast(str, given.get("queue_name", queue_name))
    check_queue_name(queue_name)
    merged = merge(given, ambient)
    if isinstance(workflow, str):
        name = workflow
        named = named_target(name, given, item.args, item.kwargs)
        make_record = record_of_name(engine, queue_name, named, merged.options, merged.roles)
    else:
        name, make_record = _by_function(engine, queue_name, item, given, merged.options, merged.roles)
    return Request(name, make_record, merged.options, item.args, item.kwargs, merged.workflow_id, merged.reject)


def _by_function(
    engine: Engine,
    queue_name: str,
    item: EnqueueItem[Any],
    given: dict[str, Any],
    options: Options,
    roles: tuple[str | None, list[str] | None] | None,
) -> tuple[str, MakeRecord]:
    """A function with options of its own, which the ambient ones do not have all."""
    superfluous = [key for key in ("class_name", "instance_name") if key in given]
    if superfluous:
        raise DBOSException(
            f"{' and '.join(superfluous)} belong to a workflow that is given by name; a method knows its class"
        )
    target = find_target(cast(Any, item.workflow), item.args, item.kwargs)
    if "serialization_type" in given:
        target.info = dataclasses.replace(target.info, serialization_type=given["serialization_type"])
    inner = record_of_target(engine, queue_name, target, options)

    def make_record(workflow_id: str, context: Context, parent: Any) -> Any:
        record = inner(workflow_id, context, parent)
        record.application_name = given.get("application_name", record.application_name)
        if roles is not None:
            record.authenticated_user = roles[0]
            record.authenticated_roles = json.dumps(roles[1]) if roles[1] else None
            record.assumed_role = None
        return record

    return target.info.name, make_record
