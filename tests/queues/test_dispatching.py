"""The loop that serves all queues and the jobs beside it: trouble, idleness, the end (03 sections 6.2, 6.9 and 7)."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from dbos import DBOS, DBOSConfiguredInstance, SetEnqueueOptions
from dbos.engine import dispatcher as dispatching
from dbos.engine.dispatcher import Dispatcher
from dbos.storage.store import StoreUnavailable
from dbos.types import QueueConfig
from tests.helpers import Gate, declare_echo, rows, status_row, wait_for_status, wait_until
from tests.queues.test_limits import insert_running, probe
from tests.schedules.recording import the_engine

Config = dict[str, Any]


# --- what is served


def test_the_internal_queue_has_no_limits_and_those_of_kafka_are_served_only_where_they_are_needed(
    app: type[DBOS], database_url: str
) -> None:
    """03 R3."""
    echo = declare_echo()
    queue = the_engine().dispatcher.internal_queue("_dbos_internal_queue")
    assert queue == QueueConfig("_dbos_internal_queue")
    assert queue.polling_interval_seconds == 1.0
    assert (queue.has_concurrency, queue.has_shared_limits, queue.is_partitioned) == (False, False, False)
    handles = []
    for name in ("_dbos_kafka_queue", "_dbos_kafka_ordered_queue"):
        with SetEnqueueOptions(queue_partition_key="k"):
            handles.append(DBOS.enqueue_workflow(name, echo))
    probe(echo)
    assert [status_row(database_url, handle.workflow_id)["status"] for handle in handles] == ["ENQUEUED"] * 2


def test_deleting_a_queue_leaves_what_runs_and_what_is_delayed(app: type[DBOS], database_url: str) -> None:
    """03 R16."""
    gate = Gate()

    @DBOS.workflow()
    def work() -> str:
        gate.wait()
        return "done"

    DBOS.register_queue("mail")
    running = DBOS.enqueue_workflow("mail", work)
    wait_for_status(database_url, running.workflow_id, "PENDING")
    with SetEnqueueOptions(delay_seconds=3600):
        delayed = DBOS.enqueue_workflow("mail", work)
    DBOS.delete_queue("mail")
    gate.open()
    assert running.get_result() == "done"
    row = status_row(database_url, delayed.workflow_id)
    assert (row["status"], row["queue_name"]) == ("DELAYED", "mail")
    DBOS.set_workflow_delay(delayed.workflow_id, delay_until_epoch_ms=0)
    wait_for_status(database_url, delayed.workflow_id, "ENQUEUED")
    DBOS.register_queue("mail")
    assert delayed.get_result() == "done"


def test_listening_to_nothing_restricts_only_which_queues_are_served(config: Config, database_url: str) -> None:
    """03 R26: not enqueues, promotion, deadlines, or what is recovered or resumed."""
    DBOS(config=config)
    echo = declare_echo()
    DBOS.listen_queues([])
    DBOS.launch()
    DBOS.register_queue("mail")
    with SetEnqueueOptions(delay_seconds=3600):
        delayed = DBOS.enqueue_workflow("mail", echo)
    overdue = DBOS.enqueue_workflow("mail", echo)
    rows(
        database_url,
        "UPDATE workflow_status SET workflow_deadline_epoch_ms = 1 WHERE workflow_uuid = %s",
        overdue.workflow_id,
    )
    the_engine().deadlines.wake()
    DBOS.set_workflow_delay(delayed.workflow_id, delay_until_epoch_ms=0)
    wait_for_status(database_url, overdue.workflow_id, "CANCELLED")
    wait_for_status(database_url, delayed.workflow_id, "ENQUEUED")
    insert_running(database_url, "left", executor_id="gone", application_version="v1")
    assert the_engine().requeue_pending("gone") == ["left"]
    row = status_row(database_url, "left")
    assert (row["status"], row["queue_name"], row["owner_xid"]) == ("ENQUEUED", "mail", None)
    DBOS.destroy(destroy_registry=True)


# --- what a claim counts and bounds


@pytest.mark.parametrize("limits", [{"worker_concurrency": 1}, {"partition_worker_concurrency": 1}])
def test_what_another_process_runs_under_the_same_executor_id_takes_no_place_here(
    app: type[DBOS], database_url: str, limits: dict[str, Any]
) -> None:
    """03 R76: limits of a process are counted in its memory, not by the rows of its executor id."""
    echo = declare_echo()
    insert_running(database_url, "theirs", executor_id="test", application_version="v1", queue_partition_key="k")
    DBOS.register_queue("mail", **limits)
    with SetEnqueueOptions(queue_partition_key="k"):
        assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    assert status_row(database_url, "theirs")["status"] == "PENDING"


def test_a_claim_takes_a_bounded_part_of_a_backlog(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """03 section 15, 2: an unlimited queue is not drained into one process at once."""
    echo = declare_echo()
    handles = [DBOS.enqueue_workflow("mail", echo, number) for number in range(12)]
    monkeypatch.setattr(dispatching, "CLAIM_SIZE", 5)
    taken = note_claims(monkeypatch)
    DBOS.register_queue("mail")
    assert [handle.get_result() for handle in handles] == list(range(12))
    assert [len(claimed) for claimed in taken["mail"] if claimed] == [5, 5, 2]


@pytest.mark.parametrize(
    "limits",
    [
        {"partition_concurrency": 1},
        {"partition_concurrency": 2, "global_concurrency": 100},
        {"partition_limiter": {"limit": 1, "period": 60.0}},
    ],
    ids=repr,
)
def test_one_claim_takes_from_all_partitions(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    """03 R84; section 15, 7: whatever the limits, not one transaction for each partition."""
    echo = declare_echo()
    handles = []
    for number in range(30):
        with SetEnqueueOptions(queue_partition_key=f"key {number}"):
            handles.append(DBOS.enqueue_workflow("mail", echo, number))
    taken = note_claims(monkeypatch)
    DBOS.register_queue("mail", **limits)
    assert [handle.get_result() for handle in handles] == list(range(30))
    assert [len(claimed) for claimed in taken["mail"] if claimed] == [30]


def note_claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[Any]]]:
    """What each claim from now on takes, by queue."""
    store = the_engine().store
    claim = store.claim_workflows
    taken: dict[str, list[list[Any]]] = {}

    def noted(queue: QueueConfig, *given: Any) -> list[Any]:
        claimed = claim(queue, *given)
        taken.setdefault(queue.name, []).append(claimed)
        return claimed

    monkeypatch.setattr(store, "claim_workflows", noted)
    return taken


def test_many_idle_queues_cost_one_look_and_one_reading_together(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """03 section 15, 8."""
    for number in range(20):
        DBOS.register_queue(f"queue {number}", polling_interval_sec=0.1)
    engine = the_engine()
    engine.dispatcher.stop()
    dispatcher = Dispatcher(engine)
    # The first turn serves what it has just come to know.
    dispatcher.run_once()
    asked: Counter[str] = Counter()
    for name in ("list_queues", "find_waiting_queues", "claim_workflows"):
        call = getattr(engine.store, name)

        def counted(*given: Any, name: str = name, call: Any = call) -> Any:
            asked[name] += 1
            return call(*given)

        monkeypatch.setattr(engine.store, name, counted)
    dispatcher.read_configuration_now()
    dispatcher.look_now()
    dispatcher._look_not_before_ms = 0
    assert dispatcher.run_once() <= 0.1
    assert asked == {"list_queues": 1, "find_waiting_queues": 1}


# --- trouble


def test_while_the_queues_cannot_be_read_their_last_known_limits_count(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R63, R67: with a warning; what was missed is read afterwards."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    engine = the_engine()

    def unavailable(names: Any) -> Any:
        raise StoreUnavailable("simulated")

    with monkeypatch.context() as broken:
        broken.setattr(engine.store, "list_queues", unavailable)
        engine.dispatcher.read_configuration_now()
        wait_until(lambda: "The dispatcher service could not reach the system database" in caplog.text)
        assert DBOS.enqueue_workflow("mail", echo, 2).get_result() == 2
        DBOS.register_queue("print")
        later = DBOS.enqueue_workflow("print", echo, 3)
    engine.dispatcher.read_configuration_now()
    assert later.get_result() == 3


@pytest.mark.parametrize(
    ("trouble", "lost"),
    [(StoreUnavailable("simulated"), False), (StoreUnavailable("simulated"), True), (RuntimeError("simulated"), False)],
    ids=["no answer", "answer lost", "error"],
)
def test_a_claim_that_fails_is_told_and_made_good_without_a_growing_pause(
    app: type[DBOS],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    trouble: Exception,
    lost: bool,
) -> None:
    """03 R68, R69; section 15, 9. Also when it has taken workflows whose ids nobody has heard of."""
    echo = declare_echo()
    DBOS.register_queue("mail", polling_interval_sec=60)
    engine = the_engine()
    claim, left = engine.store.claim_workflows, [trouble] * 3

    def failing(queue: QueueConfig, *given: Any) -> Any:
        if queue.name != "mail" or not left:
            return claim(queue, *given)
        if lost:
            claim(queue, *given)
        raise left.pop()

    monkeypatch.setattr(engine.store, "claim_workflows", failing)
    handle = DBOS.enqueue_workflow("mail", echo, 1)

    def done() -> bool:
        engine.dispatcher.wake()  # Else it would rest for a second each time.
        return not left and status_row(database_url, handle.workflow_id)["status"] == "SUCCESS"

    wait_until(done)
    assert status_row(database_url, handle.workflow_id)["recovery_attempts"] == 1
    assert caplog.text.count("The dispatcher service") == 3


@pytest.mark.parametrize("failing", ["promote_delayed", "cancel_overdue"])
def test_a_background_job_that_fails_is_told_goes_on_and_does_not_stop_the_other(
    app: type[DBOS],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    dbos_log: None,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    """03 R101."""
    echo = declare_echo()
    with SetEnqueueOptions(delay_seconds=3600):
        delayed, overdue = (DBOS.enqueue_workflow("nowhere", echo).workflow_id for _ in range(2))
    engine = the_engine()
    failed = Gate()

    def fail(*given: Any) -> Any:
        failed.open()
        raise RuntimeError("simulated")

    def wake() -> None:
        engine.delays.wake()
        engine.deadlines.wake()

    with monkeypatch.context() as broken:
        broken.setattr(engine.store, failing, fail)
        wake()
        # From now on no call from before is under way.
        failed.wait()
        for column, workflow_id in (("delay_until_epoch_ms", delayed), ("workflow_deadline_epoch_ms", overdue)):
            rows(database_url, f"UPDATE workflow_status SET {column} = 1 WHERE workflow_uuid = %s", workflow_id)
        wake()
        if failing == "promote_delayed":
            wait_for_status(database_url, overdue, "CANCELLED")
            assert status_row(database_url, delayed)["status"] == "DELAYED"
        else:
            wait_for_status(database_url, delayed, "ENQUEUED")
            assert status_row(database_url, overdue)["status"] == "DELAYED"
    wake()
    wait_for_status(database_url, overdue, "CANCELLED")
    wait_for_status(database_url, delayed, "ENQUEUED")
    name = "delays" if failing == "promote_delayed" else "deadlines"
    assert f"The {name} service met an error and goes on" in caplog.text


def test_a_receiver_that_is_missing_leaves_its_workflow_pending_and_others_run(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R93, R96: a configured instance that this process has not made."""

    @DBOS.dbos_class("Shop")
    class Shop(DBOSConfiguredInstance):
        @DBOS.workflow(name="open")
        def open(self) -> str:
            return self.config_name

    north = Shop("north")
    DBOS.register_queue("mail")
    south = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "open", "queue_name": "mail", "class_name": "Shop", "instance_name": "south"}
    )
    assert DBOS.enqueue_workflow("mail", north.open).get_result() == "north"
    wait_until(lambda: f"Workflow {south.workflow_id} could not be started and stays PENDING" in caplog.text)
    row = status_row(database_url, south.workflow_id)
    assert (row["status"], row["executor_id"], row["recovery_attempts"]) == ("PENDING", "test", 1)


# --- the end


def test_a_claim_in_progress_at_destroy_is_dispatched_and_no_other_begins(
    config: Config, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """03 R97."""
    DBOS(config=config)
    echo = declare_echo()
    DBOS.launch()
    DBOS.register_queue("mail")
    engine = the_engine()
    claimed, go_on = Gate(), Gate()
    claim = engine.store.claim_workflows

    def slow(queue: QueueConfig, *given: Any) -> Any:
        found = claim(queue, *given)
        if found:
            claimed.open()
            go_on.wait()
        return found

    monkeypatch.setattr(engine.store, "claim_workflows", slow)
    first = DBOS.enqueue_workflow("mail", echo, 1).workflow_id
    claimed.wait()
    second = DBOS.enqueue_workflow("mail", echo, 2).workflow_id
    ending = destroy_in_background()
    wait_until(lambda: engine.dispatcher._stopping)
    go_on.open()
    ending.join()
    assert status_row(database_url, first)["status"] == "SUCCESS"
    assert status_row(database_url, second)["status"] == "ENQUEUED"


def test_while_it_drains_a_process_promotes_and_cancels_and_starts_nothing(config: Config, database_url: str) -> None:
    """03 R97."""
    gate = Gate()
    DBOS(config=config)
    echo = declare_echo()

    @DBOS.workflow()
    def work() -> str:
        gate.wait()
        return "done"

    DBOS.launch()
    DBOS.register_queue("mail")
    running = DBOS.enqueue_workflow("mail", work).workflow_id
    wait_for_status(database_url, running, "PENDING")
    with SetEnqueueOptions(delay_seconds=3600):
        delayed, overdue = (DBOS.enqueue_workflow("mail", echo).workflow_id for _ in range(2))
    engine = the_engine()
    ending = destroy_in_background()
    wait_until(lambda: engine.dispatcher._stopping)
    for column, workflow_id in (("delay_until_epoch_ms", delayed), ("workflow_deadline_epoch_ms", overdue)):
        rows(database_url, f"UPDATE workflow_status SET {column} = 1 WHERE workflow_uuid = %s", workflow_id)
    for service in (engine.delays, engine.deadlines):
        service.wake()
    wait_for_status(database_url, overdue, "CANCELLED")
    wait_for_status(database_url, delayed, "ENQUEUED")
    gate.open()
    ending.join()
    assert status_row(database_url, running)["status"] == "SUCCESS"
    assert status_row(database_url, delayed)["status"] == "ENQUEUED"


def destroy_in_background() -> threading.Thread:
    arguments = {"destroy_registry": True, "workflow_completion_timeout_sec": 60}
    ending = threading.Thread(target=DBOS.destroy, kwargs=arguments)
    ending.start()
    return ending
