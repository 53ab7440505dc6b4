"""The opened stores that the contract's tests use."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from dbos.config import resolve
from dbos.storage.database import SqlStore
from dbos.storage.opening import open_store
from dbos.storage.sqlite import add_functions
from tests.databases import fresh_postgres_url, fresh_sqlite_url, path_of
from tests.storage.making import EFFECT_TABLES, TABLES, Rows

OpenAnother = Callable[[], SqlStore]


@dataclass
class Opened:
    """One store and, around it, a connection for plain SQL."""

    store: SqlStore
    connection: Any

    def read(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        if isinstance(self.connection, sqlite3.Connection):
            return [dict(row) for row in self.connection.execute(sql.replace("%s", "?"), parameters)]
        cursor = self.connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []

    def close(self) -> None:
        self.connection.close()
        self.store.close()


def open_url(url: str) -> Opened:
    store = open_store(resolve({"name": "test-app", "system_database_url": url}))
    if store.backend == "sqlite":
        lite = sqlite3.connect(path_of(url), timeout=30, isolation_level=None)
        lite.row_factory = sqlite3.Row
        add_functions(lite)
        return Opened(store, lite)
    options = "-c search_path=dbos"
    return Opened(store, psycopg.connect(url, autocommit=True, row_factory=dict_row, options=options))


@pytest.fixture(scope="session")
def open_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Opened]]:
    """One store per backend for all tests of the contract, since making a database takes longer than such a test."""
    opened: dict[str, Opened] = {}

    def open_one(backend: str) -> Opened:
        if backend not in opened:
            directory: Path = tmp_path_factory.mktemp("contract")
            opened[backend] = open_url(fresh_sqlite_url(directory) if backend == "sqlite" else fresh_postgres_url())
        return opened[backend]

    yield open_one
    for one in opened.values():
        one.close()


@pytest.fixture
def opened(backend: str, open_backend: Callable[[str], Opened]) -> Opened:
    found = open_backend(backend)
    for table in (*EFFECT_TABLES, *TABLES, "application_versions", "queues"):
        found.read(f"DELETE FROM {table}")
    return found


@pytest.fixture
def store(opened: Opened) -> SqlStore:
    """A store on an empty database."""
    return opened.store


@pytest.fixture
def read(opened: Opened) -> Rows:
    """Plain SQL on the database of `store`, around the store."""
    return opened.read


@pytest.fixture
def open_another(config: dict[str, Any]) -> Iterator[OpenAnother]:
    """Opens stores on a database of the test's own, as several processes would."""
    opened: list[SqlStore] = []

    def open_one() -> SqlStore:
        opened.append(open_store(resolve(config)))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
