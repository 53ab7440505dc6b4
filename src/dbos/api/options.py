"""Options around calls: the `Set*` blocks, and the options of steps."""

from __future__ import annotations

import contextvars
import inspect
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypedDict, TypeVar

from ..engine.context import AssignedID, Context, Identity, Timeout, current_context, enter, leave
from ..engine.operations import MisplacedCall
from ..engine.steps import StepSpec
from ..error import DBOSException
from ..serialization import check_text
from ..types import DuplicationPolicy, WorkflowIDReusePolicy

Self = TypeVar("Self", bound="_Block")


class StepOptions(TypedDict, total=False):
    """Options of `DBOS.run_step`; the same as the arguments of `@DBOS.step`.

    name: Name in the history; default the function's qualified name.
    retries_allowed: Try again after an Exception. Default False.
    interval_seconds: Wait before the second attempt. Default 1.
    max_attempts: Attempts in all. Default 3.
    backoff_rate: Multiplier of the wait per further attempt. Default 2; a wait is at most 3600 s.
    should_retry: Called with the exception; false gives up at once.
    preemptible: Cancel a running async step when its workflow is cancelled. Default False.
    timeout_seconds: The longest an attempt of an async step may take. Default no limit.
    """

    name: str | None
    retries_allowed: bool
    interval_seconds: float
    max_attempts: int
    backoff_rate: float
    should_retry: Callable[[BaseException], bool | Awaitable[bool]] | None
    preemptible: bool
    timeout_seconds: float | None


class _Block:
    """A context manager that holds options for the workflows started inside it, in this task or thread."""

    def __init__(self) -> None:
        self._token: contextvars.Token[Context | None] | None = None

    def _inner(self, outer: Context) -> Context:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        if self._token is not None:
            raise DBOSException(f"This {type(self).__name__} block is active already; make another object for it")
        self._token = enter(self._inner(current_context() or Context()))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            leave(token)


class SetWorkflowID(_Block):
    """Give the first workflow started in the block this id.

    An id is an idempotency key: starting it again returns the workflow that has it. Later starts in the block get a
    generated id.

    Args:
        wfid: The id; not empty.
        workflow_id_reuse_policy: "return-existing" (default), or "reject" to raise DBOSWorkflowIDInUseError when
            the id is in use.
    """

    def __init__(self, wfid: str, *, workflow_id_reuse_policy: WorkflowIDReusePolicy | None = None) -> None:
        super().__init__()
        if not isinstance(wfid, str) or not wfid.strip():
            raise DBOSException(f"A workflow id must be a non-empty text, not {wfid!r}")
        check_text(wfid, "workflow id")
        _check_reuse_policy(workflow_id_reuse_policy)
        self._id = wfid
        self._policy: WorkflowIDReusePolicy | None = workflow_id_reuse_policy

    def _inner(self, outer: Context) -> Context:
        return outer.with_options(assigned_id=AssignedID(self._id, self._policy))


def _check_reuse_policy(policy: object) -> None:
    if policy not in (None, "return-existing", "reject"):
        raise DBOSException(f"workflow_id_reuse_policy must be 'return-existing' or 'reject', not {policy!r}")


class SetWorkflowTimeout(_Block):
    """Give every workflow started in the block a timeout, in seconds; None explicitly gives them none.

    A timed-out workflow is cancelled. Workflows started by a workflow without such a block inherit its deadline.
    """

    def __init__(self, workflow_timeout_sec: float | None) -> None:
        super().__init__()
        if workflow_timeout_sec is None:
            self._timeout = Timeout(None)
            return
        if isinstance(workflow_timeout_sec, bool) or not isinstance(workflow_timeout_sec, (int, float)):
            raise DBOSException(f"A workflow timeout is a number of seconds or None, not {workflow_timeout_sec!r}")
        if math.isinf(workflow_timeout_sec) and workflow_timeout_sec > 0:
            raise OverflowError("A workflow timeout must be finite; for no timeout give None")
        milliseconds = int(workflow_timeout_sec * 1000) if math.isfinite(workflow_timeout_sec) else 0
        if milliseconds <= 0:
            raise DBOSException(
                f"A workflow timeout must be at least one millisecond, not {workflow_timeout_sec!r} seconds; for no "
                f"timeout give None"
            )
        self._timeout = Timeout(min(milliseconds, 2**63 - 1))

    def _inner(self, outer: Context) -> Context:
        return outer.with_options(timeout=self._timeout)


class SetWorkflowAttributes(_Block):
    """Store these attributes, a JSON object, with every workflow started in the block. Children do not inherit them."""

    def __init__(self, attributes: dict[str, Any] | None) -> None:
        super().__init__()
        if attributes is not None:
            encode_attributes(attributes)
        self._attributes: Mapping[str, Any] | None = None if attributes is None else dict(attributes)

    def _inner(self, outer: Context) -> Context:
        return outer.with_options(attributes=self._attributes)


def encode_attributes(attributes: object) -> str:
    """Attributes as JSON text; DBOSException when they are none."""
    if not isinstance(attributes, dict):
        raise DBOSException(f"Workflow attributes must be a dictionary, not {type(attributes).__name__}")
    try:
        check_text(json.dumps(attributes, ensure_ascii=False, allow_nan=False), "workflow attributes")
        text = json.dumps(attributes)
        if "\\u0000" in text:
            raise ValueError("a NUL character")
    except (TypeError, ValueError, RecursionError) as error:
        raise DBOSException(f"Workflow attributes must be storable as JSON: {error}") from error
    return text


class SetEnqueueOptions(_Block):
    """Options for workflows enqueued in the block.

    Args:
        deduplication_id: At most one waiting or running workflow of the queue holds it.
        priority: 1 (first) to 2147483647; without one a workflow goes before all of them.
        app_version: The application version that must run the workflow.
        queue_partition_key: The partition of the queue.
        delay_seconds: Not before this many seconds from now.
        duplication_policy: What to do when the deduplication id is held: "reject" (default) or "return-existing".
    """

    def __init__(
        self,
        *,
        deduplication_id: str | None = None,
        priority: int | None = None,
        app_version: str | None = None,
        queue_partition_key: str | None = None,
        delay_seconds: float | None = None,
        duplication_policy: DuplicationPolicy | None = None,
    ) -> None:
        super().__init__()
        if priority is not None:
            check_priority(priority)
        for what, text in (
            ("deduplication id", deduplication_id),
            ("application version", app_version),
            ("queue partition key", queue_partition_key),
        ):
            if text is not None:
                if not isinstance(text, str):
                    raise DBOSException(f"The {what} must be a text, not {text!r}")
                check_text(text, what)
        delay_until_ms = None if delay_seconds is None else int((time.time() + delay_seconds) * 1000)
        self._options = {
            "deduplication_id": deduplication_id,
            "priority": priority,
            "app_version": app_version,
            "queue_partition_key": queue_partition_key,
            "delay_until_epoch_ms": delay_until_ms,
            "duplication_policy": duplication_policy,
        }

    def _inner(self, outer: Context) -> Context:
        return outer.with_options(**self._options)


def check_priority(priority: object) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= 2**31 - 1:
        raise DBOSException(f"A priority must be a whole number from 1 to 2147483647, not {priority!r}")


class SetShardKey(_Block):
    """The shard key of every workflow started in the block; only a sharded system database accepts one."""

    def __init__(self, shard_key: str) -> None:
        super().__init__()
        if not isinstance(shard_key, str) or not shard_key:
            raise ValueError(f"A shard key must be a non-empty text, not {shard_key!r}")
        self._shard_key = shard_key

    def _inner(self, outer: Context) -> Context:
        return outer.with_options(shard_key=self._shard_key)


class DBOSContextEnsure(_Block):
    """Make sure a DBOS context exists in the block; for middleware."""

    def _inner(self, outer: Context) -> Context:
        return outer


class DBOSContextSetAuth(DBOSContextEnsure):
    """The identity for everything in the block, including role checks and started workflows.

    Args:
        user: The authenticated user.
        roles: The user's roles.
    """

    def __init__(self, user: str | None, roles: list[str] | None) -> None:
        super().__init__()
        self._user = user
        self._roles = roles

    def _inner(self, outer: Context) -> Context:
        roles = None if self._roles is None else list(self._roles)
        return outer.with_identity(Identity(self._user, roles))


class _NeverRetries(MisplacedCall):
    """Also an AssertionError: what such options raised when the step was called."""


def step_spec(
    name: str,
    is_async: bool,
    *,
    retries_allowed: bool = False,
    interval_seconds: float = 1.0,
    max_attempts: int = 3,
    backoff_rate: float = 2.0,
    should_retry: Callable[[BaseException], bool | Awaitable[bool]] | None = None,
    preemptible: bool = False,
    timeout_seconds: float | None = None,
) -> StepSpec:
    """Check the options of a step; DBOSException names the step and the value."""
    if preemptible and not is_async:
        raise DBOSException(f"Step {name!r} is preemptible, which only async steps can be")
    if timeout_seconds is not None:
        if not is_async:
            raise DBOSException(f"Step {name!r} has a timeout, which only async steps can have")
        if not _positive(timeout_seconds):
            raise DBOSException(
                f"The timeout of step {name!r} must be a positive, finite number of seconds, not {timeout_seconds!r}"
            )
    if should_retry is not None and not is_async and is_coroutine_function(should_retry):
        raise DBOSException(f"Step {name!r} is sync, so its should_retry cannot be a coroutine function")
    if retries_allowed:
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
            raise _NeverRetries(f"max_attempts of step {name!r} must be at least 1, not {max_attempts!r}")
        for what, number in (("interval_seconds", interval_seconds), ("backoff_rate", backoff_rate)):
            if not isinstance(number, (int, float)) or not math.isfinite(number) or number < 0:
                raise DBOSException(f"{what} of step {name!r} must be a finite number from 0 on, not {number!r}")
    return StepSpec(
        name,
        is_async,
        retries_allowed,
        interval_seconds,
        max_attempts,
        backoff_rate,
        should_retry,
        preemptible,
        timeout_seconds,
    )


def is_coroutine_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function)


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
