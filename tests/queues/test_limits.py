"""What counts against a limit, and what a claimed workflow sees (03 sections 6.4, 6.8 and 9)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dbos import DBOS, DBOSContextSetAuth, SetEnqueueOptions, SetWorkflowAttributes, SetWorkflowTimeout
from dbos.error import DBOSNotAuthorizedError
from tests.helpers import Gate, declare_echo, rows, status_row, wait_for_status, wait_until

Config = dict[str, Any]


def probe(echo: Any) -> None:
    """Returns when whatever may start has had its turn: a workflow enqueued afterwards, on the last queue, has run."""
    DBOS.register_queue("~probe")
    DBOS.enqueue_workflow("~probe", echo).get_result()


def insert_running(database_url: str, workflow_id: str, **given: Any) -> None:
    """A workflow that another process runs, or has left behind."""
    row = {
        "workflow_uuid": workflow_id,
        "status": "PENDING",
        "name": "echo",
        "queue_name": "mail",
        "executor_id": "another",
        "application_version": "v0",
        "application_name": "test-app",
        "owner_xid": "another",
    } | given
    row |= {"created_at": 1, "updated_at": 1}
    rows(
        database_url,
        f"INSERT INTO workflow_status ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
        *row.values(),
    )


def test_what_any_process_of_the_application_runs_takes_a_place(app: type[DBOS], database_url: str) -> None:
    """03 R78, R112: of any executor and version, also a dead one's until it is recovered."""
    echo = declare_echo()
    insert_running(database_url, "theirs")
    DBOS.register_queue("mail", global_concurrency=1)
    handle = DBOS.enqueue_workflow("mail", echo, 1)
    probe(echo)
    assert status_row(database_url, handle.workflow_id)["status"] == "ENQUEUED"
    DBOS.cancel_workflow("theirs")
    assert handle.get_result() == 1


def test_what_another_application_runs_takes_no_place(app: type[DBOS], database_url: str) -> None:
    """03 R79: a queue that nobody owns is limited for each application."""
    echo = declare_echo()
    DBOS.register_queue("mail", global_concurrency=1)
    rows(database_url, "UPDATE queues SET application_name = NULL")
    insert_running(database_url, "theirs", application_name="other-app")
    assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    insert_running(database_url, "unclaimed", application_name=None)
    handle = DBOS.enqueue_workflow("mail", echo, 2)
    probe(echo)
    assert status_row(database_url, handle.workflow_id)["status"] == "ENQUEUED"


def test_a_dead_executor_blocks_its_partition_and_no_other(app: type[DBOS], database_url: str) -> None:
    """03 R112."""
    echo = declare_echo()
    insert_running(database_url, "theirs", queue_partition_key="one")
    DBOS.register_queue("mail", partition_concurrency=1)
    handles = {}
    for key in ("one", "two"):
        with SetEnqueueOptions(queue_partition_key=key):
            handles[key] = DBOS.enqueue_workflow("mail", echo, key)
    assert handles["two"].get_result() == "two"
    assert status_row(database_url, handles["one"].workflow_id)["status"] == "ENQUEUED"
    DBOS.cancel_workflow("theirs")
    assert handles["one"].get_result() == "one"


def test_lowering_a_limit_stops_nothing_that_runs(app: type[DBOS], database_url: str) -> None:
    """03 R78."""
    gate = Gate()

    @DBOS.workflow()
    def work(number: int) -> int:
        gate.wait()
        return number

    queue = DBOS.register_queue("mail", global_concurrency=3)
    handles = [DBOS.enqueue_workflow("mail", work, number) for number in range(4)]
    wait_until(lambda: len(DBOS.list_queued_workflows(status="PENDING")) == 3)
    queue.set_global_concurrency(1)
    probe(declare_echo())
    assert len(DBOS.list_queued_workflows(status="PENDING")) == 3
    gate.open()
    assert [handle.get_result() for handle in handles] == [0, 1, 2, 3]


def test_a_limit_per_partition_and_process(app: type[DBOS]) -> None:
    """03 R75: partition_worker_concurrency, counted in memory."""
    gate = Gate()
    lock, running, most = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}

    @DBOS.workflow()
    def work(key: str) -> None:
        with lock:
            running[key] += 1
            most[key] = max(most[key], running[key])
        gate.wait()
        with lock:
            running[key] -= 1

    DBOS.register_queue("mail", partition_worker_concurrency=2)
    handles = []
    for number in range(24):
        with SetEnqueueOptions(queue_partition_key="ab"[number % 2]):
            handles.append(DBOS.enqueue_workflow("mail", work, "ab"[number % 2]))
    wait_until(lambda: running == {"a": 2, "b": 2})
    gate.open()
    for handle in handles:
        handle.get_result()
    assert most == {"a": 2, "b": 2}


@pytest.mark.parametrize("how", ["cancel", "delete", "resume"])
def test_a_start_that_is_taken_back_gives_its_slot_of_the_rate_limit_back(
    app: type[DBOS], database_url: str, how: str
) -> None:
    """03 R81; starts from before the queue had a limiter do not count."""
    gate = Gate()
    echo = declare_echo()

    @DBOS.workflow()
    def work() -> None:
        gate.wait()

    queue = DBOS.register_queue("mail")
    DBOS.enqueue_workflow("mail", echo).get_result()
    queue.set_limiter({"limit": 1, "period": 3600})
    first = DBOS.enqueue_workflow("mail", work)
    wait_for_status(database_url, first.workflow_id, "PENDING")
    second = DBOS.enqueue_workflow("mail", echo, 2)
    probe(echo)
    assert status_row(database_url, second.workflow_id)["status"] == "ENQUEUED"
    if how == "cancel":
        DBOS.cancel_workflow(first.workflow_id)
    elif how == "resume":
        DBOS.resume_workflow(first.workflow_id, queue_name="elsewhere")
    else:
        rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = %s", first.workflow_id)
    assert second.get_result() == 2
    gate.open()


def test_a_claimed_workflow_runs_as_its_enqueuer_without_its_options(app: type[DBOS], database_url: str) -> None:
    """03 R94: id, user, roles and deadline are the row's; ambient options end at the queue."""
    echo = declare_echo()

    @DBOS.workflow()
    def work() -> tuple[Any, ...]:
        child = DBOS.enqueue_workflow("nowhere", echo).workflow_id
        return DBOS.workflow_id, DBOS.authenticated_user, DBOS.authenticated_roles, child

    DBOS.register_queue("mail")
    with (
        DBOSContextSetAuth("ann", ["admin"]),
        SetWorkflowTimeout(300),
        SetWorkflowAttributes({"a": 1}),
        SetEnqueueOptions(priority=3),
    ):
        handle = DBOS.enqueue_workflow("mail", work)
    workflow_id, user, roles, child = handle.get_result()
    assert (workflow_id, user, roles) == (handle.workflow_id, "ann", ["admin"])
    parent, row = status_row(database_url, workflow_id), status_row(database_url, child)
    assert (row["priority"], row["attributes"], row["workflow_timeout_ms"]) == (0, None, None)
    assert row["workflow_deadline_epoch_ms"] == parent["workflow_deadline_epoch_ms"]


def test_a_claimed_workflow_without_the_role_ends_in_an_error_and_others_run(app: type[DBOS]) -> None:
    """03 R93, R96."""
    echo = declare_echo()

    @DBOS.workflow()
    @DBOS.required_roles(["admin"])
    def guarded() -> None:
        pass

    DBOS.register_queue("mail", global_concurrency=1)
    with DBOSContextSetAuth("bob", ["reader"]):
        refused = DBOS.enqueue_workflow("mail", guarded)
    after = DBOS.enqueue_workflow("mail", echo, 1)
    with pytest.raises(DBOSNotAuthorizedError):
        refused.get_result()
    assert after.get_result() == 1


def test_arguments_that_cannot_be_read_end_the_workflow_and_others_run(app: type[DBOS], database_url: str) -> None:
    """03 R93, R96."""
    echo = declare_echo()
    queue = DBOS.register_queue("mail", global_concurrency=0)
    broken, fine = DBOS.enqueue_workflow("mail", echo, 1), DBOS.enqueue_workflow("mail", echo, 2)
    rows(database_url, "UPDATE workflow_input SET inputs = 'broken' WHERE workflow_uuid = %s", broken.workflow_id)
    queue.set_global_concurrency(1)
    assert fine.get_result() == 2
    with pytest.raises(Exception):  # noqa: B017 - whatever the serializer says
        broken.get_result()
    assert status_row(database_url, broken.workflow_id)["status"] == "ERROR"


def test_work_without_a_version_waits_for_the_latest(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R41, R71: it is not for older versions."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    DBOS.destroy()
    DBOS(config=config | {"application_version": "v2"})
    DBOS.launch()
    DBOS.destroy()
    DBOS(config=config)
    DBOS.launch()
    named = DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": "mail"}, 1)
    own = DBOS.enqueue_workflow("mail", echo, 2)
    assert own.get_result() == 2
    assert status_row(database_url, named.workflow_id)["status"] == "ENQUEUED"
    DBOS.set_latest_application_version("v1")
    assert named.get_result() == 1


def test_a_newly_registered_queue_is_found_by_processes_that_run(app: type[DBOS], database_url: str) -> None:
    """03 R63: one that appears in the database without a word."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("new", echo, 1)
    DBOS.register_queue("model", worker_concurrency=2)
    columns = "concurrency, worker_concurrency, polling_interval_sec, created_at, updated_at, application_name"
    rows(
        database_url,
        f"INSERT INTO queues (queue_id, name, {columns}) SELECT 'id', 'new', {columns} FROM queues",
    )
    assert handle.get_result() == 1


def test_work_on_a_queue_of_another_application_is_for_that_application(app: type[DBOS], database_url: str) -> None:
    """03 R27: this process does not serve it, whosever the work is."""
    echo = declare_echo()
    DBOS.register_queue("model")
    columns = "polling_interval_sec, created_at, updated_at"
    rows(
        database_url,
        f"INSERT INTO queues (queue_id, name, application_name, {columns}) "
        f"SELECT 'id', 'theirs', 'other-app', {columns} FROM queues",
    )
    named: Any = {"workflow_name": "echo", "queue_name": "theirs", "application_name": "other-app"}
    handles = [DBOS.enqueue_workflow("theirs", echo), DBOS.enqueue_workflow_with_options(named)]
    probe(echo)
    for handle in handles:
        row = status_row(database_url, handle.workflow_id)
        assert (row["status"], row["recovery_attempts"]) == ("ENQUEUED", 0)
