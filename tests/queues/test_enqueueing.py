"""Enqueueing: rows, ids, deduplication, delays (03 sections 4, 5 and 7)."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSConfiguredInstance,
    DBOSContextSetAuth,
    EnqueueOptions,
    SetEnqueueOptions,
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
    DBOSUnexpectedStepError,
    DBOSWorkflowFunctionNotFoundError,
    DBOSWorkflowIDInUseError,
)
from tests.helpers import Gate, replay, rows, status_row, step_rows, wait_for_status

Config = dict[str, Any]

# A queue nobody has registered: what is put there waits.
NOWHERE = "nowhere"


def declare_echo() -> Any:
    @DBOS.workflow(name="echo")
    def echo(value: Any = None) -> Any:
        return value

    return echo


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

    @DBOS.dbos_class("Shop")
    class Shop(DBOSConfiguredInstance):
        def __init__(self, name: str) -> None:
            self.label = name
            super().__init__(config_name=name)

        @DBOS.workflow(name="instance_work")
        def instance_work(self, value: int) -> str:
            return f"{self.label}:{value}"

        @classmethod
        @DBOS.workflow(name="class_work")
        def class_work(cls, value: int) -> str:
            return f"{cls.__name__}:{value}"

        @staticmethod
        @DBOS.workflow(name="static_work")
        def static_work(value: int) -> str:
            return f"static:{value}"

    @DBOS.step(name="lonely")
    def lonely(value: int) -> int:
        return value + 1

    shop = Shop("north")
    DBOS.register_queue("mail")
    instance = DBOS.enqueue_workflow("mail", shop.instance_work, 1)
    of_class = DBOS.enqueue_workflow("mail", Shop.class_work, 2)
    static = DBOS.enqueue_workflow("mail", Shop.static_work, 3)
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


# --- inside workflows


def test_an_enqueue_in_a_workflow_is_recorded_as_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R42, R44."""
    echo = declare_echo()
    DBOS.register_queue("mail")

    @DBOS.workflow()
    def parent() -> list[str]:
        first = DBOS.enqueue_workflow("mail", echo, 1)
        second = DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": "mail"}, 2)
        return [first.workflow_id, second.workflow_id]

    with SetWorkflowID("p"):
        assert parent() == ["p-1", "p-2"]
    assert [
        (row["function_id"], row["function_name"], row["child_workflow_id"]) for row in step_rows(database_url, "p")
    ] == [
        (1, "echo", "p-1"),
        (2, "echo", "p-2"),
    ]
    assert status_row(database_url, "p-1")["parent_workflow_id"] == "p"
    wait_for_status(database_url, "p-1", "SUCCESS")
    wait_for_status(database_url, "p-2", "SUCCESS")
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid IN ('p-1', 'p-2')")
    assert replay(config, "p") == ["p-1", "p-2"]
    assert rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = 'p-1'") == []


async def test_gathered_enqueues_are_numbered_in_argument_order(config: Config, database_url: str) -> None:
    """03 R43."""
    DBOS(config=config)
    echo = declare_echo()

    @DBOS.workflow()
    async def parent() -> list[str]:
        handles = await asyncio.gather(*[DBOS.enqueue_workflow_async(NOWHERE, echo, number) for number in range(20)])
        return [handle.workflow_id for handle in handles]

    DBOS.launch()
    with SetWorkflowID("p"):
        assert await parent() == [f"p-{number}" for number in range(1, 21)]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_enqueueing_from_a_step_is_a_clear_error(app: type[DBOS], database_url: str) -> None:
    """03 section 4.8; section 15, 16."""
    echo = declare_echo()

    @DBOS.step()
    def step() -> str:
        try:
            DBOS.enqueue_workflow(NOWHERE, echo)
        except AssertionError as error:
            return str(error)
        return "no error"

    @DBOS.workflow()
    def parent() -> str:
        return step()

    assert "from a step" in parent()
    assert len(rows(database_url, "SELECT * FROM workflow_status")) == 1


def test_children_do_not_inherit_enqueue_options(app: type[DBOS], database_url: str) -> None:
    """03 R31."""
    echo = declare_echo()
    DBOS.register_queue("mail")

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetEnqueueOptions(priority=5):
        handle = DBOS.enqueue_workflow("mail", parent)
    assert status_row(database_url, handle.get_result())["priority"] == 0


# --- ids in use


def test_an_id_in_use_gives_the_existing_workflow(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R47: the new arguments are dropped, the row stays on its queue."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    with SetWorkflowID("w"):
        assert DBOS.enqueue_workflow("mail", echo, 1).get_result() == 1
    with SetWorkflowID("w"):
        assert DBOS.enqueue_workflow("other", echo, 2).get_result() == 1
    assert "keeps its own" in caplog.text
    assert status_row(database_url, "w")["queue_name"] == "mail"


def test_an_id_of_another_function_is_refused(app: type[DBOS]) -> None:
    """03 R48."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None: ...

    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    with SetWorkflowID("w"), pytest.raises(DBOSConflictingWorkflowError):
        DBOS.enqueue_workflow(NOWHERE, other)


def test_an_id_in_use_is_refused_on_demand(app: type[DBOS]) -> None:
    """03 R49."""
    echo = declare_echo()
    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    with SetWorkflowID("w", workflow_id_reuse_policy="reject"), pytest.raises(DBOSWorkflowIDInUseError) as caught:
        DBOS.enqueue_workflow(NOWHERE, echo, 1)
    assert (caught.value.workflow_id, caught.value.workflow_status) == ("w", "ENQUEUED")
    options: EnqueueOptions = {
        "workflow_name": "echo",
        "queue_name": NOWHERE,
        "workflow_id": "w",
        "workflow_id_reuse_policy": "reject",
    }
    with pytest.raises(DBOSWorkflowIDInUseError):
        DBOS.enqueue_workflow_with_options(options, 1)


# --- deduplication


def test_a_deduplication_id_is_held_until_the_workflow_ends(app: type[DBOS], database_url: str) -> None:
    """03 R51, R52, R54."""
    gate = Gate()

    @DBOS.workflow()
    def work() -> str:
        gate.wait()
        return "done"

    DBOS.register_queue("mail")
    with SetEnqueueOptions(deduplication_id="d"):
        first = DBOS.enqueue_workflow("mail", work)
        with SetWorkflowID("refused"), pytest.raises(DBOSQueueDeduplicatedError) as caught:
            DBOS.enqueue_workflow("mail", work)
        wait_for_status(database_url, first.workflow_id, "PENDING")
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", work)
        elsewhere = DBOS.enqueue_workflow(NOWHERE, work)
    error = caught.value
    assert (error.workflow_id, error.queue_name, error.deduplication_id) == ("refused", "mail", "d")
    assert rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = 'refused'") == []
    assert rows(database_url, "SELECT * FROM workflow_input WHERE workflow_uuid = 'refused'") == []
    assert status_row(database_url, elsewhere.workflow_id)["status"] == "ENQUEUED"
    gate.open()
    assert first.get_result() == "done"
    assert status_row(database_url, first.workflow_id)["deduplication_id"] is None
    with SetEnqueueOptions(deduplication_id="d"):
        assert DBOS.enqueue_workflow("mail", work).get_result() == "done"


def test_cancelling_gives_the_deduplication_id_back(app: type[DBOS]) -> None:
    """03 R52."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        first = DBOS.enqueue_workflow(NOWHERE, echo)
        DBOS.cancel_workflow(first.workflow_id)
        assert DBOS.enqueue_workflow(NOWHERE, echo).workflow_id != first.workflow_id


def test_return_existing_gives_the_holder(app: type[DBOS]) -> None:
    """03 R53."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
        first = DBOS.enqueue_workflow(NOWHERE, echo, 1)
        assert DBOS.enqueue_workflow(NOWHERE, echo, 2).workflow_id == first.workflow_id


def test_the_id_is_examined_before_the_deduplication_id(app: type[DBOS]) -> None:
    """03 R50."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        for _ in range(2):
            with SetWorkflowID("w"):
                assert DBOS.enqueue_workflow(NOWHERE, echo, 1).workflow_id == "w"


def test_a_refused_deduplication_is_recorded_and_replayed(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R45: also when the id has been released meanwhile."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        with SetEnqueueOptions(deduplication_id="d"):
            try:
                return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
            except DBOSQueueDeduplicatedError as error:
                return f"refused {error.workflow_id}"

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == "refused p-1"
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == "refused p-1"


def test_the_holder_is_recorded_as_the_child(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R53."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
            return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetEnqueueOptions(deduplication_id="d"):
        holder = DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == holder.workflow_id
    (step,) = step_rows(database_url, "p")
    assert (step["function_name"], step["child_workflow_id"], step["output"]) == ("echo", holder.workflow_id, None)
    DBOS.cancel_workflow(holder.workflow_id)
    assert replay(config, "p") == holder.workflow_id


# --- delays, timeouts


def test_a_delayed_workflow_starts_when_it_is_due(app: type[DBOS], database_url: str) -> None:
    """03 R34, R56, R99."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    began = time.time()
    with SetEnqueueOptions(delay_seconds=0.3, deduplication_id="d"):
        handle = DBOS.enqueue_workflow("mail", echo, 1)
        assert handle.get_status().status == "DELAYED"
        with pytest.raises(DBOSQueueDeduplicatedError):
            DBOS.enqueue_workflow("mail", echo, 1)
    assert handle.get_result() == 1
    row = status_row(database_url, handle.workflow_id)
    assert row["started_at_epoch_ms"] >= row["delay_until_epoch_ms"] >= int((began + 0.3) * 1000) - 1
    assert row["deduplication_id"] is None


@pytest.mark.parametrize("delay_seconds", [0, -5])
def test_a_delay_of_nothing_is_due_at_once(app: type[DBOS], delay_seconds: float) -> None:
    """03 section 4.2."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "echo", "queue_name": "mail", "delay_seconds": delay_seconds}, 3
    )
    assert handle.get_result() == 3
    assert echo


def test_time_in_the_queue_does_not_count_against_the_timeout(app: type[DBOS], database_url: str) -> None:
    """03 R57, R92."""
    echo = declare_echo()
    queue = DBOS.register_queue("mail", global_concurrency=0)
    with SetWorkflowTimeout(30):
        handle = DBOS.enqueue_workflow("mail", echo)
    assert status_row(database_url, handle.workflow_id)["workflow_deadline_epoch_ms"] is None
    queue.set_global_concurrency(1)
    handle.get_result()
    row = status_row(database_url, handle.workflow_id)
    assert abs(row["workflow_deadline_epoch_ms"] - row["started_at_epoch_ms"] - 30_000) < 1000


def test_a_deadline_is_inherited_unless_a_timeout_is_given(app: type[DBOS], database_url: str) -> None:
    """03 R58, R100: it cancels a workflow that never ran."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        inherited = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        with SetWorkflowTimeout(5):
            own = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        with SetWorkflowTimeout(None):
            none = DBOS.enqueue_workflow(NOWHERE, echo).workflow_id
        return [inherited, own, none]

    with SetWorkflowTimeout(1.0):
        inherited, own, none = parent()
    assert status_row(database_url, own)["workflow_deadline_epoch_ms"] is None
    row = status_row(database_url, none)
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (None, None)
    wait_for_status(database_url, inherited, "CANCELLED")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        DBOS.retrieve_workflow(inherited).get_result()
    assert status_row(database_url, own)["status"] == "ENQUEUED"


# --- what the rules say of the edges


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


def test_the_delay_counts_from_when_the_options_are_made(app: type[DBOS], database_url: str) -> None:
    """03 R34."""
    echo = declare_echo()
    options = SetEnqueueOptions(delay_seconds=3600)
    until = int((time.time() + 3600) * 1000)
    handles = []
    for _ in range(2):
        with options:
            handles.append(DBOS.enqueue_workflow(NOWHERE, echo))
    first, second = (status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"] for handle in handles)
    assert first == second <= until + 1


def test_an_empty_key_beside_a_deduplication_id_is_accepted(app: type[DBOS], database_url: str) -> None:
    """03 R37: the check ignores empty texts."""
    echo = declare_echo()
    with SetEnqueueOptions(queue_partition_key="", deduplication_id="d"):
        handle = DBOS.enqueue_workflow(NOWHERE, echo)
    row = status_row(database_url, handle.workflow_id)
    assert (row["queue_partition_key"], row["deduplication_id"]) == ("", "d")


def test_an_enqueue_that_is_refused_takes_no_step_id(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R43."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        for options in (
            {"duplication_policy": "return-existing"},
            {"deduplication_id": "d", "queue_partition_key": "p"},
        ):
            with SetEnqueueOptions(**options), pytest.raises(DBOSException):  # type: ignore[arg-type]
                DBOS.enqueue_workflow(NOWHERE, echo)
        with pytest.raises(DBOSWorkflowFunctionNotFoundError):
            DBOS.enqueue_workflow(NOWHERE, len, "x")
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        assert parent() == "p-1"
    assert replay(config, "p") == "p-1"


def test_another_function_at_a_recorded_enqueue_is_refused(app: type[DBOS], config: Config, database_url: str) -> None:
    """03 R44."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        parent()
    rows(database_url, "UPDATE operation_outputs SET function_name = 'another'")
    with pytest.raises(DBOSUnexpectedStepError, match="another"):
        replay(config, "p")


def test_a_refused_id_is_recorded_and_replayed_but_not_a_conflict(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R45, R48, R49."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None:
        pass

    @DBOS.workflow()
    def parent() -> list[str]:
        seen = []
        with SetWorkflowID("w", workflow_id_reuse_policy="reject"):
            try:
                DBOS.enqueue_workflow(NOWHERE, echo)
            except DBOSWorkflowIDInUseError as error:
                seen.append(error.workflow_status)
        with SetWorkflowID("w"):
            try:
                DBOS.enqueue_workflow(NOWHERE, other)
            except DBOSConflictingWorkflowError:
                seen.append("conflict")
        return seen

    with SetWorkflowID("w"):
        DBOS.enqueue_workflow(NOWHERE, echo)
    with SetWorkflowID("p"):
        assert parent() == ["ENQUEUED", "conflict"]
    (step,) = step_rows(database_url, "p")
    assert step["error"] is not None
    DBOS.cancel_workflow("w")
    assert replay(config, "p") == ["ENQUEUED", "conflict"]


def test_the_holder_of_a_deduplication_id_may_be_another_function(app: type[DBOS]) -> None:
    """03 R53."""
    echo = declare_echo()

    @DBOS.workflow()
    def other() -> None:
        pass

    with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
        holder = DBOS.enqueue_workflow(NOWHERE, other)
        assert DBOS.enqueue_workflow(NOWHERE, echo, 1).workflow_id == holder.workflow_id


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_timeout_of_nothing_ends_the_workflow_as_it_starts(
    app: type[DBOS], database_url: str, seconds: float
) -> None:
    """03 R59: for an enqueue by name; around one by function SetWorkflowTimeout refuses it (see differences.md)."""
    gate = Gate()

    @DBOS.workflow(name="slow")
    def slow() -> None:
        gate.wait()
        DBOS.sleep(60)

    DBOS.register_queue("mail")
    handle = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "slow", "queue_name": "mail", "workflow_timeout": seconds}
    )
    wait_for_status(database_url, handle.workflow_id, "CANCELLED")
    gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()


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


def test_an_enqueue_by_an_execution_that_lost_its_workflow_writes_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R46."""
    echo = declare_echo()
    taken, go_on = Gate(), Gate()

    @DBOS.workflow()
    def parent() -> str:
        taken.open()
        go_on.wait()
        return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("p"):
        handle = DBOS.start_workflow(parent)
    taken.wait()
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL")
    go_on.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert [row["workflow_uuid"] for row in rows(database_url, "SELECT workflow_uuid FROM workflow_status")] == ["p"]
