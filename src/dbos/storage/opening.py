"""Open the store an application is configured for: create, migrate or verify, connect."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..database_url import database_name, postgres_conninfo, sqlite_path
from ..logs import logger
from .database import SqlStore
from .engines import postgres_connection, postgres_connection_class, sqlite_connection
from .migrate import (
    connect_postgres,
    connect_sqlite,
    create_postgres_database,
    migrate_postgres,
    migrate_sqlite,
    verify_postgres,
    verify_sqlite,
)
from .postgres import PostgresConnections
from .sqlite import SqliteConnections

if TYPE_CHECKING:
    from .migrate_postgres import PostgresConnection


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
    arguments: dict[str, Any] = dict(settings.connect_args)
    engine = settings.engine

    def connect() -> PostgresConnection:
        return postgres_connection(engine) if engine is not None else connect_postgres(conninfo, arguments)

    if settings.run_migrations:
        if engine is None:
            create_postgres_database(conninfo, database_name(settings.database_url), arguments)
        migrate_postgres(
            conninfo,
            schema=settings.schema,
            use_listen_notify=settings.use_listen_notify,
            connect_kwargs=arguments,
            connect=connect,
        )
    else:
        with connect() as connection:
            verify_postgres(connection, schema=settings.schema, masked_url=settings.masked_database_url)
    logger.info("System database: %s, schema %s", settings.masked_database_url, settings.schema)
    return PostgresConnections(
        conninfo,
        schema=settings.schema,
        pool_size=settings.pool_size,
        pool_timeout_seconds=settings.pool_timeout_seconds,
        connect_kwargs=arguments,
        # The application's own engine brings its own session settings.
        idle_transaction_timeout_seconds=0.0 if engine else settings.idle_transaction_timeout_seconds or 0.0,
        notify=settings.use_listen_notify,
        connection_class=postgres_connection_class(engine) if engine is not None else None,
    )
