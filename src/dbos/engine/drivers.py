"""Carry plans out: on the calling thread, or on the running event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..logs import logger
from ..records import Verdict
from ..storage.store import Store, StoreUnavailable, StoreUnreachable
from .clock import Clock
from .errors import EngineStopped
from .journal import Entry, Journal, retry_pauses
from .plans import AttemptPreempted, AttemptTimedOut, Call, Commit, Effect, Pause, Plan, Read, Wait
from .signals import Waiter
from .workers import Loops, Workers

T = TypeVar("T")
# Told the result of a plan, or its error.
Ending = Callable[[T | None, BaseException | None], None]


class Drivers:
    """The two production drivers of one engine."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        clock: Clock,
        workers: Workers,
        loops: Loops,
        *,
        retry_connection_errors: bool = True,
    ) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._workers = workers
        self._loops = loops
        self._retry_connection_errors = retry_connection_errors
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let every plan that waits or retries end with EngineStopped."""
        self._stopping.set()

    # --- threads

    def drive(self, plan: Plan[T]) -> T:
        """Run a plan on this thread."""
        try:
            effect = plan.send(None)
            while True:
                effect = self._go_on(plan, effect)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def drive_in_background(self, plan: Plan[T], end: Ending[T]) -> None:
        """Run a plan on this thread of the pool, which is free again while the last record is committed.

        What remains then is done by the thread that commits for all, so it must not wait: anything but the expected
        answer is left to another thread of the pool. `end` is told the result or the error.
        """
        try:
            effect = plan.send(None)
            while type(effect) is not Commit or not effect.is_last:
                effect = self._go_on(plan, effect)
        except StopIteration as stop:
            end(stop.value, None)
        except BaseException as error:
            end(None, error)
        else:
            self._journal.commit_later(effect.record, lambda entry: self._conclude(plan, entry, end))

    def _conclude(self, plan: Plan[T], entry: Entry, end: Ending[T]) -> None:
        if entry.answer is Verdict.APPLIED:
            self._finish(plan, lambda: plan.send(Verdict.APPLIED), end)
            return

        def resume() -> Effect:
            try:
                answer = entry.result()
            except BaseException as error:
                return plan.throw(error)
            return plan.send(answer)

        try:
            self._workers.submit(lambda: self._finish(plan, resume, end))
        except EngineStopped as stopped:
            plan.close()
            end(None, stopped)

    def _finish(self, plan: Plan[T], resume: Callable[[], Effect], end: Ending[T]) -> None:
        try:
            effect = resume()
            while True:
                effect = self._go_on(plan, effect)
        except StopIteration as stop:
            end(stop.value, None)
        except BaseException as error:
            end(None, error)

    def _go_on(self, plan: Plan[Any], effect: Effect) -> Effect:
        """Perform an effect and give the plan the answer; the next effect."""
        try:
            if type(effect) is Call and not effect.is_async:
                answer = effect.function(*effect.args, **(effect.kwargs or {}))
            elif type(effect) is Commit:
                answer = self._journal.commit(effect.record)
            else:
                answer = self._perform(effect)
        except BaseException as error:
            return plan.throw(error)
        return plan.send(answer)

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Read):
            return self.read(effect.query)
        if isinstance(effect, Wait):
            with self._workers.idle():
                return self._sleep(effect.waiter, self._seconds_until(effect.until_ms))
        if isinstance(effect, Pause):
            with self._workers.idle():
                return self._sleep(effect.waiter, effect.seconds)
        if isinstance(effect, Call):
            with self._workers.idle():
                return self._loops.run(self._call_async(effect))
        raise AssertionError(f"not an effect: {effect!r}")

    def _sleep(self, waiter: Waiter, seconds: float | None) -> bool:
        fired = waiter.sleep(seconds)
        if self._stopping.is_set():
            raise EngineStopped()
        return fired

    def read(self, query: Callable[[Store], T]) -> T:
        """Ask the store until it answers."""
        pauses = retry_pauses()
        while True:
            try:
                return query(self._store)
            except StoreUnavailable as error:
                if self._stopping.is_set():
                    raise EngineStopped() from error
                if isinstance(error, StoreUnreachable) and not self._retry_connection_errors:
                    raise error.__cause__ or error
                seconds = next(pauses)
                logger.warning("System database unavailable, next try in %.1f s: %s", seconds, error)
                if self._stopping.wait(seconds):
                    raise EngineStopped() from error

    # --- the event loop

    async def drive_async(self, plan: Plan[T]) -> T:
        """Run a plan on the running event loop."""
        send, throw = plan.send, plan.throw
        try:
            effect = send(None)
            while True:
                try:
                    if type(effect) is Commit:
                        answer = await self._journal.commit_async(effect.record)
                    elif type(effect) is Call and effect.timeout_seconds is None and effect.preempt is None:
                        answer = await self._call_simply(effect)
                    else:
                        answer = await self._perform_async(effect)
                except BaseException as error:
                    effect = throw(error)
                else:
                    effect = send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _call_simply(self, effect: Call) -> Any:
        if effect.is_async:
            return await effect.function(*effect.args, **(effect.kwargs or {}))
        if effect.in_thread:
            return await self._loops.in_thread(effect.function, *effect.args, **(effect.kwargs or {}))
        return effect.function(*effect.args, **(effect.kwargs or {}))

    async def _perform_async(self, effect: Effect) -> Any:
        if isinstance(effect, Read):
            return await self._loops.in_thread(self.read, effect.query)
        if isinstance(effect, Wait):
            return await self._sleep_async(effect.waiter, self._seconds_until(effect.until_ms))
        if isinstance(effect, Pause):
            return await self._sleep_async(effect.waiter, effect.seconds)
        if isinstance(effect, Call):
            return await self._call_async(effect)
        raise AssertionError(f"not an effect: {effect!r}")

    async def _sleep_async(self, waiter: Waiter, seconds: float | None) -> bool:
        if not waiter.fired:
            await sleep_until_fired(waiter, seconds)
        if self._stopping.is_set():
            raise EngineStopped()
        return waiter.fired

    async def _call_async(self, effect: Call) -> Any:
        """An async attempt, with its time limit and its preemption."""
        if effect.timeout_seconds is None and effect.preempt is None:
            return await self._call_simply(effect)
        loop = asyncio.get_running_loop()
        task = loop.create_task(effect.function(*effect.args, **(effect.kwargs or {})))
        preempt = effect.preempt
        reason: list[str] = []

        def stop(why: str) -> None:
            if not task.done() and why not in reason:
                reason.append(why)
                task.cancel()

        timer = None
        if effect.timeout_seconds is not None:
            timer = loop.call_later(effect.timeout_seconds, stop, "timeout")
        if preempt is not None and not preempt.install(_on_loop(loop, lambda: stop("preempted"))):
            stop("preempted")
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # The workflow's own task is being cancelled: take the attempt with it.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if preempt is not None:
                preempt.install(None)
        if not reason:
            return task.result()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        if "preempted" in reason:
            raise AttemptPreempted()
        raise AttemptTimedOut(error)

    def _seconds_until(self, until_ms: int | None) -> float | None:
        if until_ms is None:
            return None
        return max(0.0, (until_ms - self._clock.now() * 1000) / 1000)


async def sleep_until_fired(waiter: Waiter, seconds: float | None) -> None:
    """Suspend this task until the waiter fires or the time is up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    if not waiter.install(_on_loop(loop, resolve)):
        return
    timer = None if seconds is None else loop.call_later(seconds, resolve)
    try:
        await future
    finally:
        waiter.install(None)
        if timer is not None:
            timer.cancel()


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> Callable[[], None]:
    """A callback that runs `function` on the loop, at once when it is called there."""

    def run() -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            function()
        else:
            try:
                loop.call_soon_threadsafe(function)
            except RuntimeError:
                logger.debug("A waiter was woken after its event loop had closed")

    return run
