"""The nearest rival per step, Absurd (Postgres only): two of the workloads, written for its public API.

    python absurd_workloads.py <workload> <database_url> [--json] [--scale F]

Its schema has to be there already (``absurdctl init``). Absurd runs tasks from a queue only; the worker lives
in this process and starts before the first task is spawned, as a service would have it.
"""

import argparse
import asyncio
import threading
import time
from typing import Any

from absurd_sdk import Absurd, AsyncAbsurd
from probe import Stopwatch, emit, report

STEPS_SEQUENTIAL = 1_000
WORKFLOWS_CONCURRENT = 1_000
IN_FLIGHT = 200
POLL_SECONDS = 0.01

latencies: list[float] = []


def one(i: int) -> int:
    return i


def sequential_sync(database_url: str, scale: float) -> dict[str, Any]:
    """Steps one after the other in one task; timed inside the task, so claiming it is not counted."""
    count = int(STEPS_SEQUENTIAL * scale)
    app = Absurd(database_url, queue_name="bench")
    app.create_queue()
    watch = Stopwatch()

    @app.register_task(name="steps")
    def steps(params: Any, ctx: Any) -> int:
        with watch:
            for i in range(params["count"]):
                start = time.perf_counter()
                ctx.step(f"one-{i}", lambda i=i: one(i))
                latencies.append(time.perf_counter() - start)
        return int(params["count"])

    for size in (20, count):
        latencies.clear()
        task = app.spawn("steps", {"count": size})
        app.work_batch(batch_size=1)
        if app.await_task_result(task["task_id"], timeout=60).state != "completed":
            raise SystemExit("the task did not complete")
    return report(watch, count, latencies)


def concurrent_sync(database_url: str, scale: float) -> dict[str, Any]:
    """Five-step tasks: spawned one after the other while a worker with 200 threads runs them."""
    count = int(WORKFLOWS_CONCURRENT * scale)
    app = Absurd(database_url, queue_name="bench")
    app.create_queue()
    spawner = Absurd(database_url, queue_name="bench")
    lock = threading.Lock()
    finished = 0

    @app.register_task(name="five")
    def five(params: Any, ctx: Any) -> int:
        nonlocal finished
        for i in range(5):
            start = time.perf_counter()
            ctx.step(f"one-{i}", lambda i=i: one(i))
            latencies.append(time.perf_counter() - start)
        with lock:
            finished += 1
            if finished == count:
                app.stop_worker()
        return 5

    def spawn_all() -> None:
        for _ in range(count):
            tasks.append(spawner.spawn("five", {}, queue="bench")["task_id"])

    tasks: list[str] = []
    with Stopwatch() as watch:
        spawning = threading.Thread(target=spawn_all)
        spawning.start()
        app.start_worker(concurrency=IN_FLIGHT, poll_interval=POLL_SECONDS)
        spawning.join()
    for task_id in tasks:
        if spawner.await_task_result(task_id, timeout=60).state != "completed":
            raise SystemExit(f"task {task_id} did not complete")
    return report(watch, count, latencies)


async def concurrent_async(database_url: str, scale: float) -> dict[str, Any]:
    """Five-step tasks: spawned one after the other while an async worker runs 200 of them at a time."""
    count = int(WORKFLOWS_CONCURRENT * scale)
    app = AsyncAbsurd(database_url, queue_name="bench")
    await app.create_queue()
    spawner = AsyncAbsurd(database_url, queue_name="bench")
    finished = 0

    @app.register_task(name="five")
    async def five(params: Any, ctx: Any) -> int:
        nonlocal finished
        for i in range(5):

            async def body(i: int = i) -> int:
                return one(i)

            start = time.perf_counter()
            await ctx.step(f"one-{i}", body)
            latencies.append(time.perf_counter() - start)
        finished += 1
        if finished == count:
            app.stop_worker()
        return 5

    with Stopwatch() as watch:
        worker = asyncio.create_task(app.start_worker(concurrency=IN_FLIGHT, poll_interval=POLL_SECONDS))
        tasks = [(await spawner.spawn("five", {}, queue="bench"))["task_id"] for _ in range(count)]
        await worker
    for task_id in tasks:
        if (await spawner.await_task_result(task_id, timeout=60)).state != "completed":
            raise SystemExit(f"task {task_id} did not complete")
    return report(watch, count, latencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=["sequential_sync", "concurrent_sync", "concurrent_async"])
    parser.add_argument("database_url")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of operations")
    options = parser.parse_args()
    arguments = (options.database_url, options.scale)
    if options.workload == "sequential_sync":
        record = sequential_sync(*arguments)
    elif options.workload == "concurrent_sync":
        record = concurrent_sync(*arguments)
    else:
        record = asyncio.run(concurrent_async(*arguments))
    emit(record, options.json)


if __name__ == "__main__":
    main()
