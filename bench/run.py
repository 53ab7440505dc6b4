"""Benchmark our dbos against the incumbent: the same workload file on both, alternating, side by side.

python run.py [--quick] [--only NAME,...] [--backend sqlite|postgres] [--rounds N] [--check]
              [--markdown FILE] [--svg FILE] [--json FILE]
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import queues
import talk
from environments import (
    ABSURD_REQUIREMENTS,
    Backend,
    BenchError,
    absurd_python,
    incumbent_python,
    open_backends,
    ours_python,
)
from measure import (
    Record,
    measure_absurd,
    measure_floor,
    measure_import_ms,
    measure_recovery,
    measure_workflow_floor,
    measure_workload,
    version_of,
)
from report import (
    BACKEND_TITLES,
    NOTHING,
    Comparison,
    Grid,
    beside_grid,
    number,
    open_console,
    print_grid,
    ratio_grid,
    to_markdown,
    to_svg,
)

WORKFLOWS, STEPS = "workflows", "steps"
# name: (title, unit, target on SQLite, target on Postgres)
COMPARED: dict[str, tuple[str, str, float, float]] = {
    "sequential_sync": ("1,000 steps, one sync workflow", STEPS, 6, 5),
    "sequential_async": ("1,000 steps, one async workflow", STEPS, 7, 5),
    "one_step": ("500 one-step sync workflows in a row", WORKFLOWS, 8, 6),
    "concurrent_sync": ("1,000 five-step sync at once", WORKFLOWS, 15, 12),
    "concurrent_async": ("1,000 five-step async, 200 in flight", WORKFLOWS, 50, 50),
    "recovery": ("recovery of 1,000, 10 steps each", WORKFLOWS, 10, 10),
    **{name: (row.title, WORKFLOWS, *row.targets) for name, row in queues.ROWS.items()},
    **{name: (row.title, row.unit, *row.targets) for name, row in talk.ROWS.items()},
}
EXTRAS = ("import", "floor", "absurd", *queues.TABLES, *talk.TABLES)
# What is measured with the bare driver too, and how often.
WORKFLOW_FLOORS = {"one_step": 500, "enqueue_callers": 8_000, "enqueue_bulk": 20_000}
IMPORT_TARGET_MS = 120
IMPORT_RUNS = 7
QUICK_SCALE = 0.2


def main() -> int:
    options = parse_options()
    console = open_console()
    scale = QUICK_SCALE if options.quick else 1.0
    rounds = options.rounds or (1 if options.quick else 3)
    ours, incumbent = ours_python(), incumbent_python()
    with open_backends(options.backend) as backends:
        facts = describe(ours, incumbent, backends, rounds, scale)
        for fact in facts:
            console.print(fact, style="dim", highlight=False)
        comparisons = [
            compare(name, backend, ours, incumbent, rounds, scale)
            for backend in backends
            for name in COMPARED
            if name in options.only
        ]
        comparisons.sort(key=lambda c: list(COMPARED).index(c.workload))
        grids = [ratio_grid(comparisons), beside_grid(comparisons)] if comparisons else []
        if "import" in options.only:
            grids.append(import_grid(ours, incumbent))
        if "floor" in options.only:
            grids.append(floor_grid(backends, comparisons, rounds, scale))
            grids.append(workflow_floor_grid(backends, comparisons, rounds, scale))
        if "absurd" in options.only:
            grids += [absurd_grid(b, comparisons, rounds, scale) for b in backends if b.name == "postgres"]
        sides = {"ours": ours, "incumbent": incumbent}
        grids += queues.add_tables(options, backends, comparisons, sides, rounds, scale)
        grids += talk.add_tables(options, backends, sides, scale)
    for grid in grids:
        print_grid(grid, console)
    problems = [f"{c.title}, {c.backend}: {problem}" for c in comparisons for problem in c.problems]
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    save(options, facts, grids, comparisons)
    missed = options.check and not all(c.reached for c in comparisons)
    return 1 if problems or missed else 0


def parse_options() -> argparse.Namespace:
    names = [*COMPARED, *EXTRAS]
    topics = {"queues": [*queues.ROWS, *queues.TABLES], "talk": [*talk.ROWS, *talk.TABLES]}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a fifth of the work, for a first look")
    parser.add_argument("--rounds", type=int, help="rounds of every workload (default: 3, with --quick 1)")
    parser.add_argument(
        "--only",
        default=",".join(names),
        help=f"comma-separated, of: queues, talk (all about them), {', '.join(names)}",
    )
    parser.add_argument("--backend", action="append", choices=list(BACKEND_TITLES), help="default: both")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is below its target")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a bar chart of the ratios there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records of all rounds there")
    options = parser.parse_args()
    options.only = [name for given in options.only.split(",") for name in topics.get(given, [given])]
    options.backend = options.backend or list(BACKEND_TITLES)
    unknown = sorted(set(options.only) - set(names))
    if unknown:
        parser.error(f"unknown workload {', '.join(unknown)}; there are {', '.join(names)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    return options


def describe(ours: str, incumbent: str, backends: list[Backend], rounds: int, scale: float) -> list[str]:
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}"
    work = "" if scale == 1.0 else f", {scale:.0%} of the work: ratios are a first look only"
    facts = [
        f"ours: dbos {version_of(ours)}; incumbent: dbos {version_of(incumbent)}; rounds: {rounds}{work}",
        f"Python {platform.python_version()}, {machine}",
        *[backend.describe() for backend in backends],
    ]
    if ours != incumbent:
        return facts
    return [*facts, "BOTH SIDES ARE THE SAME INTERPRETER: this run checks the harness, it compares nothing"]


def compare(name: str, backend: Backend, ours: str, incumbent: str, rounds: int, scale: float) -> Comparison:
    """All rounds of one workload; who goes first changes with every round."""
    title, unit, sqlite_target, postgres_target = COMPARED[name]
    target = sqlite_target if backend.name == "sqlite" else postgres_target
    comparison = Comparison(name, title, unit, backend.name, target)
    sides = [("ours", ours), ("incumbent", incumbent)]
    for i in range(rounds):
        for side, python in sides if i % 2 == 0 else reversed(sides):
            try:
                if name == "recovery":
                    record = measure_recovery(python, backend, scale)
                elif name in queues.ROWS:
                    record = queues.measure_queue(python, name, side, backend, scale)
                elif name in talk.ROWS:
                    record = talk.measure_talk(python, name, side, backend, scale)
                else:
                    record = measure_workload(python, name, backend, scale)
            except BenchError as error:
                comparison.problems.append(f"{side}: {error}")
                progress(f"{name} {backend.name} {i + 1}/{rounds} {side}: failed")
                continue
            comparison.records(side).append(record)
            progress(f"{name} {backend.name} {i + 1}/{rounds} {side}: {record['seconds']:.2f} s")
    return comparison


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def import_grid(ours: str, incumbent: str) -> Grid:
    """``import dbos`` in fresh interpreters, alternating; the first of each fills the bytecode cache."""
    pairs = [(measure_import_ms(ours), measure_import_ms(incumbent)) for _ in range(IMPORT_RUNS + 1)]
    ours_ms, incumbent_ms = (median(samples) for samples in zip(*pairs[1:], strict=True))
    return Grid(
        "import dbos",
        ["", "target ms", "ours ms", "incumbent ms", "ratio"],
        [
            [
                f"fresh interpreter, median of {IMPORT_RUNS}",
                f"< {IMPORT_TARGET_MS}",
                number(ours_ms),
                number(incumbent_ms),
                f"{number(incumbent_ms / ours_ms)}x",
            ]
        ],
    )


def floor_grid(backends: list[Backend], comparisons: list[Comparison], rounds: int, scale: float) -> Grid:
    """Step rows per second of the bare driver, and what share of them our workloads reach."""
    grid = Grid(
        "The floor: the same step rows with the bare driver, ownership check included",
        ["rows per commit", "database", "floor rows/s", "ours", "ours steps/s", "share of the floor"],
        notes=[
            "*ours* counts step rows only; its workflows write at least four more rows each "
            "(status, input, output, finish), which the floor does not."
        ],
    )
    for backend in backends:
        try:
            records = [measure_floor(backend, scale) for _ in range(rounds)]
        except BenchError as error:
            grid.notes.append(f"{BACKEND_TITLES[backend.name]}: {error}")
            continue
        for figure, commit, workload, steps_each in (
            ("one_rows_per_second", "1", "sequential_sync", 1),
            ("one_rows_per_second", "1", "sequential_async", 1),
            ("hundred_rows_per_second", "100", "concurrent_sync", 5),
            ("hundred_rows_per_second", "100", "concurrent_async", 5),
        ):
            floor = median(record[figure] for record in records)
            rate = rate_of(comparisons, workload, backend.name)
            steps = None if rate is None else rate * steps_each
            share = NOTHING if steps is None else f"{steps / floor:.0%}"
            title = BACKEND_TITLES[backend.name]
            grid.rows.append([commit, title, number(floor), workload, number(steps), share])
    return grid


def workflow_floor_grid(backends: list[Backend], comparisons: list[Comparison], rounds: int, scale: float) -> Grid:
    """How fast whole workflows could be written, and how many times as fast as the incumbent that would be."""
    grid = Grid(
        "The floor of whole workflows: their rows with the bare driver",
        ["workload", "database", "floor per s", "ours per s", "share of the floor", "floor / incumbent"],
        notes=[
            "One step: three commits in a row. 16 callers: threads that hand their row to one that commits what has "
            "come. At once: one transaction. No ids are made, no values pickled, nothing is checked."
        ],
    )
    for workload, count in WORKFLOW_FLOORS.items():
        for backend in backends:
            try:
                records = [measure_workflow_floor(workload, backend, int(count * scale)) for _ in range(rounds)]
            except BenchError as error:
                grid.notes.append(f"{COMPARED[workload][0]}, {BACKEND_TITLES[backend.name]}: {error}")
                continue
            floor = records[0]["operations"] / median(record["seconds"] for record in records)
            ours, incumbent = (rate_of(comparisons, workload, backend.name, side) for side in ("ours", "incumbent"))
            grid.rows.append(
                [
                    COMPARED[workload][0],
                    BACKEND_TITLES[backend.name],
                    number(floor),
                    number(ours),
                    NOTHING if ours is None else f"{ours / floor:.0%}",
                    NOTHING if incumbent is None else f"{number(floor / incumbent)}x",
                ]
            )
    return grid


def absurd_grid(backend: Backend, comparisons: list[Comparison], rounds: int, scale: float) -> Grid:
    grid = Grid(
        f"Against Absurd ({', '.join(ABSURD_REQUIREMENTS)}), Postgres",
        ["workload", "unit", "ours per s", "Absurd per s", "ratio", "step p50 ms of Absurd", "p99"],
        notes=[
            "Absurd: one worker in the same process, 200 tasks at a time, spawned while it runs; "
            "sequential steps are timed inside the task."
        ],
    )
    try:
        python = absurd_python()
    except BenchError as error:
        grid.notes = [f"Absurd could not be installed: {error}"]
        return grid
    for workload in ("sequential_sync", "concurrent_sync", "concurrent_async"):
        try:
            records = [measure_absurd(python, workload, backend, scale) for _ in range(rounds)]
        except BenchError as error:
            grid.notes.append(f"{workload}: {error}")
            continue
        progress(f"absurd {workload}: {[round(record['seconds'], 2) for record in records]} s")
        grid.rows.append(absurd_row(workload, records, rate_of(comparisons, workload, "postgres")))
    return grid


def absurd_row(workload: str, records: list[Record], ours: float | None) -> list[str]:
    title, unit = COMPARED[workload][:2]
    rate = records[0]["operations"] / median(record["seconds"] for record in records)
    p50, p99 = (median(record[figure] for record in records) for figure in ("p50_ms", "p99_ms"))
    ratio = NOTHING if ours is None else f"{number(ours / rate)}x"
    return [title, unit, number(ours), number(rate), ratio, number(p50), number(p99)]


def rate_of(comparisons: list[Comparison], workload: str, backend: str, side: str = "ours") -> float | None:
    """What a side reached in this run; None if that workload was left out or failed."""
    return next((c.rate(side) for c in comparisons if (c.workload, c.backend) == (workload, backend)), None)


def save(options: argparse.Namespace, facts: list[str], grids: list[Grid], comparisons: list[Comparison]) -> None:
    writers: list[tuple[Path | None, Callable[[], str]]] = [
        (options.markdown, lambda: to_markdown(facts, grids)),
        (options.svg, lambda: to_svg(comparisons)),
        (
            options.json,
            lambda: to_json(facts, grids, comparisons),
        ),
    ]
    for path, text in writers:
        if path is not None:
            path.write_text(text())


def to_json(facts: list[str], grids: list[Grid], comparisons: list[Comparison]) -> str:
    """Every round of every workload, and the tables as printed."""
    rounds, tables = [vars(c) for c in comparisons], [vars(grid) for grid in grids]
    return json.dumps({"facts": facts, "rounds": rounds, "tables": tables}, indent=1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
