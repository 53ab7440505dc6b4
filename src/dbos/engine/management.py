"""Managing workflows: what the calls do, as plans.

Each of them takes, when workflow code calls, the step that is written together with the change (see
`operations.change_plan`). Without a step they are plain calls, as those of a client, which are repeated with the same
`Once` when an answer is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..error import DBOSException
from ..records import StepCompleted, Verdict
from ..storage.once import Once
from ..storage.store import Resumed, Store, StoreRefused
from ..types import Fork, Rewind
from .operations import accept_change, set_output
from .plans import Plan, Read

if TYPE_CHECKING:
    from .core import Core


def cancel(
    core: Core, workflow_ids: Sequence[str], cancel_children: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Cancel those that have neither succeeded nor failed, with children all their descendants too."""

    once = Once()

    def change(store: Store) -> Verdict:
        now_ms = core.clock.now_ms()
        return store.cancel_workflows(workflow_ids, now_ms, step, once=once, with_children=cancel_children)

    accept_change(step, (yield Read(change)))

    def tell(store: Store) -> None:
        family = store.find_family(workflow_ids) if cancel_children else workflow_ids
        core.note_cancelled(store.find_cancelled(family))

    yield Read(tell)


def resume(
    core: Core, workflow_ids: Sequence[str], queue_name: str | None = None, step: StepCompleted | None = None
) -> Plan[None]:
    """Put those that have neither succeeded nor failed on a queue; DBOSNonExistentWorkflowError when one is missing."""
    once = Once()
    resumed: Resumed = yield Read(
        lambda store: store.resume_workflows(workflow_ids, queue_name, core.clock.now_ms(), step, once=once)
    )
    accept_change(step, resumed.verdict)
    if resumed.queues is None:
        core.note_changed()
    else:
        core.note_queued(resumed.queues)
    if queue_name is not None:
        core.note_placed(queue_name, None, core.application_name)


def set_delay(core: Core, workflow_id: str, due_ms: int, step: StepCompleted | None = None) -> Plan[None]:
    """Move the start of a delayed workflow."""

    once = Once()

    def change(store: Store) -> Verdict:
        return store.set_workflow_delay(workflow_id, due_ms, core.clock.now_ms(), step, once=once)

    accept_change(step, (yield Read(change)))
    core.note_delayed(due_ms)


def fork(core: Core, wanted: Fork, step: StepCompleted | None = None) -> Plan[str]:
    """Make a fork; its id."""
    if step is not None:
        set_output(step, wanted.workflow_id)

    once = Once()

    def change(store: Store) -> Verdict:
        return store.fork_workflow(wanted, core.clock.now_ms(), step, once=once)

    accept_change(step, (yield from _write(change, f"the fork {wanted.workflow_id!r} of {wanted.source_id!r}")))
    core.note_queued([wanted.queue_name])
    core.note_placed(wanted.queue_name, wanted.partition_key is not None, core.application_name)
    return wanted.workflow_id


def rewind(core: Core, wanted: Rewind, step: StepCompleted | None = None) -> Plan[None]:
    """Run a workflow that has ended again from a step on."""

    once = Once()

    def change(store: Store) -> Verdict:
        return store.rewind_workflow(wanted, core.clock.now_ms(), step, once=once)

    accept_change(step, (yield Read(change)))
    core.note_queued([wanted.queue_name])
    core.note_placed(wanted.queue_name, wanted.partition_key is not None, core.application_name)


def delete(
    core: Core, workflow_ids: Sequence[str], delete_children: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Remove workflows with everything they have recorded, with children all their descendants too."""
    once = Once()
    answer: list[str] | Verdict = yield Read(
        lambda store: store.delete_workflows(workflow_ids, step, once=once, with_children=delete_children)
    )
    if isinstance(answer, Verdict):
        accept_change(step, answer)
    else:
        deleted = answer
        yield Read(lambda store: core.note_cancelled(deleted))


def update_attributes(
    core: Core, workflow_id: str, attributes: str | None, merge: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Replace the attributes, a JSON text, or with `merge` those of the same names."""

    once = Once()

    def change(store: Store) -> Verdict:
        return store.update_attributes(workflow_id, attributes, core.clock.now_ms(), step, once=once, merge=merge)

    accept_change(step, (yield from _write(change, f"the attributes of workflow {workflow_id!r}")))


def _write(change: Callable[[Store], Verdict], what: str) -> Plan[Verdict]:
    """A change of what a caller has given, or of what is stored."""
    try:
        verdict: Verdict = yield Read(change)
    except StoreRefused as error:
        raise DBOSException(f"The system database refused {what}: {error}. Nothing was changed") from error
    return verdict
