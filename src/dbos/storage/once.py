"""What is asked for once, however often it has to be tried.

A change that workflow code makes finds its step row when it is tried again. What an application or a client changes
has no row of its own, and the rows that it changes tell nothing by then: the workflow may have run, or have been
changed or deleted by others. What tells is the transaction of the try whose answer was lost, which the database knows
by its id. Only the process that asks ever tries again, so it can remember that id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .store import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from .bulk import Transaction
    from .database import Connections


class Once:
    """One change from outside of workflow code; the same object goes with each try."""

    __slots__ = ("_is_done", "_transaction_id")

    def __init__(self) -> None:
        self._is_done = False
        # Of the last try; None where a commit is known to have failed when it does, as in a file.
        self._transaction_id: str | None = None

    def begin(self, transaction: Transaction) -> None:
        """A try begins."""
        ((self._transaction_id,),) = transaction.read("name_transaction")

    def end(self) -> None:
        """The try was committed, and its answer came."""
        self._is_done = True

    def is_done(self, db: Connections) -> bool:
        """Whether an earlier try was committed; StoreUnavailable while that is open."""
        if self._is_done or self._transaction_id is None:
            return self._is_done
        try:
            ((state,),) = db.read("find_transaction", (self._transaction_id,))
        except StoreRefused:
            # The server that took over from the one that answered has not heard of it.
            return False
        if state == "in progress":
            raise StoreUnavailable("the transaction of the try before has not ended yet")
        self._is_done = state == "committed"
        return self._is_done
