"""Workflows: start, execute, record the outcome, wait for it.

    none --start--> PENDING --outcome by the owner--> SUCCESS | ERROR
    none --enqueue--> ENQUEUED --claim--> PENDING
    PENDING --recovery--> ENQUEUED (its queue, or the internal one)
    PENDING --attempts used up--> MAX_RECOVERY_ATTEMPTS_EXCEEDED
    active --cancel, or deadline passed--> CANCELLED
    all but SUCCESS and ERROR --resume--> ENQUEUED

An execution that loses its workflow (cancelled, or owned by another execution) parks: it stops working and delivers
the outcome somebody else records.
"""

from __future__ import annotations

from concurrent.futures import CancelledError as FutureCancelledError
from typing import TYPE_CHECKING, Any

from ..error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSNotAuthorizedError,
    DBOSResultTimeoutError,
    DBOSWorkflowCancelledError,
    DBOSWorkflowConflictIDError,
)
from ..logs import logger
from ..records import (
    Verdict,
    WorkflowFinished,
)
from ..serialization import explain, explain_unreadable
from ..storage.store import StoreFailed
from ..types import WorkflowOutcome
from .context import Context, Identity, current_context, enter, leave
from .errors import EngineStopped, ExecutionInterrupted
from .execution import Completion, Execution
from .operations import GET_RESULT, Recorded, record_operation, recorded_value
from .plans import Commit, Plan, Read, Wait
from .starting import Started, Target, start_plan

if TYPE_CHECKING:
    from .core import Core
    from .deadlines import Limit
    from .engine import Engine

# How long a waiter sleeps at most before it looks again, whatever the signals say.
SAFETY_POLL_SECONDS = 30.0


# --- calling


def call_plan(engine: Engine, target: Target) -> Plan[Any]:
    """A direct call: start the workflow and execute it here, or wait for the one that has the id."""
    context = current_context()
    parent = context.execution if context is not None and context.step_status is None else None
    check_roles(target.info, context.identity if context is not None else None)
    if parent is None:
        started = yield from start_plan(engine, target, direct=True)
        return (yield from _execute_or_wait(engine, started, target, None))
    started_at_ms = engine.clock.now_ms()
    start_id, result_id = parent.draw(), parent.draw()
    child_id: str | None = None
    value: Any = None
    failure: Exception | None = None
    recorded: Recorded | None = None
    try:
        started = yield from start_plan(engine, target, step_id=start_id, direct=True)
        child_id = started.workflow_id
        recorded = yield from recorded_value(parent, result_id, GET_RESULT, child_id)
        if recorded is None:
            value = yield from _execute_or_wait(engine, started, target, parent)
    except Exception as error:
        failure = error
    if recorded is not None:
        return recorded.get()
    yield from record_operation(
        parent,
        result_id,
        GET_RESULT,
        started_at_ms,
        value=value,
        error=failure,
        child_id=child_id,
        keep_existing=True,
    )
    if failure is not None:
        raise failure
    return value


def _execute_or_wait(engine: Engine, started: Started, target: Target, waiting: Execution | None) -> Plan[Any]:
    if started.execution is None:
        outcome = yield from await_outcome(engine, started.workflow_id, must_exist=True, waiting=waiting)
        return deliver(engine, outcome)
    engine.enter(started.execution)
    try:
        return (yield from execute_plan(started.execution, target, started.identity))
    finally:
        engine.leave(started.execution)


def check_roles(info: Any, identity: Identity | None) -> None:
    """Choose the assumed role, or raise DBOSNotAuthorizedError."""
    required = info.roles
    if not required:
        return
    if identity is None or identity.roles is None:
        raise DBOSNotAuthorizedError(
            f"Function {info.name!r} needs one of the roles {required}, but no authentication information is set. "
            f"Call it inside `with DBOSContextSetAuth(user, roles)`."
        )
    for role in required:
        if role in identity.roles:
            identity.assumed_role = role
            return
    raise DBOSNotAuthorizedError(
        f"Function {info.name!r} needs one of the roles {required}; user {identity.user!r} has {identity.roles}."
    )


# --- executing


def execute_plan(execution: Execution, target: Target, identity: Identity | None) -> Plan[Any]:
    """Run the body and record what came of it; park when the workflow belongs to somebody else by then."""
    value: Any = None
    failure: Exception | None = None
    lost = False
    token = enter(Context(execution, None, identity))
    try:
        value = yield target.body()
    except (DBOSWorkflowConflictIDError, DBOSWorkflowCancelledError) as error:
        execution.stop(error)
        lost = True
    except FutureCancelledError:
        # An event loop was shut down under the body: like a crash, never an outcome (02 R259).
        raise
    except Exception as error:
        failure = error
    finally:
        leave(token)
    if isinstance(execution.stop_error, EngineStopped):
        raise execution.stop_error
    if lost or execution.stop_error is not None:
        return (yield from park_plan(execution))
    output: str | None = None
    if failure is None:
        try:
            output = encode_output(execution, value)
        except Exception as error:
            failure = error
    record = outcome_record(execution, output, failure)
    try:
        # What comes behind the last commit has no thread of its own, so nothing is decoded there.
        answer = yield Commit(record, is_last=record.error is None and not target.info.stored_result)
    except StoreFailed as error:
        raise ExecutionInterrupted(error) from error
    except DBOSException as refused:
        # The database will not take this outcome; the refusal itself is the outcome then.
        failure = refused
        record = outcome_record(execution, None, failure)
        answer = yield Commit(record)
    if answer is not Verdict.APPLIED:
        execution.fenced()
        return (yield from park_plan(execution))
    if target.info.stored_result:
        return deliver(execution.engine, as_outcome(record))
    if failure is not None:
        raise failure
    return value


def as_outcome(record: WorkflowFinished) -> WorkflowOutcome:
    """What those find who look for the outcome that was recorded."""
    return WorkflowOutcome(record.workflow_id, record.status, record.output, record.error, record.serialization)


def encode_output(execution: Execution, value: Any) -> str:
    """The text of a result. One that cannot be stored raises, and is a failure of the workflow."""
    payloads = execution.engine.payloads
    try:
        return payloads.encode_value(value, execution.serialization or payloads.configured_name)
    except Exception as error:
        what = f"the result of workflow {execution.name!r} (id {execution.workflow_id}), a {type(value).__name__}"
        raise explain(error, what) from error


def outcome_record(execution: Execution, output: str | None, failure: Exception | None) -> WorkflowFinished:
    """SUCCESS with the encoded value, or ERROR with the failure."""
    payloads = execution.engine.payloads
    record = WorkflowFinished(
        execution.workflow_id,
        execution.owner_token,
        "SUCCESS",
        output,
        None,
        execution.serialization,
        execution.engine.dispatcher.shared_queue(execution.queue_name),
    )
    if failure is not None:
        record.status = "ERROR"
        format_name = execution.serialization or payloads.configured_name
        record.error, _ = payloads.encode_error_always(failure, format_name)
    return record


def park_plan(execution: Execution) -> Plan[Any]:
    """Stop working and deliver the outcome that somebody else records."""
    engine = execution.engine
    engine.leave(execution)
    logger.warning(
        "Execution of workflow %s stops: %s. It delivers the outcome that will be recorded",
        execution.workflow_id,
        "the workflow was cancelled"
        if isinstance(execution.stop_error, DBOSWorkflowCancelledError)
        else "another execution owns the workflow, or it was cancelled",
    )
    outcome = yield from await_outcome(engine, execution.workflow_id, must_exist=True)
    return deliver(engine, outcome)


# --- waiting for an outcome


def await_outcome(
    engine: Core,
    workflow_id: str,
    *,
    interval_seconds: float = 1.0,
    must_exist: bool = False,
    waiting: Execution | None = None,
    limit: Limit | None = None,
) -> Plan[WorkflowOutcome]:
    """Wait until the workflow has ended; DBOSResultTimeoutError if it has not within the `limit`.

    Woken by signals; other processes' work is looked at once per second for all waiters together (`services.Watcher`).
    An interval shorter than that makes this waiter look by itself. `waiting` is the execution that waits, which a
    cancellation wakes. A workflow that is deleted, or with `must_exist` does not exist, is an error; without, one that
    is not there may still be started (05 R80).
    """
    has_existed = False
    keys = [("finished", workflow_id)]
    if waiting is not None:
        keys.append(("cancelled", waiting.workflow_id))
    pause_seconds = interval_seconds if interval_seconds < 1.0 else SAFETY_POLL_SECONDS
    while True:
        with engine.signals.watch(*keys) as waiter:
            found = yield Read(lambda store: store.find_outcomes([workflow_id]))
            outcome: WorkflowOutcome | None = found.get(workflow_id)
            if outcome is None and (must_exist or has_existed):
                raise DBOSNonExistentWorkflowError("target", workflow_id)
            has_existed = outcome is not None
            if outcome is not None and outcome.is_final:
                return outcome
            if waiting is not None:
                waiting.check()
            now_ms = engine.clock.now_ms()
            wake_ms = now_ms + int(pause_seconds * 1000)
            if limit is not None:
                if now_ms >= limit.until_ms:
                    raise DBOSResultTimeoutError(workflow_id, limit.seconds)
                wake_ms = min(wake_ms, limit.until_ms)
            yield Wait(waiter, wake_ms)
            if isinstance(waiter.value, WorkflowOutcome):
                return waiter.value
        if waiting is not None:
            waiting.check()


def await_completion(
    engine: Core, completion: Completion, waiting: Execution | None, workflow_id: str = "", limit: Limit | None = None
) -> Plan[Any]:
    """Wait for an execution of this process; its live value, no database. The limit as of `await_outcome`."""
    if not completion.done:
        waiter = completion.watch()
        until_ms = None if limit is None else limit.until_ms
        if waiting is None:
            yield Wait(waiter, until_ms)
        else:
            with engine.signals.watch(("cancelled", waiting.workflow_id), unless=waiting.goes_on) as cancelled:
                # One sleeper for both: a cancellation of the waiting workflow fires the other waiter as well.
                cancelled.install(waiter.fire)
                waiting.check()
                yield Wait(waiter, until_ms)
            waiting.check()
        if limit is not None and not completion.done:
            completion.forget(waiter)
            raise DBOSResultTimeoutError(workflow_id, limit.seconds)
    return completion.result()


def deliver(engine: Core, outcome: WorkflowOutcome) -> Any:
    """The recorded value, or the recorded error raised."""
    if outcome.status == "SUCCESS":
        try:
            return engine.payloads.decode_value(outcome.output, outcome.serialization)
        except Exception as error:
            what = f"the output of workflow {outcome.workflow_id}"
            raise explain_unreadable(error, what, outcome.serialization) from error
    if outcome.status == "ERROR":
        if outcome.error is None:
            raise DBOSException(f"Workflow {outcome.workflow_id} ended in ERROR, but its error is not stored any more")
        try:
            failure = engine.payloads.decode_error(outcome.error, outcome.serialization)
        except Exception as error:
            what = f"the error of workflow {outcome.workflow_id}"
            raise explain_unreadable(error, what, outcome.serialization) from error
        raise failure
    if outcome.status == "CANCELLED":
        raise DBOSAwaitedWorkflowCancelledError(outcome.workflow_id)
    raise DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded(outcome.workflow_id)
