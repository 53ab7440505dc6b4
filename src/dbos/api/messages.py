"""Messages: sent to workflows, received by them in order, and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.context import current_execution
from ..engine.deadlines import check_timeout
from ..engine.listing import message_listing_plan
from ..engine.messages import SEND, recv_plan, send_plan
from ..engine.plans import Plan
from ..error import DBOSException
from ..serialization import WorkflowSerializationFormat, check_text
from ..types import MessageInfo, SendMessage
from .events import check_key
from .runtime import blocking, check_ids, check_page, check_unsharded, engine_here, on_engine, twin

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


def message_listing(
    core: Core,
    workflow_id: str,
    *,
    topics: str | list[str | None] | None = None,
    received: bool | None = None,
    load_message: bool = True,
    limit: int | None = None,
    offset: int | None = None,
    shard_key: str | None = None,
) -> Plan[list[MessageInfo]]:
    """The messages to a workflow, those that wait and those it has received, by the time at which they were sent.

    Looking takes nothing out of the mailbox. Messages that a rewind or a deletion has removed are gone.

    Args:
        workflow_id: Whose mailbox; empty for a workflow that is unknown.
        topics: Only messages under this topic, or these; None in a list is no topic. Default all.
        received: True is only what was received, False only what waits. Default both.
        load_message: False leaves `message` None and does not read it.
        limit, offset: How many, and how many to leave out before them; default all. A limit of 0 is none.

    Returns:
        A dictionary for each; one that cannot be received says why under `problem`.

    Raises:
        ValueError: one of them has a value that means nothing; the message names it.
        DBOSQueryTimeoutError: it took longer than `observability_query_timeout_sec` (Postgres).

    Durability: in workflow code recorded as one step.
    """
    check_unsharded(shard_key)
    check_ids(workflow_id)
    wanted = [topics] if isinstance(topics, str) else topics
    if wanted is not None:
        if not isinstance(wanted, (list, tuple)):
            raise ValueError(f"topics must be a text or a list of texts and None, not {topics!r}")
        for topic in wanted:
            if topic is not None:
                check_key(topic, "topic")
    for argument, flag in (("received", received), ("load_message", load_message)):
        if not isinstance(flag, bool) and not (argument == "received" and flag is None):
            raise ValueError(f"{argument} must be True or False, not {flag!r}")
    check_page(limit, offset)
    return message_listing_plan(core, workflow_id, wanted, received, load_message, limit, offset)


class MessageCalls:
    """Send messages, receive them, and look at them."""

    send = blocking("send", _send)
    send_async = twin("send", _send)
    send_bulk = blocking("send_bulk", on_engine(bulk_sending))
    send_bulk_async = twin("send_bulk", on_engine(bulk_sending))
    recv = blocking("recv", _recv)
    recv_async = twin("recv", _recv)
    list_messages = blocking("list_messages", on_engine(message_listing))
    list_messages_async = twin("list_messages", on_engine(message_listing))
