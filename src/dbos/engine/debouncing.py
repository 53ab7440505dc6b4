"""Debouncing: one delayed workflow per key, pushed back by every call, run once with the last arguments.

A key is a deduplication id. Whoever calls looks who holds it: a debounced workflow that is still delayed is bounced
(new arguments, a later start), an unheld key gets a new workflow, anything else is refused. What changes in between is
met where it shows: a bounce that finds its workflow gone looks again, and a new workflow that finds the key taken
bounces whoever took it.

In workflow code a call has two step ids, drawn together before anything is awaited, so that gathered calls have theirs
in the order of the arguments: one for what was found out, one for the new workflow. The second is given back if it is
not needed and nothing was drawn behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from ..error import DBOSException, DBOSQueueDeduplicatedError, DBOSStepNondeterminismError
from ..records import Bounce, StepCompleted, Verdict, WorkflowStarted
from ..storage.store import Store, StoreFailed, StoreRefused
from .context import Context, Options, current_context, current_execution
from .effects import step_row
from .enqueueing import NamedTarget, record_of_name, waiting_record
from .errors import ExecutionInterrupted
from .execution import Execution
from .operations import decode, record_operation
from .plans import Plan, Read, Wait
from .signals import Waiter
from .starting import MakeRecord, Target, create_plan, encode_inputs, encode_target, refuse, start_record

if TYPE_CHECKING:
    from ..types import KeyHolder
    from .core import Core
    from .engine import Engine

T = TypeVar("T")

BOUNCE = "DBOS.debounce_delayed_workflow"

# How long to wait before looking again at a workflow that keeps its key though it is not delayed any more.
LEAVING_MS = 1000
# Times are counted in milliseconds since the epoch, in 8 bytes: this far away stays far from the limit.
LONGEST_MS = 2**62


class Found(TypedDict):
    """What a call found out, as it is recorded. A call that bounced says nothing of the holder."""

    bounced_workflow_id: str | None
    holder_workflow_id: str | None
    holder_is_debounced: bool
    holder_workflow_name: str | None
    holder_application_name: str | None


@dataclass(frozen=True, slots=True)
class Debounce:
    """One call of a debouncer.

    `application_name` is whose workflows it may bounce, besides those of nobody; None is anybody's. `encode` gives
    the arguments with their format, `make_record` the record of a new workflow that starts after the period.
    """

    name: str
    queue_name: str
    deduplication_id: str
    period_ms: int
    application_name: str | None
    encode: Callable[[], tuple[str, str]]
    make_record: MakeRecord
    needs_queue: bool = False

    def may_bounce(self, holder: KeyHolder) -> bool:
        """Whether the holder is ours to bounce, as long as it is delayed."""
        return self._is_ours(holder.name, holder.is_debounced, holder.application_name)

    def may_come_free(self, found: Found) -> bool:
        """The same of a holder on record."""
        return self._is_ours(
            found["holder_workflow_name"], found["holder_is_debounced"], found["holder_application_name"]
        )

    def _is_ours(self, name: str | None, is_debounced: bool, application_name: str | None) -> bool:
        return (
            is_debounced
            and name == self.name
            and (self.application_name is None or application_name in (None, self.application_name))
        )


def function_debounce(
    engine: Engine,
    target: Target,
    queue_name: str,
    deduplication_id: str,
    *,
    period_ms: int,
    timeout_ms: int | None,
    application_name: str | None,
    needs_queue: bool,
) -> Debounce:
    """The call of a debouncer for a registered workflow; a new one gets the ambient options.

    `application_name` is that of another application which shall run it.
    """
    options = (current_context() or Context()).options
    encode = _once(lambda: encode_target(engine, target, f"debounced as {deduplication_id!r}"))

    def make_record(workflow_id: str, context: Context, parent: Execution | None) -> WorkflowStarted:
        record, _ = start_record(engine, target, workflow_id, context, parent, encode())
        # The deadline of the caller is not that of a workflow which other callers may push behind it.
        record.deadline_ms = None
        if application_name is not None:
            record.application_name = application_name
            record.application_version = options.app_version
        due = replace(options, deduplication_id=deduplication_id, delay_until_epoch_ms=engine.clock.now_ms())
        return _debounced(engine, waiting_record(record, queue_name, due), period_ms, timeout_ms)

    return Debounce(
        target.info.name,
        queue_name,
        deduplication_id,
        period_ms,
        application_name or engine.settings.name,
        encode,
        make_record,
        needs_queue,
    )


def named_debounce(
    engine: Core,
    target: NamedTarget,
    queue_name: str,
    deduplication_id: str,
    options: Options,
    roles: tuple[str | None, list[str] | None] | None,
    *,
    period_ms: int,
    timeout_ms: int | None,
) -> Debounce:
    """The call of a debouncer for a workflow given by name; a new one gets these options and roles."""
    format_name = engine.payloads.format_for(target.serialization_type)
    which = f"debounced as {deduplication_id!r}"
    encode = _once(
        lambda: (encode_inputs(engine, target.name, which, target.args, target.kwargs, format_name), format_name)
    )

    def make_record(workflow_id: str, context: Context, parent: Execution | None) -> WorkflowStarted:
        due = replace(options, deduplication_id=deduplication_id, delay_until_epoch_ms=engine.clock.now_ms())
        record = record_of_name(engine, queue_name, target, due, roles)(workflow_id, context, parent)
        return _debounced(engine, record, period_ms, timeout_ms)

    application_name = target.application_name or engine.application_name
    return Debounce(target.name, queue_name, deduplication_id, period_ms, application_name, encode, make_record)


def _debounced(engine: Core, record: WorkflowStarted, period_ms: int, timeout_ms: int | None) -> WorkflowStarted:
    """A workflow that waits on a queue as one that starts after the period, and by the timeout at the latest."""
    assert record.queue is not None
    now_ms = engine.clock.now_ms()
    record.queue.is_debounced = True
    record.queue.delay_until_ms = now_ms + period_ms
    if timeout_ms is not None:
        record.queue.debounce_deadline_ms = now_ms + timeout_ms
        record.queue.delay_until_ms = now_ms + min(period_ms, timeout_ms)
    return record


def _once(encode: Callable[[], tuple[str, str]]) -> Callable[[], tuple[str, str]]:
    encoded: list[tuple[str, str]] = []

    def call() -> tuple[str, str]:
        if not encoded:
            encoded.append(encode())
        return encoded[0]

    return call


def debounce_plan(engine: Core, call: Debounce, workflow_id: str | None) -> Plan[str]:
    """Bounce the workflow that waits under the key, or enqueue a new one with the id `workflow_id`; whose id it is.

    Raises DBOSQueueDeduplicatedError when a workflow holds the key that may not be bounced.
    """
    while True:
        debounced = yield from _attempt(engine, call, workflow_id)
        if debounced is not None:
            return debounced


def _attempt(engine: Core, call: Debounce, workflow_id: str | None) -> Plan[str | None]:
    """Bounce, else enqueue; None to start over, with step ids of its own."""
    parent = current_execution()
    step_id, create_id = (None, None) if parent is None else (parent.draw(), parent.draw())
    try:
        found = yield from _find_out(engine, call, parent, step_id)
    except Exception:
        yield from _give_back(engine, parent, create_id)
        raise
    holder_id = found["holder_workflow_id"]
    if found["bounced_workflow_id"] is None and holder_id is None:
        return (yield from _create(engine, call, workflow_id, create_id))
    yield from _give_back(engine, parent, create_id)
    if found["bounced_workflow_id"] is not None:
        return found["bounced_workflow_id"]
    assert holder_id is not None
    if not call.may_come_free(found):
        raise DBOSQueueDeduplicatedError(holder_id, call.queue_name, call.deduplication_id)
    return None


def _give_back(engine: Core, parent: Execution | None, step_id: int | None) -> Plan[None]:
    """Give back the last step id, once every call that was gathered with this one has drawn its own.

    Also a replay, which awaits nothing else here, lets the others begin first.
    """
    if parent is not None and step_id is not None and step_id == parent.last_step_id:
        yield Wait(Waiter(), engine.clock.now_ms())
        parent.give_back(step_id)


def _find_out(engine: Core, call: Debounce, parent: Execution | None, step_id: int | None) -> Plan[Found]:
    """Bounce the workflow that holds the key if that is allowed, and record what was found."""
    started_at_ms = engine.clock.now_ms()
    if parent is not None:
        assert step_id is not None
        recorded = yield from parent.find_recorded(step_id, BOUNCE)
        if recorded is not None:
            replayed: Found = decode(parent, recorded).get()
            return replayed
    call.encode()
    while True:
        is_registered, holder = yield from _look(call, parent)
        if call.needs_queue and not is_registered:
            missing = Exception(
                f"Queue {call.queue_name!r} is not registered, so nothing debounced would ever run there. Register it "
                f"with DBOS.register_queue({call.queue_name!r}) first."
            )
            if parent is not None and step_id is not None:
                yield from record_operation(parent, step_id, BOUNCE, started_at_ms, error=missing)
            raise missing
        if holder is None or not call.may_bounce(holder):
            break
        if holder.status != "DELAYED":
            yield from _wait_until_gone(engine, parent, holder)
            continue
        found = _bounced(holder)
        step = None
        if parent is not None and step_id is not None:
            step = _step(engine, parent, step_id, BOUNCE, started_at_ms)
            step.output, step.serialization = engine.payloads.encode_value(found), engine.payloads.configured_name
        if (yield from _bounce(engine, call, holder, parent, step)):
            return found
    found = _held(holder)
    if parent is not None and step_id is not None:
        yield from record_operation(parent, step_id, BOUNCE, started_at_ms, value=found)
    return found


def _create(engine: Core, call: Debounce, workflow_id: str | None, step_id: int | None) -> Plan[str | None]:
    """Enqueue a new workflow; None when the key is held by then and what holds it may not be bounced."""

    def meet_holder(record: WorkflowStarted, parent: Execution | None, started_at_ms: int) -> Plan[str | None]:
        _, holder = yield from _look(call, parent)
        if holder is None:
            return None
        if not call.may_bounce(holder):
            # Recorded, so that a replay starts over as well.
            yield from refuse(
                DBOSQueueDeduplicatedError(holder.workflow_id, call.queue_name, call.deduplication_id),
                record,
                parent,
                started_at_ms,
            )
        if holder.status != "DELAYED":
            yield from _wait_until_gone(engine, parent, holder)
            return None
        step = None
        if parent is not None and step_id is not None:
            # The step of an enqueue, with the workflow that was there first as its child.
            step = _step(engine, parent, step_id, call.name, started_at_ms)
            step.child_workflow_id = holder.workflow_id
        bounced = yield from _bounce(engine, call, holder, parent, step)
        return holder.workflow_id if bounced else None

    try:
        created = yield from create_plan(
            engine, call.name, call.make_record, step_id=step_id, workflow_id=workflow_id, meet_holder=meet_holder
        )
    except DBOSQueueDeduplicatedError:
        return None
    if created.record is not None and created.record.queue is not None:
        due_ms = created.record.queue.delay_until_ms
        assert due_ms is not None
        engine.note_delayed(due_ms)
    return created.workflow_id


def _bounce(
    engine: Core, call: Debounce, holder: KeyHolder, parent: Execution | None, step: StepCompleted | None
) -> Plan[bool]:
    """Delay the holder further, with these arguments; False when it is not the delayed holder any more."""
    inputs, serialization = call.encode()
    now_ms = engine.clock.now_ms()
    bounce = Bounce(
        holder.workflow_id,
        call.name,
        call.queue_name,
        call.deduplication_id,
        call.application_name,
        now_ms + call.period_ms,
        inputs,
        serialization,
        step,
    )
    try:
        answer = yield from _ask(parent, lambda store: store.bounce(bounce, now_ms))
    except StoreRefused as error:
        raise DBOSException(
            f"The system database refused the arguments of workflow {call.name!r}, debounced as "
            f"{call.deduplication_id!r}: {error}. Nothing was stored."
        ) from error
    if answer is Verdict.APPLIED:
        engine.note_delayed(bounce.delay_until_ms)
        return True
    if answer is None:
        return False
    assert parent is not None
    assert step is not None
    if answer is Verdict.REPEATED:
        raise DBOSStepNondeterminismError(parent.workflow_id, step.step_id)
    raise parent.fenced()


def _look(call: Debounce, parent: Execution | None) -> Plan[tuple[bool, KeyHolder | None]]:
    found: tuple[bool, KeyHolder | None] = yield from _ask(
        parent, lambda store: store.find_key_holder(call.queue_name, call.deduplication_id)
    )
    return found


def _ask(parent: Execution | None, query: Callable[[Store], T]) -> Plan[T]:
    try:
        answer: T = yield Read(query)
    except StoreFailed as error:
        if parent is not None:
            raise ExecutionInterrupted(error) from error
        raise
    return answer


def _wait_until_gone(engine: Core, parent: Execution | None, holder: KeyHolder) -> Plan[None]:
    """Wait for the end of a workflow that was made startable without giving up its key, as old releases do."""
    keys = [("finished", holder.workflow_id)]
    if parent is not None:
        keys.append(("cancelled", parent.workflow_id))
    with engine.signals.watch(*keys) as waiter:
        yield Wait(waiter, engine.clock.now_ms() + LEAVING_MS)
    if parent is not None:
        parent.check()


def _step(engine: Core, parent: Execution, step_id: int, name: str, started_at_ms: int) -> StepCompleted:
    step = step_row(parent, step_id, name, started_at_ms)
    step.completed_at_ms = engine.clock.now_ms()
    return step


def _bounced(holder: KeyHolder) -> Found:
    return {**_held(None), "bounced_workflow_id": holder.workflow_id}


def _held(holder: KeyHolder | None) -> Found:
    found: Any = {
        "bounced_workflow_id": None,
        "holder_workflow_id": holder and holder.workflow_id,
        "holder_is_debounced": holder is not None and holder.is_debounced,
        "holder_workflow_name": holder and holder.name,
        "holder_application_name": holder and holder.application_name,
    }
    result: Found = found
    return result
