"""Managing workflows: what the calls do, as plans.

Each of them takes the engine, or whoever else can be told what was changed, and, when workflow code calls, the step
that is written together with the change (see `operations.change_plan`). Without a step they are plain calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..error import DBOSException
from ..records import StepCompleted, Verdict
from ..storage.store import Resumed, Store, StoreRefused
from ..types import Fork, Rewind
from .clock import Clock
from .operations import accept_change, set_output
from .plans import Plan, Read


class Host(Protocol):
    """What management needs: a clock, and somebody to tell what has changed."""

    @property
    def clock(self) -> Clock: ...

    def note_cancelled(self, workflow_ids: Sequence[str]) -> None:
        """Workflows were cancelled or deleted. May ask the database."""
        ...

    def note_queued(self, queue_names: Sequence[str] | None) -> None:
        """Workflows wait on these queues; None: on some that are not known."""
        ...

    def note_placed(self, queue_name: str, has_key: bool | None) -> None:
        """A workflow was put on a queue by hand, with a partition key or without; None is unknown."""
        ...

    def note_delayed(self, due_ms: int) -> None:
        """A workflow is due at another time."""
        ...


def cancel(
    host: Host, workflow_ids: Sequence[str], cancel_children: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Cancel those that have neither succeeded nor failed, with children all their descendants too."""

    def change(store: Store) -> Verdict:
        return store.cancel_workflows(workflow_ids, host.clock.now_ms(), step, with_children=cancel_children)

    accept_change(step, (yield Read(change)))

    def tell(store: Store) -> None:
        family = store.find_family(workflow_ids) if cancel_children else workflow_ids
        host.note_cancelled(store.find_cancelled(family))

    yield Read(tell)


def resume(
    host: Host, workflow_ids: Sequence[str], queue_name: str | None = None, step: StepCompleted | None = None
) -> Plan[None]:
    """Put those that have neither succeeded nor failed on a queue; DBOSNonExistentWorkflowError when one is missing."""
    resumed: Resumed = yield Read(
        lambda store: store.resume_workflows(workflow_ids, queue_name, host.clock.now_ms(), step)
    )
    accept_change(step, resumed.verdict)
    host.note_queued(resumed.queues)
    if queue_name is not None:
        host.note_placed(queue_name, None)


def set_delay(host: Host, workflow_id: str, due_ms: int, step: StepCompleted | None = None) -> Plan[None]:
    """Move the start of a delayed workflow."""

    def change(store: Store) -> Verdict:
        return store.set_workflow_delay(workflow_id, due_ms, host.clock.now_ms(), step)

    accept_change(step, (yield Read(change)))
    host.note_delayed(due_ms)


def fork(host: Host, wanted: Fork, step: StepCompleted | None = None) -> Plan[str]:
    """Make a fork; its id."""
    if step is not None:
        set_output(step, wanted.workflow_id)

    def change(store: Store) -> Verdict:
        return store.fork_workflow(wanted, host.clock.now_ms(), step)

    accept_change(step, (yield from _write(change, f"the fork {wanted.workflow_id!r} of {wanted.source_id!r}")))
    host.note_queued([wanted.queue_name])
    host.note_placed(wanted.queue_name, wanted.partition_key is not None)
    return wanted.workflow_id


def rewind(host: Host, wanted: Rewind, step: StepCompleted | None = None) -> Plan[None]:
    """Run a workflow that has ended again from a step on."""

    def change(store: Store) -> Verdict:
        return store.rewind_workflow(wanted, host.clock.now_ms(), step)

    accept_change(step, (yield Read(change)))
    host.note_queued([wanted.queue_name])
    host.note_placed(wanted.queue_name, wanted.partition_key is not None)


def delete(
    host: Host, workflow_ids: Sequence[str], delete_children: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Remove workflows with everything they have recorded, with children all their descendants too."""
    answer: list[str] | Verdict = yield Read(
        lambda store: store.delete_workflows(workflow_ids, step, with_children=delete_children)
    )
    if isinstance(answer, Verdict):
        accept_change(step, answer)
    else:
        deleted = answer
        yield Read(lambda store: host.note_cancelled(deleted))


def update_attributes(
    host: Host, workflow_id: str, attributes: str | None, merge: bool = False, step: StepCompleted | None = None
) -> Plan[None]:
    """Replace the attributes, a JSON text, or with `merge` those of the same names."""

    def change(store: Store) -> Verdict:
        return store.update_attributes(workflow_id, attributes, host.clock.now_ms(), step, merge=merge)

    accept_change(step, (yield from _write(change, f"the attributes of workflow {workflow_id!r}")))


def _write(change: Callable[[Store], Verdict], what: str) -> Plan[Verdict]:
    """A change of what a caller has given, or of what is stored."""
    try:
        verdict: Verdict = yield Read(change)
    except StoreRefused as error:
        raise DBOSException(f"The system database refused {what}: {error}. Nothing was changed") from error
    return verdict
