"""Effects: what workflow and step code does to the outside, durable together with its step row.

In workflow code an effect takes a step id, and a replay does not repeat it. In step code it has no record of its own:
it is written at once, and again when the step is run again. Both only while the execution owns its workflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..error import DBOSException
from ..records import Effect, StepCompleted
from ..serialization import PORTABLE, WorkflowSerializationFormat, explain
from .context import current_context
from .execution import Execution
from .operations import decode, record_operation
from .plans import Commit, Plan
from .steps import accept, record_step

# Makes the effect of an execution and a step id, with the step row where it has one.
Make = Callable[[Execution, int, "StepCompleted | None"], Effect]
# Finds out why an execution must not have an effect, if it must not.
Check = Callable[[Execution], Plan["DBOSException | None"]]


def effect_plan(call: str, name: str, make: Make, check: Check | None = None) -> Plan[None]:
    """Do what `make` says, once in workflow code, where it is recorded under `name`; so is what `check` refuses."""
    execution = execution_of(call)
    context = current_context()
    assert context is not None
    if context.step_status is not None:
        execution.check()
        assert context.step_status.step_id is not None
        if check is not None and (refused := (yield from check(execution))) is not None:
            raise refused
        effect = make(execution, context.step_status.step_id, None)
        accept(execution, context.step_status.step_id, (yield Commit(effect)))
        return
    step_id = execution.draw()
    record = yield from execution.find_recorded(step_id, name)
    if record is not None:
        decode(execution, record).get()
        return
    step = step_row(execution, step_id, name, execution.engine.clock.now_ms())
    if check is not None and (refused := (yield from check(execution))) is not None:
        yield from record_operation(execution, step_id, name, step.started_at_ms, error=refused)
        raise refused
    effect = make(execution, step_id, step)
    step.completed_at_ms = execution.engine.clock.now_ms()
    yield from record_step(execution, step, effect)


def execution_of(call: str) -> Execution:
    """The execution whose workflow or step code makes a call that plain code cannot make."""
    context = current_context()
    if context is None or context.execution is None:
        raise DBOSException(f"{call} must be called from within a workflow or step")
    return context.execution


def step_row(execution: Execution, step_id: int, name: str, started_at_ms: int) -> StepCompleted:
    """The row of an operation without a payload of its own."""
    return StepCompleted(
        execution.workflow_id,
        execution.owner_token,
        step_id,
        name,
        None,
        None,
        None,
        started_at_ms,
        started_at_ms,
        execution.engine.settings.name,
    )


def encode_for(
    execution: Execution, value: Any, serialization_type: WorkflowSerializationFormat | None, what: str
) -> tuple[str, str]:
    """A value that leaves a workflow as text, and its format: the one asked for, else that of the workflow (04 R112).

    Raises:
        Exception: what the serializer raises for a value that cannot be stored, with `what` it is. Nothing was written.
    """
    payloads = execution.engine.payloads
    format_name = payloads.format_for(serialization_type)
    if serialization_type in (None, WorkflowSerializationFormat.DEFAULT) and execution.serialization == PORTABLE:
        format_name = PORTABLE
    try:
        return payloads.encode_value(value, format_name), format_name
    except Exception as error:
        explained = explain(error, f"{what} of workflow {execution.workflow_id}, a {type(value).__name__},")
        raise explained from error
