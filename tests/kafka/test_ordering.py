"""In which order messages become workflows, and run (03 section 12: R169, R173, R174)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dbos import DBOS, KafkaMessage, SetEnqueueOptions
from tests.helpers import Gate, rows, wait_until
from tests.kafka.cluster import MockCluster
from tests.kafka.test_consuming import declare, kafka_rows, numbered

Config = dict[str, Any]


def test_creation_times_grow_within_a_key(
    unlaunched: type[DBOS], config: Config, database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R173: also from one process to the next."""
    gate = Gate()

    @DBOS.kafka_consumer(kafka, [topic], ordering="partition")
    @DBOS.workflow(name="on_message")
    def on_message(message: KafkaMessage) -> None:
        gate.wait()

    def times(partition: int) -> list[int]:
        found = [row for row in kafka_rows(database_url) if row["queue_partition_key"].endswith(f":{partition}")]
        return [row["created_at"] for row in sorted(found, key=lambda row: int(row["workflow_uuid"].rsplit("-")[-1]))]

    cluster.produce(topic, numbered(300), partition=0)
    cluster.produce(topic, numbered(10), partition=1)
    DBOS.launch()
    wait_until(lambda: len(kafka_rows(database_url)) == 310)
    for partition, count in ((0, 300), (1, 10)):
        found = times(partition)
        assert len(found) == count
        assert found == sorted(set(found))
    # As if many had come within a millisecond: what waits is younger than the clock.
    future = int(time.time() * 1000) + 1_000_000
    rows(database_url, "UPDATE workflow_status SET created_at = created_at + 1000000 WHERE status = 'ENQUEUED'")
    newest = max(times(0))
    DBOS.destroy()
    cluster.produce(topic, numbered(3), partition=0)
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    wait_until(lambda: len(kafka_rows(database_url)) == 313)
    assert times(0)[-3:] == [newest + 1, newest + 2, newest + 3]
    assert newest > future - 1_000_000
    gate.open()


def test_rows_without_a_key_share_the_time_of_their_batch(
    unlaunched: type[DBOS], database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R173."""
    received = declare(kafka, [topic], batch_size=1000)
    cluster.produce(topic, numbered(300))
    DBOS.launch()
    received.wait_for(300)
    found = kafka_rows(database_url)
    assert len({row["created_at"] for row in found}) < 100
    assert all(row["created_at"] <= row["started_at_epoch_ms"] for row in found)


@pytest.mark.parametrize("ordering", ["partition", "topic"])
def test_messages_of_a_key_run_one_at_a_time_in_order(
    unlaunched: type[DBOS],
    config: Config,
    database_url: str,
    cluster: MockCluster,
    topic: str,
    kafka: Config,
    ordering: Any,
) -> None:
    """03 R174: a failed message does not stop the next one; keys are independent of each other.

    Section 14: none waits for a poll, which would take a minute here.
    """
    DBOS.destroy()
    DBOS(config=config | {"kafka_queue_polling_interval_sec": 60.0})  # type: ignore[arg-type]
    lock = threading.Lock()
    running: dict[int, int] = {}
    seen: dict[int, list[Any]] = {0: [], 1: []}
    most = 0
    both = threading.Event()

    @DBOS.kafka_consumer(kafka, [topic], ordering=ordering)
    @DBOS.workflow(name="on_message")
    def on_message(message: KafkaMessage) -> None:
        nonlocal most
        partition = message.partition
        assert partition is not None
        with lock:
            running[partition] = running.get(partition, 0) + 1
            most = max(most, running[partition] if ordering == "partition" else sum(running.values()))
            if sum(running.values()) == 2:
                both.set()
            seen[partition].append(message.value)
        if ordering == "partition" and message.offset == 0:
            # The other partition does not wait for this one.
            both.wait(10)
        with lock:
            running[partition] -= 1
        if message.value == b"3":
            raise ValueError("this one fails")

    cluster.produce(topic, numbered(30), partition=0)
    cluster.produce(topic, numbered(30), partition=1)
    DBOS.launch()
    wait_until(lambda: len(seen[0]) + len(seen[1]) == 60)
    assert seen == {0: numbered(30), 1: numbered(30)}
    assert most == 1
    assert both.is_set() == (ordering == "partition")
    wait_until(lambda: all(row["status"] in ("SUCCESS", "ERROR") for row in kafka_rows(database_url)))
    assert [row["status"] for row in kafka_rows(database_url)].count("ERROR") == 2


def test_many_messages_are_enqueued_in_batches(
    unlaunched: type[DBOS], database_url: str, cluster: MockCluster, topic: str, kafka: Config
) -> None:
    """03 R169: and what is ambient at the declaration does not reach their workflows."""
    with SetEnqueueOptions(priority=5, deduplication_id="d"):
        received = declare(kafka, [topic])
        cluster.produce(topic, numbered(2_000))
        DBOS.launch()
    assert sorted(received.wait_for(2_000)) == sorted(numbered(2_000))
    found = kafka_rows(database_url)
    assert len(found) == 2_000
    assert {(row["priority"], row["deduplication_id"]) for row in found} == {(0, None)}
