"""Databases at any version of the history, for the tests of the schema and the migrations."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from dbos.storage.migrate import connect_postgres, connect_sqlite, migrate_postgres, migrate_sqlite
from dbos.storage.migrate_postgres import apply_migration
from dbos.storage.sql_files import load_migrations
from tests.databases import fresh_postgres_url
from tests.storage.introspection import Facts, comparable, read_postgres, read_sqlite


@contextmanager
def opened(path: Path | str) -> Iterator[sqlite3.Connection]:
    connection = connect_sqlite(str(path))
    try:
        yield connection
    finally:
        connection.close()


def sqlite_facts(connection: sqlite3.Connection) -> Facts:
    return comparable(read_sqlite(connection))


def postgres_facts(url: str, schema: str = "dbos") -> Facts:
    with psycopg.connect(url) as connection:
        return comparable(read_postgres(connection, schema))


def fresh_sqlite_facts(directory: Path) -> Facts:
    with opened(directory / "fresh.sqlite") as connection:
        migrate_sqlite(connection)
        return sqlite_facts(connection)


def fresh_postgres_facts(*, use_listen_notify: bool = True) -> Facts:
    url = fresh_postgres_url()
    migrate(url, use_listen_notify=use_listen_notify)
    return postgres_facts(url)


def migrate(url: str, *, schema: str = "dbos", use_listen_notify: bool = True) -> None:
    migrate_postgres(url, schema=schema, use_listen_notify=use_listen_notify, connect_kwargs={})


def lead_sqlite_to(connection: sqlite3.Connection, version: int) -> None:
    """Make an empty file what it would be at an earlier version."""
    connection.execute("BEGIN")
    for migration in load_migrations("sqlite", None):
        if migration.version <= version:
            for text in migration.texts:
                connection.execute(text)
    connection.execute("CREATE TABLE dbos_migrations (version INTEGER NOT NULL PRIMARY KEY)")
    connection.execute("INSERT INTO dbos_migrations (version) VALUES (?)", (version,))
    connection.execute("COMMIT")


def lead_postgres_to(url: str, version: int, *, use_listen_notify: bool = True) -> None:
    """Make an empty database what it would be at an earlier version, in the schema dbos."""
    with connect_postgres(url, {}) as connection:
        connection.execute("CREATE SCHEMA dbos")
        connection.execute("CREATE TABLE dbos.dbos_migrations (version BIGINT NOT NULL PRIMARY KEY)")
        recorded = 0
        for migration in load_migrations("postgres", "dbos", use_listen_notify=use_listen_notify):
            if migration.version <= version:
                apply_migration(connection, "dbos", migration, recorded_version=recorded)
                recorded = migration.version
        connection.execute("UPDATE dbos.dbos_migrations SET version = %s", (version,))


def run_at_once(count: int, code: str, *arguments: str) -> list[str]:
    """Run the code in that many processes, all released together; their outputs. Raises if one fails."""
    waiting = "import sys; print('ready', flush=True); sys.stdin.readline()\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes: list[subprocess.Popen[str]] = [
        subprocess.Popen(
            [sys.executable, "-c", imports_of(code) + waiting + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results: list[Any] = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in results]


def imports_of(code: str) -> str:
    """The import lines, to be done before the processes are released."""
    return "".join(f"{line}\n" for line in code.splitlines() if line.startswith(("import ", "from ")))
