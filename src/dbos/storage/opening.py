"""Open a store: create, migrate or verify, connect."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config import Settings
from ..database_url import database_name, postgres_conninfo, sqlite_path
from ..logs import logger
from .database import SqlStore
from .engines import postgres_connection, postgres_connection_class, sqlite_connection
from .migrate import (
    TABLES_VERSION,
    connect_postgres,
    connect_sqlite,
    create_postgres_database,
    migrate_postgres,
    migrate_sqlite,
    read_schema_state,
    refuse_sharded_postgres,
    refuse_sharded_sqlite,
    verify_postgres,
    verify_sqlite,
)
from .postgres import PostgresConnections
from .sqlite import SqliteConnections

if TYPE_CHECKING:
    from .migrate_postgres import PostgresConnection

# For messages, why a client leaves a schema as it is, and what to do about it.
NOT_BY_CLIENTS = "a client neither creates nor migrates one"
BY_APPLICATIONS = "Launch the application once, or run `dbos migrate`."


def open_store(settings: Settings) -> SqlStore:
    """Connect to the system database, with the schema brought up to date (or verified, as configured).

    Raises:
        DBOSInitializationError: the database cannot be used; the message says why and what to do.
        psycopg.Error: Postgres cannot be reached.
    """
    if settings.backend == "sqlite":
        return SqlStore(_open_sqlite(settings))
    return SqlStore(_open_postgres(settings))


def _open_sqlite(settings: Settings) -> SqliteConnections:
    engine = settings.engine
    if engine is None:
        path = sqlite_path(settings.database_url)

        def connect() -> sqlite3.Connection:
            return connect_sqlite(path, check_same_thread=False)
    else:
        path = engine.url.database

        def connect() -> sqlite3.Connection:
            return sqlite_connection(engine)

    if not settings.run_migrations:
        verify_sqlite(path)
    connection = connect()
    try:
        if settings.run_migrations:
            migrate_sqlite(connection)
    except BaseException:
        connection.close()
        raise
    logger.info("System database: SQLite file %s", path)
    return SqliteConnections(path, connection, connect)


def _open_postgres(settings: Settings) -> PostgresConnections:
    conninfo = postgres_conninfo(settings.database_url)
    connect = _postgres_connector(settings)
    if settings.run_migrations:
        if settings.engine is None:
            create_postgres_database(conninfo, database_name(settings.database_url), settings.connect_args)
        migrate_postgres(
            conninfo,
            schema=settings.schema,
            use_listen_notify=settings.use_listen_notify,
            connect_kwargs=settings.connect_args,
            connect=connect,
        )
    else:
        with connect() as connection:
            verify_postgres(connection, schema=settings.schema, masked_url=settings.masked_database_url)
    logger.info("System database: %s, schema %s", settings.masked_database_url, settings.schema)
    return _connect_postgres(settings)


def _postgres_connector(settings: Settings) -> Callable[[], PostgresConnection]:
    conninfo = postgres_conninfo(settings.database_url)
    engine = settings.engine

    def connect() -> PostgresConnection:
        if engine is not None:
            return postgres_connection(engine)
        return connect_postgres(conninfo, dict(settings.connect_args))

    return connect


def _connect_postgres(settings: Settings, *, announce_unasked: bool = False) -> PostgresConnections:
    engine = settings.engine
    return PostgresConnections(
        postgres_conninfo(settings.database_url),
        schema=settings.schema,
        pool_size=settings.pool_size,
        pool_timeout_seconds=settings.pool_timeout_seconds,
        connect_kwargs=dict(settings.connect_args),
        # The application's own engine brings its own session settings.
        idle_transaction_timeout_seconds=0.0 if engine else settings.idle_transaction_timeout_seconds or 0.0,
        notify=settings.use_listen_notify,
        announce_unasked=announce_unasked,
        connection_class=postgres_connection_class(engine) if engine is not None else None,
    )


# --- for clients, which use what is there


def open_existing_store(settings: Settings) -> SqlStore:
    """Connect to a system database that an application has made; creates and migrates nothing.

    Raises:
        DBOSInitializationError: there is none at this place, or it is of an older release.
        DBOSException: the schema is sharded.
        psycopg.Error: Postgres cannot be reached.
    """
    check_existing(settings)
    if settings.backend == "postgres":
        return SqlStore(_connect_postgres(settings, announce_unasked=True))
    path, connect = _sqlite_file(settings)
    connections = SqliteConnections(path, connect(), connect)
    connections.may_wait_for_itself = False
    return SqlStore(connections)


def check_existing(settings: Settings) -> None:
    """One look with a connection of its own, which is closed again; errors as of `open_existing_store`."""
    if settings.backend == "postgres":
        with _postgres_connector(settings)() as connection:
            connection.execute("SELECT 1")
            verify_postgres(
                connection,
                schema=settings.schema,
                masked_url=settings.masked_database_url,
                because=NOT_BY_CLIENTS,
                remedy=BY_APPLICATIONS,
                needed=TABLES_VERSION,
            )
            refuse_sharded_postgres(read_schema_state(connection, settings.schema), settings.schema)
        return
    path, connect = _sqlite_file(settings)
    verify_sqlite(path, because=NOT_BY_CLIENTS, remedy=BY_APPLICATIONS, needed=TABLES_VERSION)
    reader = connect()
    try:
        refuse_sharded_sqlite(reader)
    finally:
        reader.close()


def _sqlite_file(settings: Settings) -> tuple[str, Callable[[], sqlite3.Connection]]:
    """The path of a file, and how to connect to it without making it."""
    engine = settings.engine
    if engine is not None:
        return os.path.abspath(engine.url.database or ":memory:"), lambda: sqlite_connection(engine)
    # The program may change its directory before the next connection.
    path = os.path.abspath(sqlite_path(settings.database_url))
    return path, lambda: connect_sqlite(path, create=False, check_same_thread=False)
