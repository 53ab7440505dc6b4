"""A worker whose workflows are managed, or the one who manages them.

    python managed_worker.py <database url> <side log> <executor id>

It imports, then waits for one JSON command on its standard input:

    {"action": "fill", "count": 100}                enqueue so many jobs, end
    {"action": "work"}                              launch, run jobs until killed or told to end
    {"action": "manage", "seed": 1, "calls": 100}   make so many random calls, resume what is cancelled, say what it did

Step bodies note in the side log what they are, and when the execution of their workflow began. Each returns a value
that no other execution returns.
"""

from __future__ import annotations

import random
import time
from typing import Any

import obeying
from obeying import obey, open_log, say

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from dbos.ids import new_id

QUEUE = "jobs"
STEPS = 5
STEP_SECONDS = 0.03

note = open_log()


@DBOS.step()
def work(began: float) -> str:
    note(f"{DBOS.workflow_id} {DBOS.step_id} {began!r}")
    time.sleep(STEP_SECONDS)
    return new_id()


@DBOS.workflow()
def job() -> int:
    began = time.time()
    return len({work(began) for _ in range(STEPS)})


def fill(count: int) -> None:
    DBOS.register_queue(QUEUE, global_concurrency=24)
    for number in range(count):
        with SetWorkflowID(f"job-{number}"):
            DBOS.enqueue_workflow(QUEUE, job)
    say("filled")


def manage(seed: int, calls: int) -> dict[str, Any]:
    rng = random.Random(seed)
    alive = [status.workflow_id for status in DBOS.list_workflows(load_input=False, load_output=False)]
    done: dict[str, Any] = {"cancel": 0, "resume": 0, "fork": {}, "delete": []}
    for number in range(calls):
        # Mostly the workflows that run now: the older ones.
        some = [alive[min(int(rng.expovariate(4) * len(alive)), len(alive) - 1)] for _ in range(3)]
        call = rng.choice(("cancel", "cancel", "resume", "fork", "delete"))
        if call == "cancel":
            DBOS.cancel_workflows(some)
            done["cancel"] += 1
        elif call == "resume":
            DBOS.resume_workflows(some)
            done["resume"] += 1
        elif call == "fork":
            fork = {"id": f"fork-{number}", "source": some[0], "cut": rng.randint(1, STEPS + 1)}
            with SetWorkflowID(fork["id"]):
                DBOS.fork_workflow(fork["source"], fork["cut"])
            done["fork"][fork["id"]] = fork
            alive.insert(0, fork["id"])
        else:
            DBOS.delete_workflow(some[0])
            done["delete"].append(some[0])
            alive.remove(some[0])
    while cancelled := DBOS.list_workflows(status="CANCELLED", load_input=False):
        DBOS.resume_workflows([status.workflow_id for status in cancelled])
    done["results"] = {workflow_id: DBOS.get_result(workflow_id) for workflow_id in alive}
    return done


def manage_and_tell(seed: int, calls: int) -> None:
    try:
        say(manage(seed, calls))
    except DBOSException as error:
        say(repr(error))


if __name__ == "__main__":
    obey(
        {"fill": fill, "work": obeying.work, "manage": manage_and_tell},
        name="managed",
        log_level="ERROR",
        idle=("fill", "manage"),
    )
