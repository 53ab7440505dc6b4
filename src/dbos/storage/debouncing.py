"""Debouncing on any SQL database (see `store.Store`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..records import Bounce, Verdict
from ..types import KeyHolder
from .rows import verdict_on_step
from .store import StoreRefused

if TYPE_CHECKING:
    from ..records import StepCompleted
    from .database import Connections
    from .encoding import Row


class DebounceOperations:
    """The part of the store that is about debouncing."""

    _db: Connections

    def find_key_holder(self, queue_name: str, deduplication_id: str) -> tuple[bool, KeyHolder | None]:
        ((is_registered, workflow_id, name, status, is_debounced, application_name),) = self._db.read(
            "find_key_holder", (queue_name, deduplication_id)
        )
        if workflow_id is None:
            return bool(is_registered), None
        return bool(is_registered), KeyHolder(workflow_id, name, status, bool(is_debounced), application_name)

    def bounce(self, bounce: Bounce, now_ms: int) -> Verdict | None:
        parameters = (*_bounce_parameters(bounce), now_ms, *_step_parameters(bounce.step))
        for value in parameters:
            if isinstance(value, str) and "\0" in value:
                raise StoreRefused("a text contains a NUL character, which databases cannot store")
        if self._db.write("bounce", parameters):
            return Verdict.APPLIED
        step = bounce.step
        if step is None:
            return None
        return verdict_on_step(step, self._db.read("find_step", (step.workflow_id, step.step_id)))


def _bounce_parameters(bounce: Bounce) -> Row:
    return (
        bounce.workflow_id,
        bounce.name,
        bounce.queue_name,
        bounce.deduplication_id,
        bounce.application_name,
        bounce.delay_until_ms,
        bounce.inputs,
        bounce.serialization,
    )


def _step_parameters(step: StepCompleted | None) -> Row:
    if step is None:
        return (None,) * 10
    return (
        step.workflow_id,
        step.owner_token,
        step.step_id,
        step.name,
        step.output,
        step.serialization,
        step.started_at_ms,
        step.completed_at_ms,
        step.application_name,
        step.child_workflow_id,
    )
