"""SQLite: connections, locking, errors.

One connection writes, behind a lock; any number read beside it, which WAL allows. `BEGIN IMMEDIATE` takes the write
lock before anything is read, so a transaction never fails half-way for a lock. `synchronous=FULL` makes a commit
durable before it is reported.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..logs import logger
from .batch import News, Work
from .bulk import RowExists, Transaction
from .caller_transaction import CallerTransaction, check_dialect
from .encoding import NUL_FOUND, Row, encode_rows
from .listing import choose_lines, json_contains
from .lock_file import Presence
from .management import json_merge
from .sql_files import load_statements
from .store import StoreFailed, StoreRefused, StoreUnavailable
from .write_lock import held_by_this_process

# The write-ahead log is copied back into the file after so many pages (of 4 KiB) and then written anew from its
# start. More make the copies rarer, and the pause of the commit that makes one longer.
LOG_PAGES = 2000
# How often to look whether another process has given the write lock back.
LOCK_LOOK_SECONDS = 0.0005
# Below this much free disk, the space is left to data.
ENOUGH_FREE_BYTES = 256 * 1024 * 1024

_REMEDIES = {
    "database or disk is full": "Free disk space (or raise the quota)",
    "attempt to write a readonly database": "Make the file and its directory writable for this process",
    "unable to open database file": "Check that the directory exists and is writable",
    "file is not a database": "Point `system_database_url` to another file, or restore this one from a backup",
    "database disk image is malformed": "Restore the file from a backup",
    "disk i/o error": "Check the disk and the file system",
}


class SqliteConnections:
    """Runs named statements on one SQLite file (see `database.Connections`)."""

    backend = "sqlite"
    commits_in_parallel = False  # a file has one writer
    hears_messages = False
    effects_first = True

    def __init__(self, path: str, writer: sqlite3.Connection, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._writer = writer
        # Pages of hot indexes stay in memory, up to so many KiB; the default of 2 MB is small for a million rows.
        writer.execute("PRAGMA cache_size = -65536")
        writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        _preallocate_log(writer, path)
        # How long to wait for the write lock; the waiting is done here, see `_when_unlocked`.
        (lock_wait_ms,) = writer.execute("PRAGMA busy_timeout").fetchone()
        self._lock_wait_seconds = lock_wait_ms / 1000
        writer.execute("PRAGMA busy_timeout = 0")
        self._statements = {name: s.texts for name, s in load_statements("sqlite", None).items()}
        self._commit_statements: dict[tuple[str, ...], str] = {}
        self._write_lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._data_version = 0
        self._presence: Presence | None = None
        self._joined_at_version = 0
        self._is_shared = False
        # Whether another process has written to the file since this one opened it.
        self._has_company = False
        self._closed = False
        # Whether the write lock is waited for again and again also when this process itself has it. An application
        # must not give up its workflows for that; who calls a client is told.
        self.may_wait_for_itself = True
        # A private memory database lives and dies with its one connection, which then also reads.
        self._shared = path == ":memory:" or "mode=memory" in path
        add_functions(writer)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def commit(self, work: Sequence[Work], now_ms: int, news: News) -> Sequence[bool]:
        expected = sum(len(item.rows) * item.changes + item.more_changes for item in work)
        if len(work) == 1 and work[0].lone is not None and len(work[0].rows) == 1:
            parameters = (*work[0].rows[0].values(), now_ms)
            return [self.commit_lone(work[0].lone, parameters, expected, news)]
        names = tuple([item.name for item in work])
        parameters = (*(encode_rows(item.rows) for item in work), now_ms)
        statement = self._commit_statements.get(names)
        if statement is None:
            # In the statement of a batch ?1 stands for its records, ?2 for the time.
            places = [(f"NEW.p{i}", f"NEW.p{len(work)}") for i in range(len(work))]
            statement = self._make_commit_statement(names, places, len(parameters))
        return [self._commit(statement, parameters) == expected] * len(work)

    def commit_lone(self, name: str, parameters: Row, changes: int, news: News) -> bool:
        _checked(parameters)
        statement = self._commit_statements.get((name,))
        if statement is None:
            places = [tuple(f"NEW.p{i}" for i in range(len(parameters)))]
            statement = self._make_commit_statement((name,), places, len(parameters))
        return self._commit(statement, parameters) == changes

    def _commit(self, statement: str, parameters: Row) -> int:
        """Run a commit statement; how many rows it changed."""
        with self._write_lock:
            writer = self._writer
            try:
                before = writer.total_changes
                self._when_unlocked(statement, parameters)
                return writer.total_changes - before
            except BaseException as error:
                self._roll_back()
                trouble = translate(error, self._path)
                if trouble is error:
                    raise
                raise trouble from error

    def _make_commit_statement(self, names: tuple[str, ...], places: Sequence[tuple[str, ...]], size: int) -> str:
        """The one statement that runs the named ones as a transaction; `places` are the values of their parameters.

        Every call into SQLite gives up the interpreter lock, and taking it back among busy threads costs more than the
        call. So the statements of a commit run as one: they form the body of a temporary trigger (it lives with this
        connection, the file is not touched), whose row carries their parameters. In autocommit mode that row is a
        transaction.
        """
        body = [
            re.sub(r"\?(\d+)", lambda number: values[int(number[1]) - 1], text).rstrip()
            for name, values in zip(names, places)
            for text in self._statements[name]
        ]
        nulls = ", ".join(f"NULL AS p{i}" for i in range(size))
        with self._write_lock, self._errors():
            view = f"journal_{len(self._commit_statements)}"
            self._writer.execute(f"CREATE TEMPORARY VIEW {view} AS SELECT {nulls}")
            self._writer.execute(
                f"CREATE TEMPORARY TRIGGER commit_{view} INSTEAD OF INSERT ON {view} BEGIN\n"
                + ";\n".join(body)
                + ";\nEND"
            )
            statement = f"INSERT INTO {view} VALUES ({', '.join('?' * size)})"
            self._commit_statements[names] = statement
        return statement

    def write(self, name: str, parameters: Row = ()) -> list[Row]:
        with self._write_lock, self._errors(), self._transaction() as execute:
            rows: list[Row] = []
            for text in self._statements[name]:
                rows = execute(text, parameters[: _parameter_count(text)]).fetchall()
            return rows

    def claim(self, name: str, parameters: Row, queue_name: str | None) -> list[Row]:
        (text,) = self._statements[name]
        if self._has_company and not self._would_claim(text, parameters):
            return []
        with self._write_lock, self._errors(), self._transaction() as execute:
            # Whoever has the write lock is alone. What others had running before they lost it has ended by this time.
            rows: list[Row] = execute(text, (*parameters, self.now_ms())).fetchall()
            return rows

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._write_lock, self._errors(), self._transaction():
            yield SqliteTransaction(self, self._writer, self._statements)

    def adopt(self, connection: Any) -> Transaction:
        check_dialect(connection, "sqlite")
        return CallerTransaction(connection, self._statements, self.now_ms)

    def _would_claim(self, text: str, parameters: Row) -> bool:
        """Whether a claim would take anything now: asked before it takes the write lock, for which others wait.

        A process is woken by every commit of the others, and most of what it looks for then is theirs already.
        """
        candidates, _, _ = text.partition("\nUPDATE workflow_status")
        query = f"{candidates}\nSELECT EXISTS (SELECT 1 FROM candidates)"
        (row,) = self._read(query, (*parameters, self.now_ms()))
        return bool(row[0])

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        (text,) = self._statements[name]
        return self._read(text, parameters)

    def look_up(self, name: str, first: Row, asked: Mapping[str, Any], timeout_seconds: float | None) -> list[Row]:
        (text,) = self._statements[name]
        return self._read(*choose_lines(text, first, asked))

    def _read(self, text: str, parameters: Row) -> list[Row]:
        if self._shared:
            with self._write_lock, self._errors():
                return self._writer.execute(text, parameters).fetchall()
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = self._open_reader()
        try:
            with self._errors():
                return reader.execute(text, parameters).fetchall()
        finally:
            self._readers.append(reader)
            if self._closed:
                self._close_idle_readers()

    def announce(self, kind: str, workflow_ids: Sequence[str]) -> None:
        """Nothing to do: other processes see the commit itself, by `PRAGMA data_version`."""

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        """Nothing to listen to: see `announce`."""

    def join(self, process: str) -> bool:
        with self._write_lock, self._errors():
            path: str = self._writer.execute("PRAGMA database_list").fetchone()[2]
            self._joined_at_version = self._writer.execute("PRAGMA data_version").fetchone()[0]
        if not path:
            return False
        try:
            self._presence = Presence(path, process)
        except OSError as error:
            logger.warning(
                "Other processes cannot see whether this one is alive (%s). After a crash its work waits for a launch "
                "with the same executor id",
                error,
            )
            return False
        return True

    def is_shared(self) -> bool:
        if not self._is_shared and self._write_lock.acquire(blocking=False):
            try:
                with self._errors():
                    (version,) = self._writer.execute("PRAGMA data_version").fetchone()
            finally:
                self._write_lock.release()
            self._is_shared = version != self._joined_at_version
        return self._is_shared

    def find_dead(self, processes: Sequence[str], *, patient: bool) -> list[str]:
        # The kernel knows: no patience is needed.
        return [] if self._presence is None else self._presence.find_dead(list(processes))

    def changed_elsewhere(self) -> bool:
        # Asked on the writing connection, which does not count its own commits. While a commit is in progress the
        # answer can wait for the next look.
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            with self._errors():
                version: int = self._writer.execute("PRAGMA data_version").fetchone()[0]
        finally:
            self._write_lock.release()
        changed = version != self._data_version
        if changed and self._data_version:
            self._has_company = True
        self._data_version = version
        return changed

    def close(self) -> None:
        with self._write_lock:
            self._closed = True
            self._writer.close()
        self._close_idle_readers()
        if self._presence is not None:
            self._presence.close()

    def _close_idle_readers(self) -> None:
        # Closing a connection while another thread reads with it crashes the interpreter, so each is closed by
        # whoever takes it off the list last: readers put theirs back first.
        while self._readers:
            try:
                reader = self._readers.pop()
            except IndexError:
                return
            reader.close()

    def _open_reader(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable("the system database was closed")
        reader = self._connect()
        add_functions(reader)
        return reader

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        execute = self._writer.execute
        self._when_unlocked("BEGIN IMMEDIATE")
        try:
            yield execute
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _when_unlocked(self, statement: str, parameters: Row = ()) -> None:
        """Run a statement that takes the file's write lock, as soon as no other process has it.

        SQLite can only be asked again and again. By itself it sleeps longer each time, up to 100 ms, so that among busy
        processes the one that has waited longest gets the lock last.
        """
        until = None
        while True:
            try:
                self._writer.execute(statement, parameters)
                return
            except sqlite3.OperationalError as error:
                if "database is locked" not in str(error):
                    raise
                now = time.monotonic()
                until = now + self._lock_wait_seconds if until is None else until
                if now >= until:
                    if not self.may_wait_for_itself and held_by_this_process(self._path):
                        raise StoreFailed(
                            f"The system database {os.path.abspath(self._path)} could not be written for "
                            f"{self._lock_wait_seconds:g} s, because another connection of this process has a "
                            f"transaction open on it. Commit that first, or enqueue in it with "
                            f"enqueue_in_transaction."
                        ) from error
                    raise
            time.sleep(LOCK_LOOK_SECONDS)

    def _roll_back(self) -> None:
        # Some errors (a full disk, for one) have rolled back already; a closed connection has nothing to roll back.
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            logger.debug("Rolling back failed; SQLite does it when the file is opened next")

    def _errors(self) -> Any:
        return translated_errors(self._path)


@cache
def _parameter_count(text: str) -> int:
    """How many parameters a text of a statement takes; a later text may take more."""
    return max((int(number) for number in re.findall(r"\?(\d+)", text)), default=0)


def add_functions(connection: sqlite3.Connection) -> None:
    """Make the functions known that statements call and SQLite lacks."""
    connection.create_function("json_contains", 2, json_contains, deterministic=True)
    connection.create_function("json_merge", 2, json_merge, deterministic=True)


class SqliteTransaction:
    """Named statements in the transaction that is open on the writing connection (see `bulk.Transaction`)."""

    def __init__(
        self, connections: SqliteConnections, writer: sqlite3.Connection, statements: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._connections = connections
        self._writer = writer
        self._statements = statements

    def load(self, name: str, rows: Iterable[Row]) -> None:
        (text,) = self._statements[name]
        try:
            self._writer.executemany(text, map(_checked, rows))
        except sqlite3.IntegrityError as error:
            if "UNIQUE" in str(error):
                raise RowExists(str(error)) from error
            raise

    def change(self, name: str, parameters: Row) -> int:
        before = self._writer.total_changes
        for text in self._statements[name]:
            self._writer.execute(text, parameters)
        return self._writer.total_changes - before

    def read(self, name: str, parameters: Row = ()) -> list[Row]:
        (text,) = self._statements[name]
        return self._writer.execute(text, parameters).fetchall()

    def now_ms(self) -> int:
        return self._connections.now_ms()

    def announce(self, kind: str, names: Sequence[str]) -> None:
        """Nothing to do: other processes see the commit itself."""


def _checked(parameters: Row) -> Row:
    for value in parameters:
        if value.__class__ is str and "\0" in value:
            raise StoreRefused(NUL_FOUND)
    return parameters


def _preallocate_log(writer: sqlite3.Connection, path: str) -> None:
    """Let the write-ahead log have its full length from the beginning.

    Overwriting a file is half as expensive to make durable as extending it, since its length and its blocks need not
    be recorded each time. Pages of a transaction that is rolled back lengthen the log and mean nothing.
    """
    log = path + "-wal"
    size = LOG_PAGES * 4096
    if not os.path.exists(log) or os.path.getsize(log) >= size:
        return
    if shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < ENOUGH_FREE_BYTES:
        return
    (pages,) = writer.execute("PRAGMA cache_size").fetchone()
    try:
        writer.execute("PRAGMA cache_size = 10")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE dbos_log_preallocation (filler BLOB)")
        writer.execute("INSERT INTO dbos_log_preallocation VALUES (zeroblob(?))", (size,))
    except sqlite3.Error as error:
        logger.debug("The write-ahead log was not lengthened: %s", error)
    finally:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        writer.execute(f"PRAGMA cache_size = {pages}")


@contextmanager
def translated_errors(path: str) -> Iterator[None]:
    """Turn the driver's errors into the three kinds of trouble a store has."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        raise translate(error, path) from error


def translate(error: BaseException, path: str) -> BaseException:
    """The trouble an error of the driver means; other errors come back as they are."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return StoreRefused(str(error))
    if not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if "database is locked" in text or "database table is locked" in text or "database schema is locked" in text:
        return StoreUnavailable(f"SQLite file {path}: {text}")
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in text:
        return StoreUnavailable(f"SQLite file {path}: {text}")
    for known, remedy in _REMEDIES.items():
        if known in text.lower():
            return StoreFailed(
                f"The system database {os.path.abspath(path)} cannot be used: {text}. {remedy}, then launch again; "
                f"workflows continue from their last recorded step."
            )
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)):
        return StoreRefused(text)
    if "too big" in text:
        return StoreRefused(text)
    return StoreFailed(f"The system database {os.path.abspath(path)} reported: {text}.")
