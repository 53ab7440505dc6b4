"""Exceptions to text and back, whatever they hold (04 R613 to R623)."""

import json
import pickle
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos import error, serialization
from dbos.error import DBOSException, DBOSMaxStepRetriesExceeded, DBOSWorkflowIDInUseError, PortableWorkflowError
from dbos.serialization import Payloads, check_text
from tests.leaves.serializers import JsonSerializer, Refusing, TwoArguments, native, with_attributes


def error_text(problem):
    return native.encode_error(problem, "portable_json")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (ValueError("x"), '{"name":"ValueError","message":"x","code":null}'),
        (OSError(2, "nope"), '{"name":"FileNotFoundError","message":"[Errno 2] nope","code":2}'),
        (KeyError("k"), '{"name":"KeyError","message":"\'k\'","code":null}'),
        (with_attributes(code=1.5, status="s"), '{"name":"ValueError","message":"x","code":"s"}'),
        (with_attributes(code=None, errno=5), '{"name":"ValueError","message":"x","code":null}'),
        (
            with_attributes(details={"a": date(2025, 1, 1)}),
            '{"name":"ValueError","message":"x","code":null,"data":{"a":"2025-01-01"}}',
        ),
        (with_attributes(data=b"x"), '{"name":"ValueError","message":"x","code":null,"data":"b\'x\'"}'),
        (with_attributes(data=len, extra=1), '{"name":"ValueError","message":"x","code":null,"data":1}'),
    ],
)
def test_an_exception_has_its_portable_envelope(problem, text):
    """04 R613."""
    assert error_text(problem) == text


def test_an_exception_without_a_text_is_stored_by_its_repr_or_a_placeholder():
    """04 R613."""

    class NoStr(Exception):
        def __str__(self):
            raise RuntimeError

    class NoRepr(NoStr):
        __repr__ = NoStr.__str__

    assert json.loads(error_text(NoStr()))["message"] == "NoStr()"
    assert json.loads(error_text(NoRepr()))["message"] == "<unprintable>"


def test_a_portable_error_keeps_the_name_its_author_gave_it():
    """04 R615, section 11, 25, and 12, 11."""
    text = error_text(PortableWorkflowError("m", "OutOfStock", 5, [1]))
    assert text == '{"name":"OutOfStock","message":"m","code":5,"data":[1]}'
    restored = native.decode_error(text, "portable_json")
    assert (restored.message, restored.name, restored.code, restored.data) == ("m", "OutOfStock", 5, [1])


def test_a_stored_portable_error_needs_name_and_message_only():
    """04 R614."""
    restored = native.decode_error('{"message":"m","name":"n"}', "portable_json")
    assert isinstance(restored, PortableWorkflowError)
    assert (restored.code, restored.data) == (None, None)
    for text in ('{"message":"m"}', '{"name":"n"}'):
        with pytest.raises(KeyError):
            native.decode_error(text, "portable_json")
    with pytest.raises(TypeError):
        native.decode_error("[]", "portable_json")


def test_a_native_exception_comes_back_as_its_class():
    """04 R620."""
    restored = native.decode_error(native.encode_error(KeyError("k")), None)
    assert type(restored) is KeyError
    assert restored.args == ("k",)


def test_an_error_that_a_serializer_reads_as_something_else_is_still_an_exception():
    restored = Payloads(JsonSerializer()).decode_error('{"type": "x"}', "custom_serializer")
    assert isinstance(restored, DBOSException)
    assert "{'type': 'x'}" in str(restored)


def test_an_exception_that_can_be_stored_is_stored_as_it_is():
    problem = DBOSWorkflowIDInUseError("w", "PENDING", "f")
    text, name = native.encode_error_always(problem)
    assert (text, name) == (native.encode_value(problem), "py_pickle")


def unpicklable():
    class Local(Exception):
        pass

    return Local("local")


@pytest.mark.parametrize(
    ("problem", "stored"),
    [(unpicklable(), "Local: local"), (TwoArguments("a", "b"), "TwoArguments: a")],
    ids=["cannot be pickled", "cannot be unpickled"],
)
def test_an_exception_that_does_not_survive_is_stored_as_class_and_text(problem, stored):
    """04 R621, section 12, 12: also one that can be pickled and not read back."""
    text, name = native.encode_error_always(problem)
    restored = native.decode_error(text, name)
    assert type(restored) is Exception
    assert str(restored) == stored


@pytest.mark.skipif(pickle.DEFAULT_PROTOCOL != 4, reason="the reference text is that of protocol 4")
def test_the_stand_in_is_stored_as_release_3_4_0_stores_it():
    """04 R621."""
    problem = type("L", (Exception,), {"__qualname__": "wn.<locals>.L"})("local")
    expected = "gASVKQAAAAAAAACMCGJ1aWx0aW5zlIwJRXhjZXB0aW9ulJOUjAhMOiBsb2NhbJSFlFKULg=="
    assert native.encode_error_always(problem)[0] == expected


def test_exhausted_retries_keep_their_class_when_an_attempt_cannot_be_stored():
    """04 R623."""
    problem = DBOSMaxStepRetriesExceeded("st", 2, [ValueError("a"), unpicklable()])
    restored = native.decode_error(*native.encode_error_always(problem))
    assert isinstance(restored, DBOSMaxStepRetriesExceeded)
    assert [repr(attempt) for attempt in restored.errors] == ["ValueError('a')", "Exception('Local: local')"]
    assert [type(attempt).__name__ for attempt in problem.errors] == ["ValueError", "Local"]


@pytest.mark.parametrize(
    ("serializer", "format_name"), [(JsonSerializer(), JsonSerializer().name()), (Refusing(), "portable_json")]
)
def test_an_error_is_stored_as_name_and_message_when_the_configured_serializer_cannot(serializer, format_name):
    """In the configured format if that knows mappings, which is what readers of the row expect."""
    payloads = Payloads(serializer)
    text, name = payloads.encode_error_always(ValueError("x"))
    assert name == format_name
    restored = payloads.decode_error(text, name)
    assert (restored.name, restored.message) == ("ValueError", "x")


def test_an_error_is_stored_as_name_and_message_when_the_configured_serializer_reads_it_as_something_else():
    class Lenient(JsonSerializer):
        def serialize(self, data):
            return json.dumps(data, default=str)

    text, name = Payloads(Lenient()).encode_error_always(ValueError("x"))
    assert (json.loads(text)["name"], name) == ("ValueError", Lenient().name())


def test_an_error_with_a_text_that_no_database_can_store_is_stored_escaped():
    text, name = native.encode_error_always(ValueError("a\ud800"), "portable_json")
    check_text(text, "payload")
    assert native.decode_error(text, name).message == "a\\ud800"


def test_an_error_over_the_limit_is_stored_cut(monkeypatch):
    monkeypatch.setattr(serialization, "MAX_PAYLOAD_BYTES", 6400)
    text, name = native.encode_error_always(ValueError("x" * 10_000))
    assert len(text) < 6400
    assert native.decode_error(text, name).message == "x" * 100


def test_an_error_for_an_unavailable_format_is_stored_portably():
    assert native.encode_error_always(ValueError("x"), "js_superjson")[1] == "portable_json"


@given(st.text(st.characters(codec=None)))
def test_every_text_of_an_error_can_be_stored(message):
    for name in ("py_pickle", "portable_json"):
        text, used = native.encode_error_always(ValueError(message), name)
        check_text(text, "payload")
        assert isinstance(native.decode_error(text, used), Exception)


class Named(JsonSerializer):
    def name(self):
        return "named"


@pytest.mark.parametrize(
    "problem",
    [
        error.DBOSException("m"),
        error.DBOSException("m", 7),
        error.DBOSInitializationError("bad"),
        error.DBOSNonExistentWorkflowError("target", "wf"),
        error.DBOSUnexpectedStepError("wf", 4, "charge", "charge_card"),
        error.DBOSPatchNondeterminismError("wf", "p", "det"),
        error.DBOSStreamEndedError("wf", "k"),
        error.DBOSStreamClosedError("wf", "k"),
        error.DBOSResultTimeoutError("wf", 1.5),
        error.DBOSStepNondeterminismError("wf", 3),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_errors_of_the_library_keep_their_class_where_exceptions_cannot_be_stored(problem):
    payloads = Payloads(Named())
    restored = payloads.decode_error(*payloads.encode_error_always(problem))
    assert type(restored) is type(problem)
    assert (str(restored), vars(restored)) == (str(problem), vars(problem))
    assert vars(pickle.loads(pickle.dumps(problem))) == vars(problem)


def test_an_error_of_the_library_that_is_no_plain_data_keeps_name_and_text():
    problem = DBOSMaxStepRetriesExceeded("st", 2, [ValueError("a")])
    restored = Payloads(Named()).decode_error(*Payloads(Named()).encode_error_always(problem))
    assert (restored.name, restored.message) == ("DBOSMaxStepRetriesExceeded", str(problem))


@pytest.mark.parametrize(
    ("data", "code"), [({"a": [1]}, 3), (None, None), (object(), 3), ({"dbos_error_parts": [[]]}, None)]
)
def test_a_portable_error_that_is_stored_again_keeps_its_name(data, code):
    """With code and data, where they can be stored."""
    problem = PortableWorkflowError("m", "TheName", code, data)
    restored = Payloads(Named()).decode_error(*Payloads(Named()).encode_error_always(problem))
    assert isinstance(restored, PortableWorkflowError)
    assert (restored.name, restored.message) == ("TheName", "m")
    assert (restored.code, restored.data) == ((code, data) if type(data) is not object else (None, None))


@pytest.mark.parametrize("data", [{"dbos_error_parts": [["target"]]}, {"dbos_error_parts": 3}, {}, [1]])
def test_parts_that_make_no_error_are_left_as_data(data):
    text = json.dumps({"name": "DBOSNonExistentWorkflowError", "message": "m", "data": data})
    restored = Payloads(Named()).decode_error(text, "named")
    assert isinstance(restored, PortableWorkflowError)
    assert (restored.name, restored.data) == ("DBOSNonExistentWorkflowError", data)


def test_a_portable_error_with_a_name_that_is_no_text_can_be_stored():
    text, name = Payloads(Named()).encode_error_always(PortableWorkflowError("m", None))
    assert Payloads(Named()).decode_error(text, name).name == "None"
