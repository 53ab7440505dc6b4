"""Application versions, as plans. Never recorded: a replay asks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..error import DBOSException
from ..serialization import check_text
from ..types import VersionInfo
from .plans import Plan, Read

if TYPE_CHECKING:
    from .core import Core


def list_versions_plan(core: Core) -> Plan[list[VersionInfo]]:
    """Own and unowned versions, newest first."""
    versions: list[VersionInfo] = yield Read(lambda store: store.list_versions(core.application_name))
    return versions


def latest_version_plan(core: Core) -> Plan[VersionInfo]:
    """The version with the highest timestamp; DBOSException when none is registered."""
    versions = yield from list_versions_plan(core)
    if not versions:
        raise DBOSException("No application versions found")
    return versions[0]


def promote_version_plan(core: Core, version_name: str, application_name: str | None) -> Plan[None]:
    """Make a registered version the latest, for `application_name` or else our own application."""
    check_text(version_name, "application version")
    owner = application_name or core.application_name
    now_ms = core.clock.now_ms()
    if not (yield Read(lambda store: store.promote_version(version_name, owner, now_ms))):
        known = ", ".join(version["version_name"] for version in (yield from list_versions_plan(core))[:10])
        raise DBOSException(f"Application version {version_name!r} is not registered. Known versions: {known}")
    core.note_promoted()
