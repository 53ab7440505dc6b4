"""Messages and streams through a client (04 R504, R515, R520, R521)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from dbos import DBOS, DBOSClient, SendMessage, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSStreamEndedError,
    DBOSStreamTimeoutError,
)
from tests.helpers import rows, step_names, wait_until


@pytest.fixture
def engine(client: DBOSClient, database_url: str) -> Iterator[sqlalchemy.Engine]:
    """The caller's own engine on the system database."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    made = sqlalchemy.create_engine(url)
    yield made
    made.dispose()


def start_receiver(count: int, workflow_id: str = "receiver", topic: str | None = None) -> Any:
    @DBOS.workflow(name="receiving")
    def receiving(count: int, topic: str | None) -> list[Any]:
        return [DBOS.recv(topic) for _ in range(count)]

    with SetWorkflowID(workflow_id):
        return DBOS.start_workflow(receiving, count, topic)


def messages_in(database_url: str) -> list[dict[str, Any]]:
    return rows(database_url, "SELECT * FROM notifications ORDER BY created_at_epoch_ms")


# --- messages


async def test_messages_arrive_in_order_whichever_way_they_are_sent(client: DBOSClient) -> None:
    handle = start_receiver(5)
    client.send("receiver", 1)
    await client.send_async("receiver", 2)
    client.send_bulk([SendMessage("receiver", 3), SendMessage("receiver", 4)])
    await client.send_bulk_async([SendMessage("receiver", None)])
    assert handle.get_result() == [1, 2, 3, 4, None]


def test_a_key_delivers_once_and_is_the_fourth_positional_argument(client: DBOSClient, database_url: str) -> None:
    """04 2.1, R103, R104."""
    handle = start_receiver(1, topic="t")
    for value in ("first", "second"):
        client.send("receiver", value, "t", "key")
    assert handle.get_result() == ["first"]
    (row,) = messages_in(database_url)
    assert row["message_uuid"] == "key::receiver"


def test_a_format_of_its_own(client: DBOSClient, database_url: str) -> None:
    handle = start_receiver(1)
    client.send("receiver", {"a": 1}, serialization_type=WorkflowSerializationFormat.PORTABLE)
    assert handle.get_result() == [{"a": 1}]
    (row,) = messages_in(database_url)
    assert (row["message"], row["serialization"]) == ('{"a":1}', "portable_json")


def test_a_recipient_that_does_not_exist(client: DBOSClient, database_url: str) -> None:
    """04 R106: nothing of a bulk is sent."""
    handle = start_receiver(1)
    with pytest.raises(DBOSNonExistentWorkflowError, match="absent"):
        client.send_bulk([SendMessage("receiver", 1), SendMessage("absent", 1)])
    assert messages_in(database_url) == []
    client.send("receiver", 2)
    assert handle.get_result() == [2]


def test_forks_get_the_message_too(client: DBOSClient, database_url: str) -> None:
    """04 R110."""
    handle = start_receiver(1)
    with SetWorkflowID("fork"):
        fork = client.fork_workflow("receiver", 1)
    client.send("receiver", "for all", send_to_forks=True)
    assert [handle.get_result(), fork.get_result()] == [["for all"]] * 2


def test_sending_in_a_workflow_is_not_recorded(client: DBOSClient, database_url: str) -> None:
    """04 R504."""

    @DBOS.workflow()
    def sending() -> None:
        client.send("receiver", 1)

    handle = start_receiver(1)
    with SetWorkflowID("s"):
        sending()
    assert step_names(database_url, "s") == {}
    assert handle.get_result() == [1]


# --- in a transaction of the caller


def test_messages_are_sent_when_the_transaction_commits(
    client: DBOSClient, engine: sqlalchemy.Engine, database_url: str
) -> None:
    """04 R520."""
    handle = start_receiver(3)
    with engine.begin() as connection:
        client.send_in_transaction(connection, "receiver", 1)
        client.send_bulk_in_transaction(connection, [SendMessage("receiver", 2), SendMessage("receiver", 3)])
        # Seen from outside.
        assert messages_in(database_url) == []
    assert handle.get_result() == [1, 2, 3]


def test_nothing_is_sent_when_it_rolls_back(client: DBOSClient, engine: sqlalchemy.Engine, database_url: str) -> None:
    """04 R520."""
    handle = start_receiver(1)
    with pytest.raises(RuntimeError, match="no"), Session(engine) as session, session.begin():
        client.send_in_transaction(session, "receiver", 1, "t", "key")
        raise RuntimeError("no")
    assert messages_in(database_url) == []
    client.send("receiver", 2)
    assert handle.get_result() == [2]


def test_a_workflow_of_the_same_transaction_is_a_recipient(client: DBOSClient, engine: sqlalchemy.Engine) -> None:
    """04 R520."""
    start_receiver(0, "other").get_result()
    client.register_queue("mail")
    with engine.begin() as connection:
        options: Any = {"workflow_name": "receiving", "queue_name": "mail", "workflow_id": "w"}
        handle = client.enqueue_in_transaction(connection, options, 1, None)
        client.send_in_transaction(connection, "w", "hello", idempotency_key="k")
        client.send_in_transaction(connection, "w", "again", idempotency_key="k")
    assert handle.get_result() == ["hello"]


def test_a_missing_recipient_leaves_the_transaction_usable(
    client: DBOSClient, engine: sqlalchemy.Engine, database_url: str
) -> None:
    """04 R520, R521: also where the caller's connection enforces no foreign keys."""
    handle = start_receiver(1)
    with engine.begin() as connection:
        with pytest.raises(DBOSNonExistentWorkflowError, match="absent"):
            client.send_in_transaction(connection, "absent", 1)
        client.send_bulk_in_transaction(connection, [])
        client.send_in_transaction(connection, "receiver", 2)
    assert handle.get_result() == [2]
    assert len(messages_in(database_url)) == 1


def test_what_is_no_message_is_refused(client: DBOSClient) -> None:
    message: Any = "text"
    for call in (lambda: client.send_bulk([message]), lambda: client.send_bulk(SendMessage("w", 1))):  # type: ignore[arg-type]
        with pytest.raises(DBOSException, match="list of SendMessage"):
            call()
    with pytest.raises(DBOSException, match="idempotency key"):
        client.send("w", 1, None, 5)  # type: ignore[arg-type]


# --- streams


def start_writer(values: int) -> Any:
    @DBOS.workflow(name="writing")
    def writing(values: int) -> None:
        for value in range(values):
            DBOS.write_stream("k", value)
        DBOS.close_stream("k")
        DBOS.recv()

    with SetWorkflowID("writer"):
        return DBOS.start_workflow(writing, values)


def test_only_the_workflow_itself_writes_its_streams_and_sets_its_events(client: DBOSClient) -> None:
    """04 R305, section 7.2."""
    for name in ("write_stream", "close_stream", "set_event", "recv"):
        assert not hasattr(client, name)
        assert not hasattr(client, f"{name}_async")


def test_a_stream_is_read_to_its_end(client: DBOSClient) -> None:
    """04 R310, R312."""
    handle = start_writer(250)
    assert list(client.read_stream("writer", "k")) == list(range(250))
    assert list(client.read_stream("writer", "k", offset=248, timeout_seconds=0)) == [248, 249]
    client.send("writer", "go")
    handle.get_result()
    assert list(client.read_stream("writer", "never written")) == []


async def test_a_stream_is_read_from_async_code(client: DBOSClient) -> None:
    start_writer(3)
    assert [value async for value in client.read_stream_async("writer", "k")] == [0, 1, 2]
    assert await client.read_stream_offset_async("writer", "k", 1) == 1
    client.send("writer", "go")


def test_single_offsets_and_their_errors(client: DBOSClient) -> None:
    """04 R311, R313, R316."""
    start_writer(1)
    assert client.read_stream_offset("writer", "k", 0) == 0
    with pytest.raises(DBOSStreamEndedError):
        client.read_stream_offset("writer", "k", 1)
    with pytest.raises(DBOSStreamTimeoutError):
        client.read_stream_offset("writer", "other", 0, timeout_seconds=0.01)
    with pytest.raises(DBOSNonExistentWorkflowError):
        next(client.read_stream("absent", "k"))
    client.send("writer", "go")


def test_reading_in_a_workflow_is_not_recorded(client: DBOSClient, database_url: str) -> None:
    """04 R326."""

    @DBOS.workflow()
    def reading() -> list[Any]:
        return list(client.read_stream("writer", "k"))

    start_writer(2)
    with SetWorkflowID("r"):
        assert reading() == [0, 1]
    assert step_names(database_url, "r") == {}
    client.send("writer", "go")


def test_destroying_the_client_ends_what_it_reads(client: DBOSClient) -> None:
    start_writer(1)
    reader = client.read_stream("writer", "other")
    results: list[BaseException] = []

    def read() -> None:
        try:
            next(reader)
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: client._session.core.signals.awaited("stream"))
    client.destroy()
    thread.join()
    assert [type(error) for error in results] == [DBOSException]
    DBOS.send("writer", "go")
