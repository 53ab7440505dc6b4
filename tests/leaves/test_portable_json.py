"""Portable JSON: values and arguments (04 section 6)."""

import types
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.leaves.serializers import Colour, Plain, Point, Size, native, portable


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
