"""Patches: which of two versions of the code does this workflow follow from here on?"""

from __future__ import annotations

from ..error import DBOSException, DBOSPatchNondeterminismError
from .context import current_execution
from .effects import step_row
from .plans import Plan
from .steps import record_step

PATCH_PREFIX = "DBOS.patch-"


def patch_plan(patch_name: str, *, deprecated: bool) -> Plan[bool]:
    """Take the new path?

    An empty next position gets a marker (unless the patch is deprecated): the workflow has not been here before.
    The same marker means yes again. Anything else was recorded by the old code, whose path goes on.
    """
    what = "deprecate_patch" if deprecated else "patch"
    execution = current_execution()
    if execution is None:
        raise DBOSException(
            f"DBOS.{what}({patch_name!r}) must be called from workflow code, not from a step or outside"
        )
    name = PATCH_PREFIX + patch_name
    drawn = execution.last_step_id
    position = drawn + 1
    execution.check()
    if position > execution.known_until:
        yield from execution.load_until(position)
        if execution.last_step_id != drawn:
            raise DBOSPatchNondeterminismError(
                execution.workflow_id,
                name,
                "another operation of the workflow ran at the same time; call it where nothing runs beside it",
            )
    record = execution.recorded.get(position)
    if record is not None and record.name == name:
        execution.draw()
        return True
    if deprecated:
        return True
    if record is not None:
        return False
    execution.draw()
    yield from record_step(execution, step_row(execution, position, name, execution.engine.clock.now_ms()))
    return True
