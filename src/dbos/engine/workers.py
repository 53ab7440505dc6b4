"""Threads for sync workflows, and event loops for async ones.

The pool grows on demand up to a limit of threads at work. A thread that only waits (a durable sleep, a result) does
not count against the limit while it waits, so waiting workflows never keep others from running.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..logs import logger
from .errors import EngineStopped
from .running_loop import running_loop

T = TypeVar("T")
Job = Callable[[], None]

# How long a thread that has nothing to do waits for its next job before it goes back to the pool.
LINGER_SECONDS = 0.1


def _shut_down(threads: ThreadPoolExecutor) -> None:
    """End a pool's threads when they are done, and drop what waits for one.

    On a thread of its own: the pool's lock is not reentrant, and a signal handler that destroys may have interrupted
    the thread that holds it.
    """
    end = threading.Thread(target=threads.shutdown, kwargs={"wait": False, "cancel_futures": True}, daemon=True)
    end.start()


def _is_cancelled(task: asyncio.Task[Any] | None) -> bool:
    """Whether somebody has asked the task to end. Python 3.10 cannot tell: no."""
    return task is not None and sys.version_info >= (3, 11) and task.cancelling() > 0


# Which pool the running thread belongs to.
_thread = threading.local()


class Workers:
    """A pool of threads; `limit` counts threads at work, None means no limit."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        # Only a supply of threads: it starts one when none is idle, and ends them well with the interpreter.
        self._threads = ThreadPoolExecutor(max_workers=2**20, thread_name_prefix="dbos-executor")
        self._lock = threading.RLock()
        self._slot_freed = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        # To hand a job to a thread of the pool takes longer than many a workflow, so a thread that is done stays for a
        # moment: so many wait for what is handed to them. None sends one home.
        self._handed: SimpleQueue[Job | None] = SimpleQueue()
        self._lingering = 0
        self._working = 0  # threads that run a job and do not wait inside it
        self._returning = 0  # threads that have waited and want to go on
        self._stopped = False
        # Called when another job could begin at once.
        self.on_free: Callable[[], None] = lambda: None

    def submit(self, job: Job) -> None:
        """Run the job on a pool thread as soon as the limit allows."""
        with self._lock:
            if self._stopped:
                raise EngineStopped()
            self._jobs.append(job)
            self._dispatch()

    def free_slots(self) -> int | None:
        """How many more jobs could start now; None without a limit."""
        with self._lock:
            if self._limit is None:
                return None
            return max(0, self._limit - self._working - self._returning - len(self._jobs))

    @contextmanager
    def idle(self) -> Iterator[None]:
        """While this block waits, its thread does not count as working: in its own pool, whoever asks.

        So a workflow that waits through a client gives its place to others, too.
        """
        pool: Workers | None = getattr(_thread, "pool", None)
        if pool is None or pool._limit is None:
            yield
            return
        with pool._outside():
            yield

    @contextmanager
    def _outside(self) -> Iterator[None]:
        assert self._limit is not None
        self._leave()
        try:
            yield
        finally:
            with self._lock:
                self._returning += 1
                while self._working >= self._limit and not self._stopped:
                    self._slot_freed.wait()
                self._returning -= 1
                self._working += 1

    def stop(self) -> None:
        """Drop queued jobs; running ones go on."""
        with self._lock:
            self._stopped = True
            self._jobs.clear()
            self._slot_freed.notify_all()
            for _ in range(self._lingering):
                self._handed.put(None)
            self._lingering = 0
        _shut_down(self._threads)

    def _dispatch(self) -> None:
        """Hand jobs to threads as far as the limit allows; who has waited inside a job goes first."""
        if self._returning:
            self._slot_freed.notify()
        while self._jobs and not self._stopped:
            if self._limit is not None and self._working + self._returning >= self._limit:
                return
            self._working += 1
            job = self._jobs.popleft()
            if self._lingering:
                self._lingering -= 1
                self._handed.put(job)
            else:
                self._threads.submit(self._serve, job)

    def _serve(self, job: Job | None) -> None:
        """Run the job, and those that are handed over while this thread lingers."""
        _thread.pool = self
        while job is not None:
            self._run(job)
            job = self._next_job()

    def _next_job(self) -> Job | None:
        with self._lock:
            if self._stopped:
                return None
            self._lingering += 1
        try:
            return self._handed.get(timeout=LINGER_SECONDS)
        except Empty:
            pass
        with self._lock:
            if self._lingering:
                self._lingering -= 1
                return None
        # Whoever counted on this thread has put a job there.
        return self._handed.get()

    def _run(self, job: Job) -> None:
        try:
            # A fresh context: what the submitting code had set does not reach the workflow (02 R221).
            contextvars.Context().run(job)
        except BaseException:
            logger.exception("A background job ended with an error")
        finally:
            self._leave()

    def _leave(self) -> None:
        """A thread has stopped working, for now or for good."""
        with self._lock:
            self._working -= 1
            self._dispatch()
            free = self._limit is not None and self.free_slots() != 0
        if free:
            self.on_free()


class Loops:
    """The event loops the engine uses, and threads for the blocking calls of async code."""

    def __init__(self) -> None:
        self._adopted: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._own_thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._stopped = False
        self._threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="dbos-blocking")

    def adopt_running(self) -> None:
        """Use the loop this thread runs, if any, as long as it runs."""
        try:
            self._adopted = asyncio.get_running_loop()
        except RuntimeError:
            self._adopted = None

    def main(self) -> asyncio.AbstractEventLoop:
        """The adopted loop while it runs, else a loop on a thread of our own."""
        adopted = self._adopted
        if adopted is not None and adopted.is_running():
            return adopted
        with self._lock:
            if self._stopped:
                raise EngineStopped()
            if self._own is None:
                self._own = asyncio.new_event_loop()
                self._own_thread = threading.Thread(
                    target=self._run_own, args=(self._own,), name="dbos-loop", daemon=True
                )
                self._own_thread.start()
            return self._own

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.main())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the main loop and block until it is done."""
        try:
            loop = self.main()
            if running_loop() is loop:
                raise RuntimeError(
                    "This call would wait for a coroutine on the event loop it blocks. Use the _async form."
                )
        except BaseException:
            coroutine.close()
            raise
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        except FutureCancelledError as error:
            # The loop was shut down under the coroutine: like a crash, never an outcome (02 R259).
            raise EngineStopped() from error

    async def in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking function off the loop, with a copy of the context; EngineStopped if it is not run any more."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._threads, lambda: context.run(function, *args, **kwargs))
        except RuntimeError as error:
            raise EngineStopped() from error
        try:
            return await future
        except asyncio.CancelledError:
            # `stop` drops what waits for a thread. Nobody has cancelled the task then, and it must not look so.
            if self._stopped and not _is_cancelled(asyncio.current_task()):
                raise EngineStopped() from None
            raise

    def stop(self, timeout_seconds: float) -> None:
        """Cancel everything on our own loop and end its thread; an adopted loop is left alone."""
        with self._lock:
            self._stopped = True
            loop, thread = self._own, self._own_thread
            self._own = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(timeout_seconds)
        _shut_down(self._threads)

    def _run_own(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
