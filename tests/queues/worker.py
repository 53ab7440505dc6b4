"""A process that serves queues until its input ends.

    python worker.py <database_url> <executor id> <version> [report]

The report is a JSON file of `[workflow id, began, ended]` of every "timed" workflow.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from dbos import DBOS

# list.append is atomic, so one list serves all threads.
seen: list[tuple[str | None, float, float]] = []


@DBOS.workflow(name="timed")
def timed(seconds: float) -> None:
    began = time.time()
    time.sleep(seconds)  # the work
    seen.append((DBOS.workflow_id, began, time.time()))


@DBOS.workflow(name="busy")
def busy(seconds: float) -> str:
    time.sleep(seconds)  # the work
    return DBOS.executor_id or ""


@DBOS.workflow(name="noted")
def noted(sent_at: float) -> float:
    """Seconds from the enqueue to the start, on the clock all processes of a machine share."""
    return time.time() - sent_at


def main() -> None:
    database_url, executor_id, version, *report = sys.argv[1:]
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": database_url,
            "executor_id": executor_id,
            "application_version": version,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()
    if report:
        Path(report[0]).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
