"""Databases for tests: one Postgres server per test session, and new empty databases on both backends.

Use it as a pytest plugin (`pytest_plugins = ["tests.databases"]`) or import what you need. The server is
started when it is first asked for, in a temporary directory, and stopped when the session ends, even if that is killed.
DBOS_TEST_POSTGRES_URL names another server to use instead; its role must be allowed to create databases.
"""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from dbos.embedded_postgres import EmbeddedPostgres
from dbos.temporary import temporary_server

_numbers = itertools.count(1)
_created: list[str] = []
_removals: list[Callable[[], None]] = []


@cache
def embedded_server() -> EmbeddedPostgres:
    """The embedded server of this session, for tests that stop and restart it.

    It has default, durable settings; with `fsync = off` the tests take as long.
    """
    stack = ExitStack()
    _removals.append(stack.close)
    atexit.register(stack.close)
    return stack.enter_context(temporary_server("dbos-test-postgres-"))


@cache
def server_url() -> str:
    """URL of a database on the server from which others can be created."""
    return os.environ.get("DBOS_TEST_POSTGRES_URL") or embedded_server().url()


def url_of(database: str) -> str:
    """The URL of a database on the test server, whether it exists or not."""
    return urlunsplit(urlsplit(server_url())._replace(path=f"/{database}"))


def fresh_postgres_url() -> str:
    """Create an empty database and return its URL."""
    name = new_database_name()
    create_database(name, "template0")
    return url_of(name)


def create_database(name: str, template: str) -> None:
    """Copy a database to which nobody is connected."""
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())


def new_database_name() -> str:
    """A name that no database has yet; dropped at the end of the session if it was created."""
    name = f"dbos_test_{os.getpid()}_{next(_numbers)}"
    _created.append(name)
    return name


def fresh_sqlite_url(directory: Path) -> str:
    """The URL of a file that does not exist yet."""
    return f"sqlite:///{directory / f'system_{next(_numbers)}.sqlite'}"


def path_of(sqlite_url: str) -> str:
    """The file a SQLite URL names."""
    return sqlite_url.removeprefix("sqlite:///")


@pytest.fixture(scope="session", autouse=True)
def _remove_databases() -> Iterator[None]:
    yield
    if os.environ.get("DBOS_TEST_POSTGRES_URL"):
        with psycopg.connect(server_url(), autocommit=True) as connection:
            for name in _created:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
    # Not at exit only: a worker of xdist is killed before it has deleted gigabytes.
    while _removals:
        remove = _removals.pop()
        atexit.unregister(remove)
        remove()
