"""The store on any SQL database: the part that both backends share.

A backend supplies three ways to run named statements (`Connections`); what a store operation means is written here
once. The statements of the two backends differ only where the databases do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..error import DBOSException
from ..ids import new_id
from ..records import (
    EFFECT_TYPES,
    Answer,
    DeduplicationTaken,
    EventSet,
    ExistingWorkflow,
    MessageConsumed,
    MessagesSent,
    Record,
    StepCompleted,
    StreamWritten,
    Verdict,
    WorkflowFinished,
    WorkflowStarted,
)
from ..types import INTERNAL_QUEUE_NAME, StepRecord, VersionInfo, WorkflowFilter, WorkflowOutcome
from .batch import NOTHING_NEW, News, Work, lone_statement, news_of, work_of
from .bulk import BulkOperations, Transaction
from .debouncing import DebounceOperations
from .encoding import Row, encode_json
from .events import EventOperations
from .listing import ALL, listing, most_to_sort
from .management import ManagementOperations, chunks
from .messages import MessageOperations
from .once import Once
from .queues import QueueOperations
from .renaming import RenameOperations
from .rows import WorkflowRow, to_outcome, to_step, to_version, verdict_on_step
from .schedules import ScheduleOperations
from .store import StoreUnavailable
from .streams import StreamOperations


class Connections(Protocol):
    """How a backend runs named statements."""

    backend: str
    commits_in_parallel: bool
    # Whether what a step does is written before its row, and looks whether that is there already. Else the row comes
    # first, and tells by itself which transaction wrote it.
    effects_first: bool

    @property
    def hears_messages(self) -> bool:
        """Whether this process is told of every message that is committed by anybody."""
        ...

    def commit(self, work: Sequence[Work], now_ms: int, news: News) -> Sequence[bool]:
        """Run the statements in one transaction of the journal's connection.

        Returns for each whether it wrote every row it was meant to. Other processes are told the `news`.
        """
        ...

    def commit_lone(self, name: str, parameters: Row, changes: int, news: News) -> bool:
        """Run one of the `batch.LONE` statements in a transaction; whether it wrote every row it was meant to."""
        ...

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        """Run one query outside the journal's connection."""
        ...

    def look_up(self, name: str, first: Row, asked: Mapping[str, Any], timeout_seconds: float | None) -> list[Row]:
        """Run the query of a listing (see `listing.choose_lines`); DBOSQueryTimeoutError when it takes too long."""
        ...

    def write(self, name: str, parameters: Row = ()) -> list[Row]:
        """Run one changing statement in its own transaction; the rows it returns."""
        ...

    def claim(self, name: str, parameters: Row, queue_name: str | None) -> list[Row]:
        """Run a claim of workflows. With a queue name nobody else claims from that queue meanwhile.

        Start times are read when that is so.
        """
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Several statements outside the journal's connection that are committed together; an exception rolls back."""
        ...

    def adopt(self, connection: Any) -> Transaction:
        """The same in a transaction of the caller, on a SQLAlchemy connection to this database."""
        ...

    def announce(self, kind: str, workflow_ids: Sequence[str]) -> None:
        """Tell other processes that something happened to workflows, where the backend can."""
        ...

    def changed_elsewhere(self) -> bool: ...

    def listen(self, handle: Callable[[str, list[str]], None]) -> None: ...

    def join(self, process: str) -> bool: ...

    def is_shared(self) -> bool: ...

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]: ...

    def now_ms(self) -> int: ...

    def close(self) -> None: ...


class SqlStore(
    QueueOperations,
    BulkOperations,
    ScheduleOperations,
    DebounceOperations,
    EventOperations,
    MessageOperations,
    RenameOperations,
    ManagementOperations,
    StreamOperations,
):
    """The store contract (see `store.Store`) over named SQL statements."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self.backend = connections.backend
        self.commits_in_parallel = connections.commits_in_parallel

    @property
    def hears_messages(self) -> bool:
        return self._db.hears_messages

    # --- the journal's batches

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        if len(records) == 1:
            return [self._commit_lone(records[0])]
        return self._commit_batch(records) if records else []

    def _commit_lone(self, record: Record) -> Answer:
        statement = lone_statement(record)
        if statement is None:
            return self._commit_batch([record])[0]
        assert not isinstance(record, EFFECT_TYPES)
        name, changes = statement
        parameters = (*record.row().values(), self._db.now_ms())
        news = NOTHING_NEW if type(record) is StepCompleted else news_of([record])
        if self._db.commit_lone(name, parameters, changes, news):
            return Verdict.APPLIED
        return self._find_answer(record)

    def _commit_batch(self, records: Sequence[Record]) -> list[Answer]:
        entries = [record for record in records if type(record) is StreamWritten]
        if entries:
            self._place(entries)
        work = work_of(records, effects_first=self._db.effects_first)
        complete = self._db.commit(work, self._db.now_ms(), news_of(records))
        if entries and all(complete):
            self._note_placed(entries)
        done = {id(record) for item in work for record in item.records}
        for item, is_complete in zip(work, complete):
            if not is_complete:
                done.difference_update([id(record) for record in item.records])
        return [Verdict.APPLIED if id(record) in done else self._find_answer(record) for record in records]

    def _find_answer(self, record: Record) -> Answer:
        """What became of one record of a batch in which not every row was written."""
        if isinstance(record, StepCompleted):
            return self._answer_to_step(record)
        if isinstance(record, MessagesSent):
            return self._answer_to_sending(record)
        if isinstance(record, MessageConsumed):
            return self._answer_to_consumption(record)
        if isinstance(record, (EventSet, StreamWritten)):
            return self._answer_to_effect(record)
        if isinstance(record, WorkflowFinished):
            outcome = self.find_outcomes([record.workflow_id]).get(record.workflow_id)
            mine = (record.status, record.output, record.error)
            own = outcome is not None and (outcome.status, outcome.output, outcome.error) == mine
            return Verdict.APPLIED if own else Verdict.FENCED
        return self._answer_to_start(record)

    def _answer_to_step(self, record: StepCompleted) -> Answer:
        verdict = verdict_on_step(record, self._db.read("find_step", (record.workflow_id, record.step_id)))
        if verdict is None:
            raise StoreUnavailable(f"step {record.step_id} of workflow {record.workflow_id} was not written yet")
        return verdict

    def _answer_to_effect(self, record: EventSet | StreamWritten) -> Answer:
        if record.step is not None:
            return self._answer_to_step(record.step)
        rows = self._db.read("find_step", (record.workflow_id, record.step_id))
        if not rows or rows[0][0] != record.owner_token:
            return Verdict.FENCED
        # An event asks for nothing but the ownership, which is never regained: whoever owns the workflow now owned it
        # then.
        return Verdict.APPLIED if isinstance(record, EventSet) else self._answer_to_entry(record)

    def _recorded(
        self,
        step: StepCompleted | None,
        effect: Callable[[Transaction], None],
        *,
        once: Once | None = None,
        locking: Sequence[str] = (),
        lock: str = "lock_workflows",
    ) -> Verdict:
        """An effect and, in workflow code, its step row, in one transaction: both or none.

        The row of the workflow that asks is locked until the commit, together with those of `locking` and in their
        order. An effect whose answer was lost is not repeated: it finds its step row, or without one asks `once`.
        """
        if step is not None:
            once = None
        if once is not None and once.is_done(self._db):
            return Verdict.APPLIED
        with self._db.transaction() as transaction:
            if once is not None:
                once.begin(transaction)
            if locking:
                own = [] if step is None else [step.workflow_id]
                transaction.read(lock, (encode_json([*own, *locking]),))
            if step is not None:
                place = (step.workflow_id, step.step_id)
                verdict = verdict_on_step(step, transaction.read("find_step", place))
                if verdict is not None:
                    return verdict
                transaction.change("record_step", (*step.row().values(), self._db.now_ms()))
                verdict = verdict_on_step(step, transaction.read("find_step", place))
                if verdict is not Verdict.APPLIED:
                    return verdict or Verdict.FENCED
            effect(transaction)
        if once is not None:
            once.end()
        return Verdict.APPLIED

    def _answer_to_start(self, record: WorkflowStarted) -> Answer:
        found = self._db.read("find_start", (record.workflow_id,))
        parent = record.parent
        step_written = False
        if parent is not None:
            rows = self._db.read("find_step", (parent.workflow_id, parent.step_id))
            if not rows:
                return Verdict.FENCED
            owner, name, _, child_id = rows[0]
            step_written = name is not None and child_id == record.workflow_id
            # A child that an earlier try created is executed, even if its parent was lost meanwhile.
            created = step_written and bool(found) and found[0][-1] == record.creator_token
            if owner != parent.owner_token and not created:
                return Verdict.FENCED
            if name is not None and not step_written:
                return Verdict.REPEATED
        if not found:
            return self._answer_to_missing(record)
        *columns, creator_token = found[0]
        if creator_token == record.creator_token:
            return Verdict.APPLIED
        existing = ExistingWorkflow(*columns)
        mine = (record.name, record.class_name, record.config_name)
        attachable = (existing.name, existing.class_name, existing.config_name) == mine
        if parent is not None and attachable and not parent.reject_existing and not step_written:
            # The other start committed between our statements: once more, and the step row follows it.
            raise StoreUnavailable(f"workflow {record.workflow_id} was being started by someone else")
        return existing

    def _answer_to_missing(self, record: WorkflowStarted) -> Answer:
        """Why a workflow that was to start or to wait is not there: another one holds its deduplication id."""
        queue = record.queue
        if queue is not None and queue.deduplication_id is not None:
            holder_id = self.find_holder(queue.queue_name, queue.deduplication_id)
            if holder_id is not None:
                return DeduplicationTaken(holder_id)
        raise StoreUnavailable(f"workflow {record.workflow_id} or what stood in its way was deleted meanwhile")

    # --- steps

    def load_steps(self, workflow_ids: Sequence[str], after: int, until: int) -> dict[str, list[StepRecord]]:
        found: dict[str, list[StepRecord]] = {}
        for ids in chunks(workflow_ids):
            for workflow_id, *columns in self._db.read("load_steps", (ids, after, until)):
                found.setdefault(workflow_id, []).append(to_step(columns))
        return found

    def list_steps(
        self,
        workflow_id: str,
        *,
        load_output: bool,
        limit: int | None,
        offset: int | None,
        timeout_seconds: float | None = None,
    ) -> list[StepRecord]:
        name = "list_steps" if load_output else "list_steps_without_payloads"
        size = ALL if limit is None else limit
        return [to_step(row) for row in self._db.look_up(name, (workflow_id, size, offset or 0), {}, timeout_seconds)]

    # --- workflows

    def find_outcomes(self, workflow_ids: Sequence[str]) -> dict[str, WorkflowOutcome]:
        rows = [row for ids in chunks(workflow_ids) for row in self._db.read("find_outcomes", (ids,))]
        return {row[0]: to_outcome(row) for row in rows}

    def find_final(self, workflow_ids: Sequence[str]) -> list[str]:
        return self._ids("find_final", workflow_ids)

    def find_cancelled(self, workflow_ids: Sequence[str]) -> list[str]:
        return self._ids("find_cancelled", workflow_ids)

    def find_existing(self, workflow_ids: Sequence[str]) -> list[str]:
        return self._ids("find_existing", workflow_ids)

    def _ids(self, name: str, workflow_ids: Sequence[str]) -> list[str]:
        return [row[0] for ids in chunks(workflow_ids) for row in self._db.read(name, (ids,))]

    def get_workflow(self, workflow_id: str) -> WorkflowRow | None:
        rows = self._db.read("get_workflow", (workflow_id,))
        return WorkflowRow(*rows[0]) if rows else None

    def list_workflows(self, wanted: WorkflowFilter, timeout_seconds: float | None) -> list[WorkflowRow]:
        name, page, asked = listing(wanted)
        most = most_to_sort(asked, newest_first=wanted.newest_first)
        if most:
            ((count,),) = self._db.look_up("count_few", (most,), asked, timeout_seconds)
            if count < most:
                asked["few"] = True
        return [WorkflowRow(*row) for row in self._db.look_up(name, page, asked, timeout_seconds)]

    def dead_letter(self, workflow_id: str, token: str, now_ms: int) -> None:
        self._db.write("dead_letter", (workflow_id, token, now_ms))

    def cancel_overdue(self, application_name: str, now_ms: int) -> list[str]:
        cancelled = [row[0] for row in self._db.write("cancel_overdue", (application_name, now_ms))]
        if cancelled:
            self._db.announce("cancelled", cancelled)
        return cancelled

    # --- recovery and claims

    def requeue_pending(
        self, executor_id: str, application_version: str, application_name: str, dead: Sequence[str] | None = None
    ) -> list[str]:
        identity = (executor_id, application_version, application_name)
        gone = None if dead is None else encode_json(list(dead))
        rows = self._db.write("requeue_pending", (INTERNAL_QUEUE_NAME, self._db.now_ms(), *identity, gone))
        return [row[0] for row in rows]

    def join(self, process: str) -> bool:
        return self._db.join(process)

    def is_shared(self) -> bool:
        return self._db.is_shared()

    def find_owners(
        self, application_name: str, application_version: str, function_names: Sequence[str] | None = None
    ) -> list[str]:
        names = None if function_names is None else encode_json(list(function_names))
        return [row[0] for row in self._db.read("find_owners", (application_name, application_version, names))]

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        return self._db.find_dead(processes, patient=patient) if processes else []

    def requeue_dead(
        self, dead: Sequence[str], application_version: str, application_name: str, function_names: Sequence[str]
    ) -> list[str]:
        chosen = (encode_json(list(dead)), application_version, application_name, encode_json(list(function_names)))
        rows = self._db.write("requeue_dead", (INTERNAL_QUEUE_NAME, self._db.now_ms(), *chosen))
        queues = [row[0] for row in rows]
        if queues:
            self._db.announce("queued", sorted(set(queues)))
        return queues

    def count_waiting_elsewhere(
        self, application_name: str, application_version: str, executor_id: str
    ) -> list[tuple[str, str, int]]:
        parameters = (application_name, application_version, executor_id)
        return [(row[0], row[1], row[2]) for row in self._db.read("count_waiting_elsewhere", parameters)]

    # --- versions

    def register_version(self, version_name: str, application_name: str, now_ms: int) -> None:
        self._db.write("claim_version", (version_name, application_name))
        self._db.write("insert_version", (new_id(), version_name, now_ms, application_name))
        self._check_version_owner(version_name, application_name)

    def list_versions(self, application_name: str | None, limit: int | None = None) -> list[VersionInfo]:
        size = ALL if limit is None else limit
        return [to_version(row) for row in self._db.read("list_versions", (application_name, size))]

    def promote_version(self, version_name: str, application_name: str | None, now_ms: int) -> bool:
        if application_name is not None and not self._check_version_owner(version_name, application_name):
            return False
        self._db.write("promote_version", (version_name, now_ms, application_name))
        return self._check_version_owner(version_name, application_name)

    def _check_version_owner(self, version_name: str, application_name: str | None) -> bool:
        """False when there is no such version; raises when another application owns it."""
        rows = self._db.read("find_version", (version_name,))
        if not rows:
            return False
        owner = rows[0][0]
        if owner is not None and application_name is not None and owner != application_name:
            raise DBOSException(
                f"Application version {version_name!r} is already registered by application {owner!r}. Give "
                f"application {application_name!r} a distinct `application_version`, or move the rows with "
                f"`dbos rename-application`."
            )
        return True

    # --- signals between processes

    def check_for_changes(self) -> bool:
        return self._db.changed_elsewhere()

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        self._db.listen(handle)

    def close(self) -> None:
        self._db.close()
