"""A process of an application with a schedule: `python worker.py <database_url>`, until its input ends."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from dbos import DBOS


@DBOS.step()
def note(at: datetime) -> float:
    return at.timestamp()


@DBOS.workflow(name="ticking")
def ticking(at: datetime, context: Any) -> float:
    return note(at)


def configure(database_url: str) -> None:
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": database_url,
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )


def main() -> None:
    configure(sys.argv[1])
    DBOS.launch()
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    main()
