"""Streams on any SQL database (see `store.Store`).

The entries of a workflow are written by the one execution that owns it, through its journal, so the store can know
where each will stand. An entry from step code has no row beside it by which a repeated commit would recognise it: it
goes to its place or nowhere. If the answer to a commit was lost, what stands at that place tells whether it happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import StreamWritten, Verdict
from ..types import StoredValue, StreamPage
from .encoding import encode_json
from .store import StoreUnavailable

if TYPE_CHECKING:
    from .database import Connections


class StreamOperations:
    """The part of the store that is about streams; they are written by the journal (`records.StreamWritten`)."""

    _db: Connections

    def read_stream(self, workflow_id: str, key: str, offset: int, limit: int) -> StreamPage:
        rows = self._db.read("read_stream", (workflow_id, key, offset, limit))
        if not rows:
            return StreamPage(None, [])
        status, _, _, _, closed_before = rows[0]
        entries: list[StoredValue] = []
        for _, found, value, serialization, _ in rows:
            if found != offset + len(entries):
                break
            entries.append(StoredValue(value, serialization))
        return StreamPage(status, entries, not entries and bool(closed_before))

    def has_marker(self, workflow_id: str, key: str) -> bool:
        return bool(self._db.read("has_marker", (workflow_id, key))[0][0])

    def find_stream_ends(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        rows = self._db.read("find_stream_ends", (encode_json(list(wanted)),))
        return {(row[0], row[1]): row[2] for row in rows}

    # --- writing

    def _place(self, entries: Sequence[StreamWritten]) -> None:
        """Say where the entries of a batch will stand, in its order."""
        for entry in entries:
            if entry.offset is not None:
                entry.stands = self._is_written(entry)
        unknown = {(entry.workflow_id, entry.key) for entry in entries if entry.end.top is None}
        tops = self.find_stream_ends(list(unknown)) if unknown else {}
        reached: dict[int, int] = {}
        for entry in entries:
            end = id(entry.end)
            if end not in reached:
                top = entry.end.top
                reached[end] = tops.get((entry.workflow_id, entry.key), -1) if top is None else top
            if not entry.stands:
                reached[end] += 1
                entry.offset = reached[end]
            # Until the answer is there.
            entry.end.top = None

    def _note_placed(self, entries: Sequence[StreamWritten]) -> None:
        """All entries of a batch were written where they were expected."""
        for entry in entries:
            entry.end.top = entry.offset

    def _is_written(self, entry: StreamWritten) -> bool:
        """Whether a former try of a commit has written an entry, or it can never be."""
        if entry.step is None:
            return self._stands(entry)
        entry.offset = None
        rows = self._db.read("find_step", (entry.workflow_id, entry.step_id))
        return not rows or rows[0][1] is not None

    def _stands(self, entry: StreamWritten) -> bool:
        """Whether an entry from step code stands at its place."""
        rows = self._db.read("find_stream_entry", (entry.workflow_id, entry.key, entry.offset))
        return bool(rows) and rows[0] == (entry.value, entry.serialization, entry.step_id)

    def _answer_to_entry(self, entry: StreamWritten) -> Verdict:
        """What became of an entry from step code whose execution owns the workflow still."""
        if not self._stands(entry):
            raise StoreUnavailable(f"stream {entry.key!r} of workflow {entry.workflow_id} has become longer meanwhile")
        return Verdict.APPLIED
