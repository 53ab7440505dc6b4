"""Reading streams outside workflow code (04 section 4.3): order, the end, waiting, pages, shared looks."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSStreamEndedError,
    DBOSStreamTimeoutError,
)
from tests.communication.streaming import MARKER, count_reads, engine_of, entries, insert, waiting_readers, write
from tests.helpers import Gate, relaunch, rows, wait_until

Config = dict[str, Any]


async def collect(generator: Any) -> list[Any]:
    return [value async for value in generator]


def read(flavour: str, *args: Any, **options: Any) -> list[Any]:
    """All values of a stream, by one of the two generators."""
    if flavour == "sync":
        return list(DBOS.read_stream(*args, **options))
    return asyncio.run(collect(DBOS.read_stream_async(*args, **options)))


def pending(database_url: str, workflow_id: str = "w") -> None:
    """Let a finished workflow look as if another process were executing it."""
    sql = "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'another' WHERE workflow_uuid = %s"
    rows(database_url, sql, workflow_id)


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("close", [False, True])
def test_the_values_come_in_order_until_the_close_or_the_end(app: type[DBOS], flavour: str, close: bool) -> None:
    """04 R310-R312: from any offset; an unknown key of a finished workflow ends at once."""
    write("w", "a", None, "c", close=close)
    assert read(flavour, "w", "k") == ["a", None, "c"]
    assert read(flavour, "w", "k", offset=2, timeout_seconds=0) == ["c"]
    assert read(flavour, "w", "k", offset=3) == []
    assert read(flavour, "w", "k", offset=10) == []
    assert read(flavour, "w", "k", offset=-3) == []
    assert read(flavour, "w", "another") == []


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_values_are_read_while_they_are_written(app: type[DBOS], flavour: str) -> None:
    """04 R311, 12.1: without a look into the database for each, and also before the workflow has begun."""
    lock_step = [Gate() for _ in range(5)]

    @DBOS.workflow()
    def writer() -> None:
        for i, gate in enumerate(lock_step):
            gate.wait()
            DBOS.write_stream("k", i)

    with SetWorkflowID("w"):
        DBOS.start_workflow(writer)
    seen: list[int] = []
    lock_step[0].open()

    def note(value: int) -> None:
        seen.append(value)
        if value + 1 < len(lock_step):
            lock_step[value + 1].open()

    async def read_async() -> None:
        async for value in DBOS.read_stream_async("w", "k"):
            note(value)

    if flavour == "sync":
        for value in DBOS.read_stream("w", "k"):
            note(value)
    else:
        asyncio.run(read_async())
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", ["__DBOS_STREAM_CLOSED__"])
@pytest.mark.parametrize("format_", list(WorkflowSerializationFormat))
def test_a_value_that_equals_the_marker_is_one(
    app: type[DBOS], value: str, format_: WorkflowSerializationFormat
) -> None:
    """04 R304, R312: behind it one reads by offset, up to the next one."""

    @DBOS.workflow()
    def writer() -> None:
        for one in ("a", value, "b"):
            DBOS.write_stream("k", one, serialization_type=format_)
        DBOS.close_stream("k")
        DBOS.write_stream("k", "c")

    with SetWorkflowID("w"):
        writer()
    assert [list(DBOS.read_stream("w", "k", offset=i)) for i in (0, 2, 4)] == [["a"], ["b"], ["c"]]


def test_an_unknown_workflow_is_an_error_at_the_first_value(app: type[DBOS]) -> None:
    """04 R311, trap 23: nothing happens before."""
    generator = DBOS.read_stream("nobody", "k")
    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        next(generator)
    with pytest.raises(DBOSNonExistentWorkflowError):
        asyncio.run(collect(DBOS.read_stream_async("nobody", "k")))
    with pytest.raises(DBOSNonExistentWorkflowError):
        DBOS.read_stream_offset("nobody", "k", 0)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_timeout_is_for_each_value(app: type[DBOS], database_url: str, timeout: float) -> None:
    """04 R313: what is there always comes; the error says what did not arrive."""
    write("w", 1, 2)
    pending(database_url)
    generator = DBOS.read_stream("w", "k", timeout_seconds=timeout)
    assert [next(generator), next(generator)] == [1, 2]
    with pytest.raises(DBOSStreamTimeoutError, match=r"stream k of workflow w within .* seconds") as caught:
        next(generator)
    assert not isinstance(caught.value, DBOSStreamEndedError)
    assert caught.value.timeout_seconds == timeout
    with pytest.raises(StopIteration):
        next(generator)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout_seconds": -1}, ValueError, "must not be negative"),
        ({"timeout_seconds": "5"}, TypeError, "must be a number"),
        ({"timeout_seconds": float("nan")}, TypeError, "NaN"),
        ({"polling_interval_sec": 0}, ValueError, r"at least 0\.001"),
        ({"polling_interval_sec": float("inf")}, ValueError, "finite"),
        ({"polling_interval_sec": float("nan")}, ValueError, "finite"),
        ({"polling_interval_sec": True}, TypeError, "must be a number"),
        ({"offset": True}, TypeError, "whole number"),
        ({"offset": "0"}, TypeError, "whole number"),
        ({"offset": 1.0}, TypeError, "whole number"),
        ({"offset": 2**31}, ValueError, "at most 2147483647"),
        ({"shard_key": "a"}, DBOSException, "not sharded"),
    ],
)
def test_bad_arguments_are_refused(app: type[DBOS], options: Any, error: type[Exception], message: str) -> None:
    """04 R7, R313, R314: by all forms, and before anything is read."""
    write("w", 1)
    with pytest.raises(error, match=message):
        next(DBOS.read_stream("w", "k", **options))
    with pytest.raises(error, match=message):
        asyncio.run(collect(DBOS.read_stream_async("w", "k", **options)))
    offset = {"offset": 0, **options}
    with pytest.raises(error, match=message):
        DBOS.read_stream_offset("w", "k", **offset)
    with pytest.raises(DBOSException, match="text"):
        next(DBOS.read_stream(5, "k"))  # type: ignore[arg-type]
    assert list(DBOS.read_stream("w", "k", timeout_seconds=10**400, polling_interval_sec=10**400)) == [1]


def test_one_value_is_read_by_its_offset(app: type[DBOS], database_url: str) -> None:
    """04 R316, 12.17: the end of the stream is told apart from a timeout, and is one for those who do not care."""
    write("w", "a", "b", close=True)
    assert [DBOS.read_stream_offset("w", "k", i) for i in (0, 1)] == ["a", "b"]
    assert asyncio.run(DBOS.read_stream_offset_async("w", "k", 1)) == "b"
    for offset in (2, 3, 100, -1):
        with pytest.raises(DBOSStreamEndedError, match="No value arrived on stream k of workflow w") as caught:
            DBOS.read_stream_offset("w", "k", offset)
        assert isinstance(caught.value, DBOSStreamTimeoutError)
        assert caught.value.timeout_seconds is None
        assert caught.value.dbos_error_code == 16
    pending(database_url)
    # Ended, although the workflow runs: it is closed before.
    with pytest.raises(DBOSStreamEndedError):
        DBOS.read_stream_offset("w", "k", 7)
    rows(database_url, 'DELETE FROM streams WHERE "offset" = 2')
    with pytest.raises(DBOSStreamTimeoutError) as timed_out:
        DBOS.read_stream_offset("w", "k", 7, timeout_seconds=0)
    assert not isinstance(timed_out.value, DBOSStreamEndedError)


@pytest.mark.parametrize("offset", [1, 5])
def test_a_close_wakes_who_waits_for_a_later_offset(app: type[DBOS], offset: int) -> None:
    """04 12.17."""
    go = Gate()

    @DBOS.workflow()
    def writer() -> None:
        DBOS.write_stream("k", 1)
        go.wait()
        DBOS.close_stream("k")
        ended.wait()

    ended = Gate()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            DBOS.read_stream_offset("w", "k", offset)
        except DBOSStreamEndedError as error:
            errors.append(error)

    with SetWorkflowID("w"):
        DBOS.start_workflow(writer)
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: waiting_readers(app) == 1)
    go.open()
    thread.join()
    ended.open()
    assert len(errors) == 1


def test_a_workflow_that_ends_ends_its_streams(app: type[DBOS]) -> None:
    """04 R310: whoever waits is woken by the end of the workflow, not by the polling interval."""
    go = Gate()

    @DBOS.workflow()
    def writer() -> None:
        DBOS.write_stream("k", 1)
        go.wait()

    with SetWorkflowID("w"):
        DBOS.start_workflow(writer)
    generator = DBOS.read_stream("w", "k", polling_interval_sec=3600)
    assert next(generator) == 1
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(list(generator)))
    thread.start()
    wait_until(lambda: waiting_readers(app) == 1)
    go.open()
    thread.join()
    assert results == [[]]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_what_other_processes_write_is_noticed(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 R801, R810: here nobody announces it; the watcher asks for all, long before the polling interval."""
    write("w", 0)
    pending(database_url)
    results: list[Any] = []
    reader = threading.Thread(target=lambda: results.append(read(flavour, "w", "k", polling_interval_sec=3600)))
    reader.start()
    wait_until(lambda: waiting_readers(app) == 1)
    for i in range(1, 4):
        insert(database_url, i, str(i))
    insert(database_url, 4, MARKER)
    reader.join()
    assert results == [[0, 1, 2, 3]]


def test_the_polling_interval_bounds_a_wait(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R314: also when no signal comes at all."""
    write("w", 0)
    pending(database_url)
    engine_of(app).watcher.stop()
    asked = count_reads(monkeypatch, app)
    generator = DBOS.read_stream("w", "k", polling_interval_sec=0.005)
    assert next(generator) == 0
    results: list[Any] = []
    reader = threading.Thread(target=lambda: results.append(next(generator)))
    reader.start()
    wait_until(lambda: len(asked) > 5)
    insert(database_url, 1, "1")
    reader.join()
    assert results == [1]


def test_a_thousand_readers_share_every_look(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """04 12.1: a commit brings its entry to all of them; the database is read for the first and at the end."""
    readers, values = 1000, 5
    asked = count_reads(monkeypatch, app)

    @DBOS.workflow()
    async def writer() -> None:
        for i in range(values):
            await DBOS.write_stream_async("k", i)
            turn = caught_up[i]
            await asyncio.wait_for(turn.wait(), 60)

    caught_up = [asyncio.Event() for _ in range(values)]
    counts = [0] * values

    async def reader() -> list[int]:
        seen = []
        async for value in DBOS.read_stream_async("w", "k", polling_interval_sec=3600):
            seen.append(value)
            counts[value] += 1
            if counts[value] == readers:
                caught_up[value].set()
        return seen

    async def main() -> None:
        with SetWorkflowID("w"):
            handle = await DBOS.start_workflow_async(writer)
        results = await asyncio.gather(*[reader() for _ in range(readers)])
        assert results == [list(range(values))] * readers
        await handle.get_result()

    asyncio.run(main())
    assert len(asked) <= 4 * values
    assert engine_of(app).feeds._feeds == {}


def test_a_long_stream_is_read_in_pages_and_bounded_memory(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R315: 100 entries for each read; what was delivered is let go."""
    write("w")
    count = 20_000
    fill = (
        'INSERT INTO streams (workflow_uuid, key, value, "offset", serialization) '
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %s) "
        "SELECT 'w', 'k', CAST(i AS TEXT), i, 'portable_json' FROM n"
    )
    rows(database_url, fill.replace("%s", str(count)))
    asked = count_reads(monkeypatch, app)
    expected = 0
    for value in DBOS.read_stream("w", "k"):
        assert value == expected
        expected += 1
        if expected % 5000 == 0:
            (feed,) = engine_of(app).feeds._feeds.values()
            assert len(feed._entries) <= 200
    assert expected == count
    assert len(asked) == count // 100 + 2
    gc.collect()


def test_a_value_that_cannot_be_read_is_an_error_in_its_turn(app: type[DBOS], database_url: str) -> None:
    """04 R315: after all that come before it; then the generator is finished."""
    write("w", 1, 2, 3)
    rows(database_url, "UPDATE streams SET value = 'no JSON', serialization = 'portable_json' WHERE \"offset\" = 1")
    generator = DBOS.read_stream("w", "k")
    assert next(generator) == 1
    with pytest.raises(ValueError, match="Expecting value"):
        next(generator)
    assert list(generator) == []
    with pytest.raises(ValueError, match="Expecting value"):
        DBOS.read_stream_offset("w", "k", 1)
    assert DBOS.read_stream_offset("w", "k", 2) == 3


def test_readers_stop_at_a_gap_and_do_not_read_on_and_on(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R330: as a fork by another implementation may leave it."""
    write("w", 0, 1, 2)
    rows(database_url, 'DELETE FROM streams WHERE "offset" = 1')
    assert list(DBOS.read_stream("w", "k")) == [0]
    assert list(DBOS.read_stream("w", "k", offset=2)) == [2]
    pending(database_url)
    asked = count_reads(monkeypatch, app)
    ahead = DBOS.read_stream("w", "k", offset=2)
    assert next(ahead) == 2
    with pytest.raises(DBOSStreamTimeoutError):
        next(DBOS.read_stream("w", "k", offset=1, timeout_seconds=0.1))
    assert len(asked) < 10


def test_leaving_early_lets_go_of_the_stream(app: type[DBOS]) -> None:
    """04 R317: by close(), by the end of a loop, and by aclose()."""
    write("w", 1, 2, 3)
    feeds = engine_of(app).feeds._feeds
    generator = DBOS.read_stream("w", "k")
    assert next(generator) == 1
    assert len(feeds) == 1
    generator.close()
    assert feeds == {}
    for _ in DBOS.read_stream("w", "k"):
        break
    gc.collect()
    assert feeds == {}

    async def main() -> None:
        generator = DBOS.read_stream_async("w", "k")
        assert await generator.__anext__() == 1
        await generator.aclose()
        assert feeds == {}
        task = asyncio.create_task(collect(DBOS.read_stream_async("w", "k", offset=0)))
        await task

    asyncio.run(main())
    assert engine_of(app).signals.awaited("stream") == []


def test_a_task_that_is_cancelled_while_it_waits_lets_go(app: type[DBOS], database_url: str) -> None:
    """Another reader that waited for its look goes on."""
    write("w", 1)
    pending(database_url)

    async def main() -> None:
        tasks = [asyncio.create_task(collect(DBOS.read_stream_async("w", "k"))) for _ in range(3)]
        while waiting_readers(app) < 3:
            await asyncio.sleep(0.005)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        insert(database_url, 1, MARKER)
        assert await asyncio.gather(*tasks[1:]) == [[1], [1]]

    asyncio.run(main())
    assert engine_of(app).feeds._feeds == {}


def test_destroy_ends_every_wait(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 12.2."""
    write("w", 1)
    pending(database_url)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            list(DBOS.read_stream("w", "k"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: waiting_readers(app) == 1)
    relaunch(config)
    thread.join()
    assert [type(failure) for failure in failures] == [DBOSException]


def test_the_way_from_a_write_to_a_reader_is_short(app: type[DBOS]) -> None:
    """In the same process; the median is a few hundred microseconds on an idle machine."""
    count = 100
    taken: list[float] = []
    turns = threading.Semaphore(1)

    @DBOS.workflow()
    def writer() -> None:
        for _ in range(count):
            assert turns.acquire(timeout=60)
            DBOS.write_stream("k", time.perf_counter())

    with SetWorkflowID("w"):
        DBOS.start_workflow(writer)
    for written in DBOS.read_stream("w", "k"):
        taken.append(time.perf_counter() - written)
        turns.release()
    assert len(taken) == count
    assert statistics.median(taken) < 0.05


def test_entries_are_as_they_were_written(app: type[DBOS], database_url: str) -> None:
    """The reader takes none of them away."""
    write("w", 1, 2)
    before = entries(database_url)
    assert list(DBOS.read_stream("w", "k")) == list(DBOS.read_stream("w", "k")) == [1, 2]
    assert entries(database_url) == before
