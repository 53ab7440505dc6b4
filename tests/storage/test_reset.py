"""Resetting empties what the library owns, or removes the database, and says so when it cannot."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg
import pytest

from dbos.error import DBOSInitializationError
from dbos.storage.migrate import migrate_sqlite, reset_postgres, reset_sqlite
from dbos.storage.reset import OWNED_TABLES
from tests.databases import fresh_postgres_url, new_database_name, url_of
from tests.storage.schemas import migrate, opened, postgres_facts, sqlite_facts

ROWS = (
    "INSERT INTO {s}workflow_status (workflow_uuid, status) VALUES ('a', 'PENDING')",
    "INSERT INTO {s}workflow_input (workflow_uuid, inputs) VALUES ('a', 'x')",
    "INSERT INTO {s}operation_outputs (workflow_uuid, function_id) VALUES ('gone', 1)",
    "INSERT INTO {s}notifications (destination_uuid, message) VALUES ('a', 'hello')",
    "INSERT INTO {s}queues (name) VALUES ('q')",
    "INSERT INTO {s}mine (value) VALUES ('keep')",
)


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def reset(url: str, *, truncate: bool, schema: str = "dbos") -> None:
    reset_postgres(url, database_of(url), schema=schema, truncate=truncate, connect_kwargs={})


def test_truncating_sqlite_empties_our_tables_only(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"
    with opened(path) as connection:
        migrate_sqlite(connection)
        before = sqlite_facts(connection)
        connection.execute("CREATE TABLE mine (value TEXT)")
        for statement in ROWS:
            connection.execute(statement.format(s=""))
        reset_sqlite(str(path), truncate=True)
        for table in set(OWNED_TABLES) & set(before["tables"]):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert connection.execute("SELECT value FROM mine").fetchall() == [("keep",)]
        connection.execute("DROP TABLE mine")
        assert sqlite_facts(connection) == before


def test_every_table_of_the_schema_is_owned_except_the_version(tmp_path: Path) -> None:
    url = fresh_postgres_url()
    migrate(url)
    assert set(postgres_facts(url)["tables"]) == {*OWNED_TABLES, "dbos_migrations"} - {"datasource_outputs"}


def test_removing_sqlite_deletes_the_file_and_its_log(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"
    with opened(path) as connection:
        migrate_sqlite(connection)
        assert (tmp_path / "system.sqlite-wal").exists()
        reset_sqlite(str(path), truncate=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("truncate", [True, False])
def test_a_missing_sqlite_file_is_nothing_to_reset(
    tmp_path: Path, truncate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dbos"):
        reset_sqlite(str(tmp_path / "missing.sqlite"), truncate=truncate)
    assert "missing.sqlite does not exist" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_sqlite_without_a_file_cannot_be_reset() -> None:
    with pytest.raises(ValueError, match="must name a file"):
        reset_sqlite("", truncate=True)


def test_truncating_what_is_no_database_raises(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 100)
    with pytest.raises(DBOSInitializationError, match="not a SQLite database"):
        reset_sqlite(str(path), truncate=True)
    assert path.exists()


def test_truncating_postgres_empties_our_tables_of_that_schema_only() -> None:
    url = fresh_postgres_url()
    for schema in ("dbos", "other"):
        migrate(url, schema=schema)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE dbos.mine (value TEXT)")
        for statement in ROWS:
            connection.execute(statement.format(s="dbos.").encode())
        connection.execute("INSERT INTO other.queues (name) VALUES ('q')")
        reset(url, truncate=True)
        for table in set(OWNED_TABLES) - {"datasource_outputs"}:
            assert connection.execute(f"SELECT count(*) FROM dbos.{table}".encode()).fetchone() == (0,), table
        assert connection.execute("SELECT value FROM dbos.mine").fetchall() == [("keep",)]
        assert connection.execute("SELECT name FROM other.queues").fetchall() == [("q",)]
        assert connection.execute("SELECT version FROM dbos.dbos_migrations").fetchall() == [(125,)]


def test_truncating_postgres_ends_only_sessions_that_are_in_the_way() -> None:
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as idle, psycopg.connect(url) as blocking:
        blocking.execute(ROWS[0].format(s="dbos.").encode())
        blocking.commit()
        blocking.execute("UPDATE dbos.workflow_status SET status = 'ERROR'")
        reset(url, truncate=True)
        assert idle.execute("SELECT count(*) FROM dbos.workflow_status").fetchone() == (0,)
        with pytest.raises(psycopg.OperationalError):
            blocking.execute("SELECT 1")


def test_truncating_a_schema_without_our_tables_warns(caplog: pytest.LogCaptureFixture) -> None:
    url = fresh_postgres_url()
    migrate(url)
    with caplog.at_level(logging.WARNING, logger="dbos"):
        reset(url, truncate=True, schema="elsewhere")
    assert "Is it the right schema?" in caplog.text


def test_removing_postgres_drops_the_database_under_its_sessions() -> None:
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        reset(url, truncate=False)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_missing_postgres_database_is_nothing_to_reset(truncate: bool) -> None:
    reset(url_of(new_database_name()), truncate=truncate)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_server_that_is_down_raises(truncate: bool) -> None:
    with pytest.raises(psycopg.OperationalError):
        reset("postgresql://u:p@127.0.0.1:1/nowhere", truncate=truncate)
