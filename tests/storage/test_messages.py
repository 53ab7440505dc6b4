"""Messages in the store: all or none of a record, in order, received once."""

from __future__ import annotations

from typing import Any

import pytest

from dbos.records import Answer, Message, MessageConsumed, MessagesSent, RecipientsMissing, StepCompleted, Verdict
from dbos.storage.database import SqlStore
from dbos.types import StoredMessage
from tests.storage.conftest import OpenAnother
from tests.storage.making import Rows, start, step

COMPANY = [0, 2, 20]


def message(message_id: str, destination_id: str = "r", text: str = "", topic: str = "t") -> Message:
    return Message(message_id, destination_id, topic, text or message_id, "portable_json")


def plain(*message_ids: str, **given: Any) -> MessagesSent:
    return MessagesSent([message(message_id, **given) for message_id in message_ids])


def send_row(workflow_id: str, step_id: int, token: str) -> StepCompleted:
    return step(workflow_id, step_id, owner_token=token, name="DBOS.send", output=None, serialization=None)


def sent(workflow_id: str, step_id: int, *messages: Message, in_step: bool = False, token: str = "") -> MessagesSent:
    """Messages of the execution that `start` made."""
    token = token or f"token-{workflow_id}"
    row = None if in_step else send_row(workflow_id, step_id, token)
    return MessagesSent(messages, workflow_id, token, step_id, row)


def consumed(
    workflow_id: str, step_id: int, message_id: str, token: str = "", error: str | None = None, first: bool = False
) -> MessageConsumed:
    token = token or f"token-{workflow_id}"
    row = step(workflow_id, step_id, owner_token=token, name="DBOS.recv", output=None, serialization=None, error=error)
    return MessageConsumed(workflow_id, token, step_id, message_id, row, "t" if first else None)


def waiting(store: SqlStore, workflow_id: str = "r", limit: int = 1000) -> list[str]:
    return [found.message_id for found in store.find_messages(workflow_id, "t", limit)]


def company(number: int) -> list[StepCompleted]:
    return [step("other", 1 + i) for i in range(number)]


def applied(number: int) -> list[Answer]:
    return [Verdict.APPLIED] * number


@pytest.fixture(autouse=True)
def _workflows(store: SqlStore) -> None:
    store.commit([start("s"), start("r"), start("other")])


@pytest.mark.parametrize("sender", ["workflow", "step", "plain"])
@pytest.mark.parametrize("others", COMPANY)
def test_a_repeated_commit_finds_what_it_has_sent(store: SqlStore, read: Rows, sender: str, others: int) -> None:
    """As after an answer that was lost (04 section 12, 18)."""
    messages = [message("m1"), message("m2")]
    record = MessagesSent(messages) if sender == "plain" else sent("s", 1, *messages, in_step=sender == "step")
    records = [record, *company(others)]
    assert store.commit(records) == applied(1 + others)
    before = read("SELECT * FROM notifications")
    assert store.commit(records) == applied(1 + others)
    assert read("SELECT * FROM notifications") == before
    assert waiting(store) == ["m1", "m2"]
    written = read("SELECT function_id FROM operation_outputs WHERE workflow_uuid = 's'")
    assert len(written) == (sender == "workflow")


@pytest.mark.parametrize("sender", ["workflow", "step", "plain"])
@pytest.mark.parametrize("others", COMPANY)
def test_a_record_with_a_missing_recipient_sends_nothing_and_stops_nobody_else(
    store: SqlStore, read: Rows, sender: str, others: int
) -> None:
    """04 R106: nor has it a step row."""
    messages = [message("m1"), message("m2", "nobody"), message("m3", "another")]
    record = MessagesSent(messages) if sender == "plain" else sent("s", 1, *messages, in_step=sender == "step")
    neighbours = [sent("other", 1 + i, message(f"n{i:02}")) for i in range(others)]
    answers = store.commit([record, *neighbours])
    assert answers == [RecipientsMissing(("another", "nobody")), *applied(others)]
    assert waiting(store) == [f"n{i:02}" for i in range(others)]
    assert read("SELECT * FROM operation_outputs WHERE workflow_uuid = 's'") == []


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("others", COMPANY)
def test_an_execution_that_was_fenced_sends_nothing(store: SqlStore, read: Rows, in_step: bool, others: int) -> None:
    """04 R3, R101."""
    neighbours = [sent("other", 1 + i, message(f"n{i:02}")) for i in range(others)]
    answers = store.commit([sent("s", 1, message("m"), in_step=in_step, token="lost"), *neighbours])
    assert answers == [Verdict.FENCED, *applied(others)]
    assert waiting(store) == [f"n{i:02}" for i in range(others)]
    assert read("SELECT * FROM operation_outputs WHERE workflow_uuid = 's'") == []


def test_messages_whose_step_is_recorded_otherwise_are_not_sent(store: SqlStore) -> None:
    store.commit([step("s", 1, completed_at_ms=9)])
    assert store.commit([sent("s", 1, message("m"))]) == [Verdict.REPEATED]
    assert waiting(store) == []


@pytest.mark.parametrize("together", [False, True])
def test_a_key_that_is_in_use_sends_nothing_and_is_no_mistake(store: SqlStore, together: bool) -> None:
    """04 R104: in one batch or one after the other, also after the first was received."""
    first, second = plain("k::r", text="first"), plain("k::r", text="second")
    if together:
        assert store.commit([first, second, sent("s", 1, message("k::r", text="third"))]) == applied(3)
    else:
        assert store.commit([first]) == applied(1)
        assert store.commit([consumed("r", 1, "k::r")]) == applied(1)
        assert store.commit([second]) == applied(1)
        assert store.commit([sent("s", 1, message("k::r", text="third"))]) == applied(1)
    assert [found.text for found in store.find_messages("r", "t", 9)] == (["first"] if together else [])


def test_messages_come_in_the_order_in_which_they_were_sent(store: SqlStore, open_another: OpenAnother) -> None:
    """04 R124, section 12, 3: within one millisecond too, of one call or many, and whatever the keys."""
    expected = []
    for number in range(60):
        ids = [f"{9 - digit}{number}::r" for digit in range(number % 4 + 1)]
        store.commit([plain(*ids)] if number % 3 else [plain(message_id) for message_id in ids])
        expected += ids
    assert waiting(store) == expected


@pytest.mark.parametrize("clock_ms", [-5_000, 5_000])
def test_a_message_comes_behind_those_that_are_there_whatever_their_time(
    store: SqlStore, read: Rows, clock_ms: int
) -> None:
    """The clock of the database may be set back."""
    store.commit([plain("m1", "m2")])
    read("UPDATE notifications SET created_at_epoch_ms = created_at_epoch_ms + %s", clock_ms)
    store.commit([plain("m0"), plain("m9")])
    assert waiting(store) == ["m1", "m2", "m0", "m9"]
    times = [row["created_at_epoch_ms"] for row in read("SELECT * FROM notifications ORDER BY created_at_epoch_ms")]
    assert len(set(times)) == 4


def test_topics_and_workflows_have_an_order_of_their_own(store: SqlStore, read: Rows) -> None:
    store.commit([plain("a"), plain("b", topic="u"), plain("c", destination_id="s"), plain("d")])
    assert waiting(store) == ["a", "d"]
    assert [found.message_id for found in store.find_messages("r", "u", 9)] == ["b"]
    assert waiting(store, "s") == ["c"]


@pytest.mark.parametrize("others", COMPANY)
def test_a_message_is_consumed_with_its_step_once(store: SqlStore, read: Rows, others: int) -> None:
    """04 R122, R123: the value of the step is the message as it is stored."""
    store.commit([plain("m1", text="[1]"), plain("m2", text="[2]")])
    record = consumed("r", 1, "m1")
    record.step.also = step("r", 2)
    for _ in range(2):
        assert store.commit([record, *company(others)]) == applied(1 + others)
        assert waiting(store) == ["m2"]
    (row,) = read("SELECT * FROM operation_outputs WHERE workflow_uuid = 'r' AND function_id = 1")
    assert (row["output"], row["error"], row["serialization"]) == ("[1]", None, "portable_json")
    (row,) = read("SELECT consumed_by_function_id, consumed FROM notifications WHERE message_uuid = 'm1'")
    assert (row["consumed_by_function_id"], bool(row["consumed"])) == (1, True)
    (_, deadline) = read("SELECT * FROM operation_outputs WHERE workflow_uuid = 'r' ORDER BY function_id")
    also = record.step.also
    assert (deadline["function_id"], deadline["function_name"], deadline["output"]) == (2, also.name, also.output)
    assert (deadline["serialization"], deadline["application_name"]) == (
        also.serialization,
        record.step.application_name,
    )
    assert (deadline["started_at_epoch_ms"], deadline["completed_at_epoch_ms"]) == (
        also.started_at_ms,
        also.completed_at_ms,
    )


@pytest.mark.parametrize("others", COMPANY)
def test_who_gets_no_message_records_no_deadline_yet(store: SqlStore, read: Rows, others: int) -> None:
    store.commit([plain("m")])
    store.commit([consumed("r", 1, "m")])
    late = consumed("r", 2, "m")
    late.step.also = step("r", 3)
    assert store.commit([late, *company(others)]) == [Verdict.TAKEN, *applied(others)]
    (row,) = read("SELECT function_id FROM operation_outputs WHERE workflow_uuid = 'r'")
    assert row["function_id"] == 1


@pytest.mark.parametrize("others", COMPANY)
def test_a_message_that_somebody_has_is_not_consumed_again(store: SqlStore, read: Rows, others: int) -> None:
    store.commit([plain("m"), plain("mine", destination_id="s"), plain("n")])
    store.commit([consumed("r", 1, "m")])
    neighbours = [consumed("r", 3, "n")] if others else []
    answers = store.commit([consumed("r", 2, "m"), consumed("r", 4, "mine"), consumed("r", 5, "gone"), *neighbours])
    assert answers == [Verdict.TAKEN] * 3 + applied(len(neighbours))
    written = read("SELECT function_id FROM operation_outputs WHERE workflow_uuid = 'r' ORDER BY function_id")
    assert [row["function_id"] for row in written] == ([1, 3] if others else [1])


@pytest.mark.parametrize("others", COMPANY)
def test_a_message_that_has_to_be_the_first_is_not_consumed_behind_others(
    store: SqlStore, read: Rows, others: int
) -> None:
    """For one that came with a signal: an older one of another process may wait; under other topics it does no harm."""
    store.commit([plain("m0", topic="u"), plain("m1"), plain("m2"), plain("m3")])
    assert store.commit([consumed("r", 1, "m2", first=True), *company(others)]) == [Verdict.TAKEN, *applied(others)]
    assert read("SELECT * FROM operation_outputs WHERE workflow_uuid = 'r'") == []
    for number in (1, 2, 3):
        assert store.commit([consumed("r", number, f"m{number}", first=True), *company(others)]) == applied(1 + others)


@pytest.mark.parametrize("others", COMPANY)
def test_an_execution_that_was_fenced_consumes_nothing(store: SqlStore, read: Rows, others: int) -> None:
    """04 R122."""
    store.commit([plain("m", "n")])
    answers = store.commit([consumed("r", 1, "m", token="lost"), *company(others)])
    assert answers == [Verdict.FENCED, *applied(others)]
    assert waiting(store) == ["m", "n"]
    store.commit([step("r", 2, completed_at_ms=9)])
    assert store.commit([consumed("r", 2, "m")]) == [Verdict.REPEATED]
    assert waiting(store) == ["m", "n"]


@pytest.mark.parametrize("others", COMPANY)
def test_a_message_can_be_consumed_with_an_error_in_its_place(store: SqlStore, read: Rows, others: int) -> None:
    store.commit([plain("m")])
    record = consumed("r", 1, "m", error="unreadable")
    record.step.serialization = "py_pickle"
    assert store.commit([record, *company(others)]) == applied(1 + others)
    (row,) = read("SELECT output, error, serialization FROM operation_outputs WHERE workflow_uuid = 'r'")
    assert tuple(row.values()) == (None, "unreadable", "py_pickle")
    assert waiting(store) == []


def test_rows_of_other_writers_are_found_in_the_order_of_their_time(store: SqlStore, read: Rows) -> None:
    """04 section 8.2, R124, R125: rows with equal times in that in which they were written; without a topic never."""
    sql = "INSERT INTO notifications (destination_uuid, topic, message, created_at_epoch_ms) VALUES ('r', %s, %s, %s)"
    for topic, text, time in [("t", "3", 30), ("t", "1", 10), ("t", "2", 10), (None, "never", 1)]:
        read(sql, topic, text, time)
    read("INSERT INTO notifications (destination_uuid, topic, message) VALUES ('r', 't', '4')")
    assert [found.text for found in store.find_messages("r", "t", 9)] == ["1", "2", "3", "4"]
    assert store.find_messages("r", "t", 1)[0].serialization is None


def test_mailboxes_in_which_something_waits_are_found(store: SqlStore) -> None:
    store.commit([plain("m"), plain("n", topic="done")])
    store.commit([consumed("r", 1, "n")])
    asked = [("r", "t"), ("r", "done"), ("s", "t"), ("nobody", "t")]
    assert store.find_filled_mailboxes(asked) == [("r", "t")]


def test_forks_of_forks_are_found_through_circles(store: SqlStore, read: Rows) -> None:
    """04 R110."""
    store.commit([start(name) for name in ("f1", "f2", "f3", "f4")])
    for fork, origin in [("f1", "r"), ("f2", "f1"), ("f3", "f2"), ("r", "f3"), ("f4", "f4"), ("s", "f4")]:
        read("UPDATE workflow_status SET forked_from = %s WHERE workflow_uuid = %s", origin, fork)
    found = store.find_forks(["r", "f4", "nobody"])
    assert {origin: sorted(forks) for origin, forks in found.items()} == {
        "r": ["f1", "f2", "f3"],
        "f4": ["s"],
        "nobody": [],
    }


def test_a_large_message_is_stored_and_received_whole(store: SqlStore, read: Rows) -> None:
    text = '"' + "text" * 12_500_000 + 'ä"'
    store.commit([plain("m", text=text)])
    assert store.find_messages("r", "t", 1) == [StoredMessage("m", text, "portable_json")]
    store.commit([consumed("r", 1, "m")])
    (row,) = read("SELECT length(output) AS size FROM operation_outputs WHERE workflow_uuid = 'r'")
    assert row["size"] == len(text)


def test_two_processes_send_into_one_mailbox_in_order(open_another: OpenAnother) -> None:
    """What was committed before another was sent comes before it, whoever has sent them."""
    first, second = open_another(), open_another()
    first.commit([start("r")])
    for number in range(40):
        (first if number % 2 else second).commit([plain(f"{99 - number}::r")])
    assert waiting(first) == waiting(second) == [f"{99 - number}::r" for number in range(40)]
