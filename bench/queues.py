"""Queue rows: what each side does, how much of it, and how it is measured."""

import argparse
import json
import time
from contextlib import ExitStack, closing
from statistics import median
from typing import NamedTuple

from environments import PEERS, Backend, BenchError, Child, Postgres, peer_python, run_child
from measure import Observer, Record
from report import BACKEND_TITLES, NOTHING, Comparison, Grid, number

SCRIPT = "queue_workloads.py"
QUEUE = "bench"
IDLE_SECONDS = 15.0
# The first seconds after launch are not what a process costs for hours.
IDLE_SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.2
LATENCY_TARGET_MS = (5.0, 25.0)


class QueueRow(NamedTuple):
    """A row: the work of ours, and of the incumbent, which is so slow that more would only take longer."""

    title: str
    targets: tuple[float, float]  # on SQLite, on Postgres
    ours: int
    incumbent: int
    workers: int = 0  # processes that drain; 0 for a workload in one process
    serial: bool = False


ROWS = {
    "enqueue_one": QueueRow("enqueue, one caller", (2.5, 2.5), 2_000, 300),
    "enqueue_callers": QueueRow("enqueue, 16 callers", (10, 10), 8_000, 500),
    "enqueue_tasks": QueueRow("enqueue, 16 async callers", (10, 10), 8_000, 500),
    "enqueue_bulk": QueueRow("enqueue many at once", (30, 30), 20_000, 1_000),
    "drain_1": QueueRow("drain one-step workflows, 1 process", (25, 25), 10_000, 400, workers=1),
    "drain_2": QueueRow("drain one-step workflows, 2 processes", (10, 10), 10_000, 400, workers=2),
    "drain_4": QueueRow("drain one-step workflows, 4 processes", (10, 10), 10_000, 400, workers=4),
    "serial": QueueRow("serial queue (global_concurrency=1)", (200, 200), 1_000, 5, workers=1, serial=True),
}
TABLES = ("latency", "idle", "peers")
SAMPLES = {"ours": 300, "incumbent": 10}


def measure_queue(python: str, name: str, side: str, backend: Backend, scale: float) -> Record:
    row = ROWS[name]
    count = row.ours if side == "ours" else row.incumbent
    # Five rounds of a poll are few enough already.
    count = max(5, int(count * scale))
    with backend.fresh_database() as url:
        if row.workers == 0:
            backend.settle()
            return run_child(python, SCRIPT, name, url, "--count", str(count), "--json")
        return _measure_drain(python, url, row, backend, count)


def _measure_drain(python: str, url: str, row: QueueRow, backend: Backend, count: int) -> Record:
    """Everything waits, the processes have launched, then the queue is registered; timed by the rows."""
    run_child(python, SCRIPT, "prepare", url, "--count", str(count), *(["--trivial"] if row.serial else []), "--json")
    backend.settle()
    with ExitStack() as stack:
        workers = [Child(python, SCRIPT, "serve", url, "--executor", f"w{i}", "--json") for i in range(row.workers)]
        for worker in workers:
            stack.callback(worker.kill)
        for worker in workers:
            worker.expect("ready")
        workers[0].tell(json.dumps({QUEUE: {"global_concurrency": 1} if row.serial else {}}))
        workers[0].expect("registered")
        with closing(Observer(url, POLL_SECONDS)) as observer:
            observer.wait_for_success(count, workers[0])
            seconds = observer.seconds_of_work(count, 0 if row.serial else 1)
        records = [worker.result(send="") for worker in workers]
    return {
        "operations": count,
        "seconds": seconds,
        "rss_mb": max(record["rss_mb"] for record in records),
        "cpu_seconds": sum(record["cpu_seconds"] for record in records),
    }


# ------------------------------------------------------------------------------------------------ latency


def latency_grid(backends: list[Backend], sides: dict[str, str], scale: float) -> Grid:
    grid = Grid(
        "From an enqueue to the first line of the workflow, on an idle queue",
        ["served by", "database", "ours p50 ms", "p99", "incumbent p50 ms", "p99", "target", ""],
        notes=[
            f"{SAMPLES['ours']} enqueues of ours, {SAMPLES['incumbent']} of the incumbent, which polls every second."
        ],
    )
    for across in (False, True):
        for backend in backends:
            found: dict[str, Record] = {}
            for side, python in sides.items():
                try:
                    found[side] = _measure_latency(python, side, across, backend, scale)
                except BenchError as error:
                    grid.notes.append(f"{side}, {BACKEND_TITLES[backend.name]}: {error}")
            cells = [
                number(found[side][figure]) if side in found else NOTHING
                for side in sides
                for figure in ("start_p50_ms", "start_p99_ms")
            ]
            ours = found.get("ours", {"start_p50_ms": 1e9, "start_p99_ms": 1e9})
            p50, p99 = LATENCY_TARGET_MS
            reached = ours["start_p50_ms"] <= p50 and ours["start_p99_ms"] <= p99
            grid.rows.append(
                [
                    "another process" if across else "the same process",
                    BACKEND_TITLES[backend.name],
                    *cells,
                    f"{p50:g} / {p99:g}",
                    "reached" if reached else "missed",
                ]
            )
    return grid


def _measure_latency(python: str, side: str, across: bool, backend: Backend, scale: float) -> Record:
    count = str(max(5, int(SAMPLES[side] * scale)))
    with backend.fresh_database() as url, ExitStack() as stack:
        backend.settle()
        if across:
            server = Child(python, SCRIPT, "serve", url, "--executor", "server", "--json")
            stack.callback(server.kill)
            server.expect("ready")
        return run_child(python, SCRIPT, "latency", url, "--count", count, *(["--across"] if across else []), "--json")


# --------------------------------------------------------------------------------------------------- idle


def idle_grid(backends: list[Backend], sides: dict[str, str], scale: float) -> Grid:
    grid = Grid(
        "What a process with 100 idle queues and 100 idle schedules costs",
        ["side", "database", "transactions per s", "CPU ms per s", "threads", "memory MB"],
        notes=[f"Over {IDLE_SECONDS * scale:g} s; transactions by pg_stat_database, CPU without the database server."],
    )
    for backend in backends:
        for side, python in sides.items():
            try:
                record = _measure_idle(python, backend, scale)
            except BenchError as error:
                grid.notes.append(f"{side}, {BACKEND_TITLES[backend.name]}: {error}")
                continue
            grid.rows.append(
                [
                    side,
                    BACKEND_TITLES[backend.name],
                    number(record.get("transactions_per_second")),
                    number(record["cpu_seconds"] * 1000 / record["seconds"]),
                    str(record["threads"]),
                    number(record["rss_mb"]),
                ]
            )
    return grid


def _measure_idle(python: str, backend: Backend, scale: float) -> Record:
    with backend.fresh_database() as url, ExitStack() as stack:
        child = Child(python, SCRIPT, "idle", url, "--json")
        stack.callback(child.kill)
        child.expect("ready")
        time.sleep(IDLE_SETTLE_SECONDS)
        before = backend.transactions(url) if isinstance(backend, Postgres) else 0
        child.tell("begin")
        time.sleep(IDLE_SECONDS * scale)
        after = backend.transactions(url) if isinstance(backend, Postgres) else 0
        record = child.result(send="end\n")
    if isinstance(backend, Postgres):
        record["transactions_per_second"] = (after - before) / record["seconds"]
    return record


# -------------------------------------------------------------------------------------------------- peers

PEER_ROWS = {
    "enqueue_one": ("enqueue_one", 1_000),
    "enqueue_bulk": ("enqueue_bulk", 20_000),
    "drain": ("drain_1", 5_000),
}


def peers_grid(backend: Backend, comparisons: list[Comparison], rounds: int, scale: float) -> Grid:
    """Ours as in this run; the peers at the work of ours that is nearest to what they do."""
    grid = Grid(
        "Against other queues on Postgres",
        ["work", "per second", "ours", *[PEERS[peer][0] for peer in PEERS]],
        notes=[
            "The peers run jobs that are async functions without steps, record no result (PgQueuer forgets finished "
            "jobs) and enqueue and run them in one process, up to 250 at once; ours records start, step and outcome "
            "of every workflow."
        ],
    )
    for workload, (row, count) in PEER_ROWS.items():
        ours = next((c.rate("ours") for c in comparisons if (c.workload, c.backend) == (row, backend.name)), None)
        cells = [ROWS[row].title, "jobs", number(ours)]
        for peer in PEERS:
            try:
                records = [_measure_peer(peer, workload, backend, max(10, int(count * scale))) for _ in range(rounds)]
            except BenchError as error:
                grid.notes.append(f"{peer}, {workload}: {error}")
                cells.append(NOTHING)
                continue
            rate = records[0]["operations"] / median(record["seconds"] for record in records)
            times = NOTHING if ours is None else f"{number(ours / rate)}x"
            cells.append(f"{number(rate)} ({times})")
        grid.rows.append(cells)
    return grid


def _measure_peer(peer: str, workload: str, backend: Backend, count: int) -> Record:
    with backend.fresh_database() as url:
        backend.settle()
        return run_child(peer_python(peer), "peer_workloads.py", peer, workload, url, "--count", str(count), "--json")


def add_tables(
    options: argparse.Namespace,
    backends: list[Backend],
    comparisons: list[Comparison],
    sides: dict[str, str],
    rounds: int,
    scale: float,
) -> list[Grid]:
    """The tables about queues that are not ratios of throughput."""
    grids = []
    if "latency" in options.only:
        grids.append(latency_grid(backends, sides, scale))
    if "idle" in options.only:
        grids.append(idle_grid(backends, sides, scale))
    if "peers" in options.only:
        grids += [peers_grid(b, comparisons, rounds, scale) for b in backends if b.name == "postgres"]
    return grids
