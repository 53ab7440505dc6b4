"""Schedules on any SQL database (see `store.Store`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..records import ScheduledRun, StepCompleted, Verdict
from ..types import Schedule
from .encoding import encode_rows
from .rows import to_schedule, to_version

if TYPE_CHECKING:
    from .bulk import Transaction
    from .database import Connections
    from .once import Once


class ScheduleOperations:
    """The part of the store that is about schedules."""

    _db: Connections
    # See `database.SqlStore`.
    _recorded: Callable[..., Verdict]

    def create_schedule(
        self, schedule: Schedule, step: StepCompleted | None, *, once: Once | None = None
    ) -> Verdict | Schedule:
        met: list[Schedule] = []

        def create(transaction: Transaction) -> None:
            transaction.change("create_schedule", _parameters(schedule))
            found = to_schedule(transaction.read("find_schedule", (schedule.name,))[0])
            # An earlier try, whose answer was lost, may have created it.
            if found.schedule_id != schedule.schedule_id:
                met.append(found)
                raise _Taken()

        try:
            return self._changed(step, create, once)
        except _Taken:
            return met[0]

    def apply_schedules(self, schedules: Sequence[Schedule], *, once: Once | None = None) -> Schedule | None:
        met: list[Schedule] = []

        def apply(transaction: Transaction) -> None:
            # In the order of the names, so that two that apply the same ones wait for each other only once.
            for name, schedule in sorted({schedule.name: schedule for schedule in schedules}.items()):
                transaction.change("create_schedule", _parameters(schedule))
                found = to_schedule(transaction.read("lock_schedules", (json.dumps([name]),))[0])
                if None not in (owners := {found.application_name, schedule.application_name}) and len(owners) > 1:
                    met.append(found)
                    raise _Taken()
                transaction.change("replace_schedule", _parameters(schedule.with_id_of(found)))

        try:
            self._changed(None, apply, once)
        except _Taken:
            return met[0]
        return None

    def _changed(
        self, step: StepCompleted | None, effect: Callable[[Transaction], None], once: Once | None = None
    ) -> Verdict:
        verdict = self._recorded(step, effect, once=once)
        self._db.announce("schedules", ())
        return verdict

    def find_schedule(self, name: str) -> Schedule | None:
        rows = self._db.read("find_schedule", (name,))
        return to_schedule(rows[0]) if rows else None

    def list_schedules(self, application_names: Sequence[str] | None) -> list[Schedule]:
        names = None if application_names is None else json.dumps(list(application_names))
        return [to_schedule(row) for row in self._db.read("list_schedules", (names,))]

    def delete_schedule(self, name: str, step: StepCompleted | None, *, once: Once | None = None) -> Verdict:
        def delete(transaction: Transaction) -> None:
            transaction.change("delete_schedule", (name,))

        return self._changed(step, delete, once)

    def set_schedule_status(
        self, name: str, status: str, step: StepCompleted | None, *, once: Once | None = None
    ) -> Verdict:
        def change(transaction: Transaction) -> None:
            transaction.change("set_schedule_status", (name, status))

        return self._changed(step, change, once)

    def fire_schedules(self, runs: Sequence[ScheduledRun], now_ms: int, *, once: Once | None = None) -> None:
        names = json.dumps(sorted({run.schedule.name for run in runs}))

        def fire(transaction: Transaction) -> None:
            known = {row[1]: to_schedule(row) for row in transaction.read("lock_schedules", (names,))}
            busy = (
                {row[0] for row in transaction.read("find_busy_schedules", (names,))} if _may_overlap(runs) else set()
            )
            last_ticks = {name: schedule.last_tick for name, schedule in known.items()}
            fired: dict[str, datetime] = {}
            versions: dict[str | None, str | None] = {}
            rows: list[dict[str, Any]] = []
            for run in runs:
                name = run.schedule.name
                if run.tick is not None:
                    last, tick = last_ticks.get(name), run.tick.astimezone(timezone.utc)
                    if not _still_fires(known.get(name), run) or last == tick:
                        continue
                    if last is None or last < tick:
                        last_ticks[name], fired[name] = tick, run.tick
                    if run.schedule.overlap == "skip":
                        if name in busy:
                            continue
                        busy.add(name)
                application = run.record.application_name
                if application not in versions:
                    # What belongs to nobody is for the latest version of whoever claims it.
                    latest = [] if application is None else transaction.read("list_versions", (application, 1))
                    versions[application] = to_version(latest[0])["version_name"] if latest else None
                run.record.application_version = versions[application]
                rows.append(run.record.row())
            if rows:
                transaction.change("start_workflows", (encode_rows(rows), now_ms))
            for name, moment in fired.items():
                transaction.change("note_fired", (name, moment.isoformat()))

        self._recorded(None, fire, once=once)
        queues = {run.record.queue.queue_name for run in runs if run.record.queue is not None}
        self._db.announce("queued", sorted(queues))


class _Taken(Exception):
    """Rolls back: the name of the schedule is in use."""


def _may_overlap(runs: Sequence[ScheduledRun]) -> bool:
    return any(run.tick is not None and run.schedule.overlap == "skip" for run in runs)


def _still_fires(known: Schedule | None, run: ScheduledRun) -> bool:
    """Whether the schedule is as it was when the run was made: not deleted, paused or changed meanwhile."""
    return known is not None and known.status == "ACTIVE" and known.definition == run.schedule.definition


def _parameters(schedule: Schedule) -> tuple[Any, ...]:
    return (
        schedule.schedule_id,
        schedule.name,
        schedule.workflow_name,
        schedule.class_name,
        schedule.cron,
        schedule.context,
        schedule.automatic_backfill,
        schedule.timezone,
        schedule.queue_name,
        schedule.application_name,
    )
