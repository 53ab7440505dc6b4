"""The workload file: run unchanged against this project's ``dbos`` and against the incumbent's.

    python workloads.py <workload> <database_url> [--json] [--scale F]

Only documented API is used, default settings throughout: what differs between two runs of this file is the
package that answers to ``import dbos``. Every step returns an integer, so what is timed is the library.
"""

import argparse
import asyncio
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from probe import Stopwatch, cpu_seconds, current_rss_mb, emit, peak_rss_mb, report

from dbos import DBOS, DBOSConfig

STEPS_SEQUENTIAL = 1_000
WORKFLOWS_ONE_STEP = 500
WORKFLOWS_CONCURRENT = 1_000
IN_FLIGHT = 200
WORKFLOWS_PENDING = 1_000
STEPS_RECORDED = 10
SLEEPERS_ASYNC = 10_000
SLEEPERS_SYNC = 1_000
WARM_UP_STEPS = 20
WARM_UP_WORKFLOWS = 5
SLEEP_SECONDS = 3_600.0

GO = os.environ.get("DBOS_BENCH_GO") == "1"
"""Set in the second process of the recovery workload: the workflows may pass the gate."""


# ------------------------------------------------------------------ steps and workflows under test


@DBOS.step()
def one(i: int) -> int:
    return i


@DBOS.step()
async def one_async(i: int) -> int:
    return i


def timed_one(i: int, samples: list[float]) -> int:
    start = time.perf_counter()
    value = one(i)
    samples.append(time.perf_counter() - start)
    return value


async def timed_one_async(i: int, samples: list[float]) -> int:
    start = time.perf_counter()
    value = await one_async(i)
    samples.append(time.perf_counter() - start)
    return value


# list.append is atomic, so one list serves all workflow threads; the samples are no workflow state.
latencies: list[float] = []


@DBOS.workflow()
def steps_sync(count: int) -> int:
    return sum(timed_one(i, latencies) for i in range(count))


@DBOS.workflow()
async def steps_async(count: int) -> int:
    total = 0
    for i in range(count):
        total += await timed_one_async(i, latencies)
    return total


class Gate:
    """Counts the workflows that reached it; without GO each of them stays there until the process dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._never = threading.Event()
        self.arrived = 0
        self.expected = 0
        self.full = threading.Event()

    def expect(self, count: int) -> None:
        self.expected = count

    def arrive(self) -> None:
        with self._lock:
            self.arrived += 1
            if self.arrived == self.expected:
                self.full.set()

    def block(self) -> None:
        self.arrive()
        self._never.wait()


gate = Gate()
steps_run: list[int] = []


@DBOS.step()
def one_counted(i: int) -> int:
    """Tells in the recovering process whether a recorded step was run again."""
    steps_run.append(i)
    return i


@DBOS.workflow()
def recorded_then_gate(count: int) -> int:
    total = sum(one_counted(i) for i in range(count))
    if not GO:
        gate.block()
    return total


@DBOS.workflow()
def sleeper_sync(seconds: float) -> None:
    gate.arrive()
    DBOS.sleep(seconds)


@DBOS.workflow()
async def sleeper_async(seconds: float) -> None:
    gate.arrive()
    await DBOS.sleep_async(seconds)


# ------------------------------------------------------------------------------------ process life


def configure(database_url: str) -> None:
    """The identity is fixed, so that a second process recovers what the first one left."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "executor_id": "bench",
        "application_version": "bench-1",
        "log_level": "ERROR",
    }
    DBOS(config=config)


def forget_warm_up() -> None:
    latencies.clear()


def check(actual: int, expected: int) -> None:
    if actual != expected:
        raise SystemExit(f"wrong result: {actual}, expected {expected}; the timing would be meaningless")


# --------------------------------------------------------------------------------------- workloads


def sequential_sync(database_url: str, scale: float) -> dict[str, Any]:
    """Steps one after the other in one sync workflow."""
    count = int(STEPS_SEQUENTIAL * scale)
    configure(database_url)
    DBOS.launch()
    steps_sync(WARM_UP_STEPS)
    forget_warm_up()
    with Stopwatch() as watch:
        total = steps_sync(count)
    check(total, sum(range(count)))
    return report(watch, count, latencies)


async def sequential_async(database_url: str, scale: float) -> dict[str, Any]:
    """Steps one after the other in one async workflow."""
    count = int(STEPS_SEQUENTIAL * scale)
    configure(database_url)
    DBOS.launch()
    await steps_async(WARM_UP_STEPS)
    forget_warm_up()
    with Stopwatch() as watch:
        total = await steps_async(count)
    check(total, sum(range(count)))
    return report(watch, count, latencies)


def one_step(database_url: str, scale: float) -> dict[str, Any]:
    """One-step sync workflows, each called when the one before has returned."""
    count = int(WORKFLOWS_ONE_STEP * scale)
    configure(database_url)
    DBOS.launch()
    for _ in range(WARM_UP_WORKFLOWS):
        steps_sync(1)
    forget_warm_up()
    with Stopwatch() as watch:
        for _ in range(count):
            check(steps_sync(1), 0)
    return report(watch, count, latencies)


def concurrent_sync(database_url: str, scale: float) -> dict[str, Any]:
    """Five-step sync workflows: ``DBOS.start_workflow`` for all of them, then ``get_result`` on all."""
    count = int(WORKFLOWS_CONCURRENT * scale)
    configure(database_url)
    DBOS.launch()
    for handle in [DBOS.start_workflow(steps_sync, 5) for _ in range(WARM_UP_WORKFLOWS)]:
        handle.get_result()
    forget_warm_up()
    with Stopwatch() as watch:
        handles = [DBOS.start_workflow(steps_sync, 5) for _ in range(count)]
        total = sum(handle.get_result() for handle in handles)
    check(total, 10 * count)
    return report(watch, count, latencies)


async def concurrent_async(database_url: str, scale: float) -> dict[str, Any]:
    """Five-step async workflows, awaited directly in tasks; a semaphore keeps 200 of them in flight."""
    count = int(WORKFLOWS_CONCURRENT * scale)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def in_slot() -> int:
        async with slots:
            return await steps_async(5)

    configure(database_url)
    DBOS.launch()
    await asyncio.gather(*[steps_async(5) for _ in range(WARM_UP_WORKFLOWS)])
    forget_warm_up()
    with Stopwatch() as watch:
        totals = await asyncio.gather(*[in_slot() for _ in range(count)])
    check(sum(totals), 10 * count)
    return report(watch, count, latencies)


def leave_pending(database_url: str, scale: float) -> dict[str, Any]:
    """Record ten steps in every workflow, then die as a crash would: by SIGKILL, nothing cleaned up."""
    count = int(WORKFLOWS_PENDING * scale)
    configure(database_url)
    DBOS.launch()
    gate.expect(count)
    for _ in range(count):
        DBOS.start_workflow(recorded_then_gate, STEPS_RECORDED)
    gate.full.wait()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def recover(database_url: str, scale: float) -> dict[str, Any]:
    """Launch on what ``leave_pending`` left; the runner watches the rows and says when to stop.

    The runner holds the clock: from before this process was started until every row is SUCCESS.
    """
    configure(database_url)
    DBOS.launch()
    sys.stdin.readline()
    return {
        "rss_mb": peak_rss_mb(),
        "cpu_seconds": cpu_seconds(),
        "operations": int(WORKFLOWS_PENDING * scale),
        "steps_run": len(steps_run),
    }


def create_schema(database_url: str, scale: float) -> dict[str, Any]:
    """Create the system tables and leave them empty: the ground the floor is measured on."""
    configure(database_url)
    DBOS.launch()
    return {}


def _sleeping(count: int, empty_mb: float) -> dict[str, Any]:
    """Memory once all bodies have reached their sleep and the last sleep records are written."""
    gate.full.wait()
    previous_cpu = cpu_seconds()
    time.sleep(1.0)
    while (now_cpu := cpu_seconds()) - previous_cpu > 0.2:
        previous_cpu = now_cpu
        time.sleep(1.0)
    rss_mb = current_rss_mb()
    return {
        "operations": count,
        "empty_mb": empty_mb,
        "rss_mb": rss_mb,
        "kb_each": (rss_mb - empty_mb) * 1024 / count,
        "threads": threading.active_count(),
    }


def sleepers_sync(database_url: str, scale: float) -> dict[str, Any]:
    """Memory of one process in which so many sync workflows sleep at the same time."""
    count = int(SLEEPERS_SYNC * scale)
    configure(database_url)
    DBOS.launch()
    steps_sync(1)
    empty_mb = current_rss_mb()
    gate.expect(count)
    for _ in range(count):
        DBOS.start_workflow(sleeper_sync, SLEEP_SECONDS)
    return _sleeping(count, empty_mb)


async def sleepers_async(database_url: str, scale: float) -> dict[str, Any]:
    """Memory of one process in which so many async workflows sleep at the same time."""
    count = int(SLEEPERS_ASYNC * scale)
    configure(database_url)
    DBOS.launch()
    await steps_async(1)
    empty_mb = current_rss_mb()
    gate.expect(count)
    sleepers = [asyncio.ensure_future(sleeper_async(SLEEP_SECONDS)) for _ in range(count)]
    measured = await asyncio.to_thread(_sleeping, count, empty_mb)
    check(sum(task.done() for task in sleepers), 0)
    return measured


Workload = Callable[[str, float], dict[str, Any] | Awaitable[dict[str, Any]]]

WORKLOADS: dict[str, Workload] = {
    workload.__name__: workload
    for workload in (
        sequential_sync,
        sequential_async,
        one_step,
        concurrent_sync,
        concurrent_async,
        leave_pending,
        recover,
        create_schema,
        sleepers_sync,
        sleepers_async,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("database_url")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of operations")
    options = parser.parse_args()
    workload = WORKLOADS[options.workload]

    measured = workload(options.database_url, options.scale)
    if inspect.iscoroutine(measured):

        async def until_left() -> None:
            emit(await measured, options.json)
            leave()

        asyncio.run(until_left())
    elif isinstance(measured, dict):
        emit(measured, options.json)
        leave()


def leave() -> None:
    """End the process at once: shutting down is not measured, and sleeping workflows would hold it up."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
