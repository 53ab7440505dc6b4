"""Records and enums that every layer shares. Imports nothing from the package.

`storage` turns rows into these frozen records and nothing above it sees a row. Names here are ours; the
column they come from is named where it differs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

INTERNAL_QUEUE_NAME = "_dbos_internal_queue"
KAFKA_QUEUE_NAME = "_dbos_kafka_queue"
KAFKA_ORDERED_QUEUE_NAME = "_dbos_kafka_ordered_queue"

WorkflowIDReusePolicy = Literal["return-existing", "reject"]
DuplicationPolicy = Literal["reject", "return-existing"]


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
class RateLimit:
    """At most `limit` starts in any window of `period_seconds`."""

    limit: int
    period_seconds: float


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
    def has_shared_limits(self) -> bool:
        """Whether processes have to agree on how much may be claimed."""
        return self.global_concurrency is not None or self.partition_concurrency is not None or self.is_rate_limited
