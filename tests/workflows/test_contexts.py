"""The Set... blocks and the context properties (02 sections 15, 16)."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextEnsure,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetShardKey,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos.error import DBOSException
from tests.helpers import status_row

BLOCKS: dict[str, Any] = {
    "SetWorkflowID": lambda: SetWorkflowID("x"),
    "SetWorkflowTimeout": lambda: SetWorkflowTimeout(5),
    "SetWorkflowAttributes": lambda: SetWorkflowAttributes({"a": 1}),
    "SetEnqueueOptions": lambda: SetEnqueueOptions(priority=1),
    "SetShardKey": lambda: SetShardKey("k"),
    "DBOSContextEnsure": DBOSContextEnsure,
    "DBOSContextSetAuth": lambda: DBOSContextSetAuth("u", ["r"]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_can_be_used_again_but_not_inside_itself(name: str) -> None:
    """03 R35, 02 R165; exceptions are not suppressed (R164)."""
    block = BLOCKS[name]()
    with pytest.raises(KeyError), block:
        raise KeyError
    with block:
        with pytest.raises(DBOSException, match=name):
            block.__enter__()
    with block:
        pass


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.startswith("Set")])
def test_entering_a_block_returns_it(name: str) -> None:
    """02 R164."""
    block = BLOCKS[name]()
    with block as entered:
        assert entered is block


def test_a_reentered_id_block_offers_its_id_again(app: type[DBOS]) -> None:
    """02 R165."""

    @DBOS.workflow()
    def wf() -> int:
        runs.append(1)
        return len(runs)

    runs: list[int] = []
    block = SetWorkflowID("x")
    results = []
    for _ in range(2):
        with block:
            results.append(wf())
    assert results == [1, 1]


def test_inner_blocks_override_what_they_own_and_leave_the_rest(app: type[DBOS], database_url: str) -> None:
    """02 R166."""

    @DBOS.workflow()
    def wf() -> None: ...

    def started(name: str) -> dict[str, Any]:
        with SetWorkflowID(name):
            DBOS.start_workflow(wf).get_result()
        return status_row(database_url, name)

    def attributes(row: dict[str, Any]) -> Any:
        value = row["attributes"]
        return json.loads(value) if isinstance(value, str) else value

    with SetWorkflowAttributes({"a": 1}), SetWorkflowTimeout(100), SetEnqueueOptions(app_version="v5"):
        with SetWorkflowTimeout(200):
            row = started("inner timeout")
            assert (attributes(row), row["workflow_timeout_ms"]) == ({"a": 1}, 200_000)
        with SetWorkflowAttributes(None):
            row = started("no attributes")
            assert (attributes(row), row["workflow_timeout_ms"]) == (None, 100_000)
        # It owns all six of its fields, so the version is reset.
        with SetEnqueueOptions():
            assert started("reset options")["application_version"] == "v1"
        row = started("outer again")
        assert (attributes(row), row["workflow_timeout_ms"], row["application_version"]) == ({"a": 1}, 100_000, "v5")
    row = started("outside")
    assert (attributes(row), row["workflow_timeout_ms"], row["application_version"]) == (None, None, "v1")


def test_attributes_are_copied_when_the_workflow_starts(app: type[DBOS], database_url: str) -> None:
    """05 R96, 02 section 15."""

    @DBOS.workflow()
    def wf() -> None: ...

    with SetWorkflowAttributes({"n": {"deep": [1, "ü"]}}), SetWorkflowID("w"):
        wf()
    status = DBOS.retrieve_workflow("w").get_status()
    assert status.attributes == {"n": {"deep": [1, "ü"]}}


@pytest.mark.parametrize("bad", [[1], "text", {"a": object()}, {"a": b"bytes"}, {"a": "nul\0"}, {"a": "\udcff"}])
def test_bad_attributes_are_refused_at_construction(bad: Any) -> None:
    """05 R96, 02 section 15."""
    with pytest.raises(DBOSException):
        SetWorkflowAttributes(bad)


@pytest.mark.parametrize("priority", [0, -1, 2**31, 1.5, True, "1"])
def test_a_bad_priority_is_refused_at_construction(priority: Any) -> None:
    """03 R33. 02 section 15."""
    with pytest.raises(Exception, match="priority"):
        SetEnqueueOptions(priority=priority)


def test_bodies_and_steps_see_no_ambient_options_of_their_caller(app: type[DBOS], database_url: str) -> None:
    """05 R96, 02 R85, R167."""

    @DBOS.workflow()
    def child() -> None: ...

    @DBOS.workflow()
    def wf() -> None:
        child()
        with SetWorkflowAttributes({"own": 1}):
            child()

    with SetWorkflowAttributes({"a": 1}), SetWorkflowTimeout(None), SetEnqueueOptions(priority=3), SetWorkflowID("w"):
        wf()
    assert DBOS.retrieve_workflow("w-1").get_status().attributes is None
    assert DBOS.retrieve_workflow("w-3").get_status().attributes == {"own": 1}


async def test_blocks_act_on_their_own_task_and_on_tasks_made_inside(app: type[DBOS]) -> None:
    """02 R164."""

    @DBOS.workflow()
    async def wf() -> str | None:
        return DBOS.workflow_id

    entered, done = asyncio.Event(), asyncio.Event()

    async def other() -> str | None:
        await entered.wait()
        return await wf()

    async def inside() -> None:
        with SetWorkflowID("x"):
            entered.set()
            await done.wait()
            assert await asyncio.create_task(wf()) == "x"

    beside = asyncio.create_task(other())
    block = asyncio.create_task(inside())
    assert await beside != "x"
    done.set()
    await block


async def test_a_block_left_in_another_context_restores_what_was_there(app: type[DBOS]) -> None:
    """02 R164: as with generators that are driven from different contexts."""

    @DBOS.workflow()
    async def wf() -> str | None:
        return DBOS.workflow_id

    def generator() -> Iterator[None]:
        with SetWorkflowTimeout(5):
            yield

    running = generator()
    contextvars.copy_context().run(next, running)
    with pytest.raises(StopIteration):
        next(running)
    assert await wf() is not None


def test_properties_outside_of_any_context(app: type[DBOS]) -> None:
    """02 section 16."""
    assert (DBOS.workflow_id, DBOS.step_id, DBOS.step_status, DBOS.shard_key) == (None,) * 4
    for read in (
        lambda: DBOS.authenticated_user,
        lambda: DBOS.authenticated_roles,
        lambda: DBOS.assumed_role,
        lambda: DBOS.set_authentication("u", []),
    ):
        with pytest.raises(AssertionError):
            read()
    with DBOSContextEnsure():
        assert (DBOS.authenticated_user, DBOS.authenticated_roles, DBOS.assumed_role) == (None,) * 3
        assert DBOS.workflow_id is None
    with pytest.raises(AssertionError):
        DBOS.authenticated_user  # noqa: B018
    assert (DBOS.application_version, DBOS.executor_id) == ("v1", "test")


def test_properties_in_workflow_and_step_code(app: type[DBOS], config: dict[str, Any]) -> None:
    """02 section 16, R85, R112: on the class and on the instance alike."""
    instance = DBOS(config=config)  # type: ignore[arg-type]

    @DBOS.step()
    def plain() -> Any:
        status = DBOS.step_status
        assert status is not None
        assert instance.step_id == DBOS.step_id
        return DBOS.workflow_id, DBOS.step_id, status.step_id, status.current_attempt, status.max_attempts

    @DBOS.workflow()
    def wf() -> Any:
        assert (DBOS.step_id, DBOS.step_status, DBOS.shard_key) == (None, None, None)
        assert (instance.workflow_id, DBOS.authenticated_user) == ("w", None)
        inside = plain()
        assert (DBOS.step_id, DBOS.workflow_id) == (None, "w")
        return inside

    with SetWorkflowID("w"):
        assert wf() == ("w", 1, 1, None, None)
    assert DBOS.workflow_id is None


async def test_context_follows_tasks_and_to_thread_and_copied_contexts_only(app: type[DBOS]) -> None:
    """02 R172."""

    def look() -> str | None:
        return DBOS.workflow_id

    async def look_async() -> str | None:
        return look()

    @DBOS.workflow()
    async def wf() -> list[str | None]:
        copied = contextvars.copy_context()
        found: list[str | None] = []
        raw = threading.Thread(target=lambda: found.append(look()))
        raw.start()
        raw.join()
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(look).result())
        found += [await asyncio.create_task(look_async()), await asyncio.to_thread(look), copied.run(look)]
        return found

    with SetWorkflowID("w"):
        assert await wf() == [None, None, "w", "w", "w"]


def test_context_variables_of_the_caller_do_not_reach_a_background_sync_workflow(app: type[DBOS]) -> None:
    """02 R221."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @DBOS.workflow()
    def wf() -> str:
        return variable.get()

    variable.set("set")
    assert DBOS.start_workflow(wf).get_result() == "unset"
    assert wf() == "set"


async def test_context_variables_of_the_caller_reach_a_workflow_task(app: type[DBOS]) -> None:
    """02 R221."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @DBOS.workflow()
    async def wf() -> str:
        return variable.get()

    variable.set("set")
    assert await (await DBOS.start_workflow_async(wf)).get_result() == "set"
