"""Events (04 section 3): set, waited for, read, recorded and replayed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import DBOSException, DBOSWorkflowCancelledError
from tests.communication.streaming import engine_of
from tests.helpers import (
    Gate,
    make_pending,
    relaunch,
    replay,
    rows,
    step_names,
    step_rows,
    wait_for_status,
    wait_until,
)

from .cancelled import error_after_cancellation

Config = dict[str, Any]


def event_rows(database_url: str) -> dict[str, str]:
    return {row["key"]: row["value"] for row in rows(database_url, "SELECT key, value FROM workflow_events")}


def history(database_url: str) -> list[tuple[int, str]]:
    found = rows(database_url, "SELECT function_id, key FROM workflow_events_history ORDER BY function_id, key")
    return [(row["function_id"], row["key"]) for row in found]


def declare_setter(*values: Any) -> Any:
    @DBOS.workflow(name="setter")
    def setter() -> None:
        for value in values:
            DBOS.set_event("k", value)

    return setter


def count_reads(monkeypatch: pytest.MonkeyPatch, app: type[DBOS]) -> list[str]:
    """Which events are read from the store from now on."""
    instance = app(config=None)
    assert instance.engine is not None
    store, asked = instance.engine.store, list[str]()
    find_event = store.find_event

    def counted(workflow_id: str, key: str) -> Any:
        asked.append(key)
        return find_event(workflow_id, key)

    monkeypatch.setattr(store, "find_event", counted)
    return asked


# --- setting


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_an_event_its_history_and_its_step_are_written_together(
    app: type[DBOS], database_url: str, flavour: str
) -> None:
    """04 R201: all payload columns of the step are NULL; a later value replaces the earlier one."""

    @DBOS.workflow()
    def sync_wf() -> None:
        DBOS.set_event("k", 1)
        DBOS.set_event("k", 2)

    @DBOS.workflow()
    async def async_wf() -> None:
        await DBOS.set_event_async("k", 1)
        await DBOS.set_event_async("k", 2)

    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result()
    assert step_names(database_url, "w") == {1: "DBOS.setEvent", 2: "DBOS.setEvent"}
    for row in step_rows(database_url, "w"):
        assert (row["output"], row["error"], row["serialization"]) == (None, None, None)
    assert history(database_url) == [(1, "k"), (2, "k")]
    assert DBOS.get_event("w", "k", 0) == 2


def test_an_event_set_in_a_step_has_the_steps_id_and_no_record(app: type[DBOS], database_url: str) -> None:
    """04 R202: visible at once, also if the step fails; of several values the last stays."""
    seen = []

    @DBOS.step()
    def step() -> None:
        DBOS.set_event("k", 1)
        seen.append(DBOS.get_event("w", "k", 0))
        DBOS.set_event("k", 2)
        raise ValueError("after all")

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(ValueError, match="after all"):
            step()

    with SetWorkflowID("w"):
        workflow()
    assert seen == [1]
    assert DBOS.get_event("w", "k", 0) == 2
    assert step_names(database_url, "w") == {1: step.__qualname__}
    assert history(database_url) == [(1, "k")]


def test_a_replay_sets_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R203."""
    with SetWorkflowID("w"):
        declare_setter(1)()
    rows(database_url, "UPDATE workflow_events SET value = 'changed since'")
    replay(config, "w")
    assert event_rows(database_url) == {"k": "changed since"}


def test_a_value_that_cannot_be_stored_leaves_nothing(app: type[DBOS], database_url: str) -> None:
    """04 R203, R108."""

    @DBOS.workflow()
    def workflow() -> str:
        try:
            DBOS.set_event("k", threading.Lock())
        except TypeError as error:
            return str(error)
        return "stored"

    with SetWorkflowID("w"):
        message = workflow()
    assert "the value of event 'k'" in message.lower() or "The value of event 'k'" in message
    assert step_names(database_url, "w") == {}
    assert event_rows(database_url) == {}


def test_none_and_any_text_as_key_are_fine(app: type[DBOS]) -> None:
    """04 R204."""
    keys = ["", "ключ", "a::b", "\x1e", "'; DROP TABLE x; --", "😀" * 100]

    @DBOS.workflow()
    def workflow() -> None:
        for key in keys:
            DBOS.set_event(key, None)

    with SetWorkflowID("w"):
        workflow()
    assert DBOS.get_all_events("w") == dict.fromkeys(keys)


@pytest.mark.parametrize(("key", "message"), [(5, "must be a text"), ("a\0b", "NUL"), ("\ud800", "surrogate")])
def test_a_key_that_is_no_text_is_refused(app: type[DBOS], key: Any, message: str) -> None:
    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(DBOSException, match=message):
            DBOS.set_event(key, 1)

    workflow()
    with pytest.raises(DBOSException, match=message):
        DBOS.get_event("w", key, 0)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (WorkflowSerializationFormat.PORTABLE, "portable_json"),
        (WorkflowSerializationFormat.NATIVE, "py_pickle"),
        (WorkflowSerializationFormat.DEFAULT, "portable_json"),
    ],
)
def test_the_format_is_the_one_asked_for_else_that_of_the_workflow(
    app: type[DBOS], database_url: str, asked: WorkflowSerializationFormat, stored: str
) -> None:
    """04 R112, R203, R602: in the body and in its steps."""

    @DBOS.step()
    def step() -> None:
        DBOS.set_event("step", [1], serialization_type=asked)

    @DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    def workflow() -> None:
        DBOS.set_event("body", [1], serialization_type=asked)
        step()

    workflow()
    found = rows(database_url, "SELECT DISTINCT serialization FROM workflow_events")
    assert [row["serialization"] for row in found] == [stored]


def test_events_are_set_in_workflow_and_step_code_only(app: type[DBOS]) -> None:
    """04 section 1.3."""
    with pytest.raises(DBOSException, match="must be called from within a workflow or step"):
        DBOS.set_event("k", 1)


@pytest.mark.parametrize("in_step", [False, True])
def test_a_cancelled_workflow_sets_nothing_more(app: type[DBOS], database_url: str, in_step: bool) -> None:
    """04 R3: by another process, so that only the database tells."""
    error = error_after_cancellation(database_url, lambda: DBOS.set_event("k", 1), in_step=in_step)
    assert not isinstance(error, Exception)
    assert event_rows(database_url) == {}
    assert history(database_url) == []


@pytest.mark.parametrize("in_step", [False, True])
def test_a_hundred_at_once_share_commits_and_keep_their_order(
    app: type[DBOS], config: Config, database_url: str, in_step: bool
) -> None:
    """04 R1: ids in the order of the calls; the last of several values for one key in one transaction stays."""
    calls = 100

    @DBOS.step()
    async def step() -> None:
        await asyncio.gather(*[DBOS.set_event_async(f"k{i % 3}", i) for i in range(calls)])

    @DBOS.workflow()
    async def workflow() -> dict[str, Any]:
        if in_step:
            await step()
        else:
            await asyncio.gather(*[DBOS.set_event_async(f"k{i % 3}", i) for i in range(calls)])
        return await DBOS.get_all_events_async("w")

    with SetWorkflowID("w"):
        found = DBOS.start_workflow(workflow).get_result()
    assert found == {"k0": 99, "k1": 97, "k2": 98}
    if in_step:
        assert history(database_url) == [(1, "k0"), (1, "k1"), (1, "k2")]
    else:
        assert history(database_url) == [(i + 1, f"k{i % 3}") for i in range(calls)]
        assert replay(config, "w") == found


# --- reading


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_value_that_is_there_comes_at_once_and_is_recorded_with_its_deadline(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """04 R210, R212, R404: the current value, in the event's own format."""

    @DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    def setter() -> None:
        DBOS.set_event("k", "first")
        DBOS.set_event("k", "second")

    @DBOS.workflow()
    def sync_wf() -> Any:
        return DBOS.get_event("setter", "k")

    @DBOS.workflow()
    async def async_wf() -> Any:
        return await DBOS.get_event_async("setter", "k")

    with SetWorkflowID("setter"):
        setter()
    with SetWorkflowID("w"):
        assert DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result() == "second"
    assert step_names(database_url, "w") == {1: "DBOS.getEvent", 2: "DBOS.sleep"}
    value, deadline = step_rows(database_url, "w")
    assert (value["output"], value["serialization"]) == ('"second"', "portable_json")
    assert float(deadline["output"]) * 1000 >= deadline["started_at_epoch_ms"] + 59_000
    assert deadline["completed_at_epoch_ms"] == deadline["started_at_epoch_ms"]
    rows(database_url, "DELETE FROM workflow_events")
    assert replay(config, "w") == "second"


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_wait_ends_with_the_commit_and_without_a_read(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch, flavour: str
) -> None:
    """04 section 12.1: who waits in the same process gets the value with the signal."""
    asked = count_reads(monkeypatch, app)
    # What looks for all of them once per second may see the value before the signal is given.
    monkeypatch.setattr(engine_of(app).store, "find_set_events", lambda wanted: [])
    go = Gate()

    @DBOS.workflow()
    def setter() -> None:
        go.wait()
        DBOS.set_event("k", {"a": 1})

    @DBOS.workflow()
    def sync_wf() -> Any:
        return DBOS.get_event("setter", "k")

    @DBOS.workflow()
    async def async_wf() -> Any:
        return await DBOS.get_event_async("setter", "k")

    with SetWorkflowID("setter"):
        DBOS.start_workflow(setter)
    handles = [DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf) for _ in range(5)]
    wait_until(lambda: len(asked) == 5)
    wait_until(lambda: waiters(app, "event") == 1)
    go.open()
    assert [handle.get_result() for handle in handles] == [{"a": 1}] * 5
    assert len(asked) == 5


def waiters(app: type[DBOS], kind: str) -> int:
    instance = app(config=None)
    assert instance.engine is not None
    return len(instance.engine.signals.awaited(kind))


def test_a_value_written_by_another_process_is_noticed(app: type[DBOS], database_url: str) -> None:
    """04 R216, R801: any number of waiters, sync and async; here nobody announces it."""
    declare_setter("mine")

    @DBOS.workflow()
    def nothing() -> None:
        pass

    with SetWorkflowID("w"):
        nothing()

    @DBOS.workflow()
    async def waiting() -> Any:
        return await DBOS.get_event_async("w", "k")

    handles = [DBOS.start_workflow(waiting) for _ in range(3)]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(DBOS.get_event("w", "k")))
    thread.start()
    wait_until(lambda: waiters(app, "event") == 1)
    rows(database_url, "INSERT INTO workflow_events VALUES ('w', 'k', '5', 'portable_json')")
    thread.join()
    assert results == [5]
    assert [handle.get_result() for handle in handles] == [5] * 3


def test_without_a_value_none_comes_when_the_time_is_up(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R210-R212: a target that does not exist is waited for; recorded in the configured format, and replayed."""

    @DBOS.workflow()
    def workflow() -> list[Any]:
        return [DBOS.get_event("nobody", "k", 0.01), DBOS.get_event("nobody", "k", -1)]

    with SetWorkflowID("w"):
        assert workflow() == [None, None]
    assert step_names(database_url, "w") == {
        1: "DBOS.getEvent",
        2: "DBOS.sleep",
        3: "DBOS.getEvent",
        4: "DBOS.sleep",
    }
    assert step_rows(database_url, "w")[0]["serialization"] == "py_pickle"
    assert DBOS.get_event("nobody", "k", 0) is None
    assert replay(config, "w") == [None, None]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_default_tells_no_value_from_none(app: type[DBOS], config: Config, database_url: str, flavour: str) -> None:
    """04 section 12, 7: recorded like a value, in the configured format; in plain code too."""

    @DBOS.workflow(name="workflow")
    def sync_wf() -> list[Any]:
        return [DBOS.get_event("setter", key, 0, default=[1]) for key in ("k", "other")]

    @DBOS.workflow(name="async workflow")
    async def async_wf() -> list[Any]:
        return [await DBOS.get_event_async("setter", key, 0, default=[1]) for key in ("k", "other")]

    with SetWorkflowID("setter"):
        declare_setter(None)()
    with SetWorkflowID("w"):
        assert DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result() == [None, [1]]
    assert step_rows(database_url, "w")[2]["serialization"] == "py_pickle"
    assert DBOS.get_event("setter", "other", 0, default="none") == "none"
    rows(database_url, "INSERT INTO workflow_events VALUES ('setter', 'other', '5', 'portable_json')")
    assert replay(config, "w") == [None, [1]]


@pytest.mark.parametrize("where", ["workflow", "plain code"])
@pytest.mark.parametrize("end", ["success", "error", "cancelled", "cancelled elsewhere"])
def test_a_wait_while_the_workflow_is_active_ends_with_it(
    app: type[DBOS], database_url: str, where: str, end: str
) -> None:
    """04 section 11, 8, and 12, 8: an hour before the timeout; what was set before the end comes."""
    go = Gate()

    @DBOS.workflow(name="target")
    def target() -> None:
        go.wait()
        if end == "error":
            raise ValueError("no event")

    @DBOS.workflow(name="waiting")
    def waiting() -> Any:
        return DBOS.get_event("target", "k", 3600, default="ended", while_active=True)

    results: list[Any] = []
    with SetWorkflowID("target"):
        DBOS.start_workflow(target)
    thread = threading.Thread(
        target=lambda: results.append(
            DBOS.start_workflow(waiting).get_result()
            if where == "workflow"
            else DBOS.get_event("target", "k", 3600, default="ended", while_active=True)
        )
    )
    thread.start()
    wait_until(lambda: waiters(app, "event") == 1)
    if end == "cancelled":
        DBOS.cancel_workflow("target")
    elif end == "cancelled elsewhere":
        rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'target'")
    else:
        go.open()
    thread.join()
    go.open()
    assert results == ["ended"]


def test_a_wait_while_the_workflow_is_active_gets_what_was_set_and_not_what_cannot_come(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 section 12, 8: both steps are recorded; a workflow that does not exist is not waited for."""

    @DBOS.workflow(name="workflow")
    def workflow() -> list[Any]:
        found = [DBOS.get_event(name, "k", while_active=True, default="no") for name in ("setter", "nobody")]
        return [*found, DBOS.get_event("setter", "other", while_active=True)]

    with SetWorkflowID("setter"):
        declare_setter(1)()
    with SetWorkflowID("w"):
        assert workflow() == [1, "no", None]
    assert list(step_names(database_url, "w").values()) == ["DBOS.getEvent", "DBOS.sleep"] * 3
    assert replay(config, "w") == [1, "no", None]
    assert DBOS.get_event("setter", "k", while_active=True) == 1
    assert DBOS.get_event("nobody", "k", while_active=True) is None


def test_an_event_set_right_before_the_end_is_not_missed(app: type[DBOS]) -> None:
    """04 section 12, 8: whoever is woken by the end looks for the event once more."""

    @DBOS.workflow()
    async def setter(name: str) -> None:
        await DBOS.set_event_async("k", name)

    @DBOS.workflow()
    async def both(name: str) -> Any:
        with SetWorkflowID(name):
            await DBOS.start_workflow_async(setter, name)
        return await DBOS.get_event_async(name, "k", 3600, while_active=True)

    async def main() -> list[Any]:
        return await asyncio.gather(*[both(f"s{number}") for number in range(30)])

    assert asyncio.run(main()) == [f"s{number}" for number in range(30)]


def test_a_recovered_workflow_waits_until_the_deadline_first_planned(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R212."""

    @DBOS.workflow(name="waiting")
    def waiting() -> Any:
        return DBOS.get_event("nobody", "k", 3600)

    with SetWorkflowID("w"):
        DBOS.start_workflow(waiting)
    (deadline,) = wait_until(lambda: step_rows(database_url, "w"))
    DBOS.destroy(workflow_completion_timeout_sec=0)
    past = deadline["started_at_epoch_ms"] / 1000 - 10
    rows(database_url, "UPDATE operation_outputs SET output = %s WHERE function_id = 2", str(past))
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() is None
    assert step_rows(database_url, "w")[1]["output"] == str(past)


def test_in_steps_and_plain_code_every_call_reads_afresh(app: type[DBOS], database_url: str) -> None:
    """04 R213."""

    @DBOS.step()
    def step() -> Any:
        return DBOS.get_event("setter", "k", 0)

    @DBOS.workflow()
    def workflow() -> Any:
        return step()

    with SetWorkflowID("setter"):
        declare_setter(7)()
    with SetWorkflowID("w"):
        assert workflow() == 7
    assert step_names(database_url, "w") == {1: step.__qualname__}
    assert DBOS.get_event("setter", "k") == 7


def test_a_value_that_cannot_be_read_is_an_error_and_not_recorded(app: type[DBOS], database_url: str) -> None:
    """04 R214, R215."""

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(ValueError, match="Expecting value"):
            DBOS.get_event("setter", "k")
        with pytest.raises(ValueError, match="Expecting value"):
            DBOS.get_all_events("setter")

    with SetWorkflowID("setter"):
        declare_setter(7)()
    rows(database_url, "UPDATE workflow_events SET value = 'no JSON', serialization = 'portable_json'")
    with SetWorkflowID("w"):
        workflow()
    assert step_names(database_url, "w") == {3: "DBOS.get_events"}


def test_all_events_are_read_in_one_recorded_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R215."""

    @DBOS.workflow()
    def workflow() -> Any:
        return [DBOS.get_all_events("setter"), DBOS.get_all_events("nobody")]

    with SetWorkflowID("setter"):
        declare_setter(1, 2)()
    with SetWorkflowID("w"):
        assert workflow() == [{"k": 2}, {}]
    assert step_names(database_url, "w") == {1: "DBOS.get_events", 2: "DBOS.get_events"}
    rows(database_url, "DELETE FROM workflow_events")
    assert replay(config, "w") == [{"k": 2}, {}]


@pytest.mark.parametrize("timeout", [None, "5", True, float("nan")])
def test_a_timeout_that_is_no_number_is_refused(app: type[DBOS], timeout: Any) -> None:
    """04 R211."""
    with pytest.raises(TypeError, match="timeout_seconds of get_event must be a number"):
        DBOS.get_event("w", "k", timeout)


def test_a_wait_ends_when_its_workflow_is_cancelled(app: type[DBOS], database_url: str) -> None:
    """04 section 12.2: a place and a thread come back at once; no false timeout is recorded."""
    stopped: list[type[BaseException]] = []

    @DBOS.workflow()
    def waiting() -> Any:
        try:
            return DBOS.get_event("nobody", "k", 3600)
        except BaseException as error:
            stopped.append(type(error))
            raise

    with SetWorkflowID("w"):
        DBOS.start_workflow(waiting)
    wait_until(lambda: step_names(database_url, "w"))
    DBOS.cancel_workflow("w")
    assert wait_until(lambda: stopped) == [DBOSWorkflowCancelledError]
    assert step_names(database_url, "w") == {2: "DBOS.sleep"}


def test_destroy_ends_every_wait_and_records_no_timeout(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 section 12.2; the workflow waits again after the next launch."""

    @DBOS.workflow(name="waiting")
    def waiting() -> Any:
        return DBOS.get_event("setter", "k", 3600)

    setter = declare_setter("late")
    with SetWorkflowID("w"):
        DBOS.start_workflow(waiting)
    failures: list[BaseException] = []

    def wait_outside() -> None:
        try:
            DBOS.get_event("setter", "k", 3600)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait_outside)
    thread.start()
    wait_until(lambda: waiters(app, "event") == 1 and step_names(database_url, "w") == {2: "DBOS.sleep"})
    relaunch(config)
    thread.join()
    assert [type(failure) for failure in failures] == [DBOSException]
    with SetWorkflowID("setter"):
        setter()
    assert DBOS.retrieve_workflow("w").get_result() == "late"
    wait_for_status(database_url, "w", "SUCCESS")


def test_a_blocking_call_on_an_event_loop_names_its_twin(app: type[DBOS]) -> None:
    """04 R5."""

    async def main() -> None:
        for call in (
            lambda: DBOS.set_event("k", 1),
            lambda: DBOS.get_event("w", "k"),
            lambda: DBOS.get_all_events("w"),
        ):
            with pytest.raises(RuntimeError, match=r"_event(s)?_async"):
                call()

    asyncio.run(main())


def test_before_launch_and_after_destroy(config: Config) -> None:
    """04 R6."""
    with pytest.raises(DBOSException, match="No DBOS was created yet"):
        DBOS.get_event("w", "k", 0)
    DBOS(config=config)
    with pytest.raises(DBOSException, match="before"):
        DBOS.get_event("w", "k", 0)
    with pytest.raises(DBOSException, match="must be called from within a workflow or step"):
        DBOS.set_event("k", 1)


def test_a_crash_between_deadline_and_value_loses_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R212: f is missing, f+1 is there."""

    @DBOS.workflow(name="reader")
    def reader() -> Any:
        return DBOS.get_event("setter", "k")

    with SetWorkflowID("setter"):
        declare_setter(1)()
    with SetWorkflowID("w"):
        reader()
    rows(database_url, "DELETE FROM operation_outputs WHERE workflow_uuid = 'w' AND function_id = 1")
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == 1
