"""The workflows under simulation: every operation there is, each in a shape whose outcome does not depend on timing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSConflictingWorkflowError,
    DBOSMaxStepRetriesExceeded,
    DBOSWorkflowIDInUseError,
)

from .process import POISON
from .world import Root, Scenario

Functions = dict[str, Callable[..., Any]]
SCENARIOS: list[Scenario] = []


def scenario(
    *roots: Root,
    expected: dict[str, Any],
    versions: int = 1,
    unstable: tuple[str, ...] = (),
    resumes: int = 0,
) -> Callable[[Callable[[int], Functions]], Callable[[int], Functions]]:
    def add(define: Callable[[int], Functions]) -> Callable[[int], Functions]:
        unstable_steps = frozenset({"DBOS.sleep", *unstable})
        SCENARIOS.append(
            Scenario(define.__name__, define, list(roots), expected, versions, unstable_steps, resumes)
        )
        return define

    return add


@scenario(Root("total", "w", (4,)), expected={"w": 20})
def sequence_of_steps(version: int) -> Functions:
    @DBOS.step(name="square")
    def square(number: int) -> int:
        return number * number

    @DBOS.step(name="add")
    def add(left: int, right: int) -> int:
        return left + right

    @DBOS.workflow(name="total")
    def total(number: int) -> int:
        result = add(square(number), number)
        assert DBOS.run_step({"name": "inline"}, lambda: result + 1) == 21
        return result

    return {"total": total}


@scenario(Root("flaky", "w"), expected={"w": ["third time", "gave up after 2", "boom", 3]})
def retries(version: int) -> Functions:
    @DBOS.step(name="third_time", retries_allowed=True, interval_seconds=2, max_attempts=5)
    def third_time() -> str:
        if DBOS.step_status.current_attempt < 2:
            raise ValueError("not yet")
        return "third time"

    @DBOS.step(name="never", retries_allowed=True, interval_seconds=1, max_attempts=2)
    def never() -> str:
        raise ValueError("never")

    @DBOS.step(name="fail")
    def fail() -> str:
        raise KeyError("boom")

    @DBOS.step(name="picky", retries_allowed=True, should_retry=lambda error: not isinstance(error, KeyError))
    def picky() -> int:
        raise KeyError("at once")

    @DBOS.workflow(name="flaky")
    def flaky() -> list[Any]:
        results: list[Any] = [third_time()]
        try:
            never()
        except DBOSMaxStepRetriesExceeded as error:
            results.append(f"gave up after {len(error.errors)}")
        try:
            fail()
        except KeyError as error:
            results.append(error.args[0])
        try:
            picky()
        except KeyError:
            results.append(3)
        return results

    return {"flaky": flaky}


@scenario(
    Root("uncaught", "w"),
    Root("exhausted", "x", in_background=True),
    Root("unserialisable", "y"),
    expected={"w": "ValueError: wrong", "x": "DBOSMaxStepRetriesExceeded", "y": "AttributeError"},
)
def uncaught_errors(version: int) -> Functions:
    @DBOS.step(name="wrong")
    def wrong() -> None:
        raise ValueError("wrong")

    @DBOS.step(name="never", retries_allowed=True, interval_seconds=1, max_attempts=2)
    def never() -> None:
        raise ValueError("never")

    @DBOS.step(name="fine")
    def fine() -> int:
        return 1

    @DBOS.step(name="strange")
    def strange() -> Any:
        return lambda: 1

    @DBOS.workflow(name="uncaught")
    def uncaught() -> None:
        fine()
        wrong()

    @DBOS.workflow(name="exhausted")
    def exhausted() -> None:
        never()

    @DBOS.workflow(name="unserialisable")
    def unserialisable() -> Any:
        fine()
        try:
            strange()
        except Exception:
            return lambda: 1

    return {"uncaught": uncaught, "exhausted": exhausted, "unserialisable": unserialisable}


@scenario(Root("parent", "p", (2,)), expected={"p": [4, 13, "child failed", "p-3"]})
def children(version: int) -> Functions:
    @DBOS.step(name="double")
    def double(number: int) -> int:
        return number * 2

    @DBOS.workflow(name="leaf")
    def leaf(number: int) -> int:
        return double(number)

    @DBOS.workflow(name="middle")
    def middle(number: int) -> int:
        handle = DBOS.start_workflow(leaf, number)
        return leaf(number + 1) + handle.get_result() + double(1)

    @DBOS.workflow(name="failing")
    def failing() -> None:
        raise ValueError("child failed")

    @DBOS.workflow(name="parent")
    def parent(number: int) -> list[Any]:
        results: list[Any] = [leaf(number)]
        handle = DBOS.start_workflow(middle, number)
        try:
            failing()
        except ValueError as error:
            results.append(str(error))
        results.insert(1, handle.get_result() + 1)
        results.append(handle.workflow_id)
        return results

    return {"parent": parent}


@scenario(Root("napping", "n"), Root("napping_async", "na"), expected={"n": 3, "na": 3})
def sleeping(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> int:
        return 1

    @DBOS.workflow(name="napping")
    def napping() -> int:
        first = one()
        DBOS.sleep(4)
        second = one()
        DBOS.sleep(2)
        return first + second + one()

    @DBOS.workflow(name="napping_async")
    async def napping_async() -> int:
        await DBOS.sleep_async(3)
        return one() + await DBOS.run_step_async(None, _two)

    return {"napping": napping, "napping_async": napping_async}


def _two() -> int:
    return 2


@scenario(Root("gathering", "g"), expected={"g": [[0, 1, 4, 9, 16], ["ab", "slow"], 7]})
def async_steps(version: int) -> Functions:
    @DBOS.step(name="square")
    async def square(number: int) -> int:
        await asyncio.sleep(number / 10)
        return number * number

    @DBOS.step(name="hasty", timeout_seconds=0.5)
    async def hasty() -> str:
        await asyncio.sleep(3)
        return "never"

    @DBOS.step(name="flaky", retries_allowed=True, interval_seconds=1, max_attempts=3)
    async def flaky() -> int:
        if DBOS.step_status.current_attempt == 0:
            raise ValueError("not yet")
        return 7

    async def join(left: str, right: str) -> str:
        await asyncio.sleep(0)
        return left + right

    @DBOS.workflow(name="gathering")
    async def gathering() -> Any:
        squares = list(await asyncio.gather(*(square(number) for number in range(5))))
        joined = await DBOS.run_step_async({"name": "join"}, join, "a", "b")
        try:
            late = await hasty()
        except Exception:
            late = "slow"
        return [squares, [joined, late], await flaky()]

    return {"gathering": gathering}


@scenario(Root("fan_out", "f"), expected={"f": [[1, 2, 3], 30, 21]})
def async_children(version: int) -> Functions:
    @DBOS.step(name="add_one")
    async def add_one(number: int) -> int:
        await asyncio.sleep(0.05)
        return number + 1

    @DBOS.workflow(name="leaf")
    async def leaf(number: int) -> int:
        return await add_one(number)

    @DBOS.workflow(name="two_steps")
    async def two_steps(number: int) -> int:
        await DBOS.sleep_async(number / 10)
        return await add_one(await add_one(number))

    @DBOS.workflow(name="sync_child")
    def sync_child() -> int:
        return 21

    @DBOS.workflow(name="fan_out")
    async def fan_out() -> Any:
        direct = list(await asyncio.gather(*(leaf(number) for number in range(3))))
        handles = [await DBOS.start_workflow_async(two_steps, number) for number in (7, 8, 9)]
        total = sum(await asyncio.gather(*(handle.get_result() for handle in handles)))
        sync_handle = await DBOS.start_workflow_async(sync_child)
        return [direct, total, await sync_handle.get_result()]

    return {"fan_out": fan_out}


@scenario(Root("reserving", "r"), Root("reserving_async", "ra"), expected={"r": [2, 1, 3], "ra": [2, 1]})
def reserved_steps(version: int) -> Functions:
    @DBOS.workflow(name="reserving")
    def reserving() -> list[int]:
        late = DBOS.reserve_step()
        early = DBOS.run_step({"name": "early"}, lambda: 2)
        return [early, late.run({"name": "late"}, lambda: 1), DBOS.run_step({"name": "last"}, lambda: 3)]

    async def one() -> int:
        return 1

    @DBOS.workflow(name="reserving_async")
    async def reserving_async() -> list[int]:
        late = DBOS.reserve_step()
        early = await DBOS.run_step_async({"name": "early"}, _two)
        return [early, await late.run_async({"name": "late"}, one)]

    return {"reserving": reserving, "reserving_async": reserving_async}


@scenario(
    Root("endless", "e", timeout_seconds=300),
    Root("endless_async", "ea", timeout_seconds=310),
    expected={"e": "DBOSAwaitedWorkflowCancelledError", "ea": "DBOSAwaitedWorkflowCancelledError"},
)
def timeouts(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> int:
        return 1

    @DBOS.workflow(name="endless_child")
    def endless_child() -> None:
        one()
        DBOS.sleep(5_000)
        one()

    @DBOS.workflow(name="endless")
    def endless() -> None:
        one()
        endless_child()

    @DBOS.step(name="one_async")
    async def one_async() -> int:
        return 1

    @DBOS.workflow(name="endless_async")
    async def endless_async() -> None:
        await one_async()
        await DBOS.sleep_async(5_000)
        await one_async()

    return {"endless": endless, "endless_async": endless_async}


@scenario(Root("patched", "w"), expected={"w": ["a", "old", "z"]}, versions=2)
def patches(version: int) -> Functions:
    @DBOS.workflow(name="patched")
    def patched() -> list[str]:
        results = [DBOS.run_step({"name": "first"}, lambda: "a")]
        if version == 1 and DBOS.patch("new-path"):
            results.append(DBOS.run_step({"name": "new"}, lambda: "new"))
        else:
            results.append(DBOS.run_step({"name": "old"}, lambda: "old"))
        results.append(DBOS.run_step({"name": "last"}, lambda: "z"))
        return results

    return {"patched": patched}


@scenario(Root("patched", "w"), expected={"w": ["a", "new", "z"]}, versions=2)
def deprecated_patches(version: int) -> Functions:
    @DBOS.workflow(name="patched")
    async def patched() -> list[str]:
        async def text(value: str) -> str:
            return value

        results = [await DBOS.run_step_async({"name": "first"}, text, "a")]
        if version == 0:
            assert await DBOS.patch_async("new-path")
        else:
            assert await DBOS.deprecate_patch_async("new-path")
        results.append(await DBOS.run_step_async({"name": "new"}, text, "new"))
        results.append(await DBOS.run_step_async({"name": "last"}, text, "z"))
        return results

    return {"patched": patched}


@scenario(
    Root("manager", "m"),
    expected={"m": ["found", "nothing", "done", 5, "done"]},
    unstable=("DBOS.getStatus", "DBOS.waitFirst", "DBOS.listWorkflowSteps"),
    resumes=1,
)
def management(version: int) -> Functions:
    @DBOS.step(name="one")
    def one() -> str:
        return "done"

    @DBOS.workflow(name="slow")
    def slow() -> str:
        one()
        DBOS.sleep(20)
        return one()

    @DBOS.workflow(name="quick")
    def quick() -> int:
        DBOS.sleep(1)
        return 5

    @DBOS.workflow(name="manager")
    def manager() -> list[Any]:
        with SetWorkflowID("slow-child"):
            slow_handle = DBOS.start_workflow(slow)
        quick_handle = DBOS.start_workflow(quick)
        status = DBOS.get_workflow_status("slow-child")
        nothing = DBOS.get_workflow_status("no-such-workflow")
        first = DBOS.wait_first([quick_handle, slow_handle])
        assert first.workflow_id in ("slow-child", quick_handle.workflow_id)
        DBOS.cancel_workflow("slow-child")
        DBOS.list_workflow_steps("slow-child")
        DBOS.resume_workflow("slow-child")
        result = DBOS.retrieve_workflow("slow-child").get_result()
        return [
            "found" if status else "missing",
            "something" if nothing else "nothing",
            result,
            quick_handle.get_result(),
            DBOS.get_result("slow-child"),
        ]

    return {"manager": manager}


@scenario(
    Root("canceller", "c"),
    expected={"c": ["cancelled", "DBOSAwaitedWorkflowCancelledError"]},
    unstable=("DBOS.getStatus",),
)
def cancelled_children(version: int) -> Functions:
    @DBOS.step(name="forever", preemptible=True)
    async def forever() -> None:
        await asyncio.sleep(4_000)

    @DBOS.workflow(name="victim")
    async def victim() -> None:
        await forever()

    @DBOS.workflow(name="canceller")
    async def canceller() -> list[str]:
        with SetWorkflowID("victim-1"):
            handle = await DBOS.start_workflow_async(victim)
        await DBOS.sleep_async(2)
        await DBOS.cancel_workflow_async("victim-1")
        try:
            await handle.get_result()
        except DBOSAwaitedWorkflowCancelledError as error:
            status = await handle.get_status()
            return [status.status.lower(), type(error).__name__]
        return []

    return {"canceller": canceller}


@scenario(Root("portable", "w", ({"a": 1}, [1, 2])), expected={"w": {"a": 1, "list": [1, 2], "child": "x"}})
def portable_serialization(version: int) -> Functions:
    @DBOS.step(name="merge")
    def merge(left: dict[str, Any], right: list[int]) -> dict[str, Any]:
        return {**left, "list": right}

    @DBOS.workflow(name="portable_child", serialization_type=WorkflowSerializationFormat.PORTABLE)
    def portable_child(text: str) -> str:
        return text

    @DBOS.workflow(name="portable", serialization_type=WorkflowSerializationFormat.PORTABLE)
    def portable(left: dict[str, Any], right: list[int]) -> dict[str, Any]:
        return {**merge(left, right), "child": portable_child("x")}

    return {"portable": portable}


@scenario(Root("Account.transfer", "w", (5,)), expected={"w": 108})
def configured_instances(version: int) -> Functions:
    @DBOS.dbos_class("Account")
    class Account(DBOSConfiguredInstance):
        def __init__(self, name: str, balance: int) -> None:
            super().__init__(name)
            self.balance = balance

        @DBOS.step(name="Account.read")
        def read(self) -> int:
            return self.balance

        @DBOS.workflow(name="Account.deposit")
        def deposit(self, amount: int) -> int:
            return self.read() + amount

        @DBOS.workflow(name="Account.transfer")
        def transfer(self, amount: int) -> int:
            return self.deposit(amount) + DBOS.start_workflow(self.deposit, 1).get_result() - 98

    account = Account("main", 100)
    return {"Account.transfer": account.transfer}


@scenario(
    *(Root("independent", f"i{number}", (number,), in_background=number % 2 == 0) for number in range(6)),
    expected={f"i{number}": number + 3 for number in range(6)},
)
def many_at_once(version: int) -> Functions:
    @DBOS.step(name="add_one")
    def add_one(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="independent")
    def independent(number: int) -> int:
        for _ in range(3):
            number = add_one(number)
        return number

    return {"independent": independent}


@scenario(
    Root("shared", "s", (1,)),
    Root("shared", "s", (1,), in_background=True),
    Root("attaching", "a"),
    Root("attaching", "b", in_background=True),
    expected={"s": 2, "a": ["refused", "other function", 7], "b": ["refused", "other function", 7]},
    unstable=("shared", "DBOS.getResult"),  # The refusal tells the status of the other workflow.
)
def shared_ids(version: int) -> Functions:
    @DBOS.step(name="add_one")
    def add_one(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="shared")
    def shared(number: int) -> int:
        return add_one(number)

    @DBOS.workflow(name="other")
    def other() -> None:
        pass

    @DBOS.workflow(name="attaching")
    def attaching() -> list[Any]:
        results: list[Any] = []
        with SetWorkflowID("common"):
            handle = DBOS.start_workflow(shared, 6)
        try:
            with SetWorkflowID("common", workflow_id_reuse_policy="reject"):
                shared(6)
        except DBOSWorkflowIDInUseError:
            results.append("refused")
        try:
            with SetWorkflowID("common"):
                DBOS.start_workflow(other)
        except DBOSConflictingWorkflowError:
            results.append("other function")
        return [*results, handle.get_result()]

    return {"shared": shared, "attaching": attaching}


@scenario(
    Root("poisoned", "p0"),
    *(Root("healthy", f"h{number}", (number,), in_background=number == 1) for number in range(4)),
    expected={"p0": ["DBOSException", 2], **{f"h{number}": number + 2 for number in range(4)}},
)
def refused_records(version: int) -> Functions:
    @DBOS.step(name=POISON)
    def poison() -> int:
        return 1

    @DBOS.step(name="add_one")
    def add_one(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="poisoned")
    def poisoned() -> list[Any]:
        add_one(0)
        try:
            poison()
        except Exception as error:
            return [type(error).__name__, add_one(1)]
        return []

    @DBOS.step(name="add_one_async")
    async def add_one_async(number: int) -> int:
        return number + 1

    @DBOS.workflow(name="healthy")
    async def healthy(number: int) -> int:
        return await add_one_async(await add_one_async(number))

    return {"poisoned": poisoned, "healthy": healthy}


@scenario(Root("waiting", "w"), expected={"w": [[0, 1], [2, 5], 5]})
def waiting_for_some(version: int) -> Functions:
    @DBOS.step(name="nap")
    async def nap(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    @DBOS.workflow(name="waiting")
    async def waiting() -> list[Any]:
        tasks = [asyncio.ensure_future(nap(seconds)) for seconds in (1, 2, 300)]
        done, pending = await DBOS.asyncio_wait(tasks[:2])
        positions = sorted(index for index, task in enumerate(tasks) if task in done)
        for task in tasks:
            task.cancel()
        late = [await nap(2), await nap(5)]
        return [positions, late, late[1]]

    return {"waiting": waiting}
