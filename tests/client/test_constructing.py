"""Making, checking and destroying a client (04 section 7.1)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer
from dbos.error import DBOSException, DBOSInitializationError
from tests.databases import path_of, url_of
from tests.helpers import NOWHERE, rows, wait_until
from tests.storage.schemas import lead_postgres_to, lead_sqlite_to


def test_a_client_needs_a_database() -> None:
    """04 R501."""
    with pytest.raises(DBOSException, match="system_database_url"):
        DBOSClient()


def test_a_lazy_client_cannot_listen(database_url: str) -> None:
    """04 R501, 05 R70."""
    with pytest.raises(DBOSException, match="lazy"):
        DBOSClient(system_database_url=database_url, lazy=True, use_listen_notify=True)


def test_a_postgres_url_must_name_a_database() -> None:
    """04 R501."""
    with pytest.raises(DBOSInitializationError, match="Database name must be specified"):
        DBOSClient(system_database_url="postgresql://user@localhost:5432")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_missing_file_is_an_error_and_is_not_made(backend: str, tmp_path: Path) -> None:
    """04 section 12, 20; R501 says what the reference release does."""
    path = tmp_path / "missing.sqlite"
    with pytest.raises(DBOSInitializationError, match=r"missing\.sqlite does not exist.*Launch the application once"):
        DBOSClient(system_database_url=f"sqlite:///{path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_missing_file_of_an_engine_is_not_made_either(backend: str, tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'missing.sqlite'}")
    with pytest.raises(DBOSInitializationError, match="does not exist"):
        DBOSClient(system_database_engine=engine)
    assert not list(tmp_path.iterdir())


@pytest.mark.empty_database
def test_a_database_without_the_schema_is_an_error(backend: str, database_url: str) -> None:
    """04 section 12, 20."""
    if backend == "sqlite":
        with closing(sqlite3.connect(path_of(database_url))) as lite:
            lite.execute("CREATE TABLE mine (id INTEGER)")
    with pytest.raises(DBOSInitializationError, match=r"version 0, but.*a client neither creates nor migrates"):
        DBOSClient(system_database_url=database_url)


@pytest.mark.empty_database
@pytest.mark.parametrize(("version", "taken"), [(123, True), (122, False)])
def test_a_schema_of_another_sdk_may_lack_the_newest_indexes(
    backend: str, database_url: str, version: int, taken: bool
) -> None:
    """04 R708: 123 is where the TypeScript SDK 5.3.0 leaves a schema; 124 and 125 are indexes."""
    if backend == "sqlite":
        with closing(sqlite3.connect(path_of(database_url), isolation_level=None)) as lite:
            lead_sqlite_to(lite, version)
    else:
        lead_postgres_to(database_url, version)
    if not taken:
        with pytest.raises(DBOSInitializationError, match="version 122, but this release needs version 123"):
            DBOSClient(system_database_url=database_url)
        return
    with DBOSClient(system_database_url=database_url, application_name="shop") as client:
        handle = client.enqueue({"workflow_name": "w", "queue_name": NOWHERE}, 1)
        assert [found.workflow_id for found in client.list_workflows()] == [handle.workflow_id]
        client.register_queue("q")
        assert client.list_application_versions() == []
    assert rows(database_url, "SELECT version FROM dbos_migrations") == [{"version": version}]


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_missing_schema_of_that_name_is_an_error(app: type[DBOS], database_url: str) -> None:
    with pytest.raises(DBOSInitializationError, match="Schema elsewhere"):
        DBOSClient(system_database_url=database_url, dbos_system_schema="elsewhere")


@pytest.mark.parametrize("backend", ["postgres"])
def test_an_unreachable_server_raises_the_drivers_error_and_says_so_in_the_log(
    backend: str, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    """04 R501."""
    with pytest.raises(psycopg.OperationalError):
        DBOSClient(system_database_url=url_of("a_database_that_does_not_exist"))
    assert "cannot use the system database" in caplog.text


def test_a_sharded_schema_is_refused(app: type[DBOS], database_url: str) -> None:
    """04 R501."""
    rows(database_url, "ALTER TABLE workflow_status ADD COLUMN shard_key TEXT")
    with pytest.raises(DBOSException, match="sharded"):
        DBOSClient(system_database_url=database_url)
    rows(database_url, "ALTER TABLE workflow_status DROP COLUMN shard_key")


def test_sharding_is_not_supported(database_url: str) -> None:
    """04 section 7.1."""
    with pytest.raises(DBOSInitializationError, match="Sharded"):
        DBOSClient(system_database_url=database_url, sharding=True)


MEANINGLESS: list[tuple[Any, str]] = [
    ({"system_database_pool_size": 0}, "system_database_pool_size"),
    ({"system_database_pool_size": "5"}, "system_database_pool_size"),
    ({"application_name": ""}, "application name"),
    ({"application_name": 5}, "application name"),
    ({"serializer": 5}, "serializer"),
    ({"observability_query_timeout_sec": "soon"}, "observability_query_timeout_sec"),
]


def test_arguments_without_meaning_are_refused(app: type[DBOS], database_url: str) -> None:
    """04 section 12, 16."""
    for arguments, message in MEANINGLESS:
        with pytest.raises(DBOSException, match=message):
            DBOSClient(system_database_url=database_url, **arguments)


@pytest.mark.empty_database
def test_a_lazy_client_connects_at_its_first_call(database_url: str, config: dict[str, Any]) -> None:
    """04 section 7.1: `lazy`."""
    with DBOSClient(system_database_url=database_url, lazy=True) as client:
        with pytest.raises(DBOSInitializationError):
            client.list_workflows()
        DBOS(config=config)
        DBOS.launch()
        try:
            assert client.list_workflows() == []
        finally:
            DBOS.destroy(destroy_registry=True)


async def test_a_lazy_client_connects_at_its_first_async_call(app: type[DBOS], database_url: str) -> None:
    async with DBOSClient(system_database_url=database_url, lazy=True) as client:
        assert await client.list_workflows_async() == []


def test_a_client_takes_connections_out_of_an_engine_and_leaves_it_open(
    app: type[DBOS], backend: str, database_url: str
) -> None:
    """04 section 7.1: `system_database_engine`; R503."""
    url = database_url if backend == "sqlite" else database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(url)
    with DBOSClient(system_database_engine=engine) as client:
        client.enqueue({"workflow_name": "w", "queue_name": NOWHERE})
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("backend", ["postgres"])
def test_the_server_sees_who_a_client_is(client: DBOSClient, database_url: str) -> None:
    """04 section 7.1: `application_name` of the connection."""
    client.list_workflows()
    query = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'dbos_transact_client'"
    assert rows(database_url, query + " AND datname = current_database()")[0]["n"] >= 1


async def test_a_connection_can_be_checked(
    client: DBOSClient, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    """04 R502."""
    await client.check_connection_async()
    assert not caplog.records
    client.check_connection()
    assert "check_connection_async" in caplog.text


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_check_finds_that_the_file_is_gone(client: DBOSClient, database_url: str) -> None:
    """04 R502."""
    file = Path(path_of(database_url))
    moved = file.rename(file.with_suffix(".moved"))
    with pytest.raises(DBOSInitializationError, match="does not exist"):
        client.check_connection()
    moved.rename(file)
    client.check_connection()


def test_a_destroyed_client_says_so(app: type[DBOS], database_url: str) -> None:
    """04 section 12, 20; R503 says what the reference release does."""
    client = DBOSClient(system_database_url=database_url)
    handle = client.enqueue({"workflow_name": "w", "queue_name": NOWHERE})
    queue = client.register_queue("mail")
    client.destroy()
    client.destroy()
    for call in (
        client.list_workflows,
        client.check_connection,
        handle.get_status,
        handle.get_result,
        lambda: queue.limiter,
        lambda: client.enqueue({"workflow_name": "w", "queue_name": NOWHERE}),
    ):
        with pytest.raises(DBOSException, match="destroyed"):
            call()


async def test_a_destroyed_client_says_so_to_async_callers(app: type[DBOS], database_url: str) -> None:
    async with DBOSClient(system_database_url=database_url) as client:
        handle = await client.enqueue_async({"workflow_name": "w", "queue_name": NOWHERE})
    with pytest.raises(DBOSException, match="destroyed"):
        await client.list_queues_async()
    with pytest.raises(DBOSException, match="destroyed"):
        await handle.get_result()


def test_whoever_waits_is_woken_when_the_client_is_destroyed(app: type[DBOS], database_url: str) -> None:
    """04 section 12, 2 and 20."""
    client = DBOSClient(system_database_url=database_url)
    handle = client.enqueue({"workflow_name": "w", "queue_name": NOWHERE})
    met: list[BaseException] = []

    def wait() -> None:
        try:
            handle.get_result()
        except BaseException as error:
            met.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: client._session.core.signals.awaited("finished") == [handle.workflow_id])
    client.destroy()
    thread.join(30)
    assert [type(error) for error in met] == [DBOSException]


def test_a_destroyed_client_leaves_no_thread(app: type[DBOS], database_url: str) -> None:
    """04 R503."""
    before = set(threading.enumerate())
    with DBOSClient(system_database_url=database_url, use_listen_notify=True) as client:
        client.list_workflows()
        assert set(threading.enumerate()) - before
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_a_client_changes_nothing_in_an_application_that_runs_beside_it(client: DBOSClient, app: type[DBOS]) -> None:
    client.destroy()
    assert app.list_workflows() == []


def test_values_are_stored_with_the_serializer_of_the_client(app: type[DBOS], database_url: str) -> None:
    """04 section 7.1: `serializer`."""
    with DBOSClient(system_database_url=database_url, serializer=DBOSPortableJSONSerializer()) as client:
        client.enqueue({"workflow_name": "w", "queue_name": NOWHERE, "workflow_id": "a"}, 1, two=2)
    (row,) = rows(database_url, "SELECT inputs FROM workflow_input WHERE workflow_uuid = 'a'")
    assert '"namedArgs":{"two":2}' in row["inputs"].replace(" ", "")


def test_a_program_ends_without_destroying_its_client(app: type[DBOS], database_url: str) -> None:
    code = (
        "import sys; from dbos import DBOSClient\n"
        "client = DBOSClient(system_database_url=sys.argv[1])\n"
        f"client.enqueue({{'workflow_name': 'w', 'queue_name': {NOWHERE!r}}})\n"
        "print(len(client.list_workflows()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, database_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_client_goes_on_in_a_forked_process(app: type[DBOS], database_url: str) -> None:
    """As servers do that load the program before they fork: each process opens connections of its own."""
    code = (
        "import os, sys; from dbos import DBOSClient\n"
        "client = DBOSClient(system_database_url=sys.argv[1])\n"
        f"options = {{'workflow_name': 'w', 'queue_name': {NOWHERE!r}}}\n"
        "client.enqueue(options)\n"
        "child = os.fork()\n"
        "client.enqueue(options)\n"
        "assert len(client.list_workflows()) >= 2\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "client.enqueue(options)\n"
        "client.destroy()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, database_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(database_url, "SELECT 1 AS one FROM workflow_status")) == 5


def test_several_event_loops_may_use_one_client(client: DBOSClient) -> None:
    async def enqueue() -> str:
        return (await client.enqueue_async({"workflow_name": "w", "queue_name": NOWHERE})).workflow_id

    assert len({asyncio.run(enqueue()) for _ in range(3)}) == 3


@pytest.mark.parametrize("backend", ["postgres"])
def test_without_retries_a_lost_connection_is_raised(app: type[DBOS], database_url: str) -> None:
    """04 R4: `retry_connection_errors=False`; section 12, 20."""
    with DBOSClient(system_database_url=database_url, retry_connection_errors=False) as client:
        options: Any = {"workflow_name": "w", "queue_name": NOWHERE}
        client.enqueue(options)
        rows(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbos_transact_client' "
            "AND datname = current_database()",
        )
        with pytest.raises(psycopg.Error):
            client.enqueue(options)
        client.enqueue(options)
    assert len(rows(database_url, "SELECT 1 AS one FROM workflow_status")) == 2


@pytest.mark.parametrize("backend", ["postgres"])
def test_with_retries_a_lost_connection_is_not_noticed(client: DBOSClient, database_url: str) -> None:
    """04 R4."""
    options: Any = {"workflow_name": "w", "queue_name": NOWHERE}
    client.enqueue(options)
    rows(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbos_transact_client' "
        "AND datname = current_database()",
    )
    client.enqueue(options)
    assert len(client.list_workflows()) == 2
