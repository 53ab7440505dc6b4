"""Forks, rewinds, deletions, attributes, and a workflow that cancels itself."""

from __future__ import annotations

from typing import Any

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSNonExistentWorkflowError

from ..world import Root
from .declaring import Functions, scenario


@scenario(
    Root("forking", "f"),
    Root("forking_async", "fa"),
    expected={
        "f": [[2, 4], "f-3", [2, 4], [2, 4], [2, 4], "missing", {"a": 1, "b": {"c": 2}}, "gone"],
        "fa": [[6, 12], "fa-3", [6, 12], [6, 12], "gone"],
    },
    unstable=("DBOS.getStatus", "DBOS.listWorkflows"),
    resumes=1,
)
def forks(version: int) -> Functions:
    @DBOS.workflow(name="counted")
    def counted(number: int) -> list[int]:
        first = DBOS.run_step({"name": "add_one"}, lambda: number + 1)
        return [first, DBOS.run_step({"name": "double"}, lambda: 2 * first)]

    @DBOS.workflow(name="forking")
    def forking() -> list[Any]:
        with SetWorkflowID("source"):
            results: list[Any] = [DBOS.start_workflow(counted, 1).get_result()]
        forked = DBOS.fork_workflow("source", 2)
        results += [forked.workflow_id, forked.get_result()]
        with SetWorkflowID("named"):
            results.append(DBOS.fork_workflow("source", 1).get_result())
        results.append(DBOS.rewind_workflow("source", start_step=2).get_result())
        try:
            DBOS.fork_workflow("no such workflow", 1)
        except DBOSNonExistentWorkflowError:
            results.append("missing")
        DBOS.update_workflow_attributes("source", {"a": 0, "b": {"d": 1}})
        DBOS.update_workflow_attributes("source", {"a": 1, "b": {"c": 2}}, merge=True)
        (status,) = DBOS.list_workflows(workflow_ids=["source"])
        results.append(status.attributes)
        DBOS.delete_workflows(["named", "no such workflow"])
        return [*results, "there" if DBOS.get_workflow_status("named") else "gone"]

    @DBOS.step(name="add_one_async")
    async def add_one(number: int) -> int:
        return number + 1

    @DBOS.step(name="double_async")
    async def double(number: int) -> int:
        return 2 * number

    @DBOS.workflow(name="counted_async")
    async def counted_async(number: int) -> list[int]:
        first = await add_one(number)
        return [first, await double(first)]

    @DBOS.workflow(name="forking_async")
    async def forking_async() -> list[Any]:
        with SetWorkflowID("source-async"):
            handle = await DBOS.start_workflow_async(counted_async, 5)
        results: list[Any] = [await handle.get_result()]
        forked = await DBOS.fork_workflow_async("source-async", 3)
        results += [forked.workflow_id, await forked.get_result()]
        rewound = await DBOS.rewind_workflow_async("source-async")
        results.append(await rewound.get_result())
        await DBOS.delete_workflow_async("source-async", delete_children=True)
        return [*results, "there" if await DBOS.get_workflow_status_async("source-async") else "gone"]

    return {"forking": forking, "forking_async": forking_async}


@scenario(Root("watching", "w"), expected={"w": ["cancelled", "b"]}, resumes=1)
def cancelling_itself(version: int) -> Functions:
    @DBOS.workflow(name="quitting")
    def quitting() -> str:
        DBOS.run_step({"name": "a"}, lambda: "a")
        DBOS.cancel_workflow(DBOS.workflow_id or "")
        return DBOS.run_step({"name": "b"}, lambda: "b")

    @DBOS.workflow(name="watching")
    def watching() -> list[Any]:
        with SetWorkflowID("quitter"):
            handle = DBOS.start_workflow(quitting)
        results: list[Any] = []
        try:
            handle.get_result()
        except DBOSAwaitedWorkflowCancelledError:
            results.append("cancelled")
        return [*results, DBOS.resume_workflow("quitter").get_result()]

    return {"watching": watching}
