"""Async steps and children, reserved steps, waiting, sleeping."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS

from ..world import Root
from .declaring import Functions, scenario


@scenario(Root("gathering", "g"), expected={"g": [[0, 1, 4, 9, 16], ["ab", "slow"], 7]})
def async_steps(version: int) -> Functions:
    @DBOS.step(name="square")
    async def square(number: int) -> int:
        await asyncio.sleep(number / 10)
        return number * number

    @DBOS.step(name="hasty", timeout_seconds=0.5)
    async def hasty() -> str:
        await asyncio.sleep(3)
        return "never"

    @DBOS.step(name="flaky", retries_allowed=True, interval_seconds=1, max_attempts=3)
    async def flaky() -> int:
        if DBOS.step_status.current_attempt == 0:
            raise ValueError("not yet")
        return 7

    async def join(left: str, right: str) -> str:
        await asyncio.sleep(0)
        return left + right

    @DBOS.workflow(name="gathering")
    async def gathering() -> Any:
        squares = list(await asyncio.gather(*(square(number) for number in range(5))))
        joined = await DBOS.run_step_async({"name": "join"}, join, "a", "b")
        try:
            late = await hasty()
        except Exception:
            late = "slow"
        return [squares, [joined, late], await flaky()]

    return {"gathering": gathering}


@scenario(Root("fan_out", "f"), expected={"f": [[1, 2, 3], 30, 21]})
def async_children(version: int) -> Functions:
    @DBOS.step(name="add_one")
    async def add_one(number: int) -> int:
        await asyncio.sleep(0.05)
        return number + 1

    @DBOS.workflow(name="leaf")
    async def leaf(number: int) -> int:
        return await add_one(number)

    @DBOS.workflow(name="two_steps")
    async def two_steps(number: int) -> int:
        await DBOS.sleep_async(number / 10)
        return await add_one(await add_one(number))

    @DBOS.workflow(name="sync_child")
    def sync_child() -> int:
        return 21

    @DBOS.workflow(name="fan_out")
    async def fan_out() -> Any:
        direct = list(await asyncio.gather(*(leaf(number) for number in range(3))))
        handles = [await DBOS.start_workflow_async(two_steps, number) for number in (7, 8, 9)]
        total = sum(await asyncio.gather(*(handle.get_result() for handle in handles)))
        sync_handle = await DBOS.start_workflow_async(sync_child)
        return [direct, total, await sync_handle.get_result()]

    return {"fan_out": fan_out}


@scenario(Root("reserving", "r"), Root("reserving_async", "ra"), expected={"r": [2, 1, 3], "ra": [2, 1]})
def reserved_steps(version: int) -> Functions:
    @DBOS.workflow(name="reserving")
    def reserving() -> list[int]:
        late = DBOS.reserve_step()
        early = DBOS.run_step({"name": "early"}, lambda: 2)
        return [early, late.run({"name": "late"}, lambda: 1), DBOS.run_step({"name": "last"}, lambda: 3)]

    async def one() -> int:
        return 1

    @DBOS.workflow(name="reserving_async")
    async def reserving_async() -> list[int]:
        late = DBOS.reserve_step()
        early = await DBOS.run_step_async({"name": "early"}, _two)
        return [early, await late.run_async({"name": "late"}, one)]

    return {"reserving": reserving, "reserving_async": reserving_async}


@scenario(Root("waiting", "w"), expected={"w": [[0, 1], [2, 5], 5]})
def waiting_for_some(version: int) -> Functions:
    @DBOS.step(name="nap")
    async def nap(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    @DBOS.workflow(name="waiting")
    async def waiting() -> list[Any]:
        tasks = [asyncio.ensure_future(nap(seconds)) for seconds in (1, 2, 300)]
        done, _ = await DBOS.asyncio_wait(tasks[:2])
        positions = sorted(index for index, task in enumerate(tasks) if task in done)
        for task in tasks:
            task.cancel()
        late = [await nap(2), await nap(5)]
        return [positions, late, late[1]]

    return {"waiting": waiting}


@scenario(Root("napping", "n"), Root("napping_async", "na"), expected={"n": 3, "na": 3})
def sleeping(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> int:
        return 1

    @DBOS.workflow(name="napping")
    def napping() -> int:
        first = one()
        DBOS.sleep(4)
        second = one()
        DBOS.sleep(2)
        return first + second + one()

    @DBOS.workflow(name="napping_async")
    async def napping_async() -> int:
        await DBOS.sleep_async(3)
        return one() + await DBOS.run_step_async(None, _two)

    return {"napping": napping, "napping_async": napping_async}


def _two() -> int:
    return 2


@scenario(Root("impatient", "p"), expected={"p": ["late", "late", "done"]})
def results_with_timeouts(version: int) -> Functions:
    @DBOS.workflow(name="waiting")
    def waiting() -> str:
        # It cannot end before the other has given up twice.
        DBOS.get_event("p", "go", 1000)
        return "done"

    @DBOS.workflow(name="impatient")
    def impatient() -> list[str]:
        results: list[str] = []
        handle = DBOS.start_workflow(waiting)
        for ask in (handle.get_result, lambda **limit: DBOS.get_result(handle.workflow_id, **limit)):
            try:
                ask(timeout_seconds=0.5)
            except TimeoutError:
                results.append("late")
        DBOS.set_event("go", True)
        return [*results, handle.get_result(timeout_seconds=1000)]

    return {"waiting": waiting, "impatient": impatient}
