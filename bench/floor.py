"""The floor: the rows a step leaves behind, written with the bare driver and nothing around it.

    python floor.py <database_url> [--json] [--scale F]

The system tables have to be there, empty, with all their indexes. Every row goes through the ownership check
that makes a step safe: it is inserted only if the workflow row still carries the token of the execution.
"""

import argparse
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
from probe import emit, percentile_ms

COMMITS_OF_ONE = 3_000
COMMITS_OF_HUNDRED = 200
BATCH = 100
STEPS_EACH = 5
WARM_UP_COMMITS = 20
TOKEN = "bench-token"

Row = tuple[str, int, str, str, int, int, str, str, int]
Commit = Callable[[list[Row]], None]
COLUMNS = (
    "workflow_uuid, function_id, function_name, output, started_at_epoch_ms, completed_at_epoch_ms, "
    "serialization, application_name, retention_timestamp"
)

SQLITE_STEP = f"""
INSERT INTO operation_outputs ({COLUMNS})
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
FROM workflow_status WHERE workflow_uuid = ?1 AND owner_xid = '{TOKEN}'
ON CONFLICT DO NOTHING
"""

POSTGRES_STEP = f"""
WITH owned AS (
    SELECT workflow_uuid FROM dbos.workflow_status
    WHERE workflow_uuid = $1 AND owner_xid = '{TOKEN}' FOR NO KEY UPDATE
)
INSERT INTO dbos.operation_outputs ({COLUMNS})
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM owned
ON CONFLICT DO NOTHING
"""

POSTGRES_STEPS = f"""
WITH step AS (
    SELECT * FROM json_to_recordset($1::json) AS step (
        workflow_uuid text, function_id int, function_name text, output text, started_at_epoch_ms bigint,
        completed_at_epoch_ms bigint, serialization text, application_name text, retention_timestamp bigint)
), owned AS (
    SELECT workflow_uuid FROM dbos.workflow_status
    WHERE workflow_uuid IN (SELECT workflow_uuid FROM step) AND owner_xid = '{TOKEN}'
    ORDER BY workflow_uuid FOR NO KEY UPDATE
)
INSERT INTO dbos.operation_outputs ({COLUMNS})
SELECT {COLUMNS} FROM step JOIN owned USING (workflow_uuid)
ON CONFLICT DO NOTHING
"""


def step_row(workflow_id: str, function_id: int) -> Row:
    now_ms = int(time.time() * 1000)
    value = "gASVAwAAAAAAAABLAS4="
    return (workflow_id, function_id, "one", value, now_ms, now_ms, "py_pickle", "bench", now_ms)


class Plan:
    """Which rows go into which commit: the shapes of the workloads the floor is compared with."""

    def __init__(self, scale: float) -> None:
        self.commits_of_one = int(COMMITS_OF_ONE * scale)
        self.groups = max(1, int(COMMITS_OF_HUNDRED * scale) // STEPS_EACH)
        self.workflow_ids = [str(uuid.uuid4()) for _ in range(1 + BATCH * self.groups)]
        self.rows = WARM_UP_COMMITS + self.commits_of_one + self.groups * STEPS_EACH * BATCH

    def sequential(self, first_id: int, commits: int) -> Iterator[list[Row]]:
        """One workflow, one step per commit."""
        for function_id in range(first_id, first_id + commits):
            yield [step_row(self.workflow_ids[0], function_id)]

    def concurrent(self) -> Iterator[list[Row]]:
        """A hundred workflows abreast, five steps each, then the next hundred."""
        for group in range(self.groups):
            ids = self.workflow_ids[1 + group * BATCH : 1 + (group + 1) * BATCH]
            for function_id in range(1, STEPS_EACH + 1):
                yield [step_row(workflow_id, function_id) for workflow_id in ids]


def measure(commit: Commit, batches: Iterator[list[Row]]) -> dict[str, float]:
    """Making the rows is counted too: a library cannot do without it either."""
    samples = []
    rows = 0
    start = commit_start = time.perf_counter()
    for batch in batches:
        commit(batch)
        rows += len(batch)
        now = time.perf_counter()
        samples.append(now - commit_start)
        commit_start = now
    return {"rows_per_second": rows / (commit_start - start), "p50_ms": percentile_ms(samples, 50)}


def measure_both(one: Commit, many: Commit, plan: Plan) -> dict[str, Any]:
    measure(one, plan.sequential(0, WARM_UP_COMMITS))
    single = measure(one, plan.sequential(WARM_UP_COMMITS, plan.commits_of_one))
    grouped = measure(many, plan.concurrent())
    return {
        "rows": plan.rows,
        "one_rows_per_second": single["rows_per_second"],
        "one_p50_ms": single["p50_ms"],
        "hundred_rows_per_second": grouped["rows_per_second"],
        "hundred_p50_ms": grouped["p50_ms"],
    }


def sqlite_floor(path: str, plan: Plan) -> dict[str, Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO workflow_status (workflow_uuid, status, owner_xid) VALUES (?, 'PENDING', ?)",
            [(workflow_id, TOKEN) for workflow_id in plan.workflow_ids],
        )
        connection.execute("COMMIT")

        def one(rows: list[Row]) -> None:
            connection.execute(SQLITE_STEP, rows[0])

        def many(rows: list[Row]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(SQLITE_STEP, rows)
            connection.execute("COMMIT")

        floor = measure_both(one, many, plan)
        check_rows(connection.execute("SELECT count(*) FROM operation_outputs").fetchone(), plan.rows)
    return floor


def postgres_floor(url: str, plan: Plan) -> dict[str, Any]:
    names = [name.strip() for name in COLUMNS.split(",")]
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(
            "INSERT INTO dbos.workflow_status (workflow_uuid, status, owner_xid) "
            "SELECT id, 'PENDING', $2 FROM unnest($1::text[]) AS id",
            (plan.workflow_ids, TOKEN),
        )
        connection.execute("VACUUM ANALYZE dbos.workflow_status")

        def one(rows: list[Row]) -> None:
            connection.execute(POSTGRES_STEP, rows[0], prepare=True)

        def many(rows: list[Row]) -> None:
            payload = json.dumps([dict(zip(names, row, strict=True)) for row in rows])
            connection.execute(POSTGRES_STEPS, (payload,), prepare=True)

        floor = measure_both(one, many, plan)
        counted = connection.execute("SELECT count(*) FROM dbos.operation_outputs").fetchone()
        check_rows(counted, plan.rows)
    return floor


def check_rows(counted: Any, expected: int) -> None:
    if counted[0] != expected:
        raise SystemExit(f"the floor wrote {counted[0]} rows, expected {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database_url")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of commits")
    options = parser.parse_args()
    plan = Plan(options.scale)
    if options.database_url.startswith("sqlite:///"):
        record = sqlite_floor(options.database_url.removeprefix("sqlite:///"), plan)
    else:
        record = postgres_floor(options.database_url, plan)
    emit(record, options.json)


if __name__ == "__main__":
    main()
