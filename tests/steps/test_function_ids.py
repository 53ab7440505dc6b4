"""Which ids operations draw, under which names they are recorded, and what is checked (02 sections 7, 8, 12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSUnexpectedStepError
from tests.helpers import replay, rows, step_names, step_rows

Config = dict[str, Any]

MANAGEMENT = [
    "DBOS.forkWorkflow",
    "DBOS.getStatus",
    "DBOS.rewindWorkflow",
    "DBOS.deleteWorkflow",
    "DBOS.deleteWorkflow",
]
MANAGEMENT += ["DBOS.setWorkflowDelay", "DBOS.updateWorkflowAttributes"]


def test_every_sync_operation_draws_and_is_recorded_as_the_table_says(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R67, 02 R87, R89, R90."""

    @DBOS.workflow(name="child")
    def child() -> int:
        return 1

    @DBOS.step(name="step")
    def step() -> None: ...

    @DBOS.workflow()
    def wf() -> None:
        step()
        DBOS.run_step({"name": "run_step"}, lambda: None)
        DBOS.reserve_step().run({"name": "reserved"}, lambda: None)
        child()
        handle = DBOS.start_workflow(child)
        handle.get_result()
        DBOS.get_result(handle.workflow_id)
        handle.get_status()
        DBOS.get_workflow_status(handle.workflow_id)
        retrieved = DBOS.retrieve_workflow(handle.workflow_id)
        DBOS.retrieve_workflow("absent", existing_workflow=False)
        DBOS.wait_first([retrieved])
        DBOS.sleep(0.0001)
        DBOS.sleep(0)
        DBOS.patch("a")
        DBOS.deprecate_patch("b")
        DBOS.cancel_workflow("absent")
        DBOS.cancel_workflows(["absent"])
        DBOS.resume_workflow(handle.workflow_id)
        DBOS.resume_workflows([handle.workflow_id])
        DBOS.fork_workflow(handle.workflow_id, 1)
        DBOS.rewind_workflow(handle.workflow_id)
        DBOS.delete_workflow("absent")
        DBOS.delete_workflows(["absent"])
        DBOS.set_workflow_delay("absent", delay_seconds=1)
        DBOS.update_workflow_attributes("absent", {})
        DBOS.list_workflow_steps("absent")
        DBOS.list_application_versions()
        DBOS.get_latest_application_version()
        step()

    expected = ["step", "run_step", "reserved", "child", "DBOS.getResult", "child", "DBOS.getResult", "DBOS.getResult"]
    expected += ["DBOS.getStatus"] * 3
    expected += ["DBOS.waitFirst", "DBOS.sleep", "DBOS.patch-a", "DBOS.cancelWorkflow", "DBOS.cancelWorkflow"]
    expected += ["DBOS.resumeWorkflow", "DBOS.resumeWorkflow", *MANAGEMENT, "DBOS.listWorkflowSteps", "step"]
    with SetWorkflowID("w"):
        wf()
    assert step_names(database_url, "w") == dict(enumerate(expected, 1))
    recorded = step_rows(database_url, "w")
    assert replay(config, "w") is None
    assert step_rows(database_url, "w") == recorded


async def test_every_async_operation_draws_and_is_recorded_as_the_table_says(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R67, 02 R87, R88, R89."""

    @DBOS.workflow(name="child")
    async def child() -> int:
        return 1

    @DBOS.step(name="step")
    async def step() -> None: ...

    @DBOS.workflow()
    async def wf() -> None:
        await step()
        await DBOS.run_step_async({"name": "run_step"}, lambda: None)
        await DBOS.reserve_step().run_async({"name": "reserved"}, lambda: None)
        await child()
        handle = await DBOS.start_workflow_async(child)
        await handle.get_result()
        await DBOS.get_result_async(handle.workflow_id)
        await handle.get_status()
        await DBOS.get_workflow_status_async(handle.workflow_id)
        retrieved = await DBOS.retrieve_workflow_async(handle.workflow_id)
        await DBOS.retrieve_workflow_async("absent", existing_workflow=False)
        await DBOS.wait_first_async([retrieved])
        await DBOS.asyncio_wait([asyncio.sleep(0)])
        await DBOS.sleep_async(0.0001)
        await DBOS.sleep_async(0)
        await DBOS.patch_async("a")
        await DBOS.deprecate_patch_async("b")
        await DBOS.cancel_workflow_async("absent")
        await DBOS.cancel_workflows_async(["absent"])
        await DBOS.resume_workflow_async(handle.workflow_id)
        await DBOS.resume_workflows_async([handle.workflow_id])
        await DBOS.fork_workflow_async(handle.workflow_id, 1)
        await DBOS.rewind_workflow_async(handle.workflow_id)
        await DBOS.delete_workflow_async("absent")
        await DBOS.delete_workflows_async(["absent"])
        await DBOS.set_workflow_delay_async("absent", delay_seconds=1)
        await DBOS.update_workflow_attributes_async("absent", {})
        await DBOS.list_workflow_steps_async("absent")
        await DBOS.list_application_versions_async()
        await step()

    expected = ["step", "run_step", "reserved", "child", "DBOS.getResult", "child", "DBOS.getResult", "DBOS.getResult"]
    expected += ["DBOS.getStatus"] * 3
    expected += ["DBOS.waitFirst", "DBOS.asyncio_wait", "DBOS.sleep", "DBOS.patch-a"]
    expected += ["DBOS.cancelWorkflow", "DBOS.cancelWorkflow"]
    expected += ["DBOS.resumeWorkflow", "DBOS.resumeWorkflow", *MANAGEMENT, "DBOS.listWorkflowSteps", "step"]
    with SetWorkflowID("w"):
        await wf()
    assert step_names(database_url, "w") == dict(enumerate(expected, 1))
    recorded = step_rows(database_url, "w")
    assert await asyncio.to_thread(replay, config, "w") is None
    assert step_rows(database_url, "w") == recorded


async def test_a_gather_draws_in_argument_order(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R88, R99, R100: whatever order the branches finish in; coroutine objects draw nothing when made."""
    slowest_first = [True]

    @DBOS.step(name="step")
    async def step(value: int) -> int:
        await asyncio.sleep(0.001 * (5 - value if slowest_first[0] else value))
        return value

    def plain(value: int) -> int:
        return value

    @DBOS.workflow()
    async def wf() -> list[int]:
        late = step(9)
        found = await asyncio.gather(
            step(0),
            DBOS.run_step_async({"name": "run"}, plain, 1),
            step(2),
            DBOS.run_step_async({"name": "run"}, step, 3),
            step(4),
        )
        return [*found, await late]

    with SetWorkflowID("w"):
        assert await wf() == [0, 1, 2, 3, 4, 9]
    assert list(step_names(database_url, "w").values()) == ["step", "run", "step", "run", "step", "step"]
    slowest_first[0] = False
    assert await asyncio.to_thread(replay, config, "w", steps_until=2) == [0, 1, 2, 3, 4, 9]


async def test_a_gather_with_exceptions_replays(app: type[DBOS], config: Config) -> None:
    """02 R100."""

    @DBOS.step()
    async def step(value: int) -> int:
        if value % 2:
            raise ValueError(value)
        return value

    @DBOS.workflow()
    async def wf() -> list[str]:
        return [repr(one) for one in await asyncio.gather(*[step(n) for n in range(4)], return_exceptions=True)]

    with SetWorkflowID("w"):
        first = await wf()
    assert first == ["0", "ValueError(1)", "2", "ValueError(3)"]
    assert await asyncio.to_thread(replay, config, "w") == first


@pytest.mark.parametrize("operation", ["step", "child", "start", "sleep", "status", "result"])
def test_another_operation_at_a_recorded_position_is_an_error(
    app: type[DBOS], config: Config, database_url: str, operation: str
) -> None:
    """02 R95: code 11 with its fields; an Exception, so uncaught it ends the workflow in ERROR."""

    @DBOS.step(name="new")
    def new() -> None: ...

    @DBOS.workflow(name="child")
    def child() -> None: ...

    operations: dict[str, tuple[str, Any]] = {
        "step": ("new", new),
        "child": ("child", child),
        "start": ("child", lambda: DBOS.start_workflow(child)),
        "sleep": ("DBOS.sleep", lambda: DBOS.sleep(1)),
        "status": ("DBOS.getStatus", lambda: DBOS.get_workflow_status("x")),
        "result": ("DBOS.getResult", lambda: DBOS.get_result("x")),
    }
    name, call = operations[operation]
    replaying: list[int] = []

    @DBOS.workflow()
    def wf() -> None:
        if replaying:
            call()
        else:
            DBOS.run_step({"name": "old"}, lambda: None)

    with SetWorkflowID("w"):
        wf()
    replaying.append(1)
    with pytest.raises(DBOSUnexpectedStepError) as unexpected:
        replay(config, "w")
    assert unexpected.value.dbos_error_code == 11
    assert unexpected.value.inputs == ("w", 1, name, "old")
    assert DBOS.retrieve_workflow("w").get_status().status == "ERROR"
    assert rows(database_url, "SELECT * FROM workflow_status WHERE parent_workflow_id = 'w'") == []


def test_values_and_arguments_are_not_compared(app: type[DBOS], config: Config) -> None:
    """02 R96, R98: fewer operations than recorded are not detected; the surplus rows stay."""
    replaying: list[int] = []

    @DBOS.step(name="s")
    def step(value: int) -> int:
        return value

    @DBOS.workflow()
    def wf() -> list[int]:
        return [step(10)] if replaying else [step(1), step(2)]

    with SetWorkflowID("w"):
        assert wf() == [1, 2]
    replaying.append(1)
    assert replay(config, "w") == [1]
    assert len(DBOS.list_workflow_steps("w")) == 2


def test_the_recorded_error_of_an_operation_is_raised_again(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R68, 02 R94."""

    @DBOS.workflow()
    def late() -> None: ...

    @DBOS.workflow()
    def wf() -> str:
        try:
            DBOS.resume_workflow("late")
        except Exception as error:
            return type(error).__name__
        return "resumed"

    with SetWorkflowID("w"):
        assert wf() == "DBOSNonExistentWorkflowError"
    assert step_rows(database_url, "w")[0]["error"] is not None
    with SetWorkflowID("late"):
        late()
    assert replay(config, "w") == "DBOSNonExistentWorkflowError"


# --- asyncio_wait


async def test_asyncio_wait_records_which_were_done(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R144, R145: a replay returns exactly the recorded ones as done, whatever their real state."""
    blocked = [1]
    released: list[asyncio.Event] = []

    @DBOS.step(name="s")
    async def step(value: int) -> int:
        if value in blocked:
            await released[-1].wait()
        return value

    @DBOS.workflow()
    async def wf() -> tuple[list[int], int, int]:
        released.append(asyncio.Event())
        fs = [step(0), step(1), step(2)]
        done, pending = await DBOS.asyncio_wait(fs, timeout=0.05 if 1 in blocked else None)
        released[-1].set()
        await asyncio.gather(*pending)
        return sorted(task.result() for task in done), len(done), len(pending)

    with SetWorkflowID("w"):
        assert await wf() == ([0, 2], 2, 1)
    assert step_names(database_url, "w") == {1: "DBOS.asyncio_wait", 2: "s", 3: "s", 4: "s"}
    blocked.clear()
    assert await asyncio.to_thread(replay, config, "w") == ([0, 2], 2, 1)


async def test_asyncio_wait_for_the_first_replays_the_same_winner(app: type[DBOS], config: Config) -> None:
    """02 R145: timeout and return_when are ignored then."""
    slow = [0]

    @DBOS.step()
    async def step(value: int) -> int:
        if value in slow:
            await asyncio.sleep(0.05)
        return value

    @DBOS.workflow()
    async def wf() -> list[int]:
        done, pending = await DBOS.asyncio_wait([step(0), step(1)], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*pending)
        return [task.result() for task in done]

    with SetWorkflowID("w"):
        assert await wf() == [1]
    slow[0] = 1
    assert await asyncio.to_thread(replay, config, "w", steps_until=1) == [1]


async def test_asyncio_wait_elsewhere_is_that_of_asyncio(app: type[DBOS], database_url: str) -> None:
    """02 R146."""

    async def value() -> int:
        return 5

    async def body() -> int:
        done, pending = await DBOS.asyncio_wait([value()])
        assert pending == set()
        return done.pop().result()

    @DBOS.workflow()
    async def wf() -> int:
        return await DBOS.run_step_async({"name": "s"}, body)

    assert await body() == 5
    with SetWorkflowID("w"):
        assert await wf() == 5
    assert step_names(database_url, "w") == {1: "s"}


async def test_asyncio_wait_passes_errors_of_asyncio_on_unrecorded(app: type[DBOS], database_url: str) -> None:
    """02 R145: the id is drawn."""

    @DBOS.workflow()
    async def wf() -> None:
        with pytest.raises(ValueError):
            await DBOS.asyncio_wait([])
        await DBOS.run_step_async({"name": "s"}, lambda: None)

    with SetWorkflowID("w"):
        await wf()
    assert step_names(database_url, "w") == {2: "s"}
