"""Postgres: make the database, bring a schema to the current version, check it, grant it to a role.

A fresh schema is made in one transaction. An older one is led through the numbered migrations: each ordinary
one in a transaction with the note of its number; each online one (indexes built while the tables stay
writable) outside of any, with the note afterwards. So the recorded version never claims work that is not
done.

One process at a time migrates a database: an advisory lock, the same in every release and language, guards
all of it. A schema that is current is only read, without the lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..error import DBOSException, DBOSInitializationError
from .migrate_sqlite import MIGRATE_FIRST, NO_MIGRATIONS
from .sql_files import SCHEMA_VERSION, Migration, load_migrations, load_schema, quote_identifier

if TYPE_CHECKING:
    from psycopg import Connection

    PostgresConnection: TypeAlias = Connection[tuple[Any, ...]]

logger = logging.getLogger("dbos")

# One key per database, whatever the schema: shared with other releases and languages.
MIGRATION_LOCK_KEY = 1234567890
LOCK_WAIT_SECONDS = 30.0
LOCK_RETRY_SECONDS = 0.1


class SchemaState(NamedTuple):
    """What is there of a schema. Version 0 means nothing recorded."""

    exists: bool
    version: int
    has_workflows: bool
    is_sharded: bool
    announces_messages: bool


def connect_postgres(conninfo: str, connect_kwargs: Mapping[str, Any], **overrides: Any) -> PostgresConnection:
    """A connection in autocommit mode, for work outside the pool. Errors are the driver's."""
    import psycopg
    from psycopg.rows import tuple_row

    arguments = {
        **connect_kwargs,
        "autocommit": True,
        # Nothing here runs often enough to be worth preparing.
        "prepare_threshold": None,
        # The statements here are written for these, whatever the pool uses.
        "cursor_factory": psycopg.Cursor,
        "row_factory": tuple_row,
        **overrides,
    }
    return psycopg.connect(conninfo, **arguments)


def create_postgres_database(conninfo: str, database_name: str, connect_kwargs: Mapping[str, Any]) -> None:
    """Make the database when it is missing, by way of the database "postgres" on the same server.

    Never raises a database error: whoever may not do this may still be able to use an existing database, so
    the connection to the database itself decides. Failures are logged as warnings.
    """
    import psycopg

    try:
        with connect_postgres(conninfo, connect_kwargs, dbname="postgres") as connection:
            exists = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s"
            if connection.execute(exists, (database_name,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {quote_identifier(database_name)}".encode())
                logger.info("Created the system database %s.", database_name)
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        logger.info("The system database %s was created by another process at the same time.", database_name)
    except psycopg.Error as error:
        logger.warning(
            "Could not see to it that the system database %s exists; going on to connect to it. (%s)",
            database_name,
            error,
        )


def migrate_postgres(
    conninfo: str,
    *,
    schema: str,
    use_listen_notify: bool,
    connect_kwargs: Mapping[str, Any],
    connect: Callable[[], PostgresConnection] | None = None,
) -> None:
    """Bring a schema to the current version, from any earlier one or none; nothing when it is there already.

    Safe to run from many processes at once and safe to repeat after a failure, at whatever point it came.

    Args:
        conninfo: Connection string of an existing database, as libpq reads it.
        schema: The schema, any name; made when missing.
        use_listen_notify: Give the schema the trigger that announces messages when it is made.
        connect_kwargs: More arguments for the connection.
        connect: Makes the connection in place of the two.

    Raises:
        DBOSInitializationError: another process held the migration lock for 30 s, or the schema holds tables
            of ours without a version.
        DBOSException: the schema belongs to a sharded installation.
        psycopg.Error: the database cannot be reached or a statement failed; the version is that of the last
            migration that succeeded.
    """
    with connect() if connect is not None else connect_postgres(conninfo, connect_kwargs) as connection:
        state = read_schema_state(connection, schema)
        refuse_sharded_postgres(state, schema)
        if state.version < SCHEMA_VERSION:
            # A limit meant for queries must not cut off an index build.
            connection.execute("SET statement_timeout = 0")
            _take_migration_lock(connection)
            _bring_up_to_date(connection, schema, use_listen_notify=use_listen_notify)
            state = read_schema_state(connection, schema)
    if use_listen_notify and not state.announces_messages:
        logger.warning(
            "use_listen_notify is on, but schema %s was made without it: it has no trigger "
            "dbos_notifications_trigger on notifications. Waiting workflows will notice messages sent by "
            "other processes only when they look again, after up to 60 seconds. Set use_listen_notify=False, "
            "which looks every second, or add the trigger.",
            schema,
        )


def verify_postgres(
    connection: PostgresConnection,
    *,
    schema: str,
    masked_url: str,
    because: str = NO_MIGRATIONS,
    remedy: str = MIGRATE_FIRST,
    needed: int = SCHEMA_VERSION,
) -> None:
    """Check that the schema is at the needed version or ahead of it; the last three arguments as of `verify_sqlite`.

    Raises:
        DBOSInitializationError: it is missing or older; names both versions.
    """
    version = read_schema_state(connection, schema).version
    if version < needed:
        raise DBOSInitializationError(
            f"Schema {schema} of the system database {masked_url} is at version {version}, but this release "
            f"needs version {needed}, and {because}. {remedy}"
        )


def refuse_sharded_postgres(state: SchemaState, schema: str) -> None:
    """Raise DBOSException when the tables are those of a sharded installation."""
    if state.is_sharded:
        raise DBOSException(
            f"Schema {schema} of the system database is sharded (workflow_status has a column shard_key), "
            "which this library does not support. Use another dbos_system_schema or database."
        )


def read_schema_state(connection: PostgresConnection, schema: str) -> SchemaState:
    """Look at a schema through the catalogs, which needs no privilege on it."""
    import psycopg
    from psycopg.rows import tuple_row

    # The connection may be one of the pool, with other cursors.
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    row = cursor.execute(
        """
        SELECT
            EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s),
            bool_or(t.relname = 'dbos_migrations'),
            bool_or(t.relname = 'workflow_status'),
            bool_or(t.relname = 'workflow_status' AND EXISTS (
                SELECT FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = t.oid AND a.attname = 'shard_key' AND NOT a.attisdropped
            )),
            bool_or(t.relname = 'notifications' AND EXISTS (
                SELECT FROM pg_catalog.pg_trigger AS g
                WHERE g.tgrelid = t.oid AND g.tgname = 'dbos_notifications_trigger'
            ))
        FROM pg_catalog.pg_class AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
        WHERE n.nspname = %(schema)s
        """,
        {"schema": schema},
    ).fetchone()
    assert row is not None
    exists, has_version_table, has_workflows, is_sharded, announces = (bool(value) for value in row)
    version = 0
    if has_version_table:
        found = cursor.execute(
            f"SELECT max(version) FROM {quote_identifier(schema)}.dbos_migrations".encode()
        ).fetchone()
        version = int(found[0]) if found is not None and found[0] is not None else 0
    return SchemaState(exists, version, has_workflows, is_sharded, announces)


def _take_migration_lock(connection: PostgresConnection) -> None:
    """Take the lock, which belongs to the session: it ends with the connection, also when the process dies.

    It is asked for again and again instead of waited for: a session that waits inside a statement holds a
    snapshot, and the online index builds of the session that has the lock would wait for that one.
    """
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (MIGRATION_LOCK_KEY,)).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() >= deadline:
            raise DBOSInitializationError(
                f"The system database needs a migration, but another session{_lock_holder(connection)} has "
                f"held the migration lock for {LOCK_WAIT_SECONDS:.0f} seconds. Nothing was changed. If that "
                "session is migrating a large database, launch again when it is done; if it hangs, end it "
                "with pg_terminate_backend."
            )
        time.sleep(LOCK_RETRY_SECONDS)


def _lock_holder(connection: PostgresConnection) -> str:
    row = connection.execute(
        """
        SELECT pid FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = %s AND objsubid = 1
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        """,
        (MIGRATION_LOCK_KEY,),
    ).fetchone()
    return "" if row is None else f" (process {row[0]} of the server)"


def _bring_up_to_date(connection: PostgresConnection, schema: str, *, use_listen_notify: bool) -> None:
    state = read_schema_state(connection, schema)
    if state.version >= SCHEMA_VERSION:
        return
    if state.version == 0:
        if state.has_workflows:
            raise DBOSInitializationError(
                f"Schema {schema} has a table workflow_status but no version in dbos_migrations, so it "
                "cannot be migrated. Restore the version, or use another dbos_system_schema."
            )
        with connection.transaction():
            if not state.exists:
                connection.execute(f"CREATE SCHEMA {quote_identifier(schema)}".encode())
            for text in load_schema("postgres", schema, use_listen_notify=use_listen_notify):
                connection.execute(text.encode())
            _record_version(connection, schema, 0, SCHEMA_VERSION)
        return
    version = state.version
    for migration in load_migrations("postgres", schema, use_listen_notify=use_listen_notify):
        if migration.version > version:
            apply_migration(connection, schema, migration, recorded_version=version)
            version = migration.version


def apply_migration(
    connection: PostgresConnection, schema: str, migration: Migration, *, recorded_version: int
) -> None:
    """Run one migration and note its number; an online one can be repeated after it was cut off."""
    if migration.online:
        _drop_invalid_indexes(connection, schema)
        for text in migration.texts:
            connection.execute(text.encode())
        _record_version(connection, schema, recorded_version, migration.version)
        return
    with connection.transaction():
        for text in migration.texts:
            connection.execute(text.encode())
        _record_version(connection, schema, recorded_version, migration.version)


def _record_version(connection: PostgresConnection, schema: str, before: int, version: int) -> None:
    table = f"{quote_identifier(schema)}.dbos_migrations"
    if before == 0:
        connection.execute(f"INSERT INTO {table} (version) VALUES ({version:d})".encode())
    else:
        connection.execute(f"UPDATE {table} SET version = {version:d}".encode())


def _drop_invalid_indexes(connection: PostgresConnection, schema: str) -> None:
    """An index build that was cut off leaves an index that IF NOT EXISTS takes for the finished one."""
    rows = connection.execute(
        """
        SELECT c.relname
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND NOT i.indisvalid
        """,
        (schema,),
    ).fetchall()
    for (name,) in rows:
        index = f"{quote_identifier(schema)}.{quote_identifier(name)}"
        connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}".encode())


def grant_to_role(connection: PostgresConnection, *, schema: str, role: str) -> None:
    """Let a role that may not migrate run applications on the schema; safe to repeat.

    Args:
        connection: In autocommit mode, as the owner of the schema.
        schema: The migrated schema.
        role: An existing role. It gets the use of the schema, everything on its tables and sequences, and
            its functions, also for those that the same owner adds later.
    """
    quoted_schema, quoted_role = quote_identifier(schema), quote_identifier(role)
    defaults = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted_schema}"
    for statement in (
        f"GRANT USAGE ON SCHEMA {quoted_schema} TO {quoted_role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {quoted_schema} TO {quoted_role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {quoted_schema} TO {quoted_role}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {quoted_schema} TO {quoted_role}",
        f"{defaults} GRANT ALL ON TABLES TO {quoted_role}",
        f"{defaults} GRANT ALL ON SEQUENCES TO {quoted_role}",
        f"{defaults} GRANT EXECUTE ON FUNCTIONS TO {quoted_role}",
    ):
        logger.info("%s", statement)
        connection.execute(statement.encode())
