"""Application versions. Never recorded: a replay asks again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ..engine.errors import EngineStopped
from ..engine.execution import public_error
from ..engine.versions import latest_version_plan, list_versions_plan, promote_version_plan
from ..types import VersionInfo
from .runtime import current_engine, run

P = ParamSpec("P")
R = TypeVar("R")


def _in_thread(function: Callable[P, R]) -> staticmethod[P, Coroutine[Any, Any, R]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        engine = current_engine("Executor")
        try:
            return await engine.loops.in_thread(function, *args, **kwargs)
        except EngineStopped as stopped:
            raise public_error(stopped) from stopped

    call.__name__ = call.__qualname__ = f"{function.__name__.lstrip('_')}_async"
    call.__doc__ = f"As `{function.__name__.lstrip('_')}`, from async code."
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return staticmethod(call)


def _list_application_versions() -> list[VersionInfo]:
    """Own and unowned application versions, newest first."""
    engine = current_engine()
    return run(engine, list_versions_plan(engine))


def _get_latest_application_version() -> VersionInfo:
    """The version with the highest timestamp; DBOSException when none is registered."""
    engine = current_engine()
    return run(engine, latest_version_plan(engine))


def _set_latest_application_version(version_name: str, *, application_name: str | None = None) -> None:
    """Make a registered version the latest.

    Raises:
        DBOSException: no such version is registered, or another application owns it.
    """
    engine = current_engine()
    run(engine, promote_version_plan(engine, version_name, application_name))


class VersionCalls:
    """Application versions."""

    list_application_versions = staticmethod(_list_application_versions)
    list_application_versions_async = _in_thread(_list_application_versions)
    get_latest_application_version = staticmethod(_get_latest_application_version)
    get_latest_application_version_async = _in_thread(_get_latest_application_version)
    set_latest_application_version = staticmethod(_set_latest_application_version)
    set_latest_application_version_async = _in_thread(_set_latest_application_version)
