"""The engine of one launched application: store, journal, drivers, services, and the executions it runs."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..config import Settings
from ..error import (
    DBOSException,
    DBOSRecoveryError,
    DBOSWorkflowFunctionNotFoundError,
    MaxRecoveryAttemptsExceededError,
)
from ..ids import new_id, new_process, tokens_of
from ..logs import logger
from ..records import WorkflowFinished
from ..serialization import FORMATS_OF_OTHERS, PORTABLE, explain_unreadable
from ..storage.store import Store
from ..types import ClaimedWorkflow, Schedule, StepRecord
from .arguments import validated_arguments
from .clock import Clock
from .context import Identity
from .core import Core
from .dispatcher import Dispatcher
from .errors import EngineStopped, ExecutionInterrupted
from .execution import STEP_WINDOW, Execution, public_error
from .kafka import Consumers
from .mailbox import Mailbox
from .plans import Commit, Plan
from .registry import Registry, WorkflowInfo
from .scheduler import Scheduler
from .services import Deadlines, Delays
from .starting import Started, Target
from .takeover import Takeover
from .workflows import check_roles, execute_plan, outcome_record

# How long the answer to "is this version the latest?" is used before it is asked again.
LATEST_VERSION_MS = 1000


# So many claimed workflows are started before the other threads get a turn.
DISPATCHED_IN_A_TURN = 8


class Engine(Core):
    """Everything that runs between launch and destroy."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        *,
        application_version: str,
        executor_id: str,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, store, application_name=settings.name, clock=clock)
        self.registry = registry
        self.application_version = application_version
        self.executor_id = executor_id
        # The name of this process, by which others find out whether it is alive; None where they cannot.
        self.process: str | None = None
        # Makes the owner token of an execution.
        self.new_token: Callable[[], str] = new_id
        self.deadlines = Deadlines(self)
        self.dispatcher = Dispatcher(self)
        self.workers.on_free = self.dispatcher.note_thread_free
        self.delays = Delays(self)
        self.scheduler = Scheduler(self)
        self.takeover = Takeover(self)
        self.services = [
            self.deadlines,
            self.delays,
            self.dispatcher,
            self.watcher,
            self.scheduler,
            self.takeover,
            self.listener,
        ]
        self.kafka = Consumers(self)
        # Reentrant, as all locks that destroy() takes: a signal handler may call it on a thread that holds one.
        self._lock = threading.RLock()
        self._executions: dict[str, Execution] = {}
        self._ended = threading.Condition(self._lock)
        self._latest: tuple[int, bool] = (0, True)
        self._promotions = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- life

    def start(self) -> None:
        """Recover what this executor left pending, and start the background services."""
        self.kafka.open(self.registry.kafka_consumers)
        process = new_process()
        if self.store.join(process):
            self.process, self.new_token = process, tokens_of(process)
        self.loops.adopt_running()
        self.journal.start()
        self.signals.on_register = self.watcher.note_waiter
        self.recover()
        for service in self.services:
            service.start()
        self.kafka.start()

    def recover(self) -> int:
        """Hand the pending workflows of this executor and version back to their queues.

        Those stay that a live process executes which was given the same executor id.
        """
        dead = None
        if self.process is not None:
            dead = self.drivers.read(lambda store: store.find_dead(self.find_other_owners(), patient=False))
        count = len(self.requeue_pending(self.executor_id, dead))
        if count:
            logger.info("Recovering %d workflows from application version %s", count, self.application_version)
            self.dispatcher.wake()
        self._report_stranded()
        return count

    def requeue_pending(self, executor_id: str, dead: Sequence[str] | None = None) -> list[str]:
        """Hand the pending workflows of an executor and this version back to their queues; their ids.

        With `dead`, what is owned by a process that is not named there stays with it.
        """
        return self.drivers.read(
            lambda store: store.requeue_pending(executor_id, self.application_version, self.settings.name, dead)
        )

    def find_other_owners(self, function_names: Sequence[str] | None = None) -> list[str]:
        """The other processes, alive or dead, that own running workflows of this version, of these functions or any."""
        owners = self.store.find_owners(self.settings.name, self.application_version, function_names)
        return [owner for owner in owners if owner != self.process]

    def _report_stranded(self) -> None:
        """Say loudly which waiting work this version leaves alone (02 R261)."""
        stranded = self.drivers.read(
            lambda store: store.count_waiting_elsewhere(self.settings.name, self.application_version, self.executor_id)
        )
        for version, status, count in stranded:
            logger.warning(
                "%d %s workflows belong to application version %s and wait for a process of that version; this one "
                "is %s. Set `application_version` to keep a version across code changes",
                count,
                status,
                version,
                self.application_version,
            )

    def stop(self, drain_seconds: float) -> None:
        """Stop taking work, let running workflows finish for up to `drain_seconds`, then cut off the rest.

        Nothing is written for what is cut off: its rows stay PENDING, for other processes or the next launch.
        """
        self.kafka.stop()
        self.dispatcher.stop()
        self.scheduler.stop()
        if drain_seconds > 0:
            self.drain(drain_seconds)
        self.stopping = True
        with self._lock:
            running = list(self._executions.values())
        stopped = EngineStopped()
        for execution in running:
            execution.stop(stopped)
        if running:
            logger.info(
                "%d running workflows are cut off; they continue in another process, or at the next launch: %s",
                len(running),
                ", ".join(execution.workflow_id for execution in running[:20]),
            )
        self.close()

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until no workflow runs in this process; False when the time was up first."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._executions, timeout_seconds)

    # --- executions

    def enter(self, execution: Execution) -> None:
        """An execution begins in this process."""
        with self._lock:
            self._executions[execution.owner_token + execution.workflow_id] = execution
        if execution.queue_name is not None:
            self.dispatcher.note_began(execution.queue_name, execution.partition_key)
        if execution.deadline_ms is not None:
            self.deadlines.add(execution.deadline_ms)
        if self.stopping:
            execution.stop(EngineStopped())

    def leave(self, execution: Execution) -> None:
        """An execution has ended or parked. Safe to repeat."""
        with self._lock:
            was_running = self._executions.pop(execution.owner_token + execution.workflow_id, None)
            if not self._executions:
                self._ended.notify_all()
            if execution.mailboxes is not None:
                for mailbox in execution.mailboxes.values():
                    if mailbox.listens:
                        mailbox.listens = False
                        self.signals.unlisten(mailbox.key)
        if was_running is not None and execution.queue_name is not None:
            self.dispatcher.note_ended(execution.queue_name, execution.partition_key)

    def open_mailbox(self, execution: Execution, mailbox: Mailbox) -> None:
        """Where every message is announced, let the mailbox hear of those that come while the execution runs."""
        if self.store.hears_messages:
            with self._lock:
                if execution.owner_token + execution.workflow_id in self._executions:
                    mailbox.listens = self.signals.listen(mailbox, mailbox.key)

    def running(self) -> list[Execution]:
        with self._lock:
            return list(self._executions.values())

    def soonest_deadline_ms(self) -> int | None:
        with self._lock:
            return min((e.deadline_ms for e in self._executions.values() if e.deadline_ms is not None), default=None)

    # --- what has happened

    def note_cancelled(self, workflow_ids: Sequence[str]) -> None:
        """Workflows were cancelled or deleted in the database: stop their executions here, wake those who wait."""
        if not workflow_ids:
            return
        self.stop_lost(workflow_ids)
        super().note_cancelled(workflow_ids)
        self.note_freed(None)

    def stop_lost(self, workflow_ids: Sequence[str]) -> None:
        ids = set(workflow_ids)
        concerned = [execution for execution in self.running() if execution.workflow_id in ids]
        if not concerned:
            return
        states = self.store.find_states([execution.workflow_id for execution in concerned])
        for execution in concerned:
            status, owner = states.get(execution.workflow_id, (None, None))
            if owner == execution.owner_token or status in ("SUCCESS", "ERROR"):
                continue
            execution.stop(execution.cancelled() if status == "CANCELLED" else execution.fenced())
            self.signals.fire("cancelled", execution.workflow_id)

    def note_queued(self, queue_names: Iterable[str]) -> None:
        self.dispatcher.note_queued(queue_names)

    def note_placed(self, queue_name: str, has_key: bool | None, application_name: str | None) -> None:
        self.dispatcher.warnings.note(queue_name, has_key, application_name)

    def note_delayed(self, due_ms: int) -> None:
        self.delays.add(due_ms)

    def note_rescheduled(self) -> None:
        self.scheduler.look_now()

    def note_reconfigured(self) -> None:
        self.dispatcher.read_configuration_now()

    def note_freed(self, queue_names: Iterable[str] | None) -> None:
        self.dispatcher.note_freed_elsewhere(queue_names)

    def note_promoted(self) -> None:
        self._promotions += 1
        self._latest = (0, True)
        self.dispatcher.look_now()

    def note_changed(self) -> None:
        self.dispatcher.look_now()

    def note_connected(self) -> None:
        self.takeover.note_connected()

    # --- what differs from a client

    @property
    def application_id(self) -> str | None:
        return os.environ.get("DBOS__APPID", "")

    @property
    def serves_queues(self) -> bool:
        return self.dispatcher.serves_queues

    def problem_of(self, schedule: Schedule) -> str | None:
        return self.scheduler.problem(schedule)

    # --- executing

    def launch_in_background(self, started: Started, target: Target) -> None:
        """Execute a started workflow on the pool, or on the main loop when it is async."""
        execution = started.execution
        assert execution is not None
        self.enter(execution)
        try:
            if target.info.is_async:
                execution.completion.loop = self.loops.main()
                # A fresh context: what the caller had set does not reach the workflow.
                contextvars.Context().run(self.loops.submit, self._execute_async(execution, target, started.identity))
            else:
                self.workers.submit(lambda: self._execute(execution, target, started.identity))
        except EngineStopped:
            self.leave(execution)
            raise

    def launch_as_task(self, started: Started, target: Target) -> None:
        """Execute a started workflow as a task of the running loop, kept alive even if its handle is dropped."""
        execution = started.execution
        assert execution is not None
        self.enter(execution)
        task = asyncio.get_running_loop().create_task(self._execute_async(execution, target, started.identity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _execute(self, execution: Execution, target: Target, identity: Identity | None) -> None:
        def end(value: Any, error: BaseException | None) -> None:
            self._settle(execution, value, error)
            if error is not None and not isinstance(error, (Exception, EngineStopped, ExecutionInterrupted)):
                logger.warning("Workflow %s was ended by %r and stays PENDING", execution.workflow_id, error)

        self.drivers.drive_in_background(self._background_plan(execution, target, identity), end)

    async def _execute_async(self, execution: Execution, target: Target, identity: Identity | None) -> None:
        try:
            value = await self.drivers.drive_async(self._background_plan(execution, target, identity))
        except asyncio.CancelledError:
            # The loop ends: like a crash, the row stays PENDING.
            self._settle(execution, None, EngineStopped())
            raise
        except BaseException as error:
            self._settle(execution, None, error)
        else:
            self._settle(execution, value, None)

    def _background_plan(self, execution: Execution, target: Target, identity: Identity | None) -> Plan[Any]:
        """Check the roles, then execute; a denial is the outcome (02 R188)."""
        identity = identity or Identity()
        try:
            check_roles(target.info, identity)
        except Exception as denied:
            yield Commit(outcome_record(execution, None, denied))
            raise
        return (yield from execute_plan(execution, target, identity))

    def _settle(self, execution: Execution, value: Any, error: BaseException | None) -> None:
        self.leave(execution)
        if error is not None:
            error = public_error(error)
            if isinstance(error, Exception) and not self.stopping:
                logger.error("Workflow %s failed", execution.workflow_id, exc_info=error)
        execution.completion.settle(value, error)

    # --- claimed workflows

    def dispatch(self, claimed: Sequence[ClaimedWorkflow], recorded: dict[str, list[Any]]) -> None:
        """Start workflows this process has claimed; one that cannot start does not stop the others."""
        for number, workflow in enumerate(claimed, 1):
            if number % DISPATCHED_IN_A_TURN == 0:
                # Otherwise this thread keeps the interpreter for as long as others let it, and the journal, which has
                # the answer to a commit, waits.
                time.sleep(0)
            try:
                self._dispatch_one(workflow, recorded.get(workflow.workflow_id, []))
            except EngineStopped:
                raise
            except Exception:
                logger.exception("Workflow %s could not be started and stays PENDING", workflow.workflow_id)

    def _dispatch_one(self, workflow: ClaimedWorkflow, steps: list[StepRecord]) -> None:
        execution = Execution(
            self,
            workflow.workflow_id,
            workflow.name,
            workflow.owner_token,
            serialization=workflow.serialization,
            deadline_ms=workflow.deadline_ms,
            recorded={step.step_id: step for step in steps},
            known_until=STEP_WINDOW,
            queue_name=workflow.queue_name,
            partition_key=workflow.partition_key,
        )
        if not workflow.workflow_id.strip():
            self._end_undispatched(execution, DBOSRecoveryError(workflow.workflow_id, "the workflow id is empty"))
            return
        if workflow.inputs is None:
            missing = "it has no stored inputs: its row was written by another release, or they were removed"
            self._end_undispatched(execution, DBOSRecoveryError(workflow.workflow_id, missing))
            return
        if workflow.serialization in FORMATS_OF_OTHERS and not self.payloads.can_read(workflow.serialization):
            self._refuse_foreign(execution, workflow.serialization)
            return
        if not self.payloads.can_read(workflow.serialization):
            # A matter of configuration, not of the workflow: nothing is recorded, so another process may run it.
            logger.error(
                "Workflow %s is stored in the format %r, whose serializer is not configured here; it stays PENDING",
                workflow.workflow_id,
                workflow.serialization,
            )
            return
        try:
            args, kwargs = self.payloads.decode_arguments(workflow.inputs, workflow.serialization)
        except Exception as error:
            what = f"the inputs of workflow {workflow.workflow_id} ({workflow.name!r})"
            self._end_undispatched(execution, explain_unreadable(error, what, workflow.serialization))
            return
        info = self.registry.workflows.get(workflow.name)
        if info is None:
            raise DBOSWorkflowFunctionNotFoundError(
                workflow.workflow_id,
                f"workflow function {workflow.name!r} is not registered in this process: import its module before "
                f"DBOS.launch()",
            )
        if self._attempts_used_up(workflow, info):
            return
        try:
            format_name = workflow.serialization or self.payloads.configured_name
            args, kwargs = validated_arguments(info, args, kwargs, format_name)
        except Exception as error:
            self._end_undispatched(execution, error)
            return
        try:
            receiver = self.registry.find_receiver(info, workflow.class_name, workflow.config_name)
        except LookupError as error:
            raise DBOSWorkflowFunctionNotFoundError(workflow.workflow_id, str(error)) from None
        target = Target(info, info.function, args, kwargs, receiver, workflow.class_name, workflow.config_name)
        roles = workflow.authenticated_roles
        identity = Identity(workflow.authenticated_user, None if roles is None else list(roles))
        self.launch_in_background(Started(workflow.workflow_id, execution, identity), target)

    def _attempts_used_up(self, workflow: ClaimedWorkflow, info: WorkflowInfo) -> bool:
        allowed = info.max_recovery_attempts
        if allowed is None or workflow.recovery_attempts <= allowed + 1:
            return False
        logger.error("%s", MaxRecoveryAttemptsExceededError(workflow.workflow_id, allowed))
        self.drivers.read(
            lambda store: store.dead_letter(workflow.workflow_id, workflow.owner_token, self.clock.now_ms())
        )
        self.signals.fire("finished", workflow.workflow_id)
        return True

    def _end_undispatched(self, execution: Execution, error: Exception) -> None:
        """Record ERROR for a claimed workflow that can never run."""
        logger.error("Workflow %s cannot be executed", execution.workflow_id, exc_info=error)
        self.journal.commit(outcome_record(execution, None, error))

    def _refuse_foreign(self, execution: Execution, format_name: str) -> None:
        """Record ERROR, for everybody to read, for a claimed workflow in the own format of another language."""
        error = DBOSException(
            f"Workflow {execution.workflow_id} ({execution.name!r}) was enqueued in the format {format_name}, which "
            f"only the SDK for {FORMATS_OF_OTHERS[format_name]} can read, and was claimed by an application in Python. "
            f"Enqueue it in portable JSON (in TypeScript with `enqueuePortable`)."
        )
        logger.error("Workflow %s cannot be executed: %s", execution.workflow_id, error)
        record = WorkflowFinished(
            execution.workflow_id,
            execution.owner_token,
            "ERROR",
            None,
            self.payloads.encode_error_always(error, PORTABLE)[0],
            PORTABLE,
            self.dispatcher.shared_queue(execution.queue_name),
        )
        self.drivers.read(lambda store: store.refuse_workflow(record, self.clock.now_ms()))
        self.signals.fire("finished", execution.workflow_id)

    # --- versions

    def is_latest_version(self) -> bool:
        """Whether workflows without a version are for this process: it runs the latest, or none is registered."""
        now_ms = self.clock.now_ms()
        asked_at_ms, answer = self._latest
        if now_ms - asked_at_ms < LATEST_VERSION_MS:
            return answer
        promotions = self._promotions
        versions = self.store.list_versions(self.settings.name, 1)
        answer = not versions or versions[0]["version_name"] == self.application_version
        if promotions == self._promotions:
            # Otherwise the answer may be from before a promotion.
            self._latest = (now_ms, answer)
        return answer
