"""What holds for every management call: its forms, where it may be called, what is recorded (05 section 11.1)."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, SetWorkflowID
from dbos.error import DBOSException
from tests.helpers import replay, rows, step_names

from .test_forking import declare, run

Config = dict[str, Any]

# Every operation that `DBOS` and a client have, and arguments for it.
EVERYWHERE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "list_workflows": ((), {}),
    "list_queued_workflows": ((), {}),
    "list_workflow_steps": (("w",), {}),
    "retrieve_workflow": (("w",), {}),
    "cancel_workflow": (("absent",), {}),
    "cancel_workflows": ((["absent"],), {}),
    "resume_workflow": (("w",), {}),
    "resume_workflows": ((["w"],), {}),
    "fork_workflow": (("w", 1), {"queue_name": "nowhere"}),
    "rewind_workflow": (("w",), {"queue_name": "nowhere"}),
    "delete_workflow": (("absent",), {}),
    "delete_workflows": ((["absent"],), {}),
    "set_workflow_delay": (("w",), {"delay_seconds": 1}),
    "update_workflow_attributes": (("w", {"a": 1}), {}),
    "list_application_versions": ((), {}),
    "get_latest_application_version": ((), {}),
    "set_latest_application_version": (("v1",), {}),
}
VERSIONS = {"list_application_versions", "get_latest_application_version", "set_latest_application_version"}
ONLY_OF_DBOS = {"get_workflow_status": (("w",), {}), "get_result": (("absent",), {})}
OF_DBOS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = EVERYWHERE | ONLY_OF_DBOS


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in found if one.name not in ("self", "existing_workflow")]


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_four_forms_of_a_call_take_the_same(name: str, backend: str) -> None:
    """05 R63: only `retrieve_workflow` of a client has a parameter less."""
    forms = [getattr(target, name + suffix) for target in (DBOS, DBOSClient) for suffix in ("", "_async")]
    assert [parameters(form) for form in forms] == [parameters(forms[0])] * 4
    assert [inspect.iscoroutinefunction(form) for form in forms] == [False, True] * 2


def test_what_only_one_of_both_has() -> None:
    """05 R63."""
    for name in ONLY_OF_DBOS:
        assert callable(getattr(DBOS, name))
        assert callable(getattr(DBOS, f"{name}_async"))
        assert not hasattr(DBOSClient, name)
    assert not hasattr(DBOS, "rename_application")
    assert callable(DBOSClient.rename_application)
    assert "existing_workflow" in inspect.signature(DBOS.retrieve_workflow).parameters
    assert "existing_workflow" not in inspect.signature(DBOSClient.retrieve_workflow).parameters


async def test_versions_and_clients_may_block_a_loop(app: type[DBOS], database_url: str) -> None:
    """05 R64."""
    assert DBOS.get_latest_application_version() == DBOS.list_application_versions()[0]
    DBOS.set_latest_application_version("v1")

    @DBOS.workflow()
    async def wf() -> None: ...

    with SetWorkflowID("w"):
        await wf()
    with DBOSClient(system_database_url=database_url, application_name="test-app") as client:
        for name, (args, kwargs) in EVERYWHERE.items():
            getattr(client, name)(*args, **kwargs)


async def test_step_ids_come_in_the_order_of_the_calls_whichever_ends_first(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R65, R67."""
    calls = [
        "update_workflow_attributes",
        "list_workflows",
        "cancel_workflow",
        "get_workflow_status",
        "delete_workflow",
    ]
    calls += ["resume_workflow", "list_workflow_steps", "set_workflow_delay", "list_queued_workflows"]

    @DBOS.workflow(name="target")
    async def target() -> None: ...

    @DBOS.workflow()
    async def managing() -> None:
        coroutines = []
        for name in calls:
            args, kwargs = OF_DBOS[name]
            coroutines.append(getattr(DBOS, f"{name}_async")(*args, **kwargs))
        await asyncio.gather(*coroutines)

    for workflow_id, function in (("w", target), ("m", managing)):
        with SetWorkflowID(workflow_id):
            await function()
    expected = ["updateWorkflowAttributes", "listWorkflows", "cancelWorkflow", "getStatus", "deleteWorkflow"]
    expected += ["resumeWorkflow", "listWorkflowSteps", "setWorkflowDelay", "listQueuedWorkflows"]
    assert step_names(database_url, "m") == dict(enumerate([f"DBOS.{name}" for name in expected], 1))
    assert await asyncio.to_thread(replay, config, "m") is None


def test_outside_of_workflow_code_and_in_steps_nothing_is_recorded(app: type[DBOS], database_url: str) -> None:
    """05 R66, and R67: versions are recorded nowhere."""
    run(declare(), "w", "x")
    calls = {name: arguments for name, arguments in OF_DBOS.items() if name != "get_result"}

    def manage(names: Any) -> None:
        for name in names:
            args, kwargs = calls[name]
            getattr(DBOS, name)(*args, **kwargs)

    @DBOS.workflow()
    def managing() -> None:
        DBOS.run_step({"name": "managing"}, manage, calls)
        manage(VERSIONS)

    before = len(rows(database_url, "SELECT 1 FROM operation_outputs"))
    manage(calls)
    # The rewind has removed the steps of what it was given.
    assert before - len(rows(database_url, "SELECT 1 FROM operation_outputs")) == 3
    rows(database_url, "UPDATE workflow_status SET status = 'SUCCESS' WHERE workflow_uuid = 'w'")
    run(managing, "m")
    assert step_names(database_url, "m") == {1: "managing"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_without_a_launched_application_every_call_says_so(config: Config, backend: str) -> None:
    """05 R61, R66."""

    def messages(suffix: str) -> dict[str, str]:
        found = {}
        for name, (args, kwargs) in OF_DBOS.items():
            with pytest.raises(DBOSException) as error:
                answer = getattr(DBOS, name + suffix)(*args, **kwargs)
                asyncio.run(answer)
            found[name] = str(error.value)
        return found

    for suffix in ("", "_async"):
        assert all("No DBOS was created yet" in text for text in messages(suffix).values())
    DBOS(config=config)
    assert all("System database accessed before DBOS was launched" in text for text in messages("").values())
    assert all("Executor accessed before DBOS was launched" in text for text in messages("_async").values())
    DBOS.launch()
    DBOS.destroy()
    for suffix in ("", "_async"):
        assert all("No DBOS was created yet" in text for text in messages(suffix).values())
    DBOS.destroy(destroy_registry=True)


def test_a_serializer_that_cannot_hold_a_status_leaves_it_unrecorded(config: Config, database_url: str) -> None:
    """05 R69: there a TypeError; here the status is delivered, there is one fork, and a replay finds it."""
    DBOS(config=config | {"serializer": DBOSPortableJSONSerializer()})

    @DBOS.workflow()
    def target() -> int:
        return 1

    @DBOS.workflow()
    def managing() -> list[Any]:
        status = DBOS.get_workflow_status("w")
        assert status is not None
        fork = DBOS.fork_workflow("w", 1)
        return [status.status, DBOS.retrieve_workflow("w").workflow_id, fork.workflow_id]

    DBOS.launch()
    run(target, "w")
    expected = ["SUCCESS", "w", "m-2"]
    assert run(managing, "m") == expected
    assert step_names(database_url, "m") == {2: "DBOS.forkWorkflow"}
    assert replay(config | {"serializer": DBOSPortableJSONSerializer()}, "m") == expected
    assert [status.workflow_id for status in DBOS.list_workflows(forked_from="w")] == ["m-2"]
    DBOS.destroy(destroy_registry=True)
