"""Events: values that a workflow publishes under a key, for anybody to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.deadlines import check_timeout
from ..engine.effects import execution_of
from ..engine.events import get_all_events_plan, get_event_plan, set_event_plan
from ..engine.plans import Plan
from ..error import DBOSException
from ..serialization import WorkflowSerializationFormat, check_text
from .runtime import blocking, check_ids, check_unsharded, engine_here, on_engine, state, twin

if TYPE_CHECKING:
    from ..engine.core import Core

DEFAULT = WorkflowSerializationFormat.DEFAULT


def check_key(key: str, what: str) -> None:
    """Refuse what cannot be a key or a topic in any database."""
    if not isinstance(key, str):
        raise DBOSException(f"The {what} must be a text, not {key!r}")
    check_text(key, what)


def check_placement(call: str) -> None:
    """Refuse plain code; before anybody asks whether the application is launched (04 R6)."""
    if state.instance is not None:
        execution_of(call)


def _set_event(key: str, value: Any, *, serialization_type: WorkflowSerializationFormat = DEFAULT) -> Plan[None]:
    """Publish a value of this workflow under a key, in place of the one before.

    Args:
        key: Any text.
        value: Anything that the format can store; None too.
        serialization_type: The format. Default that of the workflow.

    Raises:
        DBOSException: called from neither workflow nor step code; the key cannot be stored.
        Exception: what the serializer raises for a value that cannot be stored; nothing is written then.

    Durability: in workflow code recorded as one step, together with the value: a replay does not set it again. In step
    code the value is set at once, also if the step fails later, and again when the step is run again.
    """
    check_placement("DBOS.set_event")
    engine_here()
    check_key(key, "event key")
    return set_event_plan(key, value, serialization_type)


def event_lookup(
    core: Core,
    workflow_id: str,
    key: str,
    timeout_seconds: float = 60,
    *,
    default: Any = None,
    while_active: bool = False,
    shard_key: str | None = None,
) -> Plan[Any]:
    """The current value of an event, waiting until it is set.

    Args:
        workflow_id: Whose event; the workflow need not exist yet.
        key: The key of the event.
        timeout_seconds: How long to wait for a first value, in seconds. 0 or less looks once.
        default: What to return when there was no value in time. It tells that from a value that is None.
        while_active: Wait only as long as the workflow may set the event: not longer than until it has ended, and not
            for one that does not exist.

    Returns:
        The value; `default` when the time was up, or with `while_active` the workflow has ended without it.

    Raises:
        TypeError: the timeout is not a number.
        Exception: what the serializer raises for a value that cannot be read here.

    Durability: in workflow code recorded as two steps, the value and the deadline: a replay returns the recorded value,
    a recovered workflow waits until the deadline first planned. Elsewhere every call reads afresh.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    check_key(key, "event key")
    seconds = check_timeout(timeout_seconds, "get_event")
    return get_event_plan(core, workflow_id, key, seconds, default, while_active)


def events_lookup(core: Core, workflow_id: str, *, shard_key: str | None = None) -> Plan[dict[str, Any]]:
    """All events of a workflow with their current values; empty for one that is unknown.

    Raises:
        DBOSQueryTimeoutError: the query takes longer than `observability_query_timeout_sec` allows (Postgres).
        Exception: what the serializer raises for a value that cannot be read here.

    Durability: in workflow code recorded as one step.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    return get_all_events_plan(core, workflow_id)


class EventCalls:
    """Set events, and read them."""

    set_event = blocking("set_event", _set_event)
    set_event_async = twin("set_event", _set_event)
    get_event = blocking("get_event", on_engine(event_lookup))
    get_event_async = twin("get_event", on_engine(event_lookup))
    get_all_events = blocking("get_all_events", on_engine(events_lookup))
    get_all_events_async = twin("get_all_events", on_engine(events_lookup))
