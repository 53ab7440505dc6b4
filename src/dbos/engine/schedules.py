"""Creating, changing and running schedules by hand, as plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..error import DBOSException
from ..logs import logger
from ..records import ScheduledRun, StepCompleted, Verdict
from ..storage.once import Once
from ..types import Schedule, WorkflowSchedule
from .cron import Ticks
from .operations import accept_change, change_plan, operation_plan
from .plans import Plan, Read
from .scheduler import RUNS_AT_ONCE, make_run, read_context, run_id

if TYPE_CHECKING:
    from .core import Core


def create_plan(engine: Core, make: Callable[[], Plan[Schedule]]) -> Plan[None]:
    """Insert the schedule that `make` gives; DBOSException when its name is in use."""

    def create(step: StepCompleted | None) -> Plan[Verdict]:
        schedule = yield from make()
        once = Once()
        answer: Verdict | Schedule = yield Read(lambda store: store.create_schedule(schedule, step, once=once))
        if isinstance(answer, Schedule):
            raise DBOSException(taken(answer, schedule.application_name))
        return answer

    yield from _changing(engine, "DBOS.createSchedule", create)


def delete_plan(engine: Core, name: str) -> Plan[None]:
    def delete(step: StepCompleted | None) -> Plan[Verdict]:
        known: Schedule | None = yield Read(lambda store: store.find_schedule(name))
        once = Once()
        verdict: Verdict = yield Read(lambda store: store.delete_schedule(name, step, once=once))
        _warn_of_other_owner(engine, known, verdict, "deleted")
        return verdict

    yield from _changing(engine, "DBOS.deleteSchedule", delete)


def set_status_plan(engine: Core, name: str, status: str) -> Plan[None]:
    def change(step: StepCompleted | None) -> Plan[Verdict]:
        known: Schedule | None = yield Read(lambda store: store.find_schedule(name))
        once = Once()
        verdict: Verdict = yield Read(lambda store: store.set_schedule_status(name, status, step, once=once))
        _warn_of_other_owner(engine, known, verdict, "paused" if status == "PAUSED" else "resumed")
        return verdict

    yield from _changing(engine, "DBOS.pauseSchedule" if status == "PAUSED" else "DBOS.resumeSchedule", change)


def _warn_of_other_owner(engine: Core, known: Schedule | None, verdict: Verdict, what: str) -> None:
    """Any process may change any schedule (03 section 10.1). It shall not happen unnoticed."""
    own, owner = engine.application_name, None if known is None else known.application_name
    if known is not None and verdict is Verdict.APPLIED and own is not None and owner not in (None, own):
        logger.warning(
            "Schedule %r, which application %r has %s, belongs to application %r", known.name, own, what, owner
        )


def _changing(engine: Core, step_name: str, change: Callable[[StepCompleted | None], Plan[Verdict]]) -> Plan[None]:
    def carry_out(step: StepCompleted | None) -> Plan[None]:
        accept_change(step, (yield from change(step)))
        engine.note_rescheduled()

    yield from change_plan(engine, step_name, carry_out)


def apply_plan(engine: Core, schedules: Sequence[Schedule]) -> Plan[None]:
    """Create or replace all of them, or none when another application owns one."""
    once = Once()
    foreign: Schedule | None = yield Read(lambda store: store.apply_schedules(schedules, once=once))
    if foreign is not None:
        raise DBOSException(taken(foreign, engine.application_name))
    engine.note_rescheduled()


def find_plan(engine: Core, name: str) -> Plan[WorkflowSchedule | None]:
    def find() -> Plan[WorkflowSchedule | None]:
        found: Schedule | None = yield Read(lambda store: store.find_schedule(name))
        return None if found is None else describe(engine, found)

    return (yield from operation_plan("DBOS.getSchedule", find()))


def list_plan(
    engine: Core, applications: Sequence[str] | None, wanted: Callable[[Schedule], bool]
) -> Plan[list[WorkflowSchedule]]:
    def find() -> Plan[list[WorkflowSchedule]]:
        found: list[Schedule] = yield Read(lambda store: store.list_schedules(applications))
        return [describe(engine, schedule) for schedule in found if wanted(schedule)]

    return (yield from operation_plan("DBOS.listSchedules", find()))


def trigger_plan(engine: Core, name: str) -> Plan[str]:
    """Enqueue a run now, whatever the times and the status of the schedule; its id."""
    schedule = yield from _existing(name)
    now = datetime.fromtimestamp(engine.clock.now(), timezone.utc)
    workflow_id = f"sched-{name}-trigger-{now.isoformat(timespec='microseconds')}"
    run = make_run(engine, schedule, read_context(engine, schedule), now, None, workflow_id=workflow_id)
    yield from _write(engine, [run])
    return workflow_id


def backfill_plan(engine: Core, name: str, start: datetime, end: datetime) -> Plan[list[str]]:
    """Enqueue a run for each tick later than `start` and earlier than `end`, unless it has one; the ids of all."""
    schedule = yield from _existing(name)
    context = read_context(engine, schedule)
    ids: list[str] = []
    runs: list[ScheduledRun] = []
    ticks = Ticks(schedule.cron, schedule.timezone)
    if start < end and ticks.after(start) is None:
        raise DBOSException(
            f"Schedule {name!r} has nothing to make up for: its cron expression {schedule.cron!r} matches no time in "
            f"the 50 years after {start.isoformat()}"
        )
    for tick in ticks.between(start, end):
        runs.append(make_run(engine, schedule, context, tick, None))
        ids.append(run_id(schedule, tick))
        if len(runs) == RUNS_AT_ONCE:
            yield from _write(engine, runs)
            runs = []
    if runs:
        yield from _write(engine, runs)
    return ids


def _existing(name: str) -> Plan[Schedule]:
    schedule: Schedule | None = yield Read(lambda store: store.find_schedule(name))
    if schedule is None:
        raise DBOSException(f"There is no schedule {name!r}. Create it with DBOS.create_schedule.")
    return schedule


def _write(engine: Core, runs: Sequence[ScheduledRun]) -> Plan[None]:
    once = Once()
    yield Read(lambda store: store.fire_schedules(runs, engine.clock.now_ms(), once=once))
    engine.note_queued({run.record.queue.queue_name for run in runs if run.record.queue is not None})


def taken(known: Schedule, application_name: str | None) -> str:
    """The text of the error for a name in use."""
    owner = known.application_name
    if owner is not None and owner != application_name:
        return (
            f"Schedule {known.name!r} belongs to application {owner!r}, not to {application_name!r}. The "
            f"applications of a database share the names of schedules: choose another one"
        )
    return f"Schedule {known.name!r} exists already. Use DBOS.apply_schedules to replace it, or delete it first"


def describe(engine: Core, schedule: Schedule) -> WorkflowSchedule:
    """What the public calls return."""
    context: Any
    try:
        context = read_context(engine, schedule)
    except DBOSException as error:
        logger.warning("%s", error)
        context = schedule.context
    return WorkflowSchedule(
        schedule_id=schedule.plain_id,
        schedule_name=schedule.name,
        workflow_name=schedule.workflow_name,
        workflow_class_name=schedule.class_name,
        schedule=schedule.cron,
        status=schedule.status,
        context=context,
        last_fired_at=schedule.last_fired_at,
        automatic_backfill=schedule.automatic_backfill,
        cron_timezone=schedule.timezone,
        queue_name=schedule.queue_name,
        application_name=schedule.application_name,
        shard_key=None,
        overlap=schedule.overlap,
        catch_up=schedule.catch_up,
        problem=engine.problem_of(schedule),
    )
