"""A process that debounces one key: `python worker.py <database_url> <executor id> <calls>`.

Prints "ready", begins when its input says so, and answers with one JSON line: a list of calls (see `recording.Call`).
"""

from __future__ import annotations

import json
import sys

from dbos import DBOS
from tests.debouncing.recording import debounce_often


def main() -> None:
    database_url, executor_id, calls = sys.argv[1:]
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": database_url,
            "executor_id": executor_id,
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    print("ready", flush=True)
    sys.stdin.readline()
    made = debounce_often(executor_id, int(calls))
    print(json.dumps([call.__dict__ for call in made]), flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    main()
