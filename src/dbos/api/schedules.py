"""Schedules: workflows that run at the times of a cron expression.

The part of the engine is imported by the calls, which need it, and not with the package, which should start quickly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypedDict, Union, get_args

from ..engine.context import current_execution
from ..engine.plans import Plan, Read
from ..engine.registry import TEMPORARY_PREFIX, WorkflowInfo
from ..error import DBOSException, DBOSWorkflowFunctionNotFoundError
from ..ids import id_made_at
from ..serialization import check_text, explain
from ..types import CatchUp, Overlap, QueueConfig, Schedule, WorkflowSchedule, schedule_id_with
from .decorators import WORKFLOW_ATTRIBUTE
from .handles import Handle, WorkflowHandle
from .runtime import blocking, check_unsharded, engine_here, on_engine, run, state, twin

if TYPE_CHECKING:
    from ..engine.core import Core
    from ..engine.engine import Engine

ScheduledWorkflow = Union[Callable[[datetime, Any], None], Callable[[datetime, Any], Coroutine[Any, Any, None]]]


class _ScheduleInput(TypedDict, total=False):
    schedule_name: str
    workflow_fn: ScheduledWorkflow
    schedule: str
    context: Any
    automatic_backfill: bool
    cron_timezone: str | None
    queue_name: str | None
    shard_key: str | None


class ScheduleInput(_ScheduleInput, total=False):
    """One schedule for `DBOS.apply_schedules`: the arguments of `DBOS.create_schedule`.

    `schedule_name`, `workflow_fn` and `schedule` are required.
    """

    overlap: Overlap
    catch_up: CatchUp | None


class _ClientScheduleInput(TypedDict, total=False):
    schedule_name: str
    workflow_name: str
    workflow_class_name: str | None
    schedule: str
    context: Any
    automatic_backfill: bool
    cron_timezone: str | None
    queue_name: str | None
    application_name: str | None
    shard_key: str | None


class ClientScheduleInput(_ClientScheduleInput, total=False):
    """One schedule for `DBOSClient.apply_schedules`: the arguments of `DBOSClient.create_schedule`.

    `schedule_name`, `workflow_name` and `schedule` are required.
    """

    overlap: Overlap
    catch_up: CatchUp | None


def _create(
    *,
    schedule_name: str,
    workflow_fn: ScheduledWorkflow,
    schedule: str,
    context: Any = None,
    automatic_backfill: bool = False,
    cron_timezone: str | None = None,
    queue_name: str | None = None,
    shard_key: str | None = None,
    overlap: Overlap = "allow",
    catch_up: CatchUp | None = None,
) -> Plan[None]:
    """Run a workflow at the times of a cron expression.

    The workflow is called with the nominal time of the tick, a `datetime` in the schedule's time zone, and `context`.
    Each tick runs once, however many processes run: its id is `sched-<schedule_name>-<time in ISO 8601>`. Every process
    of the application fires every schedule, so one of them is enough.

    Args:
        schedule_name: Unique in the database.
        workflow_fn: A registered workflow: a function, a static or a class method.
        schedule: Cron expression of 5 fields (minute, hour, day of month, month, day of week), 6 (second first) or 7
            (year last).
        context: Any value the configured serializer can store.
        automatic_backfill: Also run the ticks since the last one that fell into a time when no process ran. Default no.
        cron_timezone: IANA name of the zone whose clock counts, for example "Europe/Berlin". Default UTC.
        queue_name: A registered queue; default the internal one, which has no limits.
        shard_key: Only for a sharded system database.
        overlap: At a tick while an earlier run has not ended: "allow" another one (default), or "skip" the tick.
        catch_up: Which missed ticks run, after a stop, a suspension or an outage: "all"; "last", only the last of
            several; "none", nothing that is more than a minute late. Default: all that passed while the process ran,
            and after a stop as `automatic_backfill` says.

    Raises:
        DBOSException: the name is in use, or an argument has no meaning; the message says which.
        DBOSWorkflowFunctionNotFoundError: the function is not known as a workflow.

    Durability: in workflow code recorded as the step `DBOS.createSchedule`, in the transaction that creates it.
    """
    engine = engine_here()
    given = ScheduleInput(
        schedule_name=schedule_name,
        workflow_fn=workflow_fn,
        schedule=schedule,
        context=context,
        automatic_backfill=automatic_backfill,
        cron_timezone=cron_timezone,
        queue_name=queue_name,
        shard_key=shard_key,
        overlap=overlap,
        catch_up=catch_up,
    )
    from ..engine import schedules as plans

    return plans.create_plan(engine, lambda: _make(engine, given))


def _apply(schedules: list[ScheduleInput]) -> Plan[None]:
    """Create or replace several schedules, all or none.

    A replaced schedule takes the whole new definition, fields that are left out included; its status (a paused one
    stays paused) and its last tick stay. Schedules that are not in the list stay as they are. Of entries with the same
    name the last one counts.

    Args:
        schedules: For each the arguments of `create_schedule`.

    Raises:
        DBOSException: called from workflow code; an entry is wrong (the message names its index); another application
            owns one of the names. Nothing is changed then.
    """
    _refuse_in_workflow("apply_schedules")
    return _apply_plan(engine_here(), list(schedules))


def _apply_plan(engine: Engine, schedules: Sequence[ScheduleInput]) -> Plan[None]:
    made: list[Schedule] = []
    for index, given in enumerate(schedules):
        try:
            made.append((yield from _make(engine, given)))
        except DBOSWorkflowFunctionNotFoundError:
            raise
        except DBOSException as error:
            raise entry_error(index, error) from error
    from ..engine import schedules as plans

    yield from plans.apply_plan(engine, made)


def entry_error(index: int, error: DBOSException) -> DBOSException:
    return DBOSException(f"Entry {index} of the schedules: {error.message}")


def schedule_lookup(core: Core, name: str) -> Plan[WorkflowSchedule | None]:
    """The schedule of this name, whatever its application; None if there is none.

    Durability: in workflow code recorded as the step `DBOS.getSchedule`.
    """
    from ..engine import schedules as plans

    return plans.find_plan(core, checked_name(name))


def schedule_listing(
    core: Core,
    *,
    status: str | list[str] | None = None,
    workflow_name: str | list[str] | None = None,
    schedule_name_prefix: str | list[str] | None = None,
    application_name: str | list[str] | None = None,
) -> Plan[list[WorkflowSchedule]]:
    """The schedules that fit all filters, by name.

    Args:
        status: "ACTIVE" or "PAUSED", or a list of them.
        workflow_name: One registered name, or several.
        schedule_name_prefix: How the name begins; any of several.
        application_name: Of these applications and of none. Default this application; an empty text or list is all.

    Durability: in workflow code recorded as the step `DBOS.listSchedules`.
    """
    statuses, names = _several(status), _several(workflow_name)
    prefixes = None if schedule_name_prefix is None else tuple(_several(schedule_name_prefix) or ())
    applications: list[str] | None = _several(application_name)
    if application_name is None and core.application_name is not None:
        applications = [core.application_name]

    def wanted(schedule: Schedule) -> bool:
        return (
            (statuses is None or schedule.status in statuses)
            and (names is None or schedule.workflow_name in names)
            and (prefixes is None or schedule.name.startswith(prefixes))
        )

    from ..engine import schedules as plans

    return plans.list_plan(core, applications if any(applications or ()) else None, wanted)


def schedule_deletion(core: Core, name: str) -> Plan[None]:
    """Delete a schedule; nothing happens if there is none. Runs that are enqueued already stay.

    Durability: in workflow code recorded as the step `DBOS.deleteSchedule`, in the transaction that deletes it.
    """
    from ..engine import schedules as plans

    return plans.delete_plan(core, checked_name(name))


def schedule_pause(core: Core, name: str) -> Plan[None]:
    """Let a schedule not fire until it is resumed; nothing happens if there is none.

    Durability: in workflow code recorded as the step `DBOS.pauseSchedule`, in the transaction that pauses it.
    """
    from ..engine import schedules as plans

    return plans.set_status_plan(core, checked_name(name), "PAUSED")


def schedule_resumption(core: Core, name: str) -> Plan[None]:
    """Let a paused schedule fire again, from its next tick on; missed ones as its policies say.

    Durability: in workflow code recorded as the step `DBOS.resumeSchedule`, in the transaction that resumes it.
    """
    from ..engine import schedules as plans

    return plans.set_status_plan(core, checked_name(name), "ACTIVE")


class ScheduleCalls:
    """`DBOS.create_schedule` and the like."""

    create_schedule = blocking("create_schedule", _create, in_loops=True)
    create_schedule_async = twin("create_schedule", _create)
    apply_schedules = blocking("apply_schedules", _apply, in_loops=True)
    apply_schedules_async = twin("apply_schedules", _apply)
    get_schedule = blocking("get_schedule", on_engine(schedule_lookup), in_loops=True)
    get_schedule_async = twin("get_schedule", on_engine(schedule_lookup))
    list_schedules = blocking("list_schedules", on_engine(schedule_listing), in_loops=True)
    list_schedules_async = twin("list_schedules", on_engine(schedule_listing))
    delete_schedule = blocking("delete_schedule", on_engine(schedule_deletion), in_loops=True)
    delete_schedule_async = twin("delete_schedule", on_engine(schedule_deletion))
    pause_schedule = blocking("pause_schedule", on_engine(schedule_pause), in_loops=True)
    resume_schedule = blocking("resume_schedule", on_engine(schedule_resumption), in_loops=True)

    @staticmethod
    def trigger_schedule(schedule_name: str) -> WorkflowHandle[None]:
        """Enqueue a run of a schedule now, also of a paused one.

        Its workflow gets the present time in UTC; the times of the schedule do not change.

        Raises:
            DBOSException: there is no such schedule, or the call comes from workflow code.
        """
        _refuse_in_workflow("trigger_schedule")
        engine = engine_here()
        from ..engine import schedules as plans

        return Handle(run(engine, plans.trigger_plan(engine, checked_name(schedule_name))))

    @staticmethod
    def backfill_schedule(schedule_name: str, start: datetime, end: datetime) -> list[WorkflowHandle[None]]:
        """Enqueue a run for each tick between two times that has none yet, also of a paused schedule.

        Args:
            schedule_name: The schedule; its present definition counts.
            start, end: Ticks later than `start` and earlier than `end`. A time without a zone is taken as UTC.

        Returns:
            The handles of all ticks in order, of those that had run already too.

        Raises:
            DBOSException: there is no such schedule, or the call comes from workflow code.
        """
        _refuse_in_workflow("backfill_schedule")
        engine = engine_here()
        begin, until = moment(start, "start"), moment(end, "end")
        from ..engine import schedules as plans

        ids = run(engine, plans.backfill_plan(engine, checked_name(schedule_name), begin, until))
        return [Handle(workflow_id) for workflow_id in ids]


# --- checks


def _make(engine: Engine, given: Mapping[str, Any]) -> Plan[Schedule]:
    """The schedule for these arguments; DBOSException when one of them has no meaning."""
    check_keys(given, "workflow_fn")
    name = checked_name(given["schedule_name"])
    info, class_name = _workflow_of(name, given["workflow_fn"])
    queue_name = given.get("queue_name")
    schedule = make_schedule(engine, given, info.name, class_name, engine.settings.name)
    if queue_name is not None:
        yield from _check_queue(engine, name, queue_name)
    return schedule


def check_keys(given: Any, workflow_key: str) -> None:
    if not isinstance(given, Mapping):
        raise DBOSException(f"A schedule is a dictionary, not {given!r}")
    for key in ("schedule_name", workflow_key, "schedule"):
        if key not in given:
            raise DBOSException(f"the key {key!r} is missing")


def make_schedule(
    core: Core, given: Mapping[str, Any], workflow_name: str, class_name: str | None, application_name: str | None
) -> Schedule:
    """The schedule of a workflow; what is said of it in `given` is checked, but for its queue."""
    name = checked_name(given["schedule_name"])
    check_unsharded(given.get("shard_key"))
    timezone_name = given.get("cron_timezone")
    from ..engine.cron import check_expression

    check_expression(given["schedule"], timezone_name, datetime.fromtimestamp(core.clock.now(), timezone.utc))
    overlap: Overlap = given.get("overlap") or "allow"
    catch_up: CatchUp | None = given.get("catch_up")
    _check_policy("overlap", overlap, get_args(Overlap))
    _check_policy("catch_up", catch_up, (None, *get_args(CatchUp)))
    automatic_backfill = bool(given.get("automatic_backfill"))
    if automatic_backfill and catch_up == "none":
        raise DBOSException(f"Schedule {name!r} has automatic_backfill, but catch_up='none'. Leave out one of the two")
    try:
        context = core.payloads.encode_value(given.get("context"))
    except Exception as error:
        raise explain(error, f"the context of schedule {name!r}") from error
    return Schedule(
        schedule_id=schedule_id_with(id_made_at(core.clock.now_ms()), overlap, catch_up),
        name=name,
        workflow_name=workflow_name,
        class_name=class_name,
        cron=given["schedule"],
        status="ACTIVE",
        context=context,
        last_fired_at=None,
        # Other implementations know all or nothing.
        automatic_backfill=automatic_backfill or catch_up in ("all", "last"),
        timezone=timezone_name,
        queue_name=given.get("queue_name"),
        application_name=application_name,
    )


def checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise DBOSException(f"The name of a schedule is a non-empty text, not {name!r}")
    check_text(name, "schedule name")
    return name


def _check_policy(key: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        raise DBOSException(f"{key} is one of {', '.join(map(repr, allowed))}, not {value!r}")


def _workflow_of(name: str, function: Any) -> tuple[WorkflowInfo, str | None]:
    """What is registered for the function, and its class; stored names must be enough to call it."""
    info: WorkflowInfo | None = getattr(function, WORKFLOW_ATTRIBUTE, None)
    if info is None or info.name not in state.registry.workflows:
        raise DBOSWorkflowFunctionNotFoundError(
            "<NONE>",
            f"the function {function!r} of schedule {name!r} is not registered: decorate it with @DBOS.workflow()",
        )
    if info.name.startswith(TEMPORARY_PREFIX):
        raise DBOSException(f"Schedule {name!r} is for a workflow, but {function!r} is a step. Wrap it in a workflow")
    if info.kind == "instance":
        raise DBOSException(
            f"Schedule {name!r} cannot run the method {info.name!r} of an instance, since only its name is stored. "
            f"Use a function, a static or a class method"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise DBOSException(
            f"Schedule {name!r} calls {info.name!r} with two arguments, the time and the context: {error}"
        ) from error
    owner = state.registry.class_of(function.__self__) if info.kind == "class" else None
    return info, owner.name if owner is not None else None


def _check_queue(engine: Engine, schedule_name: str, queue_name: Any) -> Plan[None]:
    if not isinstance(queue_name, str):
        raise DBOSException(f"The queue of schedule {schedule_name!r} is given by its name, not by {queue_name!r}")
    queue: QueueConfig | None = engine.dispatcher.internal_queue(queue_name)
    if queue is None:
        queue = yield Read(lambda store: store.find_queue(queue_name))
    if queue is None:
        raise DBOSException(
            f"Schedule {schedule_name!r} names the queue {queue_name!r}, which is not registered. Register it first "
            f"with DBOS.register_queue"
        )
    if queue.is_partitioned:
        raise DBOSException(
            f"Schedule {schedule_name!r} names the partitioned queue {queue_name!r}; its runs have no partition key "
            f"and would wait for ever. Use a queue without partition limits"
        )


def _refuse_in_workflow(name: str) -> None:
    if current_execution() is not None:
        raise DBOSException(f"DBOS.{name} cannot be called from workflow code. Call it in a step, or outside")


def _several(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else None if value is None else list(value)


def moment(value: Any, name: str) -> datetime:
    if not isinstance(value, datetime):
        raise DBOSException(f"{name} is a datetime, not {value!r}")
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value
