"""The pool of threads and the event loops."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dbos.engine.errors import EngineStopped
from dbos.engine.running_loop import refuse_running_loop
from dbos.engine.workers import Loops, Workers
from tests.helpers import PATIENCE_SECONDS

TAG: contextvars.ContextVar[str] = contextvars.ContextVar("TAG", default="none")


class Job:
    """A job that reports its start and ends, or waits, when it is told."""

    def __init__(self, workers: Workers, *, waits: bool = False) -> None:
        self.started, self.may_wait, self.waiting = threading.Event(), threading.Event(), threading.Event()
        self.may_return, self.returned, self.may_end, self.ended = (threading.Event() for _ in range(4))
        self.workers, self.waits = workers, waits
        workers.submit(self.run)

    def run(self) -> None:
        self.started.set()
        if self.waits:
            assert self.may_wait.wait(PATIENCE_SECONDS)
            with self.workers.idle():
                self.waiting.set()
                assert self.may_return.wait(PATIENCE_SECONDS)
            self.returned.set()
        assert self.may_end.wait(PATIENCE_SECONDS)
        self.ended.set()


def soon(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


def count_of_slots(workers: Workers, expected: int) -> None:
    """Until the pool has counted a job as ended, which happens right after its last line."""
    with workers._lock:
        pass
    turn = threading.Event()
    for _ in range(int(PATIENCE_SECONDS * 1000)):
        if workers.free_slots() == expected:
            return
        turn.wait(0.001)
    raise AssertionError(f"{workers.free_slots()} free slots, not {expected}")


@pytest.fixture
def make() -> Iterator[Callable[[int | None], Workers]]:
    made: list[Workers] = []

    def one(limit: int | None) -> Workers:
        made.append(Workers(limit))
        return made[-1]

    yield one
    for workers in made:
        workers.stop()


def test_without_a_limit_every_job_starts_at_once(make: Callable[[int | None], Workers]) -> None:
    workers = make(None)
    jobs = [Job(workers) for _ in range(50)]
    for job in jobs:
        soon(job.started)
    assert workers.free_slots() is None
    for job in jobs:
        job.may_end.set()


def test_no_more_jobs_run_than_the_limit_and_in_order(make: Callable[[int | None], Workers]) -> None:
    workers = make(2)
    assert workers.free_slots() == 2
    jobs = [Job(workers) for _ in range(4)]
    soon(jobs[0].started)
    soon(jobs[1].started)
    assert workers.free_slots() == 0
    assert workers._working == 2
    assert not jobs[2].started.is_set()
    jobs[1].may_end.set()
    soon(jobs[2].started)
    assert not jobs[3].started.is_set()
    for job in jobs:
        job.may_end.set()
    soon(jobs[3].ended)
    count_of_slots(workers, 2)


def test_a_thread_that_waits_does_not_count(make: Callable[[int | None], Workers]) -> None:
    workers = make(1)
    waiting = [Job(workers, waits=True) for _ in range(20)]
    for job in waiting:
        soon(job.started)
        job.may_wait.set()
        soon(job.waiting)
    count_of_slots(workers, 1)
    busy = Job(workers)
    soon(busy.started)
    busy.may_end.set()
    for job in waiting:
        job.may_return.set()
        job.may_end.set()
    for job in waiting:
        soon(job.ended)
    count_of_slots(workers, 1)


def test_who_has_waited_goes_on_before_new_jobs_and_within_the_limit(make: Callable[[int | None], Workers]) -> None:
    workers = make(1)
    waiting = Job(workers, waits=True)
    waiting.may_wait.set()
    soon(waiting.waiting)
    busy, later = Job(workers), Job(workers)
    soon(busy.started)
    waiting.may_return.set()
    turn = threading.Event()
    while workers._returning == 0:
        turn.wait(0.001)
    assert not waiting.returned.is_set()
    busy.may_end.set()
    soon(waiting.returned)
    assert not later.started.is_set()
    waiting.may_end.set()
    soon(later.started)
    later.may_end.set()


def test_waiting_on_a_thread_of_somebody_else_changes_no_count(make: Callable[[int | None], Workers]) -> None:
    workers = make(1)
    with workers.idle():
        assert workers.free_slots() == 1
    assert workers.free_slots() == 1


def test_stopping_drops_queued_jobs_and_lets_running_ones_go_on(make: Callable[[int | None], Workers]) -> None:
    workers = make(1)
    waiting = Job(workers, waits=True)
    waiting.may_wait.set()
    soon(waiting.waiting)
    busy, queued = Job(workers), Job(workers)
    soon(busy.started)
    waiting.may_return.set()
    workers.stop()
    soon(waiting.returned)  # the limit holds nobody back any more
    with pytest.raises(EngineStopped):
        workers.submit(lambda: None)
    waiting.may_end.set()
    busy.may_end.set()
    soon(busy.ended)
    soon(waiting.ended)
    assert not queued.started.is_set()
    workers.stop()


def test_a_job_runs_in_a_fresh_context_and_its_error_ends_nothing(
    make: Callable[[int | None], Workers], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    workers = make(1)
    seen: list[str] = []
    done = threading.Event()

    def fail() -> None:
        seen.append(TAG.get())
        TAG.set("left behind")
        raise ValueError("broken job")

    def after() -> None:
        seen.append(TAG.get())
        done.set()

    token = TAG.set("of the submitter")
    try:
        workers.submit(fail)
        workers.submit(after)
    finally:
        TAG.reset(token)
    soon(done)
    assert seen == ["none", "none"]
    assert "A background job ended with an error" in caplog.text


# --- event loops


@pytest.fixture
def loops() -> Iterator[Loops]:
    loops = Loops()
    yield loops
    loops.stop(PATIENCE_SECONDS)


def test_without_a_running_loop_one_of_our_own_is_used(loops: Loops) -> None:
    loops.adopt_running()

    async def where() -> str:
        return threading.current_thread().name

    assert loops.run(where()) == "dbos-loop"
    assert loops.submit(where()).result(PATIENCE_SECONDS) == "dbos-loop"
    assert loops.main() is loops.main()


async def test_the_running_loop_is_adopted_as_long_as_it_runs(loops: Loops) -> None:
    loops.adopt_running()
    assert loops.main() is asyncio.get_running_loop()

    def adopt_one_that_ends() -> None:
        async def adopt() -> None:
            loops.adopt_running()

        asyncio.run(adopt())

    await asyncio.to_thread(adopt_one_that_ends)
    assert loops.main() is not asyncio.get_running_loop()


async def test_waiting_for_the_loop_one_blocks_is_refused(loops: Loops) -> None:
    loops.adopt_running()

    async def nothing() -> None: ...

    with pytest.raises(RuntimeError, match="_async"):
        loops.run(nothing())
    with pytest.raises(RuntimeError, match=r"await get_result_async"):
        refuse_running_loop("get_result")


async def test_blocking_functions_run_off_the_loop_with_the_context(loops: Loops) -> None:
    token = TAG.set("mine")
    try:
        thread, tag = await loops.in_thread(lambda: (threading.current_thread(), TAG.get()))
    finally:
        TAG.reset(token)
    assert thread is not threading.current_thread()
    assert tag == "mine"


def test_stopping_cancels_what_runs_on_our_own_loop(loops: Loops) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    errors: list[BaseException] = []

    def wait() -> None:
        try:
            loops.run(forever())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    soon(started)
    loops.stop(PATIENCE_SECONDS)
    soon(cancelled)
    thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [EngineStopped]
    with pytest.raises(EngineStopped):
        loops.main()
    loops.stop(PATIENCE_SECONDS)


async def test_after_stopping_no_thread_is_given(loops: Loops) -> None:
    loops.stop(1)
    with pytest.raises(EngineStopped):
        await loops.in_thread(int)


async def test_a_task_whose_blocking_call_is_dropped_when_stopping_does_not_look_cancelled(loops: Loops) -> None:
    """A web server would write that it was cancelled, with a traceback, and not answer its client."""
    loops._threads = ThreadPoolExecutor(1)
    began, may_end = threading.Event(), threading.Event()

    def occupy() -> None:
        began.set()
        assert may_end.wait(PATIENCE_SECONDS)

    first = asyncio.create_task(loops.in_thread(occupy))
    waiting, cancelled = (asyncio.create_task(loops.in_thread(int)) for _ in range(2))
    while not began.is_set():
        await asyncio.sleep(0.001)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    loops.stop(1)
    with pytest.raises(EngineStopped):
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    may_end.set()
    await first
