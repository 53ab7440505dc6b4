"""Writing streams (04 section 4.2): entries, markers, formats, and who may write."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.engine.streams import WRITE_STREAM
from dbos.error import DBOSException, DBOSStreamClosedError
from tests.communication.streaming import MARKER, entries, write
from tests.helpers import replay, rows, step_names, step_rows

from .cancelled import error_after_cancellation

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_an_entry_and_its_step_are_written_together(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 R301-R303: offsets from 0; all payload columns of the steps are NULL; the marker is portable JSON."""

    @DBOS.workflow(serialization_type=PORTABLE)
    def sync_wf() -> None:
        DBOS.write_stream("k", 1)
        DBOS.write_stream("k", None)
        DBOS.close_stream("k")

    @DBOS.workflow(serialization_type=PORTABLE)
    async def async_wf() -> None:
        await DBOS.write_stream_async("k", 1)
        await DBOS.write_stream_async("k", None)
        await DBOS.close_stream_async("k")

    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result()
    assert step_names(database_url, "w") == {1: "DBOS.writeStream", 2: "DBOS.writeStream", 3: "DBOS.closeStream"}
    for row in step_rows(database_url, "w"):
        assert (row["output"], row["error"], row["serialization"]) == (None, None, None)
    assert entries(database_url) == [
        ("k", 0, "1", "portable_json", 1),
        ("k", 1, "null", "portable_json", 2),
        ("k", 2, MARKER, "portable_json", 3),
    ]


def test_the_marker_is_portable_in_every_workflow(app: type[DBOS], database_url: str) -> None:
    """04 R303."""
    write("w", close=True)
    assert entries(database_url) == [("k", 0, MARKER, "portable_json", 1)]


def test_a_step_appends_at_once_and_again_in_every_attempt(app: type[DBOS], database_url: str) -> None:
    """04 R302, R303: with the id of the step and no record of its own; a step may close a stream too."""
    attempts: list[int] = []

    @DBOS.step(name="step", retries_allowed=True, interval_seconds=0, max_attempts=2)
    def step() -> None:
        attempts.append(len(attempts))
        DBOS.write_stream("k", attempts[-1], serialization_type=PORTABLE)
        DBOS.write_stream("k", "x", serialization_type=PORTABLE)
        if len(attempts) == 1:
            raise ValueError("once more")
        DBOS.close_stream("k")

    @DBOS.workflow()
    def workflow() -> None:
        step()

    with SetWorkflowID("w"):
        workflow()
    assert [row[2] for row in entries(database_url)] == ["0", '"x"', "1", '"x"', MARKER]
    assert {row[4] for row in entries(database_url)} == {1}
    assert step_names(database_url, "w") == {1: "step"}


def test_a_replay_writes_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R302."""
    write("w", 1, 2, close=True)
    before = entries(database_url)
    replay(config, "w")
    assert entries(database_url) == before


@pytest.mark.parametrize("steps_until", [0, 1, 3])
def test_a_recovered_workflow_goes_on_behind_what_it_has_written(
    app: type[DBOS], config: Config, database_url: str, steps_until: int
) -> None:
    """04 R301: body and step write to the same stream, before and after the crash."""

    @DBOS.step(name="step")
    def step() -> None:
        DBOS.write_stream("k", "step")

    @DBOS.workflow(name="mixed", serialization_type=PORTABLE)
    def workflow() -> None:
        DBOS.write_stream("k", "a")
        step()
        DBOS.write_stream("k", "b")
        step()

    with SetWorkflowID("w"):
        workflow()
    rows(database_url, "DELETE FROM streams WHERE function_id > %s", steps_until)
    replay(config, "w", steps_until=steps_until)
    assert [(row[1], row[2]) for row in entries(database_url)] == list(enumerate(['"a"', '"step"', '"b"', '"step"']))


def test_writing_after_a_close_is_stored_and_warned_about(
    app: type[DBOS], database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """04 R304, 12.17: closing twice appends a second marker."""

    @DBOS.workflow(serialization_type=PORTABLE)
    def workflow() -> None:
        DBOS.close_stream("k")
        DBOS.write_stream("k", 1)
        DBOS.close_stream("k")
        DBOS.write_stream("another", 1)

    with caplog.at_level(logging.WARNING, "dbos"), SetWorkflowID("w"):
        workflow()
    assert [row[2] for row in entries(database_url) if row[0] == "k"] == [MARKER, "1", MARKER]
    warnings = [record.getMessage() for record in caplog.records if "after closing it" in record.getMessage()]
    assert len(warnings) == 1
    assert "stream 'k'" in warnings[0]


@pytest.mark.parametrize("flavour", ["sync", "async", "sync step", "async step"])
@pytest.mark.parametrize("steps_until", [None, 2, 3])
def test_a_write_to_a_closed_stream_can_be_refused(
    app: type[DBOS], config: Config, database_url: str, flavour: str, steps_until: int | None
) -> None:
    """04 12.17: also by an execution that did not close it itself; the refusal is recorded in workflow code."""

    def append(value: int) -> str:
        try:
            DBOS.write_stream("k", value, must_be_open=True)
        except DBOSStreamClosedError as refused:
            return f"{refused.workflow_id} {refused.key}"
        return "written"

    async def append_async(value: int) -> str:
        try:
            await DBOS.write_stream_async("k", value, must_be_open=True)
        except DBOSStreamClosedError as refused:
            return f"{refused.workflow_id} {refused.key}"
        return "written"

    in_step = "step" in flavour
    step, async_step = DBOS.step(name="append")(append), DBOS.step(name="append")(append_async)

    @DBOS.workflow(name="sync")
    def workflow() -> list[str]:
        write = step if in_step else append
        first = write(1)
        DBOS.close_stream("k")
        return [first, write(2)]

    @DBOS.workflow(name="async")
    async def async_workflow() -> list[str]:
        write = async_step if in_step else append_async
        first = await write(1)
        await DBOS.close_stream_async("k")
        return [first, await write(2)]

    with SetWorkflowID("w"):
        if "async" in flavour:
            assert asyncio.run(async_workflow()) == ["written", "w k"]
        else:
            assert workflow() == ["written", "w k"]
    if steps_until is not None:
        assert replay(config, "w", steps_until=steps_until) == ["written", "w k"]
    assert [(row[1], row[2] == MARKER) for row in entries(database_url)] == [(0, False), (1, True)]
    last = step_rows(database_url, "w")[-1]
    assert (last["function_name"], last["error"] is None) == (("append", True) if in_step else (WRITE_STREAM, False))


def test_a_stream_stays_closed_whatever_was_written_behind_its_end(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R304: readers have stopped at the first marker."""

    @DBOS.workflow()
    def workflow() -> str:
        DBOS.close_stream("k")
        DBOS.write_stream("k", 1)
        try:
            DBOS.write_stream("k", 2, must_be_open=True)
        except DBOSStreamClosedError:
            return "refused"
        return "written"

    with SetWorkflowID("w"):
        assert workflow() == "refused"
    assert replay(config, "w", steps_until=2) == "refused"
    assert [row[1] for row in entries(database_url)] == [0, 1]


def test_a_value_that_cannot_be_stored_leaves_nothing(app: type[DBOS], database_url: str) -> None:
    """04 R108."""

    @DBOS.workflow()
    def workflow() -> str:
        with pytest.raises(TypeError) as caught:
            DBOS.write_stream("k", threading.Lock())
        return str(caught.value)

    with SetWorkflowID("w"):
        assert "the value for stream 'k'" in workflow().lower()
    assert step_names(database_url, "w") == {}
    assert entries(database_url) == []


@pytest.mark.parametrize(("key", "message"), [(5, "must be a text"), ("a\0b", "NUL"), ("\ud800", "surrogate")])
def test_a_key_that_is_no_text_is_refused(app: type[DBOS], key: Any, message: str) -> None:
    @DBOS.workflow()
    def workflow() -> None:
        for call in (lambda: DBOS.write_stream(key, 1), lambda: DBOS.close_stream(key)):
            with pytest.raises(DBOSException, match=message):
                call()

    workflow()
    with pytest.raises(DBOSException, match=message):
        next(DBOS.read_stream("w", key))


def test_any_text_is_a_key(app: type[DBOS]) -> None:
    keys = ["", "ключ", "a::b", "\x1e", "'; DROP TABLE x; --", "😀" * 100]

    @DBOS.workflow()
    def workflow() -> None:
        for key in keys:
            DBOS.write_stream(key, key)

    with SetWorkflowID("w"):
        workflow()
    assert [list(DBOS.read_stream("w", key)) for key in keys] == [[key] for key in keys]


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
    """04 R112, R302: in the body and in its steps."""

    @DBOS.step()
    def step() -> None:
        DBOS.write_stream("k", [1], serialization_type=asked)

    @DBOS.workflow(serialization_type=PORTABLE)
    def workflow() -> None:
        DBOS.write_stream("k", [1], serialization_type=asked)
        step()

    with SetWorkflowID("w"):
        workflow()
    assert {row[3] for row in entries(database_url)} == {stored}


def test_streams_are_written_in_workflow_and_step_code_only(app: type[DBOS]) -> None:
    """04 section 1.3."""
    for call in (lambda: DBOS.write_stream("k", 1), lambda: DBOS.close_stream("k")):
        with pytest.raises(DBOSException, match="must be called from within a workflow or step"):
            call()


@pytest.mark.parametrize("in_step", [False, True])
def test_a_cancelled_workflow_writes_nothing_more(app: type[DBOS], database_url: str, in_step: bool) -> None:
    """04 R3: cancelled by another process, so that only the database tells."""
    error = error_after_cancellation(database_url, lambda: DBOS.write_stream("k", 1), in_step=in_step)
    assert not isinstance(error, Exception)
    assert entries(database_url) == []


@pytest.mark.parametrize("in_step", [False, True])
def test_a_hundred_at_once_share_commits_and_keep_their_order(
    app: type[DBOS], config: Config, database_url: str, in_step: bool
) -> None:
    """04 R1, R301: in the order of the calls, without gaps, in two streams."""
    calls = 100

    async def write_all() -> None:
        await asyncio.gather(*[DBOS.write_stream_async(f"k{i % 2}", i) for i in range(calls)])

    step = DBOS.step(name="step")(write_all)

    @DBOS.workflow(serialization_type=PORTABLE)
    async def workflow() -> None:
        await (step if in_step else write_all)()

    with SetWorkflowID("w"):
        DBOS.start_workflow(workflow).get_result()
    expected = [
        (f"k{k}", i, str(2 * i + k), 1 if in_step else 2 * i + k + 1) for k in (0, 1) for i in range(calls // 2)
    ]
    assert [(key, offset, value, step_id) for key, offset, value, _, step_id in entries(database_url)] == expected
    replay(config, "w")
    assert len(entries(database_url)) == calls


def test_threads_of_one_step_write_without_gaps(app: type[DBOS], database_url: str) -> None:
    """04 R301: concurrent writers collide in the reference; here each gets its place."""
    import contextvars

    @DBOS.step()
    def step() -> None:
        def work(context: contextvars.Context) -> None:
            for i in range(25):
                context.run(DBOS.write_stream, "k", i)

        threads = [threading.Thread(target=work, args=(contextvars.copy_context(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @DBOS.workflow(serialization_type=PORTABLE)
    def workflow() -> None:
        step()

    with SetWorkflowID("w"):
        workflow()
    found = entries(database_url)
    assert [row[1] for row in found] == list(range(100))
    assert sorted(int(row[2]) for row in found) == sorted(list(range(25)) * 4)


def test_a_blocking_call_on_an_event_loop_names_its_twin(app: type[DBOS]) -> None:
    """04 R5: also the generator, at its first value."""

    async def main() -> None:
        for call in (
            lambda: DBOS.write_stream("k", 1),
            lambda: DBOS.close_stream("k"),
            lambda: DBOS.read_stream_offset("w", "k", 0),
            lambda: next(DBOS.read_stream("w", "k")),
        ):
            with pytest.raises(RuntimeError, match=r"_stream(_offset)?_async"):
                call()

    asyncio.run(main())


def test_before_launch_and_after_destroy(config: Config) -> None:
    """04 R6."""
    with pytest.raises(DBOSException, match="No DBOS was created yet"):
        next(DBOS.read_stream("w", "k"))
    DBOS(config=config)
    with pytest.raises(DBOSException, match="before"):
        next(DBOS.read_stream("w", "k"))
    with pytest.raises(DBOSException, match="must be called from within a workflow or step"):
        DBOS.write_stream("k", 1)
