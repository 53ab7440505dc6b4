"""Listings of workflows and of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..types import MessageInfo, WorkflowFilter, WorkflowStatus
from .messages import NO_TOPIC
from .operations import operation_plan
from .plans import Plan, Read
from .waiting import to_status

if TYPE_CHECKING:
    from ..storage.rows import WorkflowRow
    from ..types import SentMessage
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


def message_listing_plan(
    engine: Core,
    workflow_id: str,
    topics: Sequence[str | None] | None,
    is_received: bool | None,
    load_message: bool,
    limit: int | None,
    offset: int | None,
) -> Plan[list[MessageInfo]]:
    """The messages to a workflow; in workflow code recorded as the step `DBOS.listMessages`."""

    def find() -> Plan[list[MessageInfo]]:
        found: list[SentMessage] = yield Read(
            lambda store: store.list_messages(
                workflow_id,
                None if topics is None else [NO_TOPIC if topic is None else topic for topic in topics],
                is_received,
                load_message=load_message,
                limit=limit,
                offset=offset,
                timeout_seconds=engine.settings.observability_query_timeout_seconds,
            )
        )
        return [_to_message_info(engine, message) for message in found]

    return (yield from operation_plan("DBOS.listMessages", find(), record_errors=False))


def _to_message_info(engine: Core, sent: SentMessage) -> MessageInfo:
    message: Any = sent.text
    problem = None
    if sent.text is not None:
        try:
            message = engine.payloads.decode_value(sent.text, sent.serialization)
        except Exception as error:
            problem = (
                f"It cannot be read (format {sent.serialization or 'configured'}): {type(error).__name__}: {error}"
            )
    if sent.topic is None:
        problem = f"Its topic is NULL, so nobody can receive it; without a topic it has to be {NO_TOPIC!r}"
    return MessageInfo(
        message_id=sent.message_id,
        topic=None if sent.topic == NO_TOPIC else sent.topic,
        message=message,
        created_at_epoch_ms=sent.created_at_ms,
        received=sent.is_received,
        received_by_function_id=sent.received_by,
        problem=problem,
    )
