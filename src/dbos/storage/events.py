"""Events on any SQL database (see `store.Store`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..types import StoredValue
from .encoding import encode_json

if TYPE_CHECKING:
    from .database import Connections


class EventOperations:
    """The part of the store that is about events; they are set by the journal (`records.EventSet`)."""

    _db: Connections

    def find_event(self, workflow_id: str, key: str) -> StoredValue | None:
        rows = self._db.read("find_event", (workflow_id, key))
        return StoredValue(*rows[0]) if rows else None

    def find_set_events(self, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        rows = self._db.read("find_set_events", (encode_json(list(wanted)),))
        return [(row[0], row[1]) for row in rows]

    def list_events(self, workflow_id: str, timeout_seconds: float | None) -> dict[str, StoredValue]:
        rows = self._db.look_up("list_events", (workflow_id,), {}, timeout_seconds)
        return {row[0]: StoredValue(row[1], row[2]) for row in rows}
