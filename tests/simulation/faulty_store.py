"""The database as one process sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dbos.records import (
    EFFECT_TYPES,
    Answer,
    Bounce,
    Record,
    StepCompleted,
    Verdict,
    WorkflowFinished,
    WorkflowStarted,
)
from dbos.storage.store import StoreRefused, StoreUnavailable
from dbos.types import Fork, Schedule

from .virtual import SimulatedCrash, current_actor

if TYPE_CHECKING:
    from .process import Process

# Store operations that change the database, besides `commit`.
WRITES = {
    "enqueue_workflows",
    "requeue_pending",
    "requeue_dead",
    "claim_workflows",
    "refuse_workflow",
    "create_schedule",
    "apply_schedules",
    "delete_schedule",
    "set_schedule_status",
    "fire_schedules",
    "dead_letter",
    "cancel_workflows",
    "cancel_overdue",
    "resume_workflows",
    "delete_workflows",
    "fork_workflow",
    "rewind_workflow",
    "update_attributes",
    "promote_delayed",
    "set_workflow_delay",
    "bounce",
    "register_queue",
    "update_queue",
    "delete_queue",
}

# The database refuses steps of this name.
POISON = "poison"


class FaultyStore:
    """The real store as one process sees it: it may not answer, answer late, or lose the answer."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.world.database.store
        self.backend = self._store.backend
        self.commits_in_parallel = self._store.commits_in_parallel
        # Messages of other processes are looked for now and then, which stands for hearing of them.
        self.hears_messages = True

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        answers: list[Answer] = self._change("commit", lambda: self._commit(records))
        return answers

    def _commit(self, records: Sequence[Record]) -> list[Answer]:
        world = self._process.world
        owned = {_target(record) for record in records if world.database.may_write(record)}
        # What is started anew after a deletion changes too, but not by the execution that lost it.
        started = {record.workflow_id for record in records if isinstance(record, WorkflowStarted)}
        fenced = [
            record
            for record in records
            if _target(record) not in owned
            and not (record.workflow_id in started and isinstance(record, WorkflowFinished))
        ]
        before = [world.database.trace(record) for record in fenced]
        if any(getattr(record, "name", None) == POISON for record in records):
            raise StoreRefused("simulated: a text that the database cannot hold")
        losers = [record for record in records if not world.database.may_write(record)]
        answers = self._store.commit(records)
        for record, answer in zip(records, answers):
            if answer is Verdict.APPLIED and not world.database.holds(record):
                world.violate(f"{record!r} was answered and is not in the database")
            if record in losers and not _stops(record, answer):
                world.violate(f"{record!r} by {self._process} was answered {answer}, but its execution is fenced")
        for record, trace in zip(fenced, before):
            if world.database.trace(record) != trace:
                world.violate(f"{record!r} was written by {self._process}, which does not own the workflow")
        return answers

    def join(self, process: str) -> bool:
        self._process.join(process)
        return True

    def is_shared(self) -> bool:
        return self._process.has_company

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        living = self._process.world.living
        found: list[str] = self._read(lambda: [process for process in processes if process not in living])
        return found

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._store, name)
        if name in WRITES:

            def change(*args: Any, **kwargs: Any) -> Any:
                if name == "bounce":
                    return self._bounce(*args)
                world = self._process.world
                lost = world.database.owned_by(args[0]) if name == "requeue_dead" else []
                once = kwargs.get("once")
                repeats = once is not None and once in world.done
                before = world.database.connection.total_changes
                world.database.is_rewinding = name == "rewind_workflow"
                try:
                    answer = self._fenced(name, args, lambda: operation(*args, **kwargs), repeats=repeats)
                finally:
                    world.database.is_rewinding = False
                # What is refused is rolled back, and tried again as often as it is asked for.
                if once is not None and answer is not False and not isinstance(answer, Schedule):
                    world.done.append(once)
                if repeats and world.database.connection.total_changes != before:
                    world.violate(f"{name} by {self._process} was done once more after its answer was lost")
                if name == "requeue_pending":
                    world.note_requeued(answer)
                elif name == "requeue_dead":
                    assert len(answer) == len(lost)
                    world.note_requeued(lost)
                    world.taken_over += len(lost)
                elif name == "resume_workflows":
                    world.note_requeued(args[0])
                elif name == "rewind_workflow":
                    world.note_requeued([args[0].workflow_id])
                elif name == "delete_workflows" and isinstance(answer, list) and not repeats:
                    self._check_deleted(answer)
                return answer

            return lambda *args, **kwargs: self._change(name, lambda: change(*args, **kwargs))
        return lambda *args, **kwargs: self._read(lambda: operation(*args, **kwargs))

    def _fenced(self, name: str, args: tuple[Any, ...], operation: Callable[[], Any], *, repeats: bool = False) -> Any:
        """A change that may come with the step of a workflow: without effect if that workflow is another's.

        One that `repeats` what was done need not find it: others may have changed it since.
        """
        world = self._process.world
        step = next((arg for arg in args if isinstance(arg, StepCompleted)), None)
        is_fenced = step is not None and not world.database.may_write(step)
        before = world.database.connection.total_changes
        is_new = name == "fork_workflow" and not repeats and not world.database.remains(args[0].workflow_id)
        answer = operation()
        if is_fenced and (Verdict.FENCED not in _verdicts(answer) or world.database.connection.total_changes != before):
            world.violate(f"{name} by {self._process}, whose workflow is another's, was answered {answer}")
        if step is not None and Verdict.FENCED in _verdicts(answer):
            world.note_answer(step, Verdict.FENCED)
        elif is_new and answer is Verdict.APPLIED:
            self._check_fork(args[0])
        return answer

    def _check_fork(self, fork: Fork) -> None:
        world = self._process.world
        source = world.database.history(fork.source_id, fork.start_step)
        if world.database.history(fork.workflow_id, 2**31) != source:
            world.violate(f"{fork.workflow_id} does not have the history of {fork.source_id} before {fork.start_step}")

    def _check_deleted(self, workflow_ids: Sequence[str]) -> None:
        world = self._process.world
        # Who asks for them again starts them anew.
        world.note_requeued(workflow_ids)
        for workflow_id in workflow_ids:
            if remains := world.database.remains(workflow_id):
                world.violate(f"{workflow_id} was deleted and still has {remains}")

    def _bounce(self, bounce: Bounce, now_ms: int) -> Verdict | None:
        world = self._process.world
        is_fenced = bounce.step is not None and not world.database.may_write(bounce.step)
        before = world.database.trace_of_bounce(bounce)
        answer = self._store.bounce(bounce, now_ms)
        if is_fenced and (answer is not Verdict.FENCED or world.database.trace_of_bounce(bounce) != before):
            world.violate(f"{bounce!r} by {self._process}, which does not own the workflow, was answered {answer}")
        if answer is Verdict.FENCED:
            assert bounce.step is not None
            world.note_answer(bounce.step, answer)
        return answer

    def _read(self, operation: Callable[[], Any]) -> Any:
        process = self._process
        process.wait_while_frozen()
        if process.dead:
            raise SimulatedCrash()
        if current_actor() is not None and process.world.faults.unavailable():
            raise StoreUnavailable("simulated: no answer")
        return operation()

    def _change(self, name: str, operation: Callable[[], Any]) -> Any:
        process, faults = self._process, self._process.world.faults
        process.wait_while_frozen()
        point = process.pass_point(f"before {name}")
        process.wait_while_frozen()
        if current_actor() is not None and faults.unavailable():
            raise StoreUnavailable("simulated: connection lost before the write")
        changes = process.world.database.connection.total_changes
        answer = operation()
        if process.world.database.connection.total_changes == changes:
            # Services look again and again; a look that found nothing to do is no place worth a crash.
            process.world.points[point] = f"idle {name}"
            return answer
        process.pass_point(f"after {name}")
        process.wait_while_frozen()
        if current_actor() is not None and faults.answer_lost():
            raise StoreUnavailable("simulated: connection lost after the write")
        return answer


def _verdicts(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _stops(record: Record, answer: Answer) -> bool:
    """Whether the answer tells an execution that it lost its workflow. Two answers may not: the same outcome as the
    recorded one, and a child that an earlier try created, which is executed."""
    is_step = isinstance(record, (StepCompleted, *EFFECT_TYPES))
    return answer is Verdict.FENCED or (answer is Verdict.APPLIED and not is_step)


def _target(record: Record) -> tuple[Any, ...]:
    """What a record writes; two executions of one workflow may write the same in one batch."""
    return type(record), record.workflow_id, getattr(record, "step_id", None), getattr(record, "key", None)
