"""What the keys of a configuration may hold, each by itself (see `config`)."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .error import DBOSException, DBOSInitializationError
from .serialization import DBOSPortableJSONSerializer, check_text


# Callers of the published API expect the Python error, callers of this library the typed one: these are both.
class WrongType(DBOSInitializationError, TypeError):
    pass


class WrongValue(DBOSInitializationError, ValueError):
    pass


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


def refuse_cloud(environ: Mapping[str, str]) -> None:
    if environ.get("DBOS__CLOUD") == "true":
        raise DBOSInitializationError(
            "DBOS__CLOUD=true asks for the hosted platform, which is not supported by this implementation. "
            "Unset the variable, and configure name and system_database_url."
        )


def check_keys(config: Mapping[str, Any], known: Collection[str]) -> None:
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


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_attributes(value: Any) -> bool:
    return is_mapping(value) and all(isinstance(item, (str, int, float)) for item in value.values())


def _is_serializer(value: Any) -> bool:
    methods = ("serialize", "deserialize", "name")
    return not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)


def _is_portable(value: Any) -> bool:
    return isinstance(value, DBOSPortableJSONSerializer)


def _is_engine(value: Any) -> bool:
    is_async = hasattr(value, "sync_engine")
    return hasattr(value, "dialect") and callable(getattr(value, "connect", None)) and not is_async


_SECONDS_KEYS = (
    "sys_db_idle_transaction_timeout_sec",
    "observability_query_timeout_sec",
    "notification_listener_polling_interval_sec",
    "notification_coalesce_sec",
    "scheduler_polling_interval_sec",
    "kafka_queue_polling_interval_sec",
    "auto_upgrade_interval_sec",
    "auto_upgrade_grace_sec",
)

_TYPES: tuple[tuple[Callable[[Any], bool], str, tuple[str, ...]], ...] = (
    (_is_text, "a text", ("name", "system_database_url", "dbos_system_schema")),
    (_is_text, "a text", ("application_version", "executor_id")),
    (_is_text, "a text", ("conductor_key", "conductor_url", "transact_enterprise_key")),
    (_is_text, "the name of a level", ("log_level", "console_log_level", "otlp_log_level")),
    (_is_text, '"legacy" or "semconv"', ("otel_attribute_format",)),
    (is_integer, "an integer", ("sys_db_pool_size", "sys_db_polling_concurrency", "max_executor_threads")),
    (is_number, "a number of seconds", _SECONDS_KEYS),
    (_is_flag, "True or False", ("enable_otlp", "enable_patching", "use_listen_notify", "run_migrations")),
    (_is_flag, "True or False", ("auto_upgrade", "sharding", "conductor_metadata_only_mode")),
    (is_mapping, "a dictionary with text keys", ("db_engine_kwargs", "conductor_executor_metadata")),
    (_is_attributes, "a dictionary of texts", ("otlp_attributes",)),
    (_is_texts, "a list of texts", ("otlp_traces_endpoints", "otlp_logs_endpoints", "unpickle_only")),
    (_is_serializer, "an instance of a Serializer", ("serializer",)),
    (_is_portable, "an instance of a DBOSPortableJSONSerializer", ("portable_serializer",)),
    (_is_engine, "a SQLAlchemy Engine (not a URL, not an AsyncEngine)", ("system_database_engine",)),
)

_SECRETS = frozenset({"system_database_url", "system_database_engine", "db_engine_kwargs"})
_SECRETS |= {"conductor_key", "transact_enterprise_key"}


def check_types(values: Mapping[str, Any]) -> None:
    for accepts, expected, keys in _TYPES:
        for key in keys:
            if key in values and not accepts(values[key]):
                kind = type(values[key]).__name__
                shown = "" if key in _SECRETS else f" ({ascii(values[key])[:200]})"
                raise WrongType(f"the configuration key {key} must be {expected}, not {kind}{shown}.")


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


def check_ranges(values: Mapping[str, Any]) -> None:
    for key, (accepts, expected) in _RANGES.items():
        if key in values and not accepts(values[key]):
            raise DBOSInitializationError(f"the configuration key {key} is {values[key]!r}; it must be {expected}.")
    threads = values.get("max_executor_threads", 0)
    if threads < 0:
        raise WrongValue(
            f"the configuration key max_executor_threads is {threads}; it must not be negative. 0 is no limit."
        )
    for key in ("log_level", "console_log_level", "otlp_log_level"):
        level = values.get(key)
        if level and not isinstance(logging.getLevelName(level), int):
            raise WrongValue(
                f"the configuration key {key} is {level!r}, which is not a log level. Use DEBUG, INFO, "
                "WARNING, ERROR or CRITICAL, in upper case."
            )
    if values.get("otel_attribute_format", "legacy") not in ("legacy", "semconv"):
        raise WrongValue(
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


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    asked = [key for key in _UNSUPPORTED if values.get(key)]
    if asked:
        raise DBOSInitializationError(
            f"not supported by this implementation: {', '.join(asked)}. The control plane, automatic "
            "upgrades and sharding belong to a separately licensed product. Remove the keys; recovery of "
            "failed processes works without a control plane."
        )
