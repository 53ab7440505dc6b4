"""Both drivers carry out the same plans with the same results."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from dbos.engine import journal as journal_module
from dbos.engine.clock import Clock
from dbos.engine.drivers import Drivers
from dbos.engine.errors import EngineStopped
from dbos.engine.journal import Journal
from dbos.engine.plans import AttemptPreempted, AttemptTimedOut, Call, Commit, Effect, Pause, Plan, Read, Wait
from dbos.engine.signals import Signals, Waiter
from dbos.engine.workers import Loops, Workers
from dbos.records import Verdict
from dbos.storage.store import StoreUnavailable
from tests.engine.test_journal import FakeStore
from tests.helpers import PATIENCE_SECONDS
from tests.storage.making import step

Drive = Callable[[Plan[Any]], Any]


@pytest.fixture
def loops() -> Iterator[Loops]:
    loops = Loops()
    yield loops
    loops.stop(PATIENCE_SECONDS)


@pytest.fixture
def fake() -> FakeStore:
    return FakeStore()


@pytest.fixture
def drivers(fake: FakeStore, loops: Loops) -> Iterator[Drivers]:
    journal = Journal(fake, Signals())  # type: ignore[arg-type]
    journal.start()
    workers = Workers(1)
    yield Drivers(fake, journal, Clock(), workers, loops)  # type: ignore[arg-type]
    workers.stop()
    journal.close()


@pytest.fixture(params=["thread", "loop"])
def drive(request: pytest.FixtureRequest, drivers: Drivers) -> Drive:
    if request.param == "thread":
        return drivers.drive
    return lambda plan: asyncio.run(drivers.drive_async(plan))


def yielding(effect: Effect) -> Generator[Effect, Any, Any]:
    return (yield effect)


async def answer_async(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_a_plan_gets_the_answer_to_each_effect(drive: Drive, fake: FakeStore) -> None:
    fired = Waiter()
    fired.fire()

    def plan() -> Plan[list[Any]]:
        return [
            (yield Commit(step("w", 1))),
            (yield Read(lambda store: store)),
            (yield Call(divmod, (7, 2))),
            (yield Call(dict, kwargs={"a": 1})),
            (yield Call(answer_async, (5,), is_async=True)),
            (yield Call(threading.get_ident, in_thread=True)) > 0,
            (yield Wait(fired)),
            (yield Wait(Waiter(), until_ms=1)),
            (yield Pause(0.0, Waiter())),
            (yield Pause(PATIENCE_SECONDS, fired)),
        ]

    expected = [Verdict.APPLIED, fake, (3, 1), {"a": 1}, 5, True, True, False, False, True]
    assert drive(plan()) == expected
    assert fake.numbers() == [[1]]


def test_an_error_of_an_effect_is_raised_where_the_plan_stands(drive: Drive) -> None:
    def fail() -> None:
        raise KeyError("inside")

    async def fail_async() -> None:
        raise KeyError("inside async")

    def plan() -> Plan[list[str]]:
        seen = []
        for effect in (Call(fail), Call(fail_async, is_async=True), Read(lambda store: fail())):
            try:
                yield effect
            except KeyError as error:
                seen.append(error.args[0])
        return seen

    assert drive(plan()) == ["inside", "inside async", "inside"]
    with pytest.raises(KeyError):
        drive(yielding(Call(fail)))


def test_a_read_is_repeated_until_the_database_answers(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FIRST_RETRY_SECONDS", 0.001)
    tries: list[int] = []

    def query(store: object) -> str:
        tries.append(1)
        if len(tries) < 4:
            raise StoreUnavailable("lost")
        return "answer"

    assert drive(yielding(Read(query))) == "answer"
    assert len(tries) == 4


def test_stopping_ends_reads_waits_and_pauses(drive: Drive, drivers: Drivers) -> None:
    def lost(store: object) -> None:
        drivers.stop()
        raise StoreUnavailable("lost")

    with pytest.raises(EngineStopped):
        drive(yielding(Read(lost)))
    fired = Waiter()
    fired.fire()
    for effect in (Wait(fired), Pause(PATIENCE_SECONDS, fired)):
        with pytest.raises(EngineStopped):
            drive(yielding(effect))


def test_a_wait_ends_when_it_is_fired_by_another_thread(drive: Drive) -> None:
    waiter = Waiter()
    threading.Timer(0.01, waiter.fire).start()
    assert drive(yielding(Wait(waiter))) is True


def test_a_wait_until_the_end_of_time_is_possible(drive: Drive) -> None:
    waiter = Waiter()
    threading.Timer(0.01, waiter.fire).start()
    assert drive(yielding(Wait(waiter, until_ms=2**63 - 1))) is True


def test_a_wait_never_ends_before_its_time(drive: Drive) -> None:
    until_ms = int(time.time() * 1000) + 30
    assert drive(yielding(Wait(Waiter(), until_ms=until_ms))) is False
    assert time.time() * 1000 >= until_ms - 1


def test_an_attempt_that_takes_too_long_is_cancelled(drive: Drive) -> None:
    cleaned: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    with pytest.raises(AttemptTimedOut) as caught:
        drive(yielding(Call(slow, is_async=True, timeout_seconds=0.01)))
    assert cleaned == ["up"]
    assert caught.value.cause is None
    with pytest.raises(AttemptTimedOut) as caught:
        drive(yielding(Call(stubborn, is_async=True, timeout_seconds=0.01)))
    assert isinstance(caught.value.cause, ValueError)
    assert drive(yielding(Call(answer_async, (3,), is_async=True, timeout_seconds=PATIENCE_SECONDS))) == 3


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_attempt_is_preempted_by_its_waiter(drive: Drive, when: str) -> None:
    preempt = Waiter()

    async def attempt() -> None:
        threading.Thread(target=preempt.fire).start()
        await asyncio.Event().wait()

    if when == "before":
        preempt.fire()
    with pytest.raises(AttemptPreempted):
        drive(yielding(Call(attempt, is_async=True, preempt=preempt)))
    assert drive(yielding(Call(answer_async, (3,), is_async=True, preempt=Waiter()))) == 3


async def test_cancelling_the_task_of_a_plan_takes_the_attempt_with_it(drivers: Drivers) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    async def attempt() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.create_task(
        drivers.drive_async(yielding(Call(attempt, is_async=True, timeout_seconds=PATIENCE_SECONDS)))
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


def test_a_thread_of_the_pool_does_not_count_while_its_plan_waits(drivers: Drivers) -> None:
    waiter, done = Waiter(), threading.Event()

    def waits() -> None:
        drivers.drive(yielding(Wait(waiter)))
        done.set()

    drivers._workers.submit(waits)
    drivers._workers.submit(waiter.fire)  # the limit is one thread at work
    assert done.wait(PATIENCE_SECONDS)
