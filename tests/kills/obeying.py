"""What the worker programs share: each imports, waits for one JSON command on its standard input, and carries it out.

Found beside them, since they are run as scripts: `python worker.py <database url> <side log> <executor id>`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dbos import DBOS

URL, LOG, EXECUTOR = sys.argv[1:4]


def say(message: Any) -> None:
    """A line of JSON on standard output, for the test."""
    print(json.dumps(message), flush=True)


def open_log() -> Callable[[str], None]:
    """What notes a line in the side log, a file outside the database."""
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(line: str) -> None:
        # One write per line: a process killed in between leaves no half line.
        os.write(log, f"{line}\n".encode())

    return note


def work() -> None:
    """Serve the queues until killed or told to end."""
    sys.stdin.readline()


def obey(
    actions: Mapping[str, Callable[..., Any]],
    *,
    name: str = "kills",
    log_level: str = "WARNING",
    idle: tuple[str, ...] = (),
    before_launch: Callable[[dict[str, Any]], None] = lambda command: None,
) -> None:
    """Launch for the command that comes, and call what it names. In actions that are `idle` no queue is served."""
    DBOS(
        config={
            "name": name,
            "application_version": "v1",
            "executor_id": EXECUTOR,
            "log_level": log_level,
            "system_database_url": URL,
        }
    )
    say("ready")
    line = sys.stdin.readline()
    if not line:
        return
    command = json.loads(line)
    action = command.pop("action")
    before_launch(command)
    if action in idle:
        DBOS.listen_queues([])
    DBOS.launch()
    say("launched")
    actions[action](**command)
    DBOS.destroy()
