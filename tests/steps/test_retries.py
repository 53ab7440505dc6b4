"""Retries of steps (02 section 9)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.engine.steps import StepSpec
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSMaxStepRetriesExceeded
from tests.helpers import Gate, replay, step_rows
from tests.samples import AppError, LockedError

Config = dict[str, Any]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_step_is_tried_until_it_succeeds_and_recorded_once(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """02 R104, R112: current_attempt counts from zero."""
    seen: list[Any] = []

    def body() -> str:
        status = DBOS.step_status
        assert status is not None
        seen.append((status.step_id, status.current_attempt, status.max_attempts))
        if len(seen) < 3:
            raise AppError(len(seen))
        return "third time"

    @DBOS.step(retries_allowed=True, interval_seconds=0.001, max_attempts=4)
    def sync_step() -> str:
        return body()

    @DBOS.step(retries_allowed=True, interval_seconds=0.001, max_attempts=4)
    async def async_step() -> str:
        return body()

    @DBOS.workflow()
    def sync_wf() -> str:
        return sync_step()

    @DBOS.workflow()
    async def async_wf() -> str:
        return await async_step()

    with SetWorkflowID("w"):
        assert DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result() == "third time"
    assert seen == [(1, 0, 4), (1, 1, 4), (1, 2, 4)]
    assert len(step_rows(database_url, "w")) == 1
    assert replay(config, "w") == "third time"
    assert len(seen) == 3


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_when_the_last_attempt_fails_all_errors_are_recorded(app: type[DBOS], config: Config, flavour: str) -> None:
    """02 R105: step_name, max_retries, errors in order; code 7; not chained."""
    attempts: list[int] = []

    def body() -> None:
        attempts.append(1)
        raise AppError(len(attempts))

    @DBOS.step(name="failing", retries_allowed=True, interval_seconds=0, max_attempts=3)
    def sync_step() -> None:
        body()

    @DBOS.step(name="failing", retries_allowed=True, interval_seconds=0, max_attempts=3)
    async def async_step() -> None:
        body()

    def check(error: DBOSMaxStepRetriesExceeded) -> str:
        assert (error.step_name, error.max_retries, error.dbos_error_code) == ("failing", 3, 7)
        assert [type(one) for one in error.errors] == [AppError] * 3
        assert [one.args[0] for one in error.errors] == [1, 2, 3]
        assert error.__cause__ is None
        return str(error)

    @DBOS.workflow()
    def sync_wf() -> str:
        with pytest.raises(DBOSMaxStepRetriesExceeded) as error:
            sync_step()
        return check(error.value)

    @DBOS.workflow()
    async def async_wf() -> str:
        with pytest.raises(DBOSMaxStepRetriesExceeded) as error:
            await async_step()
        return check(error.value)

    with SetWorkflowID("w"):
        text = DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result()
    assert replay(config, "w") == text
    assert len(attempts) == 3


def test_attempts_that_cannot_be_pickled_do_not_hide_the_others(app: type[DBOS], config: Config) -> None:
    """04 R623, 02 R264."""
    attempts: list[int] = []

    @DBOS.step(name="failing", retries_allowed=True, interval_seconds=0, max_attempts=2)
    def step() -> None:
        attempts.append(1)
        raise LockedError("no pickle") if len(attempts) == 1 else AppError("plain")

    @DBOS.workflow()
    def wf() -> list[str]:
        try:
            step()
        except DBOSMaxStepRetriesExceeded as error:
            return [str(one) for one in error.errors]
        return []

    with SetWorkflowID("w"):
        assert wf() == ["no pickle", "plain"]
    assert replay(config, "w") == ["LockedError: no pickle", "plain"]


def test_without_retries_one_attempt_is_made(app: type[DBOS]) -> None:
    """02 R103, R107: the predicate is ignored then."""
    attempts: list[int] = []

    @DBOS.step(max_attempts=5, should_retry=lambda error: attempts.append(100) or True)
    def step() -> None:
        attempts.append(1)
        raise AppError("once")

    @DBOS.workflow()
    def wf() -> None:
        step()

    with pytest.raises(AppError):
        wf()
    assert attempts == [1]


def test_the_waits_grow_and_are_capped_without_overflow() -> None:
    """02 R104, R243, R268: also for attempt 1025 and beyond."""
    spec = StepSpec("s", False, retries_allowed=True, interval_seconds=0.5, max_attempts=5000, backoff_rate=2.0)
    assert [spec.retry_wait_seconds(attempt) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert {spec.retry_wait_seconds(attempt) for attempt in (20, 1024, 1025, 4999)} == {3600.0}
    nothing = StepSpec("s", False, retries_allowed=True, interval_seconds=0, backoff_rate=2.0)
    assert {nothing.retry_wait_seconds(attempt) for attempt in (0, 3, 5000)} == {0}
    shrinking = StepSpec("s", False, retries_allowed=True, interval_seconds=8, backoff_rate=0.5)
    assert [shrinking.retry_wait_seconds(attempt) for attempt in range(3)] == [8, 4, 2]


def test_more_than_a_thousand_attempts_do_not_overflow(app: type[DBOS]) -> None:
    """02 R243."""

    @DBOS.step(retries_allowed=True, interval_seconds=0, max_attempts=1100)
    def step() -> None:
        raise AppError("again")

    @DBOS.workflow()
    def wf() -> int:
        with pytest.raises(DBOSMaxStepRetriesExceeded) as error:
            step()
        return len(error.value.errors)

    assert wf() == 1100


def test_the_wait_is_at_least_as_long_as_asked(app: type[DBOS]) -> None:
    """02 R104: between two attempts, and not after the last."""
    times: list[float] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0.03, backoff_rate=2, max_attempts=3)
    def step() -> None:
        times.append(time.monotonic())
        raise AppError("again")

    @DBOS.workflow()
    def wf() -> None:
        step()

    with pytest.raises(DBOSMaxStepRetriesExceeded):
        wf()
    assert times[1] - times[0] >= 0.03
    assert times[2] - times[1] >= 0.06


def test_fatal_exceptions_pass_through_at_once(app: type[DBOS]) -> None:
    """02 R106."""
    attempts: list[int] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0)
    def step() -> None:
        attempts.append(1)
        raise KeyboardInterrupt

    @DBOS.workflow()
    def wf() -> None:
        step()

    with pytest.raises(KeyboardInterrupt):
        wf()
    assert attempts == [1]


@pytest.mark.parametrize("flavour", ["sync", "async", "async predicate"])
def test_a_predicate_may_veto_a_retry(app: type[DBOS], config: Config, flavour: str) -> None:
    """02 R107: called after every failed attempt, the last included; the vetoed exception itself is recorded."""
    asked: list[Any] = []

    def predicate(error: BaseException) -> bool:
        asked.append(error.args[0])
        return error.args[0] != 2

    async def async_predicate(error: BaseException) -> bool:
        await asyncio.sleep(0)
        return predicate(error)

    attempts: list[int] = []

    def body(until: int) -> None:
        attempts.append(1)
        raise AppError(len(attempts) + until)

    options: dict[str, Any] = {"retries_allowed": True, "interval_seconds": 0, "max_attempts": 2}

    @DBOS.step(**options, should_retry=predicate)
    def sync_step(until: int) -> None:
        body(until)

    chosen: Any = predicate if flavour == "async" else async_predicate

    @DBOS.step(**options, should_retry=chosen)
    async def async_step(until: int) -> None:
        body(until)

    async def tried(step: Any) -> str:
        try:
            await step
        except Exception as error:
            return type(error).__name__
        return "no error"

    @DBOS.workflow()
    async def async_wf(until: int) -> str:
        return await tried(async_step(until))

    @DBOS.workflow()
    def sync_wf(until: int) -> str:
        try:
            sync_step(until)
        except Exception as error:
            return type(error).__name__
        return "no error"

    wf: Any = sync_wf if flavour == "sync" else async_wf
    with SetWorkflowID("vetoed"):
        assert DBOS.start_workflow(wf, 0).get_result() == "AppError"
    assert asked == [1, 2]
    assert replay(config, "vetoed") == "AppError"
    attempts.clear()
    asked.clear()
    with SetWorkflowID("exhausted"):
        assert DBOS.start_workflow(wf, 5).get_result() == "DBOSMaxStepRetriesExceeded"
    assert asked == [6, 7]


def test_an_exception_of_the_predicate_is_the_error_of_the_step(app: type[DBOS]) -> None:
    """02 R107."""

    def predicate(error: BaseException) -> bool:
        raise LookupError("in the predicate")

    @DBOS.step(retries_allowed=True, interval_seconds=0, should_retry=predicate)
    def step() -> None:
        raise AppError("first")

    @DBOS.workflow()
    def wf() -> None:
        step()

    with pytest.raises(LookupError, match="in the predicate"):
        wf()


def test_an_awaitable_predicate_of_a_sync_step_is_refused_by_run_step_too(app: type[DBOS]) -> None:
    """02 R17, R108."""

    async def predicate(error: BaseException) -> bool:
        return True

    @DBOS.workflow()
    def wf() -> None:
        DBOS.run_step({"name": "s", "should_retry": predicate}, lambda: None)

    with pytest.raises(DBOSException):
        wf()


def test_a_retry_wait_notices_a_cancellation(app: type[DBOS]) -> None:
    """02 R243, R267, in place of R110."""
    attempts: list[int] = []

    @DBOS.step(retries_allowed=True, interval_seconds=1000)
    def step() -> None:
        attempts.append(1)
        entered.open()
        raise AppError("again")

    @DBOS.workflow()
    def wf() -> None:
        step()

    entered = Gate()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    entered.wait()
    DBOS.cancel_workflow("w")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert attempts == [1]


def test_attempts_are_not_persisted(app: type[DBOS], config: Config) -> None:
    """02 R110: after a crash the step starts again at attempt 0."""
    seen: list[Any] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0)
    def step() -> str:
        status = DBOS.step_status
        assert status is not None
        seen.append(status.current_attempt)
        if len(seen) == 2:
            raise KeyboardInterrupt
        if len(seen) < 4:
            raise AppError("again")
        return "done"

    @DBOS.workflow()
    def wf() -> str:
        return step()

    with SetWorkflowID("w"), pytest.raises(KeyboardInterrupt):
        wf()
    assert replay(config, "w") == "done"
    assert seen == [0, 1, 0, 1]
