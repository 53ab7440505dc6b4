"""Database rows to records, at the edge: nothing above `storage` sees a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..records import StepCompleted, Verdict
from ..types import ClaimedWorkflow, QueueConfig, RateLimit, Schedule, StepRecord, VersionInfo, WorkflowOutcome


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """One row of workflow_status with its payloads as stored text."""

    workflow_id: str
    status: str
    name: str
    class_name: str | None
    config_name: str | None
    authenticated_user: str | None
    assumed_role: str | None
    authenticated_roles: str | None
    inputs: str | None
    output: str | None
    error: str | None
    created_at: int
    updated_at: int
    queue_name: str | None
    executor_id: str | None
    application_version: str | None
    timeout_ms: int | None
    deadline_ms: int | None
    deduplication_id: str | None
    priority: int
    queue_partition_key: str | None
    forked_from: str | None
    was_forked_from: bool
    parent_workflow_id: str | None
    started_at_ms: int | None
    delay_until_ms: int | None
    completed_at: int | None
    attributes: str | None
    schedule_name: str | None
    application_name: str | None
    recovery_attempts: int | None
    application_id: str | None
    serialization: str | None


def parse_attributes(text: str | None) -> dict[str, Any] | None:
    """Attributes from their column: JSON null and SQL NULL both mean none."""
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else None


def parse_roles(text: str | None) -> list[str] | None:
    return json.loads(text) if text else None


def to_step(row: Sequence[Any]) -> StepRecord:
    """From the columns function_id ... completed_at_epoch_ms of load_steps and list_steps."""
    return StepRecord(*row)


def to_outcome(row: Sequence[Any]) -> WorkflowOutcome:
    return WorkflowOutcome(*row)


def to_claimed(row: Sequence[Any]) -> ClaimedWorkflow:
    return ClaimedWorkflow(
        workflow_id=row[0],
        status=row[1],
        name=row[2],
        class_name=row[3],
        config_name=row[4],
        owner_token=row[5],
        inputs=row[6],
        serialization=row[7],
        recovery_attempts=row[8] or 0,
        deadline_ms=row[9],
        authenticated_user=row[10],
        authenticated_roles=parse_roles(row[11]),
        attributes=parse_attributes(row[12]),
        queue_name=row[13],
        partition_key=row[14],
        has_steps=bool(row[17]),
    )


def to_queue(row: Sequence[Any]) -> QueueConfig:
    """From the columns of find_queue and list_queues."""
    name, application, total, worker, rate, period, partition, partition_worker, partition_rate, partition_period = row[
        :10
    ]
    return QueueConfig(
        name=name,
        application_name=application,
        global_concurrency=total,
        worker_concurrency=worker,
        rate_limit=None if rate is None else RateLimit(rate, period),
        partition_concurrency=partition,
        partition_worker_concurrency=partition_worker,
        partition_rate_limit=None if partition_rate is None else RateLimit(partition_rate, partition_period),
        polling_interval_seconds=row[10],
        updated_at_ms=row[11],
    )


def from_queue(queue: QueueConfig, now_ms: int) -> tuple[Any, ...]:
    """The parameters of register_queue and update_queue up to the time."""
    rate, partition_rate = queue.rate_limit, queue.partition_rate_limit
    return (
        queue.name,
        queue.application_name,
        queue.global_concurrency,
        queue.worker_concurrency,
        None if rate is None else rate.limit,
        None if rate is None else float(rate.period_seconds),
        queue.partition_concurrency,
        queue.partition_worker_concurrency,
        None if partition_rate is None else partition_rate.limit,
        None if partition_rate is None else float(partition_rate.period_seconds),
        float(queue.polling_interval_seconds),
        queue.is_partitioned,
        now_ms,
    )


def to_version(row: Sequence[Any]) -> VersionInfo:
    return VersionInfo(
        version_id=row[0],
        version_name=row[1],
        version_timestamp=row[2],
        created_at=row[3],
        application_name=row[4],
    )


def to_schedule(row: Sequence[Any]) -> Schedule:
    """From the columns of find_schedule and list_schedules."""
    (
        schedule_id,
        name,
        workflow_name,
        class_name,
        cron,
        status,
        context,
        last_fired_at,
        automatic_backfill,
        timezone,
        queue_name,
        application_name,
    ) = row
    return Schedule(
        schedule_id,
        name,
        workflow_name,
        class_name,
        cron,
        status,
        context,
        last_fired_at,
        bool(automatic_backfill),
        timezone,
        queue_name,
        application_name,
    )


def verdict_on_step(record: StepCompleted, rows: Sequence[Sequence[Any]]) -> Verdict | None:
    """What the rows of find_step say about a record; None while its place is free."""
    if not rows:
        return Verdict.FENCED
    owner, name, completed_at_ms, child_id = rows[0]
    # Whoever lost the workflow stops here, even if this very row is its own (02 R77, R136).
    if owner != record.owner_token:
        return Verdict.FENCED
    if name is None:
        return None
    # The same completion time means that an earlier try of this record did commit (02 R84).
    own = (completed_at_ms, child_id) == (record.completed_at_ms, record.child_workflow_id)
    return Verdict.APPLIED if own or record.keep_existing else Verdict.REPEATED
