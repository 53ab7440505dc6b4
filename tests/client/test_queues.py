"""Queues through a client (04 R531; 03 sections 3.1 to 3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, DBOSClient
from dbos.error import DBOSException
from tests.helpers import rows, wait_until


def owner(database_url: str, name: str) -> Any:
    (row,) = rows(database_url, "SELECT application_name FROM queues WHERE name = %s", name)
    return row["application_name"]


def test_a_queue_is_registered_by_a_client_and_served_by_the_application(client: DBOSClient, database_url: str) -> None:
    """04 R531, 03 R4 to R6."""

    @DBOS.workflow(name="w")
    def w() -> str:
        return "ran"

    queue = client.register_queue("mail", global_concurrency=3, limiter={"limit": 5, "period": 1.5})
    assert (queue.name, queue.application_name) == ("mail", "test-app")
    assert (queue.global_concurrency, queue.limiter) == (3, {"limit": 5, "period": 1.5})
    assert client.enqueue({"workflow_name": "w", "queue_name": "mail"}).get_result() == "ran"


def test_registering_again_replaces_the_limits_or_leaves_them(client: DBOSClient) -> None:
    """03 R7, R8: a client replaces by default."""
    client.register_queue("mail", worker_concurrency=1)
    assert client.register_queue("mail", global_concurrency=2).worker_concurrency is None
    assert client.register_queue("mail", on_conflict="never_update").global_concurrency == 2


@pytest.mark.parametrize("on_conflict", ["update_if_latest_version", "sometimes"])
def test_a_client_has_no_version_to_decide_by(client: DBOSClient, on_conflict: Any) -> None:
    """04 R531, 03 R7, R9."""
    with pytest.raises(DBOSException, match=on_conflict):
        client.register_queue("mail", on_conflict=on_conflict)
    assert client.retrieve_queue("mail") is None


@pytest.mark.parametrize("on_conflict", ["always_update", "never_update"])
def test_a_queue_of_another_application_cannot_be_registered(client: DBOSClient, on_conflict: Any) -> None:
    """04 R531, 03 R10."""
    client.register_queue("mail", application_name="other-app")
    with pytest.raises(DBOSException, match="belongs to application 'other-app'"):
        client.register_queue("mail", on_conflict=on_conflict)


def test_a_client_without_application_leaves_the_owner_as_it_is(app: type[DBOS], database_url: str) -> None:
    """03 R8, R10."""
    DBOS.register_queue("owned")
    with DBOSClient(system_database_url=database_url) as nameless:
        assert nameless.register_queue("owned", global_concurrency=4).application_name == "test-app"
        assert nameless.register_queue("unowned").application_name is None
    assert DBOS.register_queue("unowned", on_conflict="always_update").application_name == "test-app"


@pytest.mark.parametrize(
    "wrong",
    [{"worker_concurrency": 2, "global_concurrency": 1}, {"limiter": {"limit": 1}}, {"polling_interval_sec": 0}],
)
def test_limits_that_contradict_each_other_are_refused(client: DBOSClient, wrong: Any) -> None:
    """03 R4."""
    with pytest.raises(ValueError, match=r"mail|limiter"):
        client.register_queue("mail", **wrong)
    assert client.list_queues() == []


def test_a_reserved_name_is_refused(client: DBOSClient) -> None:
    """03 R4."""
    with pytest.raises(ValueError, match="reserved"):
        client.register_queue("_dbos_mine")


def test_listing_and_deleting(client: DBOSClient, database_url: str) -> None:
    """03 R15, R16."""
    client.register_queue("own")
    client.register_queue("other", application_name="other-app")
    with DBOSClient(system_database_url=database_url) as nameless:
        nameless.register_queue("unowned")
        assert [queue.name for queue in nameless.list_queues()] == ["other", "own", "unowned"]
    assert [queue.name for queue in client.list_queues()] == ["own", "unowned"]
    assert [queue.name for queue in client.list_queues(application_name="")] == ["other", "own", "unowned"]
    assert [queue.name for queue in client.list_queues(application_name=["other-app"])] == ["other", "unowned"]
    client.delete_queue("other")
    client.delete_queue("absent")
    assert client.retrieve_queue("other") is None


def test_the_queue_object_of_a_client_reads_and_writes_through_it(database_url: str, config: dict[str, Any]) -> None:
    """03 R24: there need not be an application in this process."""
    DBOS(config=config)
    DBOS.launch()
    DBOS.destroy()
    with DBOSClient(system_database_url=database_url, application_name="test-app") as client:
        queue = client.register_queue("mail")
        queue.set_global_concurrency(7)
        found = client.retrieve_queue("mail")
        assert found is not None
        assert found.global_concurrency == 7
        with pytest.raises(ValueError, match="must not be above"):
            queue.set_worker_concurrency(8)
        with pytest.raises(DBOSException, match=r"client\.enqueue"):
            queue.enqueue(print)


async def test_queues_from_async_code(client: DBOSClient, caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    """04 section 7.2: the sync methods warn on a running loop."""
    queue = await client.register_queue_async("mail", worker_concurrency=1)
    assert await queue.get_worker_concurrency_async() == 1
    await queue.set_worker_concurrency_async(2)
    assert (await (await client.list_queues_async())[0].get_worker_concurrency_async()) == 2
    found = await client.retrieve_queue_async("mail")
    assert found is not None
    with pytest.raises(DBOSException, match="DBOSClient"):
        await queue.enqueue_async(test_queues_from_async_code)  # type: ignore[arg-type]
    await client.delete_queue_async("mail")
    assert not caplog.records
    for name, call in (
        ("register_queue", lambda: client.register_queue("mail")),
        ("retrieve_queue", lambda: client.retrieve_queue("mail")),
        ("list_queues", lambda: client.list_queues()),
        ("delete_queue", lambda: client.delete_queue("mail")),
    ):
        call()
        assert f"{name}_async" in caplog.text


def test_a_changed_limit_reaches_the_application(client: DBOSClient) -> None:
    """03 R23."""

    @DBOS.workflow(name="w")
    def w() -> str:
        return "ran"

    queue = client.register_queue("mail", global_concurrency=0)
    handle = client.enqueue({"workflow_name": "w", "queue_name": "mail"})
    assert handle.get_status().status == "ENQUEUED"
    queue.set_global_concurrency(None)
    wait_until(lambda: handle.get_status().status == "SUCCESS")
