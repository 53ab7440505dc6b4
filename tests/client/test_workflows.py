"""Listings, steps, cancel, resume and delay through a client (04 R530, section 7.5; 05 R74)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.helpers import NOWHERE, Gate, status_row, wait_for_status


def options(workflow_id: str, **others: Any) -> Any:
    return {"workflow_name": "w", "queue_name": NOWHERE, "workflow_id": workflow_id, **others}


def ids(found: Any) -> list[str]:
    return sorted(status.workflow_id for status in found)


@pytest.fixture
def three(client: DBOSClient) -> DBOSClient:
    """A client, and a workflow of its application, of another one, and of none."""
    client.enqueue(options("own"))
    client.enqueue(options("other", application_name="other-app"))
    with DBOSClient(system_database_url=client._session.settings.database_url, dbos_system_schema=None) as nameless:
        nameless.enqueue(options("unowned"))
    return client


def test_a_listing_shows_the_own_application_and_what_nobody_owns(three: DBOSClient) -> None:
    """04 section 7.5, 05 R74."""
    assert ids(three.list_workflows()) == ids(three.list_queued_workflows()) == ["own", "unowned"]
    assert ids(three.list_workflows(application_name="other-app")) == ["other", "unowned"]
    assert ids(three.list_workflows(application_name=["other-app", "test-app"])) == ["other", "own", "unowned"]
    assert ids(three.list_workflows(workflow_ids=["other", "own", "absent"])) == ["other", "own"]


def test_a_client_without_application_lists_everything(three: DBOSClient, database_url: str) -> None:
    """05 R74."""
    with DBOSClient(system_database_url=database_url) as nameless:
        assert ids(nameless.list_workflows()) == ["other", "own", "unowned"]
        assert ids(nameless.list_workflows(application_name="test-app")) == ["own", "unowned"]


def test_what_a_client_without_application_enqueues_runs_anywhere(app: type[DBOS], database_url: str) -> None:
    """04 section 7.3: `application_name`."""

    @DBOS.workflow(name="w")
    def w() -> str:
        return "ran"

    DBOS.register_queue("mail")
    with DBOSClient(system_database_url=database_url) as nameless:
        handle = nameless.enqueue({"workflow_name": "w", "queue_name": "mail"})
        assert handle.get_result() == "ran"


async def test_listings_from_async_code(three: DBOSClient) -> None:
    """05 R63."""
    assert ids(await three.list_workflows_async(sort_desc=True, limit=1)) == ["unowned"]
    assert ids(await three.list_queued_workflows_async(status="ENQUEUED")) == ["own", "unowned"]


def test_a_filter_without_meaning_is_refused(client: DBOSClient) -> None:
    """04 section 7.5."""
    with pytest.raises(ValueError, match="status"):
        client.list_workflows(status="NO_SUCH")
    with pytest.raises(DBOSException, match="not sharded"):
        client.list_workflows(shard_key="s")


def test_the_steps_of_a_workflow(client: DBOSClient) -> None:
    """05 section 11.4."""

    @DBOS.step(name="double")
    def double(n: int) -> int:
        return 2 * n

    @DBOS.workflow()
    def w() -> int:
        return double(1) + double(2)

    with SetWorkflowID("w"):
        w()
    steps = client.list_workflow_steps("w")
    assert [(step["function_id"], step["function_name"], step["output"]) for step in steps] == [
        (1, "double", 2),
        (2, "double", 4),
    ]
    assert [step["output"] for step in client.list_workflow_steps("w", load_output=False, offset=1)] == [None]
    assert client.list_workflow_steps("absent") == []
    assert asyncio.run(client.list_workflow_steps_async("w")) == steps


def test_a_running_workflow_is_cancelled_by_a_client_and_resumed(client: DBOSClient, database_url: str) -> None:
    """04 R530, 05 sections 11.6 and 11.7; another client than the process that runs it."""
    gate, began = Gate(), Gate()

    @DBOS.step()
    def work() -> str:
        return "worked"

    @DBOS.workflow(name="w")
    def w() -> str:
        began.open()
        gate.wait()
        return work()

    DBOS.register_queue("mail")
    handle = client.enqueue({"workflow_name": "w", "queue_name": "mail"})
    began.wait()
    client.cancel_workflow(handle.workflow_id)
    gate.open()
    assert handle.get_status().status == "CANCELLED"
    assert client.list_workflow_steps(handle.workflow_id) == []
    again = client.resume_workflow(handle.workflow_id)
    assert again.get_result() == "worked"


def test_children_are_cancelled_if_so_wanted(client: DBOSClient) -> None:
    """05 section 11.6."""

    @DBOS.workflow(name="child")
    def child() -> None:
        DBOS.sleep(600)

    @DBOS.workflow(name="parent")
    def parent() -> str:
        return DBOS.enqueue_workflow(NOWHERE, child).workflow_id

    child_id = parent()
    (parent_id,) = [found.workflow_id for found in client.list_workflows(name="parent")]
    client.cancel_workflows([parent_id, "absent"], cancel_children=True)
    assert client.retrieve_workflow(child_id).get_status().status == "CANCELLED"
    assert client.retrieve_workflow(parent_id).get_status().status == "SUCCESS"


async def test_cancelling_and_resuming_from_async_code(client: DBOSClient, database_url: str) -> None:
    """05 R63."""
    for workflow_id in ("a", "b"):
        await client.enqueue_async(options(workflow_id))
    await client.cancel_workflow_async("a")
    await client.cancel_workflows_async(["b"])
    assert ids(client.list_workflows(status="CANCELLED")) == ["a", "b"]
    await client.resume_workflow_async("a", queue_name="elsewhere")
    (handle,) = await client.resume_workflows_async(["b"])
    assert (await handle.get_status()).queue_name == NOWHERE
    assert status_row(database_url, "a")["queue_name"] == "elsewhere"


def test_nothing_is_resumed_when_one_id_is_unknown(client: DBOSClient) -> None:
    """04 R530."""
    client.enqueue(options("a"))
    client.cancel_workflow("a")
    with pytest.raises(DBOSNonExistentWorkflowError, match="x, y"):
        client.resume_workflows(["a", "x", "y"])
    assert client.retrieve_workflow("a").get_status().status == "CANCELLED"


async def test_a_delay_is_moved(client: DBOSClient, database_url: str) -> None:
    """04 R530, 05 R95."""

    @DBOS.workflow(name="w")
    def w() -> str:
        return "ran"

    await DBOS.register_queue_async("mail")
    handle = client.enqueue({"workflow_name": "w", "queue_name": "mail", "delay_seconds": 600})
    client.set_workflow_delay(handle.workflow_id, delay_until_epoch_ms=2**50)
    assert status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"] == 2**50
    await client.set_workflow_delay_async(handle.workflow_id, delay_seconds=0)
    wait_for_status(database_url, handle.workflow_id, "SUCCESS")
    client.set_workflow_delay(handle.workflow_id, delay_seconds=5)
    client.set_workflow_delay("absent", delay_seconds=5)
    for wrong in ({}, {"delay_seconds": 1, "delay_until_epoch_ms": 1}, {"delay_seconds": -1}):
        with pytest.raises(DBOSException):
            client.set_workflow_delay(handle.workflow_id, **wrong)


def test_an_id_without_meaning_is_refused(client: DBOSClient) -> None:
    for method in ("cancel_workflow", "resume_workflow", "list_workflow_steps", "retrieve_workflow"):
        with pytest.raises(DBOSException, match="workflow id"):
            getattr(client, method)(5)
        with pytest.raises(DBOSException, match="NUL"):
            getattr(client, method)("a\0b")


def test_versions_through_a_client(client: DBOSClient, database_url: str) -> None:
    """04 R533, 05 R101."""
    assert [version["version_name"] for version in client.list_application_versions()] == ["v1"]
    assert client.get_latest_application_version()["application_name"] == "test-app"
    client.set_latest_application_version("v1")
    with pytest.raises(DBOSException, match=r"not registered\. Known versions: v1"):
        client.set_latest_application_version("v9")
    with pytest.raises(DBOSException, match="already registered by application 'test-app'"):
        client.set_latest_application_version("v1", application_name="other-app")
    with DBOSClient(system_database_url=database_url, application_name="other-app") as other:
        assert other.list_application_versions() == []
        with pytest.raises(DBOSException, match="No application versions"):
            other.get_latest_application_version()
    with DBOSClient(system_database_url=database_url) as nameless:
        assert nameless.get_latest_application_version()["version_name"] == "v1"


async def test_versions_from_async_code(client: DBOSClient) -> None:
    """04 R533."""
    before = (await client.list_application_versions_async())[0]["version_timestamp"]
    await client.set_latest_application_version_async("v1")
    assert (await client.get_latest_application_version_async())["version_timestamp"] >= before
