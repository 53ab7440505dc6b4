"""Plain SQL as a client of an application of ours: the functions of the schema, and rows written by hand. On Postgres.

The statements go through psql where the machine has it, as they would from a shell script, and else through psycopg.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from dbos import DBOSClient, WorkflowSerializationFormat
from interop.sides import Side
from tests.databases import fresh_postgres_url

PATIENCE_SECONDS = 60
# The outcome of a workflow, wherever it stands (04 R702).
OUTCOME = """
SELECT s.status, s.serialization, COALESCE(o.output, s.output), COALESCE(o.error, s.error)
FROM dbos.workflow_status AS s LEFT JOIN dbos.workflow_output AS o USING (workflow_uuid)
WHERE s.workflow_uuid = '{}' AND s.status IN ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
"""


class SqlError(Exception):
    """What the database answered, with SQLSTATE and detail."""


def shown(value: Any) -> str:
    """As psql does."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return "" if value is None else str(value)


@dataclass
class Sql:
    """Runs statements, in one transaction each time."""

    url: str

    def run(self, sql: str) -> list[list[str]]:
        """The rows of the last statement, as texts; NULL is an empty one."""
        return self._run_psql(sql) if shutil.which("psql") else self._run_psycopg(sql)

    def value(self, sql: str) -> str:
        ((value,),) = self.run(sql)
        return value

    def result(self, workflow_id: str) -> Any:
        """Wait for the end of a workflow; its output."""
        status, output, error = self.outcome(workflow_id)
        assert status == "SUCCESS", (status, error)
        return json.loads(output)

    def outcome(self, workflow_id: str) -> tuple[str, str, str]:
        """Wait for the end of a workflow; status, and the texts of output and error, which are portable."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.run(OUTCOME.format(workflow_id))):
            assert time.monotonic() < give_up_at, workflow_id
            time.sleep(0.05)
        ((status, serialization, output, error),) = found
        assert serialization == "portable_json"
        return status, output, error

    def _run_psql(self, sql: str) -> list[list[str]]:
        command = ["psql", self.url, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-v"]
        command += ["VERBOSITY=verbose", "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        if done.returncode != 0:
            raise SqlError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def _run_psycopg(self, sql: str) -> list[list[str]]:
        try:
            with psycopg.connect(self.url) as connection:
                cursor = connection.execute(sql.encode())
                rows = cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            diagnosis = error.diag
            raise SqlError(f"{error.sqlstate}: {diagnosis.message_primary} {diagnosis.message_detail}") from error
        return [[shown(value) for value in row] for row in rows]


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sql]:
    """The database of an application that serves the queue "ours"; unless woken it looks only every 30 seconds."""
    url = fresh_postgres_url()
    side = Side("ours", sys.executable, tmp_path_factory.mktemp("plain-sql")).running("portable.py")
    with side.started(url, "listen") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Sql(url)


def test_arguments_of_every_type_are_enqueued_by_sql(sql: Sql) -> None:
    """04 section 8.3, R611."""
    workflow_id = sql.value(
        """SELECT dbos.enqueue_workflow('echo', 'ours',
            ARRAY['"naïve ☃"', '-42', '0.1', '1e22', '9007199254740993', 'true', 'null', '[1, [null]]',
                  '"2025-06-15T10:30:00.123Z"', '{"k": {"deep": []}}']::json[],
            '{"k": [1], "other": null}')"""
    )
    assert sql.result(workflow_id) == {
        "args": [
            "naïve ☃",
            -42,
            0.1,
            1e22,
            9007199254740993,
            True,
            None,
            [1, [None]],
            "2025-06-15T10:30:00.123Z",
            {"k": {"deep": []}},
        ],
        "types": ["str", "int", "float", "float", "int", "bool", "NoneType", "list", "str", "dict"],
        "named": {"k": [1], "other": None},
    }


def test_the_stored_inputs_are_the_rendering_of_postgres(sql: Sql) -> None:
    """04 R720, R612."""
    sql.run("""SELECT dbos.enqueue_workflow('echo', 'ours', ARRAY['1', '"x"']::json[], workflow_id => 'rendered')""")
    inputs = sql.value("SELECT inputs FROM dbos.workflow_input WHERE workflow_uuid = 'rendered'")
    assert inputs == '{"positionalArgs" : [1,"x"], "namedArgs" : {}}'
    assert sql.result("rendered")["args"] == [1, "x"]


@pytest.mark.parametrize("arguments", ["", ", NULL, NULL", ", ARRAY[]::json[]"])
def test_arguments_may_be_left_out_or_null(sql: Sql, arguments: str) -> None:
    """04 R720: members that are null are empty for readers."""
    workflow_id = sql.value(f"SELECT dbos.enqueue_workflow('echo', 'ours'{arguments})")
    assert sql.result(workflow_id) == {"args": [], "types": [], "named": {}}


def test_dates_become_those_of_the_annotations(sql: Sql) -> None:
    """04 R628."""
    sql.run("""SELECT dbos.enqueue_workflow('dated', 'ours',
        ARRAY['"2025-06-15T10:30:00+02:00"', '"2025-06-15"']::json[], '{"other": "2025-06-15T10:30:00Z"}',
        workflow_id => 'dated')""")
    when, day, other = sql.result("dated")
    assert when == (
        "datetime.datetime(2025, 6, 15, 10, 30, tzinfo=datetime.timezone(datetime.timedelta(seconds=7200)))"
    )
    assert day == "datetime.date(2025, 6, 15)"
    assert other == "datetime.datetime(2025, 6, 15, 10, 30, tzinfo=datetime.timezone.utc)"


def test_the_method_of_an_instance_is_enqueued_by_its_names(sql: Sql) -> None:
    """04 R705."""
    sql.run("""SELECT dbos.enqueue_workflow('Shop.open', 'ours', ARRAY['"2025-06-15"']::json[],
        class_name => 'Shop', config_name => 'north', workflow_id => 'shop')""")
    assert sql.result("shop") == ["north", "datetime.date(2025, 6, 15)"]


def test_every_option_stands_in_the_row_and_is_kept(sql: Sql) -> None:
    """04 section 8.3: parameters 7 to 17."""
    delay = "(extract(epoch FROM now()) * 1000)::bigint + 300"
    sql.run(f"""SELECT dbos.enqueue_workflow('echo', 'ours', workflow_id => 'options', app_version => 'o1',
        timeout_ms => 60000, deduplication_id => 'd-options', priority => 3, authenticated_user => 'alice',
        authenticated_roles => '["admin"]', delay_until_epoch_ms => {delay}, application_name => 'ours')""")
    columns = "workflow_timeout_ms, priority, authenticated_user, authenticated_roles, application_name"
    columns += ", application_version, creator_xid"
    row = f"SELECT {columns} FROM dbos.workflow_status WHERE workflow_uuid = 'options'"
    expected = ["60000", "3", "alice", '["admin"]', "ours", "o1", ""]
    assert sql.run(row) == [expected]
    assert sql.result("options") == {"args": [], "types": [], "named": {}}
    assert sql.run(row) == [expected]
    kept = (
        "SELECT started_at_epoch_ms >= delay_until_epoch_ms FROM dbos.workflow_status WHERE workflow_uuid = 'options'"
    )
    assert sql.value(kept) == "t"


def test_a_deadline_that_has_passed_cancels(sql: Sql) -> None:
    sql.run("""SELECT dbos.enqueue_workflow('held', 'ours', ARRAY['"x"']::json[], workflow_id => 'late',
        deadline_epoch_ms => 1)""")
    assert sql.outcome("late")[0] == "CANCELLED"


def test_another_applications_work_is_left_alone(sql: Sql) -> None:
    """04 R701."""
    sql.run("SELECT dbos.enqueue_workflow('echo', 'ours', workflow_id => 'others', application_name => 'others')")
    sql.run("SELECT dbos.enqueue_workflow('echo', 'ours', workflow_id => 'after others')")
    sql.result("after others")
    assert sql.value("SELECT status FROM dbos.workflow_status WHERE workflow_uuid = 'others'") == "ENQUEUED"


def test_a_used_id_is_the_same_workflow_whatever_the_arguments(sql: Sql) -> None:
    """04 R721."""
    for argument in (1, 2):
        call = f"SELECT dbos.enqueue_workflow('echo', 'ours', ARRAY['{argument}']::json[], workflow_id => 'twice')"
        assert sql.value(call) == "twice"
    assert sql.result("twice")["args"] == [1]


def test_a_held_deduplication_id_is_refused(sql: Sql) -> None:
    """04 R722."""
    call = """SELECT dbos.enqueue_workflow('held', 'ours', ARRAY['"x"']::json[], workflow_id => '{}',
        deduplication_id => 'd')"""
    sql.run(call.format("holder"))
    with pytest.raises(SqlError, match=r"(?s)23505: .*DBOS queue duplicated.*refused was not enqueued.*id d\b"):
        sql.run(call.format("refused"))
    sql.run("SELECT dbos.send_message('holder', '1', 'go')")
    sql.result("holder")
    sql.run(call.format("refused"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("'', 'ours'", "workflow_name"),
        ("NULL, 'ours'", "workflow_name"),
        ("'echo', ''", "queue_name"),
        ("'echo', NULL", "queue_name"),
        ("'echo', 'ours', named_args => '[1]'", "named_args must be a JSON object"),
        ("'echo', 'ours', workflow_id => ''", "workflow_id"),
        ("'echo', 'ours', delay_until_epoch_ms => -1", "delay_until_epoch_ms"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(sql: Sql, arguments: str, complaint: str) -> None:
    """04 R722."""
    count = sql.value("SELECT count(*) FROM dbos.workflow_status")
    with pytest.raises(SqlError, match=complaint):
        sql.run(f"SELECT dbos.enqueue_workflow({arguments})")
    assert sql.value("SELECT count(*) FROM dbos.workflow_status") == count


def test_an_enqueue_and_a_message_belong_to_the_transaction_of_the_caller(sql: Sql) -> None:
    """04 R720."""
    enqueue = "SELECT dbos.enqueue_workflow('inbox', 'ours', workflow_id => '{}');"
    message = "SELECT dbos.send_message('{}', '1', 'topic');"
    sql.run(f"BEGIN; {enqueue.format('undone')} {message.format('undone')} ROLLBACK")
    assert sql.run("SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = 'undone'") == []
    assert sql.run("SELECT 1 FROM dbos.notifications WHERE destination_uuid = 'undone'") == []
    sql.run(f"BEGIN; {enqueue.format('done')} {message.format('done') * 2} COMMIT")
    sql.run("SELECT dbos.send_message('done', '3')")
    assert sql.result("done") == [1, 1, None, 3]


def test_messages_arrive_in_order_once_and_wake_who_waits(sql: Sql) -> None:
    """04 R723: the id is stored as given, and a second message with it is dropped; R801: the trigger wakes."""
    sql.run("SELECT dbos.enqueue_workflow('inbox', 'ours', workflow_id => 'inbox')")
    wait_for(sql, "inbox", "DBOS.sleep")
    began = time.monotonic()
    for message in ('{"first" : [1, null, "é"]}', '"dropped"'):
        sql.run(f"SELECT dbos.send_message('inbox', '{message}', 'topic', 'my id')")
    sql.run("SELECT dbos.send_message('inbox', 'null', 'topic')")
    sql.run("SELECT dbos.send_message(destination_id => 'inbox', message => '4')")
    assert sql.result("inbox") == [{"first": [1, None, "é"]}, None, None, 4]
    # It looks by itself only every 30 seconds.
    assert time.monotonic() - began < 10
    texts = "SELECT message_uuid = 'my id', topic, message, serialization, consumed FROM dbos.notifications"
    assert sql.run(f"{texts} WHERE destination_uuid = 'inbox' ORDER BY created_at_epoch_ms") == [
        ["t", "topic", '{"first" : [1, null, "é"]}', "portable_json", "t"],
        ["f", "topic", "null", "portable_json", "t"],
        ["f", "__null__topic__", "4", "portable_json", "t"],
    ]


def test_a_key_of_an_sdk_is_written_with_the_recipient(sql: Sql) -> None:
    """04 R709: keys of SDKs count per recipient; whoever means the same message by SQL writes both."""
    sql.run("SELECT dbos.enqueue_workflow('inbox', 'ours', workflow_id => 'keys')")
    with DBOSClient(system_database_url=sql.url) as client:
        client.send("keys", 1, "topic", "key", serialization_type=WorkflowSerializationFormat.PORTABLE)
    sql.run("SELECT dbos.send_message('keys', '\"dropped\"', 'topic', 'key::keys')")
    sql.run("SELECT dbos.send_message('keys', '2', 'topic', 'key')")
    sql.run("SELECT dbos.send_message('keys', '3')")
    assert sql.result("keys") == [1, 2, None, 3]


def wait_for(sql: Sql, workflow_id: str, step: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    where = f"workflow_uuid = '{workflow_id}' AND function_name = '{step}'"
    while not sql.run(f"SELECT 1 FROM dbos.operation_outputs WHERE {where}"):
        assert time.monotonic() < give_up_at, step
        time.sleep(0.02)


def test_a_message_for_nobody_and_no_message_are_refused(sql: Sql) -> None:
    """04 R724, R723: the fourth parameter is no idempotency_key."""
    with pytest.raises(SqlError, match=r"(?s)23503: .*DBOS non-existent workflow"):
        sql.run("SELECT dbos.send_message('nobody', '1')")
    sql.run("SELECT dbos.enqueue_workflow('echo', 'ours', workflow_id => 'somebody')")
    with pytest.raises(SqlError, match="23502"):
        sql.run("SELECT dbos.send_message('somebody', NULL)")
    with pytest.raises(SqlError, match="42883"):
        sql.run("SELECT dbos.send_message('somebody', '1', idempotency_key => 'k')")


def test_events_streams_results_and_errors_are_read_by_sql(sql: Sql) -> None:
    """04 section 8.3, R704: every text is JSON."""
    sql.run("""SELECT dbos.enqueue_workflow('golden', 'ours', ARRAY['"hi"', '42']::json[], workflow_id => 'golden')""")
    assert sql.outcome("golden") == ("SUCCESS", '"hi-42"', "")
    value = '{"text":"hi","num":42,"flag":true}'
    events = "SELECT key, value, serialization FROM dbos.workflow_events WHERE workflow_uuid = 'golden'"
    assert sql.run(events) == [["golden", value, "portable_json"]]
    entries = """SELECT "offset", value, serialization FROM dbos.streams WHERE workflow_uuid = 'golden' ORDER BY 1"""
    assert sql.run(entries) == [
        ["0", value, "portable_json"],
        ["1", "null", "portable_json"],
        ["2", '"__DBOS_STREAM_CLOSED__"', "portable_json"],
    ]
    sql.run("""SELECT dbos.enqueue_workflow('fail', 'ours', ARRAY['"portable"']::json[], workflow_id => 'failed')""")
    failure = '{"name":"Failed","message":"it failed","code":17,"data":{"a":[1,null]}}'
    assert sql.outcome("failed") == ("ERROR", "", failure)


def test_the_least_rows_that_do(sql: Sql) -> None:
    """04 section 8.2: everything else has a default; inputs in the status row, as older SDKs write them (R702)."""
    sql.run("""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, inputs, serialization)
        VALUES ('least', 'ENQUEUED', 'inbox', 'ours', '{}', 'portable_json')""")
    for topic, message in (("topic", "1"), ("topic", '{"b":[]}'), ("__null__topic__", "null")):
        sql.run(f"""INSERT INTO dbos.notifications (destination_uuid, topic, message, serialization)
            VALUES ('least', '{topic}', '{message}', 'portable_json')""")
    assert sql.result("least") == [1, {"b": []}, None, None]


@pytest.mark.parametrize(
    ("number", "inputs", "args", "named"),
    [
        (0, '{"positionalArgs": [1, "é"], "namedArgs": {"k": null}}', [1, "é"], {"k": None}),
        (1, '{"namedArgs": null, "positionalArgs": [[]], "more": 1}', [[]], {}),
        (2, '{"namedArgs": {"k": 1}}', [], {"k": 1}),
    ],
)
def test_envelopes_written_by_hand(sql: Sql, number: int, inputs: str, args: list[Any], named: dict[str, Any]) -> None:
    """04 R612: either member may be missing or null, others are ignored."""
    workflow_id = f"by hand {number}"
    sql.run(f"""INSERT INTO dbos.workflow_status
            (workflow_uuid, status, name, queue_name, inputs, serialization, application_name, priority)
        VALUES ('{workflow_id}', 'ENQUEUED', 'echo', 'ours', '{inputs}', 'portable_json', 'ours', 2)""")
    found = sql.result(workflow_id)
    assert (found["args"], found["named"]) == (args, named)
    # The outcome goes to its own table; the row keeps what was written by hand.
    assert sql.value(f"SELECT inputs FROM dbos.workflow_status WHERE workflow_uuid = '{workflow_id}'") == inputs
    assert sql.value(f"SELECT count(*) FROM dbos.workflow_output WHERE workflow_uuid = '{workflow_id}'") == "1"


@pytest.mark.parametrize("inputs", ["null", "[1]", "no JSON", '{"positionalArgs": 1}'])
def test_an_envelope_that_is_none_ends_in_an_error_that_everybody_can_read(sql: Sql, inputs: str) -> None:
    """04 R612, R630."""
    sql.run(f"""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, inputs, serialization)
        VALUES ('{inputs}', 'ENQUEUED', 'echo', 'ours', '{inputs}', 'portable_json')""")
    status, _, error = sql.outcome(inputs)
    assert status == "ERROR"
    assert {"name", "message", "code"} <= json.loads(error).keys()
