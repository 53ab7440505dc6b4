"""Values, arguments and exceptions to text and back.

Every stored payload is a text with the name of its format beside it:

    py_pickle       base64 of a pickle; any Python value, only for Python
    portable_json   JSON with documented conversions; for every language
    <custom>        whatever the configured `Serializer` returns, under the name it gives itself

The two built-in names are reserved: a payload that carries one is always read by the built-in reader,
whatever is configured. No name (legacy rows) means the configured serializer.

`Payloads` is what the rest of the library uses. Its promise: a text it returns can be stored in every
database, and `encode_error_always` always returns one, so a failed workflow can always be recorded as failed.
"""

from __future__ import annotations

import binascii
import enum
import json
import logging
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import error as error_classes
from .error import DBOSException, DBOSInitializationError, DBOSMaxStepRetriesExceeded, PortableWorkflowError
from .portable import PortableRules, text_of
from .unpickling import read_pickle, reader_of

logger = logging.getLogger("dbos")

PICKLE = "py_pickle"
PORTABLE = "portable_json"
# What SDKs in other languages store for themselves, by the name of the format; nobody else reads it.
FORMATS_OF_OTHERS = {"js_superjson": "TypeScript", "DBOS_JSON": "Go", "java_jackson": "Java"}

# Postgres refuses a field over 1 GiB and a message over 1 GiB, and a batch may carry several payloads at
# once.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024


class WorkflowSerializationFormat(str, enum.Enum):
    """Which format a workflow, message, event or stream value is stored in.

    PORTABLE: JSON that programs in other languages can read.
    NATIVE: pickle, whatever serializer is configured.
    DEFAULT: the configured serializer.
    """

    PORTABLE = "portable"
    NATIVE = "native"
    DEFAULT = "None"


# Stored pickles name this class by the module path of the persisted format (04 R622).
WorkflowSerializationFormat.__module__ = "dbos._serialization"


class Serializer(ABC):
    """How an application wants its values stored; subclass it and pass an instance as `serializer`.

    It must handle the mapping `{"args": tuple, "kwargs": dict}`, every value and exception that workflows and
    steps return or raise, and None. Both methods must be safe to call from several threads.
    """

    @abstractmethod
    def serialize(self, data: Any) -> str:
        """Return the text for a value. Raise any exception for a value that cannot be stored."""

    @abstractmethod
    def deserialize(self, serialized_data: str) -> Any:
        """Return the value for a text that `serialize` made."""

    def name(self) -> str:
        """The name stored beside every payload. It must never change while such payloads exist."""
        return "custom_serializer"


class DBOSPortableJSONSerializer(Serializer):
    """JSON that every language understands, under the name `portable_json`.

    Besides what JSON knows: datetimes become UTC texts with milliseconds and `Z`, dates ISO texts, decimals
    texts in fixed notation, tuples and sets arrays, mappings with text keys objects. Anything else is a
    TypeError. Reading restores none of this: a date comes back as a text, a tuple as a list.

    Args:
        finite_numbers: Refuse NaN and infinities with a ValueError. Default False: they are written as `NaN` and
            `Infinity`, as other releases do, which is no JSON, so other languages fail to read them.
        more_types: Store also UUIDs and times of day (as texts), frozen sets (as arrays) and dataclasses (as objects
            of their fields). Default False: a TypeError.
    """

    # Of the class too, for subclasses with a constructor of their own.
    _rules = PortableRules()

    def __init__(self, *, finite_numbers: bool = False, more_types: bool = False) -> None:
        self._rules = PortableRules(finite_numbers, more_types)

    # The parameter names differ from the base class in the published API; serializers are called by position.
    def serialize(self, value: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return json.dumps(self._rules.convert(value), ensure_ascii=False, separators=(",", ":"))

    def deserialize(self, text: str | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None if text is None else json.loads(text)

    def name(self) -> str:
        return PORTABLE


def _pickle_to_text(value: Any, _dumps: Any = pickle.dumps, _encode: Any = binascii.b2a_base64) -> str:
    text: str = _encode(_dumps(value), newline=False).decode("ascii")
    return text


class Payloads:
    """Encodes and decodes everything stored, with one configured serializer.

    Args:
        configured: The application's serializer; None for pickle.
        portable: What writes portable JSON. Default `configured`, if it is such a serializer, else one without choices.
        unpickle_only: The modules and classes that pickles may name; None is any.

    Raises:
        DBOSInitializationError: The serializer's name cannot be used, or there are two for portable JSON.
    """

    configured_name: str

    def __init__(
        self,
        configured: Serializer | None = None,
        portable: DBOSPortableJSONSerializer | None = None,
        unpickle_only: Sequence[str] | None = None,
    ) -> None:
        if isinstance(configured, DBOSPortableJSONSerializer) and configured.name() == PORTABLE:
            if portable not in (None, configured):
                raise DBOSInitializationError(
                    "The serializer is one for portable JSON already: leave `portable_serializer` out."
                )
            portable = configured
        portable = portable or DBOSPortableJSONSerializer()
        self._rules = portable._rules
        self._encoders: dict[str, Callable[[Any], str]] = {
            PICKLE: _pickle_to_text if unpickle_only is None else self._readable_pickle,
            PORTABLE: _checked(portable.serialize, PORTABLE),
        }
        self._decoders: dict[str, Callable[[str], Any]] = {
            PICKLE: read_pickle if unpickle_only is None else reader_of(unpickle_only),
            PORTABLE: json.loads,
        }
        if configured is None:
            self.configured_name = PICKLE
            self._encode_configured: Callable[[Any], str] = self._encoders[PICKLE]
            return
        name = configured.name()
        _check_name(name, configured)
        self.configured_name = name
        self._encode_configured = self._encoders[name] = _checked(configured.serialize, name)
        self._decoders.setdefault(name, configured.deserialize)

    def _readable_pickle(self, value: Any) -> str:
        """A pickle that may be read back; who learns of that only in a recovery has lost the value."""
        text = _pickle_to_text(value)
        self._decoders[PICKLE](text)
        return text

    def format_for(self, choice: WorkflowSerializationFormat | None) -> str:
        """The name of the format for a choice made by the application."""
        if choice is None or choice == WorkflowSerializationFormat.DEFAULT:
            return self.configured_name
        if choice == WorkflowSerializationFormat.PORTABLE:
            return PORTABLE
        if choice == WorkflowSerializationFormat.NATIVE:
            return PICKLE
        raise TypeError(
            f"serialization_type must be a WorkflowSerializationFormat (PORTABLE, NATIVE or DEFAULT), not {choice!r}."
        )

    def encode_value(self, value: Any, format_name: str | None = None) -> str:
        """The text for a value; None as format means the configured serializer."""
        encode = self._encode_configured if format_name is None else self._encoder(format_name)
        text = encode(value)
        if len(text) * 4 > MAX_PAYLOAD_BYTES:  # a character takes at most four bytes
            _check_size(text)
        return text

    def decode_value(self, text: str | None, format_name: str | None) -> Any:
        """The value for a stored text. No text is None; no format name means the configured serializer.

        Raises:
            TypeError: The format belongs to a serializer that is not configured here.
            Exception: Whatever the serializer raises for a text it cannot read.
        """
        if text is None:
            return None
        return self._decoder(format_name)(text)

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], format_name: str) -> str:
        """The text for the arguments of a call, without self and cls."""
        if format_name == PORTABLE:
            return self.encode_value({"namedArgs": kwargs, "positionalArgs": args}, format_name)
        return self.encode_value({"args": args, "kwargs": kwargs}, format_name)

    def decode_arguments(self, text: str, format_name: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a stored call.

        Raises:
            TypeError: The text does not hold arguments.
            Exception: Whatever the serializer raises for a text it cannot read.
        """
        name = self.configured_name if format_name is None else format_name
        envelope = self.decode_value(text, name)
        positional_key, named_key = ("positionalArgs", "namedArgs") if name == PORTABLE else ("args", "kwargs")
        if not isinstance(envelope, Mapping):
            raise TypeError(
                f"Stored workflow arguments in format {name} must be a mapping with the keys "
                f"{positional_key} and {named_key}, not {type(envelope).__name__}."
            )
        if name == PORTABLE and "json" in envelope and envelope.keys() <= {"json", "meta", "__dbos_serializer"}:
            # A row of the TypeScript SDK that was refused, and is executed once more: not a call without arguments.
            raise TypeError("Stored workflow arguments are in the format js_superjson, not portable JSON.")
        # Writers in other languages may leave either part out.
        positional = envelope.get(positional_key)
        named = envelope.get(named_key)
        if positional is not None and not isinstance(positional, (list, tuple)):
            raise TypeError(f"{positional_key} must be an array, not {type(positional).__name__}.")
        if named is not None and not isinstance(named, Mapping):
            raise TypeError(f"{named_key} must be an object, not {type(named).__name__}.")
        return tuple(positional or ()), dict(named or {})

    def encode_error(self, error: BaseException, format_name: str | None = None) -> str:
        """The text for an exception; None as format means the configured serializer."""
        name = self.configured_name if format_name is None else format_name
        return self.encode_value(self._rules.error_envelope(error) if name == PORTABLE else error, name)

    def encode_error_always(self, error: BaseException, format_name: str | None = None) -> tuple[str, str | None]:
        """The text for an exception and the name of the format it is in. Never fails.

        An exception that cannot be stored, or could not be read back, is replaced by the nearest thing that
        can: the same class with replaced attempts for `DBOSMaxStepRetriesExceeded`, else an `Exception` with
        the text "Class: message", else (a serializer that cannot store exceptions at all) a mapping of name and
        message in the same format, from which errors of this library are made anew, else that mapping as portable
        JSON.
        """
        name = self.configured_name if format_name is None else format_name
        text = self._encode_readable(error, name)
        if text is None and isinstance(error, DBOSMaxStepRetriesExceeded):
            attempts = [self._storable(attempt, name) for attempt in error.errors]
            replaced = DBOSMaxStepRetriesExceeded(error.step_name, error.max_retries, attempts)
            text = self._encode_readable(replaced, name)
        if text is None:
            text = self._encode_readable(_stand_in(error), name)
        if text is not None:
            return text, name
        more: dict[str, Any] = {} if name == PORTABLE else _parts_of(error)
        envelope = {
            "name": _storable_text(
                str(error.name) if isinstance(error, PortableWorkflowError) else type(error).__name__
            ),
            "message": _storable_text(text_of(error)),
            "code": None,
        }
        # Readers expect the format that the row names: most serializers without exceptions know mappings.
        for attempt in ({**envelope, **more}, envelope):
            text = self._encode_envelope(attempt, name)
            if text is not None:
                return text, name
        logger.warning("Serializer %s cannot store the error %s, nor its text", name, envelope["name"])
        return self.encode_value(envelope, PORTABLE), PORTABLE

    def _encode_envelope(self, envelope: dict[str, Any], name: str) -> str | None:
        """The text of an error as a mapping, if it can be read back as one."""
        try:
            text = self.encode_value(envelope, name)
            restored = self.decode_error(text, name)
        except Exception:
            return None
        is_restored = envelope["name"] in (type(restored).__name__, getattr(restored, "name", None))
        return text if is_restored and str(restored) == envelope["message"] else None

    def decode_error(self, text: str, format_name: str | None) -> BaseException:
        """The exception for a stored text; always a `PortableWorkflowError` in the portable format.

        Raises:
            KeyError: A portable error without name or message.
            TypeError: The format belongs to a serializer that is not configured here.
            Exception: Whatever the serializer raises for a text it cannot read.
        """
        name = self.configured_name if format_name is None else format_name
        value = self.decode_value(text, name)
        if name == PORTABLE:
            if not isinstance(value, Mapping):
                raise TypeError(f"A stored portable error must be an object, not {type(value).__name__}.")
            return PortableWorkflowError(value["message"], value["name"], value.get("code"), value.get("data"))
        if isinstance(value, BaseException):
            return value
        if isinstance(value, Mapping) and {"name", "message"} <= value.keys():
            own = _made_of(value["name"], value.get("data"))
            if own is not None:
                return own
            return PortableWorkflowError(value["message"], value["name"], value.get("code"), value.get("data"))
        # Serializers that know no exceptions return what they made of one; it is still the error of this
        # workflow.
        return DBOSException(f"The stored error was read by {name} as {type(value).__name__}: {value!r:.1000}")

    def can_read(self, format_name: str | None) -> bool:
        """Whether this process has the serializer of a stored payload."""
        return format_name is None or format_name in self._decoders

    def _encoder(self, format_name: str) -> Callable[[Any], str]:
        try:
            return self._encoders[format_name]
        except KeyError:
            raise self._unavailable(format_name) from None

    def _decoder(self, format_name: str | None) -> Callable[[str], Any]:
        try:
            return self._decoders[self.configured_name if format_name is None else format_name]
        except KeyError:
            raise self._unavailable(format_name) from None

    def _unavailable(self, format_name: str | None) -> TypeError:
        return TypeError(
            f"Serialization {format_name} is not available: this process knows {', '.join(self._decoders)}. "
            "Configure the serializer that wrote the value, or read it where that is configured."
        )

    def _encode_readable(self, error: BaseException, name: str) -> str | None:
        """The text, or None if it cannot be made or does not give an exception when read."""
        try:
            text = self.encode_error(error, name)
            value = self.decode_value(text, name)
        except Exception:
            return None
        return text if name == PORTABLE or isinstance(value, BaseException) else None

    def _storable(self, error: Exception, name: str) -> Exception:
        return error if self._encode_readable(error, name) is not None else _stand_in(error)


def explain(error: Exception, what: str) -> Exception:
    """The same error with a text that says what could not be stored and what to do.

    Args:
        error: What the serializer raised.
        what: The value, as in 'the output of step 3 ("charge") of workflow 7f3c'.

    Returns:
        An exception of the same class for the classes serializers usually raise; others unchanged, since only
        their own code knows how to build them. Raise it `from error`.
    """
    if type(error) not in _EXPLAINED:
        return error
    return type(error)(
        f"{what[:1].upper()}{what[1:]} could not be stored: {str(error).rstrip('.')}. Return or pass plain data "
        "(numbers, text, lists, dictionaries, dataclasses defined at module level) instead of open files, locks, "
        "connections, lambdas or local classes, or configure a serializer that can store it."
    )


def explain_unreadable(error: Exception, what: str, format_name: str | None, then: str = "") -> Exception:
    """The same error with a text that says what could not be read and what to do.

    Args:
        error: What the serializer raised.
        what: The value, as in "the output of workflow 7f3c".
        format_name: The format it is stored in; None is the configured one.
        then: What became of it, to go on with the sentence.

    Returns:
        An exception of the same class for the classes serializers usually raise; others unchanged, on Python 3.11 and
        later with a note. Raise it `from error`.
    """
    text = f"{what[:1].upper()}{what[1:]} (format {format_name or 'configured'}) cannot be read{then}"
    if isinstance(error, json.JSONDecodeError):
        return json.JSONDecodeError(f"{text}: {error.msg}", "", 0)
    if type(error) in _UNREADABLE:
        advice = ". The stored value names a class or module that is not there any more: bring it back under that name"
        return type(error)(f"{text}: {error}{advice if type(error) in _MISSING else ''}")
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(text)
    return error


_MISSING = frozenset[type[Exception]]((AttributeError, ImportError, ModuleNotFoundError))
# What serializers raise for a text that they cannot read, where a text makes another one of the same class.
_UNREADABLE = (
    _MISSING
    | {TypeError, ValueError, KeyError, IndexError, EOFError, RecursionError, OverflowError}
    | {pickle.UnpicklingError, binascii.Error}
)

_EXPLAINED = frozenset(
    {TypeError, AttributeError, ValueError, OverflowError, RecursionError, NotImplementedError, RuntimeError}
    | {pickle.PicklingError, pickle.UnpicklingError, pickle.PickleError}
)


def check_text(text: str, what: str) -> None:
    """Refuse a text that not every database can store.

    Args:
        text: An id, a name or an encoded payload.
        what: What it is, as in "workflow id", for the message.

    Raises:
        DBOSException: The text contains a NUL character or half of a surrogate pair.
    """
    if "\0" in text:
        raise DBOSException(
            f"The {what} {_shortened(text)} contains a NUL character at position {text.index(chr(0))}. "
            "Databases cannot store it in a text: remove it."
        )
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DBOSException(
            f"The {what} {_shortened(text)} contains a lone surrogate (U+{ord(text[error.start]):04X}) at "
            f"position {error.start}, which is not text. It usually comes from bytes decoded with "
            "errors='surrogateescape': decode them with their real encoding, or pass the bytes themselves."
        ) from None


def _checked(serialize: Callable[[Any], str], name: str) -> Callable[[Any], str]:
    """A serializer's `serialize` whose result can be stored."""

    def encode(value: Any) -> str:
        text = serialize(value)
        if not isinstance(text, str):
            raise TypeError(
                f"Serializer {name} returned {type(text).__name__} instead of str for a value of type "
                f"{type(value).__name__}. Its serialize method must return text; encode bytes with base64."
            )
        check_text(text, f"text that serializer {name} made")
        return text

    return encode


def _check_name(name: Any, configured: Serializer) -> None:
    kind = type(configured).__name__
    if not isinstance(name, str) or not name:
        raise DBOSInitializationError(
            f"The serializer {kind} has the name {name!r}. Its name method must return a text that is not empty."
        )
    if name == PICKLE:
        raise DBOSInitializationError(
            f"The serializer {kind} calls itself {PICKLE}, a name reserved for the built-in format: what it "
            "writes would be read by the built-in pickle reader. Return another name."
        )
    if name == PORTABLE and not isinstance(configured, DBOSPortableJSONSerializer):
        raise DBOSInitializationError(
            f"The serializer {kind} calls itself {PORTABLE}, a name reserved for the built-in format. Return "
            "another name, or derive it from DBOSPortableJSONSerializer if what it writes is portable JSON."
        )
    check_text(name, "serializer name")


def _check_size(text: str) -> None:
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_PAYLOAD_BYTES:
        raise DBOSException(
            f"A value takes {size:,} bytes when encoded; the limit is {MAX_PAYLOAD_BYTES:,} bytes. Nothing "
            "was recorded. Keep large data in a file or an object store, and record where it is."
        )


def _stand_in(error: BaseException) -> Exception:
    return Exception(f"{type(error).__name__}: {text_of(error)}")


# Marks the parts of an error of this library in the mapping that stands for it.
_PARTS = "dbos_error_parts"


def _parts_of(error: BaseException) -> dict[str, Any]:
    """What an error of this library is made of besides name and message, as plain data; empty for others."""
    if isinstance(error, PortableWorkflowError):
        return {"code": error.code, "data": error.data}
    if not isinstance(error, DBOSException) or getattr(error_classes, type(error).__name__, None) is not type(error):
        return {}
    try:
        _, arguments, *state = error.__reduce__()
        parts = [list(arguments), *state]
        return {"data": {_PARTS: parts}} if json.loads(json.dumps(parts)) == parts else {}
    except Exception:
        return {}


def _made_of(name: Any, data: Any) -> DBOSException | None:
    """An error of this library, made anew of its parts."""
    cls = getattr(error_classes, name, None) if isinstance(name, str) else None
    if not isinstance(data, Mapping) or not isinstance(cls, type) or not issubclass(cls, DBOSException):
        return None
    try:
        arguments, *state = data[_PARTS]
        made = cls(*arguments)
        for attributes in state:
            vars(made).update(attributes)
    except Exception:
        return None
    return made


def _storable_text(text: str) -> str:
    """The text with everything escaped or cut that could keep it from being stored."""
    return text[: MAX_PAYLOAD_BYTES // 64].encode("utf-8", "backslashreplace").decode()


def _shortened(text: str) -> str:
    return ascii(text) if len(text) <= 60 else ascii(text[:60]) + "..."
