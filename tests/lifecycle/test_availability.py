"""What works when: before construction, constructed, launched, destroyed (01 section 3.6, 02 section 22)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextEnsure,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos.error import DBOSException
from tests.helpers import step_names

# Every call that needs the database, in its blocking form.
BLOCKING_CALLS: dict[str, Callable[[], Any]] = {
    "start_workflow": lambda: DBOS.start_workflow(decorated()),
    "get_result": lambda: DBOS.get_result("some-id"),
    "get_workflow_status": lambda: DBOS.get_workflow_status("some-id"),
    "retrieve_workflow": lambda: DBOS.retrieve_workflow("some-id"),
    "list_workflow_steps": lambda: DBOS.list_workflow_steps("some-id"),
    "cancel_workflow": lambda: DBOS.cancel_workflow("some-id"),
    "cancel_workflows": lambda: DBOS.cancel_workflows(["some-id"]),
    "resume_workflow": lambda: DBOS.resume_workflow("some-id"),
    "resume_workflows": lambda: DBOS.resume_workflows(["some-id"]),
    "fork_workflow": lambda: DBOS.fork_workflow("some-id", 1),
    "rewind_workflow": lambda: DBOS.rewind_workflow("some-id"),
    "delete_workflow": lambda: DBOS.delete_workflow("some-id"),
    "delete_workflows": lambda: DBOS.delete_workflows(["some-id"]),
    "set_workflow_delay": lambda: DBOS.set_workflow_delay("some-id", delay_seconds=1),
    "update_workflow_attributes": lambda: DBOS.update_workflow_attributes("some-id", {}),
    "list_application_versions": lambda: DBOS.list_application_versions(),
    "get_latest_application_version": lambda: DBOS.get_latest_application_version(),
    "set_latest_application_version": lambda: DBOS.set_latest_application_version("v1"),
}

ASYNC_CALLS: dict[str, Callable[[], Awaitable[Any]]] = {
    "start_workflow_async": lambda: DBOS.start_workflow_async(decorated_async()),
    "get_result_async": lambda: DBOS.get_result_async("some-id"),
    "get_workflow_status_async": lambda: DBOS.get_workflow_status_async("some-id"),
    "retrieve_workflow_async": lambda: DBOS.retrieve_workflow_async("some-id"),
    "list_workflow_steps_async": lambda: DBOS.list_workflow_steps_async("some-id"),
    "cancel_workflow_async": lambda: DBOS.cancel_workflow_async("some-id"),
    "cancel_workflows_async": lambda: DBOS.cancel_workflows_async(["some-id"]),
    "resume_workflow_async": lambda: DBOS.resume_workflow_async("some-id"),
    "resume_workflows_async": lambda: DBOS.resume_workflows_async(["some-id"]),
    "fork_workflow_async": lambda: DBOS.fork_workflow_async("some-id", 1),
    "rewind_workflow_async": lambda: DBOS.rewind_workflow_async("some-id"),
    "delete_workflow_async": lambda: DBOS.delete_workflow_async("some-id"),
    "delete_workflows_async": lambda: DBOS.delete_workflows_async(["some-id"]),
    "set_workflow_delay_async": lambda: DBOS.set_workflow_delay_async("some-id", delay_seconds=1),
    "update_workflow_attributes_async": lambda: DBOS.update_workflow_attributes_async("some-id", {}),
    "list_application_versions_async": lambda: DBOS.list_application_versions_async(),
    "get_latest_application_version_async": lambda: DBOS.get_latest_application_version_async(),
    "set_latest_application_version_async": lambda: DBOS.set_latest_application_version_async("v1"),
    "run_step_async": lambda: DBOS.run_step_async(None, len, "abc"),
}

WORKFLOW_CODE_ONLY: dict[str, Callable[[], Any]] = {
    "reserve_step": lambda: DBOS.reserve_step(),
    "patch": lambda: DBOS.patch("a-patch"),
    "deprecate_patch": lambda: DBOS.deprecate_patch("a-patch"),
}

IDENTITY: dict[str, Callable[[], Any]] = {
    "authenticated_user": lambda: DBOS.authenticated_user,
    "authenticated_roles": lambda: DBOS.authenticated_roles,
    "assumed_role": lambda: DBOS.assumed_role,
    "set_authentication": lambda: DBOS.set_authentication("user", ["role"]),
}


def decorated() -> Callable[[], int]:
    @DBOS.workflow()
    def work() -> int:
        return 1

    return work


def decorated_async() -> Callable[[], Any]:
    @DBOS.workflow()
    async def work_async() -> int:
        return 1

    return work_async


STATES = ["no instance", "constructed", "destroyed"]


@pytest.fixture(params=STATES)
def unlaunched(request: pytest.FixtureRequest, config: dict[str, Any]) -> str:
    """Puts the process into each state but launched."""
    if request.param != "no instance":
        DBOS(config=config)
    if request.param == "destroyed":
        DBOS.launch()
        DBOS.destroy()
    return str(request.param)


# These look at states, not at databases.
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"])


def expected_text(state: str) -> str:
    return "before DBOS was launched" if state == "constructed" else "No DBOS was created"


@only_sqlite
@pytest.mark.parametrize("call", sorted(BLOCKING_CALLS))
def test_a_call_that_needs_the_database_says_what_is_missing(unlaunched: str, call: str) -> None:
    with pytest.raises(DBOSException, match=expected_text(unlaunched)):
        BLOCKING_CALLS[call]()


@only_sqlite
@pytest.mark.parametrize("call", sorted(ASYNC_CALLS))
def test_an_async_call_that_needs_the_database_says_what_is_missing(unlaunched: str, call: str) -> None:
    async def perform() -> None:
        await ASYNC_CALLS[call]()

    with pytest.raises(DBOSException, match=expected_text(unlaunched)):
        asyncio.run(perform())


@only_sqlite
@pytest.mark.parametrize("call", sorted(WORKFLOW_CODE_ONLY))
def test_calls_of_workflow_code_report_their_place_before_the_instance(unlaunched: str, call: str) -> None:
    with pytest.raises(DBOSException, match="must be called from workflow code"):
        WORKFLOW_CODE_ONLY[call]()


@only_sqlite
@pytest.mark.parametrize("call", sorted(WORKFLOW_CODE_ONLY))
def test_calls_of_workflow_code_are_refused_in_plain_code_and_in_steps(app: type[DBOS], call: str) -> None:
    refusals: list[str] = []

    @DBOS.step()
    def step() -> None:
        with pytest.raises(DBOSException) as raised:
            WORKFLOW_CODE_ONLY[call]()
        refusals.append(str(raised.value))

    @DBOS.workflow()
    def work() -> None:
        step()

    work()
    with pytest.raises(DBOSException) as raised:
        WORKFLOW_CODE_ONLY[call]()
    assert all("must be called from workflow code" in text for text in [*refusals, str(raised.value)])
    assert len(refusals) == 1


@only_sqlite
def test_direct_workflow_calls_need_a_launched_instance(unlaunched: str) -> None:
    @DBOS.workflow()
    def work() -> None:
        raise AssertionError("must not run")

    @DBOS.workflow()
    async def work_async() -> None:
        raise AssertionError("must not run")

    with pytest.raises(DBOSException, match=expected_text(unlaunched)):
        work()
    with pytest.raises(DBOSException, match=expected_text(unlaunched)):
        asyncio.run(work_async())


@only_sqlite
def test_steps_outside_workflows_are_plain_calls_in_every_state(unlaunched: str) -> None:
    # 02 R11: none of the options act
    calls: list[int] = []

    @DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0)
    def fails() -> None:
        calls.append(1)
        raise ValueError("once")

    @DBOS.step()
    async def async_step() -> int:
        return 3

    with pytest.raises(ValueError, match="once"):
        fails()
    assert calls == [1]
    assert asyncio.run(async_step()) == 3


@only_sqlite
def test_run_step_outside_workflows_needs_only_an_instance(unlaunched: str) -> None:
    # 02 R16
    async def coroutine() -> int:
        return 1

    if unlaunched == "constructed":
        assert DBOS.run_step(None, len, "abc") == 3
        with pytest.raises(RuntimeError, match="launch"):
            DBOS.run_step(None, coroutine)
    else:
        with pytest.raises(DBOSException, match="No DBOS was created"):
            DBOS.run_step(None, len, "abc")
        with pytest.raises(DBOSException, match="No DBOS was created"):
            DBOS.run_step(None, coroutine)


@only_sqlite
def test_run_step_outside_workflows_is_a_plain_call_when_launched(app: type[DBOS]) -> None:
    async def coroutine(value: int) -> int:
        return value

    assert DBOS.run_step(None, len, "abc") == 3
    assert DBOS.run_step(None, coroutine, 4) == 4
    assert asyncio.run(DBOS.run_step_async(None, len, "abc")) == 3
    assert asyncio.run(DBOS.run_step_async(None, coroutine, 5)) == 5


@only_sqlite
def test_properties_of_the_process_are_readable_in_every_state(unlaunched: str) -> None:
    assert isinstance(DBOS.application_version, str)
    assert isinstance(DBOS.executor_id, str)
    assert DBOS.logger is logging.getLogger("dbos")
    assert [DBOS.workflow_id, DBOS.step_id, DBOS.step_status, DBOS.shard_key] == [None] * 4


@only_sqlite
@pytest.mark.parametrize("call", sorted(IDENTITY))
def test_identity_needs_a_context_in_every_state(unlaunched: str, call: str) -> None:
    # AssertionError in the published API, typed in ours: both
    for kind in (AssertionError, DBOSException):
        with pytest.raises(kind, match="identity"):
            IDENTITY[call]()
    for block in (DBOSContextEnsure(), SetWorkflowID("id"), SetWorkflowTimeout(None)):
        with block:
            IDENTITY[call]()
    with DBOSContextSetAuth("alice", ["admin"]):
        assert DBOS.authenticated_user == "alice"
        assert DBOS.authenticated_roles == ["admin"]
        DBOS.set_authentication("bob", None)
        assert (DBOS.authenticated_user, DBOS.authenticated_roles) == ("bob", None)


@only_sqlite
def test_blocks_and_decorators_work_in_every_state(unlaunched: str) -> None:
    with (
        SetWorkflowID("id"),
        SetWorkflowTimeout(1),
        SetWorkflowAttributes({"a": 1}),
        SetEnqueueOptions(priority=1),
        DBOSContextEnsure(),
        DBOSContextSetAuth("user", []),
    ):

        @DBOS.workflow()
        def work() -> None: ...

        @DBOS.step()
        def step() -> None: ...

        @DBOS.dbos_class()
        class Decorated: ...

    assert work.__name__ == "work"
    assert step.__name__ == "step"
    assert Decorated.__name__ == "Decorated"


@only_sqlite
def test_destroy_is_harmless_in_every_state_and_twice(unlaunched: str) -> None:
    # 01 R58
    DBOS.destroy()
    DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=5)


@only_sqlite
def test_identity_outside_a_context_is_refused_when_launched_too(app: type[DBOS]) -> None:
    for call in IDENTITY.values():
        with pytest.raises(AssertionError, match="identity"):
            call()


def test_an_old_instance_acts_on_the_current_one(config: dict[str, Any]) -> None:
    # 01 R54
    old = DBOS(config=config)
    old.launch()
    old.destroy()
    DBOS(config=config)
    old.launch()
    assert [version["version_name"] for version in old.list_application_versions()] == ["v1"]
    old.destroy()
    with pytest.raises(DBOSException, match="No DBOS was created"):
        DBOS.list_application_versions()


def test_version_calls_in_workflow_code_are_not_recorded(app: type[DBOS], database_url: str) -> None:
    # 01 R133, 02 R210

    @DBOS.step()
    def step() -> None: ...

    @DBOS.workflow()
    def work() -> list[str]:
        step()
        DBOS.get_latest_application_version()
        DBOS.set_latest_application_version("v1")
        names = [version["version_name"] for version in DBOS.list_application_versions()]
        step()
        return names

    with SetWorkflowID("versions"):
        assert work() == ["v1"]
    assert list(step_names(database_url, "versions")) == [1, 2]


def test_migrate_and_reset_inside_a_workflow(app: type[DBOS], database_url: str) -> None:
    # 01 R133: migrate is not recorded and changes nothing; reset is refused

    @DBOS.workflow()
    def work() -> str:
        DBOS.migrate(database_url)
        with pytest.raises(AssertionError, match="launched"):
            DBOS.reset_system_database(truncate=True)
        return "survived"

    with SetWorkflowID("migrates"):
        assert work() == "survived"
    assert step_names(database_url, "migrates") == {}


# --- blocking calls on an event loop (02 R212, R213)

GUARDED = [
    *("get_result", "get_workflow_status", "retrieve_workflow", "list_workflow_steps", "cancel_workflow"),
    *(
        "cancel_workflows",
        "resume_workflow",
        "resume_workflows",
        "patch",
        "deprecate_patch",
        "sleep",
        "run_step",
    ),
    "wait_first",
]


@only_sqlite
@pytest.mark.parametrize("name", GUARDED)
async def test_a_blocking_call_on_an_event_loop_is_refused_with_its_twin(app: type[DBOS], name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "cancel_workflows": (["id"],),
        "resume_workflows": (["id"],),
        "sleep": (1,),
        "run_step": (None, len, ""),
        "wait_first": ([],),
    }
    with pytest.raises(RuntimeError, match=f"{name}s?_async"):
        getattr(DBOS, name)(*arguments.get(name, ("id",)))


@only_sqlite
async def test_starting_and_versions_are_allowed_on_an_event_loop(app: type[DBOS]) -> None:
    # 02 R213

    @DBOS.workflow()
    def work() -> int:
        return 1

    assert work() == 1
    assert DBOS.start_workflow(work).get_result() == 1
    assert DBOS.get_latest_application_version()["version_name"] == "v1"
    assert len(DBOS.list_application_versions()) == 1
    DBOS.set_latest_application_version("v1")
