"""What many tests do: look at rows with plain SQL, send a workflow back to PENDING, launch again.

The statements are written for both backends: `%s` for parameters, tables without schema.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dbos import DBOS
from tests.databases import path_of

# How long a test waits for something that must happen; generous, since other work may share the machine.
PATIENCE_SECONDS = 60.0

# A queue nobody has registered: what is put there waits.
NOWHERE = "nowhere"


def declare_echo(name: str = "echo") -> Any:
    """A workflow that returns its argument."""

    @DBOS.workflow(name=name)
    def echo(value: Any = None) -> Any:
        return value

    return echo


def rows(database_url: str, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """The rows of a query, by column name; for a statement without result an empty list."""
    if database_url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(database_url), timeout=30, isolation_level=None)) as lite:
            lite.row_factory = sqlite3.Row
            return [dict(row) for row in lite.execute(sql.replace("%s", "?"), parameters)]
    with psycopg.connect(
        database_url, autocommit=True, row_factory=dict_row, options="-c search_path=dbos"
    ) as connection:
        cursor = connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description is not None else []


def status_row(database_url: str, workflow_id: str) -> dict[str, Any]:
    """The row of one workflow; it must exist."""
    (row,) = rows(database_url, "SELECT * FROM workflow_status WHERE workflow_uuid = %s", workflow_id)
    return row


def step_rows(database_url: str, workflow_id: str) -> list[dict[str, Any]]:
    """The recorded steps of one workflow, in order."""
    return rows(
        database_url, "SELECT * FROM operation_outputs WHERE workflow_uuid = %s ORDER BY function_id", workflow_id
    )


def step_names(database_url: str, workflow_id: str) -> dict[int, str]:
    """Step ids and names of one workflow."""
    return {row["function_id"]: row["function_name"] for row in step_rows(database_url, workflow_id)}


def make_pending(database_url: str, workflow_id: str, *, steps_until: int | None = None) -> None:
    """Put a finished workflow back to where a crash of its process would have left it.

    `steps_until` also removes the steps behind that id, as if the crash had come earlier.
    """
    rows(database_url, "DELETE FROM workflow_output WHERE workflow_uuid = %s", workflow_id)
    rows(
        database_url,
        "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'a process that died', completed_at = NULL "
        "WHERE workflow_uuid = %s",
        workflow_id,
    )
    if steps_until is not None:
        rows(
            database_url,
            "DELETE FROM operation_outputs WHERE workflow_uuid = %s AND function_id > %s",
            workflow_id,
            steps_until,
        )


def relaunch(config: dict[str, Any]) -> None:
    """As a restart of the process: everything in memory is gone but the decorated functions."""
    DBOS.destroy()
    DBOS(config=config)
    DBOS.launch()


def replay(config: dict[str, Any], workflow_id: str, *, steps_until: int | None = None) -> Any:
    """Execute a finished workflow again from its recorded steps; its result, or its error raised."""
    make_pending(config["system_database_url"], workflow_id, steps_until=steps_until)
    relaunch(config)
    return DBOS.retrieve_workflow(workflow_id).get_result()


def wait_until(condition: Callable[[], Any], timeout_seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true answer of `condition`, asked every few milliseconds."""
    give_up_at = time.monotonic() + timeout_seconds
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, f"did not happen within {timeout_seconds} s"
        threading.Event().wait(0.005)
    return answer


def wait_for_status(database_url: str, workflow_id: str, *statuses: str) -> str:
    """Wait until the workflow's row has one of the statuses."""

    def look() -> str | None:
        status: str = status_row(database_url, workflow_id)["status"]
        return status if status in statuses else None

    found: str = wait_until(look)
    return found


class Gate:
    """An event whose wait fails the test instead of blocking it for ever."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE_SECONDS), "the gate was never opened"

    @property
    def is_open(self) -> bool:
        return self._event.is_set()
