"""One simulated process: a real engine whose threads, loop, journal thread and store belong to the world.

The plans, the production drivers that carry them out, the SQL, the services and the registry are the real ones.
Replaced are the places where a process meets the machine: the clock, threads and the loop (`virtual`), blocking waits,
and the journal's writer. Every yield of every plan is a point where the process can die or freeze, before and after the
effect is carried out; so is every write to the database.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbos.engine.context import current_context
from dbos.engine.drivers import Drivers
from dbos.engine.engine import Engine
from dbos.engine.journal import Entry, commit_batch, publish, retry_pauses
from dbos.engine.plans import Call, Commit, Effect, Plan
from dbos.engine.registry import Registry
from dbos.engine.signals import Waiter
from dbos.records import Answer, Record, StepCompleted, Verdict
from dbos.storage.store import StoreRefused, StoreUnavailable

from .virtual import Actor, VirtualClock, current_actor

if TYPE_CHECKING:
    from .world import World

# Which simulated process runs this code; tasks and threads inherit it.
process_here: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)

# Store operations that change the database, besides `commit`.
WRITES = {
    "requeue_pending",
    "claim_workflows",
    "dead_letter",
    "cancel_workflows",
    "cancel_overdue",
    "resume_workflows",
}

# The database refuses steps of this name.
POISON = "poison"


class SimulatedCrash(BaseException):
    """The process is dead: nothing it still does may reach the database."""


class Process:
    """An engine on the world's database, and everything that runs in it."""

    def __init__(self, world: World, number: int, registry: Registry) -> None:
        self.world = world
        self.number = number
        self.loop = world.loop
        self.dead = False
        self.died: asyncio.Future[None] = self.loop.create_future()
        self.frozen: asyncio.Future[None] | None = None
        self.clients: list[asyncio.Future[Any]] = []
        self._actors: dict[int, Actor] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}
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
            executor_id="simulated",
            clock=clock,
        )
        engine.workers = SimulatedWorkers(self)
        engine.loops = SimulatedLoops(self)
        engine.journal = SimulatedJournal(self, engine)
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

    def kill(self) -> None:
        """Nothing of this process gets any further."""
        if self.dead:
            return
        self.dead = True
        if not self.died.done():
            self.died.set_result(None)
        self.thaw()
        for future in list(self._blocked):
            if not future.done():
                future.set_exception(SimulatedCrash())
        for task in list(self._tasks):
            task.cancel()

    async def gone(self) -> None:
        """Wait until the last thread and task of the dead process has ended."""
        while self._actors or self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0.001)

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
        if self.world.faults.crashes(number):
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
        frozen.add_done_callback(lambda _: _resolve(own))
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

    def run_task(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context | None = None) -> asyncio.Future[Any]:
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
        self._tasks[task] = None
        task.add_done_callback(lambda _: self._tasks.pop(task, None))
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
        timer = self.loop.call_later(seconds, _resolve, future)
        try:
            self.block_on(future)
        finally:
            timer.cancel()


class SimulatedDrivers(Drivers):
    """The production drivers, with a point before and after each yield and blocking waits in virtual time."""

    def __init__(self, process: Process, *parts: Any) -> None:
        super().__init__(*parts)
        self._process = process

    def drive(self, plan: Plan[Any]) -> Any:
        return super().drive(self._with_points(plan, is_async=False))

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
                if given is Verdict.FENCED and isinstance(effect, Commit):
                    process.world.note_fenced(effect.record)
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
        timer = None if seconds is None else loop.call_later(seconds, _resolve, future)
        if waiter.install(lambda: _resolve(future)):
            self._process.block_on(future)
            waiter.install(None)
        if timer is not None:
            timer.cancel()
        return waiter.fired

    def _seconds_until(self, until_ms: int | None) -> float | None:
        return None if until_ms is None else max(0.0, (until_ms - self._clock.now_ms()) / 1000)


class SimulatedJournal:
    """The journal with a simulated writer thread, which chooses its moments and the size of its batches."""

    def __init__(self, process: Process, engine: Engine) -> None:
        self._process = process
        self._engine = engine
        self._pending: deque[Entry] = deque()
        self._work = SimulatedEvent(process)

    def start(self) -> None:
        self._process.spawn(self._run)

    def commit(self, record: Record) -> Answer:
        if current_actor() is None:
            # A sync operation on the event loop: it blocks the loop, so nobody else runs meanwhile.
            entry = Entry(record)
            self._settle([entry])
            return entry.result()
        entry = self._append(record)
        assert entry.future is not None
        self._process.block_on(entry.future)
        return entry.result()

    async def commit_async(self, record: Record) -> Answer:
        entry = self._append(record)
        assert entry.future is not None
        await entry.future
        return entry.result()

    def _append(self, record: Record) -> Entry:
        entry = Entry(record)
        entry.future = self._process.loop.create_future()
        self._pending.append(entry)
        self._work.set()
        return entry

    def _run(self) -> None:
        faults = self._process.world.faults
        while True:
            self._work.wait(None)
            self._work.clear()
            while self._pending:
                self._process.nap(faults.commit_seconds())
                size = faults.batch_size(len(self._pending))
                self._settle([self._pending.popleft() for _ in range(size)])

    def _settle(self, batch: Sequence[Entry]) -> None:
        commit_batch(self._engine.store, batch, self._process.nap)
        publish(batch, self._engine.signals)
        for entry in batch:
            if entry.future is not None:
                _resolve(entry.future)


class FaultyStore:
    """The real store as one process sees it: it may not answer, answer late, or lose the answer."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.world.database.store
        self.backend = self._store.backend

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        answers: list[Answer] = self._change("commit", lambda: self._commit(records))
        return answers

    def _commit(self, records: Sequence[Record]) -> list[Answer]:
        world = self._process.world
        owned = {_target(record) for record in records if world.database.may_write(record)}
        fenced = [record for record in records if _target(record) not in owned]
        before = [world.database.trace(record) for record in fenced]
        if any(getattr(record, "name", None) == POISON for record in records):
            raise StoreRefused("simulated: a text that the database cannot hold")
        losers = [record for record in records if not world.database.may_write(record)]
        answers = self._store.commit(records)
        for record, answer in zip(records, answers):
            if record in losers and not _stops(record, answer):
                world.violate(f"{record!r} by {self._process} was answered {answer}, but its execution is fenced")
        for record, trace in zip(fenced, before):
            if world.database.trace(record) != trace:
                world.violate(f"{record!r} was written by {self._process}, which does not own the workflow")
        return answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._store, name)
        if name in WRITES:

            def change(*args: Any, **kwargs: Any) -> Any:
                answer = operation(*args, **kwargs)
                if name == "requeue_pending":
                    self._process.world.note_requeued(answer)
                elif name == "resume_workflows":
                    self._process.world.note_requeued(args[0])
                return answer

            return lambda *args, **kwargs: self._change(name, lambda: change(*args, **kwargs))
        return lambda *args, **kwargs: self._read(lambda: operation(*args, **kwargs))

    def _read(self, operation: Callable[[], Any]) -> Any:
        process = self._process
        process.wait_while_frozen()
        if process.dead:
            raise SimulatedCrash()
        if current_actor() is not None and process.world.faults.unavailable():
            raise StoreUnavailable("simulated: no answer")
        return operation()

    def _change(self, name: str, operation: Callable[[], Any]) -> Any:
        process, faults = self._process, self._process.world.faults
        process.wait_while_frozen()
        point = process.pass_point(f"before {name}")
        process.wait_while_frozen()
        if current_actor() is not None and faults.unavailable():
            raise StoreUnavailable("simulated: connection lost before the write")
        changes = process.world.database.connection.total_changes
        answer = operation()
        if process.world.database.connection.total_changes == changes:
            # Services look again and again; a look that found nothing to do is no place worth a crash.
            process.world.points[point] = f"idle {name}"
            return answer
        process.pass_point(f"after {name}")
        process.wait_while_frozen()
        if current_actor() is not None and faults.answer_lost():
            raise StoreUnavailable("simulated: connection lost after the write")
        return answer


def _stops(record: Record, answer: Answer) -> bool:
    """Whether the answer tells an execution that it lost its workflow. Two answers may not: the same outcome as the
    recorded one, and a child that an earlier try created, which is executed."""
    return answer is Verdict.FENCED or (answer is Verdict.APPLIED and not isinstance(record, StepCompleted))


def _target(record: Record) -> tuple[Any, ...]:
    """What a record writes; two executions of one workflow may write the same in one batch."""
    return type(record), record.workflow_id, getattr(record, "step_id", None)


class SimulatedWorkers:
    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, job: Callable[[], None]) -> None:
        self._process.spawn(job)

    def free_slots(self) -> int | None:
        return None

    @contextmanager
    def idle(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        pass


class SimulatedLoops:
    def __init__(self, process: Process) -> None:
        self._process = process

    def adopt_running(self) -> None:
        pass

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        return self._process.run_task(coroutine, contextvars.copy_context())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._process.block_on(self.submit(coroutine))

    async def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._process.spawn(lambda: function(*args, **kwargs), contextvars.copy_context())


class SimulatedEvent:
    """`threading.Event` in virtual time."""

    # A service that looks every few milliseconds would only make the simulation slow.
    SHORTEST_SECONDS = 1.0

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._set = True
        if self._future is not None:
            _resolve(self._future)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None) -> bool:
        if not self._set:
            self._future = future = self._process.loop.create_future()
            timer = None
            if timeout is not None:
                timer = self._process.loop.call_later(max(timeout, self.SHORTEST_SECONDS), _resolve, future)
            try:
                self._process.block_on(future)
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        return self._set


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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
