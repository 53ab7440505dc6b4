"""Recorded deadlines: sleeps, and waits for something that may not come.

A deadline is a step row `DBOS.sleep` with the time in portable JSON, so that a recovered workflow waits until the time
first planned (04 R402, R404).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..records import StepCompleted
from ..serialization import PORTABLE, DBOSPortableJSONSerializer
from .execution import Execution
from .plans import Plan

if TYPE_CHECKING:
    from .core import Core

SLEEP = "DBOS.sleep"
# Further away than anybody waits, and still a number that every reader understands: some three thousand years.
LONGEST_SECONDS = 1e11
# The longest a sleeper goes without looking at the clock again: the machine may have been suspended.
LONGEST_WAIT_MS = 3_600_000

_portable = DBOSPortableJSONSerializer()


def recorded_deadline(execution: Execution, step_id: int) -> Plan[float | None]:
    """The deadline recorded at a step id, in seconds since the epoch."""
    record = yield from execution.find_recorded(step_id, SLEEP)
    return None if record is None else float(_portable.deserialize(record.output))


def deadline_row(
    execution: Execution, step_id: int, deadline: float, started_at_ms: int, completed_at_ms: int
) -> StepCompleted:
    return StepCompleted(
        execution.workflow_id,
        execution.owner_token,
        step_id,
        SLEEP,
        _portable.serialize(deadline),
        None,
        PORTABLE,
        started_at_ms,
        completed_at_ms,
        execution.engine.settings.name,
    )


class Limit(NamedTuple):
    """How long somebody waits at most, and until when."""

    seconds: float
    until_ms: int


def limit_from_now(core: Core, timeout_seconds: float | None) -> Limit | None:
    if timeout_seconds is None:
        return None
    return Limit(timeout_seconds, in_ms(core.clock.now() + min(timeout_seconds, LONGEST_SECONDS)))


def in_ms(deadline: float) -> int:
    """A deadline in ms. Rounded up: waking a fraction of a millisecond early would mean one more turn."""
    return int(deadline * 1000) + 1


def check_timeout(timeout_seconds: float, call: str) -> float:
    """A timeout that can be waited for; TypeError for one that is no number (04 R130)."""
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)):
        raise TypeError(f"timeout_seconds of {call} must be a number of seconds, not {timeout_seconds!r}")
    if timeout_seconds != timeout_seconds:
        raise TypeError(f"timeout_seconds of {call} must be a number of seconds, not NaN")
    return float(max(-LONGEST_SECONDS, min(timeout_seconds, LONGEST_SECONDS)))
