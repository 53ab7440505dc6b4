"""A SQLAlchemy engine supplied by the application (01 section 2.6, 05 R4)."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy

from dbos import DBOS, error
from tests.databases import path_of


def make_engine(backend: str, database_url: str, connections: list[Any]) -> sqlalchemy.Engine:
    """An engine that connects by a creator of its own, so that going round it cannot work."""
    if backend == "sqlite":
        import sqlite3

        path = path_of(database_url)
        address, connect = f"sqlite:///{path}", lambda: sqlite3.connect(path, check_same_thread=False)
    else:
        import psycopg

        address, connect = "postgresql+psycopg://nobody@nowhere.invalid/none", lambda: psycopg.connect(database_url)

    def create() -> Any:
        connections.append(connect())
        return connections[-1]

    return sqlalchemy.create_engine(address, creator=create)


@pytest.fixture
def engine(backend: str, database_url: str) -> Any:
    connections: list[Any] = []
    made = make_engine(backend, database_url, connections)
    made.connections = connections  # type: ignore[attr-defined]
    yield made
    DBOS.destroy(destroy_registry=True)
    made.dispose()


def test_workflows_run_and_recover_through_the_engine(engine: Any) -> None:
    config: Any = {"name": "test-app", "system_database_engine": engine, "application_version": "v1"}
    DBOS(config=config)

    @DBOS.step()
    def double(x: int) -> int:
        return 2 * x

    @DBOS.workflow()
    def wf(x: int) -> int:
        return double(x) + double(x)

    DBOS.launch()
    handle = DBOS.start_workflow(wf, 3)
    assert handle.get_result() == 12
    DBOS.destroy()
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow(handle.workflow_id).get_result() == 12
    assert engine.connections


def test_the_engine_is_not_disposed_by_destroy(engine: Any) -> None:
    config: Any = {"name": "test-app", "system_database_engine": engine}
    DBOS(config=config)
    DBOS.launch()
    DBOS.destroy()
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1


def test_an_engine_with_another_driver_is_refused_by_name(tmp_path: Any) -> None:
    class Dialect:
        driver = "psycopg2"
        name = "postgresql"

    class Pooled:
        driver_connection = object()

        def detach(self) -> None: ...

    class Engine:
        dialect = Dialect()

        def raw_connection(self) -> Pooled:
            return Pooled()

    from dbos.storage.engines import postgres_connection, sqlite_connection

    for connect in (postgres_connection, sqlite_connection):
        with pytest.raises(error.DBOSInitializationError, match="psycopg2"):
            connect(Engine())
