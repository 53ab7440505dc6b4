"""Queues served by several processes: limits are exact, starts are quick, the dead give way (03 sections 6, 9, 15)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from dbos import DBOS, EnqueueOptions
from tests.helpers import rows, wait_until
from tests.programs import Process, StartProgram, wait_until_ready
from tests.queues import campaign
from tests.queues.campaign import Limits

TASKS = 240
# The campaign asks for 90 %; a test shares its machine. Woken by polls only, 50 ms of each second would be used.
ENOUGH_IN_TESTS = 0.1

StartWorker = Callable[[str, str], Process]


@pytest.fixture
def start_worker(database_url: str, start_program: StartProgram) -> StartWorker:
    return lambda executor_id, version: start_program(campaign.WORKER, database_url, executor_id, version)


@pytest.mark.parametrize("limits", campaign.LIMITS, ids=[limits.name for limits in campaign.LIMITS])
def test_limits_are_exact_over_processes_and_versions(database_url: str, tmp_path: Path, limits: Limits) -> None:
    """03 R75, R78, R80, R86, R88, R89; section 15, 4: four processes of two versions on one queue, and it is used."""
    outcome = campaign.run(database_url, limits, TASKS, tmp_path)
    assert outcome.violations == []
    assert outcome.utilisation > ENOUGH_IN_TESTS


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


def test_every_process_serves_every_queue(app: type[DBOS], start_worker: StartWorker) -> None:
    """03 R66: nothing ties a queue to a process."""
    names = ("mail", "print")
    for name in names:
        DBOS.register_queue(name, worker_concurrency=1)
    for worker in [start_worker(executor_id, "v1") for executor_id in ("one", "two")]:
        wait_until_ready(worker)
    seen: dict[str, set[str]] = {name: set() for name in names}

    def both_have_worked_on_all() -> bool:
        handles = {
            name: [
                DBOS.enqueue_workflow_with_options({"workflow_name": "busy", "queue_name": name}, 0.01)
                for _ in range(4)
            ]
            for name in names
        }
        for name in names:
            seen[name].update(handle.get_result() for handle in handles[name])
        return all(seen[name] == {"one", "two"} for name in names)

    wait_until(both_have_worked_on_all)


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
