"""Every error the library raises on purpose: what happened, to which workflow, and what to do next.

Errors are recorded in the database when they end a step or a workflow, and raised again by a replay or by
whoever waits for the result. They therefore pickle as their class plus its constructor arguments, and under
the module path `dbos._error`, which is part of the persisted format.

Two roots: `DBOSException` is an ordinary exception. `DBOSBaseException` is not, so that `except Exception` in
a workflow does not swallow "this execution must stop".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Union

__all__ = [
    "DBOSAwaitedWorkflowCancelledError",
    "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded",
    "DBOSBaseException",
    "DBOSConflictingWorkflowError",
    "DBOSErrorCode",
    "DBOSException",
    "DBOSInitializationError",
    "DBOSMaxStepRetriesExceeded",
    "DBOSNonExistentWorkflowError",
    "DBOSNotAuthorizedError",
    "DBOSPatchNondeterminismError",
    "DBOSQueryTimeoutError",
    "DBOSQueueDeduplicatedError",
    "DBOSRecoveryError",
    "DBOSResultTimeoutError",
    "DBOSStepNondeterminismError",
    "DBOSStepTimeoutError",
    "DBOSStreamClosedError",
    "DBOSStreamEndedError",
    "DBOSStreamNondeterminismError",
    "DBOSStreamTimeoutError",
    "DBOSUnexpectedStepError",
    "DBOSWorkflowCancelledError",
    "DBOSWorkflowConflictIDError",
    "DBOSWorkflowFunctionNotFoundError",
    "DBOSWorkflowIDInUseError",
    "JsonValue",
    "MaxRecoveryAttemptsExceededError",
    "PortableWorkflowError",
    "is_workflow_id_in_use_error",
]


class DBOSErrorCode(enum.Enum):
    """The numbers in `dbos_error_code`. They are stable: clients in other languages know them too."""

    ConflictingIDError = 1
    RecoveryError = 2
    InitializationError = 3
    WorkflowFunctionNotFound = 4
    NonExistentWorkflowError = 5
    MaxRecoveryAttemptsExceeded = 6
    MaxStepRetriesExceeded = 7
    NotAuthorized = 8
    ConflictingWorkflowError = 9
    WorkflowCancelled = 10
    UnexpectedStep = 11
    QueueDeduplicated = 12
    AwaitedWorkflowCancelled = 13
    AwaitedWorkflowMaxRecoveryAttemptsExceeded = 14
    PatchNondeterminism = 15
    StreamTimeout = 16
    StreamNondeterminism = 17
    StepTimeout = 18
    QueryTimeout = 26
    WorkflowIDInUse = 27
    StepNondeterminism = 28


def _text(message: str, dbos_error_code: int | None) -> str:
    if dbos_error_code is None:
        return f"DBOS Error: {message}"
    return f"DBOS Error {dbos_error_code}: {message}"


class DBOSException(Exception):
    """The root of the errors an application may want to handle.

    Args:
        message: What happened and what to do.
        dbos_error_code: One of the numbers in `DBOSErrorCode`; None for errors without a class of their own.
    """

    # The attributes that hold the constructor's arguments, in its order. Empty: message plus attributes.
    _arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, dbos_error_code: int | None = None) -> None:
        self.message = message
        self.dbos_error_code = dbos_error_code
        super().__init__(message)

    def __str__(self) -> str:
        return _text(self.message, self.dbos_error_code)

    def __reduce__(self) -> Any:
        if not self._arguments:
            return super().__reduce__()
        return type(self), tuple(getattr(self, name) for name in self._arguments)


class DBOSBaseException(BaseException):
    """The root of the errors that tell an execution to stop.

    Not an `Exception`: code that handles its own failures with `except Exception` must not go on running a
    workflow that was cancelled or handed over. Let these pass.

    Args:
        message: What happened and what to do.
        dbos_error_code: One of the numbers in `DBOSErrorCode`; None for errors without a class of their own.
    """

    def __init__(self, message: str, dbos_error_code: int | None = None) -> None:
        self.message = message
        self.dbos_error_code = dbos_error_code
        super().__init__(message)

    def __str__(self) -> str:
        return _text(self.message, self.dbos_error_code)

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        # These pickle as class, message and attributes, so a constructor that builds its message from an id
        # has just built it from a finished message.
        super().__setstate__(state)
        self.args = (self.message,)


class DBOSWorkflowConflictIDError(DBOSBaseException):
    """This execution no longer owns its workflow; another one continues it.

    Raised inside the execution that lost, at its next durable operation. Nothing needs to be done: the result
    comes from the execution that took over. Attributes: `message`.
    """

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"Workflow {workflow_id} is no longer owned by this execution: it was recovered, resumed or "
            "started by another one, which continues it. This execution stops and records nothing more.",
            DBOSErrorCode.ConflictingIDError.value,
        )


class DBOSRecoveryError(DBOSException):
    """A workflow could not be taken up again: its id is empty or its row is gone.

    Attributes: `workflow_id`, `detail` (the given message).
    """

    _arguments = ("workflow_id", "detail")

    def __init__(self, workflow_id: str, message: str | None = None) -> None:
        self.workflow_id = workflow_id
        self.detail = message
        super().__init__(
            f"Workflow {workflow_id!r} could not be recovered{_because(message)}",
            DBOSErrorCode.RecoveryError.value,
        )


class DBOSInitializationError(DBOSException):
    """The configuration cannot be used, or launching failed. Attributes: `detail` (the given message)."""

    _arguments = ("detail",)

    def __init__(self, message: str) -> None:
        self.detail = message
        super().__init__(f"Error initializing DBOS: {message}", DBOSErrorCode.InitializationError.value)


class DBOSWorkflowFunctionNotFoundError(DBOSException):
    """A stored workflow names a function, class or instance that this process has not registered.

    Import the module that declares it before `DBOS.launch()`. Attributes: `workflow_id`, `detail`.
    """

    _arguments = ("workflow_id", "detail")

    def __init__(self, workflow_id: str, message: str | None = None) -> None:
        self.workflow_id = workflow_id
        self.detail = message
        super().__init__(
            f"Workflow {workflow_id} cannot be executed here{_because(message)} Import the module that "
            "declares its function, class or instance before DBOS.launch().",
            DBOSErrorCode.WorkflowFunctionNotFound.value,
        )


class DBOSNonExistentWorkflowError(DBOSException):
    """There is no workflow with this id in the system database.

    Attributes: `destination` (what the workflow was wanted for), `destination_id`.
    """

    _arguments = ("destination", "destination_id")

    def __init__(self, destination: str, destination_id: str) -> None:
        self.destination = destination
        self.destination_id = destination_id
        super().__init__(
            f"Non-existent {destination} workflow ID: {destination_id}",
            DBOSErrorCode.NonExistentWorkflowError.value,
        )


class MaxRecoveryAttemptsExceededError(DBOSException):
    """A workflow was started so often without finishing that it is set aside.

    Its status is MAX_RECOVERY_ATTEMPTS_EXCEEDED. Attributes: `workflow_id`, `max_retries`.
    """

    _arguments = ("workflow_id", "max_retries")

    def __init__(self, wf_id: str, max_retries: int | None = None) -> None:
        self.workflow_id = wf_id
        self.max_retries = max_retries
        limit = "maximum number of" if max_retries is None else f"maximum of {max_retries}"
        super().__init__(
            f"Workflow {wf_id} has exceeded its {limit} execution or recovery attempts and will not be "
            "started again by itself. Find out what ends the process while it runs, then continue it with "
            "DBOS.resume_workflow, or allow more attempts with @DBOS.workflow(max_recovery_attempts=...).",
            DBOSErrorCode.MaxRecoveryAttemptsExceeded.value,
        )


class DBOSMaxStepRetriesExceeded(DBOSException):
    """A step failed at every attempt it had.

    Attributes: `step_name`, `max_retries` (the number of attempts), `errors` (one exception per attempt, the
    last one last).
    """

    _arguments = ("step_name", "max_retries", "errors")

    def __init__(self, step_name: str, max_retries: int, errors: list[Exception]) -> None:
        self.step_name = step_name
        self.max_retries = max_retries
        self.errors = errors
        last = f" The last attempt failed with {_described(errors[-1])}." if errors else ""
        super().__init__(
            f"Step {step_name} has exceeded its maximum of {max_retries} retries.{last} All attempts are in "
            "the attribute `errors`.",
            DBOSErrorCode.MaxStepRetriesExceeded.value,
        )


class DBOSNotAuthorizedError(DBOSException):
    """The caller has none of the roles that the workflow requires. Attributes: `msg`."""

    _arguments = ("msg",)

    def __init__(self, msg: str) -> None:
        self.msg = msg
        super().__init__(msg, DBOSErrorCode.NotAuthorized.value)


class DBOSConflictingWorkflowError(DBOSException):
    """The id belongs to a workflow of another function, class or instance.

    Attributes: `workflow_id`, `detail` (the given message).
    """

    _arguments = ("workflow_id", "detail")

    def __init__(self, workflow_id: str, message: str | None = None) -> None:
        self.workflow_id = workflow_id
        self.detail = message
        super().__init__(
            f"Workflow ID {workflow_id} belongs to a different workflow{_because(message)} Use another id "
            "for the new workflow.",
            DBOSErrorCode.ConflictingWorkflowError.value,
        )


class DBOSWorkflowCancelledError(DBOSBaseException):
    """This workflow was cancelled, or its timeout expired.

    Raised inside the execution, at its next durable operation. `DBOS.resume_workflow` continues it from its
    last completed step. Attributes: `message`.
    """

    def __init__(self, msg: str) -> None:
        super().__init__(msg, DBOSErrorCode.WorkflowCancelled.value)


class DBOSUnexpectedStepError(DBOSException):
    """A replay came to another operation than the one recorded at this position.

    The workflow does not call the same steps in the same order each time it runs. Attributes: `inputs`, the
    tuple of workflow id, step id, the name the code calls now, and the recorded name.
    """

    def __init__(self, workflow_id: str, step_id: int, expected_name: str, recorded_name: str) -> None:
        self.inputs = (workflow_id, step_id, expected_name, recorded_name)
        if recorded_name.startswith("DBOS.patch-"):
            patch_name = recorded_name.removeprefix("DBOS.patch-")
            remedy = (
                "The recorded name is the mark of a patch that the code no longer mentions: put "
                f'`DBOS.deprecate_patch("{patch_name}")` in its place until no unfinished workflow carries '
                "it."
            )
        else:
            remedy = (
                f'If the change is intended, guard it with `DBOS.patch("new-{expected_name}")`, or deploy it '
                "as a new application version and let the old one finish this workflow. If nothing was "
                "changed, look for a choice that depends on the time, on random numbers or on data read "
                "outside a step."
            )
        super().__init__(
            f'Workflow {workflow_id} step {step_id} was recorded as "{recorded_name}", but the code now '
            f'calls "{expected_name}". A workflow must be deterministic, that is, call the same steps in the '
            "same order each time it runs, because a recovery runs it again with the recorded results. "
            f"{remedy}",
            DBOSErrorCode.UnexpectedStep.value,
        )

    def __reduce__(self) -> Any:
        return type(self), self.inputs


class DBOSQueueDeduplicatedError(DBOSException):
    """Another workflow in the queue holds this deduplication id.

    Attributes: `workflow_id` (the one that was not enqueued), `queue_name`, `deduplication_id`.
    """

    _arguments = ("workflow_id", "queue_name", "deduplication_id")

    def __init__(self, workflow_id: str, queue_name: str, deduplication_id: str) -> None:
        self.workflow_id = workflow_id
        self.queue_name = queue_name
        self.deduplication_id = deduplication_id
        super().__init__(
            f"Workflow {workflow_id} was not enqueued: an unfinished workflow in queue {queue_name} holds "
            f"the deduplication ID {deduplication_id}. Enqueue it again when that one has finished, or ask "
            'for its handle with the duplication policy "return-existing".',
            DBOSErrorCode.QueueDeduplicated.value,
        )


class DBOSAwaitedWorkflowCancelledError(DBOSException):
    """The workflow whose result was awaited is cancelled, so it has no result. Attributes: `workflow_id`."""

    _arguments = ("workflow_id",)

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f"Awaited workflow {workflow_id} was cancelled. DBOS.resume_workflow continues it.",
            DBOSErrorCode.AwaitedWorkflowCancelled.value,
        )


class DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded(DBOSException):
    """The workflow whose result was awaited was set aside after too many attempts.

    Attributes: `workflow_id`.
    """

    _arguments = ("workflow_id",)

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f"Awaited workflow {workflow_id} exceeded its maximum recovery attempts. DBOS.resume_workflow "
            "continues it.",
            DBOSErrorCode.AwaitedWorkflowMaxRecoveryAttemptsExceeded.value,
        )


class DBOSPatchNondeterminismError(DBOSException):
    """`patch_async` ran beside other operations of its workflow, so its position is left to chance.

    Attributes: `inputs`, the tuple of workflow id, patch name and details.
    """

    def __init__(self, workflow_id: str, patch_name: str, details: str) -> None:
        self.inputs = (workflow_id, patch_name, details)
        super().__init__(
            f"Patch {patch_name} cannot be applied deterministically in workflow {workflow_id}: {details} "
            "Call it from sequential workflow code, while no other operation of the workflow is in progress.",
            DBOSErrorCode.PatchNondeterminism.value,
        )

    def __reduce__(self) -> Any:
        return type(self), self.inputs


class DBOSStreamTimeoutError(DBOSException):
    """No value arrived on a stream in time. Attributes: `workflow_id`, `key`, `timeout_seconds`."""

    _arguments = ("workflow_id", "key", "timeout_seconds")

    def __init__(self, workflow_id: str, key: str, timeout_seconds: float | None = None) -> None:
        self.workflow_id = workflow_id
        self.key = key
        self.timeout_seconds = timeout_seconds
        within = "" if timeout_seconds is None else f" within {timeout_seconds:g} seconds"
        super().__init__(
            f"No value arrived on stream {key} of workflow {workflow_id}{within}",
            DBOSErrorCode.StreamTimeout.value,
        )


class DBOSStreamEndedError(DBOSStreamTimeoutError):
    """The stream ended before the value that was asked for. Attributes: `workflow_id`, `key`, `timeout_seconds` (None).

    In workflow code it is not recorded as an error but, as every end of a stream, by the marker.
    """

    def __init__(self, workflow_id: str, key: str, timeout_seconds: float | None = None) -> None:
        super().__init__(workflow_id, key, timeout_seconds)
        self.message += ": it has ended before"
        self.args = (self.message,)


class DBOSResultTimeoutError(DBOSException, TimeoutError):
    """A workflow has not ended within the time that somebody waited for its result; it goes on.

    Attributes: `workflow_id`, `timeout_seconds`.
    """

    _arguments = ("workflow_id", "timeout_seconds")

    def __init__(self, workflow_id: str, timeout_seconds: float) -> None:
        self.workflow_id = workflow_id
        self.timeout_seconds = timeout_seconds
        super().__init__(f"Workflow {workflow_id} has not ended within {timeout_seconds:g} seconds; it goes on")


class DBOSStreamClosedError(DBOSException):
    """A value was not written, since its stream was closed before. Attributes: `workflow_id`, `key`."""

    _arguments = ("workflow_id", "key")

    def __init__(self, workflow_id: str, key: str) -> None:
        self.workflow_id = workflow_id
        self.key = key
        super().__init__(
            f"Stream {key} of workflow {workflow_id} was closed: readers have stopped there, so nothing more is written"
        )


class DBOSStreamNondeterminismError(DBOSException):
    """Two stream reads of one workflow were in progress at once. Attributes: `workflow_id`, `key`."""

    _arguments = ("workflow_id", "key")

    def __init__(self, workflow_id: str, key: str) -> None:
        self.workflow_id = workflow_id
        self.key = key
        super().__init__(
            f"Stream {key} cannot be read deterministically in workflow {workflow_id}: another stream read "
            "of the workflow is still in progress, so a replay could give each read the other's value. Read "
            "streams one after the other, or inside a step.",
            DBOSErrorCode.StreamNondeterminism.value,
        )


class DBOSStepTimeoutError(DBOSException):
    """An asynchronous step took longer than its timeout. Attributes: `step_name`, `timeout_seconds`."""

    _arguments = ("step_name", "timeout_seconds")

    def __init__(self, step_name: str, timeout_seconds: float) -> None:
        self.step_name = step_name
        self.timeout_seconds = timeout_seconds
        super().__init__(
            f"Step {step_name} was cancelled after exceeding its timeout of {timeout_seconds:g} seconds",
            DBOSErrorCode.StepTimeout.value,
        )


class DBOSQueryTimeoutError(DBOSException):
    """A listing took longer than `observability_query_timeout_sec`. Attributes: `timeout_seconds`."""

    _arguments = ("timeout_seconds",)

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        super().__init__(
            f"This query was cancelled after {timeout_seconds:g} seconds. Narrow its filters, or raise the "
            "configuration value observability_query_timeout_sec.",
            DBOSErrorCode.QueryTimeout.value,
        )


class DBOSWorkflowIDInUseError(DBOSException):
    """The id is taken and the caller asked for a new workflow (reuse policy "reject").

    Attributes: `workflow_id`, `workflow_status`, `workflow_name` (of the workflow that has the id).
    """

    _arguments = ("workflow_id", "workflow_status", "workflow_name")

    def __init__(self, workflow_id: str, workflow_status: str, workflow_name: str) -> None:
        self.workflow_id = workflow_id
        self.workflow_status = workflow_status
        self.workflow_name = workflow_name
        super().__init__(
            f"Workflow ID {workflow_id} is already in use by workflow {workflow_name} with status "
            f'{workflow_status}. Use another id, or the reuse policy "return-existing" to get its handle.',
            DBOSErrorCode.WorkflowIDInUse.value,
        )


class DBOSStepNondeterminismError(DBOSException):
    """One execution recorded the same step position twice. Attributes: `inputs` (workflow id, step id)."""

    def __init__(self, workflow_id: str, step_id: int) -> None:
        self.inputs = (workflow_id, step_id)
        super().__init__(
            f"Workflow {workflow_id} step {step_id} was recorded twice by the same execution with different "
            "results. Steps that run at the same time must be started in a fixed order from the workflow's "
            "own code; put concurrent sequences of steps into child workflows.",
            DBOSErrorCode.StepNondeterminism.value,
        )

    def __reduce__(self) -> Any:
        return type(self), self.inputs


JsonValue = Union[None, bool, int, float, str, list["JsonValue"], dict[str, "JsonValue"]]


@dataclass(eq=False)
class PortableWorkflowError(Exception):
    """An error in the form that every language understands.

    Reading an error that was stored in the portable format always gives this class. A workflow may also raise
    it, to choose what readers in other languages see.

    Args:
        message: The text.
        name: The kind of error, usually the name of its class in the language it comes from.
        code: A number or word to tell errors apart; None without one.
        data: Any JSON value with details.
    """

    message: str
    name: str
    code: int | str | None = None
    data: JsonValue = None

    def __post_init__(self) -> None:
        # Exceptions pickle through `args`, which Python fills from positional arguments only.
        self.args = (self.message, self.name, self.code, self.data)

    def __str__(self) -> str:
        return self.message


def is_workflow_id_in_use_error(e: BaseException) -> bool:
    """Whether an error says that a workflow id is taken, also after a trip through the portable format."""
    if isinstance(e, PortableWorkflowError):
        return e.name == DBOSWorkflowIDInUseError.__name__
    return isinstance(e, DBOSException) and e.dbos_error_code == DBOSErrorCode.WorkflowIDInUse.value


def _because(detail: str | None) -> str:
    return "." if not detail else f": {detail}" if detail.endswith((".", "!", "?")) else f": {detail}."


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _name_as_persisted() -> None:
    """Give the classes the module paths under which stored pickles name them (04 R622)."""
    for value in list(globals().values()):
        if isinstance(value, type) and value.__module__ == __name__:
            value.__module__ = "dbos._error"
    PortableWorkflowError.__module__ = "dbos._serialization"


_name_as_persisted()
