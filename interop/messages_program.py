"""Messages, for two interpreters: ours, and one with PyPI `dbos`.

    python messages_program.py <database url> run        send and receive, every workflow to its end
    python messages_program.py <database url> leave      the same, and kill this process in the middle
    python messages_program.py <database url> finish     launch, send what is missing, wait for the workflows
    python messages_program.py <database url> wait       start workflows that receive, wait for them
    python messages_program.py <database url> send       send to them, from plain code and from a workflow

Prints one JSON value.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from dbos import DBOS, SendMessage, SetWorkflowID, WorkflowSerializationFormat

URL, ACTION = sys.argv[1:3]
PORTABLE = WorkflowSerializationFormat.PORTABLE
IDS = ["w-sync", "w-async"]
PATIENCE_SECONDS = 100


@DBOS.step()
def send_in_step(destination_id: str) -> None:
    DBOS.send(destination_id, ["step", b"bytes"], "late", idempotency_key="from a step")


@DBOS.workflow()
def correspond(name: str) -> list[Any]:
    found: list[Any] = [DBOS.recv("early", PATIENCE_SECONDS), DBOS.recv("early", PATIENCE_SECONDS)]
    DBOS.send(name, {"a": (1, None)}, "own")
    DBOS.send_bulk([SendMessage(name, number, "own", f"key {number}") for number in range(2)])
    DBOS.send_bulk([SendMessage(name, "portable", "own")], serialization_type=PORTABLE)
    send_in_step(name)
    try:
        DBOS.send("nobody", 1)
    except Exception as error:
        found.append([type(error).__name__, str(error)])
    found += [DBOS.recv("nothing", 0), *[DBOS.recv("late", PATIENCE_SECONDS) for _ in range(3)]]
    # The order in a bulk is not the same there.
    found.append(sorted((DBOS.recv("own", 5) for _ in range(5)), key=repr))
    return found


@DBOS.workflow()
async def correspond_async(name: str) -> list[Any]:
    found: list[Any] = [await DBOS.recv_async("early", PATIENCE_SECONDS) for _ in range(2)]
    await DBOS.send_async(name, {"a": (1, None)}, "own")
    found += [await DBOS.recv_async("late", PATIENCE_SECONDS) for _ in range(2)]
    return [*found, await DBOS.recv_async("own", PATIENCE_SECONDS)]


@DBOS.workflow()
def receive_three() -> list[Any]:
    return [DBOS.recv("live", PATIENCE_SECONDS) for _ in range(3)]


@DBOS.workflow()
async def receive_three_async() -> list[Any]:
    return [await DBOS.recv_async("live", PATIENCE_SECONDS) for _ in range(3)]


@DBOS.workflow()
def send_from_workflow() -> None:
    for workflow_id in IDS:
        DBOS.send(workflow_id, "from a workflow", "live")


def start(*functions: Any) -> None:
    for workflow_id, function in zip(IDS, functions):
        with SetWorkflowID(workflow_id):
            if function in (correspond, correspond_async):
                DBOS.start_workflow(function, workflow_id)
            else:
                DBOS.start_workflow(function)


def send(topic: str, *messages: Any) -> None:
    for workflow_id in IDS:
        for number, message in enumerate(messages):
            key = f"{topic} {number}"
            DBOS.send(workflow_id, message, topic, idempotency_key=key)
            DBOS.send(workflow_id, "the same key", topic, idempotency_key=key)


def wait_for_steps(name: str, count: int) -> None:
    """Until each workflow has so many recorded steps of that name."""
    for workflow_id in IDS:
        while sum(step["function_name"] == name for step in DBOS.list_workflow_steps(workflow_id)) < count:
            time.sleep(0.01)


def results() -> list[str]:
    return [repr(DBOS.retrieve_workflow(workflow_id).get_result()) for workflow_id in IDS]


def main() -> None:
    DBOS(
        config={
            "name": "interop",
            "application_version": "v1",
            "executor_id": "sender" if ACTION == "send" else "executor",
            "log_level": "ERROR",
            "system_database_url": URL,
        }
    )
    DBOS.launch()
    answer: Any = None
    if ACTION in ("run", "leave"):
        start(correspond, correspond_async)
        send("early", 1, {"x": [2.5, "naïve ☃"]})
        # Both wait under the topic "late" now; the first has received one of three.
        wait_for_steps("DBOS.sleep", 3)
        while DBOS.list_workflow_steps(IDS[0])[-1]["function_name"] != "DBOS.sleep":
            time.sleep(0.01)
        if ACTION == "leave":
            os.kill(os.getpid(), signal.SIGKILL)
    if ACTION in ("run", "finish"):
        send("late", "l1", "l2")
        answer = results()
    elif ACTION == "wait":
        start(receive_three, receive_three_async)
        answer = results()
    elif ACTION == "send":
        for workflow_id in IDS:
            while DBOS.get_workflow_status(workflow_id) is None:
                time.sleep(0.01)
            DBOS.send(workflow_id, "plain", "live")
            DBOS.send(workflow_id, ["portable"], "live", serialization_type=PORTABLE)
        send_from_workflow()
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
