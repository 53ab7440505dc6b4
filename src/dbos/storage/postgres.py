"""Postgres: connections, errors, notifications.

The journal has connections of its own, so its latency does not depend on readers: one for its batches, a second one
for starts that need not wait for a batch. A batch travels as one round trip: a single statement in autocommit, several
in pipeline mode, which makes them one implicit transaction. Claims go the same way on a connection of theirs, since
others wait for the lock they hold. Readers and the rarer writes share a small pool.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..error import DBOSQueryTimeoutError
from ..ids import process_key
from .bulk import RowExists, Transaction
from .caller_transaction import CallerTransaction, check_dialect
from .database import News, Work
from .encoding import PAIR_SEPARATOR, Row, encode_rows
from .libpq import JournalSession
from .listing import choose_lines
from .sql_files import load_statements
from .store import StoreFailed, StoreRefused, StoreUnavailable, StoreUnreachable

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool

SIGNAL_CHANNEL = "dbos_signals_channel"
# Channels of other implementations and releases (04 section 9.1), each with one notification for a pair of workflow and
# key. The first has a trigger of its own in the schema.
PAIR_CHANNELS = {
    "dbos_notifications_channel": "message",
    "dbos_workflow_events_channel": "event",
    "dbos_streams_channel": "stream",
}
CHANNELS_OF_OTHERS = {"event": "dbos_workflow_events_channel", "stream": "dbos_streams_channel"}
# Shared by every process that listens to the channel: the first 8 bytes of SHA-256 over its name, as a signed number.
LISTENERS_LOCK = int.from_bytes(hashlib.sha256(SIGNAL_CHANNEL.encode()).digest()[:8], "big", signed=True)
# How many processes hold it, and how many sessions listen and do nothing else, as those of other implementations do.
LISTENERS_QUERY = """
SELECT (SELECT count(*) FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND granted
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND classid = ($1::int8 >> 32)::int4::oid AND objid = ($1::int8 & 4294967295)::oid),
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE datname = current_database() AND query ILIKE 'LISTEN%')
"""
# How often a process looks whether it is the only one that listens; who joins says so at once.
LISTENERS_LOOK_SECONDS = 5.0
# Of the connection whose locks tell that this process is alive: when its machine is gone, the server notices after some
# 11 seconds, and not hours. (A process that merely stands still is answered for by its kernel.)
PRESENCE_SETTINGS = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"

# Postgres limits a notification to 8,000 bytes; a longer list is announced as "something happened".
MAX_NOTIFICATION_BYTES = 7900

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

# Connections whose locks say that this process is alive. A forked child would keep them open after the death of its
# parent, so it closes its own copies; the session is not ended by that.
_presences: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


def _let_go_of_presences() -> None:
    for connection in list(_presences):
        with suppress(Exception):  # closed already
            os.close(connection.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_presences)


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
        self._notify = notify
        self._lanes = (Lane(), Lane())
        self._claim_lane = Lane()
        # Without an own listener there is nobody to find out.
        self._others_listen = announce_unasked
        # A trigger of the schema announces each message; it is heard while somebody listens here.
        self.hears_messages = False
        # Whether programs of other implementations listen.
        self._strangers_listen = False
        self._is_shared = False
        # The lock that tells others that this process is alive.
        self._process_key: int | None = None
        # The connection to listen on, as long as nobody does.
        self._presence: psycopg.Connection[Any] | None = None
        self._stop_listening: socket.socket | None = None
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
        if news and self._others_listen:
            statements.append(("notify", (SIGNAL_CHANNEL, payload_of(news))))
        if news and self._strangers_listen:
            statements += [
                ("notify", (channel, name.replace(PAIR_SEPARATOR, "::")))
                for kind, channel in CHANNELS_OF_OTHERS.items()
                for name in news.get(kind, ())
                if len(name.encode("utf-8", "replace")) <= MAX_NOTIFICATION_BYTES
            ]
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
                yield PostgresTransaction(self, connection, self._statements)
        except Exception as error:
            trouble = self._translate(error)
            if trouble is error:
                raise
            raise trouble from error

    def adopt(self, connection: Any) -> Transaction:
        check_dialect(connection, "postgresql")
        statements = {name: (text,) for name, text in self._statements.items()}

        def announce(transaction: Transaction, kind: str, names: Sequence[str]) -> None:
            transaction.read("notify", (SIGNAL_CHANNEL, payload_of({kind: names})))

        return CallerTransaction(connection, statements, None, announce)

    def announce(self, kind: str, workflow_ids: Sequence[str]) -> None:
        if self._others_listen:
            self.write("notify", (SIGNAL_CHANNEL, payload_of({kind: workflow_ids})))

    @property
    def others_listen(self) -> bool:
        return self._others_listen

    def changed_elsewhere(self) -> bool:
        return False

    def join(self, process: str) -> bool:
        if not self._notify:
            return False
        self._process_key = process_key(process)
        try:
            self._presence = self._open_presence()
        except Exception as error:
            raise translate(error) from error
        return True

    def is_shared(self) -> bool:
        return self._is_shared

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        if self._process_key is None:
            return []
        keys = json.dumps({process: str(process_key(process)) for process in processes})
        return [row[0] for row in self.read("find_dead", (self._process_key, keys, patient))]

    def _open_presence(self) -> psycopg.Connection[Any]:
        """The connection that listens, and whose locks say who is there; others are told that somebody has come."""
        connection = self.connect()
        _presences.add(connection)
        try:
            connection.execute(PRESENCE_SETTINGS.encode())
            for channel in (SIGNAL_CHANNEL, *PAIR_CHANNELS):
                connection.execute(f"LISTEN {channel}".encode())
            # Who listens holds this lock together with all others who do, so each can see whether it is alone.
            keys = [LISTENERS_LOCK] if self._process_key is None else [LISTENERS_LOCK, self._process_key]
            for key in keys:
                # Shared, so that a connection that the server still takes for open does not lock out the next one.
                connection.execute("SELECT pg_advisory_lock_shared($1)", (key,))
            connection.execute("SELECT pg_notify($1, $2)", (SIGNAL_CHANNEL, "joined"))
        except BaseException:
            connection.close()
            raise
        return connection

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        if not self._notify or self._closed:
            return
        try:
            connection, self._presence = self._presence, None
            with connection or self._open_presence() as connection:
                self._look_for_listeners(connection)
                self.hears_messages = True
                handle("connected", [])
                self._pass_on(connection, handle)
        except Exception as error:
            self.hears_messages = False
            trouble = translate(error)
            if isinstance(trouble, StoreUnavailable) and not self._closed:
                # At once, before others take this process for dead.
                with suppress(Exception):
                    self._presence = self._open_presence()
                if self._closed:
                    self._close_presence()
            raise trouble from error

    def _pass_on(self, connection: psycopg.Connection[Any], handle: Callable[[str, list[str]], None]) -> None:
        own = connection.info.backend_pid
        stop, wake = socket.socketpair()
        with stop, wake, selectors.DefaultSelector() as selector:
            # Set before `_closed` is looked at: `close` sets them in the other order.
            self._stop_listening = wake
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(stop, selectors.EVENT_READ)
            looked_at = time.monotonic()
            while not self._closed:
                look = False
                for notification in connection.notifies(timeout=0):
                    if notification.payload == "joined":
                        look = True
                        self._is_shared |= notification.pid != own
                    elif notification.pid != own and all(notification.pid != lane.pid for lane in self._lanes):
                        for kind, names in parse_notification(notification.channel, notification.payload):
                            handle(kind, names)
                if look or time.monotonic() - looked_at >= LISTENERS_LOOK_SECONDS:
                    self._look_for_listeners(connection)
                    looked_at = time.monotonic()
                    # Notifications may have arrived with the answer: the socket would not tell.
                    continue
                selector.select(max(0.0, looked_at + LISTENERS_LOOK_SECONDS - time.monotonic()))

    def _look_for_listeners(self, connection: psycopg.Connection[Any]) -> None:
        """Announcing costs every commit something, so it is done only while another process listens."""
        row = connection.execute(LISTENERS_QUERY.encode(), (LISTENERS_LOCK,)).fetchone()
        assert row is not None
        self._others_listen, self._strangers_listen = row[0] > 1, row[1] > 0
        self._is_shared |= self._others_listen

    def close(self) -> None:
        self._closed = True
        wake = self._stop_listening
        if wake is not None:
            with suppress(OSError):  # the listener has ended by itself
                wake.send(b"x")
        self._close_presence()
        self._pool.close(timeout=2)
        for lane in (*self._lanes, self._claim_lane):
            with lane.lock:
                lane.close()

    def _close_presence(self) -> None:
        """Close the connection that waits for a listener; whoever listens on one closes it."""
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.close()

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
        self, connections: PostgresConnections, connection: psycopg.Connection[Any], statements: Mapping[str, str]
    ) -> None:
        self._connections = connections
        self._connection: Any = connection
        self._statements = statements

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
        if self._connections.others_listen:
            self.read("notify", (SIGNAL_CHANNEL, payload_of({kind: names})))


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


def translate(error: Exception) -> Exception:
    """Turn the driver's errors into the three kinds of trouble a store has."""
    import psycopg
    import psycopg_pool

    if isinstance(error, (StoreUnavailable, StoreFailed, StoreRefused)):
        return error
    if isinstance(error, (psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, psycopg_pool.TooManyRequests)):
        return StoreUnreachable(str(error))
    if not isinstance(error, psycopg.Error):
        if isinstance(error, (UnicodeEncodeError, OverflowError)):
            return StoreRefused(str(error))
        return error
    code = error.sqlstate or ""
    text = str(error).strip()
    if code in ("25P03", "40001", "40P01", "55P03"):
        return StoreUnavailable(text)
    if code[:2] in ("08", "53") or (code[:2] == "57" and code != "57014"):
        return StoreUnreachable(text)
    if code == "23505" and error.diag.constraint_name == "streams_pkey":
        # Another implementation is appending to the stream; if that execution has lost its workflow, its entry will not
        # stay. Ours gets the next offset (04 R301).
        return StoreUnavailable(text)
    if code[:2] in ("22", "23", "54"):
        return StoreRefused(text)
    # A plain DatabaseError without code comes from the client library: the connection broke while it read a result.
    lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or type(error) is psycopg.DatabaseError
    if not code and lost:
        return StoreUnreachable(text)
    if isinstance(error, psycopg.DataError):
        return StoreRefused(text)
    return StoreFailed(f"The system database refused a statement: {text} (SQLSTATE {code or 'unknown'}).")


def payload_of(news: News) -> str:
    """The kinds with their names, between characters that no id is split by; without names when they are too long."""
    text = "\x1d".join("\x1f".join([kind, *names]) for kind, names in news.items())
    return text if len(text.encode("utf-8", "replace")) <= MAX_NOTIFICATION_BYTES else "\x1d".join(news)


def parse_notification(channel: str, payload: str) -> Iterator[tuple[str, list[str]]]:
    """The reverse: each kind with its names; none means that anybody may be meant."""
    kind = PAIR_CHANNELS.get(channel)
    if kind is None:
        for text in payload.split("\x1d"):
            kind, *names = text.split("\x1f")
            yield kind, names
    else:
        # Ids and keys may contain the separator: whoever is meant is among those that can be.
        parts = payload.split("::")
        yield kind, ["::".join(parts[:i]) + PAIR_SEPARATOR + "::".join(parts[i:]) for i in range(1, len(parts))]


def _mentions_idle_timeout(conninfo: str, connect_kwargs: Mapping[str, Any]) -> bool:
    options = str(connect_kwargs.get("options", "")) + conninfo
    return "idle_in_transaction_session_timeout" in options
