"""Application versions, and the names of applications."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...engine.plans import Plan
from ...engine.renaming import rename_plan
from ...engine.versions import latest_version_plan, list_versions_plan, promote_version_plan
from ...error import DBOSException
from ...serialization import check_text
from ...types import VersionInfo
from .session import Session, blocking, twin

if TYPE_CHECKING:
    from ...engine.core import Core


def _versions(core: Core) -> Plan[list[VersionInfo]]:
    """The versions of the client's application and unowned ones, newest first; all of them if it has none."""
    return list_versions_plan(core)


def _latest(core: Core) -> Plan[VersionInfo]:
    """The version with the highest timestamp among them; DBOSException when none is registered."""
    return latest_version_plan(core)


def _promote(core: Core, version_name: str, *, application_name: str | None = None) -> Plan[None]:
    """Make a registered version the latest: work without a version goes to it.

    Args:
        version_name: The version.
        application_name: Whose it is; default the client's application.

    Raises:
        DBOSException: no such version is registered, or another application owns it.
    """
    return promote_version_plan(core, version_name, application_name)


def _rename(
    core: Core,
    old_name: str | None,
    new_name: str,
    *,
    batch_size: int | None = 10000,
    adopt_unclaimed_rows: bool = False,
) -> Plan[dict[str, int]]:
    """Give everything of one application another name. Stop its processes first.

    Queues, schedules, versions and workflows that have not ended move in one transaction; the others and the steps
    follow in transactions of their own. A renaming that was interrupted is completed by repeating it.

    Args:
        old_name: The present name. None renames only what belongs to no application, and needs
            `adopt_unclaimed_rows`.
        new_name: The name it is to have: 3 to 256 characters of a-z, 0-9, - and _.
        batch_size: Of so many workflows the rows move in one transaction; None moves everything in one.
        adopt_unclaimed_rows: Also give it what belongs to no application.

    Returns:
        How many rows have moved: `queues`, `schedules`, `versions`, `workflows`, `steps`.

    Raises:
        DBOSException: a name has no meaning, or there is nothing to rename.
        ValueError: `batch_size` is not a positive number.
    """
    if old_name is None and not adopt_unclaimed_rows:
        raise DBOSException("rename_application without an old name needs adopt_unclaimed_rows=True")
    if old_name is not None:
        if not isinstance(old_name, str) or not old_name:
            raise DBOSException(f"The old application name is a non-empty text or None, not {old_name!r}")
        check_text(old_name, "application name")
    if not isinstance(new_name, str) or not re.fullmatch(r"[a-z0-9_-]{3,256}", new_name):
        raise DBOSException(
            f"The new application name {new_name!r} is not valid. It must be 3 to 256 characters of a-z, 0-9, - and _"
        )
    if old_name == new_name:
        raise DBOSException(f"The application is named {new_name!r} already")
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number from 1 on, or None, not {batch_size!r}")
    return rename_plan(core, old_name, new_name, batch_size, adopt_unclaimed_rows)


class ApplicationMethods:
    """Application versions, and the names of applications."""

    _session: Session

    list_application_versions = blocking("list_application_versions", _versions)
    list_application_versions_async = twin("list_application_versions", _versions)
    get_latest_application_version = blocking("get_latest_application_version", _latest)
    get_latest_application_version_async = twin("get_latest_application_version", _latest)
    set_latest_application_version = blocking("set_latest_application_version", _promote)
    set_latest_application_version_async = twin("set_latest_application_version", _promote)
    rename_application = blocking("rename_application", _rename, warns=True)
    rename_application_async = twin("rename_application", _rename)
