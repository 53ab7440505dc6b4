"""The store contract: every operation on the system database, and its promise.

The engine sees this class and nothing of SQL. `sqlite.py` and `postgres.py` supply the connections, `sql/<backend>/`
the statements; `tests/storage/` runs one body of tests over both. A new backend is finished when that passes.

Three kinds of trouble leave a store, and they call for different reactions:

    StoreUnavailable   the database did not answer, or asked to try again. Whether a write happened may be unknown.
                       Every operation here may be repeated until it answers.
    StoreRefused       the database will never take this record; others in the same batch may be fine.
    StoreFailed        the database cannot be used: full disk, read-only file, missing rights, damaged file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..error import DBOSException
from ..records import (
    Answer,
    Bounce,
    Enqueue,
    MessagesSent,
    Record,
    ScheduledRun,
    StepCompleted,
    Verdict,
    WorkflowFinished,
)
from ..types import (
    Claim,
    Claimed,
    ClaimedWorkflow,
    Fork,
    KeyHolder,
    QueueConfig,
    Rewind,
    Schedule,
    SentMessage,
    StepRecord,
    StoredMessage,
    StoredValue,
    StreamPage,
    VersionInfo,
    WorkflowFilter,
    WorkflowOutcome,
)
from .rows import WorkflowRow

if TYPE_CHECKING:
    from .once import Once

# Whose rows follow when an application is renamed.
RenamedTable = Literal["workflows", "steps"]


class StoreUnavailable(Exception):
    """No answer, or not now: lost connection, server starting up, lock held by someone else. Repeat."""


class StoreUnreachable(StoreUnavailable):
    """The server or a connection to it is missing; the cause is the driver's error."""


class StoreRefused(Exception):
    """The database rejects this data for good; the cause is the driver's error."""


class BulkRefused(StoreRefused):
    """The database rejects the data of one of many workflows for good: that at `index`."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class StoreFailed(DBOSException):
    """The system database cannot be used until somebody repairs it: the message says what and how.

    Nothing was recorded by the call that raised this, and nothing that was recorded before is lost. Workflows that
    meet it stop, stay PENDING and continue from their last recorded step at the next launch.
    """


class Resumed(NamedTuple):
    """What became of a resume. `queues` are those on which the workflows wait now; None: an earlier try did it."""

    verdict: Verdict
    queues: list[str] | None


class Store(Protocol):
    """Every operation on the system database."""

    backend: str  # "sqlite" or "postgres"
    commits_in_parallel: bool  # whether a second commit at the same time need not wait for the first

    @property
    def hears_messages(self) -> bool:
        """Whether at present every message that anybody sends is announced to this process (see `listen`)."""
        ...

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        """Write all records in one transaction and give each its own answer, in order.

        Returns only after the commit. Every record is insert-if-absent or conditional on its owner token, so
        repeating the call after StoreUnavailable finds its own rows and answers APPLIED for them. StoreRefused
        means nothing of the batch was written.
        """
        ...

    def enqueue_workflows(self, enqueues: Sequence[Enqueue]) -> dict[int, Answer]:
        """Put many new workflows on their queues, in workflow code with the step of each, in one transaction.

        Each gets the answer that it would get alone, after those before it. Returns the answers other than APPLIED by
        index. If one of them is not what its enqueue `accepts`, nothing at all is written.
        Repeating the call after StoreUnavailable finds its own rows by their creator tokens and answers APPLIED for
        them. BulkRefused, which tells the index, means that nothing was written either.
        """
        ...

    def enqueue_within(self, connection: Any, enqueue: Enqueue) -> Answer:
        """Put a workflow on its queue in the transaction that is open on a SQLAlchemy connection.

        Nothing is written unless the enqueue `accepts` the answer. The caller commits; errors are SQLAlchemy's.
        """
        ...

    def find_newest_waiting(self, queue_name: str, partition_keys: Sequence[str]) -> dict[str, int]:
        """The latest creation time, in epoch ms, of what waits or runs in each of the partitions; empty ones miss."""
        ...

    def load_steps(self, workflow_ids: Sequence[str], after: int, until: int) -> dict[str, list[StepRecord]]:
        """The recorded steps with after < step id <= until, per workflow, in order."""
        ...

    def list_steps(
        self,
        workflow_id: str,
        *,
        load_output: bool,
        limit: int | None,
        offset: int | None,
        timeout_seconds: float | None = None,
    ) -> list[StepRecord]:
        """The recorded steps of one workflow in order; empty for an unknown one. Timeout as of `list_workflows`."""
        ...

    def find_outcomes(self, workflow_ids: Sequence[str]) -> dict[str, WorkflowOutcome]:
        """Status and payloads of those workflows that exist."""
        ...

    def find_final(self, workflow_ids: Sequence[str]) -> list[str]:
        """Those of the workflows that have ended, in any final status."""
        ...

    def get_workflow(self, workflow_id: str) -> WorkflowRow | None:
        """One workflow with its payloads, or None."""
        ...

    def list_workflows(self, wanted: WorkflowFilter, timeout_seconds: float | None) -> list[WorkflowRow]:
        """The workflows of a filter by age and id, the newest or the oldest first; payloads only if asked for.

        Raises DBOSQueryTimeoutError when it takes longer than `timeout_seconds` (Postgres; None is no limit).
        """
        ...

    def requeue_pending(
        self, executor_id: str, application_version: str, application_name: str, dead: Sequence[str] | None = None
    ) -> list[str]:
        """Put the PENDING workflows of one executor and version back on their queue; returns their ids.

        With `dead`, names of processes, those stay that a process not named there owns. Conditional on PENDING, so
        asking twice changes nothing the second time.
        """
        ...

    def join(self, process: str) -> bool:
        """Let other processes see that this one, of that name (see `ids`), is alive: until `close`, or its death.

        False where they cannot: in memory, behind poolers that keep no sessions, on file systems without locks.
        """
        ...

    def is_shared(self) -> bool:
        """Whether another process may have used the database since `join`."""
        ...

    def find_owners(
        self, application_name: str, application_version: str, function_names: Sequence[str] | None = None
    ) -> list[str]:
        """The names of the processes that own PENDING workflows of one version, and of these functions or any.

        Processes of other releases have no names.
        """
        ...

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        """Those of the named processes that are gone.

        A process whose connection broke seems to be gone until it has another one. `patient` says that nobody is to
        be judged while a server that has just started has probably lost them all.
        """
        ...

    def requeue_dead(
        self, dead: Sequence[str], application_version: str, application_name: str, function_names: Sequence[str]
    ) -> list[str]:
        """Put the PENDING workflows of these functions that the named processes own back on their queue.

        Returns the queue of each. Repeatable.
        """
        ...

    def claim_workflows(
        self, queue: QueueConfig, claim: Claim, now_ms: int, running: Mapping[str, int] | None = None
    ) -> Claimed:
        """Take up to `claim.limit` waiting workflows of a queue for this executor, by priority and age, with inputs.

        Each is taken by exactly one claimer, and the shared limits of the queue hold whatever processes, versions and
        applications claim at the same moment. Nothing is taken by a configuration that is no longer the stored one
        (`updated_at_ms`; 0 is a queue that has no row). `running` says how many of each partition run in this process,
        for the limit per worker. Of a partitioned queue without shared limits a claim takes nothing that somebody else
        claims at the same moment, though more may wait behind it, and says so. After StoreUnavailable ask
        `find_claimed` with the same token.
        """
        ...

    def find_claimed(self, token: str) -> list[ClaimedWorkflow]:
        """The workflows that the claim with this token took and that are still its."""
        ...

    def find_rate_window(self, queue: QueueConfig, application_name: str, now_ms: int) -> int | None:
        """When, in epoch ms, a rate limit of the queue lets the next workflow start; None when it does now."""
        ...

    def find_event(self, workflow_id: str, key: str) -> StoredValue | None:
        """The value that an event has now."""
        ...

    def find_set_events(self, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the events (workflow, key) that have a value."""
        ...

    def list_events(self, workflow_id: str, timeout_seconds: float | None) -> dict[str, StoredValue]:
        """All events of a workflow, by key; DBOSQueryTimeoutError when it takes too long."""
        ...

    def read_stream(self, workflow_id: str, key: str, offset: int, limit: int) -> StreamPage:
        """Up to `limit` consecutive entries of a stream from `offset` on, with the status of its workflow."""
        ...

    def has_marker(self, workflow_id: str, key: str) -> bool:
        """Whether a stream was closed, whatever was written behind that."""
        ...

    def find_stream_ends(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """The last offset of each of the streams (workflow, key); those without entries miss."""
        ...

    def find_messages(self, workflow_id: str, topic: str, limit: int) -> list[StoredMessage]:
        """The oldest messages that wait for a workflow under a topic, in the order in which they are received."""
        ...

    def list_messages(
        self,
        workflow_id: str,
        topics: Sequence[str] | None,
        is_received: bool | None,
        *,
        load_message: bool,
        limit: int | None,
        offset: int | None,
        timeout_seconds: float | None,
    ) -> list[SentMessage]:
        """The messages to a workflow as they were sent, waiting or received; DBOSQueryTimeoutError."""
        ...

    def find_filled_mailboxes(self, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the pairs of workflow and topic under which a message waits."""
        ...

    def send_within(
        self,
        connection: Any,
        destination_ids: Sequence[str],
        make: Callable[[Mapping[str, Sequence[str]]], MessagesSent],
        *,
        send_to_forks: bool,
    ) -> list[str]:
        """Send what `make` gives for the forks of the recipients, in the transaction of a caller.

        Returns the recipients that do not exist; nothing is sent then.
        """
        ...

    def find_forks(self, workflow_ids: Sequence[str]) -> dict[str, list[str]]:
        """For each of the workflows its forks, their forks, and so on."""
        ...

    def find_waiting_queues(self, queue_names: Sequence[str], claim: Claim) -> list[str]:
        """Those of the queues on which something waits that the claimer can run."""
        ...

    def promote_delayed(self, application_name: str, now_ms: int) -> list[str]:
        """Make up to 1,000 delayed workflows that are due ENQUEUED; the queue of each."""
        ...

    def find_next_delayed(self, application_name: str) -> int | None:
        """When the next delayed workflow is due, in epoch ms."""
        ...

    def find_holder(self, queue_name: str, deduplication_id: str) -> str | None:
        """The workflow that holds a deduplication id of a queue."""
        ...

    def find_key_holder(self, queue_name: str, deduplication_id: str) -> tuple[bool, KeyHolder | None]:
        """Whether the queue is registered, and the workflow that holds a deduplication id of it."""
        ...

    def bounce(self, bounce: Bounce, now_ms: int) -> Verdict | None:
        """Give a debounced workflow new inputs and a later start, with the step of the workflow that asks for it.

        One transaction. None: the workflow is not what the bounce says any more, and nothing was written. Otherwise
        APPLIED, and for one with a step FENCED or REPEATED, as for step records. Repeating one with a step after
        StoreUnavailable finds its own row; without a step it bounces once more, with the same inputs and time.
        """
        ...

    def register_queue(
        self, queue: QueueConfig, now_ms: int, *, overwrite: bool, once: Once | None = None
    ) -> QueueConfig:
        """Insert a queue, or overwrite its row unless another application owns it; the row as it is now.

        A repeated call has to come with the same `once`, here and for the other changes of queues.
        """
        ...

    def update_queue(self, queue: QueueConfig, now_ms: int, *, once: Once | None = None) -> bool:
        """Write a changed configuration if the row is still as it was read (`queue.updated_at_ms`)."""
        ...

    def find_queue(self, name: str) -> QueueConfig | None: ...

    def list_queues(self, application_names: Sequence[str] | None) -> list[QueueConfig]:
        """The queues of these applications and those nobody owns, by name; all queues for None."""
        ...

    def delete_queue(self, name: str, *, once: Once | None = None) -> None:
        """Remove the row. Workflows that wait on the queue stay."""
        ...

    def has_waiting(self, name: str) -> bool:
        """Whether a workflow waits on the queue, or is delayed and will; whoever may run it."""
        ...

    def create_schedule(
        self, schedule: Schedule, step: StepCompleted | None, *, once: Once | None = None
    ) -> Verdict | Schedule:
        """Insert a schedule, in workflow code together with the step row; the one that has its name if there is one.

        What the owner check of the step says is the verdict; nothing is written then. Without a step a repeated call
        has to come with the same `once`, here and for the other changes of schedules.
        """
        ...

    def apply_schedules(self, schedules: Sequence[Schedule], *, once: Once | None = None) -> Schedule | None:
        """Insert or replace all of them, or none: then the one of another application that has the name is returned.

        The id, the status and the last tick of a replaced one stay.
        """
        ...

    def find_schedule(self, name: str) -> Schedule | None: ...

    def list_schedules(self, application_names: Sequence[str] | None) -> list[Schedule]:
        """The schedules of these applications and those nobody owns, by name; all schedules for None."""
        ...

    def delete_schedule(self, name: str, step: StepCompleted | None, *, once: Once | None = None) -> Verdict:
        """Remove a schedule if there is one; its runs stay. `step` and `once` as for `create_schedule`."""
        ...

    def set_schedule_status(
        self, name: str, status: str, step: StepCompleted | None, *, once: Once | None = None
    ) -> Verdict:
        """Pause or resume a schedule if there is one. `step` and `once` as for `create_schedule`."""
        ...

    def fire_schedules(self, runs: Sequence[ScheduledRun], now_ms: int, *, once: Once | None = None) -> None:
        """Enqueue runs of schedules with the latest version of their application; those that exist stay as they are.

        A tick counts only while its schedule is active and defined as it was; its time is noted as the last one of
        the schedule, which never goes back. All in one transaction, during which nobody else fires these schedules.
        """
        ...

    def dead_letter(self, workflow_id: str, token: str, now_ms: int) -> None:
        """Give a workflow up, if this claim still owns it."""
        ...

    def cancel_overdue(self, application_name: str, now_ms: int) -> list[str]:
        """Cancel up to 1,000 active workflows whose deadline has passed; returns their ids."""
        ...

    # The following change workflows from outside. In workflow code the change and the `step` of the call are written in
    # one transaction, if the token of the step still owns its workflow; the verdict is that of the step, and nothing is
    # written unless it is APPLIED. Repeating a call after StoreUnavailable finds its step; without one it has to come
    # with the same `once`, or it may be done twice. What an earlier try did is APPLIED, whatever has happened since.

    def refuse_workflow(self, record: WorkflowFinished, now_ms: int) -> None:
        """The outcome of a claimed workflow whose format this process does not know, in a format that everybody knows.

        From now on the row names that one. Applies only while `record.owner_token` owns the workflow; in one
        transaction.
        """
        ...

    def cancel_workflows(
        self,
        workflow_ids: Sequence[str],
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
        with_children: bool = False,
    ) -> Verdict:
        """Cancel those that have neither succeeded nor failed; unknown ids are ignored.

        With children all descendants too, and none escapes by being started meanwhile.
        """
        ...

    def resume_workflows(
        self,
        workflow_ids: Sequence[str],
        queue_name: str | None,
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
    ) -> Resumed:
        """Put those that have neither succeeded nor failed on a queue.

        None is the queue on which a workflow was when it was cancelled or given up, else the internal one.
        Raises DBOSNonExistentWorkflowError, and nothing changes, when one of them does not exist.
        """
        ...

    def delete_workflows(
        self,
        workflow_ids: Sequence[str],
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
        with_children: bool = False,
    ) -> list[str] | Verdict:
        """Remove everything of the workflows, with children also of all descendants; unknown ids are ignored.

        Returns what was to be removed, or the verdict other than APPLIED.
        """
        ...

    def set_workflow_delay(
        self,
        workflow_id: str,
        delay_until_ms: int,
        now_ms: int,
        step: StepCompleted | None = None,
        *,
        once: Once | None = None,
    ) -> Verdict:
        """Move the due time of a workflow, if it is delayed."""
        ...

    def fork_workflow(
        self, fork: Fork, now_ms: int, step: StepCompleted | None = None, *, once: Once | None = None
    ) -> Verdict:
        """Make a fork, of what its source is at one moment.

        Raises DBOSNonExistentWorkflowError when there is no source, DBOSWorkflowIDInUseError when the id is in use.
        """
        ...

    def rewind_workflow(
        self, rewind: Rewind, now_ms: int, step: StepCompleted | None = None, *, once: Once | None = None
    ) -> Verdict:
        """Take back what a workflow that has ended did from a step on, and enqueue it.

        Raises DBOSNonExistentWorkflowError when there is none, DBOSException when it has not ended.
        """
        ...

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
        """Replace the attributes, a JSON text, or with `merge` those of the same names; unknown ids are ignored."""
        ...

    def find_children(self, workflow_ids: Sequence[str]) -> list[str]:
        """The direct children of the workflows."""
        ...

    def find_family(self, workflow_ids: Sequence[str]) -> list[str]:
        """The workflows and all their descendants, each once."""
        ...

    def find_states(self, workflow_ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """State and owner token of those workflows that exist."""
        ...

    def find_cancelled(self, workflow_ids: Sequence[str]) -> list[str]:
        """Those of the workflows that are cancelled."""
        ...

    def find_existing(self, workflow_ids: Sequence[str]) -> list[str]:
        """Those of the ids that have a workflow."""
        ...

    def count_waiting_elsewhere(
        self, application_name: str, application_version: str, executor_id: str
    ) -> list[tuple[str, str, int]]:
        """Waiting workflows that other versions must run: (version, status, count)."""
        ...

    def register_version(self, version_name: str, application_name: str, now_ms: int) -> None:
        """Make the version known for the application, claiming an unowned row of that name.

        Raises DBOSException when another application owns the name.
        """
        ...

    def list_versions(self, application_name: str | None, limit: int | None = None) -> list[VersionInfo]:
        """Own and unowned versions, newest first; all of them for None."""
        ...

    def promote_version(self, version_name: str, application_name: str | None, now_ms: int) -> bool:
        """Make a version the latest; False when no such version is registered."""
        ...

    # --- renaming an application

    def rename_live(self, old_name: str | None, new_name: str, *, adopt: bool) -> dict[str, int]:
        """Give queues, schedules, versions and workflows that have not ended to another application; counts of each.

        One transaction. `old_name` None is no application; `adopt` also gives it what belongs to none.
        """
        ...

    def rename_ended(
        self, what: RenamedTable, old_name: str | None, new_name: str, *, adopt: bool, after: str, size: int | None
    ) -> tuple[int, str | None]:
        """The same for the rows of `size` workflows whose ids are greater than `after`, in the order of the ids.

        Returns how many rows that were, and the last id; None when nothing is left. A size of None is all.
        """
        ...

    def rename_all(self, old_name: str | None, new_name: str, *, adopt: bool) -> dict[str, int]:
        """Everything in one transaction; counts of queues, schedules, versions, workflows and steps."""
        ...

    def check_for_changes(self) -> bool:
        """Whether another connection may have changed the database since the last call (SQLite only)."""
        ...

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        """Hand over what other processes announce, as (kind, workflow ids), until the store is closed.

        No ids means that any workflow may be meant; kind "connected" that announcements may have been missed before.
        Returns at once where the backend has no notifications. StoreUnavailable when the connection is lost.
        """
        ...

    def close(self) -> None:
        """Close every connection. Calls in progress end with StoreUnavailable."""
        ...
