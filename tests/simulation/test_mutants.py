"""The simulation itself is tested: with a mistake put into the library, some crash or some seed must go wrong."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos.engine import debouncing, dispatcher, messages, stream_reading, waiting, workflows
from dbos.engine.execution import Execution
from dbos.engine.steps import record_step
from dbos.ids import new_id
from dbos.records import Bounce, StepCompleted, Verdict
from dbos.storage import sqlite
from dbos.storage.database import SqlStore
from dbos.storage.once import Once

from . import machine, test_management_load, test_survivors, test_two_executions
from .checks import BY_NAME, baselines, problems
from .faults import Faults, SeededFaults, seeded
from .scenarios import SCENARIOS
from .virtual import Stuck, resolve
from .world import Result, World

Patch = pytest.MonkeyPatch
DEBOUNCES = ("debouncing", "gathered_debounces")
# Whose outcomes come several at a time.
BATCHES = ("many_at_once", "async_children")


def crashes(*names: str) -> Iterator[tuple[str, Result]]:
    """The runs of the crash matrix over some scenarios."""
    for name in names:
        for point in range(len(baselines(name)[0].points)):
            yield name, World(BY_NAME[name], Faults(frozenset({point}), downtime_seconds=1.0)).run()


def schedules(*names: str) -> Iterator[tuple[str, Result]]:
    for seed in range(60):
        for name in names:
            yield name, World(BY_NAME[name], seeded(seed), seed=seed).run()


def takeovers(*names: str) -> Iterator[tuple[str, Result]]:
    """The runs of two executions, of all scenarios or of some."""
    for seed in range(4000 if names else 400):
        if names and SCENARIOS[seed % len(SCENARIOS)].name not in names:
            continue
        scenario, _, result = test_two_executions.run(seed)
        yield scenario.name, result


def takeovers_of(name: str, plan: str) -> Iterator[tuple[str, Result]]:
    """The first process freezes before each commit of a plan in turn, and wakes at different times after its loss."""
    points = [number for number, label in enumerate(baselines(name)[0].points) if label == f"before {plan} Commit"]
    for point, thaw_after in itertools.product(points, (0.0, 0.003, 0.01, 0.02, 0.05)):
        faults = SeededFaults(freeze_at=point, seed=point, failure_share=0.0, slow_share=0.0, crash_share=0.0)
        yield name, World(BY_NAME[name], faults, seed=point).run_two(1.0, thaw_after)


def survivors() -> Iterator[tuple[str, Result]]:
    for seed in range(100):
        scenario, _, result = test_survivors.run(seed)
        yield scenario.name, result


def managed() -> Iterator[tuple[str, Result]]:
    for seed in range(100):
        yield "managed", test_management_load.run(seed)[1]


def replay_nothing(patch: Patch) -> None:
    original = Execution.find_recorded

    def find(self: Execution, step_id: int, name: str) -> Any:
        yield from original(self, step_id, name)

    patch.setattr(Execution, "find_recorded", find)


def answer_before_the_commit(patch: Patch) -> None:
    """The journal settles entries first and writes them a moment later."""

    def settle(self: Any, batch: Any) -> None:
        for entry in batch:
            if isinstance(entry.record, StepCompleted):
                entry.answer = Verdict.APPLIED
                resolve(entry.future)
        self._process.nap(0.002)
        original(self, batch)

    original = machine.SimulatedJournal._settle
    patch.setattr(machine.SimulatedJournal, "_settle", settle)


def sleep_the_whole_time_again(patch: Patch) -> None:
    original = Execution.find_recorded

    def find(self: Execution, step_id: int, name: str) -> Any:
        record = yield from original(self, step_id, name)
        if record is not None and name == waiting.SLEEP:
            until = float(record.output) + 30
            record = dataclasses.replace(record, output=repr(until))
        return record

    patch.setattr(Execution, "find_recorded", find)


def forget_the_token_of_a_lost_claim(patch: Patch) -> None:
    original = dispatcher.Dispatcher.run_once

    def run_once(self: Any) -> Any:
        self._token = None
        return original(self)

    patch.setattr(dispatcher.Dispatcher, "run_once", run_once)


def write_steps_of_anybody(patch: Patch) -> None:
    change_statements(patch, "record_steps", " AND w.owner_xid = json_extract(r.value, '$.t')")


def change_statements(patch: Patch, name: str, text: str, by: str = "") -> None:
    original = sqlite.load_statements

    def load(*args: Any) -> Any:
        found = dict(original(*args))
        texts = found[name].texts
        changed = tuple(one.replace(text, by) for one in texts)
        assert changed != texts, f"{text!r} is not in the statement {name}"
        found[name] = found[name]._replace(texts=changed)
        return found

    patch.setattr(sqlite, "load_statements", load)


def finish_workflows_of_anybody(patch: Patch) -> None:
    change_statements(patch, "finish_workflows", "owner_xid = json_extract(r.value, '$.t')", "TRUE")
    # `w.TRUE` is no SQL: the mistake is made in both statements of it.
    change_statements(patch, "finish_workflows", "w.TRUE", "TRUE")


def let_losers_keep_results(patch: Patch) -> None:
    original = SqlStore._answer_to_step

    def answer(self: SqlStore, record: StepCompleted) -> Any:
        return Verdict.APPLIED if record.keep_existing else original(self, record)

    patch.setattr(SqlStore, "_answer_to_step", answer)


def start_children_without_the_parents_row(patch: Patch) -> None:
    change_statements(patch, "record_child_starts", "c.creator_xid = json_extract(r.value, '$.ct') OR", "FALSE AND")


def go_on_after_being_fenced(patch: Patch) -> None:
    def record(execution: Execution, row: StepCompleted) -> Any:
        try:
            yield from record_step(execution, row)
        except workflows.DBOSWorkflowConflictIDError:
            execution.stop_error = None

    patch.setattr("dbos.engine.steps.record_step", record)


def bounce_for_anybody(patch: Patch) -> None:
    change_statements(patch, "bounce", " AND p.owner_xid = ?11")


def bounce_without_the_step(patch: Patch) -> None:
    """The step follows in a transaction of its own."""
    original = SqlStore.bounce

    def bounce(self: SqlStore, bounce: Bounce, now_ms: int) -> Any:
        if bounce.step is None:
            return original(self, bounce, now_ms)
        answer = original(self, dataclasses.replace(bounce, step=None), now_ms)
        return answer if answer is None else self.commit([bounce.step])[0]

    patch.setattr(SqlStore, "bounce", bounce)


def give_ids_back_at_once(patch: Patch) -> None:
    """Before the calls that are gathered with this one have drawn theirs."""

    def give_back(engine: Any, parent: Any, step_id: Any) -> Any:
        parent.give_back(step_id)
        yield from ()

    patch.setattr(debouncing, "_give_back", give_back)


def send_for_anybody(patch: Patch) -> None:
    change_statements(patch, "send_message", " AND s.owner_xid = ?2")


def receive_for_anybody(patch: Patch) -> None:
    change_statements(patch, "consume_message", " AND s.owner_xid = ?2")


def receive_without_the_step(patch: Patch) -> None:
    """The step follows in a record of its own."""
    original = messages._receive

    def receive(execution: Execution, step: Any, message: Any, first_of: Any) -> Any:
        moved = dataclasses.replace(step, step_id=step.step_id + 1000)
        answer = yield from original(execution, moved, message, first_of)
        step.output, step.serialization = message.text, message.serialization
        yield from record_step(execution, step)
        return answer

    patch.setattr(messages, "_receive", receive)


def take_nothing_over(patch: Patch) -> None:
    patch.setattr(SqlStore, "requeue_dead", lambda *args: [])


def make_tokens_without_a_name(patch: Patch) -> None:
    patch.setattr("dbos.engine.engine.tokens_of", lambda process: new_id)


def leave_the_owner_of_the_cancelled(patch: Patch) -> None:
    change_statements(patch, "cancel_workflows", "owner_xid = NULL, ")


def resume_without_taking_the_owner(patch: Patch) -> None:
    change_statements(patch, "resume_workflows", "owner_xid = NULL,")


def copy_a_step_too_many(patch: Patch) -> None:
    change_statements(patch, "copy_steps", "o.function_id < ?3", "o.function_id <= ?3")


def leave_the_steps_of_the_deleted(patch: Patch) -> None:
    change_statements(patch, "delete_workflows", "DELETE FROM operation_outputs WHERE", "SELECT 1 WHERE FALSE AND")
    change_statements(
        patch, "delete_workflows", "SELECT 1 WHERE FALSE AND workflow_uuid IN", "SELECT 1 WHERE FALSE AND ?1 IN"
    )


def manage_before_the_step(patch: Patch) -> None:
    """The change in one transaction, the step in the next, so that only the step knows whose workflow it is."""
    original = SqlStore._recorded

    def recorded(self: SqlStore, step: Any, effect: Any, **locking: Any) -> Any:
        verdict = original(self, None, effect, **locking)
        return verdict if step is None else self.commit([step])[0]

    patch.setattr(SqlStore, "_recorded", recorded)


def change_again_when_the_answer_is_lost(patch: Patch) -> None:
    patch.setattr(Once, "is_done", lambda self, db: False)


def stop_whoever_runs_a_cancelled_workflow(patch: Patch) -> None:
    """Also the execution that has been resumed since."""

    def stop_lost(self: Any, workflow_ids: Any) -> None:
        for execution in self.running():
            if execution.workflow_id in set(workflow_ids):
                execution.stop(execution.cancelled())

    patch.setattr("dbos.engine.engine.Engine.stop_lost", stop_lost)


def write_entries_of_anybody(patch: Patch) -> None:
    change_statements(patch, "write_stream_entries", " AND w.owner_xid = json_extract(r.value, '$.t')")


def append_again_after_a_lost_answer(patch: Patch) -> None:
    patch.setattr(SqlStore, "_is_written", lambda self, entry: False)


def read_on_from_the_beginning(patch: Patch) -> None:
    """What a replay yields does not move the reader."""
    original = stream_reading.StreamReader._recorded

    def recorded(self: Any, execution: Execution, step_id: int) -> Any:
        is_replay = step_id in execution.recorded
        offset = self._offset
        value = yield from original(self, execution, step_id)
        if is_replay:
            self._offset = offset
        return value

    patch.setattr(stream_reading.StreamReader, "_recorded", recorded)


MUTANTS: list[tuple[Callable[[Patch], None], Callable[[], Iterator[tuple[str, Result]]]]] = [
    (replay_nothing, lambda: crashes("sequence_of_steps")),
    (answer_before_the_commit, lambda: crashes("sequence_of_steps")),
    (sleep_the_whole_time_again, lambda: crashes("sleeping")),
    (forget_the_token_of_a_lost_claim, lambda: schedules("sequence_of_steps", "many_at_once")),
    (write_steps_of_anybody, takeovers),
    (finish_workflows_of_anybody, lambda: takeovers(*BATCHES)),
    (let_losers_keep_results, takeovers),
    (start_children_without_the_parents_row, lambda: crashes("children")),
    (go_on_after_being_fenced, takeovers),
    (bounce_for_anybody, lambda: takeovers(*DEBOUNCES)),
    (bounce_without_the_step, lambda: takeovers(*DEBOUNCES)),
    (give_ids_back_at_once, lambda: crashes("gathered_debounces")),
    (write_entries_of_anybody, takeovers),
    (append_again_after_a_lost_answer, lambda: schedules("streams_of_steps")),
    (read_on_from_the_beginning, lambda: crashes("streams")),
    (send_for_anybody, lambda: takeovers_of("ping_pong", "send_plan")),
    (receive_for_anybody, lambda: takeovers_of("ping_pong", "send_plan")),
    (receive_without_the_step, lambda: crashes("ping_pong")),
    (take_nothing_over, survivors),
    (make_tokens_without_a_name, survivors),
    (leave_the_owner_of_the_cancelled, managed),
    (resume_without_taking_the_owner, managed),
    (copy_a_step_too_many, managed),
    (leave_the_steps_of_the_deleted, managed),
    (manage_before_the_step, lambda: takeovers("forks", "management")),
    (stop_whoever_runs_a_cancelled_workflow, managed),
    (change_again_when_the_answer_is_lost, managed),
]


@pytest.mark.parametrize(("mutate", "runs"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_a_mistake_in_the_library_does_not_survive(
    mutate: Callable[[Patch], None], runs: Callable[[], Iterator[tuple[str, Result]]], monkeypatch: Patch
) -> None:
    for name in BY_NAME:
        baselines(name)  # Made without the mistake.
    mutate(monkeypatch)
    monkeypatch.setattr("tests.simulation.virtual.LONGEST_SECONDS", 2_000.0)
    assert any(_goes_wrong(runs())), "no run noticed it"


def _goes_wrong(runs: Iterator[tuple[str, Result]]) -> Iterator[bool]:
    while True:
        try:
            name, result = next(runs)
        except StopIteration:
            return
        except Stuck:
            yield True
            return
        yield bool(problems(BY_NAME[name], result) if name in BY_NAME else result.violations)
