"""Enqueueing, claims within limits, delays, deduplication."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, EnqueueItem, PortableWorkflowError, SetEnqueueOptions, SetWorkflowID
from dbos.error import DBOSQueueDeduplicatedError

from ..world import Root
from .declaring import Functions, scenario


@scenario(
    Root("enqueuer", "q"),
    Root("enqueuer_async", "qa"),
    expected={"q": [1, 2, 3, 4], "qa": [11, 12, 13]},
)
def queues(version: int) -> Functions:
    @DBOS.step(name="add_one")
    def add_one(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="queued")
    def queued(number: int) -> int:
        return add_one(number)

    @DBOS.step(name="add_one_async")
    async def add_one_async(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="queued_async")
    async def queued_async(number: int) -> int:
        return await add_one_async(number)

    @DBOS.workflow(name="enqueuer")
    def enqueuer() -> list[int]:
        # Not recorded: every run registers them again.
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        DBOS.register_queue("parts", partition_concurrency=1, on_conflict="always_update")
        handles = [DBOS.enqueue_workflow("limited", queued, number) for number in range(2)]
        for number in (2, 3):
            with SetEnqueueOptions(queue_partition_key="key"):
                handles.append(DBOS.enqueue_workflow("parts", queued, number))
        return [handle.get_result() for handle in handles]

    @DBOS.workflow(name="enqueuer_async")
    async def enqueuer_async() -> list[int]:
        await DBOS.register_queue_async("limited", global_concurrency=1, on_conflict="always_update")
        options: Any = {"workflow_name": "queued_async", "queue_name": "limited"}
        handles = await asyncio.gather(
            *[DBOS.enqueue_workflow_with_options_async(options | {"priority": 1}, number) for number in (10, 11)]
        )
        with SetEnqueueOptions(delay_seconds=1_000_000):
            handles.append(await DBOS.enqueue_workflow_async("limited", queued_async, 12))
        await DBOS.set_workflow_delay_async(handles[2].workflow_id, delay_seconds=2)
        return [await handle.get_result() for handle in handles]

    return {"enqueuer": enqueuer, "enqueuer_async": enqueuer_async}


@scenario(Root("enqueuing_foreign", "o"), expected={"o": ["PortableWorkflowError", "DBOSException", True, 2]})
def foreign_formats(version: int) -> Functions:
    @DBOS.workflow(name="queued")
    def queued(number: int) -> int:
        return DBOS.run_step({"name": "add_one"}, lambda: number + 1)

    @DBOS.workflow(name="enqueuing_foreign")
    def enqueuing_foreign() -> list[Any]:
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        with SetWorkflowID("foreign"):
            foreign = DBOS.enqueue_workflow("limited", queued, 0)
        behind = DBOS.enqueue_workflow("limited", queued, 1)
        try:
            foreign.get_result()
        except PortableWorkflowError as error:
            known = "js_superjson" in error.message
            return [type(error).__name__, error.name, known, behind.get_result()]
        return []

    return {"enqueuing_foreign": enqueuing_foreign}


@scenario(Root("deduplicating", "d"), expected={"d": ["refused", "attached", 6]})
def deduplication(version: int) -> Functions:
    @DBOS.workflow(name="queued")
    def queued(number: int) -> int:
        return DBOS.run_step({"name": "add_one"}, lambda: number + 1)

    @DBOS.workflow(name="deduplicating")
    def deduplicating() -> list[Any]:
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        results: list[Any] = []
        # Far away, so that the id is held until the delay is taken back.
        with SetEnqueueOptions(deduplication_id="id", delay_seconds=1_000_000):
            holder = DBOS.enqueue_workflow("limited", queued, 5)
            try:
                DBOS.enqueue_workflow("limited", queued, 6)
            except DBOSQueueDeduplicatedError:
                results.append("refused")
        with SetEnqueueOptions(deduplication_id="id", duplication_policy="return-existing"):
            attached = DBOS.enqueue_workflow("limited", queued, 7)
        results.append("attached" if attached.workflow_id == holder.workflow_id else "not attached")
        DBOS.set_workflow_delay(holder.workflow_id, delay_until_epoch_ms=0)
        return [*results, holder.get_result()]

    return {"deduplicating": deduplicating}


@scenario(
    Root("enqueuing_many", "m"),
    Root("enqueuing_many_async", "ma"),
    expected={"m": [1, 2, 3, 11, "refused", "m-6", 21], "ma": [31, 32, 33, 34]},
)
def bulk(version: int) -> Functions:
    @DBOS.workflow(name="queued")
    def queued(number: int) -> int:
        return DBOS.run_step({"name": "add_one"}, lambda: number + 1)

    @DBOS.workflow(name="enqueuing_many")
    def enqueuing_many() -> list[Any]:
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        items = [EnqueueItem(queued, number) for number in range(3)]
        # Held until the delay is taken back.
        holding = EnqueueItem(queued, 10).with_options(deduplication_id="id", delay_seconds=1_000_000)
        handles = DBOS.enqueue_workflows("limited", [*items, holding])
        results: list[Any] = []
        again = EnqueueItem(queued, 10).with_options(deduplication_id="id")
        try:
            DBOS.enqueue_workflows("limited", [EnqueueItem("not written"), again])
        except DBOSQueueDeduplicatedError as error:
            results += ["refused", error.workflow_id]
        attaching = again.with_options(duplication_policy="return-existing")
        more = DBOS.enqueue_workflows("limited", [attaching, EnqueueItem(queued, 20)])
        assert more[0].workflow_id == handles[3].workflow_id
        DBOS.set_workflow_delay(handles[3].workflow_id, delay_until_epoch_ms=0)
        return [*(handle.get_result() for handle in handles), *results, more[1].get_result()]

    @DBOS.workflow(name="enqueuing_many_async")
    async def enqueuing_many_async() -> list[int]:
        calls = [
            DBOS.enqueue_workflows_async("limited", [EnqueueItem(queued, number), EnqueueItem(queued, number + 1)])
            for number in (30, 32)
        ]
        handles = [handle for both in await asyncio.gather(*calls) for handle in both]
        return [await handle.get_result() for handle in handles]

    return {"enqueuing_many": enqueuing_many, "enqueuing_many_async": enqueuing_many_async}
