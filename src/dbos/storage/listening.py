"""Postgres: what processes tell each other, and who is there.

One connection of a process listens to notifications. It also holds the locks that tell others that somebody listens and
that this process is alive; so both end with it, however the process ends.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..ids import process_key
from .batch import News
from .encoding import PAIR_SEPARATOR, Row
from .postgres_errors import translate
from .store import StoreUnavailable

if TYPE_CHECKING:
    import psycopg

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

# Connections whose locks say that this process is alive. A forked child would keep them open after the death of its
# parent, so it closes its own copies; the session is not ended by that.
_presences: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


def _let_go_of_presences() -> None:
    for connection in list(_presences):
        with suppress(Exception):  # closed already
            os.close(connection.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_presences)


class Listening:
    """Listens for the announcements of other processes, and lets them see that this one is there."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        notify: bool,
        announce_unasked: bool,
        is_own: Callable[[int], bool],
    ) -> None:
        self._connect = connect
        # False: this process neither listens nor shows that it is there.
        self._notify = notify
        # Whether a session, by the id of its process on the server, commits for us: what it announces is known here.
        self._is_own = is_own
        # Without an own listener there is nobody to find out.
        self.others_listen = announce_unasked
        # Whether programs of other implementations listen.
        self.strangers_listen = False
        # A trigger of the schema announces each message; it is heard while somebody listens here.
        self.hears_messages = False
        # Whether another process may have used the database since `join`.
        self.is_shared = False
        # The lock that tells others that this process is alive, once it has joined.
        self.process_key: int | None = None
        # The connection to listen on, as long as nobody does.
        self._presence: psycopg.Connection[Any] | None = None
        self._stop_listening: socket.socket | None = None
        self._closed = False

    def join(self, process: str) -> bool:
        """See `store.Store.join`."""
        if not self._notify:
            return False
        self.process_key = process_key(process)
        try:
            self._presence = self._open_presence()
        except Exception as error:
            raise translate(error) from error
        return True

    def _open_presence(self) -> psycopg.Connection[Any]:
        """The connection that listens, and whose locks say who is there; others are told that somebody has come."""
        connection = self._connect()
        _presences.add(connection)
        try:
            connection.execute(PRESENCE_SETTINGS.encode())
            for channel in (SIGNAL_CHANNEL, *PAIR_CHANNELS):
                connection.execute(f"LISTEN {channel}".encode())
            # Who listens holds this lock together with all others who do, so each can see whether it is alone.
            keys = [LISTENERS_LOCK] if self.process_key is None else [LISTENERS_LOCK, self.process_key]
            for key in keys:
                # Shared, so that a connection that the server still takes for open does not lock out the next one.
                connection.execute("SELECT pg_advisory_lock_shared($1)", (key,))
            connection.execute("SELECT pg_notify($1, $2)", (SIGNAL_CHANNEL, "joined"))
        except BaseException:
            connection.close()
            raise
        return connection

    def listen(self, handle: Callable[[str, list[str]], None]) -> None:
        """See `store.Store.listen`."""
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
                        self.is_shared |= notification.pid != own
                    elif notification.pid != own and not self._is_own(notification.pid):
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
        self.others_listen, self.strangers_listen = row[0] > 1, row[1] > 0
        self.is_shared |= self.others_listen

    def close(self) -> None:
        self._closed = True
        wake = self._stop_listening
        if wake is not None:
            with suppress(OSError):  # the listener has ended by itself
                wake.send(b"x")
        self._close_presence()

    def _close_presence(self) -> None:
        """Close the connection that waits for a listener; whoever listens on one closes it."""
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.close()


def announcement(news: News) -> tuple[str, Row]:
    """The statement that tells the news to processes of this implementation."""
    return "notify", (SIGNAL_CHANNEL, payload_of(news))


def announcements_to_strangers(news: News) -> list[tuple[str, Row]]:
    """The statements that tell those of the news that programs of other implementations expect."""
    return [
        ("notify", (channel, name.replace(PAIR_SEPARATOR, "::")))
        for kind, channel in CHANNELS_OF_OTHERS.items()
        for name in news.get(kind, ())
        if len(name.encode("utf-8", "replace")) <= MAX_NOTIFICATION_BYTES
    ]


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
