"""Configuration: what an application may set, checked once, and turned into values the library works with.

`DBOSConfig` is what users write. `resolve` checks all of it (`config_checks`), names the key and the value in every
complaint, fills in defaults and the few environment variables that count, and returns `Settings`. Nothing else in the
library looks at the dictionary or at the environment.

A key set to None counts as absent everywhere. Every complaint is a `DBOSInitializationError`; one about a
type can also be caught as the TypeError it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import database_url
from .config_checks import (
    WrongType,
    check_keys,
    check_ranges,
    check_types,
    is_integer,
    is_mapping,
    is_number,
    refuse_cloud,
    refuse_unsupported,
)
from .database_url import Backend
from .error import DBOSInitializationError
from .serialization import DBOSPortableJSONSerializer, Serializer

if TYPE_CHECKING:
    from sqlalchemy import Engine
else:
    Engine = Any  # SQLAlchemy is optional; the name keeps typing.get_type_hints working without it.


class DBOSConfig(TypedDict, total=False):
    """What an application may set. Only `name` is required; None means the default.

    Database
        system_database_url: Where workflow state lives, as `sqlite:///file.sqlite` or
            `postgresql://user:password@host/database`. Default: a SQLite file named after the application.
        system_database_engine: A SQLAlchemy engine to use instead of own connections.
        dbos_system_schema: The Postgres schema of the system tables. Default "dbos".
        sys_db_pool_size: The most connections this process opens, at least 2. Default 20.
        sys_db_polling_concurrency: The most reads that waiting calls make at a time; 0 or less is no limit.
            Default half of the pool.
        db_engine_kwargs: `pool_size`, `pool_timeout` and `connect_args` for the connections.
        sys_db_idle_transaction_timeout_sec: After this many seconds the server ends a transaction that does
            nothing; 0 or less leaves the server's setting. Default 60.
        observability_query_timeout_sec: The longest a listing may take on Postgres, in seconds; 0 or less is
            no limit. Default 30.
        run_migrations: False only checks the schema at launch. Default True.
        use_listen_notify: False polls instead of listening for notifications, for poolers in transaction
            mode. It must not change once the database exists. Default True.
        notification_listener_polling_interval_sec: Seconds between polls for changes made by other
            processes, where the database cannot notify. Default 1.
        notification_coalesce_sec: Seconds within which notifications of events and streams are combined.
            Default 0.01.
        serializer: How values are stored. Default pickle.
        portable_serializer: What writes portable JSON: a DBOSPortableJSONSerializer with choices of yours. Default one
            without.
        unpickle_only: The modules and classes that stored pickles may name, besides harmless ones of Python and of
            this library; others are refused, unread. Default any.

    This process
        name: The application's name, 3 to 256 characters of a-z, 0-9, - and _.
        application_version: The version of the code; workflows are recovered by the version that started
            them. Default: computed from the source of the workflows.
        executor_id: The identity of this process. Default the variable DBOS__VMID, or "local".
        max_executor_threads: The most threads for synchronous workflows and steps. Default 0, no limit.
        scheduler_polling_interval_sec: Seconds between looks for changed schedules. Default 30.
        kafka_queue_polling_interval_sec: Seconds between looks into the queues of Kafka messages. Default 1.
        enable_patching: Deprecated; patching works without it.

    Logs and traces
        log_level, console_log_level, otlp_log_level: Names such as "INFO" and "DEBUG". Default "INFO"; the
            latter two follow the first.
        enable_otlp: Export spans and logs. Default False.
        otlp_traces_endpoints, otlp_logs_endpoints: Lists of receivers.
        otlp_attributes: Put on every log record and span.
        otel_attribute_format: "legacy" or "semconv", the names of span attributes. Default "legacy".

    Known, but not offered by this implementation
        conductor_key, conductor_url, conductor_executor_metadata, conductor_metadata_only_mode,
            transact_enterprise_key, sharding, auto_upgrade_interval_sec, auto_upgrade_grace_sec: refused
            when set.
        auto_upgrade: has no effect; a warning says so.
    """

    name: str
    system_database_url: str | None
    sys_db_pool_size: int | None
    sys_db_polling_concurrency: int | None
    db_engine_kwargs: dict[str, Any] | None
    sys_db_idle_transaction_timeout_sec: float | None
    log_level: str | None
    otlp_log_level: str | None
    console_log_level: str | None
    otlp_traces_endpoints: list[str] | None
    otlp_logs_endpoints: list[str] | None
    otlp_attributes: dict[str, str] | None
    application_version: str | None
    executor_id: str | None
    dbos_system_schema: str | None
    enable_otlp: bool | None
    system_database_engine: Engine | None
    conductor_key: str | None
    conductor_url: str | None
    conductor_executor_metadata: dict[str, Any] | None
    conductor_metadata_only_mode: bool | None
    transact_enterprise_key: str | None
    auto_upgrade: bool | None
    auto_upgrade_interval_sec: float | None
    auto_upgrade_grace_sec: float | None
    serializer: Serializer | None
    portable_serializer: DBOSPortableJSONSerializer | None
    unpickle_only: list[str] | None
    enable_patching: bool | None
    use_listen_notify: bool | None
    sharding: bool | None
    run_migrations: bool | None
    max_executor_threads: int | None
    notification_listener_polling_interval_sec: float | None
    notification_coalesce_sec: float | None
    observability_query_timeout_sec: float | None
    scheduler_polling_interval_sec: float | None
    kafka_queue_polling_interval_sec: float | None
    otel_attribute_format: Literal["legacy", "semconv"] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one process, complete and checked.

    Durations are in seconds. What may hold a password is left out of the repr.
    """

    name: str
    database_url: str = field(repr=False)
    engine: Any | None = field(repr=False)
    schema: str
    pool_size: int
    pool_timeout_seconds: float
    polling_concurrency: int | None  # None: no limit
    connect_args: dict[str, Any] = field(repr=False)
    engine_kwargs: dict[str, Any] = field(repr=False)  # as configured, merged over the defaults
    idle_transaction_timeout_seconds: float | None  # None: leave the server's setting
    observability_query_timeout_seconds: float | None  # None: no limit
    use_listen_notify: bool
    run_migrations: bool
    notification_polling_interval_seconds: float
    notification_coalesce_seconds: float
    scheduler_polling_interval_seconds: float
    kafka_queue_polling_interval_seconds: float
    application_version: str  # "": to be computed at launch
    executor_id: str
    app_id: str
    auto_upgrade: bool
    max_executor_threads: int | None  # None: no limit
    serializer: Serializer | None  # None: pickle
    portable_serializer: DBOSPortableJSONSerializer | None
    unpickle_only: list[str] | None
    log_level: str
    console_log_level: str
    otlp_log_level: str
    enable_otlp: bool
    otlp_traces_endpoints: tuple[str, ...]
    otlp_logs_endpoints: tuple[str, ...]
    otlp_attributes: dict[str, Any]
    otel_attribute_format: Literal["legacy", "semconv"]
    warnings: tuple[str, ...]  # what to log about this configuration once logging is set up

    @property
    def backend(self) -> Backend:
        """Which kind of database; the URL decides, also beside an engine."""
        return database_url.backend(self.database_url)

    @property
    def masked_database_url(self) -> str:
        """The URL for logs and messages."""
        return database_url.masked(self.database_url)


class _RepeatedParameter(DBOSInitializationError, AssertionError):
    pass


def resolve(
    config: DBOSConfig,
    *,
    conductor_url: str | None = None,
    conductor_key: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Check a configuration and fill in every default. Opens nothing and changes nothing.

    Args:
        config: What the application set.
        conductor_url: As the key of that name, which wins.
        conductor_key: As the key of that name, which wins.
        environ: Where DBOS__VMID, DBOS__APPVERSION, DBOS__APPID and DBOS__CLOUD are looked up.

    Raises:
        DBOSInitializationError: With the key, its value and what to do. Also a TypeError for a wrong type,
            and a ValueError for an unknown level or a negative number of threads.
    """
    if not isinstance(config, Mapping):
        raise WrongType(
            f"the configuration must be a DBOSConfig dictionary, not {type(config).__name__}. Pass at least "
            'config={"name": "my-app"}.'
        )
    refuse_cloud(environ)
    arguments = {"conductor_url": conductor_url, "conductor_key": conductor_key}
    values: dict[str, Any] = {
        key: value for source in (arguments, config) for key, value in source.items() if value is not None
    }
    check_keys(config, DBOSConfig.__annotations__)
    check_types(values)
    check_ranges(values)
    refuse_unsupported(values)
    name = _name(values)

    engine = values.get("system_database_engine")
    url = _database_url(values, name, engine)
    is_sqlite = database_url.backend(url) == "sqlite"
    engine_kwargs, connect_args = _engine_parameters(values, url, engine, is_sqlite)
    pool_size = _pool_size(engine_kwargs, engine, is_sqlite)
    log_level = values.get("log_level") or "INFO"
    return Settings(
        name=name,
        database_url=url,
        engine=engine,
        schema=values.get("dbos_system_schema", "dbos"),
        pool_size=pool_size,
        pool_timeout_seconds=float(engine_kwargs.get("pool_timeout", 30)),
        polling_concurrency=_positive(values.get("sys_db_polling_concurrency", max(1, pool_size // 2))),
        connect_args=connect_args,
        engine_kwargs=engine_kwargs,
        idle_transaction_timeout_seconds=_idle_timeout(values, url, engine, is_sqlite),
        observability_query_timeout_seconds=_positive(values.get("observability_query_timeout_sec", 30.0)),
        use_listen_notify=_use_listen_notify(values, url, is_sqlite),
        run_migrations=values.get("run_migrations", True),
        notification_polling_interval_seconds=values.get("notification_listener_polling_interval_sec", 1.0),
        notification_coalesce_seconds=values.get("notification_coalesce_sec", 0.01),
        scheduler_polling_interval_seconds=values.get("scheduler_polling_interval_sec") or 30.0,
        kafka_queue_polling_interval_seconds=values.get("kafka_queue_polling_interval_sec", 1.0),
        application_version=_application_version(values, environ),
        executor_id=values.get("executor_id", environ.get("DBOS__VMID") or "local"),
        app_id=environ.get("DBOS__APPID", ""),
        auto_upgrade=values.get("auto_upgrade", False),
        max_executor_threads=values.get("max_executor_threads") or None,
        serializer=values.get("serializer"),
        portable_serializer=values.get("portable_serializer"),
        unpickle_only=values.get("unpickle_only"),
        log_level=log_level,
        console_log_level=values.get("console_log_level") or log_level,
        otlp_log_level=values.get("otlp_log_level") or log_level,
        enable_otlp=values.get("enable_otlp", False),
        otlp_traces_endpoints=tuple(values.get("otlp_traces_endpoints", ())),
        otlp_logs_endpoints=tuple(values.get("otlp_logs_endpoints", ())),
        otlp_attributes=dict(values.get("otlp_attributes", {})),
        otel_attribute_format=values.get("otel_attribute_format", "legacy"),
        warnings=tuple(_warnings(values)),
    )


_ENGINE_KWARGS = frozenset({"pool_size", "max_overflow", "pool_timeout", "pool_pre_ping", "pool_recycle"})
_ENGINE_KWARGS |= {"connect_args", "poolclass"}


def _name(values: Mapping[str, Any]) -> str:
    name: str | None = values.get("name")
    if name is None:
        raise DBOSInitializationError('the configuration needs the key name, as in {"name": "my-app"}.')
    if not re.fullmatch(r"[a-z0-9_-]{3,256}", name):
        raise DBOSInitializationError(
            f"the application name {name!a} is not valid. It must be 3 to 256 characters of a-z, 0-9, - and _."
        )
    return name


def _database_url(values: Mapping[str, Any], name: str, engine: Any) -> str:
    url: str = values.get("system_database_url") or ""
    if url:
        if database_url.backend(url) == "postgres":
            database_url.database_name(url)  # raises when there is none
        return url
    if engine is None:
        return database_url.default_sqlite_url(name)
    # An engine with its own connection function may have no useful URL, but always a dialect.
    dialect = str(engine.dialect.name)
    url = engine.url.render_as_string(hide_password=False) if hasattr(engine, "url") else ""
    return url if url.startswith(dialect) else f"{dialect}://"


def _engine_parameters(
    values: Mapping[str, Any], url: str, engine: Any, is_sqlite: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters for the pool, and those for each connection."""
    configured = values.get("db_engine_kwargs", {})
    if engine is not None:
        return {}, {}
    pool: dict[str, Any] = {"pool_size": 20, "max_overflow": 0, "pool_timeout": 30, "pool_pre_ping": True}
    if getattr(configured.get("poolclass"), "__name__", None) == "NullPool":
        pool = {}
    pool |= configured
    if "sys_db_pool_size" in values:
        pool["pool_size"] = values["sys_db_pool_size"]
    for key, accepts, expected in (
        ("pool_size", is_integer, "an integer"),
        ("pool_timeout", is_number, "a number of seconds"),
        ("connect_args", is_mapping, "a dictionary with text keys"),
    ):
        if pool.get(key) is None:
            pool.pop(key, None)
        elif not accepts(pool[key]):
            raise WrongType(f'db_engine_kwargs["{key}"] must be {expected}, not {type(pool[key]).__name__}.')
    arguments = dict(pool.get("connect_args", {}))
    if is_sqlite:
        arguments.pop("application_name", None)
        arguments.pop("connect_timeout", None)
    else:
        if not database_url.query_values(url, "application_name"):
            arguments.setdefault("application_name", "dbos_transact")
        arguments.setdefault("connect_timeout", _connect_timeout(url))
    pool["connect_args"] = arguments
    return pool, arguments


def _connect_timeout(url: str) -> int:
    given = database_url.query_values(url, "connect_timeout")
    if len(given) > 1:
        raise _RepeatedParameter(
            f"the URL {database_url.masked(url)} gives connect_timeout {len(given)} times. Give it once."
        )
    return int(given[0]) if given and given[0].isdecimal() and int(given[0]) else 10


def _pool_size(engine_kwargs: Mapping[str, Any], engine: Any, is_sqlite: bool) -> int:
    if engine is not None:
        size = getattr(getattr(engine, "pool", None), "size", None)
        reported = size() if callable(size) else None
        return reported if isinstance(reported, int) and reported > 0 else 20
    pool_size: int = engine_kwargs.get("pool_size", 20)
    if pool_size < 1 or (pool_size < 2 and not is_sqlite):
        raise DBOSInitializationError(
            f"the connection pool has the size {pool_size}, but at least 2 connections are needed: one "
            "writes, and without another one nothing can be read while it does. Raise sys_db_pool_size."
        )
    return pool_size


def _positive(value: Any) -> Any:
    """The value, or None where zero and less mean that there is no limit."""
    return value if value > 0 else None


def _idle_timeout(values: Mapping[str, Any], url: str, engine: Any, is_sqlite: bool) -> float | None:
    options = database_url.query_values(url, "options")
    options.append(str(values.get("db_engine_kwargs", {}).get("connect_args", {}).get("options", "")))
    if engine is not None or is_sqlite or "idle_in_transaction_session_timeout" in " ".join(options):
        return None
    timeout: float | None = _positive(values.get("sys_db_idle_transaction_timeout_sec", 60.0))
    return timeout


def _use_listen_notify(values: Mapping[str, Any], url: str, is_sqlite: bool) -> bool:
    wanted: bool = values.get("use_listen_notify", True)
    if wanted and url.startswith("cockroachdb"):
        raise DBOSInitializationError("CockroachDB has no notifications. Configure use_listen_notify=False.")
    return wanted and not is_sqlite


def _application_version(values: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    configured: str | None = values.get("application_version")
    if configured is not None:
        return configured  # an empty one asks for the computed version, whatever the environment says
    return "PATCHING_ENABLED" if values.get("enable_patching") else environ.get("DBOS__APPVERSION", "")


def _warnings(values: Mapping[str, Any]) -> list[str]:
    warnings = []
    if values.get("enable_patching"):
        warnings.append("enable_patching is deprecated: DBOS.patch works without it. Set application_version instead.")
    if values.get("auto_upgrade"):
        warnings.append(
            "auto_upgrade has no effect in this implementation: workflows stay on the version that started "
            "them. Fork them to another version, or patch them."
        )
    unused = sorted(set(values.get("db_engine_kwargs", {})) - _ENGINE_KWARGS)
    if unused:
        warnings.append(
            f"db_engine_kwargs: {', '.join(unused)} has no effect, since connections are not made by "
            "SQLAlchemy. Pass system_database_engine to use an engine of your own."
        )
    return warnings
