"""Many callers of one key while runs begin: nothing is lost, nothing runs with older arguments (03 R148 to R152)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, Debouncer
from tests.debouncing.recording import Call, check, debounce_often, declare
from tests.helpers import rows
from tests.programs import StartProgram, wait_until_ready

WORKER = Path(__file__).with_name("worker.py")
THREADS = 12
CALLS = 40
PROCESSES = 3


@pytest.fixture
def application(config: dict[str, Any]) -> Iterator[type[DBOS]]:
    """Launched, with the workflow of `recording`."""
    declare()
    DBOS(config=config)
    DBOS.launch()
    yield DBOS
    DBOS.destroy(destroy_registry=True)


def runs(database_url: str) -> list[dict[str, Any]]:
    return rows(database_url, "SELECT workflow_uuid, status FROM workflow_status WHERE name = 'debounced_often'")


def check_runs(database_url: str, calls: list[Call]) -> None:
    """Each workflow stands for a call, and has run."""
    found = runs(database_url)
    assert {row["workflow_uuid"] for row in found} == {call.workflow_id for call in calls}
    assert {row["status"] for row in found} == {"SUCCESS"}
    assert 1 < len(found) < len(calls), "runs did not begin between the calls, or nothing was debounced"


def test_threads_on_one_key_while_runs_begin(application: type[DBOS], database_url: str) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        made = [
            call
            for calls in pool.map(lambda number: debounce_often(f"thread {number}", CALLS), range(THREADS))
            for call in calls
        ]
    # Alone now: its arguments are the newest of all.
    last = debounce_often("last", 1)
    assert last[0].result == "last 0"
    check(made + last)
    check_runs(database_url, made + last)


def test_tasks_on_one_key(application: type[DBOS], database_url: str) -> None:
    debouncer = Debouncer[[Any], Any]("debounced_often")

    async def main() -> None:
        handles = await asyncio.gather(*[debouncer.debounce_async("key", 1000, number) for number in range(100)])
        assert len({handle.workflow_id for handle in handles}) == 1
        last = await debouncer.debounce_async("key", 0, "last")
        assert {await handle.get_result() for handle in [*handles, last]} == {"last"}

    asyncio.run(main())
    assert len(runs(database_url)) == 1


def test_first_calls_at_the_same_moment_make_one_workflow(application: type[DBOS], database_url: str) -> None:
    """03 R152: who comes second to insert bounces."""
    debouncer = Debouncer[[Any], Any]("debounced_often")
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(20):
            found = set(
                pool.map(
                    lambda value, key=f"key {number}": debouncer.debounce(key, 1000, value).workflow_id, range(THREADS)
                )
            )
            assert len(found) == 1
    assert len(runs(database_url)) == 20


def test_workflows_on_one_key_while_runs_begin(application: type[DBOS], database_url: str) -> None:
    """03 R158: with a step for every call."""

    @DBOS.workflow(name="parent")
    def parent(name: str) -> list[dict[str, Any]]:
        return [call.__dict__ for call in debounce_often(name, 10)]

    handles = [DBOS.start_workflow(parent, f"parent {number}") for number in range(THREADS)]
    made = [Call(**call) for handle in handles for call in handle.get_result()]
    check(made)
    check_runs(database_url, made)


def test_processes_on_one_key(application: type[DBOS], database_url: str, start_program: StartProgram) -> None:
    """03 section 11.1: any number of processes share a key."""
    workers = [start_program(WORKER, database_url, f"worker {number}", str(CALLS)) for number in range(PROCESSES)]
    for worker in workers:
        wait_until_ready(worker)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    made = debounce_often("here", CALLS)
    for worker in workers:
        assert worker.stdout is not None
        made += [Call(**call) for call in json.loads(worker.stdout.readline())]
    last = debounce_often("last", 1)
    assert last[0].result == "last 0"
    check(made + last)
    check_runs(database_url, made + last)
