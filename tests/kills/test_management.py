"""Workers run jobs while another process cancels, resumes, forks and deletes them at random, and one worker is killed.

A trigger in the database sees every step that is written: only while its workflow runs, or when it was just forked.
"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.helpers import rows, wait_until
from tests.kills.processes import PATIENCE_SECONDS, Observer, SideLog, Step, Worker

PROGRAM = Path(__file__).with_name("managed_worker.py")
WORKERS = 4
JOBS = 160
CALLS = 120
STEPS = 5

_MAY_WRITE = (
    "SELECT 1 FROM {}workflow_status AS w WHERE w.workflow_uuid = NEW.workflow_uuid "
    "AND (w.status = 'PENDING' AND w.owner_xid IS NOT NULL "
    "OR w.status = 'ENQUEUED' AND w.forked_from IS NOT NULL AND w.recovery_attempts = 0)"
)
_LITE_TRIGGER = (
    "CREATE TRIGGER step_of_nobody BEFORE INSERT ON operation_outputs "
    f"WHEN NOT EXISTS ({_MAY_WRITE.format('')}) BEGIN "
    "INSERT INTO violations VALUES (NEW.workflow_uuid, NEW.function_id); END"
)
_POSTGRES_FUNCTION = (
    "CREATE FUNCTION dbos.note_violation() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"IF NOT EXISTS ({_MAY_WRITE.format('dbos.')}) THEN "
    "INSERT INTO dbos.violations VALUES (NEW.workflow_uuid, NEW.function_id); END IF; RETURN NEW; END $$"
)
_POSTGRES_TRIGGER = (
    "CREATE TRIGGER step_of_nobody BEFORE INSERT ON operation_outputs "
    "FOR EACH ROW EXECUTE FUNCTION dbos.note_violation()"
)


def watch_steps(url: str) -> None:
    rows(url, "CREATE TABLE violations (workflow_uuid TEXT, function_id INTEGER)")
    if url.startswith("sqlite"):
        rows(url, _LITE_TRIGGER)
    else:
        rows(url, _POSTGRES_FUNCTION)
        rows(url, _POSTGRES_TRIGGER)


def executions(log: SideLog) -> list[tuple[Step, float]]:
    """The step bodies that were run, and when the execution of their workflow began."""
    lines = [line.split() for line in log.path.read_text().splitlines()]
    return [((workflow_id, int(step_id)), float(began)) for workflow_id, step_id, began in lines]


class Repetitions:
    """Knows since when steps are recorded: an execution that begins later finds them."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._recorded_by: dict[Step, float] = {}

    def look(self) -> None:
        recorded = self._observer.recorded()
        now = time.time()
        for step in recorded:
            self._recorded_by.setdefault(step, now)

    def check(self, log: SideLog) -> None:
        # One that has lost its workflow and does not know yet may still run a step that its successor has recorded.
        again = [
            step for step, began in executions(log) if step in self._recorded_by and began > self._recorded_by[step]
        ]
        assert not again, f"recorded steps executed again: {again}"


def test_managing_at_random_while_workers_run_breaks_nothing(database_url: str, tmp_path: Path) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    numbers = itertools.count(1)
    began = time.monotonic()

    def make() -> Worker:
        return Worker(database_url, log, executor=f"executor-{next(numbers)}", program=PROGRAM)

    with ExitStack() as stack:
        # They import while the queue is filled.
        manager, *workers = [stack.enter_context(make()) for _ in range(1 + WORKERS)]
        with make() as filler:
            filler.command("fill", count=JOBS)
            filler.expect("launched")
            filler.expect("filled")
            filler.wait()
        watch_steps(database_url)
        for worker in workers:
            worker.command("work")
        for worker in workers:
            worker.expect("launched")
        manager.command("manage", seed=1, calls=CALLS)
        manager.expect("launched")
        repetitions = Repetitions(observer)
        wait_until(lambda: list(observer.statuses().values()).count("SUCCESS") > JOBS // 8)
        workers[0].kill()
        while not is_finished(observer):
            repetitions.look()
            assert time.monotonic() < began + PATIENCE_SECONDS, observer.statuses()
            time.sleep(0.05)
        done = manager.next_message()
    repetitions.check(log)
    assert isinstance(done, dict), done
    check(database_url, log, observer, done)
    seconds = time.monotonic() - began
    print(f"{done['cancel']} cancels, {done['resume']} resumes, {len(done['fork'])} forks, {seconds:.1f} s")


def is_finished(observer: Observer) -> bool:
    return set(observer.statuses().values()) == {"SUCCESS"}


def check(url: str, log: SideLog, observer: Observer, done: dict[str, Any]) -> None:
    assert min(done["cancel"], done["resume"], len(done["fork"]), len(done["delete"])) > 10
    assert rows(url, "SELECT * FROM violations") == []
    # Everything that was not deleted has succeeded, and of the deleted nothing is left.
    alive = {f"job-{number}" for number in range(JOBS)} | set(done["fork"])
    alive -= set(done["delete"])
    assert observer.statuses() == dict.fromkeys(alive, "SUCCESS")
    assert done["results"] == dict.fromkeys(alive, STEPS)
    for table in ("workflow_input", "workflow_output"):
        assert {row[0] for row in observer.query(f"SELECT workflow_uuid FROM {{}}{table}")} == alive
    steps = {
        (workflow_id, step_id): output
        for workflow_id, step_id, output in observer.query(
            "SELECT workflow_uuid, function_id, output FROM {}operation_outputs"
        )
    }
    assert set(steps) == {(workflow_id, step_id) for workflow_id in alive for step_id in range(1, STEPS + 1)}
    executed = {step for step, _ in executions(log)}
    for fork in done["fork"].values():
        if fork["id"] in alive and fork["source"] in alive:
            check_fork(fork, steps, executed)


def check_fork(fork: dict[str, Any], steps: dict[Step, str], executed: set[Step]) -> None:
    """It has a beginning of its source's history, up to the cut at most, and has executed all the rest itself."""
    same = [steps[fork["id"], step_id] == steps[fork["source"], step_id] for step_id in range(1, STEPS + 1)]
    copied = sum(same)
    assert same == [True] * copied + [False] * (STEPS - copied), fork
    assert copied < fork["cut"], fork
    for step_id in range(1, STEPS + 1):
        assert ((fork["id"], step_id) in executed) == (step_id > copied), (fork, step_id)
