"""The schema a fresh database gets: equal to the published one, and working."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbos.error import DBOSException
from dbos.storage.migrate import SCHEMA_VERSION, migrate_sqlite, postgres_script
from dbos.storage.sql_files import load_statements, now_ms_expression, split_texts
from tests.databases import fresh_postgres_url
from tests.storage.introspection import comparable
from tests.storage.schemas import (
    fresh_postgres_facts,
    fresh_sqlite_facts,
    lead_postgres_to,
    migrate,
    opened,
    postgres_facts,
)

PUBLISHED = json.loads((Path(__file__).parent.parent / "data" / "schema-125.json").read_text())
ODD_SCHEMA = "we\"ird %s $1 'schema' {schema}"


def test_a_fresh_sqlite_file_equals_the_published_schema(tmp_path: Path) -> None:
    assert fresh_sqlite_facts(tmp_path) == comparable(PUBLISHED["sqlite"])


def test_a_fresh_postgres_schema_equals_the_published_one() -> None:
    assert fresh_postgres_facts() == comparable(PUBLISHED["postgres"])


def test_without_listen_notify_only_the_trigger_and_its_function_are_missing() -> None:
    expected = comparable(PUBLISHED["postgres"])
    del expected["triggers"]["dbos_notifications_trigger"]
    del expected["functions"]["notifications_function"]
    assert fresh_postgres_facts(use_listen_notify=False) == expected


def test_any_schema_name_is_legal() -> None:
    url = fresh_postgres_url()
    migrate(url, schema=ODD_SCHEMA)
    migrate(url, schema=ODD_SCHEMA)
    assert postgres_facts(url, ODD_SCHEMA) == comparable(PUBLISHED["postgres"])
    quoted = '"' + ODD_SCHEMA.replace('"', '""') + '"'
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN dbos_notifications_channel")
        connection.execute(f"SELECT {quoted}.enqueue_workflow('w', 'q', workflow_id => 'a')".encode())
        connection.execute(f"SELECT {quoted}.send_message('a', '1', 'topic')".encode())
        (notification,) = connection.notifies(timeout=10, stop_after=1)
    assert notification.payload == "a::topic"


def test_the_printed_script_makes_a_fresh_schema() -> None:
    url = fresh_postgres_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(postgres_script("dbos").encode())
    assert postgres_facts(url) == comparable(PUBLISHED["postgres"])


def test_the_printed_script_brings_an_earlier_version_up_to_date() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 20)
    with psycopg.connect(url, autocommit=True) as connection:
        for text in split_texts(postgres_script("dbos", 21).splitlines(), "script", {}):
            connection.execute(text.encode())
    assert postgres_facts(url) == comparable(PUBLISHED["postgres"])


@pytest.mark.parametrize("first", [0, SCHEMA_VERSION + 1])
def test_the_printed_script_refuses_numbers_that_do_not_exist(first: int) -> None:
    with pytest.raises(DBOSException, match=f"no migration {first}"):
        postgres_script("dbos", first)


def test_sqlite_defaults_stamp_the_present_time(tmp_path: Path) -> None:
    with opened(tmp_path / "times.sqlite") as connection:
        migrate_sqlite(connection)
        connection.execute("INSERT INTO workflow_status (workflow_uuid) VALUES ('a')")
        (stamp,) = connection.execute("SELECT created_at FROM workflow_status").fetchone()
        assert abs(stamp - time.time() * 1000) < 5000


def test_the_sqlite_clock_is_one_the_running_library_knows() -> None:
    with sqlite3.connect(":memory:") as connection:
        row = connection.execute(f"SELECT {now_ms_expression()} > 1700000000000").fetchone()
    connection.close()
    assert row == (1,)


def test_statements_carry_the_quoted_schema() -> None:
    statements = load_statements("postgres", 'a"b')
    texts = [text for statement in statements.values() for text in statement.texts]
    assert any('"a""b".workflow_status' in text for text in texts)
    assert not any("{schema}" in text or text.endswith(";") for text in texts)


# --- what the functions do


@pytest.fixture(scope="module")
def database() -> str:
    url = fresh_postgres_url()
    migrate(url)
    return url


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """In a transaction that is rolled back after the test."""
    with psycopg.connect(database) as connection:
        yield connection
        connection.rollback()


def test_enqueue_workflow_writes_the_row_and_portable_inputs(connection: psycopg.Connection) -> None:
    connection.execute(
        "SELECT dbos.enqueue_workflow('w', 'q', ARRAY['1'::json, '\"x\"'], '{}', workflow_id => 'a', "
        "priority => 3, delay_until_epoch_ms => 7, application_name => 'app')"
    )
    status = connection.execute(
        "SELECT status, name, queue_name, priority, serialization, recovery_attempts, delay_until_epoch_ms, "
        "application_name, created_at = updated_at, creator_xid FROM dbos.workflow_status"
    ).fetchall()
    inputs = connection.execute("SELECT inputs FROM dbos.workflow_input").fetchall()
    assert status == [("DELAYED", "w", "q", 3, "portable_json", 0, 7, "app", True, None)]
    assert inputs == [('{"positionalArgs" : [1,"x"], "namedArgs" : {}}',)]


def test_enqueue_workflow_only_touches_an_existing_workflow(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO dbos.workflow_status (workflow_uuid, name, inputs, updated_at) VALUES ('a', 'mine', 'old', 1)"
    )
    row = connection.execute("SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'a')").fetchone()
    status = connection.execute("SELECT name, queue_name, inputs, updated_at > 1 FROM dbos.workflow_status").fetchall()
    inputs = connection.execute("SELECT inputs FROM dbos.workflow_input").fetchall()
    assert row == ("a",)
    assert status == [("mine", None, "old", True)]
    assert inputs == []


def test_enqueue_workflow_reports_a_deduplication_id_that_is_taken(connection: psycopg.Connection) -> None:
    call = "SELECT dbos.enqueue_workflow('w', 'q', workflow_id => %s, deduplication_id => 'd')"
    connection.execute(call, ("a",))
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute(call, ("b",))
    assert caught.value.diag.message_primary == "DBOS queue duplicated"
    detail = caught.value.diag.message_detail or ""
    assert all(word in detail for word in ("b ", "q ", " d."))


@pytest.mark.parametrize(
    "arguments",
    [
        "'', 'q'",
        "NULL, 'q'",
        "'w', ''",
        "'w', NULL",
        "'w', 'q', named_args => '[]'",
        "'w', 'q', workflow_id => ''",
        "'w', 'q', delay_until_epoch_ms => -1",
    ],
)
def test_enqueue_workflow_refuses_what_it_cannot_mean(connection: psycopg.Connection, arguments: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException):
        connection.execute(f"SELECT dbos.enqueue_workflow({arguments})".encode())


def test_send_message_keeps_the_text_and_ignores_a_known_id(connection: psycopg.Connection) -> None:
    connection.execute("SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'a')")
    connection.execute("SELECT dbos.send_message('a', '{\"x\" :  1}', message_id => 'm')")
    connection.execute("SELECT dbos.send_message('a', '2', 'other', 'm')")
    rows = connection.execute(
        "SELECT message_uuid, topic, message, serialization, consumed FROM dbos.notifications"
    ).fetchall()
    assert rows == [("m", "__null__topic__", '{"x" :  1}', "portable_json", False)]


def test_send_message_reports_an_unknown_destination(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="DBOS non-existent workflow"):
        connection.execute("SELECT dbos.send_message('nobody', '1')")


def test_functions_ignore_the_callers_search_path(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA hostile")
    connection.execute("CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'")
    connection.execute("SET LOCAL search_path = hostile, pg_catalog")
    row = connection.execute("SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'a')").fetchone()
    assert row == ("a",)


def test_a_message_too_long_to_announce_is_still_sent(connection: psycopg.Connection) -> None:
    topic = "t" * 9000
    connection.execute("SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'a')")
    connection.execute("SELECT dbos.send_message('a', '1', %s)", (topic,))
    assert connection.execute("SELECT topic FROM dbos.notifications").fetchall() == [(topic,)]
