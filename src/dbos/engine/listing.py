"""Listings of workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..types import WorkflowFilter, WorkflowStatus
from .operations import operation_plan
from .plans import Plan, Read
from .waiting import to_status

if TYPE_CHECKING:
    from ..storage.rows import WorkflowRow
    from .core import Core


def listing_plan(engine: Core, step_name: str, wanted: WorkflowFilter) -> Plan[list[WorkflowStatus]]:
    """The workflows of a filter; in workflow code recorded as the step `step_name`.

    A listing fails only because of the database, now; that is not made a part of the history.
    """
    return (yield from operation_plan(step_name, _list(engine, wanted), record_errors=False))


def _list(engine: Core, wanted: WorkflowFilter) -> Plan[list[WorkflowStatus]]:
    # Whoever names ids gets an answer, however long it takes (05 R50).
    timeout_seconds = engine.settings.observability_query_timeout_seconds if wanted.workflow_ids is None else None
    rows: list[WorkflowRow] = yield Read(lambda store: store.list_workflows(wanted, timeout_seconds))
    return [to_status(engine, row) for row in rows]
