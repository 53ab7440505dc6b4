"""Durable sleep (04 section 5)."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException
from tests.helpers import make_pending, relaunch, replay, rows, step_names, step_rows, wait_until

Config = dict[str, Any]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_the_wake_time_is_recorded_before_the_sleep(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 R402: a portable number of seconds; completed_at is the wake time, in the future."""

    @DBOS.workflow()
    def sync_wf() -> str:
        DBOS.sleep(1000)
        return "woke"

    @DBOS.workflow()
    async def async_wf() -> str:
        await DBOS.sleep_async(1000)
        return "woke"

    before = time.time()
    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf)
    (row,) = wait_until(lambda: step_rows(database_url, "w"))
    after = time.time()
    assert (row["function_id"], row["function_name"], row["serialization"]) == (1, "DBOS.sleep", "portable_json")
    wake_at = json.loads(row["output"])
    assert isinstance(wake_at, float)
    assert before + 1000 <= wake_at <= after + 1000
    assert row["completed_at_epoch_ms"] == int(wake_at * 1000)
    assert int(before * 1000) <= row["started_at_epoch_ms"] <= int(after * 1000)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_sleep_lasts_as_long_as_it_was_asked_to(app: type[DBOS], flavour: str) -> None:
    """04 R402."""

    @DBOS.workflow()
    def sync_wf() -> float:
        started = time.time()
        DBOS.sleep(0.05)
        return time.time() - started

    @DBOS.workflow()
    async def async_wf() -> float:
        started = time.time()
        await DBOS.sleep_async(0.05)
        return time.time() - started

    assert DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result() >= 0.05


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_recovered_workflow_wakes_at_the_original_time(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """04 R403: at once if that has passed; the row stays as it is."""

    @DBOS.workflow()
    def sync_wf() -> str:
        DBOS.sleep(100_000)
        return "woke"

    @DBOS.workflow()
    async def async_wf() -> str:
        await DBOS.sleep_async(100_000)
        return "woke"

    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf)
    wait_until(lambda: step_rows(database_url, "w"))
    DBOS.destroy()
    rows(database_url, "UPDATE operation_outputs SET output = %s", json.dumps(time.time() + 0.05))
    recorded = step_rows(database_url, "w")
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    assert DBOS.retrieve_workflow("w").get_result() == "woke"
    assert time.time() >= json.loads(recorded[0]["output"])
    assert step_rows(database_url, "w") == recorded
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == "woke"


def test_a_sleep_of_nothing_is_nothing_anywhere(app: type[DBOS], database_url: str) -> None:
    """04 R401: no context check, no id, no record."""

    @DBOS.workflow()
    def wf() -> None:
        DBOS.sleep(0)
        DBOS.sleep(-5)
        DBOS.run_step({"name": "s"}, lambda: DBOS.sleep(0))

    DBOS.sleep(0)
    asyncio.run(DBOS.sleep_async(-1))
    with SetWorkflowID("w"):
        wf()
    assert step_names(database_url, "w") == {1: "s"}


def test_a_sleep_elsewhere_is_refused(app: type[DBOS]) -> None:
    """04 section 1.3, 02 R86, R269: in a step both a DBOSException and an AssertionError."""

    @DBOS.workflow()
    def wf() -> str:
        def step() -> str:
            with pytest.raises(AssertionError) as refused:
                DBOS.sleep(1)
            assert isinstance(refused.value, DBOSException)
            assert "step" in str(refused.value)
            return "checked"

        async def async_step() -> str:
            with pytest.raises(AssertionError):
                await DBOS.sleep_async(1)
            return "checked"

        return DBOS.run_step(None, step) + DBOS.run_step(None, async_step)

    assert wf() == "checkedchecked"
    with pytest.raises(DBOSException):
        DBOS.sleep(1)
    with SetWorkflowAttributes(None), pytest.raises(DBOSException):
        DBOS.sleep(1)
    with pytest.raises(DBOSException):
        asyncio.run(DBOS.sleep_async(1))


async def test_the_sync_form_refuses_a_running_loop_without_drawing_an_id(app: type[DBOS], database_url: str) -> None:
    """04 R5, R401: also for nothing."""

    @DBOS.workflow()
    async def wf() -> None:
        for seconds in (0, 1):
            with pytest.raises(RuntimeError, match="sleep_async"):
                DBOS.sleep(seconds)
        await DBOS.sleep_async(0.001)

    with SetWorkflowID("w"):
        await wf()
    assert step_names(database_url, "w") == {1: "DBOS.sleep"}


async def test_concurrent_sleeps_take_as_long_as_the_longest(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R1, R8: ids in start order; sleepers hold no thread."""

    @DBOS.workflow()
    async def wf() -> float:
        started = time.monotonic()
        await asyncio.gather(*[DBOS.sleep_async(0.2) for _ in range(100)])
        return time.monotonic() - started

    with SetWorkflowID("w"):
        assert await wf() < 15
    assert step_names(database_url, "w") == dict.fromkeys(range(1, 101), "DBOS.sleep")
    assert await asyncio.to_thread(replay, config, "w") < 15


def test_sleeping_workflows_do_not_keep_others_from_running(config: Config) -> None:
    """02 R239, R271: a sleeping sync workflow does not count against the limit of threads."""
    DBOS(config={**config, "max_executor_threads": 1})  # type: ignore[typeddict-item]

    @DBOS.workflow()
    def sleeper() -> None:
        DBOS.sleep(1000)

    @DBOS.workflow()
    def worker() -> str:
        return "worked"

    DBOS.launch()
    for _ in range(3):
        DBOS.start_workflow(sleeper)
    assert DBOS.start_workflow(worker).get_result() == "worked"
    DBOS.destroy(destroy_registry=True)
