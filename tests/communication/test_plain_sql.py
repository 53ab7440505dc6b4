"""The contract with other languages and with plain SQL (04 section 8): rows and functions, texts, names and times.

`make interop` tries the same with programs of others; here is what an application of ours must read and write.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from dbos import DBOS, DBOSConfiguredInstance, PortableWorkflowError, SetWorkflowID, WorkflowSerializationFormat
from tests.helpers import make_pending, relaunch, rows, status_row, wait_for_status

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE
ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"])


@pytest.fixture(autouse=True)
def _queue(app: type[DBOS]) -> None:
    """A queue that is looked at often: nobody announces what plain SQL puts there."""
    DBOS.register_queue("q", polling_interval_sec=0.01)


def enqueue(database_url: str, workflow_id: str, name: str, inputs: Any = None, **columns: Any) -> Any:
    """The least that a row needs, with plain SQL (04 section 8.2); a handle."""
    given = {
        "workflow_uuid": workflow_id,
        "status": "ENQUEUED",
        "name": name,
        "queue_name": "q",
        "inputs": inputs if isinstance(inputs, str) else json.dumps({} if inputs is None else inputs),
        "serialization": "portable_json",
        **columns,
    }
    marks = ", ".join(["%s"] * len(given))
    rows(database_url, f"INSERT INTO workflow_status ({', '.join(given)}) VALUES ({marks})", *given.values())
    return DBOS.retrieve_workflow(workflow_id)


def call(database_url: str, arguments: str) -> str:
    (row,) = rows(database_url, f"SELECT dbos.enqueue_workflow({arguments}) AS id")
    workflow_id: str = row["id"]
    return workflow_id


def declare_echo() -> None:
    @DBOS.workflow(name="echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]


# --- rows


def test_the_least_rows_that_do(app: type[DBOS], database_url: str) -> None:
    """04 R701, R702, section 8.2: found by name and queue; inputs are read from the status row too, and stay there."""

    @DBOS.workflow(name="inbox")
    def inbox() -> list[Any]:
        return [DBOS.recv("t"), DBOS.recv()]

    handle = enqueue(database_url, "w", "inbox")
    insert = "INSERT INTO notifications (destination_uuid, topic, message, serialization) VALUES ('w', %s, %s, %s)"
    rows(database_url, insert, "t", '{"a": [1]}', "portable_json")
    rows(database_url, insert, "__null__topic__", "null", "portable_json")
    assert handle.get_result() == [{"a": [1]}, None]
    row = status_row(database_url, "w")
    # Owned by nobody, so anybody may run it; whoever does writes its name.
    assert (row["inputs"], row["output"], row["application_name"]) == ("{}", None, "test-app")
    assert row["application_version"] == "v1"


def test_outcomes_in_the_status_row_are_read_as_well(app: type[DBOS], database_url: str) -> None:
    """04 R702: as older releases leave them."""
    declare_echo()
    done = enqueue(database_url, "done", "echo", status="SUCCESS", output='{"a":1}')
    failed = enqueue(database_url, "failed", "echo", status="ERROR", error='{"name":"N","message":"m"}')
    assert done.get_result() == {"a": 1}
    assert done.get_status().output == {"a": 1}
    with pytest.raises(PortableWorkflowError, match="m"):
        failed.get_result()


def test_a_workflow_of_another_application_is_left_alone(app: type[DBOS], database_url: str) -> None:
    """04 R701: ids are global, owners are not."""
    declare_echo()
    enqueue(database_url, "theirs", "echo", application_name="other-app")
    assert enqueue(database_url, "ours", "echo", application_name="test-app").get_result() == [[], {}]
    assert status_row(database_url, "theirs")["status"] == "ENQUEUED"
    # But everybody may talk to it.
    DBOS.send("theirs", 1)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"positionalArgs": [1, "é"], "namedArgs": {"k": None}}, [[1, "é"], {"k": None}]),
        ({"namedArgs": None, "positionalArgs": [[]], "more": 1}, [[[]], {}]),
        ({"namedArgs": {"k": 1}}, [[], {"k": 1}]),
    ],
)
def test_arguments_written_by_others_arrive(app: type[DBOS], database_url: str, inputs: Any, expected: Any) -> None:
    """04 R612, R704: blanks, order and further members do not matter."""
    declare_echo()
    assert enqueue(database_url, "w", "echo", inputs).get_result() == expected


@pytest.mark.parametrize("inputs", ["null", "[1]", "no JSON", '{"positionalArgs": 1}'])
def test_arguments_of_another_shape_end_in_an_error_that_everybody_can_read(
    app: type[DBOS], database_url: str, inputs: str
) -> None:
    """04 R612, R630: and that says which workflow's inputs they are."""
    declare_echo()
    with pytest.raises(PortableWorkflowError, match=r"The inputs of workflow w \('echo'\)"):
        enqueue(database_url, "w", "echo", inputs=inputs).get_result()


def test_the_golden_texts(app: type[DBOS], database_url: str) -> None:
    """04 R704, R610, R706: what the SDKs of other languages write; R612: the order of our envelope."""
    moment = datetime(2025, 6, 15, 10, 30, tzinfo=timezone.utc)

    @DBOS.workflow(name="golden", serialization_type=PORTABLE)
    def golden(text: str, number: int, *others: Any) -> str:
        value = {"text": text, "num": number, "flag": True}
        DBOS.set_event("golden", value)
        DBOS.write_stream("golden", value)
        DBOS.close_stream("golden")
        DBOS.send("w", value)
        return f"{text}-{number}"

    with SetWorkflowID("w"):
        golden("hi", 42, moment, ["a", "b"], {"k": 1, "n": {"deep": True}}, True, None, Decimal("1E+3"))
    value = '{"text":"hi","num":42,"flag":true}'
    stored = {
        "workflow_events": "value",
        "streams": "value",
        "workflow_input": "inputs",
        "workflow_output": "output",
        "notifications": "message",
    }
    found = {
        table: [row[column] for row in rows(database_url, f"SELECT * FROM {table}")] for table, column in stored.items()
    }
    assert found == {
        "workflow_events": [value],
        "streams": [value, '"__DBOS_STREAM_CLOSED__"'],
        "workflow_input": [
            '{"namedArgs":{},"positionalArgs":["hi",42,"2025-06-15T10:30:00.000Z",["a","b"],{"k":1,"n":{"deep":true}},'
            'true,null,"1000"]}'
        ],
        "workflow_output": ['"hi-42"'],
        "notifications": [value],
    }


def test_classes_and_instances_are_found_by_their_columns(app: type[DBOS], database_url: str) -> None:
    """04 R705: an instance by both names, a class by its own, a static method needs neither."""

    @DBOS.dbos_class("Shop")
    class Shop(DBOSConfiguredInstance):
        @DBOS.workflow(name="of an instance")
        def of_instance(self, value: int) -> list[Any]:
            return [self.config_name, value]

        @classmethod
        @DBOS.workflow(name="of a class")
        def of_class(cls, value: int) -> list[Any]:
            return [cls.__name__, value]

        @staticmethod
        @DBOS.workflow(name="static")
        def static(value: int) -> list[Any]:
            return [value]

    shop = Shop("north")
    arguments = {"positionalArgs": [1]}
    for number, (name, class_name, config_name, expected) in enumerate(
        [
            ("of an instance", "Shop", "north", ["north", 1]),
            ("of a class", "Shop", None, ["Shop", 1]),
            ("static", "Shop", None, [1]),
            ("static", None, None, [1]),
        ]
    ):
        handle = enqueue(database_url, f"w{number}", name, arguments, class_name=class_name, config_name=config_name)
        assert handle.get_result() == expected, name
    for workflow_id, start in (
        ("i", lambda: shop.of_instance(1)),
        ("c", lambda: Shop.of_class(1)),
        ("s", lambda: Shop.static(1)),
    ):
        with SetWorkflowID(workflow_id):
            start()
    written = [(status_row(database_url, i)["class_name"], status_row(database_url, i)["config_name"]) for i in "ics"]
    assert written == [("Shop", "north"), ("Shop", None), (None, None)]


def test_times_are_milliseconds_and_roles_a_list(app: type[DBOS], database_url: str) -> None:
    """04 R706: read from rows of others, and written so."""

    @DBOS.workflow(name="who")
    def who() -> Any:
        DBOS.set_event("k", 1)
        return [DBOS.authenticated_user, DBOS.authenticated_roles]

    handle = enqueue(
        database_url, "w", "who", authenticated_user="alice", authenticated_roles='["admin","staff"]', created_at=1
    )
    assert handle.get_result() == ["alice", ["admin", "staff"]]
    row = status_row(database_url, "w")
    now_ms = time.time() * 1000
    assert row["created_at"] == 1
    for column in ("updated_at", "started_at_epoch_ms", "completed_at"):
        assert abs(row[column] - now_ms) < 600_000, column
    DBOS.send("w", 1)
    (message,) = rows(database_url, "SELECT * FROM notifications")
    assert abs(message["created_at_epoch_ms"] - now_ms) < 600_000


def test_a_reserved_text_that_is_not_ours_is_kept_by_a_rewind(app: type[DBOS], database_url: str) -> None:
    """04 R707, R331: a close marker is the portable text exactly; queues of the library cannot be registered."""

    @DBOS.workflow(name="writer")
    def writer() -> None:
        DBOS.write_stream("native", "__DBOS_STREAM_CLOSED__")
        DBOS.close_stream("closed")
        raise ValueError("ends before it is executed again")

    with SetWorkflowID("w"), pytest.raises(ValueError, match="ends before"):
        writer()
    before = rows(database_url, "SELECT key, value FROM streams WHERE key = 'native'")
    make_pending(database_url, "w")
    rows(database_url, "UPDATE workflow_status SET status = 'ERROR', name = 'nobody', owner_xid = NULL")
    DBOS.rewind_workflow("w")
    assert rows(database_url, "SELECT key, value FROM streams") == before
    with pytest.raises(Exception, match="_dbos_"):
        DBOS.register_queue("_dbos_mine")


# --- functions


@ON_POSTGRES
@pytest.mark.parametrize("arguments", ["", ", NULL, NULL", ", ARRAY[]::json[]"])
def test_the_function_enqueues_what_readers_take_for_empty(app: type[DBOS], database_url: str, arguments: str) -> None:
    """04 R720: members that are null are empty."""
    declare_echo()
    assert DBOS.retrieve_workflow(call(database_url, f"'echo', 'q'{arguments}")).get_result() == [[], {}]


@ON_POSTGRES
def test_the_function_stores_the_rendering_of_postgres(app: type[DBOS], database_url: str) -> None:
    """04 R720: both rows, in the transaction of the caller; the claim replaces the random owner."""
    declare_echo()
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """SELECT dbos.enqueue_workflow('echo', 'q', ARRAY['1', '"x"']::json[], '{"k": [1]}', workflow_id => 'w')"""
        )
        assert rows(database_url, "SELECT * FROM workflow_status") == []
    handle = DBOS.retrieve_workflow("w")
    assert handle.get_result() == [[1, "x"], {"k": [1]}]
    (inputs,) = rows(database_url, "SELECT inputs FROM workflow_input")
    assert inputs["inputs"] == '{"positionalArgs" : [1,"x"], "namedArgs" : {"k": [1]}}'
    row = status_row(database_url, "w")
    assert (row["serialization"], row["recovery_attempts"], row["owner_xid"], row["creator_xid"]) == (
        "portable_json",
        1,
        None,
        None,
    )


@ON_POSTGRES
def test_the_function_knows_every_option(app: type[DBOS], database_url: str) -> None:
    """04 section 8.3, R722: parameters 5 to 17, in their order and under their names."""
    declare_echo()
    positional = (
        "'echo', 'nowhere', ARRAY['1']::json[], '{}', 'C', 'i', 'w', 'v9', 60000, 99, 'd', 3, 'p', 'alice', "
        "'[\"admin\"]', 4000000000000, 'other-app'"
    )
    assert call(database_url, positional) == "w"
    row = status_row(database_url, "w")
    expected = {
        "status": "DELAYED",
        "queue_name": "nowhere",
        "class_name": "C",
        "config_name": "i",
        "application_version": "v9",
        "workflow_timeout_ms": 60000,
        "workflow_deadline_epoch_ms": 99,
        "deduplication_id": "d",
        "priority": 3,
        "queue_partition_key": "p",
        "authenticated_user": "alice",
        "authenticated_roles": '["admin"]',
        "delay_until_epoch_ms": 4000000000000,
        "application_name": "other-app",
    }
    assert {name: row[name] for name in expected} == expected


@ON_POSTGRES
def test_the_function_returns_an_id_in_use_whatever_else_it_is_given(app: type[DBOS], database_url: str) -> None:
    """04 R721: neither name nor arguments are compared."""
    declare_echo()
    for name, argument in (("echo", 1), ("other", 2)):
        assert call(database_url, f"'{name}', 'q', ARRAY['{argument}']::json[], workflow_id => 'w'") == "w"
    assert DBOS.retrieve_workflow("w").get_result() == [[1], {}]


@ON_POSTGRES
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("'', 'q'", "workflow_name"),
        ("NULL, 'q'", "workflow_name"),
        ("'echo', ''", "queue_name"),
        ("'echo', NULL", "queue_name"),
        ("'echo', 'q', named_args => '[1]'", "named_args must be a JSON object"),
        ("'echo', 'q', workflow_id => ''", "workflow_id"),
        ("'echo', 'q', delay_until_epoch_ms => -1", "delay_until_epoch_ms"),
    ],
)
def test_the_function_names_a_mistake_and_writes_nothing(
    app: type[DBOS], database_url: str, arguments: str, complaint: str
) -> None:
    """04 R722."""
    with pytest.raises(psycopg.Error, match=complaint):
        call(database_url, arguments)
    assert rows(database_url, "SELECT * FROM workflow_status") == []


@ON_POSTGRES
def test_the_function_refuses_a_held_deduplication_id(app: type[DBOS], database_url: str) -> None:
    """04 R722: as a violation of uniqueness; the ids are in the detail."""
    call(database_url, "'echo', 'nowhere', workflow_id => 'holder', deduplication_id => 'd'")
    with pytest.raises(psycopg.errors.UniqueViolation, match="DBOS queue duplicated") as found:
        call(database_url, "'echo', 'nowhere', workflow_id => 'refused', deduplication_id => 'd'")
    detail = found.value.diag.message_detail or ""
    assert "refused" in detail
    assert "d" in detail


@ON_POSTGRES
def test_keys_of_the_sdk_and_ids_of_the_function_are_different_names(app: type[DBOS], database_url: str) -> None:
    """04 R709, R723: unless the id is written as the SDK stores its keys (see docs/guide/cross-language.md)."""

    @DBOS.workflow(name="waiting")
    def waiting() -> list[Any]:
        return [DBOS.recv(timeout_seconds=0) for _ in range(3)]

    with SetWorkflowID("w"):
        waiting()
    DBOS.send("w", "sdk", idempotency_key="k")
    for message_id in ("k", "k::w"):
        rows(database_url, "SELECT dbos.send_message('w', '1', NULL, %s)", message_id)
    found = rows(database_url, "SELECT message_uuid FROM notifications ORDER BY message_uuid")
    assert [row["message_uuid"] for row in found] == ["k", "k::w"]


@ON_POSTGRES
def test_the_sending_function_names_its_mistakes(app: type[DBOS], database_url: str) -> None:
    """04 R723, R724: by SQLSTATE; the fourth parameter is `message_id` and no other name."""
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="DBOS non-existent workflow"):
        rows(database_url, "SELECT dbos.send_message('nobody', '1')")
    enqueue(database_url, "w", "nobody")
    with pytest.raises(psycopg.errors.NotNullViolation):
        rows(database_url, "SELECT dbos.send_message('w', NULL)")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        rows(database_url, "SELECT dbos.send_message('w', '1', idempotency_key => 'k')")
    assert rows(database_url, "SELECT * FROM notifications") == []


def test_a_workflow_of_plain_sql_is_recovered(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R701, R702: also with its inputs in the status row."""
    declare_echo()
    enqueue(database_url, "w", "echo", {"positionalArgs": [1]}).get_result()
    wait_for_status(database_url, "w", "SUCCESS")
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == [[1], {}]
