"""What the readers of one stream in one process share: its last entries, and what is known of its end.

A commit of this process brings the entry along, so whoever has read everything before needs no read; what other
processes do is a hint, and then one of the readers looks for all. A feed lives as long as it has readers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from ..serialization import PORTABLE
from ..types import StoredValue, StreamEntry
from .signals import Key, Signals, Waiter

# The entry that closes a stream, and every other one that reads the same (04 R303, R304).
MARKER = "__DBOS_STREAM_CLOSED__"
CLOSED = StoredValue(f'"{MARKER}"', PORTABLE)
# The last entries that are kept for readers that are a little behind, and how many characters they may have.
KEPT_ENTRIES = 200
KEPT_CHARACTERS = 4_000_000
# How many entries a reader takes at once.
PAGE = 100


class Look(NamedTuple):
    """A look into the database: after which hints, how far the feed reached then, when, and whether for all."""

    hints: int
    end: int
    at_ms: int
    is_shared: bool


class Feed:
    """One stream; as a subscriber it is told of every entry and every hint."""

    def __init__(self, offset: int) -> None:
        self._lock = threading.RLock()
        self._entries: deque[StoredValue] = deque()
        self._first = offset
        self._characters = 0
        self._waiters: set[Waiter] = set()
        # Counts what may have happened unseen. `_whole_at` is the count at which nothing was behind the last entry.
        self._hints = 0
        self._whole_at = -1
        self._ended_at = -1
        self._looked_at_ms = 0
        self._looking = False
        self.readers = 0

    @property
    def end(self) -> int:
        """The offset behind the last entry that is known."""
        return self._first + len(self._entries)

    # --- readers

    @contextmanager
    def attached(self, waiter: Waiter) -> Iterator[None]:
        """Wake the waiter whenever something happens, for the duration of the block."""
        with self._lock:
            self._waiters.add(waiter)
        try:
            yield
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def take(self, offset: int) -> list[StoredValue]:
        """Entries from `offset` on that are at hand."""
        with self._lock:
            if not self._first <= offset < self.end:
                return []
            begin = offset - self._first
            return list(islice(self._entries, begin, begin + PAGE))

    def seen_at_ms(self, offset: int, own: Look | None) -> int | None:
        """When somebody saw last that nothing is at `offset`; None when that has to be looked for now.

        `own` is the last look of the reader that asks. It holds as long as nothing was hinted at, and no entry has
        come up to the offset: entries of this process are told of one by one.
        """
        with self._lock:
            if offset == self.end and self._whole_at == self._hints:
                return self._looked_at_ms
            if own is None or own.hints != self._hints or not (offset >= self.end or own.end == self.end):
                return None
            return own.at_ms

    def has_ended(self, offset: int) -> bool:
        """Whether the workflow was seen to have ended with nothing at `offset`."""
        with self._lock:
            return offset == self.end and self._ended_at == self._hints == self._whole_at

    def is_closed_before(self, offset: int) -> bool:
        """Whether the last entry that is known is the marker that closes the stream, and nothing is at `offset`."""
        with self._lock:
            return offset >= self.end and bool(self._entries) and self._entries[-1] == CLOSED

    # --- looking

    def begin_look(self, offset: int, now_ms: int) -> Look | None:
        """A look, to be given back to `end_look`; None while another reader looks for the same."""
        with self._lock:
            shared = offset == self.end
            if shared and self._looking:
                return None
            self._looking = self._looking or shared
            return Look(self._hints, self.end, now_ms, shared)

    def end_look(self, look: Look, offset: int, page: list[StoredValue], *, whole: bool, ended: bool) -> None:
        """What a look has found: entries, nothing behind them, and a workflow that has ended."""
        with self._lock:
            reached = offset + len(page)
            if reached > self.end and page:
                self._extend(offset, page)
            if whole and reached == self.end:
                self._whole_at = max(self._whole_at, look.hints)
                self._looked_at_ms = look.at_ms
                if ended:
                    self._ended_at = look.hints

    def leave_look(self, look: Look) -> None:
        """A look is over, or was called off: others go on with what it has found, or look themselves."""
        with self._lock:
            if look.is_shared:
                self._looking = False
                self._wake()

    # --- news

    def fire(self, value: Any = None, *, always: bool = False) -> None:
        """A signal: an entry that was written by this process, or anything else, which is a hint."""
        with self._lock:
            if isinstance(value, StreamEntry):
                self._note_entry(value)
            else:
                self._hints += 1
            self._wake()

    def note_top(self, offset: int) -> None:
        """Somebody has seen that the stream reaches up to `offset`."""
        if offset >= self.end:
            self.fire()

    def _note_entry(self, entry: StreamEntry) -> None:
        offset, value = entry
        if offset >= self.end:
            self._extend(offset, [value])
        elif offset >= self._first and self._entries[offset - self._first] != value:
            # The stream was shortened (a marker is taken away when a workflow is set back).
            self._entries.clear()
            self._first, self._characters = offset, 0
            self._extend(offset, [value])
            self._hints += 1

    def _extend(self, offset: int, page: list[StoredValue]) -> None:
        if offset > self.end:
            # What lies between is read by those who need it; none of them must believe that it is not there.
            self._entries.clear()
            self._first, self._characters = offset, 0
            self._hints += 1
        for value in page[self.end - offset :]:
            self._entries.append(value)
            self._characters += len(value.text)
        while len(self._entries) > KEPT_ENTRIES or (self._characters > KEPT_CHARACTERS and len(self._entries) > 1):
            self._characters -= len(self._entries.popleft().text)
            self._first += 1

    def _wake(self) -> None:
        for waiter in self._waiters:
            waiter.fire()
        # Only now: if this is interrupted (Ctrl-C), the next one wakes the others.
        self._waiters.clear()


class Feeds:
    """The feeds of a process, by stream."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._lock = threading.RLock()
        self._feeds: dict[tuple[str, str], Feed] = {}

    def join(self, workflow_id: str, key: str, offset: int) -> Feed:
        """The feed of a stream for one more reader, which begins at `offset`."""
        stream = (workflow_id, key)
        with self._lock:
            feed = self._feeds.get(stream)
            if feed is None:
                feed = self._feeds[stream] = Feed(offset)
                self._signals.subscribe(feed, *_keys(workflow_id, key))
            feed.readers += 1
            return feed

    def leave(self, workflow_id: str, key: str) -> None:
        """A reader has gone."""
        stream = (workflow_id, key)
        with self._lock:
            feed = self._feeds[stream]
            feed.readers -= 1
            if feed.readers == 0:
                del self._feeds[stream]
                self._signals.unsubscribe(feed, *_keys(workflow_id, key))

    def note_tops(self, tops: Mapping[tuple[str, str], int]) -> None:
        """Wake the readers of streams that reach further than they know."""
        for stream, offset in tops.items():
            feed = self._feeds.get(stream)
            if feed is not None:
                feed.note_top(offset)


def _keys(workflow_id: str, key: str) -> tuple[Key, ...]:
    return ("stream", (workflow_id, key)), ("finished", workflow_id)
