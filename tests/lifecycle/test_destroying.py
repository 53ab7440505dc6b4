"""Destroying: draining, cutting off, and what works again after the next launch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSWorkflowFunctionNotFoundError
from tests.helpers import Gate, relaunch, status_row, step_names, wait_for_status, wait_until


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Opened at the end of the test in any case, so that no thread is left waiting."""
    made = Gate()
    yield made
    made.open()


def in_thread(function: Any) -> tuple[threading.Thread, list[Any]]:
    """Run a function on a thread of its own; its result or exception ends up in the list."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_an_idle_application_drains_at_once(app: type[DBOS]) -> None:
    # 01 15.1 number 4: a positive timeout cost a second
    @DBOS.workflow()
    def work() -> None: ...

    work()
    started = time.monotonic()
    DBOS.destroy(workflow_completion_timeout_sec=60)
    assert time.monotonic() - started < 30


def test_draining_waits_for_started_and_directly_called_workflows(
    app: type[DBOS], database_url: str, gate: Gate
) -> None:
    # 01 15.1 number 2, 02 R252, R259
    running = [threading.Event(), threading.Event()]

    @DBOS.step()
    def work(number: int) -> None:
        running[number].set()
        gate.wait()

    @DBOS.workflow()
    def workflow(number: int) -> int:
        work(number)
        return number

    with SetWorkflowID("started"):
        DBOS.start_workflow(workflow, 0)

    def call() -> int:
        with SetWorkflowID("called"):
            return workflow(1)

    caller, results = in_thread(call)
    for event in running:
        assert event.wait(60)
    destroyer, _ = in_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=120))
    destroyer.join(0.2)
    assert destroyer.is_alive(), "destroy did not wait"
    gate.open()
    destroyer.join(60)
    caller.join(60)
    assert results == [1]
    for workflow_id in ("started", "called"):
        assert status_row(database_url, workflow_id)["status"] == "SUCCESS"
        assert step_names(database_url, workflow_id) == {1: work.__qualname__}


async def test_draining_waits_for_async_workflows_on_the_loop_of_the_application(
    app: type[DBOS], database_url: str
) -> None:
    # 01 15.1 number 3: from a thread, so that the loop can go on
    entered, release = asyncio.Event(), asyncio.Event()

    @DBOS.workflow()
    async def work() -> str:
        entered.set()
        await release.wait()
        return "finished"

    with SetWorkflowID("async"):
        handle = await DBOS.start_workflow_async(work)
    await entered.wait()
    destroying = asyncio.ensure_future(asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=120))
    await asyncio.sleep(0.05)
    assert not destroying.done()
    release.set()
    await asyncio.wait_for(destroying, 60)
    assert status_row(database_url, handle.workflow_id)["status"] == "SUCCESS"


def test_what_is_cut_off_stays_pending_and_continues_at_the_next_launch(
    app: type[DBOS], config: dict[str, Any], gate: Gate
) -> None:
    # 01 R57, 02 R223, 01 R131
    url = config["system_database_url"]
    entered = threading.Event()
    bodies: list[str] = []

    @DBOS.step()
    def first() -> int:
        bodies.append("first")
        return 1

    @DBOS.step()
    def second() -> int:
        bodies.append("second")
        entered.set()
        gate.wait()
        return 2

    @DBOS.workflow()
    def work() -> int:
        return first() + second()

    with SetWorkflowID("cut-off"):
        live = DBOS.start_workflow(work)
    assert entered.wait(60)
    waiter, waited = in_thread(live.get_result)
    DBOS.destroy(workflow_completion_timeout_sec=0)
    gate.open()
    waiter.join(60)
    # the waiting handle meets the same error as the execution
    assert isinstance(waited[0], DBOSException)
    assert "destroyed" in str(waited[0])
    assert status_row(url, "cut-off")["status"] == "PENDING"
    assert step_names(url, "cut-off") == {1: first.__qualname__}

    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("cut-off").get_result() == 3
    assert bodies == ["first", "second", "second"]
    assert step_names(url, "cut-off") == {1: first.__qualname__, 2: second.__qualname__}


def test_draining_gives_up_after_its_timeout(app: type[DBOS], database_url: str, gate: Gate) -> None:
    # 01 R55
    entered = threading.Event()

    @DBOS.workflow()
    def work() -> None:
        entered.set()
        gate.wait()

    with SetWorkflowID("slow"):
        DBOS.start_workflow(work)
    assert entered.wait(60)
    DBOS.destroy(workflow_completion_timeout_sec=1)
    assert status_row(database_url, "slow")["status"] == "PENDING"


def test_what_is_cut_off_is_logged_with_its_id(
    app: type[DBOS], gate: Gate, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 section 16 number 2
    DBOS.logger.setLevel("INFO")
    entered = threading.Event()

    @DBOS.workflow()
    def work() -> None:
        entered.set()
        gate.wait()

    with SetWorkflowID("the-long-one"):
        DBOS.start_workflow(work)
    assert entered.wait(60)
    DBOS.destroy()
    assert "the-long-one" in caplog.text


def test_a_body_that_catches_everything_still_records_nothing_after_destroy(
    app: type[DBOS], database_url: str, gate: Gate
) -> None:
    # 02 R223
    entered, ended = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    @DBOS.step()
    def step() -> None: ...

    @DBOS.workflow()
    def stubborn() -> str:
        entered.set()
        gate.wait()
        for _ in range(3):
            try:
                step()
            except BaseException as error:
                caught.append(error)
        ended.set()
        return "pretends to have worked"

    with SetWorkflowID("stubborn"):
        DBOS.start_workflow(stubborn)
    assert entered.wait(60)
    DBOS.destroy()
    gate.open()
    assert ended.wait(60)
    assert len(caught) == 3
    assert status_row(database_url, "stubborn")["status"] == "PENDING"
    assert step_names(database_url, "stubborn") == {}


def test_async_work_cut_off_by_destroy_stays_pending(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R232, R259: a cancelled loop is a crash, never an outcome
    url = config["system_database_url"]
    entered = [threading.Event(), threading.Event()]
    blocked = True

    async def coroutine_step(number: int) -> int:
        entered[number].set()
        while blocked:
            await asyncio.sleep(0.01)
        return number

    @DBOS.workflow()
    async def async_workflow() -> int:
        return await coroutine_step(0)

    @DBOS.workflow()
    def sync_workflow() -> int:
        return DBOS.run_step({"name": "in-loop"}, coroutine_step, 1)

    with SetWorkflowID("async"):
        DBOS.start_workflow(async_workflow)
    with SetWorkflowID("sync"):
        DBOS.start_workflow(sync_workflow)
    for event in entered:
        assert event.wait(60)
    DBOS.destroy()
    assert status_row(url, "async")["status"] == "PENDING"
    assert status_row(url, "sync")["status"] == "PENDING"
    assert step_names(url, "sync") == {}
    blocked = False
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("async").get_result() == 0
    assert DBOS.retrieve_workflow("sync").get_result() == 1


async def test_a_started_task_that_its_loop_cancels_stays_pending(app: type[DBOS], database_url: str) -> None:
    # 02 R25, R26
    entered = asyncio.Event()

    @DBOS.workflow()
    async def work() -> None:
        entered.set()
        await asyncio.Event().wait()

    with SetWorkflowID("cancelled-task"):
        task = asyncio.ensure_future(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert status_row(database_url, "cancelled-task")["status"] == "PENDING"


async def test_destroying_from_async_code_lets_the_loop_go_on(app: type[DBOS], config: dict[str, Any]) -> None:
    """01 section 3.7 in ours: so async workflows on that loop finish; what takes longer is cut off and recovered."""
    entered, go = asyncio.Event(), asyncio.Event()
    late = asyncio.Event()

    @DBOS.workflow()
    async def soon() -> str:
        entered.set()
        await go.wait()
        return await DBOS.run_step_async({"name": "last"}, lambda: "finished")

    @DBOS.workflow()
    async def never() -> None:
        await late.wait()

    with SetWorkflowID("soon"):
        running = asyncio.ensure_future(soon())
    await entered.wait()
    destroyed = asyncio.ensure_future(DBOS.destroy_async(workflow_completion_timeout_sec=60))
    await asyncio.sleep(0)
    go.set()
    assert await running == "finished"
    await destroyed
    assert state.instance is None
    await DBOS.destroy_async()
    assert status_row(config["system_database_url"], "soon")["status"] == "SUCCESS"
    await asyncio.to_thread(relaunch, config)
    with SetWorkflowID("never"):
        cut_off = asyncio.ensure_future(never())
    while not await DBOS.list_workflows_async(workflow_ids=["never"]):
        await asyncio.sleep(0)
    await DBOS.destroy_async(destroy_registry=True)
    assert status_row(config["system_database_url"], "never")["status"] == "PENDING"
    cut_off.cancel()
    await asyncio.wait([cut_off])


def test_destroying_inside_a_workflow_ends_it_like_any_other(app: type[DBOS], config: dict[str, Any]) -> None:
    # 01 R133
    url = config["system_database_url"]
    runs: list[int] = []

    @DBOS.step()
    def step() -> int:
        return 4

    @DBOS.workflow()
    def suicidal() -> int:
        runs.append(1)
        if len(runs) == 1:
            DBOS.destroy()
        return step()

    with SetWorkflowID("suicidal"):
        DBOS.start_workflow(suicidal)
    wait_until(lambda: not is_launched())
    assert status_row(url, "suicidal")["status"] == "PENDING"
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("suicidal").get_result() == 4


def is_launched() -> bool:
    # Not whether calls are refused: that begins before destroy() is through.
    return state.instance is not None and state.instance.engine is not None


def test_functions_work_again_after_a_relaunch(app: type[DBOS], config: dict[str, Any]) -> None:
    # 01 R59
    @DBOS.step()
    def step() -> int:
        return 1

    @DBOS.workflow()
    def work() -> int:
        return step()

    @DBOS.workflow()
    async def work_async() -> int:
        return step()

    for _ in range(3):
        assert work() == 1
        assert DBOS.start_workflow(work).get_result() == 1
        assert asyncio.run(work_async()) == 1
        relaunch(config)
    assert work() == 1


def test_another_application_may_be_constructed_after_destroy(app: type[DBOS], config: dict[str, Any]) -> None:
    DBOS.destroy()
    DBOS(config={**config, "name": "second-app", "application_version": "v2"})
    DBOS.launch()
    (version,) = DBOS.list_application_versions()
    assert (version["version_name"], version["application_name"]) == ("v2", "second-app")


def test_a_function_of_a_destroyed_registry_is_not_called_directly(app: type[DBOS], config: dict[str, Any]) -> None:
    # 01 R60, 02 R224
    @DBOS.workflow()
    def old() -> int:
        return 1

    @DBOS.workflow()
    async def old_async() -> int:
        return 1

    DBOS.destroy(destroy_registry=True)
    DBOS(config=config)
    DBOS.launch()
    with pytest.raises(DBOSException, match="again"):
        old()
    with pytest.raises(DBOSException, match="again"):
        asyncio.run(old_async())
    assert DBOS.start_workflow(old).get_result() == 1


def test_recovery_does_not_find_functions_of_a_destroyed_registry(
    config: dict[str, Any], gate: Gate, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R60, 02 R159 (c), R253
    entered = threading.Event()

    def decorate() -> Any:
        @DBOS.workflow(name="known-name")
        def work() -> str:
            entered.set()
            gate.wait()
            return "found"

        return work

    DBOS(config=config)
    DBOS.launch()
    with SetWorkflowID("forgotten"):
        DBOS.start_workflow(decorate())
    assert entered.wait(60)
    DBOS.destroy(destroy_registry=True)
    gate.open()
    DBOS(config=config)
    DBOS.launch()
    wait_until(lambda: "known-name" in caplog.text)
    assert any(
        record.exc_info and isinstance(record.exc_info[1], DBOSWorkflowFunctionNotFoundError)
        for record in list(caplog.records)
    )
    assert status_row(config["system_database_url"], "forgotten")["status"] == "PENDING"
    DBOS.destroy()
    # decorated again, the next recovery finds it
    decorate()
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("forgotten").get_result() == "found"
    DBOS.destroy()


async def test_the_default_executor_of_the_loop_is_left_alone(config: dict[str, Any]) -> None:
    # 01 15.1 number 5, 02 R240, R271
    @DBOS.workflow()
    async def work() -> int:
        return await DBOS.run_step_async(None, len, "abc")

    DBOS(config=config)
    DBOS.launch()
    assert await work() == 3
    thread_name = await asyncio.to_thread(lambda: threading.current_thread().name)
    assert "dbos" not in thread_name
    await asyncio.to_thread(DBOS.destroy)
    assert await asyncio.to_thread(len, "after") == 5


def test_destroy_registry_allows_the_same_names_without_warnings(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R128
    for _ in range(2):
        DBOS(config=config)
        DBOS.launch()

        @DBOS.workflow(name="same")
        def work() -> int:
            return 1

        assert work() == 1
        DBOS.destroy(destroy_registry=True)
    assert "registered again" not in caplog.text


def test_a_sleeping_workflow_does_not_delay_destroy(app: type[DBOS], database_url: str) -> None:
    # 01 15.1 number 8, 02 R241
    @DBOS.workflow()
    def sleeper() -> None:
        DBOS.sleep(3600)

    with SetWorkflowID("sleeper"):
        DBOS.start_workflow(sleeper)
    wait_until(lambda: step_names(database_url, "sleeper"))
    started = time.monotonic()
    DBOS.destroy()
    assert time.monotonic() - started < 30
    assert wait_for_status(database_url, "sleeper", "PENDING")
    assert not any(
        thread.name.startswith("dbos-executor")
        for thread in wait_until(lambda: None if sleeping_threads() else [threading.current_thread()])
    )


def sleeping_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dbos-executor")]


def test_the_database_may_be_closed_while_other_threads_read(config: dict[str, Any]) -> None:
    # Closing a SQLite connection under a reading thread crashes the interpreter.
    @DBOS.workflow()
    def work() -> None: ...

    def read_until_it_is_gone(reading: threading.Event) -> None:
        while is_launched():
            reading.set()

    for _ in range(10):
        DBOS(config=config)
        DBOS.launch()
        work()
        events = [threading.Event() for _ in range(4)]
        readers = [threading.Thread(target=read_until_it_is_gone, args=(event,)) for event in events]
        for reader, event in zip(readers, events, strict=True):
            reader.start()
            assert event.wait(60)
        DBOS.destroy()
        for reader in readers:
            reader.join(60)
            assert not reader.is_alive()
