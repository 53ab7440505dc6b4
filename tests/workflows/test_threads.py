"""Sync and async, threads and event loops (02 section 21)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from tests.helpers import Gate, step_names, wait_until

Config = dict[str, Any]

BLOCKING: dict[str, Any] = {
    "run_step": lambda: DBOS.run_step(None, lambda: None),
    "get_workflow_status": lambda: DBOS.get_workflow_status("x"),
    "get_result": lambda: DBOS.get_result("x"),
    "wait_first": lambda: DBOS.wait_first([]),
    "retrieve_workflow": lambda: DBOS.retrieve_workflow("x"),
    "sleep": lambda: DBOS.sleep(1),
    "cancel_workflow": lambda: DBOS.cancel_workflow("x"),
    "cancel_workflows": lambda: DBOS.cancel_workflows(["x"]),
    "resume_workflow": lambda: DBOS.resume_workflow("x"),
    "resume_workflows": lambda: DBOS.resume_workflows(["x"]),
    "fork_workflow": lambda: DBOS.fork_workflow("x", 1),
    "rewind_workflow": lambda: DBOS.rewind_workflow("x"),
    "delete_workflow": lambda: DBOS.delete_workflow("x"),
    "delete_workflows": lambda: DBOS.delete_workflows(["x"]),
    "set_workflow_delay": lambda: DBOS.set_workflow_delay("x", delay_seconds=1),
    "update_workflow_attributes": lambda: DBOS.update_workflow_attributes("x", {}),
    "list_workflow_steps": lambda: DBOS.list_workflow_steps("x"),
    "patch": lambda: DBOS.patch("x"),
    "deprecate_patch": lambda: DBOS.deprecate_patch("x"),
}


async def test_blocking_calls_refuse_a_running_loop_and_name_their_twin(app: type[DBOS], database_url: str) -> None:
    """05 R64, 02 R212: before an id is drawn; cancel_workflow and delete_workflow name their plurals."""

    @DBOS.workflow()
    async def wf() -> None:
        refused()
        await DBOS.run_step_async({"name": "s"}, lambda: None)

    def refused() -> None:
        for name, call in BLOCKING.items():
            with pytest.raises(RuntimeError) as error:
                call()
            plural = name in ("cancel_workflow", "delete_workflow")
            twin = f"{name}s_async" if plural else f"{name}_async"
            assert twin in str(error.value)

    refused()
    with SetWorkflowID("w"):
        await wf()
    assert step_names(database_url, "w") == {1: "s"}
    handle = await DBOS.retrieve_workflow_async("w")
    sync_handle = await asyncio.to_thread(DBOS.retrieve_workflow, "w")
    with pytest.raises(RuntimeError):
        sync_handle.get_status()
    assert (await handle.get_status()).status == "SUCCESS"


async def test_a_sync_workflow_and_its_steps_run_on_a_loop_thread(app: type[DBOS], database_url: str) -> None:
    """02 R213, R214: its calls of blocking methods raise."""

    @DBOS.step(name="s")
    def step() -> int:
        return 1

    @DBOS.workflow()
    def wf() -> int:
        with pytest.raises(RuntimeError):
            DBOS.sleep(1)
        return step() + step()

    with SetWorkflowID("w"):
        assert wf() == 2
    assert step_names(database_url, "w") == {1: "s", 2: "s"}


async def test_an_async_workflow_calls_sync_children_directly_and_in_threads(app: type[DBOS]) -> None:
    """02 R216."""

    @DBOS.step()
    def step() -> int:
        return 1

    @DBOS.workflow()
    def child() -> int:
        return step() + 1

    @DBOS.workflow()
    async def parent() -> list[int]:
        return [child(), step(), await asyncio.to_thread(child), await asyncio.to_thread(step)]

    assert await parent() == [2, 1, 2, 1]


def test_a_sync_workflow_runs_async_functions_on_the_loop_of_dbos(app: type[DBOS]) -> None:
    """02 R14, R216, R217."""

    async def loop_of() -> int:
        return id(asyncio.get_running_loop())

    @DBOS.workflow()
    def wf() -> list[int]:
        return [DBOS.run_step(None, loop_of) for _ in range(2)]

    @DBOS.workflow()
    async def async_wf() -> int:
        return await loop_of()

    first, second = wf()
    assert first == second == DBOS.start_workflow(async_wf).get_result()


def test_the_loop_that_launches_is_the_loop_of_dbos(config: Config) -> None:
    """02 R217, R239: async workflows of sync starts run there; blocking it for one of them is detected."""

    @DBOS.workflow()
    async def wf() -> int:
        return id(asyncio.get_running_loop())

    @DBOS.step()
    async def step() -> None: ...

    @DBOS.workflow()
    def sync_wf() -> None:
        DBOS.run_step(None, step)

    async def main() -> None:
        DBOS(config=config)  # type: ignore[arg-type]
        DBOS.launch()
        here = id(asyncio.get_running_loop())
        started = DBOS.start_workflow(wf)
        assert await asyncio.to_thread(started.get_result) == here
        assert await asyncio.to_thread(DBOS.start_workflow(sync_wf).get_result) is None
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    asyncio.run(main())


def test_a_sync_handle_on_the_loop_its_workflow_needs_is_refused_instead_of_blocking_for_ever(config: Config) -> None:
    """02 R239, R271."""

    @DBOS.workflow()
    async def wf() -> int:
        return 7

    async def main() -> None:
        DBOS(config=config)  # type: ignore[arg-type]
        DBOS.launch()
        handle = DBOS.start_workflow(wf)
        with pytest.raises(RuntimeError, match="event loop"):
            handle.get_result()
        assert await asyncio.to_thread(handle.get_result) == 7
        # Finished: nothing has to run any more.
        assert handle.get_result() == 7
        DBOS.destroy(destroy_registry=True)

    asyncio.run(asyncio.wait_for(main(), 60))


async def test_the_default_executor_of_the_loop_is_left_alone(config: Config) -> None:
    """02 R240, R271, in place of R220."""
    used: list[str] = []

    async def name_of_thread() -> str:
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    before = await name_of_thread()
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()

    @DBOS.workflow()
    async def wf() -> None:
        used.append(await DBOS.run_step_async(None, lambda: threading.current_thread().name))

    await wf()
    assert used[0].startswith("dbos-")
    assert not (await name_of_thread()).startswith("dbos-")
    DBOS.destroy(destroy_registry=True)
    assert not (await name_of_thread()).startswith("dbos-")
    assert not before.startswith("dbos-")


async def test_an_async_twin_without_an_application_says_so(config: Config) -> None:
    """02 section 22."""
    for call in (DBOS.sleep_async(1), DBOS.get_result_async("x"), DBOS.cancel_workflow_async("x")):
        with pytest.raises(DBOSException):
            await call


def test_the_pool_runs_no_more_than_its_limit(config: Config) -> None:
    """02 R219: as to threads at work."""
    DBOS(config={**config, "max_executor_threads": 2})  # type: ignore[typeddict-item]
    running, most = [0], [0]
    lock = threading.Lock()

    @DBOS.workflow()
    def wf() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 2:
                two.open()
        gate.wait()
        with lock:
            running[0] -= 1

    gate, two = Gate(), Gate()
    DBOS.launch()
    handles = [DBOS.start_workflow(wf) for _ in range(6)]
    two.wait()
    gate.open()
    for handle in handles:
        handle.get_result()
    assert most[0] == 2
    DBOS.destroy(destroy_registry=True)


def test_a_step_in_a_raw_thread_is_a_plain_call(app: type[DBOS], database_url: str) -> None:
    """02 R11, R238: no checkpoint."""

    @DBOS.step(name="s")
    def step() -> int:
        return 1

    @DBOS.workflow()
    def wf() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(step).result() + step()

    with SetWorkflowID("w"):
        assert wf() == 2
    assert step_names(database_url, "w") == {1: "s"}


def test_many_threads_start_and_await_workflows_at_once(app: type[DBOS]) -> None:
    """The journal, the pool and the signals under concurrency."""

    @DBOS.step()
    def step(value: int) -> int:
        return value

    @DBOS.workflow()
    def wf(value: int) -> int:
        return step(value) + step(1)

    @DBOS.workflow()
    async def async_wf(value: int) -> int:
        return await DBOS.run_step_async(None, lambda: value) + 1

    def one(value: int) -> tuple[int, int, int]:
        return wf(value), DBOS.start_workflow(wf, value).get_result(), DBOS.start_workflow(async_wf, value).get_result()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(64))) == [(value + 1,) * 3 for value in range(64)]


async def test_a_workflow_task_is_kept_alive_without_a_handle(app: type[DBOS]) -> None:
    """02 R25."""
    import gc

    finished = asyncio.Event()

    @DBOS.workflow()
    async def wf() -> None:
        await asyncio.sleep(0.01)
        finished.set()

    await DBOS.start_workflow_async(wf)
    gc.collect()
    await asyncio.wait_for(finished.wait(), 60)


def test_destroy_waits_for_direct_calls_too(config: Config) -> None:
    """02 R252, R259: with a time to complete."""
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()

    @DBOS.workflow()
    def wf() -> str:
        entered.open()
        wait_until(lambda: destroying.is_open)
        return DBOS.run_step(None, lambda: "completed")

    entered, destroying = Gate(), Gate()
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(wf()))
    thread.start()
    entered.wait()
    threading.Timer(0.05, destroying.open).start()
    DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=60)
    thread.join(60)
    assert results == ["completed"]
