"""In which format what is stored, and what comes back (04 R601-R605, R625-R631; 02 R233, R264)."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import datetime, timezone
from typing import Any

import pytest

from dbos import (
    DBOS,
    PortableWorkflowError,
    Serializer,
    SetWorkflowID,
    WorkflowSerializationFormat,
)
from dbos.error import DBOSRecoveryError
from tests.helpers import make_pending, relaunch, replay, rows, status_row, step_rows, wait_until
from tests.samples import AppError

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE
NATIVE = WorkflowSerializationFormat.NATIVE


class PlainJson(Serializer):
    """A typical JSON serializer: no exceptions, no classes, and tuples come back as lists."""

    def serialize(self, data: Any) -> str:
        return "json:" + json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data.removeprefix("json:"))

    def name(self) -> str:
        return "plain_json"


class Stubborn(PlainJson):
    """Knows nothing but text: not even a mapping can be stored after the arguments."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, dict) and "args" not in data:
            raise ValueError("no mappings")
        return super().serialize(data)

    def name(self) -> str:
        return "stubborn"


def payloads(database_url: str, workflow_id: str) -> tuple[Any, Any, Any, Any]:
    """Format, arguments, value and error of a workflow, as stored."""
    (row,) = rows(
        database_url,
        "SELECT s.serialization, i.inputs, o.output, o.error FROM workflow_status s "
        "JOIN workflow_input i ON i.workflow_uuid = s.workflow_uuid "
        "LEFT JOIN workflow_output o ON o.workflow_uuid = s.workflow_uuid WHERE s.workflow_uuid = %s",
        workflow_id,
    )
    return tuple(row.values())  # type: ignore[return-value]


@pytest.fixture
def json_app(config: Config) -> Any:
    """An application with a serializer that cannot store exceptions."""
    with_serializer = {**config, "serializer": PlainJson()}
    DBOS(config=with_serializer)  # type: ignore[arg-type]
    DBOS.launch()
    yield with_serializer
    DBOS.destroy(destroy_registry=True)


def test_the_default_format_is_a_pickle_in_base64(app: type[DBOS], database_url: str) -> None:
    """04 section 6.1: with its reference values."""

    @DBOS.workflow()
    def wf(value: int, a: int) -> str:
        return "v"

    with SetWorkflowID("w"):
        wf(1, a=2)
    name, inputs, output, error = payloads(database_url, "w")
    assert (name, error) == ("py_pickle", None)
    assert pickle.loads(base64.b64decode(inputs)) == {"args": (1,), "kwargs": {"a": 2}}
    assert pickle.loads(base64.b64decode(output)) == "v"
    assert pickle.dumps("v", protocol=4) == base64.b64decode("gASVBQAAAAAAAACMAXaULg==")


def test_a_portable_workflow_stores_json_and_its_steps_do_not(app: type[DBOS], database_url: str) -> None:
    """04 R601, section 6.3, 02 R78."""

    @DBOS.step(name="s")
    def step() -> tuple[int, int]:
        return (1, 2)

    @DBOS.workflow(serialization_type=PORTABLE)
    def wf(text: str, *, when: datetime) -> Any:
        return {"ü": step()}

    with SetWorkflowID("w"):
        live = wf("é", when=datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc))
    assert live == {"ü": (1, 2)}
    name, inputs, output, _ = payloads(database_url, "w")
    assert name == "portable_json"
    assert inputs == '{"namedArgs":{"when":"2025-01-02T03:04:05.678Z"},"positionalArgs":["é"]}'
    assert output == '{"ü":[1,2]}'
    (row,) = step_rows(database_url, "w")
    assert row["serialization"] == "py_pickle"
    assert pickle.loads(base64.b64decode(row["output"])) == (1, 2)


def test_the_caller_gets_live_objects_and_everybody_else_the_decoded_form(app: type[DBOS]) -> None:
    """04 R604, 02 R66: tuples become lists, exceptions PortableWorkflowErrors."""

    @DBOS.workflow(serialization_type=PORTABLE)
    def wf(fail: bool) -> tuple[int, int]:
        if fail:
            raise AppError("broken")
        return (1, 2)

    with SetWorkflowID("good"):
        assert wf(False) == (1, 2)
    with SetWorkflowID("good"):
        assert wf(False) == [1, 2]
    with SetWorkflowID("bad"), pytest.raises(AppError):
        wf(True)
    with SetWorkflowID("bad"), pytest.raises(PortableWorkflowError) as stored:
        wf(True)
    assert (stored.value.name, str(stored.value)) == ("AppError", "broken")
    error = DBOS.retrieve_workflow("bad").get_status().error
    assert isinstance(error, PortableWorkflowError)


def test_a_native_workflow_is_pickled_whatever_is_configured(json_app: Config, database_url: str) -> None:
    """04 section 6.2."""

    @DBOS.workflow(serialization_type=NATIVE)
    def native() -> set[int]:
        return {1}

    @DBOS.workflow()
    def default() -> list[int]:
        return [1]

    @DBOS.workflow(serialization_type=PORTABLE)
    def portable() -> list[int]:
        return [1]

    for workflow_id, wf in (("native", native), ("default", default), ("portable", portable)):
        with SetWorkflowID(workflow_id):
            wf()
    assert payloads(database_url, "native")[0] == "py_pickle"
    assert payloads(database_url, "default")[::2] == ("plain_json", "json:[1]")
    assert payloads(database_url, "portable")[::2] == ("portable_json", "[1]")
    assert DBOS.retrieve_workflow("native").get_result() == {1}
    assert DBOS.retrieve_workflow("default").get_result() == [1]


def test_the_row_decides_and_not_the_decorator(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R602, 02 R64: the decorator may say something else by now."""

    @DBOS.workflow(name="wf", serialization_type=PORTABLE)
    def first(value: Any) -> Any:
        return value

    with SetWorkflowID("w"):
        first((1,))

    @DBOS.workflow(name="wf")
    def second(value: Any) -> Any:
        return value

    assert replay(config, "w") == [1]
    assert payloads(database_url, "w")[::2] == ("portable_json", "[1]")


def test_children_do_not_inherit_the_format(app: type[DBOS], database_url: str) -> None:
    """04 R603, section 6.3: also the recorded result of the child is in the configured format."""

    @DBOS.workflow()
    def child() -> tuple[int]:
        return (1,)

    @DBOS.workflow(serialization_type=PORTABLE)
    def parent() -> Any:
        return child()

    with SetWorkflowID("p"):
        parent()
    assert status_row(database_url, "p-1")["serialization"] == "py_pickle"
    assert step_rows(database_url, "p")[1]["serialization"] == "py_pickle"


def test_what_a_portable_workflow_records_is_in_the_format_of_its_kind(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 section 6.3, R605, R126, R212, R320: of another's value, of none, of a list, of a stream, of a time."""

    @DBOS.workflow(name="other")
    def other() -> tuple[int]:
        DBOS.set_event("k", (1,))
        DBOS.set_event("p", [2], serialization_type=PORTABLE)
        DBOS.write_stream("s", [3], serialization_type=PORTABLE)
        return (4,)

    @DBOS.workflow(name="portable", serialization_type=PORTABLE)
    def portable() -> list[Any]:
        DBOS.send("w", 5, serialization_type=NATIVE)
        found: list[Any] = [DBOS.recv(), DBOS.recv(timeout_seconds=0)]
        found += [DBOS.get_event("other", key, 0) for key in ("k", "p", "none")]
        found += [DBOS.get_all_events("other")["k"], next(DBOS.read_stream("other", "s"))]
        found += [DBOS.retrieve_workflow("other").get_result(), len(DBOS.list_workflows(workflow_ids=["other"]))]
        DBOS.sleep(0.001)
        return found

    expected = [5, None, (1,), [2], None, (1,), [3], (4,), 1]
    with SetWorkflowID("other"):
        other()
    with SetWorkflowID("w"):
        assert portable() == expected
    found = [(row["function_name"], row["serialization"]) for row in step_rows(database_url, "w")]
    sleep = ("DBOS.sleep", "portable_json")
    assert found == [
        ("DBOS.send", None),
        ("DBOS.recv", "py_pickle"),
        sleep,
        ("DBOS.recv", "py_pickle"),
        sleep,
        ("DBOS.getEvent", "py_pickle"),
        sleep,
        ("DBOS.getEvent", "portable_json"),
        sleep,
        ("DBOS.getEvent", "py_pickle"),
        sleep,
        ("DBOS.get_events", "py_pickle"),
        ("DBOS.readStream", "py_pickle"),
        ("DBOS.getStatus", "py_pickle"),
        ("DBOS.getResult", "py_pickle"),
        ("DBOS.listWorkflows", "py_pickle"),
        sleep,
    ]
    # A replay delivers what was recorded; the result itself is portable.
    assert replay(config, "w") == json.loads(json.dumps(expected))


def test_a_portable_error_keeps_name_message_code_and_data(app: type[DBOS], database_url: str) -> None:
    """02 R227; recorded in a parent as the error it is."""

    @DBOS.workflow(serialization_type=PORTABLE)
    def wf() -> None:
        raise PortableWorkflowError("the message", "TheName", 42, {"a": [1]})

    with SetWorkflowID("w"), pytest.raises(PortableWorkflowError):
        wf()
    assert json.loads(payloads(database_url, "w")[3]) == {
        "name": "TheName",
        "message": "the message",
        "code": 42,
        "data": {"a": [1]},
    }
    with pytest.raises(PortableWorkflowError) as stored:
        DBOS.retrieve_workflow("w").get_result()
    error = stored.value
    assert (error.name, error.message, error.code, error.data) == ("TheName", "the message", 42, {"a": [1]})


@pytest.mark.parametrize("serializer", [PlainJson(), Stubborn()], ids=lambda serializer: serializer.name())
def test_a_serializer_without_exceptions_still_ends_a_failing_workflow(
    config: Config, database_url: str, serializer: Serializer
) -> None:
    """02 R233, R264: live the original, later name and message; and it is final."""
    runs: list[int] = []
    DBOS(config={**config, "serializer": serializer})  # type: ignore[typeddict-item]

    @DBOS.workflow()
    def wf() -> None:
        runs.append(1)
        raise AppError("broken")

    DBOS.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(wf)
    with pytest.raises(AppError):
        handle.get_result()
    assert status_row(database_url, "w")["status"] == "ERROR"
    with pytest.raises(Exception) as stored:
        DBOS.retrieve_workflow("w").get_result()
    assert "AppError" in str(stored.value) or getattr(stored.value, "name", "") == "AppError"
    assert "broken" in str(stored.value)
    assert DBOS.retrieve_workflow("w").get_status().error is not None
    assert runs == [1]
    DBOS.destroy(destroy_registry=True)


def test_a_serializer_without_exceptions_still_records_failing_steps(json_app: Config, database_url: str) -> None:
    """02 R233, R264: the body sees the original, a replay its stand-in, and the step runs once."""
    runs: list[int] = []

    @DBOS.step(name="s")
    def step() -> None:
        runs.append(1)
        raise AppError("broken")

    @DBOS.workflow()
    def wf() -> list[str]:
        try:
            step()
        except Exception as error:
            return [getattr(error, "name", type(error).__name__), str(error)]
        return []

    with SetWorkflowID("w"):
        assert wf() == ["AppError", "broken"]
    assert step_rows(database_url, "w")[0]["error"] is not None
    assert replay(json_app, "w") == ["AppError", "broken"]
    assert runs == [1]


def test_looking_at_workflows_in_workflow_code_works_with_any_serializer(json_app: Config) -> None:
    """02 R233, R276."""

    @DBOS.workflow()
    def child() -> list[int]:
        return [1]

    @DBOS.workflow()
    def parent() -> Any:
        handle = DBOS.start_workflow(child)
        handle.get_result()
        status = DBOS.get_workflow_status(handle.workflow_id)
        assert status is not None
        return [handle.get_status().status, status.output, len(DBOS.list_workflow_steps("p"))]

    with SetWorkflowID("p"):
        assert parent()[:2] == ["SUCCESS", [1]]
    assert replay(json_app, "p")[:2] == ["SUCCESS", [1]]


def test_arguments_of_methods_survive_a_serializer_that_makes_lists(json_app: Config) -> None:
    """04 R630, in its better form."""
    from dbos import DBOSConfiguredInstance

    @DBOS.dbos_class()
    class C(DBOSConfiguredInstance):
        @DBOS.workflow()
        def wf(self, value: int, *, more: int) -> list[Any]:
            return [self.config_name, value, more]

        @classmethod
        @DBOS.workflow()
        def class_wf(cls, value: int) -> list[Any]:
            return [cls.__name__, value]

    instance = C("c")
    with SetWorkflowID("w"):
        instance.wf(1, more=2)
    with SetWorkflowID("v"):
        C.class_wf(3)
    assert replay(json_app, "w") == ["c", 1, 2]
    assert replay(json_app, "v") == ["C", 3]


def test_a_changed_serializer_keeps_rows_in_built_in_formats_readable(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R625, R626, R627: strict and tolerant reading."""

    @DBOS.workflow()
    def wf(value: int) -> list[int]:
        return [value]

    with SetWorkflowID("pickled"):
        wf(1)
    DBOS.destroy()
    DBOS(config={**config, "serializer": PlainJson()})  # type: ignore[typeddict-item]
    DBOS.launch()
    assert DBOS.retrieve_workflow("pickled").get_result() == [1]
    with SetWorkflowID("json"):
        wf(2)
    relaunch(config)
    with pytest.raises(TypeError, match="plain_json"):
        DBOS.retrieve_workflow("json").get_result()
    status = DBOS.retrieve_workflow("json").get_status()
    assert status.output == "json:[2]"
    assert status.input == 'json:{"args": [2], "kwargs": {}}'
    assert DBOS.retrieve_workflow("pickled").get_status().output == [1]


def test_a_row_without_a_format_is_read_by_the_configured_serializer(app: type[DBOS], database_url: str) -> None:
    """04 R625: legacy rows."""

    @DBOS.workflow()
    def wf() -> list[int]:
        return [1]

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE workflow_status SET serialization = NULL")
    assert DBOS.retrieve_workflow("w").get_result() == [1]


@pytest.mark.parametrize("inputs", ["not base64!", "AAAA", "gARLAS4="], ids=["base64", "pickle", "no arguments"])
def test_undecodable_inputs_end_the_workflow_in_error(
    app: type[DBOS], config: Config, database_url: str, inputs: str
) -> None:
    """04 R630, 02 R159 (b): the decode error is stored in the row's format."""

    @DBOS.workflow()
    def wf() -> None: ...

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE workflow_input SET inputs = %s", inputs)
    make_pending(database_url, "w")
    relaunch(config)
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError, IndexError, TypeError)):
        DBOS.retrieve_workflow("w").get_result()
    assert status_row(database_url, "w")["status"] == "ERROR"


def test_undecodable_portable_inputs_end_the_workflow_in_error(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R630."""

    @DBOS.workflow(serialization_type=PORTABLE)
    def wf() -> None: ...

    with SetWorkflowID("w"):
        wf()
    rows(database_url, "UPDATE workflow_input SET inputs = '{broken'")
    with pytest.raises(PortableWorkflowError) as broken:
        replay(config, "w")
    assert broken.value.name == "JSONDecodeError"


def leave_pending(database_url: str, *statements: str) -> None:
    """Two workflows as after a crash, of which the statements change the one with the id `broken`."""

    @DBOS.workflow(name="wf")
    def wf(value: int = 0) -> str:
        return "fine"

    for workflow_id in ("broken", "other"):
        with SetWorkflowID(workflow_id):
            wf(1)
        make_pending(database_url, workflow_id)
    for statement in statements:
        rows(database_url, f"{statement} WHERE workflow_uuid = 'broken'")


def test_a_row_that_cannot_be_started_stays_pending(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R630, 02 R159, R160: and does not keep others from running."""
    leave_pending(database_url, "UPDATE workflow_status SET name = 'nobody'")
    relaunch(config)
    assert DBOS.retrieve_workflow("other").get_result() == "fine"
    wait_until(lambda: status_row(database_url, "broken")["recovery_attempts"] == 2)
    assert status_row(database_url, "broken")["status"] == "PENDING"


def test_a_row_of_a_serializer_that_is_not_configured_waits_for_a_process_that_has_it(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R625, R630: a process that was started without its serializer must not fail everything that it recovers."""
    leave_pending(
        database_url,
        "UPDATE workflow_status SET serialization = 'plain_json'",
        """UPDATE workflow_input SET inputs = 'json:{"args": [1], "kwargs": {}}'""",
    )
    relaunch(config)
    assert DBOS.retrieve_workflow("other").get_result() == "fine"
    wait_until(lambda: status_row(database_url, "broken")["recovery_attempts"] == 2)
    assert status_row(database_url, "broken")["status"] == "PENDING"
    relaunch({**config, "serializer": PlainJson()})
    assert DBOS.retrieve_workflow("broken").get_result() == "fine"


def test_a_row_without_inputs_ends_in_error(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 section 11, 27, and 12, 10: it can never run, whoever takes it."""
    leave_pending(database_url, "DELETE FROM workflow_input")
    relaunch(config)
    with pytest.raises(DBOSRecoveryError, match="'broken' could not be recovered: it has no stored inputs"):
        DBOS.retrieve_workflow("broken").get_result()
    assert DBOS.retrieve_workflow("other").get_result() == "fine"


@pytest.mark.parametrize(
    ("format_name", "inputs", "language"),
    [
        ("js_superjson", '{"json":[1],"__dbos_serializer":"superjson"}', "TypeScript"),
        ("DBOS_JSON", "eyJhIjoxfQ==", "Go"),
        ("java_jackson", "[1]", "Java"),
    ],
)
def test_a_row_in_the_format_of_another_language_ends_in_an_error_for_everybody(
    app: type[DBOS], config: Config, database_url: str, format_name: str, inputs: str, language: str
) -> None:
    """04 R630, R703, section 12, 10: in portable JSON, which the row names from then on; it never runs."""
    leave_pending(
        database_url,
        f"UPDATE workflow_status SET serialization = '{format_name}'",
        f"UPDATE workflow_input SET inputs = '{inputs}'",
    )
    relaunch(config)
    waiting = DBOS.retrieve_workflow("broken")
    with pytest.raises(PortableWorkflowError, match=f"in the format {format_name}, which only the SDK for {language}"):
        waiting.get_result()
    assert DBOS.retrieve_workflow("other").get_result() == "fine"
    row = status_row(database_url, "broken")
    assert (row["status"], row["serialization"], row["owner_xid"]) == ("ERROR", "portable_json", None)
    assert row["completed_at"] is not None
    name, kept, _, error = payloads(database_url, "broken")
    assert (name, kept, json.loads(error)["name"]) == ("portable_json", inputs, "DBOSException")
    # Executed once more, it still is no call without arguments.
    with pytest.raises(PortableWorkflowError, match="The inputs of workflow broken"):
        DBOS.rewind_workflow("broken").get_result()


def test_an_output_that_is_not_portable_is_the_error_of_the_workflow(app: type[DBOS], database_url: str) -> None:
    """04 R631, 02 R67: the caller gets the error itself, everybody else what is stored of it."""

    @DBOS.workflow(serialization_type=PORTABLE, name="not portable")
    def wf() -> Any:
        return {"a": b"bytes"}

    with SetWorkflowID("w"), pytest.raises(TypeError, match="bytes"):
        wf()
    name, _, output, error = payloads(database_url, "w")
    assert (name, output) == ("portable_json", None)
    assert json.loads(error)["name"] == "TypeError"
    assert status_row(database_url, "w")["status"] == "ERROR"
    with pytest.raises(PortableWorkflowError, match="not portable"):
        DBOS.retrieve_workflow("w").get_result()
