"""What `list_workflows` and `list_queued_workflows` show, in which order, and where (05 section 11.3, 03 R102)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest

from dbos import (
    DBOS,
    DBOSClient,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    WorkflowStatus,
)
from dbos.error import DBOSException, DBOSQueryTimeoutError
from tests.helpers import Gate, replay, rows, step_names, wait_until
from tests.listing.asking import MONDAY_MS, Insert, at, clients, ids, listed, queued

Config = dict[str, Any]

# --- what is listed


def test_a_listing_shows_everything_that_is_known_of_a_workflow(app: type[DBOS], database_url: str) -> None:
    """05 section 11.2: the same as the status of one workflow, attribute for attribute."""

    @DBOS.workflow(name="adds")
    def adds(number: int, *, more: int = 0) -> int:
        return number + more

    @DBOS.workflow(name="fails")
    def fails() -> None:
        raise ValueError("no")

    DBOS.register_queue("mail")
    with SetWorkflowID("a"), SetWorkflowAttributes({"kind": "sum"}):
        assert adds(2, more=3) == 5
    with SetWorkflowID("b"), pytest.raises(ValueError, match="no"):
        fails()
    with SetWorkflowID("c"), SetEnqueueOptions(priority=4):
        DBOS.enqueue_workflow("mail", adds, 7).get_result()
    found = DBOS.list_workflows()
    assert ids(found) == ["a", "b", "c"]
    assert (found[0].input, found[0].output, found[0].error) == ({"args": (2,), "kwargs": {"more": 3}}, 5, None)
    assert (found[1].output, str(found[1].error)) == (None, "no")
    assert (found[2].queue_name, found[2].priority, found[2].dequeued_at is not None) == ("mail", 4, True)
    assert found[0].attributes == {"kind": "sum"}
    for status in found:
        one = DBOS.get_workflow_status(status.workflow_id)
        assert one is not None
        mine, its = dict(vars(status)), dict(vars(one))
        assert str(mine.pop("error")) == str(its.pop("error"))
        assert mine == its
        assert set(vars(status)) == set(WorkflowStatus.__annotations__)


def test_payloads_that_are_not_wanted_are_not_read(
    app: type[DBOS], dbos_log: None, caplog: pytest.LogCaptureFixture, database_url: str
) -> None:
    """05 R72: nothing of them reaches the process, so even an unreadable one is not noticed."""

    @DBOS.workflow()
    def work(number: int) -> int:
        return number

    with SetWorkflowID("w"):
        work(1)
    rows(database_url, "UPDATE workflow_input SET inputs = 'broken'")
    rows(database_url, "UPDATE workflow_output SET output = 'broken'")
    (status,) = DBOS.list_workflows(load_input=False, load_output=False)
    assert (status.input, status.output, status.error, status.status) == (None, None, None, "SUCCESS")
    assert caplog.messages == []
    assert [DBOS.list_workflows(load_input=False)[0].input, DBOS.list_workflows(load_output=False)[0].output] == [
        None,
        None,
    ]


def test_an_unreadable_payload_is_shown_as_it_is_stored(
    app: type[DBOS], dbos_log: None, caplog: pytest.LogCaptureFixture, database_url: str
) -> None:
    """05 R71: with a warning, and the other workflows are listed."""

    @DBOS.workflow()
    def work(number: int) -> int:
        return number

    for workflow_id in ("good", "bad"):
        with SetWorkflowID(workflow_id):
            work(1)
    rows(database_url, "UPDATE workflow_input SET inputs = 'in' WHERE workflow_uuid = 'bad'")
    rows(database_url, "UPDATE workflow_output SET output = 'out' WHERE workflow_uuid = 'bad'")
    rows(database_url, "UPDATE workflow_status SET authenticated_roles = '[' WHERE workflow_uuid = 'bad'")
    good, bad = DBOS.list_workflows()
    assert (good.input, good.output) == ({"args": (1,), "kwargs": {}}, 1)
    assert (bad.input, bad.output, bad.authenticated_roles) == ("in", "out", "[")
    assert sum("workflow bad cannot be read back" in message for message in caplog.messages) == 3


def test_payloads_of_rows_that_older_releases_wrote_are_found(insert: Insert) -> None:
    """05 section 2.1: inputs and outcome in the row itself."""
    insert("w", inputs='{"positionalArgs": [1], "namedArgs": {}}', output="2", serialization="portable_json")
    (status,) = DBOS.list_workflows()
    assert status.input is not None
    assert (list(status.input["args"]), status.output) == ([1], 2)


# --- order and pages


def test_the_order_is_total_and_pages_neither_repeat_nor_skip(insert: Insert) -> None:
    """05 R73 and section 15: by age, within a millisecond by id."""
    for number in (4, 2, 9, 0, 7):
        insert(f"same-{number}")
    insert("older", created_at=MONDAY_MS - 1)
    insert("newer", created_at=MONDAY_MS + 1)
    whole = ["older", "same-0", "same-2", "same-4", "same-7", "same-9", "newer"]
    assert listed() == whole
    assert listed(sort_desc=True) == whole[::-1]
    for newest_first, order in ((False, whole), (True, whole[::-1])):
        pages = [listed(limit=2, offset=offset, sort_desc=newest_first) for offset in range(0, 8, 2)]
        assert pages == [order[0:2], order[2:4], order[4:6], order[6:]]
        by_cursor: list[list[str]] = []
        last: Any = None
        while page := DBOS.list_workflows(limit=2, after=last, sort_desc=newest_first):
            by_cursor.append([status.workflow_id for status in page])
            last = page[-1] if len(by_cursor) % 2 else (page[-1].created_at, page[-1].workflow_id)
        assert by_cursor == pages
    assert listed(offset=5) == whole[5:]
    assert listed(limit=0) == []
    assert listed(offset=100) == []


@pytest.mark.parametrize("after", ["same-0", (1,), ("1", "w"), (1, 2), (True, "w"), (1, "a\0b")])
def test_a_place_that_is_none_is_refused(app: type[DBOS], after: Any) -> None:
    with pytest.raises((ValueError, DBOSException), match=r"after must be|NUL"):
        DBOS.list_workflows(after=after)


# --- queued work


def test_queued_work_is_what_waits_or_runs_on_a_queue(client: DBOSClient, database_url: str) -> None:
    """03 R102, 05 R76."""
    gate = Gate()

    @DBOS.workflow(name="work")
    def work() -> None:
        gate.wait()

    DBOS.register_queue("mail", global_concurrency=1)
    running = DBOS.enqueue_workflow("mail", work)
    wait_until(lambda: running.get_status().status == "PENDING")
    waiting = DBOS.enqueue_workflow("mail", work)
    with SetEnqueueOptions(delay_seconds=3600):
        delayed = DBOS.enqueue_workflow("other", work)
    direct = DBOS.start_workflow(work)
    cancelled = DBOS.enqueue_workflow("other", work)
    DBOS.cancel_workflow(cancelled.workflow_id)
    on_queues = [running.workflow_id, waiting.workflow_id, delayed.workflow_id]
    assert queued() == on_queues
    assert queued(sort_desc=True) == on_queues[::-1]
    assert listed(queues_only=True) == on_queues
    assert queued(queue_name="mail") == on_queues[:2]
    assert queued(status="DELAYED") == on_queues[2:]
    assert queued(status="CANCELLED") == []
    gate.open()
    for handle in (running, waiting, direct):
        handle.get_result()
    assert queued() == on_queues[2:]
    assert queued(status=["SUCCESS"]) == on_queues[:2]  # what ended on a queue


def test_queued_work_is_filtered_like_all_other(insert: Insert) -> None:
    """05 R76: but for three filters that it does not have; the internal queue is one of the queues."""
    for number, status in enumerate(("ENQUEUED", "PENDING", "DELAYED", "SUCCESS", "CANCELLED")):
        others = {"queue_name": "_dbos_internal_queue" if number == 0 else "mail", "application_version": "other"}
        insert(status, status=status, name=f"f{number % 2}", created_at=MONDAY_MS + number, **others)
    insert("direct", status="PENDING", application_version="other")
    waiting = ["ENQUEUED", "PENDING", "DELAYED"]
    assert queued() == waiting
    assert queued(sort_desc=True, limit=2, offset=1) == ["PENDING", "ENQUEUED"]
    assert queued(name="f0", start_time=at(1)) == ["DELAYED"]
    assert queued(workflow_ids=["SUCCESS", "PENDING"]) == ["PENDING"]
    assert queued(status=["SUCCESS", "PENDING"]) == ["PENDING", "SUCCESS"]
    assert queued(queue_name="_dbos_internal_queue") == ["ENQUEUED"]
    assert queued(queue_name=[]) == queued(limit=0) == []
    for missing in ("queues_only", "was_forked_from", "schedule_name"):
        for target in (DBOS, *clients):
            with pytest.raises(TypeError, match=missing):
                target.list_queued_workflows(**{missing: None})


# --- in workflows, on event loops, under load


def test_a_listing_in_a_workflow_is_a_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R66, R67, 03 R102: a replay returns what was there then."""

    @DBOS.step()
    def in_step() -> int:
        return len(DBOS.list_workflows())

    @DBOS.workflow()
    def work() -> tuple[list[str], list[str], int]:
        return listed(), ids(DBOS.list_queued_workflows()), in_step()

    @DBOS.workflow()
    def other() -> None:
        pass

    with SetWorkflowID("w"):
        assert work() == (["w"], [], 1)
    names = step_names(database_url, "w")
    assert (names[1], names[2], len(names)) == ("DBOS.listWorkflows", "DBOS.listQueuedWorkflows", 3)
    other()
    assert replay(config, "w") == (["w"], [], 1)


async def test_the_async_forms_are_recorded_alike_and_the_sync_forms_refuse_a_running_loop(
    config: Config, database_url: str
) -> None:
    """05 R64, R65: step ids in the order of the calls."""
    DBOS(config=config)

    @DBOS.workflow()
    async def work() -> list[int]:
        found = await asyncio.gather(
            DBOS.list_workflows_async(status="PENDING"), DBOS.list_queued_workflows_async(), DBOS.list_workflows_async()
        )
        return [len(part) for part in found]

    DBOS.launch()
    with SetWorkflowID("w"):
        assert await work() == [1, 0, 1]
    assert list(step_names(database_url, "w").values()) == [
        "DBOS.listWorkflows",
        "DBOS.listQueuedWorkflows",
        "DBOS.listWorkflows",
    ]
    assert ids(await DBOS.list_workflows_async()) == ["w"]
    with pytest.raises(RuntimeError, match="list_workflows_async"):
        DBOS.list_workflows()
    with pytest.raises(RuntimeError, match="list_queued_workflows_async"):
        DBOS.list_queued_workflows()
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_a_serializer_that_cannot_hold_a_listing_leaves_it_unrecorded(config: Config, database_url: str) -> None:
    """05 R69: there a TypeError; here the listing is delivered, and a replay lists again."""
    DBOS(config=config | {"serializer": DBOSPortableJSONSerializer()})

    @DBOS.workflow()
    def work() -> list[str]:
        return listed()

    DBOS.launch()
    with SetWorkflowID("a"):
        assert work() == ["a"]
    assert step_names(database_url, "a") == {}
    with SetWorkflowID("b"):
        assert work() == ["a", "b"]
    DBOS.destroy(destroy_registry=True)


def test_listings_need_a_launched_application(config: Config) -> None:
    with pytest.raises(DBOSException, match="No DBOS"):
        DBOS.list_workflows()
    DBOS(config=config)
    with pytest.raises(DBOSException, match="before DBOS was launched"):
        DBOS.list_queued_workflows()
    DBOS.destroy(destroy_registry=True)


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_listing_that_takes_too_long_is_given_up(config: Config, database_url: str) -> None:
    """05 R50: not one that names ids. Nothing is recorded, so a workflow may try again."""
    DBOS(config=config | {"observability_query_timeout_sec": 0.2})
    by_id: list[list[str]] = []

    @DBOS.workflow()
    def work() -> list[Any]:
        with psycopg.connect(database_url) as blocker:
            blocker.execute("LOCK TABLE dbos.workflow_status IN ACCESS EXCLUSIVE MODE")
            patient = threading.Thread(target=lambda: by_id.append(listed(workflow_ids=["w"])))
            patient.start()
            with pytest.raises(DBOSQueryTimeoutError) as caught:
                DBOS.list_workflows()
            assert by_id == []
            blocker.execute("LOCK TABLE dbos.operation_outputs IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(DBOSQueryTimeoutError):
                DBOS.list_workflow_steps("w")
        patient.join()
        return [caught.value.timeout_seconds, *listed()]

    DBOS.launch()
    with SetWorkflowID("w"):
        assert work() == [0.2, "w"]
    assert by_id == [["w"]]
    assert step_names(database_url, "w") == {3: "DBOS.listWorkflows"}
    DBOS.destroy(destroy_registry=True)
