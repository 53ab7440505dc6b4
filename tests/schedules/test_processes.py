"""One schedule, several processes: each tick runs once, also when processes are killed (03 R137)."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from pathlib import Path

from dbos import DBOS
from tests.helpers import rows, wait_until
from tests.programs import StartProgram, end, wait_until_ready
from tests.schedules.recording import runs
from tests.schedules.worker import configure, ticking

WORKER = Path(__file__).with_name("worker.py")
PROCESSES = 4
KILLS = 4


def test_of_four_processes_that_are_killed_one_after_the_other_each_tick_runs_once(
    database_url: str, start_program: StartProgram
) -> None:
    configure(database_url)
    # The registry is emptied after each test.
    DBOS.workflow(name="ticking")(ticking.__wrapped__)  # type: ignore[attr-defined]
    DBOS.launch()
    DBOS.create_schedule(schedule_name="s", workflow_fn=ticking, schedule="* * * * * *")
    DBOS.destroy()
    processes = [start_program(WORKER, database_url) for _ in range(PROCESSES)]
    for process in processes:
        wait_until_ready(process)
    wait_until(lambda: len(runs(database_url)) > 0)
    first = runs(database_url)[0]
    for number in range(KILLS):
        seen = len(runs(database_url))
        wait_until(lambda: len(runs(database_url)) > seen + 1)
        victim = random.Random(number).randrange(PROCESSES)
        end(processes[victim])
        processes[victim] = wait_until_ready(start_program(WORKER, database_url))
    ended = runs(database_url)[-1]
    wait_until(
        lambda: (
            not rows(
                database_url,
                "SELECT 1 FROM workflow_status WHERE schedule_name = 's' AND workflow_uuid <= %s "
                "AND status <> 'SUCCESS'",
                f"sched-s-{ended}",
            )
        )
    )
    seconds = [int(datetime.fromisoformat(text).timestamp()) for text in runs(database_url) if first <= text <= ended]
    assert len(seconds) > 2 * KILLS
    # Every second one run, none left out: three processes were always alive.
    assert seconds == list(range(seconds[0], seconds[-1] + 1))
    assert datetime.fromisoformat(first).tzinfo == timezone.utc
    steps = rows(database_url, "SELECT workflow_uuid, count(*) AS n FROM operation_outputs GROUP BY workflow_uuid")
    assert {row["n"] for row in steps} == {1}
