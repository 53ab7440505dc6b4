"""Listing workflows, all of them or those on queues."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..engine.listing import listing_plan
from ..engine.plans import Plan
from ..serialization import check_text
from ..types import ACTIVE_STATUSES, WorkflowFilter, WorkflowStatus, WorkflowStatusString
from .runtime import blocking, check_unsharded, on_engine, twin

if TYPE_CHECKING:
    from ..engine.core import Core

STATUSES = tuple(status.value for status in WorkflowStatusString)


def workflow_listing(
    core: Core,
    *,
    workflow_ids: list[str] | None = None,
    status: str | list[str] | None = None,
    start_time: str | None = None,
    end_time: str | None = None,
    completed_after: str | None = None,
    completed_before: str | None = None,
    dequeued_after: str | None = None,
    dequeued_before: str | None = None,
    name: str | list[str] | None = None,
    app_version: str | list[str] | None = None,
    forked_from: str | list[str] | None = None,
    parent_workflow_id: str | list[str] | None = None,
    user: str | list[str] | None = None,
    queue_name: str | list[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    sort_desc: bool = False,
    workflow_id_prefix: str | list[str] | None = None,
    load_input: bool = True,
    load_output: bool = True,
    executor_id: str | list[str] | None = None,
    queues_only: bool = False,
    was_forked_from: bool | None = None,
    is_fork: bool | None = None,
    has_parent: bool | None = None,
    attributes: dict[str, Any] | None = None,
    schedule_name: str | list[str] | None = None,
    application_name: str | list[str] | None = None,
    shard_key: str | list[str] | None = None,
    parent_shard_key: str | list[str] | None = None,
    after: WorkflowStatus | tuple[int, str] | None = None,
) -> Plan[list[WorkflowStatus]]:
    """The workflows that match all given filters, the oldest first.

    A filter that takes a text also takes a list of them, of which one must match; an empty list matches nothing. Times
    are ISO 8601 texts, local time unless they have an offset, to the millisecond; both ends belong to a range.

    Args:
        workflow_ids: These workflows, whatever application they belong to, and however long it takes to read them.
        status: In this state, such as "PENDING".
        start_time, end_time: When they were created.
        completed_after, completed_before: When they ended.
        dequeued_after, dequeued_before: When they were last taken from a queue.
        name: The registered name of the function.
        app_version: The application version that must run them, or has.
        forked_from: Forks of this workflow.
        parent_workflow_id: Started by this workflow itself, not by its children.
        user: Started as this authenticated user.
        queue_name: On this queue, or started from it. Cancelled workflows are on none.
        limit, offset: How many, and how many to leave out before them; default all. 0 is none.
        after: The last one of the page before, or its `created_at` and `workflow_id`: what stands behind it in the
            order. However far down, such a page costs no more than the first one.
        sort_desc: The newest first. Workflows of one millisecond are ordered by their id.
        workflow_id_prefix: Whose id begins with this text.
        load_input, load_output: False leaves `input`, or `output` and `error`, None and does not read them.
        executor_id: Of this executor.
        queues_only: On a queue, and unless `status` is given waiting or running.
        was_forked_from: Whether forks of them exist.
        is_fork: Whether they are forks.
        has_parent: Whether a workflow has started them.
        attributes: Whose attributes contain this: the same keys and values, also within objects and lists.
        schedule_name: Started by this schedule.
        application_name: Of this application, and of none. Default this application, but not for `workflow_ids`. An
            empty text or list is all applications.
        shard_key, parent_shard_key: Only for a sharded system database.

    Returns:
        Their status. A payload that cannot be read back is its stored text.

    Raises:
        ValueError: a filter has a value that means nothing; the message names it.
        DBOSQueryTimeoutError: it took longer than `observability_query_timeout_sec` (Postgres).

    Durability: in workflow code recorded as the step `DBOS.listWorkflows`, with all that it returns; a replay returns
    the same.
    """
    return _listing("DBOS.listWorkflows", locals())


def queued_workflow_listing(
    core: Core,
    *,
    workflow_ids: list[str] | None = None,
    status: str | list[str] | None = None,
    start_time: str | None = None,
    end_time: str | None = None,
    completed_after: str | None = None,
    completed_before: str | None = None,
    dequeued_after: str | None = None,
    dequeued_before: str | None = None,
    name: str | list[str] | None = None,
    app_version: str | list[str] | None = None,
    forked_from: str | list[str] | None = None,
    parent_workflow_id: str | list[str] | None = None,
    user: str | list[str] | None = None,
    queue_name: str | list[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    sort_desc: bool = False,
    workflow_id_prefix: str | list[str] | None = None,
    load_input: bool = True,
    load_output: bool = True,
    executor_id: str | list[str] | None = None,
    is_fork: bool | None = None,
    has_parent: bool | None = None,
    attributes: dict[str, Any] | None = None,
    application_name: str | list[str] | None = None,
    shard_key: str | list[str] | None = None,
    parent_shard_key: str | list[str] | None = None,
    after: WorkflowStatus | tuple[int, str] | None = None,
) -> Plan[list[WorkflowStatus]]:
    """The workflows on queues that wait or run, the oldest first; the filters are those of `list_workflows`.

    With `status` those in that state, so that what has ended on a queue can be listed too.

    Durability: in workflow code recorded as the step `DBOS.listQueuedWorkflows`, with all that it returns; a replay
    returns the same.
    """
    return _listing("DBOS.listQueuedWorkflows", {**locals(), "queues_only": True})


class ListingCalls:
    """`DBOS.list_workflows` and `DBOS.list_queued_workflows`."""

    list_workflows = blocking("list_workflows", on_engine(workflow_listing))
    list_workflows_async = twin("list_workflows", on_engine(workflow_listing))
    list_queued_workflows = blocking("list_queued_workflows", on_engine(queued_workflow_listing))
    list_queued_workflows_async = twin("list_queued_workflows", on_engine(queued_workflow_listing))


def _listing(step_name: str, given: dict[str, Any]) -> Plan[list[WorkflowStatus]]:
    core: Core = given["core"]
    check_unsharded(given["shard_key"])
    check_unsharded(given["parent_shard_key"])
    return listing_plan(core, step_name, make_filter(given, core.application_name))


def make_filter(given: dict[str, Any], own_application: str | None) -> WorkflowFilter:
    """The arguments of a listing as a filter; ValueError for those that mean nothing.

    `own_application` is whose workflows are listed by default; None is everybody's.
    """

    def checked(argument: str, holds: Callable[[Any], bool], expected: str, default: Any = None) -> Any:
        value = given.get(argument, default)
        if value is not default and not holds(value):
            raise ValueError(f"{argument} must be {expected}, not {value!r}")
        return value

    def texts(argument: str) -> list[str] | None:
        value = given.get(argument)
        values = [value] if isinstance(value, str) else value
        if values is None:
            return None
        if not isinstance(values, (list, tuple)) or not all(isinstance(text, str) for text in values):
            raise ValueError(f"{argument} must be a text or a list of texts, not {value!r}")
        for text in values:
            check_text(text, argument)
        return list(values)

    def flag(argument: str, default: bool | None = None) -> Any:
        return checked(argument, lambda value: isinstance(value, bool), "True or False", default)

    def count(argument: str) -> Any:
        return checked(argument, lambda value: type(value) is int and 0 <= value < 2**31, "a whole number from 0 on")

    queues_only = flag("queues_only", False)
    statuses = texts("status")
    for status in statuses or ():
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {status!r}")
    if queues_only and statuses is None:
        statuses = sorted(ACTIVE_STATUSES)
    workflow_ids = texts("workflow_ids")
    applications = texts("application_name")
    if applications in ([], [""]):
        applications = None
    elif applications is None and workflow_ids is None and own_application is not None:
        applications = [own_application]
    return WorkflowFilter(
        workflow_ids=workflow_ids,
        workflow_id_prefixes=texts("workflow_id_prefix"),
        statuses=statuses,
        queue_names=texts("queue_name"),
        names=texts("name"),
        app_versions=texts("app_version"),
        users=texts("user"),
        executor_ids=texts("executor_id"),
        forked_from=texts("forked_from"),
        parent_workflow_ids=texts("parent_workflow_id"),
        schedule_names=texts("schedule_name"),
        application_names=applications,
        created_from_ms=_milliseconds("start_time", given),
        created_until_ms=_milliseconds("end_time", given),
        completed_from_ms=_milliseconds("completed_after", given),
        completed_until_ms=_milliseconds("completed_before", given),
        started_from_ms=_milliseconds("dequeued_after", given),
        started_until_ms=_milliseconds("dequeued_before", given),
        was_forked_from=flag("was_forked_from"),
        is_fork=flag("is_fork"),
        has_parent=flag("has_parent"),
        attributes=checked("attributes", _is_json_object, "a dictionary that JSON can hold") or None,
        queues_only=queues_only,
        load_input=flag("load_input", True),
        load_output=flag("load_output", True),
        newest_first=flag("sort_desc", False),
        limit=count("limit"),
        offset=count("offset") or 0,
        after=_place(given.get("after")),
    )


def _place(after: WorkflowStatus | tuple[int, str] | None) -> tuple[int, str] | None:
    """Where the page before has ended."""
    place: Any = (after.created_at, after.workflow_id) if isinstance(after, WorkflowStatus) else after
    if place is None:
        return None
    if not isinstance(place, (tuple, list)) or [type(part) for part in place] != [int, str]:
        raise ValueError(
            f"after must be a WorkflowStatus, or its created_at and its workflow_id as (1767225600000, 'id'), "
            f"not {after!r}"
        )
    check_text(place[1], "workflow id")
    return place[0], place[1]


def _milliseconds(argument: str, given: dict[str, Any]) -> int | None:
    """An ISO 8601 text in milliseconds since the epoch; without an offset it is local time."""
    value = given.get(argument)
    if value is None:
        return None
    try:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value)
        since = moment.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{argument} must be an ISO 8601 text such as '2026-01-31T09:30:00+00:00', not {value!r}"
        ) from error
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _is_json_object(value: Any) -> bool:
    """Whether it is a dictionary that JSON and every database can hold."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict) and "\\u0000" not in text.replace("\\\\", "")
