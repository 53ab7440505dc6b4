"""What the journal writes, and what it learns from each write.

A record is one durable fact. The engine makes records, the journal batches them, the store writes each batch as
one transaction and gives every record its own verdict. `row()` is the form in which a record travels to the
database: one JSON object, whose short keys the SQL files explain.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Union

from .types import Schedule


class Verdict(enum.Enum):
    """What became of a record.

    APPLIED: the record is durable, by this commit or by an earlier try whose answer was lost.
    FENCED: the execution no longer owns the workflow; nothing was written.
    REPEATED: another record of the same execution already holds this step id; nothing was written.
    TAKEN: the message that was to be consumed has been consumed already, or is gone; nothing was consumed.
    """

    APPLIED = "applied"
    FENCED = "fenced"
    REPEATED = "repeated"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class ExistingWorkflow:
    """The verdict on a start that met a workflow of the same id; nothing was changed."""

    status: str
    name: str | None
    class_name: str | None
    config_name: str | None
    queue_name: str | None
    serialization: str | None


@dataclass(frozen=True, slots=True)
class DeduplicationTaken:
    """The verdict on an enqueue whose deduplication id is held by another workflow; nothing was written."""

    holder_id: str | None


@dataclass(frozen=True, slots=True)
class RecipientsMissing:
    """The verdict on messages to workflows that do not exist; none of the record was sent."""

    destination_ids: tuple[str, ...]


Answer = Union[Verdict, ExistingWorkflow, DeduplicationTaken, RecipientsMissing]


@dataclass(slots=True)
class StepCompleted:
    """One step row. Insert-if-absent, and only while `owner_token` owns the workflow.

    `keep_existing` marks rows that are information only (`DBOS.getResult`): one already there is left as it is. `also`
    is a second row of the same operation, written in the same transaction: the deadline of a wait that found its value
    at once.
    """

    workflow_id: str
    owner_token: str
    step_id: int
    name: str
    output: str | None
    error: str | None
    serialization: str | None
    started_at_ms: int
    completed_at_ms: int
    application_name: str | None
    child_workflow_id: str | None = None
    keep_existing: bool = False
    also: StepCompleted | None = None

    def row(self) -> dict[str, Any]:
        return {
            "w": self.workflow_id,
            "t": self.owner_token,
            "i": self.step_id,
            "n": self.name,
            "o": self.output,
            "e": self.error,
            "z": self.serialization,
            "b": self.started_at_ms,
            "f": self.completed_at_ms,
            "a": self.application_name,
            "c": self.child_workflow_id,
        }

    def size(self) -> int:
        return 300 + len(self.output or "") + len(self.error or "")


@dataclass(slots=True)
class EventSet:
    """The value of an event, published by the execution that `owner_token` names.

    In workflow code with its step row: both or none. In step code, `step` is None: `step_id` is that of the step, which
    has no row yet; a value that it sets again replaces its last one.
    """

    workflow_id: str
    owner_token: str
    step_id: int
    key: str
    value: str
    serialization: str
    step: StepCompleted | None = None

    def identity(self) -> object:
        """What one statement can write only once."""
        return self.workflow_id, self.owner_token, self.step_id, self.key

    def row(self) -> dict[str, Any]:
        return {
            "w": self.workflow_id,
            "t": self.owner_token,
            "i": self.step_id,
            "s": self.step is not None,
            "k": self.key,
            "v": self.value,
            "z": self.serialization,
        }

    def size(self) -> int:
        return 500 + len(self.key) + len(self.value)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is stored. The id is made once, before the first try, so that no try sends it twice."""

    message_id: str
    destination_id: str
    topic: str
    text: str
    serialization: str


@dataclass(slots=True)
class MessagesSent:
    """Messages, all or none. In workflow code with the step row, in step code with the ownership of the workflow as a
    condition; from plain code (no `workflow_id`) without conditions."""

    messages: Sequence[Message]
    workflow_id: str | None = None
    owner_token: str | None = None
    step_id: int | None = None
    step: StepCompleted | None = None

    def rows(self, number: int) -> list[dict[str, Any]]:
        """One for each message; who sends is in the first. `number` is the same in all of one record."""
        step = self.step
        sender: dict[str, Any] = {
            "w": self.workflow_id,
            "t": self.owner_token,
            "i": self.step_id,
            "n": None if step is None else step.name,
            "b": None if step is None else step.started_at_ms,
            "f": None if step is None else step.completed_at_ms,
            "a": None if step is None else step.application_name,
        }
        nobody = dict.fromkeys(sender)
        return [
            {
                **(nobody if i else sender),
                "u": message.message_id,
                "d": message.destination_id,
                "p": message.topic,
                "v": message.text,
                "z": message.serialization,
                "g": number,
            }
            for i, message in enumerate(self.messages)
        ]

    def size(self) -> int:
        return 300 + sum(400 + len(message.text) for message in self.messages)


@dataclass(slots=True)
class MessageConsumed:
    """A message received by workflow code, with its step row: both or none.

    The database takes the value of the step from the message itself, unless the step has an error: the message could
    not be read. With `first_of`, a topic, only if no older message waits under it. What the step has `also` is written
    by the same statement.
    """

    workflow_id: str
    owner_token: str
    step_id: int
    message_id: str
    step: StepCompleted
    first_of: str | None = None

    def row(self) -> dict[str, Any]:
        step, also = self.step, self.step.also
        return {
            "w": self.workflow_id,
            "t": self.owner_token,
            "i": self.step_id,
            "n": step.name,
            "e": step.error,
            "z": step.serialization,
            "b": step.started_at_ms,
            "f": step.completed_at_ms,
            "a": step.application_name,
            "u": self.message_id,
            "p": self.first_of,
            "j": also and also.step_id,
            "m": also and also.name,
            "o": also and also.output,
            "y": also and also.serialization,
            "x": also and also.started_at_ms,
            "h": also and also.completed_at_ms,
        }

    def size(self) -> int:
        return 500 + len(self.step.error or "")


@dataclass(slots=True)
class StreamEnd:
    """The end of a stream, as the execution that writes it knows: its last offset, and whether it was closed.

    None is not known.
    """

    top: int | None = None
    is_closed: bool | None = None


@dataclass(slots=True)
class StreamWritten:
    """An entry at the end of a stream, appended by the execution that `owner_token` names.

    In workflow code with its step row: both or none. In step code, `step` is None: `step_id` is that of the step. Then
    the entry is written at `offset` or not at all, so that a repeated commit recognises it; with a step row `offset` is
    what the entry gets unless something comes between, None when that is not sure. `stands` tells that a former try of
    the commit has written it. Only the store sets these two.
    """

    workflow_id: str
    owner_token: str
    step_id: int
    key: str
    value: str
    serialization: str | None
    end: StreamEnd
    step: StepCompleted | None = None
    offset: int | None = None
    stands: bool = False

    def identity(self) -> object:
        """What one statement can write only once; a step may append any number of entries."""
        return id(self) if self.step is None else (self.workflow_id, self.owner_token, self.step_id)

    def row(self) -> dict[str, Any]:
        return {
            "w": self.workflow_id,
            "t": self.owner_token,
            "i": self.step_id,
            "s": self.step is not None,
            "k": self.key,
            "v": self.value,
            "z": self.serialization,
            "x": -1 if self.stands else self.offset if self.step is None else None,
        }

    def size(self) -> int:
        return 500 + len(self.key) + len(self.value)


@dataclass(slots=True)
class ParentStep:
    """The step of a parent workflow that starts a child; written in the transaction that creates the child."""

    workflow_id: str
    owner_token: str
    step_id: int
    started_at_ms: int
    completed_at_ms: int
    reject_existing: bool


@dataclass(slots=True)
class QueuePlace:
    """Where a workflow waits, and for what. A debounced one may be delayed further, up to its debounce deadline."""

    queue_name: str
    priority: int = 0
    deduplication_id: str | None = None
    partition_key: str | None = None
    delay_until_ms: int | None = None
    schedule_name: str | None = None
    is_debounced: bool = False
    debounce_deadline_ms: int | None = None


@dataclass(slots=True)
class WorkflowStarted:
    """A new workflow: its status row and its inputs, insert-if-absent.

    `creator_token` is made once per logical start, so a retry recognises its own row. `owner_token` equals it for
    a workflow that this process executes at once and is None for one that waits on a queue.
    """

    workflow_id: str
    status: str
    name: str
    class_name: str | None
    config_name: str | None
    inputs: str
    serialization: str | None
    creator_token: str
    owner_token: str | None
    executor_id: str | None
    application_version: str | None
    application_id: str | None
    application_name: str | None
    recovery_attempts: int
    timeout_ms: int | None = None
    deadline_ms: int | None = None
    authenticated_user: str | None = None
    authenticated_roles: str | None = None
    assumed_role: str | None = None
    attributes: str | None = None
    parent: ParentStep | None = None
    queue: QueuePlace | None = None
    # None is the time of the database.
    created_at_ms: int | None = None

    def like(self, workflow_id: str, creator_token: str, inputs: str) -> WorkflowStarted:
        """The record of another workflow that waits, which differs in these only."""
        return WorkflowStarted(
            workflow_id,
            self.status,
            self.name,
            self.class_name,
            self.config_name,
            inputs,
            self.serialization,
            creator_token,
            None,
            self.executor_id,
            self.application_version,
            self.application_id,
            self.application_name,
            self.recovery_attempts,
            self.timeout_ms,
            self.deadline_ms,
            self.authenticated_user,
            self.authenticated_roles,
            self.assumed_role,
            self.attributes,
            None,
            self.queue,
        )

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "w": self.workflow_id,
            "s": self.status,
            "n": self.name,
            "cn": self.class_name,
            "gn": self.config_name,
            "in": self.inputs,
            "z": self.serialization,
            "ct": self.creator_token,
            "ot": self.owner_token,
            "x": self.executor_id,
            "v": self.application_version,
            "ai": self.application_id,
            "a": self.application_name,
            "r": self.recovery_attempts,
            "to": self.timeout_ms,
            "dl": self.deadline_ms,
            "u": self.authenticated_user,
            "ro": self.authenticated_roles,
            "ar": self.assumed_role,
            "at": self.attributes,
        }
        if self.queue is not None:
            queue = self.queue
            row["q"] = queue.queue_name
            row["pr"] = queue.priority
            row["dd"] = queue.deduplication_id
            row["pk"] = queue.partition_key
            row["du"] = queue.delay_until_ms
            row["sn"] = queue.schedule_name
            row["db"] = queue.is_debounced
            row["de"] = queue.debounce_deadline_ms
        if self.parent is not None:
            parent = self.parent
            row["p"] = parent.workflow_id
            row["pt"] = parent.owner_token
            row["i"] = parent.step_id
            row["b"] = parent.started_at_ms
            row["f"] = parent.completed_at_ms
            row["rj"] = parent.reject_existing
        return row

    def size(self) -> int:
        return 600 + len(self.inputs)


# What an id in use means to an enqueue: the workflow that has it stands for the new one, if it is of the same
# function; or is refused; or is left alone, whatever it is.
OnExisting = Literal["attach", "reject", "skip"]


@dataclass(slots=True)
class Enqueue:
    """One of many workflows that are put on queues together, all or none, and what may stand in its way.

    `attach_to_holder` lets the workflow that holds the deduplication id stand for the new one.
    """

    record: WorkflowStarted
    on_existing: OnExisting = "attach"
    attach_to_holder: bool = False

    def accepts(self, answer: Answer) -> bool:
        """Whether the call may succeed with this answer; if not, nothing of it is written."""
        if isinstance(answer, ExistingWorkflow):
            record = self.record
            mine = (record.name, record.class_name, record.config_name)
            same = (answer.name, answer.class_name, answer.config_name) == mine
            return self.on_existing == "skip" or (self.on_existing == "attach" and same)
        if isinstance(answer, DeduplicationTaken):
            return self.attach_to_holder
        return answer is Verdict.APPLIED


@dataclass(slots=True)
class WorkflowFinished:
    """The outcome of an execution; applies only while the row is PENDING and `owner_token` owns it."""

    workflow_id: str
    owner_token: str
    status: str
    output: str | None
    error: str | None
    serialization: str | None
    # The queue on which other processes may wait for the place that becomes free.
    freed_queue: str | None = None

    def row(self) -> dict[str, Any]:
        return {
            "w": self.workflow_id,
            "t": self.owner_token,
            "s": self.status,
            "o": self.output,
            "e": self.error,
        }

    def size(self) -> int:
        return 300 + len(self.output or "") + len(self.error or "")


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A run of a schedule that is to be enqueued. `tick` is its nominal time, None when it is not a tick (a trigger)
    or not the schedule's own doing (a backfill): then neither its status nor its policies matter."""

    schedule: Schedule
    record: WorkflowStarted
    tick: datetime | None = None


@dataclass(slots=True)
class Bounce:
    """New arguments and a later start for a debounced workflow, while it is still the delayed holder of its key.

    `application_name` is whose row it may be, besides a row of nobody; None is anybody's. `step` is the step of the
    workflow that debounces, written in the same transaction and only while its token owns that workflow.
    """

    workflow_id: str
    name: str
    queue_name: str
    deduplication_id: str
    application_name: str | None
    delay_until_ms: int
    inputs: str
    serialization: str
    step: StepCompleted | None = None


# What workflow and step code does to the outside, durable together with its step row.
Effect = Union[EventSet, MessagesSent, MessageConsumed, StreamWritten]
EFFECT_TYPES = (EventSet, MessagesSent, MessageConsumed, StreamWritten)
Record = Union[StepCompleted, WorkflowStarted, WorkflowFinished, Effect]
