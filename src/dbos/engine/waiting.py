"""Waiting and looking, as plans: durable sleep, results, status, the first of several workflows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSNonExistentWorkflowError
from ..logs import logger
from ..storage.rows import WorkflowRow, parse_attributes, parse_roles
from ..types import StepInfo, StepRecord, WorkflowStatus
from .context import current_context, current_execution
from .deadlines import LONGEST_WAIT_MS, Limit, deadline_row, in_ms, limit_from_now, recorded_deadline
from .execution import Completion, Execution
from .operations import GET_RESULT, GET_STATUS, misuse, operation_plan, record_operation, recorded_value
from .plans import Plan, Read, Wait
from .steps import record_step
from .workflows import SAFETY_POLL_SECONDS, await_completion, await_outcome, deliver

if TYPE_CHECKING:
    from .core import Core


# --- sleep


def sleep_plan(engine: Core, seconds: float) -> Plan[None]:
    """Record the wake-up time, then sleep until then; a replay sleeps what is left of it (04 R402)."""
    if seconds <= 0:
        return
    context = current_context()
    if context is not None and context.step_status is not None:
        raise misuse("DBOS.sleep cannot be called from a step. Use time.sleep or asyncio.sleep there.")
    execution = current_execution()
    if execution is None:
        raise DBOSException("DBOS.sleep must be called from within a workflow: outside, use time.sleep")
    step_id = execution.draw()
    wake_at = yield from recorded_deadline(execution, step_id)
    if wake_at is None:
        now = engine.clock.now()
        wake_at = now + seconds
        yield from record_step(
            execution, deadline_row(execution, step_id, wake_at, int(now * 1000), int(wake_at * 1000))
        )
    with engine.signals.watch(("cancelled", execution.workflow_id), unless=execution.goes_on) as waiter:
        while True:
            execution.check()
            now_ms = engine.clock.now_ms()
            if now_ms >= in_ms(wake_at) or waiter.fired:
                return
            yield Wait(waiter, min(in_ms(wake_at), now_ms + LONGEST_WAIT_MS))


# --- results


def handle_result_plan(
    engine: Core,
    workflow_id: str,
    completion: Completion | None,
    interval_seconds: float,
    *,
    must_exist: bool = False,
    timeout_seconds: float | None = None,
) -> Plan[Any]:
    """`get_result` of a handle: in workflow code recorded as `DBOS.getResult` with the awaited id.

    With `must_exist` a workflow that does not exist is an error, and not one that may still be started.
    DBOSResultTimeoutError if the result does not come in time, which is recorded as well.
    """
    execution = current_execution()
    limit = limit_from_now(engine, timeout_seconds)
    if execution is None:
        return (yield from _result(engine, workflow_id, completion, interval_seconds, None, must_exist, limit))
    step_id = execution.draw()
    recorded = yield from recorded_value(execution, step_id, GET_RESULT, workflow_id)
    if recorded is not None:
        return recorded.get()
    started_at_ms = engine.clock.now_ms()
    value: Any = None
    failure: Exception | None = None
    try:
        value = yield from _result(engine, workflow_id, completion, interval_seconds, execution, must_exist, limit)
    except Exception as error:
        failure = error
    yield from record_operation(
        execution,
        step_id,
        GET_RESULT,
        started_at_ms,
        value=value,
        error=failure,
        child_id=workflow_id,
        keep_existing=True,
    )
    if failure is not None:
        raise failure
    return value


def _result(
    engine: Core,
    workflow_id: str,
    completion: Completion | None,
    interval_seconds: float,
    waiting: Execution | None,
    must_exist: bool = False,
    limit: Limit | None = None,
) -> Plan[Any]:
    if completion is not None:
        try:
            return (yield from await_completion(engine, completion, waiting, workflow_id, limit))
        except DBOSAwaitedWorkflowCancelledError as cancelled:
            # It may have been resumed meanwhile; the row tells.
            if cancelled.workflow_id != workflow_id:
                raise
    outcome = yield from await_outcome(
        engine, workflow_id, interval_seconds=interval_seconds, must_exist=must_exist, waiting=waiting, limit=limit
    )
    return deliver(engine, outcome)


def result_plan(engine: Core, workflow_id: str, timeout_seconds: float | None = None) -> Plan[Any]:
    """`DBOS.get_result`: in workflow code recorded as one step and read back on replay."""
    limit = limit_from_now(engine, timeout_seconds)
    inner = _result(engine, workflow_id, None, 1.0, current_execution(), limit=limit)
    return (yield from operation_plan(GET_RESULT, inner))


def wait_first_plan(engine: Core, workflow_ids: Sequence[str], interval_seconds: float) -> Plan[str]:
    """The id of one of the workflows that has ended; in workflow code the winner is recorded."""
    inner = _first_final(engine, workflow_ids, interval_seconds, current_execution())
    return (yield from operation_plan("DBOS.waitFirst", inner))


def _first_final(
    engine: Core, workflow_ids: Sequence[str], interval_seconds: float, waiting: Execution | None
) -> Plan[str]:
    keys = [("finished", workflow_id) for workflow_id in workflow_ids]
    if waiting is not None:
        keys.append(("cancelled", waiting.workflow_id))
    pause_seconds = interval_seconds if interval_seconds < 1.0 else SAFETY_POLL_SECONDS
    existed: set[str] = set()
    while True:
        with engine.signals.watch(*keys) as waiter:
            final: list[str] = yield Read(lambda store: store.find_final(workflow_ids))
            if final:
                return final[0]
            existing: list[str] = yield Read(lambda store: store.find_existing(workflow_ids))
            if not existing and existed.issuperset(workflow_ids):
                # All were deleted.
                raise DBOSNonExistentWorkflowError("target", ", ".join(workflow_ids))
            existed.update(existing)
            if waiting is not None:
                waiting.check()
            yield Wait(waiter, engine.clock.now_ms() + int(pause_seconds * 1000))
        if waiting is not None:
            waiting.check()


# --- status and steps


def status_plan(engine: Core, workflow_id: str, *, step_id: int | None = None) -> Plan[WorkflowStatus | None]:
    """The status of a workflow with its payloads, or None; in workflow code recorded as `DBOS.getStatus`."""
    return (yield from operation_plan(GET_STATUS, _status(engine, workflow_id), step_id=step_id))


def existing_status_plan(engine: Core, workflow_id: str, *, step_id: int | None = None) -> Plan[WorkflowStatus]:
    """As `status_plan`, but a missing workflow is an error; what is recorded is the None (02 R94)."""
    status = yield from status_plan(engine, workflow_id, step_id=step_id)
    if status is None:
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    return status


def _status(engine: Core, workflow_id: str) -> Plan[WorkflowStatus | None]:
    row: WorkflowRow | None = yield Read(lambda store: store.get_workflow(workflow_id))
    return None if row is None else to_status(engine, row)


def steps_plan(
    engine: Core, workflow_id: str, load_output: bool, limit: int | None, offset: int | None
) -> Plan[list[StepInfo]]:
    """The recorded steps of a workflow, by step id."""
    inner = _steps(engine, workflow_id, load_output, limit, offset)
    return (yield from operation_plan("DBOS.listWorkflowSteps", inner, record_errors=False))


def _steps(
    engine: Core, workflow_id: str, load_output: bool, limit: int | None, offset: int | None
) -> Plan[list[StepInfo]]:
    found: list[StepRecord] = yield Read(
        lambda store: store.list_steps(
            workflow_id,
            load_output=load_output,
            limit=limit,
            offset=offset,
            timeout_seconds=engine.settings.observability_query_timeout_seconds,
        )
    )
    return [to_step_info(engine, workflow_id, record) for record in found]


def to_status(engine: Core, row: WorkflowRow) -> WorkflowStatus:
    """A row as the public record; a payload that cannot be read back is its stored text."""
    payloads = engine.payloads
    status = WorkflowStatus()
    status.workflow_id = row.workflow_id
    status.status = row.status
    status.name = row.name
    status.class_name = row.class_name
    status.config_name = row.config_name
    status.authenticated_user = row.authenticated_user
    status.assumed_role = row.assumed_role
    status.authenticated_roles = None
    if row.authenticated_roles is not None:
        status.authenticated_roles = tolerantly(row.workflow_id, row.authenticated_roles, parse_roles)
    status.input = None
    if row.inputs is not None:
        status.input = tolerantly(row.workflow_id, row.inputs, lambda text: _arguments(engine, text, row.serialization))
    status.output = None
    if row.output is not None and row.status == "SUCCESS":
        status.output = tolerantly(
            row.workflow_id, row.output, lambda text: payloads.decode_value(text, row.serialization)
        )
    status.error = None
    if row.error is not None and row.status == "ERROR":
        status.error = tolerantly(
            row.workflow_id, row.error, lambda text: payloads.decode_error(text, row.serialization)
        )
    status.created_at = row.created_at
    status.updated_at = row.updated_at
    status.queue_name = row.queue_name
    status.executor_id = row.executor_id
    status.app_version = row.application_version
    status.workflow_timeout_ms = row.timeout_ms
    status.workflow_deadline_epoch_ms = row.deadline_ms
    status.deduplication_id = row.deduplication_id
    status.priority = row.priority
    status.queue_partition_key = row.queue_partition_key
    status.forked_from = row.forked_from
    status.was_forked_from = bool(row.was_forked_from)
    status.parent_workflow_id = row.parent_workflow_id
    status.dequeued_at = row.started_at_ms
    status.delay_until_epoch_ms = row.delay_until_ms
    status.completed_at = row.completed_at
    status.attributes = None
    if row.attributes is not None:
        status.attributes = tolerantly(row.workflow_id, row.attributes, parse_attributes)
    status.schedule_name = row.schedule_name
    status.application_name = row.application_name
    status.shard_key = None
    status.parent_shard_key = None
    status.recovery_attempts = row.recovery_attempts
    status.app_id = row.application_id
    return status


def tolerantly(workflow_id: str, text: str, decode: Callable[[str], Any]) -> Any:
    """The decoded payload, or its stored text with a warning: a listing never fails on one row (05 R71)."""
    try:
        return decode(text)
    except Exception as error:
        logger.warning("A payload of workflow %s cannot be read back and is shown as stored: %s", workflow_id, error)
        return text


def _arguments(engine: Core, text: str, format_name: str | None) -> dict[str, Any]:
    args, kwargs = engine.payloads.decode_arguments(text, format_name)
    return {"args": args, "kwargs": kwargs}


def to_step_info(engine: Core, workflow_id: str, record: StepRecord) -> StepInfo:
    payloads = engine.payloads
    output, error = None, None
    if record.output is not None:
        output = tolerantly(workflow_id, record.output, lambda text: payloads.decode_value(text, record.serialization))
    if record.error is not None:
        error = tolerantly(workflow_id, record.error, lambda text: payloads.decode_error(text, record.serialization))
    return StepInfo(
        function_id=record.step_id,
        function_name=record.name,
        output=output,
        error=error,
        child_workflow_id=record.child_workflow_id,
        child_shard_key=None,
        started_at_epoch_ms=record.started_at_ms,
        completed_at_epoch_ms=record.completed_at_ms,
    )
