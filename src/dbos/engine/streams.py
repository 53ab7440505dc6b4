"""Writing streams, as plans: append an entry, append the marker that closes it."""

from __future__ import annotations

from typing import Any

from ..logs import logger
from ..records import StepCompleted, StreamWritten
from ..serialization import WorkflowSerializationFormat
from .effects import effect_plan, encode_for
from .execution import Execution
from .feeds import CLOSED
from .plans import Plan

WRITE_STREAM = "DBOS.writeStream"
CLOSE_STREAM = "DBOS.closeStream"


def write_stream_plan(key: str, value: Any, serialization_type: WorkflowSerializationFormat | None) -> Plan[None]:
    def make(execution: Execution, step_id: int, step: StepCompleted | None) -> StreamWritten:
        text, format_name = encode_for(execution, value, serialization_type, f"the value for stream {key!r}")
        if key in execution.closed_streams:
            logger.warning(
                "Workflow %s writes to stream %r after closing it: readers have stopped there and never see the value",
                execution.workflow_id,
                key,
            )
        return _entry(execution, step_id, step, key, text, format_name)

    return effect_plan("DBOS.write_stream", WRITE_STREAM, make)


def close_stream_plan(key: str) -> Plan[None]:
    def make(execution: Execution, step_id: int, step: StepCompleted | None) -> StreamWritten:
        execution.closed_streams.add(key)
        return _entry(execution, step_id, step, key, *CLOSED)

    return effect_plan("DBOS.close_stream", CLOSE_STREAM, make)


def _entry(
    execution: Execution, step_id: int, step: StepCompleted | None, key: str, text: str, format_name: str | None
) -> StreamWritten:
    end = execution.stream_end(key)
    return StreamWritten(execution.workflow_id, execution.owner_token, step_id, key, text, format_name, end, step)
