"""A simulated world: one database, one process after the other (or beside it), and what is observed of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.api.runtime import state
from dbos.config import resolve
from dbos.engine.context import Context
from dbos.engine.engine import Engine
from dbos.engine.registry import Registry
from dbos.records import EFFECT_TYPES, Answer, Record, StepCompleted, Verdict, WorkflowStarted
from dbos.storage.once import Once

from .database import STREAM_OF_STEPS, SimulatedDatabase
from .faults import Faults
from .process import Process, process_here
from .virtual import EPOCH_MS, SimulatedCrash, Stuck, VirtualLoop

_settings = None


def _shared_settings() -> Any:
    global _settings
    if _settings is None:
        _settings = resolve({"name": "simulated", "system_database_url": "sqlite:///unused.sqlite"})
    return _settings


@dataclass(frozen=True)
class Root:
    """A workflow that a client starts: its function by registered name, its id and arguments."""

    name: str
    workflow_id: str
    args: tuple[Any, ...] = ()
    in_background: bool = False
    timeout_seconds: float | None = None


@dataclass
class Scenario:
    """Workflows and who starts them.

    `define` decorates the functions, for each version of the code; a process started after a crash has the next
    version. Values of the steps named in `unstable_steps` depend on time or order and are not compared.
    """

    name: str
    define: Callable[[int], dict[str, Callable[..., Any]]]
    roots: list[Root]
    expected: dict[str, Any]
    versions: int = 1
    unstable_steps: frozenset[str] = frozenset({"DBOS.sleep"})
    resumes: int = 0
    _built: dict[int, tuple[Registry, dict[str, Callable[..., Any]]]] = field(default_factory=dict)

    def build(self, version: int) -> tuple[Registry, dict[str, Callable[..., Any]]]:
        """The registry of one version of the code, and its functions by name."""
        version = min(version, self.versions - 1)
        if version not in self._built:
            previous, state.registry = state.registry, Registry()
            try:
                self._built[version] = (state.registry, self.define(version))
            finally:
                state.registry = previous
        return self._built[version]


@dataclass
class Result:
    """What a run leaves behind."""

    statuses: dict[str, str]
    outcomes: dict[str, tuple[Any, ...]]
    steps: dict[tuple[str, int], tuple[Any, ...]]
    effects: dict[str, list[tuple[Any, ...]]]
    delivered: dict[str, list[tuple[str, str]]]
    points: list[str]
    crashes: int
    recorded_at_crash: set[tuple[str, int, str]]
    violations: list[str]


class World:
    """Everything a run needs. `run` is used once."""

    def __init__(self, scenario: Scenario, faults: Faults, *, seed: int = 0, first_version: int = 0) -> None:
        self.scenario = scenario
        self.faults = faults
        self.settings = _shared_settings()
        self.loop = loop = VirtualLoop()
        self.loop.set_task_factory(_make_task)
        self.database = SimulatedDatabase(lambda: EPOCH_MS + int(loop.seconds * 1000))
        self.froze = asyncio.Event()
        self.crashes = 0
        self.handovers = 0
        # The names of the processes that others see to be alive.
        self.living: set[str] = set()
        # Workflows handed back because their process was gone, while another one ran.
        self.taken_over = 0
        # Changes from outside that were made.
        self.done: list[Once] = []
        self.points: list[str] = []
        self.violations: list[str] = []
        self._version = first_version
        self._recorded_at_crash: set[tuple[str, int, str]] = set()
        self._launched_at_ms = 0
        self._fenced: set[tuple[str, str]] = set()
        self._seed = seed
        self._calls: Counter[tuple[str, int, int]] = Counter()
        self._requeued: Counter[str] = Counter()
        self._delivered: dict[str, list[tuple[str, str]]] = {}
        self._processes: list[Process] = []
        self._registry = Registry()
        self._functions: dict[str, Callable[..., Any]] = {}

    # --- observing

    def count_point(self, label: str) -> int:
        self.points.append(label)
        return len(self.points) - 1

    def violate(self, text: str) -> None:
        self.violations.append(f"{text} (at {self.loop.seconds:.3f} s, point {len(self.points) - 1})")

    def note_crash(self) -> None:
        self.crashes += 1
        self._recorded_at_crash = set(
            self.database.rows("SELECT workflow_uuid, function_id, function_name FROM operation_outputs")
        )

    def note_answer(self, record: Record, answer: Answer) -> None:
        """An execution goes on with the answer to a record: durable by now, or fenced."""
        if answer is Verdict.APPLIED and not self._is_durable(record):
            self.violate(f"{record!r} was answered before it was durable")
        if answer is not Verdict.FENCED:
            return
        if not isinstance(record, WorkflowStarted):
            self._fenced.add((record.workflow_id, record.owner_token))
        elif record.parent is not None:
            self._fenced.add((record.parent.workflow_id, record.parent.owner_token))

    def _is_durable(self, record: Record) -> bool:
        if self.database.holds(record):
            return True
        # Or it was, and a workflow that rewinds others has taken it back since.
        return isinstance(record, (StepCompleted, *EFFECT_TYPES)) and not self.database.may_write(record)

    @property
    def fenced_executions(self) -> int:
        return len(self._fenced)

    def note_intention(self, context: Context | None) -> None:
        """An execution has decided to run user code: not once it knows that it lost its workflow."""
        execution = context.execution if context is not None else None
        if execution is not None and (execution.workflow_id, execution.owner_token) in self._fenced:
            self.violate(f"{execution} goes on after it was fenced")

    def note_call(self, process: Process, context: Context | None) -> None:
        """User code is about to run: never for a step that this owner has recorded, and not too often."""
        if context is None or context.execution is None:
            return
        execution, status = context.execution, context.step_status
        workflow_id = execution.workflow_id
        if status is None:
            step_id, attempt = 0, 0
        else:
            step_id, attempt = status.step_id, status.current_attempt or 0
            owns = self.database.owner(workflow_id) == execution.owner_token
            if owns and self.database.has_step(workflow_id, step_id):
                self.violate(f"step {step_id} of {workflow_id} is recorded and was executed again")
        key = (workflow_id, step_id, attempt)
        self._calls[key] += 1
        if self._calls[key] > 1 + self._requeued[workflow_id]:
            self.violate(f"{key} was executed more often than once for each time its workflow was handed over")
        # A resume that was not recorded when the process died is done again.
        if self.faults.is_punctual and self._calls[key] > (1 + self.crashes) * (1 + self.scenario.resumes):
            self.violate(f"{key} was executed {self._calls[key]} times, after {self.crashes} crashes")

    def note_requeued(self, workflow_ids: Sequence[str]) -> None:
        """Whoever executes these workflows has lost them."""
        self._requeued.update(workflow_ids)

    # --- running

    def run(self) -> Result:
        """From the first start to the end of every workflow, through whatever the faults bring."""
        return self._run(self._run_to_the_end())

    def run_two(self, takeover_after: float, thaw_after: float) -> Result:
        """Freeze the first process where the faults say, let a second take over, then let the first go on."""
        return self._run(self._run_takeover(takeover_after, thaw_after))

    def run_beside(self, dies_at: int) -> Result:
        """Two processes with different executor ids; the first dies at a point of its own, and nobody replaces it."""
        return self._run(self._run_survivor(dies_at))

    def _run(self, main: Any) -> Result:
        with _simulated_state(self), _errors_watched(self):
            random.seed(self._seed)
            try:
                self.loop.run_until_complete(main)
                return self._collect()
            except Stuck as stuck:
                unfinished = ", ".join(self.database.unfinished())
                raise Stuck(f"{stuck}; unfinished: {unfinished}; {self.violations}") from None
            finally:
                try:
                    self.loop.limit_seconds = float("inf")
                    self.loop.run_until_complete(self._end())
                finally:
                    self.loop.close()
                    self.database.close()

    async def _run_to_the_end(self, *others: Process) -> None:
        """Wait until everything is finished; where a process dies, a new one takes its place."""
        processes = list(others) or [self._launch()]
        while True:
            settled = self.loop.create_task(self._settle(processes))
            await asyncio.wait([settled, *(process.died for process in processes)], return_when=asyncio.FIRST_COMPLETED)
            dead = [process for process in processes if process.dead]
            if not dead:
                await settled
                return
            settled.cancel()
            for process in dead:
                await process.gone()
                processes.remove(process)
            if self.faults.downtime_seconds:
                await asyncio.sleep(self.faults.downtime_seconds)
            if not self.handovers:
                # Processes beside each other run the same code.
                self._version += 1
            processes.append(self._launch())

    async def _run_takeover(self, takeover_after: float, thaw_after: float) -> None:
        first = self._launch()
        settled = self.loop.create_task(self._settle([first]))
        froze = self.loop.create_task(self.froze.wait())
        await asyncio.wait([settled, froze, first.died], return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        froze.cancel()
        if first.frozen is None:
            # It has ended or died before that point, which its successor must not meet.
            self.faults.freeze_at = None
            await self._run_to_the_end(first)
            return
        await asyncio.sleep(takeover_after)
        self.handovers += 1
        # A process that stands still is alive. Only if others lose sight of it as well do they take it for dead.
        first.seem_dead()
        second = self._launch()
        await asyncio.sleep(thaw_after)
        first.seem_alive()
        first.thaw()
        await self._run_to_the_end(first, second)

    async def _run_survivor(self, dies_at: int) -> None:
        first = self._launch("first")
        first.dies_at = dies_at
        second = self._launch("second")
        # Also when the first dies before its clients have asked: those of the second ask for the same.
        await self._settle([second])
        if not first.dead:
            await self._settle([first])

    def _launch(self, executor_id: str = "simulated") -> Process:
        """A new process: it recovers, and the clients ask again for what they asked before."""
        registry, self._functions = self.scenario.build(self._version)
        self._registry = registry
        self._launched_at_ms = self.database.store._db.now_ms()
        state.registry = registry
        process = Process(self, len(self._processes), registry, executor_id)
        for other in self._processes:
            if not other.dead:
                other.has_company = process.has_company = True
        self._processes.append(process)
        started = process.start()
        process.clients = [self._start_client(process, started, root) for root in self.scenario.roots]
        return process

    def _start_client(self, process: Process, started: asyncio.Future[Any], root: Root) -> asyncio.Future[Any]:
        function = self._functions[root.name]
        info = self._registry.workflows.get(root.name)

        async def call() -> Any:
            await asyncio.wait([started])
            if info is not None and info.is_async:
                with SetWorkflowTimeout(root.timeout_seconds), SetWorkflowID(root.workflow_id):
                    if root.in_background:
                        handle = await DBOS.start_workflow_async(function, *root.args)
                        return await handle.get_result()
                    return await function(*root.args)
            return await process.spawn(call_blocking)

        def call_blocking() -> Any:
            with SetWorkflowTimeout(root.timeout_seconds), SetWorkflowID(root.workflow_id):
                if root.in_background:
                    return DBOS.start_workflow(function, *root.args).get_result()
                return function(*root.args)

        async def deliver() -> None:
            try:
                outcome = ("value", repr(await call()))
            except Exception as error:
                outcome = ("error", f"{type(error).__name__}: {error}")
            if not process.dead:
                self._delivered.setdefault(root.workflow_id, []).append(outcome)

        return process.run_task(deliver())

    async def _settle(self, processes: list[Process]) -> None:
        """Wait until the clients have their answers and no workflow is left unfinished."""
        await asyncio.wait([client for process in processes for client in process.clients])
        while self.database.unfinished():
            await asyncio.sleep(0.5)

    async def _end(self) -> None:
        # What the world itself still does comes first: it would replace the processes that are killed.
        killed = {task for process in self._processes for task in process.tasks}
        others = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)} - killed
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            await process.gone()

    def _check_sleeps(self) -> None:
        """What follows a sleep begins at the time first planned; late only if no process was there to wake up."""
        rows = self.database.rows(
            "SELECT s.workflow_uuid, s.output, n.started_at_epoch_ms FROM operation_outputs AS s "
            "JOIN operation_outputs AS n ON n.workflow_uuid = s.workflow_uuid AND n.function_id = s.function_id + 1 "
            "WHERE s.function_name = 'DBOS.sleep' AND NOT EXISTS ("
            # The deadline of a wait has the id behind that of the wait.
            "SELECT 1 FROM operation_outputs AS w WHERE w.workflow_uuid = s.workflow_uuid "
            "AND w.function_id = s.function_id - 1 AND w.function_name IN ('DBOS.getEvent', 'DBOS.recv'))"
        )
        for workflow_id, wake_at, next_ms in rows:
            planned_ms = float(wake_at) * 1000
            latest_ms = max(planned_ms, self._launched_at_ms) + 50
            if next_ms < int(planned_ms) or (self.faults.is_punctual and next_ms > latest_ms):
                self.violate(f"{workflow_id} should have slept until {planned_ms:.0f} ms and woke at {next_ms} ms")

    def _check_streams(self) -> None:
        """No stream has a gap, and no write in a step has left more than one entry."""
        for stream, entries in self.database.stream_values().items():
            if [offset for offset, _ in entries] != list(range(len(entries))):
                self.violate(f"stream {stream} has the offsets {[offset for offset, _ in entries]}")
            if stream[1] == STREAM_OF_STEPS:
                text = " ".join(str(value) for _, value in entries)
                numbers = [value for _, value in entries if value != "."]
                if len(numbers) != len(set(numbers)) or ". . ." in text:
                    self.violate(f"stream {stream} has entries twice: {text}")

    def _collect(self) -> Result:
        self._check_sleeps()
        self._check_streams()
        violations = self.violations + [row[0] for row in self.database.rows("SELECT text FROM violations")]
        statuses = dict(self.database.rows("SELECT workflow_uuid, status FROM workflow_status"))
        outputs = self.database.rows("SELECT workflow_uuid, output, error FROM workflow_output")
        steps = self.database.rows(
            "SELECT workflow_uuid, function_id, function_name, output, error, child_workflow_id FROM operation_outputs"
        )
        unstable = self.scenario.unstable_steps
        return Result(
            statuses,
            {row[0]: row[1:] for row in outputs},
            {(row[0], row[1]): (row[2], row[5]) if row[2] in unstable else row[2:] for row in steps},
            self.database.effects(),
            self._delivered,
            self.points,
            self.crashes,
            self._recorded_at_crash,
            violations,
        )


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    process = process_here.get()
    if process is not None:
        process.adopt(task)
    return task


class _Instance:
    """Stands for the launched application: the one of the simulated process that asks."""

    def __init__(self, world: World) -> None:
        self.settings = world.settings

    @property
    def engine(self) -> Engine | None:
        process = process_here.get()
        if process is not None and process.dead:
            raise SimulatedCrash()
        return None if process is None else process.engine


@contextmanager
def _simulated_state(world: World) -> Iterator[None]:
    instance, registry = state.instance, state.registry
    random_state = random.getstate()
    state.instance = _Instance(world)  # type: ignore[assignment]
    # Options are made outside of any engine, so a delay is counted from the time of the machine.
    machine_time = SimpleNamespace(time=lambda: EPOCH_MS / 1000 + world.loop.seconds)
    try:
        with patch("dbos.api.options.time", machine_time), patch("dbos.api.enqueueing.time", machine_time):
            yield
    finally:
        state.instance, state.registry = instance, registry
        random.setstate(random_state)


class _Errors(logging.Handler):
    """Keeps the log quiet, where warnings about retries come by the thousand; an error of the engine is a violation."""

    # What a service met, and a claimed workflow that could not be started: neither may happen here.
    UNEXPECTED = ("The %s service met an error", "Workflow %s could not be started")

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith(self.UNEXPECTED):
            cause = record.exc_info[1] if record.exc_info else None
            self._world.violate(f"{record.getMessage()}: {cause!r}")


@contextmanager
def _errors_watched(world: World) -> Iterator[None]:
    logger = logging.getLogger("dbos")
    handlers, propagates, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [_Errors(world)], False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
        logger.setLevel(level)
