"""The dispatcher: claims waiting workflows from all queues of this process, within their limits, and starts them.

One loop serves every queue. A queue is looked at when something may have become startable: a workflow was enqueued
(by this process, or by another one that said so), one of its workflows ended, the window of its rate limit moved on.
Once per interval a single statement asks for all queues together whether anything waits, which is the safety net.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..types import INTERNAL_QUEUE_NAME, Claim, Claimed, ClaimedWorkflow, QueueConfig, StepRecord
from .execution import STEP_WINDOW
from .queue_warnings import QueueWarnings
from .services import Service

if TYPE_CHECKING:
    from .engine import Engine

# Workflows taken by one claim: enough to fill a batch of the journal, few enough that others get their share.
CLAIM_SIZE = 250
# With so many workflows from queues running here, only one claim per turn and queue is made, so that a process without
# limits leaves work to others. Not none, since those that run may wait for others in the queue.
ENOUGH_RUNNING = 1000
# How often the configurations of all queues are read; at most so often, when a claim that came back empty may mean that
# the limits it went by are no longer those of the queue.
CONFIGURATION_MS = 1000
DOUBTED_CONFIGURATION_MS = 100
# A look that takes long takes at most one part in so many of the time: it may have to go past a million workflows that
# wait for another version.
LOOKING_SHARE = 10
LONG_LOOK_MS = 5
# A claim that has passed over what somebody else was just claiming is repeated after so many ms; each time that leads
# to nothing, after twice as many, up to the interval of the queue.
REPEAT_MS = 4
# On SQLite every commit of another process makes this one look. While that leads to nothing the looks become rarer,
# down to one in so many ms; a commit after a quiet time is looked at at once.
LONGEST_LOOK_PAUSE_MS = 16
QUIET_MS = 50

INTERNAL_QUEUE = QueueConfig(INTERNAL_QUEUE_NAME)


class Dispatcher(Service["Engine"]):
    """Claims waiting workflows and starts them."""

    name = "dispatcher"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # The names given to `listen_queues`; None is every queue of the application.
        self.listens_to: frozenset[str] | None = None
        self.warnings = QueueWarnings(self.read_configuration_now)
        self._lock = threading.RLock()
        # Queues without a row, which this process serves whatever it listens to.
        self._internal: dict[str, QueueConfig] = {INTERNAL_QUEUE_NAME: INTERNAL_QUEUE}
        self._queues: dict[str, QueueConfig] = dict(self._internal)
        # Queues to look at in the next turn.
        self._due: set[str] = {INTERNAL_QUEUE_NAME}
        # Queues on which more may wait than their limits let start.
        self._held_back: set[str] = set()
        # Queues on which more may wait than this process has threads for, or wants.
        self._crowded: set[str] = set()
        # When the rate limit of a queue lets the next one start, or a claim is repeated; after which pause it was last.
        self._windows_ms: dict[str, int] = {}
        self._repeat_pauses_ms: dict[str, int] = {}
        # What runs here, by queue and partition.
        self._running: dict[str, dict[str | None, int]] = {}
        # When the configurations are read again, and when they have been read.
        self._configure_at_ms = 0
        self._configured_at_ms = 0
        self._looked_at_ms = 0
        self._look_not_before_ms = 0
        self._look_pause_ms = 0
        # Of a claim whose answer was lost.
        self._token: str | None = None

    def internal_queue(self, queue_name: str) -> QueueConfig | None:
        """The queue, if this process serves it without any registration."""
        return self._internal.get(queue_name)

    # --- what has happened

    @property
    def serves_queues(self) -> bool:
        """Whether this process takes work from other queues than the internal one."""
        return len(self._queues) > 1

    def add_internal_queue(self, queue: QueueConfig) -> None:
        """Serve a queue of the library's own from now on."""
        with self._lock:
            self._internal[queue.name] = queue
        self.read_configuration_now()

    def note_queued(self, queue_names: Iterable[str]) -> None:
        """Something waits on these queues."""
        with self._lock:
            # A queue that is not known yet is looked at when it is. With one that is due already a turn is to come.
            due = self._queues.keys() & set(queue_names) - self._due
            self._due |= due
        if due:
            self.wake()

    def note_began(self, queue_name: str, partition_key: str | None) -> None:
        """A workflow claimed from the queue takes its place."""
        with self._lock:
            partitions = self._running.setdefault(queue_name, {})
            partitions[partition_key] = partitions.get(partition_key, 0) + 1

    def note_ended(self, queue_name: str, partition_key: str | None) -> None:
        """A workflow claimed from the queue has given up its place."""
        with self._lock:
            partitions = self._running[queue_name]
            partitions[partition_key] -= 1
            if not partitions[partition_key]:
                del partitions[partition_key]
            due = set(self._crowded)
            queue = self._queues.get(queue_name)
            if queue_name in self._held_back and queue is not None and queue.has_concurrency:
                due.add(queue_name)
            self._due |= due
        if due:
            self.wake()

    def note_thread_free(self) -> None:
        """A thread of this process could begin a workflow."""
        with self._lock:
            if not self._crowded:
                return
            self._due |= self._crowded
        self.wake()

    def note_freed_elsewhere(self, queue_names: Iterable[str] | None) -> None:
        """Another process has given back places of these queues, or of queues it does not name."""
        with self._lock:
            due = self._held_back.intersection(self._held_back if queue_names is None else queue_names)
            due = {name for name in due if self._queues[name].has_shared_concurrency}
            self._due |= due
        if due:
            self.wake()

    def shared_queue(self, queue_name: str | None) -> str | None:
        """The queue, if other processes may wait for a place on it."""
        queue = None if queue_name is None else self._queues.get(queue_name)
        return queue_name if queue is not None and queue.has_shared_concurrency else None

    def look_now(self) -> None:
        """Something changed in the database: ask which queues have something waiting."""
        self._looked_at_ms = 0
        self.wake()

    def read_configuration_now(self) -> None:
        """This process has registered, changed or deleted a queue."""
        self._configure_at_ms = 0
        self.wake()

    # --- the loop

    def run_once(self) -> float:
        engine = self.engine
        if self._token is not None:
            # The answer to a claim was lost; it may have taken workflows, which nobody else will start.
            self._start(engine.store.find_claimed(self._token))
            self._token = None
        now_ms = engine.clock.now_ms()
        if now_ms >= self._configure_at_ms:
            self._configured_at_ms = now_ms
            self._configure_at_ms = now_ms + CONFIGURATION_MS
            self._read_configuration()
        with self._lock:
            due, self._due = self._due & self._queues.keys(), set()
            due |= {name for name, window_ms in self._windows_ms.items() if window_ms <= now_ms}
            queues = dict(self._queues)
        # Whatever stands in a row of other releases, the internal queue has an interval.
        intervals = (queue.polling_interval_seconds for queue in queues.values())
        interval_ms = max(1, int(1000 * min(interval for interval in intervals if interval > 0)))
        if now_ms >= max(self._looked_at_ms + interval_ms, self._look_not_before_ms):
            due.update(self._look(list(queues), now_ms))
        try:
            while due and not self._stopping:
                name = min(due)
                if self._serve(queues[name]):
                    self._look_pause_ms = 0
                due.remove(name)
        finally:
            # What the database did not answer about is looked at again.
            with self._lock:
                self._due |= due
        with self._lock:
            next_ms = min(
                max(self._looked_at_ms + interval_ms, self._look_not_before_ms),
                self._configure_at_ms,
                *self._windows_ms.values(),
            )
        return max(0.0, (next_ms - engine.clock.now_ms()) / 1000)

    def _look(self, queue_names: list[str], now_ms: int) -> list[str]:
        """The queues on which something waits for this process."""
        found = self.engine.store.find_waiting_queues(queue_names, self._claim_of("", 0))
        pause_ms = 0 if now_ms - self._look_not_before_ms > QUIET_MS else self._look_pause_ms
        self._look_pause_ms = min(2 * pause_ms + 1, LONGEST_LOOK_PAUSE_MS)
        took_ms = self.engine.clock.now_ms() - now_ms
        if took_ms >= LONG_LOOK_MS:
            pause_ms = max(pause_ms, LOOKING_SHARE * took_ms)
        self._look_not_before_ms = now_ms + pause_ms
        self._looked_at_ms = now_ms
        return found

    def _read_configuration(self) -> None:
        engine = self.engine
        suspects = self.warnings.suspects()
        known = {queue.name: queue for queue in engine.store.list_queues(None)}
        self.warnings.judge(suspects, known)
        own = (None, engine.settings.name)
        queues = {name: queue for name, queue in known.items() if queue.application_name in own}
        if self.listens_to is not None:
            queues = {name: queue for name, queue in queues.items() if name in self.listens_to}
        with self._lock:
            queues |= self._internal
            served = self.serves_queues
            self._due.update(name for name, queue in queues.items() if self._queues.get(name) != queue)
            self._queues = queues
            self._held_back &= queues.keys()
            self._crowded &= queues.keys()
            self._windows_ms = {name: at_ms for name, at_ms in self._windows_ms.items() if name in queues}
        if self.serves_queues and not served:
            engine.watcher.wake()

    def _serve(self, queue: QueueConfig) -> int:
        """Claim and start as much of the queue as may run here; how many."""
        count = 0
        with self._lock:
            # From before the first claim on, so that nothing that ends meanwhile goes unnoticed.
            self._held_back.add(queue.name)
            self._crowded.add(queue.name)
            self._windows_ms.pop(queue.name, None)
        asked_at_ms = self.engine.clock.now_ms()
        while not self._stopping:
            limit = self._room(queue)
            if limit <= 0:
                break
            asked_at_ms = self.engine.clock.now_ms()
            claimed = self._claim(queue, limit)
            self._start(claimed)
            count += len(claimed)
            if not claimed:
                doubted_ms = self._configured_at_ms + DOUBTED_CONFIGURATION_MS
                self._configure_at_ms = min(self._configure_at_ms, doubted_ms)
            if len(claimed) < limit:
                with self._lock:
                    self._crowded.discard(queue.name)
                    if not queue.has_shared_limits and not queue.is_partitioned:
                        self._held_back.discard(queue.name)
                    self._repeat(queue, claimed)
                # Else there is nothing more, or no room in the limits: the claim does not tell which.
                break
            if self._enough_running():
                break
        if queue.is_rate_limited:
            self._await_window(queue, asked_at_ms)
        return count

    def _repeat(self, queue: QueueConfig, claimed: Claimed) -> None:
        """Look again soon if others claimed at the same time: behind what they took more may wait."""
        pause_ms = self._repeat_pauses_ms.pop(queue.name, 0)
        if claimed.has_passed_over:
            pause_ms = REPEAT_MS if claimed else max(REPEAT_MS, 2 * pause_ms)
            pause_ms = min(pause_ms, int(1000 * queue.polling_interval_seconds))
            self._repeat_pauses_ms[queue.name] = pause_ms
            self._windows_ms[queue.name] = self.engine.clock.now_ms() + pause_ms

    def _await_window(self, queue: QueueConfig, asked_at_ms: int) -> None:
        """Look again when a rate limit lets the next workflow start, if it was the limit that held it back."""
        window_ms = self.engine.store.find_rate_window(queue, self.engine.settings.name, asked_at_ms)
        if window_ms is not None and window_ms > asked_at_ms:
            with self._lock:
                self._windows_ms[queue.name] = window_ms

    def _room(self, queue: QueueConfig) -> int:
        """How many more workflows of the queue may start in this process."""
        room = CLAIM_SIZE
        free = self.engine.workers.free_slots()
        if free is not None:
            room = min(room, free)
        if queue.worker_concurrency is not None:
            with self._lock:
                running = sum(self._running.get(queue.name, {}).values())
            room = min(room, queue.worker_concurrency - running)
        return room

    def _enough_running(self) -> bool:
        with self._lock:
            return sum(sum(partitions.values()) for partitions in self._running.values()) >= ENOUGH_RUNNING

    def _claim(self, queue: QueueConfig, limit: int) -> Claimed:
        engine = self.engine
        token = engine.new_token()
        claim = self._claim_of(token, limit)
        with self._lock:
            running = {key: count for key, count in self._running.get(queue.name, {}).items() if key is not None}
        self._token = token
        claimed = engine.store.claim_workflows(queue, claim, engine.clock.now_ms(), running)
        self._token = None
        return claimed

    def _claim_of(self, token: str, limit: int) -> Claim:
        engine = self.engine
        return Claim(
            token,
            engine.executor_id,
            engine.application_version,
            engine.settings.name,
            engine.is_latest_version(),
            limit,
            tuple(engine.registry.workflows),
        )

    def _start(self, claimed: list[ClaimedWorkflow]) -> None:
        if not claimed:
            return
        ids = [workflow.workflow_id for workflow in claimed if workflow.has_steps]
        recorded: dict[str, list[StepRecord]] = {}
        if ids:
            recorded = self.engine.drivers.read(lambda store: store.load_steps(ids, 0, STEP_WINDOW))
        self.engine.dispatch(claimed, recorded)
