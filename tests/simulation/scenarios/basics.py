"""Steps, retries, errors, children, formats, instances."""

from __future__ import annotations

from typing import Any

from dbos import DBOS, DBOSConfiguredInstance, WorkflowSerializationFormat
from dbos.error import DBOSMaxStepRetriesExceeded

from ..faulty_store import POISON
from ..world import Root
from .declaring import Functions, scenario


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
