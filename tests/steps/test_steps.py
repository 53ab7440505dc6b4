"""Steps: what a call does where, what is recorded, what a replay gives (02 sections 2.2, 2.3, 6)."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException, DBOSStepNondeterminismError
from tests.helpers import replay, rows, step_names, step_rows
from tests.samples import AppError, LockedError, PickyError, Unpicklable

Config = dict[str, Any]


# --- declaring (2.2)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), float("-inf")])
def test_a_step_timeout_must_be_positive_and_finite(timeout: float) -> None:
    """02 R10: at decoration, naming the step."""
    with pytest.raises(DBOSException, match="my step"):

        @DBOS.step(name="my step", timeout_seconds=timeout)
        async def step() -> None: ...


@pytest.mark.parametrize(
    "option", [{"preemptible": True}, {"timeout_seconds": 1.0}], ids=lambda option: next(iter(option))
)
def test_a_sync_step_cannot_be_interrupted(option: dict[str, Any]) -> None:
    """02 R10."""
    with pytest.raises(DBOSException, match="my step"):

        @DBOS.step(name="my step", **option)
        def step() -> None: ...


def test_impossible_retry_options_are_refused_at_decoration() -> None:
    """02 R269, in place of R10, R108, R109: a DBOSException and an AssertionError for the number of attempts."""

    async def async_predicate(error: BaseException) -> bool:
        return True

    with pytest.raises(AssertionError) as too_few:

        @DBOS.step(name="my step", retries_allowed=True, max_attempts=0)
        def step() -> None: ...

    assert isinstance(too_few.value, DBOSException)
    with pytest.raises(DBOSException, match="my step"):

        @DBOS.step(name="my step", should_retry=async_predicate)
        def other() -> None: ...

    # Not looked at without retries.
    @DBOS.step(max_attempts=0)
    def unused() -> None: ...


# --- where (R11)


def test_outside_of_workflows_a_step_is_a_plain_call(config: Config) -> None:
    """02 R11: with or without an application; none of the options act."""
    runs: list[int] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0, max_attempts=5)
    def step(fail: bool) -> Any:
        runs.append(1)
        assert (DBOS.workflow_id, DBOS.step_id, DBOS.step_status) == (None, None, None)
        if fail:
            raise AppError("plain")
        return "plain"

    @DBOS.step(timeout_seconds=0.001)
    async def slow() -> str:
        await asyncio.sleep(0.02)
        return "slow"

    def check() -> None:
        runs.clear()
        assert step(False) == "plain"
        with pytest.raises(AppError):
            step(True)
        assert runs == [1, 1]
        assert asyncio.run(slow()) == "slow"

    check()
    DBOS(config=config)  # type: ignore[arg-type]
    check()
    DBOS.launch()
    check()
    DBOS.destroy()
    check()


def test_a_step_in_a_step_belongs_to_the_outer_one(app: type[DBOS], database_url: str) -> None:
    """02 R11: no id, no retries; DBOS.step_id is that of the enclosing step."""
    runs: list[Any] = []

    @DBOS.step(name="inner", retries_allowed=True, interval_seconds=0)
    def inner() -> None:
        runs.append(DBOS.step_id)
        raise AppError("inner")

    @DBOS.step(name="outer")
    def outer() -> str:
        with pytest.raises(AppError):
            inner()
        with pytest.raises(AppError):
            DBOS.run_step({"name": "ignored", "timeout_seconds": -1}, inner)
        return "outer"

    @DBOS.workflow()
    def wf() -> str:
        return outer()

    with SetWorkflowID("w"):
        assert wf() == "outer"
    assert runs == [1, 1]
    assert step_names(database_url, "w") == {1: "outer"}


# --- what is recorded (section 6)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_step_row_has_these_columns(app: type[DBOS], database_url: str, flavour: str) -> None:
    """02 R77, R78: and none of them is given by the workflow's own format."""

    @DBOS.step(name="work")
    def sync_step() -> str:
        time.sleep(0.005)
        return "value"

    @DBOS.step(name="work")
    async def async_step() -> str:
        await asyncio.sleep(0.005)
        return "value"

    @DBOS.workflow()
    def sync_wf() -> str:
        return sync_step()

    @DBOS.workflow()
    async def async_wf() -> str:
        return await async_step()

    before = int(time.time() * 1000)
    with SetWorkflowID("w"):
        assert DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result() == "value"
    (row,) = step_rows(database_url, "w")
    expected = {
        "function_id": 1,
        "function_name": "work",
        "error": None,
        "serialization": "py_pickle",
        "child_workflow_id": None,
        "application_name": "test-app",
    }
    assert {name: row[name] for name in expected} == expected
    assert row["output"]
    assert before <= row["started_at_epoch_ms"] < row["completed_at_epoch_ms"] <= int(time.time() * 1000)


def test_the_first_execution_gets_the_object_and_a_replay_a_copy(app: type[DBOS], config: Config) -> None:
    """02 R76, R79: None is a value like any other, and a recorded step never runs again (R83)."""
    runs: list[str] = []
    same: list[bool] = []
    original = {"a": [1]}

    @DBOS.step()
    def value() -> dict[str, list[int]]:
        runs.append("value")
        return original

    @DBOS.step()
    def nothing() -> None:
        runs.append("nothing")

    @DBOS.workflow()
    def wf() -> Any:
        got = value()
        same.append(got is original)
        return got, nothing()

    with SetWorkflowID("w"):
        assert wf() == ({"a": [1]}, None)
    assert replay(config, "w") == ({"a": [1]}, None)
    assert same == [True, False]
    assert runs == ["value", "nothing"]


def test_an_exception_is_recorded_and_raised_again(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R80: live the same object, on replay a copy."""
    runs: list[int] = []
    original = AppError("broken", 5)
    caught: list[Exception] = []

    @DBOS.step()
    def step() -> None:
        runs.append(1)
        raise original

    @DBOS.workflow()
    def wf() -> str:
        try:
            step()
        except AppError as error:
            caught.append(error)
        return "caught"

    with SetWorkflowID("w"):
        wf()
    assert step_rows(database_url, "w")[0]["output"] is None
    assert replay(config, "w") == "caught"
    assert caught[0] is original
    assert caught[1] is not original
    assert caught[1].args == ("broken", 5)
    assert runs == [1]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_an_unserializable_value_is_recorded_as_the_error_of_the_step(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """02 R265, in place of R82, R248: one rule, and a message naming step, workflow and type."""
    runs: list[int] = []

    @DBOS.step(name="makes a lock")
    def sync_step() -> Any:
        runs.append(1)
        return threading.Lock()

    @DBOS.step(name="makes a lock")
    async def async_step() -> Any:
        runs.append(1)
        return threading.Lock()

    @DBOS.workflow()
    def sync_wf() -> str:
        with pytest.raises(TypeError) as error:
            sync_step()
        return str(error.value)

    @DBOS.workflow()
    async def async_wf() -> str:
        with pytest.raises(TypeError) as error:
            await async_step()
        return str(error.value)

    with SetWorkflowID("the workflow"):
        text = DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result()
    for part in ("makes a lock", "the workflow", "lock"):
        assert part in text
    assert step_rows(database_url, "the workflow")[0]["error"] is not None
    assert replay(config, "the workflow") == text
    assert runs == [1]


@pytest.mark.parametrize(
    "error", [LockedError("cannot be stored"), PickyError(3, "cannot be read")], ids=["lock", "picky"]
)
def test_an_exception_that_cannot_be_stored_gets_a_stand_in(
    app: type[DBOS], config: Config, database_url: str, error: Exception
) -> None:
    """02 R264, in place of R82, R234: the body sees the original, a replay class and text of it."""
    runs: list[int] = []

    @DBOS.step()
    def step() -> None:
        runs.append(1)
        raise error

    @DBOS.workflow()
    def wf() -> tuple[str, str]:
        try:
            step()
        except Exception as caught:
            return type(caught).__name__, str(caught)
        return "", ""

    with SetWorkflowID("w"):
        assert wf() == (type(error).__name__, str(error))
    assert replay(config, "w") == ("Exception", f"{type(error).__name__}: {error}")
    assert runs == [1]


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_a_fatal_exception_is_not_recorded_and_the_step_runs_again(
    app: type[DBOS], config: Config, database_url: str, fatal: type[BaseException]
) -> None:
    """02 R81."""
    runs: list[int] = []

    @DBOS.step()
    def step() -> str:
        runs.append(1)
        if len(runs) == 1:
            raise fatal()
        return "second"

    @DBOS.workflow()
    def wf() -> str:
        return step()

    with SetWorkflowID("w"), pytest.raises(fatal):
        wf()
    assert step_rows(database_url, "w") == []
    assert replay(config, "w") == "second"


def test_a_step_cut_off_between_body_and_record_runs_again(app: type[DBOS], config: Config) -> None:
    """02 R83: at least once."""
    runs: list[int] = []

    @DBOS.step()
    def step(value: int) -> int:
        runs.append(value)
        return value

    @DBOS.workflow()
    def wf() -> int:
        return step(1) + step(2)

    with SetWorkflowID("w"):
        wf()
    assert replay(config, "w", steps_until=1) == 3
    assert runs == [1, 2, 2]


def test_a_row_with_neither_value_nor_error_says_so(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R76: a plain Exception."""

    @DBOS.step(name="s")
    def step() -> int:
        return 1

    @DBOS.workflow()
    def wf() -> int:
        return step()

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE operation_outputs SET output = NULL")
    with pytest.raises(Exception, match="neither"):
        replay(config, "w")


def test_an_id_used_twice_by_one_execution_is_an_error(app: type[DBOS], database_url: str) -> None:
    """02 R84: code 28, its fields; and the first row stays."""

    @DBOS.step(name="s")
    def step() -> int:
        return 1

    @DBOS.workflow()
    def wf() -> int:
        sql = (
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, completed_at_epoch_ms) "
            "VALUES ('w', 1, 's', 5)"
        )
        rows(database_url, sql)
        return step()

    with SetWorkflowID("w"), pytest.raises(DBOSStepNondeterminismError) as twice:
        DBOS.start_workflow(wf).get_result()
    assert twice.value.dbos_error_code == 28
    assert twice.value.inputs == ("w", 1)
    (row,) = step_rows(database_url, "w")
    assert row["completed_at_epoch_ms"] == 5


def test_a_replay_reads_each_row_in_its_own_format(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R76."""

    @DBOS.step(name="s")
    def step() -> Any:
        return (1, 2)

    @DBOS.workflow()
    def wf() -> Any:
        return step()

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE operation_outputs SET serialization = 'portable_json', output = '[3,4]'")
    assert replay(config, "w") == [3, 4]


def test_a_long_history_is_replayed_in_order(app: type[DBOS], config: Config, database_url: str) -> None:
    """More steps than one window of the replay holds."""
    runs: list[int] = []

    @DBOS.step()
    async def step(value: int) -> int:
        runs.append(value)
        return value

    @DBOS.workflow()
    async def wf() -> int:
        found = await asyncio.gather(*[step(value) for value in range(2100)])
        assert found == list(range(2100))
        return sum(found)

    with SetWorkflowID("w"):
        total = DBOS.start_workflow(wf).get_result()
    runs.clear()
    assert replay(config, "w", steps_until=2050) == total
    assert sorted(runs) == list(range(2050, 2100))


# --- run_step (2.3)


def test_run_step_gives_the_value_of_sync_and_async_functions(app: type[DBOS], database_url: str) -> None:
    """02 R13, R14: names default to the qualified name; unknown options are ignored (section 2.3)."""

    def double(value: int, *, plus: int = 0) -> int:
        return value * 2 + plus

    async def triple(value: int) -> int:
        await asyncio.sleep(0)
        return value * 3

    @DBOS.workflow()
    def wf() -> list[Any]:
        return [
            DBOS.run_step(None, double, 1, plus=5),
            DBOS.run_step({"name": "named"}, triple, 2),
            DBOS.run_step({"name": ""}, double, 3),
            DBOS.run_step({"unknown": 1}, double, 4),  # type: ignore[typeddict-unknown-key]
            DBOS.run_step(None, lambda: threading.get_ident()) == threading.get_ident(),
        ]

    with SetWorkflowID("w"):
        assert wf() == [7, 6, 6, 8, True]
    names = step_names(database_url, "w")
    assert names[1] == double.__qualname__
    assert names[2] == "named"
    assert names[3] == double.__qualname__


async def test_run_step_async_runs_sync_functions_in_a_thread(app: type[DBOS], database_url: str) -> None:
    """02 R15: with a copy of the context."""

    def where() -> tuple[int, str | None, int | None]:
        return threading.get_ident(), DBOS.workflow_id, DBOS.step_id

    async def here() -> int:
        return threading.get_ident()

    @DBOS.workflow()
    async def wf() -> Any:
        return await DBOS.run_step_async({"name": "a"}, where), await DBOS.run_step_async(None, here)

    with SetWorkflowID("w"):
        (thread, workflow_id, step_id), loop_thread = await wf()
    assert thread != threading.get_ident() == loop_thread
    assert (workflow_id, step_id) == ("w", 1)


def test_a_callable_without_a_name_needs_one(app: type[DBOS], database_url: str) -> None:
    """02 R13: AttributeError, after the id was drawn."""
    partial = functools.partial(int, "5")

    @DBOS.workflow()
    def wf() -> int:
        with pytest.raises(AttributeError):
            DBOS.run_step(None, partial)
        return DBOS.run_step({"name": "parse"}, partial)

    with SetWorkflowID("w"):
        assert wf() == 5
    assert step_names(database_url, "w") == {2: "parse"}


def test_bad_options_of_run_step_are_raised_into_the_workflow(app: type[DBOS], database_url: str) -> None:
    """02 R17: after the id was drawn, nothing recorded at it."""

    async def coroutine() -> None: ...

    async def predicate(error: BaseException) -> bool:
        return True

    bad: list[tuple[Any, Any]] = [
        ({"name": "s", "should_retry": predicate}, lambda: None),
        ({"name": "s", "preemptible": True}, lambda: None),
        ({"name": "s", "timeout_seconds": 1}, lambda: None),
        ({"name": "s", "timeout_seconds": 0}, coroutine),
        ({"name": "s", "timeout_seconds": float("nan")}, coroutine),
        ({"name": "s", "retries_allowed": True, "max_attempts": 0}, coroutine),
    ]

    @DBOS.workflow()
    def wf() -> None:
        for options, function in bad:
            with pytest.raises(DBOSException):
                DBOS.run_step(options, function)
        DBOS.run_step({"name": "good"}, lambda: None)

    with SetWorkflowID("w"):
        wf()
    assert step_names(database_url, "w") == {len(bad) + 1: "good"}


def test_the_options_of_a_decorated_step_do_not_act_under_run_step(app: type[DBOS], database_url: str) -> None:
    """02 R18."""
    runs: list[int] = []

    @DBOS.step(name="inner", retries_allowed=True, interval_seconds=0)
    def step() -> None:
        runs.append(1)
        raise AppError("once")

    @DBOS.workflow()
    def wf() -> None:
        with pytest.raises(AppError):
            DBOS.run_step({"name": "outer"}, step)

    with SetWorkflowID("w"):
        wf()
    assert runs == [1]
    assert step_names(database_url, "w") == {1: "outer"}


def test_ambient_options_do_not_reach_a_step(app: type[DBOS]) -> None:
    """02 R85: a workflow started by code that a step hands to another context would not have them."""
    from dbos.engine.context import current_context

    @DBOS.step()
    def step() -> Any:
        context = current_context()
        assert context is not None
        return context.options.attributes

    @DBOS.workflow()
    def wf() -> Any:
        with SetWorkflowAttributes({"a": 1}):
            return step()

    assert wf() is None


def test_a_value_of_several_megabytes_is_recorded(app: type[DBOS], config: Config) -> None:
    """Large payloads go through the journal like others."""

    @DBOS.step()
    def step() -> bytes:
        return b"x" * 4_000_000

    @DBOS.workflow()
    def wf() -> int:
        return len(step())

    with SetWorkflowID("w"):
        assert wf() == 4_000_000
    assert replay(config, "w") == 4_000_000


def test_a_step_value_the_pickler_refuses_deep_inside_is_an_error_of_the_step(app: type[DBOS]) -> None:
    """02 R265."""

    @DBOS.step(name="deep")
    def step() -> Any:
        return [[Unpicklable()]]

    @DBOS.workflow()
    def wf() -> None:
        step()

    with pytest.raises(TypeError, match="deep"):
        wf()
