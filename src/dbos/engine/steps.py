"""One step: find it recorded, or run it, retry, time out, and record it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass
from typing import Any

from ..error import (
    DBOSMaxStepRetriesExceeded,
    DBOSStepNondeterminismError,
    DBOSStepTimeoutError,
)
from ..logs import logger
from ..records import Effect, StepCompleted, Verdict
from ..serialization import explain, explain_unreadable
from ..storage.store import StoreFailed
from ..types import StepRecord, StepStatus
from .context import Context, current_context, enter, leave
from .errors import ExecutionInterrupted
from .execution import Execution
from .plans import AttemptPreempted, AttemptTimedOut, Call, Commit, Pause, Plan

LONGEST_RETRY_WAIT_SECONDS = 3600.0


@dataclass(slots=True)
class StepSpec:
    """How a step runs: its name and the options of `@DBOS.step` or `DBOS.run_step`."""

    name: str
    is_async: bool
    retries_allowed: bool = False
    interval_seconds: float = 1.0
    max_attempts: int = 3
    backoff_rate: float = 2.0
    should_retry: Callable[[BaseException], bool | Awaitable[bool]] | None = None
    preemptible: bool = False
    timeout_seconds: float | None = None
    in_thread: bool = False

    def retry_wait_seconds(self, attempt: int) -> float:
        """The wait after failed attempt number `attempt`, counted from 0; never overflows (02 R243)."""
        if self.interval_seconds == 0:
            return 0.0
        try:
            wait = self.interval_seconds * self.backoff_rate**attempt
        except OverflowError:
            return LONGEST_RETRY_WAIT_SECONDS
        return min(wait, LONGEST_RETRY_WAIT_SECONDS)


def step_plan(
    execution: Execution,
    step_id: int,
    spec: StepSpec,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Plan[Any]:
    """Find the step recorded, or run it and record what came of it."""
    engine = execution.engine
    if execution.recorded or step_id > execution.known_until or execution.stop_error is not None:
        recorded = yield from execution.find_recorded(step_id, spec.name)
        if recorded is not None:
            return replay(execution, recorded)
    started_at_ms = engine.clock.now_ms()
    failure: Exception | None = None
    value: Any = None
    context = current_context()
    identity = context.identity.copy() if context is not None else None
    max_attempts = spec.max_attempts if spec.retries_allowed else None
    status = StepStatus(step_id, 0 if max_attempts is not None else None, max_attempts)
    token = enter(Context(execution, status, identity))
    try:
        if spec.retries_allowed or spec.preemptible or spec.timeout_seconds is not None:
            value = yield from _attempts(execution, step_id, spec, function, args, kwargs)
        else:
            value = yield Call(function, args, kwargs, spec.is_async, spec.in_thread)
    except FutureCancelledError:
        # An event loop was shut down under the body: like a crash, never recorded (02 R259).
        raise
    except Exception as error:
        failure = error
    finally:
        leave(token)
    record = StepCompleted(
        execution.workflow_id,
        execution.owner_token,
        step_id,
        spec.name,
        None,
        None,
        engine.payloads.configured_name,
        started_at_ms,
        0,
        engine.settings.name,
    )
    if failure is None:
        try:
            record.output = engine.payloads.encode_value(value)
        except Exception as error:
            failure = explain(
                error,
                f"the result of step {spec.name!r} (id {step_id}) of workflow {execution.workflow_id}, "
                f"a {type(value).__name__}",
            )
            failure.__cause__ = error if failure is not error else error.__cause__
    if failure is not None:
        record.error, record.serialization = engine.payloads.encode_error_always(failure)
    record.completed_at_ms = engine.clock.now_ms()
    yield from record_step(execution, record)
    if failure is not None:
        raise failure
    return value


def record_step(execution: Execution, record: StepCompleted, effect: Effect | None = None) -> Plan[None]:
    """Make a step row durable, with what the step does if it does something, or stop this execution."""
    try:
        answer = yield Commit(effect or record)
    except StoreFailed as error:
        raise ExecutionInterrupted(error) from error
    accept(execution, record.step_id, answer)


def accept(execution: Execution, step_id: int, verdict: Any) -> None:
    """Go on when the step row is written; stop this execution otherwise."""
    if verdict is Verdict.APPLIED:
        return
    if verdict is Verdict.REPEATED:
        raise DBOSStepNondeterminismError(execution.workflow_id, step_id)
    raise execution.fenced()


def replay(execution: Execution, record: StepRecord) -> Any:
    """The recorded value, or the recorded error raised."""
    if record.error is not None:
        raise recorded_error(execution, record)
    if record.output is None:
        raise Exception(
            f"Step {record.step_id} ({record.name!r}) of workflow {execution.workflow_id} has a record with neither "
            f"a value nor an error: another kind of operation of the same name wrote it."
        )
    return recorded_output(execution, record)


def recorded_output(execution: Execution, record: StepRecord) -> Any:
    """The value of a step; an error that names it if it cannot be read."""
    try:
        return execution.engine.payloads.decode_value(record.output, record.serialization)
    except Exception as error:
        raise _unreadable(error, "output", execution, record) from error


def recorded_error(execution: Execution, record: StepRecord) -> BaseException:
    """The error of a step; one that names it if it cannot be read."""
    assert record.error is not None
    try:
        return execution.engine.payloads.decode_error(record.error, record.serialization)
    except Exception as error:
        raise _unreadable(error, "error", execution, record) from error


def _unreadable(error: Exception, field: str, execution: Execution, record: StepRecord) -> Exception:
    what = f"the recorded {field} of step {record.step_id} ({record.name!r}) of workflow {execution.workflow_id}"
    return explain_unreadable(error, what, record.serialization)


def _attempts(
    execution: Execution,
    step_id: int,
    spec: StepSpec,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Plan[Any]:
    """Call ... Pause ... Call, until one attempt succeeds or the last has failed."""
    engine = execution.engine
    errors: list[Exception] = []
    attempts = spec.max_attempts if spec.retries_allowed else 1
    context = current_context()
    assert context is not None
    for attempt in range(attempts):
        if spec.retries_allowed:
            context.step_status = StepStatus(step_id, attempt, attempts)
        try:
            return (yield from _attempt(execution, spec, function, args, kwargs))
        except FutureCancelledError:
            raise
        except Exception as error:
            if not spec.retries_allowed:
                raise
            if spec.should_retry is not None and not (yield from _wants_retry(spec, error)):
                raise
            errors.append(error)
        if attempt + 1 < attempts:
            wait_seconds = spec.retry_wait_seconds(attempt)
            logger.warning(
                "Step %r of workflow %s failed in attempt %d of %d, next try in %.3g s: %s: %s",
                spec.name,
                execution.workflow_id,
                attempt + 1,
                attempts,
                wait_seconds,
                type(errors[-1]).__name__,
                errors[-1],
            )
            with engine.signals.watch(("cancelled", execution.workflow_id), unless=execution.goes_on) as waiter:
                execution.check()
                yield Pause(wait_seconds, waiter)
            execution.check()
    raise DBOSMaxStepRetriesExceeded(spec.name, spec.max_attempts, errors)


def _attempt(
    execution: Execution,
    spec: StepSpec,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Plan[Any]:
    call = Call(function, args, kwargs, spec.is_async, spec.in_thread, spec.timeout_seconds)
    try:
        if not spec.preemptible:
            return (yield call)
        signals, key = execution.engine.signals, ("cancelled", execution.workflow_id)
        with signals.watch(key, unless=execution.goes_on) as waiter:
            execution.check()
            call.preempt = waiter
            return (yield call)
    except AttemptTimedOut as timed_out:
        assert spec.timeout_seconds is not None
        raise DBOSStepTimeoutError(spec.name, spec.timeout_seconds) from timed_out.cause
    except AttemptPreempted:
        raise (execution.stop_error or execution.cancelled()) from None


def _wants_retry(spec: StepSpec, error: Exception) -> Plan[bool]:
    assert spec.should_retry is not None
    wanted = spec.should_retry(error)
    if isinstance(wanted, Awaitable) and spec.is_async:
        wanted = yield Call(_awaited, (wanted,), is_async=True)
    return bool(wanted)


async def _awaited(value: Awaitable[bool]) -> bool:
    return await value
