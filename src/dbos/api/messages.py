"""Messages: sent to workflows, and received by them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.context import current_execution
from ..engine.deadlines import check_timeout
from ..engine.messages import SEND, recv_plan, send_plan
from ..engine.plans import Plan
from ..error import DBOSException
from ..serialization import WorkflowSerializationFormat, check_text
from ..types import SendMessage
from .events import check_key
from .runtime import blocking, check_ids, check_unsharded, engine_here, on_engine, twin

if TYPE_CHECKING:
    from ..engine.core import Core

DEFAULT = WorkflowSerializationFormat.DEFAULT


def check_message(message: SendMessage) -> None:
    """Refuse what no database can store, and what is no message."""
    if not isinstance(message, SendMessage):
        raise DBOSException(f"send_bulk takes a list of SendMessage, not one with {message!r}")
    check_unsharded(message.shard_key)
    check_ids(message.destination_id)
    if message.topic is not None:
        check_key(message.topic, "topic")
    if message.idempotency_key is not None:
        if not isinstance(message.idempotency_key, str):
            raise DBOSException(f"The idempotency key must be a text, not {message.idempotency_key!r}")
        check_text(message.idempotency_key, "idempotency key")


def checked_messages(messages: list[SendMessage]) -> list[SendMessage]:
    if isinstance(messages, SendMessage):
        raise DBOSException("send_bulk takes a list of SendMessage, not one alone")
    found = list(messages)
    for message in found:
        check_message(message)
    return found


def _send(
    destination_id: str,
    message: Any,
    topic: str | None = None,
    *,
    idempotency_key: str | None = None,
    serialization_type: WorkflowSerializationFormat | None = DEFAULT,
    send_to_forks: bool = False,
    shard_key: str | None = None,
) -> Plan[None]:
    """Send a message to a workflow, whatever its status.

    Args:
        destination_id: The workflow that shall receive it.
        message: Anything that the format can store.
        topic: The queue within its mailbox; None is one of its own.
        idempotency_key: Of messages to one workflow with the same key only the first is delivered.
        serialization_type: The format. Default that of the workflow that sends, else the configured one.
        send_to_forks: Send it also to all workflows that were forked from the destination, directly or not.

    Raises:
        DBOSNonExistentWorkflowError: there is no such workflow.
        Exception: what the serializer raises for a message that cannot be stored; nothing is sent then.

    Durability: in workflow code recorded as one step, together with the message: it is sent exactly once. In step code
    it is sent at once, also if the step fails later, and again when the step is run again; a key prevents that.
    """
    sent = SendMessage(destination_id, message, topic, idempotency_key, shard_key)
    check_message(sent)
    return send_plan(engine_here(), [sent], serialization_type, name=SEND, send_to_forks=send_to_forks)


def bulk_sending(
    core: Core,
    messages: list[SendMessage],
    *,
    serialization_type: WorkflowSerializationFormat | None = DEFAULT,
    send_to_forks: bool = False,
) -> Plan[None]:
    """Send many messages, all or none; those to one workflow and topic are received in the order of the list.

    Args:
        messages: To any workflows. A key may be used once in the list.
        serialization_type, send_to_forks: As for `send`.

    Raises:
        DBOSNonExistentWorkflowError: some workflows do not exist; it names them.
        DBOSException: a key is used twice.
        Exception: what the serializer raises for a message that cannot be stored; nothing is sent then.

    Durability: as `send`, one step for all.
    """
    return send_plan(core, checked_messages(messages), serialization_type, send_to_forks=send_to_forks)


def _recv(topic: str | None = None, timeout_seconds: float = 60, *, default: Any = None) -> Plan[Any]:
    """The next message to this workflow, waiting until one comes.

    Args:
        topic: Only messages under this topic; None takes those without one.
        timeout_seconds: How long to wait. 0 or less takes what is there.
        default: What to return when nothing came in time. It tells that from a message that is None.

    Returns:
        The message; `default` when the time was up.

    Raises:
        DBOSException: called outside of workflow code.
        DBOSWorkflowCancelledError: the workflow was cancelled while it waited.
        TypeError: the timeout is not a number.
        Exception: what the serializer raises for a message that cannot be read. The message is taken out of the
            mailbox, and the error recorded in its place.

    Durability: recorded as two steps, the message and the deadline: a replay returns the recorded message, a recovered
    workflow waits until the deadline first planned. Each message is received exactly once.
    """
    if current_execution() is None:
        raise DBOSException("DBOS.recv must be called from within a workflow")
    if topic is not None:
        check_key(topic, "topic")
    return recv_plan(topic, check_timeout(timeout_seconds, "recv"), default)


class MessageCalls:
    """Send messages, and receive them."""

    send = blocking("send", _send)
    send_async = twin("send", _send)
    send_bulk = blocking("send_bulk", on_engine(bulk_sending))
    send_bulk_async = twin("send_bulk", on_engine(bulk_sending))
    recv = blocking("recv", _recv)
    recv_async = twin("recv", _recv)
