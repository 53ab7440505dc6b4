"""Background loops, all of one shape: `start()`, `stop()`, `run_once()`, an interval, a name.

`run_once` does the work and returns how many seconds may pass until the next turn; `wake` ends the pause early.
Tests call `run_once` and need no thread. Stopping twice is fine.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from ..logs import logger
from ..storage.encoding import PAIR_SEPARATOR
from ..storage.store import StoreUnavailable
from .errors import EngineStopped

if TYPE_CHECKING:
    from .core import Core
    from .engine import Engine

# An engine, or its core where that is enough.
E = TypeVar("E", bound="Core")

# Waiters for which what others may have done is looked for per second.
LOOKS_PER_SECOND = 1000
# What happens to a pair of workflow and key.
PAIRED = frozenset({"event", "message", "stream"})
# How often SQLite is asked whether another process has committed, while somebody waits for that.
DATA_VERSION_SECONDS = 0.003


class Service(Generic[E]):
    """One background loop."""

    name = "service"
    interval_seconds = 1.0

    def __init__(self, engine: E) -> None:
        self.engine = engine
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"dbos-{self.name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        self._stopping = True
        self.wake()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)
            if thread.is_alive():
                logger.warning("The %s service did not stop within %g s", self.name, timeout_seconds)

    def wake(self) -> None:
        """Do not wait for the interval."""
        self._wake.set()

    def run_once(self) -> float:
        """One turn; returns the seconds until the next."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopping:
            # Cleared before the turn, so that a wake-up during it leads to another one.
            self._wake.clear()
            try:
                pause_seconds = self.run_once()
            except EngineStopped:
                return
            except StoreUnavailable as error:
                if self.engine.stopping:
                    return
                logger.warning("The %s service could not reach the system database: %s", self.name, error)
                pause_seconds = self.interval_seconds
            except Exception:
                if self._stopping or self.engine.stopping:
                    return
                logger.exception("The %s service met an error and goes on", self.name)
                pause_seconds = self.interval_seconds
            if not self._stopping:
                self._wake.wait(pause_seconds)


class Appointments(Service["Engine"]):
    """A service that has something to do at moments of which this process knows some."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._lock = threading.RLock()
        self._next_ms: int | None = None

    def _is_next(self, at_ms: int) -> bool:
        """Note a moment; whether it is sooner than all that were known."""
        with self._lock:
            sooner = self._next_ms is None or at_ms < self._next_ms
            if sooner:
                self._next_ms = at_ms
        return sooner


class Deadlines(Appointments):
    """Cancels active workflows whose deadline has passed, of this process and of dead ones."""

    name = "deadlines"

    def add(self, deadline_ms: int) -> None:
        """A workflow of this process has a deadline: look again right when it passes."""
        if self._is_next(deadline_ms) and deadline_ms < self.engine.clock.now_ms() + self.interval_seconds * 1000:
            self.wake()

    def run_once(self) -> float:
        engine = self.engine
        with self._lock:
            self._next_ms = None
        while True:
            cancelled = engine.store.cancel_overdue(engine.settings.name, engine.clock.now_ms())
            engine.note_cancelled(cancelled)
            if len(cancelled) < 1000:
                break
        soonest = engine.soonest_deadline_ms()
        if soonest is None:
            return self.interval_seconds
        return min(self.interval_seconds, max(0.001, (soonest + 1 - engine.clock.now_ms()) / 1000))


class Delays(Appointments):
    """Puts delayed workflows that are due onto their queues, of this process and of dead ones."""

    name = "delays"

    def add(self, due_ms: int) -> None:
        """This process has delayed a workflow: look again right when it is due."""
        if self._is_next(due_ms):
            self.wake()

    def run_once(self) -> float:
        engine = self.engine
        name = engine.settings.name
        while True:
            promoted = engine.store.promote_delayed(name, engine.clock.now_ms())
            if promoted:
                engine.dispatcher.note_queued(promoted)
            if len(promoted) < 1000:
                break
        next_ms = engine.store.find_next_delayed(name)
        with self._lock:
            self._next_ms = next_ms
        if next_ms is None:
            return self.interval_seconds
        return min(self.interval_seconds, max(0.001, (next_ms - engine.clock.now_ms()) / 1000))


class Listener(Service["Core"]):
    """Passes on what other processes announce through the database's notifications."""

    name = "listener"

    def run_once(self) -> float:
        self.engine.store.listen(self._handle)
        # Comes back at once where there is nothing to listen to; a lost connection raises instead.
        return 3600.0

    def _handle(self, kind: str, workflow_ids: list[str]) -> None:
        engine = self.engine
        if kind == "queued":
            engine.note_queued(workflow_ids)
        elif kind == "schedules":
            engine.note_rescheduled()
        elif kind == "cancelled" and workflow_ids:
            engine.note_cancelled(workflow_ids)
        elif kind == "finished" and workflow_ids:
            for workflow_id in workflow_ids:
                engine.signals.fire("finished", workflow_id)
        elif kind == "freed":
            engine.note_freed(workflow_ids)
        elif kind in PAIRED and workflow_ids:
            for name in workflow_ids:
                workflow_id, _, key = name.partition(PAIR_SEPARATOR)
                engine.signals.fire(kind, (workflow_id, key))
        else:
            # Which workflows is unknown: everybody looks again.
            engine.watcher.look_now()
            if kind == "connected":
                engine.note_connected()


class Watcher(Service["Core"]):
    """Notices what other processes did to workflows that somebody here waits for.

    Runs only while somebody waits. On SQLite it looks at the data version every few milliseconds, also for the
    dispatcher of a process that serves queues; everywhere it asks once per interval (one second) for all waiters
    together, which is the safety net when notifications are missing.
    """

    name = "watcher"

    def __init__(self, engine: Core) -> None:
        super().__init__(engine)
        self._last_look_ms = 0
        self._last_thorough_look_ms = 0
        # Those that were awaited and existed at the last thorough look.
        self._seen: set[str] = set()
        # Whether this thread rests until somebody waits.
        self._rests = False

    def look_now(self) -> None:
        self._last_look_ms = self._last_thorough_look_ms = 0
        self.wake()

    def note_waiter(self) -> None:
        """Somebody comes to wait; a look that is to come anyway includes him."""
        if self._rests:
            self.wake()

    def run_once(self) -> float:
        engine = self.engine
        # Said before counting: who is not counted wakes this thread.
        self._rests = True
        # Which they are is asked for when it is looked for: this is done every few milliseconds on SQLite.
        waiters = engine.signals.count()
        somebody_waits = waiters > 0
        serves_queues = engine.store.backend == "sqlite" and engine.serves_queues
        if not somebody_waits and not serves_queues:
            return 3600.0
        self._rests = False
        now_ms = engine.clock.now_ms()
        interval_ms = 1000.0 * max(engine.settings.notification_polling_interval_seconds, waiters / LOOKS_PER_SECOND)
        due = now_ms - self._last_look_ms >= interval_ms
        changed = engine.store.check_for_changes()
        if changed and serves_queues:
            engine.note_changed()
        if somebody_waits and (due or changed):
            self._last_look_ms = now_ms
            signals = engine.signals
            awaited, waiting = signals.awaited("finished"), signals.awaited("cancelled")
            events, streams, messages = signals.awaited("event"), signals.awaited("stream"), signals.awaited("message")
            for workflow_id in engine.store.find_final(awaited):
                engine.signals.fire("finished", workflow_id)
            # Others may commit all the time: what is rare is looked for once per interval.
            if now_ms - self._last_thorough_look_ms >= interval_ms:
                self._last_thorough_look_ms = now_ms
                engine.stop_lost(waiting)
                self._look_for_deleted(awaited)
            else:
                engine.stop_lost(engine.store.find_cancelled(waiting))
            for event in engine.store.find_set_events(events) if events else ():
                engine.signals.fire("event", event)
            if streams:
                engine.feeds.note_tops(engine.store.find_stream_ends(streams))
            for mailbox in engine.store.find_filled_mailboxes(messages) if messages else ():
                engine.signals.fire("message", mailbox)
        if engine.store.backend == "sqlite":
            return DATA_VERSION_SECONDS
        return max(0.01, (self._last_look_ms + interval_ms - now_ms) / 1000)

    def _look_for_deleted(self, awaited: list[str]) -> None:
        """Wake those who wait for what has been deleted. What never existed may be started yet."""
        existing = set(self.engine.store.find_existing(awaited))
        for workflow_id in self._seen.intersection(awaited) - existing:
            self.engine.signals.fire("finished", workflow_id)
        self._seen = existing
