"""Schedules, made and managed by a client, which names their workflows.

The part of the engine is imported by the calls, which need it, and not with the package, which should start quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...engine.plans import Plan
from ...error import DBOSException
from ...serialization import check_text
from ...types import CatchUp, Overlap, Schedule
from ..schedules import (
    ClientScheduleInput,
    check_keys,
    checked_name,
    entry_error,
    make_schedule,
    moment,
    schedule_deletion,
    schedule_listing,
    schedule_lookup,
    schedule_pause,
    schedule_resumption,
)
from .handles import ClientAsyncHandle, ClientHandle
from .session import Session, blocking, twin

if TYPE_CHECKING:
    from ...engine.core import Core


def _create(
    core: Core,
    *,
    schedule_name: str,
    workflow_name: str,
    schedule: str,
    context: Any = None,
    workflow_class_name: str | None = None,
    automatic_backfill: bool = False,
    cron_timezone: str | None = None,
    queue_name: str | None = None,
    application_name: str | None = None,
    shard_key: str | None = None,
    overlap: Overlap = "allow",
    catch_up: CatchUp | None = None,
) -> Plan[None]:
    """Run a workflow at the times of a cron expression; see `DBOS.create_schedule`.

    Whether the workflow, its class and the queue exist is not checked.

    Args:
        schedule_name: Unique in the database.
        workflow_name: The registered name of the workflow.
        schedule: Cron expression of 5, 6 or 7 fields.
        context: Any value the serializer can store; the second argument of the workflow.
        workflow_class_name: The registered class of a class method.
        automatic_backfill: Also run the ticks that fell into a time when no process ran. Default no.
        cron_timezone: IANA name of the zone whose clock counts. Default UTC.
        queue_name: The queue of its runs; default the internal one, which has no limits.
        application_name: Whose schedule it is; default the client's application, else nobody's: then any
            application fires it.
        shard_key: Only for a sharded system database.
        overlap: At a tick while an earlier run has not ended: "allow" another one (default), or "skip" the tick.
        catch_up: Which missed ticks run: "all", "last" or "none"; default as `automatic_backfill` says.

    Raises:
        DBOSException: the name is in use, or an argument has no meaning; the message says which.
    """
    given = {
        "schedule_name": schedule_name,
        "workflow_name": workflow_name,
        "schedule": schedule,
        "context": context,
        "workflow_class_name": workflow_class_name,
        "automatic_backfill": automatic_backfill,
        "cron_timezone": cron_timezone,
        "queue_name": queue_name,
        "application_name": application_name or core.application_name,
        "shard_key": shard_key,
        "overlap": overlap,
        "catch_up": catch_up,
    }
    made = _make(core, given)
    from ...engine import schedules as plans

    def make() -> Plan[Schedule]:
        return made
        yield  # a plan that needs nothing

    return plans.create_plan(core, make)


def _apply(core: Core, schedules: list[ClientScheduleInput]) -> Plan[None]:
    """Create or replace several schedules, all or none.

    A replaced schedule takes the whole new definition, fields that are left out included; its status (a paused one
    stays paused) and its last tick stay. Schedules that are not in the list stay as they are. Of entries with the same
    name the last one counts.

    Args:
        schedules: For each the arguments of `create_schedule`. An `application_name` of None makes it nobody's.

    Raises:
        DBOSException: an entry is wrong (the message names its index), or another application owns one of the names.
            Nothing is changed then.
    """
    made: list[Schedule] = []
    for index, given in enumerate(schedules):
        try:
            check_keys(given, "workflow_name")
            made.append(_make(core, {"application_name": core.application_name, **given}))
        except DBOSException as error:
            raise entry_error(index, error) from error
    from ...engine import schedules as plans

    return plans.apply_plan(core, made)


def _make(core: Core, given: Mapping[str, Any]) -> Schedule:
    names: dict[str, Any] = {}
    for key in ("workflow_name", "workflow_class_name", "queue_name", "application_name"):
        name = given.get(key)
        if key == "workflow_name" or name is not None:
            if not isinstance(name, str) or not name:
                raise DBOSException(f"{key} is a non-empty text, not {name!r}")
            check_text(name, key)
        names[key] = name
    return make_schedule(core, given, names["workflow_name"], names["workflow_class_name"], names["application_name"])


def _trigger(core: Core, schedule_name: str) -> Plan[str]:
    from ...engine import schedules as plans

    return plans.trigger_plan(core, checked_name(schedule_name))


def _backfill(core: Core, schedule_name: str, start: datetime, end: datetime) -> Plan[list[str]]:
    from ...engine import schedules as plans

    return plans.backfill_plan(core, checked_name(schedule_name), moment(start, "start"), moment(end, "end"))


class ScheduleMethods:
    """`DBOSClient.create_schedule` and the like."""

    _session: Session

    create_schedule = blocking("create_schedule", _create)
    create_schedule_async = twin("create_schedule", _create)
    apply_schedules = blocking("apply_schedules", _apply)
    apply_schedules_async = twin("apply_schedules", _apply)
    get_schedule = blocking("get_schedule", schedule_lookup)
    get_schedule_async = twin("get_schedule", schedule_lookup)
    list_schedules = blocking("list_schedules", schedule_listing)
    list_schedules_async = twin("list_schedules", schedule_listing)
    delete_schedule = blocking("delete_schedule", schedule_deletion)
    delete_schedule_async = twin("delete_schedule", schedule_deletion)
    pause_schedule = blocking("pause_schedule", schedule_pause)
    pause_schedule_async = twin("pause_schedule", schedule_pause)
    resume_schedule = blocking("resume_schedule", schedule_resumption)
    resume_schedule_async = twin("resume_schedule", schedule_resumption)

    def trigger_schedule(self, schedule_name: str) -> ClientHandle[None]:
        """Enqueue a run of a schedule now, also of a paused one; DBOSException when there is none of that name.

        Its workflow gets the present time in UTC; the times of the schedule do not change.
        """
        return ClientHandle(self._session, self._session.call(lambda core: _trigger(core, schedule_name)))

    async def trigger_schedule_async(self, schedule_name: str) -> ClientAsyncHandle[None]:
        """As `trigger_schedule`, from async code."""
        workflow_id = await self._session.call_async(lambda core: _trigger(core, schedule_name))
        return ClientAsyncHandle(self._session, workflow_id)

    def backfill_schedule(self, schedule_name: str, start: datetime, end: datetime) -> list[ClientHandle[None]]:
        """Enqueue a run for each tick between two times that has none yet, also of a paused schedule.

        Args:
            schedule_name: The schedule; its present definition counts.
            start, end: Ticks later than `start` and earlier than `end`. A time without a zone is taken as UTC.

        Returns:
            The handles of all ticks in order, of those that had run already too.

        Raises:
            DBOSException: there is no such schedule.
        """
        ids = self._session.call(lambda core: _backfill(core, schedule_name, start, end))
        return [ClientHandle(self._session, workflow_id) for workflow_id in ids]

    async def backfill_schedule_async(
        self, schedule_name: str, start: datetime, end: datetime
    ) -> list[ClientAsyncHandle[None]]:
        """As `backfill_schedule`, from async code."""
        ids = await self._session.call_async(lambda core: _backfill(core, schedule_name, start, end))
        return [ClientAsyncHandle(self._session, workflow_id) for workflow_id in ids]
