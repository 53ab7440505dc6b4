"""Queues served by several processes: limits are exact, starts are quick, the dead give way (03 sections 6, 9, 15)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dbos import DBOS, EnqueueOptions
from tests.helpers import rows, wait_until

ROOT = Path(__file__).parent.parent.parent
WORKERS = 4
VERSIONS = ("v1", "v2")
TASKS = 240

StartWorker = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def start_worker(database_url: str) -> Iterator[StartWorker]:
    processes: list[subprocess.Popen[str]] = []

    def start(executor_id: str, version: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), database_url, executor_id, version],
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


def wait_until_ready(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


def most_at_once(found: list[dict[str, Any]]) -> int:
    """The most that ran at the same moment, by the times in the database; who ends frees its place first."""
    moments = sorted(
        [(row["started"], 1) for row in found] + [(row["ended"], -1) for row in found],
        key=lambda moment: (moment[0], moment[1]),
    )
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def most_in_window(found: list[dict[str, Any]], period_ms: int) -> int:
    starts = sorted(row["started"] for row in found)
    return max(sum(1 for other in starts[i:] if other < start + period_ms) for i, start in enumerate(starts))


def by(found: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault(row[key], []).append(row)
    return groups


LIMITS: dict[str, dict[str, Any]] = {
    "global": {"global_concurrency": 5},
    "worker": {"worker_concurrency": 2},
    "partition": {"partition_concurrency": 2},
    "rate": {"limiter": {"limit": 30, "period": 0.25}},
    "partition rate": {"partition_limiter": {"limit": 8, "period": 0.25}},
    "all": {
        "global_concurrency": 6,
        "worker_concurrency": 3,
        "partition_concurrency": 2,
        "partition_worker_concurrency": 1,
        "limiter": {"limit": 40, "period": 0.25},
    },
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_limits_are_exact_over_processes_and_versions(
    app: type[DBOS], database_url: str, start_worker: StartWorker, limits: dict[str, Any]
) -> None:
    """03 R75, R78, R80, R89 and section 15, 4: four processes of two versions on one queue."""
    for number in range(TASKS):
        options: EnqueueOptions = {
            "workflow_name": "busy",
            "queue_name": "mail",
            "app_version": VERSIONS[number % 2],
            "queue_partition_key": f"key {number % 5}",
        }
        DBOS.enqueue_workflow_with_options(options, 0.01)
    wait_until_ready(*[start_worker(f"worker-{i}", VERSIONS[i % 2]) for i in range(WORKERS)])
    # Only now: the workers begin at the same moment, with everything waiting.
    DBOS.register_queue("mail", **limits, on_conflict="always_update")

    def waiting() -> int:
        (row,) = rows(database_url, "SELECT count(*) AS n FROM workflow_status WHERE status <> 'SUCCESS'")
        return int(row["n"])

    wait_until(lambda: waiting() == 0, 120)
    found = rows(
        database_url,
        "SELECT started_at_epoch_ms AS started, completed_at AS ended, executor_id, queue_partition_key AS part, "
        "recovery_attempts FROM workflow_status",
    )
    assert len(found) == TASKS
    assert {row["recovery_attempts"] for row in found} == {1}
    groups: list[tuple[str, list[list[dict[str, Any]]]]] = [
        ("global_concurrency", [found]),
        ("worker_concurrency", list(by(found, "executor_id").values())),
        ("partition_concurrency", list(by(found, "part").values())),
        (
            "partition_worker_concurrency",
            [part for own in by(found, "executor_id").values() for part in by(own, "part").values()],
        ),
    ]
    for name, parts in groups:
        if name in limits:
            assert max(most_at_once(part) for part in parts) <= limits[name], name
    for name, parts in (("limiter", [found]), ("partition_limiter", list(by(found, "part").values()))):
        if name in limits:
            limit, period_ms = limits[name]["limit"], int(limits[name]["period"] * 1000)
            assert max(most_in_window(part, period_ms) for part in parts) <= limit, name


def test_an_enqueue_is_started_by_another_process_within_milliseconds(
    app: type[DBOS], start_worker: StartWorker
) -> None:
    """03 section 15, 1: woken by a signal; a poll would take a minute here."""
    wait_until_ready(start_worker("worker", "v1"))
    DBOS.register_queue("mail", polling_interval_sec=60)
    options: EnqueueOptions = {"workflow_name": "noted", "queue_name": "mail"}
    delays = []
    for _ in range(20):
        delays.append(DBOS.enqueue_workflow_with_options(options, time.time()).get_result())
    assert median(delays) < 0.25


def test_the_work_of_a_killed_process_is_finished_by_its_successor(
    app: type[DBOS], database_url: str, start_worker: StartWorker
) -> None:
    """03 R109, R112, R113: nothing lost, each recorded once, limits hold again afterwards."""
    DBOS.register_queue("mail", global_concurrency=4)
    handles = [
        DBOS.enqueue_workflow_with_options({"workflow_name": "busy", "queue_name": "mail"}, 0.02) for _ in range(60)
    ]

    def count(status: str) -> int:
        (row,) = rows(database_url, "SELECT count(*) AS n FROM workflow_status WHERE status = %s", status)
        return int(row["n"])

    for enough in (5, 20, 40):
        worker = start_worker("worker", "v1")
        wait_until(lambda enough=enough: count("SUCCESS") >= enough)
        worker.kill()
        worker.wait()
    start_worker("worker", "v1")
    assert {handle.get_result() for handle in handles} == {"worker"}
    (row,) = rows(database_url, "SELECT count(*) AS n FROM workflow_output")
    assert row["n"] == 60
