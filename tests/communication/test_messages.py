"""Sending messages (04 section 2.2): to whom, in which format, once or more often, recorded and replayed."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from base64 import b64decode
from typing import Any

import pytest

from dbos import DBOS, SendMessage, Serializer, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.helpers import Gate, relaunch, replay, rows, step_names, step_rows, wait_until

Config = dict[str, Any]


def message_rows(database_url: str, workflow_id: str = "r") -> list[dict[str, Any]]:
    sql = "SELECT * FROM notifications WHERE destination_uuid = %s ORDER BY created_at_epoch_ms"
    return rows(database_url, sql, workflow_id)


def texts(database_url: str, workflow_id: str = "r") -> list[Any]:
    return [pickle.loads(b64decode(row["message"])) for row in message_rows(database_url, workflow_id)]


@pytest.fixture(autouse=True)
def _recipient(app: type[DBOS]) -> None:
    """A workflow `r`, which has ended."""

    @DBOS.workflow(name="recipient")
    def recipient() -> None:
        pass

    with SetWorkflowID("r"):
        recipient()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_message_and_its_step_are_written_together(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 R101, R102, R103, R113: all payload columns of the step are NULL."""

    @DBOS.workflow()
    def sync_wf() -> None:
        DBOS.send("r", {"a": 1})
        DBOS.send_bulk([SendMessage("r", 2, "t", "key"), SendMessage("r", 3, "t")])

    @DBOS.workflow()
    async def async_wf() -> None:
        await DBOS.send_async("r", {"a": 1})
        await DBOS.send_bulk_async([SendMessage("r", 2, "t", "key"), SendMessage("r", 3, "t")])

    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf).get_result()
    assert step_names(database_url, "w") == {1: "DBOS.send", 2: "DBOS.send_bulk"}
    for row in step_rows(database_url, "w"):
        assert (row["output"], row["error"], row["serialization"]) == (None, None, None)
    first, second, third = sorted(message_rows(database_url), key=lambda row: str(row["topic"]))
    assert texts(database_url) == [{"a": 1}, 2, 3]
    assert [row["topic"] for row in (first, second, third)] == ["__null__topic__", "t", "t"]
    assert second["message_uuid"] == "key::r"
    assert {len(first["message_uuid"]), len(third["message_uuid"])} == {36}
    assert (first["serialization"], bool(first["consumed"]), first["consumed_by_function_id"]) == (
        "py_pickle",
        False,
        None,
    )


def test_workflows_of_any_status_and_application_are_recipients(app: type[DBOS], database_url: str) -> None:
    """04 R109: also those that wait, or have ended in whatever way."""
    statuses = ["ENQUEUED", "DELAYED", "PENDING", "SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
    insert = "INSERT INTO workflow_status (workflow_uuid, status, name, queue_name, application_name) VALUES "
    for status in statuses:
        rows(database_url, insert + "(%s, %s, 'theirs', 'nowhere', 'other-app')", status, status)
        DBOS.send(status, 1)
    DBOS.send_bulk([SendMessage(status, 2) for status in statuses])
    assert [texts(database_url, status) for status in statuses] == [[1, 2]] * len(statuses)


class Counting:
    """Counts how often it is serialized."""

    count = 0

    def __reduce__(self) -> Any:
        type(self).count += 1
        return Counting, ()


def test_a_message_to_many_forks_is_serialized_once(app: type[DBOS], database_url: str) -> None:
    """04 R102: whatever it costs, it costs it once."""

    @DBOS.workflow()
    def fork() -> None:
        pass

    for number in range(5):
        with SetWorkflowID(f"fork {number}"):
            fork()
    rows(database_url, "UPDATE workflow_status SET forked_from = 'r' WHERE workflow_uuid LIKE 'fork %%'")
    Counting.count = 0
    DBOS.send("r", Counting(), send_to_forks=True)
    assert Counting.count == 1
    assert len(rows(database_url, "SELECT * FROM notifications")) == 6


def test_a_replay_sends_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R113; but a message that cannot be stored is a mistake in a replay too."""
    lock: list[Any] = [1]

    @DBOS.workflow(name="sender")
    def sender() -> None:
        DBOS.send("r", lock[0])

    with SetWorkflowID("w"):
        sender()
    rows(database_url, "DELETE FROM notifications")
    replay(config, "w")
    assert message_rows(database_url) == []
    lock[0] = threading.Lock()
    with pytest.raises(TypeError, match="The message to workflow 'r'"):
        replay(config, "w")


def test_a_step_sends_once_for_each_attempt_and_has_no_record(app: type[DBOS], database_url: str) -> None:
    """04 section 1.3, 2.4: at once, also if it fails; with a key once."""

    @DBOS.step(retries_allowed=True, max_attempts=3, interval_seconds=0)
    def step() -> None:
        DBOS.send("r", DBOS.step_status.current_attempt)
        DBOS.send("r", "keyed", idempotency_key="k")
        DBOS.send_bulk([])
        raise ValueError

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(Exception, match=r"3 attempts|maximum of 3"):
            step()

    with SetWorkflowID("w"):
        workflow()
    assert texts(database_url) == [0, "keyed", 1, 2]
    assert step_names(database_url, "w") == {1: step.__qualname__}


def test_plain_code_sends_without_a_workflow(app: type[DBOS], database_url: str) -> None:
    """04 R114: an assigned id is for workflows; R111."""
    with SetWorkflowID("mine"):
        DBOS.send("r", 1)
    DBOS.send_bulk([SendMessage("r", 2), SendMessage("r", 3, "__null__topic__")])
    DBOS.send_bulk([])
    assert texts(database_url) == [1, 2, 3]
    assert rows(database_url, "SELECT * FROM operation_outputs") == []
    assert {row["topic"] for row in message_rows(database_url)} == {"__null__topic__"}


def test_an_empty_bulk_has_a_record_in_workflow_code(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R111."""

    @DBOS.workflow(name="empty")
    def empty() -> str:
        DBOS.send_bulk([])
        return "done"

    with SetWorkflowID("w"):
        empty()
    assert step_names(database_url, "w") == {1: "DBOS.send_bulk"}
    assert replay(config, "w") == "done"


def test_a_key_counts_once_for_each_recipient(app: type[DBOS], database_url: str) -> None:
    """04 R103-R105, R112: whatever topic, format and content, and whoever sends; the empty one is a key as well."""

    @DBOS.workflow()
    def sender() -> None:
        DBOS.send("r", "again", "topic", idempotency_key="k")
        DBOS.send("w", "other", idempotency_key="k")

    DBOS.send("r", "first", idempotency_key="k")
    with SetWorkflowID("w"):
        sender()
    DBOS.send_bulk([SendMessage("r", "x", None, "k"), SendMessage("r", "new", None, "k2")])
    DBOS.send("r", "e", idempotency_key="")
    DBOS.send_bulk([SendMessage("r", "f", None, ""), SendMessage("r", "g", None, "")])
    assert texts(database_url) == ["first", "new", "e"]
    assert texts(database_url, "w") == ["other"]
    assert [row["message_uuid"] for row in message_rows(database_url)] == ["k::r", "k2::r", "::r"]


def test_a_key_that_is_used_twice_in_one_call_sends_nothing(app: type[DBOS], database_url: str) -> None:
    """04 R105: even for different recipients; not recorded, but the step id is used up."""
    twice = [SendMessage("r", i, None, key) for i, key in enumerate(["z", "a", "z", "ok", "a", None, None])]

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(DBOSException, match="idempotency keys in one call of send_bulk: a, z"):
            DBOS.send_bulk(twice)
        DBOS.send("r", "after")

    with SetWorkflowID("w"):
        workflow()
    assert step_names(database_url, "w") == {2: "DBOS.send"}
    assert texts(database_url) == ["after"]


def test_a_recipient_that_does_not_exist_is_an_error(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R106, R107: nothing is sent; in workflow code recorded, so a replay raises it without another try."""

    @DBOS.workflow(name="sender")
    def sender() -> list[str]:
        errors = []
        for messages in ([SendMessage("nobody", 1)], [SendMessage(to, 1) for to in ("y", "r", "x", "y")]):
            try:
                if len(messages) == 1:
                    DBOS.send("nobody", 1)
                else:
                    DBOS.send_bulk(messages)
            except DBOSNonExistentWorkflowError as error:
                errors += [str(error), error.destination, error.destination_id]
        return errors

    with SetWorkflowID("w"):
        found = sender()
    assert found == [
        "DBOS Error 5: Non-existent `send` destination workflow ID: nobody",
        "`send` destination",
        "nobody",
        # Only those that are missing.
        "DBOS Error 5: Non-existent `send` destination workflow ID: x, y",
        "`send` destination",
        "x, y",
    ]
    assert step_names(database_url, "w") == {1: "DBOS.send", 2: "DBOS.send_bulk"}
    assert all(row["error"] for row in step_rows(database_url, "w"))
    assert message_rows(database_url) == []

    @DBOS.workflow()
    def nobody() -> None:
        pass

    with SetWorkflowID("nobody"):
        nobody()
    assert replay(config, "w") == found
    assert message_rows(database_url, "nobody") == []
    with pytest.raises(DBOSNonExistentWorkflowError):
        DBOS.send("x", 1)


class PlainJson(Serializer):
    """Knows no exceptions."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)


def test_a_refusal_keeps_its_class_in_a_serializer_without_exceptions(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R107 in ours: a replay meets an error of the same class, as code that catches it needs."""
    json_config = {**config, "serializer": PlainJson()}
    relaunch(json_config)

    @DBOS.workflow(name="sender")
    def sender() -> str:
        try:
            DBOS.send("nobody", 1)
        except DBOSNonExistentWorkflowError as refused:
            return f"refused: {refused.destination_id}"
        return "sent"

    @DBOS.workflow(name="nobody")
    def nobody() -> None: ...

    with SetWorkflowID("w"):
        assert sender() == "refused: nobody"
    assert step_names(database_url, "w") == {1: "DBOS.send"}
    with SetWorkflowID("nobody"):
        nobody()
    assert replay(json_config, "w") == "refused: nobody"
    assert message_rows(database_url, "nobody") == []


def test_a_message_to_nobody_does_not_fail_its_neighbours(app: type[DBOS], database_url: str) -> None:
    """04 R1: Of many that are sent at the same time, and so are written together."""

    @DBOS.workflow()
    async def workflow() -> list[str]:
        calls = [DBOS.send_async("nobody" if i % 10 == 3 else "r", i) for i in range(60)]
        return [type(result).__name__ for result in await asyncio.gather(*calls, return_exceptions=True)]

    with SetWorkflowID("w"):
        results = DBOS.start_workflow(workflow).get_result()
    failed = [i for i, name in enumerate(results) if name != "NoneType"]
    assert failed == [3, 13, 23, 33, 43, 53]
    assert {results[i] for i in failed} == {"DBOSNonExistentWorkflowError"}
    assert texts(database_url) == [i for i in range(60) if i % 10 != 3]
    recorded = step_rows(database_url, "w")
    assert [row["function_id"] for row in recorded] == list(range(1, 61))
    assert [row["function_id"] - 1 for row in recorded if row["error"]] == failed


def test_a_message_that_cannot_be_stored_leaves_nothing(app: type[DBOS], database_url: str) -> None:
    """04 R108."""

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(TypeError, match="The message to workflow 'r' of workflow w, a lock,"):
            DBOS.send_bulk([SendMessage("r", 1), SendMessage("r", threading.Lock())])

    with SetWorkflowID("w"):
        workflow()
    assert step_names(database_url, "w") == {}
    with pytest.raises(TypeError, match="The message to workflow 'r', a lock,"):
        DBOS.send("r", threading.Lock())
    assert message_rows(database_url) == []


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (WorkflowSerializationFormat.NATIVE, ["py_pickle"] * 3),
        (None, ["portable_json", "portable_json", "py_pickle"]),
        (WorkflowSerializationFormat.DEFAULT, ["portable_json", "portable_json", "py_pickle"]),
        (WorkflowSerializationFormat.PORTABLE, ["portable_json"] * 3),
    ],
)
def test_the_format_is_the_one_asked_for_else_that_of_the_workflow(
    app: type[DBOS], database_url: str, asked: Any, stored: list[str]
) -> None:
    """04 R112, R602: in the body and in its steps; in plain code the configured one."""

    @DBOS.step()
    def step() -> None:
        DBOS.send("r", [1], serialization_type=asked)

    @DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    def workflow() -> None:
        DBOS.send("r", [1], serialization_type=asked)
        step()

    workflow()
    DBOS.send("r", [1], serialization_type=asked)
    assert [row["serialization"] for row in message_rows(database_url)] == stored


def test_forks_of_forks_get_the_message_if_asked_for(app: type[DBOS], database_url: str) -> None:
    """04 R110: with a key each has its own; circles and workflows forked from themselves do no harm."""

    @DBOS.workflow()
    def sender() -> None:
        DBOS.send("r", "all", send_to_forks=True)
        DBOS.send_bulk(
            [SendMessage("r", "keyed", None, "k"), SendMessage("fork", "again", None, "l")], send_to_forks=True
        )
        DBOS.send("r", "alone")

    @DBOS.workflow()
    def nothing() -> None:
        pass

    for name, origin in [("fork", "r"), ("fork of fork", "fork"), ("itself", "itself")]:
        with SetWorkflowID(name):
            nothing()
        rows(database_url, "UPDATE workflow_status SET forked_from = %s WHERE workflow_uuid = %s", origin, name)
    rows(database_url, "UPDATE workflow_status SET forked_from = 'fork of fork' WHERE workflow_uuid = 'r'")
    with SetWorkflowID("w"):
        sender()
    assert texts(database_url) == ["all", "keyed", "again", "alone"]
    assert texts(database_url, "fork") == ["all", "keyed", "again"]
    assert texts(database_url, "fork of fork") == ["all", "keyed", "again"]
    keyed = rows(database_url, "SELECT message_uuid FROM notifications WHERE message_uuid LIKE 'k::%%'")
    assert {row["message_uuid"] for row in keyed} == {"k::r", "k::fork", "k::fork of fork"}


def test_a_workflow_that_has_lost_its_ownership_sends_nothing(app: type[DBOS], database_url: str) -> None:
    """04 R3: in its body and in a step; only the database tells."""
    errors: list[BaseException] = []
    began, lost = Gate(), Gate()

    @DBOS.step()
    def step() -> None:
        DBOS.send("r", "from the step")

    @DBOS.workflow()
    def workflow() -> None:
        began.open()
        lost.wait()
        for send in (step, lambda: DBOS.send("r", "from the body")):
            try:
                send()
            except BaseException as error:
                errors.append(error)
        raise errors[0]

    with SetWorkflowID("w"):
        DBOS.start_workflow(workflow)
    began.wait()
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL WHERE workflow_uuid = 'w'")
    lost.open()
    wait_until(lambda: len(errors) == 2)
    assert not any(isinstance(error, Exception) for error in errors)
    assert message_rows(database_url) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 1), "workflow id is a text, not 5"),
        (("r\0", 1), "NUL"),
        (("r", 1, 5), "topic must be a text, not 5"),
        (("r", 1, "a\0b"), "NUL"),
    ],
)
def test_bad_arguments_are_named(app: type[DBOS], database_url: str, arguments: Any, message: str) -> None:
    with pytest.raises(DBOSException, match=message):
        DBOS.send(*arguments)
    assert message_rows(database_url) == []


def test_bad_keys_formats_and_lists_are_named(app: type[DBOS], database_url: str) -> None:
    """04 R7, section 12, 16."""
    with pytest.raises(DBOSException, match="idempotency key must be a text, not 5"):
        DBOS.send("r", 1, idempotency_key=5)  # type: ignore[arg-type]
    with pytest.raises(DBOSException, match="NUL"):
        DBOS.send("r", 1, idempotency_key="a\0")
    with pytest.raises(DBOSException, match="not sharded"):
        DBOS.send("r", 1, shard_key="s")
    with pytest.raises(DBOSException, match="not sharded"):
        DBOS.send_bulk([SendMessage("r", 1, shard_key="s")])
    with pytest.raises(TypeError, match="must be a WorkflowSerializationFormat"):
        DBOS.send("r", 1, serialization_type="json")  # type: ignore[arg-type]
    with pytest.raises(DBOSException, match=r"list of SendMessage, not one with \('r', 1\)"):
        DBOS.send_bulk([("r", 1)])  # type: ignore[list-item]
    assert message_rows(database_url) == []


def test_texts_of_all_kinds_are_ids_topics_and_keys(app: type[DBOS], database_url: str) -> None:
    """04 R125: topics are compared exactly; the empty one is a topic."""
    odd = ["", "a::b", "\x1e", "'; DROP TABLE x; --", "😀" * 100, "T", "t"]
    for text in odd:
        DBOS.send("r", text, text, idempotency_key=f"{text}::")

    @DBOS.workflow(name="other")
    def other() -> list[Any]:
        return [DBOS.recv(topic, 0) for topic in odd]

    with SetWorkflowID("w::x"):
        other()
    for text in odd:
        DBOS.send("w::x", text, text)
    assert sorted(row["topic"] for row in message_rows(database_url)) == sorted(odd)
    assert len(message_rows(database_url, "w::x")) == len(odd)


def test_ten_thousand_messages_in_one_call_are_one_transaction(app: type[DBOS], database_url: str) -> None:
    """04 R101: in the order of the list; one that is in the way stops all."""
    many = [SendMessage("r", number, f"t{number % 2}") for number in range(10_000)]
    with pytest.raises(DBOSNonExistentWorkflowError):
        DBOS.send_bulk([*many, SendMessage("nobody", 1)])
    assert message_rows(database_url) == []
    DBOS.send_bulk(many)
    for topic in (0, 1):
        found = [row for row in message_rows(database_url) if row["topic"] == f"t{topic}"]
        assert [pickle.loads(b64decode(row["message"])) for row in found] == list(range(topic, 10_000, 2))


def test_a_stored_send_message_has_the_path_of_the_format(app: type[DBOS]) -> None:
    """04 R622."""
    stored = pickle.dumps(SendMessage("r", 1, "t", "k"))
    assert b"dbos._sys_db" in stored
    assert pickle.loads(stored) == SendMessage("r", 1, "t", "k")
    assert vars(pickle.loads(stored)) == {
        "destination_id": "r",
        "message": 1,
        "topic": "t",
        "idempotency_key": "k",
        "shard_key": None,
    }


def test_a_blocking_call_on_an_event_loop_names_its_twin(app: type[DBOS]) -> None:
    """04 R5."""

    async def main() -> None:
        for call in (lambda: DBOS.send("r", 1), lambda: DBOS.send_bulk([])):
            with pytest.raises(RuntimeError, match=r"send(_bulk)?_async"):
                call()

    asyncio.run(main())


def test_before_launch_and_after_destroy(app: type[DBOS], config: Config) -> None:
    """04 R6: `recv` tests its place first."""
    DBOS.destroy()
    for send in (lambda: DBOS.send("r", 1), lambda: DBOS.send_bulk([])):
        with pytest.raises(DBOSException, match="No DBOS was created yet"):
            send()
    with pytest.raises(DBOSException, match="recv must be called from within a workflow"):
        DBOS.recv()
    DBOS(config=config)
    with pytest.raises(DBOSException, match="before"):
        DBOS.send("r", 1)
