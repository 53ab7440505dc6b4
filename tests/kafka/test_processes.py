"""Processes that consume and are killed: every message runs once, in order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS
from tests.helpers import rows, wait_until
from tests.kafka.cluster import PARTITIONS, MockCluster

ROOT = Path(__file__).parent.parent.parent
MESSAGES = 150  # of each partition

StartWorker = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """One that soon takes the partitions from a process that is gone."""
    cluster = MockCluster(session_timeout_ms=1000)
    yield cluster
    cluster.close()


@pytest.fixture
def start_worker(database_url: str, cluster: MockCluster, topic: str, kafka: dict[str, Any]) -> Iterator[StartWorker]:
    DBOS.migrate(database_url)
    processes: list[subprocess.Popen[str]] = []

    def start(executor_id: str) -> subprocess.Popen[str]:
        arguments = [database_url, cluster.servers, kafka["group.id"], topic, executor_id]
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_after_kills_every_message_has_run_once_and_in_order(
    start_worker: StartWorker, database_url: str, cluster: MockCluster, topic: str, kafka: dict[str, Any]
) -> None:
    """03 R167, R169, R173, R174: the offsets that a killed process has not committed come again, and are recognised."""

    def finished() -> int:
        (found,) = rows(database_url, "SELECT COUNT(*) AS n FROM workflow_status WHERE status = 'SUCCESS'")
        return int(found["n"])

    def produce(first: int, end: int) -> None:
        for partition in range(PARTITIONS):
            cluster.produce(topic, [b"%d" % number for number in range(first, end)], partition=partition)

    total = PARTITIONS * MESSAGES
    first = 0
    for _ in range(3):
        produce(first, first + MESSAGES // 4)
        first += MESSAGES // 4
        worker = start_worker("one")
        # In the middle of what is new.
        wait_until(lambda first=first: finished() >= PARTITIONS * (first - MESSAGES // 8), 60)
        worker.kill()
        worker.wait()
    produce(first, MESSAGES)
    start_worker("one")
    wait_until(lambda: finished() == total, 60)
    found = rows(database_url, "SELECT * FROM workflow_status WHERE name = 'on_message'")
    assert len(found) == total
    for partition in range(PARTITIONS):
        ids = [f"kafka-unique-id-{topic}-{partition}-{kafka['group.id']}-{number}" for number in range(MESSAGES)]
        of_partition = {row["workflow_uuid"]: row for row in found if row["workflow_uuid"] in ids}
        ordered = [of_partition[workflow_id] for workflow_id in ids]
        created = [row["created_at"] for row in ordered]
        assert created == sorted(set(created))
        # Who was cut off starts again before those behind it.
        started = [row["started_at_epoch_ms"] for row in ordered]
        assert started == sorted(started)
    notes = rows(database_url, "SELECT COUNT(*) AS n FROM operation_outputs WHERE function_name = 'note'")
    assert notes[0]["n"] == total
