"""Operations of a workflow that are recorded like a step: the generic path of reads and management calls.

Their value, or their exception, becomes a step row; a replay takes it from there. In step code and plain code the
same operations run unrecorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..error import DBOSException, DBOSStepNondeterminismError
from ..logs import logger
from ..records import StepCompleted, Verdict
from ..storage.store import StoreFailed
from .context import Context, current_context, current_execution, enter, leave
from .errors import ExecutionInterrupted
from .execution import Execution
from .plans import Plan
from .steps import accept, record_step, recorded_error, recorded_output

if TYPE_CHECKING:
    from ..types import StepRecord
    from .core import Core

T = TypeVar("T")

GET_RESULT = "DBOS.getResult"
GET_STATUS = "DBOS.getStatus"


class MisplacedCall(DBOSException, AssertionError):
    """A call where it is not allowed. Also an AssertionError, which programs may catch for historic reasons."""


def misuse(message: str) -> MisplacedCall:
    return MisplacedCall(message)


@dataclass(slots=True)
class Recorded:
    """A value or an error found in the history."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def operation_plan(
    name: str,
    inner: Plan[T],
    *,
    child_id: str | None = None,
    record_errors: bool = True,
    step_id: int | None = None,
) -> Plan[T]:
    """Carry out `inner`; in workflow code draw a step id for it, if the caller has not, and record what came of it."""
    execution = current_execution()
    if execution is None:
        return (yield from inner)
    if step_id is None:
        step_id = execution.draw()
    record = yield from execution.find_recorded(step_id, name)
    if record is not None:
        inner.close()
        found: T = decode(execution, record).get()
        return found
    started_at_ms = execution.engine.clock.now_ms()
    context = current_context()
    assert context is not None
    token = enter(Context(execution, _status(step_id), context.identity))
    failure: Exception | None = None
    value: Any = None
    try:
        value = yield from inner
    except Exception as error:
        failure = error
    finally:
        leave(token)
    if failure is not None and not record_errors:
        raise failure
    yield from record_operation(execution, step_id, name, started_at_ms, value=value, error=failure, child_id=child_id)
    if failure is not None:
        raise failure
    result: T = value
    return result


# Changes something in the database, in workflow code together with the step row it is given (see `change_plan`).
Change = Callable[["StepCompleted | None"], Plan[T]]


def change_plan(engine: Core, name: str, change: Change[T], *, step_id: int | None = None) -> Plan[T]:
    """Carry out `change`; in workflow code as a step, which is written in the transaction of the change.

    A value other than None has to be put into the step (`set_output`). What `change` refuses with a DBOSException is
    recorded as the step's error. `step_id` is that of the step, when the caller has drawn it already.
    """
    execution = current_execution()
    if execution is None:
        return (yield from change(None))
    if step_id is None:
        step_id = execution.draw()
    record = yield from execution.find_recorded(step_id, name)
    if record is not None:
        found: T = decode(execution, record).get()
        return found
    now_ms = engine.clock.now_ms()
    step = StepCompleted(
        execution.workflow_id,
        execution.owner_token,
        step_id,
        name,
        None,
        None,
        None,
        now_ms,
        now_ms,
        engine.application_name,
    )
    set_output(step, None)
    try:
        value = yield from change(step)
    except StoreFailed as error:
        raise ExecutionInterrupted(error) from error
    except DBOSStepNondeterminismError:
        raise
    except DBOSException as error:
        yield from record_operation(execution, step_id, name, now_ms, error=error)
        raise
    # The change may have been that of the workflow itself: it goes no further then.
    execution.check()
    return value


def set_output(step: StepCompleted, value: Any) -> None:
    """What a replay of the step of a change returns."""
    payloads = _asking(step).engine.payloads
    step.output, step.serialization = payloads.encode_value(value), payloads.configured_name


def accept_change(step: StepCompleted | None, verdict: Verdict) -> None:
    """Go on when a change is made; stop the execution that asked for it when it has lost its workflow."""
    if step is not None:
        accept(_asking(step), step.step_id, verdict)


def _asking(step: StepCompleted) -> Execution:
    """The execution whose step it is."""
    execution = current_execution()
    assert execution is not None
    assert execution.workflow_id == step.workflow_id
    return execution


def recorded_value(execution: Execution, step_id: int, name: str, child_id: str | None) -> Plan[Recorded | None]:
    """The recorded result of waiting for `child_id`, if it stands at this position.

    A row of another name or about another workflow is left alone: older histories drew this id only after the
    result had arrived, so the order among concurrent waits may differ (02 R136).
    """
    execution.check()
    if step_id > execution.known_until:
        yield from execution.load_until(step_id)
    record = execution.recorded.get(step_id)
    if record is None or record.name != name or record.child_workflow_id != child_id:
        return None
    del execution.recorded[step_id]
    return decode(execution, record)


def decode(execution: Execution, record: StepRecord) -> Recorded:
    if record.error is not None:
        return Recorded(error=recorded_error(execution, record))
    return Recorded(recorded_output(execution, record))


def record_operation(
    execution: Execution,
    step_id: int,
    name: str,
    started_at_ms: int,
    *,
    value: Any = None,
    error: Exception | None = None,
    child_id: str | None = None,
    keep_existing: bool = False,
) -> Plan[None]:
    """Write the step row of an operation.

    An error is recorded as itself or as the nearest thing that can be stored, so that a replay meets one too. A value
    that cannot be stored is not recorded.
    """
    engine = execution.engine
    record = StepCompleted(
        execution.workflow_id,
        execution.owner_token,
        step_id,
        name,
        None,
        None,
        engine.payloads.configured_name,
        started_at_ms,
        engine.clock.now_ms(),
        engine.settings.name,
        child_id,
        keep_existing,
    )
    if error is not None:
        record.error, record.serialization = engine.payloads.encode_error_always(error)
    else:
        try:
            record.output = engine.payloads.encode_value(value)
        except Exception as problem:
            logger.warning(
                "The result of %s in workflow %s (step %d) cannot be stored, so a replay asks again: %s",
                name,
                execution.workflow_id,
                step_id,
                problem,
            )
            return
    yield from record_step(execution, record)


def _status(step_id: int) -> Any:
    from ..types import StepStatus

    return StepStatus(step_id, None, None)
