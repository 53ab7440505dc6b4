"""The part of an engine that talks to the system database and executes nothing.

A client has only this; `engine.Engine` adds the registry, the executions, and the loops that find work. Plans that run
for both take a `Core`. What they make known goes to its `note_...` methods: here they do nothing, or wake whoever waits
in this process; an engine passes the news on to its loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Settings
from ..serialization import Payloads
from ..storage.store import Store
from .clock import Clock
from .drivers import Drivers
from .feeds import Feeds
from .journal import Journal
from .plans import Plan
from .services import Listener, Service, Watcher
from .signals import Signals
from .workers import Loops, Workers

if TYPE_CHECKING:
    from ..types import Schedule

T = TypeVar("T")


class Core:
    """Store, journal, drivers and signals of one launched application or one client."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        application_name: str | None,
        clock: Clock | None = None,
        retry_connection_errors: bool = True,
    ) -> None:
        self.settings = settings
        # Whose workflows, queues and schedules these are by default; None is nobody's, and everybody's to look at.
        self.application_name = application_name
        self.store = store
        self.clock = clock or Clock()
        self.payloads = Payloads(settings.serializer, settings.portable_serializer, settings.unpickle_only)
        self.signals = Signals()
        self.feeds = Feeds(self.signals)
        self.journal = Journal(store, self.signals, retry_connection_errors=retry_connection_errors)
        self.workers = Workers(settings.max_executor_threads)
        self.loops = Loops()
        self.drivers = Drivers(
            store,
            self.journal,
            self.clock,
            self.workers,
            self.loops,
            retry_connection_errors=retry_connection_errors,
        )
        self.watcher = Watcher(self)
        self.listener = Listener(self)
        self.services: list[Service[Any]] = [self.watcher, self.listener]
        self.stopping = False

    # --- life

    def open(self) -> None:
        """Begin to commit, and to notice what other processes do."""
        self.journal.start()
        self.signals.on_register = self.watcher.note_waiter
        for service in self.services:
            service.start()

    def close(self) -> None:
        """Let everything that waits end with EngineStopped, then end threads and connections."""
        self.stopping = True
        self.drivers.stop()
        self.signals.close()
        self.loops.stop(timeout_seconds=10)
        self.workers.stop()
        self.journal.close()
        self.store.close()
        for service in self.services:
            service.stop()

    # --- running plans

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out on this thread."""
        return self.drivers.drive(plan)

    async def run_async(self, plan: Plan[T]) -> T:
        """Carry a plan out on the running event loop."""
        return await self.drivers.drive_async(plan)

    # --- what differs between an application and a client

    @property
    def application_id(self) -> str | None:
        """What is stored as the application id of workflows enqueued by name."""
        return None

    @property
    def serves_queues(self) -> bool:
        """Whether this process takes work from queues other than the internal one."""
        return False

    def problem_of(self, schedule: Schedule) -> str | None:
        """Why this process cannot run a schedule; None if it can, or does not run schedules."""
        return None

    # --- what has happened

    def note_cancelled(self, workflow_ids: Sequence[str]) -> None:
        """Workflows were cancelled or deleted in the database: wake whoever waits for them here. May ask it."""
        for workflow_id in workflow_ids:
            self.signals.fire("finished", workflow_id)

    def stop_lost(self, workflow_ids: Sequence[str]) -> None:
        """Stop those executions of the workflows here that own them no more.

        Asks the database: what was true when the news was sent may be past, and another execution may run here by now.
        """

    def note_queued(self, queue_names: Iterable[str]) -> None:
        """Something waits on these queues."""

    def note_placed(self, queue_name: str, has_key: bool | None, application_name: str | None) -> None:
        """Work of an application was put on a queue, with or without a partition key (None: unknown)."""

    def note_delayed(self, due_ms: int) -> None:
        """A workflow was delayed until then."""

    def note_rescheduled(self) -> None:
        """A schedule was created, changed, paused, resumed or deleted."""

    def note_reconfigured(self) -> None:
        """The limits of a queue have changed."""

    def note_promoted(self) -> None:
        """A version was made the latest."""

    def note_freed(self, queue_names: Iterable[str] | None) -> None:
        """Another process gave up places in these queues; None: in any."""

    def note_changed(self) -> None:
        """Something was committed, nobody says what: by others on SQLite, or by a call whose answer was lost."""

    def note_connected(self) -> None:
        """The connection that listens is there, or there again."""
