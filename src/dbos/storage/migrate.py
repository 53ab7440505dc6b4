"""The schema of the system database: bring it up to date, verify it, print it as a script.

    sql/<backend>/schema.sql        what a fresh database gets
    sql/<backend>/migrations/       how an older one gets there
    migrate_sqlite  migrate_postgres  the two ways of running them

A test holds the two to each other: the end of the history equals the fresh schema.
"""

from __future__ import annotations

from ..error import DBOSInitializationError
from .migrate_postgres import (
    connect_postgres,
    create_postgres_database,
    grant_to_role,
    migrate_postgres,
    read_schema_state,
    refuse_sharded_postgres,
    verify_postgres,
)
from .migrate_sqlite import connect_sqlite, migrate_sqlite, refuse_sharded_sqlite, verify_sqlite
from .reset import reset_postgres, reset_sqlite
from .sql_files import SCHEMA_VERSION, TABLES_VERSION, load_migrations, load_schema, quote_identifier

__all__ = [
    "SCHEMA_VERSION",
    "TABLES_VERSION",
    "connect_postgres",
    "connect_sqlite",
    "create_postgres_database",
    "grant_to_role",
    "migrate_postgres",
    "migrate_sqlite",
    "postgres_script",
    "read_schema_state",
    "refuse_sharded_postgres",
    "refuse_sharded_sqlite",
    "reset_postgres",
    "reset_sqlite",
    "verify_postgres",
    "verify_sqlite",
]


def postgres_script(schema: str, first: int = 1) -> str:
    """The migrations from `first` on as one SQL script for Postgres with listen/notify; does not connect.

    From 1, the script makes a fresh schema in one transaction. From a later number, it expects a database at
    the number before and must be run outside a transaction block, since some indexes are built concurrently.

    Raises:
        DBOSInitializationError: `first` is not one of 1 to the current version.
    """
    if not 1 <= first <= SCHEMA_VERSION:
        raise DBOSInitializationError(f"There is no migration {first}. Migrations are numbered 1 to {SCHEMA_VERSION}.")
    quoted = quote_identifier(schema)
    if first == 1:
        texts = load_schema("postgres", schema, use_listen_notify=True)
        note = f"INSERT INTO {quoted}.dbos_migrations (version) VALUES ({SCHEMA_VERSION})"
        lines = [f"CREATE SCHEMA IF NOT EXISTS {quoted}", *texts, note]
        head = f"-- DBOS system database: a fresh schema at version {SCHEMA_VERSION}.\n\nBEGIN;\n\n"
        return head + "".join(f"{line};\n\n" for line in lines) + "COMMIT;\n"
    parts = [
        f"-- DBOS system database: from version {first - 1} to {SCHEMA_VERSION}.\n"
        "-- Run it outside a transaction block.\n"
    ]
    for migration in load_migrations("postgres", schema, use_listen_notify=True):
        if migration.version < first:
            continue
        note = f"UPDATE {quoted}.dbos_migrations SET version = {migration.version}"
        body = "".join(f"{text};\n" for text in (*migration.texts, note))
        if not migration.online:
            body = f"BEGIN;\n{body}COMMIT;\n"
        parts.append(f"\n-- Migration {migration.version}\n{body}")
    return "".join(parts)
