"""Arguments that come from the database: converted by annotation, or checked by the workflow's validator."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from .registry import WorkflowInfo


def validated_arguments(
    info: WorkflowInfo, args: tuple[Any, ...], kwargs: dict[str, Any], format_name: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments to call with: through the validator if there is one, else portable dates converted."""
    if info.validate_args is not None:
        return info.validate_args(args, kwargs)
    if format_name == "portable_json":
        return _convert_dates(info, args, kwargs)
    return args, kwargs


def _convert_dates(
    info: WorkflowInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Portable JSON has no dates: texts for parameters annotated exactly `datetime` or `date` become them."""
    hints = type_hints(info.source or info.function)
    names = parameter_names(info)
    converted = tuple(
        _convert(value, hints.get(names[position])) if position < len(names) else value
        for position, value in enumerate(args)
    )
    return converted, {name: _convert(value, hints.get(name)) for name, value in kwargs.items()}


def parameter_names(info: WorkflowInfo) -> list[str]:
    """The positional parameters, without the receiver of a method."""
    try:
        parameters = list(inspect.signature(info.source or info.function).parameters.values())
    except (TypeError, ValueError):
        return []
    if info.kind in ("class", "instance"):
        parameters = parameters[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved where possible."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        return dict(getattr(function, "__annotations__", {}))


def _convert(value: Any, annotation: Any) -> Any:
    if not isinstance(value, str) or annotation not in (datetime, date):
        return value
    try:
        # Python 3.10 does not read the suffix Z.
        moment = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
    except ValueError:
        return value
    return moment if annotation is datetime else moment.date()
