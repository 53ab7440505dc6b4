"""Managing work on queues: cancel, resume, delays, deadlines, dead letters (03 sections 5, 7, 8 and 9)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, SetWorkflowTimeout
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSNonExistentWorkflowError,
    DBOSQueueDeduplicatedError,
)
from tests.helpers import (
    Gate,
    declare_echo,
    make_pending,
    relaunch,
    replay,
    rows,
    status_row,
    step_names,
    wait_for_status,
    wait_until,
)

Config = dict[str, Any]

INTERNAL = "_dbos_internal_queue"


# --- cancel and resume: back to the queue


def test_a_cancelled_workflow_is_resumed_onto_its_queue(app: type[DBOS], database_url: str) -> None:
    """03 R62 and section 15, 6: cancel takes it off the queue, resume puts it back, with key and priority."""
    echo = declare_echo()
    queue = DBOS.register_queue('mail "daily"', partition_concurrency=1, global_concurrency=2)
    queue.set_partition_concurrency(None)
    queue.set_partition_limiter({"limit": 0, "period": 1000})
    with SetEnqueueOptions(priority=7, queue_partition_key="key"), SetWorkflowTimeout(60):
        handle = DBOS.enqueue_workflow(queue.name, echo, 1)
    before = status_row(database_url, handle.workflow_id)
    for _ in range(2):  # also when it is cancelled again
        DBOS.cancel_workflow(handle.workflow_id)
        row = status_row(database_url, handle.workflow_id)
        assert (row["status"], row["queue_name"], row["deduplication_id"]) == ("CANCELLED", None, None)
    for _ in range(2):  # doing it again comes to the same
        DBOS.resume_workflow(handle.workflow_id)
        row = status_row(database_url, handle.workflow_id)
        kept = ("queue_name", "priority", "queue_partition_key", "created_at", "workflow_timeout_ms", "attributes")
        assert [row[name] for name in kept] == [before[name] for name in kept]
        assert (row["status"], row["recovery_attempts"], row["completed_at"]) == ("ENQUEUED", 0, None)
    queue.set_partition_limiter({"limit": 1, "period": 0.01})
    assert handle.get_result() == 1
    assert handle.get_status().queue_name == queue.name


def test_the_limits_of_the_queue_apply_to_what_is_resumed(app: type[DBOS], database_url: str) -> None:
    """03 section 14: not past them, as in the reference release."""
    gate = Gate()
    began: list[int] = []

    @DBOS.workflow()
    def work(number: int) -> int:
        began.append(number)
        gate.wait()
        return number

    DBOS.register_queue("serial", global_concurrency=1)
    handles = [DBOS.enqueue_workflow("serial", work, number) for number in range(3)]
    wait_until(lambda: began == [0])
    DBOS.cancel_workflows([handle.workflow_id for handle in handles[1:]])
    DBOS.resume_workflows([handle.workflow_id for handle in handles[1:]])
    assert [status.queue_name for status in DBOS.list_queued_workflows()] == ["serial"] * 3
    # The place is taken: a workflow that may start, on another queue, does so meanwhile.
    DBOS.register_queue("free")
    probe = DBOS.enqueue_workflow("free", work, 9)
    wait_until(lambda: 9 in began)
    assert began == [0, 9]
    gate.open()
    assert [handle.get_result() for handle in handles] == [0, 1, 2]
    assert probe.get_result() == 9
    assert began == [0, 9, 1, 2]


def test_what_its_deadline_cancelled_is_resumed_onto_its_queue(app: type[DBOS], database_url: str) -> None:
    """03 R100, section 15, 6."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("later", echo, 1)
    rows(database_url, "UPDATE workflow_status SET workflow_deadline_epoch_ms = 1")
    wait_for_status(database_url, handle.workflow_id, "CANCELLED")
    assert status_row(database_url, handle.workflow_id)["queue_name"] is None
    DBOS.resume_workflow(handle.workflow_id)
    row = status_row(database_url, handle.workflow_id)
    assert (row["queue_name"], row["workflow_deadline_epoch_ms"]) == ("later", None)


def test_a_queued_workflow_that_keeps_dying_is_given_up_and_resumed_onto_its_queue(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R96, R114, R52, section 15, 6: at claim number max_recovery_attempts + 2."""

    @DBOS.workflow(max_recovery_attempts=1)
    def work() -> int:
        return 1

    DBOS.register_queue("mail")
    with SetEnqueueOptions(deduplication_id="d"):
        handle = DBOS.enqueue_workflow("mail", work)
    for attempt in (1, 2):
        handle.get_result()
        assert status_row(database_url, handle.workflow_id)["recovery_attempts"] == attempt
        make_pending(database_url, handle.workflow_id)
        rows(database_url, "UPDATE workflow_status SET deduplication_id = 'd'")
        relaunch(config)
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        DBOS.get_result(handle.workflow_id)
    row = status_row(database_url, handle.workflow_id)
    assert (row["queue_name"], row["deduplication_id"], row["recovery_attempts"]) == (None, None, 3)
    assert row["started_at_epoch_ms"] is None
    assert DBOS.resume_workflow(handle.workflow_id).get_result() == 1
    assert handle.get_status().queue_name == "mail"


def test_a_resume_may_name_another_queue(app: type[DBOS], database_url: str) -> None:
    """03 R103: which is its queue from then on."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("first", echo, 1)
    for queue_name in ("second", "third"):
        DBOS.cancel_workflow(handle.workflow_id)
        DBOS.resume_workflow(handle.workflow_id, queue_name=queue_name)
        assert handle.get_status().queue_name == queue_name
    DBOS.cancel_workflow(handle.workflow_id)
    DBOS.resume_workflow(handle.workflow_id)
    assert handle.get_status().queue_name == "third"
    # Another implementation has cancelled it, and left no note.
    DBOS.resume_workflow(handle.workflow_id, queue_name="fourth")
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', queue_name = NULL")
    assert DBOS.resume_workflow(handle.workflow_id).get_result() == 1


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED"])
def test_what_waits_is_resumed_past_its_queue(app: type[DBOS], database_url: str, status: str) -> None:
    """03 R103, 05 R87: the tool for skipping a queue or a delay."""
    echo = declare_echo()
    with SetEnqueueOptions(delay_seconds=3600 if status == "DELAYED" else None, deduplication_id="d", priority=4):
        handle = DBOS.enqueue_workflow("nowhere", echo, 1)
    assert handle.get_status().status == status
    assert DBOS.resume_workflow(handle.workflow_id).get_result() == 1
    row = status_row(database_url, handle.workflow_id)
    assert (row["deduplication_id"], row["priority"]) == (None, 4)


def test_a_workflow_that_never_had_a_queue_gets_none(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 section 15, 6: the internal queue is where it waits, not where it is listed."""
    gate = Gate()

    @DBOS.workflow()
    def work() -> str:
        gate.wait()
        return "done"

    with SetWorkflowID("w"):
        DBOS.start_workflow(work)
    relaunch(config)  # recovered

    def claimed_anew() -> bool:
        row = status_row(database_url, "w")
        return bool(row["status"] == "PENDING" and row["recovery_attempts"] == 2)

    wait_until(claimed_anew)
    assert status_row(database_url, "w")["queue_name"] is None
    assert DBOS.list_queued_workflows() == []
    DBOS.cancel_workflow("w")
    DBOS.resume_workflow("w")
    gate.open()
    assert DBOS.get_result("w") == "done"
    assert status_row(database_url, "w")["queue_name"] is None


def test_a_text_that_stands_in_the_column_of_the_note_is_left_alone(app: type[DBOS], database_url: str) -> None:
    """Releases of long ago kept requests there, in any form."""
    echo = declare_echo()
    for text in ("not json", '{"method": "GET"}'):
        handle = DBOS.enqueue_workflow("nowhere", echo, 1)
        rows(database_url, "UPDATE workflow_status SET request = %s WHERE status = 'ENQUEUED'", text)
        DBOS.cancel_workflow(handle.workflow_id)
        assert DBOS.resume_workflow(handle.workflow_id).get_result() == 1
        assert status_row(database_url, handle.workflow_id)["request"] == text


def test_resuming_an_unknown_id_resumes_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R103: all missing ids are named; finished workflows are left alone."""
    echo = declare_echo()
    waiting = DBOS.enqueue_workflow("nowhere", echo, 1)
    with SetWorkflowID("finished"):
        echo(2)
    DBOS.cancel_workflow(waiting.workflow_id)
    with pytest.raises(DBOSNonExistentWorkflowError, match=r"absent-1, absent-2"):
        DBOS.resume_workflows([waiting.workflow_id, "absent-1", "absent-2"])
    assert waiting.get_status().status == "CANCELLED"
    (handle,) = DBOS.resume_workflows(["finished"])
    assert handle.get_result() == 2
    DBOS.cancel_workflows(["finished", "absent-3"])
    assert handle.get_status().status == "SUCCESS"


def test_resuming_what_runs_gives_its_place_to_the_new_execution(app: type[DBOS], database_url: str) -> None:
    """03 R104: the execution that lost it stops at its next write, and frees its slot."""
    gate = Gate()
    began: list[str] = []

    @DBOS.step()
    def step() -> None:
        pass

    @DBOS.workflow()
    def work(name: str) -> str:
        began.append(name)
        if began.count(name) == 1 and name == "first":
            gate.wait()
            step()
        return f"{name} {began.count(name)}"

    DBOS.register_queue("mail", worker_concurrency=1)
    first, second = (DBOS.enqueue_workflow("mail", work, name) for name in ("first", "second"))
    wait_until(lambda: began == ["first"])
    DBOS.resume_workflow(first.workflow_id)
    assert first.get_result() == "first 2"
    assert began == ["first", "first"]
    gate.open()
    assert second.get_result() == "second 1"
    assert first.get_result() == "first 2"


def test_resume_gives_the_deduplication_id_back(app: type[DBOS]) -> None:
    """03 R52."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        first = DBOS.enqueue_workflow("mail", echo)
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", echo)
        DBOS.resume_workflow(first.workflow_id, queue_name="other")
        DBOS.enqueue_workflow("mail", echo)


def test_a_failure_gives_the_deduplication_id_back_and_recovery_keeps_it(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R52."""
    gate = Gate()

    @DBOS.workflow()
    def work() -> None:
        gate.wait()
        raise ValueError("no")

    DBOS.register_queue("mail")
    with SetEnqueueOptions(deduplication_id="d"):
        handle = DBOS.enqueue_workflow("mail", work)
        wait_for_status(database_url, handle.workflow_id, "PENDING")
        relaunch(config)
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", work)
        gate.open()
        with pytest.raises(ValueError, match="no"):
            DBOS.get_result(handle.workflow_id)
        DBOS.enqueue_workflow("mail", work)
    DBOS.cancel_workflows([status.workflow_id for status in DBOS.list_queued_workflows()])


# --- delays


def test_moving_a_delay_in_a_workflow_is_a_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R105, R106."""
    echo = declare_echo()

    @DBOS.workflow()
    def mover(workflow_id: str) -> str:
        DBOS.set_workflow_delay(workflow_id, delay_until_epoch_ms=99_000_000_000_000)
        return "moved"

    with SetEnqueueOptions(delay_seconds=3600):
        handle = DBOS.enqueue_workflow("nowhere", echo)
    with SetWorkflowID("m"):
        mover(handle.workflow_id)
    assert handle.get_status().delay_until_epoch_ms == 99_000_000_000_000
    assert step_names(database_url, "m") == {1: "DBOS.setWorkflowDelay"}
    DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=60)
    assert replay(config, "m") == "moved"
    assert DBOS.get_workflow_status(handle.workflow_id).delay_until_epoch_ms < 99_000_000_000_000  # type: ignore[union-attr,operator]


def test_moving_the_delay_of_what_is_not_delayed_does_nothing(app: type[DBOS], database_url: str) -> None:
    """03 section 8: also for an unknown id."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("nowhere", echo)
    before = status_row(database_url, handle.workflow_id)
    DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=5)
    DBOS.set_workflow_delay("absent", delay_seconds=5)
    assert status_row(database_url, handle.workflow_id) == before


async def test_managing_queued_work_on_an_event_loop_takes_the_async_forms(app: type[DBOS], database_url: str) -> None:
    """03 R106."""
    echo = declare_echo()
    with SetEnqueueOptions(delay_seconds=3600):
        handle = await DBOS.enqueue_workflow_async("nowhere", echo, 5)
    for call, twin in (
        (lambda: DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=1), "set_workflow_delay_async"),
        (lambda: DBOS.cancel_workflow(handle.workflow_id), "cancel_workflows_async"),
        (lambda: DBOS.resume_workflow(handle.workflow_id), "resume_workflow_async"),
    ):
        with pytest.raises(RuntimeError, match=twin):
            call()
    await DBOS.set_workflow_delay_async(handle.workflow_id, delay_seconds=7200)
    await DBOS.cancel_workflow_async(handle.workflow_id)
    resumed = await DBOS.resume_workflow_async(handle.workflow_id, queue_name=INTERNAL)
    assert await resumed.get_result() == 5


def test_a_promoted_workflow_goes_before_what_was_enqueued_later(app: type[DBOS], database_url: str) -> None:
    """03 R73; section 5: promotion changes nothing but the status."""
    order: list[str] = []

    @DBOS.workflow()
    def work(name: str) -> None:
        order.append(name)

    queue = DBOS.register_queue("serial", global_concurrency=0)
    with SetEnqueueOptions(delay_seconds=0.2):
        delayed = DBOS.enqueue_workflow("serial", work, "delayed")
    before = status_row(database_url, delayed.workflow_id)
    later = DBOS.enqueue_workflow("serial", work, "later")
    wait_for_status(database_url, delayed.workflow_id, "ENQUEUED")
    assert status_row(database_url, delayed.workflow_id) == before | {"status": "ENQUEUED"}
    queue.set_global_concurrency(1)
    for handle in (delayed, later):
        handle.get_result()
    assert order == ["delayed", "later"]


def test_waiting_for_the_first_takes_delayed_work_for_unfinished(app: type[DBOS]) -> None:
    """03 R56."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    with SetEnqueueOptions(delay_seconds=3600):
        delayed = DBOS.enqueue_workflow("mail", echo, 1)
    quick = DBOS.enqueue_workflow("mail", echo, 2)
    assert DBOS.wait_first([delayed, quick]).workflow_id == quick.workflow_id


def test_cancelling_what_waits_wakes_whoever_waits_for_it(app: type[DBOS], database_url: str) -> None:
    """03 section 5, 05 R80."""
    echo = declare_echo()
    with SetEnqueueOptions(delay_seconds=3600):
        handle = DBOS.enqueue_workflow("nowhere", echo)
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            handle.get_result()
        except DBOSAwaitedWorkflowCancelledError as error:
            seen.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    DBOS.cancel_workflow(handle.workflow_id)
    waiting.join()
    assert len(seen) == 1


def test_queues_in_a_step_and_from_async_code_work_unrecorded(app: type[DBOS], database_url: str) -> None:
    """03 section 3.3."""

    @DBOS.step()
    def step() -> list[str]:
        DBOS.register_queue("mail", worker_concurrency=1)
        return [queue.name for queue in DBOS.list_queues()]

    @DBOS.workflow()
    async def work() -> list[str]:
        await DBOS.register_queue_async("print")
        return await asyncio.to_thread(step)

    with SetWorkflowID("w"):
        assert asyncio.run(work()) == ["mail", "print"]
    assert len(step_names(database_url, "w")) == 1
