"""Enqueueing: entry points, options, rows (03 sections 4.1 to 4.3)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    EnqueueOptions,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import DBOSException, DBOSWorkflowFunctionNotFoundError
from tests.helpers import NOWHERE, declare_echo, rows, status_row
from tests.queues.shop import declare_shop

Config = dict[str, Any]

# --- entry points


def test_an_enqueued_workflow_is_run_and_its_result_comes_back(app: type[DBOS], database_url: str) -> None:
    """03 section 4.1, R38, R91."""
    echo = declare_echo()
    queue = DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow("mail", echo, 5)
    assert handle.get_result() == 5
    assert queue.enqueue(echo, 6).get_result() == 6
    row = status_row(database_url, handle.workflow_id)
    assert (row["status"], row["queue_name"], row["recovery_attempts"]) == ("SUCCESS", "mail", 1)
    assert (row["executor_id"], row["application_version"], row["application_name"]) == ("test", "v1", "test-app")
    assert row["owner_xid"] is None
    assert row["created_at"] <= row["started_at_epoch_ms"] <= row["completed_at"]
    assert handle.get_status().dequeued_at == row["started_at_epoch_ms"]


async def test_async_workflows_and_async_callers(config: Config) -> None:
    """03 section 4.1, R28."""
    DBOS(config=config)

    @DBOS.workflow()
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    @DBOS.workflow()
    def sync_work(value: int) -> int:
        return value * 3

    DBOS.launch()
    queue = await DBOS.register_queue_async("mail")
    assert await (await DBOS.enqueue_workflow_async("mail", work, 2)).get_result() == 4
    assert await (await queue.enqueue_async(work, 3)).get_result() == 6
    assert await (await DBOS.enqueue_workflow_async("mail", sync_work, 2)).get_result() == 6
    options: EnqueueOptions = {"queue_name": "mail", "workflow_name": work.__qualname__}
    assert await (await DBOS.enqueue_workflow_with_options_async(options, 5)).get_result() == 10
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_methods_and_steps_can_be_enqueued(app: type[DBOS], database_url: str) -> None:
    """03 R28, R29."""
    shop_class = declare_shop()

    @DBOS.step(name="lonely")
    def lonely(value: int) -> int:
        return value + 1

    shop = shop_class("north")
    DBOS.register_queue("mail")
    instance = DBOS.enqueue_workflow("mail", shop.instance_work, 1)
    of_class = DBOS.enqueue_workflow("mail", shop_class.class_work, 2)
    static = DBOS.enqueue_workflow("mail", shop_class.static_work, 3)
    step = DBOS.enqueue_workflow("mail", lonely, 4)
    assert [instance.get_result(), of_class.get_result(), static.get_result()] == ["north:1", "Shop:2", "static:3"]
    assert step.get_result() == 5
    row = status_row(database_url, instance.workflow_id)
    assert (row["class_name"], row["config_name"]) == ("Shop", "north")
    row = status_row(database_url, of_class.workflow_id)
    assert (row["class_name"], row["config_name"]) == ("Shop", None)
    row = status_row(database_url, static.workflow_id)
    assert (row["class_name"], row["config_name"]) == (None, None)
    assert status_row(database_url, step.workflow_id)["name"] == "<temp>.lonely"


def test_an_unregistered_function_is_refused(app: type[DBOS], database_url: str) -> None:
    """03 R28."""
    with pytest.raises(DBOSWorkflowFunctionNotFoundError):
        DBOS.enqueue_workflow(NOWHERE, lambda: None)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


def test_the_queue_is_not_looked_up(app: type[DBOS], database_url: str) -> None:
    """03 R27: it may be registered later."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("later", echo, 1)
    row = status_row(database_url, handle.workflow_id)
    assert (row["status"], row["recovery_attempts"], row["owner_xid"]) == ("ENQUEUED", 0, None)
    assert (row["started_at_epoch_ms"], row["priority"]) == (None, 0)
    DBOS.register_queue("later")
    assert handle.get_result() == 1


@pytest.mark.parametrize("queue_name", ["", None, 5, "nul\0"])
def test_a_queue_name_is_a_text(app: type[DBOS], database_url: str, queue_name: Any) -> None:
    echo = declare_echo()
    with pytest.raises(DBOSException):
        DBOS.enqueue_workflow(queue_name, echo)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


@pytest.mark.parametrize("state", ["nothing", "constructed", "destroyed"])
def test_enqueueing_needs_a_launched_application(config: Config, state: str) -> None:
    """03 section 4.8."""
    if state != "nothing":
        DBOS(config=config)
    echo = declare_echo()
    if state == "destroyed":
        DBOS.launch()
        DBOS.destroy()
    with pytest.raises(DBOSException):
        DBOS.enqueue_workflow(NOWHERE, echo)
    with pytest.raises(DBOSException):
        DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": NOWHERE})
    DBOS.destroy(destroy_registry=True)


async def test_the_sync_form_works_on_an_event_loop(app: type[DBOS], database_url: str) -> None:
    """03 section 4.8: it blocks the loop for a commit."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow(NOWHERE, echo)
    assert status_row(database_url, handle.workflow_id)["status"] == "ENQUEUED"


# --- what the row says


def test_ambient_options_of_an_enqueue_by_function(app: type[DBOS], database_url: str) -> None:
    """03 R31, R39."""
    echo = declare_echo()
    with (
        SetWorkflowID("w"),
        SetWorkflowTimeout(10),
        SetWorkflowAttributes({"a": 1}),
        DBOSContextSetAuth("alice", ["admin"]),
        SetEnqueueOptions(priority=7, queue_partition_key="p", app_version="v9"),
    ):
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    row = status_row(database_url, "w")
    assert (row["priority"], row["queue_partition_key"], row["application_version"]) == (7, "p", "v9")
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (10_000, None)
    assert (row["authenticated_user"], json.loads(row["authenticated_roles"])) == ("alice", ["admin"])
    attributes = row["attributes"]
    assert (json.loads(attributes) if isinstance(attributes, str) else attributes) == {"a": 1}
    assert (row["executor_id"], row["serialization"]) == ("test", "py_pickle")
    assert row["creator_xid"] is not None


def test_options_of_an_enqueue_by_name(app: type[DBOS], database_url: str) -> None:
    """05 R96, 03 R30, R39, R41 and section 4.2."""
    options: EnqueueOptions = {
        "workflow_name": "unknown here",
        "queue_name": NOWHERE,
        "workflow_id": "w",
        "workflow_timeout": 2.5,
        "deduplication_id": "d",
        "priority": 3,
        "authenticated_user": "bob",
        "authenticated_roles": ["reader"],
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
        "class_name": "Shop",
        "instance_name": "north",
        "attributes": {"b": 2},
        "application_name": "other-app",
    }
    before = dict(options)
    with SetWorkflowAttributes({"a": 1, "b": 1}), SetEnqueueOptions(priority=9):
        handle = DBOS.enqueue_workflow_with_options(options, 1, key="value")
    assert handle.workflow_id == "w"
    assert dict(options) == before
    row = status_row(database_url, "w")
    assert (row["name"], row["class_name"], row["config_name"]) == ("unknown here", "Shop", "north")
    assert (row["workflow_timeout_ms"], row["priority"], row["deduplication_id"]) == (2500, 3, "d")
    assert (row["application_name"], row["application_version"], row["executor_id"]) == ("other-app", None, None)
    assert (row["authenticated_user"], json.loads(row["authenticated_roles"])) == ("bob", ["reader"])
    attributes = row["attributes"]
    assert (json.loads(attributes) if isinstance(attributes, str) else attributes) == {"a": 1, "b": 2}
    (stored,) = rows(database_url, "SELECT inputs FROM workflow_input WHERE workflow_uuid = 'w'")
    assert row["serialization"] == "portable_json"
    assert json.loads(stored["inputs"]) == {"positionalArgs": [1], "namedArgs": {"key": "value"}}


def test_an_enqueue_by_name_runs_on_the_latest_version(app: type[DBOS], database_url: str) -> None:
    """03 R41, R71, R91."""
    declare_echo()
    DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": "mail"}, 4)
    assert handle.get_result() == 4
    assert status_row(database_url, handle.workflow_id)["application_version"] == "v1"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue_name": NOWHERE}, KeyError),
        ({"workflow_name": "echo"}, KeyError),
        ({"workflow_id": " "}, DBOSException),
        ({"workflow_id_reuse_policy": "other"}, DBOSException),
        ({"duplication_policy": "other"}, DBOSException),
        ({"duplication_policy": "return-existing"}, DBOSException),
        ({"priority": 0}, DBOSException),
        ({"priority": 2**31}, DBOSException),
        ({"priority": True}, DBOSException),
        ({"deduplication_id": "d", "queue_partition_key": "p"}, DBOSException),
        ({"attributes": {"a": object()}}, DBOSException),
        ({"shard_key": "s"}, DBOSException),
        ({"workflow_timeout": float("nan")}, DBOSException),
        ({"deduplication_id": "nul\0"}, DBOSException),
    ],
)
def test_options_without_meaning_are_refused(
    app: type[DBOS], database_url: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """03 section 4.2, R30, R37, R40."""
    declare_echo()
    whole: Any = options if error is KeyError else {"workflow_name": "echo", "queue_name": NOWHERE} | options
    with pytest.raises(error):
        DBOS.enqueue_workflow_with_options(whole, 1)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


@pytest.mark.parametrize(
    "options",
    [
        {"duplication_policy": "return-existing"},
        {"duplication_policy": "other", "deduplication_id": "d"},
        {"queue_partition_key": "p", "deduplication_id": "d"},
    ],
)
def test_ambient_options_without_meaning_are_refused(
    app: type[DBOS], database_url: str, options: dict[str, Any]
) -> None:
    """03 section 4.2, R37."""
    echo = declare_echo()
    with SetEnqueueOptions(**options), pytest.raises(DBOSException):
        DBOS.enqueue_workflow(NOWHERE, echo)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


def test_unserializable_arguments_write_nothing(app: type[DBOS], database_url: str) -> None:
    echo = declare_echo()
    with pytest.raises(Exception, match="arguments of workflow 'echo'"):
        DBOS.enqueue_workflow(NOWHERE, echo, lambda: None)
    with pytest.raises(Exception, match="arguments of workflow 'echo'"):
        DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": NOWHERE}, lambda: None)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


def test_nested_blocks_replace_each_other(app: type[DBOS], database_url: str) -> None:
    """03 R31, R32."""
    echo = declare_echo()
    with SetEnqueueOptions(priority=5, queue_partition_key="p"):
        with SetEnqueueOptions(priority=6):
            inner = DBOS.enqueue_workflow(NOWHERE, echo)
        outer = DBOS.enqueue_workflow(NOWHERE, echo)
    row = status_row(database_url, inner.workflow_id)
    assert (row["priority"], row["queue_partition_key"]) == (6, None)
    row = status_row(database_url, outer.workflow_id)
    assert (row["priority"], row["queue_partition_key"]) == (5, "p")


def test_an_option_that_is_none_or_unknown_counts_as_unset(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R30, 04 12.16: an unknown one with a warning."""
    declare_echo()
    options: Any = {"workflow_name": "echo", "queue_name": NOWHERE, "priority": None, "workflow_id": None, "priorty": 1}
    with SetEnqueueOptions(priority=4):
        handle = DBOS.enqueue_workflow_with_options(options, 1)
    assert status_row(database_url, handle.workflow_id)["priority"] == 4
    assert "There is no enqueue option 'priorty'. Did you mean 'priority'?" in caplog.text
