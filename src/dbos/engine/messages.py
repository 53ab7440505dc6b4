"""Messages, as plans: send them to workflows, receive them in order.

Each workflow has a mailbox for each topic. A message is received once: it is marked, and becomes the value of the step
that received it, in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..error import DBOSException, DBOSNonExistentWorkflowError
from ..ids import new_ids
from ..records import Message, MessageConsumed, MessagesSent, RecipientsMissing, StepCompleted, Verdict
from ..serialization import WorkflowSerializationFormat, explain, explain_unreadable
from ..storage.store import StoreFailed
from ..types import SendMessage, StoredMessage
from .context import current_context, current_execution
from .deadlines import LONGEST_WAIT_MS, deadline_row, in_ms, recorded_deadline
from .effects import encode_for, step_row
from .errors import ExecutionInterrupted
from .execution import Execution
from .mailbox import Mailbox
from .operations import decode, record_operation
from .plans import Commit, Plan, Read, Wait
from .signals import Key
from .steps import accept, record_step, replay

if TYPE_CHECKING:
    from .core import Core

SEND = "DBOS.send"
SEND_BULK = "DBOS.send_bulk"
RECV = "DBOS.recv"
# What stands for no topic in the database.
NO_TOPIC = "__null__topic__"

# Who has waited so long records until when. A message that comes sooner is recorded together with the deadline.
UNRECORDED_WAIT_MS = 10


def send_plan(
    engine: Core,
    messages: Sequence[SendMessage],
    serialization_type: WorkflowSerializationFormat | None,
    *,
    name: str = SEND_BULK,
    send_to_forks: bool = False,
) -> Plan[None]:
    """Send all the messages or none; in workflow code recorded under `name`."""
    context = current_context()
    execution = None if context is None else context.execution
    if context is None or execution is None:
        yield from plain_send_plan(engine, messages, serialization_type, send_to_forks=send_to_forks)
        return
    if context.step_status is not None:
        execution.check()
        encoded = encode_messages(engine, execution, messages, serialization_type)
        if messages:
            sender = MessagesSent((), execution.workflow_id, execution.owner_token, context.step_status.step_id)
            answer = yield from _sent(engine, sender, messages, encoded, send_to_forks)
            accept(execution, context.step_status.step_id or 0, answer)
        return
    step_id = execution.draw()
    # Before the look for a record, and never recorded: a mistake is one in a replay too (04 R105, R108, R113).
    encoded = encode_messages(engine, execution, messages, serialization_type)
    record = yield from execution.find_recorded(step_id, name)
    if record is not None:
        decode(execution, record).get()
        return
    step = step_row(execution, step_id, name, engine.clock.now_ms())
    if not messages:
        yield from record_step(execution, step)
        return
    sender = MessagesSent((), execution.workflow_id, execution.owner_token, step_id, step)
    try:
        answer = yield from _sent(engine, sender, messages, encoded, send_to_forks)
    except DBOSNonExistentWorkflowError as error:
        yield from record_operation(execution, step_id, name, step.started_at_ms, error=error)
        raise
    except StoreFailed as error:
        raise ExecutionInterrupted(error) from error
    accept(execution, step_id, answer)


def plain_send_plan(
    engine: Core,
    messages: Sequence[SendMessage],
    serialization_type: WorkflowSerializationFormat | None,
    *,
    send_to_forks: bool = False,
) -> Plan[None]:
    """Send all the messages or none, for no workflow."""
    encoded = encode_messages(engine, None, messages, serialization_type)
    if messages:
        yield from _sent(engine, MessagesSent(()), messages, encoded, send_to_forks)


def _sent(
    engine: Core,
    sender: MessagesSent,
    messages: Sequence[SendMessage],
    encoded: Sequence[tuple[str, str]],
    send_to_forks: bool,
) -> Plan[Verdict]:
    """Commit the messages for `sender`.

    Raises DBOSNonExistentWorkflowError for recipients that do not exist; nothing is sent then.
    """
    destinations = list(dict.fromkeys(message.destination_id for message in messages))
    while True:
        forks: Mapping[str, list[str]] = {}
        if send_to_forks:
            forks = yield Read(lambda store: store.find_forks(destinations))
        if sender.step is not None:
            sender.step.completed_at_ms = engine.clock.now_ms()
        sender.messages = address(messages, encoded, forks)
        answer = yield Commit(sender)
        if not isinstance(answer, RecipientsMissing):
            assert isinstance(answer, Verdict)
            return answer
        missing = [workflow_id for workflow_id in answer.destination_ids if workflow_id in destinations]
        if missing:
            raise DBOSNonExistentWorkflowError("`send` destination", ", ".join(missing))
        # A fork has been deleted since the look; nothing was sent.


def send_within(
    engine: Core,
    connection: Any,
    messages: Sequence[SendMessage],
    serialization_type: WorkflowSerializationFormat | None,
    *,
    send_to_forks: bool,
) -> None:
    """Send messages in the transaction of a SQLAlchemy connection, once and at once, outside of any workflow.

    Raises DBOSNonExistentWorkflowError for recipients that the transaction does not see; nothing is sent then.
    """
    encoded = encode_messages(engine, None, messages, serialization_type)

    def make(forks: Mapping[str, Sequence[str]]) -> MessagesSent:
        return MessagesSent(address(messages, encoded, forks))

    destinations = list(dict.fromkeys(message.destination_id for message in messages))
    missing = engine.store.send_within(connection, destinations, make, send_to_forks=send_to_forks)
    if missing:
        raise DBOSNonExistentWorkflowError("`send` destination", ", ".join(missing))


def encode_messages(
    engine: Core,
    execution: Execution | None,
    messages: Sequence[SendMessage],
    serialization_type: WorkflowSerializationFormat | None,
) -> list[tuple[str, str]]:
    """The text of each message, and its format.

    Raises DBOSException when a key is used twice (04 R105), or what the serializer raises.
    """
    keys = Counter(message.idempotency_key for message in messages if message.idempotency_key)
    if len(keys) < len(messages):
        repeated = sorted(key for key, count in keys.items() if count > 1 and key is not None)
        if repeated:
            raise DBOSException(
                f"Duplicate idempotency keys in one call of send_bulk: {', '.join(repeated)}. Nothing was sent. Give "
                f"each message a key of its own."
            )
    encoded = []
    for message in messages:
        what = f"the message to workflow {message.destination_id!r}"
        if execution is not None:
            encoded.append(encode_for(execution, message.message, serialization_type, what))
            continue
        format_name = engine.payloads.format_for(serialization_type)
        try:
            encoded.append((engine.payloads.encode_value(message.message, format_name), format_name))
        except Exception as error:
            value = message.message
            raise explain(error, f"{what}, a {type(value).__name__},") from error
    return encoded


def address(
    messages: Sequence[SendMessage], encoded: Sequence[tuple[str, str]], forks: Mapping[str, Sequence[str]]
) -> list[Message]:
    """The messages as they are stored, one for each recipient: pure, for whoever writes the rows himself.

    A message with a key has an id by which the database knows it (04 R103).
    """
    found = []
    for message, (text, format_name) in zip(messages, encoded):
        topic = NO_TOPIC if message.topic is None else message.topic
        for recipient in (message.destination_id, *forks.get(message.destination_id, ())):
            key = message.idempotency_key
            message_id = "" if key is None else f"{key}::{recipient}"
            found.append((message_id, recipient, topic, text, format_name))
    fresh = iter(new_ids(sum(not row[0] for row in found)))
    return [Message(message_id or next(fresh), *rest) for message_id, *rest in found]


def recv_plan(topic: str | None, timeout_seconds: float, default: Any) -> Plan[Any]:
    """The next message, waited for if need be; recorded, and the deadline too."""
    execution = current_execution()
    assert execution is not None
    engine = execution.engine
    step_id, deadline_id = execution.draw(), execution.draw()
    record = yield from execution.find_recorded(step_id, RECV)
    deadline = yield from recorded_deadline(execution, deadline_id)
    if record is not None:
        return replay(execution, record)
    topic = NO_TOPIC if topic is None else topic
    mailbox = _mailbox(execution, topic)
    began_ms = engine.clock.now_ms()
    pending: StepCompleted | None = None
    if deadline is None:
        deadline = engine.clock.now() + timeout_seconds
        pending = deadline_row(execution, deadline_id, deadline, began_ms, began_ms)
    step = step_row(execution, step_id, RECV, began_ms)
    keys: tuple[Key, ...] = (mailbox.key, ("cancelled", execution.workflow_id))
    at_hand: StoredMessage | None = None
    while True:
        message = at_hand
        if message is None:
            with engine.signals.watch(*keys) as waiter:
                now_ms = engine.clock.now_ms()
                # Whoever may give up has looked; others wait at once where nothing can have come.
                if now_ms >= in_ms(deadline) or not (mailbox.is_empty and engine.store.hears_messages):
                    message = yield from _look(execution, mailbox, topic)
                if message is None:
                    execution.check()
                    if now_ms >= in_ms(deadline):
                        break
                    wait_until_ms = min(in_ms(deadline), now_ms + LONGEST_WAIT_MS)
                    if pending is not None and not (
                        yield Wait(waiter, min(wait_until_ms, now_ms + UNRECORDED_WAIT_MS))
                    ):
                        yield from record_step(execution, pending)
                        pending = None
                    if not waiter.fired:
                        yield Wait(waiter, wait_until_ms)
                    at_hand = mailbox.claim(waiter.value)
                    if at_hand is None:
                        # Whatever woke this one: look.
                        mailbox.fire()
            execution.check()
        if message is not None:
            step.also = pending
            first_of = topic if message is at_hand else None
            at_hand = None
            try:
                received, value = yield from _receive(execution, step, message, first_of)
            finally:
                mailbox.give_back(message)
            if received:
                return value
            # Somebody else has received it, or another one is older.
            mailbox.fire()
    # Nothing came in time.
    step.output, step.serialization = engine.payloads.encode_value(default), engine.payloads.configured_name
    step.completed_at_ms = engine.clock.now_ms()
    step.also = pending
    yield from record_step(execution, step)
    return default


def _mailbox(execution: Execution, topic: str) -> Mailbox:
    if execution.mailboxes is None:
        execution.mailboxes = {}
    mailbox = execution.mailboxes.get(topic)
    if mailbox is None:
        mailbox = execution.mailboxes[topic] = Mailbox(("message", (execution.workflow_id, topic)))
        execution.engine.open_mailbox(execution, mailbox)
    return mailbox


def _look(execution: Execution, mailbox: Mailbox, topic: str) -> Plan[StoredMessage | None]:
    message = mailbox.take()
    if message is None:
        look = mailbox.begin_look()
        found = yield Read(lambda store: store.find_messages(execution.workflow_id, topic, mailbox.window))
        mailbox.fill(found, look)
        message = mailbox.take()
    return message


def _receive(
    execution: Execution, step: StepCompleted, message: StoredMessage, first_of: str | None
) -> Plan[tuple[bool, Any]]:
    """Whether the message was still there (and, under the topic `first_of`, the first), and its value.

    One that cannot be read raises, and is received as well.
    """
    payloads = execution.engine.payloads
    failure: Exception | None = None
    value: Any = None
    step.error = step.serialization = None
    try:
        value = payloads.decode_value(message.text, message.serialization)
    except Exception as error:
        # It would be the first in its mailbox for ever: the error takes its place.
        failure = unreadable(error, message)
        failure.__cause__ = error
        step.error, step.serialization = payloads.encode_error_always(failure)
    step.completed_at_ms = execution.engine.clock.now_ms()
    record = MessageConsumed(
        execution.workflow_id, execution.owner_token, step.step_id, message.message_id, step, first_of
    )
    try:
        answer = yield Commit(record)
    except StoreFailed as error:
        raise ExecutionInterrupted(error) from error
    if answer is Verdict.TAKEN:
        return False, None
    accept(execution, step.step_id, answer)
    if failure is not None:
        raise failure
    return True, value


def unreadable(error: Exception, message: StoredMessage) -> Exception:
    """An error of the same class, if that can be made, which says what cannot be read and what became of it."""
    what = f"message {message.message_id}"
    then = " and was taken out of the mailbox; its row in notifications is kept"
    explained = explain_unreadable(error, what, message.serialization, then)
    if explained is not error:
        return explained
    # It is recorded, so it has to be one that can be stored.
    return DBOSException(f"Message {message.message_id} cannot be read{then}: {type(error).__name__}: {error}")
