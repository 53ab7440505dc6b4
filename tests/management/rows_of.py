"""What belongs to a workflow in the database, for tests of forks, rewinds and deletions."""

from __future__ import annotations

from typing import Any

from tests.helpers import rows

TABLES = {
    "workflow_status": "workflow_uuid",
    "workflow_input": "workflow_uuid",
    "workflow_output": "workflow_uuid",
    "operation_outputs": "workflow_uuid",
    "notifications": "destination_uuid",
    "workflow_events": "workflow_uuid",
    "workflow_events_history": "workflow_uuid",
    "streams": "workflow_uuid",
}
CLOSED = '"__DBOS_STREAM_CLOSED__"'


STATUSES = ["PENDING", "ENQUEUED", "DELAYED", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS", "ERROR"]
LATER_MS = 2**50


def add_workflow(database_url: str, workflow_id: str, status: str, **columns: Any) -> None:
    """A workflow as some process might have left it, of a version that nobody runs here."""
    row = {
        "workflow_uuid": workflow_id,
        "status": status,
        "name": "f",
        "application_name": "test-app",
        "application_version": "other",
        "created_at": 5,
        "updated_at": 7,
        "delay_until_epoch_ms": LATER_MS if status == "DELAYED" else None,
    } | columns
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    rows(database_url, f"INSERT INTO workflow_status ({names}) VALUES ({places})", *row.values())
    rows(database_url, "INSERT INTO workflow_input (workflow_uuid, inputs) VALUES (%s, 'given')", workflow_id)


def remains(database_url: str, workflow_id: str) -> list[str]:
    """The tables that have a row of the workflow."""
    return [
        table
        for table, column in TABLES.items()
        if rows(database_url, f"SELECT 1 FROM {table} WHERE {column} = %s LIMIT 1", workflow_id)
    ]


def add_events(database_url: str, workflow_id: str, *values: tuple[int, str, str]) -> None:
    """(step, key, value) as `set_event` leaves them, in the order of the steps."""
    for step_id, key, value in values:
        rows(
            database_url,
            "INSERT INTO workflow_events_history (workflow_uuid, function_id, key, value, serialization) "
            "VALUES (%s, %s, %s, %s, 'py_pickle')",
            *(workflow_id, step_id, key, value),
        )
        rows(
            database_url,
            "INSERT INTO workflow_events (workflow_uuid, key, value, serialization) VALUES (%s, %s, %s, 'py_pickle') "
            "ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value",
            *(workflow_id, key, value),
        )


def add_stream(database_url: str, workflow_id: str, *entries: tuple[int, str]) -> None:
    """(step, value) at the offsets 0, 1, ..."""
    for offset, (step_id, value) in enumerate(entries):
        rows(
            database_url,
            'INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization) '
            "VALUES (%s, %s, %s, %s, %s, %s)",
            *(workflow_id, "log", value, offset, step_id, "portable_json" if value == CLOSED else "py_pickle"),
        )


def add_message(database_url: str, workflow_id: str, message: str, consumed_by: int | None = None) -> None:
    rows(
        database_url,
        "INSERT INTO notifications (message_uuid, destination_uuid, topic, message, consumed, consumed_by_function_id) "
        "VALUES (%s, %s, '__null__topic__', %s, %s, %s)",
        *(message, workflow_id, message, consumed_by is not None, consumed_by),
    )


def events(database_url: str, workflow_id: str) -> dict[str, str]:
    found = rows(database_url, "SELECT key, value FROM workflow_events WHERE workflow_uuid = %s", workflow_id)
    return {row["key"]: row["value"] for row in found}


def history(database_url: str, workflow_id: str) -> list[tuple[Any, ...]]:
    sql = (
        "SELECT function_id, key, value, serialization FROM workflow_events_history WHERE workflow_uuid = %s "
        "ORDER BY function_id, key"
    )
    return [tuple(row.values()) for row in rows(database_url, sql, workflow_id)]


def stream(database_url: str, workflow_id: str) -> list[tuple[Any, ...]]:
    sql = 'SELECT "offset", function_id, value FROM streams WHERE workflow_uuid = %s ORDER BY "offset"'
    return [tuple(row.values()) for row in rows(database_url, sql, workflow_id)]


def messages(database_url: str, workflow_id: str) -> list[str]:
    sql = "SELECT message FROM notifications WHERE destination_uuid = %s ORDER BY message"
    return [row["message"] for row in rows(database_url, sql, workflow_id)]
