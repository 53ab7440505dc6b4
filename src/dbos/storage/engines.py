"""Connections out of a SQLAlchemy engine that the application supplies.

The engine does the connecting, so whatever it was given (a creator, TLS, credentials that rotate) applies. Connections
are detached from its pool for as long as this library uses them; the engine itself is never disposed, and no session
settings are applied beyond autocommit.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ..error import DBOSInitializationError

if TYPE_CHECKING:
    import psycopg


def sqlite_connection(engine: Any) -> sqlite3.Connection:
    """A sqlite3 connection from the engine, in autocommit mode."""
    connection = _detached(engine)
    if not isinstance(connection, sqlite3.Connection):
        raise _wrong_driver(engine, "sqlite3 (sqlite:///...)")
    connection.isolation_level = None
    return connection


def postgres_connection(engine: Any) -> psycopg.Connection[Any]:
    """A psycopg connection from the engine, in autocommit mode."""
    import psycopg

    connection = _detached(engine)
    if not isinstance(connection, psycopg.Connection):
        raise _wrong_driver(engine, "psycopg 3 (postgresql+psycopg://...)")
    connection.rollback()
    connection.autocommit = True
    connection.cursor_factory = psycopg.Cursor
    return connection


def postgres_connection_class(engine: Any) -> type[psycopg.Connection[Any]]:
    """A connection class for psycopg's pool whose `connect` takes the connection from the engine."""
    import psycopg

    class EngineConnection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            connection = postgres_connection(engine)
            connection.cursor_factory = psycopg.RawCursor
            return connection

    return EngineConnection


def _detached(engine: Any) -> Any:
    pooled = engine.raw_connection()
    connection = pooled.driver_connection  # asked first: a detached one does not tell
    pooled.detach()
    return connection


def _wrong_driver(engine: Any, wanted: str) -> DBOSInitializationError:
    return DBOSInitializationError(
        f"system_database_engine uses the driver {engine.dialect.driver!r}; make it with {wanted}"
    )
