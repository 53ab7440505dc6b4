"""The journal: group commit of everything a workflow records.

Callers append a record and wait until it is durable. Whoever comes to an idle journal commits its record at once, on
its own thread; what arrives meanwhile forms the next batch, committed by the writer thread. No artificial delay:
batches form by themselves while the database is busy.

Ctrl-C reaches the main thread wherever it is. So a caller commits nothing but its own record, and what it has left
undone when it is interrupted is finished by the writer thread, which cannot be: see `_leave_to_writer`.

A new workflow depends on nothing that is on its way, and whoever starts many of them one after the other keeps all
others busy. So where the store commits in parallel, a start that finds the journal busy is committed beside it.

Each record has its own answer (`records.Answer`). A record that the database refuses must not fail its neighbours:
the batch is halved until the culprit stands alone. A lost connection is retried with growing pauses; since every
record is insert-if-absent with a token, a commit whose outcome is unknown finds its own rows. Pending bytes are
bounded: past the limit callers wait.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ..error import DBOSException
from ..logs import logger
from ..records import (
    Answer,
    EventSet,
    MessagesSent,
    Record,
    StepCompleted,
    StreamWritten,
    Verdict,
    WorkflowFinished,
    WorkflowStarted,
)
from ..storage.store import Store, StoreRefused, StoreUnavailable, StoreUnreachable
from ..types import StoredMessage, StoredValue, StreamEntry, WorkflowOutcome
from .errors import EngineStopped
from .signals import Signals

MAX_BATCH_RECORDS = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_PENDING_BYTES = 256 * 1024 * 1024
# How many that wait are looked at, to see whether there is a start among them.
ENTRIES_LOOKED_AT = 32

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 60.0
# How often the log says that callers wait for the database.
PRESSURE_REPORT_SECONDS = 10.0

# Who commits, when it is not a caller. And what the writer thread is told, when it is not whom it takes over from.
WRITER = object()
YOUR_TURN = object()
CLOSING = object()


class Entry:
    """One record on its way, and who waits for it."""

    __slots__ = ("answer", "error", "future", "gate", "record", "size", "then")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.size = record.size()
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None
        self.future: asyncio.Future[None] | None = None
        self.then: Callable[[Entry], None] | None = None

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.error is not None

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


class Buffer:
    """What the tasks of one event loop have recorded in the current turn of the loop."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size = 0


def retry_pauses(rng: random.Random | None = None) -> Iterator[float]:
    """Pauses between tries while the database does not answer: doubling, with jitter, up to a minute."""
    pause = FIRST_RETRY_SECONDS
    uniform = (rng or random).uniform
    while True:
        yield pause * uniform(0.5, 1.5)
        pause = min(pause * 2, LONGEST_RETRY_SECONDS)


class Journal:
    """Commits records in batches and answers each."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        *,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        retry_connection_errors: bool = True,
    ) -> None:
        self._store = store
        self._retry_connection_errors = retry_connection_errors
        self._signals = signals
        self._lock = threading.RLock()
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._max_pending_bytes = max_pending_bytes
        self._room = threading.Condition(self._lock)
        # Whether anybody waits for room.
        self._crowded = False
        # Who commits: nobody, the writer thread, or a caller, named by its record (those of its loop).
        self._leader: object | None = None
        # The start that is being committed beside the batches, and whether the batch on its way has one.
        self._beside: Entry | None = None
        self._start_on_its_way = False
        self._closing = threading.Event()
        # For the writer thread. Of the kind that an interrupt cannot leave half done.
        self._notes: queue.SimpleQueue[object] = queue.SimpleQueue()
        # A caller is interrupted, no matter where: whatever it has left undone, the writer thread will do. Often that
        # is nothing, which the writer thread finds out. One call into C, which cannot be interrupted itself.
        self._leave_to_writer: Callable[[Entry | Buffer], None] = self._notes.put
        self._thread: threading.Thread | None = None
        self._buffers: dict[asyncio.AbstractEventLoop, Buffer] = {}
        self._pressure_reported_at = -PRESSURE_REPORT_SECONDS

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dbos-journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what is pending if the database answers, then stop; later records meet EngineStopped."""
        self._closing.set()
        self._notes.put(CLOSING)
        with self._lock:
            self._room.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._lock:
            left = list(self._pending)
            self._pending.clear()
            self._pending_bytes -= sum(entry.size for entry in left)
        for entry in left:
            entry.error = EngineStopped()
        self._wake(left)

    # --- waiting callers

    def commit(self, record: Record) -> Answer:
        """Append a record and block until it is durable."""
        entry = Entry(record)
        leads = False
        try:
            with self._lock:
                if self._closing.is_set():
                    raise EngineStopped()
                beside = self._leader is not None and self._may_go_beside(record)
                if beside:
                    self._beside = entry
                else:
                    leads = self._append(entry)
                    if not leads:
                        entry.gate = threading.Lock()
                        entry.gate.acquire()
            if beside:
                self._commit_beside(entry)
            elif leads:
                self._lead(entry)
            elif entry.gate is not None:
                entry.gate.acquire()
        except BaseException:
            self._leave_to_writer(entry)
            raise
        return entry.result()

    def commit_later(self, record: Record, then: Callable[[Entry], None]) -> None:
        """Append a record and return; `then` is called with the settled entry, on the thread that commits.

        That thread commits for others, so `then` must not wait for anything. To an idle journal it is this thread.
        """
        entry = Entry(record)
        entry.then = then
        leads = False
        try:
            with self._lock:
                stopped = self._closing.is_set()
                if not stopped:
                    leads = self._append(entry)
            if stopped:
                entry.error = EngineStopped()
                self._wake([entry])
            elif leads:
                self._lead(entry)
        except BaseException:
            self._leave_to_writer(entry)
            raise

    def _append(self, entry: Entry) -> bool:
        """Let a record in: whether its caller has to commit it, else it is in the next batch."""
        if self._pending_bytes + entry.size > self._max_pending_bytes:
            self._wait_for_room(entry.size)
        leads = self._leader is None
        if leads:
            self._leader = entry
            self._start_on_its_way = type(entry.record) is WorkflowStarted
        else:
            self._pending.append(entry)
        self._pending_bytes += entry.size
        return leads

    async def commit_async(self, record: Record) -> Answer:
        """Append a record and await its durability, without blocking the loop."""
        loop = asyncio.get_running_loop()
        entry = Entry(record)
        entry.future = loop.create_future()
        while self._is_full(loop, entry.size):
            if self._closing.is_set():
                raise EngineStopped()
            self._report_pressure()
            await asyncio.sleep(0.005)
        # An idle writer gets the record at once; while it is busy, everything that becomes ready in this turn of the
        # loop goes to it together.
        buffer = self._buffers.get(loop)
        if buffer is None:
            buffer = self._buffers[loop] = Buffer()
            loop.call_soon(self._flush, loop)
        buffer.entries.append(entry)
        buffer.size += entry.size
        if self._leader is None:
            self._flush(loop)
        await entry.future
        return entry.result()

    def _is_full(self, loop: asyncio.AbstractEventLoop, size: int) -> bool:
        """Whether a record of this loop has to wait; what the loop has not handed over yet counts too."""
        buffer = self._buffers.get(loop)
        held = self._pending_bytes + (0 if buffer is None else buffer.size)
        return held > 0 and held + size > self._max_pending_bytes

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        buffer = self._buffers.pop(loop, None)
        if buffer is None:
            return
        try:
            with self._lock:
                stopped = self._closing.is_set()
                if not stopped:
                    self._pending.extend(buffer.entries)
                    self._pending_bytes += buffer.size
                    if self._leader is None:
                        self._leader = buffer
                        self._notes.put(YOUR_TURN)
            if stopped:
                for entry in buffer.entries:
                    entry.error = EngineStopped()
                self._wake(buffer.entries)
        except BaseException:
            self._leave_to_writer(buffer)
            raise

    def _wait_for_room(self, size: int) -> None:
        self._report_pressure()
        while self._pending_bytes > 0 and self._pending_bytes + size > self._max_pending_bytes:
            self._crowded = True
            self._room.wait(timeout=1.0)
            if self._closing.is_set():
                raise EngineStopped()

    def _report_pressure(self) -> None:
        now = time.monotonic()
        if now - self._pressure_reported_at < PRESSURE_REPORT_SECONDS:
            return
        self._pressure_reported_at = now
        logger.warning(
            "The journal holds %d MiB that the database has not taken yet; callers wait",
            self._pending_bytes >> 20,
        )

    # --- committing

    def _lead(self, own: Entry) -> None:
        """Commit the own record on this thread, then leave what has come meanwhile to the writer thread."""
        self._settle([own])
        with self._lock:
            self._pending_bytes -= own.size
            self._tell_of_room()
            if self._pending:
                self._notes.put(YOUR_TURN)
            else:
                self._leader = None

    def _may_go_beside(self, record: Record) -> bool:
        """Whether it is a start, and the only one: several at once are better off together."""
        if type(record) is not WorkflowStarted or record.parent is not None:
            return False
        if self._beside is not None or self._start_on_its_way or not self._store.commits_in_parallel:
            return False
        return not any(type(entry.record) is WorkflowStarted for entry in islice(self._pending, ENTRIES_LOOKED_AT))

    def _commit_beside(self, entry: Entry) -> None:
        try:
            self._commit([entry])
        finally:
            with self._lock:
                self._beside = None

    def _commit(self, batch: Sequence[Entry]) -> None:
        commit_batch(self._store, batch, self._pause, retry_connection_errors=self._retry_connection_errors)

    def _run(self) -> None:
        while True:
            note = self._notes.get()
            if self._take_over(note):
                while batch := self._take():
                    self._settle(batch)
                    with self._lock:
                        self._pending_bytes -= sum([entry.size for entry in batch])
                        self._tell_of_room()
            if self._closing.is_set():
                with self._lock:
                    # Else a caller commits, and will say so.
                    if not self._pending:
                        return

    def _take_over(self, note: object) -> bool:
        """Whether it is the turn of this thread, the writer's, to commit."""
        with self._lock:
            left: Sequence[Entry] = ()
            if isinstance(note, Buffer):
                left = note.entries
            elif isinstance(note, Entry) and self._leader is note:
                left = (note,)
            if self._beside is note:
                self._beside = None
            mine = self._leader is None or self._leader is note or note is YOUR_TURN
            if mine:
                self._leader = WRITER
        if mine and left:
            self._finish(left)
        return mine

    def _finish(self, entries: Sequence[Entry]) -> None:
        """Do what a caller has left undone when it was interrupted; how far it had come is unknown."""
        settled = [entry for entry in entries if entry.settled]
        publish(settled, self._signals)
        self._wake(settled)
        with self._lock:
            # They are in no batch: what this thread has taken is settled.
            left = [entry for entry in entries if not entry.settled and entry not in self._pending]
            self._pending.extendleft(reversed(left))
            self._pending_bytes = sum(entry.size for entry in self._pending)

    def _settle(self, batch: Sequence[Entry]) -> None:
        """Commit a batch, and wake whoever waits for it."""
        try:
            self._commit(batch)
        except EngineStopped as stopped:
            for entry in batch:
                if not entry.settled:
                    entry.error = stopped
        publish(batch, self._signals)
        self._wake(batch)

    def _tell_of_room(self) -> None:
        if self._crowded:
            self._crowded = False
            self._room.notify_all()

    def _take(self) -> list[Entry]:
        """The next batch for the writer thread; without one it gives up its turn."""
        batch: list[Entry] = []
        size = 0
        has_start = False
        with self._lock:
            pending = self._pending
            while pending and len(batch) < MAX_BATCH_RECORDS:
                if batch and size + pending[0].size > MAX_BATCH_BYTES:
                    break
                entry = pending.popleft()
                batch.append(entry)
                size += entry.size
                has_start = has_start or type(entry.record) is WorkflowStarted
            self._start_on_its_way = has_start
            if not batch:
                # Nothing is on its way; callers that were interrupted may have left a record counted.
                self._pending_bytes = 0
                self._leader = None
        return batch

    def _pause(self, seconds: float) -> None:
        """Wait before another try; shutting down ends the tries."""
        if self._closing.wait(seconds):
            raise EngineStopped()

    def _wake(self, entries: Sequence[Entry]) -> None:
        """Wake every waiter; one call per event loop, however many of its tasks wait."""
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        followed: list[tuple[Callable[[Entry], None], Entry]] = []
        for entry in entries:
            if entry.gate is not None:
                entry.gate.release()
            elif entry.future is not None:
                by_loop.setdefault(entry.future.get_loop(), []).append(entry.future)
            elif entry.then is not None:
                followed.append((entry.then, entry))
                entry.then = None
        for loop, futures in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, futures)
            except RuntimeError:
                # The loop has ended, and its tasks with it; their rows stay for recovery.
                logger.debug("%d records were committed after their event loop had closed", len(futures))
        # Last, since it takes longer.
        for then, entry in followed:
            try:
                then(entry)
            except Exception:
                logger.exception("What was to follow the commit of %s failed", entry.record)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def commit_batch(
    store: Store, batch: Sequence[Entry], pause: Callable[[float], None], *, retry_connection_errors: bool = True
) -> None:
    """Commit a batch, however often it takes, and settle every entry.

    `pause` waits between tries; what it raises (the engine stops) settles the rest of the batch. Without
    `retry_connection_errors` a lost connection settles it, with the driver's error.
    """
    pauses: Iterator[float] | None = None
    while True:
        try:
            answers = store.commit([entry.record for entry in batch])
        except StoreUnavailable as error:
            if isinstance(error, StoreUnreachable) and not retry_connection_errors:
                for entry in batch:
                    entry.error = error.__cause__ or error
                return
            pauses = pauses or retry_pauses()
            seconds = next(pauses)
            logger.warning("System database unavailable, next try in %.1f s: %s", seconds, error)
            pause(seconds)
            continue
        except StoreRefused as error:
            if len(batch) == 1:
                batch[0].error = refusal(batch[0].record, error)
            else:
                middle = len(batch) // 2
                for half in (batch[:middle], batch[middle:]):
                    commit_batch(store, half, pause, retry_connection_errors=retry_connection_errors)
            return
        except Exception as error:
            for entry in batch:
                entry.error = error
            return
        for entry, answer in zip(batch, answers):
            entry.answer = answer
        return


def refusal(record: Record, error: StoreRefused) -> DBOSException:
    """The typed error for a record that the database will never take."""
    whose = "a message" if record.workflow_id is None else f"the record of workflow {record.workflow_id!r}"
    return DBOSException(
        f"The system database refused {whose}: {error}. Nothing of it was "
        f"stored. Check its texts (id, names, serialized values) for characters or sizes the database cannot hold."
    )


def publish(batch: Sequence[Entry], signals: Signals) -> None:
    """Tell waiters in this process what has just become durable."""
    for entry in batch:
        record = entry.record
        if type(record) is StepCompleted:
            # The most frequent, and nobody waits for it.
            continue
        if type(record) is WorkflowFinished and entry.answer is Verdict.APPLIED:
            signals.fire(
                "finished",
                record.workflow_id,
                WorkflowOutcome(record.workflow_id, record.status, record.output, record.error, record.serialization),
            )
        elif type(record) is EventSet and entry.answer is Verdict.APPLIED:
            signals.fire("event", (record.workflow_id, record.key), StoredValue(record.value, record.serialization))
        elif type(record) is StreamWritten and entry.answer is Verdict.APPLIED:
            value = StoredValue(record.value, record.serialization)
            placed = None if record.offset is None else StreamEntry(record.offset, value)
            signals.fire("stream", (record.workflow_id, record.key), placed)
        elif type(record) is MessagesSent and entry.answer is Verdict.APPLIED:
            for message in record.messages:
                # Under a key another message may have been sent before.
                found = (
                    None
                    if "::" in message.message_id
                    else StoredMessage(message.message_id, message.text, message.serialization)
                )
                signals.fire("message", (message.destination_id, message.topic), found)
