"""What is on record: the system database, read with plain SQL, and the outside world's own books."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Rows = list[tuple[Any, ...]]


class Workflow(NamedTuple):
    """A checkout's row of workflow_status; attempts counts the starts, so more than one means it was recovered."""

    order_id: str
    status: str
    attempts: int
    created_at_ms: int
    completed_at_ms: int | None
    started_at_ms: int | None


class Request(NamedTuple):
    """A request that reached the outside world: done, repeated (had been done before) or refused."""

    run: int
    order_id: str
    step: str
    key: str
    answer: str
    at: float


class Result(NamedTuple):
    """A step result that a workflow went on with."""

    run: int
    order_id: str
    step: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class Evidence:
    workflows: list[Workflow]
    checkpoints: list[str]
    """One `<order>/<step number>` per row of operation_outputs."""
    charge_checkpoints: list[str]
    """The orders of those rows whose step is `charge`."""
    requests: list[Request]
    results: list[Result]
    charges_cents: list[tuple[str, int]]
    """What the payment provider took, per charge: the order and the amount."""
    pids: dict[int, int]
    """The process of each run."""
    mails: list[str]
    """`<order> <status>` per mail that was sent, in their order."""
    reports: list[str]
    """The scheduled times of the report's workflows that have ended."""

    def ended(self, status: str) -> list[str]:
        """The orders whose workflows ended so: SUCCESS or ERROR."""
        return [workflow.order_id for workflow in self.workflows if workflow.status == status]

    def replayed(self) -> list[Result]:
        """The results taken from checkpoints: no body of that step made a request in that run."""
        executed = {(request.run, request.order_id, request.step) for request in self.requests}
        return [result for result in self.results if result[:3] not in executed]


def collect(database_url: str, world_path: Path) -> Evidence:
    checkpoints = system_query(
        database_url,
        "SELECT workflow_uuid, function_id, function_name FROM dbos.operation_outputs "
        "WHERE function_name IN ('validate', 'reserve', 'charge', 'ship', 'mail', 'report')",
    )
    workflows = system_query(
        database_url,
        "SELECT workflow_uuid, status, recovery_attempts, created_at, completed_at, started_at_epoch_ms "
        "FROM dbos.workflow_status WHERE name = 'checkout'",
    )
    reports = system_query(
        database_url,
        "SELECT workflow_uuid FROM dbos.workflow_status WHERE name = 'sales_report' AND status = 'SUCCESS'",
    )
    mails_query = (
        "SELECT subject FROM effects JOIN requests USING (key) "
        "WHERE answer = 'done' AND subject IS NOT NULL ORDER BY at"
    )
    charges_query = "SELECT order_id, cents FROM effects WHERE step = 'charge'"
    return Evidence(
        workflows=[Workflow(*row) for row in workflows],
        checkpoints=[f"{order_id}/{step_id}" for order_id, step_id, _ in checkpoints],
        charge_checkpoints=[order_id for order_id, _, step in checkpoints if step == "charge"],
        requests=[Request(*row) for row in world_query(world_path, "SELECT * FROM requests ORDER BY at")],
        results=[Result(*row) for row in world_query(world_path, "SELECT * FROM results ORDER BY ended_at")],
        charges_cents=[(order_id, cents) for order_id, cents in world_query(world_path, charges_query)],
        pids=dict(world_query(world_path, "SELECT run, pid FROM runs")),
        mails=[subject for (subject,) in world_query(world_path, mails_query)],
        reports=sorted(workflow_id.removeprefix("sched-sales-report-") for (workflow_id,) in reports),
    )


def unfinished(database_url: str) -> frozenset[str]:
    """The orders whose checkouts have begun and not ended, once nobody is connected any more."""
    others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while not database_url.startswith("sqlite:///") and system_query(database_url, others):
        # Postgres still commits the last statement of a client that was killed.
        time.sleep(0.01)
    statement = "SELECT workflow_uuid FROM dbos.workflow_status WHERE name = 'checkout' AND status = 'PENDING'"
    return frozenset(order_id for (order_id,) in system_query(database_url, statement))


def system_query(database_url: str, statement: str) -> Rows:
    """Query the system database; its tables are in the schema `dbos` in Postgres, and here so in SQLite."""
    if database_url.startswith("sqlite:///"):
        return _sqlite_query(database_url.removeprefix("sqlite:///"), statement)
    import psycopg

    with psycopg.connect(database_url) as connection:
        return connection.execute(statement.encode()).fetchall()


def world_query(world_path: Path, statement: str) -> Rows:
    return _sqlite_query(str(world_path), statement)


def _sqlite_query(path: str, statement: str) -> Rows:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("ATTACH ? AS dbos", (path,))
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
