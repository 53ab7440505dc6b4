"""Looking into mailboxes (04 section 12.20): what waits, and what was received."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, MessageInfo, SendMessage, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import DBOSException
from tests.helpers import replay, rows, step_names
from tests.management.sides import Side

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE


@pytest.fixture
def sides(app: type[DBOS], database_url: str) -> Iterator[list[Side]]:
    """The four forms of the call."""
    with DBOSClient(system_database_url=database_url) as client:
        yield [Side(target, is_async=is_async) for target in (DBOS, client) for is_async in (False, True)]


def mailbox() -> None:
    """A workflow `w` with five messages."""

    @DBOS.workflow(name="recipient")
    def recipient() -> None: ...

    with SetWorkflowID("w"):
        recipient()
    DBOS.send_bulk(
        [
            SendMessage("w", {"n": 1}, "a"),
            SendMessage("w", 2, None, "key"),
            SendMessage("w", None, "a"),
            SendMessage("w", 4, "b"),
        ],
        serialization_type=PORTABLE,
    )
    DBOS.send("w", (5,))


def brief(found: list[MessageInfo]) -> list[tuple[Any, ...]]:
    """Topic by topic: those of a bulk are sent at one time, in an order only within their topics."""
    some = [(m["topic"], m["message"], m["received"], m["received_by_function_id"]) for m in found]
    return sorted(some, key=lambda message: message[0] or "")


ALL = [(None, 2, True, 3), (None, (5,), False, None), ("a", {"n": 1}, True, 1), ("a", None, False, None)]
ALL += [("b", 4, False, None)]


def test_messages_are_listed_in_the_order_in_which_they_were_sent(sides: list[Side], database_url: str) -> None:
    """With what became of each, and nothing is taken out."""
    mailbox()
    rows(
        database_url,
        "UPDATE notifications SET consumed = TRUE, consumed_by_function_id = CASE WHEN topic = 'a' THEN 1 ELSE 3 END "
        "WHERE message IN ('{\"n\":1}', '2')",
    )
    for side in sides:
        found = side.list_messages("w")
        assert brief(found) == ALL
        assert [m["problem"] for m in found] == [None] * 5
        assert {m["message_id"]: m["message"] for m in found}["key::w"] == 2
        assert len({m["message_id"] for m in found}) == 5
        times = [m["created_at_epoch_ms"] for m in found]
        assert times == sorted(times)
        assert brief(side.list_messages("w", topics="a")) == ALL[2:4]
        assert brief(side.list_messages("w", topics=[None])) == ALL[:2]
        assert brief(side.list_messages("w", topics=["b", None])) == [*ALL[:2], ALL[4]]
        assert side.list_messages("w", topics=[]) == side.list_messages("w", topics="c") == []
        assert brief(side.list_messages("w", received=True)) == ALL[::2][:2]
        assert brief(side.list_messages("w", received=False)) == [ALL[1], *ALL[3:]]
        assert brief(side.list_messages("w", received=False, topics=["a"], limit=1)) == [ALL[3]]
        assert side.list_messages("w", limit=2, offset=1) == found[1:3]
        assert side.list_messages("w", offset=4) == found[4:]
        assert side.list_messages("w", limit=0) == side.list_messages("unknown") == []
        assert [row[1] for row in brief(side.list_messages("w", load_message=False))] == [None] * 5


def test_the_step_that_received_a_message_is_named(app: type[DBOS], database_url: str) -> None:
    @DBOS.workflow()
    def echo() -> list[Any]:
        DBOS.send("w", "to myself", "t")
        before = DBOS.list_messages("w")
        received = DBOS.recv("t")
        return [received, brief(before), brief(DBOS.list_messages("w"))]

    with SetWorkflowID("w"):
        assert echo() == ["to myself", [("t", "to myself", False, None)], [("t", "to myself", True, 3)]]
    assert step_names(database_url, "w")[3] == "DBOS.recv"


def test_a_listing_in_workflow_code_is_one_step_that_a_replay_reads(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    @DBOS.workflow()
    def counts() -> list[int]:
        first = len(DBOS.list_messages("w"))
        DBOS.send("w", 1)
        return [first, len(DBOS.list_messages("w"))]

    with SetWorkflowID("w"):
        assert counts() == [0, 1]
    assert step_names(database_url, "w") == {1: "DBOS.listMessages", 2: "DBOS.send", 3: "DBOS.listMessages"}
    rows(database_url, "DELETE FROM notifications")
    assert replay(config, "w") == [0, 1]


def test_what_nobody_can_receive_says_why(sides: list[Side], database_url: str) -> None:
    """04 R132, section 11, 32: one that cannot be read, and one that SQL has sent without a topic."""
    mailbox()
    rows(database_url, "UPDATE notifications SET message = '{', serialization = 'portable_json' WHERE topic = 'b'")
    rows(database_url, "UPDATE notifications SET topic = NULL WHERE topic = 'a'")
    rows(database_url, "UPDATE notifications SET serialization = 'js_superjson' WHERE message_uuid = 'key::w'")
    for side in sides:
        found = {str(m["message"]): m["problem"] for m in side.list_messages("w")}
        assert found["(5,)"] is None
        assert "format portable_json): JSONDecodeError" in found["{"]
        assert "js_superjson" in found["2"]
        assert "topic is NULL" in found["{'n': 1}"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topics": 3}, "topics must be a text or a list of texts and None, not 3"),
        ({"topics": [3]}, "The topic must be a text, not 3"),
        ({"topics": "a\0"}, "NUL"),
        ({"received": "no"}, "received must be True or False, not 'no'"),
        ({"load_message": None}, "load_message must be True or False, not None"),
        ({"limit": -1}, "limit must be a whole number from 0 on, not -1"),
        ({"offset": 1.5}, "offset must be a whole number from 0 on, not 1.5"),
        ({"shard_key": "s"}, "not sharded"),
    ],
)
def test_what_means_nothing_is_refused(sides: list[Side], given: dict[str, Any], message: str) -> None:
    for side in sides:
        with pytest.raises((ValueError, DBOSException)) as refused:
            side.list_messages("w", **given)
        assert message in str(refused.value)
