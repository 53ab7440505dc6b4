"""A bad configuration is refused with a typed error that names the key, the value and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, Serializer
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSInitializationError
from tests.lifecycle.test_bad_input import REASON, unstorable


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("system_databse_url", "system_database_url"),
        ("aplication_version", "application_version"),
        ("executorId", "executor_id"),
        ("log_levle", "log_level"),
        ("max_executor_thread", "max_executor_threads"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_right_one(key: str, suggestion: str) -> None:
    # 01 section 16 number 5
    with pytest.raises(DBOSInitializationError, match=f"{key}.*Did you mean {suggestion}"):
        DBOS(config={"name": "test-app", key: "x"})  # type: ignore[typeddict-unknown-key]
    assert state.instance is None


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DBOSInitializationError, match=r"xyzzy.*Known keys: .*system_database_url"):
        DBOS(config={"name": "test-app", "xyzzy": 1})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("key", ["database_url", "application_database_url"])
def test_removed_keys_are_refused_with_their_successor(key: str) -> None:
    # 01 R5
    with pytest.raises(DBOSInitializationError, match=f"{key}.*system_database_url"):
        DBOS(config={"name": "test-app", key: "postgresql://x/y"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sys_db_pool_size", "20"),
        ("max_executor_threads", 2.5),
        ("run_migrations", "yes"),
        ("use_listen_notify", 1),
        ("executor_id", 17),
        ("application_version", b"v1"),
        ("system_database_url", 5),
        ("notification_listener_polling_interval_sec", "1"),
        ("observability_query_timeout_sec", [30]),
        ("otlp_attributes", ["a"]),
        ("otlp_traces_endpoints", "http://localhost"),
        ("serializer", "json"),
        ("db_engine_kwargs", "pool_size=5"),
        ("log_level", 10),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_key_and_value(key: str, value: Any) -> None:
    # 01 R3: both a TypeError and a typed one
    for kind in (DBOSInitializationError, TypeError):
        with pytest.raises(kind) as raised:
            DBOS(config={"name": "test-app", key: value})  # type: ignore[misc]
        assert key in str(raised.value)
        assert repr(value) in str(raised.value) or type(value).__name__ in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("notification_listener_polling_interval_sec", 0),
        ("notification_coalesce_sec", -1.0),
        ("kafka_queue_polling_interval_sec", float("nan")),
        ("scheduler_polling_interval_sec", float("inf")),
        ("scheduler_polling_interval_sec", -3),
        ("sys_db_idle_transaction_timeout_sec", float("inf")),
        ("observability_query_timeout_sec", float("nan")),
        ("max_executor_threads", -2),
        ("sys_db_pool_size", 0),
        ("log_level", "loud"),
        ("log_level", "info"),
        ("otel_attribute_format", "modern"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_and_value(key: str, value: Any) -> None:
    # 01 R3, section 16 number 5
    with pytest.raises(DBOSInitializationError) as raised:
        DBOS(config={"name": "test-app", key: value})  # type: ignore[misc]
    assert key in str(raised.value)
    assert str(value) in str(raised.value)


@pytest.mark.parametrize(
    "name", ["ab", "x" * 257, "No-Capitals", "spa ce", "dot.ted", "newline\n", "ünicode", "nul\0nul", ""]
)
def test_a_bad_application_name_is_refused_with_the_rule(name: str) -> None:
    # 01 R6
    with pytest.raises(DBOSInitializationError, match="3 to 256"):
        DBOS(config={"name": name})


def test_the_application_name_is_required_and_a_text() -> None:
    # 01 R6
    with pytest.raises(DBOSInitializationError, match="name"):
        DBOS(config={})
    with pytest.raises(TypeError, match="name"):
        DBOS(config={"name": 5})  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="DBOSConfig"):
        DBOS(config="test-app")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("nonsense", "form"),
        ("mysql://root:secret@localhost/db", "neither Postgres nor SQLite"),
        ("postgresql://user:secret@localhost", "Database name must be specified"),
        ("postgresql://user:sec@ret@localhost/db", "Percent-encode"),
        ("sqlite:/one-slash.sqlite", "sqlite:///"),
        ("sqlite+aiosqlite:///file.sqlite", "sqlite:///"),
        ("sqlite://host/file.sqlite", "three slashes"),
    ],
)
def test_a_bad_database_url_is_refused_with_a_remedy_and_without_the_password(url: str, hint: str) -> None:
    # 01 R9, R12
    with pytest.raises(DBOSInitializationError, match=hint) as raised:
        DBOS(config={"name": "test-app", "system_database_url": url, "log_level": "CRITICAL"})
        DBOS.launch()
    assert "secret" not in str(raised.value)
    assert "sec@ret" not in str(raised.value)


@pytest.mark.parametrize("key", ["application_version", "executor_id", "dbos_system_schema"])
@unstorable
def test_configured_texts_that_cannot_be_stored_are_refused(key: str, text: str) -> None:
    with pytest.raises(DBOSInitializationError, match=REASON) as raised:
        DBOS(config={"name": "test-app", key: text})  # type: ignore[misc]
    assert key in str(raised.value)


def test_the_hosted_platform_mode_fails_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    # 01 R24
    monkeypatch.setenv("DBOS__CLOUD", "true")
    with pytest.raises(DBOSInitializationError, match="DBOS__CLOUD"):
        DBOS(config={"name": "test-app"})


@pytest.mark.parametrize("name", ["py_pickle", "portable_json", "", "a\0b", None])
def test_a_serializer_with_a_bad_name_is_refused(name: Any, tmp_path: Path) -> None:
    class Named(Serializer):
        def serialize(self, data: Any) -> str:
            return ""

        def deserialize(self, serialized_data: str) -> Any:
            return None

        def name(self) -> str:
            return str(name) if name is not None else name  # type: ignore[no-any-return]

    with pytest.raises(DBOSException, match=r"name|NUL"):
        DBOS(
            config={
                "name": "test-app",
                "system_database_url": f"sqlite:///{tmp_path}/a.sqlite",
                "serializer": Named(),
                "log_level": "CRITICAL",
            }
        )
        DBOS.launch()
