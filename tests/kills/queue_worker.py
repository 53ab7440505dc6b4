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
import os
import time

from obeying import obey, open_log, say, work

from dbos import DBOS, SetWorkflowID

QUEUE = "jobs"
STEP_SECONDS = 0.03
# A job that was enqueued by this process is held up in it.
_holds = False

note = open_log()


def note_step() -> None:
    note(f"{os.getpid()} {DBOS.workflow_id} {DBOS.step_id}")


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


async def enqueue_all(count: int, concurrency: int) -> None:
    await DBOS.register_queue_async(QUEUE, global_concurrency=concurrency)
    for first in range(0, count, 500):
        await asyncio.gather(*(enqueue(number) for number in range(first, min(first + 500, count))))


def fill(count: int, concurrency: int) -> None:
    asyncio.run(enqueue_all(count, concurrency))
    say("filled")


def read(count: int) -> None:
    say([DBOS.retrieve_workflow(f"job-{number}").get_result() for number in range(count)])


def hold_place(id: str) -> None:
    global _holds
    _holds = True
    DBOS.register_queue(QUEUE, global_concurrency=1)
    with SetWorkflowID(id):
        DBOS.enqueue_workflow(QUEUE, holding)
    work()


if __name__ == "__main__":
    obey({"fill": fill, "work": work, "read": read, "hold": hold_place}, idle=("fill", "read"))
