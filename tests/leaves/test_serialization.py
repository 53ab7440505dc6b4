"""Values, arguments and exceptions to text and back."""

import base64
import collections
import enum
import inspect
import json
import pickle
import threading
import types
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos import error, serialization
from dbos.error import (
    DBOSException,
    DBOSInitializationError,
    DBOSMaxStepRetriesExceeded,
    DBOSWorkflowIDInUseError,
    PortableWorkflowError,
)
from dbos.serialization import (
    DBOSPortableJSONSerializer,
    Payloads,
    Serializer,
    WorkflowSerializationFormat,
    check_text,
    explain,
)

SURFACE = json.loads((Path(__file__).parent.parent / "data" / "surface-3.4.0.json").read_text())


class JsonSerializer(Serializer):
    """A custom serializer of the usual kind: knows JSON values only."""

    def serialize(self, data):
        return json.dumps(data)

    def deserialize(self, serialized_data):
        return json.loads(serialized_data)


class NamedSerializer(JsonSerializer):
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


class Refusing(Serializer):
    def serialize(self, data):
        raise RuntimeError("out of order")

    def deserialize(self, serialized_data):
        raise RuntimeError("out of order")


class TwoArguments(Exception):
    """Pickles, but cannot be built again from its single argument."""

    def __init__(self, what, why):
        super().__init__(what)
        self.why = why


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Plain(enum.Enum):
    A = "a"


Point = collections.namedtuple("Point", "x y")

native = Payloads()
portable = DBOSPortableJSONSerializer()

# --- the public classes


@pytest.mark.parametrize("name", ["Serializer", "DBOSPortableJSONSerializer"])
def test_the_serializer_classes_have_the_published_methods(name):
    cls = getattr(serialization, name)
    for method, published in SURFACE["classes"][name]["members"].items():
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in inspect.signature(getattr(cls, method)).parameters.values()
            if parameter.name != "self"
        ]
        assert str(inspect.Signature(parameters)) == published["signature"]


def test_a_serializer_must_define_both_directions_and_has_a_default_name():
    assert Serializer.__abstractmethods__ == set(SURFACE["classes"]["Serializer"]["abstract"])
    assert JsonSerializer().name() == "custom_serializer"


def test_the_formats_to_choose_from_are_the_published_ones():
    members = {member.name: member.value for member in WorkflowSerializationFormat}
    assert members == SURFACE["enums"]["WorkflowSerializationFormat"]
    assert issubclass(WorkflowSerializationFormat, str)


def test_a_choice_stored_by_release_3_4_0_is_read_back():
    stored = json.loads((Path(__file__).parent.parent / "data" / "pickled-errors-3.4.0.json").read_text())
    assert pickle.loads(base64.b64decode(stored["w"])) is WorkflowSerializationFormat.PORTABLE
    assert pickle.loads(base64.b64decode(stored["wd"])) is WorkflowSerializationFormat.DEFAULT


# --- choosing a format


@pytest.mark.parametrize(
    ("configured", "choice", "expected"),
    [
        (None, None, "py_pickle"),
        (None, WorkflowSerializationFormat.DEFAULT, "py_pickle"),
        (None, WorkflowSerializationFormat.PORTABLE, "portable_json"),
        (JsonSerializer(), None, "custom_serializer"),
        (JsonSerializer(), WorkflowSerializationFormat.NATIVE, "py_pickle"),
        (JsonSerializer(), WorkflowSerializationFormat.PORTABLE, "portable_json"),
        (DBOSPortableJSONSerializer(), WorkflowSerializationFormat.DEFAULT, "portable_json"),
    ],
)
def test_a_choice_gives_the_name_of_a_format(configured, choice, expected):
    """04 section 6.2."""
    assert Payloads(configured).format_for(choice) == expected


def test_a_choice_that_is_none_of_the_formats_is_a_type_error():
    with pytest.raises(TypeError, match="PORTABLE, NATIVE or DEFAULT"):
        native.format_for("json")


@pytest.mark.parametrize("name", ["py_pickle", "portable_json", "", None, "a\0b"])
def test_a_serializer_cannot_take_a_reserved_or_unusable_name(name):
    with pytest.raises(DBOSException):
        Payloads(NamedSerializer(name))


def test_a_serializer_derived_from_the_portable_one_may_keep_its_name():
    class Wider(DBOSPortableJSONSerializer):
        def serialize(self, value):
            return json.dumps(value, default=str)

    payloads = Payloads(Wider())
    assert payloads.decode_value(payloads.encode_value(uuid.UUID(int=1)), "portable_json") == str(uuid.UUID(int=1))


# --- pickle


@pytest.mark.skipif(pickle.DEFAULT_PROTOCOL != 4, reason="the reference texts are those of protocol 4")
@pytest.mark.parametrize(("value", "text"), [(None, "gAROLg=="), (1, "gARLAS4="), ("v", "gASVBQAAAAAAAACMAXaULg==")])
def test_native_values_have_the_persisted_form(value, text):
    """04 section 6.1."""
    assert native.encode_value(value) == text


@pytest.mark.skipif(pickle.DEFAULT_PROTOCOL != 4, reason="the reference text is that of protocol 4")
def test_native_arguments_have_the_persisted_form():
    """04 section 6.1, R620."""
    text = native.encode_arguments((1,), {"a": 2}, "py_pickle")
    assert text == "gASVIgAAAAAAAAB9lCiMBGFyZ3OUSwGFlIwGa3dhcmdzlH2UjAFhlEsCc3Uu"


def test_native_text_is_base64_of_the_interpreters_default_protocol():
    value = {"a": [1, 2.5, b"x" * 300]}
    assert native.encode_value(value) == base64.b64encode(pickle.dumps(value)).decode()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_native_text_of_any_protocol_is_read(protocol):
    text = base64.b64encode(pickle.dumps((1, "x"), protocol)).decode()
    assert native.decode_value(text, "py_pickle") == (1, "x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_a_native_value_comes_back_as_it_was(value):
    assert native.decode_value(native.encode_value(value), "py_pickle") == value


@given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
def test_native_arguments_come_back_as_they_were(args, kwargs):
    text = native.encode_arguments(tuple(args), kwargs, "py_pickle")
    assert native.decode_arguments(text, "py_pickle") == (tuple(args), kwargs)


# --- portable JSON


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (10**30, str(10**30)),
        (1e22, "1e+22"),
        ("é\n", '"é\\n"'),
        (Colour.RED, '"red"'),
        (Size.BIG, "3"),
        (datetime(2025, 6, 15, 10, 30, 0, 123999), '"2025-06-15T10:30:00.123Z"'),
        (datetime(2025, 6, 15, tzinfo=timezone(timedelta(hours=2))), '"2025-06-14T22:00:00.000Z"'),
        (datetime(99, 1, 1), '"0099-01-01T00:00:00.000Z"'),
        (date(2025, 6, 15), '"2025-06-15"'),
        (Decimal("1E+3"), '"1000"'),
        (Decimal("NaN"), '"NaN"'),
        (Decimal("-0.10"), '"-0.10"'),
        ((1, 2), "[1,2]"),
        (Point(1, 2), "[1,2]"),
        ({7}, "[7]"),
        ({"b": 1, "a": {"c": (1,)}}, '{"b":1,"a":{"c":[1]}}'),
        ({Colour.RED: 1}, '{"red":1}'),
        (types.MappingProxyType({"a": 1}), '{"a":1}'),
        (float("inf"), "Infinity"),
        (float("nan"), "NaN"),
    ],
)
def test_a_value_has_its_portable_form(value, text):
    """04 R610."""
    assert portable.serialize(value) == text
    assert native.encode_value(value, "portable_json") == text


@pytest.mark.parametrize(
    "value",
    [b"x", uuid.UUID(int=1), timedelta(1), frozenset(), object(), ValueError("x"), Plain.A, range(3), [b"x"]],
)
def test_what_is_not_portable_is_a_type_error_that_names_the_type(value):
    """04 R610."""
    kind = "bytes" if isinstance(value, list) else type(value).__name__
    with pytest.raises(TypeError, match=kind):
        portable.serialize(value)


def test_a_mapping_with_keys_that_are_no_text_is_a_type_error():
    """04 R610."""
    with pytest.raises(TypeError, match="int"):
        portable.serialize({"a": {1: 2}})


def test_a_value_that_contains_itself_ends_in_a_recursion_error():
    """04 R610."""
    value: list = []
    value.append(value)
    with pytest.raises(RecursionError):
        portable.serialize(value)


def test_reading_portable_json_restores_nothing():
    """04 R611."""
    assert portable.deserialize(None) is None
    assert portable.deserialize('"2025-06-15"') == "2025-06-15"
    assert portable.deserialize("[1, Infinity]") == [1, float("inf")]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_a_json_value_comes_back_as_it_was(value):
    assert native.decode_value(native.encode_value(value, "portable_json"), "portable_json") == value


def test_portable_arguments_have_the_shared_envelope():
    """04 R612."""
    text = native.encode_arguments((1, "x"), {"k": date(2025, 1, 1)}, "portable_json")
    assert text == '{"namedArgs":{"k":"2025-01-01"},"positionalArgs":[1,"x"]}'
    assert native.decode_arguments(text, "portable_json") == ((1, "x"), {"k": "2025-01-01"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ((), {})),
        ('{"positionalArgs": null, "namedArgs": null}', ((), {})),
        ('{ "extra": 1, "positionalArgs": [1] }', ((1,), {})),
        ('{"namedArgs": {"a": 1}}', ((), {"a": 1})),
    ],
)
def test_portable_arguments_may_leave_parts_out(text, expected):
    """04 R612."""
    assert native.decode_arguments(text, "portable_json") == expected


@pytest.mark.parametrize(
    "text",
    ["null", "[1]", '"x"', "no json", '{"positionalArgs": {}}', '{"namedArgs": []}', '{"namedArgs": "x"}'],
)
def test_portable_arguments_of_another_shape_are_an_error(text):
    """04 R612."""
    with pytest.raises((TypeError, ValueError)):
        native.decode_arguments(text, "portable_json")


# --- custom serializers


def test_a_custom_serializer_gets_the_whole_mapping_and_arguments_come_back_as_a_tuple():
    """04 R620, section 11, 28."""
    payloads = Payloads(JsonSerializer())
    text = payloads.encode_arguments((1, 2), {"k": 3}, "custom_serializer")
    assert json.loads(text) == {"args": [1, 2], "kwargs": {"k": 3}}
    assert payloads.decode_arguments(text, None) == ((1, 2), {"k": 3})


def test_reserved_names_are_read_by_the_built_in_readers_whatever_is_configured():
    """04 R625, section 6.2."""
    payloads = Payloads(JsonSerializer())
    assert payloads.decode_value(native.encode_value({1}), "py_pickle") == {1}
    assert payloads.decode_value('"x"', "portable_json") == "x"


def test_a_stored_value_without_a_format_is_read_by_the_configured_serializer():
    """04 R625."""
    assert Payloads(JsonSerializer()).decode_value('"x"', None) == "x"
    assert native.decode_value(native.encode_value("x"), None) == "x"


def test_no_stored_text_is_none_in_every_format():
    """04 R625."""
    assert native.decode_value(None, "js_superjson") is None


def test_a_format_nobody_configured_is_a_type_error_that_names_it():
    """04 R625."""
    with pytest.raises(TypeError, match="Serialization js_superjson is not available"):
        native.decode_value("x", "js_superjson")
    with pytest.raises(TypeError, match="Serialization js_superjson is not available"):
        native.encode_value("x", "js_superjson")


def test_a_serializer_that_returns_no_text_is_named():
    class Bytes(NamedSerializer):
        def serialize(self, data):
            return b"x"

    with pytest.raises(TypeError, match="my_bytes returned bytes"):
        Payloads(Bytes("my_bytes")).encode_value(1)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_of_a_serializer_that_no_database_can_store_is_refused(text):
    class Fixed(NamedSerializer):
        def serialize(self, data):
            return text

    with pytest.raises(DBOSException, match="fixed"):
        Payloads(Fixed("fixed")).encode_value(1)


def test_portable_text_with_a_lone_surrogate_is_refused_and_with_nul_is_escaped():
    with pytest.raises(DBOSException, match="surrogate"):
        native.encode_value({"a": "\ud800"}, "portable_json")
    assert native.encode_value("a\0", "portable_json") == '"a\\u0000"'


@pytest.mark.parametrize("name", ["py_pickle", "portable_json"])
def test_a_text_over_the_limit_is_refused_with_its_size_and_the_limit(name, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_PAYLOAD_BYTES", 1000)
    native.encode_value("x" * 600, name)
    with pytest.raises(DBOSException, match=r"bytes.*1,000"):
        native.encode_value("x" * 1001, name)


def test_the_limit_counts_bytes_and_not_characters(monkeypatch):
    monkeypatch.setattr(serialization, "MAX_PAYLOAD_BYTES", 1000)
    assert len(native.encode_value("é" * 499, "portable_json")) == 501
    with pytest.raises(DBOSException, match="1,002 bytes"):
        native.encode_value("é" * 500, "portable_json")


# --- exceptions


def error_text(problem):
    return native.encode_error(problem, "portable_json")


def with_attributes(**attributes):
    problem = ValueError("x")
    vars(problem).update(attributes)
    return problem


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


# --- explaining and checking


@pytest.mark.parametrize("value", [threading.Lock(), lambda: None, (x for x in ())])
def test_a_serializer_error_is_explained_in_its_own_class(value):
    with pytest.raises(Exception) as caught:
        native.encode_value(value)
    explained = explain(caught.value, 'the output of step 3 ("charge") of workflow w')
    assert type(explained) is type(caught.value)
    assert str(explained).startswith('The output of step 3 ("charge") of workflow w could not be stored')
    assert str(caught.value) in str(explained)


def test_an_error_of_an_unknown_class_is_not_rebuilt():
    problem = TwoArguments("a", "b")
    assert explain(problem, "the output") is problem


@pytest.mark.parametrize("text", ["", "plain", "é\U0001f600", "x" * 100_000, "\x01\t\n"])
def test_ordinary_text_passes(text):
    check_text(text, "workflow id")


def test_a_nul_character_is_refused_with_its_place():
    with pytest.raises(DBOSException, match=r"workflow id 'ab\\x00c'.*position 2"):
        check_text("ab\0c", "workflow id")


def test_a_lone_surrogate_is_refused_with_its_place():
    with pytest.raises(DBOSException, match=r"topic .*U\+D800.*position 1"):
        check_text("a\ud800", "topic")


def test_a_refused_long_text_is_shortened_in_the_message():
    with pytest.raises(DBOSException) as caught:
        check_text("x" * 10_000 + "\0", "event key")
    assert len(str(caught.value)) < 300


def test_an_unusable_serializer_name_is_an_initialization_error():
    with pytest.raises(DBOSInitializationError, match="reserved"):
        Payloads(NamedSerializer("py_pickle"))


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
