"""Does it stay fast when the database has grown, and what does a waiting workflow cost in memory? Ours only.

python growth.py [--rows N] [--rounds N] [--only growth,memory,claims,operations] [--backend sqlite|postgres] [--quick]
                 [--check] [--markdown FILE] [--json FILE]
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from environments import Backend, BenchError, open_backends, ours_python, run_child
from fill import ROWS_EACH, fill, fill_waiting
from measure import Record, measure_workload, measure_workload_in, version_of
from report import BACKEND_TITLES, Grid, number, open_console, print_grid, to_markdown
from run import progress

PARTS = ("growth", "memory", "claims", "operations")
FINISHED_WORKFLOWS = 1_000_000
WORKLOADS = {
    "sequential_sync": "3,000 steps, one sync workflow",
    "sequential_async": "3,000 steps, one async workflow",
    "one_step": "1,500 one-step sync workflows in a row",
    "concurrent_sync": "3,000 five-step sync at once",
    "concurrent_async": "3,000 five-step async, 200 in flight",
}
# Three times the work of run.py: a difference of 20 % has to show above the noise.
GROWTH_SCALE = 3.0
TOLERANCE = 0.20
SLEEPERS = {
    "sleepers_async": "10,000 sleeping async workflows",
    "sleepers_sync": "1,000 sleeping sync workflows",
}
QUICK_ROWS, QUICK_SCALE = 50_000, 0.2


def main() -> int:
    options = parse_options()
    console = open_console()
    python = ours_python()
    with open_backends(options.backend) as backends:
        facts = [f"dbos {version_of(python)}", *[backend.describe() for backend in backends]]
        for fact in facts:
            console.print(fact, style="dim", highlight=False)
        records: dict[str, object] = {}
        grids: list[Grid] = []
        within = True
        if "growth" in options.only:
            growth = [measure_growth(python, backend, options) for backend in backends]
            grid, within = growth_grid(growth, options.rows)
            grids.append(grid)
            records["growth"] = [vars(row) for rows in growth for row in rows]
        if "memory" in options.only:
            memory = {backend.name: measure_memory(python, backend, options.scale) for backend in backends}
            grids.append(memory_grid(memory))
            records["memory"] = memory
        if "claims" in options.only:
            found = {backend.name: measure_claims(python, backend, options) for backend in backends}
            grid, claims_within = claims_grid(found)
            grids.append(grid)
            within = within and claims_within
            records["claims"] = found
        if "operations" in options.only:
            operations = {backend.name: measure_operations(python, backend, options) for backend in backends}
            grid, operations_within = operations_grid(operations, options.rows)
            grids.append(grid)
            within = within and operations_within
            records["operations"] = operations
    for grid in grids:
        print_grid(grid, console)
    if options.markdown is not None:
        options.markdown.write_text(to_markdown(facts, grids))
    if options.json is not None:
        options.json.write_text(json.dumps({"facts": facts, **records}, indent=1))
    return 1 if options.check and not within else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help=f"finished workflows to fill in ({FINISHED_WORKFLOWS:,})")
    parser.add_argument("--rounds", type=int, help="rounds of every workload (default: 3, with --quick 1)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--backend", action="append", choices=list(BACKEND_TITLES), help="default: both")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} workflows and a fifth of the work")
    parser.add_argument("--check", action="store_true", help="exit with 1 if growth costs more than 20 %%")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records of all rounds there")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    options.backend = options.backend or list(BACKEND_TITLES)
    options.rows = options.rows or (QUICK_ROWS if options.quick else FINISHED_WORKFLOWS)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.scale = QUICK_SCALE if options.quick else 1.0
    return options


class Growth:
    """One workload on one backend: its records in empty databases and in the grown one."""

    def __init__(self, workload: str, backend: str) -> None:
        self.workload = workload
        self.backend = backend
        self.empty: list[Record] = []
        self.grown: list[Record] = []

    def measure(self, python: str, backend: Backend, grown_url: str, scale: float, grown_first: bool) -> None:
        """One round; which of the two goes first changes with every round."""
        for grown in (grown_first, not grown_first):
            if grown:
                self.grown.append(measure_workload_in(grown_url, python, self.workload, backend, scale))
            else:
                self.empty.append(measure_workload(python, self.workload, backend, scale))

    def middle(self, figure: str) -> tuple[float, float]:
        """The medians of a figure: empty, grown."""
        return median(r[figure] for r in self.empty), median(r[figure] for r in self.grown)

    @property
    def throughput_kept(self) -> float:
        empty, grown = self.middle("seconds")
        return empty / grown

    @property
    def latency_kept(self) -> float:
        empty, grown = self.middle("p50_ms")
        return grown / empty

    @property
    def within_tolerance(self) -> bool:
        return self.throughput_kept >= 1 - TOLERANCE and self.latency_kept <= 1 + TOLERANCE


def measure_growth(python: str, backend: Backend, options: argparse.Namespace) -> list[Growth]:
    """Fill one database, then alternate between it and a fresh one for every workload and round."""
    with ExitStack() as stack:
        grown_url = stack.enter_context(backend.fresh_database())
        run_child(python, "workloads.py", "create_schema", grown_url, "--json")
        start = time.perf_counter()
        fill(grown_url, options.rows)
        progress(f"filled {backend.name} with {options.rows:,} workflows in {time.perf_counter() - start:.0f} s")
        found = [Growth(workload, backend.name) for workload in WORKLOADS]
        for i in range(options.rounds):
            for growth in found:
                growth.measure(python, backend, grown_url, options.scale * GROWTH_SCALE, grown_first=i % 2 == 1)
                seconds = f"{growth.empty[-1]['seconds']:.2f} s empty, {growth.grown[-1]['seconds']:.2f} s grown"
                progress(f"{growth.workload} {backend.name} {i + 1}/{options.rounds}: {seconds}")
    return found


def growth_grid(growth: list[list[Growth]], workflows: int) -> tuple[Grid, bool]:
    grid = Grid(
        f"With {workflows:,} finished workflows ({workflows * ROWS_EACH:,} rows) against an empty database",
        ["workload", "database", "per s empty", "grown", "kept", "step p50 ms empty", "grown", "times", ""],
        notes=[
            f"*within*: at least {1 - TOLERANCE:.0%} of the throughput and at most "
            f"{1 + TOLERANCE:.0%} of the median step latency of the empty database."
        ],
    )
    rows = [row for backend_rows in growth for row in backend_rows]
    for row in sorted(rows, key=lambda row: list(WORKLOADS).index(row.workload)):
        operations = row.empty[0]["operations"]
        empty_seconds, grown_seconds = row.middle("seconds")
        empty_ms, grown_ms = row.middle("p50_ms")
        grid.rows.append(
            [
                WORKLOADS[row.workload],
                BACKEND_TITLES[row.backend],
                number(operations / empty_seconds),
                number(operations / grown_seconds),
                f"{row.throughput_kept:.0%}",
                number(empty_ms),
                number(grown_ms),
                f"{row.latency_kept:.2f}",
                "within" if row.within_tolerance else "slower",
            ]
        )
    return grid, all(row.within_tolerance for row in rows)


def measure_memory(python: str, backend: Backend, scale: float) -> dict[str, Record]:
    found = {}
    for workload in SLEEPERS:
        found[workload] = measure_workload(python, workload, backend, scale)
        progress(f"{workload} {backend.name}: {found[workload]['rss_mb']:.0f} MB")
    return found


def memory_grid(memory: dict[str, dict[str, Record]]) -> Grid:
    grid = Grid(
        "Memory of one process full of sleeping workflows",
        ["workload", "database", "workflows", "before MB", "all asleep MB", "KB per workflow", "threads"],
        notes=["Resident memory after launch, and again when every workflow sleeps."],
    )
    for workload, title in SLEEPERS.items():
        for backend, records in memory.items():
            record = records[workload]
            grid.rows.append(
                [
                    title,
                    BACKEND_TITLES[backend],
                    f"{record['operations']:,}",
                    number(record["empty_mb"]),
                    number(record["rss_mb"]),
                    number(record["kb_each"]),
                    f"{record['threads']:,}",
                ]
            )
    return grid


FEW, MANY_PARTITIONS, EACH_PARTITION = 1_000, 10_000, 3


def measure_claims(python: str, backend: Backend, options: argparse.Namespace) -> dict[str, Record]:
    """A claim of a hundred with few waiting, with very many, and with many partitions."""
    found: dict[str, Record] = {}
    sizes: dict[str, tuple[int, int | None]] = {
        f"{FEW:,} waiting": (FEW, None),
        f"{options.rows:,} waiting": (options.rows, None),
        f"{MANY_PARTITIONS:,} partitions": (MANY_PARTITIONS * EACH_PARTITION, MANY_PARTITIONS),
    }
    for title, (waiting, partitions) in sizes.items():
        samples = []
        for _ in range(options.rounds):
            with backend.fresh_database() as url:
                run_child(python, "workloads.py", "create_schema", url, "--json")
                fill_waiting(url, waiting, partitions)
                backend.settle()
                flags = [] if partitions is None else ["--partitioned"]
                samples.append(run_child(python, "queue_claims.py", url, *flags, "--json"))
        found[title] = min(samples, key=lambda record: float(record["p50_ms"]))
        progress(f"claims {backend.name}, {title}: {found[title]['p50_ms']:.2f} ms")
    return found


def claims_grid(found: dict[str, dict[str, Record]]) -> tuple[Grid, bool]:
    grid = Grid(
        "A claim of 100 workflows",
        ["queue", "database", "ms", "times", ""],
        notes=[
            f"One statement each, the median of eight, of the best round. *within*: at most {1 + TOLERANCE:.0%} of the "
            f"time it takes with {FEW:,} waiting. All partitions of a queue are claimed from in one statement."
        ],
    )
    within = True
    for backend, records in found.items():
        (few, *_) = records.values()
        for title, record in records.items():
            times = record["p50_ms"] / few["p50_ms"]
            verdict = "" if record is few or "partitions" in title else "within" if times <= 1 + TOLERANCE else "slower"
            within = within and verdict != "slower"
            grid.rows.append([title, BACKEND_TITLES[backend], number(record["p50_ms"]), number(times), verdict])
    return grid, within


OPERATION_STEPS_EACH = 10
OPERATION_TIMES = 2.0


def measure_operations(python: str, backend: Backend, options: argparse.Namespace) -> dict[str, Record]:
    """Milliseconds of each operation, in an empty database and in a grown one."""
    found: dict[str, Record] = {}
    for title, workflows in (("empty", 0), ("grown", options.rows)):
        with backend.fresh_database() as url:
            run_child(python, "workloads.py", "create_schema", url, "--json")
            if workflows:
                start = time.perf_counter()
                fill(url, workflows, steps=OPERATION_STEPS_EACH)
                progress(f"filled {backend.name} in {time.perf_counter() - start:.0f} s")
            backend.settle()
            found[title] = run_child(python, "growth_operations.py", url, "--json")
    return found


def operations_grid(found: dict[str, dict[str, Record]], workflows: int) -> tuple[Grid, bool]:
    steps = workflows * OPERATION_STEPS_EACH
    grid = Grid(
        f"Single operations with {workflows:,} workflows and {steps:,} steps against an empty database",
        ["operation", "database", "ms empty", "ms grown", "times", ""],
        notes=[
            f"Medians; listings are the first page. *within*: at most {OPERATION_TIMES:g} times the empty database. A "
            f"filter that has no index and finds less than a page looks at every workflow."
        ],
    )
    within = True
    for operation in next(iter(found.values()))["empty"]:
        for backend, records in found.items():
            empty, grown = records["empty"][operation], records["grown"][operation]
            is_within = grown <= OPERATION_TIMES * empty
            within = within and is_within
            verdict = "within" if is_within else "slower"
            title = BACKEND_TITLES[backend]
            grid.rows.append([operation, title, number(empty), number(grown), f"{grown / empty:.2f}", verdict])
    return grid, within


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
