"""Application versions. Never recorded: a replay asks again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..engine.plans import Plan, Read
from ..error import DBOSException
from ..serialization import check_text
from ..storage.store import Store
from ..types import VersionInfo
from .runtime import current_engine, run

if TYPE_CHECKING:
    from ..engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


def _in_thread(function: Callable[P, R]) -> staticmethod[P, Coroutine[Any, Any, R]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return await current_engine("Executor").loops.in_thread(function, *args, **kwargs)

    call.__name__ = call.__qualname__ = f"{function.__name__.lstrip('_')}_async"
    call.__doc__ = f"As `{function.__name__.lstrip('_')}`, from async code."
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return staticmethod(call)


def _ask(engine: Engine, query: Callable[[Store], R]) -> R:
    def plan() -> Plan[R]:
        answer: R = yield Read(query)
        return answer

    return run(engine, plan())


def _list_application_versions() -> list[VersionInfo]:
    """Own and unowned application versions, newest first."""
    engine = current_engine()
    return _ask(engine, lambda store: store.list_versions(engine.settings.name))


def _get_latest_application_version() -> VersionInfo:
    """The version with the highest timestamp; DBOSException when none is registered."""
    versions = _list_application_versions()
    if not versions:
        raise DBOSException("No application versions found")
    return versions[0]


def _set_latest_application_version(version_name: str, *, application_name: str | None = None) -> None:
    """Make a registered version the latest.

    Raises:
        DBOSException: no such version is registered, or another application owns it.
    """
    check_text(version_name, "application version")
    engine = current_engine()
    owner = application_name or engine.settings.name
    now_ms = engine.clock.now_ms()
    if not _ask(engine, lambda store: store.promote_version(version_name, owner, now_ms)):
        known = ", ".join(version["version_name"] for version in _list_application_versions()[:10])
        raise DBOSException(f"Application version {version_name!r} is not registered. Known versions: {known}")


class VersionCalls:
    """Application versions."""

    list_application_versions = staticmethod(_list_application_versions)
    list_application_versions_async = _in_thread(_list_application_versions)
    get_latest_application_version = staticmethod(_get_latest_application_version)
    get_latest_application_version_async = _in_thread(_get_latest_application_version)
    set_latest_application_version = staticmethod(_set_latest_application_version)
    set_latest_application_version_async = _in_thread(_set_latest_application_version)
