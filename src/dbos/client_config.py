"""The arguments of a client, checked once and turned into the settings that the library works with."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import database_url
from .config import DBOSConfig, Settings, resolve
from .error import DBOSException, DBOSInitializationError
from .serialization import DBOSPortableJSONSerializer, Serializer, check_text

DEFAULT_POOL_SIZE = 5
# One connection writes, and without another one nothing can be read while it does.
SMALLEST_POOL_SIZE = 2


def client_settings(
    *,
    system_database_url: str | None,
    system_database_engine: Any | None,
    dbos_system_schema: str | None,
    serializer: Serializer | None,
    portable_serializer: DBOSPortableJSONSerializer | None,
    unpickle_only: list[str] | None,
    system_database_pool_size: int | None,
    system_database_polling_concurrency: int | None,
    use_listen_notify: bool,
    observability_query_timeout_sec: float | None,
    sys_db_idle_transaction_timeout_sec: float | None,
    polling_interval_sec: float,
    sharding: bool,
) -> Settings:
    """The settings of a client; its name is empty, since it runs nothing. Opens nothing, asks no environment.

    Raises:
        DBOSException: there is neither a URL nor an engine.
        DBOSInitializationError: an argument is wrong; the message names it and its value.
    """
    if not system_database_url and system_database_engine is None:
        raise DBOSException(
            "A DBOSClient needs the system database of the application: give it system_database_url (or "
            "system_database_engine)"
        )
    if sharding:
        raise DBOSInitializationError("Sharded system databases are not supported by this implementation")
    config: DBOSConfig = {
        "name": "client",
        "system_database_url": system_database_url,
        "system_database_engine": system_database_engine,
        "dbos_system_schema": dbos_system_schema,
        "serializer": serializer,
        "portable_serializer": portable_serializer,
        "unpickle_only": unpickle_only,
        "sys_db_polling_concurrency": system_database_polling_concurrency,
        "use_listen_notify": use_listen_notify,
        "observability_query_timeout_sec": observability_query_timeout_sec,
        "sys_db_idle_transaction_timeout_sec": sys_db_idle_transaction_timeout_sec,
        "notification_listener_polling_interval_sec": polling_interval_sec,
        "run_migrations": False,
    }
    if system_database_engine is None:
        config["sys_db_pool_size"] = _pool_size(system_database_pool_size)
        url = system_database_url or ""
        if database_url.backend(url) == "postgres" and not database_url.query_values(url, "application_name"):
            config["db_engine_kwargs"] = {"connect_args": {"application_name": "dbos_transact_client"}}
    return dataclasses.replace(resolve(config, environ={}), name="")


def _pool_size(size: Any) -> int:
    if size is None:
        return DEFAULT_POOL_SIZE
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise DBOSInitializationError(f"system_database_pool_size must be a whole number from 1 on, not {size!r}")
    return max(size, SMALLEST_POOL_SIZE)


def check_application_name(name: Any) -> str | None:
    """The name of an application that a client acts for; None is none in particular."""
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise DBOSException(f"An application name is a non-empty text, not {name!r}")
    check_text(name, "application name")
    return name
