"""Virtual time: an event loop whose clock jumps to the next timer, and threads that run one at a time.

Everything of a simulated world happens on one event loop. Async code runs on it as usual. Sync code runs in real
threads, but a thread runs only while the loop's thread waits for it (passing the baton), from one wait to the next.
So exactly one thing happens at a time, in an order that depends on nothing but the seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from dbos.engine.clock import Clock

EPOCH_MS = 1_750_000_000_000
# A world that is not at its end by then waits for something that never happens.
LONGEST_SECONDS = 20_000.0


class Stuck(Exception):
    """Nothing is left that could happen, or the end never comes."""


class SimulatedCrash(BaseException):
    """The process is dead: nothing it still does may reach the database."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without files and without waiting: `select` moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.limit_seconds = LONGEST_SECONDS
        self._selector = self  # BaseEventLoop asks its selector how long to sleep.
        self._clock_resolution = 1e-6
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self.seconds

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits, and no timer is set")
        if timeout > 0:
            self.seconds += timeout
            if self.seconds > self.limit_seconds:
                raise Stuck(f"not finished after {self.limit_seconds:.0f} virtual seconds")
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualClock(Clock):
    """The engine's clock, on the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.seconds * 1000)

    def now(self) -> float:
        return EPOCH_MS / 1000 + self._loop.seconds


_here = threading.local()
# Threads that have ended their work; starting a new one takes longer than most of what they do.
_idle: list[_Thread] = []


class _Thread:
    """A thread that runs one function after the other."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._function: Callable[[], None] = lambda: None
        threading.Thread(target=self._main, name="simulated", daemon=True).start()

    def run(self, function: Callable[[], None]) -> None:
        self._function = function
        self._gate.release()

    def _main(self) -> None:
        while True:
            self._gate.acquire()
            self._function()


def current_actor() -> Actor | None:
    """The simulated thread this code runs in; None on the event loop."""
    return getattr(_here, "actor", None)


class Actor:
    """One simulated thread."""

    def __init__(self, loop: VirtualLoop, function: Callable[[], Any], context: contextvars.Context) -> None:
        self._loop = loop
        self._function = function
        self._context = context
        # Locks as gates, closed at first: the thread's turn, and the loop's turn again.
        self._turn = threading.Lock()
        self._back = threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self.result: asyncio.Future[Any] = loop.create_future()

    def start(self, delay_seconds: float) -> None:
        def begin() -> None:
            self._thread = _idle.pop() if _idle else _Thread()
            self._thread.run(self._main)
            self._resume()

        if delay_seconds > 0:
            self._loop.call_later(delay_seconds, begin)
        else:
            self._loop.call_soon(begin)

    def wait(self, future: asyncio.Future[Any], delay_seconds: float = 0.0) -> None:
        """Let others run until the future is done, and then so much longer until this thread gets its turn."""
        if not future.done():
            future.add_done_callback(lambda _: self._resume_after(delay_seconds))
        else:
            self._resume_after(delay_seconds)
        self._back.release()
        self._turn.acquire()

    def _resume_after(self, delay_seconds: float) -> None:
        if delay_seconds > 0:
            self._loop.call_later(delay_seconds, self._resume)
        else:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """On the loop: let the thread run until it waits or ends."""
        self._turn.release()
        self._back.acquire()

    def _main(self) -> None:
        _here.actor = self
        self._turn.acquire()
        value, error = None, None
        try:
            value = self._context.run(self._function)
        except BaseException as raised:
            error = raised
        if not self.result.done():
            if error is None:
                self.result.set_result(value)
            else:
                if isinstance(error, (StopIteration, KeyboardInterrupt, SystemExit)):
                    error = RuntimeError(f"a simulated thread ended with {error!r}")
                self.result.set_exception(error)
        _here.actor = None
        _idle.append(self._thread)
        self._back.release()


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
