"""Serializers and values that several tests of serialization use."""

import collections
import enum
import json

from dbos.serialization import DBOSPortableJSONSerializer, Payloads, Serializer


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


def with_attributes(**attributes):
    problem = ValueError("x")
    vars(problem).update(attributes)
    return problem


Point = collections.namedtuple("Point", "x y")

native = Payloads()
portable = DBOSPortableJSONSerializer()
