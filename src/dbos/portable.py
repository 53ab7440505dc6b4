"""Portable JSON: what Python values become in the format that every language reads, and exceptions (04 R610, R613)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from .error import PortableWorkflowError

_PLAIN = frozenset({str, int, float, bool, type(None)})
_CODE_ATTRIBUTES = ("code", "error_code", "errno", "status", "status_code")
_DATA_ATTRIBUTES = ("data", "details", "payload", "extra", "meta", "metadata")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class PortableRules:
    """How values are converted; see `DBOSPortableJSONSerializer` for the two choices."""

    finite_numbers: bool = False
    more_types: bool = False

    def convert(self, value: Any) -> Any:
        """The value in terms of what JSON knows.

        Raises:
            TypeError: a value of a type that is not portable; a mapping with keys that are no text.
            ValueError: with `finite_numbers`, a number that is none.
            RecursionError: a value that contains itself.
        """
        if type(value) in _PLAIN and not (self.finite_numbers and type(value) is float):
            return value
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(
                        f"A mapping with a key of type {type(key).__name__} is not portable JSON: keys must be text."
                    )
            return {key: self.convert(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [self.convert(item) for item in value]
        if isinstance(value, (str, int, float)):
            if self.finite_numbers and isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"The number {value} is not portable JSON: other languages cannot read it. Pass None or a text."
                )
            return value
        if isinstance(value, datetime):
            utc = value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(timezone.utc)
            return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, Decimal):
            return format(value, "f")
        if self.more_types:
            if isinstance(value, UUID):
                return str(value)
            if isinstance(value, time):
                return value.isoformat()
            if isinstance(value, frozenset):
                return [self.convert(item) for item in value]
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return {field.name: self.convert(getattr(value, field.name)) for field in dataclasses.fields(value)}
        raise TypeError(f"A value of type {type(value).__name__} is not portable JSON.")

    def error_envelope(self, error: BaseException) -> dict[str, Any]:
        """Name, message, code and data of an exception."""
        envelope: dict[str, Any] = {
            "name": error.name if isinstance(error, PortableWorkflowError) else type(error).__name__,
            "message": text_of(error),
            "code": _code_of(error),
        }
        for attribute in _DATA_ATTRIBUTES:
            data = getattr(error, attribute, _ABSENT)
            if data is not _ABSENT and not callable(data):
                try:
                    envelope["data"] = self.convert(data)
                except Exception:
                    envelope["data"] = str(data)
                break
        return envelope


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever it does when it is asked for it."""
    for render in (str, repr):
        try:
            return render(error)
        except Exception:
            continue
    return "<unprintable>"


def _code_of(error: BaseException) -> int | str | None:
    for attribute in _CODE_ATTRIBUTES:
        code = getattr(error, attribute, _ABSENT)
        if code is None or isinstance(code, (int, str)):
            return code
    return None
