"""Named statements in a transaction of the caller, on a SQLAlchemy connection (see `bulk.Transaction`).

Nothing is begun, committed, rolled back or repeated here, and errors come out as SQLAlchemy raises them. SQLAlchemy is
imported when a caller brings a connection of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..error import DBOSException
from .bulk import Transaction
from .encoding import Row

# $1 on Postgres, mostly with its type, as in $1::int8, which SQLAlchemy would not read right; ?1 on SQLite.
_PLACE = re.compile(r"[$?](\d+)(?:::(\w+))?")

T = TypeVar("T")

Announce = Callable[[Transaction, str, Sequence[str]], None]


def connection_of(connection_or_session: Any) -> Any:
    """The SQLAlchemy connection that is given, or the one in which a session has its transaction."""
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    if isinstance(connection_or_session, Connection):
        return connection_or_session
    if isinstance(connection_or_session, Session):
        return connection_or_session.connection()
    raise DBOSException(
        f"A transaction is given as a SQLAlchemy Connection or Session, not as {type(connection_or_session).__name__}. "
        f"The methods that end in _async take an AsyncConnection or AsyncSession"
    )


async def on_sync_connection(connection_or_session: Any, function: Callable[[Any], T]) -> T:
    """Call a function with the sync connection or session that an async one of SQLAlchemy stands for."""
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    if isinstance(connection_or_session, (AsyncConnection, AsyncSession)):
        return await connection_or_session.run_sync(function)
    raise DBOSException(
        f"In async code a transaction is given as a SQLAlchemy AsyncConnection or AsyncSession, not as "
        f"{type(connection_or_session).__name__}. The methods without _async take a Connection or Session"
    )


def check_dialect(connection: Any, wanted: str) -> None:
    if connection.dialect.name != wanted:
        raise DBOSException(
            f"The transaction is on a {connection.dialect.name} database, but the system database is {wanted}: what is "
            f"enqueued in a transaction must be in the same database"
        )


class CallerTransaction:
    """Runs named statements where the caller is in the middle of a transaction.

    `clock` gives the time of new rows; None is the time of the transaction. `announce` tells other processes.
    """

    def __init__(
        self,
        connection: Any,
        statements: Mapping[str, tuple[str, ...]],
        clock: Callable[[], int] | None,
        announce: Announce | None = None,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._clock = clock
        self._announce = announce

    def load(self, name: str, rows: Iterable[Row]) -> None:
        for row in rows:
            self.change(name, row)

    def change(self, name: str, parameters: Row) -> int:
        return sum(self._execute(text, parameters).rowcount for text in self._statements[name])

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        (text,) = self._statements[name]
        return [tuple(row) for row in self._execute(text, parameters)]

    def now_ms(self) -> int:
        now_ms: int = self._clock() if self._clock is not None else self.read("transaction_time")[0][0]
        return now_ms

    def announce(self, kind: str, names: Sequence[str]) -> None:
        if self._announce is not None:
            self._announce(self, kind, names)

    def _execute(self, text: str, parameters: Row) -> Any:
        from sqlalchemy import BigInteger, bindparam
        from sqlalchemy import text as statement

        used = {int(place[1]) for place in _PLACE.finditer(text)}
        named = {f"p{number}": parameters[number - 1] for number in sorted(used)}
        # SQLAlchemy takes a number for 4 bytes wide unless it is told; times are wider.
        wide = [bindparam(name, type_=BigInteger) for name, value in named.items() if type(value) is int]
        return self._connection.execute(statement(_PLACE.sub(_named, text)).bindparams(*wide), named)


def _named(place: re.Match[str]) -> str:
    return f":p{place[1]}" if place[2] is None else f"CAST(:p{place[1]} AS {place[2]})"
