"""Rows about messages, events and streams: what each side does, how much of it, and how it is measured."""

import argparse
from contextlib import ExitStack
from typing import NamedTuple

from environments import Backend, BenchError, Child, run_child
from measure import Record
from report import BACKEND_TITLES, NOTHING, Grid, number

SCRIPT = "talk_workloads.py"


class TalkRow(NamedTuple):
    """A row: the work of ours, and of the incumbent on SQLite and Postgres, where more would only take longer."""

    title: str
    unit: str
    targets: tuple[float, float]  # on SQLite, on Postgres
    ours: int
    incumbent: tuple[int, int]


ROWS = {
    "ping_pong": TalkRow("ping-pong of two workflows", "rounds", (50, 8), 500, (5, 100)),
    "event_sets": TalkRow("events set in one workflow", "events", (4, 4), 1_000, (200, 200)),
    "stream_writes": TalkRow("stream entries of one workflow", "entries", (4, 4), 1_000, (200, 200)),
    "event_writers": TalkRow("events set by 100 async workflows", "events", (30, 30), 5_000, (500, 500)),
    "stream_writers": TalkRow("stream entries of 100 async workflows", "entries", (30, 30), 5_000, (500, 500)),
}
TABLES = ("talk_latency", "readers")
LATENCIES = {
    "message_latency": ("a message to a waiting recv", "receiver"),
    "event_latency": ("an event to a waiting get_event", "publisher"),
    "stream_latency": ("a stream entry to its reader", "streamer"),
}
SAMPLES = {"ours": 300, "incumbent": 20}
TARGETS_MS = {False: 3.0, True: 8.0}


def measure_talk(python: str, name: str, side: str, backend: Backend, scale: float) -> Record:
    row = ROWS[name]
    count = row.ours if side == "ours" else row.incumbent[0 if backend.name == "sqlite" else 1]
    with backend.fresh_database() as url:
        backend.settle()
        return run_child(python, SCRIPT, name, url, "--count", str(max(5, int(count * scale))), "--json")


def latency_grid(backends: list[Backend], sides: dict[str, str], scale: float) -> Grid:
    grid = Grid(
        "How long a value is on its way to somebody who waits for it",
        ["what", "from", "database", "ours p50 ms", "p99", "incumbent p50 ms", "p99", "target p50", ""],
        notes=[f"{SAMPLES['ours']} values of ours, {SAMPLES['incumbent']} of the incumbent."],
    )
    for name, (title, talker) in LATENCIES.items():
        for across in (False, True):
            for backend in backends:
                found: dict[str, Record] = {}
                for side, python in sides.items():
                    try:
                        found[side] = _measure_latency(python, side, name, talker, across, backend, scale)
                    except BenchError as error:
                        grid.notes.append(f"{side}, {title}, {BACKEND_TITLES[backend.name]}: {error}")
                cells = [
                    number(found[side][figure]) if side in found else NOTHING
                    for side in sides
                    for figure in ("p50_ms", "p99_ms")
                ]
                reached = "ours" in found and found["ours"]["p50_ms"] <= TARGETS_MS[across]
                grid.rows.append(
                    [
                        title,
                        "another process" if across else "the same process",
                        BACKEND_TITLES[backend.name],
                        *cells,
                        f"{TARGETS_MS[across]:g}",
                        "reached" if reached else "missed",
                    ]
                )
    return grid


def _measure_latency(
    python: str, side: str, name: str, talker: str, across: bool, backend: Backend, scale: float
) -> Record:
    count = str(max(5, int(SAMPLES[side] * scale)))
    with backend.fresh_database() as url, ExitStack() as stack:
        backend.settle()
        if across:
            server = Child(python, SCRIPT, "serve", url, "--executor", "server", "--count", count, "--json")
            stack.callback(server.kill)
            server.tell(talker)
            server.expect("started")
        return run_child(python, SCRIPT, name, url, "--count", count, *(["--across"] if across else []), "--json")


def readers_grid(backends: list[Backend], sides: dict[str, str], scale: float) -> Grid:
    """Of ours only: the incumbent polls for each reader."""
    grid = Grid(
        "1,000 readers of one stream in one process",
        ["database", "entries", "delivered per s", "p50 ms", "p99 ms", "CPU seconds", "peak memory MB"],
    )
    for backend in backends:
        count = max(3, int(30 * scale))
        try:
            with backend.fresh_database() as url:
                backend.settle()
                record = run_child(sides["ours"], SCRIPT, "readers", url, "--count", str(count), "--json")
        except BenchError as error:
            grid.notes.append(f"{BACKEND_TITLES[backend.name]}: {error}")
            continue
        rate = record["operations"] / record["seconds"]
        figures = (rate, record["p50_ms"], record["p99_ms"], record["cpu_seconds"], record["rss_mb"])
        grid.rows.append([BACKEND_TITLES[backend.name], str(count), *map(number, figures)])
    return grid


def add_tables(options: argparse.Namespace, backends: list[Backend], sides: dict[str, str], scale: float) -> list[Grid]:
    """The tables that are not ratios of throughput."""
    grids = []
    if "talk_latency" in options.only:
        grids.append(latency_grid(backends, sides, scale))
    if "readers" in options.only:
        grids.append(readers_grid(backends, sides, scale))
    return grids
