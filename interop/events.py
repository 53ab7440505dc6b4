"""Events, for two interpreters: ours, and one with PyPI `dbos`.

    python events.py <database url> run       publish and read events, all in one process
    python events.py <database url> leave     the same, and kill this process half-way
    python events.py <database url> finish    launch, wait for the workflows that were left
    python events.py <database url> publish   publish when a line of the input says so
    python events.py <database url> wait      wait for what another process publishes

Prints one JSON value.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat

URL, ACTION = sys.argv[1:]
PORTABLE = WorkflowSerializationFormat.PORTABLE
# The event that nobody sets in time.
SOON_SECONDS = 0.5


@DBOS.step()
def announce() -> None:
    DBOS.set_event("from step", "first")
    DBOS.set_event("from step", ("last", b"bytes"))


@DBOS.step()
def hold() -> None:
    if ACTION == "leave":
        # The reader has waited, found what it waited for, and waits for what does not come.
        while len(DBOS.list_workflow_steps("reading")) < 5:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


@DBOS.workflow()
def publishing() -> list[Any]:
    DBOS.set_event("stage", 1)
    DBOS.set_event("none", None)
    announce()
    DBOS.set_event("portable", {"b": [1, 2.5, "é"]}, serialization_type=PORTABLE)
    hold()
    DBOS.set_event("stage", 2)
    return sorted(DBOS.get_all_events("publishing"))


@DBOS.workflow(serialization_type=PORTABLE)
def portably() -> str:
    DBOS.set_event("k", [1, "x", None])
    announce_portably()
    return "done"


@DBOS.step()
def announce_portably() -> None:
    DBOS.set_event("s", True)


@DBOS.workflow()
async def reading() -> list[Any]:
    found = [await DBOS.get_event_async("publishing", "portable"), await DBOS.get_event_async("publishing", "none")]
    return [*found, await DBOS.get_event_async("publishing", "nothing", SOON_SECONDS)]


@DBOS.workflow()
def late() -> str:
    sys.stdin.readline()
    DBOS.set_event("k", {"now": 1})
    return "published"


WORKFLOWS = {"reading": reading, "publishing": publishing, "portably": portably}


def start(name: str, function: Any) -> Any:
    with SetWorkflowID(name):
        return DBOS.start_workflow(function)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> Any:
    if ACTION in ("run", "leave"):
        # Who is killed has waited for an event before.
        handles = {name: start(name, function) for name, function in WORKFLOWS.items()}
        return {name: repr(handle.get_result()) for name, handle in handles.items()}
    if ACTION == "finish":
        DBOS.retrieve_workflow("publishing").get_result()
        names = ["publishing", "reading"]
        return {name: repr(DBOS.retrieve_workflow(name).get_result()) for name in names}
    if ACTION == "publish":
        return start("late", late).get_result()
    say("waiting")
    return DBOS.get_event("late", "k", 60)


DBOS(
    config={
        "name": "interop",
        "system_database_url": URL,
        "application_version": "1",
        # Who waits must not take over what the other one runs.
        "executor_id": "waiting" if ACTION == "wait" else "one",
    }
)
DBOS.launch()
say(json.dumps(main()))
# Without waiting for threads that still sleep.
os._exit(0)
