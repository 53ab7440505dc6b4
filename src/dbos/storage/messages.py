"""Messages on any SQL database (see `store.Store`).

The order of a mailbox is that in which messages were sent. The format orders by `created_at_epoch_ms`, in which all
messages of a millisecond are equal, and those of a bulk too. So each message of ours gets a time later than that of the
one before it under the same workflow and topic: the present one, or one millisecond more than the latest there. A
message that was committed before another was sent comes before it, whichever processes have sent them. Rows of other
writers with equal times keep the order of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from ..records import Answer, MessageConsumed, MessagesSent, RecipientsMissing, Verdict
from ..types import SentMessage, StoredMessage
from .encoding import encode_json, encode_rows
from .listing import ALL
from .rows import verdict_on_step
from .store import StoreUnavailable

if TYPE_CHECKING:
    from .database import Connections

# Of statement, statement for a single row, rows, rows of the database that change for each on SQLite, and besides.
EffectWork = tuple[str, Union[str, None], list[dict[str, Any]], int, int]


def sending(records: Sequence[MessagesSent]) -> EffectWork:
    rows = [row for number, record in enumerate(records) for row in record.rows(number)]
    # The messages of one record cannot be sent by a statement each: all or none.
    lone = "send_message" if len(rows) == len(records) else None
    return "send_messages", lone, rows, 1, sum(record.step is not None for record in records)


def consumption(records: Sequence[MessageConsumed]) -> EffectWork:
    deadlines = sum(record.step.also is not None for record in records)
    return "consume_messages", "consume_message", [record.row() for record in records], 2, deadlines


class MessageOperations:
    """The part of the store that is about messages; the journal sends and consumes them (see `records`)."""

    _db: Connections

    def find_messages(self, workflow_id: str, topic: str, limit: int) -> list[StoredMessage]:
        return [StoredMessage(*row) for row in self._db.read("find_messages", (workflow_id, topic, limit))]

    def find_filled_mailboxes(self, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        rows = self._db.read("find_filled_mailboxes", (encode_json(list(wanted)),))
        return [(row[0], row[1]) for row in rows]

    def find_forks(self, workflow_ids: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {workflow_id: [] for workflow_id in workflow_ids}
        for origin, workflow_id in self._db.read("find_forks", (encode_json(list(found)),)):
            if workflow_id != origin:
                found[origin].append(workflow_id)
        return found

    def send_within(
        self,
        connection: Any,
        destination_ids: Sequence[str],
        make: Callable[[Mapping[str, Sequence[str]]], MessagesSent],
        *,
        send_to_forks: bool,
    ) -> list[str]:
        transaction = self._db.adopt(connection)
        wanted = encode_json(list(destination_ids))
        existing = {row[0] for row in transaction.read("find_existing", (wanted,))}
        missing = sorted(set(destination_ids) - existing)
        if missing or not destination_ids:
            return missing
        forks: dict[str, list[str]] = {}
        if send_to_forks:
            for origin, workflow_id in transaction.read("find_forks", (wanted,)):
                if workflow_id != origin:
                    forks.setdefault(origin, []).append(workflow_id)
        transaction.change("send_messages", (encode_rows(make(forks).rows(0)), transaction.now_ms()))
        return []

    def list_messages(
        self,
        workflow_id: str,
        topics: Sequence[str] | None,
        is_received: bool | None,
        *,
        load_message: bool,
        limit: int | None,
        offset: int | None,
        timeout_seconds: float | None,
    ) -> list[SentMessage]:
        asked: dict[str, Any] = {} if topics is None else {"topics": encode_json(list(topics))}
        if is_received is not None:
            asked["received" if is_received else "waiting"] = True
        first = (workflow_id, ALL if limit is None else limit, offset or 0, load_message)
        rows = self._db.look_up("list_messages", first, asked, timeout_seconds)
        return [
            SentMessage(message_id, topic, text, format_name, created_at_ms, bool(is_received), received_by)
            for message_id, topic, text, format_name, created_at_ms, is_received, received_by in rows
        ]

    def _answer_to_sending(self, record: MessagesSent) -> Answer:
        if record.workflow_id is not None:
            rows = self._db.read("find_step", (record.workflow_id, record.step_id))
            if record.step is not None:
                verdict = verdict_on_step(record.step, rows)
                if verdict is not None:
                    return verdict
            elif not rows or rows[0][0] != record.owner_token:
                return Verdict.FENCED
        destinations = {message.destination_id for message in record.messages}
        existing = self._db.read("find_existing", (encode_json(list(destinations)),))
        missing = destinations.difference(row[0] for row in existing)
        if missing:
            return RecipientsMissing(tuple(sorted(missing)))
        if record.step is None:
            # Those with a key may have been sent by somebody else, which is as good.
            ids = {message.message_id for message in record.messages}
            if len(self._db.read("find_message_ids", (encode_json(list(ids)),))) == len(ids):
                return Verdict.APPLIED
        raise StoreUnavailable("a recipient of a message was being created or deleted")

    def _answer_to_consumption(self, record: MessageConsumed) -> Answer:
        rows = self._db.read("find_step", (record.workflow_id, record.step_id))
        return verdict_on_step(record.step, rows) or Verdict.TAKEN
