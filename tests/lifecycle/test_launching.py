"""Launching: what it writes, in which order, and that a failed launch leaves nothing behind."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbos import DBOS
from dbos.api.runtime import state
from dbos.engine.engine import Engine
from dbos.error import DBOSException, DBOSInitializationError
from dbos.storage.migrate import SCHEMA_VERSION
from tests.databases import new_database_name, path_of, url_of
from tests.helpers import rows


def launched(config: dict[str, Any]) -> None:
    DBOS(config=config)
    DBOS.launch()


def our_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("dbos-")}


def test_launching_without_an_instance_says_to_construct_one() -> None:
    # 01 R42
    with pytest.raises(DBOSException, match="DBOS\\(config"):
        DBOS.launch()


def test_launching_twice_warns_and_has_no_effect(
    app: type[DBOS], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R42
    assert state.instance is not None
    engine = state.instance.engine
    DBOS.launch()
    assert "launched already" in caplog.text
    assert state.instance.engine is engine


def test_launching_inside_a_workflow_is_the_same_warning(
    app: type[DBOS], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R133

    @DBOS.workflow()
    def work() -> str:
        DBOS.launch()
        return "done"

    assert work() == "done"
    assert "launched already" in caplog.text


@pytest.mark.empty_database
def test_launching_persists_the_schema_and_one_version_and_nothing_else(config: dict[str, Any]) -> None:
    # 01 section 6, R36, R79
    launched(config)
    DBOS.destroy()
    url = config["system_database_url"]
    assert rows(url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION}]
    (version,) = rows(url, "SELECT * FROM application_versions")
    assert version["version_name"] == "v1"
    assert version["application_name"] == "test-app"
    assert len(version["version_id"]) == 36
    for table in ("workflow_status", "queues", "operation_outputs", "workflow_schedules"):
        assert rows(url, f"SELECT count(*) AS n FROM {table}") == [{"n": 0}], table


def test_helper_threads_are_daemons_and_end_with_destroy(config: dict[str, Any]) -> None:
    # 01 R43
    before = our_threads()
    launched(config)
    helpers = {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("dbos-") and not thread.name.startswith("dbos-executor")
    }
    assert helpers
    assert all(thread.daemon for thread in helpers)
    DBOS.destroy()
    assert our_threads() == before


def test_launching_returns_before_recovered_workflows_have_run(config: dict[str, Any]) -> None:
    # 01 R44
    gate = threading.Event()
    runs: list[int] = []

    @DBOS.workflow()
    def waits() -> str:
        runs.append(1)
        gate.wait(60)
        return "done"

    launched(config)
    handle = DBOS.start_workflow(waits)
    DBOS.destroy()
    launched(config)  # would never return if it waited for the workflow
    gate.set()
    assert DBOS.retrieve_workflow(handle.workflow_id).get_result() == "done"
    assert len(runs) == 2
    DBOS.destroy()


# --- failing


def test_an_unreachable_server_fails_the_launch_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # 01 R46
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": "postgresql://user:secret@127.0.0.1:1/nothing",
            "log_level": "CRITICAL",
        }
    )
    with pytest.raises((psycopg.OperationalError, DBOSInitializationError)) as raised:
        DBOS.launch()
    assert "secret" not in str(raised.value)


def test_a_missing_directory_fails_the_launch_and_names_the_file(tmp_path: Path) -> None:
    # 01 R46
    url = f"sqlite:///{tmp_path}/no/such/place/system.sqlite"
    DBOS(config={"name": "test-app", "system_database_url": url, "log_level": "CRITICAL"})
    with pytest.raises(DBOSInitializationError, match="no/such/place"):
        DBOS.launch()


def test_a_failed_launch_is_logged_with_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R45
    url = f"sqlite:///{tmp_path}/no/such/place/system.sqlite"
    DBOS(config={"name": "test-app", "system_database_url": url})
    with pytest.raises(DBOSInitializationError):
        DBOS.launch()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "failed to launch" in record.getMessage()
    assert record.exc_info is not None


def test_a_failed_launch_leaves_nothing_behind_and_can_be_repeated(tmp_path: Path) -> None:
    # 01 15.1 number 1 and section 16 number 1
    before = our_threads()
    directory = tmp_path / "later"
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": f"sqlite:///{directory}/system.sqlite",
            "log_level": "CRITICAL",
        }
    )

    @DBOS.workflow()
    def work() -> int:
        return 5

    for _ in range(2):
        with pytest.raises(DBOSInitializationError):
            DBOS.launch()
        assert our_threads() == before
        with pytest.raises(DBOSException, match="before DBOS was launched"):
            work()
    directory.mkdir()
    DBOS.launch()
    assert work() == 5
    DBOS.destroy()


def test_a_launch_that_fails_in_its_last_moment_leaves_nothing_behind(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 01 section 16 number 1
    before = our_threads()
    start = Engine.start

    def start_and_fail(engine: Engine) -> None:
        start(engine)
        raise RuntimeError("the last service does not start")

    @DBOS.workflow()
    def work() -> int:
        return 6

    DBOS(config={**config, "log_level": "CRITICAL"})
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "start", start_and_fail)
        with pytest.raises(RuntimeError, match="last service"):
            DBOS.launch()
    assert our_threads() == before
    DBOS.launch()
    assert work() == 6
    DBOS.destroy()


def test_a_negative_number_of_threads_is_a_value_error(config: dict[str, Any]) -> None:
    # 01 2.1
    with pytest.raises(ValueError, match="max_executor_threads"):
        launched({**config, "max_executor_threads": -1})


# --- the schema


def test_a_database_ahead_of_the_library_is_accepted(config: dict[str, Any]) -> None:
    # 01 R50
    launched(config)
    DBOS.destroy()
    url = config["system_database_url"]
    rows(url, "UPDATE dbos_migrations SET version = %s", SCHEMA_VERSION + 7)

    @DBOS.workflow()
    def work() -> int:
        return 7

    for run_migrations in (True, False):
        launched({**config, "run_migrations": run_migrations})
        assert work() == 7
        DBOS.destroy()
    assert rows(url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION + 7}]


def test_a_database_behind_the_library_is_brought_up_to_date(config: dict[str, Any]) -> None:
    # 01 R48, R49: the version decides; replaying the last migration changes nothing
    launched(config)
    DBOS.destroy()
    url = config["system_database_url"]
    rows(url, "UPDATE dbos_migrations SET version = %s", SCHEMA_VERSION - 1)
    launched(config)
    DBOS.destroy()
    assert rows(url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION}]


def test_without_migrations_a_schema_behind_is_refused_with_both_versions(config: dict[str, Any]) -> None:
    # 01 R51
    launched(config)
    DBOS.destroy()
    rows(config["system_database_url"], "UPDATE dbos_migrations SET version = 3")
    DBOS(config={**config, "run_migrations": False, "log_level": "CRITICAL"})
    with pytest.raises(DBOSInitializationError) as raised:
        DBOS.launch()
    assert "3" in str(raised.value)
    assert str(SCHEMA_VERSION) in str(raised.value)


def test_without_migrations_a_missing_sqlite_file_is_refused_and_not_created(tmp_path: Path) -> None:
    # 01 R51
    path = tmp_path / "absent.sqlite"
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": f"sqlite:///{path}",
            "run_migrations": False,
            "log_level": "CRITICAL",
        }
    )
    with pytest.raises(DBOSInitializationError, match=r"absent\.sqlite"):
        DBOS.launch()
    assert not path.exists()


@pytest.mark.empty_database
def test_without_migrations_an_empty_database_is_refused_and_stays_empty(config: dict[str, Any]) -> None:
    # 01 R51: a missing table reads as version 0
    url = config["system_database_url"]
    if url.startswith("sqlite"):
        sqlite3.connect(path_of(url)).close()
        Path(path_of(url)).touch()
    DBOS(config={**config, "run_migrations": False, "log_level": "CRITICAL"})
    with pytest.raises(DBOSInitializationError) as raised:
        DBOS.launch()
    assert str(SCHEMA_VERSION) in str(raised.value)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(url))) as connection:
            assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    else:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'dbos'").fetchone()
            assert row == (0,)


@pytest.mark.empty_database
def test_without_migrations_a_current_schema_is_used(config: dict[str, Any]) -> None:
    # 01 R51
    DBOS.migrate(config["system_database_url"])

    @DBOS.workflow()
    def work() -> int:
        return 8

    launched({**config, "run_migrations": False})
    assert work() == 8
    DBOS.destroy()


def test_a_missing_postgres_database_is_created() -> None:
    # 01 R47
    url = url_of(new_database_name())
    launched({"name": "test-app", "system_database_url": url, "log_level": "WARNING"})
    DBOS.destroy()
    assert rows(url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION}]


def test_another_schema_is_used_when_configured() -> None:
    # 01 2.1: any identifier, quoted
    url = url_of(new_database_name())
    launched(
        {
            "name": "test-app",
            "system_database_url": url,
            "dbos_system_schema": 'My "odd" schema',
            "log_level": "WARNING",
        }
    )

    @DBOS.workflow()
    def work() -> int:
        return 9

    assert work() == 9
    DBOS.destroy()
    with psycopg.connect(url) as connection:
        row = connection.execute('SELECT count(*) FROM "My ""odd"" schema".workflow_status').fetchone()
        assert row == (1,)
        row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'dbos'").fetchone()
        assert row == (0,)


@pytest.mark.empty_database
def test_several_processes_may_launch_on_an_empty_database_at_once(database_url: str) -> None:
    # 01 R134: DBOS.migrate is what launch does first
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(DBOS.migrate, database_url) for _ in range(4)]:
            future.result(120)
    assert rows(database_url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION}]


# --- database URLs


@pytest.mark.parametrize("prefix", ["postgres://", "postgresql://", "postgresql+psycopg2://", "postgresql+psycopg://"])
def test_every_name_of_postgres_in_the_url_means_our_driver(prefix: str) -> None:
    # 01 R11
    url = url_of(new_database_name())
    launched({"name": "test-app", "system_database_url": prefix + url.split("://")[1], "log_level": "WARNING"})
    DBOS.destroy()
    assert rows(url, "SELECT count(*) AS n FROM application_versions") == [{"n": 1}]


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:shared?mode=memory&cache=shared&uri=true"]
)
def test_sqlite_in_memory_works(url: str) -> None:
    # 01 R12 and section 16 number 5
    launched({"name": "test-app", "system_database_url": url, "log_level": "WARNING"})

    @DBOS.step()
    def one() -> int:
        return 1

    @DBOS.workflow()
    def work() -> int:
        return one() + one()

    handles = [DBOS.start_workflow(work) for _ in range(10)]
    assert [handle.get_result() for handle in handles] == [2] * 10
    assert work() == 2
    DBOS.destroy()


def test_a_sqlite_url_with_a_driver_name_works(tmp_path: Path) -> None:
    # 01 R12
    launched(
        {
            "name": "test-app",
            "system_database_url": f"sqlite+pysqlite:///{tmp_path}/a.sqlite",
            "log_level": "WARNING",
        }
    )
    DBOS.destroy()
    assert (tmp_path / "a.sqlite").exists()


@pytest.mark.parametrize("backend", ["postgres"])
def test_our_connections_carry_the_published_application_name(config: dict[str, Any]) -> None:
    # 01 3.10, R13
    launched(config)
    found = rows(
        config["system_database_url"],
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
    DBOS.destroy()
    assert found == [{"application_name": "dbos_transact"}]
