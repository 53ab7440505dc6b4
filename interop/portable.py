"""An application of ours with the workflows of typescript/application.mjs, for clients of both languages.

    python portable.py <database url> serve     serve the queue "ours" until the input ends
    python portable.py <database url> listen    the same; unless somebody wakes it, it looks only every 30 seconds

The workflows have no serialization of their own: who enqueues them portably gets portable values.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import date, datetime
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance, PortableWorkflowError

URL, ACTION = sys.argv[1:]


@DBOS.workflow(name="echo")
def echo(*args: Any, **named: Any) -> dict[str, Any]:
    """What arrives, and how it looks from here."""
    return {"args": args, "types": [type(value).__name__ for value in args], "named": named}


@DBOS.workflow(name="dated")
def dated(when: datetime, day: date, *, other: datetime) -> list[str]:
    return [repr(when), repr(day), repr(other)]


@DBOS.workflow(name="golden")
def golden(text: str, num: int, *_rest: Any) -> str:
    """Publishes and streams the values that are the same texts in all languages; returns another of them."""
    value = {"text": text, "num": num, "flag": True}
    DBOS.set_event("golden", value)
    DBOS.write_stream("golden", value)
    DBOS.write_stream("golden", None)
    DBOS.close_stream("golden")
    return f"{text}-{num}"


@DBOS.workflow(name="fail")
def fail(kind: str) -> None:
    if kind == "portable":
        raise PortableWorkflowError("it failed", name="Failed", code=17, data={"a": [1, None]})
    raise TypeError(f"not {kind}")


@DBOS.workflow(name="inbox")
def inbox() -> list[Any]:
    """Two messages under a topic, one that does not come, and one without a topic."""
    return [
        DBOS.recv("topic", 30),
        DBOS.recv("topic", 30),
        DBOS.recv("topic", 0.1),
        DBOS.recv(timeout_seconds=30),
    ]


@DBOS.step(name="before")
def before(text: str) -> str:
    return f"before {text}"


@DBOS.step(name="after")
def after(text: str) -> str:
    return f"after {text}"


@DBOS.workflow(name="held")
def held(text: str) -> list[Any]:
    """A step before and a step behind a message."""
    first = before(text)
    DBOS.set_event("stage", 1)
    message = DBOS.recv("go", 60)
    return [first, message, after(text)]


@DBOS.workflow(name="clock")
def clock() -> str:
    """Publishes the time, which readers compare with theirs, whenever a message says so."""
    DBOS.recv("go", 60)
    DBOS.set_event("at", time.time())
    while DBOS.recv("go", 60) == "tick":
        DBOS.write_stream("times", time.time())
    DBOS.close_stream("times")
    return "stopped"


@DBOS.workflow(name="watch")
def watch(workflow_id: str) -> list[float]:
    """How long after its making each value of a `clock` arrives; says in an event how many it has seen."""
    DBOS.set_event("seen", 0)
    published = DBOS.get_event(workflow_id, "at", 60)
    lags = [time.time() - published]
    DBOS.set_event("seen", 1)
    for at in DBOS.read_stream(workflow_id, "times"):
        lags.append(time.time() - at)
        DBOS.set_event("seen", len(lags))
    return lags


@DBOS.dbos_class()
class Shop(DBOSConfiguredInstance):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(config_name=name)

    @DBOS.workflow()
    def open(self, day: date) -> list[Any]:
        return [self.name, repr(day)]


def main() -> None:
    DBOS(
        config={
            "name": "ours",
            "system_database_url": URL,
            "application_version": "o1",
            "executor_id": "ours",
            "notification_listener_polling_interval_sec": 30.0 if ACTION == "listen" else 1.0,
        }
    )
    Shop("north")
    DBOS.launch()
    DBOS.register_queue("ours")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Without waiting for workflows that still wait.
    os._exit(0)


main()
