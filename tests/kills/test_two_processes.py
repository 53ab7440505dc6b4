"""Two processes, one workflow: exactly one of them owns it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kills.campaign import expected_outcome
from tests.kills.processes import Observer, SideLog, Worker

STEPS = 10
PAUSED_AT = 5
ORDERS_EACH = 5


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_process_paused_in_a_step_loses_its_workflow_to_the_one_that_takes_over(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    with Worker(database_url, log) as first, Worker(database_url, log) as second:
        first.command("pause", id="w", kind=kind, steps=STEPS, at=PAUSED_AT)
        first.expect("launched")
        first.wait_until_paused()
        assert observer.recorded() == {("w", step) for step in range(1, PAUSED_AT)}

        second.command("finish", ids=["w"])
        second.expect("launched")
        outcome = second.next_message()
        second.wait()
        assert outcome == {"w": ["SUCCESS", f"{sum(range(STEPS + 1))} from process {second.pid}"]}
        rows = rows_of(observer)

        first.wake()
        assert first.next_message() == outcome, "both processes report the one outcome there is"
        first.wait()
    assert rows_of(observer) == rows, "the paused process has written something"
    executed = log.executions()
    assert [step for pid, (_, step) in executed if pid == first.pid] == list(range(1, PAUSED_AT + 1))
    assert [step for pid, (_, step) in executed if pid == second.pid] == list(range(PAUSED_AT, STEPS + 1))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_process_that_lost_its_workflow_cannot_write_a_step_the_new_owner_has_not_written_yet(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    with Worker(database_url, log) as first, Worker(database_url, log) as second:
        first.command("pause", id="w", kind=kind, steps=STEPS, at=PAUSED_AT)
        first.expect("launched")
        first.wait_until_paused()
        second.command("finish", ids=["w"], at=PAUSED_AT)
        second.wait_until_paused()
        rows = rows_of(observer)

        # The row of step 5 is free: only the ownership stands between the first process and it.
        first.wake()
        first.wait_for_log("another execution owns the workflow")
        assert rows_of(observer) == rows, "the process that lost the workflow has written something"

        second.wake()
        second.expect("launched")
        outcome = second.next_message()
        assert outcome == {"w": ["SUCCESS", f"{sum(range(STEPS + 1))} from process {second.pid}"]}
        assert first.next_message() == outcome, "both processes report the one outcome there is"
        first.wait()
        second.wait()
    executed = log.executions()
    assert [step for pid, (_, step) in executed if pid == first.pid] == list(range(1, PAUSED_AT + 1))
    assert [step for pid, (_, step) in executed if pid == second.pid] == list(range(PAUSED_AT, STEPS + 1))


def rows_of(observer: Observer) -> list[object]:
    return [
        observer.query(f"SELECT * FROM {{}}{table} ORDER BY 1, 2")
        for table in ("workflow_status", "workflow_output", "operation_outputs")
    ]


def test_processes_that_launch_at_once_on_an_empty_database_all_work(database_url: str, tmp_path: Path) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(database_url, log, executor=f"executor-{number}")) for number in range(4)]
        for number, worker in enumerate(workers):
            worker.command("load", first=number * ORDERS_EACH + 1, count=ORDERS_EACH)
        for worker in workers:
            worker.expect("launched")
        last = stack.enter_context(Worker(database_url, log, executor="last"))
        ids = [f"order-{number}" for number in range(1, len(workers) * ORDERS_EACH + 1)]
        log.wait_until_started(ids)
        last.command("finish", ids=ids)
        last.expect("launched")
        outcomes = last.next_message()
    assert outcomes == {workflow_id: expected_outcome(int(workflow_id.split("-")[1])) for workflow_id in ids}
    steps = [step for _, step in log.executions()]
    assert len(steps) == len(set(steps)), "a step was executed by two processes"
    assert observer.query("SELECT COUNT(*) FROM {}dbos_migrations") == [(1,)]
