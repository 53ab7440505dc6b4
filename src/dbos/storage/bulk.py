"""Many workflows enqueued together, all or none, on any SQL database (see `store.Store.enqueue_workflows`).

The usual call meets nothing: all ids are fresh. So everything is loaded in the fastest way a database has, which
knows no conflicts. Only when that fails, the transaction is rolled back and done again in chunks by a statement that
passes over what exists, and what was passed over is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..records import (
    Answer,
    DeduplicationTaken,
    Enqueue,
    ExistingWorkflow,
    StepCompleted,
    Verdict,
    WorkflowStarted,
)
from .encoding import Row, encode_json, encode_rows
from .store import BulkRefused, StoreRefused

if TYPE_CHECKING:
    from .database import Connections

# Bounds of one statement.
CHUNK_RECORDS = 1000
CHUNK_BYTES = 8 * 1024 * 1024


class RowExists(Exception):
    """A row could not be loaded: its key is in use. The transaction is void."""


class Transaction(Protocol):
    """Named statements that are committed together, or not at all when an exception leaves the block."""

    def load(self, name: str, rows: Iterable[Row]) -> None:
        """Run an INSERT of one row for many of them; RowExists if a key is in use."""
        ...

    def change(self, name: str, parameters: Row) -> int:
        """How many rows of the database the statement changed."""
        ...

    def read(self, name: str, parameters: Row = ()) -> list[Row]: ...

    def now_ms(self) -> int:
        """The time that a row gets which is created now."""
        ...

    def announce(self, kind: str, names: Sequence[str]) -> None:
        """Tell other processes on commit."""
        ...


class _NotAccepted(Exception):
    """Rolls the transaction back: one of the answers is not what its enqueue accepts."""

    def __init__(self, answers: dict[int, Answer]) -> None:
        self.answers = answers


class BulkOperations:
    """The part of the store that enqueues many workflows at once."""

    _db: Connections

    def enqueue_workflows(self, enqueues: Sequence[Enqueue]) -> dict[int, Answer]:
        if not enqueues:
            return {}
        try:
            with suppress(RowExists):
                return self._load(enqueues)
            return self._insert(enqueues)
        except StoreRefused as error:
            raise BulkRefused(self._find_refused(enqueues), str(error)) from error
        except _NotAccepted as reason:
            return reason.answers

    def enqueue_within(self, connection: Any, enqueue: Enqueue) -> Answer:
        transaction = self._db.adopt(connection)
        answers: dict[int, Answer] = {}
        try:
            self._insert_into(transaction, [enqueue], answers)
        except _NotAccepted as reason:
            answers = reason.answers
        return answers.get(0, Verdict.APPLIED)

    def find_newest_waiting(self, queue_name: str, partition_keys: Sequence[str]) -> dict[str, int]:
        rows = self._db.read("find_newest_waiting", (queue_name, encode_json(list(partition_keys))))
        return dict(rows)

    def _load(self, enqueues: Sequence[Enqueue]) -> dict[int, Answer]:
        """Write everything, as if nothing could be in the way."""
        clock_ms = self._db.now_ms()
        with self._db.transaction() as transaction:
            times = _creation_times(enqueues, transaction.now_ms())
            transaction.load("load_workflows", (_columns(e.record, at) for e, at in zip(enqueues, times)))
            transaction.load("load_inputs", ((e.record.workflow_id, e.record.inputs, clock_ms) for e in enqueues))
            self._finish(transaction, enqueues, {}, clock_ms)
        return {}

    def _insert(self, enqueues: Sequence[Enqueue]) -> dict[int, Answer]:
        """Write everything that is new, and say what was in the way of the rest."""
        answers: dict[int, Answer] = {}
        with self._db.transaction() as transaction:
            self._insert_into(transaction, enqueues, answers)
        return answers

    def _insert_into(self, transaction: Transaction, enqueues: Sequence[Enqueue], answers: dict[int, Answer]) -> None:
        clock_ms = self._db.now_ms()
        times = list(_creation_times(enqueues, transaction.now_ms()))
        for chunk in _chunks(enqueues):
            self._insert_chunk(transaction, enqueues, chunk, times, clock_ms, answers)
        self._finish(transaction, enqueues, answers, clock_ms)

    def _insert_chunk(
        self,
        transaction: Transaction,
        enqueues: Sequence[Enqueue],
        chunk: range,
        times: Sequence[int],
        clock_ms: int,
        answers: dict[int, Answer],
    ) -> None:
        remaining: Sequence[int] = chunk
        while remaining:
            rows = [_row(enqueues[index].record, times[index]) for index in remaining]
            transaction.change("enqueue_workflows", (encode_rows(rows), clock_ms))
            ids = encode_json([enqueues[index].record.workflow_id for index in remaining])
            found = {workflow_id: columns for workflow_id, *columns in transaction.read("find_starts", (ids,))}
            released: list[int] = []
            for index in remaining:
                enqueue = enqueues[index]
                answer = self._answer(transaction, enqueue.record, found.get(enqueue.record.workflow_id))
                if answer is None:
                    released.append(index)
                elif answer is not Verdict.APPLIED:
                    answers[index] = answer
                    if not enqueue.accepts(answer):
                        raise _NotAccepted(answers)
            # What was in the way of these has gone between the two statements.
            remaining = released

    def _answer(self, transaction: Transaction, record: WorkflowStarted, found: list[Any] | None) -> Answer | None:
        """What became of a row; None when nothing is in its way any more."""
        if found is not None:
            *columns, creator_token = found
            return Verdict.APPLIED if creator_token == record.creator_token else ExistingWorkflow(*columns)
        queue = record.queue
        if queue is None or queue.deduplication_id is None:
            return None
        holders = transaction.read("find_holder", (queue.queue_name, queue.deduplication_id))
        return DeduplicationTaken(holders[0][0]) if holders else None

    def _finish(
        self, transaction: Transaction, enqueues: Sequence[Enqueue], answers: dict[int, Answer], clock_ms: int
    ) -> None:
        """What belongs to the workflows: the steps of their parent, and the news."""
        children = [index for index, enqueue in enumerate(enqueues) if enqueue.record.parent is not None]
        for start in range(0, len(children), CHUNK_RECORDS):
            part = children[start : start + CHUNK_RECORDS]
            steps = [_step(enqueues[index].record, answers.get(index)) for index in part]
            written = transaction.change("record_steps", (encode_rows([step.row() for step in steps]), clock_ms))
            if written == len(steps):
                continue
            for index, step in zip(part, steps):
                answer = _answer_to_step(transaction, step)
                if answer is not Verdict.APPLIED:
                    raise _NotAccepted({**answers, index: answer})
        queues = {
            enqueue.record.queue.queue_name
            for enqueue in enqueues
            if enqueue.record.queue is not None and enqueue.record.status == "ENQUEUED"
        }
        if queues:
            transaction.announce("queued", sorted(queues))

    def _find_refused(self, enqueues: Sequence[Enqueue]) -> int:
        """The first of the workflows that the database refuses, by halving."""
        begin, end = 0, len(enqueues)
        while end - begin > 1:
            middle = (begin + end) // 2
            if self._is_refused(enqueues[begin:middle]):
                end = middle
            else:
                begin = middle
        return begin

    def _is_refused(self, enqueues: Sequence[Enqueue]) -> bool:
        try:
            with self._db.transaction() as transaction:
                for chunk in _chunks(enqueues):
                    rows = [_row(enqueues[index].record, 0) for index in chunk]
                    transaction.change("enqueue_workflows", (encode_rows(rows), 0))
                raise _NotAccepted({})
        except StoreRefused:
            return True
        except _NotAccepted:
            return False


def _chunks(enqueues: Sequence[Enqueue]) -> Iterator[range]:
    """Indexes for one statement each, which says nothing about the order of its rows: so no two of them may be in each
    other's way."""
    start, size = 0, 0
    keys: set[Any] = set()
    for index, enqueue in enumerate(enqueues):
        record = enqueue.record
        own: list[Any] = [record.workflow_id]
        if record.queue is not None and record.queue.deduplication_id is not None:
            own.append((record.queue.queue_name, record.queue.deduplication_id))
        full = index - start >= CHUNK_RECORDS or size + record.size() > CHUNK_BYTES
        if index > start and (full or not keys.isdisjoint(own)):
            yield range(start, index)
            start, size = index, 0
            keys.clear()
        size += record.size()
        keys.update(own)
    yield range(start, len(enqueues))


def _creation_times(enqueues: Sequence[Enqueue], now_ms: int) -> Iterator[int]:
    """When each was created: together, so that equal ages leave the order to the ids, and fresh ids grow.

    Those of children do not (`p-9`, `p-10`): where one is not greater than that before, a millisecond is added.
    """
    previous = ""
    for enqueue in enqueues:
        record = enqueue.record
        if record.created_at_ms is not None:
            yield record.created_at_ms
            continue
        parent = record.parent
        if parent is not None and record.workflow_id == f"{parent.workflow_id}-{parent.step_id}":
            if record.workflow_id <= previous:
                now_ms += 1
            previous = record.workflow_id
        yield now_ms


def _columns(record: WorkflowStarted, created_at_ms: int) -> Row:
    """The parameters of `load_workflows`; the first two always differ, the others often do not."""
    queue, parent = record.queue, record.parent
    assert queue is not None
    assert record.owner_token is None
    return (
        record.workflow_id,
        record.creator_token,
        record.status,
        record.name,
        record.class_name,
        record.config_name,
        record.serialization,
        record.executor_id,
        record.application_version,
        record.application_id,
        record.application_name,
        record.recovery_attempts,
        record.timeout_ms,
        record.deadline_ms,
        record.authenticated_user,
        record.authenticated_roles,
        record.assumed_role,
        record.attributes,
        None if parent is None else parent.workflow_id,
        queue.queue_name,
        queue.priority,
        queue.deduplication_id,
        queue.partition_key,
        queue.delay_until_ms,
        queue.schedule_name,
        created_at_ms,
        created_at_ms,
    )


def _row(record: WorkflowStarted, created_at_ms: int) -> dict[str, Any]:
    """One of the objects of `enqueue_workflows`."""
    return {**record.row(), "ca": created_at_ms}


def _step(record: WorkflowStarted, answer: Answer | None) -> StepCompleted:
    """The step of the parent, with the new workflow as its child, or the one that stands for it."""
    parent = record.parent
    assert parent is not None
    child_id = record.workflow_id
    if isinstance(answer, DeduplicationTaken) and answer.holder_id is not None:
        child_id = answer.holder_id
    return StepCompleted(
        parent.workflow_id,
        parent.owner_token,
        parent.step_id,
        record.name,
        None,
        None,
        None,
        parent.started_at_ms,
        parent.completed_at_ms,
        record.application_name,
        child_id,
    )


def _answer_to_step(transaction: Transaction, step: StepCompleted) -> Verdict:
    """Why a step may not have been written; APPLIED if an earlier try has written it."""
    rows = transaction.read("find_step", (step.workflow_id, step.step_id))
    if not rows:
        return Verdict.FENCED
    owner, _, completed_at_ms, child_id = rows[0]
    if owner != step.owner_token:
        return Verdict.FENCED
    own = (completed_at_ms, child_id) == (step.completed_at_ms, step.child_workflow_id)
    return Verdict.APPLIED if own else Verdict.REPEATED
