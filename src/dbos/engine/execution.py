"""One execution of a workflow: its token, its step ids, what it has recorded before."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ..error import DBOSUnexpectedStepError, DBOSWorkflowCancelledError, DBOSWorkflowConflictIDError
from ..records import StreamEnd
from ..types import StepRecord
from .errors import EngineStopped, ExecutionInterrupted
from .plans import Effect, Read, Wait
from .signals import Waiter

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .engine import Engine
    from .mailbox import Mailbox

# A replay loads its recorded steps in windows of this many step ids.
STEP_WINDOW = 1000
EVERYTHING = 2**31 - 1


class Completion:
    """The end of an execution in this process, for the live handle: value or error, without a database."""

    __slots__ = ("_lock", "_waiters", "done", "error", "loop", "value")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiters: list[Waiter] = []
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        # The event loop that runs the execution, for background executions of async workflows.
        self.loop: AbstractEventLoop | None = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        with self._lock:
            self.value, self.error, self.done = value, error, True
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.fire()

    def watch(self) -> Waiter:
        waiter = Waiter()
        with self._lock:
            if self.done:
                waiter.fired = True
            else:
                self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Who watched has gone."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Execution:
    """A workflow being executed by this process, under one owner token."""

    __slots__ = (
        "_loading",
        "completion",
        "deadline_ms",
        "engine",
        "known_until",
        "last_step_id",
        "mailboxes",
        "name",
        "owner_token",
        "partition_key",
        "queue_name",
        "reads_stream",
        "recorded",
        "serialization",
        "stop_error",
        "stream_ends",
        "workflow_id",
    )

    def __init__(
        self,
        engine: Engine,
        workflow_id: str,
        name: str,
        owner_token: str,
        *,
        serialization: str | None,
        deadline_ms: int | None = None,
        recorded: dict[int, StepRecord] | None = None,
        known_until: int = EVERYTHING,
        queue_name: str | None = None,
        partition_key: str | None = None,
    ) -> None:
        self.engine = engine
        self.workflow_id = workflow_id
        self.name = name
        self.owner_token = owner_token
        self.serialization = serialization
        self.deadline_ms = deadline_ms
        # Where it was claimed from; it takes a place in the limits of that queue until it ends.
        self.queue_name = queue_name
        self.partition_key = partition_key
        self.recorded = recorded or {}
        # Step ids up to here are known: recorded ones are in `recorded` until they are replayed, others have no row.
        # A fresh execution knows everything, since nothing can have been recorded before it.
        self.known_until = known_until
        self._loading = False
        self.last_step_id = 0
        self.stop_error: BaseException | None = None
        # The streams that it writes, by key; whether it is in the middle of reading one.
        self.stream_ends: dict[str, StreamEnd] = {}
        self.reads_stream = False
        self.completion = Completion()
        # By topic, once something is received.
        self.mailboxes: dict[str, Mailbox] | None = None

    def __repr__(self) -> str:
        return f"Execution({self.workflow_id!r}, {self.name!r}, step {self.last_step_id})"

    def draw(self) -> int:
        """The next step id. Ids are never reused inside an execution."""
        self.last_step_id += 1
        return self.last_step_id

    def give_back(self, step_id: int) -> None:
        """Undo the drawing of an id that turned out not to be needed, if none was drawn since."""
        if step_id == self.last_step_id:
            self.last_step_id -= 1

    def stream_end(self, key: str) -> StreamEnd:
        """What is known of the end of a stream of this workflow; an execution that began with its row knows all."""
        end = self.stream_ends.get(key)
        if end is None:
            known = StreamEnd(-1, is_closed=False) if self.known_until == EVERYTHING else StreamEnd()
            end = self.stream_ends.setdefault(key, known)
        return end

    def stop(self, error: BaseException) -> None:
        """Let the execution stop at its next operation."""
        if self.stop_error is None:
            self.stop_error = error

    def goes_on(self) -> bool:
        """Whether nothing has stopped it. A "cancelled" signal may be for an earlier execution of the same workflow."""
        return self.stop_error is None

    def check(self) -> None:
        """Raise what stopped this execution, if anything did."""
        if self.stop_error is not None:
            raise self.stop_error

    def find_recorded(self, step_id: int, name: str) -> Generator[Effect, Any, StepRecord | None]:
        """The record at a step id, if there is one; it must carry the name of the operation that asks.

        Raises DBOSUnexpectedStepError when another operation was recorded there: the code has changed.
        """
        if self.stop_error is not None:
            raise self.stop_error
        if step_id > self.known_until:
            yield from self.load_until(step_id)
        # Ids are never reused, so a record is not needed again.
        record = self.recorded.pop(step_id, None) if self.recorded else None
        if record is not None and record.name != name:
            raise DBOSUnexpectedStepError(self.workflow_id, step_id, name, record.name)
        return record

    def load_until(self, step_id: int) -> Generator[Effect, Any, None]:
        """Load further windows of recorded steps until `step_id` is known.

        Concurrent branches may ask together; one of them loads, the others wait for it. What is loaded is kept until
        it is replayed: a branch behind (a reserved step) still finds its record.
        """
        signals, key = self.engine.signals, ("loaded", self.workflow_id)
        while step_id > self.known_until:
            if self._loading:
                with signals.watch(key) as waiter:
                    if self._loading:
                        yield Wait(waiter)
                continue
            self._loading = True
            try:
                after, until = self.known_until, self.known_until + STEP_WINDOW
                found = yield Read(lambda store: store.load_steps([self.workflow_id], after, until))
                self.recorded.update((record.step_id, record) for record in found.get(self.workflow_id, ()))
                self.known_until = until
            finally:
                self._loading = False
                signals.fire(*key)

    def cancelled(self) -> DBOSWorkflowCancelledError:
        return DBOSWorkflowCancelledError(
            f"Workflow {self.workflow_id} was cancelled: the operation is not performed and nothing more of it is "
            f"recorded. It can be resumed with DBOS.resume_workflow."
        )

    def fenced(self) -> DBOSWorkflowConflictIDError:
        """Another execution owns the workflow now; this one stops for good."""
        error = DBOSWorkflowConflictIDError(self.workflow_id)
        self.stop(error)
        return error


def public_error(error: BaseException) -> BaseException:
    """What callers outside workflows see of a reason to stop."""
    from ..error import DBOSException

    if isinstance(error, ExecutionInterrupted):
        return error.cause
    if isinstance(error, EngineStopped):
        return DBOSException(
            "System database accessed after DBOS was destroyed or before it was launched; what was recorded is kept "
            "and the workflow continues after the next launch"
        )
    return error
