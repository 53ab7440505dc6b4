"""The Postgres session of the journal and of claims, one layer above libpq.

psycopg's cursors are made for every use; the journal repeats the same few statements, and the time around each commit
is what a lone step feels. Calling libpq's blocking functions directly (psycopg's public `pq` module) takes a quarter
off a commit: one release of the interpreter lock per round trip, no poll loop, no adaptation of types.
"""

from __future__ import annotations

import selectors
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .encoding import NUL_FOUND
from .store import StoreRefused

if TYPE_CHECKING:
    import psycopg

Parameters = Sequence[Any]

# Object ids of bigint, smallint and integer; all else is read as text.
INTEGERS = frozenset((20, 21, 23))


class JournalSession:
    """Prepared statements on one connection; each call is one round trip and one transaction."""

    def __init__(self, connection: psycopg.Connection[Any], statements: Mapping[str, str]) -> None:
        from psycopg import pq

        self.connection = connection
        self._pgconn = connection.pgconn
        self._statements = statements
        self._prepared: set[str] = set()
        self._ok = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
        self._sync = pq.ExecStatus.PIPELINE_SYNC
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pgconn.socket, selectors.EVENT_READ)

    def close(self) -> None:
        self._selector.close()
        self.connection.close()

    @property
    def usable(self) -> bool:
        return not (self.connection.closed or self.connection.broken)

    def execute(self, name: str, parameters: Parameters) -> int:
        """Run one statement in autocommit; the number of rows it changed."""
        if name not in self._prepared:
            self._prepare(name)
        return self._count(self._pgconn.exec_prepared(name.encode(), _texts(parameters)))

    def execute_together(self, work: Sequence[tuple[str, Parameters]]) -> list[int]:
        """Run several statements in one transaction; rows changed by each.

        In pipeline mode everything up to the sync is one implicit transaction, and one round trip.
        """
        return [self._count(result) for result in self._run_together(work)]

    def fetch_together(self, work: Sequence[tuple[str, Parameters]]) -> list[tuple[Any, ...]]:
        """The same; the rows that the last statement returns."""
        results = self._run_together(work)
        for result in results:
            self._count(result)
        return _rows(results[-1])

    def _run_together(self, work: Sequence[tuple[str, Parameters]]) -> list[Any]:
        prepared = []
        for name, parameters in work:
            if name not in self._prepared:
                self._prepare(name)
            prepared.append((name.encode(), _texts(parameters)))
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            for name_bytes, texts in prepared:
                pgconn.send_query_prepared(name_bytes, texts)
            pgconn.pipeline_sync()
            results = self._collect(len(work))
        except BaseException:
            # Half-read answers: the connection is of no use any more, and the outcome of the commit unknown.
            self.close()
            raise
        pgconn.exit_pipeline_mode()
        return results

    def _collect(self, expected: int) -> list[Any]:
        """The results up to the sync; each statement's is followed by a None.

        libpq would wait inside `get_result` while it holds the interpreter lock, so the waiting is done here.
        """
        pgconn = self._pgconn
        selector = self._selector
        if pgconn.flush():
            # A batch may be larger than the socket's buffer: read while writing, as the server does.
            selector.modify(pgconn.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while pgconn.flush():
                if any(events & selectors.EVENT_READ for _, events in selector.select()):
                    pgconn.consume_input()
            selector.modify(pgconn.socket, selectors.EVENT_READ)
        results: list[Any] = []
        while True:
            while pgconn.is_busy():
                selector.select()
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                continue
            if result.status == self._sync:
                return results
            results.append(result)
            if len(results) > expected:
                raise AssertionError("more results than statements")

    def _prepare(self, name: str) -> None:
        self._count(self._pgconn.prepare(name.encode(), self._statements[name].encode()))
        self._prepared.add(name)

    def _count(self, result: Any) -> int:
        if result.status not in self._ok:
            from psycopg.errors import error_from_result

            raise error_from_result(result, encoding="utf-8")
        count: int = result.command_tuples or 0
        return count


def _rows(result: Any) -> list[tuple[Any, ...]]:
    columns = range(result.nfields)
    readers: list[Any] = [int if result.ftype(column) in INTEGERS else bytes.decode for column in columns]
    values = result.get_value
    rows = []
    for row in range(result.ntuples):
        texts = [values(row, column) for column in columns]
        rows.append(tuple([None if text is None else read(text) for read, text in zip(readers, texts)]))
    return rows


def _texts(parameters: Parameters) -> list[Any]:
    """Parameters in libpq's text format; the statements say what each is."""
    texts = [None if p is None else p.encode() if type(p) is str else b"%d" % p for p in parameters]
    for text in texts:
        # To libpq a NUL is the end of the text: it would store the part before it.
        if text is not None and b"\0" in text:
            raise StoreRefused(NUL_FOUND)
    return texts
