"""What stands between an engine and the machine, in virtual time: drivers, journal writer, threads, loops, events."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from dbos.engine.context import current_context
from dbos.engine.drivers import Drivers
from dbos.engine.journal import Entry, Journal, commit_batch, publish, retry_pauses
from dbos.engine.plans import Call, Commit, Effect, Plan
from dbos.engine.signals import Signals, Waiter
from dbos.engine.workers import Loops, Workers
from dbos.records import Answer, Record
from dbos.storage.store import StoreUnavailable

from .virtual import SimulatedCrash, current_actor, resolve

if TYPE_CHECKING:
    from .process import Process


class SimulatedDrivers(Drivers):
    """The production drivers, with a point before and after each yield and blocking waits in virtual time."""

    def __init__(self, process: Process, *parts: Any) -> None:
        super().__init__(*parts)
        self._process = process

    def drive(self, plan: Plan[Any]) -> Any:
        return super().drive(self._with_points(plan, is_async=False))

    def drive_in_background(self, plan: Plan[Any], end: Any) -> None:
        super().drive_in_background(self._with_points(plan, is_async=False), end)

    async def drive_async(self, plan: Plan[Any]) -> Any:
        return await super().drive_async(self._with_points(plan, is_async=True))

    def _with_points(self, plan: Plan[Any], *, is_async: bool) -> Plan[Any]:
        process = self._process
        step: Callable[[Any], Effect] = plan.send
        given: Any = None
        while True:
            try:
                effect = step(given)
            except StopIteration as stop:
                return stop.value
            label = f"{plan.__name__} {type(effect).__name__}"
            try:
                if type(effect) is Call:
                    process.world.note_intention(current_context())
                if process.frozen is not None:
                    yield self._thaw(is_async)
                process.pass_point(f"before {label}")
                if process.frozen is not None:
                    yield self._thaw(is_async)
                if type(effect) is Call:
                    process.world.note_call(process, current_context())
                given = yield effect
                step = plan.send
                if isinstance(effect, Commit):
                    process.world.note_answer(effect.record, given)
                process.pass_point(f"after {label}")
                if process.frozen is not None:
                    yield self._thaw(is_async)
            except GeneratorExit:
                plan.close()
                raise
            except BaseException as error:
                # The death of the process outdoes whatever happened at the same time.
                given = SimulatedCrash() if process.dead else error
                step = plan.throw

    def _thaw(self, is_async: bool) -> Call:
        if is_async:
            return Call(self._process.wait_while_frozen_async, is_async=True)
        return Call(self._process.wait_while_frozen)

    def read(self, query: Callable[[Any], Any]) -> Any:
        pauses = retry_pauses()
        while True:
            try:
                return query(self._store)
            except StoreUnavailable:
                self._process.nap(next(pauses))

    def _sleep(self, waiter: Waiter, seconds: float | None) -> bool:
        loop = self._process.loop
        future: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, resolve, future)
        if waiter.install(lambda: resolve(future)):
            self._process.block_on(future)
            waiter.install(None)
        if timer is not None:
            timer.cancel()
        return waiter.fired

    def _seconds_until(self, until_ms: int | None) -> float | None:
        return None if until_ms is None else max(0.0, (until_ms - self._clock.now_ms()) / 1000)


class SimulatedJournal(Journal):
    """The journal with a simulated writer thread, which chooses its moments and the size of its batches."""

    def __init__(self, process: Process, store: Any, signals: Signals) -> None:
        super().__init__(store, signals)
        self._process = process
        self._queue: deque[Entry] = deque()
        self._more = SimulatedEvent(process)

    def start(self) -> None:
        self._process.spawn(self._write)

    def commit(self, record: Record) -> Answer:
        if current_actor() is None:
            # A sync operation on the event loop: it blocks the loop, so nobody else runs meanwhile.
            entry = Entry(record)
            self._settle([entry])
            return entry.result()
        entry = Entry(record)
        entry.future = self._process.loop.create_future()
        self._hand_over(entry)
        self._process.block_on(entry.future)
        return entry.result()

    async def commit_async(self, record: Record) -> Answer:
        entry = Entry(record)
        entry.future = self._process.loop.create_future()
        self._hand_over(entry)
        await entry.future
        return entry.result()

    def commit_later(self, record: Record, then: Callable[[Entry], None]) -> None:
        entry = Entry(record)
        entry.then = then
        self._hand_over(entry)

    def _hand_over(self, entry: Entry) -> None:
        self._queue.append(entry)
        self._more.set()

    def _write(self) -> None:
        faults = self._process.world.faults
        while True:
            self._more.wait(None)
            self._more.clear()
            while self._queue:
                self._process.nap(faults.commit_seconds())
                size = faults.batch_size(len(self._queue))
                self._settle([self._queue.popleft() for _ in range(size)])

    def _settle(self, batch: Sequence[Entry]) -> None:
        commit_batch(self._store, batch, self._process.nap)
        publish(batch, self._signals)
        for entry in batch:
            if entry.future is not None:
                resolve(entry.future)
        for entry in batch:
            if entry.then is not None:
                entry.then(entry)


class SimulatedWorkers(Workers):
    """The thread pool of a process, without limit."""

    def __init__(self, process: Process) -> None:
        super().__init__(None)
        self._process = process

    def submit(self, job: Callable[[], None]) -> None:
        self._process.spawn(job)


class SimulatedLoops(Loops):
    """Every loop of every process is the world's."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def adopt_running(self) -> None:
        pass

    def main(self) -> asyncio.AbstractEventLoop:
        return self._process.loop

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._process.run_task(coroutine, contextvars.copy_context())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._process.block_on(self.submit(coroutine))

    async def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._process.spawn(lambda: function(*args, **kwargs), contextvars.copy_context())


class SimulatedEvent:
    """`threading.Event` in virtual time."""

    # Services that look every second, or every few milliseconds, would only make the simulation slow. What is due
    # wakes them; only what other processes did is noticed later.
    SHORTEST_SECONDS = 4.0

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._set = True
        if self._future is not None:
            resolve(self._future)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None) -> bool:
        if not self._set:
            self._future = future = self._process.loop.create_future()
            timer = None
            if timeout is not None:
                timer = self._process.loop.call_later(max(timeout, self.SHORTEST_SECONDS), resolve, future)
            try:
                self._process.block_on(future)
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        return self._set
