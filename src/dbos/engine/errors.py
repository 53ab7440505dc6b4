"""Reasons for an execution to stop without an outcome. None of them is ever recorded.

They are BaseExceptions: `except Exception` in a workflow must not swallow them, and a workflow that stops this way
stays PENDING and continues at the next recovery.
"""

from __future__ import annotations

from ..error import DBOSBaseException


class EngineStopped(DBOSBaseException):
    """`DBOS.destroy()` was called: nothing can be recorded any more."""

    def __init__(self) -> None:
        super().__init__("DBOS was destroyed; the workflow continues from its last recorded step after the next launch")


class ExecutionInterrupted(DBOSBaseException):
    """The system database cannot record; `cause` is the error that callers see."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause
