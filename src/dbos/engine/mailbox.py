"""What an execution knows of the messages that wait for it under one topic."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ..types import StoredMessage
from .signals import Key

# A mailbox has no index of what is still waiting, so every look reads all of it. A mailbox in which much is found is
# read in windows that grow up to so many messages, or so many characters.
LARGEST_WINDOW = 128
WINDOW_CHARACTERS = 262_144


class Mailbox:
    """What an execution has read of its mailbox for one topic and not received yet, oldest first.

    One that listens to its key, where every message is announced, knows when another look would find nothing.
    """

    __slots__ = ("_announced", "_known", "_looks", "_taken", "_waiting", "key", "listens", "window")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.listens = False
        self.window = 1
        self._waiting: deque[StoredMessage] = deque()
        # Messages that a task of this execution is receiving.
        self._taken: set[str] = set()
        # Whether a look has seen all that was there, and only these messages are said to have come since it began.
        self._known = False
        self._announced: set[str] = set()
        self._looks = 0

    def fire(self, value: Any = None, *, always: bool = False) -> None:
        """Something is said to have come: the message `value`, or something unknown."""
        if isinstance(value, StoredMessage):
            self._announced.add(value.message_id)
        else:
            self._known = False
            # What is being read at this moment may be without it.
            self._looks += 1

    @property
    def is_empty(self) -> bool:
        """Whether a look would find nothing, as far as can be known without one."""
        return self.listens and self._known and not self._announced and not self._waiting

    def begin_look(self) -> int:
        """The number of the look that begins."""
        self._known = False
        self._announced.clear()
        self._looks += 1
        return self._looks

    def take(self) -> StoredMessage | None:
        """The oldest message, for one task alone until it gives the message back."""
        try:
            message = self._waiting.popleft()
        except IndexError:
            return None
        self._taken.add(message.message_id)
        return message

    def claim(self, message: Any) -> StoredMessage | None:
        """A message that came with a signal, unless another task receives it already."""
        if not isinstance(message, StoredMessage) or message.message_id in self._taken:
            return None
        self._taken.add(message.message_id)
        return message

    def give_back(self, message: StoredMessage) -> None:
        """The message is received by now, or somebody else has it."""
        self._taken.discard(message.message_id)
        self._announced.discard(message.message_id)

    def fill(self, found: Sequence[StoredMessage], look: int) -> None:
        """What a look has found; it may be older than what other tasks have received since."""
        self._known = look == self._looks and len(found) < self.window
        if len(found) >= self.window:
            longest = max(len(message.text) for message in found)
            self.window = max(1, min(4 * self.window, LARGEST_WINDOW, WINDOW_CHARACTERS // max(1, longest)))
        self._waiting = deque(message for message in found if message.message_id not in self._taken)
