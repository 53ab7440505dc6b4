"""Managing workflows on any SQL database: cancel, resume, fork, rewind, delete, attributes (see `store.Store`).

Each call is one transaction, whatever it is given. It locks everything it changes first, in id order, together with the
workflow that asks for it; so calls and batches of the journal never hold what the other waits for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..error import DBOSException, DBOSNonExistentWorkflowError, DBOSWorkflowIDInUseError
from ..records import StepCompleted, Verdict, WorkflowFinished
from ..types import ACTIVE_STATUSES, INTERNAL_QUEUE_NAME, Fork, Rewind
from .encoding import encode_json
from .store import Resumed

if TYPE_CHECKING:
    from .bulk import Transaction
    from .database import Connections
    from .once import Once

# More ids than this in one statement gain nothing and make its plan and its parameters large.
CHUNK = 1000


class ManagementOperations:
    """The part of the store that changes workflows from outside."""

    _db: Connections
    # See `database.SqlStore`.
    _recorded: Callable[..., Verdict]

    # --- looking

    def find_children(self, workflow_ids: Sequence[str]) -> list[str]:
        return [row[0] for ids in chunks(workflow_ids) for row in self._db.read("find_children", (ids,))]

    def find_family(self, workflow_ids: Sequence[str]) -> list[str]:
        family = dict.fromkeys(workflow_ids)
        level = list(family)
        while level:
            level = [child for child in self.find_children(level) if child not in family]
            family.update(dict.fromkeys(level))
        return list(family)

    def find_states(self, workflow_ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        rows = [row for ids in chunks(workflow_ids) for row in self._db.read("find_states", (ids,))]
        return {row[0]: (row[1], row[2]) for row in rows}

    # --- cancel, resume, delete, delay

    def cancel_workflows(
        self,
        workflow_ids: Sequence[str],
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
        with_children: bool = False,
    ) -> Verdict:
        family = self.find_family(workflow_ids) if with_children else list(workflow_ids)

        def cancel(transaction: Transaction) -> None:
            cancelled: list[str] = []
            for generation in _generations(transaction, family, with_children, "lock_workflows"):
                for ids in chunks(generation):
                    transaction.change("cancel_workflows", (ids, now_ms))
                cancelled += generation
            transaction.announce("cancelled", cancelled)

        return self._recorded(step, cancel, once=once, locking=family)

    def resume_workflows(
        self,
        workflow_ids: Sequence[str],
        queue_name: str | None,
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
    ) -> Resumed:
        queues: list[str] | None = None

        def resume(transaction: Transaction) -> None:
            nonlocal queues
            found = {row[0] for ids in chunks(workflow_ids) for row in transaction.read("find_existing", (ids,))}
            missing = [workflow_id for workflow_id in workflow_ids if workflow_id not in found]
            if missing:
                raise DBOSNonExistentWorkflowError("target", ", ".join(missing))
            names: set[str] = set()
            for ids in chunks(workflow_ids):
                rows = transaction.read("resume_workflows", (ids, now_ms, queue_name, INTERNAL_QUEUE_NAME))
                names.update(row[0] for row in rows)
            queues = sorted(names)
            if queues:
                transaction.announce("queued", queues)

        return Resumed(self._recorded(step, resume, once=once, locking=workflow_ids), queues)

    def delete_workflows(
        self,
        workflow_ids: Sequence[str],
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
        with_children: bool = False,
    ) -> list[str] | Verdict:
        family = self.find_family(workflow_ids) if with_children else list(workflow_ids)
        deleted: list[str] = []

        def delete(transaction: Transaction) -> None:
            for generation in _generations(transaction, family, with_children, "lock_for_deletion"):
                deleted.extend(generation)
            for ids in chunks(deleted):
                transaction.change("delete_workflows", (ids,))
            transaction.announce("cancelled", deleted)

        verdict = self._recorded(step, delete, once=once, locking=family, lock="lock_for_deletion")
        # Who deletes again what an earlier try has deleted tells of it again.
        return (deleted or family) if verdict is Verdict.APPLIED else verdict

    def set_workflow_delay(
        self,
        workflow_id: str,
        delay_until_ms: int,
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
    ) -> Verdict:
        def delay(transaction: Transaction) -> None:
            transaction.read("set_workflow_delay", (workflow_id, delay_until_ms, now_ms))

        return self._recorded(step, delay, once=once, locking=[workflow_id])

    # --- fork and rewind

    def fork_workflow(
        self, fork: Fork, now_ms: int, step: StepCompleted | None = None, *, once: Once | None = None
    ) -> Verdict:
        def make(transaction: Transaction) -> None:
            source_id, fork_id, cut = fork.source_id, fork.workflow_id, fork.start_step
            if not transaction.read("find_existing", (encode_json([source_id]),)):
                raise DBOSNonExistentWorkflowError("target", source_id)
            parameters = (
                source_id,
                fork_id,
                fork.creator_token,
                fork.application_version,
                fork.queue_name,
                fork.partition_key,
                fork.timeout_ms,
                fork.application_name,
                now_ms,
            )
            if not transaction.change("fork_workflow", parameters):
                status, name, *_ = transaction.read("find_start", (fork_id,))[0]
                raise DBOSWorkflowIDInUseError(fork_id, status, name or "")
            transaction.change("copy_inputs", (source_id, fork_id, now_ms))
            transaction.change("note_fork", (source_id,))
            if cut > 1:
                replaced = encode_json(dict(fork.replacement_children))
                transaction.change("copy_steps", (source_id, fork_id, cut, replaced, now_ms))
                transaction.change("copy_event_history", (source_id, fork_id, cut))
                transaction.change("restore_events", (source_id, fork_id, cut))
                transaction.change("copy_streams", (source_id, fork_id, cut))
            transaction.announce("queued", [fork.queue_name])

        return self._recorded(step, make, once=once, locking=[fork.source_id])

    def rewind_workflow(
        self, rewind: Rewind, now_ms: int, step: StepCompleted | None = None, *, once: Once | None = None
    ) -> Verdict:
        def turn_back(transaction: Transaction) -> None:
            workflow_id, cut = rewind.workflow_id, rewind.start_step
            found = transaction.read("find_states", (encode_json([workflow_id]),))
            if not found:
                raise DBOSNonExistentWorkflowError("target", workflow_id)
            status = found[0][1]
            if status in ACTIVE_STATUSES:
                raise DBOSException(
                    f"Workflow {workflow_id!r} is {status}, and only what has ended can be rewound. Cancel it first"
                )
            place = (rewind.queue_name, rewind.partition_key, rewind.application_version)
            transaction.change("rewind_workflow", (workflow_id, *place, now_ms))
            transaction.change("forget_events", (workflow_id, cut))
            transaction.change("forget_history", (workflow_id, cut))
            transaction.change("restore_events", (workflow_id, workflow_id, cut))
            transaction.announce("queued", [rewind.queue_name])

        return self._recorded(step, turn_back, once=once, locking=[rewind.workflow_id])

    # --- refusing what was claimed

    def refuse_workflow(self, record: WorkflowFinished, now_ms: int) -> None:
        with self._db.transaction() as transaction:
            transaction.read("lock_workflows", (encode_json([record.workflow_id]),))
            own = (record.workflow_id, record.owner_token, record.serialization)
            if not transaction.change("relabel_workflow", own):
                return
            transaction.change("finish_workflow", (*record.row().values(), now_ms))
            transaction.announce("finished", [record.workflow_id])
            if record.freed_queue is not None:
                transaction.announce("freed", [record.freed_queue])

    # --- attributes

    def update_attributes(
        self,
        workflow_id: str,
        attributes: str | None,
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
        merge: bool,
    ) -> Verdict:
        def update(transaction: Transaction) -> None:
            transaction.change("merge_attributes" if merge else "set_attributes", (workflow_id, attributes, now_ms))

        return self._recorded(step, update, once=once, locking=[workflow_id])


def chunks(workflow_ids: Sequence[str]) -> list[str]:
    """The ids as JSON arrays, for one statement each."""
    return [encode_json(list(workflow_ids[i : i + CHUNK])) for i in range(0, len(workflow_ids), CHUNK)]


def _generations(
    transaction: Transaction, family: Sequence[str], with_children: bool, lock: str
) -> Iterator[Sequence[str]]:
    """The family, which is locked, and then whoever has joined it since it was looked at.

    Once the caller has taken a generation from its owners, or holds it, nobody can start children there.
    """
    known = set(family)
    generation = family
    while generation:
        yield generation
        if not with_children:
            return
        found = [row[0] for ids in chunks(generation) for row in transaction.read("find_children", (ids,))]
        generation = [child for child in dict.fromkeys(found) if child not in known]
        known.update(generation)
        if generation:
            transaction.read(lock, (encode_json(generation),))


def json_merge(stored: str | None, given: str) -> str:
    """Attributes with some keys replaced, as `||` of Postgres does it; for statements of SQLite."""
    try:
        kept = json.loads(stored) if stored else {}
    except ValueError:
        kept = {}
    merged: Mapping[str, object] = {**(kept if isinstance(kept, dict) else {}), **json.loads(given)}
    return json.dumps(merged)
