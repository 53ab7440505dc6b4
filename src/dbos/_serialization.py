"""The module path under which stored pickles name these classes. Write and import `dbos` instead."""

from .error import PortableWorkflowError as PortableWorkflowError
from .serialization import DBOSPortableJSONSerializer as DBOSPortableJSONSerializer
from .serialization import Serializer as Serializer
from .serialization import WorkflowSerializationFormat as WorkflowSerializationFormat
