"""Values that are large, texts of every kind, and stored values that cannot be read any more."""

from __future__ import annotations

import asyncio
import pickle
import random
import sys
from base64 import b64encode
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import DBOSException
from tests.helpers import make_pending, relaunch, replay, rows

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE
# Texts that are awkward somewhere: in JSON, in SQL, in a notification, in a file name.
ODD = [
    "",
    " ",
    "a::b",
    "\x1e",
    "\x01\n\t",
    "'; DROP TABLE x; --",
    '"',
    "%s",
    "ключ",
    "e\u0301",
    "é",
    "\u202e",
    "😀" * 50,
    "\U0010ffff",
]
NOT_TEXT = [("a\0b", "NUL"), ("\ud800", "surrogate")]


def test_a_message_of_fifty_megabytes_arrives(app: type[DBOS]) -> None:
    """Through the mailbox and into the step row."""
    size = 50_000_000

    @DBOS.workflow()
    def workflow() -> int:
        DBOS.send("w", b"x" * size)
        return len(DBOS.recv())

    with SetWorkflowID("w"):
        assert workflow() == size


def test_any_text_is_a_topic_a_key_and_a_value(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R125, R204: compared exactly; what looks the same and is not, is not."""

    @DBOS.workflow(name="odd")
    def odd() -> list[Any]:
        for number, text in enumerate(ODD):
            DBOS.send("w", [number, text], text, idempotency_key=text)
            DBOS.set_event(text, [number, text])
            DBOS.write_stream(text, [number, text], serialization_type=PORTABLE)
        found: list[Any] = []
        for text in ODD:
            found += [DBOS.recv(text, 0), DBOS.get_event("w", text, 0), DBOS.read_stream_offset("w", text, 0)]
        return found

    expected = [[number, text] for number, text in enumerate(ODD) for _ in range(3)]
    with SetWorkflowID("w"):
        assert odd() == expected
    assert DBOS.get_all_events("w") == {text: [number, text] for number, text in enumerate(ODD)}
    assert {row["message_uuid"] for row in rows(database_url, "SELECT * FROM notifications")} == {
        f"{text}::w" for text in ODD
    }
    assert replay(config, "w") == expected


@pytest.mark.parametrize("workflow_id", [text for text in ODD if text.strip()])
def test_any_text_is_the_id_of_a_recipient(app: type[DBOS], workflow_id: str) -> None:
    """04 R802: the separator of notifications in an id leads nobody astray."""

    @DBOS.workflow()
    def workflow() -> Any:
        return DBOS.recv("t::x")

    with SetWorkflowID(workflow_id):
        handle = DBOS.start_workflow(workflow)
    DBOS.send(workflow_id, 1, "t::x")
    assert handle.get_result() == 1


@pytest.mark.parametrize(("text", "why"), NOT_TEXT, ids=["NUL", "surrogate"])
def test_a_text_that_no_database_can_hold_is_refused_before_anything_is_written(
    app: type[DBOS], database_url: str, text: str, why: str
) -> None:
    """A DBOSException that names it, from every argument and in every place; the workflow goes on."""

    @DBOS.workflow()
    def workflow() -> int:
        calls: list[Callable[[], Any]] = [
            lambda: DBOS.send("w", 1, text),
            lambda: DBOS.send(text, 1),
            lambda: DBOS.send("w", 1, idempotency_key=text),
            lambda: DBOS.recv(text, 0),
            lambda: DBOS.set_event(text, 1),
            lambda: DBOS.get_event("w", text, 0),
            lambda: DBOS.get_event(text, "k", 0),
            lambda: DBOS.get_all_events(text),
            lambda: DBOS.write_stream(text, 1),
            lambda: DBOS.close_stream(text),
            lambda: next(DBOS.read_stream("w", text)),
            lambda: DBOS.read_stream_offset(text, "k", 0),
        ]
        for call in calls:
            with pytest.raises(DBOSException, match=why):
                call()
        return len(calls)

    with SetWorkflowID("w"):
        assert workflow() == 12
    for table in ("notifications", "workflow_events", "streams", "operation_outputs"):
        assert rows(database_url, f"SELECT * FROM {table}") == []


def test_a_key_too_long_for_an_index_is_an_error_of_its_call_alone(
    app: type[DBOS], backend: str, database_url: str
) -> None:
    """04 section 12, 16: Postgres has a limit, which depends on how well the text compresses; its batch goes on."""
    long = random.Random(0).randbytes(9000).hex()

    @DBOS.workflow()
    async def workflow() -> list[str]:
        calls = []
        for number in range(10):
            text = long if number % 2 else f"k{number}"
            calls += [
                DBOS.set_event_async(text, number),
                DBOS.write_stream_async(text, number),
                DBOS.send_async("w", number, text),
                DBOS.send_async("w", number, idempotency_key=f"{text}{number}"),
            ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [str(result) for result in results if isinstance(result, DBOSException)]

    with SetWorkflowID("w"):
        errors = DBOS.start_workflow(workflow).get_result()
    stored = [len(rows(database_url, f"SELECT * FROM {t}")) for t in ("workflow_events", "streams", "notifications")]
    if backend == "sqlite":
        assert (errors, stored) == ([], [6, 10, 20])
        return
    assert len(errors) == 20
    assert all("index row requires" in text and "Nothing of it was stored" in text for text in errors)
    assert stored == [5, 5, 10]


def test_values_with_every_character_come_back(app: type[DBOS]) -> None:
    """NUL in a value is no trouble in either format; half a surrogate pair can be pickled, and is not portable."""

    @DBOS.workflow()
    def workflow() -> list[Any]:
        for format_name in (WorkflowSerializationFormat.NATIVE, PORTABLE):
            DBOS.send("w", "a\0b", serialization_type=format_name)
        DBOS.send("w", "\ud800")
        with pytest.raises(DBOSException, match="surrogate"):
            DBOS.set_event("k", "\ud800", serialization_type=PORTABLE)
        return [DBOS.recv(timeout_seconds=0) for _ in range(3)]

    with SetWorkflowID("w"):
        assert workflow() == ["a\0b", "a\0b", "\ud800"]


# --- what cannot be read any more


@pytest.fixture
def lost_class(monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of an instance whose class is gone."""
    module = ModuleType("app_before_the_change")
    module.Lost = type("Lost", (), {"__module__": "app_before_the_change"})  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "app_before_the_change", module)
        return b64encode(pickle.dumps(module.Lost())).decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("read", "statement", "field"),
    [
        (lambda: DBOS.get_event("w", "k", 0), "UPDATE workflow_events SET value = %s", "Event 'k' of workflow w"),
        (lambda: DBOS.get_all_events("w"), "UPDATE workflow_events SET value = %s", "Event 'k' of workflow w"),
        (
            lambda: list(DBOS.read_stream("w", "k")),
            "UPDATE streams SET value = %s",
            "The value at offset 0 of stream 'k' of workflow w",
        ),
        (
            lambda: DBOS.retrieve_workflow("w").get_result(),
            "UPDATE workflow_output SET output = %s",
            "The output of workflow w",
        ),
    ],
    ids=["event", "all events", "stream", "output"],
)
def test_a_value_whose_class_is_gone_is_named_where_it_is_read(
    app: type[DBOS], database_url: str, lost_class: str, read: Callable[[], Any], statement: str, field: str
) -> None:
    """04 R214, R315, R626: workflow, field and format, and what to do; others are read as before."""

    @DBOS.workflow()
    def workflow() -> int:
        DBOS.set_event("k", 1)
        DBOS.write_stream("k", 1)
        return 1

    for workflow_id in ("w", "other"):
        with SetWorkflowID(workflow_id):
            workflow()
    rows(database_url, f"{statement} WHERE workflow_uuid = 'w'", lost_class)
    with pytest.raises(ModuleNotFoundError) as found:
        read()
    assert str(found.value).startswith(f"{field} (format py_pickle) cannot be read: No module named 'app_before")
    assert "bring it back" in str(found.value)
    assert DBOS.get_all_events("other") == {"k": 1}
    assert list(DBOS.read_stream("other", "k")) == [1]
    assert DBOS.retrieve_workflow("other").get_result() == 1


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE operation_outputs SET output = %s", r"The recorded output of step 1 ('charge') of workflow w"),
        (
            "UPDATE operation_outputs SET output = NULL, error = %s",
            r"The recorded error of step 1 ('charge') of workflow w",
        ),
        ("UPDATE workflow_input SET inputs = %s", "The inputs of workflow w ('wf')"),
    ],
    ids=["step output", "step error", "inputs"],
)
def test_a_history_whose_class_is_gone_fails_its_workflow_alone(
    app: type[DBOS], config: Config, database_url: str, lost_class: str, statement: str, field: str
) -> None:
    """04 R626, R630: the workflow ends in ERROR, which says what could not be read; its neighbours are recovered."""

    @DBOS.step(name="charge")
    def charge() -> int:
        return 1

    @DBOS.workflow(name="wf")
    def workflow(number: int) -> int:
        return charge() + number

    for workflow_id in ("w", "other"):
        with SetWorkflowID(workflow_id):
            workflow(1)
        make_pending(database_url, workflow_id)
    rows(database_url, f"{statement} WHERE workflow_uuid = 'w'", lost_class)
    relaunch(config)
    with pytest.raises(ModuleNotFoundError) as found:
        DBOS.retrieve_workflow("w").get_result()
    assert str(found.value).startswith(f"{field} (format py_pickle) cannot be read: No module named 'app_before")
    assert DBOS.retrieve_workflow("other").get_result() == 2


def test_a_message_whose_class_is_gone_fails_its_receipt_alone(
    app: type[DBOS], database_url: str, lost_class: str
) -> None:
    """04 R128, section 12, 9."""

    @DBOS.workflow()
    def workflow() -> Any:
        DBOS.send("w", 1, "t")
        rows(database_url, "UPDATE notifications SET message = %s", lost_class)
        DBOS.send("w", 2, "t")
        with pytest.raises(ModuleNotFoundError, match=r"Message \S+ \(format py_pickle\) cannot be read and was taken"):
            DBOS.recv("t")
        return DBOS.recv("t")

    with SetWorkflowID("w"):
        assert workflow() == 2
