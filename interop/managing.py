"""One program for two interpreters: workflows, and calls that manage them.

    python managing.py <database url> make       make workflows in many states, run none of those that wait
    python managing.py <database url> manage     manage them by every call, from plain code and from a workflow
    python managing.py <database url> refuse     what is refused, from plain code and from a workflow
    python managing.py <database url> finish     let everything run that waits for somebody; the results

Prints one JSON value.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from dbos import DBOS, DBOSContextSetAuth, SetEnqueueOptions, SetWorkflowAttributes, SetWorkflowID, SetWorkflowTimeout

URL, ACTION = sys.argv[1:]
FAR_MS = 99_000_000_000_000
# Nobody serves it before the end.
QUEUE = "later"

executed: list[str] = []


@DBOS.step(name="add")
def add(left: int, right: int) -> int:
    executed.append(f"{DBOS.workflow_id} {DBOS.step_id}")
    return left + right


@DBOS.workflow(name="counting")
def counting(number: int) -> int:
    return add(add(add(number, 1), 10), 100)


@DBOS.workflow(name="child")
def child(number: int) -> int:
    return add(number, 1)


@DBOS.workflow(name="parent")
def parent() -> list[int]:
    handle = DBOS.start_workflow(child, 1)
    return [handle.get_result(), child(2)]


@DBOS.workflow(name="failing")
def failing() -> None:
    add(1, 2)
    raise ValueError("failed")


@DBOS.workflow(name="quitting")
def quitting() -> None:
    add(1, 2)
    DBOS.sleep(0.01)
    threading.Event().wait()


@DBOS.workflow(name="manager")
def manager(cancelled: str, rewound: str, deleted: str, forked: str, delayed: str) -> list[Any]:
    with SetWorkflowID(f"{forked}-fork"):
        fork = DBOS.fork_workflow(forked, 3)
    results: list[Any] = [fork.workflow_id, fork.get_result()]
    results.append(DBOS.rewind_workflow(rewound, start_step=2).get_result())
    DBOS.delete_workflow(deleted)
    DBOS.update_workflow_attributes(forked, {"managed": True}, merge=True)
    DBOS.set_workflow_delay(delayed, delay_until_epoch_ms=FAR_MS + 1)
    DBOS.cancel_workflow(cancelled)
    DBOS.resume_workflows([cancelled], queue_name=QUEUE)
    return results


@DBOS.workflow(name="refused")
def refused() -> list[str]:
    return refusals()


def refusals() -> list[str]:
    found: list[str] = []
    for call in (
        lambda: DBOS.fork_workflow("absent", 1),
        lambda: DBOS.rewind_workflow("absent"),
        lambda: DBOS.rewind_workflow("delayed-2"),
        lambda: DBOS.resume_workflows(["counted-1", "absent 1", "absent 2"]),
    ):
        try:
            call()
        except Exception as error:
            found.append(type(error).__name__)
    DBOS.cancel_workflows(["absent", "counted-1"])
    DBOS.delete_workflows(["absent"])
    DBOS.update_workflow_attributes("absent", {"a": 1})
    DBOS.set_workflow_delay("absent", delay_seconds=1)
    return found


def run(workflow_id: str, function: Any, *args: Any) -> Any:
    with SetWorkflowID(workflow_id):
        try:
            return DBOS.start_workflow(function, *args).get_result()
        except ValueError as error:
            return str(error)


def make() -> list[Any]:
    DBOS.register_queue(QUEUE)
    found: list[Any] = []
    for number in (1, 2):
        with DBOSContextSetAuth("alice", ["admin"]), SetWorkflowAttributes({"a": 1, "b": {"c": 2}}):
            found.append(run(f"counted-{number}", counting, number))
        with SetWorkflowTimeout(1000):
            found.append(run(f"rewound-{number}", counting, 10 * number))
        found.append(run(f"deleted-{number}", parent))
        found.append(run(f"failed-{number}", failing))
        with SetWorkflowID(f"quit-{number}"):
            DBOS.start_workflow(quitting)
        with SetWorkflowID(f"delayed-{number}"), SetEnqueueOptions(delay_seconds=100_000, priority=3):
            DBOS.enqueue_workflow(QUEUE, counting, 5)
        while len(DBOS.list_workflow_steps(f"quit-{number}")) < 2:
            threading.Event().wait(0.01)
        DBOS.cancel_workflow(f"quit-{number}")
    found.append(run("parent", parent))
    return found


def manage() -> list[Any]:
    found: list[Any] = []
    with SetWorkflowID("fork"):
        found.append(DBOS.fork_workflow("counted-1", 3).get_result())
    with SetWorkflowID("fork-waits"):
        DBOS.fork_workflow(
            "counted-1",
            2,
            application_version="v9",
            queue_name=QUEUE,
            queue_partition_key="p",
            timeout_seconds=100,
        )
    with SetWorkflowID("fork-of-nothing"):
        DBOS.fork_workflow("counted-1", 1, queue_name=QUEUE)
    with SetWorkflowID("fork-of-all"):
        replaced = {"parent-1": "counted-2"}
        found.append(DBOS.fork_workflow("parent", 99, replacement_children=replaced).get_result())
    found.append(DBOS.rewind_workflow("rewound-1", start_step=3).get_result())
    DBOS.rewind_workflow("failed-1", queue_name=QUEUE, queue_partition_key="p", application_version="v9")
    DBOS.delete_workflows(["deleted-1", "absent"], delete_children=True)
    DBOS.update_workflow_attributes("counted-1", {"b": {"d": None}, "e": [1.5]}, merge=True)
    DBOS.update_workflow_attributes("counted-2", {"x": "é"})
    DBOS.update_workflow_attributes("parent", {"y": 1}, merge=True)
    DBOS.update_workflow_attributes("fork", None)
    DBOS.set_workflow_delay("delayed-1", delay_until_epoch_ms=FAR_MS)
    DBOS.resume_workflow("quit-1", queue_name=QUEUE)
    found.append(run("manager", manager, "quit-2", "rewound-2", "deleted-2", "counted-2", "delayed-2"))
    return found


def finish() -> dict[str, Any]:
    ids = ["fork-of-nothing", "counted-2-fork", "fork", "rewound-1", "rewound-2", "manager"]
    return {workflow_id: DBOS.get_result(workflow_id) for workflow_id in ids}


def main() -> None:
    DBOS(
        config={
            "name": "interop",
            "application_version": "v1",
            "executor_id": "executor" if ACTION == "make" else "manager",
            "log_level": "ERROR",
            "system_database_url": URL,
        }
    )
    if ACTION != "finish":
        DBOS.listen_queues([])
    DBOS.launch()
    if ACTION == "refuse":
        answer: Any = [refusals(), run("refused", refused)]
    else:
        answer = {"make": make, "manage": manage, "finish": finish}[ACTION]()
    sys.stdout.write(json.dumps({"answer": answer, "executed": executed}))
    sys.stdout.flush()
    # Without waiting for those that wait.
    os._exit(0)


if __name__ == "__main__":
    main()
