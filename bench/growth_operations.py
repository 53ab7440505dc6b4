"""How long single operations take in the database that is given: listings by every filter, status, enqueue, send, recv.

    python growth_operations.py <database_url> [--samples N] [--json]

Prints milliseconds, the median of the samples of each operation. Only documented API is used.
"""

import argparse
import time
from collections.abc import Callable
from datetime import datetime, timezone
from statistics import median
from typing import Any

from probe import emit
from workloads import leave, one

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowAttributes, SetWorkflowID

QUEUE = "bench"
PAGE = 20
FEWEST_SAMPLES = 3
ENOUGH_SECONDS = 1.0
# What the filters look for: workflows of this run, made before anything is timed, so that every database has them.
MADE = 40


@DBOS.workflow()
def kept(i: int) -> int:
    return one(i)


@DBOS.workflow()
def parent(i: int) -> int:
    return kept(i)


@DBOS.workflow()
def fails(i: int) -> None:
    raise ValueError(i)


@DBOS.workflow()
def receives(count: int) -> list[float]:
    """Seconds of each receive, of messages that are there already."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        DBOS.recv("there")
        seconds.append(time.perf_counter() - start)
    return seconds


def make() -> None:
    for i in range(MADE):
        with SetWorkflowID(f"made-{i:03}"), SetWorkflowAttributes({"made": True}):
            parent(i)
        try:
            fails(i)
        except ValueError:
            pass
        with SetWorkflowID(f"waiting-{i:03}"):
            DBOS.enqueue_workflow(QUEUE, kept, i)
        with SetEnqueueOptions(delay_seconds=36_000):
            DBOS.enqueue_workflow(QUEUE, kept, i)
    DBOS.fork_workflow("made-000", 1, queue_name=QUEUE)


def filters() -> dict[str, dict[str, Any]]:
    """Every filter that listings offer, alone, with a value that something has."""
    now = datetime.now(timezone.utc).isoformat()
    return {
        "none": {},
        "newest": {"sort_desc": True},
        "workflow_ids": {"workflow_ids": ["made-001"]},
        "workflow_id_prefix": {"workflow_id_prefix": "made-"},
        "status SUCCESS": {"status": "SUCCESS"},
        "status ERROR": {"status": "ERROR"},
        "status ENQUEUED": {"status": "ENQUEUED"},
        "status DELAYED": {"status": "DELAYED"},
        "start_time": {"start_time": now[:10]},
        "end_time": {"end_time": now},
        "completed_after": {"completed_after": now[:10]},
        "completed_before": {"completed_before": now},
        "dequeued_after": {"dequeued_after": now[:10]},
        "dequeued_before": {"dequeued_before": now},
        "name": {"name": kept.__qualname__, "sort_desc": True},
        "app_version": {"app_version": "bench-1"},
        "executor_id": {"executor_id": "bench"},
        "user, of nobody": {"user": "nobody"},
        "queue_name": {"queue_name": QUEUE, "sort_desc": True},
        "queues_only": {"queues_only": True},
        "parent_workflow_id": {"parent_workflow_id": "made-001"},
        "has_parent": {"has_parent": True, "sort_desc": True},
        "forked_from": {"forked_from": "made-000"},
        "is_fork": {"is_fork": True, "sort_desc": True},
        "was_forked_from": {"was_forked_from": True, "sort_desc": True},
        "schedule_name, of nothing": {"schedule_name": "nothing"},
        "attributes": {"attributes": {"made": True}, "sort_desc": True},
    }


def timed(samples: int, operation: Callable[[], object]) -> float:
    seconds: list[float] = []
    operation()
    # What takes long shows itself in few.
    while len(seconds) < FEWEST_SAMPLES or (len(seconds) < samples and sum(seconds) < ENOUGH_SECONDS):
        start = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - start)
    return median(seconds) * 1000


def measure(database_url: str, samples: int) -> dict[str, float]:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "executor_id": "bench",
        "application_version": "bench-1",
        "log_level": "CRITICAL",
    }
    DBOS(config=config)
    DBOS.listen_queues([])
    DBOS.launch()
    make()
    found: dict[str, float] = {}
    for title, given in filters().items():
        found[f"list, {title}"] = timed(samples, lambda given=given: DBOS.list_workflows(limit=PAGE, **given))
    found["list_queued_workflows"] = timed(samples, lambda: DBOS.list_queued_workflows(limit=PAGE))
    found["list_workflow_steps"] = timed(samples, lambda: DBOS.list_workflow_steps("made-001"))
    found["get_workflow_status"] = timed(samples, lambda: DBOS.get_workflow_status("made-001"))
    found["enqueue"] = timed(samples, lambda: DBOS.enqueue_workflow(QUEUE, kept, 1))
    found["send"] = timed(samples, lambda: DBOS.send("waiting-001", 1))
    with SetWorkflowID("receiver"):
        DBOS.enqueue_workflow("later", receives, samples)
    for i in range(samples):
        DBOS.send("receiver", i, "there")
    # The queue is served by this process from here on.
    DBOS.resume_workflow("receiver")
    found["recv"] = median(DBOS.retrieve_workflow("receiver").get_result()) * 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database_url")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    emit(measure(options.database_url, options.samples), options.json)
    leave()


if __name__ == "__main__":
    main()
