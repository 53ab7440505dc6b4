"""Reserved step ids (02 section 2.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, StepReservation
from dbos.error import DBOSException
from tests.helpers import replay, step_names

Config = dict[str, Any]


def test_a_reserved_step_runs_later_at_its_id(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R19, R20."""
    runs: list[str] = []

    def work(value: str) -> str:
        runs.append(value)
        return f"{value} {DBOS.step_id}"

    @DBOS.workflow()
    def wf() -> list[Any]:
        first, second = DBOS.reserve_step(), DBOS.reserve_step()
        assert isinstance(first, StepReservation)
        third = DBOS.run_step({"name": "third"}, work, "c")
        return [
            second.run({"name": "second"}, work, "b"),
            first.run({"name": "first"}, work, "a"),
            third,
            first.step_id,
        ]

    with SetWorkflowID("w"):
        assert wf() == ["b 2", "a 1", "c 3", 1]
    assert step_names(database_url, "w") == {1: "first", 2: "second", 3: "third"}
    assert replay(config, "w") == ["b 2", "a 1", "c 3", 1]
    assert runs == ["c", "b", "a"]


async def test_reservations_fix_the_order_of_concurrent_sequences(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R22, R99: two sequences whose interleaving differs from run to run."""
    first_goes_last = [True]

    async def work(value: int) -> int:
        return value

    @DBOS.workflow()
    async def wf() -> list[int]:
        async def sequence(which: int) -> list[int]:
            reserved = reservations[which]
            if (which == 0) == first_goes_last[0]:
                await other.wait()
            found = [await reserved[n].run_async({"name": f"{which}.{n}"}, work, which * 10 + n) for n in range(2)]
            other.set()
            return found

        other = asyncio.Event()
        reservations = [[DBOS.reserve_step() for _ in range(2)] for _ in range(2)]
        one, two = await asyncio.gather(sequence(0), sequence(1))
        return one + two

    with SetWorkflowID("w"):
        assert await wf() == [0, 1, 10, 11]
    assert step_names(database_url, "w") == {1: "0.0", 2: "0.1", 3: "1.0", 4: "1.1"}
    first_goes_last[0] = False
    assert await asyncio.to_thread(replay, config, "w") == [0, 1, 10, 11]


def test_a_reservation_runs_once(app: type[DBOS]) -> None:
    """02 R21."""

    @DBOS.workflow()
    def wf() -> int:
        reservation = DBOS.reserve_step()
        value = reservation.run({"name": "s"}, lambda: 5)
        with pytest.raises(DBOSException, match="1"):
            reservation.run({"name": "s"}, lambda: 6)
        return value

    assert wf() == 5


def test_a_reservation_runs_only_in_its_own_workflow_code(app: type[DBOS]) -> None:
    """02 R21: it stays usable after a refusal, which names the id and the workflow."""
    held: list[StepReservation] = []

    @DBOS.workflow()
    def child() -> str:
        with pytest.raises(DBOSException, match="owner") as refused:
            held[0].run(None, lambda: None)
        assert "1" in str(refused.value)
        return "checked"

    @DBOS.workflow()
    def wf() -> list[Any]:
        held.append(DBOS.reserve_step())

        def in_step() -> str:
            with pytest.raises(DBOSException):
                held[0].run(None, lambda: None)
            return "checked"

        return [child(), DBOS.run_step({"name": "s"}, in_step), held[0].run({"name": "r"}, lambda: "ran")]

    with SetWorkflowID("owner"):
        assert wf() == ["checked", "checked", "ran"]
    with pytest.raises(DBOSException):
        held[0].run(None, lambda: None)


def test_a_reservation_that_is_never_run_leaves_a_gap(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R22."""

    @DBOS.workflow()
    def wf() -> int:
        DBOS.reserve_step()
        return DBOS.run_step({"name": "s"}, lambda: 5)

    with SetWorkflowID("w"):
        wf()
    assert step_names(database_url, "w") == {2: "s"}
    assert replay(config, "w") == 5


def test_reserving_elsewhere_is_refused(app: type[DBOS]) -> None:
    """02 R19, section 22: the context is reported."""

    def step() -> str:
        with pytest.raises(DBOSException, match="workflow"):
            DBOS.reserve_step()
        return "checked"

    @DBOS.workflow()
    def wf() -> str:
        return DBOS.run_step(None, step)

    assert wf() == "checked"
    with pytest.raises(DBOSException, match="workflow"):
        DBOS.reserve_step()


async def test_reserving_works_in_async_workflows_and_run_refuses_the_loop(app: type[DBOS], database_url: str) -> None:
    """02 R19, R20: a refused run leaves the reservation usable."""

    @DBOS.workflow()
    async def wf() -> int:
        reservation = DBOS.reserve_step()
        with pytest.raises(RuntimeError):
            reservation.run({"name": "s"}, lambda: 5)
        return await reservation.run_async({"name": "s"}, lambda: 5)

    with SetWorkflowID("w"):
        assert await wf() == 5
    assert step_names(database_url, "w") == {1: "s"}


def test_a_reservation_is_found_recorded_however_long_the_history_behind_it(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R20: a replay loads long histories in parts and must not forget what has not been replayed yet."""
    runs: list[str] = []

    @DBOS.workflow()
    async def wf() -> list[str]:
        reservation = DBOS.reserve_step()
        await asyncio.gather(*[DBOS.sleep_async(0.000001) for _ in range(1500)])
        return [
            await reservation.run_async({"name": "early id"}, lambda: runs.append("early") or "early"),
            await DBOS.run_step_async({"name": "late id"}, lambda: runs.append("late") or "late"),
        ]

    with SetWorkflowID("w"):
        assert DBOS.start_workflow(wf).get_result() == ["early", "late"]
    assert replay(config, "w") == ["early", "late"]
    assert runs == ["early", "late"]
