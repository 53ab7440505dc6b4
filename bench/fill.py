"""Fill a database with finished workflows, by SQL inside the database: a million of them in a minute or two.

Every workflow gets its ``workflow_status`` row, its input, its output and steps, usually two. One in fifty ended in
ERROR, one in four came from a queue, all of them within the last 30 days.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing

import psycopg

STEPS_EACH = 2
ROWS_EACH = 3 + STEPS_EACH
MONTH_MS = 30 * 24 * 3600 * 1000
VALUE = "gASVAwAAAAAAAABLAS4="
ARGUMENTS = "gASVFwAAAAAAAAB9lCiMBGFyZ3OUSwWFlIwGa3dhcmdzlH2UdS4="

# {at}: when the workflow with number i was created; {steps}: how many steps each has.
STATEMENTS = (
    """
    INSERT INTO {schema}workflow_status (
        workflow_uuid, status, name, executor_id, created_at, updated_at, completed_at, application_version,
        application_id, recovery_attempts, queue_name, started_at_epoch_ms, serialization, application_name)
    SELECT id, CASE WHEN i % 50 = 0 THEN 'ERROR' ELSE 'SUCCESS' END, 'steps_sync', 'bench',
        {at}, {at} + 40, {at} + 40, 'bench-1', '', 1, CASE WHEN i % 4 = 0 THEN 'bench_queue' END,
        CASE WHEN i % 4 = 0 THEN {at} + 5 END, 'py_pickle', 'bench'
    FROM filler ORDER BY id
    """,
    f"""
    INSERT INTO {{schema}}workflow_input (workflow_uuid, inputs, retention_timestamp)
    SELECT id, '{ARGUMENTS}', {{at}} FROM filler ORDER BY id
    """,
    f"""
    INSERT INTO {{schema}}workflow_output (workflow_uuid, output, error, retention_timestamp)
    SELECT id, CASE WHEN i % 50 <> 0 THEN '{VALUE}' END, CASE WHEN i % 50 = 0 THEN '{VALUE}' END, {{at}} + 40
    FROM filler ORDER BY id
    """,
    f"""
    INSERT INTO {{schema}}operation_outputs (
        workflow_uuid, function_id, function_name, output, started_at_epoch_ms, completed_at_epoch_ms,
        serialization, application_name, retention_timestamp)
    SELECT id, step, 'one', '{VALUE}', {{at}} + step * 10, {{at}} + step * 10 + 2, 'py_pickle', 'bench',
        {{at}} + step * 10 + 2
    FROM filler CROSS JOIN (
        WITH RECURSIVE numbers (step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM numbers WHERE step < {{steps}})
        SELECT step FROM numbers
    ) AS steps ORDER BY id, step
    """,
)

# Ids of what waits grow with time, as those that ours makes.
ORDERED_ID_SQLITE = "printf('%08x-', i) || "
ORDERED_ID_POSTGRES = "lpad(to_hex(i), 8, '0') || '-' || "

# {partition}: the partition key of the workflow with number i.
WAITING_STATEMENTS = (
    """
    INSERT INTO {schema}workflow_status (
        workflow_uuid, status, name, created_at, updated_at, application_version, application_id, recovery_attempts,
        queue_name, queue_partition_key, serialization, application_name)
    SELECT id, 'ENQUEUED', 'one_step', {at}, {at}, 'bench-1', '', 0, 'bench', {partition}, 'py_pickle', 'bench'
    FROM filler ORDER BY i
    """,
    STATEMENTS[1],
)


def fill_waiting(url: str, workflows: int, partitions: int | None = None) -> None:
    """Add workflows that wait on the queue ``bench``, spread over so many partitions."""
    partition = "NULL" if partitions is None else f"'key ' || (i % {partitions})"
    fill(url, workflows, [text.replace("{partition}", partition) for text in WAITING_STATEMENTS])


def fill(url: str, workflows: int, statements: Sequence[str] = STATEMENTS, *, steps: int = STEPS_EACH) -> None:
    """Add finished workflows to a database that has the system tables, and settle it as time would."""
    random_ids = statements is STATEMENTS
    statements = [text.replace("{steps}", str(steps)) for text in statements]
    oldest_ms = int(time.time() * 1000) - MONTH_MS
    created = f"({oldest_ms} + i * {MONTH_MS / workflows:.6f})"
    if url.startswith("sqlite:///"):
        _fill_sqlite(url.removeprefix("sqlite:///"), workflows, f"CAST({created} AS INTEGER)", statements, random_ids)
    else:
        _fill_postgres(url, workflows, f"CAST({created} AS BIGINT)", statements, random_ids)


def _fill_sqlite(path: str, workflows: int, at: str, statements: Sequence[str], random_ids: bool) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Durability does not matter while filling; both settings belong to this connection alone.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("CREATE TEMP TABLE filler (i INTEGER PRIMARY KEY, id TEXT)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            f"INSERT INTO filler SELECT i, {'' if random_ids else ORDERED_ID_SQLITE}lower(hex(randomblob(16))) FROM n",
            (workflows,),
        )
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement.format(schema="", at=at))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgres(url: str, workflows: int, at: str, statements: Sequence[str], random_ids: bool) -> None:
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET work_mem = '256MB'")
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute("CREATE TEMP TABLE filler (i INTEGER, id TEXT)")
        connection.execute(
            f"INSERT INTO filler SELECT i, {'' if random_ids else ORDERED_ID_POSTGRES}gen_random_uuid()::text "
            f"FROM generate_series(0, $1::integer - 1) AS i",
            (workflows,),
        )
        with connection.transaction():
            for statement in statements:
                connection.execute(statement.format(schema="dbos.", at=at))
        connection.execute("DROP TABLE filler")
        # What autovacuum would have done by the time a database has grown this far.
        connection.execute("VACUUM ANALYZE")
