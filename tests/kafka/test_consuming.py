"""Kafka consumers against mock brokers (03 section 12)."""

from __future__ import annotations

import base64
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dbos import DBOS, KafkaMessage, Serializer
from dbos.api.runtime import state
from dbos.engine import kafka as consumers
from dbos.engine.kafka import RepeatedErrors
from dbos.error import DBOSInitializationError
from tests.helpers import rows, status_row, wait_for_status, wait_until
from tests.kafka.cluster import CLASSIC_PROTOCOL, CONSUMER_PROTOCOL, MockCluster

Config = dict[str, Any]


class Received:
    """What the workflows of a test have got, in order."""

    def __init__(self) -> None:
        self.messages: list[KafkaMessage] = []

    def __call__(self, message: KafkaMessage) -> None:
        self.messages.append(message)

    @property
    def values(self) -> list[Any]:
        return [message.value for message in self.messages]

    def wait_for(self, count: int) -> list[Any]:
        wait_until(lambda: len(self.messages) >= count)
        return self.values


def declare(kafka: Config, topics: list[str], name: str = "on_message", **arguments: Any) -> Received:
    received = Received()

    @DBOS.kafka_consumer(kafka, topics, **arguments)
    @DBOS.workflow(name=name)
    def on_message(message: KafkaMessage) -> None:
        received(message)

    return received


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def kafka_rows(database_url: str) -> list[dict[str, Any]]:
    query = "SELECT * FROM workflow_status WHERE workflow_uuid LIKE 'kafka-%' ORDER BY created_at, workflow_uuid"
    return rows(database_url, query)


def consumer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dbos-kafka"]


@contextmanager
def inputs_cannot_be_written(database_url: str) -> Iterator[None]:
    """Every enqueue fails: a table is gone."""
    rows(database_url, "ALTER TABLE workflow_input RENAME TO hidden_input")
    try:
        yield
    finally:
        rows(database_url, "ALTER TABLE hidden_input RENAME TO workflow_input")


# --- life


def test_a_consumer_declared_before_launch_starts_at_launch(
    unlaunched: type[DBOS], cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R166."""
    received = declare(kafka, [topic])
    cluster.produce(topic, [b"one"], key=b"k", headers={"a": b"1"}, timestamp=1234)
    assert consumer_threads() == []
    DBOS.launch()
    assert len(consumer_threads()) == 1
    assert received.wait_for(1) == [b"one"]
    (message,) = received.messages
    assert message == KafkaMessage([("a", b"1")], b"k", None, message.leader_epoch, 0, 0, (1, 1234), topic, b"one")


def test_a_consumer_declared_after_launch_starts_at_once(
    app: type[DBOS], cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R166."""
    cluster.produce(topic, [b"one"])
    received = declare(kafka, [topic])
    assert received.wait_for(1) == [b"one"]


@pytest.mark.parametrize("protocol", [CLASSIC_PROTOCOL, CONSUMER_PROTOCOL], ids=["classic", "consumer"])
def test_consumers_stop_at_destroy_and_are_back_after_every_launch(
    unlaunched: type[DBOS],
    config: Config,
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    protocol: Config,
) -> None:
    """03 R166; section 15, 19: also those declared before the first launch."""
    received = declare({**kafka, **protocol}, [topic])
    DBOS.launch()
    cluster.produce(topic, [b"one"])
    received.wait_for(1)
    DBOS.destroy()
    assert consumer_threads() == []
    cluster.produce(topic, [b"two"])
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    assert received.wait_for(2) == [b"one", b"two"]


def test_async_workflows_and_steps_consume(
    unlaunched: type[DBOS], cluster: MockCluster, topic: str, kafka: Config
) -> None:
    received, by_step = Received(), Received()

    @DBOS.kafka_consumer(kafka, [topic])
    @DBOS.workflow(name="on_message")
    async def on_message(message: KafkaMessage) -> None:
        received(message)

    @DBOS.kafka_consumer({**kafka, "group.id": kafka["group.id"] + "-2"}, [topic])
    @DBOS.step(name="on_step")
    def on_step(message: KafkaMessage) -> None:
        by_step(message)

    DBOS.launch()
    cluster.produce(topic, [b"one"])
    assert received.wait_for(1) == by_step.wait_for(1) == [b"one"]


def test_a_client_that_cannot_be_made_fails_the_launch(unlaunched: type[DBOS], topic: str, kafka: Config) -> None:
    declare({**kafka, "bootstrap.serverz": "x"}, [topic])
    with pytest.raises(DBOSInitializationError, match=r"'on_message'.*bootstrap\.serverz"):
        DBOS.launch()
    assert consumer_threads() == []


def test_a_client_that_cannot_be_made_is_not_declared(app: type[DBOS], topic: str, kafka: Config) -> None:
    with pytest.raises(DBOSInitializationError, match=r"bootstrap\.serverz"):
        declare({**kafka, "bootstrap.serverz": "x"}, [topic])
    assert state.registry.kafka_consumers == []


# --- rows


@pytest.mark.parametrize(
    ("ordering", "queue_name", "key"),
    [
        (None, "_dbos_kafka_queue", None),
        ("none", "_dbos_kafka_queue", None),
        ("partition", "_dbos_kafka_ordered_queue", "{group}:{topic}:2"),
        ("topic", "_dbos_kafka_ordered_queue", "{group}:{topic}"),
    ],
)
def test_the_row_of_a_message(
    unlaunched: type[DBOS],
    database_url: str,
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    ordering: Any,
    queue_name: str,
    key: str | None,
) -> None:
    """03 R163, R167, R168, R175."""
    group = kafka["group.id"]
    received = declare(kafka, [topic], ordering=ordering)
    cluster.produce(topic, [b"skipped", b"one"], partition=2)
    DBOS.launch()
    received.wait_for(2)
    workflow_id = f"kafka-unique-id-{topic}-2-{group}-1"
    wait_for_status(database_url, workflow_id, "SUCCESS")
    row = status_row(database_url, workflow_id)
    assert row["queue_name"] == queue_name
    assert row["queue_partition_key"] == (key and key.format(group=group, topic=topic))
    assert (row["name"], row["application_version"], row["application_name"]) == ("on_message", "v1", "test-app")
    assert (row["executor_id"], row["serialization"], row["recovery_attempts"]) == ("test", "py_pickle", 1)
    nothing = ("authenticated_user", "authenticated_roles", "assumed_role", "workflow_timeout_ms", "attributes")
    nothing += ("workflow_deadline_epoch_ms", "parent_workflow_id", "deduplication_id", "schedule_name")
    assert [row[name] for name in nothing] == [None] * len(nothing)
    (stored,) = rows(database_url, "SELECT inputs FROM workflow_input WHERE workflow_uuid = %s", workflow_id)
    (message,) = pickle.loads(base64.b64decode(stored["inputs"]))["args"]
    assert message == received.messages[-1]


def test_each_group_gets_every_message(unlaunched: type[DBOS], cluster: MockCluster, topic: str, kafka: Config) -> None:
    """03 R167."""
    first = declare(kafka, [topic], "first")
    second = declare({**kafka, "group.id": kafka["group.id"] + "-2"}, [topic], "second")
    DBOS.launch()
    cluster.produce(topic, numbered(20))
    assert sorted(first.wait_for(20)) == sorted(second.wait_for(20)) == sorted(numbered(20))


# --- queues


def test_a_queue_of_your_own_limits_the_workflows(
    unlaunched: type[DBOS], database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R163: it may be unknown, and be registered later."""
    received = declare(kafka, [topic], queue_name="mine")
    cluster.produce(topic, [b"one"])
    DBOS.launch()
    wait_until(lambda: kafka_rows(database_url))
    (row,) = kafka_rows(database_url)
    assert (row["queue_name"], row["status"]) == ("mine", "ENQUEUED")
    DBOS.register_queue("mine", global_concurrency=1)
    assert received.wait_for(1) == [b"one"]


def test_a_partitioned_queue_is_refused_at_launch_and_at_the_declaration(
    config: Config, topic: str, kafka: Config
) -> None:
    """03 R163."""
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    DBOS.register_queue("parts", partition_concurrency=1)
    with pytest.raises(DBOSInitializationError, match="partitioned"):
        declare(kafka, [topic], queue_name="parts")
    assert state.registry.kafka_consumers == []
    DBOS.destroy()
    DBOS(config=config)  # type: ignore[arg-type]
    declare(kafka, [topic], queue_name="parts")
    with pytest.raises(DBOSInitializationError, match="partitioned"):
        DBOS.launch()
    assert consumer_threads() == []
    DBOS.destroy(destroy_registry=True)


def test_the_own_queues_are_served_whatever_the_process_listens_to(
    unlaunched: type[DBOS], database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R164; a custom queue has to be named."""
    received = declare(kafka, [topic])
    ordered = declare({**kafka, "group.id": kafka["group.id"] + "-2"}, [topic], "ordered", ordering="topic")
    custom = declare({**kafka, "group.id": kafka["group.id"] + "-3"}, [topic], "custom", queue_name="mine")
    DBOS.listen_queues([])
    DBOS.launch()
    DBOS.register_queue("mine")
    cluster.produce(topic, [b"one"])
    assert received.wait_for(1) == ordered.wait_for(1) == [b"one"]
    wait_until(lambda: len(kafka_rows(database_url)) == 3)
    (row,) = [row for row in kafka_rows(database_url) if row["name"] == "custom"]
    assert (row["status"], custom.values) == ("ENQUEUED", [])


@pytest.mark.parametrize("ordering", ["none", "partition", "topic"])
def test_the_own_queues_exist_only_where_a_consumer_needs_them(
    unlaunched: type[DBOS], config: Config, topic: str, kafka: Config, ordering: Any
) -> None:
    """03 R3, R164, and section 2.5: they have no row; the interval is the configured one."""
    DBOS.destroy()
    DBOS(config=config | {"kafka_queue_polling_interval_sec": 0.25})  # type: ignore[arg-type]
    declare(kafka, [topic], ordering=ordering)
    DBOS.launch()
    assert DBOS.list_queues() == []
    assert state.instance is not None
    assert state.instance.engine is not None
    dispatcher = state.instance.engine.dispatcher
    wait_until(lambda: len(dispatcher._queues) == 2)
    name = "_dbos_kafka_queue" if ordering == "none" else "_dbos_kafka_ordered_queue"
    queue = dispatcher._queues[name]
    assert queue.polling_interval_seconds == 0.25
    assert queue.partition_concurrency == (None if ordering == "none" else 1)
    assert queue.global_concurrency is None


# --- once


def test_a_redelivered_message_is_skipped(
    unlaunched: type[DBOS], config: Config, database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R167, R169."""
    # Means "off" to the client library, but is not recognised (R165): nothing is ever committed.
    received = declare({**kafka, "enable.auto.commit": "f"}, [topic])
    cluster.produce(topic, numbered(5))
    DBOS.launch()
    received.wait_for(5)
    DBOS.destroy()
    assert cluster.committed(kafka["group.id"], topic) < 0
    cluster.produce(topic, [b"new"])
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    assert sorted(received.wait_for(6)) == sorted([*numbered(5), b"new"])
    wait_until(lambda: all(row["status"] == "SUCCESS" for row in kafka_rows(database_url)))
    assert len(kafka_rows(database_url)) == 6
    assert len(received.values) == 6


def test_the_offset_is_committed_only_after_the_workflows_are(
    unlaunched: type[DBOS], config: Config, database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R169, R170: a batch that could not be enqueued before the shutdown comes again."""
    received = declare(kafka, [topic], batch_size=2)
    DBOS.launch()
    cluster.produce(topic, [b"first"])
    received.wait_for(1)
    with inputs_cannot_be_written(database_url):
        cluster.produce(topic, numbered(5))
        assert state.instance is not None
        engine = state.instance.engine
        assert engine is not None
        # Its first try fails and waits; the shutdown ends the wait.
        wait_until(lambda: engine.kafka._running[0]._waiting)
        DBOS.destroy()
    assert cluster.committed(kafka["group.id"], topic) == 1
    assert len(kafka_rows(database_url)) == 1
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    assert sorted(received.wait_for(6)) == sorted([*numbered(5), b"first"])
    DBOS.destroy()
    assert cluster.committed(kafka["group.id"], topic) == 6


def test_a_batch_that_fails_is_tried_again_until_it_succeeds(
    unlaunched: type[DBOS],
    database_url: str,
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R170."""
    monkeypatch.setattr(consumers, "FIRST_WAIT_SECONDS", 0.05)
    received = declare(kafka, [topic])
    DBOS.launch()
    with inputs_cannot_be_written(database_url):
        cluster.produce(topic, numbered(5))
        wait_until(lambda: caplog.text.count("could not enqueue its messages") >= 3)
    assert "next try in 0.05 s" in caplog.text
    assert "next try in 0.1 s" in caplog.text
    assert "next try in 0.2 s" in caplog.text
    assert sorted(received.wait_for(5)) == numbered(5)


class Picky(Serializer):
    """Cannot store one message."""

    def serialize(self, data: Any) -> str:
        if b"poison" in pickle.dumps(data):
            raise ValueError("poison")
        return base64.b64encode(pickle.dumps(data)).decode()

    def deserialize(self, serialized_data: str) -> Any:
        return pickle.loads(base64.b64decode(serialized_data))

    def name(self) -> str:
        return "picky"


def test_a_message_that_cannot_be_stored_is_logged_counted_and_passed_over(
    config: Config,
    database_url: str,
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """03 R171; section 15, 19."""
    DBOS(config=config | {"serializer": Picky()})  # type: ignore[arg-type]
    received = declare(kafka, [topic])
    DBOS.launch()
    cluster.produce(topic, [b"one", b"poison", b"two", b"poison"])
    assert sorted(received.wait_for(2)) == [b"one", b"two"]
    wait_until(lambda: "(2 so far)" in caplog.text)
    assert f"{topic}[0] offset 1" in caplog.text
    DBOS.destroy(destroy_registry=True)
    assert cluster.committed(kafka["group.id"], topic) == 4
    assert len(kafka_rows(database_url)) == 2


# --- errors of the broker


def test_an_outage_of_the_broker_is_reported_and_survived(
    unlaunched: type[DBOS],
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R165: error_cb is called for every error, what it raises is contained. Section 15, 19: a line per kind."""
    own = MockCluster()
    own.create_topic(topic)
    errors: list[Any] = []
    # However long the client library takes to notice.
    monkeypatch.setattr("dbos.engine.kafka.REPORT_SECONDS", 3600.0)

    def on_error(error: Any) -> None:
        errors.append(error)
        raise ValueError("from error_cb")

    fast = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 20}
    received = declare({**kafka, **fast, "bootstrap.servers": own.servers, "error_cb": on_error}, [topic])
    DBOS.launch()
    own.produce(topic, [b"before"])
    received.wait_for(1)
    own.set_down()
    wait_until(lambda: len(errors) >= 4)
    own.set_up()
    own.produce(topic, [b"after"])
    assert received.wait_for(2) == [b"before", b"after"]
    DBOS.destroy()
    own.close()
    reported = [record for record in caplog.records if record.getMessage().startswith("The Kafka consumer of")]
    assert 1 <= len(reported) <= len({error.code() for error in errors})
    assert caplog.text.count("The error_cb of the Kafka consumer") == len(errors)


def test_error_events_among_the_messages_are_logged(
    unlaunched: type[DBOS],
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """03 R172."""
    # With the newer protocol the broker does not tell a member about topics that it does not know.
    received = declare({**kafka, **CLASSIC_PROTOCOL}, [topic, f"{topic}-missing"])
    DBOS.launch()
    cluster.produce(topic, [b"one"])
    assert received.wait_for(1) == [b"one"]
    wait_until(lambda: f"{topic}-missing" in caplog.text)
    assert "UNKNOWN_TOPIC_OR_PART" in caplog.text


def test_offsets_that_cannot_be_stored_only_warn(
    app: type[DBOS],
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """03 R172: as when the partition was given to another member meanwhile."""

    class Message:
        def topic(self) -> str:
            return topic

        def partition(self) -> int:
            return 0

        def offset(self) -> int:
            return 5

    declare(kafka, ["elsewhere"])
    assert state.instance is not None
    assert state.instance.engine is not None
    consumer = consumers.Consumer(state.instance.engine, state.registry.kafka_consumers[-1])
    consumer.open()
    consumer._store_offsets([Message()])
    consumer.stop()
    assert "could not store offsets, so messages may come again" in caplog.text


def test_repeated_errors_are_logged_once_in_a_while_with_their_number(
    dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 section 15, 19."""
    now = 100.0
    errors = RepeatedErrors("broker", lambda: now)
    for _ in range(50):
        errors.report("down", "it is down")
    errors.report("other", "something else")
    now += 29
    errors.report("down", "it is down")
    now += 2
    errors.report("down", "it is down")
    now += 40
    errors.report("down", "it is down")
    assert [record.getMessage() for record in caplog.records] == [
        "broker: it is down",
        "broker: something else",
        "broker: it is down (50 more like it in the last 31 s)",
        "broker: it is down",
    ]


def test_a_consumer_that_breaks_is_made_anew(
    unlaunched: type[DBOS],
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R172: what another callback raises comes out of the client."""
    monkeypatch.setattr(consumers, "FIRST_WAIT_SECONDS", 0.05)
    broken = threading.Event()

    def on_statistics(text: str) -> None:
        if received.values and not broken.is_set():
            broken.set()
            raise ValueError("from stats_cb")

    received = declare({**kafka, "statistics.interval.ms": 50, "stats_cb": on_statistics}, [topic])
    DBOS.launch()
    cluster.produce(topic, [b"before"])
    received.wait_for(1)
    assert broken.wait(20)
    cluster.produce(topic, [b"after"])
    assert received.wait_for(2) == [b"before", b"after"]
    assert "is made anew in 0.05 s: from stats_cb" in caplog.text
