"""What holds for all operations of this part (04 section 1): step ids and names, checks, places to call them from."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, SendMessage, SetWorkflowID
from dbos.error import DBOSException, DBOSUnexpectedStepError, DBOSWorkflowCancelledError
from tests.helpers import Gate, make_pending, relaunch, rows, step_names, wait_until

Config = dict[str, Any]

# Name of the record at the first id, and a call that records it.
OPERATIONS: dict[str, tuple[str, Callable[[], Any]]] = {
    "send": ("DBOS.send", lambda: DBOS.send("r", 1)),
    "send_bulk": ("DBOS.send_bulk", lambda: DBOS.send_bulk([SendMessage("r", 1)])),
    "recv": ("DBOS.recv", lambda: DBOS.recv(timeout_seconds=0)),
    "list_messages": ("DBOS.listMessages", lambda: DBOS.list_messages("r")),
    "set_event": ("DBOS.setEvent", lambda: DBOS.set_event("k", 1)),
    "get_event": ("DBOS.getEvent", lambda: DBOS.get_event("r", "k", 0)),
    "get_all_events": ("DBOS.get_events", lambda: DBOS.get_all_events("r")),
    "write_stream": ("DBOS.writeStream", lambda: DBOS.write_stream("k", 1)),
    "close_stream": ("DBOS.closeStream", lambda: DBOS.close_stream("k")),
    "read_stream": ("DBOS.readStream", lambda: list(DBOS.read_stream("r", "k"))),
    "read_stream_offset": ("DBOS.readStreamOffset", lambda: DBOS.read_stream_offset("r", "s", 0)),
    "sleep": ("DBOS.sleep", lambda: DBOS.sleep(0.001)),
}


@pytest.fixture(autouse=True)
def _other(app: type[DBOS]) -> None:
    """A workflow `r` that has ended, with one value in its stream `s`."""

    @DBOS.workflow(name="r")
    def r() -> None:
        DBOS.write_stream("s", 1)

    with SetWorkflowID("r"):
        r()


def declare_each() -> None:
    """Workflows with the names of the operations, each of which does one."""

    @DBOS.workflow(name="one operation")
    def one_operation(name: str) -> None:
        OPERATIONS[name][1]()

    for name in OPERATIONS:
        with SetWorkflowID(name):
            one_operation(name)


async def all_async() -> None:
    await DBOS.send_async("r", 1)
    await DBOS.send_bulk_async([])
    await DBOS.recv_async(timeout_seconds=0)
    await DBOS.set_event_async("k", 1)
    await DBOS.get_event_async("r", "k", 0)
    await DBOS.get_all_events_async("r")
    await DBOS.write_stream_async("k", 1)
    await DBOS.close_stream_async("k")
    assert [value async for value in DBOS.read_stream_async("r", "s")] == [1]
    await DBOS.read_stream_offset_async("r", "s", 0)
    await DBOS.sleep_async(0.001)
    await DBOS.sleep_async(0)


def all_sync() -> None:
    DBOS.send("r", 1)
    DBOS.send_bulk([])
    DBOS.recv(timeout_seconds=0)
    DBOS.set_event("k", 1)
    DBOS.get_event("r", "k", 0)
    DBOS.get_all_events("r")
    DBOS.write_stream("k", 1)
    DBOS.close_stream("k")
    assert list(DBOS.read_stream("r", "s")) == [1]
    DBOS.read_stream_offset("r", "s", 0)
    DBOS.sleep(0.001)
    DBOS.sleep(0)


NAMES = [
    "DBOS.send",
    "DBOS.send_bulk",
    "DBOS.recv",
    "DBOS.sleep",
    "DBOS.setEvent",
    "DBOS.getEvent",
    "DBOS.sleep",
    "DBOS.get_events",
    "DBOS.writeStream",
    "DBOS.closeStream",
    # The value, and the end.
    "DBOS.readStream",
    "DBOS.readStream",
    "DBOS.readStreamOffset",
    "DBOS.sleep",
]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_the_ids_and_names_of_all_operations(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 section 1.1, R401: with the deadline behind what is waited for."""
    work = DBOS.workflow(name="work")(all_sync if flavour == "sync" else all_async)
    with SetWorkflowID("w"):
        DBOS.start_workflow(work).get_result()  # type: ignore[arg-type]
    assert step_names(database_url, "w") == dict(enumerate(NAMES, 1))


def test_a_record_of_another_name_stops_every_operation(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R2: with workflow, step, and both names; nothing is done."""
    declare_each()
    rows(database_url, "UPDATE operation_outputs SET function_name = 'another' WHERE function_id = 1")
    for name in OPERATIONS:
        make_pending(database_url, name)
    before = {t: rows(database_url, f"SELECT * FROM {t}") for t in ("notifications", "workflow_events", "streams")}
    relaunch(config)
    for name, (recorded_as, _) in OPERATIONS.items():
        with pytest.raises(DBOSUnexpectedStepError) as found:
            DBOS.retrieve_workflow(name).get_result()
        error = found.value
        assert error.dbos_error_code == 11
        assert error.inputs == (name, 1, recorded_as, "another")
    assert {t: rows(database_url, f"SELECT * FROM {t}") for t in before} == before


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_cancelled_workflow_is_stopped_by_every_operation(app: type[DBOS], database_url: str, name: str) -> None:
    """04 R2, section 11, 9: by an exception that `except Exception` lets pass; nothing is recorded."""
    began, cancelled = Gate(), Gate()
    errors: list[BaseException] = []

    @DBOS.workflow(name="one operation")
    def one_operation() -> None:
        began.open()
        cancelled.wait()
        try:
            OPERATIONS[name][1]()
        except BaseException as error:
            errors.append(error)
            raise

    with SetWorkflowID("w"):
        DBOS.start_workflow(one_operation)
    began.wait()
    DBOS.cancel_workflow("w")
    cancelled.open()
    (error,) = wait_until(lambda: errors)
    assert isinstance(error, DBOSWorkflowCancelledError)
    assert not isinstance(error, Exception)
    assert error.dbos_error_code == 10
    assert step_names(database_url, "w") == {}


def test_a_refused_blocking_call_takes_no_id(app: type[DBOS], database_url: str) -> None:
    """04 R5: named with its twin, before anything else is checked."""

    @DBOS.workflow()
    async def workflow() -> None:
        for name, (_, call) in OPERATIONS.items():
            with pytest.raises(RuntimeError, match=f"{name}_async"):
                call()
        await DBOS.set_event_async("k", 1)

    with SetWorkflowID("w"):
        DBOS.start_workflow(workflow).get_result()
    assert step_names(database_url, "w") == {1: "DBOS.setEvent"}


def test_what_is_gathered_has_its_ids_in_the_order_of_the_calls(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R1: a hundred of all kinds at once; a replay finds each where it was."""

    @DBOS.workflow(name="gathering")
    async def gathering() -> list[Any]:
        calls = []
        for number in range(25):
            calls += [
                DBOS.send_async("r", number),
                DBOS.set_event_async("k", number),
                DBOS.write_stream_async("k", number),
                DBOS.get_event_async("r", "nothing", 0, default=number),
            ]
        return await asyncio.gather(*calls)

    expected = [value for number in range(25) for value in (None, None, None, number)]
    with SetWorkflowID("w"):
        assert DBOS.start_workflow(gathering).get_result() == expected
    names = ["DBOS.send", "DBOS.setEvent", "DBOS.writeStream", "DBOS.getEvent", "DBOS.sleep"]
    assert step_names(database_url, "w") == dict(enumerate(names * 25, 1))
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == expected
    assert len(rows(database_url, "SELECT * FROM notifications")) == 25


def test_what_steps_read_and_send_is_not_recorded(app: type[DBOS], database_url: str) -> None:
    """04 section 1.3: all that a step may do; it is seen at once, and stays when the step fails."""

    @DBOS.step(name="step")
    def step() -> None:
        for name in ("send", "send_bulk", "set_event", "write_stream", "close_stream"):
            OPERATIONS[name][1]()
        assert DBOS.get_event("w", "k", 0) == 1
        assert DBOS.get_all_events("w") == {"k": 1}
        assert list(DBOS.read_stream("w", "k")) == [1]
        assert DBOS.read_stream_offset("w", "k", 0) == 1
        for name in ("recv", "sleep"):
            with pytest.raises(DBOSException):
                OPERATIONS[name][1]()
        raise ValueError("after all")

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(ValueError, match="after all"):
            step()

    with SetWorkflowID("w"):
        workflow()
    assert step_names(database_url, "w") == {1: "step"}
    assert len(rows(database_url, "SELECT * FROM notifications")) == 2
    assert DBOS.get_event("w", "k", 0) == 1


def test_a_call_in_a_thread_of_a_workflow_is_plain_code(app: type[DBOS], database_url: str) -> None:
    """04 section 0 and 1.3: what is not workflow or step code may send and read, and neither receive nor publish."""
    refused: list[str] = []

    def work() -> None:
        for name, (_, call) in OPERATIONS.items():
            try:
                call()
            except DBOSException:
                refused.append(name)

    @DBOS.workflow()
    def workflow() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with SetWorkflowID("w"):
        workflow()
    assert refused == ["recv", "set_event", "write_stream", "close_stream", "sleep"]
    assert step_names(database_url, "w") == {}
