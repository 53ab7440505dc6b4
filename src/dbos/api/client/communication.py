"""Talking to workflows through a client: send them messages, read what they publish and write."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from ...engine.messages import SEND, send_plan, send_within
from ...engine.plans import Plan
from ...engine.stream_reading import END
from ...serialization import WorkflowSerializationFormat
from ...types import SendMessage
from ..events import event_lookup, events_lookup
from ..messages import bulk_sending, check_message, checked_messages, message_listing
from ..streams import stream_offset_lookup, stream_reader
from .session import Session, blocking, twin

if TYPE_CHECKING:
    from ...engine.core import Core

DEFAULT = WorkflowSerializationFormat.DEFAULT


def _send(
    core: Core,
    destination_id: str,
    message: Any,
    topic: str | None = None,
    idempotency_key: str | None = None,
    *,
    serialization_type: WorkflowSerializationFormat | None = DEFAULT,
    send_to_forks: bool = False,
    shard_key: str | None = None,
) -> Plan[None]:
    """Send a message to a workflow, whatever its status and application.

    Args:
        destination_id: The workflow that shall receive it.
        message: Anything that the format can store.
        topic: The queue within its mailbox; None is one of its own.
        idempotency_key: Of messages to one workflow with the same key only the first is delivered.
        serialization_type: The format. Default the configured one.
        send_to_forks: Send it also to all workflows that were forked from the destination, directly or not.

    Raises:
        DBOSNonExistentWorkflowError: there is no such workflow.
        Exception: what the serializer raises for a message that cannot be stored; nothing is sent then.
    """
    sent = SendMessage(destination_id, message, topic, idempotency_key, shard_key)
    check_message(sent)
    return send_plan(core, [sent], serialization_type, name=SEND, send_to_forks=send_to_forks)


class CommunicationMethods:
    """Messages, events and streams, through a client."""

    _session: Session

    send = blocking("send", _send)
    send_async = twin("send", _send)
    send_bulk = blocking("send_bulk", bulk_sending)
    send_bulk_async = twin("send_bulk", bulk_sending)
    list_messages = blocking("list_messages", message_listing)
    list_messages_async = twin("list_messages", message_listing)
    get_event = blocking("get_event", event_lookup)
    get_event_async = twin("get_event", event_lookup)
    get_all_events = blocking("get_all_events", events_lookup)
    get_all_events_async = twin("get_all_events", events_lookup)
    read_stream_offset = blocking("read_stream_offset", stream_offset_lookup)
    read_stream_offset_async = twin("read_stream_offset", stream_offset_lookup)

    def send_in_transaction(
        self,
        conn_or_session: Any,
        destination_id: str,
        message: Any,
        topic: str | None = None,
        idempotency_key: str | None = None,
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
        send_to_forks: bool = False,
        shard_key: str | None = None,
    ) -> None:
        """Send a message in a transaction of yours: it is sent if and when that commits.

        Nothing is begun, committed, rolled back or tried again here; the database's errors come out as SQLAlchemy
        raises them.

        Args:
            conn_or_session: A SQLAlchemy Connection or Session on the system database.
            Others as of `send`.

        Raises:
            DBOSNonExistentWorkflowError: the transaction sees no such workflow; it stays usable.
            DBOSException: besides what `send` raises it for, a connection to another kind of database.
        """
        sent = SendMessage(destination_id, message, topic, idempotency_key, shard_key)
        check_message(sent)
        self._send_within(conn_or_session, [sent], serialization_type, send_to_forks)

    def send_bulk_in_transaction(
        self,
        conn_or_session: Any,
        messages: list[SendMessage],
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
        send_to_forks: bool = False,
    ) -> None:
        """Send many messages in a transaction of yours; see `send_in_transaction` and `send_bulk`."""
        self._send_within(conn_or_session, checked_messages(messages), serialization_type, send_to_forks)

    async def send_in_transaction_async(
        self,
        conn_or_session: Any,
        destination_id: str,
        message: Any,
        topic: str | None = None,
        idempotency_key: str | None = None,
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
        send_to_forks: bool = False,
        shard_key: str | None = None,
    ) -> None:
        """As `send_in_transaction`, on a SQLAlchemy AsyncConnection or AsyncSession."""
        sent = SendMessage(destination_id, message, topic, idempotency_key, shard_key)
        check_message(sent)
        await self._send_within_async(conn_or_session, [sent], serialization_type, send_to_forks)

    async def send_bulk_in_transaction_async(
        self,
        conn_or_session: Any,
        messages: list[SendMessage],
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
        send_to_forks: bool = False,
    ) -> None:
        """As `send_bulk_in_transaction`, on a SQLAlchemy AsyncConnection or AsyncSession."""
        await self._send_within_async(conn_or_session, checked_messages(messages), serialization_type, send_to_forks)

    async def _send_within_async(
        self,
        conn_or_session: Any,
        messages: list[SendMessage],
        serialization_type: WorkflowSerializationFormat | None,
        send_to_forks: bool,
    ) -> None:
        from ...storage.caller_transaction import on_sync_connection

        await self._session.open_async()
        await on_sync_connection(
            conn_or_session,
            lambda connection: self._send_within(connection, messages, serialization_type, send_to_forks),
        )

    def _send_within(
        self,
        conn_or_session: Any,
        messages: list[SendMessage],
        serialization_type: WorkflowSerializationFormat | None,
        send_to_forks: bool,
    ) -> None:
        from ...storage.caller_transaction import connection_of

        connection = connection_of(conn_or_session)
        send_within(self._session.core, connection, messages, serialization_type, send_to_forks=send_to_forks)

    def read_stream(
        self,
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        polling_interval_sec: float | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> Generator[Any, None, None]:
        """The values of a stream, in order; waits for each until the stream has ended.

        It ends where the workflow has closed it, or with the workflow. Everything is done when values are asked for,
        also the checks of arguments.

        Args:
            workflow_id: Whose stream; the workflow must exist, and may still wait for its start.
            key: The stream. One that is never written ends with the workflow.
            offset: Where to begin; the first value has 0.
            polling_interval_sec: The longest time without a look into the database while waiting. Default that of the
                client.
            timeout_seconds: The longest wait for one value. None waits without limit; with 0 only what is there comes.

        Raises:
            DBOSNonExistentWorkflowError: there is no such workflow.
            DBOSStreamTimeoutError: the next value did not come in time.
            TypeError, ValueError: an argument is not a number, or out of range.
            Exception: what the serializer raises for a value that cannot be read here, in its turn.
        """
        session = self._session
        reader = stream_reader(session.core, workflow_id, key, offset, polling_interval_sec, timeout_seconds, shard_key)
        try:
            while (value := session.run(reader.next_plan())) is not END:
                yield value
        finally:
            reader.close()

    async def read_stream_async(
        self,
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        polling_interval_sec: float | None = None,
        timeout_seconds: float | None = None,
        shard_key: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """As `read_stream`, from async code. Whoever leaves the loop early should `aclose()` the generator."""
        session = self._session
        core = await session.open_async()
        reader = stream_reader(core, workflow_id, key, offset, polling_interval_sec, timeout_seconds, shard_key)
        try:
            while (value := await session.call_async(lambda _: reader.next_plan())) is not END:
                yield value
        finally:
            reader.close()
