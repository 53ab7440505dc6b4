"""An application under load, to be killed, paused and cut off from its database.

    python worker.py <database url> <side log> <executor id> [<seconds to wait for a SQLite lock>]

It imports, then waits for one JSON command on its standard input, so a spare process is ready at once:

    {"action": "load", "first": 0, "count": 8}        launch, start that many orders, work until killed
    {"action": "run", "first": 0, "count": 8, "rounds": 20}
                                                      launch, run long orders, print their outcomes
    {"action": "finish", "ids": [...]}                launch, wait for workflows, print their outcomes;
                                                      with "take": true take over what this executor id owns, even
                                                      from the living; with "at": 5 pause this process in that step
    {"action": "pause", "id": "...", "kind": "sync", "steps": 10, "at": 5}
                                                      launch, run a workflow that pauses this process in a step

Every step body notes its execution in the side log, a file outside the database: `<pid> <workflow id> <step id>`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from typing import Any

from obeying import EXECUTOR, URL, obey, open_log, say

from dbos import DBOS, SetWorkflowID
from dbos.storage import migrate_sqlite

if len(sys.argv) > 4:
    migrate_sqlite.LOCK_WAIT_SECONDS = float(sys.argv[4])

_note = open_log()
# The step in which this process pauses; None in every process that is not to pause.
_pause_at: int | None = None


def note(what: str) -> None:
    _note(f"{os.getpid()} {what}")


def note_step() -> None:
    note(f"{DBOS.workflow_id} {DBOS.step_id}")


# --- the application


@DBOS.step()
def add(left: int, right: int) -> int:
    note_step()
    return left + right


@DBOS.step()
async def add_async(left: int, right: int) -> int:
    note_step()
    await asyncio.sleep(0)
    return left + right


@DBOS.step()
def refuse(number: int) -> None:
    note_step()
    raise ValueError(f"refused {number}")


@DBOS.workflow(max_recovery_attempts=None)
def double(number: int) -> int:
    return add(number, number)


@DBOS.workflow(max_recovery_attempts=None)
async def double_async(number: int) -> int:
    return await add_async(number, number)


@DBOS.workflow(max_recovery_attempts=None)
def order(number: int) -> int:
    total = add(number, 1)
    DBOS.sleep(0.01)
    handle = DBOS.start_workflow(double_async, total)
    total = add(total, double(number))
    try:
        refuse(number)
    except ValueError:
        total = add(total, 1)
    total += handle.get_result()
    if number % 7 == 0:
        raise ValueError(f"no order {number}, total {total}")
    return total


@DBOS.workflow(max_recovery_attempts=None)
async def order_async(number: int) -> int:
    total = await add_async(number, 1)
    await DBOS.sleep_async(0.01)
    handle = await DBOS.start_workflow_async(double, total)
    total = await add_async(total, await double_async(number))
    try:
        refuse(number)
    except ValueError:
        total = await add_async(total, 1)
    total += await handle.get_result()
    if number % 7 == 0:
        raise ValueError(f"no order {number}, total {total}")
    return total


@DBOS.workflow(max_recovery_attempts=None)
def long_order(number: int, rounds: int) -> int:
    total = number
    for i in range(rounds):
        total = add(total, i)
        DBOS.sleep(0.01)
    return add(total, double(number))


@DBOS.workflow(max_recovery_attempts=None)
async def long_order_async(number: int, rounds: int) -> int:
    total = number
    for i in range(rounds):
        total = await add_async(total, i)
        await DBOS.sleep_async(0.01)
    return await add_async(total, await double_async(number))


def add_and_maybe_pause(total: int, i: int) -> int:
    note_step()
    if i == _pause_at:
        wait_for_idle_sqlite()
        # To this very thread: one sent to the process may be taken by another, and this one runs on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return total + i


def wait_for_idle_sqlite() -> None:
    """Return when no thread of this process is inside a SQLite transaction.

    A process paused in the middle of one would keep the file locked for everybody, whoever owns which workflow.
    """
    if URL.startswith("sqlite"):
        connection = sqlite3.connect(URL.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.close()


@DBOS.step()
def pausing_step(total: int, i: int) -> int:
    return add_and_maybe_pause(total, i)


@DBOS.step()
async def pausing_step_async(total: int, i: int) -> int:
    return add_and_maybe_pause(total, i)


@DBOS.workflow()
def pausing(steps: int) -> str:
    total = 0
    for i in range(1, steps + 1):
        total = pausing_step(total, i)
    return f"{total} from process {os.getpid()}"


@DBOS.workflow()
async def pausing_async(steps: int) -> str:
    total = 0
    for i in range(1, steps + 1):
        total = await pausing_step_async(total, i)
    return f"{total} from process {os.getpid()}"


# --- the commands


def outcome(workflow_id: str) -> list[Any]:
    try:
        return ["SUCCESS", DBOS.retrieve_workflow(workflow_id).get_result()]
    except Exception as error:
        return ["ERROR", type(error).__name__, str(error)]


async def load(first: int, count: int) -> None:
    for number in range(first, first + count):
        with SetWorkflowID(f"order-{number}"):
            await DBOS.start_workflow_async(order_async if number % 2 else order, number)
        note(f"started order-{number}")
    await asyncio.Event().wait()


async def run(first: int, count: int, rounds: int) -> dict[str, list[Any]]:
    for number in range(first, first + count):
        with SetWorkflowID(f"long-{number}"):
            await DBOS.start_workflow_async(long_order_async if number % 2 else long_order, number, rounds)
    say("started")
    ids = [f"long-{number}" for number in range(first, first + count)]
    outcomes = await asyncio.gather(*(asyncio.to_thread(outcome, workflow_id) for workflow_id in ids))
    return dict(zip(ids, outcomes, strict=True))


def pause(workflow_id: str, kind: str, steps: int) -> list[Any]:
    with SetWorkflowID(workflow_id):
        handle: Any = DBOS.start_workflow(pausing_async if kind == "async" else pausing, steps)
    try:
        return ["SUCCESS", handle.get_result()]
    except Exception as error:
        return ["ERROR", type(error).__name__, str(error)]


def take_pause(command: dict[str, Any]) -> None:
    """Before the launch, which may go on with a workflow that is to pause."""
    global _pause_at
    _pause_at = command.pop("at", None)


def finish(ids: list[str], take: bool = False) -> None:
    if take:
        DBOS._recover_pending_workflows([EXECUTOR])
    say({workflow_id: outcome(workflow_id) for workflow_id in ids})


if __name__ == "__main__":
    obey(
        {
            "load": lambda **command: asyncio.run(load(**command)),
            "run": lambda **command: say(asyncio.run(run(**command))),
            "finish": finish,
            "pause": lambda id, **command: say({id: pause(id, **command)}),
        },
        before_launch=take_pause,
    )
