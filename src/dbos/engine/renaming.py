"""Giving everything of one application to another name, as a plan.

What may still run moves first, in one transaction. What has ended follows by ranges of ids, each in a transaction of
its own, so that a large history does not hold locks for long. Every part does only what is left to do: an interrupted
renaming is completed by repeating it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..error import DBOSException
from .plans import Plan, Read

if TYPE_CHECKING:
    from ..storage.store import RenamedTable
    from .core import Core

TABLES: tuple[RenamedTable, ...] = ("workflows", "steps")


def rename_plan(
    core: Core, old_name: str | None, new_name: str, batch_size: int | None, adopt: bool
) -> Plan[dict[str, int]]:
    """Rename an application; how many rows changed, by kind. `adopt` also takes what belongs to nobody."""
    counts: dict[str, int]
    if batch_size is None:
        counts = yield Read(lambda store: store.rename_all(old_name, new_name, adopt=adopt))
    else:
        counts = yield Read(lambda store: store.rename_live(old_name, new_name, adopt=adopt))
        counts["steps"] = 0
        for what in TABLES:
            counts[what] += yield from _rename_ended(what, old_name, new_name, batch_size, adopt)
    if not any(counts.values()):
        whose = "Nothing in the system database belongs to " + (
            "no application" if old_name is None else f"application {old_name!r}"
        )
        raise DBOSException(
            f"{whose}, so there is nothing to rename to {new_name!r}. Check the name, unless "
            f"a renaming that was interrupted had come to its end"
        )
    core.note_reconfigured()
    core.note_rescheduled()
    return counts


def _rename_ended(what: RenamedTable, old_name: str | None, new_name: str, batch_size: int, adopt: bool) -> Plan[int]:
    count, after = 0, ""
    while True:
        begin = after
        renamed: tuple[int, str | None] = yield Read(
            lambda store: store.rename_ended(what, old_name, new_name, adopt=adopt, after=begin, size=batch_size)
        )
        if renamed[1] is None:
            return count
        count, after = count + renamed[0], renamed[1]
