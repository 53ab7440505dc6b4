"""Which thread and which event loop runs what (01 R67-R68, 02 R217-R219)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.helpers import make_pending


def here() -> str:
    return threading.current_thread().name


def test_sync_workflows_run_on_the_thread_of_the_caller_or_on_the_pool(app: type[DBOS]) -> None:
    # 01 R67, 02 R219
    @DBOS.step()
    def step() -> str:
        return here()

    @DBOS.workflow()
    def work() -> tuple[str, str]:
        return here(), step()

    assert work() == (here(), here())
    name, step_name = DBOS.start_workflow(work).get_result()
    assert name == step_name
    assert name.startswith("dbos-executor")


def test_a_coroutine_workflow_started_from_a_thread_runs_on_our_own_loop(app: type[DBOS]) -> None:
    # 01 R68, 02 R217
    @DBOS.workflow()
    async def work() -> str:
        asyncio.get_running_loop()
        return here()

    first = DBOS.start_workflow(work).get_result()
    assert first != here()
    assert first == DBOS.start_workflow(work).get_result()


async def test_a_launch_inside_a_loop_adopts_it(config: dict[str, Any]) -> None:
    # 01 R68
    loops: list[asyncio.AbstractEventLoop] = []

    @DBOS.workflow()
    async def work() -> str:
        loops.append(asyncio.get_running_loop())
        return "ran"

    DBOS(config=config)
    DBOS.launch()
    with SetWorkflowID("adopted"):
        handle = DBOS.start_workflow(work)
    assert await asyncio.to_thread(handle.get_result) == "ran"
    # recovered ones as well
    make_pending(config["system_database_url"], "adopted")
    await asyncio.to_thread(DBOS.destroy)
    DBOS(config=config)
    DBOS.launch()
    assert await DBOS.get_result_async("adopted") == "ran"
    assert loops == [asyncio.get_running_loop()] * 2
    await asyncio.to_thread(DBOS.destroy)


def test_an_adopted_loop_that_has_ended_is_not_used_any_more(config: dict[str, Any]) -> None:
    # 01 R68
    @DBOS.workflow()
    async def work() -> str:
        return "ran"

    async def launch() -> None:
        DBOS(config=config)
        DBOS.launch()
        handle = await DBOS.start_workflow_async(work)
        assert await handle.get_result() == "ran"

    asyncio.run(launch())
    assert DBOS.start_workflow(work).get_result() == "ran"
    DBOS.destroy()


async def test_async_workflows_called_or_started_in_a_loop_run_in_it(app: type[DBOS]) -> None:
    # 02 R218
    @DBOS.step()
    async def step() -> asyncio.AbstractEventLoop | None:
        seen.append(asyncio.get_running_loop())
        return None

    seen: list[asyncio.AbstractEventLoop] = []

    @DBOS.workflow()
    async def work() -> None:
        seen.append(asyncio.get_running_loop())
        await step()

    await work()
    await (await DBOS.start_workflow_async(work)).get_result()
    assert seen == [asyncio.get_running_loop()] * 4


async def test_waiting_for_a_coroutine_on_the_loop_it_needs_is_an_error_and_no_deadlock(
    config: dict[str, Any],
) -> None:
    # 02 R217, R239
    async def coroutine() -> int:
        return 1

    DBOS(config=config)
    DBOS.launch()

    @DBOS.workflow()
    def work() -> int:
        return DBOS.run_step(None, coroutine)

    with pytest.raises(RuntimeError, match="run_step_async"):
        work()
    await asyncio.to_thread(DBOS.destroy)


@pytest.mark.parametrize("limit", [1, 2])
def test_waiting_workflows_do_not_use_up_the_threads(config: dict[str, Any], limit: int) -> None:
    # 02 R239, R271: parents wait for children although the pool is smaller than the nesting
    @DBOS.workflow()
    def nested(depth: int) -> int:
        if depth == 0:
            return 0
        return 1 + DBOS.start_workflow(nested, depth - 1).get_result()

    DBOS(config={**config, "max_executor_threads": limit})
    DBOS.launch()
    handles = [DBOS.start_workflow(nested, 4) for _ in range(3)]
    assert [handle.get_result() for handle in handles] == [4, 4, 4]
    DBOS.destroy()


def test_at_most_the_configured_number_of_workflows_works_at_a_time(config: dict[str, Any]) -> None:
    # 01 2.1 max_executor_threads
    lock = threading.Lock()
    at_work = 0
    most = 0
    both = threading.Barrier(2, timeout=60)

    @DBOS.workflow()
    def work() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        both.wait()
        with lock:
            at_work -= 1

    DBOS(config={**config, "max_executor_threads": 2})
    DBOS.launch()
    for handle in [DBOS.start_workflow(work) for _ in range(8)]:
        handle.get_result()
    DBOS.destroy()
    assert most == 2
