"""DBOS.reset_system_database (01 R64-R66)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from tests.databases import fresh_postgres_url, path_of
from tests.helpers import rows


def used(config: dict[str, Any]) -> str:
    """Launch, run one workflow with a step, destroy; returns the URL."""

    @DBOS.step(name="step")
    def step() -> int:
        return 1

    @DBOS.workflow(name="work")
    def work() -> int:
        return step()

    DBOS(config=config)
    DBOS.launch()
    with SetWorkflowID("before"):
        work()
    DBOS.destroy(destroy_registry=True)
    return str(config["system_database_url"])


def test_truncating_leaves_the_schema_and_nothing_else_of_ours(config: dict[str, Any]) -> None:
    # 01 R66 and section 16 number 6: tables of the user stay
    url = used(config)
    rows(url, "CREATE TABLE mine (value TEXT)")
    rows(url, "INSERT INTO mine VALUES ('keep')")
    version = rows(url, "SELECT version FROM dbos_migrations")
    DBOS(config=config)
    DBOS.reset_system_database(truncate=True)
    for table in (
        "workflow_status",
        "workflow_input",
        "workflow_output",
        "operation_outputs",
        "application_versions",
    ):
        assert rows(url, f"SELECT count(*) AS n FROM {table}") == [{"n": 0}], table
    assert rows(url, "SELECT value FROM mine") == [{"value": "keep"}]
    assert rows(url, "SELECT version FROM dbos_migrations") == version
    DBOS.launch()
    assert DBOS.get_workflow_status("before") is None
    DBOS.destroy()


def test_the_documented_test_fixture_works_again_and_again(config: dict[str, Any]) -> None:
    # 01 R127
    @DBOS.workflow()
    def work() -> int:
        return 1

    for _ in range(3):
        DBOS.destroy()
        DBOS(config=config)
        DBOS.reset_system_database(truncate=True)
        DBOS.launch()
        with SetWorkflowID("same"):
            assert work() == 1
    assert rows(config["system_database_url"], "SELECT recovery_attempts FROM workflow_status") == [
        {"recovery_attempts": 1}
    ]
    DBOS.destroy()


def test_without_truncating_the_file_or_database_goes(config: dict[str, Any]) -> None:
    # 01 R65
    url = used(config)
    DBOS(config=config)
    DBOS.reset_system_database()
    if url.startswith("sqlite"):
        path = Path(path_of(url))
        assert not list(path.parent.glob(path.name + "*"))
    else:
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
    DBOS.launch()
    assert DBOS.get_workflow_status("before") is None
    DBOS.destroy()


def test_resetting_a_launched_application_is_refused(app: type[DBOS], database_url: str) -> None:
    # 01 R64: also for another URL; AssertionError in the published API
    for kind in (AssertionError, DBOSException):
        with pytest.raises(kind, match="launched"):
            DBOS.reset_system_database(truncate=True)
        with pytest.raises(kind, match="launched"):
            DBOS.reset_system_database(system_database_url="sqlite:///other.sqlite")
    assert len(DBOS.list_application_versions()) == 1


def test_without_an_instance_a_url_is_needed(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R64
    url = used(config)
    DBOS.reset_system_database(truncate=True)
    assert "no DBOS object" in caplog.text
    assert rows(url, "SELECT count(*) AS n FROM workflow_status") == [{"n": 1}]
    DBOS.reset_system_database(system_database_url=url, truncate=True)
    assert rows(url, "SELECT count(*) AS n FROM workflow_status") == [{"n": 0}]


def test_a_sqlite_url_without_a_file_is_a_value_error() -> None:
    # 01 R65
    with pytest.raises(ValueError, match="file"):
        DBOS.reset_system_database(system_database_url="sqlite://")


def test_a_missing_file_is_fine(tmp_path: Path) -> None:
    # 01 R65, R66
    for truncate in (True, False):
        DBOS.reset_system_database(system_database_url=f"sqlite:///{tmp_path}/absent.sqlite", truncate=truncate)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_an_error_and_not_a_warning() -> None:
    # 01 15.4 number 28 and section 16 number 6
    for truncate in (True, False):
        with pytest.raises(psycopg.OperationalError):
            DBOS.reset_system_database(system_database_url="postgresql://x@127.0.0.1:1/x", truncate=truncate)


def test_a_schema_without_tables_is_a_warning(caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    # 01 R66
    DBOS.reset_system_database(system_database_url=fresh_postgres_url(), schema="nowhere", truncate=True)
    assert "nowhere" in caplog.text
