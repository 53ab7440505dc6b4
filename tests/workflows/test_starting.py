"""Starting workflows: ids, what is written, ids in use, where it is allowed (02 section 3)."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetShardKey, SetWorkflowAttributes, SetWorkflowID
from dbos.error import (
    DBOSException,
    DBOSWorkflowFunctionNotFoundError,
)
from tests.helpers import Gate, rows, status_row, step_names, step_rows, wait_until

Config = dict[str, Any]


def count(database_url: str) -> int:
    return int(rows(database_url, "SELECT COUNT(*) AS n FROM workflow_status")[0]["n"])


# --- ways to start (3.1)


def test_a_direct_call_runs_on_the_calling_thread(app: type[DBOS]) -> None:
    """02 section 3.1."""

    @DBOS.workflow()
    def wf() -> int:
        return threading.get_ident()

    assert wf() == threading.get_ident()


def test_start_workflow_runs_on_the_pool(app: type[DBOS]) -> None:
    """02 section 3.1, R219."""

    @DBOS.workflow()
    def wf() -> str:
        return threading.current_thread().name

    assert DBOS.start_workflow(wf).get_result().startswith("dbos-executor")


async def test_an_awaited_workflow_runs_in_the_task_of_its_caller(app: type[DBOS]) -> None:
    """02 section 3.1, R218."""

    @DBOS.workflow()
    async def wf() -> bool:
        return asyncio.current_task() is caller

    caller = asyncio.current_task()
    assert await wf()


async def test_start_workflow_async_makes_a_task_on_the_loop_of_its_caller(app: type[DBOS]) -> None:
    """02 section 3.1, R218."""

    @DBOS.workflow()
    async def wf() -> tuple[bool, bool]:
        return asyncio.get_running_loop() is loop, asyncio.current_task() is caller

    loop, caller = asyncio.get_running_loop(), asyncio.current_task()
    handle = await DBOS.start_workflow_async(wf)
    assert await handle.get_result() == (True, False)


def test_start_workflow_runs_an_async_workflow_on_the_loop_of_dbos(app: type[DBOS]) -> None:
    """02 section 3.1, R217."""

    @DBOS.workflow()
    async def wf(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    assert DBOS.start_workflow(wf, 4).get_result() == 8


async def test_start_workflow_async_runs_a_sync_workflow_on_the_pool(app: type[DBOS]) -> None:
    """02 R27, in its better form: it works, and does not block the loop."""

    @DBOS.workflow()
    def wf(value: int) -> tuple[int, str]:
        gate.wait()
        return value, threading.current_thread().name

    gate = Gate()
    handle = await DBOS.start_workflow_async(wf, 3)
    gate.open()
    value, thread = await handle.get_result()
    assert value == 3
    assert thread.startswith("dbos-executor")


def test_the_row_and_the_inputs_are_committed_when_a_start_returns(app: type[DBOS], database_url: str) -> None:
    """02 R23."""

    @DBOS.workflow()
    def wf(value: int) -> int:
        gate.wait()
        return value

    gate = Gate()
    handle = DBOS.start_workflow(wf, 7)
    assert status_row(database_url, handle.workflow_id)["status"] == "PENDING"
    assert len(rows(database_url, "SELECT * FROM workflow_input WHERE workflow_uuid = %s", handle.workflow_id)) == 1
    gate.open()
    assert handle.get_result() == 7


@pytest.mark.parametrize("start", ["plain", "lambda", "partial"])
def test_an_undecorated_function_cannot_be_started(app: type[DBOS], start: str) -> None:
    """02 R24."""
    import functools

    functions: dict[str, Any] = {"plain": len, "lambda": lambda: 1, "partial": functools.partial(len, "a")}
    with pytest.raises(DBOSWorkflowFunctionNotFoundError) as refused:
        DBOS.start_workflow(functions[start])
    assert refused.value.workflow_id == "<NONE>"


async def test_a_started_task_survives_the_cancellation_of_who_awaits_its_handle(app: type[DBOS]) -> None:
    """02 R25, R135."""

    @DBOS.workflow()
    async def wf() -> int:
        await go.wait()
        return 11

    go = asyncio.Event()
    handle = await DBOS.start_workflow_async(wf)
    waiting = asyncio.create_task(handle.get_result())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await handle.get_result() == 11


async def test_cancelling_the_task_of_an_awaited_workflow_leaves_its_row_pending(
    app: type[DBOS], database_url: str
) -> None:
    """02 R26."""

    @DBOS.workflow()
    async def wf() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def call() -> None:
        with SetWorkflowID("cut"):
            await wf()

    entered = asyncio.Event()
    task = asyncio.create_task(call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = status_row(database_url, "cut")
    assert row["status"] == "PENDING"
    assert rows(database_url, "SELECT * FROM workflow_output WHERE workflow_uuid = 'cut'") == []


# --- ids (3.2)


def test_a_generated_id_is_a_random_uuid(app: type[DBOS]) -> None:
    """02 R28."""

    @DBOS.workflow()
    def wf() -> str | None:
        return DBOS.workflow_id

    first, second = wf(), wf()
    assert first is not None
    assert first != second
    assert uuid.UUID(first).version in (4, 7)


@pytest.mark.parametrize("bad", ["", "   ", "\t\n"])
def test_an_empty_id_is_refused(bad: str) -> None:
    """02 R29."""
    with pytest.raises(DBOSException):
        SetWorkflowID(bad)


@pytest.mark.parametrize("good", ["a" * 500, "with spaces and ünïcödé ✓", "a'b\"c;--", "100%", "{x}"])
def test_any_other_id_is_accepted(app: type[DBOS], good: str) -> None:
    """02 R29: no other restriction on content or length."""

    @DBOS.workflow()
    def wf() -> str | None:
        return DBOS.workflow_id

    with SetWorkflowID(good):
        assert wf() == good
    assert DBOS.retrieve_workflow(good).get_result() == good


def test_an_assigned_id_goes_to_the_first_start_only(app: type[DBOS]) -> None:
    """02 R30."""

    @DBOS.workflow()
    def wf() -> str | None:
        return DBOS.workflow_id

    with SetWorkflowID("mine"):
        first, second = wf(), DBOS.start_workflow(wf).get_result()
    assert first == "mine"
    assert second not in ("mine", None)


def test_a_failed_start_uses_the_id_up(app: type[DBOS], database_url: str) -> None:
    """02 R31."""

    @DBOS.workflow()
    def wf(value: Any) -> str | None:
        return DBOS.workflow_id

    with SetWorkflowID("used"):
        with pytest.raises(Exception, match="arguments"):
            wf(threading.Lock())
        assert wf(1) != "used"
    assert rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = 'used'") == []


# --- what is written (3.3)


def test_the_row_of_a_root_start_has_these_columns(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """02 R34."""
    monkeypatch.setenv("DBOS__APPID", "the app id")

    @DBOS.workflow(name="columns")
    def wf(value: int) -> int:
        gate.wait()
        return value

    gate = Gate()
    with SetWorkflowID("root"), SetWorkflowAttributes({"team": "blue", "n": 1}):
        handle = DBOS.start_workflow(wf, 1)
    row = status_row(database_url, "root")
    gate.open()
    handle.get_result()
    expected = {
        "name": "columns",
        "status": "PENDING",
        "class_name": None,
        "config_name": None,
        "executor_id": "test",
        "application_version": "v1",
        "application_id": "the app id",
        "application_name": "test-app",
        "authenticated_user": None,
        "authenticated_roles": None,
        "assumed_role": None,
        "queue_name": None,
        "queue_partition_key": None,
        "deduplication_id": None,
        "priority": 0,
        "recovery_attempts": 1,
        "workflow_timeout_ms": None,
        "workflow_deadline_epoch_ms": None,
        "parent_workflow_id": None,
        "serialization": "py_pickle",
        "completed_at": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["creator_xid"]
    assert row["creator_xid"] == row["owner_xid"]
    attributes = row["attributes"]
    assert (json.loads(attributes) if isinstance(attributes, str) else attributes) == {"team": "blue", "n": 1}
    assert row["created_at"] > 1_600_000_000_000


def test_attributes_that_are_not_given_are_sql_null(app: type[DBOS], database_url: str) -> None:
    """05 section 15: the index on attributes then holds only rows that have some."""

    @DBOS.workflow()
    def wf() -> None: ...

    with SetWorkflowID("w"):
        wf()
    sql = "SELECT CAST(attributes AS TEXT) AS a FROM workflow_status WHERE workflow_uuid = 'w'"
    assert rows(database_url, sql)[0]["a"] is None


def test_the_outcome_clears_the_owner_and_stamps_the_end(app: type[DBOS], database_url: str) -> None:
    """02 R63."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    with SetWorkflowID("w"):
        wf()
    row = status_row(database_url, "w")
    assert row["status"] == "SUCCESS"
    assert row["owner_xid"] is None
    assert row["creator_xid"]
    assert row["completed_at"] >= row["created_at"]
    assert row["updated_at"] == row["completed_at"]


def test_unserializable_arguments_are_the_callers_error_and_leave_no_row(app: type[DBOS], database_url: str) -> None:
    """02 R35."""

    @DBOS.workflow()
    def wf(value: Any) -> None: ...

    for start in (wf, lambda value: DBOS.start_workflow(wf, value)):
        with pytest.raises(TypeError, match="lock"):
            start(threading.Lock())
    assert count(database_url) == 0


# --- options that need a queue


@pytest.mark.parametrize(
    "options",
    [{"deduplication_id": "d"}, {"priority": 1}, {"queue_partition_key": "k"}, {"delay_seconds": 1.0}],
    ids=lambda options: next(iter(options)),
)
async def test_queue_options_are_refused_by_start_workflow_and_ignored_by_calls(
    app: type[DBOS], options: dict[str, Any]
) -> None:
    """03 R36, 02 R47."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    with SetEnqueueOptions(**options):
        with pytest.raises(DBOSException, match=next(iter(options))):
            DBOS.start_workflow(wf)
        with pytest.raises(DBOSException, match=next(iter(options))):
            await DBOS.start_workflow_async(wf)
        assert wf() == 1


def test_the_app_version_option_is_written_by_start_workflow_and_ignored_by_calls(
    app: type[DBOS], database_url: str
) -> None:
    """03 R36, 02 R34, R47."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    with SetEnqueueOptions(app_version="v9"):
        with SetWorkflowID("started"):
            assert DBOS.start_workflow(wf).get_result() == 1
        with SetWorkflowID("called"):
            assert wf() == 1
    assert status_row(database_url, "started")["application_version"] == "v9"
    assert status_row(database_url, "called")["application_version"] == "v1"


# --- where (3.5)


def test_a_start_from_a_step_is_refused_and_the_refusal_is_an_ordinary_step_error(
    app: type[DBOS], database_url: str
) -> None:
    """02 R48, R249, R269: both a DBOSException with helpful text and, as ever, an AssertionError."""

    @DBOS.workflow(name="child")
    def child() -> str | None:
        return DBOS.workflow_id

    @DBOS.step(name="calling")
    def calling() -> None:
        child()

    @DBOS.step(name="starting")
    def starting() -> None:
        DBOS.start_workflow(child)

    @DBOS.workflow()
    def wf() -> None:
        for step in (calling, starting):
            with pytest.raises(AssertionError) as refused:
                step()
            assert isinstance(refused.value, DBOSException)
            assert "step" in str(refused.value)
            assert "child" in str(refused.value)

    with SetWorkflowID("parent"):
        wf()
    assert step_names(database_url, "parent") == {1: "calling", 2: "starting"}
    assert all(row["error"] is not None for row in step_rows(database_url, "parent"))
    assert count(database_url) == 1


async def test_a_start_from_an_async_step_is_refused(app: type[DBOS], database_url: str) -> None:
    """02 R48."""

    @DBOS.workflow()
    async def child() -> None: ...

    @DBOS.step()
    async def calling() -> None:
        await child()

    @DBOS.step()
    async def starting() -> None:
        await DBOS.start_workflow_async(child)

    @DBOS.workflow()
    async def wf() -> None:
        for step in (calling, starting):
            with pytest.raises(AssertionError):
                await step()

    await wf()
    assert count(database_url) == 1


def test_a_refused_start_in_a_step_uses_the_ambient_id_up(app: type[DBOS]) -> None:
    """02 R48."""

    @DBOS.workflow()
    def child() -> str | None:
        return DBOS.workflow_id

    @DBOS.workflow()
    def wf() -> str | None:
        block = SetWorkflowID("ambient")

        def refused() -> None:
            with pytest.raises(AssertionError), block:
                child()

        DBOS.run_step(None, refused)
        return "done"

    assert wf() == "done"


def test_a_shard_key_is_refused(app: type[DBOS], database_url: str) -> None:
    """02 R50."""

    @DBOS.workflow()
    def wf() -> None: ...

    with SetShardKey("k"):
        with pytest.raises(DBOSException, match="shard"):
            wf()
        with pytest.raises(DBOSException, match="shard"):
            DBOS.start_workflow(wf)
    with pytest.raises(ValueError):
        SetShardKey("")
    for call in (
        lambda: DBOS.get_result("x", shard_key="k"),
        lambda: DBOS.get_workflow_status("x", shard_key="k"),
        lambda: DBOS.retrieve_workflow("x", shard_key="k"),
        lambda: DBOS.cancel_workflow("x", shard_key=""),
    ):
        with pytest.raises(DBOSException, match="shard"):
            call()
    assert count(database_url) == 0


def test_calls_before_construction_before_launch_and_after_destroy_say_so(config: Config) -> None:
    """02 section 22."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    @DBOS.step()
    def step() -> int:
        return 2

    async def coroutine() -> int:
        return 3

    def refused() -> None:
        for call in (
            wf,
            lambda: DBOS.start_workflow(wf),
            lambda: asyncio.run(DBOS.start_workflow_async(wf)),
            lambda: DBOS.reserve_step(),
            lambda: DBOS.patch("p"),
            lambda: DBOS.deprecate_patch("p"),
            lambda: DBOS.get_workflow_status("x"),
            lambda: DBOS.retrieve_workflow("x"),
            lambda: DBOS.cancel_workflow("x"),
            lambda: asyncio.run(DBOS.cancel_workflow_async("x")),
            lambda: asyncio.run(DBOS.get_result_async("x")),
            lambda: asyncio.run(DBOS.run_step_async(None, coroutine)),
        ):
            with pytest.raises(DBOSException):
                call()
        assert step() == 2
        assert (DBOS.workflow_id, DBOS.step_id, DBOS.step_status, DBOS.shard_key) == (None,) * 4

    refused()
    with pytest.raises(DBOSException):
        DBOS.run_step(None, step)
    DBOS(config=config)
    refused()
    assert DBOS.run_step(None, step) == 2
    with pytest.raises(RuntimeError):
        DBOS.run_step(None, coroutine)
    DBOS.launch()
    assert (wf(), step(), DBOS.run_step(None, step), DBOS.run_step(None, coroutine)) == (1, 2, 2, 3)
    DBOS.destroy()
    refused()
    with pytest.raises(DBOSException):
        DBOS.run_step(None, step)


def test_a_body_that_starts_while_dbos_is_destroyed_leaves_its_row_pending(config: Config, database_url: str) -> None:
    """02 R223: its next operation stops it, nothing is recorded, and a relaunch continues it."""
    runs: list[str] = []

    @DBOS.step()
    def step(value: int) -> int:
        return value

    @DBOS.workflow()
    def wf() -> int:
        runs.append("run")
        first = step(1)
        entered.open()
        gate.wait()
        return first + step(2)

    gate, entered = Gate(), Gate()
    DBOS(config=config)
    DBOS.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS.destroy()
    gate.open()
    wait_until(lambda: handle._completion.done)  # type: ignore[attr-defined]
    assert status_row(database_url, "w")["status"] == "PENDING"
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("w").get_result() == 3
    assert len(runs) == 2
    DBOS.destroy(destroy_registry=True)
