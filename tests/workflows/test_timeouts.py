"""Timeouts, deadlines and cancellation as an execution sees them (02 sections 10.2, 10.3, R267)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSException
from tests.helpers import Gate, relaunch, rows, status_row, step_names, wait_for_status, wait_until

Config = dict[str, Any]

# A wait has to notice a cancellation within a second; the machine may be busy.
NOTICED_SECONDS = 10.0


@pytest.mark.parametrize("seconds", [0, 0.0, 0.0005, -1, float("nan"), float("-inf"), True, "1"])
def test_a_timeout_must_be_at_least_a_millisecond(seconds: Any) -> None:
    """02 R269 in place of R117, R123, R242: also 0 is refused, at construction."""
    with pytest.raises(Exception) as refused:
        SetWorkflowTimeout(seconds)
    assert "timeout" in str(refused.value)


def test_an_infinite_timeout_is_an_overflow_error() -> None:
    """02 R117."""
    with pytest.raises(OverflowError):
        SetWorkflowTimeout(float("inf"))


def test_a_timeout_writes_the_milliseconds_and_the_deadline(app: type[DBOS], database_url: str) -> None:
    """02 R117, R118."""

    @DBOS.workflow()
    def wf() -> None: ...

    @DBOS.workflow()
    async def async_wf() -> None: ...

    before = int(time.time() * 1000)
    for number, start in enumerate(
        (wf, lambda: DBOS.start_workflow(wf), lambda: asyncio.run(async_wf()), lambda: DBOS.start_workflow(async_wf))
    ):
        with SetWorkflowTimeout(12.3456), SetWorkflowID(f"w{number}"):
            start()
        row = status_row(database_url, f"w{number}")
        assert row["workflow_timeout_ms"] == 12345
        assert before + 12345 <= row["workflow_deadline_epoch_ms"] <= int(time.time() * 1000) + 12345
    with SetWorkflowTimeout(None), SetWorkflowID("none"):
        wf()
    row = status_row(database_url, "none")
    assert (row["workflow_timeout_ms"], row["workflow_deadline_epoch_ms"]) == (None, None)


def test_a_huge_timeout_is_capped_and_harmless(app: type[DBOS], database_url: str) -> None:
    """02 R119: milliseconds end at 2^63-1."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    with SetWorkflowTimeout(1e300), SetWorkflowID("w"):
        assert wf() == 1
    assert status_row(database_url, "w")["workflow_deadline_epoch_ms"] == 2**63 - 1


def test_a_child_inherits_the_absolute_deadline_unless_it_is_detached(app: type[DBOS], database_url: str) -> None:
    """05 R84, 02 R120, R121."""

    @DBOS.workflow()
    def child() -> None: ...

    @DBOS.workflow()
    def parent() -> None:
        child()
        with SetWorkflowTimeout(None):
            child()
        with SetWorkflowTimeout(7):
            child()

    with SetWorkflowTimeout(1000), SetWorkflowID("p"):
        parent()
    deadline = status_row(database_url, "p")["workflow_deadline_epoch_ms"]
    inherited, none, own = (status_row(database_url, f"p-{n}") for n in (1, 3, 5))
    assert (inherited["workflow_timeout_ms"], inherited["workflow_deadline_epoch_ms"]) == (None, deadline)
    assert (none["workflow_timeout_ms"], none["workflow_deadline_epoch_ms"]) == (None, None)
    assert own["workflow_timeout_ms"] == 7000
    assert own["workflow_deadline_epoch_ms"] < deadline


@pytest.mark.parametrize("wait", ["sleep", "get_result", "handle", "wait_first", "retry", "event"])
async def test_a_wait_ends_soon_after_the_deadline(app: type[DBOS], database_url: str, wait: str) -> None:
    """02 R267, in place of R128, R241: with R130 for whoever waits for the workflow."""

    @DBOS.step(retries_allowed=True, interval_seconds=1000, max_attempts=3)
    def failing() -> None:
        raise ValueError("try again")

    @DBOS.workflow()
    def endless() -> None:
        gate.wait()

    @DBOS.workflow()
    def wf() -> None:
        if wait == "sleep":
            DBOS.sleep(1000)
        elif wait == "get_result":
            DBOS.get_result("endless")
        elif wait == "handle":
            DBOS.retrieve_workflow("endless").get_result()
        elif wait == "wait_first":
            DBOS.wait_first([DBOS.retrieve_workflow("endless")])
        elif wait == "retry":
            failing()
        else:
            with SetWorkflowTimeout(None):
                DBOS.start_workflow(endless).get_result()

    gate = Gate()
    try:
        with SetWorkflowID("endless"):
            DBOS.start_workflow(endless)
        with SetWorkflowTimeout(0.05), SetWorkflowID("w"):
            handle = await DBOS.start_workflow_async(wf)
        started = time.monotonic()
        with pytest.raises(DBOSAwaitedWorkflowCancelledError) as cancelled:
            await handle.get_result()
        assert time.monotonic() - started < NOTICED_SECONDS
        assert cancelled.value.workflow_id == "w"
        row = status_row(database_url, "w")
        assert (row["status"], row["owner_xid"]) == ("CANCELLED", None)
        assert row["completed_at"] is not None
    finally:
        gate.open()
        await (await DBOS.retrieve_workflow_async("endless")).get_result()


@pytest.mark.parametrize("wait", ["sleep", "get_result", "wait_first", "retry"])
async def test_an_async_wait_ends_soon_after_a_cancellation(app: type[DBOS], wait: str) -> None:
    """02 R267, for the async forms."""

    @DBOS.step(retries_allowed=True, interval_seconds=1000, max_attempts=3)
    async def failing() -> None:
        entered.set()
        raise ValueError("try again")

    @DBOS.workflow()
    async def wf() -> None:
        entered.set()
        if wait == "sleep":
            await DBOS.sleep_async(1000)
        elif wait == "get_result":
            await DBOS.get_result_async("absent")
        elif wait == "wait_first":
            handle = await DBOS.retrieve_workflow_async("absent", existing_workflow=False)
            await DBOS.wait_first_async([handle])
        else:
            await failing()

    entered = asyncio.Event()
    with SetWorkflowID("w"):
        handle = await DBOS.start_workflow_async(wf)
    await entered.wait()
    started = time.monotonic()
    await DBOS.cancel_workflow_async("w")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        await handle.get_result()
    assert time.monotonic() - started < NOTICED_SECONDS


def test_a_direct_caller_gets_the_cancellation_of_its_timeout(app: type[DBOS]) -> None:
    """02 R130: including the direct caller."""

    @DBOS.workflow()
    def wf() -> None:
        DBOS.sleep(1000)

    with SetWorkflowTimeout(0.05), SetWorkflowID("w"), pytest.raises(DBOSAwaitedWorkflowCancelledError):
        wf()


def test_a_cancellation_by_another_process_is_noticed_by_a_sleep(app: type[DBOS], database_url: str) -> None:
    """04 R405, section 11, 9, 02 R128, R267: what is written by plain SQL is noticed too."""

    @DBOS.workflow()
    def wf() -> None:
        DBOS.sleep(1000)

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    wait_until(lambda: step_names(database_url, "w"))
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL WHERE workflow_uuid = 'w'")
    started = time.monotonic()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert time.monotonic() - started < NOTICED_SECONDS


def test_a_step_that_ends_after_the_cancellation_is_not_recorded(app: type[DBOS], database_url: str) -> None:
    """05 R83, 02 R77, R127, R128: and except Exception does not swallow it (R129)."""
    after: list[str] = []

    @DBOS.step(name="slow")
    def slow() -> str:
        entered.open()
        gate.wait()
        return "too late"

    @DBOS.step(name="next")
    def next_step() -> None:
        after.append("next")

    @DBOS.workflow()
    def wf() -> None:
        try:
            slow()
        except Exception:
            after.append("swallowed")
        next_step()

    entered, gate = Gate(), Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS.cancel_workflow("w")
    gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert after == []
    assert step_names(database_url, "w") == {}


def test_code_that_swallows_the_cancellation_meets_it_again_at_every_operation(
    app: type[DBOS], database_url: str
) -> None:
    """05 R82, R83, 02 R129: and its result is discarded (R126)."""
    met: list[str] = []

    @DBOS.step()
    def step() -> None: ...

    @DBOS.workflow()
    def child() -> None: ...

    @DBOS.workflow()
    def wf() -> str:
        entered.open()
        gate.wait()
        for number, operation in enumerate(
            (
                step,
                child,
                lambda: DBOS.sleep(0.001),
                lambda: DBOS.start_workflow(child),
                lambda: DBOS.get_workflow_status("w"),
                lambda: DBOS.patch("p"),
            )
        ):
            try:
                operation()
            except BaseException as error:
                met.append(f"{number} {type(error).__name__}")
        return "the discarded result"

    entered, gate = Gate(), Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS.cancel_workflow("w")
    gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert met == [f"{number} DBOSWorkflowCancelledError" for number in range(6)]
    assert step_names(database_url, "w") == {}
    assert len(rows(database_url, "SELECT * FROM workflow_status")) == 1


def test_a_finished_workflow_cannot_be_cancelled(app: type[DBOS], database_url: str) -> None:
    """05 R81, R104, 02 R127."""

    @DBOS.workflow()
    def wf(fail: bool) -> str:
        if fail:
            raise ValueError("failed")
        return "done"

    with SetWorkflowID("good"):
        wf(False)
    with SetWorkflowID("bad"), pytest.raises(ValueError):
        wf(True)
    DBOS.cancel_workflows(["good", "bad", "absent"])
    assert status_row(database_url, "good")["status"] == "SUCCESS"
    assert status_row(database_url, "bad")["status"] == "ERROR"


def test_a_resumed_workflow_continues_without_its_deadline(app: type[DBOS], database_url: str) -> None:
    """05 R87, 02 R125: the deadline is cleared, the timeout kept, and the claim sets a new deadline."""
    runs: list[str] = []

    @DBOS.step()
    def step() -> str:
        runs.append("step")
        return "recorded"

    @DBOS.workflow()
    def wf() -> str:
        value = step()
        if not gate.is_open:
            DBOS.sleep(1000)
        return value

    gate = Gate()
    with SetWorkflowTimeout(0.2), SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    first = status_row(database_url, "w")
    rows(database_url, "UPDATE workflow_status SET workflow_timeout_ms = 100000 WHERE workflow_uuid = 'w'")
    rows(database_url, "DELETE FROM operation_outputs WHERE function_name = 'DBOS.sleep'")
    gate.open()
    assert DBOS.resume_workflow("w").get_result() == "recorded"
    row = status_row(database_url, "w")
    assert row["workflow_timeout_ms"] == 100000
    assert row["workflow_deadline_epoch_ms"] > first["workflow_deadline_epoch_ms"] + 50_000
    assert runs == ["step"]


def test_a_deadline_survives_a_restart(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R124, R125: recovery keeps it, and it is enforced for executions of dead processes too."""

    @DBOS.workflow()
    def wf() -> None:
        DBOS.sleep(1000)

    with SetWorkflowTimeout(100), SetWorkflowID("w"):
        DBOS.start_workflow(wf)
    wait_until(lambda: step_names(database_url, "w"))
    deadline = status_row(database_url, "w")["workflow_deadline_epoch_ms"]
    relaunch(config)
    wait_until(lambda: status_row(database_url, "w")["recovery_attempts"] == 2)
    assert status_row(database_url, "w")["workflow_deadline_epoch_ms"] == deadline
    DBOS.destroy()
    sql = "UPDATE workflow_status SET workflow_deadline_epoch_ms = 1000, executor_id = 'gone'"
    rows(database_url, sql)
    DBOS(config=config)
    DBOS.launch()
    wait_for_status(database_url, "w", "CANCELLED")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        DBOS.retrieve_workflow("w").get_result()


def test_a_body_that_computes_past_its_deadline_has_its_result_discarded(app: type[DBOS], database_url: str) -> None:
    """02 R126."""

    @DBOS.workflow()
    def wf() -> str:
        wait_for_status(database_url, "w", "CANCELLED")
        return "discarded"

    with SetWorkflowTimeout(0.05), SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()


def test_cancelling_in_a_workflow_is_recorded_as_one_step(app: type[DBOS], database_url: str) -> None:
    """02 R89, 04 R605: the value None is serialized."""

    @DBOS.workflow()
    def wf() -> None:
        DBOS.cancel_workflow("absent")
        DBOS.cancel_workflows(["absent", "also absent"])

    with SetWorkflowID("w"):
        wf()
    assert step_names(database_url, "w") == {1: "DBOS.cancelWorkflow", 2: "DBOS.cancelWorkflow"}
    found = rows(database_url, "SELECT output FROM operation_outputs")
    assert all(row["output"] is not None for row in found)


def test_resuming_a_missing_workflow_says_which(app: type[DBOS]) -> None:
    """05: DBOSNonExistentWorkflowError."""
    with pytest.raises(DBOSException, match="absent"):
        DBOS.resume_workflow("absent")
