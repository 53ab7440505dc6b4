"""Debouncing outside of workflows: what is written, bounced and run (03 section 11.2)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    Debouncer,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import DBOSAwaitedWorkflowCancelledError
from dbos.types import INTERNAL_QUEUE_NAME
from tests.debouncing.looking import LONG, start_now, stored_inputs, workflows
from tests.helpers import Gate, declare_echo, rows, status_row, wait_for_status

Config = dict[str, Any]

# --- the first call (R146, R147)


def test_the_first_call_delays_a_workflow_that_holds_the_key(app: type[DBOS], database_url: str) -> None:
    """03 R146, R147."""
    debouncer = Debouncer.create(declare_echo())
    before_ms = time.time() * 1000
    handle = debouncer.debounce("key", LONG, 5)
    after_ms = time.time() * 1000
    row = status_row(database_url, handle.workflow_id)
    assert (row["status"], row["queue_name"], row["deduplication_id"]) == ("DELAYED", INTERNAL_QUEUE_NAME, "echo-key")
    assert bool(row["is_debounced"]) is True
    assert row["debounce_deadline_epoch_ms"] is None
    assert before_ms - 1 <= row["delay_until_epoch_ms"] - LONG * 1000 <= after_ms
    assert (row["application_name"], row["application_version"], row["executor_id"]) == ("test-app", "v1", "test")
    assert (row["owner_xid"], row["recovery_attempts"], row["priority"]) == (None, 0, 0)
    assert stored_inputs(handle.workflow_id) == (5,)


def test_the_debounce_timeout_limits_the_first_delay_too(app: type[DBOS], database_url: str) -> None:
    """03 R147: capped at the deadline; 0 is no timeout."""
    declare_echo()
    row = status_row(database_url, Debouncer("echo", debounce_timeout_sec=LONG / 2).debounce("a", LONG, 1).workflow_id)
    assert row["delay_until_epoch_ms"] == row["debounce_deadline_epoch_ms"]
    assert abs(row["debounce_deadline_epoch_ms"] - time.time() * 1000 - LONG * 500) < 60_000
    row = status_row(database_url, Debouncer("echo", debounce_timeout_sec=LONG).debounce("b", 5, 1).workflow_id)
    assert row["debounce_deadline_epoch_ms"] - row["delay_until_epoch_ms"] == (LONG - 5) * 1000
    row = status_row(database_url, Debouncer("echo", debounce_timeout_sec=0).debounce("c", LONG, 1).workflow_id)
    assert row["debounce_deadline_epoch_ms"] is None


def test_a_new_workflow_gets_the_ambient_options(app: type[DBOS], database_url: str) -> None:
    """03 R147."""
    debouncer = Debouncer.create(declare_echo())
    with (
        SetWorkflowID("mine"),
        SetWorkflowTimeout(7.5),
        SetWorkflowAttributes({"color": "red"}),
        SetEnqueueOptions(app_version="v2"),
        DBOSContextSetAuth("ann", ["admin"]),
    ):
        assert debouncer.debounce("key", LONG, 1).workflow_id == "mine"
    row = status_row(database_url, "mine")
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (7500, None)
    assert (row["application_version"], row["authenticated_user"]) == ("v2", "ann")
    status = DBOS.get_workflow_status("mine")
    assert status is not None
    assert (status.attributes, status.authenticated_roles) == ({"color": "red"}, ["admin"])


def test_an_inherited_deadline_is_not_applied(app: type[DBOS], database_url: str) -> None:
    """03 R147."""
    debouncer = Debouncer.create(declare_echo())

    @DBOS.workflow()
    def parent() -> str:
        return debouncer.debounce("key", LONG, 1).workflow_id

    with SetWorkflowTimeout(600):
        child_id = parent()
    row = status_row(database_url, child_id)
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (None, None)


def test_a_step_can_be_debounced_as_a_workflow_of_one_step(app: type[DBOS]) -> None:
    @DBOS.step(name="lonely")
    def lonely(value: int) -> int:
        return value + 1

    assert Debouncer.create(lonely).debounce("key", 0, 1).get_result() == 2


# --- bouncing (R148, R149, R150)


def test_a_later_call_replaces_the_arguments_and_moves_the_start(app: type[DBOS], database_url: str) -> None:
    """03 R148: also to an earlier time."""
    debouncer = Debouncer.create(declare_echo())
    with SetWorkflowID("w"), SetWorkflowTimeout(7.5), SetWorkflowAttributes({"n": 1}):
        debouncer.debounce("key", LONG, "first")
    rows(database_url, "UPDATE workflow_status SET updated_at = 5")
    before = status_row(database_url, "w")
    for period, value in ((2 * LONG, "later"), (LONG / 2, "sooner")):
        with (
            SetWorkflowTimeout(1),
            SetWorkflowAttributes({"n": 2}),
            SetEnqueueOptions(app_version="v2"),
            DBOSContextSetAuth("bob", ["b"]),
        ):
            other = Debouncer("echo", debounce_timeout_sec=1)
            assert other.debounce("key", period, value).workflow_id == "w"
        row = status_row(database_url, "w")
        assert abs(row["delay_until_epoch_ms"] - time.time() * 1000 - period * 1000) < 60_000
        assert stored_inputs("w") == (value,)
        changed = {name for name in row if row[name] != before[name]}
        # Everything else keeps the values of the first call.
        assert changed == {"delay_until_epoch_ms", "updated_at"}
        assert abs(row["updated_at"] - time.time() * 1000) < 60_000
    start_now("w")
    assert DBOS.retrieve_workflow("w").get_result() == "sooner"
    assert len(workflows(database_url)) == 1


def test_the_deadline_of_the_first_call_caps_every_bounce(app: type[DBOS], database_url: str) -> None:
    """03 R148: even from a debouncer with another timeout, or none."""
    declare_echo()
    handle = Debouncer("echo", debounce_timeout_sec=LONG).debounce("key", 5, 1)
    deadline_ms = status_row(database_url, handle.workflow_id)["debounce_deadline_epoch_ms"]
    for other in (Debouncer("echo"), Debouncer("echo", debounce_timeout_sec=3 * LONG)):
        other.debounce("key", 2 * LONG, 2)
        row = status_row(database_url, handle.workflow_id)
        assert row["delay_until_epoch_ms"] == row["debounce_deadline_epoch_ms"] == deadline_ms


def test_the_deadline_starts_the_run_however_many_calls_follow(app: type[DBOS]) -> None:
    """03 R148."""
    debouncer = Debouncer.create(declare_echo(), debounce_timeout_sec=0.3)
    began = time.monotonic()
    first = debouncer.debounce("key", LONG, 0)
    for number in range(1, 10):
        if debouncer.debounce("key", LONG, number).workflow_id != first.workflow_id:
            break
    assert first.get_result() in range(10)
    assert time.monotonic() - began < 30


def test_the_format_of_the_arguments_is_replaced_with_them(app: type[DBOS], database_url: str) -> None:
    """03 R148."""

    @DBOS.workflow(name="work")
    def native(value: Any) -> Any:
        return value

    handle = Debouncer("work").debounce("key", LONG, "native")
    assert status_row(database_url, handle.workflow_id)["serialization"] == "py_pickle"

    @DBOS.workflow(name="work", serialization_type=WorkflowSerializationFormat.PORTABLE)
    def portable(value: Any) -> Any:
        return [value]

    Debouncer("work").debounce("key", LONG, value="portable")
    row = status_row(database_url, handle.workflow_id)
    assert row["serialization"] == "portable_json"
    start_now(handle.workflow_id)
    assert handle.get_result() == ["portable"]


def test_arguments_that_cannot_be_stored_are_refused_and_change_nothing(app: type[DBOS], database_url: str) -> None:
    debouncer = Debouncer.create(declare_echo())
    with pytest.raises(Exception, match="'echo'"):
        debouncer.debounce("key", LONG, lambda: None)
    assert workflows(database_url) == []
    handle = debouncer.debounce("key", LONG, 1)
    with pytest.raises(Exception, match="echo-key"):
        debouncer.debounce("key", LONG, lambda: None)
    assert stored_inputs(handle.workflow_id) == (1,)


def test_at_promotion_the_key_comes_free_also_while_the_run_goes_on(app: type[DBOS], database_url: str) -> None:
    """03 R149, R150."""
    gate = Gate()

    @DBOS.workflow(name="slow")
    def slow(value: int) -> int:
        gate.wait()
        return value

    debouncer = Debouncer.create(slow)
    first, again = debouncer.debounce("key", LONG, 1), debouncer.debounce("key", 0, 2)
    assert first.workflow_id == again.workflow_id
    wait_for_status(database_url, first.workflow_id, "PENDING")
    row = status_row(database_url, first.workflow_id)
    assert (row["deduplication_id"], bool(row["is_debounced"])) == (None, True)
    second = debouncer.debounce("key", 0, 3)
    assert second.workflow_id != first.workflow_id
    gate.open()
    assert [first.get_result(), again.get_result(), second.get_result()] == [2, 2, 3]


def test_a_queued_run_has_given_up_its_key(app: type[DBOS], database_url: str) -> None:
    """03 R149: still waiting for a place on its queue."""
    DBOS.register_queue("paused", global_concurrency=0)
    debouncer = Debouncer.create(declare_echo(), queue="paused")
    first = debouncer.debounce("key", 0, 1)
    wait_for_status(database_url, first.workflow_id, "ENQUEUED")
    second = debouncer.debounce("key", LONG, 2)
    assert second.workflow_id != first.workflow_id
    assert stored_inputs(first.workflow_id) == (1,)


@pytest.mark.parametrize("release", [DBOS.cancel_workflow, DBOS.resume_workflow])
def test_cancelling_or_resuming_the_delayed_workflow_frees_the_key(
    app: type[DBOS], database_url: str, release: Any
) -> None:
    """03 R149."""
    debouncer = Debouncer.create(declare_echo())
    first = debouncer.debounce("key", LONG, 1)
    release(first.workflow_id)
    second = debouncer.debounce("key", 0, 2)
    assert second.workflow_id != first.workflow_id
    assert second.get_result() == 2
    if release is DBOS.cancel_workflow:
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            first.get_result()
    else:
        assert first.get_result() == 1


def test_keys_are_apart_by_queue_and_by_workflow(app: type[DBOS], database_url: str) -> None:
    """03 R146."""
    declare_echo()
    declare_echo("other")
    queue = DBOS.register_queue("mail")
    debouncers = [Debouncer("echo"), Debouncer("other"), Debouncer("echo", queue=queue)]
    ids = {d.debounce(key, LONG, 1).workflow_id for d in debouncers for key in ("a", "b", "")}
    assert len(ids) == 9
    assert Debouncer("echo", queue="mail").debounce("a", LONG, 2).workflow_id in ids
    keys = {(row["queue_name"], row["deduplication_id"]) for row in workflows(database_url)}
    assert {("mail", "echo-a"), ("mail", "echo-"), (INTERNAL_QUEUE_NAME, "other-b")} < keys


def test_a_run_starts_soon_after_it_is_due(app: type[DBOS]) -> None:
    """03 R151 allows a second; a signal starts it."""
    debouncer = Debouncer.create(declare_echo())
    delays = []
    for _ in range(5):
        began = time.monotonic()
        debouncer.debounce("key", LONG, 1)
        assert debouncer.debounce("key", 0.05, 2).get_result() == 2
        delays.append(time.monotonic() - began)
    assert min(delays) >= 0.04
    assert sorted(delays)[2] < 0.5


def test_on_a_partitioned_queue_a_debounced_workflow_is_never_claimed(app: type[DBOS], database_url: str) -> None:
    """03 R157."""
    DBOS.register_queue("parts", partition_concurrency=1)
    echo = declare_echo()
    handle = Debouncer.create(echo, queue="parts").debounce("key", 0, 1)
    wait_for_status(database_url, handle.workflow_id, "ENQUEUED")
    with SetEnqueueOptions(queue_partition_key="p"):
        assert DBOS.enqueue_workflow("parts", echo, 2).get_result() == 2
    assert status_row(database_url, handle.workflow_id)["status"] == "ENQUEUED"


def test_a_delayed_workflow_survives_a_restart_with_its_key(config: Config, database_url: str) -> None:
    """03 R147: state lives only in the database."""
    debouncer = Debouncer.create(declare_echo())
    DBOS(config=config)
    DBOS.launch()
    first = debouncer.debounce("key", LONG, 1)
    DBOS.destroy()
    DBOS(config=config)
    DBOS.launch()
    assert debouncer.debounce("key", 0, 2).workflow_id == first.workflow_id
    assert DBOS.retrieve_workflow(first.workflow_id).get_result() == 2
    DBOS.destroy(destroy_registry=True)
