"""Operator calls that need no launched application: migrating the system database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..database_url import database_name, postgres_conninfo, sqlite_path
from ..error import DBOSException, DBOSInitializationError
from ..logs import logger
from .handles import Handle
from .runtime import current_engine


def migrate(
    system_database_url: str,
    *,
    schema: str = "dbos",
    application_role: str | None = None,
    sharding: bool = False,
) -> None:
    """See `DBOS.migrate`."""
    # Only now: importing the package stays quick.
    from ..storage.migrate import (
        connect_postgres,
        connect_sqlite,
        create_postgres_database,
        grant_to_role,
        migrate_postgres,
        migrate_sqlite,
    )

    if sharding:
        raise DBOSInitializationError("Sharded system databases are not supported by this implementation")
    if system_database_url.startswith("sqlite"):
        if application_role is not None:
            raise DBOSException("SQLite has no roles: leave application_role out")
        connection = connect_sqlite(sqlite_path(system_database_url))
        try:
            migrate_sqlite(connection)
        finally:
            connection.close()
        return
    conninfo = postgres_conninfo(system_database_url)
    create_postgres_database(conninfo, database_name(system_database_url), {})
    migrate_postgres(conninfo, schema=schema, use_listen_notify=True, connect_kwargs={})
    if application_role is not None:
        with connect_postgres(conninfo, {}) as granting:
            grant_to_role(granting, schema=schema, role=application_role)


def run_dbos_database_migrations(
    system_database_url: str,
    *,
    schema: str = "dbos",
    application_role: str | None = None,
    sharding: bool = False,
) -> None:
    """`DBOS.migrate` for scripts: a failure is printed, and the process ends with exit code 1."""
    try:
        migrate(system_database_url, schema=schema, application_role=application_role, sharding=sharding)
    except Exception as error:
        print(f"DBOS migrations failed: {error}")  # noqa: T201
        raise SystemExit(1) from error


def recover_executors(executor_ids: Sequence[str]) -> list[Any]:
    """Hand the pending workflows of the named executors to the queue; handles of all of them."""
    engine = current_engine()
    found: list[Any] = []
    for executor_id in executor_ids:
        ids = engine.requeue_pending(executor_id)
        found += [Handle(workflow_id, exists=True) for workflow_id in ids]
    logger.info("Recovering %d workflows of the executors %s", len(found), ", ".join(executor_ids))
    engine.dispatcher.wake()
    return found
