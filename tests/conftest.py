"""Fixtures every test may use: a backend, a fresh database, a configuration, a launched application."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS
from dbos.api.runtime import state
from tests import programs
from tests.databases import _remove_databases, fresh_postgres_url, fresh_sqlite_url
from tests.migrated import migrated_postgres_url
from tests.programs import Process, StartProgram

# Importing a fixture here is what makes it known to every test.
__all__ = ["_remove_databases"]


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each backend."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own without rows: on SQLite a new file, on Postgres one that is migrated already.

    For tests that are about creating the schema, the mark `empty_database` gives them one without.
    """
    if backend == "sqlite":
        yield fresh_sqlite_url(tmp_path)
    elif request.node.get_closest_marker("empty_database") is not None:
        yield fresh_postgres_url()
    else:
        with migrated_postgres_url() as url:
            yield url


@pytest.fixture
def config(database_url: str) -> dict[str, Any]:
    """A configuration with everything fixed that would otherwise depend on the machine."""
    return {
        "name": "test-app",
        "application_version": "v1",
        "executor_id": "test",
        "log_level": "WARNING",
        "system_database_url": database_url,
    }


@pytest.fixture
def app(config: dict[str, Any]) -> Iterator[type[DBOS]]:
    """A launched application; tests decorate in their own body."""
    DBOS(config=config)
    DBOS.launch()
    yield DBOS
    DBOS.destroy(destroy_registry=True)


@pytest.fixture
def start_program() -> Iterator[StartProgram]:
    """Starts programs (see `programs.start`), and kills at the end those that still run."""
    processes: list[Process] = []

    def start(program: Path, *arguments: str, errors: int | None = None) -> Process:
        processes.append(programs.start(program, *arguments, errors=errors))
        return processes[-1]

    yield start
    for process in processes:
        programs.end(process)


@pytest.fixture(autouse=True)
def _no_application_is_left() -> Iterator[None]:
    """Whatever a test leaves behind would change the next one: remove it, and fail the test that left it."""
    # What modules have decorated when they were imported belongs to the processes they are for.
    DBOS.destroy(destroy_registry=True)
    yield
    instance = state.instance
    launched = instance is not None and instance.engine is not None
    DBOS.destroy(destroy_registry=True)
    assert not launched, "the test has left a launched DBOS behind; call DBOS.destroy(destroy_registry=True)"


@pytest.fixture
def dbos_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Lets `caplog` see what the library logs; its logger does not propagate."""
    logger = DBOS.logger
    # Whatever the tests before have configured: each record shall be seen, and once.
    propagates, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(min(level, logging.WARNING))
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)
    logger.propagate = propagates
