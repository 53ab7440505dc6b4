"""Configuration: what an application may set, checked once, and turned into values the library works with.

`DBOSConfig` is what users write. `resolve` checks all of it, names the key and the value in every complaint,
fills in defaults and the few environment variables that count, and returns `Settings`. Nothing else in the
library looks at the dictionary or at the environment.

A key set to None counts as absent everywhere. Every complaint is a `DBOSInitializationError`; one about a
type can also be caught as the TypeError it is.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import database_url
from .database_url import Backend
from .error import DBOSException, DBOSInitializationError
from .serialization import DBOSPortableJSONSerializer, Serializer, check_text

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
    enable_patching: bool
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


# Callers of the published API expect the Python error, callers of this library the typed one: these are both.
class _TypeError(DBOSInitializationError, TypeError):
    pass


class _ValueError(DBOSInitializationError, ValueError):
    pass


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
        raise _TypeError(
            f"the configuration must be a DBOSConfig dictionary, not {type(config).__name__}. Pass at least "
            'config={"name": "my-app"}.'
        )
    _refuse_cloud(environ)
    arguments = {"conductor_url": conductor_url, "conductor_key": conductor_key}
    values: dict[str, Any] = {
        key: value for source in (arguments, config) for key, value in source.items() if value is not None
    }
    _check_keys(config)
    _check_types(values)
    _check_ranges(values)
    _refuse_unsupported(values)
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
        enable_patching=values.get("enable_patching", False),
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


# --- checks -------------------------------------------------------------------------------------------------

_REMOVED = ("database_url", "application_database_url")

_UNSUPPORTED = (
    "conductor_key",
    "conductor_url",
    "conductor_executor_metadata",
    "conductor_metadata_only_mode",
    "transact_enterprise_key",
    "sharding",
    "auto_upgrade_interval_sec",
    "auto_upgrade_grace_sec",
)


def _refuse_cloud(environ: Mapping[str, str]) -> None:
    if environ.get("DBOS__CLOUD") == "true":
        raise DBOSInitializationError(
            "DBOS__CLOUD=true asks for the hosted platform, which is not supported by this implementation. "
            "Unset the variable, and configure name and system_database_url."
        )


def _check_keys(config: Mapping[str, Any]) -> None:
    known = DBOSConfig.__annotations__
    for key, value in config.items():
        if key in known:
            continue
        if key in _REMOVED:
            if value:
                raise DBOSInitializationError(
                    f"the configuration key {key} was removed. Use system_database_url for the workflow "
                    "state, and a datasource for the application's own database."
                )
            continue
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(sorted(known))}."
        raise DBOSInitializationError(f"unknown configuration key {key!r}. {hint}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_attributes(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(item, (str, int, float)) for item in value.values())


def _is_serializer(value: Any) -> bool:
    methods = ("serialize", "deserialize", "name")
    return not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)


def _is_portable(value: Any) -> bool:
    return isinstance(value, DBOSPortableJSONSerializer)


def _is_engine(value: Any) -> bool:
    is_async = hasattr(value, "sync_engine")
    return hasattr(value, "dialect") and callable(getattr(value, "connect", None)) and not is_async


_SECONDS_KEYS = tuple(key for key in DBOSConfig.__annotations__ if key.endswith("_sec"))

_TYPES: tuple[tuple[Callable[[Any], bool], str, tuple[str, ...]], ...] = (
    (_is_text, "a text", ("name", "system_database_url", "dbos_system_schema")),
    (_is_text, "a text", ("application_version", "executor_id")),
    (_is_text, "a text", ("conductor_key", "conductor_url", "transact_enterprise_key")),
    (_is_text, "the name of a level", ("log_level", "console_log_level", "otlp_log_level")),
    (_is_text, '"legacy" or "semconv"', ("otel_attribute_format",)),
    (_is_integer, "an integer", ("sys_db_pool_size", "sys_db_polling_concurrency", "max_executor_threads")),
    (_is_number, "a number of seconds", _SECONDS_KEYS),
    (_is_flag, "True or False", ("enable_otlp", "enable_patching", "use_listen_notify", "run_migrations")),
    (_is_flag, "True or False", ("auto_upgrade", "sharding", "conductor_metadata_only_mode")),
    (_is_mapping, "a dictionary with text keys", ("db_engine_kwargs", "conductor_executor_metadata")),
    (_is_attributes, "a dictionary of texts", ("otlp_attributes",)),
    (_is_texts, "a list of texts", ("otlp_traces_endpoints", "otlp_logs_endpoints", "unpickle_only")),
    (_is_serializer, "an instance of a Serializer", ("serializer",)),
    (_is_portable, "an instance of a DBOSPortableJSONSerializer", ("portable_serializer",)),
    (_is_engine, "a SQLAlchemy Engine (not a URL, not an AsyncEngine)", ("system_database_engine",)),
)

_SECRETS = frozenset({"system_database_url", "system_database_engine", "db_engine_kwargs"})
_SECRETS |= {"conductor_key", "transact_enterprise_key"}


def _check_types(values: Mapping[str, Any]) -> None:
    for accepts, expected, keys in _TYPES:
        for key in keys:
            if key in values and not accepts(values[key]):
                kind = type(values[key]).__name__
                shown = "" if key in _SECRETS else f" ({ascii(values[key])[:200]})"
                raise _TypeError(f"the configuration key {key} must be {expected}, not {kind}{shown}.")


_LEAST_INTERVAL_SECONDS = 0.001

# What each number may be, after its type was checked.
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "sys_db_idle_transaction_timeout_sec": (math.isfinite, "finite; 0 leaves the server's setting"),
    "observability_query_timeout_sec": (math.isfinite, "finite; 0 is no limit"),
    "scheduler_polling_interval_sec": (
        lambda value: value == 0 or _LEAST_INTERVAL_SECONDS <= value < math.inf,
        "finite and at least 0.001, or 0 for the default",
    ),
    **dict.fromkeys(
        (
            "notification_listener_polling_interval_sec",
            "notification_coalesce_sec",
            "kafka_queue_polling_interval_sec",
        ),
        (lambda value: _LEAST_INTERVAL_SECONDS <= value < math.inf, "finite and at least 0.001"),
    ),
    "auto_upgrade_interval_sec": (lambda value: 0 < value < math.inf, "finite and greater than 0"),
    "auto_upgrade_grace_sec": (lambda value: 0 <= value < math.inf, "finite and at least 0"),
}


def _check_ranges(values: Mapping[str, Any]) -> None:
    for key, (accepts, expected) in _RANGES.items():
        if key in values and not accepts(values[key]):
            raise DBOSInitializationError(f"the configuration key {key} is {values[key]!r}; it must be {expected}.")
    threads = values.get("max_executor_threads", 0)
    if threads < 0:
        raise _ValueError(
            f"the configuration key max_executor_threads is {threads}; it must not be negative. 0 is no limit."
        )
    for key in ("log_level", "console_log_level", "otlp_log_level"):
        level = values.get(key)
        if level and not isinstance(logging.getLevelName(level), int):
            raise _ValueError(
                f"the configuration key {key} is {level!r}, which is not a log level. Use DEBUG, INFO, "
                "WARNING, ERROR or CRITICAL, in upper case."
            )
    if values.get("otel_attribute_format", "legacy") not in ("legacy", "semconv"):
        raise _ValueError(
            f"the configuration key otel_attribute_format is {values['otel_attribute_format']!r}; it must be "
            '"legacy" or "semconv".'
        )
    if values.get("dbos_system_schema") == "":
        raise DBOSInitializationError(
            'the configuration key dbos_system_schema is empty. Leave it out for "dbos", or name a schema.'
        )
    for key in ("dbos_system_schema", "application_version", "executor_id"):
        try:
            check_text(values.get(key, ""), f"configuration key {key}")
        except DBOSException as error:
            raise DBOSInitializationError(error.message) from None


def _refuse_unsupported(values: Mapping[str, Any]) -> None:
    asked = [key for key in _UNSUPPORTED if values.get(key)]
    if asked:
        raise DBOSInitializationError(
            f"not supported by this implementation: {', '.join(asked)}. The control plane, automatic "
            "upgrades and sharding belong to a separately licensed product. Remove the keys; recovery of "
            "failed processes works without a control plane."
        )


# --- values -------------------------------------------------------------------------------------------------

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
        ("pool_size", _is_integer, "an integer"),
        ("pool_timeout", _is_number, "a number of seconds"),
        ("connect_args", _is_mapping, "a dictionary with text keys"),
    ):
        if pool.get(key) is None:
            pool.pop(key, None)
        elif not accepts(pool[key]):
            raise _TypeError(f'db_engine_kwargs["{key}"] must be {expected}, not {type(pool[key]).__name__}.')
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
