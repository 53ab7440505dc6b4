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

        second.command("finish", ids=["w"], take=True)
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
        second.command("finish", ids=["w"], at=PAUSED_AT, take=True)
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


def test_a_process_that_stands_still_is_not_dead(database_url: str, tmp_path: Path) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    with ExitStack() as stack:
        paused, killed, looker = [
            stack.enter_context(Worker(database_url, log, executor=name)) for name in ("paused", "killed", "looker")
        ]
        paused.command("pause", id="w", kind="sync", steps=STEPS, at=PAUSED_AT)
        paused.expect("launched")
        paused.wait_until_paused()
        rows = rows_of(observer)
        killed.command("pause", id="other", kind="sync", steps=STEPS, at=PAUSED_AT)
        killed.expect("launched")
        killed.wait_until_paused()
        looker.command("finish", ids=["other"])
        looker.expect("launched")
        killed.kill()
        # It takes over what the killed one ran, so it has looked; and what the paused one runs stays.
        outcome = looker.next_message()
        assert outcome == {"other": ["SUCCESS", f"{sum(range(STEPS + 1))} from process {looker.pid}"]}
        assert rows_of(observer, "w") == rows
        paused.wake()
        assert paused.next_message() == {"w": ["SUCCESS", f"{sum(range(STEPS + 1))} from process {paused.pid}"]}


def test_a_launch_with_the_executor_id_of_a_live_process_leaves_its_work_alone(
    database_url: str, tmp_path: Path
) -> None:
    log = SideLog(tmp_path / "side.log")
    with Worker(database_url, log) as first, Worker(database_url, log) as second:
        first.command("run", first=1, count=4, rounds=30)
        first.expect("launched")
        first.expect("started")
        second.command("finish", ids=[f"long-{number}" for number in range(1, 5)])
        second.expect("launched")
        outcomes = first.next_message()
        assert second.next_message() == outcomes
    executed = log.executions()
    assert {pid for pid, _ in executed} == {first.pid}
    assert len(executed) == len({step for _, step in executed})


def rows_of(observer: Observer, workflow_id: str = "%") -> list[object]:
    """The rows of a workflow, or of all."""
    return [
        observer.query(f"SELECT * FROM {{}}{table} WHERE workflow_uuid LIKE '{workflow_id}' ORDER BY 1, 2")
        for table in ("workflow_status", "workflow_output", "operation_outputs")
    ]


@pytest.mark.empty_database
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
