"""Schedules made, fired, paused, resumed and deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dbos import DBOS
from dbos.error import DBOSException

from ..world import Root
from .declaring import Functions, scenario

# Two moments a minute after the beginning of the world, each of which comes once.
TICKS = "40,45 7 15 15 6 * 2025"
TIMES = ("2025-06-15T15:07:40+00:00", "2025-06-15T15:07:45+00:00")


@scenario(
    Root("arranging", "s"),
    expected={"s": ["refused", "PAUSED", [["40", 7], ["45", 7]], None]},
    unstable=("DBOS.getSchedule",),
)
def schedules(version: int) -> Functions:
    @DBOS.step(name="second")
    def second(at: datetime) -> str:
        return str(at.second)

    @DBOS.workflow(name="ticking")
    def ticking(at: datetime, context: Any) -> Any:
        return [second(at), context]

    @DBOS.workflow(name="arranging")
    def arranging() -> list[Any]:
        results: list[Any] = []
        # What passes while no process is there is made up for, from the creation on.
        DBOS.create_schedule(schedule_name="s", workflow_fn=ticking, schedule=TICKS, context=7, catch_up="all")
        try:
            DBOS.create_schedule(schedule_name="s", workflow_fn=ticking, schedule="0 0 29 2 *")
        except DBOSException:
            results.append("refused")
        DBOS.pause_schedule("s")
        paused = DBOS.get_schedule("s")
        results.append(paused and paused["status"])
        DBOS.resume_schedule("s")
        DBOS.sleep(60)
        handles = [DBOS.retrieve_workflow(f"sched-s-{time}", existing_workflow=False) for time in TIMES]
        results.append([handle.get_result() for handle in handles])
        DBOS.delete_schedule("s")
        return [*results, DBOS.get_schedule("s")]

    return {"arranging": arranging}
