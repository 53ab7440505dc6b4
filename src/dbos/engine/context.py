"""Who is running: the execution, the step, the identity and the ambient options of the current task or thread.

Everything hangs on one context variable, so it follows Python's rules: tasks and copied contexts inherit it,
raw threads do not.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..types import DuplicationPolicy, StepStatus, WorkflowIDReusePolicy

if TYPE_CHECKING:
    from .execution import Execution


class Identity:
    """The authenticated user, the roles and the role a check has chosen; changed in place by its scope."""

    __slots__ = ("assumed_role", "roles", "user")

    def __init__(
        self, user: str | None = None, roles: list[str] | None = None, assumed_role: str | None = None
    ) -> None:
        self.user = user
        self.roles = roles
        self.assumed_role = assumed_role

    def copy(self) -> Identity:
        return Identity(self.user, None if self.roles is None else list(self.roles), self.assumed_role)


class AssignedID:
    """The id of a `SetWorkflowID` block, given to the first start inside it."""

    __slots__ = ("reuse_policy", "taken", "workflow_id")

    def __init__(self, workflow_id: str, reuse_policy: WorkflowIDReusePolicy | None) -> None:
        self.workflow_id = workflow_id
        self.reuse_policy = reuse_policy
        self.taken = False


@dataclass(frozen=True, slots=True)
class Timeout:
    """An ambient workflow timeout; `milliseconds` None means explicitly none (and no inherited deadline)."""

    milliseconds: int | None


@dataclass(frozen=True, slots=True)
class Options:
    """What the `Set*` blocks around the current code hold for the workflows it starts."""

    assigned_id: AssignedID | None = None
    timeout: Timeout | None = None
    attributes: Mapping[str, Any] | None = None
    shard_key: str | None = None
    deduplication_id: str | None = None
    duplication_policy: DuplicationPolicy | None = None
    priority: int | None = None
    app_version: str | None = None
    queue_partition_key: str | None = None
    delay_until_epoch_ms: int | None = None

    def for_queues(self) -> list[str]:
        """Those that are set and mean something on a queue only, as `SetEnqueueOptions` calls them."""
        values = {
            "deduplication_id": self.deduplication_id,
            "priority": self.priority,
            "queue_partition_key": self.queue_partition_key,
            "delay_seconds": self.delay_until_epoch_ms,
        }
        return [name for name, value in values.items() if value is not None]


NO_OPTIONS = Options()


class Context:
    """What the current task or thread runs. A new one is made for each scope; only the identity changes in place."""

    __slots__ = ("execution", "identity", "options", "step_status")

    def __init__(
        self,
        execution: Execution | None = None,
        step_status: StepStatus | None = None,
        identity: Identity | None = None,
        options: Options = NO_OPTIONS,
    ) -> None:
        self.execution = execution
        self.step_status = step_status
        self.identity = identity or Identity()
        self.options = options

    def with_options(self, **changes: Any) -> Context:
        return Context(self.execution, self.step_status, self.identity, replace(self.options, **changes))

    def with_identity(self, identity: Identity) -> Context:
        return Context(self.execution, self.step_status, identity, self.options)


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("dbos_context", default=None)

current_context = _current.get


def current_execution() -> Execution | None:
    """The execution whose workflow code runs here; None in step code and plain code."""
    context = _current.get()
    if context is None or context.step_status is not None:
        return None
    return context.execution


def current_workflow_id() -> str | None:
    context = _current.get()
    if context is None or context.execution is None:
        return None
    return context.execution.workflow_id


def take_assigned_id(options: Options) -> AssignedID | None:
    """The ambient id if nobody took it yet. Taken before anything can fail (02 R31)."""
    assigned = options.assigned_id
    if assigned is None or assigned.taken:
        return None
    assigned.taken = True
    return assigned


@contextmanager
def entered(context: Context) -> Iterator[Context]:
    """Make `context` the current one for the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def enter(context: Context) -> contextvars.Token[Context | None]:
    return _current.set(context)


def leave(token: contextvars.Token[Context | None]) -> None:
    """Restore what was there before, also when left in another context than it was entered in."""
    try:
        _current.reset(token)
    except ValueError:
        previous = token.old_value
        _current.set(None if previous is contextvars.Token.MISSING else previous)
