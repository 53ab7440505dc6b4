"""SQLite: open a file, bring it to the current schema, or check that it is there.

One transaction that takes the write lock before it reads anything covers the version, every statement and the
note of the new version. Processes that start at the same time on an empty file queue up behind it, and the
ones after the first find nothing to do. A file that is current is only read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

from ..error import DBOSException, DBOSInitializationError
from .sql_files import SCHEMA_VERSION, load_migrations, load_repair, load_schema

logger = logging.getLogger("dbos")

LOCK_WAIT_SECONDS = 30.0

# Why nothing is migrated, and what to do about it, where the configuration says so.
NO_MIGRATIONS = "run_migrations is False"
MIGRATE_FIRST = "Run `dbos migrate`, or launch once with run_migrations=True."

# UPSERT with RETURNING, on which ownership checks rest.
MINIMUM_SQLITE_VERSION = (3, 35)


def connect_sqlite(path: str, *, create: bool = True, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a file with the session settings that every connection of the library uses.

    Autocommit (transactions are begun explicitly), write-ahead log, synchronous FULL, 30 s of patience with
    other writers, foreign keys on.

    Args:
        path: The file, absolute or relative to the current directory.
        create: Make the file when it is missing; False raises instead.
        check_same_thread: False lets other threads use the connection; the caller then keeps them apart.

    Raises:
        DBOSInitializationError: the path cannot be a database, or not a writable one.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE_VERSION:
        raise DBOSInitializationError(
            f"This Python uses SQLite {sqlite3.sqlite_version}, but DBOS needs 3.35 or newer. "
            "Use a newer Python, or a Postgres system_database_url."
        )
    try:
        connection = sqlite3.connect(
            path if create else Path(path).absolute().as_uri() + "?mode=rw",
            timeout=LOCK_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=check_same_thread,
            uri=not create,
        )
    except sqlite3.Error as error:
        raise explain_sqlite_error(path, error) from error
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        _use_write_ahead_log(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        connection.close()
        raise explain_sqlite_error(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection, path: str) -> None:
    """Switch the file once; it keeps the mode. SQLite does not wait for other users here, so this does."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            mode = "locked"
        if mode in ("wal", "memory"):
            return
        if time.monotonic() >= deadline:
            # Everything works in the old mode too, only with readers and writers waiting for each other.
            logger.warning(
                "%s could not be switched to write-ahead logging, since another program kept it locked.", path
            )
            return
        time.sleep(0.01)


def migrate_sqlite(connection: sqlite3.Connection) -> None:
    """Bring the file to the current schema, from any earlier version or none; nothing when it is there.

    Args:
        connection: In autocommit mode and outside a transaction, from `connect_sqlite`.

    Raises:
        DBOSInitializationError: the file is no database, not writable, locked for 30 s, or holds tables of
        the
            same names that are not ours. It is then as it was before.
        DBOSException: the file belongs to a sharded installation.
    """
    path = _path(connection)
    try:
        refuse_sharded_sqlite(connection)
        if _is_current(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            _bring_up_to_date(connection, path)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise explain_sqlite_error(path, error) from error


def verify_sqlite(
    path: str, *, because: str = NO_MIGRATIONS, remedy: str = MIGRATE_FIRST, needed: int = SCHEMA_VERSION
) -> None:
    """Check that the file exists and is at the needed version of the schema or ahead of it.

    Changes nothing and never makes the file.

    Args:
        path: The file.
        because: For the message, why nothing is migrated; by default the setting run_migrations.
        remedy: What to do about it.
        needed: The version; by default the newest.

    Raises:
        DBOSInitializationError: the file is missing, is no database, or has an older schema.
    """
    if not os.path.exists(path):
        raise DBOSInitializationError(
            f"The SQLite system database {os.path.abspath(path)} does not exist, and {because}, so it is "
            f"not made. {remedy}"
        )
    try:
        connection = sqlite3.connect(
            Path(path).absolute().as_uri() + "?mode=rw",
            timeout=LOCK_WAIT_SECONDS,
            isolation_level=None,
            uri=True,
        )
        try:
            version = sqlite_schema_version(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise explain_sqlite_error(path, error) from error
    if version < needed:
        raise DBOSInitializationError(
            f"The SQLite system database {os.path.abspath(path)} is at schema version {version}, but this "
            f"release needs version {needed}, and {because}. {remedy}"
        )


def sqlite_schema_version(connection: sqlite3.Connection) -> int:
    """The recorded version; 0 when there is no version table or no row in it."""
    if not _existing_tables(connection, ["dbos_migrations"]):
        return 0
    row = connection.execute("SELECT max(version) FROM dbos_migrations").fetchone()
    return int(row[0] or 0)


def refuse_sharded_sqlite(connection: sqlite3.Connection) -> None:
    """Raise DBOSException when the tables are those of a sharded installation."""
    columns = connection.execute("SELECT name FROM pragma_table_info('workflow_status')").fetchall()
    if ("shard_key",) in columns:
        raise DBOSException(
            f"The system database {_path(connection)} is sharded (workflow_status has a column shard_key), "
            "which this library does not support. Use another system_database_url."
        )


def _is_current(connection: sqlite3.Connection) -> bool:
    version = sqlite_schema_version(connection)
    return version > SCHEMA_VERSION or (version == SCHEMA_VERSION and _message_ids_are_unique(connection))


def _message_ids_are_unique(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT count(*) FROM pragma_table_info('notifications') WHERE pk > 0").fetchone()
    return bool(row[0])


def _bring_up_to_date(connection: sqlite3.Connection, path: str) -> None:
    """All that is missing, inside the caller's transaction."""
    if _is_current(connection):
        return
    version = sqlite_schema_version(connection)
    if version == 0:
        if _existing_tables(connection, ["workflow_status"]):
            raise DBOSInitializationError(
                f"{path} has a table workflow_status but no schema version in dbos_migrations, so it cannot "
                "be migrated. Restore the version, or use another system_database_url."
            )
        for text in load_schema("sqlite", None):
            connection.execute(text)
        connection.execute("INSERT INTO dbos_migrations (version) VALUES (?)", (SCHEMA_VERSION,))
        return
    for migration in load_migrations("sqlite", None):
        if migration.version > version:
            for text in migration.texts:
                connection.execute(text)
    if not _message_ids_are_unique(connection):
        for text in load_repair("sqlite", "notifications_primary_key"):
            connection.execute(text)
    connection.execute("UPDATE dbos_migrations SET version = ?", (SCHEMA_VERSION,))


def _existing_tables(connection: sqlite3.Connection, names: list[str]) -> list[str]:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [name for name in names if name in found]


def _path(connection: sqlite3.Connection) -> str:
    rows = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchall()
    return str(rows[0][0]) if rows and rows[0][0] else ":memory:"


def explain_sqlite_error(path: str, error: sqlite3.Error) -> DBOSInitializationError:
    """The error of opening or migrating a file in words that name the file and the remedy."""
    path = os.path.abspath(path) if path != ":memory:" else path
    folder = os.path.dirname(path)
    message = str(error)
    elsewhere = "or choose another system_database_url."
    if os.path.isdir(path):
        reason = f"it is a directory. Name a file in it, {elsewhere}"
    elif not os.path.isdir(folder) and path != ":memory:":
        reason = f"the directory {folder} does not exist. Create it, {elsewhere}"
    elif "not a database" in message or "malformed" in message:
        reason = f"it is not a SQLite database, or it is damaged. Move it away, {elsewhere}"
    elif "readonly" in message or "unable to open" in message:
        reason = f"it cannot be written. Give this user write permission on it and on {folder}, {elsewhere}"
    elif "locked" in message:
        reason = (
            f"another program has kept it locked for {LOCK_WAIT_SECONDS:.0f} seconds. Find the program with "
            "an open transaction on it and end that."
        )
    elif "already exists" in message:
        reason = f"a table in it has a name this library needs. Rename the table, {elsewhere}"
    else:
        reason = f"SQLite reports an error. Look into it, {elsewhere}"
    return DBOSInitializationError(f"Cannot use {path} as system database: {reason} (SQLite: {message})")
