"""Ctrl-C hits the main thread wherever it is, also in the journal: nobody else may wait for ever because of it."""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from dbos.engine import feeds, signals
from dbos.engine import journal as journal_module
from dbos.engine.journal import Entry, Journal
from dbos.engine.signals import Signals, Waiter
from dbos.records import Answer, Record, Verdict, WorkflowFinished
from tests.engine.test_journal import Caller, FakeStore, arrived, commit_in_thread, wait_until
from tests.helpers import PATIENCE_SECONDS
from tests.storage.making import finish, start, step

FILES = {module.__file__ for module in (journal_module, signals, feeds)}


class Interrupts:
    """Raises KeyboardInterrupt in one thread at the n-th place of the library's own files: a call, line or return."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        return self._in_frame(frame, event, arg)

    def _in_frame(self, frame: FrameType, event: str, arg: Any) -> Any:
        # The line of a `with` block comes again when it is left. There CPython lets no interrupt in.
        is_with = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
        if event == "exception" or (event == "line" and is_with):
            return self._in_frame
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return self._in_frame

    @property
    def is_over(self) -> bool:
        """Whether there was no n-th place."""
        return self.count < self.at

    @contextmanager
    def on(self) -> Iterator[None]:
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)


class CrowdedStore(FakeStore):
    """While the first batch is committed, others come."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.crowd: Callable[[], list[Caller]] | None = None
        self.others: list[Caller] = []

    def let_others_come(self) -> list[Caller]:
        """The others; they come once."""
        with self._lock:
            crowd, self.crowd = self.crowd, None
            if crowd is not None:
                self.others = crowd()
            return self.others

    def commit(self, records: Sequence[Record]) -> list[Answer]:
        self.let_others_come()
        return super().commit(records)

    def has_finished(self) -> bool:
        return any(type(record) is WorkflowFinished for batch in self.batches for record in batch)


class Sleeper:
    """A thread that waits for the end of workflow `w`."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._waiter: Waiter | None = None
        self._caller = Caller(self._sleep)
        wait_until(lambda: self._waiter is not None and self._waiter._wake is not None)

    def _sleep(self) -> bool:
        with self._signals.watch(("finished", "w")) as self._waiter:
            return self._waiter.sleep(PATIENCE_SECONDS)

    def check(self, has_finished: bool) -> None:
        """It is awake if the workflow has ended."""
        if not has_finished:
            self._signals.fire("finished", "w")
        assert self._caller.result() is True


def places() -> Iterator[Interrupts]:
    """One place after the other, until there is none left."""
    interrupts = Interrupts(1)
    while True:
        yield interrupts
        if interrupts.is_over:
            return
        interrupts = Interrupts(interrupts.at + 1)


def prepared() -> tuple[CrowdedStore, Signals, Journal, Sleeper]:
    fake, signals = CrowdedStore(), Signals()
    journal = Journal(fake, signals)  # type: ignore[arg-type]
    journal.start()
    return fake, signals, journal, Sleeper(signals)


def check_at_rest(journal: Journal) -> None:
    assert journal.commit(step("w", 9)) is Verdict.APPLIED
    wait_until(lambda: journal._leader is None)
    assert (arrived(journal), len(journal._pending), journal._beside) == (0, 0, None)
    journal.close()
    assert journal._thread is not None
    assert not journal._thread.is_alive()


def test_wherever_a_thread_that_commits_is_interrupted_the_others_get_their_answers() -> None:
    seen = 0
    for interrupts in places():
        fake, _, journal, sleeper = prepared()
        fake.crowd = lambda: [commit_in_thread(journal, step("w", i)) for i in (1, 2)]

        def commit() -> Answer:
            with interrupts.on():
                return journal.commit(finish("w"))

        interrupted = Caller(commit)
        interrupted.thread.join(PATIENCE_SECONDS)
        assert isinstance(interrupted.error, KeyboardInterrupt) or interrupts.is_over
        # If they have not come yet, it was interrupted before it committed. The writer thread may do that for it.
        others = fake.let_others_come()
        assert [other.result() for other in others] == [Verdict.APPLIED] * 2, f"interrupted at place {interrupts.at}"
        check_at_rest(journal)
        sleeper.check(fake.has_finished())
        seen += 1
    assert seen > 40


def test_wherever_the_thread_of_an_outcome_is_interrupted_the_others_get_their_answers() -> None:
    """`commit_later`: what is to follow happens at most once."""
    for interrupts in places():
        fake, _, journal, sleeper = prepared()
        fake.crowd = lambda: [commit_in_thread(journal, step("w", i)) for i in (1, 2)]
        followed: list[Entry] = []

        def commit() -> None:
            with interrupts.on():
                journal.commit_later(finish("w"), followed.append)

        interrupted = Caller(commit)
        interrupted.thread.join(PATIENCE_SECONDS)
        others = fake.let_others_come()
        assert [other.result() for other in others] == [Verdict.APPLIED] * 2, f"interrupted at place {interrupts.at}"
        check_at_rest(journal)
        sleeper.check(fake.has_finished())
        assert len(followed) <= fake.has_finished()
    assert len(followed) == 1, "without an interrupt"


def test_wherever_a_start_beside_the_batch_is_interrupted_its_place_is_free_again() -> None:
    for interrupts in places():
        fake, _, journal, sleeper = prepared()
        fake.commits_in_parallel = True
        fake.hold()
        first = commit_in_thread(journal, finish("w"))
        fake.wait_for_commit()

        def commit() -> Answer:
            with interrupts.on():
                return journal.commit(start("a"))

        beside = Caller(commit)
        wait_until(lambda: not beside.thread.is_alive() or fake.entered.acquire(blocking=False))
        fake.release()
        beside.thread.join(PATIENCE_SECONDS)
        assert first.result() is Verdict.APPLIED
        wait_until(lambda: journal._beside is None)
        check_at_rest(journal)
        sleeper.check(True)


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_wherever_an_event_loop_is_interrupted_the_others_get_their_answers(is_busy: bool) -> None:
    """Its own tasks end with it."""
    for interrupts in places():
        fake, _, journal, sleeper = prepared()
        others: list[Caller] = []
        if is_busy:
            fake.hold()
            others.append(commit_in_thread(journal, finish("w")))
            fake.wait_for_commit()

        def run() -> None:
            loop = asyncio.new_event_loop()
            tasks = [loop.create_task(journal.commit_async(step("w", i))) for i in (1, 2, 3)]
            try:
                # Two turns of the loop: the tasks have handed over their records.
                with interrupts.on():
                    loop.run_until_complete(asyncio.sleep(0))
                    loop.run_until_complete(asyncio.sleep(0))
            except KeyboardInterrupt:
                pass
            # The interrupt may have left the loop about to stop.
            loop.call_soon(loop.stop)
            loop.run_forever()
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.close()

        Caller(run).result()
        others.append(Caller(lambda: journal.commit(step("w", 4))))
        fake.release()
        assert {other.result() for other in others} == {Verdict.APPLIED}, f"interrupted at place {interrupts.at}"
        check_at_rest(journal)
        sleeper.check(is_busy)
