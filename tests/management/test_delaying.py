"""Moving the start of a delayed workflow (05 section 11.11)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from dbos.error import DBOSException
from tests.helpers import status_row, wait_for_status

from .rows_of import LATER_MS, STATUSES, add_workflow
from .sides import Side
from .test_cancelling import all_rows
from .test_forking import declare


def test_only_the_start_of_what_is_delayed_moves(sides: list[Side], database_url: str) -> None:
    """05 R95: everything else, and an unknown id, stays as it is; a time may also be nearer."""
    for side in sides:
        for status in STATUSES:
            add_workflow(database_url, f"{side} {status}", status)
        before = all_rows(database_url)
        asked_at_ms = time.time() * 1000
        for workflow_id in (*before, "absent"):
            if workflow_id.startswith(f"{side} ") or workflow_id == "absent":
                assert side.set_workflow_delay(workflow_id, delay_seconds=3600.5) is None
        after = all_rows(database_url)
        moved = after.pop(f"{side} DELAYED")
        assert moved["status"] == "DELAYED"
        assert 3_600_500 <= moved["delay_until_epoch_ms"] - int(asked_at_ms) < 3_700_000
        assert moved["updated_at"] > 7
        before.pop(f"{side} DELAYED")
        assert after == before
        side.set_workflow_delay(f"{side} DELAYED", delay_until_epoch_ms=LATER_MS + 1)
        assert status_row(database_url, f"{side} DELAYED")["delay_until_epoch_ms"] == LATER_MS + 1


@pytest.mark.parametrize("given", [{"delay_seconds": 0}, {"delay_until_epoch_ms": 0}])
def test_no_delay_starts_it(sides: list[Side], database_url: str, given: dict[str, Any]) -> None:
    """05 R95: from 0 on."""
    three = declare()
    DBOS.register_queue("mail")
    for side in sides:
        with SetWorkflowID(f"{side}"), SetEnqueueOptions(delay_seconds=3600):
            DBOS.enqueue_workflow("mail", three, "x")
        side.set_workflow_delay(f"{side}", **given)
        wait_for_status(database_url, f"{side}", "SUCCESS")


def test_delays_without_a_meaning_are_refused(sides: list[Side]) -> None:
    """05 R95."""
    wrong: list[dict[str, Any]] = [{}, {"delay_seconds": 1, "delay_until_epoch_ms": 1}, {"delay_seconds": -1}]
    wrong += [{"delay_seconds": True}, {"delay_seconds": "1"}, {"delay_until_epoch_ms": -1}, {"delay_seconds": 1e17}]
    wrong += [{"delay_seconds": float("nan")}, {"delay_seconds": 1, "shard_key": "s"}]
    for given in wrong:
        for side in sides:
            with pytest.raises(DBOSException):
                side.set_workflow_delay("w", **given)
