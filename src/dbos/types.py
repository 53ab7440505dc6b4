"""Records and enums that every layer shares. Imports nothing from the package.

`storage` turns rows into these frozen records and nothing above it sees a row. Names here are ours; the
column they come from is named where it differs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, TypedDict, get_args
from urllib.parse import parse_qs, urlencode

INTERNAL_QUEUE_NAME = "_dbos_internal_queue"
KAFKA_QUEUE_NAME = "_dbos_kafka_queue"
KAFKA_ORDERED_QUEUE_NAME = "_dbos_kafka_ordered_queue"

WorkflowIDReusePolicy = Literal["return-existing", "reject"]
DuplicationPolicy = Literal["reject", "return-existing"]
# What a schedule does at a tick while an earlier run has not ended.
Overlap = Literal["allow", "skip"]
# Which missed ticks of a schedule are made up for.
CatchUp = Literal["all", "last", "none"]


class WorkflowStatusString(enum.Enum):
    """The states of a workflow, as stored in the column `status`."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    MAX_RECOVERY_ATTEMPTS_EXCEEDED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    CANCELLED = "CANCELLED"
    ENQUEUED = "ENQUEUED"
    DELAYED = "DELAYED"


# Stored pickles name this class by the module path of the persisted format (04 R622).
WorkflowStatusString.__module__ = "dbos._sys_db"

ACTIVE_STATUSES = frozenset({"PENDING", "ENQUEUED", "DELAYED"})


class WorkflowStatus:
    """What is known about one workflow.

    Times are in milliseconds since the epoch. `input` has the keys `args` and `kwargs`; `output` is set after
    success, `error` after a failure.
    """

    workflow_id: str
    status: str
    name: str
    class_name: str | None
    config_name: str | None
    authenticated_user: str | None
    assumed_role: str | None
    authenticated_roles: list[str] | None
    input: Mapping[str, Any] | None
    output: Any | None
    error: Exception | None
    created_at: int | None
    updated_at: int | None
    queue_name: str | None
    executor_id: str | None
    app_version: str | None
    workflow_timeout_ms: int | None
    workflow_deadline_epoch_ms: int | None
    deduplication_id: str | None
    priority: int | None
    queue_partition_key: str | None
    forked_from: str | None
    was_forked_from: bool
    parent_workflow_id: str | None
    dequeued_at: int | None
    delay_until_epoch_ms: int | None
    completed_at: int | None
    attributes: dict[str, Any] | None
    schedule_name: str | None
    application_name: str | None
    shard_key: str | None
    parent_shard_key: str | None
    recovery_attempts: int | None
    app_id: str | None

    def __repr__(self) -> str:
        return f"WorkflowStatus({self.workflow_id!r}, {self.name!r}, {self.status})"


# Stored pickles name this class by the module path of the persisted format (04 R622).
WorkflowStatus.__module__ = "dbos._sys_db"


class StepInfo(TypedDict):
    """One recorded step of a workflow, as `DBOS.list_workflow_steps` returns it."""

    function_id: int
    function_name: str
    output: Any | None
    error: Exception | None
    child_workflow_id: str | None
    child_shard_key: str | None
    started_at_epoch_ms: int | None
    completed_at_epoch_ms: int | None


class MessageInfo(TypedDict):
    """One message that was sent to a workflow, as `DBOS.list_messages` returns it.

    Attributes:
        message_id: Its id; of a message with an idempotency key `<key>::<workflow id>`.
        topic: None is no topic.
        message: What was sent; None if it was not asked for, the stored text if it cannot be read.
        created_at_epoch_ms: When it was sent. Messages of a workflow and topic are received in this order.
        received: Whether it was received; else it waits.
        received_by_function_id: The id of the step that received it, if that is known.
        problem: Why the workflow cannot receive it, or not as what was sent; None if all is well.
    """

    message_id: str
    topic: str | None
    message: Any
    created_at_epoch_ms: int
    received: bool
    received_by_function_id: int | None
    problem: str | None


class VersionInfo(TypedDict):
    """One registered version of an application. Times are in milliseconds since the epoch."""

    version_id: str
    version_name: str
    version_timestamp: int
    created_at: int
    application_name: str | None


@dataclass
class KafkaMessage:
    """A message from Kafka, as the workflow of a `DBOS.kafka_consumer` receives it.

    Attributes:
        headers: Pairs of name and value, or None.
        key, value: What the producer sent, usually bytes.
        latency: Seconds, as the client library reports it; None for consumers.
        leader_epoch, offset, partition, topic: Where the message stands.
        timestamp: Its kind (0 none, 1 when it was made, 2 when the broker got it) and milliseconds since the epoch.
    """

    headers: list[tuple[str, str | bytes]] | None
    key: str | bytes | None
    latency: float | None
    leader_epoch: int | None
    offset: int | None
    partition: int | None
    timestamp: tuple[int, int]
    topic: str | None
    value: str | bytes | None


# Stored pickles name this class by the module path of the persisted format (04 R622).
KafkaMessage.__module__ = "dbos._kafka_message"


@dataclass
class SendMessage:
    """One of the messages of `DBOS.send_bulk`.

    Attributes:
        destination_id: The workflow that shall receive it.
        message: Anything that the format can store.
        topic: The queue within the mailbox; None is one of its own.
        idempotency_key: Of messages to one workflow with the same key only the first is delivered.
        shard_key: Only for sharded system databases; None.
    """

    destination_id: str
    message: Any
    topic: str | None = None
    idempotency_key: str | None = None
    shard_key: str | None = None


SendMessage.__module__ = "dbos._sys_db"


@dataclass(frozen=True, slots=True)
class StepStatus:
    """What a running step may know about itself.

    `current_attempt` counts from 0; it and `max_attempts` are None when the step does not retry.
    """

    step_id: int
    current_attempt: int | None
    max_attempts: int | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One row of `operation_outputs`."""

    step_id: int
    name: str
    output: str | None
    error: str | None
    serialization: str | None
    child_workflow_id: str | None
    started_at_ms: int | None
    completed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class WorkflowOutcome:
    """Status and payloads of a workflow that somebody waits for."""

    workflow_id: str
    status: str
    output: str | None
    error: str | None
    serialization: str | None

    @property
    def is_final(self) -> bool:
        return self.status not in ACTIVE_STATUSES


@dataclass(frozen=True, slots=True)
class ClaimedWorkflow:
    """A workflow this process now owns, with everything needed to execute it."""

    workflow_id: str
    status: str
    name: str
    class_name: str | None
    config_name: str | None
    owner_token: str
    inputs: str | None
    serialization: str | None
    recovery_attempts: int
    deadline_ms: int | None
    authenticated_user: str | None
    authenticated_roles: Sequence[str] | None
    attributes: Mapping[str, Any] | None
    queue_name: str | None
    partition_key: str | None = None
    # Whether it may have recorded steps: it was begun before, or made with some.
    has_steps: bool = True


class Claimed(list[ClaimedWorkflow]):
    """What one claim has taken, in order."""

    # Whether it has passed over workflows that it would have taken, since somebody else was changing them.
    has_passed_over = False


@dataclass(frozen=True, slots=True)
class Fork:
    """A new workflow with the history of another one before `start_step`.

    `creator_token` stands in its row as in that of every start. `application_name` owns it when nobody owns the source;
    without a version the latest one runs it.
    """

    workflow_id: str
    source_id: str
    start_step: int
    creator_token: str
    application_name: str | None
    application_version: str | None = None
    queue_name: str = INTERNAL_QUEUE_NAME
    partition_key: str | None = None
    replacement_children: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """A workflow that has ended is to run again from `start_step`."""

    workflow_id: str
    start_step: int
    application_version: str | None = None
    queue_name: str = INTERNAL_QUEUE_NAME
    partition_key: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Who claims workflows, and how many at most.

    `token` is made for one claim and owns what it takes. `is_latest` takes workflows without a version too.
    `function_names` are the functions registered in this process; None is any.
    """

    token: str
    executor_id: str
    application_version: str
    application_name: str
    is_latest: bool
    limit: int
    function_names: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who holds a deduplication id, as far as a debounce has to know the workflow."""

    workflow_id: str
    name: str | None
    status: str
    is_debounced: bool
    application_name: str | None


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows a listing shows, and what of them. None is any; of several values of a field one must match.

    `application_names` are these and no application at all. Both ends of a time range belong to it. `attributes` must
    be contained. `started` is the last claim from a queue.
    """

    workflow_ids: Sequence[str] | None = None
    workflow_id_prefixes: Sequence[str] | None = None
    statuses: Sequence[str] | None = None
    queue_names: Sequence[str] | None = None
    names: Sequence[str] | None = None
    app_versions: Sequence[str] | None = None
    users: Sequence[str] | None = None
    executor_ids: Sequence[str] | None = None
    forked_from: Sequence[str] | None = None
    parent_workflow_ids: Sequence[str] | None = None
    schedule_names: Sequence[str] | None = None
    application_names: Sequence[str] | None = None
    created_from_ms: int | None = None
    created_until_ms: int | None = None
    completed_from_ms: int | None = None
    completed_until_ms: int | None = None
    started_from_ms: int | None = None
    started_until_ms: int | None = None
    was_forked_from: bool | None = None
    is_fork: bool | None = None
    has_parent: bool | None = None
    attributes: Mapping[str, Any] | None = None
    queues_only: bool = False
    load_input: bool = True
    load_output: bool = True
    newest_first: bool = False
    limit: int | None = None
    offset: int = 0
    # The last one of the page before: when it was created (ms), and its id.
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` starts in any window of `period_seconds`."""

    limit: int
    period_seconds: float


class StoredValue(NamedTuple):
    """A payload as it is stored, with the name of its format."""

    text: str
    serialization: str | None


class StreamEntry(NamedTuple):
    """An entry of a stream at its offset."""

    offset: int
    value: StoredValue


class StreamPage(NamedTuple):
    """Consecutive entries of a stream, and the status of its workflow at the same moment; None: there is none.

    `closed_before` tells that the stream ends with a marker before the offset asked for, where nothing is.
    """

    status: str | None
    entries: list[StoredValue]
    closed_before: bool = False


class StoredMessage(NamedTuple):
    """A message in a mailbox, as it is stored."""

    message_id: str
    text: str
    serialization: str | None


class SentMessage(NamedTuple):
    """A message that waits or was received, as it is stored; `text` is None if it was not asked for."""

    message_id: str
    topic: str | None
    text: str | None
    serialization: str | None
    created_at_ms: int
    is_received: bool
    received_by: int | None


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """One row of `queues`. None is no limit; `application_name` None is a queue nobody owns."""

    name: str
    application_name: str | None = None
    global_concurrency: int | None = None
    worker_concurrency: int | None = None
    rate_limit: RateLimit | None = None
    partition_concurrency: int | None = None
    partition_worker_concurrency: int | None = None
    partition_rate_limit: RateLimit | None = None
    polling_interval_seconds: float = 1.0
    updated_at_ms: int = 0

    @property
    def is_partitioned(self) -> bool:
        """Whether only workflows with a partition key are claimed."""
        limits = (self.partition_concurrency, self.partition_worker_concurrency, self.partition_rate_limit)
        return any(limit is not None for limit in limits)

    @property
    def is_rate_limited(self) -> bool:
        return self.rate_limit is not None or self.partition_rate_limit is not None

    @property
    def has_concurrency(self) -> bool:
        """Whether the end of a workflow may let another one start."""
        return self.has_shared_concurrency or not (
            self.worker_concurrency is None and self.partition_worker_concurrency is None
        )

    @property
    def has_shared_concurrency(self) -> bool:
        """Whether the end of a workflow may let another one start in another process."""
        return self.global_concurrency is not None or self.partition_concurrency is not None

    @property
    def has_shared_limits(self) -> bool:
        """Whether processes have to agree on how much may be claimed."""
        return self.has_shared_concurrency or self.is_rate_limited


class _WorkflowSchedule(TypedDict):
    schedule_id: str
    schedule_name: str
    workflow_name: str
    workflow_class_name: str | None
    schedule: str
    status: str
    context: Any
    last_fired_at: str | None
    automatic_backfill: bool
    cron_timezone: str | None
    queue_name: str | None
    application_name: str | None
    shard_key: str | None


class WorkflowSchedule(_WorkflowSchedule, total=False):
    """A schedule, as `DBOS.get_schedule` and `DBOS.list_schedules` return it.

    status: "ACTIVE" or "PAUSED".
    context: What the workflow gets as second argument; its stored text if it cannot be read here.
    last_fired_at: The nominal time of the last tick, in ISO 8601.
    overlap, catch_up: See `DBOS.create_schedule`; None where it follows automatic_backfill.
    problem: Why this process cannot run the schedule, or None.
    """

    overlap: Overlap
    catch_up: CatchUp | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row of `workflow_schedules`; `context` is serialized.

    The table has no columns for the policies, which are ours: they follow the id, as `<id>?overlap=skip&catch_up=last`.
    """

    schedule_id: str
    name: str
    workflow_name: str
    class_name: str | None
    cron: str
    status: str
    context: str
    last_fired_at: str | None
    automatic_backfill: bool
    timezone: str | None
    queue_name: str | None
    application_name: str | None

    @property
    def overlap(self) -> Overlap:
        return "skip" if "skip" in self._policies("overlap") else "allow"

    @property
    def catch_up(self) -> CatchUp | None:
        for policy in get_args(CatchUp):
            if policy in self._policies("catch_up"):
                known: CatchUp = policy
                return known
        return None

    @property
    def plain_id(self) -> str:
        """The id without the policies."""
        return self.schedule_id.partition("?")[0]

    def _policies(self, name: str) -> list[str]:
        _, _, query = self.schedule_id.partition("?")
        return parse_qs(query).get(name, [])

    @property
    def definition(self) -> tuple[str | None, ...]:
        """What the times and the work of the schedule depend on: a change begins a new count of ticks (03 R132)."""
        return (self.workflow_name, self.class_name, self.cron, self.context, self.timezone, self.queue_name)

    @property
    def last_tick(self) -> datetime | None:
        """When it last fired, in UTC; None for never, and for a text that is no time with an offset."""
        try:
            moment = None if self.last_fired_at is None else datetime.fromisoformat(self.last_fired_at)
        except ValueError:
            return None
        return None if moment is None or moment.tzinfo is None else moment.astimezone(timezone.utc)

    def with_id_of(self, known: Schedule) -> Schedule:
        """The same with the id of the row it replaces, and its own policies."""
        _, mark, policies = self.schedule_id.partition("?")
        return replace(self, schedule_id=known.plain_id + mark + policies)


def schedule_id_with(plain_id: str, overlap: Overlap, catch_up: CatchUp | None) -> str:
    """The id of a schedule with these policies (see Schedule)."""
    policies = {"overlap": None if overlap == "allow" else overlap, "catch_up": catch_up}
    query = urlencode({name: policy for name, policy in policies.items() if policy is not None})
    return f"{plain_id}?{query}" if query else plain_id
