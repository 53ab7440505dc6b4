"""Where the store commits in parallel, what depends on nothing does not wait for batches that are on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos.engine.clock import Clock
from dbos.engine.drivers import Drivers
from dbos.engine.journal import Journal
from dbos.engine.plans import Commit, Plan
from dbos.engine.signals import Signals
from dbos.engine.workers import Loops, Workers
from dbos.records import ParentStep, Record, Verdict
from tests.engine.test_background import End
from tests.engine.test_journal import Caller, FakeStore, commit_in_thread, wait_until
from tests.storage.making import finish, start, step

Busy = Callable[[Journal], Caller]


@pytest.fixture
def fake() -> Iterator[FakeStore]:
    fake = FakeStore()
    yield fake
    fake.release()


@pytest.fixture
def journals(fake: FakeStore) -> Iterator[tuple[Journal, Journal]]:
    first, second = Journal(fake, Signals()), Journal(fake, Signals())  # type: ignore[arg-type]
    first.start()
    second.start()
    yield first, second
    fake.release()
    first.close()
    second.close()


@pytest.fixture
def drivers(fake: FakeStore, journals: tuple[Journal, Journal]) -> Iterator[Drivers]:
    workers = Workers(1)
    yield Drivers(fake, *journals, Clock(), workers, Loops())  # type: ignore[arg-type]
    workers.stop()


@pytest.fixture
def keep_busy(fake: FakeStore) -> Busy:
    """A commit of somebody else is on its way in this journal, and stays there until the store is released."""

    fake.hold()

    def keep_busy(journal: Journal) -> Caller:
        caller = commit_in_thread(journal, step("other", 1))
        fake.wait_for_commit()
        return caller

    return keep_busy


def committing(record: Record, *, is_last: bool = False) -> Plan[Any]:
    return (yield Commit(record, is_last=is_last))


def test_a_start_is_committed_beside_a_batch(
    drivers: Drivers, journals: tuple[Journal, Journal], fake: FakeStore, keep_busy: Busy
) -> None:
    other = keep_busy(journals[0])
    beside = Caller(lambda: drivers.drive(committing(start("w"))))
    fake.wait_for_commit()
    fake.release()
    assert [other.result(), beside.result()] == [Verdict.APPLIED] * 2
    assert sorted([record.workflow_id for record in batch] for batch in fake.batches) == [["other"], ["w"]]


def test_a_start_goes_where_less_is_waiting(
    drivers: Drivers, journals: tuple[Journal, Journal], keep_busy: Busy
) -> None:
    first, second = journals
    assert (first.load, second.load) == (0, 0)
    callers = [keep_busy(first), keep_busy(second), commit_in_thread(first, step("other", 2))]
    assert (first.load, second.load) == (2, 1)
    for number, loads in enumerate([(2, 2), (3, 2), (3, 3)]):
        callers.append(Caller(lambda number=number: drivers.drive(committing(start(f"w{number}")))))  # type: ignore[misc]
        wait_until(lambda loads=loads: (first.load, second.load) == loads)  # type: ignore[misc]
    first._store.release()  # type: ignore[attr-defined]
    assert [caller.result() for caller in callers] == [Verdict.APPLIED] * 6
    wait_until(lambda: (first.load, second.load) == (0, 0))


@pytest.mark.parametrize("record", [step("w", 1), start("w", parent=ParentStep("p", "token", 1, 0, 0, False))])
def test_what_depends_on_its_workflow_stays_in_the_first_journal(
    drivers: Drivers, journals: tuple[Journal, Journal], fake: FakeStore, keep_busy: Busy, record: Record
) -> None:
    other = keep_busy(journals[0])
    waiting = Caller(lambda: drivers.drive(committing(record)))
    wait_until(lambda: journals[0].load == 2)
    fake.release()
    assert [other.result(), waiting.result()] == [Verdict.APPLIED] * 2


def test_the_outcome_of_a_workflow_in_the_background_goes_to_the_second_journal(
    drivers: Drivers, journals: tuple[Journal, Journal], fake: FakeStore, keep_busy: Busy
) -> None:
    other = keep_busy(journals[0])
    end = End()
    ending = Caller(lambda: drivers.drive_in_background(committing(finish("w"), is_last=True), end))
    fake.wait_for_commit()
    fake.release()
    assert (ending.result(), other.result()) == (None, Verdict.APPLIED)
    assert end.wait() == (Verdict.APPLIED, None)
