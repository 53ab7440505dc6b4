"""The work of processes that have died goes on in this one.

Owner tokens begin with the name of the process that made them (`ids`), and the store knows which processes are alive.
So one look finds the running workflows whose owner is gone, whatever its executor id, and hands them back to their
queues, where any process claims them. Their places within the limits of the queue are free with the same statement.

A process that only seems to be dead is fenced at its next write, so a false alarm costs work that is done twice and
nothing else. Still none should come from a connection that broke: hence the second look, and the patience after this
process has lost its own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..logs import logger
from .services import Service

if TYPE_CHECKING:
    from .engine import Engine

# How often to look while other processes use the database. On SQLite a look asks no server.
LOOK_SECONDS = {"sqlite": 0.25, "postgres": 1.0}
# How long a process must have been seen dead. A file lock is given up by a death only; a connection that breaks is
# replaced in a few milliseconds.
SURE_SECONDS = {"sqlite": 0.0, "postgres": 0.25}
# After this process had to connect anew, others probably had to, too.
PATIENCE_SECONDS = 5.0
# Looking takes at most this share of the time: with very many running workflows a look reads them all.
SHARE_OF_TIME = 1 / 20


class Takeover(Service["Engine"]):
    """Finds running workflows whose process is gone, and hands them back to their queues."""

    name = "takeover"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        backend = engine.store.backend
        self.interval_seconds = LOOK_SECONDS[backend]
        self._sure_ms = SURE_SECONDS[backend] * 1000
        # Seen dead for the first time at.
        self._suspects: dict[str, int] = {}
        # Whether processes may have died of which nothing was heard: those from before the launch, to begin with.
        self._must_look = True
        self._is_connected = False
        self._patient_until_ms = 0

    def note_connected(self) -> None:
        """Announcements of other processes arrive from now on, again if they have before."""
        if self._is_connected:
            self._patient_until_ms = self.engine.clock.now_ms() + int(PATIENCE_SECONDS * 1000)
        self._is_connected = True
        self._must_look = True
        self.wake()

    def run_once(self) -> float:
        engine = self.engine
        if engine.process is None:
            return 3600.0
        now_ms = engine.clock.now_ms()
        if now_ms < self._patient_until_ms:
            return (self._patient_until_ms - now_ms) / 1000
        if not self._must_look and not engine.store.is_shared():
            return self.interval_seconds
        self._must_look = False
        try:
            others = engine.find_other_owners(tuple(engine.registry.workflows))
            dead = engine.store.find_dead(others, patient=True)
        except BaseException:
            self._must_look = True
            raise
        took_seconds = (engine.clock.now_ms() - now_ms) / 1000
        self._suspects = {process: self._suspects.get(process, now_ms) for process in dead}
        certain = [process for process, since_ms in self._suspects.items() if now_ms - since_ms >= self._sure_ms]
        if certain:
            self._take_over(certain)
        # As long as any of them may die.
        self._must_look |= bool(others)
        pause_seconds = max(self.interval_seconds, took_seconds / SHARE_OF_TIME)
        return min(pause_seconds, self._sure_ms / 1000) if len(certain) < len(dead) else pause_seconds

    def _take_over(self, dead: list[str]) -> None:
        engine = self.engine
        queues = engine.store.requeue_dead(
            dead, engine.application_version, engine.settings.name, tuple(engine.registry.workflows)
        )
        if not queues:
            # Another process was faster.
            return
        logger.info(
            "Recovering %d workflows of %d processes that are gone, from %s",
            len(queues),
            len(dead),
            ", ".join(f"{name} ({count})" for name, count in Counter(queues).items()),
        )
        engine.dispatcher.note_queued(set(queues))
