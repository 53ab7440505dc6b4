"""Checking the arguments of stored workflows with pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..engine.arguments import type_hints
from ..engine.registry import ValidateArgs
from .runtime import state

RECEIVERS = ("self", "cls")


def pydantic_args_validator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A marker for `@DBOS.workflow(validate_args=...)`: arguments are checked by the function's annotations."""
    raise NotImplementedError(
        "pydantic_args_validator is a marker: give it to @DBOS.workflow(validate_args=...), or call "
        "make_pydantic_args_validator(function)"
    )


def make_pydantic_args_validator(func: Callable[..., Any]) -> ValidateArgs:
    """A validator that checks and converts arguments by the annotations of `func`. Needs pydantic 2.

    Raises:
        ImportError: pydantic 2 is not installed (`pip install dbos[validation]`).
    """
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise ImportError("Argument validation needs pydantic 2: pip install 'dbos[validation]'") from error
    adapters: dict[str, Any] = {}
    signature = inspect.signature(func)
    parameters = list(signature.parameters.values())

    def prepare() -> None:
        if not adapters:
            hints = type_hints(func)
            adapters.update({p.name: TypeAdapter(hints[p.name]) if p.name in hints else None for p in parameters})

    def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        prepare()
        wanted = parameters[1:] if parameters and _takes_receiver(func, parameters[0].name) else parameters
        problems: list[str] = []

        def check(name: str, value: Any, where: str) -> Any:
            adapter = adapters.get(name)
            if adapter is None:
                return value
            try:
                return adapter.validate_python(value)
            except ValueError as error:
                problems.append(f"argument {where}: {error}")
                return value

        positional = [p for p in wanted if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        surplus = next((p.name for p in wanted if p.kind is p.VAR_POSITIONAL), None)
        keywords = next((p.name for p in wanted if p.kind is p.VAR_KEYWORD), None)
        named = {p.name for p in wanted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        checked: list[Any] = []
        for position, value in enumerate(args):
            if position < len(positional):
                name = positional[position].name
                checked.append(check(name, value, f"'{name}' (position {position})"))
            else:
                checked.append(check(surplus, value, f"position {position}") if surplus else value)
        result: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in named:
                result[name] = check(name, value, f"'{name}'")
            else:
                result[name] = check(keywords, value, f"'{name}'") if keywords else value
        given = {p.name for p in positional[: len(args)]} | set(kwargs)
        for p in wanted:
            required = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            if required and p.name not in given:
                problems.append(f"argument '{p.name}' is missing")
        if problems:
            raise ValueError("Argument validation failed for workflow:\n" + "\n".join(problems))
        return tuple(checked), result

    return validate


def _takes_receiver(func: Callable[..., Any], first_name: str) -> bool:
    """Whether the first parameter is the class or instance of a method, which is never stored."""
    if first_name in RECEIVERS:
        return True
    # Asked at a validation, not at decoration: the class is registered after its methods.
    return any(
        info.kind in ("class", "instance") and (info.function is func or info.source is func)
        for info in list(state.registry.workflows.values())
    )
