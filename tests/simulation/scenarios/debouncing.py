"""Debouncing in workflows: new workflows, bounces, refusals, gathered calls."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, Debouncer, SetEnqueueOptions
from dbos.error import DBOSQueueDeduplicatedError
from dbos.types import INTERNAL_QUEUE_NAME

from ..world import Root
from .declaring import Functions, scenario

# So far away that the workflow waits until a call moves its start here.
LONG = 1_000_000.0


@scenario(Root("debouncing", "d"), expected={"d": [2, 4, "refused by d-9"]})
def debouncing(version: int) -> Functions:
    @DBOS.workflow(name="debounced")
    def debounced(number: int) -> int:
        return DBOS.run_step({"name": "double"}, lambda: number * 2)

    @DBOS.workflow(name="debouncing")
    def debouncing() -> list[Any]:
        debouncer = Debouncer.create(debounced, debounce_timeout_sec=2 * LONG)
        results: list[Any] = []
        for last in (1, 2):
            handle = debouncer.debounce("key", LONG, 0)
            assert debouncer.debounce("key", 1, last).workflow_id == handle.workflow_id
            results.append(handle.get_result())
        with SetEnqueueOptions(deduplication_id="debounced-by hand", delay_seconds=LONG):
            holder = DBOS.enqueue_workflow(INTERNAL_QUEUE_NAME, debounced, 3)
        try:
            debouncer.debounce("by hand", 1, 4)
        except DBOSQueueDeduplicatedError as error:
            results.append(f"refused by {error.workflow_id}")
        DBOS.cancel_workflow(holder.workflow_id)
        return results

    return {"debouncing": debouncing}


@scenario(Root("gathering", "g"), expected={"g": [2, 10, 6, 14, "g-2", "g-8"]})
def gathered_debounces(version: int) -> Functions:
    @DBOS.workflow(name="debounced")
    async def debounced(number: int) -> int:
        return await DBOS.run_step_async({"name": "double"}, lambda: number * 2)

    @DBOS.workflow(name="gathering")
    async def gathering() -> list[Any]:
        debouncer = Debouncer.create_async(debounced)
        held = await debouncer.debounce_async("b", LONG, 0)
        # The second one bounces, the others begin anew.
        begun = await asyncio.gather(
            *[debouncer.debounce_async(key, LONG, number) for number, key in enumerate("abc", start=1)]
        )
        # All of them bounce; the last one again, with an id that comes back.
        moved = await asyncio.gather(
            *[debouncer.debounce_async(key, 1, number) for key, number in (("a", 1), ("b", 5), ("c", 3))]
        )
        assert [handle.workflow_id for handle in begun] == [handle.workflow_id for handle in moved]
        alone = await debouncer.debounce_async("d", 1, 7)
        results: list[Any] = [await handle.get_result() for handle in (*moved, alone)]
        return [*results, held.workflow_id, begun[2].workflow_id]

    return {"gathering": gathering}
