"""Streams: values that a workflow appends, for anybody to read one by one while it runs and afterwards."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from ..engine.context import current_execution
from ..engine.deadlines import LONGEST_SECONDS, check_timeout
from ..engine.plans import Plan
from ..engine.running_loop import refuse_running_loop
from ..engine.stream_reading import END, StreamReader, read_offset_plan
from ..engine.streams import close_stream_plan, write_stream_plan
from ..serialization import WorkflowSerializationFormat
from .events import check_key, check_placement
from .runtime import (
    blocking,
    check_ids,
    check_unsharded,
    engine_for_async,
    engine_here,
    on_engine,
    run,
    run_async,
    twin,
)

if TYPE_CHECKING:
    from ..engine.core import Core
    from ..engine.execution import Execution

DEFAULT = WorkflowSerializationFormat.DEFAULT

SHORTEST_POLLING_SECONDS = 0.001
LARGEST_OFFSET = 2**31 - 1


def _write_stream(
    key: str,
    value: Any,
    *,
    serialization_type: WorkflowSerializationFormat = DEFAULT,
    must_be_open: bool = False,
) -> Plan[None]:
    """Append a value to a stream of this workflow.

    Args:
        key: The stream; any text. It need not exist before.
        value: Anything that the format can store; None too.
        serialization_type: The format. Default that of the workflow.
        must_be_open: Refuse to write to a stream that was closed. Default False: the value is stored behind the end,
            where readers do not look, and a warning is logged.

    Raises:
        DBOSStreamClosedError: the stream must be open, and is not; nothing is written then.
        DBOSException: called from neither workflow nor step code; the key cannot be stored.
        Exception: what the serializer raises for a value that cannot be stored; nothing is written then.

    Durability: in workflow code recorded as one step, together with the value: exactly once. So is a refusal. In step
    code the value is appended at once, also if the step fails later, and again when the step is run again.
    """
    check_placement("DBOS.write_stream")
    engine_here()
    check_key(key, "stream key")
    return write_stream_plan(key, value, serialization_type, must_be_open=must_be_open)


def _close_stream(key: str) -> Plan[None]:
    """End a stream of this workflow: readers stop behind the last value.

    A marker is appended. What is written afterwards is stored behind it, and read only by those who ask for it by its
    offset. The end of the workflow ends its streams too.

    Raises:
        DBOSException: called from neither workflow nor step code; the key cannot be stored.

    Durability: as of `write_stream`.
    """
    check_placement("DBOS.close_stream")
    engine_here()
    check_key(key, "stream key")
    return close_stream_plan(key)


def _read_stream(
    workflow_id: str,
    key: str,
    *,
    offset: int = 0,
    polling_interval_sec: float | None = None,
    timeout_seconds: float | None = None,
    shard_key: str | None = None,
) -> Generator[Any, None, None]:
    """The values of a stream, in order; waits for each until the stream has ended.

    It ends where the workflow has closed it, or with the workflow. Everything is done when values are asked for, also
    the checks of arguments.

    Args:
        workflow_id: Whose stream; the workflow must exist, and may still wait for its start.
        key: The stream. One that is never written ends with the workflow.
        offset: Where to begin; the first value has 0.
        polling_interval_sec: The longest time without a look into the database while waiting. Default
            `notification_listener_polling_interval_sec`. Values come by signals, mostly much sooner.
        timeout_seconds: The longest wait for one value. None waits without limit; with 0 only what is there comes.

    Raises:
        DBOSNonExistentWorkflowError: there is no such workflow.
        DBOSStreamTimeoutError: the next value did not come in time.
        DBOSStreamNondeterminismError: another stream read of this workflow is in progress.
        TypeError, ValueError: an argument is not a number, or out of range.
        Exception: what the serializer raises for a value that cannot be read here, in its turn.

    Durability: in workflow code every value is recorded as a step, and the end as one more: a replay yields the same
    values and ends at the same place. Elsewhere nothing is recorded.
    """
    refuse_running_loop("read_stream")
    engine = engine_here()
    reader = stream_reader(
        engine,
        workflow_id,
        key,
        offset,
        polling_interval_sec,
        timeout_seconds,
        shard_key,
        execution=current_execution(),
    )
    try:
        while (value := run(engine, reader.next_plan())) is not END:
            yield value
    finally:
        reader.close()


async def _read_stream_async(
    workflow_id: str,
    key: str,
    *,
    offset: int = 0,
    polling_interval_sec: float | None = None,
    timeout_seconds: float | None = None,
    shard_key: str | None = None,
) -> AsyncGenerator[Any, None]:
    """The values of a stream, in order; the async form of `read_stream`.

    Whoever leaves the loop early should `aclose()` the generator, which lets go of the stream at once.
    """
    engine = engine_for_async()
    reader = stream_reader(
        engine,
        workflow_id,
        key,
        offset,
        polling_interval_sec,
        timeout_seconds,
        shard_key,
        execution=current_execution(),
    )
    try:
        while (value := await run_async(engine, reader.next_plan())) is not END:
            yield value
    finally:
        reader.close()


def stream_offset_lookup(
    core: Core,
    workflow_id: str,
    key: str,
    offset: int,
    *,
    polling_interval_sec: float | None = None,
    timeout_seconds: float | None = None,
    shard_key: str | None = None,
) -> Plan[Any]:
    """The value at one offset of a stream, waiting until it is there.

    Arguments as of `read_stream`.

    Raises:
        DBOSStreamEndedError: the stream ended without it: closed at or before the offset, or with its workflow. It is
            a DBOSStreamTimeoutError.
        DBOSStreamTimeoutError: it did not come in time.
        Others as of `read_stream`.

    Durability: in workflow code recorded as one step. Elsewhere every call reads afresh.
    """
    reader = stream_reader(
        core,
        workflow_id,
        key,
        offset,
        polling_interval_sec,
        timeout_seconds,
        shard_key,
        execution=current_execution(),
        is_single=True,
    )
    return read_offset_plan(reader)


def stream_reader(
    engine: Core,
    workflow_id: str,
    key: str,
    offset: int,
    polling_interval_sec: float | None,
    timeout_seconds: float | None,
    shard_key: str | None,
    *,
    execution: Execution | None = None,
    is_single: bool = False,
) -> StreamReader:
    """A reader with checked arguments; in the workflow code of an execution it records what it reads."""
    call = "read_stream_offset" if is_single else "read_stream"
    check_unsharded(shard_key)
    check_ids(workflow_id)
    check_key(key, "stream key")
    if polling_interval_sec is None:
        polling_interval_sec = engine.settings.notification_polling_interval_seconds
    return StreamReader(
        engine,
        workflow_id,
        key,
        check_offset(offset, call),
        polling_interval_seconds=check_polling_interval(polling_interval_sec, call),
        timeout_seconds=None if timeout_seconds is None else check_stream_timeout(timeout_seconds, call),
        execution=execution,
        is_single=is_single,
    )


def check_offset(offset: int, call: str) -> int:
    """An offset as the database counts them; a negative one is of no value."""
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise TypeError(f"offset of {call} must be a whole number, not {offset!r}")
    if offset > LARGEST_OFFSET:
        raise ValueError(f"offset of {call} must be at most {LARGEST_OFFSET}, the last one there can be, not {offset}")
    return max(offset, -1)


def check_stream_timeout(timeout_seconds: float, call: str) -> float:
    """A timeout as it was given, since errors carry it on."""
    if check_timeout(timeout_seconds, call) < 0:
        raise ValueError(f"timeout_seconds of {call} must not be negative, not {timeout_seconds!r}")
    return min(timeout_seconds, LONGEST_SECONDS)


def check_polling_interval(seconds: float, call: str) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"polling_interval_sec of {call} must be a number of seconds, not {seconds!r}")
    if not SHORTEST_POLLING_SECONDS <= seconds < math.inf:
        raise ValueError(
            f"polling_interval_sec of {call} must be finite and at least {SHORTEST_POLLING_SECONDS}, not {seconds!r}"
        )
    return float(min(seconds, LONGEST_SECONDS))


class StreamCalls:
    """Write streams, and read them."""

    write_stream = blocking("write_stream", _write_stream)
    write_stream_async = twin("write_stream", _write_stream)
    close_stream = blocking("close_stream", _close_stream)
    close_stream_async = twin("close_stream", _close_stream)
    read_stream = staticmethod(_read_stream)
    read_stream_async = staticmethod(_read_stream_async)
    read_stream_offset = blocking("read_stream_offset", on_engine(stream_offset_lookup))
    read_stream_offset_async = twin("read_stream_offset", on_engine(stream_offset_lookup))
