"""Opt-ins of serialization: portable JSON that is stricter and wider, pickles of listed classes only."""

import base64
import collections
import dataclasses
import email.message
import json
import pickle
import threading
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest

from dbos.error import DBOSInitializationError, DBOSMaxStepRetriesExceeded, DBOSWorkflowIDInUseError
from dbos.serialization import DBOSPortableJSONSerializer, Payloads, WorkflowSerializationFormat
from tests.leaves.serializers import Point, TwoArguments, native, portable, with_attributes

strict = DBOSPortableJSONSerializer(finite_numbers=True, more_types=True)


@dataclasses.dataclass
class Order:
    number: int
    at: date
    lines: tuple


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], {"a": {"b": (float("nan"),)}}])
def test_numbers_that_are_no_json_are_refused_if_so_wanted(value):
    """04 section 11, 31, and 12, 13: they are what other languages cannot read; by default they are written (R610)."""
    with pytest.raises(ValueError, match=r"The number -?(nan|inf) is not portable JSON"):
        strict.serialize(value)
    assert strict.serialize([1.5, True, 10**30]) == "[1.5,true,1000000000000000000000000000000]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (time(10, 30, 0, 123000), '"10:30:00.123000"'),
        (frozenset({7}), "[7]"),
        (
            Order(1, date(2025, 6, 15), (uuid.UUID(int=2),)),
            '{"number":1,"at":"2025-06-15","lines":["00000000-0000-0000-0000-000000000002"]}',
        ),
    ],
)
def test_more_types_are_portable_if_so_wanted(value, text):
    """04 section 12, 13."""
    assert strict.serialize(value) == text
    with pytest.raises(TypeError):
        portable.serialize(value)
    with pytest.raises(TypeError, match="bytes"):
        strict.serialize(b"x")
    with pytest.raises(TypeError, match="type"):
        strict.serialize(Order)


def test_portable_values_of_an_application_with_pickles_are_written_by_its_portable_serializer():
    """04 section 12, 13: values, arguments and the data of errors; `serializer` may be one itself."""
    payloads = Payloads(None, strict)
    assert payloads.configured_name == "py_pickle"
    assert payloads.encode_value(uuid.UUID(int=1), "portable_json") == f'"{uuid.UUID(int=1)}"'
    with pytest.raises(ValueError, match="nan"):
        payloads.encode_arguments((float("nan"),), {}, "portable_json")
    text, name = payloads.encode_error_always(with_attributes(data=float("nan")), "portable_json")
    assert (json.loads(text)["data"], name) == ("nan", "portable_json")
    assert Payloads(strict).encode_value(frozenset({7}), "portable_json") == "[7]"
    with pytest.raises(DBOSInitializationError, match="leave `portable_serializer` out"):
        Payloads(portable, strict)


class Dangerous:
    """A pickle that runs code."""

    def __reduce__(self):
        return eval, ("1 + 1",)


class Roundabout:
    """A pickle that names something in a module of ours which that module has from elsewhere."""

    def __init__(self, module, name):
        self.reduced = module, name

    def pickle(self):
        module, name = self.reduced
        return base64.b64encode(b"\x80\x04" + _short(module) + _short(name) + b"\x93.").decode()


def _short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def test_only_listed_classes_are_read_if_so_wanted():
    """04 section 11, 33, and 12, 15: of modules and by name; plain data, exceptions and our own types always."""
    payloads = Payloads(unpickle_only=[f"{__name__}.Order", "email"])
    message = email.message.Message()
    for value in (
        Order(1, date(2025, 6, 15), ()),
        message,
        {"a": [1, b"x", {2}, frozenset(), datetime.now(timezone.utc), Decimal(1), uuid.UUID(int=1), timedelta(1)]},
        collections.OrderedDict(a=1),
        KeyError("k"),
        DBOSWorkflowIDInUseError("w", "PENDING", "f"),
        DBOSMaxStepRetriesExceeded("s", 2, [ValueError("a")]),
        WorkflowSerializationFormat.PORTABLE,
    ):
        restored = payloads.decode_value(payloads.encode_value(value), "py_pickle")
        assert type(restored) is type(value)


def test_what_is_not_listed_is_refused_when_it_is_written_and_when_it_is_read():
    """04 section 12, 15: before anything is imported or called, with the name to list; an error keeps its text."""
    payloads = Payloads(unpickle_only=[])
    for value in (Dangerous(), Point(1, 2), threading.Thread, len):
        with pytest.raises(pickle.UnpicklingError, match="is not among the classes that may be read"):
            payloads.encode_value(value)
        with pytest.raises(pickle.UnpicklingError, match="`unpickle_only`"):
            payloads.decode_value(native.encode_value(value), "py_pickle")
    with pytest.raises(pickle.UnpicklingError, match=r"it names a_module_that_does_not_exist\.x"):
        payloads.decode_value(Roundabout("a_module_that_does_not_exist", "x").pickle(), None)
    text, name = payloads.encode_error_always(TwoArguments("a", "b"))
    assert str(payloads.decode_error(text, name)) == "TwoArguments: a"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("uuid", "os.system"),
        ("uuid", "Enum"),
        ("datetime", "sys"),
        ("dbos._error", "DBOSException.__init__.__globals__"),
        ("dbos._sys_db", "SendMessage.__init__"),
        ("email", "sys"),
        ("builtins", "getattr"),
        ("builtins", "object.__subclasses__"),
    ],
)
def test_a_listed_module_opens_no_way_to_others(module, name):
    """04 section 12, 15: dotted names and what a module has imported."""
    payloads = Payloads(unpickle_only=["email"])
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        payloads.decode_value(Roundabout(module, name).pickle(), None)
