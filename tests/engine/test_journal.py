"""The journal: batches, answers, refused records, lost connections, back-pressure, closing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dbos.engine import journal as journal_module
from dbos.engine.errors import EngineStopped
from dbos.engine.journal import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Journal, retry_pauses
from dbos.engine.signals import Signals
from dbos.error import DBOSException
from dbos.records import Answer, ExistingWorkflow, Record, Verdict
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreFailed, StoreRefused, StoreUnavailable
from dbos.types import WorkflowOutcome
from tests.helpers import PATIENCE_SECONDS
from tests.storage.making import finish, start, step


class FakeStore:
    """Takes batches, only as many as the test allows, and remembers them."""

    commits_in_parallel = False

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []
        self.threads: list[str] = []
        self.refused: set[int] = set()
        self.failures: list[BaseException] = []
        self.answers: dict[int, Answer] = {}
        self.entered = threading.Semaphore(0)
        self.allowed = threading.Semaphore(10**6)

    def hold(self) -> None:
        """From now on a commit waits for `release`."""
        self.allowed = threading.Semaphore(0)

    def release(self, count: int = 10_000) -> None:
        self.allowed.release(count)

    def wait_for_commit(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_SECONDS)

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        self.entered.release()
        assert self.allowed.acquire(timeout=PATIENCE_SECONDS)
        self.batches.append(list(records))
        self.threads.append(threading.current_thread().name)
        if self.failures:
            raise self.failures.pop(0)
        numbers = [record.step_id for record in records if hasattr(record, "step_id")]
        if self.refused.intersection(numbers):
            raise StoreRefused("not this one")
        return [self.answers.get(getattr(record, "step_id", -1), Verdict.APPLIED) for record in records]

    def numbers(self) -> list[list[int]]:
        return [[getattr(record, "step_id", -1) for record in batch] for batch in self.batches]


@pytest.fixture
def fake() -> FakeStore:
    return FakeStore()


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def journal(fake: FakeStore, signals: Signals) -> Iterator[Journal]:
    journal = Journal(fake, signals)  # type: ignore[arg-type]
    journal.start()
    yield journal
    fake.release()
    journal.close()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FIRST_RETRY_SECONDS", 0.001)


class Caller:
    """A thread that calls something and keeps what came of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: BaseException | None = None
        self.function = function
        self.thread = threading.Thread(target=self._run, name="caller", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = self.function()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive(), "the caller was never woken"
        if self.error is not None:
            raise self.error
        return self.answer


def commit_in_thread(journal: Journal, record: Record) -> Caller:
    """A commit by another thread, which has arrived in the journal when this returns."""
    before = arrived(journal)
    caller = Caller(lambda: journal.commit(record))
    wait_until(lambda: arrived(journal) > before or not caller.thread.is_alive())
    return caller


def arrived(journal: Journal) -> int:
    with journal._lock:
        return journal._pending_bytes


def wait_until(condition: Callable[[], bool]) -> None:
    turn = threading.Event()
    for _ in range(int(PATIENCE_SECONDS * 1000)):
        if condition():
            return
        turn.wait(0.001)
    raise AssertionError("it never happened")


# --- batches


def test_a_lone_caller_commits_on_its_own_thread(journal: Journal, fake: FakeStore) -> None:
    for i in range(3):
        assert journal.commit(step("w", i)) is Verdict.APPLIED
    assert fake.numbers() == [[0], [1], [2]]
    assert set(fake.threads) == {threading.current_thread().name}


def test_what_arrives_during_a_commit_forms_the_next_batch(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    first = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    others = [commit_in_thread(journal, step("w", i)) for i in range(1, 6)]
    fake.release()
    assert [caller.result() for caller in [first, *others]] == [Verdict.APPLIED] * 6
    assert fake.numbers() == [[0], [1, 2, 3, 4, 5]]
    assert fake.threads == ["caller", "dbos-journal"]


def test_a_start_is_committed_beside_a_batch_where_the_store_can(journal: Journal, fake: FakeStore) -> None:
    fake.commits_in_parallel = True
    fake.hold()
    first = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    beside = Caller(lambda: journal.commit(start("a")))
    fake.wait_for_commit()
    # One at a time: the second start and the step wait for the next batch.
    others = [commit_in_thread(journal, record) for record in (start("b"), step("w", 1))]
    fake.release()
    assert [caller.result() for caller in [first, beside, *others]] == [Verdict.APPLIED] * 4
    assert sorted([record.workflow_id for record in batch] for batch in fake.batches) == [["a"], ["b", "w"], ["w"]]
    # The place beside the batches is free again.
    fake.hold()
    third = commit_in_thread(journal, step("w", 2))
    fake.wait_for_commit()
    again = Caller(lambda: journal.commit(start("c")))
    fake.wait_for_commit()
    fake.release()
    assert [third.result(), again.result()] == [Verdict.APPLIED] * 2
    assert len(fake.batches) == 5


def test_a_refused_start_beside_a_batch_leaves_the_place_free(journal: Journal, fake: FakeStore) -> None:
    fake.commits_in_parallel = True
    for _ in range(2):
        fake.hold()
        first = commit_in_thread(journal, step("w", 0))
        fake.wait_for_commit()
        fake.failures.append(StoreRefused("not this one"))
        beside = Caller(lambda: journal.commit(start("a")))
        fake.wait_for_commit()
        fake.release(1)
        wait_until(lambda: not fake.failures)
        fake.release()
        errors = [caller.error for caller in (first, beside) if caller.thread.join(PATIENCE_SECONDS) is None]
        assert sum(isinstance(error, DBOSException) for error in errors) == 1


def test_every_caller_gets_its_own_answer(journal: Journal, fake: FakeStore) -> None:
    met = ExistingWorkflow("PENDING", "n", None, None, None, None)
    fake.answers = {1: Verdict.FENCED, 2: met, 3: Verdict.REPEATED}
    fake.hold()
    callers = [commit_in_thread(journal, step("w", i)) for i in range(5)]
    fake.release()
    assert [c.result() for c in callers] == [Verdict.APPLIED, Verdict.FENCED, met, Verdict.REPEATED, Verdict.APPLIED]


def test_a_batch_is_limited_in_records_and_in_bytes(journal: Journal, fake: FakeStore) -> None:
    async def main() -> list[Answer]:
        fake.hold()
        first = asyncio.create_task(journal.commit_async(step("w", 0)))
        await asyncio.to_thread(fake.wait_for_commit)
        small = [asyncio.create_task(journal.commit_async(step("w", i))) for i in range(1, 1_500)]
        large = [
            asyncio.create_task(journal.commit_async(step("w", i, output="x" * (3 << 20)))) for i in range(2_000, 2_004)
        ]
        await asyncio.sleep(0)
        fake.release()
        return await asyncio.gather(first, *small, *large)

    assert set(asyncio.run(main())) == {Verdict.APPLIED}
    sizes = [len(batch) for batch in fake.batches]
    assert sizes[0] == 1
    assert max(sizes) == MAX_BATCH_RECORDS
    assert sum(sizes) == 1_504
    assert all(sum(r.size() for r in batch) <= MAX_BATCH_BYTES for batch in fake.batches)
    assert [i for batch in fake.numbers() for i in batch] == [*range(1_500), *range(2_000, 2_004)]


def test_a_record_larger_than_a_batch_travels_alone(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    callers = [commit_in_thread(journal, step("w", 0))]
    fake.wait_for_commit()
    callers += [
        commit_in_thread(journal, step("w", i, output="x" * size)) for i, size in ((1, 9), (2, 9 << 20), (3, 9))
    ]
    fake.release()
    assert {caller.result() for caller in callers} == {Verdict.APPLIED}
    assert fake.numbers() == [[0], [1], [2], [3]]


def test_several_event_loops_and_threads_share_the_batches(journal: Journal, fake: FakeStore) -> None:
    def run_loop(first: int) -> list[Answer]:
        async def main() -> list[Answer]:
            return await asyncio.gather(*(journal.commit_async(step("w", first + i)) for i in range(50)))

        return asyncio.run(main())

    callers = [Caller(lambda first=first: run_loop(first)) for first in (0, 50, 100)]  # type: ignore[misc]
    callers += [Caller(lambda: [journal.commit(step("w", 150 + i)) for i in range(50)])]
    assert [answer for caller in callers for answer in caller.result()] == [Verdict.APPLIED] * 200
    assert sorted(i for batch in fake.numbers() for i in batch) == list(range(200))
    assert journal._buffers == {}
    assert arrived(journal) == 0


async def test_a_cancelled_task_does_not_disturb_its_neighbours(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    tasks = [asyncio.create_task(journal.commit_async(step("w", i))) for i in range(4)]
    await asyncio.to_thread(fake.wait_for_commit)
    tasks[0].cancel()
    tasks[2].cancel()
    fake.release()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in found] == [asyncio.CancelledError, Verdict, asyncio.CancelledError, Verdict]
    # The record itself was on its way and is durable.
    assert sorted(i for batch in fake.numbers() for i in batch) == [0, 1, 2, 3]
    assert await journal.commit_async(step("w", 9)) is Verdict.APPLIED


def test_a_loop_that_ended_before_its_record_was_committed_harms_nobody(journal: Journal, fake: FakeStore) -> None:
    async def leave() -> None:
        task = asyncio.create_task(journal.commit_async(step("w", 0)))
        await asyncio.to_thread(fake.wait_for_commit)
        task.cancel()

    fake.hold()
    asyncio.run(leave())
    late = commit_in_thread(journal, step("w", 1))
    fake.release()
    assert late.result() is Verdict.APPLIED


def test_outcomes_are_published_only_when_they_were_applied(
    journal: Journal, fake: FakeStore, signals: Signals
) -> None:
    with signals.watch(("finished", "w")) as waiter:
        fake.answers = {-1: Verdict.FENCED}
        assert journal.commit(finish("w")) is Verdict.FENCED
        journal.commit(step("w", 1))
        assert not waiter.fired
        fake.answers = {}
        assert journal.commit(finish("w")) is Verdict.APPLIED
        assert waiter.fired
        assert waiter.value == WorkflowOutcome("w", "SUCCESS", "result of w", None, "py_pickle")


# --- trouble


@pytest.mark.parametrize("poisoned", [{0}, {7}, {3}, {2, 3, 6}, set(range(8))], ids=repr)
def test_refused_records_are_isolated_by_halving(journal: Journal, fake: FakeStore, poisoned: set[int]) -> None:
    fake.hold()
    first = commit_in_thread(journal, step("w", 99))
    fake.wait_for_commit()
    callers = [commit_in_thread(journal, step(f"w{i}", i)) for i in range(8)]
    fake.refused = poisoned
    fake.release()
    assert first.result() is Verdict.APPLIED
    for i, caller in enumerate(callers):
        if i in poisoned:
            with pytest.raises(DBOSException, match=f"'w{i}'.*not this one"):
                caller.result()
        else:
            assert caller.result() is Verdict.APPLIED
    assert len(fake.batches) <= 1 + 1 + 2 * 3 * len(poisoned)
    good = [batch for batch in fake.numbers() if not poisoned.intersection(batch)]
    assert sorted(i for batch in good for i in batch) == sorted({*range(8), 99} - poisoned)


@pytest.mark.usefixtures("short_pauses")
def test_a_batch_of_unknown_outcome_is_repeated_as_it_was(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    first = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    callers = [first, *(commit_in_thread(journal, step("w", i)) for i in (1, 2))]
    fake.failures = [StoreUnavailable("lost") for _ in range(3)]
    fake.release()
    assert [caller.result() for caller in callers] == [Verdict.APPLIED] * 3
    assert fake.numbers() == [[0], [0], [0], [0], [1, 2]]


@pytest.mark.usefixtures("short_pauses")
def test_an_outage_in_the_middle_of_halving_is_waited_out(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    first = commit_in_thread(journal, step("w", 9))
    fake.wait_for_commit()
    callers = [commit_in_thread(journal, step("w", i)) for i in range(4)]
    fake.refused = {3}
    fake.release(1)
    assert first.result() is Verdict.APPLIED
    fake.failures = [StoreUnavailable("lost")]
    fake.release()
    assert [caller.result() for caller in callers[:3]] == [Verdict.APPLIED] * 3
    with pytest.raises(DBOSException):
        callers[3].result()


def test_an_error_of_the_database_reaches_every_caller_of_the_batch_and_nobody_later(
    journal: Journal, fake: FakeStore
) -> None:
    fake.hold()
    first = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    callers = [commit_in_thread(journal, step("w", i)) for i in (1, 2)]
    fake.release(1)
    assert first.result() is Verdict.APPLIED
    fake.failures = [StoreFailed("disk full")]
    fake.release()
    for caller in callers:
        with pytest.raises(StoreFailed, match="disk full"):
            caller.result()
    assert journal.commit(step("w", 3)) is Verdict.APPLIED


def test_an_interrupt_of_the_thread_that_commits_leaves_nobody_waiting(journal: Journal, fake: FakeStore) -> None:
    """Ctrl-C reaches the main thread wherever it is, also while it commits for others."""
    fake.hold()
    interrupted = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    others = [commit_in_thread(journal, step("w", i)) for i in (1, 2)]
    fake.failures = [KeyboardInterrupt()]
    fake.release()
    with pytest.raises(KeyboardInterrupt):
        interrupted.result()
    assert [caller.result() for caller in others] == [Verdict.APPLIED] * 2
    assert {i for batch in fake.numbers()[1:] for i in batch} == {0, 1, 2}, "what was interrupted is repeated"
    assert journal.commit(step("w", 3)) is Verdict.APPLIED
    assert arrived(journal) == 0


def test_pauses_double_up_to_a_minute_with_jitter() -> None:
    class Middle:
        def uniform(self, low: float, high: float) -> float:
            assert (low, high) == (0.5, 1.5)
            return (low + high) / 2

    pauses = retry_pauses(Middle())  # type: ignore[arg-type]
    found = [next(pauses) for _ in range(12)]
    assert found[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert found[-1] == 60.0


# --- back-pressure


def limited(fake: FakeStore, signals: Signals, records: int) -> Journal:
    journal = Journal(fake, signals, max_pending_bytes=records * step("w", 0, output="").size())  # type: ignore[arg-type]
    journal.start()
    return journal


def test_threads_wait_when_the_journal_is_full(fake: FakeStore, signals: Signals) -> None:
    journal = limited(fake, signals, 3)
    fake.hold()
    callers = [commit_in_thread(journal, step("w", i, output="")) for i in range(3)]
    late = [Caller(lambda i=i: journal.commit(step("w", i, output=""))) for i in range(3, 9)]  # type: ignore[misc]
    peak = 0
    for _ in range(9):
        wait_until(
            lambda: fake.entered.acquire(blocking=False) or not any(c.thread.is_alive() for c in [*callers, *late])
        )
        peak = max(peak, arrived(journal))
        fake.release(1)
    assert {caller.result() for caller in [*callers, *late]} == {Verdict.APPLIED}
    assert peak == journal._max_pending_bytes
    journal.close()


async def test_tasks_wait_when_the_journal_is_full(
    fake: FakeStore, signals: Signals, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    journal = limited(fake, signals, 3)
    fake.hold()
    tasks = [asyncio.create_task(journal.commit_async(step("w", i, output=""))) for i in range(40)]
    peak = 0
    while not all(task.done() for task in tasks):
        # Before and after the tasks' turn of the loop: neither may be over the limit.
        await asyncio.sleep(0)
        peak = max(peak, arrived(journal) + sum(buffer.size for buffer in journal._buffers.values()))
        if fake.entered.acquire(blocking=False):
            fake.release(1)
    assert {task.result() for task in tasks} == {Verdict.APPLIED}
    assert sorted(i for batch in fake.numbers() for i in batch) == list(range(40))
    assert peak == journal._max_pending_bytes
    warnings = {id(r) for r in caplog.records if r.levelno == logging.WARNING and "callers wait" in r.getMessage()}
    assert len(warnings) == 1, "said once, not by each caller"
    journal.close()


async def test_a_record_larger_than_the_limit_goes_through_alone(fake: FakeStore, signals: Signals) -> None:
    journal = limited(fake, signals, 1)
    large = step("w", 1, output="x" * 100_000)
    assert await journal.commit_async(large) is Verdict.APPLIED
    assert await asyncio.to_thread(journal.commit, large) is Verdict.APPLIED
    both = await asyncio.gather(journal.commit_async(large), journal.commit_async(large))
    assert both == [Verdict.APPLIED] * 2
    journal.close()


# --- closing


def test_closing_commits_what_is_pending_when_the_database_answers(journal: Journal, fake: FakeStore) -> None:
    fake.hold()
    callers = [commit_in_thread(journal, step("w", i)) for i in range(5)]
    fake.wait_for_commit()
    closer = Caller(journal.close)
    wait_until(journal._closing.is_set)
    fake.release()
    closer.result()
    assert [caller.result() for caller in callers] == [Verdict.APPLIED] * 5
    assert arrived(journal) == 0


def test_closing_during_an_outage_settles_everybody(journal: Journal, fake: FakeStore) -> None:
    fake.failures = [StoreUnavailable("lost") for _ in range(1000)]
    first = commit_in_thread(journal, step("w", 0))
    fake.wait_for_commit()
    others = [commit_in_thread(journal, step("w", i)) for i in range(1, 4)]
    loop_caller = Caller(lambda: asyncio.run(journal.commit_async(step("w", 4))))
    wait_until(lambda: arrived(journal) == sum(step("w", i).size() for i in range(5)))
    journal.close()
    for caller in [first, *others, loop_caller]:
        with pytest.raises(EngineStopped):
            caller.result()
    assert arrived(journal) == 0


def test_closing_settles_those_who_wait_for_room(fake: FakeStore, signals: Signals) -> None:
    journal = limited(fake, signals, 1)
    fake.failures = [StoreUnavailable("lost") for _ in range(1000)]
    first = commit_in_thread(journal, step("w", 0, output=""))
    fake.wait_for_commit()
    waiting = [
        Caller(lambda: journal.commit(step("w", 1, output=""))),
        Caller(lambda: asyncio.run(journal.commit_async(step("w", 2, output="")))),
    ]
    wait_until(lambda: journal._pressure_reported_at > 0)
    journal.close()
    for caller in [first, *waiting]:
        with pytest.raises(EngineStopped):
            caller.result()


async def test_after_closing_every_record_is_turned_away(journal: Journal, fake: FakeStore) -> None:
    journal.close()
    with pytest.raises(EngineStopped):
        journal.commit(step("w", 1))
    with pytest.raises(EngineStopped):
        await journal.commit_async(step("w", 1))
    assert fake.batches == []
    journal.close()


# --- with a real store


def test_many_workflows_of_threads_and_loops_on_a_real_store(store: SqlStore, signals: Signals) -> None:
    journal = Journal(store, signals)
    journal.start()

    def by_thread(name: str) -> list[Answer]:
        answers = [journal.commit(start(name))]
        answers += [journal.commit(step(name, i)) for i in range(1, 6)]
        return [*answers, journal.commit(finish(name))]

    async def by_task(name: str) -> list[Answer]:
        answers = [await journal.commit_async(start(name))]
        answers += await asyncio.gather(*(journal.commit_async(step(name, i)) for i in range(1, 6)))
        return [*answers, await journal.commit_async(finish(name))]

    async def tasks(prefix: str) -> list[Answer]:
        found = await asyncio.gather(*(by_task(f"{prefix}{i}") for i in range(20)))
        return [answer for answers in found for answer in answers]

    callers = [Caller(lambda name=f"t{i}": by_thread(name)) for i in range(6)]  # type: ignore[misc]
    callers += [Caller(lambda prefix=prefix: asyncio.run(tasks(prefix))) for prefix in ("a", "b")]  # type: ignore[misc]
    assert {answer for caller in callers for answer in caller.result()} == {Verdict.APPLIED}
    names = [f"t{i}" for i in range(6)] + [f"{p}{i}" for p in "ab" for i in range(20)]
    assert sorted(store.find_final(names)) == sorted(names)
    assert all([s.step_id for s in store.load_steps(names, 0, 9)[n]] == [1, 2, 3, 4, 5] for n in names)
    journal.close()
