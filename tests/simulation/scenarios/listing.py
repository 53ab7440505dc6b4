"""Listings, and acting on what they show; a cancelled workflow that goes back to its queue."""

from __future__ import annotations

from typing import Any

from dbos import DBOS, SetEnqueueOptions

from ..world import Root
from .declaring import Functions, scenario

FAR_SECONDS = 1_000_000


@scenario(
    Root("lister", "l"),
    Root("lister_async", "la"),
    expected={"l": [2, [1, 2], 2], "la": [2, [1, 2], 2]},
    unstable=("DBOS.listWorkflows", "DBOS.listQueuedWorkflows"),  # They tell times.
)
def listings(version: int) -> Functions:
    @DBOS.workflow(name="listed")
    def listed(number: int) -> int:
        return DBOS.run_step({"name": "add_one"}, lambda: number + 1)

    @DBOS.workflow(name="lister")
    def lister() -> list[Any]:
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        with SetEnqueueOptions(delay_seconds=FAR_SECONDS):
            handles = [DBOS.enqueue_workflow("limited", listed, number) for number in range(2)]
        waiting = DBOS.list_queued_workflows(parent_workflow_id="l")
        # A replay acts on what was listed before, not on what is there now.
        for status in waiting:
            DBOS.set_workflow_delay(status.workflow_id, delay_until_epoch_ms=0)
        values = [handle.get_result() for handle in handles]
        return [len(waiting), values, len(DBOS.list_workflows(parent_workflow_id="l", status="SUCCESS"))]

    @DBOS.workflow(name="lister_async")
    async def lister_async() -> list[Any]:
        await DBOS.register_queue_async("limited", global_concurrency=1, on_conflict="always_update")
        with SetEnqueueOptions(delay_seconds=FAR_SECONDS):
            handles = [await DBOS.enqueue_workflow_async("limited", listed, number) for number in range(2)]
        waiting = await DBOS.list_queued_workflows_async(parent_workflow_id="la")
        for status in waiting:
            await DBOS.set_workflow_delay_async(status.workflow_id, delay_until_epoch_ms=0)
        values = [await handle.get_result() for handle in handles]
        finished = await DBOS.list_workflows_async(parent_workflow_id="la", status="SUCCESS", load_output=False)
        return [len(waiting), values, len(finished)]

    return {"lister": lister, "lister_async": lister_async}


@scenario(
    Root("returning", "r"),
    expected={"r": [6, "limited"]},
    unstable=("DBOS.listWorkflows",),
    resumes=1,
)
def back_to_the_queue(version: int) -> Functions:
    @DBOS.workflow(name="listed")
    def listed(number: int) -> int:
        return DBOS.run_step({"name": "add_one"}, lambda: number + 1)

    @DBOS.workflow(name="returning")
    def returning() -> list[Any]:
        DBOS.register_queue("limited", global_concurrency=1, on_conflict="always_update")
        with SetEnqueueOptions(delay_seconds=FAR_SECONDS):
            handle = DBOS.enqueue_workflow("limited", listed, 5)
        DBOS.cancel_workflow(handle.workflow_id)
        DBOS.resume_workflow(handle.workflow_id)
        value = handle.get_result()
        (status,) = DBOS.list_workflows(workflow_ids=[handle.workflow_id])
        return [value, status.queue_name]

    return {"returning": returning}
