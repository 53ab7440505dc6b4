"""A process that serves queues: `python worker.py <database_url> <executor id> <version>`, until its input ends."""

from __future__ import annotations

import sys
import time

from dbos import DBOS


@DBOS.workflow(name="busy")
def busy(seconds: float) -> str:
    time.sleep(seconds)  # the work
    return DBOS.executor_id or ""


@DBOS.workflow(name="noted")
def noted(sent_at: float) -> float:
    """Seconds from the enqueue to the start, on the clock all processes of a machine share."""
    return time.time() - sent_at


def main() -> None:
    database_url, executor_id, version = sys.argv[1:]
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


if __name__ == "__main__":
    main()
