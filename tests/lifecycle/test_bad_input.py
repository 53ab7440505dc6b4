"""Bad input is refused with typed errors that name the value and the remedy, before anything is written."""

from __future__ import annotations

import importlib.util
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSConfiguredInstance,
    DBOSContextSetAuth,
    Serializer,
    SetEnqueueOptions,
    SetShardKey,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
)
from dbos.error import (
    DBOSException,
    DBOSUnexpectedStepError,
    DBOSWorkflowFunctionNotFoundError,
)
from tests.helpers import replay, rows, status_row, step_rows

# Strings that not every database can hold: a NUL, either half of a surrogate pair.
UNSTORABLE = ["a\0b", "\0", "a\ud800", "\udfffz"]
UNSTORABLE_IDS = ["nul", "only-nul", "high-surrogate", "low-surrogate"]
unstorable = pytest.mark.parametrize("text", UNSTORABLE, ids=UNSTORABLE_IDS)

# What a message about such a string says.
REASON = "NUL|surrogate"


def assert_nothing_was_written(database_url: str) -> None:
    for table in ("workflow_status", "workflow_input", "workflow_output", "operation_outputs"):
        assert rows(database_url, f"SELECT count(*) AS n FROM {table}") == [{"n": 0}], table


# --- texts that become part of rows


@unstorable
def test_a_workflow_id_that_cannot_be_stored_is_refused(app: type[DBOS], database_url: str, text: str) -> None:
    with pytest.raises(DBOSException, match=REASON):
        SetWorkflowID(text)
    assert_nothing_was_written(database_url)


@pytest.mark.parametrize("workflow_id", ["", "  ", "\n\t", None, 5])
def test_an_empty_workflow_id_is_refused(workflow_id: Any) -> None:
    # 02 R29
    with pytest.raises(DBOSException, match="non-empty"):
        SetWorkflowID(workflow_id)


def test_a_bad_reuse_policy_is_refused() -> None:
    # 02 R43
    with pytest.raises(DBOSException, match="'return-existing' or 'reject', not 'maybe'"):
        SetWorkflowID("id", workflow_id_reuse_policy="maybe")  # type: ignore[arg-type]


LOOKUPS: dict[str, Callable[[str], Any]] = {
    "get_workflow_status": lambda text: DBOS.get_workflow_status(text),
    "retrieve_workflow": lambda text: DBOS.retrieve_workflow(text),
    "list_workflow_steps": lambda text: DBOS.list_workflow_steps(text),
    "cancel_workflow": lambda text: DBOS.cancel_workflow(text),
    "resume_workflow": lambda text: DBOS.resume_workflow(text),
    "set_latest_application_version": lambda text: DBOS.set_latest_application_version(text),
}


@unstorable
@pytest.mark.parametrize("call", sorted(LOOKUPS))
def test_looking_for_an_id_that_cannot_exist_is_a_typed_error(app: type[DBOS], call: str, text: str) -> None:
    with pytest.raises(DBOSException):
        LOOKUPS[call](text)
    # and harms nobody else
    assert [version["version_name"] for version in DBOS.list_application_versions()] == ["v1"]


@unstorable
def test_names_that_cannot_be_stored_are_refused_at_decoration(text: str) -> None:
    with pytest.raises(DBOSException, match=f"workflow name.*({REASON})"):
        DBOS.workflow(name=text)(lambda: None)
    with pytest.raises(DBOSException, match=f"step name.*({REASON})"):
        DBOS.step(name=text)(lambda: None)


@unstorable
def test_a_class_or_instance_name_that_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(DBOSException, match=REASON):
        DBOS.dbos_class(text)(type("Plain", (), {}))

    @DBOS.dbos_class()
    class Configured(DBOSConfiguredInstance): ...

    with pytest.raises(DBOSException, match=REASON):
        Configured(text)


@unstorable
def test_texts_of_a_start_that_cannot_be_stored_are_refused(app: type[DBOS], database_url: str, text: str) -> None:
    @DBOS.workflow()
    def work() -> None: ...

    with pytest.raises(DBOSException, match=f"user.*({REASON})"), DBOSContextSetAuth(text, ["role"]):
        work()
    with pytest.raises(DBOSException, match=f"role.*({REASON})"), DBOSContextSetAuth("user", ["fine", text]):
        DBOS.start_workflow(work)
    for attributes in ({"key": text}, {text: "value"}, {"deep": [{"er": text}]}):
        with pytest.raises(DBOSException, match=f"attributes.*({REASON})"):
            SetWorkflowAttributes(attributes)
    for option in ("deduplication_id", "app_version", "queue_partition_key"):
        with pytest.raises(DBOSException, match=REASON):
            SetEnqueueOptions(**{option: text})
    assert_nothing_was_written(database_url)


@pytest.mark.parametrize("attributes", [["a"], "text", {"key": object()}, {"key": {1, 2}}, {"key": float("nan")}])
def test_attributes_that_are_no_json_object_are_refused(attributes: Any) -> None:
    # 02 section 15
    with pytest.raises(DBOSException, match="attributes"):
        SetWorkflowAttributes(attributes)


@unstorable
def test_a_name_given_to_run_step_or_patch_is_checked(app: type[DBOS], database_url: str, text: str) -> None:
    @DBOS.workflow()
    def work() -> list[str]:
        found = []
        calls: list[Callable[[], Any]] = [
            lambda: DBOS.run_step({"name": text}, len, ""),
            lambda: DBOS.patch(text),
        ]
        for call in calls:
            with pytest.raises(DBOSException, match=REASON) as raised:
                call()
            found.append(str(raised.value))
        return found

    with SetWorkflowID("named"):
        assert len(work()) == 2
    assert step_rows(database_url, "named") == []


@pytest.mark.parametrize("value", [-1, float("nan"), 0, "5", True])
def test_a_bad_workflow_timeout_is_refused(value: Any) -> None:
    # 02 R117, R269
    with pytest.raises(DBOSException, match="timeout"):
        SetWorkflowTimeout(value)
    with pytest.raises(OverflowError, match="None"):
        SetWorkflowTimeout(float("inf"))


def test_shard_keys_are_refused(app: type[DBOS], database_url: str) -> None:
    # 01 R74, 02 R50
    @DBOS.workflow()
    def work() -> None: ...

    with pytest.raises(ValueError, match="non-empty"):
        SetShardKey("")
    with pytest.raises(DBOSException, match="not sharded"), SetShardKey("key"):
        work()
    for call in (DBOS.get_result, DBOS.get_workflow_status, DBOS.retrieve_workflow, DBOS.cancel_workflow):
        with pytest.raises(DBOSException, match="not sharded"):
            call("id", shard_key="key")
    assert_nothing_was_written(database_url)


# --- values that cannot be stored


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this object refuses to be pickled")


UNSERIALIZABLE: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "lambda": lambda: lambda: None,
    "generator": lambda: (n for n in range(3)),
    "refusing object": Unpicklable,
}


@pytest.mark.parametrize("kind", sorted(UNSERIALIZABLE))
def test_an_unserializable_argument_is_refused_before_anything_is_written(
    app: type[DBOS], database_url: str, kind: str
) -> None:
    # 02 R35
    @DBOS.workflow(name="takes-anything")
    def work(value: Any) -> None:
        raise AssertionError("must not run")

    value = UNSERIALIZABLE[kind]()
    for call in (work, lambda argument: DBOS.start_workflow(work, argument)):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as raised:
            call(value)
        assert "arguments of workflow 'takes-anything'" in str(raised.value)
        assert "plain data" in str(raised.value)
    assert_nothing_was_written(database_url)


@pytest.mark.parametrize("kind", sorted(UNSERIALIZABLE))
def test_an_unserializable_result_names_workflow_step_and_type(app: type[DBOS], database_url: str, kind: str) -> None:
    # 02 R67, R265: recorded as the error of the step or workflow
    value = UNSERIALIZABLE[kind]()
    errors = (TypeError, AttributeError, pickle.PicklingError)

    @DBOS.step(name="makes-it")
    def step() -> Any:
        return value

    @DBOS.workflow(name="returns-it")
    def returns() -> Any:
        return value

    @DBOS.workflow(name="steps")
    def steps() -> str:
        with pytest.raises(errors) as raised:
            step()
        return str(raised.value)

    with SetWorkflowID("workflow"), pytest.raises(errors, match="returns-it") as raised:
        returns()
    assert type(value).__name__ in str(raised.value)
    assert status_row(database_url, "workflow")["status"] == "ERROR"
    with SetWorkflowID("step"):
        text = steps()
    for part in ("makes-it", "step", type(value).__name__):
        assert part in text
    (row,) = step_rows(database_url, "step")
    assert row["output"] is None
    assert row["error"] is not None


@unstorable
def test_portable_values_with_unstorable_texts_are_refused_or_kept(
    app: type[DBOS], database_url: str, text: str
) -> None:
    # JSON can escape a NUL, but half a surrogate pair is not text in any language.
    @DBOS.workflow(name="portable", serialization_type=WorkflowSerializationFormat.PORTABLE)
    def portable(value: str) -> list[str]:
        return [value]

    if "\0" in text:
        with SetWorkflowID("nul"):
            assert portable(text) == [text]
        assert DBOS.retrieve_workflow("nul").get_result() == [text]
    else:
        with pytest.raises(DBOSException, match="surrogate"):
            portable(text)
        assert_nothing_was_written(database_url)


@unstorable
@pytest.mark.parametrize("format_", list(WorkflowSerializationFormat), ids=lambda member: member.name)
def test_an_error_whose_text_cannot_be_stored_is_stored_all_the_same(
    app: type[DBOS], database_url: str, text: str, format_: WorkflowSerializationFormat
) -> None:
    # 02 R264
    @DBOS.workflow(serialization_type=format_)
    def fails() -> None:
        raise ValueError(f"<{text}>")

    with SetWorkflowID("fails"), pytest.raises(ValueError):
        fails()
    assert status_row(database_url, "fails")["status"] == "ERROR"
    with pytest.raises(Exception, match="<") as raised:
        DBOS.retrieve_workflow("fails").get_result()
    assert str(raised.value).endswith(">")


@unstorable
def test_pickled_values_may_contain_any_text(app: type[DBOS], text: str) -> None:
    @DBOS.step()
    def step(value: str) -> str:
        return value

    @DBOS.workflow()
    def work(value: str) -> dict[str, str]:
        return {value: step(value)}

    with SetWorkflowID("pickled"):
        work(text)
    assert DBOS.retrieve_workflow("pickled").get_result() == {text: text}


class Careless(Serializer):
    """Writes whatever the value says, so that tests choose the text."""

    def serialize(self, data: Any) -> Any:
        if isinstance(data, dict) and "args" in data:
            data = data["args"][0] if data["args"] else "no arguments"
        return data if isinstance(data, (str, bytes)) else repr(data)

    def deserialize(self, serialized_data: str) -> Any:
        return serialized_data

    def name(self) -> str:
        return "careless"


@pytest.mark.parametrize("text", [*UNSTORABLE, b"bytes"], ids=[*UNSTORABLE_IDS, "bytes"])
def test_what_a_custom_serializer_writes_is_checked(config: dict[str, Any], text: Any) -> None:
    url = config["system_database_url"]
    DBOS(config={**config, "serializer": Careless()})

    @DBOS.step()
    def step() -> Any:
        return text

    @DBOS.workflow()
    def takes(value: Any) -> None:
        raise AssertionError("must not run")

    @DBOS.workflow()
    def work() -> str:
        with pytest.raises((DBOSException, TypeError), match="careless"):
            step()
        return "went on"

    DBOS.launch()
    with pytest.raises((DBOSException, TypeError), match="careless"):
        takes(text)
    assert_nothing_was_written(url)
    with SetWorkflowID("went-on"):
        assert work() == "went on"
    (row,) = step_rows(url, "went-on")
    assert row["output"] is None
    assert status_row(url, "went-on")["status"] == "SUCCESS"
    DBOS.destroy()


# --- calls in the wrong place


def test_starting_a_workflow_in_a_step_is_refused_with_a_remedy(app: type[DBOS], database_url: str) -> None:
    # 02 R48, R269: AssertionError in the published API, typed and readable in ours
    @DBOS.workflow(name="child")
    def child() -> None:
        raise AssertionError("must not run")

    @DBOS.step()
    def step() -> list[str]:
        texts = []
        for call in (child, lambda: DBOS.start_workflow(child)):
            for kind in (AssertionError, DBOSException):
                with pytest.raises(kind, match="'child' cannot be started or enqueued from a step") as raised:
                    call()
                texts.append(str(raised.value))
        return texts

    @DBOS.workflow()
    def work() -> list[str]:
        return step()

    assert len(work()) == 4
    assert rows(database_url, "SELECT count(*) AS n FROM workflow_status") == [{"n": 1}]


def test_sleeping_in_a_step_or_outside_is_refused(app: type[DBOS]) -> None:
    # 02 R86
    @DBOS.step()
    def step() -> str:
        with pytest.raises(DBOSException, match="sleep") as raised:
            DBOS.sleep(0.01)
        return str(raised.value)

    @DBOS.workflow()
    def work() -> str:
        return step()

    assert "step" in work()
    with pytest.raises(DBOSException, match=r"time\.sleep"):
        DBOS.sleep(0.01)


def test_starting_something_undecorated_is_refused_with_the_remedy(app: type[DBOS], database_url: str) -> None:
    # 02 R24
    def plain() -> None: ...

    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match=r"plain.*@DBOS\.workflow") as raised:
        DBOS.start_workflow(plain)
    assert raised.value.workflow_id == "<NONE>"
    assert_nothing_was_written(database_url)


def test_decorators_without_parentheses_say_so() -> None:
    # 02 2.1
    with pytest.raises(TypeError):
        DBOS.workflow(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        DBOS.step(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="parentheses"):

        @DBOS.dbos_class  # type: ignore[arg-type]
        class Undecorated: ...


def test_a_changed_order_of_steps_is_a_readable_error(app: type[DBOS], config: dict[str, Any]) -> None:
    # 02 R95, R263
    swapped = False

    @DBOS.step(name="charge")
    def charge() -> None: ...

    @DBOS.step(name="ship")
    def ship() -> None: ...

    @DBOS.workflow()
    def order() -> None:
        for step in (ship, charge) if swapped else (charge, ship):
            step()

    with SetWorkflowID("order-17"):
        order()
    swapped = True
    with pytest.raises(DBOSUnexpectedStepError) as raised:
        replay(config, "order-17")
    assert raised.value.inputs == ("order-17", 1, "ship", "charge")
    for part in ("order-17", "1", "ship", "charge", "patch"):
        assert part in str(raised.value)
    assert status_row(config["system_database_url"], "order-17")["status"] == "ERROR"


# --- names registered twice


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_workflow_name_in_two_modules_is_refused_with_both_origins(tmp_path: Path) -> None:
    # 01 R26, 02 R7
    text = "from dbos import DBOS\n\n@DBOS.workflow(name='twice')\ndef work():\n    return __name__\n"
    for name in ("one_module", "other_module"):
        (tmp_path / f"{name}.py").write_text(text)
    imported(tmp_path / "one_module.py")
    with pytest.raises(DBOSException) as raised:
        imported(tmp_path / "other_module.py")
    for part in ("twice", "one_module", "other_module", "name="):
        assert part in str(raised.value)


def test_one_step_name_in_two_modules_only_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R9
    text = "from dbos import DBOS\n\n@DBOS.step(name='twice')\ndef work():\n    return __name__\n"
    for name in ("one_module", "other_module"):
        (tmp_path / f"{name}.py").write_text(text)
        imported(tmp_path / f"{name}.py")
    assert "twice" in caplog.text
    assert "registered again" in caplog.text


def test_a_name_registered_again_in_one_module_warns_and_replaces(
    app: type[DBOS], config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R26, 02 R7, R8
    @DBOS.workflow(name="twice")
    def older() -> str:
        return "older"

    @DBOS.workflow(name="twice")
    def newer() -> str:
        return "newer"

    assert "registered again" in caplog.text
    with SetWorkflowID("direct"):
        assert older() == "older"
    assert DBOS.start_workflow(older).get_result() == "older"
    assert replay(config, "direct") == "newer"


def test_one_class_or_instance_name_for_two_is_refused() -> None:
    # 01 R26, 02 R173, R176
    @DBOS.dbos_class("Same")
    class First(DBOSConfiguredInstance): ...

    with pytest.raises(Exception, match=r"Same.*class_name"):

        @DBOS.dbos_class("Same")
        class Second(DBOSConfiguredInstance): ...

    first = First("one")
    assert first.config_name == "one"
    with pytest.raises(Exception, match="config_name 'one'"):
        First("one")
