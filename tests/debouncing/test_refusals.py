"""What a call of a debouncer may not touch, and what it refuses (03 section 11)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, Debouncer, SetEnqueueOptions, SetShardKey, SetWorkflowID
from dbos.error import DBOSConflictingWorkflowError, DBOSException, DBOSQueueDeduplicatedError
from tests.debouncing.looking import LONG, stored_inputs, workflows
from tests.helpers import Gate, declare_echo, rows, status_row, wait_for_status

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
