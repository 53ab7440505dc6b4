"""Waking up: who waits for what, inside the process and across processes.

Waiting for anything follows four lines: register a waiter, look, sleep until woken or the time is up, look again.
Registering comes before looking, so nothing that happens in between is missed.

A key is a kind and what it happens to: ("finished", workflow_id), ("cancelled", workflow_id), ("event" or "stream",
(workflow_id, key)), ("message", (workflow_id, topic)).
Whoever makes something happen fires the key after the commit; a value at hand travels along, so that the
waiter needs no read. `services.Watcher` and `services.Listener` fire keys for what other processes did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Union

Subject = Union[str, tuple[str, str]]
Key = tuple[str, Subject]


class Subscriber(Protocol):
    """Whoever is told that a key was fired; `always` also if it would rather not hear of it, since the engine stops."""

    def fire(self, value: Any = None, *, always: bool = False) -> None: ...


class Waiter:
    """One sleeper. Fired at most once, and not while `unless` says so; a driver installs how to wake it.

    Each further call of `fire` wakes it again, as long as it sleeps.
    """

    __slots__ = ("_lock", "_unless", "_wake", "fired", "value")

    def __init__(self, unless: Callable[[], bool] | None = None) -> None:
        self.fired = False
        self._unless = unless
        self.value: Any = None
        self._wake: Callable[[], None] | None = None
        self._lock = threading.RLock()

    def fire(self, value: Any = None, *, always: bool = False) -> None:
        with self._lock:
            # Whoever fired it first may have been interrupted (Ctrl-C) before it woke the sleeper.
            again = self.fired
            if not again:
                if not always and self._unless is not None and self._unless():
                    return
                self.fired = True
                self.value = value
            wake = self._wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:
                # Of a lock that is open: the sleeper is about to wake up.
                if not again:
                    raise

    def install(self, wake: Callable[[], None] | None) -> bool:
        """Have `wake` called when fired; False when that has happened already."""
        with self._lock:
            if self.fired:
                return False
            self._wake = wake
            return True

    def sleep(self, timeout_seconds: float | None) -> bool:
        """Block this thread until fired or the time is up; whether it was fired."""
        gate = threading.Lock()
        gate.acquire()
        if self.install(gate.release):
            # Deadlines may lie further away than the system can count.
            seconds = -1 if timeout_seconds is None else min(max(0.0, timeout_seconds), threading.TIMEOUT_MAX)
            gate.acquire(timeout=seconds)
            self.install(None)
        return self.fired


class Signals:
    """The waiters of one process, by key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiters: dict[Key, list[Subscriber]] = {}
        # Those who hear of what happens and do not wait for it: nothing is looked for on their behalf.
        self._listeners: dict[Key, Subscriber] = {}
        self._closed = False
        # Called when the first waiter of a kind that other processes may fire registers.
        self.on_register: Callable[[], None] | None = None

    @contextmanager
    def watch(self, *keys: Key, unless: Callable[[], bool] | None = None) -> Iterator[Waiter]:
        """A waiter registered for all the keys, for the duration of the block; deaf while `unless` says so."""
        waiter = Waiter(unless)
        self.subscribe(waiter, *keys)
        try:
            yield waiter
        finally:
            self.unsubscribe(waiter, *keys)

    def subscribe(self, subscriber: Subscriber, *keys: Key) -> None:
        """Tell it whenever one of the keys is fired, until it is unsubscribed."""
        with self._lock:
            for key in keys:
                self._waiters.setdefault(key, []).append(subscriber)
            closed = self._closed
        if closed:
            subscriber.fire(always=True)
        if self.on_register is not None:
            self.on_register()

    def unsubscribe(self, subscriber: Subscriber, *keys: Key) -> None:
        with self._lock:
            for key in keys:
                waiters = self._waiters.get(key)
                if waiters is not None:
                    if subscriber in waiters:
                        waiters.remove(subscriber)
                    if not waiters:
                        del self._waiters[key]

    def listen(self, listener: Subscriber, key: Key) -> bool:
        """Tell this one, too, until `unlisten`, and before those who wait; False when somebody listens already."""
        with self._lock:
            return self._listeners.setdefault(key, listener) is listener

    def unlisten(self, key: Key) -> None:
        with self._lock:
            del self._listeners[key]

    def fire(self, kind: str, subject: Subject, value: Any = None) -> None:
        """Wake everybody who waits for the key."""
        # Reading without the lock is safe: who registers later looks after registering.
        key = (kind, subject)
        listener = self._listeners.get(key)
        if listener is not None:
            listener.fire(value)
        if key not in self._waiters:
            return
        with self._lock:
            waiters = list(self._waiters.get(key, ()))
        for waiter in waiters:
            waiter.fire(value)

    def fire_kind(self, kind: str) -> None:
        """Wake everybody who waits for any key of a kind: something happened, nobody knows to whom."""
        with self._lock:
            concerned = [listener for key, listener in self._listeners.items() if key[0] == kind]
            concerned += [waiter for key, found in self._waiters.items() if key[0] == kind for waiter in found]
        for subscriber in concerned:
            subscriber.fire()

    def count(self) -> int:
        """How many keys somebody waits for."""
        return len(self._waiters)

    def awaited(self, kind: str) -> list[Any]:
        """The subjects of a kind that somebody waits for."""
        with self._lock:
            return [key[1] for key in self._waiters if key[0] == kind]

    def close(self) -> None:
        """Wake everybody, and everybody who comes later: the engine stops."""
        with self._lock:
            self._closed = True
            waiters = [waiter for found in self._waiters.values() for waiter in found]
        for waiter in waiters:
            waiter.fire(always=True)
