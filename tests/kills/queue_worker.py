"""A worker on a queue, to be killed; or the one who fills the queue.

    python queue_worker.py <database url> <side log> <executor id>

It imports, then waits for one JSON command on its standard input:

    {"action": "fill", "count": 100, "concurrency": 32}   register the queue, enqueue so many jobs, end
    {"action": "work"}                                    launch, serve the queue until killed or told to end
    {"action": "read", "count": 100}                      print the results of so many jobs, end
    {"action": "hold", "id": "..."}                       launch, enqueue a job that holds its place until killed

Step bodies note their execution in the side log, as in `worker.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from dbos import DBOS, SetWorkflowID

URL, LOG, EXECUTOR = sys.argv[1:4]
QUEUE = "jobs"
STEP_SECONDS = 0.03
# A job that was enqueued by this process is held up in it.
_holds = False

_log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note_step() -> None:
    # One write per line: a process killed in between leaves no half line.
    os.write(_log, f"{os.getpid()} {DBOS.workflow_id} {DBOS.step_id}\n".encode())


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


@DBOS.step()
def add(left: int, right: int) -> int:
    note_step()
    time.sleep(STEP_SECONDS)
    return left + right


@DBOS.step()
async def add_async(left: int, right: int) -> int:
    note_step()
    await asyncio.sleep(STEP_SECONDS)
    return left + right


@DBOS.workflow()
def job(number: int) -> int:
    return add(add(number, 1), number)


@DBOS.workflow()
async def job_async(number: int) -> int:
    return await add_async(await add_async(number, 1), number)


@DBOS.step()
def hold() -> int:
    note_step()
    if _holds:
        say("holding")
        time.sleep(3600)
    return os.getpid()


@DBOS.workflow()
def holding() -> int:
    return hold()


async def enqueue(number: int) -> None:
    with SetWorkflowID(f"job-{number}"):
        await DBOS.enqueue_workflow_async(QUEUE, job_async if number % 2 else job, number)


async def fill(count: int, concurrency: int) -> None:
    await DBOS.register_queue_async(QUEUE, global_concurrency=concurrency)
    for first in range(0, count, 500):
        await asyncio.gather(*(enqueue(number) for number in range(first, min(first + 500, count))))


def main() -> None:
    DBOS(
        config={
            "name": "kills",
            "application_version": "v1",
            "executor_id": EXECUTOR,
            "log_level": "WARNING",
            "system_database_url": URL,
        }
    )
    say("ready")
    line = sys.stdin.readline()
    if not line:
        return
    command = json.loads(line)
    action = command.pop("action")
    if action in ("fill", "read"):
        DBOS.listen_queues([])
    DBOS.launch()
    say("launched")
    if action == "fill":
        asyncio.run(fill(**command))
        say("filled")
    elif action == "read":
        say([DBOS.retrieve_workflow(f"job-{number}").get_result() for number in range(command["count"])])
    elif action == "hold":
        global _holds
        _holds = True
        DBOS.register_queue(QUEUE, global_concurrency=1)
        with SetWorkflowID(command["id"]):
            DBOS.enqueue_workflow(QUEUE, holding)
        sys.stdin.readline()
    else:
        sys.stdin.readline()
    DBOS.destroy()


if __name__ == "__main__":
    main()
