"""Enqueueing in a transaction of the caller (04 R520, R521)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from dbos import DBOS, DBOSClient, SendMessage
from dbos.error import (
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSQueueDeduplicatedError,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import rows, status_row

OPTIONS: Any = {"workflow_name": "w", "queue_name": "mail", "workflow_id": "w1"}


def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def engine(client: DBOSClient, database_url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine of the caller on the system database, with a table of its own in it."""
    made = sqlalchemy.create_engine(sqlalchemy_url(database_url))
    with made.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE orders (id TEXT PRIMARY KEY)"))
    yield made
    made.dispose()


def insert_order(connection: Any, order: str = "o1") -> None:
    connection.execute(sqlalchemy.text("INSERT INTO orders VALUES (:id)"), {"id": order})


def orders(engine: sqlalchemy.Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(sqlalchemy.text("SELECT count(*) FROM orders")).scalar_one()
        return count


def test_a_workflow_exists_if_and_when_the_transaction_commits(client: DBOSClient, engine: sqlalchemy.Engine) -> None:
    """04 R520."""

    @DBOS.workflow(name="w")
    def w(order: str, *, express: bool = False) -> Any:
        return order, express

    client.register_queue("mail")
    with engine.begin() as connection:
        insert_order(connection)
        handle = client.enqueue_in_transaction(connection, OPTIONS, "o1", express=True)
        assert handle.workflow_id == "w1"
        with pytest.raises(DBOSNonExistentWorkflowError):
            handle.get_status()
    assert handle.get_result() == ("o1", True)
    assert orders(engine) == 1


def test_nothing_is_there_after_a_rollback(client: DBOSClient, engine: sqlalchemy.Engine, database_url: str) -> None:
    """04 R520."""
    with pytest.raises(RuntimeError), engine.begin() as connection:
        insert_order(connection)
        client.enqueue_in_transaction(connection, OPTIONS, 1)
        raise RuntimeError()
    assert orders(engine) == 0
    assert client.list_workflows() == []
    assert rows(database_url, "SELECT 1 AS one FROM workflow_input") == []


def test_a_session_is_accepted(client: DBOSClient, engine: sqlalchemy.Engine, database_url: str) -> None:
    """04 R520."""
    with Session(engine) as session:
        insert_order(session)
        client.enqueue_in_transaction(session, OPTIONS, 1)
        session.commit()
    assert orders(engine) == 1
    assert status_row(database_url, "w1")["status"] == "ENQUEUED"


def test_the_row_is_that_of_a_usual_enqueue(client: DBOSClient, engine: sqlalchemy.Engine, database_url: str) -> None:
    """04 R510, R520."""
    options: Any = {
        **OPTIONS,
        "queue_name": "nowhere",
        "delay_seconds": 600,
        "workflow_timeout": 2.5,
        "deduplication_id": "d",
        "priority": 7,
        "queue_partition_key": "p",
        "authenticated_user": "é: '%s' :p1 $1 ?1",
        "authenticated_roles": ["admin"],
        "attributes": {"a": [1, None]},
        "app_version": "v7",
    }
    client.enqueue({**options, "workflow_id": "usual"}, "%", b"\0")
    client.cancel_workflow("usual")
    with engine.begin() as connection:
        client.enqueue_in_transaction(connection, options, "%", b"\0")
    one, two = status_row(database_url, "usual"), status_row(database_url, "w1")
    masked = {"workflow_uuid", "creator_xid", "created_at", "updated_at", "completed_at", "delay_until_epoch_ms"}
    masked |= {"status", "queue_name", "deduplication_id", "request"}
    assert {k: v for k, v in one.items() if k not in masked} == {k: v for k, v in two.items() if k not in masked}
    assert (two["status"], two["queue_name"], two["deduplication_id"]) == ("DELAYED", "nowhere", "d")
    assert two["creator_xid"]
    assert 0 <= two["created_at"] - one["created_at"] < 60_000
    inputs = rows(database_url, "SELECT inputs FROM workflow_input ORDER BY workflow_uuid")
    assert inputs[0] == inputs[1]


def test_conflicts_are_refused_and_leave_the_transaction_usable(client: DBOSClient, engine: sqlalchemy.Engine) -> None:
    """04 R511, R512, R520: better than the reference release, where it is aborted on Postgres."""
    client.enqueue({**OPTIONS, "deduplication_id": "d"}, 1)
    with engine.begin() as connection:
        insert_order(connection)
        same = client.enqueue_in_transaction(connection, OPTIONS, 2)
        with pytest.raises(DBOSConflictingWorkflowError):
            client.enqueue_in_transaction(connection, {**OPTIONS, "workflow_name": "other"})
        with pytest.raises(DBOSWorkflowIDInUseError):
            client.enqueue_in_transaction(connection, {**OPTIONS, "workflow_id_reuse_policy": "reject"})
        with pytest.raises(DBOSQueueDeduplicatedError) as raised:
            client.enqueue_in_transaction(connection, {**OPTIONS, "workflow_id": "w2", "deduplication_id": "d"})
    assert raised.value.workflow_id == "w2"
    assert same.get_status().input == {"args": (1,), "kwargs": {}}
    assert orders(engine) == 1
    assert [status.workflow_id for status in client.list_workflows()] == ["w1"]


def test_options_without_meaning_are_refused(client: DBOSClient, engine: sqlalchemy.Engine) -> None:
    """03 R55, 04 R520."""
    with engine.begin() as connection:
        with pytest.raises(DBOSException, match="return-existing"):
            client.enqueue_in_transaction(
                connection, {**OPTIONS, "deduplication_id": "d", "duplication_policy": "return-existing"}
            )
        with pytest.raises(DBOSException, match="Did you mean 'priority'"):
            client.enqueue_in_transaction(connection, {**OPTIONS, "prioriti": 1})
        with pytest.raises(KeyError):
            client.enqueue_in_transaction(connection, {"queue_name": "mail"})  # type: ignore[typeddict-item]
    with pytest.raises(DBOSException, match="Connection or Session, not as str"):
        client.enqueue_in_transaction("connection", OPTIONS)
    assert client.list_workflows() == []


def test_a_transaction_on_another_kind_of_database_is_refused(client: DBOSClient, backend: str) -> None:
    other = "sqlite://" if backend == "postgres" else "postgresql+psycopg://"
    made = sqlalchemy.create_mock_engine(other, lambda *_: None)

    class Other(sqlalchemy.Connection):
        def __init__(self) -> None:
            self.dialect = made.dialect

    with pytest.raises(DBOSException, match="must be in the same database"):
        client.enqueue_in_transaction(Other(), OPTIONS)


@pytest.mark.parametrize("backend", ["postgres"])
async def test_async_code_bridges_to_the_sync_connection(client: DBOSClient, backend: str, database_url: str) -> None:
    """04 R520."""
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.begin() as connection:
        handle = await connection.run_sync(lambda sync: client.enqueue_in_transaction(sync, OPTIONS, 1))
    await engine.dispose()
    assert handle.get_status().status == "ENQUEUED"


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_transaction_of_async_code_takes_everything(
    client: DBOSClient, backend: str, database_url: str, kind: str
) -> None:
    """04 section 12.20: committed together or not at all."""
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(sqlalchemy_url(database_url))

    async def enqueue_and_send(transaction: Any) -> str:
        handle = await client.enqueue_in_transaction_async(transaction, OPTIONS, 1)
        await client.send_in_transaction_async(transaction, "w1", "one", "t", "key")
        await client.send_bulk_in_transaction_async(transaction, [SendMessage("w1", "two", "t")])
        with pytest.raises(DBOSNonExistentWorkflowError):
            await client.send_in_transaction_async(transaction, "absent", "one")
        return handle.workflow_id

    def begin() -> Any:
        return engine.connect() if kind == "connection" else AsyncSession(engine)

    async with begin() as transaction:
        await enqueue_and_send(transaction)
        await transaction.rollback()
    assert await client.list_workflows_async() == []
    async with begin() as transaction:
        assert await enqueue_and_send(transaction) == "w1"
        await transaction.commit()
    await engine.dispose()
    (found,) = await client.list_workflows_async()
    assert found.status == "ENQUEUED"
    assert [m["message"] for m in await client.list_messages_async("w1")] == ["one", "two"]


async def test_a_sync_connection_is_refused_in_async_code(client: DBOSClient, engine: sqlalchemy.Engine) -> None:
    with engine.connect() as connection:
        for call in (
            client.enqueue_in_transaction_async(connection, OPTIONS),
            client.send_in_transaction_async(connection, "w", 1),
            client.send_bulk_in_transaction_async(connection, []),
        ):
            with pytest.raises(DBOSException, match="AsyncConnection or AsyncSession, not as Connection"):
                await call


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_usual_enqueue_beside_an_open_transaction_of_this_process_ends_with_an_error(
    client: DBOSClient, engine: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 section 12, 22: it would wait for itself for ever."""
    monkeypatch.setattr(client._session.core.store._db, "_lock_wait_seconds", 0.1)  # type: ignore[attr-defined]
    with engine.begin() as connection:
        insert_order(connection)
        with pytest.raises(DBOSException, match="another connection of this process has a transaction open"):
            client.enqueue(OPTIONS)
        client.enqueue_in_transaction(connection, OPTIONS)
    assert client.retrieve_workflow("w1").get_status().status == "ENQUEUED"
