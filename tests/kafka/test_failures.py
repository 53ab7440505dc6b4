"""Messages whose workflow fails, and consumers that cannot work as they are set up (03 section 12)."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaException

from dbos import DBOS, KafkaMessage
from dbos.api.runtime import state
from dbos.engine import kafka as consumers
from dbos.error import DBOSInitializationError
from tests.helpers import wait_until
from tests.kafka.cluster import MockCluster
from tests.kafka.test_consuming import consumer_threads, declare, kafka_rows, numbered
from tests.schedules.recording import the_engine

Config = dict[str, Any]


def test_a_failed_message_is_set_aside_and_runs_again_in_its_place(
    unlaunched: type[DBOS], database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R174; section 15, 19: those behind it go on; its row has the message, and a rewind runs it, with its key."""
    seen: list[Any] = []
    mended = threading.Event()

    @DBOS.kafka_consumer(kafka, [topic], ordering="partition")
    @DBOS.workflow(name="on_message")
    def on_message(message: KafkaMessage) -> str:
        seen.append(message.value)
        if message.value == b"1" and not mended.is_set():
            raise ValueError("not now")
        return f"did {message.value!r}"

    cluster.produce(topic, numbered(4))
    DBOS.launch()
    wait_until(lambda: [row["status"] for row in kafka_rows(database_url)].count("SUCCESS") == 3)
    assert seen == numbered(4)
    (failed,) = DBOS.list_workflows(status="ERROR", workflow_id_prefix=f"kafka-unique-id-{topic}-")
    assert failed.input is not None
    assert failed.input["args"][0].value == b"1"
    mended.set()
    handle = DBOS.rewind_workflow(
        failed.workflow_id, queue_name=failed.queue_name, queue_partition_key=failed.queue_partition_key
    )
    assert handle.get_result() == "did b'1'"
    assert handle.get_status().queue_partition_key == f"{kafka['group.id']}:{topic}:0"
    assert seen == [*numbered(4), b"1"]


def test_a_message_whose_step_is_tried_again_holds_back_those_behind_it(
    unlaunched: type[DBOS], cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R174; section 15, 19: the way to retry and keep the order."""
    tries: list[Any] = []
    done = threading.Event()

    @DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0.001)
    def handle(value: Any) -> None:
        tries.append(value)
        if value == b"0" and len(tries) < 4:
            raise ValueError("not yet")
        if value == b"2":
            done.set()

    @DBOS.kafka_consumer(kafka, [topic], ordering="partition")
    @DBOS.workflow(name="on_message")
    def on_message(message: KafkaMessage) -> None:
        handle(message.value)

    cluster.produce(topic, numbered(3))
    DBOS.launch()
    assert done.wait(20)
    assert tries == [b"0", b"0", b"0", b"0", b"1", b"2"]


class FatalMessage:
    """An event of the client library: its state cannot be mended."""

    class Error:
        def code(self) -> int:
            return -150

        def fatal(self) -> bool:
            return True

        def __str__(self) -> str:
            return "fatal: simulated"

    def error(self) -> Error:
        return self.Error()


def test_after_a_fatal_error_the_consumer_is_made_anew(
    unlaunched: type[DBOS],
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R172: what came with it in the batch is enqueued before."""
    monkeypatch.setattr(consumers, "FIRST_WAIT_SECONDS", 0.01)
    handle, fatal = consumers.Consumer._handle, [FatalMessage()]

    def with_fatal(self: consumers.Consumer, messages: Any) -> None:
        handle(self, [*messages, fatal.pop()] if fatal else messages)

    monkeypatch.setattr(consumers.Consumer, "_handle", with_fatal)
    received = declare(kafka, [topic])
    cluster.produce(topic, [b"before"])
    DBOS.launch()
    assert received.wait_for(1) == [b"before"]
    wait_until(lambda: "is made anew in 0.01 s" in caplog.text)
    cluster.produce(topic, [b"after"])
    assert received.wait_for(2) == [b"before", b"after"]
    assert "fatal: simulated" in caplog.text


def test_a_broken_client_that_does_not_close_is_left_behind(
    unlaunched: type[DBOS],
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R172: librdkafka was seen to wait for ever there, after it had left the group."""
    monkeypatch.setattr(consumers, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(consumers, "LONGEST_CLOSE_SECONDS", 0.5)
    handle, fatal = consumers.Consumer._handle, [FatalMessage()]
    close, let_go = consumers.Consumer._close, threading.Event()

    def with_fatal(self: consumers.Consumer, messages: Any) -> None:
        handle(self, [*messages, fatal.pop()] if fatal else messages)

    def close_and_hang(self: consumers.Consumer, client: Any) -> None:
        close(self, client)
        if threading.current_thread().name == "dbos-kafka-close":
            let_go.wait()

    monkeypatch.setattr(consumers.Consumer, "_handle", with_fatal)
    monkeypatch.setattr(consumers.Consumer, "_close", close_and_hang)
    received = declare(kafka, [topic])
    cluster.produce(topic, [b"before"])
    DBOS.launch()
    assert received.wait_for(1) == [b"before"]
    wait_until(lambda: "has not closed within 0.5 s and is left behind" in caplog.text)
    cluster.produce(topic, [b"after"])
    assert received.wait_for(2) == [b"before", b"after"]
    DBOS.destroy()
    assert consumer_threads() == []
    let_go.set()


def test_a_fatal_error_leaves_the_loop(app: type[DBOS], topic: str, kafka: Config) -> None:
    """03 R172."""
    declare(kafka, ["elsewhere"])
    consumer = consumers.Consumer(the_engine(), state.registry.kafka_consumers[-1])
    with pytest.raises(KafkaException):
        consumer._handle([FatalMessage()])


@pytest.mark.parametrize("listens_to", [["other"], ["mine"], None])
def test_a_queue_of_your_own_that_this_process_does_not_serve_is_told(
    unlaunched: type[DBOS],
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    listens_to: list[str] | None,
) -> None:
    """03 R164, section 14: else its messages would wait without a word."""
    declare(kafka, [topic], queue_name="mine")
    if listens_to is not None:
        DBOS.listen_queues(listens_to)
    DBOS.launch()
    told = "enqueues on 'mine', which this process does not serve" in caplog.text
    assert told == (listens_to == ["other"])


@pytest.mark.parametrize("seconds", [0, 0.0009, -1, float("inf"), float("nan")])
def test_an_interval_of_the_own_queues_out_of_range_is_refused(config: Config, seconds: float) -> None:
    """03 R164."""
    with pytest.raises(DBOSInitializationError, match="kafka_queue_polling_interval_sec"):
        DBOS(config=config | {"kafka_queue_polling_interval_sec": seconds})  # type: ignore[arg-type]
    assert state.instance is None


def test_the_pauses_of_a_failing_batch_grow_to_a_limit(
    unlaunched: type[DBOS],
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R170: from a second, doubled, to a minute; here a thousandth of it. Nothing is consumed meanwhile."""
    assert (consumers.FIRST_WAIT_SECONDS, consumers.LONGEST_WAIT_SECONDS) == (1.0, 60.0)
    monkeypatch.setattr(consumers, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(consumers, "LONGEST_WAIT_SECONDS", 0.06)
    received = declare(kafka, [topic], batch_size=1)
    DBOS.launch()
    store = the_engine().store
    enqueue, asked = store.enqueue_workflows, []

    def failing(enqueues: Any, *given: Any) -> Any:
        asked.append([enqueued.record.workflow_id for enqueued in enqueues])
        if len(asked) <= 9:
            raise RuntimeError("simulated")
        return enqueue(enqueues, *given)

    monkeypatch.setattr(store, "enqueue_workflows", failing)
    cluster.produce(topic, numbered(2))
    assert sorted(received.wait_for(2)) == numbered(2)
    assert asked[:10] == [asked[0]] * 10
    pauses = [message.split("next try in ")[1].split(" s")[0] for message in caplog.messages if "next try" in message]
    assert pauses == ["0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.06", "0.06", "0.06"]
