"""Queues: the file that runs unchanged against this project's ``dbos`` and against the incumbent's.

    python queue_workloads.py <workload> <database_url> [--count N] [--executor ID] [--json]

As in ``workloads.py``, only documented API is used and settings are the defaults. Where one side has a faster way to do
the same (``enqueue_bulk``), it is found by asking what the package offers.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from probe import Stopwatch, cpu_seconds, emit, peak_rss_mb, percentile_ms, report
from workloads import check, leave, one

import dbos
from dbos import DBOS, DBOSConfig

QUEUE = "bench"
CALLERS = 16
WARM_UP = 20
IDLE_QUEUES = 100
IDLE_SCHEDULES = 100
# Of all gaps between enqueues whose latency is measured. Random ones: they have to fall anywhere into a poll.
GAPS_SECONDS = 10.0


@DBOS.workflow()
def one_step(i: int) -> int:
    return one(i)


@DBOS.workflow()
def trivial(i: int) -> int:
    return i


@DBOS.workflow()
def scheduled(at: datetime, context: Any) -> None: ...


@DBOS.workflow()
def late_by(sent_at: float) -> float:
    """Seconds from the enqueue to this line, on the clock that all processes of a machine share."""
    return time.time() - sent_at


def configure(database_url: str, executor: str, *, serve: bool) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "executor_id": executor,
        "application_version": "bench-1",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    if not serve:
        DBOS.listen_queues([])
    DBOS.launch()


# -------------------------------------------------------------------------------------------- enqueueing


def enqueue_one(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """One after the other, by one caller; nobody serves the queue."""
    configure(database_url, options.executor, serve=False)
    for i in range(WARM_UP):
        DBOS.enqueue_workflow(QUEUE, one_step, i)
    with Stopwatch() as watch:
        for i in range(options.count):
            DBOS.enqueue_workflow(QUEUE, one_step, i)
    return without_steps(watch, options.count)


def enqueue_callers(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """One after the other, by each of 16 threads."""
    configure(database_url, options.executor, serve=False)
    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(lambda i: DBOS.enqueue_workflow(QUEUE, one_step, i), range(WARM_UP)))
        with Stopwatch() as watch:
            list(threads.map(lambda i: DBOS.enqueue_workflow(QUEUE, one_step, i), range(options.count)))
    return without_steps(watch, options.count)


def enqueue_tasks(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """One after the other, by each of 16 tasks of one event loop."""
    configure(database_url, options.executor, serve=False)

    async def enqueue_all(numbers: range) -> None:
        left = iter(numbers)

        async def caller() -> None:
            for i in left:
                await DBOS.enqueue_workflow_async(QUEUE, one_step, i)

        await asyncio.gather(*[caller() for _ in range(CALLERS)])

    async def timed() -> Stopwatch:
        await enqueue_all(range(WARM_UP))
        with Stopwatch() as watch:
            await enqueue_all(range(options.count))
        return watch

    return without_steps(asyncio.run(timed()), options.count)


def enqueue_bulk(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """All at once, in the fastest way that the package documents."""
    configure(database_url, options.executor, serve=False)
    enqueue_many(database_url, WARM_UP)
    with Stopwatch() as watch:
        enqueue_many(database_url, options.count)
    return without_steps(watch, options.count)


def enqueue_many(database_url: str, count: int) -> None:
    item: Any = getattr(dbos, "EnqueueItem", None)
    if item is not None:
        DBOS.enqueue_workflows(QUEUE, [item(one_step, i) for i in range(count)])
    elif database_url.startswith("sqlite"):
        # One transaction of the application; there it is many times as fast as anything else.
        enqueue_in_transaction(database_url, count)
    else:
        asyncio.run(enqueue_together(count))


async def enqueue_together(count: int) -> None:
    await asyncio.gather(*[DBOS.enqueue_workflow_async(QUEUE, one_step, i) for i in range(count)])


def enqueue_in_transaction(database_url: str, count: int) -> None:
    from sqlalchemy import create_engine

    client: Any = dbos.DBOSClient(system_database_url=database_url)
    with create_engine(database_url).begin() as connection:
        for i in range(count):
            client.enqueue_in_transaction(connection, {"workflow_name": "one_step", "queue_name": QUEUE}, i)


def prepare(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Leave workflows waiting on the queue, for others to drain."""
    configure(database_url, options.executor, serve=False)
    workflow = trivial if options.trivial else one_step
    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(lambda i: DBOS.enqueue_workflow(QUEUE, workflow, i), range(options.count)))
    return {"operations": options.count}


# ----------------------------------------------------------------------------------------------- serving


def serve(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Launch, say so, register what a line of the input asks for, and serve until the input ends."""
    configure(database_url, options.executor, serve=True)
    print("ready", flush=True)
    for line in sys.stdin:
        register(json.loads(line))
        print("registered", flush=True)
    return {"rss_mb": peak_rss_mb(), "cpu_seconds": cpu_seconds()}


def without_steps(watch: Stopwatch, operations: int) -> dict[str, Any]:
    return {key: value for key, value in report(watch, operations, []).items() if key not in ("p50_ms", "p99_ms")}


def register(queues: dict[str, dict[str, Any]]) -> None:
    for name, limits in queues.items():
        DBOS.register_queue(name, **limits)


def latency(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """From the call of ``enqueue_workflow`` to the first line of the workflow, on a queue where nothing waits."""
    configure(database_url, options.executor, serve=not options.across)
    DBOS.register_queue(QUEUE)
    late: list[float] = []
    gaps = random.Random(1)
    for i in range(options.count + 3):
        handle = DBOS.enqueue_workflow(QUEUE, late_by, time.time())
        seconds = handle.get_result()
        if i >= 3:  # the first ones wait until the queue is noticed
            late.append(seconds)
        time.sleep(gaps.uniform(0, GAPS_SECONDS / options.count))
    check(len(late), options.count)
    return {
        "operations": options.count,
        "start_p50_ms": percentile_ms(late, 50),
        "start_p99_ms": percentile_ms(late, 99),
    }


def idle(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """A process with a hundred queues and schedules on which nothing happens, between two lines of the input."""
    configure(database_url, options.executor, serve=True)
    register({f"queue-{i}": {} for i in range(IDLE_QUEUES)})
    entries: Any = [
        {"schedule_name": f"schedule-{i}", "workflow_fn": scheduled, "schedule": "0 0 29 2 *"}
        for i in range(IDLE_SCHEDULES)
    ]
    DBOS.apply_schedules(entries)
    print("ready", flush=True)
    sys.stdin.readline()
    with Stopwatch() as watch:
        sys.stdin.readline()
    return without_steps(watch, 1) | {"threads": threading.active_count()}


WORKLOADS = {
    workload.__name__: workload
    for workload in (enqueue_one, enqueue_callers, enqueue_tasks, enqueue_bulk, prepare, serve, latency, idle)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("database_url")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--executor", default="bench")
    parser.add_argument("--trivial", action="store_true", help="prepare: workflows without a step")
    parser.add_argument("--across", action="store_true", help="latency: another process serves the queue")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    emit(WORKLOADS[options.workload](options.database_url, options), options.json)
    leave()


if __name__ == "__main__":
    main()
