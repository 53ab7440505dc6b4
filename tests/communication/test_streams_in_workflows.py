"""Reading streams in workflow code (04 section 4.4): recorded value by value, and replayed."""

from __future__ import annotations

import asyncio
import base64
import pickle
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSNonExistentWorkflowError,
    DBOSStreamEndedError,
    DBOSStreamNondeterminismError,
    DBOSStreamTimeoutError,
    DBOSWorkflowCancelledError,
)
from tests.communication.streaming import count_reads, engine_of, insert, waiting_readers, write
from tests.helpers import Gate, relaunch, replay, rows, step_names, step_rows, wait_until

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE
MARKER = "__DBOS_STREAM_CLOSED__"


def decoded(row: dict[str, Any]) -> Any:
    return pickle.loads(base64.b64decode(row["output"]))


def pending(database_url: str, workflow_id: str) -> None:
    sql = "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'another' WHERE workflow_uuid = %s"
    rows(database_url, sql, workflow_id)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_every_value_and_the_end_are_steps(app: type[DBOS], config: Config, database_url: str, flavour: str) -> None:
    """04 R320, R321, R605: in the configured format; a replay asks nobody and stops where the first run stopped."""

    @DBOS.workflow(name="sync_reader", serialization_type=PORTABLE)
    def sync_reader() -> list[Any]:
        return list(DBOS.read_stream("w", "k"))

    @DBOS.workflow(name="async_reader", serialization_type=PORTABLE)
    async def async_reader() -> list[Any]:
        return [value async for value in DBOS.read_stream_async("w", "k")]

    write("w", (1, 2), None, close=True)
    with SetWorkflowID("r"):
        assert DBOS.start_workflow(sync_reader if flavour == "sync" else async_reader).get_result() == [(1, 2), None]
    assert step_names(database_url, "r") == {1: "DBOS.readStream", 2: "DBOS.readStream", 3: "DBOS.readStream"}
    found = step_rows(database_url, "r")
    assert [decoded(row) for row in found] == [(1, 2), None, MARKER]
    assert {row["serialization"] for row in found} == {"py_pickle"}
    rows(database_url, "DELETE FROM streams")
    assert replay(config, "r") == [[1, 2], None]


@pytest.mark.parametrize("steps_until", [0, 1, 2])
def test_a_recovered_reader_goes_on_where_it_was(
    app: type[DBOS], config: Config, database_url: str, steps_until: int
) -> None:
    """04 R321: recorded values first, then those at the offsets behind them."""

    @DBOS.workflow(name="reader")
    def reader() -> list[Any]:
        return list(DBOS.read_stream("w", "k", offset=1))

    write("w", 0, 1, 2, 3)
    with SetWorkflowID("r"):
        assert reader() == [1, 2, 3]
    rows(database_url, "UPDATE streams SET value = '9', serialization = 'portable_json'")
    expected = [1, 2, 3][:steps_until] + [9] * (3 - steps_until)
    assert replay(config, "r", steps_until=steps_until) == expected


def test_leaving_the_loop_takes_no_id_for_the_next_value(app: type[DBOS], database_url: str) -> None:
    """04 R323."""

    @DBOS.workflow()
    def reader() -> list[Any]:
        seen = []
        for value in DBOS.read_stream("w", "k"):
            seen.append(value)
            if len(seen) == 2:
                break
        DBOS.set_event("e", 1)
        return seen

    write("w", 0, 1, 2)
    with SetWorkflowID("r"):
        assert reader() == [0, 1]
    assert step_names(database_url, "r") == {1: "DBOS.readStream", 2: "DBOS.readStream", 3: "DBOS.setEvent"}


def test_a_timeout_is_recorded_and_replayed_without_waiting(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R313, R322: as an error that other implementations can read."""

    @DBOS.workflow(name="reader")
    def reader() -> list[Any]:
        seen: list[Any] = []
        try:
            for value in DBOS.read_stream("w", "k", timeout_seconds=0.01):
                seen.append(value)
        except DBOSStreamTimeoutError as error:
            seen.append((type(error).__name__, error.timeout_seconds))
        try:
            DBOS.read_stream_offset("w", "k", 1, timeout_seconds=0)
        except DBOSStreamTimeoutError as error:
            seen.append((type(error).__name__, error.timeout_seconds))
        return seen

    write("w", 0)
    pending(database_url, "w")
    with SetWorkflowID("r"):
        result = reader()
    assert result == [0, ("DBOSStreamTimeoutError", 0.01), ("DBOSStreamTimeoutError", 0)]
    assert step_names(database_url, "r") == {
        1: "DBOS.readStream",
        2: "DBOS.readStream",
        3: "DBOS.readStreamOffset",
    }
    assert [row["error"] is None for row in step_rows(database_url, "r")] == [True, False, False]
    insert(database_url, 1, "1")
    assert replay(config, "r") == result


def test_the_end_of_a_stream_is_recorded_by_the_marker(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R316, R605, 12.17: a replay raises our error again."""

    @DBOS.workflow(name="reader")
    def reader() -> Any:
        try:
            return DBOS.read_stream_offset("w", "k", 5)
        except DBOSStreamEndedError as error:
            return error.timeout_seconds

    write("w", 0, close=True)
    with SetWorkflowID("r"):
        assert reader() is None
    (row,) = step_rows(database_url, "r")
    assert (decoded(row), row["error"]) == (MARKER, None)
    assert replay(config, "r") is None


def test_one_value_by_its_offset_is_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R320, section 1.1."""

    @DBOS.workflow(name="reader")
    async def reader() -> Any:
        return await DBOS.read_stream_offset_async("w", "k", 1)

    write("w", "a", "b")
    with SetWorkflowID("r"):
        assert DBOS.start_workflow(reader).get_result() == "b"
    assert step_names(database_url, "r") == {1: "DBOS.readStreamOffset"}
    rows(database_url, "DELETE FROM streams")
    assert replay(config, "r") == "b"


def test_failures_are_not_recorded_though_their_id_is_used(app: type[DBOS], database_url: str) -> None:
    """04 R322: an unknown workflow, a value that cannot be read."""

    @DBOS.workflow()
    def reader() -> None:
        with pytest.raises(DBOSNonExistentWorkflowError):
            next(DBOS.read_stream("nobody", "k"))
        with pytest.raises(ValueError, match="Expecting value"):
            next(DBOS.read_stream("w", "k"))
        DBOS.set_event("e", 1)

    write("w", 1)
    rows(database_url, "UPDATE streams SET value = 'no JSON', serialization = 'portable_json'")
    with SetWorkflowID("r"):
        reader()
    assert step_names(database_url, "r") == {3: "DBOS.setEvent"}


def test_two_reads_at_once_are_refused_and_take_no_id(app: type[DBOS], database_url: str) -> None:
    """04 R324; alternate reads of two streams are fine."""

    @DBOS.workflow()
    async def reader() -> list[Any]:
        first, second = DBOS.read_stream_async("w", "k"), DBOS.read_stream_async("v", "k")
        waiting = asyncio.ensure_future(first.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(DBOSStreamNondeterminismError) as caught:
            await second.__anext__()
        assert (caught.value.workflow_id, caught.value.key) == ("v", "k")
        seen = [await waiting]
        third = DBOS.read_stream_async("v", "k")
        seen += [await third.__anext__(), await first.__anext__(), await third.__anext__()]
        for one in (first, third):
            await one.aclose()
        return seen

    write("w", "w0", "w1")
    write("v", "v0", "v1")
    with SetWorkflowID("r"):
        assert DBOS.start_workflow(reader).get_result() == ["w0", "v0", "w1", "v1"]
    assert step_names(database_url, "r") == dict.fromkeys(range(1, 5), "DBOS.readStream")


def test_in_steps_nothing_is_recorded(app: type[DBOS], database_url: str) -> None:
    """04 section 1.3."""

    @DBOS.step(name="step")
    def step() -> list[Any]:
        return [*DBOS.read_stream("w", "k"), DBOS.read_stream_offset("w", "k", 0)]

    @DBOS.workflow()
    def reader() -> list[Any]:
        return step()

    write("w", 1, 2)
    with SetWorkflowID("r"):
        assert reader() == [1, 2, 1]
    assert step_names(database_url, "r") == {1: "step"}


def test_a_generator_binds_to_the_workflow_of_its_first_value(app: type[DBOS], database_url: str) -> None:
    """04 R326."""
    write("w", 1, 2, 3)
    outside = DBOS.read_stream("w", "k")
    assert next(outside) == 1

    @DBOS.workflow()
    def reader() -> list[Any]:
        return [next(outside), next(fresh)]

    fresh = DBOS.read_stream("w", "k")
    with SetWorkflowID("r"):
        assert reader() == [2, 1]
    assert step_names(database_url, "r") == {1: "DBOS.readStream"}


@pytest.mark.parametrize("in_step", [False, True])
def test_a_wait_ends_when_its_workflow_is_cancelled(app: type[DBOS], database_url: str, in_step: bool) -> None:
    """04 R325: at once, and nothing is recorded."""
    stopped: list[type[BaseException]] = []

    def wait() -> None:
        try:
            list(DBOS.read_stream("w", "k"))
        except BaseException as error:
            stopped.append(type(error))
            raise

    step = DBOS.step(name="step")(wait)

    @DBOS.workflow()
    def reader() -> None:
        (step if in_step else wait)()

    write("w")
    pending(database_url, "w")
    with SetWorkflowID("r"):
        DBOS.start_workflow(reader)
    wait_until(lambda: waiting_readers(app) == 1)
    DBOS.cancel_workflow("r")
    assert wait_until(lambda: stopped) == [DBOSWorkflowCancelledError]
    assert step_names(database_url, "r") == {}
    assert engine_of(app).feeds._feeds == {}


def test_destroy_ends_a_wait_and_the_workflow_reads_on_after_the_next_launch(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 12.2: no false timeout is recorded."""

    @DBOS.workflow(name="reader")
    def reader() -> list[Any]:
        return list(DBOS.read_stream("w", "k", timeout_seconds=3600))

    write("w", 1)
    pending(database_url, "w")
    with SetWorkflowID("r"):
        DBOS.start_workflow(reader)
    wait_until(lambda: waiting_readers(app) == 1)
    relaunch(config)
    insert(database_url, 1, "2")
    insert(database_url, 2, f'"{MARKER}"')
    assert DBOS.retrieve_workflow("r").get_result() == [1, 2]
    assert step_names(database_url, "r") == dict.fromkeys(range(1, 4), "DBOS.readStream")


def test_a_writer_and_a_reader_in_workflows_share_no_look(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """04 12.1: values come with the signal, are recorded, and each is there when the reader sees it."""
    asked = count_reads(monkeypatch, app)
    turns = [Gate() for _ in range(5)]
    recorded: list[int] = []

    @DBOS.workflow(name="writer2")
    def writer() -> None:
        for i, turn in enumerate(turns):
            turn.wait()
            DBOS.write_stream("k", i)

    @DBOS.workflow(name="reader")
    def reader() -> None:
        for value in DBOS.read_stream("w2", "k", polling_interval_sec=3600):
            recorded.append(len(step_rows(database_url, "r")))
            if value < 4:
                turns[value + 1].open()

    with SetWorkflowID("w2"):
        DBOS.start_workflow(writer)
    with SetWorkflowID("r"):
        handle = DBOS.start_workflow(reader)
    wait_until(lambda: waiting_readers(app) == 1)
    turns[0].open()
    handle.get_result()
    assert recorded == [1, 2, 3, 4, 5]
    assert len(asked) <= 6
