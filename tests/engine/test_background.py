"""A plan in the background does not keep its thread while its last record is committed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos.engine.clock import Clock
from dbos.engine.drivers import Drivers
from dbos.engine.errors import EngineStopped
from dbos.engine.journal import Entry, Journal
from dbos.engine.plans import Commit, Plan
from dbos.engine.signals import Signals
from dbos.engine.workers import Loops, Workers
from dbos.error import DBOSException
from dbos.records import Verdict
from tests.engine.test_journal import FakeStore, commit_in_thread
from tests.helpers import PATIENCE_SECONDS
from tests.storage.making import step


class End:
    """What the end of a plan in the background was told, and where."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, BaseException | None]] = []
        self.thread = ""
        self._reached = threading.Event()

    def __call__(self, value: Any, error: BaseException | None) -> None:
        self.told.append((value, error))
        self.thread = threading.current_thread().name
        self._reached.set()

    def wait(self) -> tuple[Any, BaseException | None]:
        assert self._reached.wait(PATIENCE_SECONDS)
        (told,) = self.told
        return told


@pytest.fixture
def fake() -> Iterator[FakeStore]:
    fake = FakeStore()
    yield fake
    fake.release()


@pytest.fixture
def journal(fake: FakeStore) -> Iterator[Journal]:
    journal = Journal(fake, Signals())  # type: ignore[arg-type]
    journal.start()
    yield journal
    fake.release()
    journal.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.stop()


@pytest.fixture
def drivers(fake: FakeStore, journal: Journal, workers: Workers) -> Drivers:
    return Drivers(fake, journal, Clock(), workers, Loops())  # type: ignore[arg-type]


@pytest.fixture
def run(drivers: Drivers, workers: Workers) -> Callable[[Plan[Any]], End]:
    """Run a plan on the pool."""

    def run(plan: Plan[Any]) -> End:
        end = End()
        workers.submit(lambda: drivers.drive_in_background(plan, end))
        return end

    return run


Run = Callable[[Plan[Any]], End]


def keep_busy(journal: Journal, fake: FakeStore) -> None:
    """A commit of somebody else is on its way, and stays there until the store is released."""
    fake.hold()
    commit_in_thread(journal, step("other", 1))
    fake.wait_for_commit()


def last(number: int) -> Plan[Any]:
    return (yield Commit(step("w", number), is_last=True))


def test_the_thread_serves_the_next_job_while_the_last_record_is_committed(
    journal: Journal, fake: FakeStore, workers: Workers, run: Run
) -> None:
    keep_busy(journal, fake)
    end = run(last(2))
    served = threading.Event()
    workers.submit(served.set)  # the pool has one thread
    assert served.wait(PATIENCE_SECONDS)
    assert not end.told, "a plan ends only when its record is durable"
    fake.release()
    assert end.wait() == (Verdict.APPLIED, None)
    assert end.thread == "caller" or end.thread.startswith("dbos-journal")


def test_to_an_idle_journal_the_thread_commits_itself(fake: FakeStore, run: Run) -> None:
    assert run(last(2)).wait() == (Verdict.APPLIED, None)
    assert fake.threads[0].startswith("dbos-executor")


def test_a_plan_that_ends_before_a_last_record_is_driven_as_ever(run: Run) -> None:
    def plan() -> Plan[Any]:
        return (yield Commit(step("w", 2)))

    def failing() -> Plan[Any]:
        yield Commit(step("w", 3))
        raise LookupError("mine")

    assert run(plan()).wait() == (Verdict.APPLIED, None)
    value, error = run(failing()).wait()
    assert value is None
    assert isinstance(error, LookupError)


def test_an_answer_that_asks_for_more_is_left_to_the_pool(journal: Journal, fake: FakeStore, run: Run) -> None:
    def plan() -> Plan[Any]:
        answer = yield Commit(step("w", 2), is_last=True)
        assert answer is Verdict.FENCED
        # What would wait for the thread that commits, if it ran there.
        return (yield Commit(step("w", 3)))

    fake.answers[2] = Verdict.FENCED
    keep_busy(journal, fake)
    end = run(plan())
    fake.release()
    assert end.wait() == (Verdict.APPLIED, None)
    assert end.thread.startswith("dbos-executor")


def test_a_refused_last_record_is_thrown_into_the_plan(journal: Journal, fake: FakeStore, run: Run) -> None:
    def plan() -> Plan[Any]:
        try:
            yield Commit(step("w", 2), is_last=True)
        except DBOSException:
            return (yield Commit(step("w", 3)))

    fake.refused = {2}
    keep_busy(journal, fake)
    end = run(plan())
    fake.release()
    assert end.wait() == (Verdict.APPLIED, None)


def test_whoever_ends_it_all_is_told_to_plans_whose_last_record_is_on_its_way(
    journal: Journal, fake: FakeStore, workers: Workers, run: Run
) -> None:
    keep_busy(journal, fake)
    fake.failures = [KeyError("the database is gone")] * 2
    end = run(last(2))
    handed_over = threading.Event()
    workers.submit(handed_over.set)
    assert handed_over.wait(PATIENCE_SECONDS)
    workers.stop()
    fake.release()
    value, error = end.wait()
    assert value is None
    assert isinstance(error, EngineStopped)


def test_after_the_journal_was_closed_a_last_record_meets_the_end(journal: Journal, drivers: Drivers) -> None:
    journal.close()
    end = End()
    drivers.drive_in_background(last(2), end)
    value, error = end.wait()
    assert value is None
    assert isinstance(error, EngineStopped)


def test_what_fails_after_a_commit_is_logged_and_holds_up_nobody(
    journal: Journal, fake: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    settled: list[Entry] = []
    done = threading.Event()

    def fail(entry: Entry) -> None:
        raise ZeroDivisionError("in what follows")

    def note(entry: Entry) -> None:
        settled.append(entry)
        done.set()

    keep_busy(journal, fake)
    with caplog.at_level(logging.ERROR, "dbos"):
        journal.commit_later(step("w", 2), fail)
        journal.commit_later(step("w", 3), note)
        fake.release()
        assert done.wait(PATIENCE_SECONDS)
    assert settled[0].answer is Verdict.APPLIED
    assert "What was to follow the commit" in caplog.text
