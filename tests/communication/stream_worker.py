"""A process that writes a stream, a value for each line of its input, and then ends.

    python stream_worker.py <database_url>

A line `die` kills it in the middle of the workflow, whose id is "w".
"""

from __future__ import annotations

import os
import signal
import sys
import time

from dbos import DBOS, SetWorkflowID


@DBOS.workflow(name="writing")
def writing() -> None:
    for line in sys.stdin:
        if line == "die\n":
            os.kill(os.getpid(), signal.SIGKILL)
        DBOS.write_stream("k", time.time())


def main() -> None:
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": sys.argv[1],
            "executor_id": "writer",
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(writing)
    print("ready", flush=True)
    handle.get_result()
    DBOS.destroy()


if __name__ == "__main__":
    main()
