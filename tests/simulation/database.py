"""The system database of a simulated world: the real SQL on SQLite in memory, watched by triggers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from dbos.records import (
    EFFECT_TYPES,
    Bounce,
    Effect,
    MessageConsumed,
    MessagesSent,
    Record,
    StepCompleted,
    StreamWritten,
    WorkflowFinished,
)
from dbos.serialization import Payloads
from dbos.storage.database import SqlStore
from dbos.storage.migrate import connect_sqlite, migrate_sqlite
from dbos.storage.sqlite import SqliteConnections

# What must never happen, noticed by the database itself.
_TRIGGERS = """
CREATE TABLE violations (text TEXT);
CREATE TRIGGER step_changed BEFORE UPDATE ON operation_outputs BEGIN
  INSERT INTO violations VALUES ('step ' || OLD.function_id || ' of ' || OLD.workflow_uuid || ' was changed');
END;
-- Only with the workflow, or when it is rewound.
CREATE TRIGGER step_deleted BEFORE DELETE ON operation_outputs
WHEN EXISTS (SELECT 1 FROM workflow_status AS w WHERE w.workflow_uuid = OLD.workflow_uuid
             AND (w.status <> 'ENQUEUED' OR NOT rewinding())) BEGIN
  INSERT INTO violations VALUES ('step ' || OLD.function_id || ' of ' || OLD.workflow_uuid || ' was deleted');
END;
-- Only while the workflow runs, or when it has just been forked.
CREATE TRIGGER step_of_nobody BEFORE INSERT ON operation_outputs
WHEN NOT EXISTS (SELECT 1 FROM workflow_status AS w WHERE w.workflow_uuid = NEW.workflow_uuid
                 AND (w.status = 'PENDING' AND w.owner_xid IS NOT NULL
                      OR w.status = 'ENQUEUED' AND w.forked_from IS NOT NULL AND w.recovery_attempts = 0)) BEGIN
  INSERT INTO violations VALUES ('step ' || NEW.function_id || ' of ' || NEW.workflow_uuid || ' belongs to nobody');
END;
CREATE TRIGGER outcome_changed BEFORE UPDATE OF status ON workflow_status
WHEN OLD.status IN ('SUCCESS', 'ERROR') AND NOT (NEW.status = 'ENQUEUED' AND rewinding()) BEGIN
  INSERT INTO violations
  VALUES ('the outcome of ' || OLD.workflow_uuid || ' was ' || OLD.status || ', then ' || NEW.status);
END;
CREATE TRIGGER output_changed BEFORE UPDATE ON workflow_output
WHEN (SELECT status FROM workflow_status AS w WHERE w.workflow_uuid = OLD.workflow_uuid) IN ('SUCCESS', 'ERROR') BEGIN
  INSERT INTO violations VALUES ('the output of ' || OLD.workflow_uuid || ' was replaced');
END;
CREATE TRIGGER message_changed BEFORE UPDATE ON notifications WHEN OLD.consumed OR NOT NEW.consumed BEGIN
  INSERT INTO violations VALUES ('message ' || OLD.message || ' to ' || OLD.destination_uuid || ' was received twice');
END;
"""

# As if a program in another language had enqueued the workflows whose ids begin with `foreign`.
_TRIGGERS += """
CREATE TRIGGER enqueued_by_others AFTER INSERT ON workflow_status WHEN NEW.workflow_uuid LIKE 'foreign%' BEGIN
  UPDATE workflow_status SET serialization = 'js_superjson' WHERE workflow_uuid = NEW.workflow_uuid;
END;
"""

# The key under which scenarios write from step code: a number that nobody else writes, then at most two dots.
STREAM_OF_STEPS = "steps"
_payloads = Payloads(None)

# What workflows do to the outside: tables and the columns that are compared.
EFFECTS = (
    ("workflow_events", "workflow_uuid, key, value, serialization"),
    ("workflow_events_history", "workflow_uuid, function_id, key, value, serialization"),
    ("streams", 'workflow_uuid, key, "offset", value, function_id, serialization'),
    ("notifications", "destination_uuid, topic, message, serialization, consumed, consumed_by_function_id"),
)


@cache
def _template() -> sqlite3.Connection:
    connection = connect_sqlite(":memory:", check_same_thread=False)
    migrate_sqlite(connection)
    connection.executescript(_TRIGGERS)
    return connection


class SimulatedDatabase:
    """One database, shared by all processes of a world; outlives each of them."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.connection = connect_sqlite(":memory:", check_same_thread=False)
        _template().backup(self.connection)
        # Whether somebody is rewinding a workflow now: for the triggers.
        self.is_rewinding = False
        self.connection.create_function("rewinding", 0, lambda: self.is_rewinding)
        connections = SqliteConnections(":memory:", self.connection, sqlite3.connect)
        connections.now_ms = now_ms  # type: ignore[method-assign]
        self.store = SqlStore(connections)

    def close(self) -> None:
        self.connection.close()

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, parameters).fetchall()

    def remains(self, workflow_id: str) -> list[str]:
        """The tables that have a row of a workflow."""
        tables = ["workflow_status", "workflow_input", "workflow_output", "operation_outputs", "streams"]
        tables += ["workflow_events", "workflow_events_history"]
        found = [table for table in tables if self.rows(f"SELECT 1 FROM {table} WHERE workflow_uuid = ?", workflow_id)]
        if self.rows("SELECT 1 FROM notifications WHERE destination_uuid = ?", workflow_id):
            found.append("notifications")
        return found

    def history(self, workflow_id: str, before: int) -> list[tuple[Any, ...]]:
        """The steps of a workflow below an id, as a fork takes them."""
        return self.rows(
            "SELECT function_id, function_name, output, error, child_workflow_id FROM operation_outputs "
            "WHERE workflow_uuid = ? AND function_id < ? ORDER BY function_id",
            workflow_id,
            before if before > 1 else 0,
        )

    def owner(self, workflow_id: str) -> str | None:
        rows = self.rows("SELECT owner_xid FROM workflow_status WHERE workflow_uuid = ?", workflow_id)
        return rows[0][0] if rows else None

    def owned_by(self, processes: Sequence[str]) -> list[str]:
        """The running workflows of processes."""
        rows = self.rows("SELECT workflow_uuid, owner_xid FROM workflow_status WHERE status = 'PENDING'")
        return [workflow_id for workflow_id, token in rows if token[:18] in processes]

    def has_step(self, workflow_id: str, step_id: int) -> bool:
        sql = "SELECT 1 FROM operation_outputs WHERE workflow_uuid = ? AND function_id = ?"
        return bool(self.rows(sql, workflow_id, step_id))

    def holds(self, record: Record) -> bool:
        """Whether what a record says is in the database."""
        if isinstance(record, StepCompleted):
            return self.has_step(record.workflow_id, record.step_id)
        if isinstance(record, EFFECT_TYPES):
            return self._holds_effect(record)
        rows = self.rows("SELECT status FROM workflow_status WHERE workflow_uuid = ?", record.workflow_id)
        return bool(rows) and (not isinstance(record, WorkflowFinished) or rows[0][0] == record.status)

    def _holds_effect(self, record: Effect) -> bool:
        if record.step is not None and not self.has_step(record.step.workflow_id, record.step.step_id):
            return False
        if isinstance(record, StreamWritten):
            sql = "SELECT 1 FROM streams WHERE workflow_uuid = ? AND key = ? AND value = ?"
            return bool(self.rows(sql, record.workflow_id, record.key, record.value))
        if isinstance(record, (MessagesSent, MessageConsumed)):
            found = self._messages(record)
            if isinstance(record, MessageConsumed):
                return [row[1:] for row in found] == [(1, record.step_id)]
            return {row[0] for row in found} == {message.message_id for message in record.messages}
        sql = "SELECT 1 FROM workflow_events_history WHERE workflow_uuid = ? AND function_id = ? AND key = ?"
        return bool(self.rows(sql, record.workflow_id, record.step_id, record.key))

    def _messages(self, record: MessagesSent | MessageConsumed) -> list[tuple[Any, ...]]:
        """The rows of the messages of a record."""
        if isinstance(record, MessagesSent):
            ids = [message.message_id for message in record.messages]
        else:
            ids = [record.message_id]
        sql = "SELECT message_uuid, consumed, consumed_by_function_id FROM notifications WHERE message_uuid = ?"
        return [row for message_id in ids for row in self.rows(sql, message_id)]

    def effects(self) -> dict[str, list[tuple[Any, ...]]]:
        """What workflows have done to the outside."""
        found = {table: self.rows(f"SELECT {columns} FROM {table} ORDER BY {columns}") for table, columns in EFFECTS}
        # Every attempt of a step appends its own.
        found["streams"] = [row for row in found["streams"] if row[1] != STREAM_OF_STEPS]
        return found

    def stream_values(self) -> dict[tuple[str, str], list[tuple[int, Any]]]:
        """The entries of every stream, as offset and value."""
        found: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        for workflow_id, key, *entry in self.rows('SELECT * FROM streams ORDER BY workflow_uuid, key, "offset"'):
            value, offset, _, serialization = entry
            found.setdefault((workflow_id, key), []).append((offset, _payloads.decode_value(value, serialization)))
        return found

    def unfinished(self) -> list[str]:
        sql = "SELECT workflow_uuid FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
        return [row[0] for row in self.rows(sql)]

    def may_write(self, record: Record) -> bool:
        """Whether the execution behind a record owns its workflow now."""
        if isinstance(record, (StepCompleted, WorkflowFinished, *EFFECT_TYPES)):
            return record.workflow_id is None or self.owner(record.workflow_id) == record.owner_token
        if record.parent is None:
            return True
        return self.owner(record.parent.workflow_id) == record.parent.owner_token

    def trace_of_bounce(self, bounce: Bounce) -> Any:
        """What a bounce could change."""
        waiting = self.rows(
            "SELECT w.*, i.inputs FROM workflow_status AS w JOIN workflow_input AS i USING (workflow_uuid) "
            "WHERE w.workflow_uuid = ?",
            bounce.workflow_id,
        )
        return waiting, None if bounce.step is None else self.trace(bounce.step)

    def trace(self, record: Record) -> Any:
        """What a record could change, to compare before and after a commit that must not change it."""
        if isinstance(record, StepCompleted):
            return self.rows(
                "SELECT * FROM operation_outputs WHERE workflow_uuid = ? AND function_id = ?",
                record.workflow_id,
                record.step_id,
            )
        if isinstance(record, EFFECT_TYPES):
            step = record.step is not None and self.has_step(record.step.workflow_id, record.step.step_id)
            if isinstance(record, (MessagesSent, MessageConsumed)):
                return step, self._messages(record)
            table = "streams" if isinstance(record, StreamWritten) else "workflow_events_history"
            return step, self.rows(
                # What other steps do in the same batch is not its doing.
                f"SELECT * FROM {table} WHERE workflow_uuid = ? AND key = ? AND function_id = ?",
                record.workflow_id,
                record.key,
                record.step_id,
            )
        outcome = self.rows(
            "SELECT w.status, w.owner_xid, o.output, o.error FROM workflow_status AS w "
            "LEFT JOIN workflow_output AS o USING (workflow_uuid) WHERE w.workflow_uuid = ?",
            record.workflow_id,
        )
        if isinstance(record, WorkflowFinished) or record.parent is None:
            return outcome
        parent = record.parent
        return outcome, self.has_step(parent.workflow_id, parent.step_id)
