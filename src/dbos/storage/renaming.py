"""Renaming an application on any SQL database (see `store.Store`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .listing import ALL

if TYPE_CHECKING:
    from .bulk import Transaction
    from .database import Connections
    from .store import RenamedTable

LIVE = ("queues", "schedules", "versions")
ENDED: tuple[RenamedTable, ...] = ("workflows", "steps")


class RenameOperations:
    """The part of the store that gives the rows of one application to another."""

    _db: Connections

    def rename_live(self, old_name: str | None, new_name: str, *, adopt: bool) -> dict[str, int]:
        with self._db.transaction() as transaction:
            return _rename_live(transaction, old_name, new_name, adopt)

    def rename_ended(
        self, what: RenamedTable, old_name: str | None, new_name: str, *, adopt: bool, after: str, size: int | None
    ) -> tuple[int, str | None]:
        with self._db.transaction() as transaction:
            return _rename_ended(transaction, what, old_name, new_name, adopt, after, size)

    def rename_all(self, old_name: str | None, new_name: str, *, adopt: bool) -> dict[str, int]:
        with self._db.transaction() as transaction:
            counts = {**_rename_live(transaction, old_name, new_name, adopt), "steps": 0}
            for what in ENDED:
                counts[what] += _rename_ended(transaction, what, old_name, new_name, adopt, "", None)[0]
            return counts


def _rename_live(transaction: Transaction, old_name: str | None, new_name: str, adopt: bool) -> dict[str, int]:
    names = (old_name, new_name, adopt)
    counts = {what: transaction.change(f"rename_{what}", names) for what in LIVE}
    counts["workflows"] = transaction.change("rename_live_workflows", names)
    return counts


def _rename_ended(
    transaction: Transaction,
    what: RenamedTable,
    old_name: str | None,
    new_name: str,
    adopt: bool,
    after: str,
    size: int | None,
) -> tuple[int, str | None]:
    bounds = (old_name, adopt, after, ALL if size is None else size)
    last: str | None = transaction.read(f"find_renamed_{what}", bounds)[0][0]
    if last is None:
        return 0, None
    return transaction.change(f"rename_{what}", (old_name, new_name, adopt, after, last)), last
