"""Enqueueing many workflows with one call: `DBOS.enqueue_workflows`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    EnqueueItem,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.api import bulk
from dbos.error import (
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSQueueDeduplicatedError,
    DBOSUnexpectedStepError,
    DBOSWorkflowFunctionNotFoundError,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import NOWHERE, make_pending, relaunch, replay, rows, status_row, step_rows, wait_until
from tests.queues.shop import declare_shop

Config = dict[str, Any]

# A queue nobody has registered: what is put there waits.


def declare_echo() -> Any:
    @DBOS.workflow(name="echo")
    def echo(value: Any = None, **more: Any) -> Any:
        return more or value

    return echo


def stored_ids(database_url: str) -> list[str]:
    return [row["workflow_uuid"] for row in rows(database_url, "SELECT workflow_uuid FROM workflow_status ORDER BY 1")]


# --- what is enqueued


def test_all_are_run_and_the_handles_come_in_order(app: type[DBOS]) -> None:
    echo = declare_echo()
    DBOS.register_queue("mail")
    handles = DBOS.enqueue_workflows("mail", (EnqueueItem(echo, number) for number in range(500)))
    assert [handle.get_result() for handle in handles] == list(range(500))
    assert DBOS.enqueue_workflows("mail", []) == []


def test_they_start_in_the_order_of_the_call(app: type[DBOS]) -> None:
    started: list[int] = []

    @DBOS.workflow()
    def work(number: int) -> None:
        started.append(number)

    DBOS.register_queue("one", global_concurrency=1)
    for handle in DBOS.enqueue_workflows("one", [EnqueueItem(work, number) for number in range(30)]):
        handle.get_result()
    assert started == list(range(30))


def test_children_start_in_the_order_of_the_call(app: type[DBOS]) -> None:
    """Their ids, which decide among those of the same age, do not grow: `p-9`, `p-10`."""
    started: list[int] = []

    @DBOS.workflow()
    def work(number: int) -> None:
        started.append(number)

    @DBOS.workflow()
    def parent() -> None:
        for handle in DBOS.enqueue_workflows("one", [EnqueueItem(work, number) for number in range(30)]):
            handle.get_result()

    DBOS.register_queue("one", global_concurrency=1)
    parent()
    assert started == list(range(30))


async def test_async_callers(config: Config) -> None:
    DBOS(config=config)

    @DBOS.workflow()
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    DBOS.launch()
    await DBOS.register_queue_async("mail")
    handles = await DBOS.enqueue_workflows_async("mail", [EnqueueItem(work, number) for number in range(20)])
    assert [await handle.get_result() for handle in handles] == [number * 2 for number in range(20)]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_an_item_is_a_function_a_method_a_step_or_a_name(app: type[DBOS], database_url: str) -> None:
    shop_class = declare_shop()

    @DBOS.step(name="lonely")
    def lonely(value: int) -> str:
        return f"step:{value}"

    echo = declare_echo()
    north, south = shop_class("north"), shop_class("south")
    DBOS.register_queue("mail")
    items: list[EnqueueItem[Any]] = [
        EnqueueItem(north.instance_work, 1),
        EnqueueItem(south.instance_work, 2),
        EnqueueItem(shop_class.class_work, 3),
        EnqueueItem(shop_class.class_work, 4),
        EnqueueItem(shop_class.static_work, 5),
        EnqueueItem(shop_class.static_work, 6),
        EnqueueItem(lonely, 7),
        EnqueueItem(echo, 8),
        EnqueueItem("echo", 9),
        EnqueueItem("instance_work", 10).with_options(class_name="Shop", instance_name="south"),
        EnqueueItem(echo, value=1, priority=11),
    ]
    handles = DBOS.enqueue_workflows("mail", items)
    assert [handle.get_result() for handle in handles] == [
        "north:1", "south:2", "Shop:3", "Shop:4", "static:5", "static:6", "step:7", 8, 9, "south:10", {"priority": 11},
    ]  # fmt: skip


def test_the_rows_are_those_of_single_enqueues(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    with (
        SetWorkflowTimeout(10),
        SetWorkflowAttributes({"a": 1}),
        DBOSContextSetAuth("alice", ["admin"]),
        SetEnqueueOptions(priority=7, queue_partition_key="p", app_version="v9"),
    ):
        single = DBOS.enqueue_workflow(NOWHERE, echo, 1)
        named = DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": NOWHERE}, 1)
        handles = DBOS.enqueue_workflows(
            NOWHERE, [EnqueueItem(echo, 1), EnqueueItem(echo, 1), EnqueueItem("echo", 1), EnqueueItem("echo", 1)]
        )
    own = {"workflow_uuid", "creator_xid", "created_at", "updated_at"}

    def comparable(workflow_id: str) -> dict[str, Any]:
        row = status_row(database_url, workflow_id)
        (stored,) = rows(database_url, "SELECT inputs FROM workflow_input WHERE workflow_uuid = %s", workflow_id)
        return {key: value for key, value in row.items() if key not in own} | stored

    by_function, by_name = comparable(single.workflow_id), comparable(named.workflow_id)
    assert by_function != by_name
    assert [comparable(handle.workflow_id) for handle in handles] == [by_function, by_function, by_name, by_name]
    tokens = rows(database_url, "SELECT DISTINCT creator_xid FROM workflow_status")
    assert len(tokens) == 6


def test_items_have_options_of_their_own(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    item = EnqueueItem(echo, 1)
    full = item.with_options(
        queue_name="other",
        workflow_id="w",
        workflow_timeout=2.5,
        deduplication_id="d",
        priority=3,
        app_version="v7",
        authenticated_user="bob",
        authenticated_roles=["reader"],
        serialization_type=WorkflowSerializationFormat.PORTABLE,
        attributes={"b": 2},
        application_name="other-app",
    )
    delayed = item.with_options(delay_seconds=1000, queue_partition_key="p").with_options(priority=2)
    assert item.options is None
    with SetWorkflowAttributes({"a": 1, "b": 1}), SetEnqueueOptions(priority=9), DBOSContextSetAuth("alice", ["admin"]):
        first, second, third, fourth = DBOS.enqueue_workflows(
            NOWHERE,
            [full, item, delayed, delayed.with_options(delay_seconds=None)],  # type: ignore[typeddict-item]
        )
    row = status_row(database_url, "w")
    assert first.workflow_id == "w"
    assert (row["queue_name"], row["workflow_timeout_ms"], row["priority"]) == ("other", 2500, 3)
    assert (row["deduplication_id"], row["application_version"]) == ("d", "v7")
    assert (row["application_name"], row["executor_id"], row["serialization"]) == ("other-app", "test", "portable_json")
    assert (row["authenticated_user"], json.loads(row["authenticated_roles"])) == ("bob", ["reader"])
    attributes = row["attributes"]
    assert (json.loads(attributes) if isinstance(attributes, str) else attributes) == {"a": 1, "b": 2}
    row = status_row(database_url, second.workflow_id)
    assert (row["queue_name"], row["priority"], row["application_version"]) == (NOWHERE, 9, "v1")
    assert (row["authenticated_user"], row["serialization"]) == ("alice", "py_pickle")
    row = status_row(database_url, third.workflow_id)
    assert (row["status"], row["priority"], row["queue_partition_key"]) == ("DELAYED", 2, "p")
    assert status_row(database_url, fourth.workflow_id)["status"] == "ENQUEUED"


def test_delayed_items_start_when_they_are_due(app: type[DBOS]) -> None:
    echo = declare_echo()
    DBOS.register_queue("mail")
    items = [EnqueueItem(echo, number).with_options(delay_seconds=delay) for number, delay in enumerate((1000, 0.2, 0))]
    handles = DBOS.enqueue_workflows("mail", items)
    assert [handles[1].get_result(), handles[2].get_result()] == [1, 2]
    assert handles[0].get_status().status == "DELAYED"


def test_a_block_with_an_id_gives_it_to_the_first_item_without_one(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    echo = declare_echo()
    with SetWorkflowID("w"):
        handles = DBOS.enqueue_workflows(
            NOWHERE, [EnqueueItem(echo).with_options(workflow_id="own"), EnqueueItem(echo), EnqueueItem(echo)]
        )
    assert [handle.workflow_id for handle in handles][:2] == ["own", "w"]
    assert len({handle.workflow_id for handle in handles}) == 3
    assert caplog.text.count("gives its id to the first start") == 1


# --- all or nothing


def unserializable() -> Any:
    return lambda: None


@pytest.mark.parametrize(
    ("make_bad", "error"),
    [
        (lambda echo, other: EnqueueItem(echo).with_options(deduplication_id="held"), DBOSQueueDeduplicatedError),
        (
            lambda echo, other: EnqueueItem(echo).with_options(workflow_id="used", workflow_id_reuse_policy="reject"),
            DBOSWorkflowIDInUseError,
        ),
        (lambda echo, other: EnqueueItem(other).with_options(workflow_id="used"), DBOSConflictingWorkflowError),
        (lambda echo, other: EnqueueItem(echo, unserializable()), Exception),
        (lambda echo, other: EnqueueItem("by name", unserializable()), Exception),
        (lambda echo, other: EnqueueItem(unserializable()), DBOSWorkflowFunctionNotFoundError),
        (lambda echo, other: echo, DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(priority=0), DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(workflow_id=" "), DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(workflow_id="a\0"), DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(queue_name=""), DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(class_name="Shop"), DBOSException),
        (lambda echo, other: EnqueueItem(echo).with_options(duplication_policy="return-existing"), DBOSException),
        (
            lambda echo, other: EnqueueItem(echo).with_options(deduplication_id="d", queue_partition_key="p"),
            DBOSException,
        ),
        (
            # Nothing looks into a text of portable JSON; the database refuses it.
            lambda echo, other: EnqueueItem(echo).with_options(attributes={"a": "\0"}),
            DBOSException,
        ),
    ],
)
def test_an_item_that_cannot_be_enqueued_is_named_and_nothing_is_written(
    app: type[DBOS], database_url: str, make_bad: Any, error: type[Exception], backend: str
) -> None:
    echo = declare_echo()

    @DBOS.workflow(name="other")
    def other() -> None: ...

    with SetEnqueueOptions(deduplication_id="held"), SetWorkflowID("used"):
        DBOS.enqueue_workflow(NOWHERE, echo)
    items = [EnqueueItem(echo, number) for number in range(10)]
    items[7] = make_bad(echo, other)
    if backend == "sqlite" and (items[7].options if isinstance(items[7], EnqueueItem) else {}) == {
        "attributes": {"a": "\0"}
    }:
        # The escape is text to SQLite, as it is for a single enqueue.
        assert len(DBOS.enqueue_workflows(NOWHERE, items)) == 10
        return
    with pytest.raises(error, match="Item 7: "):
        DBOS.enqueue_workflows(NOWHERE, items)
    assert stored_ids(database_url) == ["used"]
    assert len(rows(database_url, "SELECT * FROM workflow_input")) == 1


def test_an_id_in_use_gives_the_existing_workflow(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    DBOS.register_queue("mail")
    with SetWorkflowID("w"):
        assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    items = [EnqueueItem(echo, 2), EnqueueItem(echo, 3).with_options(workflow_id="w"), EnqueueItem(echo, 4)]
    handles = DBOS.enqueue_workflows("mail", items)
    assert [handle.get_result() for handle in handles] == [2, 1, 4]


def test_a_held_deduplication_id_can_give_the_holder(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    attaching = EnqueueItem(echo).with_options(deduplication_id="d", duplication_policy="return-existing")
    handles = DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo), attaching, attaching])
    assert [handle.workflow_id == holder.workflow_id for handle in handles] == [False, True, True]
    assert len(stored_ids(database_url)) == 2


def test_items_of_one_call_meet_each_other_like_single_enqueues(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    same = EnqueueItem(echo).with_options(workflow_id="w")
    first, second = DBOS.enqueue_workflows(NOWHERE, [same, same])
    assert (first.workflow_id, second.workflow_id) == ("w", "w")
    deduplicated = EnqueueItem(echo).with_options(deduplication_id="d")
    with pytest.raises(DBOSQueueDeduplicatedError, match="Item 2: "):
        DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo), deduplicated, deduplicated])
    assert stored_ids(database_url) == ["w"]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(DBOSException, match="'urgent'"):
        EnqueueItem("echo").with_options(urgent=True)  # type: ignore[call-arg]


def test_more_items_than_a_transaction_should_hold_are_refused(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = declare_echo()
    monkeypatch.setattr(bulk, "MAX_ITEMS", 5)
    endless = iter(lambda: EnqueueItem(echo), None)
    with pytest.raises(DBOSException, match="at most 5 items"):
        DBOS.enqueue_workflows(NOWHERE, endless)
    assert stored_ids(database_url) == []


def test_ten_thousand_items(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    handles = DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo, number) for number in range(10_000)])
    assert [handle.workflow_id for handle in handles] == stored_ids(database_url)


# --- in workflows


def test_each_item_is_a_step_of_its_own(app: type[DBOS], config: Config, database_url: str) -> None:
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        before = DBOS.enqueue_workflow(NOWHERE, echo)
        items: list[EnqueueItem[Any]] = [EnqueueItem(echo, 1), EnqueueItem("other", 2), EnqueueItem(echo, 3)]
        handles = DBOS.enqueue_workflows(NOWHERE, items)
        after = DBOS.enqueue_workflow(NOWHERE, echo)
        return [handle.workflow_id for handle in (before, *handles, after)]

    with SetWorkflowID("p"):
        assert parent() == ["p-1", "p-2", "p-3", "p-4", "p-5"]
    steps = step_rows(database_url, "p")
    assert [(step["function_id"], step["function_name"], step["child_workflow_id"]) for step in steps] == [
        (1, "echo", "p-1"),
        (2, "echo", "p-2"),
        (3, "other", "p-3"),
        (4, "echo", "p-4"),
        (5, "echo", "p-5"),
    ]
    # Like those of a single enqueue.
    shape = {key: value for key, value in steps[0].items() if value is None}
    assert all({key: value for key, value in step.items() if value is None} == shape for step in steps)
    assert status_row(database_url, "p-3")["parent_workflow_id"] == "p"
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid LIKE 'p-%%'".replace("%%", "%"))
    assert replay(config, "p") == ["p-1", "p-2", "p-3", "p-4", "p-5"]
    assert stored_ids(database_url) == ["p"]


def test_what_single_enqueues_have_recorded_is_continued(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R96, And the other way round: the records are the same."""
    echo = declare_echo()
    together = False

    @DBOS.workflow()
    def parent() -> list[str]:
        if together:
            return [h.workflow_id for h in DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo, i) for i in range(4)])]
        return [DBOS.enqueue_workflow(NOWHERE, echo, number).workflow_id for number in range(4)]

    expected = ["p-1", "p-2", "p-3", "p-4"]
    with SetWorkflowID("p"):
        assert parent() == expected
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = 'p-3' OR workflow_uuid = 'p-4'")
    together = True
    assert replay(config, "p", steps_until=2) == expected
    assert stored_ids(database_url) == ["p", *expected]
    together = False
    assert replay(config, "p") == expected


def test_a_replay_meets_the_error_again(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R45: also when the id has been released meanwhile."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        items = [EnqueueItem(echo), EnqueueItem(echo).with_options(deduplication_id="d"), EnqueueItem(echo)]
        try:
            DBOS.enqueue_workflows(NOWHERE, items)
        except DBOSQueueDeduplicatedError as error:
            return [str(error), error.workflow_id, DBOS.enqueue_workflow(NOWHERE, echo).workflow_id]
        return []

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        seen = parent()
    assert "Item 1: " in seen[0]
    assert seen[1:] == ["p-2", "p-4"]
    assert [step["function_id"] for step in step_rows(database_url, "p")] == [2, 4]
    assert stored_ids(database_url) == sorted(["p", "p-4", holder.workflow_id])
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == seen


def test_the_holder_is_recorded_as_the_child(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R53."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        attaching = EnqueueItem(echo).with_options(deduplication_id="d", duplication_policy="return-existing")
        return [handle.workflow_id for handle in DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo), attaching])]

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == ["p-1", holder.workflow_id]
    assert [step["child_workflow_id"] for step in step_rows(database_url, "p")] == ["p-1", holder.workflow_id]
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == ["p-1", holder.workflow_id]


def test_changed_code_is_noticed(app: type[DBOS], config: Config, database_url: str) -> None:
    echo = declare_echo()
    name = "one"

    @DBOS.workflow()
    def parent() -> int:
        try:
            return len(DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo), EnqueueItem(name)]))
        except DBOSUnexpectedStepError:
            return -1

    with SetWorkflowID("p"):
        assert parent() == 2
    name = "two"
    assert replay(config, "p") == -1


async def test_concurrent_calls_are_numbered_in_order(config: Config) -> None:
    """03 R43."""
    DBOS(config=config)
    echo = declare_echo()

    @DBOS.workflow()
    async def parent() -> list[list[str]]:
        calls = [DBOS.enqueue_workflows_async(NOWHERE, [EnqueueItem(echo), EnqueueItem(echo)]) for _ in range(3)]
        return [[handle.workflow_id for handle in handles] for handles in await asyncio.gather(*calls)]

    DBOS.launch()
    with SetWorkflowID("p"):
        assert await parent() == [["p-1", "p-2"], ["p-3", "p-4"], ["p-5", "p-6"]]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_a_step_cannot_enqueue(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()

    @DBOS.step()
    def step() -> str:
        try:
            DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo)])
        except AssertionError as error:
            return str(error)
        return "no error"

    @DBOS.workflow()
    def parent() -> str:
        return step()

    assert "from a step" in parent()
    assert len(stored_ids(database_url)) == 1


def test_a_workflow_that_was_taken_over_enqueues_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R46."""
    echo = declare_echo()
    takeovers = ["first"]

    @DBOS.workflow()
    def parent() -> list[str]:
        if takeovers:
            takeovers.clear()
            rows(database_url, "UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'p'")
            DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo), EnqueueItem(echo)])
            raise AssertionError("the execution went on")
        return [handle.workflow_id for handle in DBOS.enqueue_workflows(NOWHERE, [EnqueueItem(echo)])]

    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    taken_over = "SELECT * FROM workflow_status WHERE workflow_uuid = 'p' AND owner_xid = 'another'"
    wait_until(lambda: not takeovers and rows(database_url, taken_over))
    assert stored_ids(database_url) == ["p"]
    make_pending(database_url, "p")
    relaunch(config)
    assert DBOS.retrieve_workflow("p").get_result() == ["p-1"]
    assert handle.workflow_id == "p"
