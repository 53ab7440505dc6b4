"""Limits under load: four processes of two versions drain a queue. Were its limits kept, and were they used?

    python -m tests.queues.campaign [--tasks 10000] [--only NAME,...] [--backend sqlite|postgres]

One line per limit and backend; the exit code is 1 if a limit was exceeded at any instant, a task was lost or started
twice, or less than 90 % of what a limit allows was used. The tests run the same with a few hundred tasks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbos import DBOS, EnqueueOptions
from tests import programs
from tests.databases import fresh_postgres_url, fresh_sqlite_url
from tests.helpers import rows, wait_until
from tests.programs import Process, end, wait_until_ready

WORKER = Path(__file__).with_name("worker.py")
QUEUE = "mail"
WORKERS = 4
VERSIONS = ("v1", "v2")
TASK_SECONDS = 0.05
ENOUGH = 0.9


@dataclass(frozen=True)
class Task:
    """What became of one workflow, in ms on the clock that all processes of a machine share."""

    executor_id: str
    partition: str
    claimed_ms: int  # as the database has it
    completed_ms: int
    began_ms: float  # as its body saw it
    ended_ms: float
    attempts: int


Group = Callable[[Task], object]
# Among which tasks a limit counts.
GROUPS: dict[str, Group] = {
    "global_concurrency": lambda task: QUEUE,
    "worker_concurrency": lambda task: task.executor_id,
    "partition_concurrency": lambda task: task.partition,
    "partition_worker_concurrency": lambda task: (task.executor_id, task.partition),
    "limiter": lambda task: QUEUE,
    "partition_limiter": lambda task: task.partition,
}


@dataclass(frozen=True)
class Limits:
    """The limits of a queue, and `binding`, the one that its work runs into."""

    name: str
    binding: str
    values: dict[str, Any]
    partitions: int = 5


LIMITS = (
    Limits("global", "global_concurrency", {"global_concurrency": 5}),
    Limits("worker", "worker_concurrency", {"worker_concurrency": 2}),
    Limits("partition", "partition_concurrency", {"partition_concurrency": 2}),
    Limits("partition-worker", "partition_worker_concurrency", {"partition_worker_concurrency": 1}, partitions=2),
    Limits("rate", "limiter", {"limiter": {"limit": 30, "period": 0.25}}),
    Limits("partition-rate", "partition_limiter", {"partition_limiter": {"limit": 8, "period": 0.25}}),
    Limits(
        "all-concurrency",
        "global_concurrency",
        {
            "global_concurrency": 6,
            "worker_concurrency": 3,
            "partition_concurrency": 2,
            "partition_worker_concurrency": 1,
        },
    ),
    Limits(
        "all",
        "limiter",
        {
            "global_concurrency": 10,
            "worker_concurrency": 6,
            "partition_concurrency": 4,
            "partition_worker_concurrency": 3,
            "limiter": {"limit": 20, "period": 0.25},
            "partition_limiter": {"limit": 8, "period": 0.25},
        },
    ),
)


@dataclass
class Outcome:
    """What a run showed."""

    tasks: list[Task]
    violations: list[str] = field(default_factory=list)
    utilisation: float = 0.0
    seconds: float = 0.0


def run(database_url: str, limits: Limits, tasks: int, directory: Path) -> Outcome:
    """Enqueue `tasks` workflows, half of each version, let four processes drain them, and look at the times."""
    config: Any = {
        "name": "test-app",
        "application_version": "v1",
        "executor_id": "enqueuer",
        "log_level": "ERROR",
        "system_database_url": database_url,
    }
    DBOS(config=config)
    # Whoever watches takes no part in the race.
    DBOS.listen_queues([])
    DBOS.launch()
    try:
        _enqueue(limits, tasks)
        with _workers(database_url, directory) as reports:
            # Only now: the workers begin at the same moment, with everything waiting.
            DBOS.register_queue(QUEUE, **limits.values, on_conflict="always_update")
            wait_until(lambda: _unfinished(database_url) == 0, 60 + tasks * 0.1)
    finally:
        DBOS.destroy(destroy_registry=True)
    return judge(_collect(database_url, reports), limits, tasks)


def _enqueue(limits: Limits, tasks: int) -> None:
    def enqueue(number: int) -> None:
        options: EnqueueOptions = {
            "workflow_name": "timed",
            "queue_name": QUEUE,
            "app_version": VERSIONS[number % len(VERSIONS)],
            # Not in step with the versions: every partition has work of each.
            "queue_partition_key": f"key {number // len(VERSIONS) % limits.partitions}",
        }
        DBOS.enqueue_workflow_with_options(options, TASK_SECONDS)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(enqueue, range(tasks)))


@contextmanager
def _workers(database_url: str, directory: Path) -> Iterator[list[Path]]:
    """Processes that serve queues; after the block each has written what its tasks saw to its file."""
    reports = [directory / f"worker-{number}.json" for number in range(WORKERS)]
    processes = [
        start_worker(database_url, f"worker-{number}", VERSIONS[number % len(VERSIONS)], reports[number])
        for number in range(WORKERS)
    ]
    try:
        for process in processes:
            wait_until_ready(process)
        yield reports
        for process in processes:
            process.communicate()
    finally:
        for process in processes:
            end(process)


def start_worker(database_url: str, executor_id: str, version: str, report: Path | None = None) -> Process:
    """A process that serves queues until its input ends."""
    return programs.start(WORKER, database_url, executor_id, version, *([] if report is None else [str(report)]))


def _unfinished(database_url: str) -> int:
    # By the index of what is in flight: counting all rows several times per second would slow the workers.
    sql = "SELECT count(*) AS n FROM workflow_status WHERE queue_name = %s AND status IN ('ENQUEUED', 'PENDING')"
    time.sleep(0.2)
    return int(rows(database_url, sql, QUEUE)[0]["n"])


def _collect(database_url: str, reports: Sequence[Path]) -> list[Task]:
    seen: dict[str, tuple[float, float]] = {}
    for report in reports:
        for workflow_id, began, ended in json.loads(report.read_text()):
            seen[workflow_id] = (began * 1000, ended * 1000)
    found = rows(
        database_url,
        "SELECT workflow_uuid, executor_id, queue_partition_key, started_at_epoch_ms, completed_at, recovery_attempts "
        "FROM workflow_status WHERE queue_name = %s AND status = 'SUCCESS'",
        QUEUE,
    )
    return [
        Task(
            row["executor_id"],
            row["queue_partition_key"],
            row["started_at_epoch_ms"],
            row["completed_at"],
            *seen[row["workflow_uuid"]],
            row["recovery_attempts"],
        )
        for row in found
    ]


def judge(tasks: list[Task], limits: Limits, expected: int) -> Outcome:
    """Compare the times with the limits."""
    outcome = Outcome(tasks)
    outcome.seconds = (max(t.ended_ms for t in tasks) - min(t.began_ms for t in tasks)) / 1000
    if len(tasks) != expected:
        outcome.violations.append(f"{len(tasks)} tasks ended with SUCCESS, not {expected}")
    if repeated := sum(task.attempts != 1 for task in tasks):
        outcome.violations.append(f"{repeated} tasks were started more than once")
    for name, value in limits.values.items():
        for group, members in _grouped(tasks, GROUPS[name]).items():
            if isinstance(value, dict):
                most, limit = most_in_window(members, int(value["period"] * 1000)), value["limit"]
            else:
                most, limit = most_at_once(members), value
            if most > limit:
                outcome.violations.append(f"{name} of {group!r} is {limit}, and there were {most}")
    outcome.utilisation = utilisation(tasks, limits)
    return outcome


def _grouped(tasks: list[Task], group: Group) -> dict[object, list[Task]]:
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        groups.setdefault(group(task), []).append(task)
    return groups


def most_at_once(tasks: list[Task]) -> int:
    """The most that were running at an instant, by the rows and by the bodies; who ends frees its place first."""
    by_rows = [(t.claimed_ms, t.completed_ms) for t in tasks]
    by_bodies = [(t.began_ms, t.ended_ms) for t in tasks]
    return max(_most_at_once(by_rows), _most_at_once(by_bodies))


def _most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    changes = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def most_in_window(tasks: list[Task], period_ms: int) -> int:
    """The most that were started within any window of so many ms."""
    starts = sorted(task.claimed_ms for task in tasks)
    most = first = 0
    for last, start in enumerate(starts):
        while starts[first] <= start - period_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


def utilisation(tasks: list[Task], limits: Limits) -> float:
    """Which share of what the binding limit allows was used, until each group it counts in began its last task.

    Of a concurrency the time its slots were filled by bodies; of a rate the starts.
    """
    value = limits.values[limits.binding]
    used = allowed = 0.0
    for members in _grouped(tasks, GROUPS[limits.binding]).values():
        began = min(task.began_ms for task in members)
        until = max(task.began_ms for task in members)
        if isinstance(value, dict):
            # The last starts of all have no room after them.
            used += len(members) - value["limit"]
            allowed += (until - began) / (value["period"] * 1000) * value["limit"]
        else:
            used += sum(min(until, task.ended_ms) - task.began_ms for task in members)
            allowed += (until - began) * value
    return used / allowed if allowed else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.queues.campaign")
    names = [limits.name for limits in LIMITS]
    parser.add_argument("--tasks", type=int, default=10_000, help="of every limit")
    parser.add_argument("--only", default=",".join(names), help=f"comma-separated, of: {', '.join(names)}")
    parser.add_argument("--backend", action="append", choices=["sqlite", "postgres"], help="default: both")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(names)
    if unknown:
        parser.error(f"unknown limit {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = False
    for limits in LIMITS:
        for backend in options.backend or ["sqlite", "postgres"]:
            if limits.name not in options.only.split(","):
                continue
            with tempfile.TemporaryDirectory(prefix="dbos-limits-") as directory:
                path = Path(directory)
                url = fresh_sqlite_url(path) if backend == "sqlite" else fresh_postgres_url()
                outcome = run(url, limits, options.tasks, path)
            wrong = [*outcome.violations]
            if outcome.utilisation < ENOUGH:
                wrong.append(f"used less than {ENOUGH:.0%}")
            failed = failed or bool(wrong)
            print(
                f"{limits.name:17} {backend:9} {len(outcome.tasks):6,} tasks in {outcome.seconds:6.1f} s, "
                f"used {outcome.utilisation:4.0%}: {'; '.join(wrong) or 'never exceeded'}",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
