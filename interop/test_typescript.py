"""Real foreign clients: the TypeScript SDK with our applications, and our client with its applications. On Postgres.

What each side sees, and the texts that stand in the database, which are those of 04 R704 and R610 to R614.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dbos import (
    DBOSClient,
    EnqueueOptions,
    PortableWorkflowError,
    WorkflowHandle,
    WorkflowSerializationFormat,
    error,
)
from interop.node import HOME, ROOT, ForeignClient, ForeignError, Remote, running
from interop.sides import Side
from interop.test_events import wait_for_row
from interop.test_interop import query
from tests.databases import fresh_postgres_url

# What is not in JSON travels to the TypeScript client as an object with one key; see typescript/remote.mjs.
GOLDEN_DATE = {"$date": "2025-06-15T10:30:00.000Z"}
GOLDEN_INPUTS = '{"positionalArgs":["hi",42,"2025-06-15T10:30:00.000Z",["a","b"],{"k":1,"n":{"deep":true}},true,null]}'
GOLDEN_VALUE = '{"text":"hi","num":42,"flag":true}'
CLOSED = '"__DBOS_STREAM_CLOSED__"'
# A workflow waits for a message.
WAITING = "SELECT 1 FROM operation_outputs WHERE workflow_uuid = '{}' AND function_name = 'DBOS.sleep'"
PORTABLE = {"serializationType": "portable"}
WHEN = datetime(2025, 6, 15, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))


@contextmanager
def serving(side: Side, url: str, action: str = "serve") -> Iterator[subprocess.Popen[str]]:
    """Our application of portable.py, while the block lasts."""
    with side.running("portable.py").started(url, action) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.fixture
def url() -> str:
    return fresh_postgres_url()


@pytest.fixture(scope="module")
def foreign(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignClient]:
    """A client of the TypeScript SDK for an application of ours, the same for many tests; each has its own ids."""
    client = remote.client(fresh_postgres_url())
    with serving(Side("ours", sys.executable, tmp_path_factory.mktemp("ours")), client.url):
        yield client
        client.call("destroy")


def to_ours(workflow_id: str, name: str, **options: Any) -> dict[str, Any]:
    return {"workflowName": name, "queueName": "ours", "workflowID": workflow_id, **options}


def only(url: str, sql: str) -> Any:
    """The single value that a query finds."""
    (row,) = query(url, sql)
    (value,) = row.values()
    return value


def inputs_of(url: str, workflow_id: str) -> str:
    return str(only(url, f"SELECT inputs FROM workflow_input WHERE workflow_uuid = '{workflow_id}'"))


# --- their client, our application

ARGUMENTS: dict[str, tuple[Any, str, str, Any]] = {
    # what the foreign program has; its text in the database; its type for us; what the foreign program gets back
    "string": ("hi", '"hi"', "str", "hi"),
    "unicode": ('naïve ☃ 😀 "\\\n\u2028', '"naïve ☃ 😀 \\"\\\\\\n\u2028"', "str", 'naïve ☃ 😀 "\\\n\u2028'),
    "empty string": ("", '""', "str", ""),
    "int": (-42, "-42", "int", -42),
    "largest safe int": (2**53 - 1, "9007199254740991", "int", 2**53 - 1),
    "int of 64 bits and more": ({"$bigint": "9223372036854775808"}, '"9223372036854775808"', "str", str(2**63)),
    "float": (0.1, "0.1", "float", 0.1),
    "large float": (1e22, "1e+22", "float", 1e22),
    "smallest float": (5e-324, "5e-324", "float", 5e-324),
    "no number": ({"$number": "NaN"}, "null", "NoneType", None),
    "infinity": ({"$number": "Infinity"}, "null", "NoneType", None),
    "true": (True, "true", "bool", True),
    "null": (None, "null", "NoneType", None),
    "undefined": ({"$undefined": True}, "null", "NoneType", None),
    "array": ([1, ["a", []], None], '[1,["a",[]],null]', "list", [1, ["a", []], None]),
    "nested object": ({"k": {"ü": [{}]}, "": 1}, '{"k":{"ü":[{}]},"":1}', "dict", {"k": {"ü": [{}]}, "": 1}),
    "date": (GOLDEN_DATE, '"2025-06-15T10:30:00.000Z"', "str", "2025-06-15T10:30:00.000Z"),
    "map": ({"$map": [["k", 1]]}, '{"k":1}', "dict", {"k": 1}),
    "set": ({"$set": [1, 2]}, "[1,2]", "list", [1, 2]),
}


def test_arguments_of_every_type_arrive(foreign: ForeignClient) -> None:
    """04 R610, R611, R704."""
    sent = [value for value, *_ in ARGUMENTS.values()]
    foreign.call("enqueuePortable", to_ours("all", "echo"), sent)
    found = foreign.call("result", "all")
    texts = [text for _, text, *_ in ARGUMENTS.values()]
    assert inputs_of(foreign.url, "all") == f'{{"positionalArgs":[{",".join(texts)}]}}'
    assert found == {
        "args": [back for *_, back in ARGUMENTS.values()],
        "types": [type_name for _, _, type_name, _ in ARGUMENTS.values()],
        "named": {},
    }
    # What we write are the same texts.
    output = only(foreign.url, "SELECT output FROM workflow_output WHERE workflow_uuid = 'all'")
    assert output.startswith(f'{{"args":[{",".join(texts)}],"types":["str",')


def test_named_arguments_arrive(foreign: ForeignClient) -> None:
    """04 R612: the members of the envelope may come in any order."""
    foreign.call("enqueuePortable", to_ours("named", "echo"), [1], {"k": [1], "other": None})
    assert foreign.call("result", "named") == {"args": [1], "types": ["int"], "named": {"k": [1], "other": None}}
    assert inputs_of(foreign.url, "named") == '{"positionalArgs":[1],"namedArgs":{"k":[1],"other":null}}'


def test_dates_become_those_of_the_annotations(foreign: ForeignClient) -> None:
    """04 R628."""
    date = {"$date": "2025-06-15T10:30:00.123Z"}
    foreign.call("enqueuePortable", to_ours("dated", "dated"), [date, date], {"other": date})
    aware = "datetime.datetime(2025, 6, 15, 10, 30, 0, 123000, tzinfo=datetime.timezone.utc)"
    assert foreign.call("result", "dated") == [aware, "datetime.date(2025, 6, 15)", aware]


def test_messages_arrive_in_order_once_and_under_their_topics(foreign: ForeignClient) -> None:
    """04 R102, R103, R104: the keys of both are the same texts."""
    foreign.call("enqueuePortable", to_ours("inbox", "inbox"), [])
    for message in ({"first": [1, None, "é"]}, "dropped"):
        foreign.call("send", "inbox", message, "topic", "key", PORTABLE)
    foreign.call("send", "inbox", GOLDEN_DATE, "topic", None, PORTABLE)
    foreign.call("send", "inbox", None, None, None, PORTABLE)
    assert foreign.call("result", "inbox") == [{"first": [1, None, "é"]}, "2025-06-15T10:30:00.000Z", None, None]
    assert messages_of(foreign.url, "inbox") == [
        ("topic", '{"first":[1,null,"é"]}', "portable_json", True),
        ("topic", '"2025-06-15T10:30:00.000Z"', "portable_json", True),
        ("__null__topic__", "null", "portable_json", True),
    ]
    assert only(foreign.url, "SELECT count(*) FROM notifications WHERE message_uuid = 'key::inbox'") == 1


def messages_of(url: str, workflow_id: str) -> list[tuple[Any, ...]]:
    columns = "topic, message, serialization, consumed"
    where = f"WHERE destination_uuid = '{workflow_id}'"
    rows = query(url, f"SELECT {columns} FROM notifications {where} ORDER BY created_at_epoch_ms")
    return [tuple(row.values()) for row in rows]


def test_a_message_for_nobody_is_refused(foreign: ForeignClient) -> None:
    with pytest.raises(ForeignError) as raised:
        foreign.call("send", "nobody", 1, None, None, PORTABLE)
    assert raised.value.type == "DBOSNonExistentWorkflowError"
    assert messages_of(foreign.url, "nobody") == []


def test_results_events_and_streams_are_the_golden_texts(foreign: ForeignClient) -> None:
    """04 R704."""
    arguments = ["hi", 42, GOLDEN_DATE, ["a", "b"], {"k": 1, "n": {"deep": True}}, True, None]
    foreign.call("enqueuePortable", to_ours("golden", "golden"), arguments)
    assert foreign.call("result", "golden") == "hi-42"
    value = {"text": "hi", "num": 42, "flag": True}
    assert foreign.call("getEvent", "golden", "golden", 1) == value
    assert [found for found, _ in foreign.call("readAll", "golden", "golden")] == [value, None]
    assert inputs_of(foreign.url, "golden") == GOLDEN_INPUTS
    assert golden_texts(foreign.url, "golden") == [GOLDEN_VALUE, GOLDEN_VALUE, "null", CLOSED, '"hi-42"']


def golden_texts(url: str, workflow_id: str) -> list[str]:
    """The event, the entries of the stream and the output of a workflow, all of them portable."""
    where = f"WHERE workflow_uuid = '{workflow_id}'"
    event = query(url, f"SELECT value, serialization FROM workflow_events {where}")
    entries = query(url, f'SELECT value, serialization FROM streams {where} ORDER BY "offset"')
    outputs = query(url, f"SELECT output FROM workflow_output {where}")
    assert {row["serialization"] for row in (*event, *entries)} == {"portable_json"}
    assert only(url, f"SELECT serialization FROM workflow_status {where}") == "portable_json"
    return [row["value"] for row in (*event, *entries)] + [row["output"] for row in outputs]


def test_errors_arrive_with_name_message_code_and_data(foreign: ForeignClient) -> None:
    """04 R613, R614, R615; section 12, 11: the name that the user gave is kept."""
    errors = {}
    for kind in ("portable", "other"):
        foreign.call("enqueuePortable", to_ours(kind, "fail"), [kind])
        with pytest.raises(ForeignError) as raised:
            foreign.call("result", kind)
        error = raised.value
        assert error.type == "PortableWorkflowError"
        errors[kind] = (error.name, str(error), error.code, error.data)
    assert errors == {
        "portable": ("Failed", "it failed", 17, {"a": [1, None]}),
        "other": ("TypeError", "not other", None, None),
    }
    assert error_texts(foreign.url, "portable", "other") == {
        "portable": '{"name":"Failed","message":"it failed","code":17,"data":{"a":[1,null]}}',
        "other": '{"name":"TypeError","message":"not other","code":null}',
    }


def error_texts(url: str, *workflow_ids: str) -> dict[str, str]:
    rows = query(url, "SELECT workflow_uuid, error FROM workflow_output")
    return {row["workflow_uuid"]: row["error"] for row in rows if row["workflow_uuid"] in workflow_ids}


def test_a_client_manages_workflows_of_ours(foreign: ForeignClient) -> None:
    """Cancel, resume, fork, rewind, list, delete."""
    foreign.call("enqueuePortable", to_ours("held", "held"), ["x"])
    # The other side looks for what is not there yet only every few seconds.
    wait_for_row(foreign.url, WAITING.format("held"))
    assert foreign.call("getEvent", "held", "stage", 5) == 1
    assert [(step["functionID"], step["name"]) for step in foreign.call("listWorkflowSteps", "held")] == [
        (1, "before"),
        (2, "DBOS.setEvent"),
        (4, "DBOS.sleep"),
    ]
    foreign.call("cancelWorkflow", "held")
    with pytest.raises(ForeignError) as raised:
        foreign.call("result", "held")
    assert raised.value.type == "DBOSAwaitedWorkflowCancelledError"
    assert foreign.call("resumeWorkflow", "held") == "held"
    foreign.call("send", "held", 1, "go", None, PORTABLE)
    assert foreign.call("result", "held") == ["before x", 1, "after x"]

    assert foreign.call("forkWorkflow", "held", 3, {"newWorkflowID": "fork"}) == "fork"
    foreign.call("send", "fork", 2, "go", None, PORTABLE)
    assert foreign.call("result", "fork") == ["before x", 2, "after x"]
    assert foreign.call("status", "fork")["forkedFrom"] == "held"

    assert foreign.call("rewindWorkflow", "held", 3) == "held"
    foreign.call("send", "held", 3, "go", None, PORTABLE)
    assert foreign.call("result", "held") == ["before x", 3, "after x"]

    foreign.call("deleteWorkflow", "fork")
    (found,) = foreign.call("listWorkflows", {"workflowName": "held", "status": "SUCCESS"})
    expected = {
        "workflowID": "held",
        "status": "SUCCESS",
        "workflowName": "held",
        "executorId": "ours",
        "applicationVersion": "o1",
        "applicationName": "ours",
        "input": ["x"],
        "output": ["before x", 3, "after x"],
    }
    assert {key: found[key] for key in expected} == expected


def test_options_of_an_enqueue(foreign: ForeignClient) -> None:
    options = {"priority": 3, "deduplicationID": "d", "delaySeconds": 3600, "workflowTimeoutMS": 60_000}
    foreign.call("enqueuePortable", to_ours("later", "echo", **options), [1])
    with pytest.raises(ForeignError) as raised:
        foreign.call("enqueuePortable", to_ours("again", "echo", deduplicationID="d"), [2])
    assert raised.value.type == "DBOSQueueDuplicatedError"
    columns = "status, priority, deduplication_id, workflow_timeout_ms"
    (row,) = query(foreign.url, f"SELECT {columns} FROM workflow_status WHERE workflow_uuid = 'later'")
    assert row == {"status": "DELAYED", "priority": 3, "deduplication_id": "d", "workflow_timeout_ms": 60_000}
    with DBOSClient(system_database_url=foreign.url) as client:
        (queued,) = client.list_queued_workflows(workflow_id_prefix="later")
        assert queued.input == {"args": (1,), "kwargs": {}}
        client.set_workflow_delay("later", delay_seconds=0)
    assert foreign.call("result", "later") == {"args": [1], "types": ["int"], "named": {}}


def test_nobody_guesses_what_a_native_format_means(foreign: ForeignClient) -> None:
    """04 R703, section 12, 10: both end in an error that says so, for the sender too; others go on."""
    foreign.call("enqueue", to_ours("native", "echo"), 1)
    foreign.call("enqueuePortable", to_ours("unread", "inbox"), [])
    foreign.call("send", "unread", 1, "topic")
    with pytest.raises(ForeignError, match="js_superjson is not available") as raised:
        foreign.call("result", "unread")
    assert raised.value.name == "TypeError"
    with pytest.raises(ForeignError, match="enqueued in the format js_superjson, which only the SDK for TypeScript"):
        foreign.call("result", "native")
    with DBOSClient(system_database_url=foreign.url) as client:
        # Listings show the text as it stands.
        (found,) = client.list_workflows(workflow_ids=["native"])
        assert found.input == '{"json":[1],"__dbos_serializer":"superjson"}'


def test_the_example_of_the_guide_runs(typescript: Path, url: str, tmp_path: Path) -> None:
    """The application and the client of docs/guide/cross-language.md."""
    page = (ROOT / "docs" / "guide" / "cross-language.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|javascript)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    application, example = (
        next(code for kind, code in blocks if kind == wanted) for wanted in ("python", "javascript")
    )
    (tmp_path / "shop.py").write_text(f"{application}\nprint('ready', flush=True)\ninput()\n", encoding="utf-8")
    (HOME / "order.mjs").write_text(example, encoding="utf-8")
    with (tmp_path / "shop.stderr").open("wb") as errors:
        shop = subprocess.Popen(
            [sys.executable, "shop.py"],
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with shop:
        try:
            assert shop.stdout is not None
            assert shop.stdout.readline() == "ready\n"
            with running("order.mjs", url, directory=typescript) as order:
                assert order.stdout is not None
                said = order.stdout.read().splitlines()
        finally:
            shop.kill()
    assert said == ["order-1 by Friday", "{ order: 'order-1', lines: 1 }", "{ item: 'lamp', count: 2 }"]


# --- our client, their application


@contextmanager
def serving_theirs(directory: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """The application of typescript/application.mjs, while the block lasts."""
    with running("application.mjs", url, directory=directory) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.fixture(scope="module")
def their_url(typescript: Path) -> Iterator[str]:
    """The database of an application of the TypeScript SDK, which has made it; for many tests with their own ids."""
    url = fresh_postgres_url()
    with serving_theirs(typescript, url):
        yield url


@pytest.fixture
def client(their_url: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=their_url, polling_interval_sec=0.1) as client:
        yield client


def enqueue(client: DBOSClient, workflow_id: str, name: str, *args: Any, queue: str = "theirs") -> WorkflowHandle[Any]:
    options: EnqueueOptions = {
        "workflow_name": name,
        "queue_name": queue,
        "workflow_id": workflow_id,
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
    }
    return client.enqueue(options, *args)


def send(client: DBOSClient, workflow_id: str, message: Any, topic: str | None = None, key: str | None = None) -> None:
    client.send(workflow_id, message, topic, key, serialization_type=WorkflowSerializationFormat.PORTABLE)


OUR_ARGUMENTS: dict[str, tuple[Any, str, str, Any]] = {
    # what we have; its text in the database; its type for the foreign program; what we get back
    "string": ("hi", '"hi"', "string", "hi"),
    "unicode": ('naïve ☃ 😀 "\\\n\u2028', '"naïve ☃ 😀 \\"\\\\\\n\u2028"', "string", 'naïve ☃ 😀 "\\\n\u2028'),
    "int": (-42, "-42", "number", -42),
    "largest safe int": (2**53 - 1, "9007199254740991", "number", 2**53 - 1),
    "int that their numbers do not hold": (2**53 + 1, "9007199254740993", "number", 2**53),
    "int that theirs hold as a float": (10**30, "1000000000000000000000000000000", "number", 1e30),
    "float": (0.1, "0.1", "number", 0.1),
    "whole float": (2.0, "2.0", "number", 2),
    "large float": (1e22, "1e+22", "number", 1e22),
    "true": (True, "true", "boolean", True),
    "null": (None, "null", "null", None),
    "list": ([1, ["a", []], None], '[1,["a",[]],null]', "array", [1, ["a", []], None]),
    "tuple": ((1, 2), "[1,2]", "array", [1, 2]),
    "nested mapping": ({"k": {"ü": [{}]}, "": 1}, '{"k":{"ü":[{}]},"":1}', "object", {"k": {"ü": [{}]}, "": 1}),
    "datetime": (WHEN, '"2025-06-15T10:30:00.123Z"', "string", "2025-06-15T10:30:00.123Z"),
    "date": (WHEN.date(), '"2025-06-15"', "string", "2025-06-15"),
    "decimal": (Decimal("1E+3"), '"1000"', "string", "1000"),
}


def test_our_arguments_of_every_type_arrive(client: DBOSClient, their_url: str) -> None:
    """04 R610, R611, R612."""
    handle = enqueue(client, "all", "echo", *[value for value, *_ in OUR_ARGUMENTS.values()])
    found = handle.get_result()
    texts = [text for _, text, *_ in OUR_ARGUMENTS.values()]
    assert inputs_of(their_url, "all") == f'{{"namedArgs":{{}},"positionalArgs":[{",".join(texts)}]}}'
    assert found == {
        "args": [back for *_, back in OUR_ARGUMENTS.values()],
        "types": [type_name for _, _, type_name, _ in OUR_ARGUMENTS.values()],
    }


def test_their_application_receives_our_messages_in_order_and_once(client: DBOSClient, their_url: str) -> None:
    """04 R102, R103, R104."""
    handle = enqueue(client, "inbox", "inbox")
    for message in ({"first": [1, None, "é"]}, "dropped"):
        send(client, "inbox", message, "topic", "key")
    send(client, "inbox", WHEN, "topic")
    send(client, "inbox", None)
    assert handle.get_result() == [{"first": [1, None, "é"]}, "2025-06-15T10:30:00.123Z", None, None]
    assert messages_of(their_url, "inbox") == [
        ("topic", '{"first":[1,null,"é"]}', "portable_json", True),
        ("topic", '"2025-06-15T10:30:00.123Z"', "portable_json", True),
        ("__null__topic__", "null", "portable_json", True),
    ]
    assert only(their_url, "SELECT count(*) FROM notifications WHERE message_uuid = 'key::inbox'") == 1


def test_their_results_events_and_streams_are_the_same_golden_texts(client: DBOSClient, their_url: str) -> None:
    """04 R704; R612: we write an empty `namedArgs` too, and first."""
    when = datetime(2025, 6, 15, 10, 30, tzinfo=timezone.utc)
    handle = enqueue(client, "golden", "golden", "hi", 42, when, ["a", "b"], {"k": 1, "n": {"deep": True}}, True, None)
    assert handle.get_result() == "hi-42"
    value = {"text": "hi", "num": 42, "flag": True}
    assert client.get_event("golden", "golden", 1) == value
    assert client.get_all_events("golden") == {"golden": value}
    assert list(client.read_stream("golden", "golden")) == [value, None]
    assert inputs_of(their_url, "golden") == GOLDEN_INPUTS.replace("{", '{"namedArgs":{},', 1)
    assert golden_texts(their_url, "golden") == [GOLDEN_VALUE, GOLDEN_VALUE, "null", CLOSED, '"hi-42"']


def test_their_errors_arrive_with_name_message_code_and_data(client: DBOSClient, their_url: str) -> None:
    """04 R613, R614."""
    errors = {}
    for kind in ("portable", "other"):
        with pytest.raises(PortableWorkflowError) as raised:
            enqueue(client, kind, "fail", kind).get_result()
        error = raised.value
        errors[kind] = (error.name, str(error), error.code, error.data)
    assert errors == {
        "portable": ("Failed", "it failed", 17, {"a": [1, None]}),
        "other": ("TypeError", "not other", None, None),
    }
    assert (
        error_texts(their_url, "portable")["portable"]
        == '{"name":"Failed","message":"it failed","code":17,"data":{"a":[1,null]}}'
    )
    (found,) = client.list_workflows(workflow_ids=["portable"])
    assert isinstance(found.error, PortableWorkflowError)


def test_our_client_manages_their_workflows(client: DBOSClient, their_url: str) -> None:
    handle = enqueue(client, "held", "held", "x")
    assert client.get_event("held", "stage", 30) == 1
    steps = client.list_workflow_steps("held")
    assert [step["function_name"] for step in steps][:2] == ["before", "DBOS.setEvent"]
    client.cancel_workflow("held")
    with pytest.raises(error.DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    client.resume_workflow("held")
    send(client, "held", 1, "go")
    assert handle.get_result() == ["before x", 1, "after x"]
    (found,) = client.list_workflows(name="held", status="SUCCESS")
    assert (found.workflow_id, found.app_version, found.executor_id, found.application_name) == (
        "held",
        "t1",
        "theirs",
        "theirs",
    )
    assert found.input == {"args": ("x",), "kwargs": {}}
    assert found.output == ["before x", 1, "after x"]


def test_options_of_our_enqueue(client: DBOSClient, their_url: str) -> None:
    options: EnqueueOptions = {
        "workflow_name": "echo",
        "queue_name": "theirs",
        "workflow_id": "later",
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
        "priority": 3,
        "deduplication_id": "d",
        "delay_seconds": 3600,
        "app_version": "t1",
    }
    handle = client.enqueue(options, 1)
    with pytest.raises(error.DBOSQueueDeduplicatedError):
        client.enqueue({**options, "workflow_id": "again"}, 2)
    client.set_workflow_delay("later", delay_seconds=0)
    assert handle.get_result() == {"args": [1], "types": ["number"]}


def test_their_native_format_is_shown_as_it_stands(client: DBOSClient, remote: Remote, their_url: str) -> None:
    """04 R625, R626: strict where a value is asked for, tolerant in listings."""
    foreign = remote.client(their_url)
    foreign.call("enqueue", {"workflowName": "echo", "queueName": "theirs", "workflowID": "native"}, 1, GOLDEN_DATE)
    assert foreign.call("result", "native") == {"args": [1, "2025-06-15T10:30:00.000Z"], "types": ["number", "Date"]}
    with pytest.raises(TypeError, match="js_superjson is not available"):
        client.retrieve_workflow("native").get_result()
    (found,) = client.list_workflows(workflow_ids=["native"])
    assert found.output.startswith('{"json":{"args":[1,"2025-06-15T10:30:00.000Z"],"types":["number","Date"]}')
    foreign.call("destroy")


def test_what_their_application_cannot_read_ends_there_in_an_error(client: DBOSClient, their_url: str) -> None:
    """04 R610: NaN is no JSON for other languages; R703: neither is a pickle anything."""
    with pytest.raises(PortableWorkflowError, match="not valid JSON"):
        enqueue(client, "no number", "echo", float("nan")).get_result()
    client.enqueue({"workflow_name": "echo", "queue_name": "theirs", "workflow_id": "pickled"}, 1)
    wait_for_row(their_url, "SELECT 1 FROM workflow_status WHERE workflow_uuid = 'pickled' AND status = 'ERROR'")
    assert "py_pickle is not available" in only(
        their_url, "SELECT error FROM workflow_output WHERE workflow_uuid = 'pickled'"
    )


def test_their_schema_is_taken_as_it_is_and_brought_up_to_date_by_ours(
    remote: Remote, ours: Side, typescript: Path, url: str
) -> None:
    """04 R708, 05 R28: numbers from 100 on mean the same; both applications go on."""
    version = "SELECT version FROM dbos_migrations"
    owners = "SELECT workflow_uuid, application_name, recovery_attempts FROM workflow_status ORDER BY 1"
    foreign = remote.client(url)
    with serving_theirs(typescript, url), DBOSClient(system_database_url=url) as client:
        assert only(url, version) == 123
        enqueue(client, "waits", "inbox")
        wait_for_row(url, WAITING.format("waits"))
        with serving(ours, url):
            assert only(url, version) == 125
            assert enqueue(client, "theirs", "golden", "hi", 42).get_result() == "hi-42"
            foreign.call("enqueuePortable", to_ours("ours", "golden"), ["hi", 42])
            assert foreign.call("result", "ours") == "hi-42"
    foreign.call("destroy")
    # Neither has taken what the other one ran or owned.
    assert [tuple(row.values()) for row in query(url, owners)] == [
        ("ours", "ours", 1),
        ("theirs", "theirs", 1),
        ("waits", "theirs", 1),
    ]


def test_each_application_recovers_its_own_work(ours: Side, typescript: Path, url: str) -> None:
    """04 R701, 05 R18: a restart leaves alone what the other application runs."""
    attempts = "SELECT recovery_attempts FROM workflow_status ORDER BY workflow_uuid"

    def recovered(*expected: int) -> None:
        """Wait until the two workflows have been started so often: ours, theirs."""
        give_up_at = time.monotonic() + 60
        while [row["recovery_attempts"] for row in query(url, attempts)] != list(expected):
            assert time.monotonic() < give_up_at, query(url, attempts)
            time.sleep(0.05)

    with serving(ours, url) as mine, DBOSClient(system_database_url=url) as client:
        with serving_theirs(typescript, url) as theirs:
            for name in ("ours", "theirs"):
                enqueue(client, name, "held", "x", queue=name)
                wait_for_row(url, WAITING.format(name))
            theirs.kill()
        with serving_theirs(typescript, url):
            recovered(1, 2)
            mine.kill()
            mine.wait()
            with serving(ours, url):
                recovered(2, 2)
                for name in ("ours", "theirs"):
                    send(client, name, 1, "go")
                    result = client.retrieve_workflow(name).get_result()
                    assert result == ["before x", 1, "after x"]
                recovered(2, 2)


# --- waking each other

# Rounds of `wake`: an event, then entries of a stream.
ROUNDS = 6
# Between two values the watcher has to begin to wait: what is there before needs no waking.
PAUSE_SECONDS = 0.2
# Their listener is known to ours when ours has looked for one after it was there.
LOOKED = """
SELECT 1 FROM pg_stat_activity AS looking, pg_stat_activity AS listening
WHERE looking.datname = current_database() AND looking.application_name = 'dbos_transact'
  AND looking.query LIKE '%pg_locks%LISTEN%'
  AND listening.datname = current_database() AND listening.query LIKE 'LISTEN%'
  AND looking.query_start > listening.query_start
"""


def wake(client: DBOSClient, url: str, clock: str, watch: str) -> list[float]:
    """Seconds from the making of each value by a workflow on the queue `clock` to its arrival on the queue `watch`."""
    clock_id, watch_id = f"clock of {clock}", f"watch of {watch}"
    enqueue(client, clock_id, "clock", queue=clock)
    watching = enqueue(client, watch_id, "watch", clock_id, queue=watch)
    for number in range(ROUNDS):
        seen = f"workflow_uuid = '{watch_id}' AND key = 'seen' AND value = '{number}'"
        wait_for_row(url, f"SELECT 1 FROM workflow_events WHERE {seen}")
        time.sleep(PAUSE_SECONDS)
        send(client, clock_id, "tick", "go")
    send(client, clock_id, "stop", "go")
    lags: list[float] = watching.get_result()
    assert len(lags) == ROUNDS
    return lags


def test_both_applications_wake_each_other(ours: Side, typescript: Path, url: str) -> None:
    """04 R801 to R806: messages by the trigger, events and streams by who writes them.

    Theirs looks by itself every second for entries and less often for events, ours every 30 seconds.
    """
    with (
        serving(ours, url, "listen"),
        serving_theirs(typescript, url),
        DBOSClient(system_database_url=url, polling_interval_sec=0.1) as client,
    ):
        wait_for_row(url, LOOKED)
        event, *entries = wake(client, url, clock="ours", watch="theirs")
        assert event < 3
        assert median(entries) < 0.5
        assert max(wake(client, url, clock="theirs", watch="ours")) < 3


def lag(at: float) -> float:
    """Seconds since then."""
    return time.time() - at


def test_our_listening_client_is_woken_by_their_application(client: DBOSClient, their_url: str) -> None:
    """04 R805: a client listens only when told to; this one looks by itself only every 30 seconds."""
    enqueue(client, "clock", "clock")
    with (
        DBOSClient(system_database_url=their_url, use_listen_notify=True, polling_interval_sec=30) as listening,
        ThreadPoolExecutor() as threads,
    ):
        event = threads.submit(lambda: lag(listening.get_event("clock", "at", 60)))
        time.sleep(PAUSE_SECONDS)
        send(client, "clock", "tick", "go")
        assert event.result() < 3
        entries = threads.submit(lambda: [lag(at) for at in listening.read_stream("clock", "times")])
        for _ in range(3):
            time.sleep(PAUSE_SECONDS)
            send(client, "clock", "tick", "go")
        send(client, "clock", "stop", "go")
        assert max(entries.result()) < 3
