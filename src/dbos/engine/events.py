"""Events, as plans: publish a value under a key, wait for one, read all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..records import EventSet, StepCompleted
from ..serialization import WorkflowSerializationFormat, explain_unreadable
from ..types import ACTIVE_STATUSES, StoredValue
from .context import current_context, current_execution
from .deadlines import LONGEST_WAIT_MS, deadline_row, in_ms, recorded_deadline
from .effects import effect_plan, encode_for, step_row
from .execution import Execution
from .operations import operation_plan
from .plans import Plan, Read, Wait
from .signals import Key
from .steps import record_step, replay

if TYPE_CHECKING:
    from .core import Core

SET_EVENT = "DBOS.setEvent"
GET_EVENT = "DBOS.getEvent"
GET_EVENTS = "DBOS.get_events"


def set_event_plan(key: str, value: Any, serialization_type: WorkflowSerializationFormat | None) -> Plan[None]:
    def make(execution: Execution, step_id: int, step: StepCompleted | None) -> EventSet:
        text, format_name = encode_for(execution, value, serialization_type, f"the value of event {key!r}")
        return EventSet(execution.workflow_id, execution.owner_token, step_id, key, text, format_name, step)

    return effect_plan("DBOS.set_event", SET_EVENT, make)


def get_event_plan(
    engine: Core, workflow_id: str, key: str, timeout_seconds: float, default: Any, while_active: bool
) -> Plan[Any]:
    """The value of an event, waited for if need be; in workflow code recorded, and the deadline too."""
    execution = current_execution()
    if execution is None:
        found = yield from wait_for_event(engine, workflow_id, key, timeout_seconds, while_active)
        return default if found is None else decode_event(engine, workflow_id, key, found)
    step_id, deadline_id = execution.draw(), execution.draw()
    record = yield from execution.find_recorded(step_id, GET_EVENT)
    deadline = yield from recorded_deadline(execution, deadline_id)
    if record is not None:
        return replay(execution, record)
    began_ms = engine.clock.now_ms()
    pending: StepCompleted | None = None
    if deadline is None:
        deadline = engine.clock.now() + timeout_seconds
        pending = deadline_row(execution, deadline_id, deadline, began_ms, began_ms)
    keys = [*_news_of(workflow_id, key, while_active), ("cancelled", execution.workflow_id)]
    while True:
        with engine.signals.watch(*keys) as waiter:
            found, may_come = yield from _look(workflow_id, key, while_active)
            now_ms = engine.clock.now_ms()
            if not may_come or now_ms >= in_ms(deadline):
                break
            execution.check()
            if pending is not None:
                yield from record_step(execution, pending)
                pending = None
            yield Wait(waiter, min(in_ms(deadline), now_ms + LONGEST_WAIT_MS))
            if isinstance(waiter.value, StoredValue):
                found = waiter.value
                break
        execution.check()
    step = step_row(execution, step_id, GET_EVENT, began_ms)
    # As it is stored, so that nothing gets lost on the way; but not before it can be read.
    stored = found or StoredValue(engine.payloads.encode_value(default), engine.payloads.configured_name)
    value = default if found is None else decode_event(engine, workflow_id, key, found)
    step.output, step.serialization = stored
    step.completed_at_ms = engine.clock.now_ms()
    step.also = pending
    yield from record_step(execution, step)
    return value


def _news_of(workflow_id: str, key: str, while_active: bool) -> list[Key]:
    """What wakes those who wait for an event."""
    found: list[Key] = [("event", (workflow_id, key))]
    if while_active:
        found.append(("finished", workflow_id))
    return found


def _look(workflow_id: str, key: str, while_active: bool) -> Plan[tuple[StoredValue | None, bool]]:
    """The stored value of an event, and whether it is not there and may come yet."""
    may_come = True
    if while_active:
        # Before the event: what a workflow sets comes before its end.
        states = yield Read(lambda store: store.find_states([workflow_id]))
        status, _ = states.get(workflow_id, ("", None))
        may_come = status in ACTIVE_STATUSES
    found: StoredValue | None = yield Read(lambda store: store.find_event(workflow_id, key))
    return found, may_come and found is None


def wait_for_event(
    engine: Core, workflow_id: str, key: str, timeout_seconds: float, while_active: bool = False
) -> Plan[StoredValue | None]:
    """The stored value of an event, or None when the time is up; nothing is recorded."""
    until_ms = in_ms(engine.clock.now() + timeout_seconds)
    context = current_context()
    waiting = None if context is None else context.execution
    keys = _news_of(workflow_id, key, while_active)
    if waiting is not None:
        keys.append(("cancelled", waiting.workflow_id))
    while True:
        with engine.signals.watch(*keys) as waiter:
            found, may_come = yield from _look(workflow_id, key, while_active)
            now_ms = engine.clock.now_ms()
            if not may_come or now_ms >= until_ms:
                return found
            if waiting is not None:
                waiting.check()
            yield Wait(waiter, min(until_ms, now_ms + LONGEST_WAIT_MS))
            if isinstance(waiter.value, StoredValue):
                return waiter.value
        if waiting is not None:
            waiting.check()


def get_all_events_plan(engine: Core, workflow_id: str) -> Plan[dict[str, Any]]:
    """All events of a workflow; in workflow code recorded."""
    return (yield from operation_plan(GET_EVENTS, all_events(engine, workflow_id)))


def all_events(engine: Core, workflow_id: str) -> Plan[dict[str, Any]]:
    timeout_seconds = engine.settings.observability_query_timeout_seconds
    found: dict[str, StoredValue] = yield Read(lambda store: store.list_events(workflow_id, timeout_seconds))
    return {key: decode_event(engine, workflow_id, key, stored) for key, stored in found.items()}


def decode_event(engine: Core, workflow_id: str, key: str, stored: StoredValue) -> Any:
    """The value of an event; an error that names it if it cannot be read."""
    try:
        return engine.payloads.decode_value(*stored)
    except Exception as error:
        raise explain_unreadable(error, f"event {key!r} of workflow {workflow_id}", stored[1]) from error
