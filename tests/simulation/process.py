"""One simulated process: a real engine whose threads, loop, journal thread and store belong to the world.

The plans, the production drivers that carry them out, the SQL, the services and the registry are the real ones.
Replaced are the places where a process meets the machine: the clock, threads and the loop (`virtual`), blocking waits
and the journal's writer (`machine`), the answers of the database (`faulty_store`). Every yield of every plan is a point
where the process can die or freeze, before and after the effect is carried out; so is every write to the database.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from dbos.engine.engine import Engine
from dbos.engine.registry import Registry

from .faulty_store import FaultyStore
from .machine import SimulatedDrivers, SimulatedEvent, SimulatedJournal, SimulatedLoops, SimulatedWorkers
from .virtual import Actor, SimulatedCrash, Stuck, VirtualClock, current_actor, resolve

if TYPE_CHECKING:
    from .world import World

# Which simulated process runs this code; tasks and threads inherit it.
process_here: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """An engine on the world's database, and everything that runs in it."""

    def __init__(self, world: World, number: int, registry: Registry, executor_id: str = "simulated") -> None:
        self.world = world
        self.number = number
        self.executor_id = executor_id
        # What others know it by, once it has launched.
        self.name: str | None = None
        # Whether it has ever run beside another one.
        self.has_company = False
        # It dies at this point of its own, counted from 1.
        self.dies_at: int | None = None
        self._points = 0
        self.loop = world.loop
        self.dead = False
        self.died: asyncio.Future[None] = self.loop.create_future()
        self.frozen: asyncio.Future[None] | None = None
        self.clients: list[asyncio.Future[Any]] = []
        self._actors: dict[int, Actor] = {}
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._blocked: dict[asyncio.Future[Any], None] = {}
        self.engine = self._make_engine(registry)

    def __repr__(self) -> str:
        return f"Process({self.number}{', dead' if self.dead else ''})"

    def _make_engine(self, registry: Registry) -> Engine:
        store: Any = FaultyStore(self)
        clock = VirtualClock(self.loop)
        engine: Any = Engine(
            self.world.settings,
            registry,
            store,
            application_version="v1",
            executor_id=self.executor_id,
            clock=clock,
        )
        engine.workers = SimulatedWorkers(self)
        engine.loops = SimulatedLoops(self)
        engine.journal = SimulatedJournal(self, store, engine.signals)
        engine.drivers = SimulatedDrivers(self, store, engine.journal, clock, engine.workers, engine.loops)
        for service in engine.services:
            service._wake = SimulatedEvent(self)
            service.start = lambda run=service._run: self.spawn(run)
        result: Engine = engine
        return result

    # --- life

    def start(self) -> asyncio.Future[Any]:
        """Recover and start the services, in a thread of the process, as a launch does."""
        return self.spawn(self.engine.start)

    def join(self, name: str) -> None:
        """From now on others see that it is alive, until it dies or loses its connection."""
        self.name = name
        self.world.living.add(name)

    def seem_dead(self) -> None:
        """The connection that shows others that it is alive is lost."""
        if self.name is not None:
            self.world.living.discard(self.name)

    def seem_alive(self) -> None:
        """It has that connection again."""
        if self.name is not None and not self.dead:
            self.world.living.add(self.name)

    def kill(self) -> None:
        """Nothing of this process gets any further."""
        if self.dead:
            return
        self.dead = True
        self.seem_dead()
        if not self.died.done():
            self.died.set_result(None)
        self.thaw()
        for future in list(self._blocked):
            if not future.done():
                future.set_exception(SimulatedCrash())
        for task in list(self.tasks):
            task.cancel()

    async def gone(self) -> None:
        """Wait until the last thread and task of the dead process has ended."""
        for _ in range(1000):
            if not self._actors and not self.tasks:
                return
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0.01)
        raise Stuck(f"{self} does not end: {list(self.tasks)}, {len(self._actors)} threads")

    def freeze(self) -> None:
        """Everything in this process stops at its next point, for an unknown time."""
        if self.frozen is None and not self.dead:
            self.frozen = self.loop.create_future()
            self.world.froze.set()

    def thaw(self) -> None:
        frozen, self.frozen = self.frozen, None
        if frozen is not None and not frozen.done():
            frozen.set_result(None)

    # --- points

    def pass_point(self, label: str) -> int:
        """Die or freeze here, if that is the plan; the number of the point."""
        if self.dead:
            raise SimulatedCrash()
        number = self.world.count_point(label)
        if self.world.faults.freezes(number):
            self.freeze()
        self._points += 1
        if self._points == self.dies_at or self.world.faults.crashes(number):
            self.world.note_crash()
            self.kill()
            raise SimulatedCrash()
        return number

    def wait_while_frozen(self) -> None:
        """In a thread: stop while the process is frozen."""
        while self.frozen is not None and current_actor() is not None:
            self.block_on(self._thawing(self.frozen))

    async def wait_while_frozen_async(self) -> None:
        while self.frozen is not None:
            await self._thawing(self.frozen)

    def _thawing(self, frozen: asyncio.Future[None]) -> asyncio.Future[None]:
        """A future of its own for each waiter, since waiters may be cancelled one by one."""
        own: asyncio.Future[None] = self.loop.create_future()
        frozen.add_done_callback(lambda _: resolve(own))
        return own

    # --- threads and tasks

    def spawn(self, function: Callable[[], Any], context: contextvars.Context | None = None) -> asyncio.Future[Any]:
        """Run a function in a thread of this process; a future of its result."""
        if self.dead:
            raise SimulatedCrash()
        if context is None:
            context = contextvars.Context()
            context.run(process_here.set, self)
        actor = Actor(self.loop, function, context)
        self._actors[id(actor)] = actor
        actor.result.add_done_callback(lambda _: self._actors.pop(id(actor), None))
        actor.start(self.world.faults.latency_seconds())
        return actor.result

    def run_task(
        self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
    ) -> asyncio.Future[Any]:
        """Run a coroutine as a task of this process."""
        if context is None:
            context = contextvars.Context()
        context.run(process_here.set, self)
        result: asyncio.Future[Any] = self.loop.create_future()

        def begin() -> None:
            task = self.loop.create_task(coroutine)
            task.add_done_callback(lambda _: _copy_result(task, result))

        self.loop.call_soon(begin, context=context)
        return result

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Called for every task that code of this process creates."""
        self.tasks[task] = None
        task.add_done_callback(lambda _: self.tasks.pop(task, None))
        if self.dead:
            task.cancel()

    def block_on(self, future: asyncio.Future[Any]) -> Any:
        """In a thread: let others run until the future is done."""
        actor = current_actor()
        assert actor is not None, "the event loop may not be blocked"
        if self.dead:
            raise SimulatedCrash()
        self._blocked[future] = None
        try:
            actor.wait(future, self.world.faults.latency_seconds())
        finally:
            self._blocked.pop(future, None)
        if self.dead:
            raise SimulatedCrash()
        return future.result()

    def nap(self, seconds: float) -> None:
        """In a thread: let virtual time pass. On the event loop, which may not wait, none passes."""
        if current_actor() is None:
            return
        future: asyncio.Future[None] = self.loop.create_future()
        timer = self.loop.call_later(seconds, resolve, future)
        try:
            self.block_on(future)
        finally:
            timer.cancel()


def _copy_result(task: asyncio.Future[Any], result: asyncio.Future[Any]) -> None:
    if result.done():
        return
    if task.cancelled():
        result.cancel()
        return
    error = task.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(task.result())
