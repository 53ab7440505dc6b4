"""Queues on any SQL database: configuration, claims, delays (see `store.Store`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..types import INTERNAL_QUEUE_NAME, Claim, Claimed, ClaimedWorkflow, QueueConfig
from .rows import from_queue, to_claimed, to_queue

if TYPE_CHECKING:
    from ..records import Verdict
    from .bulk import Transaction
    from .database import Connections
    from .encoding import Row
    from .once import Once


class QueueOperations:
    """The part of the store that is about queues."""

    _db: Connections
    # See `database.SqlStore`.
    _recorded: Callable[..., Verdict]

    # --- claims

    def claim_workflows(
        self, queue: QueueConfig, claim: Claim, now_ms: int, running: Mapping[str, int] | None = None
    ) -> Claimed:
        rate, names = queue.rate_limit, claim.function_names
        parameters: Row = (
            queue.name,
            now_ms,
            claim.token,
            claim.executor_id,
            claim.application_version,
            claim.application_name,
            claim.is_latest,
            claim.limit,
            None if names is None else json.dumps(list(names)),
            queue.global_concurrency,
            None if rate is None else rate.limit,
            None if rate is None else int(rate.period_seconds * 1000),
            queue.is_rate_limited,
            queue.updated_at_ms or None,
        )
        name = "claim_workflows"
        if queue.is_partitioned:
            name = "claim_partitions"
            rate = queue.partition_rate_limit
            parameters += (
                queue.partition_concurrency,
                queue.partition_worker_concurrency,
                json.dumps(dict(running or {})),
                None if rate is None else rate.limit,
                None if rate is None else int(rate.period_seconds * 1000),
            )
        return _claimed(self._db.claim(name, parameters, queue.name if queue.has_shared_limits else None))

    def find_claimed(self, token: str) -> list[ClaimedWorkflow]:
        return _claimed(self._db.read("find_claimed", (token,)))

    def find_rate_window(self, queue: QueueConfig, application_name: str, now_ms: int) -> int | None:
        rate = queue.rate_limit
        if rate is not None and rate.limit >= 1:
            rows = self._db.read("find_rate_window", (queue.name, application_name, rate.limit))
            window_ms: int = rows[0][0] + int(rate.period_seconds * 1000) if rows and rows[0][0] is not None else 0
            if window_ms > now_ms:
                # A partition that has room must wait too.
                return window_ms
        rate = queue.partition_rate_limit
        if rate is None or rate.limit < 1:
            return None
        parameters = (queue.name, application_name, rate.limit, now_ms, int(rate.period_seconds * 1000))
        first_ms: int | None = self._db.read("find_partition_rate_window", parameters)[0][0]
        return first_ms

    def find_waiting_queues(self, queue_names: Sequence[str], claim: Claim) -> list[str]:
        parameters = (
            json.dumps(list(queue_names)),
            claim.application_name,
            claim.application_version,
            claim.is_latest,
            json.dumps(list(claim.function_names or ())),
            INTERNAL_QUEUE_NAME,
        )
        return [row[0] for row in self._db.read("find_waiting_queues", parameters)]

    def find_holder(self, queue_name: str, deduplication_id: str) -> str | None:
        rows = self._db.read("find_holder", (queue_name, deduplication_id))
        return rows[0][0] if rows else None

    # --- delays

    def promote_delayed(self, application_name: str, now_ms: int) -> list[str]:
        promoted = [row[0] for row in self._db.write("promote_delayed", (application_name, now_ms))]
        if promoted:
            self._db.announce("queued", sorted(set(promoted)))
        return promoted

    def find_next_delayed(self, application_name: str) -> int | None:
        due_ms: int | None = self._db.read("find_next_delayed", (application_name,))[0][0]
        return due_ms

    # --- configuration

    def register_queue(
        self, queue: QueueConfig, now_ms: int, *, overwrite: bool, once: Once | None = None
    ) -> QueueConfig:
        found: QueueConfig | None = None

        def register(transaction: Transaction) -> None:
            nonlocal found
            transaction.change("register_queue", (*from_queue(queue, now_ms), overwrite))
            # There, and as it is until the commit: the statement locks the row, also one that it leaves alone.
            found = to_queue(transaction.read("find_queue", (queue.name,))[0])

        self._recorded(None, register, once=once)
        # What an earlier try has registered may have been deleted since; it is not registered again.
        return found or self.find_queue(queue.name) or queue

    def update_queue(self, queue: QueueConfig, now_ms: int, *, once: Once | None = None) -> bool:
        def update(transaction: Transaction) -> None:
            if not transaction.read("update_queue", (*from_queue(queue, now_ms), queue.updated_at_ms)):
                # Rolled back, so that no later try takes it for done.
                raise _ChangedMeanwhile

        try:
            self._recorded(None, update, once=once)
        except _ChangedMeanwhile:
            return False
        return True

    def find_queue(self, name: str) -> QueueConfig | None:
        rows = self._db.read("find_queue", (name,))
        return to_queue(rows[0]) if rows else None

    def list_queues(self, application_names: Sequence[str] | None) -> list[QueueConfig]:
        names = None if application_names is None else json.dumps(list(application_names))
        return [to_queue(row) for row in self._db.read("list_queues", (names,))]

    def delete_queue(self, name: str, *, once: Once | None = None) -> None:
        def delete(transaction: Transaction) -> None:
            transaction.change("delete_queue", (name,))

        self._recorded(None, delete, once=once)

    def has_waiting(self, name: str) -> bool:
        return bool(self._db.read("has_waiting", (name,))[0][0])


class _ChangedMeanwhile(Exception):
    """Rolls back: the configuration is not the one any more that was read."""


def _claimed(rows: list[Row]) -> Claimed:
    """Claim order is priority, age, id (05: total order), the last columns of the row."""
    taken = [row for row in rows if row[0] is not None]
    claimed = Claimed(to_claimed(row) for row in sorted(taken, key=lambda row: (row[15], row[16], row[0])))
    claimed.has_passed_over = len(taken) < len(rows)
    return claimed
