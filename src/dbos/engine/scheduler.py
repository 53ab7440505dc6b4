"""The scheduler: enqueues a run of each schedule at each of its ticks.

One loop for all schedules of the application. Every process runs it; the runs have ids made of name and tick, and a
tick is fired in a transaction that holds the row of its schedule, so whoever comes first does it and the others find it
done. A schedule that cannot be run here (its expression, zone or context cannot be read) is reported once and left out;
the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from ..error import DBOSException
from ..ids import new_id, time_of_id
from ..logs import logger
from ..records import QueuePlace, ScheduledRun, WorkflowStarted
from ..storage.store import StoreUnavailable
from ..types import INTERNAL_QUEUE_NAME, Schedule
from .cron import Ticks
from .errors import EngineStopped
from .services import Service

if TYPE_CHECKING:
    from .core import Core
    from .engine import Engine

# Schedules are read again so often, or more often if so configured.
LONGEST_LOOK_SECONDS = 1.0
# Runs written by one transaction; more ticks than that are left to the next turns.
RUNS_AT_ONCE = 500
# A tick that is so much late counts as missed for a schedule that makes up for none.
LATE = timedelta(minutes=1)


class Timer:
    """A schedule that this process runs: its next tick, and where it takes it from."""

    def __init__(self, engine: Engine, schedule: Schedule) -> None:
        self.schedule = schedule
        self.ticks = Ticks(schedule.cron, schedule.timezone)
        self.context = read_context(engine, schedule)
        self.next: datetime | None = None
        self.next_ms: int | None = None

    def count_from(self, moment: datetime) -> None:
        """The next tick is the first one later than `moment`."""
        self.next = self.ticks.after(moment)
        self.next_ms = None if self.next is None else int(self.next.timestamp() * 1000)

    def due(self, now: datetime, limit: int) -> tuple[list[datetime], datetime]:
        """The ticks to fire up to `now`, and the moment behind which the next ones are to be looked for."""
        assert self.next is not None
        if self.schedule.catch_up == "last":
            # Ticks have whole seconds: the last one up to now is the last one before the next second.
            last = self.ticks.before(now.replace(microsecond=0) + timedelta(seconds=1))
            return [last or self.next], last or self.next
        tick: datetime | None = self.next
        until = self.next
        if self.schedule.catch_up == "none" and now - until.astimezone(timezone.utc) > LATE:
            until = now - LATE
            tick = self.ticks.after(until)
        found: list[datetime] = []
        while tick is not None and tick.astimezone(timezone.utc) <= now and len(found) < limit:
            found.append(tick)
            until, tick = tick, self.ticks.after(tick)
        return found, until


class Scheduler(Service["Engine"]):
    """Fires the schedules of the application."""

    name = "scheduler"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._lock = threading.RLock()
        self._timers: dict[str, Timer] = {}
        # Schedules that cannot be run here: as they were read, and why not.
        self._problems: dict[str, tuple[Schedule, str]] = {}
        self._looked_at_ms = 0

    def look_now(self) -> None:
        """A schedule was created, changed, paused, resumed or deleted."""
        self._looked_at_ms = 0
        self.wake()

    def problem(self, schedule: Schedule) -> str | None:
        """Why this process cannot run the schedule; None if it can, or has not tried yet."""
        with self._lock:
            known, problem = self._problems.get(schedule.name, (None, None))
        return problem if known is not None and known.definition == schedule.definition else None

    def run_once(self) -> float:
        clock = self.engine.clock
        configured_seconds = self.engine.settings.scheduler_polling_interval_seconds
        interval_ms = int(1000 * min(configured_seconds, LONGEST_LOOK_SECONDS))
        now_ms = clock.now_ms()
        # The clock may have been set back.
        if not 0 <= now_ms - self._looked_at_ms < interval_ms:
            self._looked_at_ms = now_ms
            self._read()
        due = [timer for timer in self._timers.values() if timer.next_ms is not None and timer.next_ms <= now_ms]
        if due:
            self._fire(due, datetime.fromtimestamp(now_ms / 1000, timezone.utc))
        look_ms = self._looked_at_ms + interval_ms
        next_ms = min((t.next_ms for t in self._timers.values() if t.next_ms is not None), default=look_ms)
        return max(0.0, (min(next_ms, look_ms) - clock.now_ms()) / 1000)

    def _read(self) -> None:
        """Begin, change and end timers as the table says."""
        engine = self.engine
        schedules = {
            schedule.name: schedule
            for schedule in engine.store.list_schedules([engine.settings.name])
            if schedule.status == "ACTIVE"
        }
        for name in self._timers.keys() - schedules.keys():
            del self._timers[name]
        with self._lock:
            self._problems = {name: known for name, known in self._problems.items() if name in schedules}
        for name, schedule in schedules.items():
            timer = self._timers.get(name)
            if timer is not None and timer.schedule.definition == schedule.definition:
                timer.schedule = schedule
            elif self.problem(schedule) is None:
                self._timers.pop(name, None)
                self._begin(schedule, first_seen=timer is None)

    def _begin(self, schedule: Schedule, first_seen: bool) -> None:
        now = datetime.fromtimestamp(self.engine.clock.now_ms() / 1000, timezone.utc)
        try:
            timer = Timer(self.engine, schedule)
            missed_since = _missed_since(schedule) if first_seen else None
            timer.count_from(now if missed_since is None else min(now, missed_since))
        except Exception as error:
            self._leave_out(schedule, error)
            return
        with self._lock:
            self._problems.pop(schedule.name, None)
        self._timers[schedule.name] = timer

    def _leave_out(self, schedule: Schedule, error: Exception) -> None:
        """Report a schedule that cannot be run, once; it is tried again when its definition changes."""
        self._timers.pop(schedule.name, None)
        with self._lock:
            self._problems[schedule.name] = (schedule, f"{type(error).__name__}: {error}")
        logger.error(
            "Schedule %r cannot be run by this process and is left out until it is changed; the others go on. %s: %s",
            schedule.name,
            type(error).__name__,
            error,
        )

    def _fire(self, timers: Sequence[Timer], now: datetime) -> None:
        """Enqueue the runs of what is due, together; one that cannot be written does not stop the others."""
        runs: list[ScheduledRun] = []
        done: list[tuple[Timer, datetime]] = []
        for timer in timers:
            if len(runs) >= RUNS_AT_ONCE:
                break
            ticks, until = timer.due(now, RUNS_AT_ONCE)
            try:
                runs += [make_run(self.engine, timer.schedule, timer.context, tick, tick) for tick in ticks]
            except Exception as error:
                self._leave_out(timer.schedule, error)
                continue
            done.append((timer, until))
        try:
            if runs:
                self.engine.store.fire_schedules(runs, self.engine.clock.now_ms())
        except (StoreUnavailable, EngineStopped):
            # Nothing has moved on: the same ticks are due in the next turn.
            raise
        except Exception as error:
            if len(timers) == 1:
                self._leave_out(timers[0].schedule, error)
            else:
                for timer in timers:
                    self._fire([timer], now)
            return
        for timer, until in done:
            timer.count_from(until)
        self.engine.dispatcher.note_queued({run.schedule.queue_name or INTERNAL_QUEUE_NAME for run in runs})


def _missed_since(schedule: Schedule) -> datetime | None:
    """Since when ticks may have passed that nobody ran; None if they are not made up for.

    That is the last tick. A schedule that has never fired is not made up for by default (03 R145); with a policy of its
    own it is since it was created, which its id tells.
    """
    if schedule.catch_up == "none" or (schedule.catch_up is None and not schedule.automatic_backfill):
        return None
    if schedule.last_tick is not None or schedule.catch_up is None:
        return schedule.last_tick
    created_ms = time_of_id(schedule.plain_id)
    return None if created_ms is None else datetime.fromtimestamp(created_ms / 1000, timezone.utc)


def make_run(
    engine: Core,
    schedule: Schedule,
    context: object,
    scheduled_at: datetime,
    tick: datetime | None,
    *,
    workflow_id: str | None = None,
) -> ScheduledRun:
    """The run of a schedule for a nominal time. Its id is made of the two, so it exists once."""
    payloads = engine.payloads
    record = WorkflowStarted(
        workflow_id=workflow_id or run_id(schedule, scheduled_at),
        status="ENQUEUED",
        name=schedule.workflow_name,
        class_name=schedule.class_name,
        config_name=None,
        inputs=payloads.encode_arguments((scheduled_at, context), {}, payloads.configured_name),
        serialization=None,
        creator_token=new_id(),
        owner_token=None,
        executor_id=None,
        # That of the moment when it is written.
        application_version=None,
        application_id=None,
        application_name=schedule.application_name or engine.application_name,
        recovery_attempts=0,
        queue=QueuePlace(schedule.queue_name or INTERNAL_QUEUE_NAME, schedule_name=schedule.name),
    )
    return ScheduledRun(schedule, record, tick)


def run_id(schedule: Schedule, scheduled_at: datetime) -> str:
    return f"sched-{schedule.name}-{scheduled_at.isoformat()}"


def read_context(engine: Core, schedule: Schedule) -> object:
    """What a run gets as second argument. DBOSException when it cannot be read here."""
    try:
        return engine.payloads.decode_value(schedule.context, engine.payloads.configured_name)
    except Exception as error:
        raise DBOSException(
            f"The context of schedule {schedule.name!r} cannot be read here ({type(error).__name__}: {error}). Make "
            f"what it contains importable, or create the schedule anew"
        ) from error
