"""Postgres: connections, and how statements run on them.

The journal has connections of its own, so its latency does not depend on readers: one for its batches, a second one
for starts that need not wait for a batch. A batch travels as one round trip: a single statement in autocommit, several
in pipeline mode, which makes them one implicit transaction. Claims go the same way on a connection of theirs, since
others wait for the lock they hold. Readers and the rarer writes share a small pool.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..error import DBOSQueryTimeoutError
from ..ids import process_key
from .batch import News, Work
from .bulk import RowExists, Transaction
from .caller_transaction import CallerTransaction, check_dialect
from .encoding import Row, encode_rows
from .libpq import JournalSession
from .listening import Listening, announcement, announcements_to_strangers
from .listing import choose_lines
from .postgres_errors import translate
from .sql_files import load_statements
from .store import StoreUnavailable

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool

# Up to so many records of a kind go as a statement each, which Postgres runs faster than one that takes them out of
# JSON.
FEW_RECORDS = 4

# Rows that go to COPY together.
COPY_ROWS = 500

# Plans of the journal's statements and of claims must not depend on statistics of a table that was empty a moment ago:
# every access is by key. Generic plans also spare planning each batch anew, which takes longer than to run a claim.
JOURNAL_SETTINGS = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; "
    "SET enable_mergejoin = off; SET jit = off"
)

# Claims and reads: rows come out of an index in its order, however few the planner believes there are; sorting all that
# wait for the sake of the first ones would cost more with every one. Compiling takes longer than any of them.
SERVICE_SETTINGS = "SET enable_sort = off; SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off"


# A listing may filter by anything, so the planner has its free choice. $1 is how long it may take, in ms; NULL leaves
# what is set.
LISTING_SETTINGS = (
    "SELECT set_config('enable_sort', 'on', true), set_config('enable_seqscan', 'on', true), "
    "set_config('enable_bitmapscan', 'on', true), "
    "set_config('statement_timeout', COALESCE($1::text, current_setting('statement_timeout')), true)"
)


class Lane:
    """A connection that commits records, opened when it is first needed, and who is using it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.session: JournalSession | None = None
        self.pid = 0

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None


class PostgresConnections:
    """Runs named statements on one Postgres database (see `database.Connections`)."""

    backend = "postgres"
    commits_in_parallel = True
    effects_first = False

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str,
        pool_size: int,
        connect_kwargs: Mapping[str, Any],
        pool_timeout_seconds: float = 30.0,
        idle_transaction_timeout_seconds: float = 60.0,
        notify: bool = True,
        announce_unasked: bool = False,
        connection_class: type[psycopg.Connection[Any]] | None = None,
    ) -> None:
        import psycopg
        import psycopg_pool

        self._conninfo = conninfo
        self._connection_class = connection_class or psycopg.Connection
        self._kwargs = {
            **connect_kwargs,
            "autocommit": True,
            "cursor_factory": psycopg.RawCursor,
        }
        self._statements = {name: s.texts[0] for name, s in load_statements("postgres", schema).items()}
        self._idle_timeout_ms = max(1, int(idle_transaction_timeout_seconds * 1000))
        if idle_transaction_timeout_seconds <= 0 or _mentions_idle_timeout(conninfo, connect_kwargs):
            self._idle_timeout_ms = 0
        self._lanes = (Lane(), Lane())
        self._claim_lane = Lane()
        self._listening = Listening(
            self.connect, notify=notify, announce_unasked=announce_unasked, is_own=self._is_lane
        )
        self._closed = False
        self._pool: psycopg_pool.ConnectionPool[Any] = psycopg_pool.ConnectionPool(
            conninfo,
            connection_class=self._connection_class,
            kwargs=self._kwargs,
            min_size=1,
            max_size=max(1, pool_size - len(self._lanes) - 1),
            timeout=pool_timeout_seconds,
            num_workers=1,
            reconnect_timeout=60.0,
            configure=self._configure,
            open=True,
        )

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own, with our settings; for the journal and for the listener."""
        connection = self._connection_class.connect(self._conninfo, **self._kwargs)
        self._configure(connection)
        return connection

    def commit(self, work: Sequence[Work], now_ms: int, news: News) -> Sequence[bool]:
        statements: list[tuple[str, Row]] = []
        ends = []
        for item in work:
            time = () if item.is_effect else (now_ms,)
            if item.lone is not None and len(item.rows) <= FEW_RECORDS:
                statements += [(item.lone, (*row.values(), *time)) for row in item.rows]
            else:
                statements.append((item.name, (encode_rows(item.rows), *time)))
            ends.append(len(statements))
        counts = self._commit(statements, news)
        begins = [0, *ends]
        return [sum(counts[begin:end]) == len(item.rows) for item, begin, end in zip(work, begins, ends)]

    def commit_lone(self, name: str, parameters: Row, changes: int, news: News) -> bool:
        return self._commit([(name, parameters)], news)[0] == 1

    def _commit(self, statements: list[tuple[str, Row]], news: News) -> list[int]:
        """Run the statements in a transaction, with the news for other processes; the rows each has written."""
        if news and self._listening.others_listen:
            statements.append(announcement(news))
        if news and self._listening.strangers_listen:
            statements += announcements_to_strangers(news)
        with self._free_lane() as lane, self._session(lane) as session:
            if len(statements) == 1:
                return [session.execute(*statements[0])]
            return session.execute_together(statements)

    @contextmanager
    def _session(self, lane: Lane) -> Iterator[JournalSession]:
        """The session of a lane that is ours; errors come out as trouble."""
        session = lane.session
        try:
            if session is None:
                session = self._open_session(lane)
            yield session
        except Exception as error:
            if session is not None and not session.usable:
                lane.close()
            raise translate(error) from error

    @contextmanager
    def _free_lane(self) -> Iterator[Lane]:
        """The first lane if nobody commits there, else the second; whoever finds both busy waits for the first."""
        lane = next((lane for lane in self._lanes if lane.lock.acquire(blocking=False)), None)
        if lane is None:
            lane = self._lanes[0]
            lane.lock.acquire()
        try:
            yield lane
        finally:
            lane.lock.release()

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        try:
            with self._pool.connection() as connection:
                rows: list[Row] = connection.execute(self._statements[name], parameters).fetchall()
                return rows
        except Exception as error:
            raise self._translate(error) from error

    def look_up(self, name: str, first: Row, asked: Mapping[str, Any], timeout_seconds: float | None) -> list[Row]:
        import psycopg

        text, parameters = choose_lines(self._statements[name], first, asked)
        timeout_ms = None if timeout_seconds is None else str(max(1, int(timeout_seconds * 1000)))
        try:
            with self._pool.connection() as connection, connection.transaction(), connection.pipeline():
                connection.execute(LISTING_SETTINGS.encode(), (timeout_ms,))
                # Not prepared: texts and plans differ from one listing to the next.
                rows: list[Row] = connection.execute(text.encode(), parameters, prepare=False).fetchall()
                return rows
        except psycopg.errors.QueryCanceled as error:
            if timeout_seconds is None:
                raise self._translate(error) from error
            raise DBOSQueryTimeoutError(timeout_seconds) from error
        except Exception as error:
            raise self._translate(error) from error

    def write(self, name: str, parameters: Row = ()) -> list[Row]:
        try:
            with self._pool.connection() as connection:
                cursor = connection.execute(self._statements[name], parameters)
                return cursor.fetchall() if cursor.description else []
        except Exception as error:
            raise self._translate(error) from error

    def claim(self, name: str, parameters: Row, queue_name: str | None) -> list[Row]:
        statements: list[tuple[str, Row]] = [(name, parameters)]
        if queue_name is not None:
            statements.insert(0, ("guard_queue", (queue_name,)))
        with self._claim_lane.lock, self._session(self._claim_lane) as session:
            return session.fetch_together(statements)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        try:
            with self._pool.connection() as connection, connection.transaction():
                yield PostgresTransaction(connection, self._statements, self._listening)
        except Exception as error:
            trouble = self._translate(error)
            if trouble is error:
                raise
            raise trouble from error

    def adopt(self, connection: Any) -> Transaction:
        check_dialect(connection, "postgresql")
        statements = {name: (text,) for name, text in self._statements.items()}

        def announce(transaction: Transaction, kind: str, names: Sequence[str]) -> None:
            transaction.read(*announcement({kind: names}))

        return CallerTransaction(connection, statements, None, announce)

    def announce(self, kind: str, workflow_ids: Sequence[str]) -> None:
        if self._listening.others_listen:
            self.write(*announcement({kind: workflow_ids}))

    @property
    def hears_messages(self) -> bool:
        return self._listening.hears_messages

    def changed_elsewhere(self) -> bool:
        return False

    def join(self, process: str) -> bool:
        return self._listening.join(process)

    def is_shared(self) -> bool:
        return self._listening.is_shared

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        own_key = self._listening.process_key
        if own_key is None:
            return []
        keys = json.dumps({process: str(process_key(process)) for process in processes})
        return [row[0] for row in self.read("find_dead", (own_key, keys, patient))]

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        self._listening.listen(handle)

    def close(self) -> None:
        self._closed = True
        self._listening.close()
        self._pool.close(timeout=2)
        for lane in (*self._lanes, self._claim_lane):
            with lane.lock:
                lane.close()

    def _is_lane(self, pid: int) -> bool:
        return any(lane.pid == pid for lane in self._lanes)

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        settings = SERVICE_SETTINGS
        if self._idle_timeout_ms:
            settings += f"; SET idle_in_transaction_session_timeout = {self._idle_timeout_ms}"
        connection.execute(settings.encode())

    def _open_session(self, lane: Lane) -> JournalSession:
        if self._closed:
            raise StoreUnavailable("the system database was closed")
        connection = self.connect()
        connection.execute(JOURNAL_SETTINGS.encode())
        lane.pid = connection.info.backend_pid
        lane.session = JournalSession(connection, self._statements)
        return lane.session

    def _translate(self, error: Exception) -> Exception:
        trouble = translate(error)
        if isinstance(trouble, StoreUnavailable) and not self._closed:
            # After a server restart every pooled connection is dead: sort them out at once, not one per retry.
            self._pool.check()
        return trouble


class PostgresTransaction:
    """Named statements in the transaction that is open on a connection of the pool (see `bulk.Transaction`)."""

    def __init__(
        self, connection: psycopg.Connection[Any], statements: Mapping[str, str], listening: Listening
    ) -> None:
        self._connection: Any = connection
        self._statements = statements
        self._listening = listening

    def load(self, name: str, rows: Iterable[Row]) -> None:
        import psycopg

        # INSERT INTO table (columns) VALUES (...)
        columns = self._statements[name].partition("VALUES")[0].replace("INSERT INTO", "COPY", 1)
        try:
            with self._connection.cursor() as cursor, cursor.copy(f"{columns} FROM STDIN".encode()) as copy:
                lines = _copy_lines(rows)
                while text := "".join(islice(lines, COPY_ROWS)):
                    copy.write(text)
        except psycopg.errors.UniqueViolation as error:
            raise RowExists(str(error)) from error

    def change(self, name: str, parameters: Row) -> int:
        count: int = self._connection.execute(self._statements[name], parameters).rowcount
        return count

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        rows: list[Row] = self._connection.execute(self._statements[name], parameters).fetchall()
        return rows

    def now_ms(self) -> int:
        now_ms: int = self.read("transaction_time")[0][0]
        return now_ms

    def announce(self, kind: str, names: Sequence[str]) -> None:
        if self._listening.others_listen:
            self.read(*announcement({kind: names}))


# What COPY takes for something else, in its text format.
_COPY_SPECIAL = re.compile(r"[\\\t\n\r]")
_COPY_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _copy_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Rows in COPY's text format. What follows the first two columns is often the same as in the row before."""
    columns: Row = ()
    rest = ""
    for row in rows:
        if row[2:] != columns:
            columns = row[2:]
            rest = "\t".join([_copy_text(value) for value in columns])
        yield f"{_copy_text(row[0])}\t{_copy_text(row[1])}\t{rest}\n"


def _copy_text(value: Any) -> str:
    if value is None:
        return r"\N"
    text = str(value)
    if _COPY_SPECIAL.search(text) is None:
        return text
    return _COPY_SPECIAL.sub(lambda found: _COPY_ESCAPES[found[0]], text)


def _mentions_idle_timeout(conninfo: str, connect_kwargs: Mapping[str, Any]) -> bool:
    options = str(connect_kwargs.get("options", "")) + conninfo
    return "idle_in_transaction_session_timeout" in options
