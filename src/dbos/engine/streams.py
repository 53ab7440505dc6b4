"""Writing streams, as plans: append an entry, append the marker that closes it."""

from __future__ import annotations

from typing import Any

from ..error import DBOSException, DBOSStreamClosedError
from ..logs import logger
from ..records import StepCompleted, StreamWritten
from ..serialization import WorkflowSerializationFormat
from .effects import effect_plan, encode_for
from .execution import Execution
from .feeds import CLOSED
from .plans import Plan, Read

WRITE_STREAM = "DBOS.writeStream"
CLOSE_STREAM = "DBOS.closeStream"


def write_stream_plan(
    key: str, value: Any, serialization_type: WorkflowSerializationFormat | None, *, must_be_open: bool = False
) -> Plan[None]:
    def check(execution: Execution) -> Plan[DBOSException | None]:
        end = execution.stream_end(key)
        if end.is_closed is None:
            # An earlier execution may have closed it. Since this one owns the workflow, nobody else does any more.
            found = yield Read(lambda store: store.has_marker(execution.workflow_id, key))
            end.is_closed = end.is_closed or found
        return DBOSStreamClosedError(execution.workflow_id, key) if end.is_closed else None

    def make(execution: Execution, step_id: int, step: StepCompleted | None) -> StreamWritten:
        text, format_name = encode_for(execution, value, serialization_type, f"the value for stream {key!r}")
        if execution.stream_end(key).is_closed:
            logger.warning(
                "Workflow %s writes to stream %r after closing it: readers have stopped there and never see the value",
                execution.workflow_id,
                key,
            )
        return _entry(execution, step_id, step, key, text, format_name)

    return effect_plan("DBOS.write_stream", WRITE_STREAM, make, check if must_be_open else None)


def close_stream_plan(key: str) -> Plan[None]:
    def make(execution: Execution, step_id: int, step: StepCompleted | None) -> StreamWritten:
        execution.stream_end(key).is_closed = True
        return _entry(execution, step_id, step, key, *CLOSED)

    return effect_plan("DBOS.close_stream", CLOSE_STREAM, make)


def _entry(
    execution: Execution, step_id: int, step: StepCompleted | None, key: str, text: str, format_name: str | None
) -> StreamWritten:
    end = execution.stream_end(key)
    return StreamWritten(execution.workflow_id, execution.owner_token, step_id, key, text, format_name, end, step)
