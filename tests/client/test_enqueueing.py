"""Enqueueing by a client, and its handles (04 R504, R510 to R514, section 7.3)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfiguredInstance,
    SetEnqueueOptions,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSQueueDeduplicatedError,
    DBOSWorkflowIDInUseError,
)
from dbos.storage.store import StoreUnavailable
from tests.helpers import NOWHERE, rows, status_row, step_rows, wait_until

PLAIN: Any = {"workflow_name": "echo", "queue_name": NOWHERE}


def declare_echo() -> None:
    @DBOS.workflow(name="echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs


def test_what_a_client_enqueues_runs_and_its_result_comes_back(client: DBOSClient) -> None:
    """04 R510, R513."""
    declare_echo()
    DBOS.register_queue("mail")
    handle = client.enqueue({"workflow_name": "echo", "queue_name": "mail"}, 1, two=[2])
    assert handle.get_result() == ((1,), {"two": [2]})
    status = handle.get_status()
    assert (status.status, status.queue_name, status.app_version) == ("SUCCESS", "mail", "v1")
    assert (handle.get_workflow_id(), handle.shard_key) == (handle.workflow_id, None)


async def test_the_same_from_async_code(client: DBOSClient) -> None:
    declare_echo()
    await DBOS.register_queue_async("mail")
    handle = await client.enqueue_async({"workflow_name": "echo", "queue_name": "mail"}, 1)
    assert await handle.get_result() == ((1,), {})
    assert (await handle.get_status()).status == "SUCCESS"


def test_a_row_of_a_client(client: DBOSClient, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """04 R510, 03 R39: what a client leaves out."""
    monkeypatch.setenv("DBOS__APPID", "an-application-id")
    row = status_row(database_url, client.enqueue(PLAIN, 1).workflow_id)
    assert (row["status"], row["recovery_attempts"], row["priority"]) == ("ENQUEUED", 0, 0)
    assert row["creator_xid"]
    empty = ["executor_id", "owner_xid", "application_version", "application_id", "parent_workflow_id", "attributes"]
    empty += ["workflow_timeout_ms", "workflow_deadline_epoch_ms", "authenticated_user", "authenticated_roles"]
    empty += ["assumed_role", "deduplication_id", "delay_until_epoch_ms", "class_name", "config_name"]
    assert {name: row[name] for name in empty} == dict.fromkeys(empty)
    assert (row["application_name"], row["serialization"]) == ("test-app", "py_pickle")


def test_all_options_are_stored(client: DBOSClient, database_url: str) -> None:
    """04 section 7.3."""
    before_ms = int(time.time() * 1000)
    client.enqueue(
        {
            "workflow_name": "echo",
            "queue_name": NOWHERE,
            "workflow_id": "w",
            "app_version": "v7",
            "workflow_timeout": 1.5,
            "delay_seconds": 1000,
            "deduplication_id": "d",
            "priority": 2147483647,
            "queue_partition_key": "p",
            "authenticated_user": "alice",
            "authenticated_roles": ["admin", "user"],
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
            "class_name": "Shop",
            "instance_name": "north",
            "attributes": {"a": [1]},
            "application_name": "other-app",
        },
        1,
    )
    row = status_row(database_url, "w")
    assert (row["status"], row["name"], row["queue_name"]) == ("DELAYED", "echo", NOWHERE)
    assert (row["application_version"], row["workflow_timeout_ms"], row["deduplication_id"]) == ("v7", 1500, "d")
    assert row["delay_until_epoch_ms"] >= before_ms + 1_000_000
    assert (row["priority"], row["queue_partition_key"], row["authenticated_user"]) == (2147483647, "p", "alice")
    assert row["authenticated_roles"].replace(" ", "") == '["admin","user"]'
    assert (row["class_name"], row["config_name"], row["serialization"]) == ("Shop", "north", "portable_json")
    assert (row["application_name"], row["assumed_role"]) == ("other-app", None)
    assert client.retrieve_workflow("w").get_status().attributes == {"a": [1]}


def test_a_method_of_an_instance_can_be_enqueued(client: DBOSClient) -> None:
    """04 section 7.3: `class_name`, `instance_name`."""

    @DBOS.dbos_class()
    class Shop(DBOSConfiguredInstance):
        @DBOS.workflow(name="sell")
        def sell(self, item: str) -> str:
            return f"{self.config_name}: {item}"

    Shop("north")
    DBOS.register_queue("mail")
    options: Any = {"workflow_name": "sell", "queue_name": "mail", "instance_name": "north"}
    options["class_name"] = Shop.__qualname__
    assert client.enqueue(options, "pen").get_result() == "north: pen"


def test_a_missing_name_is_a_key_error(client: DBOSClient) -> None:
    """04 section 7.3."""
    for missing in ("workflow_name", "queue_name"):
        options: Any = {key: value for key, value in PLAIN.items() if key != missing}
        with pytest.raises(KeyError, match=missing):
            client.enqueue(options)


MEANINGLESS: list[tuple[Any, str]] = [
    ({"priorty": 1}, "no enqueue option 'priorty'. Did you mean 'priority'"),
    ({"zzz": 1}, "Options are app_version"),
    ({"workflow_id": " "}, "workflow id"),
    ({"workflow_id_reuse_policy": "maybe"}, "workflow_id_reuse_policy.*'maybe'"),
    ({"duplication_policy": "maybe", "deduplication_id": "d"}, "duplication_policy.*'maybe'"),
    ({"duplication_policy": "return-existing"}, "needs a deduplication_id"),
    ({"priority": 0}, "0"),
    ({"priority": 2**31}, "2147483648"),
    ({"workflow_timeout": -1}, "must not be negative"),
    ({"workflow_timeout": float("nan")}, "workflow_timeout"),
    ({"delay_seconds": float("inf")}, "delay_seconds"),
    ({"attributes": {"a": {1}}}, "JSON"),
    ({"attributes": [1]}, "dictionary"),
    ({"workflow_name": ""}, "workflow name"),
    ({"queue_name": 5}, "queue name"),
    ({"shard_key": "s"}, "not sharded"),
    ({"deduplication_id": "a\0b"}, "NUL"),
]


def test_options_without_meaning_are_refused_and_nothing_is_written(client: DBOSClient) -> None:
    """04 section 7.3; section 12, 16."""
    for options, message in MEANINGLESS:
        with pytest.raises(DBOSException, match=message):
            client.enqueue({**PLAIN, **options})
    assert client.list_workflows() == []


def test_an_option_of_former_releases_is_passed_over_with_a_warning(
    client: DBOSClient, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    """04 section 7.3."""
    options: Any = {**PLAIN, "max_recovery_attempts": 3, "priority": None}
    assert client.enqueue(options).get_status().priority == 0
    assert "max_recovery_attempts has no effect" in caplog.text


def test_a_delay_that_is_over_is_a_delay_of_nothing(client: DBOSClient, database_url: str) -> None:
    """04 section 7.3: present, even 0 or negative."""
    declare_echo()
    DBOS.register_queue("mail")
    handle = client.enqueue({"workflow_name": "echo", "queue_name": "mail", "delay_seconds": -5})
    assert handle.get_result() == ((), {})
    assert status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"] < int(time.time() * 1000) - 4000


def test_an_id_in_use_gives_the_workflow_that_has_it(client: DBOSClient) -> None:
    """04 R511."""
    first = client.enqueue({**PLAIN, "workflow_id": "w"}, 1)
    second = client.enqueue({**PLAIN, "workflow_id": "w"}, 2)
    assert first.workflow_id == second.workflow_id == "w"
    assert second.get_status().input == {"args": (1,), "kwargs": {}}


def test_an_id_of_another_queue_only_warns(
    client: DBOSClient, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    """04 R511."""
    client.enqueue({**PLAIN, "workflow_id": "w"})
    client.enqueue({**PLAIN, "workflow_id": "w", "queue_name": "elsewhere"})
    assert "elsewhere" in caplog.text


def test_an_id_of_another_workflow_is_refused(client: DBOSClient) -> None:
    """04 R511."""
    client.enqueue({**PLAIN, "workflow_id": "w"})
    others: list[Any] = [{"workflow_name": "other"}, {"class_name": "C"}, {"instance_name": "i"}]
    for other in others:
        with pytest.raises(DBOSConflictingWorkflowError):
            client.enqueue({**PLAIN, "workflow_id": "w", **other})


def test_an_id_in_use_is_refused_if_so_wanted(client: DBOSClient) -> None:
    """04 R511."""
    options: Any = {**PLAIN, "workflow_id": "w", "workflow_id_reuse_policy": "reject"}
    client.enqueue(options)
    with pytest.raises(DBOSWorkflowIDInUseError) as raised:
        client.enqueue(options)
    error = raised.value
    assert (error.workflow_id, error.workflow_status, error.workflow_name) == ("w", "ENQUEUED", "echo")


def test_a_held_deduplication_id_is_refused_or_gives_its_holder(client: DBOSClient) -> None:
    """04 R512; the combination with a partition key 03 R37."""
    holder = client.enqueue({**PLAIN, "deduplication_id": "d", "queue_partition_key": "p"})
    with pytest.raises(DBOSQueueDeduplicatedError) as raised:
        client.enqueue({**PLAIN, "deduplication_id": "d"})
    assert (raised.value.queue_name, raised.value.deduplication_id) == (NOWHERE, "d")
    again = client.enqueue({**PLAIN, "deduplication_id": "d", "duplication_policy": "return-existing"})
    assert again.workflow_id == holder.workflow_id
    assert (
        client.enqueue({**PLAIN, "queue_name": "elsewhere", "deduplication_id": "d"}).workflow_id != holder.workflow_id
    )


def test_the_calls_of_a_client_are_invisible_to_the_workflow_that_makes_them(
    client: DBOSClient, database_url: str
) -> None:
    """04 R504."""
    seen: list[str] = []

    @DBOS.workflow(name="outer")
    def outer() -> None:
        with SetWorkflowID("taken"), SetWorkflowTimeout(7), SetEnqueueOptions(priority=3):
            handle = client.enqueue(PLAIN)
        seen.append(handle.workflow_id)
        client.list_workflows()
        client.retrieve_workflow(handle.workflow_id).get_status()
        client.cancel_workflow(handle.workflow_id)
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            handle.get_result()
        client.register_queue("made-inside")

    with SetWorkflowID("outer"):
        outer()
    row = status_row(database_url, seen[0])
    assert seen[0] not in ("taken", "outer-1")
    assert (row["parent_workflow_id"], row["workflow_timeout_ms"], row["priority"]) == (None, None, 0)
    assert step_rows(database_url, "outer") == []


async def test_the_async_calls_are_invisible_too(client: DBOSClient, database_url: str) -> None:
    """04 R504."""

    @DBOS.workflow(name="outer")
    async def outer() -> list[str]:
        with SetWorkflowID("taken"):
            handles = await asyncio.gather(*(client.enqueue_async(PLAIN) for _ in range(3)))
            assert DBOS.workflow_id == "outer"
        await client.list_workflows_async()
        return [handle.workflow_id for handle in handles]

    with SetWorkflowID("outer"):
        ids = await outer()
    assert len(set(ids)) == 3
    assert "taken" not in ids
    assert step_rows(database_url, "outer") == []


def test_a_step_may_use_a_client(client: DBOSClient, database_url: str) -> None:
    """04 R504: a step cannot enqueue with DBOS, but with a client."""

    @DBOS.step()
    def enqueue() -> str:
        return client.enqueue(PLAIN).workflow_id

    @DBOS.workflow()
    def outer() -> str:
        return enqueue()

    assert client.retrieve_workflow(outer()).get_status().status == "ENQUEUED"


async def test_many_enqueues_at_a_time_share_commits(client: DBOSClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """04 section 12, 20; the journal commits in groups."""
    store = client._session.core.store
    batches: list[int] = []
    commit = store.commit
    monkeypatch.setattr(store, "commit", lambda records: batches.append(len(records)) or commit(records))
    await asyncio.gather(*(client.enqueue_async(PLAIN, i) for i in range(100)))
    assert sum(batches) == 100
    assert len(batches) <= 10


def test_an_enqueue_whose_answer_is_lost_is_not_done_twice(
    client: DBOSClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R511: its own committed insert is recognised by the creator token."""
    store: Any = client._session.core.store
    commit = store.commit
    lost: list[Any] = []

    def lose_the_first(records: Any) -> Any:
        answers = commit(records)
        if not lost:
            lost.append(answers)
            raise StoreUnavailable("the answer is lost")
        return answers

    monkeypatch.setattr(store, "commit", lose_the_first)
    options: Any = {**PLAIN, "workflow_id_reuse_policy": "reject", "deduplication_id": "d"}
    workflow_id = client.enqueue(options, 1).workflow_id
    assert lost
    assert [row["workflow_uuid"] for row in rows(database_url, "SELECT * FROM workflow_status")] == [workflow_id]


def test_arguments_that_cannot_be_stored_are_refused(client: DBOSClient) -> None:
    with pytest.raises(Exception, match=r"[Tt]he arguments of workflow 'echo'"):
        client.enqueue(PLAIN, threading.Lock())
    assert client.list_workflows() == []


# --- handles


def test_the_error_of_a_workflow_is_raised(client: DBOSClient) -> None:
    """04 R513."""

    @DBOS.workflow(name="fail")
    def fail() -> None:
        raise ValueError("it failed")

    DBOS.register_queue("mail")
    with pytest.raises(ValueError, match="it failed"):
        client.enqueue({"workflow_name": "fail", "queue_name": "mail"}).get_result()


def test_a_cancelled_or_given_up_workflow_is_reported(client: DBOSClient, database_url: str) -> None:
    """04 R513."""
    handle = client.enqueue(PLAIN)
    client.cancel_workflow(handle.workflow_id)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    rows(database_url, "UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'")
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        handle.get_result()


def test_waiting_ends_after_the_timeout(client: DBOSClient) -> None:
    """04 section 12, 20."""
    handle = client.enqueue(PLAIN)
    with pytest.raises(TimeoutError, match=handle.workflow_id):
        handle.get_result(timeout_seconds=0.02)
    with pytest.raises(TimeoutError):
        handle.get_result(timeout_seconds=0)
    with pytest.raises(DBOSException, match="timeout_seconds"):
        handle.get_result(timeout_seconds=-1)
    assert handle.get_status().status == "ENQUEUED"


async def test_waiting_of_async_callers_ends_after_the_timeout(client: DBOSClient) -> None:
    """04 section 12, 20."""
    handle = await client.enqueue_async(PLAIN)
    with pytest.raises(TimeoutError):
        await handle.get_result(timeout_seconds=0.02)


async def test_waiting_holds_no_thread(client: DBOSClient) -> None:
    """04 R505; the architecture: waiting is on the loop."""
    handles = [await client.enqueue_async(PLAIN) for _ in range(200)]
    waiting = [asyncio.ensure_future(handle.get_result()) for handle in handles]
    signals = client._session.core.signals
    while len(signals.awaited("finished")) < len(handles):
        await asyncio.sleep(0.005)
    assert len(await asyncio.wait_for(client.list_queued_workflows_async(), 20)) == len(handles)
    await client.cancel_workflows_async([handle.workflow_id for handle in handles])
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in found} == {DBOSAwaitedWorkflowCancelledError}


def test_a_result_arrives_by_a_signal(app: type[DBOS], backend: str, database_url: str) -> None:
    """04 section 12, 20: the data version on SQLite, notifications on Postgres where they are switched on."""
    listens = backend == "postgres"
    declare_echo()
    DBOS.register_queue("mail")
    with DBOSClient(system_database_url=database_url, use_listen_notify=listens, polling_interval_sec=60) as client:
        handle = client.enqueue({"workflow_name": "echo", "queue_name": "mail", "delay_seconds": 0.2})
        assert handle.get_result(timeout_seconds=20) == ((), {})


def test_a_shorter_interval_looks_by_itself(app: type[DBOS], database_url: str) -> None:
    """04 R513: `polling_interval_sec`."""
    declare_echo()
    DBOS.register_queue("mail")
    with DBOSClient(system_database_url=database_url, polling_interval_sec=60) as client:
        handle = client.enqueue({"workflow_name": "echo", "queue_name": "mail"})
        assert handle.get_result(polling_interval_sec=0.02, timeout_seconds=20) == ((), {})


def test_a_workflow_that_does_not_exist_yet_is_waited_for(client: DBOSClient) -> None:
    """04 R513."""
    declare_echo()
    DBOS.register_queue("mail")
    from dbos.api.client.handles import ClientHandle

    handle: ClientHandle[Any] = ClientHandle(client._session, "later")
    with pytest.raises(DBOSNonExistentWorkflowError):
        handle.get_status()
    timer = threading.Timer(
        0.05, client.enqueue, [{"workflow_name": "echo", "queue_name": "mail", "workflow_id": "later"}]
    )
    timer.start()
    assert handle.get_result(timeout_seconds=20) == ((), {})
    timer.join()


def test_a_workflow_is_retrieved_by_its_id(client: DBOSClient) -> None:
    """04 R514."""
    client.enqueue({**PLAIN, "workflow_id": "w"})
    assert client.retrieve_workflow("w").get_status().workflow_id == "w"
    with pytest.raises(DBOSNonExistentWorkflowError):
        client.retrieve_workflow("absent")
    with pytest.raises(DBOSException, match="not sharded"):
        client.retrieve_workflow("w", shard_key="s")


async def test_a_workflow_is_retrieved_from_async_code(client: DBOSClient) -> None:
    """04 R514."""
    await client.enqueue_async({**PLAIN, "workflow_id": "w"})
    assert (await (await client.retrieve_workflow_async("w")).get_status()).workflow_id == "w"
    with pytest.raises(DBOSNonExistentWorkflowError):
        await client.retrieve_workflow_async("absent")


def test_the_first_of_several(client: DBOSClient) -> None:
    """04 R514."""
    handles = [client.enqueue(PLAIN) for _ in range(3)]
    client.cancel_workflow(handles[1].workflow_id)
    assert client.wait_first(handles) is handles[1]
    with pytest.raises(ValueError, match="at least one"):
        client.wait_first([])
    with pytest.raises(ValueError, match="several handles"):
        client.wait_first([handles[0], handles[0]])


async def test_the_first_of_several_from_async_code(client: DBOSClient) -> None:
    """04 R514."""
    handles = [await client.enqueue_async(PLAIN) for _ in range(3)]
    waiting = asyncio.ensure_future(client.wait_first_async(handles))
    while not client._session.core.signals.awaited("finished"):
        await asyncio.sleep(0.002)
    await client.cancel_workflow_async(handles[2].workflow_id)
    assert await waiting is handles[2]


def test_an_application_notices_at_once_what_a_client_enqueues(app: type[DBOS], database_url: str) -> None:
    """04 section 12, 1: the client announces its enqueues, whether it listens or not."""
    declare_echo()
    DBOS.register_queue("mail", polling_interval_sec=60)
    with DBOSClient(system_database_url=database_url, application_name="test-app") as client:
        ids = [client.enqueue({"workflow_name": "echo", "queue_name": "mail"}).workflow_id for _ in range(3)]
    wait_until(lambda: all(status_row(database_url, i)["status"] == "SUCCESS" for i in ids))
