"""Timeouts, patches, cancel and resume, ids in use."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSConflictingWorkflowError, DBOSWorkflowIDInUseError

from ..world import Root
from .declaring import Functions, scenario


@scenario(
    Root("endless", "e", timeout_seconds=300),
    Root("endless_async", "ea", timeout_seconds=310),
    expected={"e": "DBOSAwaitedWorkflowCancelledError", "ea": "DBOSAwaitedWorkflowCancelledError"},
)
def timeouts(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> int:
        return 1

    @DBOS.workflow(name="endless_child")
    def endless_child() -> None:
        one()
        DBOS.sleep(5_000)
        one()

    @DBOS.workflow(name="endless")
    def endless() -> None:
        one()
        endless_child()

    @DBOS.step(name="one_async")
    async def one_async() -> int:
        return 1

    @DBOS.workflow(name="endless_async")
    async def endless_async() -> None:
        await one_async()
        await DBOS.sleep_async(5_000)
        await one_async()

    return {"endless": endless, "endless_async": endless_async}


@scenario(Root("patched", "w"), expected={"w": ["a", "old", "z"]}, versions=2)
def patches(version: int) -> Functions:
    @DBOS.workflow(name="patched")
    def patched() -> list[str]:
        results = [DBOS.run_step({"name": "first"}, lambda: "a")]
        if version == 1 and DBOS.patch("new-path"):
            results.append(DBOS.run_step({"name": "new"}, lambda: "new"))
        else:
            results.append(DBOS.run_step({"name": "old"}, lambda: "old"))
        results.append(DBOS.run_step({"name": "last"}, lambda: "z"))
        return results

    return {"patched": patched}


@scenario(Root("patched", "w"), expected={"w": ["a", "new", "z"]}, versions=2)
def deprecated_patches(version: int) -> Functions:
    @DBOS.workflow(name="patched")
    async def patched() -> list[str]:
        async def text(value: str) -> str:
            return value

        results = [await DBOS.run_step_async({"name": "first"}, text, "a")]
        if version == 0:
            assert await DBOS.patch_async("new-path")
        else:
            assert await DBOS.deprecate_patch_async("new-path")
        results.append(await DBOS.run_step_async({"name": "new"}, text, "new"))
        results.append(await DBOS.run_step_async({"name": "last"}, text, "z"))
        return results

    return {"patched": patched}


@scenario(
    Root("manager", "m"),
    expected={"m": ["found", "nothing", "done", 5, "done"]},
    unstable=("DBOS.getStatus", "DBOS.waitFirst", "DBOS.listWorkflowSteps"),
    resumes=1,
)
def management(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> str:
        return "done"

    @DBOS.workflow(name="slow")
    def slow() -> str:
        one()
        DBOS.sleep(20)
        return one()

    @DBOS.workflow(name="quick")
    def quick() -> int:
        DBOS.sleep(1)
        return 5

    @DBOS.workflow(name="manager")
    def manager() -> list[Any]:
        with SetWorkflowID("slow-child"):
            slow_handle = DBOS.start_workflow(slow)
        quick_handle = DBOS.start_workflow(quick)
        status = DBOS.get_workflow_status("slow-child")
        nothing = DBOS.get_workflow_status("no-such-workflow")
        first = DBOS.wait_first([quick_handle, slow_handle])
        assert first.workflow_id in ("slow-child", quick_handle.workflow_id)
        DBOS.cancel_workflow("slow-child")
        DBOS.list_workflow_steps("slow-child")
        DBOS.resume_workflow("slow-child")
        result = DBOS.retrieve_workflow("slow-child").get_result()
        return [
            "found" if status else "missing",
            "something" if nothing else "nothing",
            result,
            quick_handle.get_result(),
            DBOS.get_result("slow-child"),
        ]

    return {"manager": manager}


@scenario(
    Root("canceller", "c"),
    expected={"c": ["cancelled", "DBOSAwaitedWorkflowCancelledError"]},
    unstable=("DBOS.getStatus",),
)
def cancelled_children(version: int) -> Functions:
    @DBOS.step(name="forever", preemptible=True)
    async def forever() -> None:
        await asyncio.sleep(4_000)

    @DBOS.workflow(name="victim")
    async def victim() -> None:
        await forever()

    @DBOS.workflow(name="canceller")
    async def canceller() -> list[str]:
        with SetWorkflowID("victim-1"):
            handle = await DBOS.start_workflow_async(victim)
        await DBOS.sleep_async(2)
        await DBOS.cancel_workflow_async("victim-1")
        try:
            await handle.get_result()
        except DBOSAwaitedWorkflowCancelledError as error:
            status = await handle.get_status()
            return [status.status.lower(), type(error).__name__]
        return []

    return {"canceller": canceller}


@scenario(
    Root("shared", "s", (1,)),
    Root("shared", "s", (1,), in_background=True),
    Root("attaching", "a"),
    Root("attaching", "b", in_background=True),
    expected={"s": 2, "a": ["refused", "other function", 7], "b": ["refused", "other function", 7]},
    unstable=("shared", "DBOS.getResult"),  # The refusal tells the status of the other workflow.
)
def shared_ids(version: int) -> Functions:
    @DBOS.step(name="add_one")
    def add_one(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="shared")
    def shared(number: int) -> int:
        return add_one(number)

    @DBOS.workflow(name="other")
    def other() -> None:
        pass

    @DBOS.workflow(name="attaching")
    def attaching() -> list[Any]:
        results: list[Any] = []
        with SetWorkflowID("common"):
            handle = DBOS.start_workflow(shared, 6)
        try:
            with SetWorkflowID("common", workflow_id_reuse_policy="reject"):
                shared(6)
        except DBOSWorkflowIDInUseError:
            results.append("refused")
        try:
            with SetWorkflowID("common"):
                DBOS.start_workflow(other)
        except DBOSConflictingWorkflowError:
            results.append("other function")
        return [*results, handle.get_result()]

    return {"shared": shared, "attaching": attaching}
