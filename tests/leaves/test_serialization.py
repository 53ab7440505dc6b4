"""Values and arguments to text and back; formats and serializers to choose from."""

import base64
import inspect
import json
import pickle
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos import serialization
from dbos.error import DBOSException, DBOSInitializationError
from dbos.serialization import (
    DBOSPortableJSONSerializer,
    Payloads,
    Serializer,
    WorkflowSerializationFormat,
    check_text,
    explain,
)
from tests.leaves.serializers import JsonSerializer, NamedSerializer, TwoArguments, native

SURFACE = json.loads((Path(__file__).parent.parent / "data" / "surface-3.4.0.json").read_text())

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
