"""Debouncing outside of workflows: what is written, bounced, run and refused (03 section 11)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    Debouncer,
    SetEnqueueOptions,
    SetShardKey,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSQueueDeduplicatedError,
    DBOSWorkflowFunctionNotFoundError,
)
from dbos.types import INTERNAL_QUEUE_NAME
from tests.helpers import Gate, rows, status_row, wait_for_status

Config = dict[str, Any]

# Far enough away that nothing starts by itself.
LONG = 10_000.0


def declare_echo(name: str = "echo") -> Any:
    @DBOS.workflow(name=name)
    def echo(value: Any = None) -> Any:
        return value

    return echo


def start_now(workflow_id: str) -> None:
    DBOS.set_workflow_delay(workflow_id, delay_until_epoch_ms=0)


def stored_inputs(workflow_id: str) -> Any:
    status = DBOS.get_workflow_status(workflow_id)
    assert status is not None
    assert status.input is not None
    return (*status.input["args"], *status.input["kwargs"].values())


def workflows(database_url: str) -> list[dict[str, Any]]:
    return rows(database_url, "SELECT * FROM workflow_status")


# --- making debouncers (R155, section 11.1)


def test_making_a_debouncer_needs_no_application_and_changes_nothing() -> None:
    echo = declare_echo()
    assert isinstance(Debouncer.create(echo, debounce_timeout_sec=5, queue="mail"), Debouncer)
    assert isinstance(Debouncer("unknown to anybody"), Debouncer)
    # R155: no instance.
    with pytest.raises(DBOSException, match="Construct it"):
        Debouncer.create(echo).debounce("key", 1, 1)


def test_an_application_that_is_not_launched_cannot_debounce(config: Config) -> None:
    """03 R155."""
    debouncer = Debouncer.create(declare_echo())
    DBOS(config=config)
    with pytest.raises(DBOSException, match="launch"):
        debouncer.debounce("key", 1, 1)


def test_only_plain_and_static_workflow_functions_can_be_debounced(app: type[DBOS], database_url: str) -> None:
    """03 section 11.1."""

    @DBOS.dbos_class("Shop")
    class Shop:
        @classmethod
        @DBOS.workflow(name="class_work")
        def class_work(cls, value: int) -> int:
            return value

        @staticmethod
        @DBOS.workflow(name="static_work")
        def static_work(value: int) -> int:
            return value + 1

        def plain(self) -> None: ...

    class Undecorated:
        @DBOS.workflow(name="instance_work")
        def instance_work(self, value: int) -> int:
            return value

    with pytest.raises(TypeError, match="class_work"):
        Debouncer.create(Shop.class_work)
    with pytest.raises(TypeError, match="plain"):
        Debouncer.create(Shop().plain)
    with pytest.raises(TypeError, match="instance_work"):
        Debouncer.create(Undecorated.instance_work)
    with pytest.raises(TypeError, match="class_work"):
        Debouncer("class_work").debounce("key", 0, 1)
    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="declare_echo"):
        Debouncer.create(declare_echo)
    assert workflows(database_url) == []
    handle = Debouncer.create(Shop.static_work).debounce("key", 0, 1)
    assert handle.get_result() == 2
    assert status_row(database_url, handle.workflow_id)["class_name"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"workflow_name": ""},
        {"workflow_name": 5},
        {"workflow_name": "a\0b"},
        {"debounce_timeout_sec": -1},
        {"debounce_timeout_sec": "5"},
        {"debounce_timeout_sec": float("nan")},
        {"queue": ""},
        {"queue": 5},
        {"application_name": ""},
        {"application_name": 5},
    ],
    ids=repr,
)
def test_a_debouncer_refuses_arguments_without_meaning(arguments: dict[str, Any]) -> None:
    with pytest.raises(DBOSException) as refused:
        Debouncer(**({"workflow_name": "echo"} | arguments))
    (value,) = arguments.values()
    assert repr(value).strip("'") in str(refused.value) or "\\x00" in repr(value)


@pytest.mark.parametrize(
    "given", [(None, 1), (5, 1), ("a\0b", 1), ("a", "1"), ("a", float("inf")), ("a", True)], ids=repr
)
def test_a_key_is_a_text_and_a_period_a_number(app: type[DBOS], database_url: str, given: Any) -> None:
    declare_echo()
    with pytest.raises(DBOSException):
        Debouncer("echo").debounce(*given, 1)
    assert workflows(database_url) == []


def test_an_unknown_workflow_or_queue_is_refused_when_debouncing(app: type[DBOS], database_url: str) -> None:
    """03 R155."""
    declare_echo()
    with pytest.raises(Exception, match="'nowhere'"):
        Debouncer("nowhere").debounce("key", 0, 1)
    with pytest.raises(Exception, match="'no queue'"):
        Debouncer("echo", queue="no queue").debounce("key", 0, 1)
    assert workflows(database_url) == []
    DBOS.register_queue("no queue")
    assert Debouncer("echo", queue="no queue").debounce("key", 0, 1).get_result() == 1


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


# --- what a bounce may not touch (R152)


def refusal_of(debouncer: Debouncer[..., Any], key: str) -> DBOSQueueDeduplicatedError:
    with pytest.raises(DBOSQueueDeduplicatedError) as refused:
        debouncer.debounce(key, 1, "not mine")
    return refused.value


def test_a_key_held_by_hand_is_refused(app: type[DBOS], database_url: str) -> None:
    """03 R152: with the holder's id."""
    DBOS.register_queue("mail")
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="echo-key", delay_seconds=LONG):
        holder = DBOS.enqueue_workflow("mail", echo, 1)
    before = status_row(database_url, holder.workflow_id)
    error = refusal_of(Debouncer("echo", queue="mail"), "key")
    assert (error.workflow_id, error.queue_name, error.deduplication_id) == (holder.workflow_id, "mail", "echo-key")
    assert status_row(database_url, holder.workflow_id) == before
    assert stored_inputs(holder.workflow_id) == (1,)
    assert len(workflows(database_url)) == 1


def test_two_pairs_of_name_and_key_that_read_the_same_collide(app: type[DBOS], database_url: str) -> None:
    """03 R146, R152: never one workflow with the arguments of the other."""
    declare_echo("a")
    declare_echo("a-b")
    holder = Debouncer("a").debounce("b-c", LONG, 1)
    error = refusal_of(Debouncer("a-b"), "c")
    assert (error.workflow_id, error.deduplication_id) == (holder.workflow_id, "a-b-c")
    assert stored_inputs(holder.workflow_id) == (1,)


def test_the_row_of_another_application_is_refused_and_one_of_nobody_taken(app: type[DBOS], database_url: str) -> None:
    """03 R148, R152."""
    debouncer = Debouncer.create(declare_echo())
    handle = debouncer.debounce("key", LONG, 1)
    rows(database_url, "UPDATE workflow_status SET application_name = 'other-app'")
    assert refusal_of(debouncer, "key").workflow_id == handle.workflow_id
    assert stored_inputs(handle.workflow_id) == (1,)
    rows(database_url, "UPDATE workflow_status SET application_name = NULL")
    assert debouncer.debounce("key", LONG, 2).workflow_id == handle.workflow_id
    assert status_row(database_url, handle.workflow_id)["application_name"] == "test-app"
    assert stored_inputs(handle.workflow_id) == (2,)


def test_a_holder_that_has_left_the_delay_with_its_key_is_waited_for(app: type[DBOS], database_url: str) -> None:
    """03 R152: other releases promote without freeing the key; the call starts over until it is free."""
    gate = Gate()

    @DBOS.workflow(name="slow")
    def slow(value: int) -> int:
        gate.wait()
        return value

    debouncer = Debouncer.create(slow)
    first = debouncer.debounce("key", 0, 1)
    wait_for_status(database_url, first.workflow_id, "PENDING")
    rows(
        database_url,
        "UPDATE workflow_status SET deduplication_id = 'slow-key', queue_name = '_dbos_internal_queue'",
    )

    async def second() -> str:
        pending = asyncio.create_task(debouncer.debounce_async("key", 0, 2))
        await asyncio.sleep(0.2)
        assert not pending.done()
        gate.open()
        return (await pending).workflow_id

    second_id = asyncio.run(second())
    assert second_id != first.workflow_id
    assert [first.get_result(), DBOS.retrieve_workflow(second_id).get_result()] == [1, 2]


# --- options that contradict (R153)


@pytest.mark.parametrize(
    "options",
    [
        {"deduplication_id": "x"},
        {"deduplication_id": "x", "duplication_policy": "return-existing"},
        {"duplication_policy": "return-existing"},
        {"priority": 3},
        {"delay_seconds": 0},
        {"queue_partition_key": ""},
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_held", [False, True])
def test_contradicting_enqueue_options_are_refused(
    app: type[DBOS], database_url: str, options: dict[str, Any], is_held: bool
) -> None:
    """03 R153: before anything is written, also by a call that would only bounce."""
    debouncer = Debouncer.create(declare_echo())
    if is_held:
        debouncer.debounce("key", LONG, 1)
    before = workflows(database_url)
    with SetEnqueueOptions(**options), pytest.raises(DBOSException) as refused:
        debouncer.debounce("key", LONG, 2)
    assert all(name in str(refused.value) for name in options)
    assert workflows(database_url) == before


def test_the_reuse_policy_reject_and_a_shard_key_are_refused(app: type[DBOS], database_url: str) -> None:
    """03 R153, R40."""
    debouncer = Debouncer.create(declare_echo())
    with (
        SetWorkflowID("w", workflow_id_reuse_policy="reject"),
        pytest.raises(DBOSException, match="workflow_id_reuse_policy"),
    ):
        debouncer.debounce("key", LONG, 2)
    with SetShardKey("s"), pytest.raises(DBOSException, match="shard"):
        debouncer.debounce("key", LONG, 2)
    assert workflows(database_url) == []
    with SetWorkflowID("w", workflow_id_reuse_policy="return-existing"):
        assert debouncer.debounce("key", LONG, 2).workflow_id == "w"


# --- ids (R154)


def test_an_ambient_id_is_consumed_also_by_a_call_that_only_bounces(app: type[DBOS], database_url: str) -> None:
    """03 R154."""
    echo = declare_echo()
    debouncer = Debouncer.create(echo)
    first = debouncer.debounce("key", LONG, 1)
    with SetWorkflowID("unused"):
        assert debouncer.debounce("key", LONG, 2).workflow_id == first.workflow_id
        assert DBOS.start_workflow(echo, 3).workflow_id != "unused"
    with SetWorkflowID("refused"):
        with pytest.raises(DBOSException):
            debouncer.debounce("key", "soon", 2)  # type: ignore[arg-type]
        assert debouncer.debounce("other", LONG, 2).workflow_id != "refused"


def test_an_id_in_use_gives_its_workflow_and_schedules_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R154."""
    echo = declare_echo()
    debouncer = Debouncer.create(echo)
    with SetWorkflowID("done"):
        assert echo("result") == "result"
    with SetWorkflowID("done"):
        handle = debouncer.debounce("key", LONG, "other")
    assert (handle.workflow_id, handle.get_result()) == ("done", "result")
    assert len(workflows(database_url)) == 1
    with SetWorkflowID("done"), pytest.raises(DBOSConflictingWorkflowError):
        Debouncer.create(declare_echo("other")).debounce("key", LONG, "other")
    assert len(workflows(database_url)) == 1


# --- other applications (R156)


def test_a_debouncer_for_another_application_makes_and_bounces_its_rows(app: type[DBOS], database_url: str) -> None:
    """03 R156."""
    declare_echo()
    debouncer = Debouncer("echo", application_name="other-app")
    handle = debouncer.debounce("key", LONG, 1)
    row = status_row(database_url, handle.workflow_id)
    assert (row["application_name"], row["application_version"]) == ("other-app", None)
    assert debouncer.debounce("key", LONG, 2).workflow_id == handle.workflow_id
    assert refusal_of(Debouncer("echo"), "key").workflow_id == handle.workflow_id
    rows(database_url, "UPDATE workflow_status SET application_name = NULL")
    debouncer.debounce("key", LONG, 3)
    assert status_row(database_url, handle.workflow_id)["application_name"] == "other-app"
    own = Debouncer("echo", application_name="test-app").debounce("own", 0, 4)
    assert status_row(database_url, own.workflow_id)["application_version"] == "v1"
    assert own.get_result() == 4


# --- where it may be called (R160, R161)


def test_in_a_step_a_bounce_works_and_a_new_workflow_is_refused(app: type[DBOS], database_url: str) -> None:
    """03 R160."""
    debouncer = Debouncer.create(declare_echo())
    handle = debouncer.debounce("held", LONG, 1)

    @DBOS.step()
    def bounce() -> str:
        return debouncer.debounce("held", LONG, 2).workflow_id

    @DBOS.step()
    def begin() -> str:
        return debouncer.debounce("free", LONG, 2).workflow_id

    @DBOS.workflow()
    def parent() -> str:
        with pytest.raises(AssertionError, match="step"):
            begin()
        return bounce()

    assert parent() == handle.workflow_id
    assert stored_inputs(handle.workflow_id) == (2,)
    assert len(rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'")) == 1


def test_sync_calls_in_an_event_loop(app: type[DBOS]) -> None:
    """03 R161: refused with a queue, merely blocking without."""
    DBOS.register_queue("mail")
    declare_echo()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="debounce_async"):
            Debouncer("echo", queue="mail").debounce("key", 0, 1)
        handle = Debouncer("echo").debounce("key", 0, 1)
        assert await (await DBOS.retrieve_workflow_async(handle.workflow_id)).get_result() == 1
        by_queue = await Debouncer("echo", queue="mail").debounce_async("key", 0, 2)
        assert await by_queue.get_result() == 2

    asyncio.run(main())


async def test_async_workflows_are_debounced(config: Config) -> None:
    """03 section 11.1."""
    DBOS(config=config)

    @DBOS.workflow(name="work")
    async def work(value: int, *, factor: int = 1) -> int:
        await asyncio.sleep(0)
        return value * factor

    DBOS.launch()
    debouncer = Debouncer.create_async(work)
    first = await debouncer.debounce_async("key", LONG, 2)
    second = await debouncer.debounce_async("key", 0, 3, factor=5)
    assert first.workflow_id == second.workflow_id
    assert [await first.get_result(), await second.get_result()] == [15, 15]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


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
