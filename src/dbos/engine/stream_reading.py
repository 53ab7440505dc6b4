"""Reading streams: one plan for each value, driven by sync and async generators alike.

A reader takes what is at hand, else what its feed has (see `feeds`), else it looks into the database, and else it
waits. In workflow code each value is recorded as a step before it is handed out; a reader made without an execution
records nothing, wherever it runs.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..error import (
    DBOSNonExistentWorkflowError,
    DBOSStreamEndedError,
    DBOSStreamNondeterminismError,
    DBOSStreamTimeoutError,
)
from ..serialization import explain, explain_unreadable
from ..types import StoredValue, StreamPage
from .context import current_context
from .deadlines import LONGEST_WAIT_MS, in_ms
from .effects import step_row
from .execution import Execution
from .feeds import MARKER, PAGE, Feed, Look
from .plans import Plan, Read, Wait
from .signals import Key, Waiter
from .steps import record_step, replay

if TYPE_CHECKING:
    from .core import Core

FINAL_STATUSES = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})

READ_STREAM = "DBOS.readStream"
READ_STREAM_OFFSET = "DBOS.readStreamOffset"


class StreamEnd:
    """What a reader gives instead of a value when the stream has ended."""


END = StreamEnd()


class StreamReader:
    """Reads one stream, value by value, from `offset` on. To be closed.

    `execution` is the workflow in whose code it reads, where every value is recorded. The timeout is for each value.
    `is_single` reads the value at one offset: then a closed stream that never reached it has ended too.
    """

    def __init__(
        self,
        engine: Core,
        workflow_id: str,
        key: str,
        offset: int,
        *,
        polling_interval_seconds: float,
        timeout_seconds: float | None,
        execution: Execution | None = None,
        is_single: bool = False,
    ) -> None:
        self._engine = engine
        self._workflow_id = workflow_id
        self._key = key
        self._offset = offset
        self._interval_ms = max(1, int(min(polling_interval_seconds * 1000, LONGEST_WAIT_MS)))
        self._timeout_seconds = timeout_seconds
        self._execution = execution
        self._is_single = is_single
        self._name = READ_STREAM_OFFSET if is_single else READ_STREAM
        self._page: deque[StoredValue] = deque()
        self._last_look: Look | None = None
        self._feed: Feed | None = None

    def close(self) -> None:
        """Let go of the stream. Safe to repeat."""
        if self._feed is not None:
            self._feed = None
            self._engine.feeds.leave(self._workflow_id, self._key)

    def next_plan(self) -> Plan[Any]:
        """The next value, or END.

        Raises:
            DBOSNonExistentWorkflowError: there is no such workflow.
            DBOSStreamTimeoutError: nothing came in time.
            DBOSStreamNondeterminismError: another read of the workflow that reads is in progress.
        """
        execution = self._execution
        if execution is None:
            return (yield from self._find_value())
        if execution.reads_stream:
            raise DBOSStreamNondeterminismError(self._workflow_id, self._key)
        execution.reads_stream = True
        try:
            return (yield from self._recorded(execution, execution.draw()))
        finally:
            execution.reads_stream = False

    def _recorded(self, execution: Execution, step_id: int) -> Plan[Any]:
        """The value that is recorded at the step id; else the next one, recorded before anybody sees it."""
        record = yield from execution.find_recorded(step_id, self._name)
        if record is not None:
            try:
                value = replay(execution, record)
            except DBOSStreamTimeoutError as error:
                if self._is_single and error.timeout_seconds is None:
                    raise DBOSStreamEndedError(self._workflow_id, self._key) from None
                raise
            return self._advance(value)
        engine = self._engine
        step = step_row(execution, step_id, self._name, engine.clock.now_ms())
        step.serialization = engine.payloads.configured_name
        try:
            value = yield from self._find_value()
        except DBOSStreamTimeoutError as error:
            step.error, step.serialization = engine.payloads.encode_error_always(error)
            step.completed_at_ms = engine.clock.now_ms()
            yield from record_step(execution, step)
            raise
        try:
            step.output = engine.payloads.encode_value(MARKER if value is END else value)
        except Exception as error:
            raise explain(
                error,
                f"the value at offset {self._offset - 1} of stream {self._key!r} of workflow {self._workflow_id}, "
                f"a {type(value).__name__},",
            ) from error
        step.completed_at_ms = engine.clock.now_ms()
        yield from record_step(execution, step)
        return value

    def _find_value(self) -> Plan[Any]:
        found = yield from self._find_entry()
        if found is None:
            return END
        try:
            value = self._engine.payloads.decode_value(*found)
        except Exception as error:
            what = f"the value at offset {self._offset} of stream {self._key!r} of workflow {self._workflow_id}"
            raise explain_unreadable(error, what, found[1]) from error
        return self._advance(value)

    def _advance(self, value: Any) -> Any:
        if isinstance(value, str) and value == MARKER:
            return END
        self._offset += 1
        return value

    # --- finding the entry

    def _find_entry(self) -> Plan[StoredValue | None]:
        """The entry at the offset, waited for if need be; None when the stream has ended."""
        if self._page:
            return self._page.popleft()
        engine = self._engine
        if self._feed is None:
            self._feed = engine.feeds.join(self._workflow_id, self._key, self._offset)
        feed = self._feed
        context = current_context()
        waiting = self._execution or (None if context is None else context.execution)
        keys: list[Key] = [] if waiting is None else [("cancelled", waiting.workflow_id)]
        began = engine.clock.now()
        until_ms = None if self._timeout_seconds is None else in_ms(began + self._timeout_seconds)
        while True:
            if waiting is not None:
                waiting.check()
            with ExitStack() as registered:
                waiter = registered.enter_context(engine.signals.watch(*keys))
                registered.enter_context(feed.attached(waiter))
                self._page.extend(feed.take(self._offset)[: 1 if self._is_single else PAGE])
                if self._page:
                    return self._page.popleft()
                seen_at_ms = feed.seen_at_ms(self._offset, self._last_look)
                now_ms = engine.clock.now_ms()
                due_ms = max(seen_at_ms or 0, int(began * 1000)) + self._interval_ms
                if seen_at_ms is None or now_ms >= due_ms:
                    if (yield from self._look(feed, waiter)):
                        return self._page.popleft() if self._page else None
                elif feed.has_ended(self._offset) or (self._is_single and feed.is_closed_before(self._offset)):
                    return None
                elif until_ms is not None and now_ms >= until_ms:
                    assert self._timeout_seconds is not None
                    raise DBOSStreamTimeoutError(self._workflow_id, self._key, self._timeout_seconds)
                else:
                    yield Wait(waiter, due_ms if until_ms is None else min(due_ms, until_ms))

    def _look(self, feed: Feed, waiter: Waiter) -> Plan[bool]:
        """Look into the database, or wait for another reader that does; whether that settles it: entries or the end."""
        look = feed.begin_look(self._offset, self._engine.clock.now_ms())
        if look is None:
            yield Wait(waiter, None)
            return False
        try:
            limit = 1 if self._is_single else PAGE
            page = yield from self._read(limit)
            # Once more, since a body may go on writing for a moment after its cancellation.
            is_final = page.status in FINAL_STATUSES
            if is_final and not page.entries:
                page = yield from self._read(limit)
                is_final = page.status in FINAL_STATUSES
            ended = is_final and not page.entries
            if page.status is None:
                raise DBOSNonExistentWorkflowError("target", self._workflow_id)
            self._page.extend(page.entries)
            # Behind the last entries of a workflow that has ended comes another look, for that end.
            whole = ended or (len(page.entries) < limit and not is_final)
            feed.end_look(look, self._offset, page.entries, whole=whole, ended=ended)
            self._last_look = None if page.entries else look
            return bool(page.entries) or ended or (self._is_single and page.closed_before)
        finally:
            feed.leave_look(look)

    def _read(self, limit: int) -> Plan[StreamPage]:
        workflow_id, key, offset = self._workflow_id, self._key, self._offset
        page: StreamPage = yield Read(lambda store: store.read_stream(workflow_id, key, offset, limit))
        return page


def read_offset_plan(reader: StreamReader) -> Plan[Any]:
    """The value at the one offset of a reader, which is closed then.

    Raises:
        DBOSStreamEndedError: the stream ended without it.
    """
    try:
        value = yield from reader.next_plan()
    finally:
        reader.close()
    if value is END:
        raise DBOSStreamEndedError(reader._workflow_id, reader._key)
    return value
