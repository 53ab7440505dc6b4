"""Calls of a debouncer with their times, and what must hold for all of them together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, Debouncer


@DBOS.workflow(name="echo")
def echo(value: Any) -> Any:
    return value


@dataclass
class Call:
    """One call: its argument, its handle's workflow and that one's result; times on the clock of the machine."""

    value: str
    began: float
    returned: float
    workflow_id: str
    result: str = ""


def debounce_often(name: str, count: int, period_seconds: float = 0.002) -> list[Call]:
    """Call for one key so often that runs begin all the time; waits for all results at the end."""
    debouncer = Debouncer[[Any], Any]("echo", debounce_timeout_sec=0.02)
    calls = []
    for number in range(count):
        value, began = f"{name} {number}", time.monotonic()
        workflow_id = debouncer.debounce("key", period_seconds, value).workflow_id
        calls.append(Call(value, began, time.monotonic(), workflow_id))
    for call in calls:
        call.result = DBOS.retrieve_workflow(call.workflow_id).get_result()
    return calls


def check(calls: Sequence[Call]) -> None:
    """03 R150: whoever called gets the result of its own arguments or of later ones, and nobody that of older ones."""
    by_value = {call.value: call for call in calls}
    by_workflow: dict[str, set[str]] = {}
    for call in calls:
        by_workflow.setdefault(call.workflow_id, set()).add(call.result)
        ran = by_value[call.result]
        assert ran.workflow_id == call.workflow_id, (call, ran)
        assert ran.returned >= call.began, f"{call} got the result of an older call: {ran}"
    for workflow_id, results in by_workflow.items():
        assert len(results) == 1, (workflow_id, results)
    newest = max(calls, key=lambda call: call.began)
    assert by_value[newest.result].returned >= newest.began
