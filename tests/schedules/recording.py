"""A workflow to schedule that remembers its runs, and a scheduler whose clock the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from dbos import DBOS
from dbos.api.runtime import state
from dbos.engine.engine import Engine
from dbos.engine.scheduler import Scheduler
from tests.helpers import rows

NOON = "2026-01-01T12:00:00"


def far() -> str:
    """A cron expression whose next tick no test lives to see."""
    return "0 0 29 2 *"


def declare(name: str = "recorded") -> Callable[[datetime, Any], None]:
    @DBOS.workflow(name=name)
    def recorded(at: datetime, context: Any) -> None: ...

    return recorded


def create(name: str = "s", schedule: str = "*/10 * * * *", *, live: bool = False, **given: Any) -> None:
    """Make a schedule. Unless it shall be live, the scheduler of the process rests from now on."""
    if not live:
        the_engine().scheduler.stop()
    DBOS.create_schedule(**{"schedule_name": name, "workflow_fn": declare(), "schedule": schedule, **given})


def at(*times: str) -> list[str]:
    """Nominal times of that day, as the ids of runs tell them."""
    return [f"2026-01-01T{time}:00+00:00" for time in times]


def schedule_row(database_url: str, name: str) -> dict[str, Any]:
    (row,) = rows(database_url, "SELECT * FROM workflow_schedules WHERE schedule_name = %s", name)
    return row


def runs(database_url: str, name: str = "s") -> list[str]:
    """The times of the runs of a schedule, as their ids tell."""
    found = rows(database_url, "SELECT workflow_uuid FROM workflow_status WHERE schedule_name = %s", name)
    return sorted(row["workflow_uuid"].removeprefix(f"sched-{name}-") for row in found)


def the_engine() -> Engine:
    assert state.instance is not None
    assert state.instance.engine is not None
    return state.instance.engine


class SteppedClock:
    """A clock that stands still until it is set."""

    def __init__(self, start: str) -> None:
        self.set(start)

    def set(self, text: str) -> None:
        self.moment = datetime.fromisoformat(text)
        if self.moment.tzinfo is None:
            self.moment = self.moment.replace(tzinfo=timezone.utc)

    def now(self) -> float:
        return self.moment.timestamp()

    def now_ms(self) -> int:
        return int(self.now() * 1000)


class SteppedScheduler:
    """The scheduler of a process, turned by the test."""

    def __init__(self, engine: Engine, clock: SteppedClock) -> None:
        self.engine, self.clock = engine, clock
        self._scheduler = Scheduler(engine)
        engine.scheduler = self._scheduler

    def at(self, text: str) -> float:
        """Set the clock and take turns until nothing is due; the seconds until the next turn."""
        self.clock.set(text)
        while (pause := self._scheduler.run_once()) <= 0.0:
            pass
        return pause


@contextmanager
def stepped(start: str) -> Iterator[SteppedScheduler]:
    """The launched application with a clock that stands still, and its own scheduler stopped."""
    engine = the_engine()
    engine.scheduler.stop()
    clock = SteppedClock(start)
    real, engine.clock = engine.clock, clock  # type: ignore[assignment]
    try:
        yield SteppedScheduler(engine, clock)
    finally:
        engine.clock = real
