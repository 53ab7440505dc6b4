"""Declaring Kafka consumers: what is refused, and what becomes of the configuration (03 section 12)."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from dbos import DBOS, KafkaMessage
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSInitializationError, DBOSWorkflowFunctionNotFoundError

NOWHERE = {"bootstrap.servers": "localhost:1", "group.id": "g"}


@pytest.fixture(autouse=True)
def _logged(dbos_log: None) -> None: ...


def declare_workflow(name: str = "on_message") -> Any:
    @DBOS.workflow(name=name)
    def on_message(message: KafkaMessage) -> None: ...

    return on_message


def declared_config(config: dict[str, Any], topics: list[str], name: str = "on_message") -> dict[str, Any]:
    """What a consumer with this configuration would use."""
    workflow = declare_workflow(name)
    assert DBOS.kafka_consumer(config, topics)(workflow) is workflow
    return dict(state.registry.kafka_consumers[-1].config)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ordering": "both"},
        {"ordering": ""},
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": 2.5},
        {"ordering": "partition", "queue_name": "mail"},
        {"ordering": "topic", "queue_name": "mail"},
        {"queue_name": ""},
        {"queue_name": "nul\0"},
        {"topics": "orders"},
        {"topics": []},
        {"topics": [""]},
        {"topics": [5]},
        {"config": None},
    ],
)
def test_arguments_without_meaning_are_refused(arguments: dict[str, Any]) -> None:
    """03 R162."""
    whole = {"config": NOWHERE, "topics": ["orders"]} | arguments
    workflow = declare_workflow()
    with pytest.raises(DBOSInitializationError):
        DBOS.kafka_consumer(whole.pop("config"), whole.pop("topics"), **whole)(workflow)
    assert state.registry.kafka_consumers == []


def test_two_consumers_of_one_group_may_not_take_the_same_topic() -> None:
    """03 R162."""
    DBOS.kafka_consumer(NOWHERE, ["orders", "returns"])(declare_workflow("first"))
    with pytest.raises(DBOSInitializationError, match=r"'first' and 'second'.*'returns'"):
        DBOS.kafka_consumer(NOWHERE, ["returns", "others"])(declare_workflow("second"))
    assert len(state.registry.kafka_consumers) == 1


def test_two_consumers_of_one_group_with_different_topics_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    """03 R162."""
    DBOS.kafka_consumer(NOWHERE, ["orders"])(declare_workflow("first"))
    DBOS.kafka_consumer({**NOWHERE, "group.id": "other"}, ["orders"])(declare_workflow("second"))
    assert "share" not in caplog.text
    DBOS.kafka_consumer(NOWHERE, ["returns"])(declare_workflow("third"))
    assert "share the group.id 'g'" in caplog.text
    assert len(state.registry.kafka_consumers) == 3


def test_an_unregistered_function_is_refused() -> None:
    """03 R162."""
    with pytest.raises(DBOSWorkflowFunctionNotFoundError):
        DBOS.kafka_consumer(NOWHERE, ["orders"])(lambda message: None)


def test_without_the_client_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """03 section 12."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(DBOSException, match="confluent_kafka") as refused:
        DBOS.kafka_consumer(NOWHERE, ["orders"])(declare_workflow())
    assert "pip install 'dbos[kafka]'" in str(refused.value)


def test_the_configuration_is_copied_and_completed() -> None:
    """03 R165."""
    given: dict[str, Any] = dict(NOWHERE)
    assert declared_config(given, ["orders"]) == {
        **NOWHERE,
        "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False,
    }
    assert given == NOWHERE


def test_a_chosen_start_is_kept() -> None:
    """03 R165."""
    assert declared_config({**NOWHERE, "auto.offset.reset": "latest"}, ["orders"])["auto.offset.reset"] == "latest"


@pytest.mark.parametrize(("value", "warns"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_offsets_are_never_stored_before_the_workflows_are(
    value: Any, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R165."""
    config = declared_config({**NOWHERE, "enable.auto.offset.store": value}, ["orders"])
    assert config["enable.auto.offset.store"] is False
    assert ("enable.auto.offset.store" in caplog.text) == warns


@pytest.mark.parametrize(
    ("value", "expected"),
    [(False, True), (0, True), ("FALSE", True), ("0", True), (True, True), ("true", "true"), ("no", "no")],
)
def test_automatic_commits_are_switched_on(value: Any, expected: Any, caplog: pytest.LogCaptureFixture) -> None:
    """03 R165: other texts than `false` and `0` are not recognised."""
    config = declared_config({**NOWHERE, "enable.auto.commit": value}, ["orders"])
    assert config["enable.auto.commit"] is expected or config["enable.auto.commit"] == expected
    assert ("enable.auto.commit" in caplog.text) == (value in (False, "FALSE", "0"))


@pytest.mark.parametrize("missing", [{}, {"group.id": None}])
def test_a_missing_group_is_made_of_the_name_and_the_topics(
    missing: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """03 R165: as the reference release makes it, so that its offsets are found."""
    config = {"bootstrap.servers": "localhost:1", **missing}
    group = declared_config(config, ["to.p_ic-1", "ö2"], "reg_name")["group.id"]
    assert group == "dbos-kafka-group-regname-topic-1-2"
    assert group in caplog.text
    long = declared_config(config, ["x" * 300], "long")["group.id"]
    assert len(long) == 255


def test_a_step_can_be_declared() -> None:
    @DBOS.step(name="on_step")
    def on_step(message: KafkaMessage) -> None: ...

    DBOS.kafka_consumer({"bootstrap.servers": "localhost:1"}, ["orders"])(on_step)
    (spec,) = state.registry.kafka_consumers
    assert (spec.name, spec.group_id) == ("on_step", "dbos-kafka-group-onstep-orders")


def test_a_message_is_stored_under_the_name_of_the_persisted_format() -> None:
    """04 R622."""
    message = KafkaMessage([("a", b"1")], b"k", None, 0, 5, 1, (1, 1000), "orders", b"v")
    stored = pickle.dumps(message)
    assert b"dbos._kafka_message" in stored
    assert pickle.loads(stored) == message
