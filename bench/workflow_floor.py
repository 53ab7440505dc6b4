"""The floor of whole workflows: the rows of starts, steps, outcomes and enqueues with the bare driver.

    python workflow_floor.py <workload> <database_url> --count N [--json]

The system tables have to be there, with all their indexes. ``one_step`` makes the three commits of a workflow with one
step. ``enqueue_callers`` is the shortest group commit there is: 16 threads hand their row to one that commits whatever
has come, and wait. ``enqueue_bulk`` inserts everything in one transaction. No ids are made, no values pickled, nothing
is checked.
"""

import argparse
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
from floor import POSTGRES_STEP, SQLITE_STEP, TOKEN, check_rows, step_row
from probe import Stopwatch, emit

CALLERS = 16
WARM_UP = 20
PATIENCE_SECONDS = 30.0
VALUE = "gASVAwAAAAAAAABLAS4="
ARGUMENTS = "gASVFwAAAAAAAAB9lCiMBGFyZ3OUSwWFlIwGa3dhcmdzlH2UdS4="

STATUS_COLUMNS = (
    "workflow_uuid, status, name, executor_id, created_at, updated_at, application_version, application_id, "
    "recovery_attempts, queue_name, priority, serialization, application_name, owner_xid, creator_xid"
)
Row = tuple[Any, ...]
Insert = Callable[[Sequence[Row]], None]

# Of the parameters: 1 id, 2 status, 3 time, 4 queue.
VALUES = "{1}, {2}, 'one_step', 'bench', {3}, {3}, 'bench-1', '', 1, {4}, 0, 'py_pickle', 'bench', '" + TOKEN + "', ''"

SQLITE_STARTS = (
    f"INSERT INTO workflow_status ({STATUS_COLUMNS}) VALUES ({VALUES.format('', '?1', '?2', '?3', '?4')})",
    # As many parameters as the first.
    "INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp) "
    f"VALUES (?1, '{ARGUMENTS}', iif(?2 IS ?4, NULL, ?3))",
)
SQLITE_FINISH = (
    "UPDATE workflow_status SET status = 'SUCCESS', updated_at = ?2, completed_at = ?2, owner_xid = NULL "
    f"WHERE workflow_uuid = ?1 AND owner_xid = '{TOKEN}'",
    f"INSERT INTO workflow_output (workflow_uuid, output, retention_timestamp) VALUES (?1, '{VALUE}', ?2)",
)
POSTGRES_STARTS = f"""
WITH given AS (
    SELECT * FROM json_to_recordset($1::json) AS given (id text, state text, ms bigint, queue text)
), inputs AS (
    INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)
    SELECT id, '{ARGUMENTS}', ms FROM given
)
INSERT INTO dbos.workflow_status ({STATUS_COLUMNS})
SELECT {VALUES.format("", "id", "state", "ms", "queue")} FROM given
"""
POSTGRES_START = f"""
WITH inputs AS (
    INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES ($1, '{ARGUMENTS}', $3)
)
INSERT INTO dbos.workflow_status ({STATUS_COLUMNS})
VALUES ({VALUES.format("", "$1::text", "$2::text", "$3::bigint", "$4::text")})
"""
POSTGRES_FINISH = f"""
WITH finished AS (
    UPDATE dbos.workflow_status SET status = 'SUCCESS', updated_at = $2, completed_at = $2, owner_xid = NULL
    WHERE workflow_uuid = $1 AND owner_xid = '{TOKEN}' RETURNING workflow_uuid
)
INSERT INTO dbos.workflow_output (workflow_uuid, output, retention_timestamp)
SELECT workflow_uuid, '{VALUE}', $2 FROM finished
"""


class Sqlite:
    def __init__(self, url: str) -> None:
        self.connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")

    def execute(self, text: str, parameters: Row) -> None:
        self.connection.execute(text, parameters)

    def together(self, texts: Sequence[str], rows: Sequence[Row]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        for text in texts:
            self.connection.executemany(text, rows)
        self.connection.execute("COMMIT")

    def insert(self, rows: Sequence[Row]) -> None:
        self.together(SQLITE_STARTS, rows)

    def one_step(self, row: Row) -> None:
        workflow_id, _, now_ms, _ = row
        self.together(SQLITE_STARTS, [row])
        self.execute(SQLITE_STEP, step_row(workflow_id, 1))
        self.together(SQLITE_FINISH, [(workflow_id, now_ms)])

    def count(self, table: str) -> Any:
        return self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()

    def close(self) -> None:
        self.connection.close()


class Postgres:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor)

    def execute(self, text: str, parameters: Row) -> None:
        self.connection.execute(text.encode(), parameters, prepare=True)

    def insert(self, rows: Sequence[Row]) -> None:
        keys = ("id", "state", "ms", "queue")
        self.execute(POSTGRES_STARTS, (json.dumps([dict(zip(keys, row, strict=True)) for row in rows]),))

    def one_step(self, row: Row) -> None:
        workflow_id, _, now_ms, _ = row
        self.execute(POSTGRES_START, row)
        self.execute(POSTGRES_STEP, step_row(workflow_id, 1))
        self.execute(POSTGRES_FINISH, (workflow_id, now_ms))

    def count(self, table: str) -> Any:
        return self.connection.execute(f"SELECT count(*) FROM dbos.{table}".encode()).fetchone()

    def close(self) -> None:
        self.connection.close()


class Group:
    """The shortest group commit: what has come while the last batch was committed is the next one."""

    def __init__(self, insert: Insert) -> None:
        self._insert = insert
        self._pending: list[tuple[Row, threading.Lock]] = []
        self._lock = threading.Lock()
        self._work = threading.Semaphore(0)
        self._busy = False
        threading.Thread(target=self._run, daemon=True).start()

    def commit(self, row: Row) -> None:
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            self._pending.append((row, gate))
            begins, self._busy = not self._busy, True
        if begins:
            self._work.release()
        if not gate.acquire(timeout=PATIENCE_SECONDS):
            raise SystemExit("a commit failed")

    def _run(self) -> None:
        while True:
            self._work.acquire()
            while True:
                with self._lock:
                    batch, self._pending = self._pending, []
                    if not batch:
                        self._busy = False
                        break
                self._insert([row for row, _ in batch])
                for _, gate in batch:
                    gate.release()


def run(workload: str, database: Sqlite | Postgres, rows: Sequence[Row]) -> float:
    if workload == "enqueue_callers":
        group = Group(database.insert)
        with ThreadPoolExecutor(CALLERS) as threads:
            list(threads.map(group.commit, rows[:WARM_UP]))
            with Stopwatch() as watch:
                list(threads.map(group.commit, rows[WARM_UP:]))
    elif workload == "enqueue_bulk":
        database.insert(rows[:WARM_UP])
        with Stopwatch() as watch:
            database.insert(rows[WARM_UP:])
    else:
        for row in rows[:WARM_UP]:
            database.one_step(row)
        with Stopwatch() as watch:
            for row in rows[WARM_UP:]:
                database.one_step(row)
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=["one_step", "enqueue_callers", "enqueue_bulk"])
    parser.add_argument("database_url")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    now_ms = int(time.time() * 1000)
    is_queued = options.workload != "one_step"
    # In the order of time, as ours are.
    ids = [f"{number:08x}-{uuid.uuid4()}" for number in range(options.count + WARM_UP)]
    rows = [(one, "ENQUEUED" if is_queued else "PENDING", now_ms, "bench" if is_queued else None) for one in ids]
    lite = options.database_url.startswith("sqlite:///")
    with closing(Sqlite(options.database_url) if lite else Postgres(options.database_url)) as database:
        seconds = run(options.workload, database, rows)
        check_rows(database.count("workflow_status"), len(rows))
        check_rows(database.count("workflow_input" if is_queued else "workflow_output"), len(rows))
    emit({"operations": options.count, "seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
