"""Any earlier version becomes the current one, whatever happens on the way, from however many processes."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from dbos.error import DBOSException, DBOSInitializationError
from dbos.storage import migrate_postgres as postgres
from dbos.storage import migrate_sqlite as sqlite
from dbos.storage.migrate import (
    SCHEMA_VERSION,
    connect_postgres,
    connect_sqlite,
    create_postgres_database,
    grant_to_role,
    migrate_sqlite,
    verify_postgres,
    verify_sqlite,
)
from dbos.storage.sql_files import load_migrations
from tests.databases import fresh_postgres_url, new_database_name, server_url, url_of
from tests.storage.schemas import (
    fresh_postgres_facts,
    fresh_sqlite_facts,
    lead_postgres_to,
    lead_sqlite_to,
    migrate,
    opened,
    postgres_facts,
    run_at_once,
    sqlite_facts,
)

# Rows as the first version wrote them: payloads in workflow_status, steps tied to their workflow.
FIRST_ROWS = (
    "INSERT INTO {s}workflow_status (workflow_uuid, status, name, inputs, output, created_at, updated_at) "
    "VALUES ('old', 'SUCCESS', 'work', 'the inputs', 'the output', 1, 2)",
    "INSERT INTO {s}operation_outputs (workflow_uuid, function_id, function_name, output) "
    "VALUES ('old', 1, 'step', 'the step')",
    "INSERT INTO {s}notifications (message_uuid, destination_uuid, topic, message) VALUES ('m', 'old', 't', 'hello')",
    "INSERT INTO {s}workflow_events (workflow_uuid, key, value) VALUES ('old', 'k', 'v')",
    "INSERT INTO {s}streams (workflow_uuid, key, value, \"offset\") VALUES ('old', 'k', 'v', 0)",
)
KEPT_ROWS = (
    ("SELECT status, inputs, output, created_at, creator_xid FROM {s}workflow_status",
     [("SUCCESS", "the inputs", "the output", 1, None)]),
    ("SELECT function_name, output, retention_timestamp > 1700000000000 FROM {s}operation_outputs",
     [("step", "the step", True)]),
    ("SELECT message_uuid, message, consumed_by_function_id FROM {s}notifications", [("m", "hello", None)]),
    ("SELECT key, value FROM {s}workflow_events", [("k", "v")]),
    ("SELECT value, function_id FROM {s}streams", [("v", 0)]),
)  # fmt: skip


# --- SQLite


def test_every_earlier_sqlite_version_becomes_the_fresh_schema(tmp_path: Path) -> None:
    fresh = fresh_sqlite_facts(tmp_path)
    for version in range(1, SCHEMA_VERSION):
        with opened(tmp_path / f"{version}.sqlite") as connection:
            lead_sqlite_to(connection, version)
            migrate_sqlite(connection)
            assert sqlite_facts(connection) == fresh, f"from version {version}"


def test_rows_of_the_first_sqlite_version_survive(tmp_path: Path) -> None:
    with opened(tmp_path / "old.sqlite") as connection:
        lead_sqlite_to(connection, 1)
        for statement in FIRST_ROWS:
            connection.execute(statement.format(s=""))
        migrate_sqlite(connection)
        for query, expected in KEPT_ROWS:
            found = [tuple(row) for row in connection.execute(query.format(s=""))]
            assert found == expected
        connection.execute("DELETE FROM workflow_status")
        assert connection.execute("SELECT count(*) FROM operation_outputs").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM notifications").fetchone() == (0,)


def test_a_sqlite_file_without_unique_message_ids_gets_them_also_when_it_says_it_is_current(
    tmp_path: Path,
) -> None:
    fresh = fresh_sqlite_facts(tmp_path)
    with opened(tmp_path / "old.sqlite") as connection:
        migrate_sqlite(connection)
        connection.execute("INSERT INTO workflow_status (workflow_uuid) VALUES ('w')")
        connection.execute("INSERT INTO notifications (message_uuid, destination_uuid, message) VALUES ('m', 'w', '1')")
        # As releases up to 2.12 made the table, and as it stays through the numbered migrations.
        connection.execute("ALTER TABLE notifications RENAME TO keyed")
        connection.execute(
            "CREATE TABLE notifications (destination_uuid TEXT NOT NULL REFERENCES workflow_status "
            "(workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE, topic TEXT, message TEXT NOT NULL, "
            "created_at_epoch_ms INTEGER NOT NULL DEFAULT 1, message_uuid TEXT NOT NULL, serialization TEXT, "
            "consumed BOOLEAN NOT NULL DEFAULT FALSE, consumed_by_function_id INTEGER)"
        )
        connection.execute(
            "INSERT INTO notifications (message_uuid, destination_uuid, message) "
            "SELECT message_uuid, destination_uuid, message FROM keyed"
        )
        connection.execute("DROP TABLE keyed")
        connection.execute("CREATE INDEX idx_workflow_topic ON notifications (destination_uuid, topic)")
        assert sqlite_facts(connection) != fresh
        migrate_sqlite(connection)
        assert sqlite_facts(connection) == fresh
        assert connection.execute("SELECT message_uuid, message FROM notifications").fetchall() == [("m", "1")]


def test_a_failed_sqlite_migration_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "old.sqlite") as connection:
        lead_sqlite_to(connection, 100)
        connection.execute("CREATE TABLE workflow_input (mine TEXT)")
        before = sqlite_facts(connection)
        with pytest.raises(DBOSInitializationError, match=r"old\.sqlite.*workflow_input already exists"):
            migrate_sqlite(connection)
        assert sqlite_facts(connection) == before
        connection.execute("DROP TABLE workflow_input")
        migrate_sqlite(connection)
        assert sqlite.sqlite_schema_version(connection) == SCHEMA_VERSION


def test_tables_of_the_user_with_our_names_stop_a_fresh_sqlite_schema(tmp_path: Path) -> None:
    with opened(tmp_path / "mine.sqlite") as connection:
        connection.execute("CREATE TABLE queues (mine TEXT)")
        with pytest.raises(DBOSInitializationError, match="queues already exists"):
            migrate_sqlite(connection)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert tables == [("queues",)]


def test_a_current_sqlite_file_is_migrated_without_the_write_lock(tmp_path: Path) -> None:
    path = tmp_path / "current.sqlite"
    with opened(path) as first, opened(path) as second:
        migrate_sqlite(first)
        second.execute("PRAGMA busy_timeout = 0")
        first.execute("BEGIN IMMEDIATE")
        migrate_sqlite(second)
        first.execute("ROLLBACK")


def test_a_sqlite_file_that_stays_locked_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "locked.sqlite"
    with opened(path) as first, opened(path) as second:
        second.execute("PRAGMA busy_timeout = 0")
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(DBOSInitializationError, match=r"locked\.sqlite.*open transaction"):
            migrate_sqlite(second)
        first.execute("ROLLBACK")
        migrate_sqlite(second)


def test_a_sqlite_file_ahead_of_this_release_is_accepted_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ahead.sqlite"
    with opened(path) as connection:
        migrate_sqlite(connection)
        connection.execute("UPDATE dbos_migrations SET version = 126")
        migrate_sqlite(connection)
        assert sqlite.sqlite_schema_version(connection) == 126
    verify_sqlite(str(path))


def test_many_processes_may_migrate_one_new_sqlite_file_at_once(tmp_path: Path) -> None:
    code = (
        "from dbos.storage.migrate import connect_sqlite, migrate_sqlite\n"
        "connection = connect_sqlite(sys.argv[1])\n"
        "migrate_sqlite(connection)\n"
        "print(connection.execute('PRAGMA journal_mode').fetchone()[0])\n"
    )
    path = tmp_path / "shared.sqlite"
    assert run_at_once(6, code, str(path)) == ["wal\n"] * 6
    with opened(path) as connection:
        assert sqlite_facts(connection) == fresh_sqlite_facts(tmp_path)


def test_many_processes_may_upgrade_one_sqlite_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    with opened(path) as connection:
        lead_sqlite_to(connection, 1)
    code = (
        "from dbos.storage.migrate import connect_sqlite, migrate_sqlite\nmigrate_sqlite(connect_sqlite(sys.argv[1]))\n"
    )
    run_at_once(4, code, str(path))
    with opened(path) as connection:
        assert sqlite_facts(connection) == fresh_sqlite_facts(tmp_path)


def test_a_sharded_sqlite_file_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "sharded.sqlite") as connection:
        migrate_sqlite(connection)
        connection.execute("ALTER TABLE workflow_status ADD COLUMN shard_key TEXT")
        with pytest.raises(DBOSException, match="shard_key"):
            migrate_sqlite(connection)


def test_sqlite_tables_without_a_version_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "lost.sqlite") as connection:
        migrate_sqlite(connection)
        connection.execute("DELETE FROM dbos_migrations")
        with pytest.raises(DBOSInitializationError, match="no schema version"):
            migrate_sqlite(connection)


def test_verifying_never_makes_a_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.sqlite"
    with pytest.raises(DBOSInitializationError, match="does not exist"):
        verify_sqlite(str(path))
    assert not path.exists()


def test_verifying_an_older_sqlite_file_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with opened(path) as connection:
        lead_sqlite_to(connection, 124)
    with pytest.raises(DBOSInitializationError, match=r"version 124.*version 125"):
        verify_sqlite(str(path))
    with opened(path) as connection:
        migrate_sqlite(connection)
    verify_sqlite(str(path))


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_text("Dear diary, " * 100)
    for use in (connect_sqlite, verify_sqlite):
        with pytest.raises(DBOSInitializationError, match=r"notes\.sqlite.*not a SQLite database.*Move it away"):
            use(str(path))
    assert path.read_text().startswith("Dear diary")


def test_a_directory_is_reported(tmp_path: Path) -> None:
    for use in (connect_sqlite, verify_sqlite):
        with pytest.raises(DBOSInitializationError, match="is a directory"):
            use(str(tmp_path))


def test_a_missing_parent_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DBOSInitializationError, match=r"missing does not exist\. Create it"):
        connect_sqlite(str(tmp_path / "missing" / "system.sqlite"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that not even root can write to")
def test_a_directory_that_cannot_be_written_is_reported() -> None:
    with pytest.raises(DBOSInitializationError, match="cannot be written"):
        connect_sqlite("/proc/system.sqlite")


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with opened(tmp_path / "readonly.sqlite") as connection:
        connection.execute("PRAGMA query_only = ON")
        with pytest.raises(DBOSInitializationError, match=r"readonly\.sqlite.*write permission"):
            migrate_sqlite(connection)


def test_an_old_sqlite_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(DBOSInitializationError, match=r"3\.35 or newer"):
        connect_sqlite(str(tmp_path / "new.sqlite"))


# --- Postgres


@pytest.mark.parametrize("version", [1, 2, 9, 13, 19, 22, 26, 31, 38, 44, 60, 104, 109, 111, 112, 114, 121, 124])
def test_earlier_postgres_versions_become_the_fresh_schema(version: int) -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, version)
    migrate(url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_an_earlier_postgres_version_without_listen_notify_stays_without() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 1, use_listen_notify=False)
    migrate(url, use_listen_notify=False)
    assert postgres_facts(url) == fresh_postgres_facts(use_listen_notify=False)


def test_rows_of_the_first_postgres_version_survive() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FIRST_ROWS:
            connection.execute(statement.format(s="dbos.").encode())
        migrate(url)
        for query, expected in KEPT_ROWS:
            assert connection.execute(query.format(s="dbos.").encode()).fetchall() == expected
        connection.execute("DELETE FROM dbos.workflow_status")
        assert connection.execute("SELECT count(*) FROM dbos.operation_outputs").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM dbos.notifications").fetchone() == (0,)


def test_what_the_first_releases_left_in_a_postgres_database_is_put_right() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE dbos.notifications DROP CONSTRAINT notifications_pkey")
        connection.execute(
            "ALTER TABLE dbos.operation_outputs "
            "RENAME CONSTRAINT operation_outputs_workflow_uuid_fkey "
            "TO operation_outputs_workflow_uuid_foreign"
        )
        connection.execute(
            "CREATE FUNCTION dbos.streams_function() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        )
        connection.execute(
            "CREATE TRIGGER dbos_streams_trigger AFTER INSERT ON dbos.streams "
            "FOR EACH ROW EXECUTE FUNCTION dbos.streams_function()"
        )
    migrate(url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_an_index_build_that_was_cut_off_is_repeated() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 121)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO dbos.workflow_status (workflow_uuid) VALUES ('a'), ('b')")
        # A build that fails leaves an INVALID index, here under the name of the one that 122 builds.
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(
                "CREATE UNIQUE INDEX CONCURRENTLY idx_workflow_status_deadline ON dbos.workflow_status (priority)"
            )
    migrate(url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_a_failed_postgres_migration_records_what_was_done_and_can_be_repeated() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 100)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE VIEW dbos.workflow_input AS SELECT 1 AS mine")
        with pytest.raises(psycopg.Error):
            migrate(url)
        assert connection.execute("SELECT version FROM dbos.dbos_migrations").fetchall() == [(108,)]
        connection.execute("DROP VIEW dbos.workflow_input")
    migrate(url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_an_online_migration_that_fails_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 121)
    with connect_postgres(url, {}) as connection:
        migration = next(m for m in load_migrations("postgres", "dbos") if m.version == 122)
        broken = migration._replace(texts=(*migration.texts, "SELECT 1 / 0"))
        with pytest.raises(psycopg.errors.DivisionByZero):
            postgres.apply_migration(connection, "dbos", broken, recorded_version=121)
        assert postgres.read_schema_state(connection, "dbos").version == 121
    migrate(url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_tables_of_the_user_with_our_names_stop_a_fresh_postgres_schema() -> None:
    url = fresh_postgres_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dbos")
        connection.execute("CREATE TABLE dbos.queues (mine TEXT)")
        with pytest.raises(psycopg.errors.DuplicateTable, match="queues"):
            migrate(url)
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dbos'").fetchall()
    assert tables == [("queues",)]


def test_postgres_tables_without_a_version_are_refused() -> None:
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM dbos.dbos_migrations")
    with pytest.raises(DBOSInitializationError, match="no version"):
        migrate(url)


def test_without_the_migration_lock_the_launch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "LOCK_WAIT_SECONDS", 0.2)
    url = fresh_postgres_url()
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1234567890)")
        pid = holder.info.backend_pid
        with pytest.raises(DBOSInitializationError, match=f"process {pid} of the server"):
            migrate(url)
        assert holder.execute("SELECT to_regnamespace('dbos')").fetchone() == (None,)


def test_the_migration_waits_for_the_lock() -> None:
    url = fresh_postgres_url()
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1234567890)")
        migrating = threading.Thread(target=migrate, args=(url,))
        migrating.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s"
        while holder.execute(waiting, ("SELECT pg_try_advisory_lock%",)).fetchone() == (0,):
            pass
        assert holder.execute("SELECT to_regnamespace('dbos')").fetchone() == (None,)
        holder.execute("SELECT pg_advisory_unlock(1234567890)")
        migrating.join(timeout=60)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_a_current_postgres_schema_needs_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "LOCK_WAIT_SECONDS", 0.0)
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1234567890)")
        migrate(url)


def test_many_processes_may_create_and_migrate_one_postgres_database_at_once() -> None:
    name = new_database_name()
    code = (
        "from dbos.storage.migrate import create_postgres_database, migrate_postgres\n"
        "create_postgres_database(sys.argv[1], sys.argv[2], {})\n"
        "migrate_postgres(sys.argv[1], schema='dbos', use_listen_notify=True, connect_kwargs={})\n"
    )
    run_at_once(6, code, url_of(name), name)
    assert postgres_facts(url_of(name)) == fresh_postgres_facts()


def test_many_processes_may_upgrade_one_postgres_schema_at_once() -> None:
    url = fresh_postgres_url()
    lead_postgres_to(url, 1)
    code = (
        "from dbos.storage.migrate import migrate_postgres\n"
        "migrate_postgres(sys.argv[1], schema='dbos', use_listen_notify=True, connect_kwargs={})\n"
    )
    run_at_once(4, code, url)
    assert postgres_facts(url) == fresh_postgres_facts()


def test_a_postgres_schema_ahead_of_this_release_is_accepted_and_left_alone() -> None:
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE dbos.dbos_migrations SET version = 126")
        migrate(url)
        verify_postgres(connection, schema="dbos", masked_url="postgresql://…")
        assert connection.execute("SELECT version FROM dbos.dbos_migrations").fetchall() == [(126,)]


def test_a_sharded_postgres_schema_is_refused() -> None:
    url = fresh_postgres_url()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE dbos.workflow_status ADD COLUMN shard_key TEXT")
        with pytest.raises(DBOSException, match="shard_key"):
            migrate(url)
        connection.execute("ALTER TABLE dbos.workflow_status DROP COLUMN shard_key")
    migrate(url)


def test_verifying_an_older_postgres_schema_names_both_versions() -> None:
    url = fresh_postgres_url()
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(DBOSInitializationError, match=r"postgresql://u:\*\*\*@h/d is at version 0.*version 125"):
            verify_postgres(connection, schema="dbos", masked_url="postgresql://u:***@h/d")
        migrate(url)
        verify_postgres(connection, schema="dbos", masked_url="postgresql://u:***@h/d")
        connection.execute("UPDATE dbos.dbos_migrations SET version = 124")
        with pytest.raises(DBOSInitializationError, match="version 124"):
            verify_postgres(connection, schema="dbos", masked_url="postgresql://u:***@h/d")


def test_connections_of_the_pool_may_have_other_cursors() -> None:
    url = fresh_postgres_url()
    options = {"cursor_factory": psycopg.RawCursor, "row_factory": psycopg.rows.dict_row}
    postgres.migrate_postgres(url, schema="dbos", use_listen_notify=True, connect_kwargs=options)
    with psycopg.connect(url, cursor_factory=psycopg.RawCursor) as connection:
        connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        verify_postgres(connection, schema="dbos", masked_url="")


def test_a_missing_trigger_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    url = fresh_postgres_url()
    with caplog.at_level(logging.WARNING, logger="dbos"):
        migrate(url, use_listen_notify=False)
        migrate(url, use_listen_notify=False)
        assert caplog.messages == []
        migrate(url, use_listen_notify=True)
    assert len(caplog.messages) == 1
    assert "dbos_notifications_trigger" in caplog.messages[0]


def test_creating_a_database_that_exists_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    name = new_database_name()
    with caplog.at_level(logging.INFO, logger="dbos"):
        create_postgres_database(server_url(), name, {})
        create_postgres_database(server_url(), name, {})
    assert caplog.messages == [f"Created the system database {name}."]
    with psycopg.connect(url_of(name)):
        pass


def test_a_database_that_cannot_be_created_is_only_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dbos"):
        create_postgres_database("postgresql://u:p@127.0.0.1:1/nowhere", "nowhere", {"connect_timeout": 5})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nowhere" in caplog.messages[0]


def test_a_granted_role_can_run_applications_but_not_change_the_schema() -> None:
    url = fresh_postgres_url()
    migrate(url)
    role = 'ro"le ' + new_database_name()
    quoted = '"' + role.replace('"', '""') + '"'
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {quoted}".encode())
        try:
            grant_to_role(connection, schema="dbos", role=role)
            grant_to_role(connection, schema="dbos", role=role)
            connection.execute("CREATE TABLE dbos.added_later (value TEXT)")
            connection.execute(f"SET ROLE {quoted}".encode())
            assert connection.execute("SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'a')").fetchone() == ("a",)
            connection.execute("DELETE FROM dbos.workflow_status")
            connection.execute("INSERT INTO dbos.added_later VALUES ('x')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE dbos.mine (value TEXT)")
            verify_postgres(connection, schema="dbos", masked_url="")
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {quoted}".encode())
            connection.execute(f"DROP ROLE {quoted}".encode())


def test_every_version_with_a_change_is_in_both_histories() -> None:
    versions = {backend: {m.version for m in load_migrations(backend, schema)} for backend, schema in
                (("sqlite", None), ("postgres", "dbos"))}  # fmt: skip
    # Earlier forms of enqueue_workflow (38, 105) and the stream trigger (39) are superseded and left out.
    assert versions["postgres"] == {*range(1, 48), *range(100, 126)} - {38, 39, 105}
    assert versions["sqlite"] == {*range(1, 41), *range(100, 126)} - {105, 113}
