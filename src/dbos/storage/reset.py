"""Make a system database empty again, or remove it: for tests and for starting over.

Emptying touches only the tables this library owns, by name; tables of yours in the same file or schema stay.
Removing is thorough: the SQLite file, or the whole Postgres database with everything else in it.
Failures are raised, so that no test goes on with the data of the one before.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .lock_file import lock_file_path
from .migrate_postgres import connect_postgres
from .migrate_sqlite import connect_sqlite, explain_sqlite_error
from .sql_files import quote_identifier

if TYPE_CHECKING:
    from .migrate_postgres import PostgresConnection

logger = logging.getLogger("dbos")

# In an order in which the rows can go. The two version tables keep theirs.
OWNED_TABLES = (
    "notifications",
    "workflow_events",
    "workflow_events_history",
    "streams",
    "operation_outputs",
    "workflow_input",
    "workflow_output",
    "datasource_outputs",
    "workflow_status",
    "workflow_schedules",
    "application_versions",
    "queues",
    "event_dispatch_kv",
)


def reset_sqlite(path: str, *, truncate: bool) -> None:
    """Delete all rows of the library's tables (`truncate`), or the whole file.

    A missing file is fine. No process may be using the file when it is deleted.

    Raises:
        ValueError: the path is empty, as in "sqlite://".
        DBOSInitializationError: the file is no database, or locked for 30 s.
        OSError: the file cannot be deleted.
    """
    if not path or path == ":memory:":
        raise ValueError("A SQLite database without a file cannot be reset: the URL must name a file.")
    if not os.path.exists(path):
        logger.info("Nothing to reset: %s does not exist.", path)
        return
    if truncate:
        _truncate_sqlite(path)
        logger.info("Deleted all rows of the system database %s.", path)
        return
    # The write-ahead log of a file that is gone must not meet a new file of the same name.
    for name in (path, path + "-wal", path + "-shm", path + "-journal", lock_file_path(path)):
        if name == path or os.path.exists(name):
            os.remove(name)
    logger.info("Deleted the system database %s.", path)


def _truncate_sqlite(path: str) -> None:
    connection = connect_sqlite(path, create=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        existing = {name for (name,) in rows}
        for table in OWNED_TABLES:
            if table in existing:
                connection.execute(f"DELETE FROM {quote_identifier(table)}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise explain_sqlite_error(path, error) from error
    finally:
        connection.close()


def reset_postgres(
    conninfo: str, database_name: str, *, schema: str, truncate: bool, connect_kwargs: Mapping[str, Any]
) -> None:
    """Delete all rows of the library's tables in the schema (`truncate`), or drop the whole database.

    With `truncate`, sessions that hold locks on these tables are ended first, since they could make this wait
    for ever; all others stay connected. Dropping the database ends every session in it. A missing database is
    fine.

    Raises:
        psycopg.Error: the server cannot be reached, or refuses.
    """
    import psycopg

    if not truncate:
        with connect_postgres(conninfo, connect_kwargs, dbname="postgres") as connection:
            drop = f"DROP DATABASE IF EXISTS {quote_identifier(database_name)} WITH (FORCE)"
            connection.execute(drop.encode())
        logger.info("Dropped the database %s.", database_name)
        return
    try:
        connection = connect_postgres(conninfo, connect_kwargs)
    except psycopg.OperationalError:
        # The driver does not say which kind of failure this is, so ask.
        if _database_exists(conninfo, database_name, connect_kwargs):
            raise
        logger.info("Nothing to reset: the database %s does not exist.", database_name)
        return
    with connection:
        tables = _owned_tables(connection, schema)
        if not tables:
            logger.warning(
                "Nothing to reset: schema %s of database %s has no tables of the system database. "
                "Is it the right schema?",
                schema,
                database_name,
            )
            return
        try:
            _end_sessions_with_locks(connection, schema)
        except psycopg.Error as error:
            logger.warning("Could not end other sessions that use schema %s. (%s)", schema, error)
        with connection.transaction():
            for table in tables:
                connection.execute(f"DELETE FROM {quote_identifier(schema)}.{quote_identifier(table)}".encode())
    logger.info("Deleted all rows of schema %s of database %s.", schema, database_name)


def _database_exists(conninfo: str, database_name: str, connect_kwargs: Mapping[str, Any]) -> bool:
    with connect_postgres(conninfo, connect_kwargs, dbname="postgres") as connection:
        query = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s"
        return connection.execute(query, (database_name,)).fetchone() is not None


def _owned_tables(connection: PostgresConnection, schema: str) -> list[str]:
    rows = connection.execute("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s", (schema,)).fetchall()
    existing = {name for (name,) in rows}
    return [table for table in OWNED_TABLES if table in existing]


def _end_sessions_with_locks(connection: PostgresConnection, schema: str) -> None:
    connection.execute(
        """
        SELECT pg_terminate_backend(pid) FROM (
            SELECT DISTINCT l.pid
            FROM pg_catalog.pg_locks AS l
            JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
            WHERE a.backend_type IS DISTINCT FROM 'autovacuum worker' AND l.database = a.datid
                AND a.datname = current_database() AND a.pid <> pg_backend_pid()
                AND n.nspname = %s AND c.relname = ANY (%s)
        ) AS sessions
        """,
        (schema, list(OWNED_TABLES)),
    )
