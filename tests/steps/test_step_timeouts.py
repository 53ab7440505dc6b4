"""Time limits and preemption of async steps (02 section 10.1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSMaxStepRetriesExceeded, DBOSStepTimeoutError
from tests.helpers import Gate, replay, step_names, step_rows
from tests.samples import AppError

Config = dict[str, Any]


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("flavour", ["decorated", "run_step", "run_step_async"])
def test_a_slow_step_times_out_and_that_is_recorded(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """02 R113, R114, R116: code 18, step_name and timeout_seconds; also under run_step of a sync workflow."""

    @DBOS.step(name="slow", timeout_seconds=0.02)
    async def slow() -> None:
        await forever()

    def describe(error: DBOSStepTimeoutError) -> list[Any]:
        return [error.step_name, error.timeout_seconds, error.dbos_error_code, error.__cause__]

    @DBOS.workflow()
    def sync_wf() -> list[Any]:
        with pytest.raises(DBOSStepTimeoutError) as error:
            DBOS.run_step({"name": "slow", "timeout_seconds": 0.02}, forever)
        return describe(error.value)

    @DBOS.workflow()
    async def async_wf() -> list[Any]:
        with pytest.raises(DBOSStepTimeoutError) as error:
            if flavour == "decorated":
                await slow()
            else:
                await DBOS.run_step_async({"name": "slow", "timeout_seconds": 0.02}, forever)
        return describe(error.value)

    with SetWorkflowID("w"):
        found = DBOS.start_workflow(sync_wf if flavour == "run_step" else async_wf).get_result()
    assert found == ["slow", 0.02, 18, None]
    assert step_names(database_url, "w") == {1: "slow"}
    assert step_rows(database_url, "w")[0]["error"] is not None
    assert replay(config, "w") == found


async def test_a_fast_step_keeps_its_outcome(app: type[DBOS]) -> None:
    """02 R114."""

    @DBOS.step(timeout_seconds=60)
    async def good() -> str:
        await asyncio.sleep(0)
        return "good"

    @DBOS.step(timeout_seconds=60)
    async def bad() -> None:
        raise AppError("its own")

    @DBOS.workflow()
    async def wf() -> str:
        with pytest.raises(AppError, match="its own"):
            await bad()
        return await good()

    assert await wf() == "good"


async def test_the_clean_up_is_awaited_and_what_it_raises_is_the_cause(app: type[DBOS]) -> None:
    """02 R113: also a body that swallows the cancellation and returns has timed out."""
    cleaned: list[str] = []

    @DBOS.step(timeout_seconds=0.01)
    async def slow_clean_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.03)
            cleaned.append("slow")

    @DBOS.step(timeout_seconds=0.01)
    async def swallowing() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "swallowed"
        return "never"

    @DBOS.step(timeout_seconds=0.01)
    async def raising() -> None:
        try:
            await forever()
        finally:
            raise AppError("in the clean-up")

    @DBOS.workflow()
    async def wf() -> Any:
        for step in (slow_clean_up, swallowing):
            with pytest.raises(DBOSStepTimeoutError) as error:
                await step()
            assert error.value.__cause__ is None
        assert cleaned == ["slow"]
        with pytest.raises(DBOSStepTimeoutError) as caused:
            await raising()
        return type(caused.value.__cause__).__name__

    assert await wf() == "AppError"


async def test_a_fatal_exception_of_the_clean_up_replaces_the_timeout(app: type[DBOS], database_url: str) -> None:
    """02 R113, R81."""

    class Fatal(BaseException): ...

    @DBOS.step(timeout_seconds=0.01)
    async def step() -> None:
        try:
            await forever()
        finally:
            raise Fatal

    @DBOS.workflow()
    async def wf() -> None:
        await step()

    with SetWorkflowID("w"), pytest.raises(Fatal):
        await wf()
    assert step_rows(database_url, "w") == []


async def test_the_limit_is_per_attempt_and_a_timeout_can_be_retried(app: type[DBOS]) -> None:
    """02 R111, R114: visible to should_retry."""
    asked: list[str] = []
    attempts: list[int] = []

    def predicate(error: BaseException) -> bool:
        asked.append(type(error).__name__)
        return True

    @DBOS.step(
        name="s",
        timeout_seconds=0.02,
        retries_allowed=True,
        interval_seconds=0.03,
        max_attempts=3,
        should_retry=predicate,
    )
    async def step(fast_from: int) -> str:
        attempts.append(1)
        if len(attempts) < fast_from:
            await forever()
        return f"attempt {len(attempts)}"

    @DBOS.workflow()
    async def wf() -> list[Any]:
        first = await step(3)
        with pytest.raises(DBOSMaxStepRetriesExceeded) as error:
            await step(100)
        return [first, *[type(one).__name__ for one in error.value.errors]]

    assert await wf() == ["attempt 3", *["DBOSStepTimeoutError"] * 3]
    assert asked == ["DBOSStepTimeoutError"] * 5


async def test_a_step_with_a_limit_sees_its_context(app: type[DBOS]) -> None:
    """02 R85, R113: although it runs in a task of its own."""

    @DBOS.step(timeout_seconds=60, preemptible=True)
    async def step() -> Any:
        return DBOS.workflow_id, DBOS.step_id

    @DBOS.workflow()
    async def wf() -> Any:
        return await step()

    with SetWorkflowID("w"):
        assert await wf() == ("w", 1)


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_a_preemptible_step_ends_when_its_workflow_is_cancelled(
    app: type[DBOS], database_url: str, flavour: str
) -> None:
    """05 R83, 02 R115, R116: its clean-up is awaited, nothing is recorded, and it runs again after a resume."""
    cleaned: list[str] = []
    runs: list[int] = []

    async def body() -> str:
        runs.append(1)
        entered.open()
        if len(runs) == 1:
            try:
                await forever()
            finally:
                await asyncio.sleep(0)
                cleaned.append("cleaned")
        return "after the resume"

    step = DBOS.step(name="s", preemptible=True)(body)

    @DBOS.workflow()
    async def async_wf() -> str:
        return await step()

    @DBOS.workflow()
    def sync_wf() -> str:
        return DBOS.run_step({"name": "s", "preemptible": True}, body)

    entered = Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(async_wf if flavour == "async" else sync_wf)
    entered.wait()
    DBOS.cancel_workflow("w")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert cleaned == ["cleaned"]
    assert step_rows(database_url, "w") == []
    assert DBOS.resume_workflow("w").get_result() == "after the resume"


def test_a_preemptible_step_ends_at_the_deadline_of_its_workflow(app: type[DBOS], database_url: str) -> None:
    """02 R115, R124: retries do not outlive it either."""
    runs: list[int] = []

    @DBOS.step(preemptible=True, retries_allowed=True, interval_seconds=0, timeout_seconds=60)
    async def step() -> None:
        runs.append(1)
        await forever()

    @DBOS.workflow()
    async def wf() -> None:
        await step()

    with SetWorkflowTimeout(0.1), SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert runs == [1]
    assert step_rows(database_url, "w") == []


async def test_cancelling_the_task_of_a_workflow_takes_the_limited_step_with_it(
    app: type[DBOS], database_url: str
) -> None:
    """02 R26, R113: no orphaned attempt is left behind."""
    ended: list[str] = []

    @DBOS.step(timeout_seconds=60)
    async def step() -> None:
        try:
            entered.set()
            await forever()
        finally:
            ended.append("ended")

    @DBOS.workflow()
    async def wf() -> None:
        await step()

    async def call() -> None:
        with SetWorkflowID("w"):
            await wf()

    entered = asyncio.Event()
    task = asyncio.create_task(call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended"]
    assert step_rows(database_url, "w") == []
